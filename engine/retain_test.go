package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite/sqlitetest"
)

const day = 24 * time.Hour

// TestOldExecutionsGo: those that ended long enough ago, however long they
// waited, and as long ago as their project says.
func TestOldExecutionsGo(t *testing.T) {
	t.Parallel()
	kit := enginetest.New(t, fnbox.Funcs{"f": ok}, func(c *engine.Config) {
		c.Retention = engine.Retention{}
		c.Hooks.Projects = func(_ context.Context, project string) (engine.ProjectLimits, error) {
			return engine.ProjectLimits{Retention: map[string]engine.Retention{
				"brief": {Executions: day}, "forever": {Executions: -1},
			}[project]}, nil
		}
	})
	projects := []string{"usual", "brief", "forever"}
	for _, project := range projects {
		kit.Deploy(project, engine.FunctionParams{ID: "f"})
		for _, later := range []time.Duration{0, 20 * day} {
			a := engine.ExecuteParams{Async: true}
			if later > 0 {
				a.ScheduledAt = kit.Clock.Now().Add(later)
			}
			if _, err := kit.Project(project).Execute(t.Context(), engine.System, "f", a); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func(after time.Duration, want ...int) {
		t.Helper()
		kit.AdvanceTo(enginetest.Epoch.Add(after))
		kit.Drain()
		var got []int
		for _, project := range projects {
			got = append(got, len(kit.Executions(project, "f")))
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %s: %v executions of %v, want %v", after, got, projects, want)
		}
	}
	left(day-time.Minute, 2, 2, 2)
	left(day+time.Hour, 2, 1, 2)
	left(14*day+time.Hour, 1, 1, 2)
	left(20*day+time.Hour, 1, 1, 2)
	left(34*day+2*time.Hour, 0, 0, 2)
	left(400*day, 0, 0, 2)
}

// TestAnUnknownProjectIsKept: what the host does not know at the moment may be
// known later.
func TestAnUnknownProjectIsKept(t *testing.T) {
	t.Parallel()
	unknown := false
	kit := enginetest.New(t, fnbox.Funcs{"f": ok}, func(c *engine.Config) {
		c.Retention = engine.Retention{}
		c.Hooks.Projects = func(context.Context, string) (engine.ProjectLimits, error) {
			if unknown {
				return engine.ProjectLimits{}, engine.Errorf(engine.TypeProject, "")
			}
			return engine.ProjectLimits{}, nil
		}
	})
	kit.Deploy("p", engine.FunctionParams{ID: "f"})
	if _, err := kit.Project("p").Execute(t.Context(), engine.System, "f", engine.ExecuteParams{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		unknown = want == 1
		kit.Advance(30 * day)
		kit.Drain()
		unknown = false
		if n := len(kit.Executions("p", "f")); n != want {
			t.Errorf("%d executions, want %d", n, want)
		}
	}
}

// TestOldDeploymentsGo with their blobs, but for the active one; by default all stay.
func TestOldDeploymentsGo(t *testing.T) {
	t.Parallel()
	for keep, want := range map[int]string{0: "[a b c d]", 2: "[b c d]", 1: "[b d]"} {
		kit := enginetest.New(t, fnbox.Funcs{"f": ok}, func(c *engine.Config) { c.Retention.Deployments = keep })
		kit.Deploy("p", engine.FunctionParams{ID: "f"})
		p := kit.Project("p")
		names := map[string]string{}
		list, err := p.ListDeployments(t.Context(), engine.System, "f", engine.Query{})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		names[list.Items[0].ID] = "a"
		var ids []string
		for _, name := range []string{"b", "c", "d"} {
			d, err := p.Rebuild(t.Context(), engine.System, "f", list.Items[0].ID)
			if err != nil {
				t.Fatal(err)
			}
			names[d.ID] = name
			ids = append(ids, d.ID)
		}
		kit.Drain()
		if _, err := p.ActivateDeployment(t.Context(), engine.System, "f", ids[0]); err != nil {
			t.Fatal(err)
		}
		told, err := kit.Subscribe(t.Context(), events.Pattern{Name: "functions.f.deployments.*.delete"})
		if err != nil {
			t.Fatal(err)
		}
		kit.Advance(2 * time.Hour)
		kit.Drain()
		if list, err = p.ListDeployments(t.Context(), engine.System, "f", engine.Query{}); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, d := range list.Items {
			left = append(left, names[d.ID])
		}
		if fmt.Sprint(left) != want {
			t.Errorf("keep %d: %v are left, want %s", keep, left, want)
		}
		if n := len(told); n != 4-len(left) {
			t.Errorf("keep %d: %d events", keep, n)
		}
		blobs := 0
		if err := kit.Config().Blobs.List(t.Context(), "", func(engine.BlobInfo) bool { blobs++; return true }); err != nil || blobs != 2*len(left) {
			t.Errorf("keep %d: %d blobs of %d deployments, %v", keep, blobs, len(left), err)
		}
		if x, err := p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{}); err != nil || x.Status != "completed" {
			t.Errorf("keep %d: %+v, %v", keep, x.Execution, err)
		}
	}
}

// TestOnlyFunctionsWithOldRecordsAreWrittenTo: most have nothing to remove, most of the time.
func TestOnlyFunctionsWithOldRecordsAreWrittenTo(t *testing.T) {
	t.Parallel()
	counted := &batches{}
	kit := enginetest.New(t, fnbox.Funcs{"f": ok}, func(c *engine.Config) {
		counted.Store, c.Retention = c.Store, engine.Retention{Deployments: 2}
		c.Store = counted
	})
	for _, id := range []string{"old", "young", "unused"} {
		kit.Deploy("p", engine.FunctionParams{ID: id, Entrypoint: "f"})
	}
	execute := func(id string) {
		t.Helper()
		kit.Execute("p", id, engine.ExecuteParams{})
	}
	execute("old")
	kit.Advance(10 * day)
	execute("young")
	kit.Drain()
	if len(counted.sizes) > 0 {
		t.Errorf("there was nothing to remove, in %d batches", len(counted.sizes))
	}
	kit.Advance(5 * day)
	kit.Drain()
	if fmt.Sprint(counted.sizes) != "[1]" || len(kit.Executions("p", "old")) != 0 || len(kit.Executions("p", "young")) != 1 {
		t.Errorf("removed in batches of %v", counted.sizes)
	}
}

// batches counts what is removed, in how many batches.
type batches struct {
	store.Store
	sizes []int
}

func (b *batches) DeleteExecutions(ctx context.Context, project, function string, before time.Time, limit int, statuses ...store.ExecutionStatus) (int, error) {
	n, err := b.Store.DeleteExecutions(ctx, project, function, before, limit, statuses...)
	b.sizes = append(b.sizes, n)
	return n, err
}

// TestManyOldExecutionsGoInSmallBatches, between which work is accepted, claimed
// and settled as before.
func TestManyOldExecutionsGoInSmallBatches(t *testing.T) {
	t.Parallel()
	const old = 20_000
	for name, open := range map[string]func(*testing.T) store.Store{
		"sqlite": func(t *testing.T) store.Store {
			return sqlitetest.Open(t, filepath.Join(t.TempDir(), "db"))
		},
		"postgres": func(t *testing.T) store.Store {
			st, err := postgres.Open(t.Context(), postgrestest.DSN(t))
			if err != nil {
				t.Fatal(err)
			}
			return st
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := open(t)
			t.Cleanup(func() { st.Close() })
			if _, err := st.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f", CreatedAt: time.Now(), UpdatedAt: time.Now()}); err != nil {
				t.Fatal(err)
			}
			past := time.Now().Add(-15 * day)
			for i := 0; i < old; i += 1000 {
				rows := make([]store.Execution, 1000)
				for j := range rows {
					rows[j] = store.Execution{
						Project: "p", ID: fmt.Sprintf("old%06d", i+j), FunctionID: "f", CreatedAt: past, UpdatedAt: past,
						Status: store.ExecutionCompleted, Trigger: store.TriggerHTTP, RequestMethod: "GET", RequestPath: "/", Logs: "a line\n",
					}
				}
				if err := st.AppendExecutions(t.Context(), rows); err != nil {
					t.Fatal(err)
				}
			}
			counted := &batches{Store: st}
			h := with(t, engine.Config{
				Store: counted, Blobs: dirblobs.New(t.TempDir()), Sandbox: funcs(ok), Dir: filepath.Join(t.TempDir(), "engine"), MinIsolation: "none",
				Keys: engine.Key("k1", bytes.Repeat([]byte("secret"), 4)),
			})
			defer h.stop(t)
			ctx, over := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var took []time.Duration
			begun := make(chan struct{})
			wg.Go(func() { took = workOn(t, ctx, st, sync.OnceFunc(func() { close(begun) })) })
			select {
			case <-begun:
			case <-t.Context().Done():
			}
			if _, _, err := h.Step(t.Context()); err != nil {
				t.Error(err)
			}
			over()
			wg.Wait()
			if n, err := st.CountExecutions(t.Context(), "p", "f", "", store.Query{}, old); err != nil || n != 0 {
				t.Errorf("%d are left, %v", n, err)
			}
			all := 0
			for _, n := range counted.sizes {
				if all += n; n > 1000 {
					t.Errorf("a batch of %d", n)
				}
			}
			if all != old {
				t.Errorf("%d were removed", all)
			}
			slices.Sort(took) // with the one before it began
			if len(took)-1 < len(counted.sizes)/10 {
				t.Errorf("during %d batches, only %d executions were accepted and run", len(counted.sizes), len(took))
			} else {
				t.Logf("%d batches; meanwhile %d were accepted, claimed and settled: median %s, longest %s",
					len(counted.sizes), len(took), took[len(took)/2], took[len(took)-1])
			}
		})
	}
}

// workOn accepts, claims and settles executions of another function, one after
// the other, tells of each, and returns how long they took.
func workOn(t *testing.T, ctx context.Context, st store.Store, done func()) (took []time.Duration) {
	defer done()
	for i := 0; ctx.Err() == nil; i++ {
		began := time.Now()
		x := store.Execution{
			Project: "q", ID: fmt.Sprint("live", i), FunctionID: "g", CreatedAt: began, UpdatedAt: began, Status: store.ExecutionWaiting,
			ReadyAt: began.Add(-time.Second), Payload: []byte("sealed"),
		}
		if err := st.AppendExecutions(t.Context(), []store.Execution{x}); err != nil {
			t.Error(err)
			return took
		}
		rows, err := st.Runs().Claim(t.Context(), store.ClaimParams{Now: time.Now(), LeaseUntil: time.Now().Add(time.Minute), Limit: 10})
		if err != nil || len(rows) != 1 {
			t.Errorf("claimed %d, %v", len(rows), err)
			return took
		}
		rows[0].Row.Status, rows[0].Row.ReadyAt = store.ExecutionCompleted, time.Time{}
		lost, err := st.Runs().Settle(t.Context(), []store.Settlement[store.Execution]{store.Settlement[store.Execution](rows[0])})
		if err != nil || len(lost) > 0 {
			t.Errorf("lost %v, %v", lost, err)
		}
		took = append(took, time.Since(began))
		done()
	}
	return took
}
