package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fnkit/fnkit/store"
)

// How many executions run at once and how fast they begin is limited per
// project, function and lane. Queued ones are counted in the store, over all
// engines, and wait; synchronous ones are counted by each engine, and refused.

// roomOf returns what the limits of a project and a function's policy leave
// room for.
func roomOf(l ProjectLimits, p Policy) store.Room {
	return store.Room{Project: l.Concurrency, Function: p.Concurrency, Lane: p.LaneConcurrency, ProjectRate: l.Rate, FunctionRate: p.Rate, LaneRate: p.LaneRate}
}

// errHeldBack: an execution that was claimed may not run yet, and was put where
// it waits.
var errHeldBack = errors.New("engine: held back")

// admit asks whether a claimed execution may run; if it may not yet, the error
// is errHeldBack. limited: others may be waiting for it to end.
func (e *Engine) admit(ctx context.Context, l store.Lease, x *Execution, k *known) (limited bool, err error) {
	limits, err := e.projectLimits(ctx, x.Project)
	if err != nil {
		return false, err
	}
	room := roomOf(limits, k.fn.Policy)
	if room == (store.Room{}) {
		return false, nil
	}
	switch a, err := e.store.Admit(ctx, l, room, e.now()); {
	case errors.Is(err, store.ErrConflict):
		return true, errHeldBack // somebody else has it
	case err != nil:
		return true, err
	case a != store.Admitted:
		return true, errHeldBack
	}
	return true, nil
}

// maxParked is how many functions with parked executions are looked at in one turn.
const maxParked = 1000

// unpark puts parked executions of a project, or of all, back into the queue as
// far as there is room for them, and reports whether there was.
func (e *Engine) unpark(ctx context.Context, project string) (did bool, err error) {
	refs, err := e.store.Parked(ctx, project, maxParked)
	if err != nil {
		return false, err
	}
	for _, ref := range refs {
		n, err := e.unparkOf(ctx, ref)
		if err != nil {
			return did, err
		}
		did = did || n > 0
	}
	if did {
		e.runs.wake()
	}
	return did, nil
}

func (e *Engine) unparkOf(ctx context.Context, ref store.FunctionRef) (int, error) {
	var room store.Room // of a function or project that is gone: they run, and fail
	var gone *Error
	limits, err := e.projectLimits(ctx, ref.Project)
	if err == nil {
		var k *known
		if k, err = e.resolve(ctx, ref.Project, ref.ID); err == nil {
			room = roomOf(limits, k.fn.Policy)
		}
	}
	if err != nil && (!errors.As(err, &gone) || gone.Kind != NotFound) {
		return 0, err
	}
	return e.store.Unpark(ctx, ref.Project, ref.ID, room, e.now())
}

// unparks does that every Work.Poll, until ctx ends: an engine that would have
// done it may have died.
func (e *Engine) unparks(ctx context.Context) {
	for {
		e.life.pulses.rests("limits", e.clock.Now())
		asked, cancel := e.within(ctx, e.cfg.Work.Lease/3, errSlowStore)
		if _, err := e.unpark(asked, ""); err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("unpark executions", "error", err)
		}
		cancel()
		e.life.pulses.rests("limits", e.clock.Now().Add(e.cfg.Work.Poll))
		timer := e.clock.Timer(e.cfg.Work.Poll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// gauge counts the synchronous executions of this engine.
type gauge struct {
	mu     sync.Mutex
	inside map[lane]int
	full   map[lane]time.Time // when the bucket of a rate is full again
	tidy   int                // how many buckets there may be before full ones are dropped
}

// lane names what is counted together: with a name one of a function's lanes,
// without a function all of a project.
type lane struct{ project, function, name string }

// maxBuckets is how many buckets of rates there are at most: lanes are what
// callers say they are. Beyond that some begin anew.
const maxBuckets = 100_000

// enter counts a synchronous execution until leave is called, or returns why it
// must not begin.
func (g *gauge) enter(project, function, name string, r store.Room, now time.Time) (leave func(), err error) {
	if r == (store.Room{}) {
		return func() {}, nil
	}
	all, fn, own := lane{project, "", ""}, lane{project, function, ""}, lane{project, function, name}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case r.Project > 0 && g.inside[all] >= r.Project:
		return nil, Errorf(TypeBusy, "The project is at its limit of %d executions at once.", r.Project)
	case r.Function > 0 && g.inside[fn] >= r.Function:
		return nil, Errorf(TypeBusy, "The function is at its limit of %d executions at once.", r.Function)
	case name != "" && r.Lane > 0 && g.inside[own] >= r.Lane:
		return nil, Errorf(TypeBusy, "The lane %q is at its limit of %d executions at once.", name, r.Lane)
	}
	rates := map[lane]store.Rate{all: r.ProjectRate, fn: r.FunctionRate}
	if name != "" {
		rates[own] = r.LaneRate
	}
	if err := g.pay(rates, now); err != nil {
		return nil, err
	}
	counted := []lane{all, fn}
	if name != "" {
		counted = append(counted, own)
	}
	if g.inside == nil {
		g.inside = map[lane]int{}
	}
	for _, l := range counted {
		g.inside[l]++
	}
	return func() { g.leave(counted) }, nil
}

func (g *gauge) leave(counted []lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range counted {
		if g.inside[l]--; g.inside[l] == 0 {
			delete(g.inside, l)
		}
	}
}

// pay takes a token of every rate, or of none.
func (g *gauge) pay(rates map[lane]store.Rate, now time.Time) error {
	next := map[lane]time.Time{}
	for l, r := range rates {
		if r.Limit == 0 {
			continue
		}
		begin, full := r.Take(g.full[l], now)
		if begin.After(now) {
			return Errorf(TypeRateLimit, "Too fast: %d executions in %d seconds may begin. Please try again after %s.", r.Limit, r.Period, begin.Sub(now).Round(time.Millisecond))
		}
		next[l] = full
	}
	if g.full == nil {
		g.full = map[lane]time.Time{}
	}
	for l, full := range next {
		g.full[l] = full
	}
	if len(g.full) > max(g.tidy, minTidy) {
		g.tidyUp(now)
	}
	return nil
}

// minTidy is how many buckets are never too many.
const minTidy = 1000

// tidyUp drops buckets that are full, and is not called again before there are
// twice as many as are left then.
func (g *gauge) tidyUp(now time.Time) {
	for l, full := range g.full {
		if !full.After(now) {
			delete(g.full, l)
		}
	}
	for l := range g.full {
		if len(g.full) <= maxBuckets/2 {
			break
		}
		delete(g.full, l)
	}
	g.tidy = min(2*len(g.full), maxBuckets)
}

// backlog knows about how many executions of functions are queued.
type backlog struct {
	mu   sync.Mutex
	seen map[functionKey]queuedCount
}

type queuedCount struct {
	n       int // counted, and queued here since
	counted time.Time
}

// maxBacklogs is how many functions a backlog remembers.
const maxBacklogs = 10_000

// A count of the queue is made again after so long or, when the limit is near,
// after Work.MaxStaleness.
const backlogAge = time.Minute

// mayQueue refuses more executions of a function than Limits.Queued in the queue,
// about: rows are counted now and then, and other engines queue too.
func (p *Project) mayQueue(ctx context.Context, records store.Executions, function string, more int) error {
	now, key := p.e.clock.Now(), functionKey{p.id, function}
	n, fresh := p.e.backlog.add(key, more, now, p.e.cfg)
	if !fresh {
		// Those in work, too: that is what an index counts.
		waiting := []any{string(store.ExecutionWaiting), string(store.ExecutionScheduled), string(store.ExecutionProcessing)}
		found, err := records.CountExecutions(ctx, p.id, function, "", Query{Filters: []Filter{{Op: store.Equal, Attr: "status", Values: waiting}}}, p.e.cfg.Limits.Queued)
		if err != nil {
			p.e.backlog.forget(key)
			return fail(err, "")
		}
		n = p.e.backlog.counted(key, found+more, n)
	}
	if n > p.e.cfg.Limits.Queued {
		p.e.backlog.uncount(key, more)
		return Errorf(TypeBusy, "The function has its limit of %d executions in the queue. Please try again after some time.", p.e.cfg.Limits.Queued)
	}
	return nil
}

// add counts some more, and returns how many that makes; fresh is false if the
// caller has to count them in the store. Who comes meanwhile goes by what was
// known.
func (b *backlog) add(key functionKey, more int, now time.Time, c Config) (n int, fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, known := b.seen[key]
	age := now.Sub(have.counted)
	fresh = known && age >= 0 && age < backlogAge && (have.n < c.Limits.Queued/2 || age < c.Work.MaxStaleness)
	if !fresh {
		have.counted = now
	}
	if !known && len(b.seen) >= maxBacklogs || b.seen == nil {
		b.seen = map[functionKey]queuedCount{}
	}
	have.n += more
	b.seen[key] = have
	return have.n, fresh
}

// counted takes over what a caller found in the store, with his own, who had made it
// that many, and returns how many it is with those who came since.
func (b *backlog) counted(key functionKey, found, made int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, known := b.seen[key]
	if !known {
		return found
	}
	have.n = found + max(0, have.n-made)
	b.seen[key] = have
	return have.n
}

// uncount takes back what was counted and is not queued.
func (b *backlog) uncount(key functionKey, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if have, known := b.seen[key]; known {
		have.n = max(0, have.n-n)
		b.seen[key] = have
	}
}

// forget has the queue counted by the next caller.
func (b *backlog) forget(key functionKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.seen, key)
}
