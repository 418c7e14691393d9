package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fnkit/fnkit/store"
)

// lifecycle is what an engine is in the middle of.
type lifecycle struct {
	mu      sync.Mutex
	state   state
	stepped bool          // running, but only in Step
	stopped chan struct{} // closed when Stop is done

	ctx    context.Context // of everything that runs; ends when draining has taken too long
	cancel context.CancelFunc
	claim  context.Context // of the loops; ends when Stop begins
	quit   context.CancelFunc
	group  sync.WaitGroup // loops, and the work they started
	calls  sync.WaitGroup // synchronous calls
	pulses pulses         // of the loops
}

type state int

const (
	created state = iota
	running
	stopping
	stopped
)

// errNotRunning is the answer of an engine that is not started, or stops.
func errNotRunning() error {
	return Errorf(TypeUnavailable, "This server does not run functions at the moment.")
}

// Start checks what the engine depends on and begins to work: builds, queued
// executions, and synchronous calls. It fails loudly: with a store that does
// not answer, a sandbox that cannot run or isolates less than
// Config.MinIsolation, a directory that cannot be used, or a store whose clock
// differs by more than a quarter of Work.Lease. ctx bounds only the checks.
func (e *Engine) Start(ctx context.Context) error {
	l := &e.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != created {
		return errors.New("engine: start: it was started before; make a new one")
	}
	if err := e.compareClocks(ctx); err != nil {
		return fmt.Errorf("engine: start: %w", err)
	}
	if err := e.begin(ctx); err != nil {
		return fmt.Errorf("engine: start: %w", err)
	}
	for _, loop := range loops {
		l.pulses.rests(loop, e.clock.Now())
	}
	l.group.Go(func() { e.builds.loop(l.claim, l.ctx) })
	l.group.Go(func() { e.runs.loop(l.claim, l.ctx) })
	l.group.Go(func() { e.schedules(l.claim) })
	l.group.Go(func() { e.unparks(l.claim) })
	l.group.Go(func() { e.listen(l.claim) })
	l.group.Go(func() { e.evict(l.claim) })
	l.group.Go(func() { e.housekeeping(l.claim) })
	l.group.Go(func() { e.warms(l.claim) })
	return nil
}

// begin checks what the engine depends on, and lets it run.
func (e *Engine) begin(ctx context.Context) error {
	if err := e.check(ctx); err != nil {
		return err
	}
	if err := e.artefacts.open(); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return e.packages.open(e.artefacts.dir) },
		func() error { return e.reap(ctx) },
		e.watch,
	} {
		if err := step(); err != nil {
			return errors.Join(err, e.artefacts.close())
		}
	}
	l := &e.life
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l.claim, l.quit = context.WithCancel(l.ctx)
	l.stopped = make(chan struct{})
	l.state = running
	return nil
}

// check asks the parts whether they can work.
func (e *Engine) check(ctx context.Context) error {
	if err := e.store.Ping(ctx); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	caps, err := e.Capabilities(ctx)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	least, _ := isolationByName(e.cfg.MinIsolation)
	if caps.Isolation < least {
		return fmt.Errorf("the sandbox %s isolates functions at level %q, and Config.MinIsolation asks for %q; "+
			"set MinIsolation to %[2]q only if you trust the code that is deployed", caps.Driver, caps.Isolation, e.cfg.MinIsolation)
	}
	return nil
}

// compareClocks measures how far the clock of the store's backend is ahead of
// this machine's. Leases end by the backend's, which all engines share; this
// engine sees those of others end as much too early or too late as its own is
// wrong, which must be well within the time that they have left when they are renewed.
// A clock of the host's own is not compared: it need not tell the time of day.
func (e *Engine) compareClocks(ctx context.Context) error {
	backend, ok := e.store.(store.Clock)
	if !ok || !e.machineClock {
		return nil
	}
	before := e.clock.Now()
	now, ok, err := backend.Now(ctx)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if !ok {
		return nil
	}
	unsure := e.clock.Now().Sub(before) / 2
	e.offset = now.Sub(before.Add(unsure))
	if limit := e.cfg.Work.Lease / 4; e.offset.Abs()-unsure > limit {
		return fmt.Errorf("the clock of the store is ahead of this machine's by %s; more than a quarter of Work.Lease, %s, is too much either way: set the clocks", e.offset.Round(time.Millisecond), limit)
	}
	return nil
}

// leaseEnd is when a lease ends that is taken or renewed now.
func (e *Engine) leaseEnd(now time.Time) time.Time {
	return now.Add(e.offset + e.cfg.Work.Lease)
}

// Stop ends the engine: it claims no more work, refuses new calls, waits for
// what runs until ctx ends, then cancels it; queued work that was cut off goes
// back to the queue. When it returns nothing of the engine runs any more, and
// the sandbox has no instances of it. Store, blobs, sandbox and bus stay open:
// they are the host's. It is safe before Start and more than once.
func (e *Engine) Stop(ctx context.Context) error {
	l := &e.life
	l.mu.Lock()
	switch l.state {
	case created:
		l.state = stopped
		l.mu.Unlock()
		return nil
	case running:
		l.state = stopping
		go e.shutDown()
	}
	done := l.stopped
	l.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		l.cancel()
		<-done
		return ctx.Err()
	}
}

// shutDown drains and releases everything, then closes stopped.
func (e *Engine) shutDown() {
	l := &e.life
	l.quit()
	e.unwatch()
	gone := e.pool.Close()
	l.calls.Wait()
	l.group.Wait()
	<-gone
	e.cool()
	l.cancel()
	if err := e.artefacts.close(); err != nil {
		e.cfg.Logger.Warn("remove engine directory", "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = stopped
	close(l.stopped)
}

// Run is Start, wait for ctx to end, Stop with up to grace for draining; if that was
// not enough, the error is context.DeadlineExceeded.
func (e *Engine) Run(ctx context.Context, grace time.Duration) error {
	if err := e.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	bounded, cancel := e.within(context.WithoutCancel(ctx), grace, context.DeadlineExceeded)
	defer cancel()
	if err := e.Stop(bounded); err != nil {
		return context.Cause(bounded)
	}
	return nil
}

// stopping returns a channel that is closed when the engine begins to stop; nil:
// it does not run.
func (e *Engine) stopping() (<-chan struct{}, error) {
	e.life.mu.Lock()
	defer e.life.mu.Unlock()
	switch e.life.state {
	case created:
		return nil, nil
	case running:
		return e.life.claim.Done(), nil
	}
	return nil, errNotRunning()
}

// call begins a synchronous call and returns the context it runs on; the
// caller calls done when it is over.
func (e *Engine) call() (ctx context.Context, done func(), err error) {
	l := &e.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != running {
		return nil, nil, errNotRunning()
	}
	l.calls.Add(1)
	return l.ctx, l.calls.Done, nil
}

// evict stops idle instances as they become due.
func (e *Engine) evict(ctx context.Context) {
	idle := e.cfg.Instances.Idle
	for {
		now := e.clock.Now()
		e.life.pulses.rests("eviction", now)
		next, ok := e.pool.EvictIdle(now.Add(-idle))
		if !ok {
			next = now
		}
		wait := next.Add(idle).Sub(e.clock.Now())
		if wait <= 0 {
			continue
		}
		e.life.pulses.rests("eviction", e.clock.Now().Add(wait))
		timer := e.clock.Timer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}
