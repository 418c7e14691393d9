package store

import (
	"context"
	"time"
)

// Gates bound how many queued executions run at once and how fast they are
// begun, over all engines. A worker asks for admission after it has claimed an
// execution; one that must wait for others is parked: it waits outside the
// queue, so that thousands of them cost claims nothing.
type Gates interface {
	// Admit asks whether an execution that a lease holds may run. If it may, it
	// counts as running until it is settled, canceled, parked or deleted.
	// ErrConflict if the lease is lost.
	Admit(ctx context.Context, lease Lease, r Room, at time.Time) (Admission, error)
	// Unpark puts parked executions of a function back into the queue, due at at:
	// as many as there is room for, those with higher priorities first, then the
	// older ones. It returns how many.
	Unpark(ctx context.Context, project, function string, r Room, at time.Time) (n int, err error)
	// Parked returns up to limit functions that have parked executions: of one
	// project or, if that is empty, of all.
	Parked(ctx context.Context, project string, limit int) ([]FunctionRef, error)
}

// FunctionRef names a function.
type FunctionRef struct{ Project, ID string }

// Room says how many executions may run at once, and how fast they may begin.
// Zero: any number, as fast as they can.
type Room struct {
	Project      int // of the project
	Function     int // of the function
	Lane         int // of the function that have the same Lane; those without one do not count
	ProjectRate  Rate
	FunctionRate Rate
	LaneRate     Rate // of those that have the same Lane
}

// Rate is a bucket of Limit tokens that takes Period seconds to fill.
type Rate struct {
	Limit  int `json:"limit,omitempty"`
	Period int `json:"period,omitempty"`
}

// Take takes a token at a time from a bucket that is full again at full. It
// returns when there is one to take, and when the bucket is full again then.
func (r Rate) Take(full, at time.Time) (begin, next time.Time) {
	if full.Before(at) {
		full = at
	}
	period := time.Duration(r.Period) * time.Second
	next = full.Add(period / time.Duration(r.Limit))
	if begin = next.Add(-period); begin.Before(at) {
		begin = at
	}
	return begin, next
}

// Admission is the answer of Admit.
type Admission int

const (
	Admitted  Admission = iota
	Parked              // until Unpark: as many run as may
	Postponed           // back in the queue, due when its turn comes by a rate
)
