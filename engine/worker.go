package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fnkit/fnkit/store"
)

// errLeaseLost ends the work on a row that another worker took over, or that
// was deleted or canceled.
var errLeaseLost = errors.New("engine: lease lost")

// worker takes rows from a queue and works on them, up to a number at once. It
// sleeps until the next row is due; wake tells it that one came in.
type worker[T any] struct {
	e      *Engine
	name   string
	queue  store.Queue[T]
	slots  int
	handle func(ctx context.Context, c store.Claimed[T])
	wakeup chan struct{} // has room for one

	mu      sync.Mutex
	held    map[store.Lease]*job[T]
	after   string    // project served last
	renewAt time.Time // when the leases are renewed next
}

type job[T any] struct {
	row    T
	cancel context.CancelCauseFunc
}

func newWorker[T any](e *Engine, name string, q store.Queue[T], slots int, handle func(context.Context, store.Claimed[T])) *worker[T] {
	return &worker[T]{e: e, name: name, queue: q, slots: slots, handle: handle, wakeup: make(chan struct{}, 1), held: map[store.Lease]*job[T]{}}
}

// wake tells the worker that there may be work. It never blocks.
func (w *worker[T]) wake() {
	select {
	case w.wakeup <- struct{}{}:
	default:
	}
}

// loop steps until claim ends. Jobs run on ctx, owned by the engine's group;
// leases are renewed until the last one is done.
func (w *worker[T]) loop(claim, ctx context.Context) {
	for {
		next := w.step(claim, ctx, w.e.clock.Now())
		if claim.Err() != nil && w.busy() == 0 {
			return
		}
		timer := w.e.clock.Timer(max(next.Sub(w.e.clock.Now()), time.Millisecond))
		select {
		case <-timer.C:
		case <-w.wakeup:
		case <-done(claim):
		}
		timer.Stop()
	}
}

// done is the end of ctx, once: an ended one is not waited for again.
func done(ctx context.Context) <-chan struct{} {
	if ctx.Err() != nil {
		return nil
	}
	return ctx.Done()
}

// step renews leases that need it, claims what there is room for, and returns
// when to step again unless woken.
func (w *worker[T]) step(claim, ctx context.Context, now time.Time) time.Time {
	w.renew(ctx, now)
	next := now.Add(w.e.cfg.Work.Poll)
	if room := w.slots - w.busy(); room > 0 && claim.Err() == nil {
		rows, err := w.queue.Claim(claim, store.ClaimParams{Now: now, LeaseUntil: now.Add(w.e.cfg.Work.Lease), Limit: room, After: w.after})
		if err != nil && claim.Err() == nil {
			w.e.cfg.Logger.Error("claim "+w.name+"s", "error", err)
		}
		for _, c := range rows {
			w.start(ctx, c)
		}
		w.turn(rows)
		if len(rows) > 0 {
			return now // there may be more
		}
		if due, ok, err := w.queue.NextDue(claim); err == nil && ok && due.Before(next) && due.After(now) {
			next = due
		}
	}
	return w.renewBefore(next)
}

// turn moves the cursor behind the last project that was served, or back to the start.
func (w *worker[T]) turn(rows []store.Claimed[T]) {
	w.after = ""
	for _, c := range rows {
		w.after = max(w.after, c.Lease.Project)
	}
}

// start works on a claimed row on a goroutine of its own.
func (w *worker[T]) start(ctx context.Context, c store.Claimed[T]) {
	ctx, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	w.held[c.Lease] = &job[T]{c.Row, cancel}
	if len(w.held) == 1 {
		w.renewAt = w.e.clock.Now().Add(w.e.cfg.Work.Lease / 3)
	}
	w.mu.Unlock()
	w.e.life.group.Go(func() {
		defer func() {
			cancel(nil)
			w.mu.Lock()
			delete(w.held, c.Lease)
			w.mu.Unlock()
			w.wake()
		}()
		w.handle(ctx, c)
	})
}

// renew extends the leases of running jobs, and ends those whose lease is lost.
func (w *worker[T]) renew(ctx context.Context, now time.Time) {
	w.mu.Lock()
	var leases []store.Lease
	if now.Before(w.renewAt) || len(w.held) == 0 {
		w.mu.Unlock()
		return
	}
	for l := range w.held {
		leases = append(leases, l)
	}
	w.renewAt = now.Add(w.e.cfg.Work.Lease / 3)
	w.mu.Unlock()
	lost, err := w.queue.Renew(context.WithoutCancel(ctx), leases, now.Add(w.e.cfg.Work.Lease))
	if err != nil {
		w.e.cfg.Logger.Error("renew leases of "+w.name+"s", "error", err)
	}
	for _, l := range lost {
		w.lose(l)
	}
}

// lose ends the job of a lease.
func (w *worker[T]) lose(l store.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j := w.held[l]; j != nil {
		j.cancel(errLeaseLost)
	}
}

// cancelIf ends the jobs on rows that the function selects.
func (w *worker[T]) cancelIf(which func(T) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.held {
		if which(j.row) {
			j.cancel(errLeaseLost)
		}
	}
}

func (w *worker[T]) busy() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

// renewBefore returns when to step again: at next, or when leases are renewed.
func (w *worker[T]) renewBefore(next time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) > 0 && w.renewAt.Before(next) {
		return w.renewAt
	}
	return next
}
