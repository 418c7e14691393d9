package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/fnkit/fnkit/store"
)

// errLeaseLost ends the work on a row that another worker took over, or that
// was deleted or canceled.
var errLeaseLost = errors.New("engine: lease lost")

// errDeleted is the case in which this engine deleted the row.
var errDeleted = fmt.Errorf("%w: it was deleted", errLeaseLost)

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
	running int         // jobs that have a slot
	tries   map[row]int // of rows that failed through no fault of theirs
	after   string      // project served last
	renewAt time.Time   // when the leases are renewed next
}

type row struct{ project, id string }

// maxTries bounds how many rows tries counts; beyond, it begins anew.
const maxTries = 10_000

type job[T any] struct {
	row    T
	slot   bool // it has one; without, it is a guest, or its result is being written
	cancel context.CancelCauseFunc
	over   chan struct{} // closed when it is
}

func newWorker[T any](e *Engine, name string, q store.Queue[T], slots int, handle func(context.Context, store.Claimed[T])) *worker[T] {
	return &worker[T]{e: e, name: name, queue: q, slots: slots, handle: handle, wakeup: make(chan struct{}, 1), held: map[store.Lease]*job[T]{}, tries: map[row]int{}}
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
		ends := done(claim) // asked for before the step: it may end meanwhile
		runtime.Gosched()   // jobs that were claimed together end together: one claim fills their room
		next, more := w.step(claim, ctx, w.e.clock.Now())
		if claim.Err() != nil && w.busy() == 0 {
			return
		}
		w.e.life.pulses.rests(w.name+"s", next)
		wait := next.Sub(w.e.clock.Now())
		if more || wait <= 0 { // the step took long, or the clock was moved
			continue
		}
		timer := w.e.clock.Timer(wait)
		select {
		case <-timer.C:
		case <-w.wakeup:
		case <-ends:
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
// when to step again unless woken; more: there may be more to claim now.
func (w *worker[T]) step(claim, ctx context.Context, now time.Time) (next time.Time, more bool) {
	w.renew(ctx, now)
	next = now.Add(w.e.cfg.Work.Poll)
	if room := w.room(); room > 0 && claim.Err() == nil {
		asked, cancel := w.bounded(claim)
		defer cancel()
		rows, err := w.queue.Claim(asked, store.ClaimParams{Now: now, LeaseUntil: w.e.leaseEnd(now), Limit: room, After: w.after})
		if err != nil && claim.Err() == nil {
			w.e.cfg.Logger.Error("claim "+w.name+"s", "error", reason(asked, err))
		}
		w.e.observe.claimed(w.name+"s", len(rows))
		for _, c := range rows {
			w.start(ctx, c)
		}
		w.turn(rows)
		if len(rows) > 0 {
			return now, true
		}
		if due, ok, err := w.queue.NextDue(asked); err == nil && ok && due.Before(next) && due.After(now) {
			next = due
		}
	}
	return w.renewBefore(next), false
}

// bounded returns a context for asking the store. A store that hangs must not
// keep the worker from its leases for as long as they last.
func (w *worker[T]) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return w.e.within(ctx, w.e.cfg.Work.Lease/3, errSlowStore)
}

var errSlowStore = errors.New("engine: the store did not answer in time")

// reason returns why a context of bounded ended, if it did, or err.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
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
	ctx, done := w.hold(ctx, c, false)
	w.e.life.group.Go(func() {
		defer done()
		growStack(0)
		w.handle(ctx, c)
	})
}

// growStack makes room on the stack of a new goroutine at once. To do it bit by bit,
// deep in calls whose frames are moved each time, costs more than a short execution.
//
//go:noinline
func growStack(n int) byte {
	var room [12 << 10]byte
	room[n] = 1
	return room[n/2]
}

// hold notes that a row is worked on, whose lease is renewed until done is
// called. The context ends when it must not be worked on any more.
func (w *worker[T]) hold(ctx context.Context, c store.Claimed[T], guest bool) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	w.mu.Lock()
	w.held[c.Lease] = &job[T]{c.Row, !guest, cancel, over}
	if !guest {
		w.running++
	}
	if len(w.held) == 1 {
		w.renewAt = w.e.clock.Now().Add(w.e.cfg.Work.Lease / 3)
	}
	w.mu.Unlock()
	if guest {
		w.wake() // it may sleep for longer than the lease lasts
	}
	return ctx, func() {
		cancel(nil)
		w.mu.Lock()
		if w.held[c.Lease].slot {
			w.running--
		}
		delete(w.held, c.Lease)
		w.mu.Unlock()
		close(over)
		w.wake()
	}
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
	asked, cancel := w.bounded(context.WithoutCancel(ctx))
	defer cancel()
	lost, err := w.queue.Renew(asked, leases, w.e.leaseEnd(now))
	if err != nil {
		w.e.cfg.Logger.Error("renew leases of "+w.name+"s", "error", reason(asked, err))
		w.renewSoon()
	}
	w.e.observe.leasesLost(w.name+"s", len(lost))
	for _, l := range lost {
		w.lose(l)
	}
}

// renewSoon has leases renewed again at the next poll: they have less time left
// than usual.
func (w *worker[T]) renewSoon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.renewAt = w.e.clock.Now().Add(min(w.e.cfg.Work.Poll, w.e.cfg.Work.Lease/3))
}

// failed counts that the row of a lease failed through no fault of its own, and
// returns how often it has since this engine started. Attempts count more: also
// those that were put back because there was no room, or the engine stopped.
func (w *worker[T]) failed(l store.Lease) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tries) >= maxTries {
		clear(w.tries)
	}
	w.tries[row{l.Project, l.ID}]++
	return w.tries[row{l.Project, l.ID}]
}

// forget ends the counting for a row that is final.
func (w *worker[T]) forget(l store.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tries, row{l.Project, l.ID})
}

// lose ends the job of a lease.
func (w *worker[T]) lose(l store.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j := w.held[l]; j != nil {
		j.cancel(errLeaseLost)
	}
}

// cancelIf ends the jobs on rows that were deleted, which the function selects.
func (w *worker[T]) cancelIf(which func(T) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.held {
		if which(j.row) {
			j.cancel(errDeleted)
		}
	}
}

// end ends the job on a row for a cause and returns what is closed when it is
// over; nil: this worker has no such job.
func (w *worker[T]) end(r row, cause error) <-chan struct{} {
	j := w.job(r)
	if j == nil {
		return nil
	}
	j.cancel(cause)
	return j.over
}

// over returns what is closed when the job on a row is over; nil: this worker
// has no such job.
func (w *worker[T]) over(r row) <-chan struct{} {
	if j := w.job(r); j != nil {
		return j.over
	}
	return nil
}

// job returns the job on a row, or nil.
func (w *worker[T]) job(r row) *job[T] {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l, j := range w.held {
		if l.Project == r.project && l.ID == r.id {
			return j
		}
	}
	return nil
}

func (w *worker[T]) busy() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

// vacate gives the slot of a lease to the next job: of this one only the result
// is left to be written. The worker comes to claim when that is done, or half of
// the slots are free: what ends one after the other is not claimed one by one.
func (w *worker[T]) vacate(l store.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j := w.held[l]; j != nil && j.slot {
		j.slot = false
		w.running--
		if w.running <= w.slots/2 {
			w.wake()
		}
	}
}

// room is how many rows may be claimed: as many as there are slots, and fewer
// if results wait for the store, which must not pile up.
func (w *worker[T]) room() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return min(w.slots-w.running, 2*w.slots-len(w.held))
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

// persist writes what a job has achieved. While the store does not answer it
// tries again, as long as ctx, the job's, lasts; the lease is renewed meanwhile.
func (e *Engine) persist(ctx context.Context, write func(context.Context) error) error {
	for {
		err := write(context.WithoutCancel(ctx))
		if !errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		e.cfg.Logger.Warn("write a result", "error", err)
		timer := e.clock.Timer(e.cfg.Work.Poll)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
