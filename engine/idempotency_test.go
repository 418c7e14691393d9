package engine_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// counting answers with how often it ran.
func counting() (fnbox.Func, *atomic.Int64) {
	var runs atomic.Int64
	return func(_ context.Context, c *fnbox.Context) error {
		c.SetHeader("x-run", fmt.Sprint(runs.Add(1)))
		return c.Text(201, fmt.Sprintf("run %d of %s", runs.Load(), c.Req.Text()))
	}, &runs
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	run, runs := counting()
	k := enginetest.New(t, fnbox.Funcs{"f": run})
	for _, id := range []string{"f", "g"} {
		k.Deploy("shop", engine.FunctionParams{ID: id, Entrypoint: "f"})
		k.Deploy("other", engine.FunctionParams{ID: id, Entrypoint: "f"})
	}
	ann, bob := engine.Actor{Kind: engine.ActorUser, UserID: "ann"}, engine.Actor{Kind: engine.ActorUser, UserID: "bob"}
	for _, async := range []bool{false, true} {
		call := func(project string, by engine.Actor, function, key, body, ip string) (engine.ExecuteResult, error) {
			x, err := k.Project(project).Execute(t.Context(), by, function, engine.ExecuteParams{Async: async, IdempotencyKey: fmt.Sprint(key, async), Body: []byte(body), ClientIP: ip})
			k.Drain()
			return x, err
		}
		before := runs.Load()
		first, err := call("shop", ann, "f", "1", "a", "")
		if err != nil || first.Repeated {
			t.Fatalf("%+v, %v", first, err)
		}
		for range 2 {
			again, err := call("shop", ann, "f", "1", "a", "10.0.0.1") // from elsewhere
			if err != nil || !again.Repeated || again.ID != first.ID || string(again.ResponseBody) != string(first.ResponseBody) || fmt.Sprint(again.ResponseHeaders) != fmt.Sprint(first.ResponseHeaders) {
				t.Errorf("again: %+v, %v; first %+v", again, err, first)
			}
			if async && again.Status != "completed" || again.ResponseStatusCode != 201 {
				t.Errorf("again: %+v", again)
			}
		}
		if runs.Load() != before+1 {
			t.Errorf("%d runs", runs.Load()-before)
		}
		_, err = call("shop", ann, "f", "1", "b", "")
		fails(t, err, engine.TypeKeyReused)
		_, err = call("shop", ann, "f", strings.Repeat("k", 255), "a", "")
		fails(t, err, engine.TypeArgument)
		seen := map[string]bool{first.ID: true}
		for _, c := range []struct {
			project  string
			by       engine.Actor
			function string
			key, ip  string
		}{
			{"shop", bob, "f", "1", ""}, {"shop", engine.System, "f", "1", ""}, {"shop", engine.Actor{}, "f", "1", "10.0.0.1"}, {"shop", engine.Actor{}, "f", "1", "10.0.0.2"},
			{"shop", ann, "g", "1", ""}, {"other", ann, "f", "1", ""}, {"shop", ann, "f", "2", ""},
		} {
			x, err := call(c.project, c.by, c.function, c.key, "a", c.ip)
			if err != nil || x.Repeated || seen[x.ID] {
				t.Errorf("%+v: %+v, %v", c, x, err)
			}
			seen[x.ID] = true
		}
		k.Advance(24 * time.Hour)
		later, err := call("shop", ann, "f", "1", "a", "")
		if err != nil || later.Repeated || later.ID == first.ID {
			t.Errorf("after a day: %+v, %v", later, err)
		}
		if err := k.Project("shop").DeleteExecution(t.Context(), engine.System, "f", later.ID); err != nil {
			t.Fatal(err)
		}
		_, err = call("shop", ann, "f", "1", "a", "")
		fails(t, err, engine.TypeExecution) // it is not executed again
	}
}

// Calls at once with one key: one runs, the others wait for its answer.
func TestIdempotencyKeyAtOnce(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	entered, leave := make(chan struct{}, 9), make(chan struct{})
	const lease = 3 * time.Second
	h := start(t, fnbox.New(fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
		runs.Add(1)
		entered <- struct{}{}
		<-leave
		return c.Text(200, "the answer")
	}}), func(c *engine.Config) { c.Work.Lease = lease })
	h.function(t, "f", fnbox.RuntimeID, "f")
	h.deploy(t, "f", map[string]string{"README": ""})
	results := make(chan engine.ExecuteResult, 9)
	var wg sync.WaitGroup
	for range cap(results) {
		wg.Go(func() {
			x, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{IdempotencyKey: "k"})
			if err != nil {
				t.Error(err)
			}
			results <- x
		})
	}
	<-entered
	running := eventually(t, func() (engine.Execution, bool) { // it is to be seen, and its lease is renewed
		list, err := h.p.ListExecutions(t.Context(), engine.System, "f", engine.Query{})
		if err != nil || len(list.Items) == 0 {
			return engine.Execution{}, false
		}
		x := list.Items[0]
		return x, x.ReadyAt.After(x.CreatedAt.Add(lease + 100*time.Millisecond))
	})
	if running.Status != "processing" {
		t.Errorf("while it runs: %+v", running)
	}
	close(leave)
	wg.Wait()
	close(results)
	repeated := 0
	for x := range results {
		if x.ID != running.ID || string(x.ResponseBody) != "the answer" || x.Status != "completed" {
			t.Errorf("got %+v", x)
		}
		if x.Repeated {
			repeated++
		}
	}
	if runs.Load() != 1 || repeated != 8 {
		t.Errorf("%d runs, %d repeated", runs.Load(), repeated)
	}
}

// A call that could not begin holds no key; one that took too long answers that again.
func TestIdempotencyKeyOfFailures(t *testing.T) {
	t.Parallel()
	hold, held := make(chan struct{}), make(chan struct{}, 9)
	h := start(t, fnbox.New(fnbox.Funcs{"f": func(ctx context.Context, c *fnbox.Context) error {
		if c.Req.Text() == "hold" {
			held <- struct{}{}
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		return c.Text(200, "done")
	}}), func(c *engine.Config) {
		c.Instances.Max, c.Instances.Concurrency, c.Instances.Wait = 1, 1, 20*time.Millisecond
		c.Limits.SyncTimeout = 2 * time.Second
	})
	h.function(t, "f", fnbox.RuntimeID, "f")
	h.deploy(t, "f", map[string]string{"README": ""})
	busy := h.execute(t, "f", engine.ExecuteParams{Async: true, Body: []byte("hold")})
	<-held
	once := engine.ExecuteParams{IdempotencyKey: "k"}
	for range 2 {
		_, err := h.p.Execute(t.Context(), engine.System, "f", once)
		fails(t, err, engine.TypeBusy)
	}
	close(hold)
	h.ended(t, busy.Execution)
	x := eventually(t, func() (engine.ExecuteResult, bool) { // the instance may not be free yet
		x, err := h.p.Execute(t.Context(), engine.System, "f", once)
		return x, err == nil
	})
	if x.Repeated || string(x.ResponseBody) != "done" {
		t.Errorf("the first that ran: %+v", x)
	}
	hold = make(chan struct{})
	for range 2 {
		_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{IdempotencyKey: "slow", Body: []byte("hold")})
		fails(t, err, engine.TypeSyncTimeout)
	}
	list, err := h.p.ListExecutions(t.Context(), engine.System, "f", engine.Query{})
	if err != nil || list.Total != 3 {
		t.Errorf("%d executions, %v", list.Total, err)
	}
}

// An engine that dies in the middle of a call: the call is not made again, and
// whoever asks is told what became of it. (The clock of the first engine stands
// still, as if it were dead.)
func TestIdempotencyKeyAfterCrash(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	dead, alive := clock.NewMock(), clock.NewMock()
	dead.Set(enginetest.Epoch)
	box := fnbox.New(fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
		close(entered)
		<-leave
		return c.Text(200, "too late")
	}})
	a := open(t, box, func(c *engine.Config) { c.Clock = dead })
	a.function(t, "f", fnbox.RuntimeID, "f")
	d, err := a.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Source: strings.NewReader(string(archived(t, map[string]string{"README": ""}))), Size: -1, Activate: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.stop(t) })
	a.built(t, d)
	once := engine.ExecuteParams{IdempotencyKey: "k"}
	late := make(chan error, 1)
	go func() {
		_, err := a.p.Execute(context.WithoutCancel(t.Context()), engine.System, "f", once)
		late <- err
	}()
	<-entered

	cfg := a.cfg
	cfg.Sandbox, cfg.Dir, cfg.Clock = fnbox.New(fnbox.Funcs{"f": quiet}), filepath.Join(t.TempDir(), "engine"), alive
	b := with(t, cfg)
	t.Cleanup(func() { b.stop(t) })
	alive.Set(dead.Now().Add(31 * time.Second))
	for did := true; did; {
		if _, did, err = b.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		x, err := b.p.Execute(t.Context(), engine.System, "f", once)
		if err != nil || x.Status != "failed" || !x.Repeated || !strings.Contains(x.Errors, "not run again") {
			t.Errorf("after the crash: %+v, %v", x, err)
		}
	}
	close(leave)
	fails(t, <-late, engine.TypeUnavailable)
	x, err := b.p.Execute(t.Context(), engine.System, "f", once)
	if err != nil || x.Status != "failed" {
		t.Errorf("in the end: %+v, %v", x, err)
	}
}
