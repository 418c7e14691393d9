// Package store is the contract between the engine and whatever keeps its
// records: small interfaces, the records they carry, the query language and
// the errors. It imports only the standard library.
//
// A backend implements [Store] (records, queue, logs) or [Blobs] (archives and
// artefacts), or both, and proves itself with package storetest. The backends
// that ship with fnkit are sqlstore (SQL databases through bun) and dirblobs
// (a directory). A store may also be a [Waker].
//
// # Rules for every method
//
//   - Every method takes the project it works in and MUST NOT read, count,
//     return or change a record of another project.
//   - Times are arguments. A backend MUST NOT read a clock, its own or the
//     database's. Times are kept to the millisecond, in UTC; a zero time.Time
//     means "none".
//   - Methods may be called concurrently. None retries; a transient failure of
//     the backend is returned wrapped, so that errors.Is(err, ErrUnavailable)
//     holds, and the engine decides.
//   - A missing record is [ErrNotFound], a duplicate key [ErrExists].
//   - Ids, keys and the names of types and states are what the engine has
//     checked: letters, digits and a few signs. Other texts may hold anything;
//     a backend MAY replace what is no UTF-8, and NUL, and finds it by either.
//   - Returned slices and records belong to the caller.
package store
