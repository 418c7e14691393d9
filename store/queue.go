package store

import (
	"context"
	"time"
)

// Queue is a table seen as a queue of rows to work on. It is batch-shaped: one
// call serves many rows, and what happens to one never fails another.
//
// A row is in the queue while its ReadyAt is set: while it waits, ReadyAt is
// when it is due; while a worker holds it, ReadyAt is when the lease ends; a
// final row has none. So "due" and "lease expired" are one range of one column.
//
// Claim increments Attempt, which makes it the fencing token: Renew and Settle
// take effect only for the attempt that holds the row, so a worker that was
// paused past its lease cannot overwrite its successor. A claim of a row whose
// lease ended, because its worker died or was cut off, also increments Losses.
type Queue[T any] interface {
	// Claim takes up to p.Limit rows whose ReadyAt is not after p.Now, marks
	// them processing with the lease p.LeaseUntil and Attempt+1, and returns
	// them. It is fair over projects: a project gets at most its share of Limit
	// while others have due rows, starting after p.After in project order. Of one
	// project, those with higher priorities come first, then those due first. It
	// may take fewer rows than there are, but none only if none is due; what comes
	// due while others wait has its share in the claim after the next at the latest.
	// Concurrent claims never return the same row.
	Claim(ctx context.Context, p ClaimParams) ([]Claimed[T], error)
	// Renew extends leases to until and returns those that are lost: the row
	// is gone, final, or held by another attempt.
	Renew(ctx context.Context, leases []Lease, until time.Time) (lost []Lease, err error)
	// Settle writes rows back under their leases and returns those that were
	// lost, whose rows it left alone. A row with ReadyAt set stays in the queue:
	// status processing or building keeps the lease until ReadyAt, waiting puts
	// it back. A row without ReadyAt leaves the queue. An execution is not admitted
	// any more then, see Gates. Identity, CreatedAt,
	// Attempt and what only the API changes (Activate) are not written.
	Settle(ctx context.Context, rows []Settlement[T]) (lost []Lease, err error)
	// NextDue returns the earliest ReadyAt of the queue, over all projects; of rows
	// that are or were due already, that of any will do. ok is false if the queue is
	// empty.
	NextDue(ctx context.Context) (at time.Time, ok bool, err error)
	// Depth counts the rows that are due at now, up to max, without reading others.
	Depth(ctx context.Context, now time.Time, max int) (int, error)
}

// Waker is what a Store may be besides: it hears that other stores on the same
// backend have put rows into a queue, so that an engine need not poll often.
// Hints may come late, twice, for nothing or not at all; correctness MUST NOT
// depend on them.
type Waker interface {
	// Wakes returns a channel that gets a value when rows may have been queued,
	// and once as soon as the store listens. Values that nobody has taken yet
	// are not added to. The channel is closed when ctx ends, the store is closed
	// or the backend is lost; the caller polls then, and calls Wakes again. A
	// backend that gives no hints returns nil, on which nothing ever comes.
	Wakes(ctx context.Context) (<-chan struct{}, error)
}

// Clock is what a Store may be besides: its backend has a clock, which those who
// share the backend can compare theirs with.
type Clock interface {
	// Now returns the backend's time; ok is false if it has none of its own, as
	// a file has.
	Now(ctx context.Context) (now time.Time, ok bool, err error)
}

// Lessor is what a Store may be besides: its backend holds locks for a transaction
// that is under way, and lets go of them if its process stops in the middle.
type Lessor interface {
	// LeasesLast says that leases may end after d: by then it MUST have let go. It
	// does no I/O and may be called at any time and more than once; the shortest d
	// counts.
	LeasesLast(d time.Duration)
}

// ClaimParams say what to claim.
type ClaimParams struct {
	Now        time.Time
	LeaseUntil time.Time
	Limit      int    // at least 1
	After      string // project served last; empty: start with the first
}

// Lease is the right to work on one row until a time.
type Lease struct {
	Project string
	ID      string
	Attempt int
}

// Claimed is a row and the lease on it.
type Claimed[T any] struct {
	Lease Lease
	Row   T
}

// Settlement is the new state of a row held by a lease.
type Settlement[T any] struct {
	Lease Lease
	Row   T
}
