package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/internal/groupcommit"
	"github.com/fnkit/fnkit/internal/pool"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/store"
)

// Engine is a functions engine: it keeps functions, builds their code and runs
// it. Make one with New; all methods may be called concurrently.
//
// An engine that was not started answers every call but synchronous executions
// (those too with Config.SyncViaQueue), and accepts asynchronous ones for others to run.
type Engine struct {
	cfg       Config
	clock     clock.Clock
	store     store.Store
	secrets   *secrets
	observe   *observer
	gauge     gauge
	backlog   backlog
	knowledge knowledge
	pool      *pool.Pool
	demand    demand
	appends   *groupcommit.Group[Execution]
	settles   *groupcommit.Group[*runSettlement]
	builds    *worker[Deployment]
	runs      *worker[Execution]
	artefacts *artefacts
	packages  *packages
	feeds     feeds
	readiness readiness
	life      lifecycle
	swept     time.Time // when, last; see keepHouse
	retained  time.Time

	machineClock bool          // clock is the machine's
	offset       time.Duration // of the store's clock, see compareClocks

	probe sync.Mutex
	caps  *sandbox.Capabilities // since they were asked for
}

// New returns an engine, or every fault of its configuration. It does no I/O,
// starts no goroutine and reads no environment.
func New(c Config) (*Engine, error) {
	machine := c.Clock == nil
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: c, clock: c.Clock, store: c.Store, machineClock: machine}
	var err error
	if e.secrets, err = newSecrets(c.Keys, e.clock.Now); err != nil {
		return nil, fmt.Errorf("engine: Config.Keys: %w", err)
	}
	if e.observe, err = newObserver(c); err != nil {
		return nil, err
	}
	e.knowledge = knowledge{entries: map[functionKey]*entry{}, readings: map[functionKey]*reading{}, changing: map[functionKey]int{}}
	e.feeds.all = map[store.LogRef]*feed{}
	e.appends = e.newAppends()
	e.settles = e.newSettles()
	e.builds = newWorker(e, "build", c.Store.Builds(), c.Work.Builds, e.runBuild)
	e.runs = newWorker(e, "run", c.Store.Runs(), c.Work.Runs, e.runQueued)
	e.artefacts = newArtefacts(e)
	e.packages = newPackages(e)
	e.pool = e.newPool()
	e.demand = newDemand()
	if s, ok := c.Store.(store.Lessor); ok {
		s.LeasesLast(c.Work.Lease)
	}
	return e, nil
}

// Config returns the configuration with all defaults set.
func (e *Engine) Config() Config { return e.cfg }

// Capabilities describe the sandbox on this machine. They do not change.
func (e *Engine) Capabilities(ctx context.Context) (sandbox.Capabilities, error) {
	e.probe.Lock()
	defer e.probe.Unlock()
	if e.caps == nil {
		caps, err := e.cfg.Sandbox.Capabilities(context.WithoutCancel(ctx))
		if err != nil {
			return caps, err
		}
		e.caps = &caps
	}
	return *e.caps, nil
}

// Subscribe returns a channel of the events that match p from now on; it is
// closed when ctx ends. A subscriber that does not keep up loses events.
func (e *Engine) Subscribe(ctx context.Context, p events.Pattern) (<-chan Event, error) {
	return e.cfg.Bus.Subscribe(ctx, p)
}

// Project is an engine scoped to one project: a cheap handle, made as needed.
type Project struct {
	e  *Engine
	id string
}

// Project returns the handle of a project. Whether it exists is asked by each call.
func (e *Engine) Project(id string) *Project { return &Project{e, id} }

// DeleteProject removes everything of a project: records, blobs, instances.
// It needs the System actor.
func (e *Engine) DeleteProject(ctx context.Context, by Actor, id string) error {
	if by.Kind != ActorSystem {
		return Errorf(TypeUnauthorized, "")
	}
	if err := CheckProject(id); err != nil {
		return InvalidParam("project", err)
	}
	if err := e.store.DeleteProject(ctx, id); err != nil {
		return fail(err, "")
	}
	e.forgetProject(id)
	e.builds.cancelIf(func(d Deployment) bool { return d.Project == id })
	e.runs.cancelIf(func(x Execution) bool { return x.Project == id })
	e.artefacts.forget(func(k artefactKey) bool { return k.project == id })
	e.packages.forget(func(f packagesKey) bool { return f.project == id })
	for _, kind := range []string{sourceBlobs, uploadBlobs, artefactBlobs} {
		if err := e.deleteBlobsUnder(ctx, kind+"/"+id+"/"); err != nil {
			return fail(err, "")
		}
	}
	return nil
}

// Authorize says whether a caller may use what needs the scope: the project
// exists and the actor has the scope. Errors: project_not_found,
// general_unauthorized_scope, general_access_forbidden.
func (e *Engine) Authorize(ctx context.Context, c Caller, scope string) error {
	_, err := e.Project(c.Project).enter(ctx, c.Actor, scope)
	return err
}

// enter is the gate of every use case: the project exists, and the actor has
// one of the scopes.
func (p *Project) enter(ctx context.Context, by Actor, scopes ...string) (limits ProjectLimits, err error) {
	none := p.id == "" || p.id == consoleProject
	if !none {
		limits, err = p.e.projectLimits(ctx, p.id)
	}
	switch {
	case err != nil:
		return limits, err
	case !slices.ContainsFunc(scopes, by.Can):
		return limits, by.require(scopes[0])
	case none:
		return limits, Errorf(TypeAccess, "")
	}
	return limits, nil
}

// consoleProject is reserved: it is no tenant.
const consoleProject = "console"

// projectLimits returns the quotas of a project that exists.
func (e *Engine) projectLimits(ctx context.Context, id string) (ProjectLimits, error) {
	if err := CheckProject(id); err != nil {
		return ProjectLimits{}, Errorf(TypeProject, "")
	}
	if e.cfg.Hooks.Projects == nil {
		return ProjectLimits{}, nil
	}
	return e.cfg.Hooks.Projects(ctx, id)
}

// runtime returns the runtime of an id as the sandbox or the catalogue
// describes it, and whether the sandbox can run it.
func (e *Engine) runtime(ctx context.Context, id string) (r Runtime, has bool, err error) {
	caps, err := e.Capabilities(ctx)
	if err != nil {
		return r, false, fmt.Errorf("sandbox: %w", err)
	}
	for _, r := range caps.Runtimes {
		if r.ID == id {
			return r, true, nil
		}
	}
	r, _ = sandbox.LookupRuntime(id)
	return r, false, nil
}

// runtimeAllowed refuses a runtime that is not on this machine or not on the
// host's list.
func (e *Engine) runtimeAllowed(ctx context.Context, id string) error {
	list := e.cfg.Hooks.Runtimes
	_, has, err := e.runtime(ctx, id)
	if err != nil || has && (len(list) == 0 || slices.Contains(list, id)) {
		return err
	}
	return Errorf(TypeRuntime, "Runtime %q is not supported", id)
}

// KnownRuntimes are the ids that are runtimes at all: the catalogue's and the
// sandbox's. One of them may still be missing here, see Project.Runtimes.
func (e *Engine) KnownRuntimes() []string {
	caps, _ := e.Capabilities(context.Background())
	var out []string
	for _, r := range append(sandbox.Catalogue(), caps.Runtimes...) {
		if !slices.Contains(out, r.ID) {
			out = append(out, r.ID)
		}
	}
	return out
}

// now is the time as records keep it: UTC, to the millisecond.
func (e *Engine) now() time.Time { return e.clock.Now().UTC().Truncate(time.Millisecond) }
