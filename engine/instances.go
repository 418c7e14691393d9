package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/internal/pool"
	"github.com/fnkit/fnkit/sandbox"
)

// residency is how long a busy instance may stay when others need the room.
const residency = 5 * time.Second

func (e *Engine) newPool() *pool.Pool {
	in := e.cfg.Instances
	return pool.New(pool.Config{
		Max: in.Max, PerKey: in.PerDeployment, Waiting: in.Waiting, Residency: residency,
		Now: e.clock.Now, Stop: e.stopInstance,
	})
}

// patience returns the context of a wait. Most calls do without.
type patience func() (context.Context, context.CancelFunc)

// acquire returns an instance that has a slot for a call of k. It waits as long as
// waiting's context lasts. Errors: function_busy, general_service_unavailable,
// errLimit, the context's, and why an instance could not be started.
func (e *Engine) acquire(ctx context.Context, waiting patience, k *known) (*pool.Instance, error) {
	limits, err := e.projectLimits(ctx, k.fn.Project)
	if err != nil {
		return nil, err
	}
	in := e.cfg.Instances
	perProject := in.PerProject
	if limits.Instances > 0 {
		perProject = min(perProject, limits.Instances)
	}
	target := pool.Target{
		Key:        pool.Key{Project: k.fn.Project, Name: k.instanceKey()},
		PerProject: perProject,
		Capacity:   max(1, min(in.Concurrency, k.rt.Concurrency)),
		Start:      func(ctx context.Context) (string, error) { return e.startInstance(ctx, k) },
	}
	if slot := e.pool.Try(target); slot != nil {
		return slot, nil
	}
	ctx, cancel := waiting()
	defer cancel()
	slot, err := e.pool.Acquire(ctx, target)
	switch {
	case err == nil:
		return slot, nil
	case errors.Is(err, pool.ErrBusy):
		return nil, Errorf(TypeBusy, "")
	case errors.Is(err, pool.ErrStopped):
		return nil, errNotRunning()
	case context.Cause(ctx) == errWaited:
		return nil, Errorf(TypeBusy, "No instance of the function became free or ready within %s. Please try again after some time.", in.Wait)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, fail(err, "")
}

var errWaited = errors.New("engine: waited too long for an instance")

// startInstance makes an instance for k.
func (e *Engine) startInstance(ctx context.Context, k *known) (string, error) {
	began := e.clock.Now()
	e.demanded(k.rt, began, 1)
	id := ids.New(began)
	dir, release, err := e.code(ctx, k.dep)
	if err != nil {
		return "", err
	}
	ctx, cancel := e.within(ctx, e.cfg.Limits.StartTimeout, errStartTimeout)
	defer cancel()
	_, err = e.cfg.Sandbox.Start(ctx, sandbox.Spec{
		ID: id, Project: k.fn.Project, Function: k.fn.ID, Deployment: k.dep.ID,
		Runtime: k.fn.Runtime, Dir: dir, Entrypoint: k.dep.Entrypoint, Env: k.env,
		CPUs: k.spec.CPUs, Memory: int64(k.spec.Memory) << 20, Network: sandbox.Network(k.fn.Policy.Network),
		Concurrency: max(1, min(e.cfg.Instances.Concurrency, k.rt.Concurrency)),
	})
	if err != nil {
		release()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return "", fmt.Errorf("start instance of %s/%s: %w", k.fn.Project, k.dep.ID, err)
	}
	e.artefacts.hold(id, release)
	e.observe.coldStart(ctx, k, e.clock.Now().Sub(began))
	return id, nil
}

var errStartTimeout = errors.New("the function's process could not be started in time")

// code brings the code of a deployment here. That has a limit of its own: if it
// counted as part of the start, code that takes longer could never be started.
func (e *Engine) code(ctx context.Context, d Deployment) (dir string, release func(), err error) {
	ctx, cancel := e.within(ctx, e.cfg.Limits.BuildTimeout, errStartTimeout)
	defer cancel()
	return e.artefacts.use(ctx, d)
}

// stopInstance ends an instance and lets go of its code.
func (e *Engine) stopInstance(id string) {
	if err := e.cfg.Sandbox.Stop(context.Background(), id); err != nil {
		e.cfg.Logger.Error("stop instance", "instance", id, "error", err)
	}
	e.artefacts.letGo(id)
}

// retireInstances ends the instances of a function as their calls end, but for
// those of the state named by its instanceKey: many callers may notice a change at
// once, and the first of them may have started some.
func (e *Engine) retireInstances(f functionKey, except string) {
	e.pool.Retire(func(k pool.Key) bool {
		return k.Project == f.project && k.Name != except && strings.HasPrefix(k.Name, functionPrefix(f.id))
	})
}

// forgetProject drops what is known of a project and retires its instances.
func (e *Engine) forgetProject(id string) {
	kn := &e.knowledge
	kn.mu.Lock()
	for key := range kn.entries {
		if key.project == id {
			delete(kn.entries, key)
		}
	}
	kn.changes++
	kn.mu.Unlock()
	e.pool.Retire(func(k pool.Key) bool { return k.Project == id })
}

// demand is how many cold starts of each runtime there were lately. Each counts
// one, and half as much whenever demandHalf has passed.
type demand struct {
	mu       sync.Mutex
	runtimes map[string]*lately
	more     chan struct{} // has one when demand has grown
}

type lately struct {
	starts float64   // that count, at
	at     time.Time // then
	told   int       // spares that the sandbox was asked for
}

const (
	demandHalf = 5 * time.Minute
	// demandEnd is below which there is none: 22 minutes after a lone cold start.
	demandEnd = 0.05
)

func newDemand() demand {
	return demand{runtimes: map[string]*lately{}, more: make(chan struct{}, 1)}
}

// since is how many starts still count.
func (l *lately) since(now time.Time) float64 {
	return l.starts * math.Exp2(-max(0, now.Sub(l.at).Seconds())/demandHalf.Seconds())
}

// demanded counts cold starts of a runtime.
func (e *Engine) demanded(rt Runtime, now time.Time, starts float64) {
	if !rt.Spares || e.cfg.Instances.Spares <= 0 {
		return
	}
	d := &e.demand
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.runtimes[rt.ID]
	if l == nil {
		l = &lately{}
		d.runtimes[rt.ID] = l
	}
	// A burst must not count for hours.
	l.starts, l.at = min(l.since(now)+starts, 2*float64(e.cfg.Instances.Spares)), now
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// expect counts the first call of a deployment that is ready, unless others do already,
// and reads what it needs to know. It returns the instanceKey of those that may serve it
// already; empty: it is not known.
func (e *Engine) expect(ctx context.Context, d Deployment) (current string) {
	k, err := e.resolve(ctx, d.Project, d.FunctionID)
	if err != nil || !k.has {
		return "" // what comes is counted when it is there
	}
	now := e.clock.Now()
	e.demanded(k.rt, now, max(0, 1-e.demand.of(k.rt.ID, now)))
	return k.instanceKey()
}

// of is how many starts of a runtime count.
func (d *demand) of(runtime string, now time.Time) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.runtimes[runtime]; l != nil {
		return l.since(now)
	}
	return 0
}

// warm asks the sandbox for as many spares as are likely to be needed, and returns
// when that changes if nothing happens; the zero time: never. One goroutine calls it.
func (e *Engine) warm(ctx context.Context, now time.Time) (next time.Time) {
	d := &e.demand
	changed := map[string]int{}
	d.mu.Lock()
	for id, l := range d.runtimes {
		want, until := l.want(now, e.cfg.Instances.Spares)
		if want != l.told {
			changed[id], l.told = want, want
		}
		switch {
		case want == 0:
			delete(d.runtimes, id)
		case next.IsZero() || until.Before(next):
			next = until
		}
	}
	d.mu.Unlock()
	for id, n := range changed {
		if err := e.cfg.Sandbox.Warm(ctx, id, n); err != nil {
			e.cfg.Logger.Warn("keep spares", "runtime", id, "spares", n, "error", err)
		}
	}
	return next
}

// want is how many spares to have, and until when.
func (l *lately) want(now time.Time, most int) (n int, until time.Time) {
	starts := l.since(now)
	if starts < demandEnd {
		return 0, now
	}
	n = min(most, int(math.Ceil(starts)))
	below := max(float64(n-1), demandEnd)
	// A millisecond later it is below for sure, whatever is lost in rounding.
	return n, now.Add(time.Duration(math.Log2(starts/below)*float64(demandHalf)) + time.Millisecond)
}

// warms keeps the sandbox's spares in line with demand.
func (e *Engine) warms(ctx context.Context) {
	for {
		next := e.warm(ctx, e.clock.Now())
		if next.IsZero() {
			next = e.clock.Now().Add(demandHalf) // nothing will have changed
		}
		timer := e.clock.Timer(next.Sub(e.clock.Now()))
		select {
		case <-timer.C:
		case <-e.demand.more:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// cool ends all spares.
func (e *Engine) cool() {
	d := &e.demand
	wanted := d.wanted()
	d.mu.Lock()
	clear(d.runtimes)
	d.mu.Unlock()
	for id := range wanted {
		if err := e.cfg.Sandbox.Warm(context.Background(), id, 0); err != nil {
			e.cfg.Logger.Warn("end spares", "runtime", id, "error", err)
		}
	}
}

// within returns a context that ends after d on the engine's clock, with a cause.
func (e *Engine) within(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := e.clock.AfterFunc(d, func() { cancel(cause) })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}
