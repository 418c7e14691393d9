package engine_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// laggard takes a second for each start.
type laggard struct{ *warmed }

func (l laggard) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	time.Sleep(time.Second)
	return l.warmed.Start(ctx, spec)
}

// TestPools follows instances of two projects through all that they do.
func TestPools(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leave, leaveOther := make(chan struct{}), make(chan struct{})
		held := func(until chan struct{}) fnbox.Func {
			return func(ctx context.Context, c *fnbox.Context) error {
				select {
				case <-until:
				case <-ctx.Done():
				}
				return c.Text(200, "")
			}
		}
		kit := enginetest.Start(t, fnbox.Funcs{"f": held(leave), "other": held(leaveOther)}, func(c *engine.Config) {
			c.Sandbox = laggard{&warmed{Driver: c.Sandbox}}
			c.Instances = engine.Instances{Max: 8, PerProject: 4, PerDeployment: 2, Concurrency: 1, Idle: time.Minute}
			c.Hooks.Projects = func(_ context.Context, id string) (engine.ProjectLimits, error) {
				return map[string]engine.ProjectLimits{"small": {Instances: 1}}[id], nil
			}
		})
		// By their deployments "f-1" would come first, and by the names that the pool has.
		f1 := kit.Deploy("shop", engine.FunctionParams{ID: "f-1", Entrypoint: "other"})
		f := kit.Deploy("shop", engine.FunctionParams{ID: "f"})
		small := kit.Deploy("small", engine.FunctionParams{ID: "f", Entrypoint: "other"})
		called := make(chan error, 10)
		call := func(fn engine.Function) {
			go func() {
				_, err := kit.Project(fn.Project).Execute(t.Context(), engine.System, fn.ID, engine.ExecuteParams{})
				called <- err
			}()
		}
		of := func(fn engine.Function, d engine.DeploymentPool) engine.DeploymentPool {
			d.Project, d.Function, d.Deployment, d.Concurrency, d.PerProject = fn.Project, fn.ID, fn.Deployment, 1, 4
			if fn.Project == "small" {
				d.PerProject = 1
			}
			return d
		}
		expect := func(what string, want ...engine.DeploymentPool) {
			t.Helper()
			synctest.Wait()
			got := kit.Pools()
			if !slices.Equal(got.Deployments, want) {
				t.Errorf("%s:\n%+v, want\n%+v", what, got.Deployments, want)
			}
			instances, calls, waiting := 0, 0, 0
			for _, d := range want {
				instances, calls, waiting = instances+d.Instances(), calls+d.Calls, waiting+d.Waiting
			}
			if got.Instances != instances || got.Calls != calls || got.Waiting != waiting || got.Limits != kit.Config().Instances {
				t.Errorf("%s: in all %+v, want %d, %d, %d", what, got, instances, calls, waiting)
			}
		}
		type does = engine.DeploymentPool

		expect("before a call")
		for range 3 {
			call(f)
		}
		expect("starting", of(f, does{Starting: 2, Waiting: 3}))
		time.Sleep(2 * time.Second)
		expect("busy", of(f, does{Busy: 2, Calls: 2, Waiting: 1}))
		for range 2 {
			call(small)
		}
		call(f1)
		time.Sleep(2 * time.Second)
		expect("in order", of(f, does{Busy: 2, Calls: 2, Waiting: 1}), of(f1, does{Busy: 1, Calls: 1}), of(small, does{Busy: 1, Calls: 1, Waiting: 1}))
		others := []engine.DeploymentPool{of(f1, does{Busy: 1, Calls: 1}), of(small, does{Busy: 1, Calls: 1, Waiting: 1})}
		leave <- struct{}{}
		leave <- struct{}{}
		expect("after two calls", append([]engine.DeploymentPool{of(f, does{Idle: 1, Busy: 1, Calls: 1})}, others...)...)
		if _, err := kit.Project("shop").CreateVariable(t.Context(), engine.System, "f", "NAME", "new"); err != nil {
			t.Fatal(err)
		}
		expect("after a change", append([]engine.DeploymentPool{of(f, does{Draining: 1, Calls: 1})}, others...)...)
		call(f)
		expect("starting anew", append([]engine.DeploymentPool{of(f, does{Starting: 1, Draining: 1, Calls: 1, Waiting: 1})}, others...)...)
		time.Sleep(2 * time.Second)
		expect("both", append([]engine.DeploymentPool{of(f, does{Busy: 1, Draining: 1, Calls: 2})}, others...)...)
		close(leave)
		close(leaveOther)
		expect("idle", of(f, does{Idle: 1}), of(f1, does{Idle: 1}), of(small, does{Idle: 1}))
		time.Sleep(2 * time.Minute)
		expect("after a while")
		for range 7 {
			if err := <-called; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestPoolsSaySpares: as many as the sandbox was asked for, and none at the end.
func TestPoolsSaySpares(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := enginetest.Start(t, fnbox.Funcs{"f": quiet, "g": quiet}, func(c *engine.Config) { c.Sandbox = &warmed{Driver: c.Sandbox} })
		expect := func(what string, want map[string]int) {
			t.Helper()
			synctest.Wait()
			if got := kit.Pools().Spares; !maps.Equal(got, want) {
				t.Errorf("%s %v are wanted, want %v", what, got, want)
			}
		}
		expect("at first", nil)
		kit.Deploy("shop", engine.FunctionParams{ID: "f"})
		kit.Deploy("shop", engine.FunctionParams{ID: "g"})
		kit.Execute("shop", "f", engine.ExecuteParams{})
		kit.Execute("shop", "g", engine.ExecuteParams{})
		expect("after two cold starts and a deployment", map[string]int{fnbox.RuntimeID: 3})
		kit.Advance(5 * time.Minute)
		expect("five minutes later", map[string]int{fnbox.RuntimeID: 2})
		kit.Execute("shop", "f", engine.ExecuteParams{})
		if err := kit.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect("at the end", nil)
		if p := kit.Pools(); p.Instances != 0 || len(p.Deployments) != 0 {
			t.Errorf("an engine that stopped has %+v", p)
		}
	})
}
