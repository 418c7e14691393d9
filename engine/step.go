package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fnkit/fnkit/store"
)

// Step does everything that is due now, on the caller's goroutine and one thing
// after the other, and returns when work is due next: an execution, a build or a
// schedule; the zero time if none is. did reports whether there was work; more
// may be due at once because of it. An engine with a mock clock is stepped
// instead of started:
//
//	next, did, err := eng.Step(ctx)     // do it all now, or
//	mock.Set(next)                      // go to when there is more
//
// The first Step checks what Start checks. Housekeeping, such as stopping idle
// instances, is done by the way and makes nothing due. An engine that was
// started cannot be stepped, nor the other way round; one goroutine steps at a
// time. Package enginetest has the loop around it.
func (e *Engine) Step(ctx context.Context) (next time.Time, did bool, err error) {
	if err := e.beginStep(ctx); err != nil {
		return time.Time{}, false, fmt.Errorf("engine: step: %w", err)
	}
	now := e.clock.Now()
	e.pool.EvictIdle(now.Add(-e.cfg.Instances.Idle))
	e.warm(ctx, now)
	e.keepHouse(ctx, now)
	unpark := func(ctx context.Context, _ time.Time) (bool, error) { return e.unpark(ctx, "") }
	for _, work := range []func(context.Context, time.Time) (bool, error){e.fire, unpark, e.builds.drain, e.runs.drain} {
		had, err := work(ctx, now)
		if err != nil {
			return time.Time{}, did, fmt.Errorf("engine: step: %w", err)
		}
		did = did || had
	}
	for _, nextDue := range []func(context.Context) (time.Time, bool, error){e.store.NextSchedule, e.store.Builds().NextDue, e.store.Runs().NextDue} {
		at, ok, err := nextDue(ctx)
		if err != nil {
			return time.Time{}, did, fmt.Errorf("engine: step: %w", err)
		}
		if ok && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, did, nil
}

// beginStep lets an engine run without loops, the first time.
func (e *Engine) beginStep(ctx context.Context) error {
	l := &e.life
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.state == created:
		l.stepped = true
		return e.begin(ctx)
	case l.state == running && l.stepped:
		return nil
	}
	return errors.New("the engine was started or stopped")
}

// drain claims what is due and works on it, one row after the other.
func (w *worker[T]) drain(ctx context.Context, now time.Time) (did bool, err error) {
	rows, err := w.queue.Claim(ctx, store.ClaimParams{Now: now, LeaseUntil: w.e.leaseEnd(now), Limit: w.slots, After: w.after})
	w.e.observe.claimed(w.name+"s", len(rows))
	for _, c := range rows {
		held, done := w.hold(ctx, c, false)
		w.handle(held, c)
		done()
	}
	w.turn(rows)
	return len(rows) > 0, err
}
