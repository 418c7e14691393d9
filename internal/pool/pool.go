// Package pool hands out call slots on instances: it starts instances when
// callers wait for them, one start for many callers, keeps within caps per
// key, per project and in all, and makes room when one is needed elsewhere.
//
// All state is behind one mutex, and every change ends in dispatch, the only
// place that decides: serve who waits, start, make room.
package pool

import (
	"container/list"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

var (
	// ErrBusy: too many callers wait already.
	ErrBusy = errors.New("pool: too many callers are waiting")
	// ErrStopped: the pool takes no more callers.
	ErrStopped = errors.New("pool: stopped")
)

// Config are the limits of a pool and what it needs to end instances.
type Config struct {
	Max     int // instances in all, those that start or stop included
	PerKey  int // instances of one key
	Waiting int // callers waiting for one key
	// Residency is how long a busy instance may stay before it is drained so
	// that others get their share.
	Residency time.Duration
	Now       func() time.Time
	// Stop ends an instance; the pool calls it on a goroutine of its own, once
	// for each instance, after its last call.
	Stop func(id string)
}

// Key says which instances can replace each other.
type Key struct{ Project, Name string }

// Target is what a caller wants a slot on.
type Target struct {
	Key        Key
	PerProject int // instances the project may have
	Capacity   int // calls one instance takes at once
	// Start makes an instance and returns its id. It runs on a goroutine of the
	// pool's, on the pool's context.
	Start func(ctx context.Context) (id string, err error)
}

// Pool hands out slots; see New. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	ctx    context.Context // of starts
	cancel context.CancelFunc

	mu      sync.Mutex
	groups  map[Key]*group
	held    map[string]int // instances by project
	hungry  []*group       // want another instance, in turn
	total   int
	stopped bool
	empty   chan struct{} // closed once stopped and nothing is left
}

// group is the instances and waiters of one key.
type group struct {
	Target
	live     []*Instance // those that take calls
	size     int         // live, starting, draining and stopping
	starting int
	calls    int       // on live and draining instances
	freeing  int       // draining or stopping: room on its way
	stopping int       // of them, those without calls: room at once
	failed   bool      // the last start failed: the next caller tries again
	waiters  list.List // of *waiter
	queued   bool      // is in hungry
}

// Instance is a live instance; a caller holds one slot of it.
type Instance struct {
	ID       string
	group    *group
	busy     int
	born     time.Time
	idle     time.Time // since when, if busy is 0
	draining bool
	stopping bool
}

type waiter struct {
	place *list.Element // nil once served
	out   chan served   // has room for one
}

type served struct {
	in  *Instance
	err error
}

// New returns an empty pool.
func New(c Config) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool{cfg: c, ctx: ctx, cancel: cancel, groups: map[Key]*group{}, held: map[string]int{}, empty: make(chan struct{})}
}

// Acquire returns an instance with a slot for one call; the caller must give
// it back with Release. It fails with ErrBusy, ErrStopped, ctx's error, or the
// error of the start it waited for.
func (p *Pool) Acquire(ctx context.Context, t Target) (*Instance, error) {
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return nil, ErrStopped
	}
	if in := p.try(t); in != nil {
		p.mu.Unlock()
		return in, nil
	}
	g := p.groups[t.Key]
	if g == nil {
		g = &group{}
		p.groups[t.Key] = g
	}
	g.Target = t
	if g.waiters.Len() >= p.cfg.Waiting {
		p.mu.Unlock()
		return nil, ErrBusy
	}
	w := &waiter{out: make(chan served, 1)}
	w.place = g.waiters.PushBack(w)
	g.failed = false
	p.dispatch(g)
	p.mu.Unlock()
	select {
	case s := <-w.out:
		return s.in, s.err
	case <-ctx.Done():
		return nil, p.leave(g, w, ctx.Err())
	}
}

// Try is Acquire for who does not wait; nil: no slot is free.
func (p *Pool) Try(t Target) *Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.try(t)
}

func (p *Pool) try(t Target) *Instance {
	g := p.groups[t.Key]
	if g == nil {
		return nil
	}
	g.Target = t
	in := g.free()
	if in == nil || g.waiters.Len() > 0 {
		return nil
	}
	in.take()
	return in
}

// leave takes a waiter out that does not wait any more. If it was served at
// the same moment, the slot goes back.
func (p *Pool) leave(g *group, w *waiter, why error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.place != nil {
		g.waiters.Remove(w.place)
		p.dispatch(g)
	} else if s := <-w.out; s.in != nil {
		p.release(s.in, true)
	}
	return why
}

// Release gives a slot back. keep false retires the instance: it takes no new
// calls and is stopped after its last one.
func (p *Pool) Release(in *Instance, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(in, keep)
}

func (p *Pool) release(in *Instance, keep bool) {
	in.busy--
	in.group.calls--
	if in.busy == 0 {
		in.idle = p.cfg.Now()
	}
	if !keep || in.draining {
		p.drain(in)
	}
	p.dispatch(in.group)
}

// EvictIdle stops the instances that have been idle since before t, and
// returns when the next one will have been idle as long as they.
func (p *Pool) EvictIdle(t time.Time) (next time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.groups {
		for _, in := range slices.Clone(g.live) {
			switch {
			case in.busy > 0:
			case !in.idle.After(t):
				p.drain(in)
			case !ok || in.idle.Before(next):
				next, ok = in.idle, true
			}
		}
	}
	for p.advance() { // some may have stayed long enough by now
	}
	return next, ok
}

// Retire drains every instance whose key the function selects.
func (p *Pool) Retire(which func(Key) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, g := range p.groups {
		if which(k) {
			for _, in := range slices.Clone(g.live) {
				p.drain(in)
			}
			p.dispatch(g)
		}
	}
}

// Len returns how many instances there are, those that start or stop included.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// Usage is what the instances of one key do, and who waits for one.
type Usage struct {
	Key        Key
	PerProject int // of the last Target
	Capacity   int // of the last Target
	Starting   int // instances that cannot take calls yet
	Idle       int // that take calls and have none
	Busy       int // that have calls, and take more up to Capacity
	Draining   int // that take no more calls, or are being stopped
	Calls      int // on all of them
	Waiting    int // callers
}

// Usage returns that of every key that has an instance or a caller who waits,
// all of the same moment, in no order.
func (p *Pool) Usage() []Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Usage, 0, len(p.groups))
	for k, g := range p.groups {
		u := Usage{
			Key: k, PerProject: g.PerProject, Capacity: g.Capacity,
			Starting: g.starting, Draining: g.freeing, Calls: g.calls, Waiting: g.waiters.Len(),
		}
		for _, in := range g.live {
			if in.busy == 0 {
				u.Idle++
			} else {
				u.Busy++
			}
		}
		all = append(all, u)
	}
	return all
}

// Close refuses new callers, fails those who wait, and stops every instance:
// idle ones at once, busy ones after their last call. The channel is closed
// when all are gone. It may be called again.
func (p *Pool) Close() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return p.empty
	}
	p.stopped = true
	p.cancel()
	for _, g := range p.hungry {
		g.queued = false
	}
	p.hungry = nil
	for _, g := range p.groups {
		g.serveAll(served{err: ErrStopped})
		for _, in := range slices.Clone(g.live) {
			p.drain(in)
		}
	}
	if p.total == 0 {
		close(p.empty)
	}
	return p.empty
}

// dispatch serves g's waiters in turn, then gives instances to hungry groups as
// long as there is room or room can be made.
func (p *Pool) dispatch(g *group) {
	for g.waiters.Len() > 0 {
		in := g.free()
		if in == nil {
			break
		}
		in.take()
		g.serve(served{in: in})
	}
	p.enqueue(g)
	for p.advance() {
	}
	p.forget(g)
}

// enqueue puts a group that wants another instance at the end of the turn.
func (p *Pool) enqueue(g *group) {
	if !g.queued && p.wants(g) {
		g.queued = true
		p.hungry = append(p.hungry, g)
	}
}

// wants reports whether g may have another instance, room permitting, and has
// more waiters than the instances that are starting will serve. A failed start
// keeps it from growing while it has others to serve with.
func (p *Pool) wants(g *group) bool {
	return !p.stopped && g.size < p.cfg.PerKey && g.waiters.Len() > g.starting*g.Capacity &&
		!(g.failed && len(g.live)+g.starting > 0)
}

// advance makes one step for the hungry: an instance starts where there is
// room, or one is taken out of service where there is none. Projects that hold
// least come first, ties by turn. It reports whether there may be another step.
func (p *Pool) advance() bool {
	for _, g := range slices.Clone(p.hungry) {
		if !p.wants(g) {
			p.dequeue(g)
			p.forget(g)
		}
	}
	order := slices.Clone(p.hungry)
	slices.SortStableFunc(order, func(a, b *group) int { return p.held[a.Key.Project] - p.held[b.Key.Project] })
	for _, h := range order {
		if p.total < p.cfg.Max && !p.full(h) {
			p.dequeue(h)
			p.start(h)
			p.enqueue(h)
			return true
		}
	}
	for _, h := range order {
		if p.makeRoom(h) {
			return true
		}
	}
	return false
}

// full reports whether g's project has all the instances it may have.
func (p *Pool) full(g *group) bool { return p.held[g.Key.Project] >= g.PerProject }

func (p *Pool) dequeue(g *group) {
	g.queued = false
	p.hungry = slices.DeleteFunc(p.hungry, func(h *group) bool { return h == g })
}

// makeRoom takes an instance out of service for h, unless enough are on their
// way out: the one that has been idle longest, else the oldest busy one of
// those who hold more than h would. If h's project is full it must be one of
// the project's. A busy one on its way out may take long, so it does not spare
// an idle one.
func (p *Pool) makeRoom(h *group) bool {
	within := func(g *group) bool { return !p.full(h) || g.Key.Project == h.Key.Project }
	freeing, stopping := 0, 0
	var idle, busy *Instance
	for _, g := range p.groups {
		if !within(g) {
			continue
		}
		freeing += g.freeing
		stopping += g.stopping
		for _, in := range g.live {
			switch {
			case in.busy == 0 && g.waiters.Len() == 0:
				if idle == nil || in.idle.Before(idle.idle) {
					idle = in
				}
			case g != h && p.outweighs(g, h) && p.cfg.Now().Sub(in.born) >= p.cfg.Residency:
				if busy == nil || in.born.Before(busy.born) {
					busy = in
				}
			}
		}
	}
	wanted := 0
	for _, g := range p.hungry {
		if within(g) {
			wanted++
		}
	}
	switch {
	case idle != nil && stopping < wanted:
		p.drain(idle)
	case busy != nil && freeing < wanted:
		p.drain(busy)
	default:
		return false
	}
	return true
}

// outweighs reports whether h should have an instance of g's: it has none while
// g's side has several, or the shares become more even.
func (p *Pool) outweighs(g, h *group) bool {
	a, b := p.held[g.Key.Project], p.held[h.Key.Project]
	if g.Key.Project == h.Key.Project {
		a, b = g.size, h.size
	}
	return a > b+1 || h.size == 0 && a > b || h.size == 0 && g.size > 1 && a >= b
}

func (p *Pool) start(g *group) {
	g.starting++
	g.size++
	p.total++
	p.held[g.Key.Project]++
	start := g.Start
	go func() {
		id, err := start(p.ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.started(g, id, err)
	}()
}

// started takes note of the end of a start. One that failed fails the waiters
// only if nothing else can serve them.
func (p *Pool) started(g *group, id string, err error) {
	g.starting--
	if err != nil {
		g.failed = true
		if len(g.live) == 0 && g.starting == 0 {
			g.serveAll(served{err: err})
		}
		p.gone(g)
	} else {
		now := p.cfg.Now()
		in := &Instance{ID: id, group: g, born: now, idle: now}
		g.live = append(g.live, in)
		if p.stopped {
			p.drain(in)
		}
	}
	p.dispatch(g)
}

// drain takes an instance out of service; it stops now or after its last call.
func (p *Pool) drain(in *Instance) {
	if !in.draining {
		in.draining = true
		in.group.live = slices.DeleteFunc(in.group.live, func(x *Instance) bool { return x == in })
		in.group.freeing++
	}
	if in.busy > 0 || in.stopping {
		return
	}
	in.stopping = true
	in.group.stopping++
	go func() {
		p.cfg.Stop(in.ID)
		p.mu.Lock()
		defer p.mu.Unlock()
		in.group.freeing--
		in.group.stopping--
		p.gone(in.group)
		p.dispatch(in.group)
	}()
}

// gone gives the room of an instance back.
func (p *Pool) gone(g *group) {
	g.size--
	p.total--
	if p.held[g.Key.Project]--; p.held[g.Key.Project] == 0 {
		delete(p.held, g.Key.Project)
	}
	if p.stopped && p.total == 0 {
		close(p.empty)
	}
}

// forget drops a group that holds and wants nothing.
func (p *Pool) forget(g *group) {
	if g.size == 0 && g.waiters.Len() == 0 && !g.queued && p.groups[g.Key] == g {
		delete(p.groups, g.Key)
	}
}

// free returns an instance with a free slot. The first that has one fills up
// before the next, so that those behind become idle.
func (g *group) free() *Instance {
	for _, in := range g.live {
		if in.busy < g.Capacity {
			return in
		}
	}
	return nil
}

// take gives a slot to a call.
func (in *Instance) take() {
	in.busy++
	in.group.calls++
}

func (g *group) serve(s served) {
	w := g.waiters.Remove(g.waiters.Front()).(*waiter)
	w.place = nil
	w.out <- s
}

func (g *group) serveAll(s served) {
	for g.waiters.Len() > 0 {
		g.serve(s)
	}
}
