package store

import "errors"

// Errors of the contract. Backends wrap them; callers test with errors.Is.
var (
	// ErrNotFound: no such record in this project.
	ErrNotFound = errors.New("store: not found")
	// ErrExists: a record with this key exists already.
	ErrExists = errors.New("store: already exists")
	// ErrConflict: the record changed since it was read, see UpdateDeployment.
	ErrConflict = errors.New("store: conflict")
	// ErrCursor: the record a cursor names does not exist in the list.
	ErrCursor = errors.New("store: cursor not found")
	// ErrCursorNull: a cursor was used with an order attribute that is null
	// in the record the cursor names.
	ErrCursorNull = errors.New("store: cursor on a null attribute")
	// ErrQuery: the query names an attribute, operator or value the list does
	// not have. The engine checks queries first, so this is a bug or a caller
	// that skipped the check.
	ErrQuery = errors.New("store: invalid query")
	// ErrUnavailable: the backend cannot be reached, is read-only, full or too
	// slow; the same call may succeed later.
	ErrUnavailable = errors.New("store: unavailable")
)
