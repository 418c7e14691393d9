package engine

import (
	"cmp"
	"slices"

	"github.com/fnkit/fnkit/internal/pool"
)

// Pools is what the instances of one engine did at one moment; see Engine.Pools.
type Pools struct {
	Limits      Instances        // what the numbers count against, with all defaults set
	Instances   int              // there are in all, of Limits.Max
	Calls       int              // that run
	Waiting     int              // callers who wait for an instance
	Deployments []DeploymentPool // by project, function and deployment, ascending
	// Spares is how many processes the sandbox was asked to keep ready, of each network
	// policy that is in use, by the id of the runtime; at most Limits.Spares. Runtimes of
	// which none are wanted are left out. How many are ready only the sandbox knows.
	Spares map[string]int
}

// DeploymentPool is the instances of a deployment and the callers who wait for one.
// Those of earlier variables, which drain, are of the same deployment.
type DeploymentPool struct {
	Project, Function, Deployment string

	Starting int // instances that cannot take calls yet
	Idle     int // that have no call, and are stopped after Limits.Idle
	Busy     int // that have calls, and take more up to Concurrency
	Draining int // that take no more calls, and are stopped after their last
	Calls    int // that run, on all of them
	Waiting  int // callers; more than Limits.Waiting are refused

	Concurrency int // calls that an instance takes at once
	PerProject  int // instances that the project may have, as of the last call
}

// Instances is how many there are, which Limits.Max and PerProject count.
// Limits.PerDeployment is of one state of the variables.
func (d DeploymentPool) Instances() int { return d.Starting + d.Idle + d.Busy + d.Draining }

// Pools returns what the instances of this engine do, not those of others on its store:
// all of one moment, but for Spares. It is for the host and no answer for a tenant, since it
// names the functions of all projects. It asks nobody and returns at once, in any state
// of the engine; one that does not run functions has none. The list is no longer than
// there are instances and callers who wait, and the caller's to keep.
func (e *Engine) Pools() Pools {
	p := Pools{Limits: e.cfg.Instances, Spares: e.demand.wanted()}
	at := map[[3]string]int{}
	for _, u := range e.pool.Usage() {
		function, deployment := splitInstanceKey(u.Key.Name)
		i, found := at[[3]string{u.Key.Project, function, deployment}]
		if !found {
			i = len(p.Deployments)
			at[[3]string{u.Key.Project, function, deployment}] = i
			p.Deployments = append(p.Deployments, DeploymentPool{Project: u.Key.Project, Function: function, Deployment: deployment})
		}
		p.Deployments[i].add(u)
		p.Instances += u.Starting + u.Idle + u.Busy + u.Draining
		p.Calls += u.Calls
		p.Waiting += u.Waiting
	}
	slices.SortFunc(p.Deployments, func(a, b DeploymentPool) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Function, b.Function), cmp.Compare(a.Deployment, b.Deployment))
	})
	return p
}

func (d *DeploymentPool) add(u pool.Usage) {
	d.Starting += u.Starting
	d.Idle += u.Idle
	d.Busy += u.Busy
	d.Draining += u.Draining
	d.Calls += u.Calls
	d.Waiting += u.Waiting
	d.Concurrency = max(d.Concurrency, u.Capacity)
	d.PerProject = max(d.PerProject, u.PerProject)
}

// wanted is how many spares of each runtime the sandbox was asked for.
func (d *demand) wanted() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string]int{}
	for id, l := range d.runtimes {
		if l.told > 0 {
			all[id] = l.told
		}
	}
	return all
}
