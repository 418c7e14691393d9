package engine_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// crowd counts how many run at once.
type crowd struct {
	inside, most, runs atomic.Int64
	leave              chan struct{} // each run takes one, nil: none waits
}

func (c *crowd) run(ctx context.Context, r *fnbox.Context) error {
	n := c.inside.Add(1)
	defer c.inside.Add(-1)
	for old := c.most.Load(); n > old && !c.most.CompareAndSwap(old, n); old = c.most.Load() {
	}
	select {
	case <-c.leave:
	case <-ctx.Done():
	}
	c.runs.Add(1)
	return r.Text(200, "")
}

// Of queued executions no more run at once than may, over all engines; the
// others wait, and all run in the end.
func TestConcurrencyOfQueued(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy  engine.PolicyParams
		project int
		lanes   int
		most    int64
	}{
		"function": {policy: engine.PolicyParams{Concurrency: new(2)}, most: 2},
		"lanes":    {policy: engine.PolicyParams{LaneConcurrency: new(1)}, lanes: 3, most: 3},
		"project":  {project: 3, most: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 12
			all := &crowd{leave: make(chan struct{})}
			limits := func(cfg *engine.Config) {
				cfg.Work.Poll = 50 * time.Millisecond
				cfg.Hooks.Projects = func(context.Context, string) (engine.ProjectLimits, error) {
					return engine.ProjectLimits{Concurrency: c.project}, nil
				}
			}
			a := start(t, fnbox.New(fnbox.Funcs{"f": all.run}), limits)
			cfg := a.cfg
			box := fnbox.New(fnbox.Funcs{"f": all.run})
			t.Cleanup(func() { box.Close() })
			cfg.Sandbox, cfg.Dir = box, filepath.Join(t.TempDir(), "engine")
			b := with(t, cfg)
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.stop(t) })
			if _, err := a.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: fnbox.RuntimeID, Entrypoint: "f", Policy: c.policy}); err != nil {
				t.Fatal(err)
			}
			a.deploy(t, "f", map[string]string{"README": ""})
			var queued []engine.Execution
			for i := range n {
				x := a.execute(t, "f", engine.ExecuteParams{Async: true, Lane: fmt.Sprint("lane", i%max(1, c.lanes))})
				queued = append(queued, x.Execution)
			}
			eventually(t, func() (int64, bool) { return all.inside.Load(), all.inside.Load() == c.most })
			parked := slices.IndexFunc(queued, func(x engine.Execution) bool {
				x, err := a.p.GetExecution(t.Context(), engine.System, "f", x.ID)
				return err == nil && x.Status == "waiting" // there is no room for it
			})
			canceled, err := a.p.CancelExecution(t.Context(), engine.System, "f", queued[parked].ID)
			if err != nil || canceled.Status != "canceled" {
				t.Errorf("%+v, %v", canceled, err)
			}
			close(all.leave)
			for _, x := range slices.Delete(queued, parked, parked+1) {
				if x := a.ended(t, x); x.Status != "completed" {
					t.Errorf("%+v", x)
				}
			}
			if all.most.Load() > c.most || all.runs.Load() != n-1 {
				t.Errorf("%d at once, want at most %d; %d runs of %d", all.most.Load(), c.most, all.runs.Load(), n-1)
			}
		})
	}
}

// Synchronous executions beyond a limit are refused.
func TestConcurrencyOfSynchronous(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy  engine.PolicyParams
		project int
	}{
		"function": {policy: engine.PolicyParams{Concurrency: new(1)}},
		"lane":     {policy: engine.PolicyParams{LaneConcurrency: new(1)}},
		"project":  {project: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := &crowd{leave: make(chan struct{})}
			h := start(t, fnbox.New(fnbox.Funcs{"f": all.run}), func(cfg *engine.Config) {
				cfg.Hooks.Projects = func(context.Context, string) (engine.ProjectLimits, error) {
					return engine.ProjectLimits{Concurrency: c.project}, nil
				}
			})
			if _, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: fnbox.RuntimeID, Entrypoint: "f", Policy: c.policy}); err != nil {
				t.Fatal(err)
			}
			h.deploy(t, "f", map[string]string{"README": ""})
			first := make(chan error, 1)
			go func() {
				_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Lane: "l"})
				first <- err
			}()
			eventually(t, func() (int64, bool) { return all.inside.Load(), all.inside.Load() == 1 })
			for _, key := range []string{"", "k"} {
				_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Lane: "l", IdempotencyKey: key})
				fails(t, err, engine.TypeBusy)
			}
			close(all.leave)
			if err := <-first; err != nil {
				t.Error(err)
			}
			for _, key := range []string{"", "k"} {
				h.execute(t, "f", engine.ExecuteParams{Lane: "l", IdempotencyKey: key})
			}
		})
	}
}

// Queued executions begin as fast as a rate lets them, synchronous ones beyond
// it are refused.
func TestRates(t *testing.T) {
	t.Parallel()
	var begins []time.Duration
	var k *enginetest.Kit
	k = enginetest.New(t, fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
		begins = append(begins, k.Clock.Now().Sub(enginetest.Epoch))
		return c.Text(200, "")
	}})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Policy: engine.PolicyParams{Rate: &engine.Rate{Limit: 2, Period: 60}}})
	for range 5 {
		k.Execute("shop", "f", engine.ExecuteParams{Async: true})
	}
	k.Advance(time.Hour)
	if got := fmt.Sprint(begins); got != "[0s 0s 30s 1m0s 1m30s]" {
		t.Errorf("queued ones began at %s", got)
	}
	begins = nil
	for range 2 {
		k.Execute("shop", "f", engine.ExecuteParams{})
	}
	_, err := k.Project("shop").Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeRateLimit)
	k.Advance(30 * time.Second)
	k.Execute("shop", "f", engine.ExecuteParams{})
	if len(begins) != 3 {
		t.Errorf("synchronous ones began at %v", begins)
	}
}

// Lanes have rates of their own, also when there are many of them.
func TestRatesOfLanes(t *testing.T) {
	t.Parallel()
	var begins []string
	var k *enginetest.Kit
	k = enginetest.New(t, fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
		begins = append(begins, c.Req.Text()+" "+k.Clock.Now().Sub(enginetest.Epoch).String())
		return c.Text(200, "")
	}})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Policy: engine.PolicyParams{LaneRate: &engine.Rate{Limit: 1, Period: 60}}})
	for _, lane := range []string{"a", "b", "a", "", ""} {
		k.Execute("shop", "f", engine.ExecuteParams{Async: true, Lane: lane, Body: []byte(lane)})
	}
	k.Advance(time.Hour)
	slices.Sort(begins)
	if got := fmt.Sprintf("%q", begins); got != `[" 0s" " 0s" "a 0s" "a 1m0s" "b 0s"]` {
		t.Errorf("queued ones began at %s", got)
	}
	call := func(lane string) error {
		_, err := k.Project("shop").Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Lane: lane})
		return err
	}
	for _, lane := range []string{"a", "b", "", ""} {
		if err := call(lane); err != nil {
			t.Errorf("lane %q: %v", lane, err)
		}
	}
	k.Advance(59 * time.Second)
	for i := range 1100 {
		if err := call(fmt.Sprint("lane ", i)); err != nil {
			t.Fatal(err)
		}
	}
	fails(t, call("b"), engine.TypeRateLimit)
	k.Advance(time.Second)
	for _, lane := range []string{"a", "another"} {
		if err := call(lane); err != nil {
			t.Errorf("lane %q: %v", lane, err)
		}
	}
	fails(t, call("lane 3"), engine.TypeRateLimit)
	k.Advance(2 * time.Hour) // retention
	if n, err := k.Config().Store.TrimRates(t.Context(), k.Clock.Now(), 10); err != nil || n != 0 {
		t.Errorf("%d buckets that are full are left, %v", n, err)
	}
}

// Of what is due, what is more urgent is run first; only the host and its keys can
// make it so.
func TestPriorityOfAnExecution(t *testing.T) {
	t.Parallel()
	var order []string
	k := enginetest.New(t, fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
		order = append(order, c.Req.Text())
		return c.Text(200, "")
	}}, func(c *engine.Config) { c.Work.Runs = 1 })
	k.Deploy("shop", engine.FunctionParams{ID: "f", Policy: engine.PolicyParams{Priority: new(2)}})
	user := engine.Actor{Kind: engine.ActorUser, UserID: "u"}
	for _, c := range []struct {
		name string
		by   engine.Actor
		n    *int
		want int
	}{
		{"as the function", engine.System, nil, 2}, {"later", engine.System, new(-5), -5}, {"first", engine.System, new(engine.MaxPriority), 100},
		{"a user's", user, new(100), 2}, {"a guest's, later", engine.Actor{}, new(1), 1}, {"zero", engine.System, new(0), 0},
	} {
		x, err := k.Project("shop").Execute(t.Context(), c.by, "f", engine.ExecuteParams{Async: true, Priority: c.n, Body: []byte(c.name)})
		if err != nil || x.Priority != c.want {
			t.Errorf("%s: %d, %v", c.name, x.Priority, err)
		}
	}
	_, err := k.Project("shop").Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Async: true, Priority: new(101)})
	fails(t, err, engine.TypeArgument)
	k.Drain()
	if got := fmt.Sprintf("%q", order); got != `["first" "as the function" "a user's" "a guest's, later" "zero" "later"]` {
		t.Errorf("in the order %s", got)
	}
}

// The queue of one function is bounded; that of another is not concerned.
func TestQueuedLimit(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet}, func(c *engine.Config) { c.Limits.Queued = 3 })
	for _, id := range []string{"f", "g"} {
		k.Deploy("shop", engine.FunctionParams{ID: id, Entrypoint: "f"})
	}
	shop, async := k.Project("shop"), engine.ExecuteParams{Async: true}
	for range 2 {
		for range 3 {
			k.Execute("shop", "f", async)
		}
		_, err := shop.Execute(t.Context(), engine.System, "f", async)
		fails(t, err, engine.TypeBusy)
		k.Execute("shop", "g", async)
		k.Execute("shop", "f", engine.ExecuteParams{})
		k.Advance(time.Minute)
	}
	if n := len(k.Executions("shop", "f")); n != 8 {
		t.Errorf("%d executions", n)
	}
}

// TestRepeatWhileTheQueueIsFull: a known key is answered as before, and one that
// was refused is not known.
func TestRepeatWhileTheQueueIsFull(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet}, func(c *engine.Config) { c.Limits.Queued = 1 })
	k.Deploy("shop", engine.FunctionParams{ID: "f"})
	first := k.Execute("shop", "f", engine.ExecuteParams{Async: true, IdempotencyKey: "first"})
	outbox := func(key string) (x engine.ExecuteResult, err error) {
		err = k.Config().Store.InTx(t.Context(), func(ctx context.Context, tx engine.Tx) error {
			x, err = k.WithTx(tx).Project("shop").Execute(ctx, engine.System, "f", engine.ExecuteParams{IdempotencyKey: key})
			if key != "first" {
				fails(t, err, engine.TypeBusy)
				err = nil // what the host wrote is committed all the same
			}
			return err
		})
		return x, err
	}
	for range 3 {
		if x := k.Execute("shop", "f", engine.ExecuteParams{Async: true, IdempotencyKey: "first"}); !x.Repeated || x.ID != first.ID {
			t.Errorf("again: %+v", x)
		}
		if x, err := outbox("first"); err != nil || !x.Repeated || x.ID != first.ID {
			t.Errorf("again, in a transaction: %+v, %v", x, err)
		}
		_, err := k.Project("shop").Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Async: true, IdempotencyKey: "second"})
		fails(t, err, engine.TypeBusy)
		if _, err := outbox("second"); err != nil {
			t.Error(err)
		}
	}
	k.Drain()
	k.Advance(time.Minute)
	if x := k.Execute("shop", "f", engine.ExecuteParams{Async: true, IdempotencyKey: "second"}); x.Repeated {
		t.Errorf("a key that was refused is known: %+v", x)
	}
}

// A batch is queued as a whole or not at all, and runs like any other.
func TestExecuteMany(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error { return c.Text(200, c.Req.Path) }}, func(c *engine.Config) { c.Limits.Queued = 5 })
	k.Deploy("shop", engine.FunctionParams{ID: "f", Entrypoint: "f"})
	shop := k.Project("shop")
	for _, c := range []struct {
		calls []engine.ExecuteParams
		want  string
		says  string
	}{
		{[]engine.ExecuteParams{{}, {Method: "X Y"}}, engine.TypeArgument, "calls[1]: "},
		{[]engine.ExecuteParams{{IdempotencyKey: "k"}}, engine.TypeBadRequest, "calls[0]: "},
		{make([]engine.ExecuteParams, 6), engine.TypeBusy, "limit of 5"},
		{make([]engine.ExecuteParams, engine.MaxBatch+1), engine.TypeArgument, "calls"},
	} {
		_, err := shop.ExecuteMany(t.Context(), engine.System, "f", c.calls)
		if fails(t, err, c.want); !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
	if _, err := shop.ExecuteMany(t.Context(), engine.Actor{Kind: engine.ActorKey}, "f", make([]engine.ExecuteParams, 1)); err == nil {
		t.Error("a key without scopes may")
	}
	if n := len(k.Executions("shop", "f")); n != 0 {
		t.Fatalf("%d executions were queued with an error", n)
	}
	all, err := shop.ExecuteMany(t.Context(), engine.System, "f", []engine.ExecuteParams{{Path: "/0"}, {Path: "/1", ScheduledAt: k.Clock.Now().Add(time.Hour)}, {Path: "/2", Body: []byte("b")}})
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	for i, want := range []store.ExecutionStatus{store.ExecutionWaiting, store.ExecutionScheduled, store.ExecutionWaiting} {
		if all[i].Status != want || all[i].RequestPath != fmt.Sprint("/", i) || all[i].Payload != nil {
			t.Errorf("%d: %+v", i, all[i])
		}
	}
	k.Advance(2 * time.Hour)
	for _, x := range k.Executions("shop", "f") {
		if x.Status != store.ExecutionCompleted || x.RequestMethod != map[string]string{"/0": "GET", "/1": "GET", "/2": "POST"}[x.RequestPath] {
			t.Errorf("%+v", x)
		}
	}
	if none, err := shop.ExecuteMany(t.Context(), engine.System, "f", nil); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
}

// countedRows is a store that counts how often executions are counted, and holds
// the answers back, if it shall.
type countedRows struct {
	store.Store
	held atomic.Pointer[chan struct{}]
	n    atomic.Int64
}

func (s *countedRows) CountExecutions(ctx context.Context, project, function, reader string, q store.Query, max int) (int, error) {
	if held := s.held.Load(); held != nil {
		s.n.Add(1)
		<-*held
	}
	return s.Store.CountExecutions(ctx, project, function, reader, q, max)
}

// When what is known of the queue is too old, one counts for all who come.
func TestTheQueueIsCountedOnce(t *testing.T) {
	t.Parallel()
	s, mock, held := &countedRows{}, clock.NewMock(), make(chan struct{})
	mock.Set(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	h := start(t, funcs(ok), func(c *engine.Config) { s.Store, c.Store, c.Clock = c.Store, s, mock })
	h.ready(t, "f")
	queue := func() error {
		_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Async: true})
		return err
	}
	if err := queue(); err != nil {
		t.Fatal(err)
	}
	s.held.Store(&held)
	mock.Add(2 * time.Minute)
	errs := make(chan error)
	for range 50 {
		go func() { errs <- queue() }()
	}
	for range 49 { // the others do not wait for the one who counts
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	close(held)
	if err := <-errs; err != nil || s.n.Load() != 1 {
		t.Errorf("counted %d times, %v", s.n.Load(), err)
	}
}
