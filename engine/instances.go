package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// acquire returns an instance that has a slot for a call of k. It waits as long
// as ctx lasts. Errors: function_busy, general_service_unavailable, errLimit,
// ctx's, and why an instance could not be started.
func (e *Engine) acquire(ctx context.Context, k *known) (*pool.Instance, error) {
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
		CPUs: k.spec.CPUs, Memory: int64(k.spec.Memory) << 20,
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

// within returns a context that ends after d on the engine's clock, with a cause.
func (e *Engine) within(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := e.clock.AfterFunc(d, func() { cancel(cause) })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}
