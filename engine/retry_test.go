package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// flaky fails as often as it is told to, and counts its runs by body.
type flaky struct {
	fails int
	runs  []string
}

func (f *flaky) run(_ context.Context, c *fnbox.Context) error {
	f.runs = append(f.runs, c.Req.Method+" "+c.Req.Path+" "+c.Req.Text())
	if len(f.runs) <= f.fails {
		return fmt.Errorf("failure %d", len(f.runs))
	}
	return c.Text(200, "done")
}

func TestRetries(t *testing.T) {
	t.Parallel()
	f := &flaky{fails: 2}
	k := enginetest.New(t, fnbox.Funcs{"f": f.run})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Policy: engine.PolicyParams{Retry: &engine.Retry{Attempts: 3, Backoff: 10}}})
	x := k.Execute("shop", "f", engine.ExecuteParams{Async: true, Body: []byte("request")})
	began := k.Clock.Now()
	for tries, longest := range []time.Duration{10 * time.Second, 20 * time.Second} {
		next := k.Drain()
		got := k.Execution("shop", "f", x.ID)
		if wait := next.Sub(k.Clock.Now()); wait < longest/2 || wait > longest {
			t.Errorf("after %d failures it waits for %s, want %s to %s", tries+1, wait, longest/2, longest)
		}
		if got.Status != "waiting" || got.Tries != tries+1 || !strings.Contains(got.Errors, fmt.Sprint("failure ", tries+1)) {
			t.Errorf("after %d failures: %+v", tries+1, got)
		}
		k.Clock.Set(next)
	}
	k.Drain()
	got := k.Execution("shop", "f", x.ID)
	if got.Status != "completed" || got.Tries != 2 || got.Errors != "" || len(f.runs) != 3 || f.runs[2] != "POST / request" {
		t.Errorf("in the end: %+v, runs %q", got, f.runs)
	}
	if k.Clock.Now().Sub(began) < 15*time.Second {
		t.Error("it did not wait")
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	f := &flaky{fails: 2}
	k := enginetest.New(t, fnbox.Funcs{"f": f.run})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Policy: engine.PolicyParams{Retry: &engine.Retry{Attempts: 2}}})
	shop := k.Project("shop")
	x := k.Execute("shop", "f", engine.ExecuteParams{Async: true, Method: "PUT", Path: "/p", Body: []byte("request"), Headers: []engine.Header{{Name: "x-own", Value: "1"}}})
	_, err := shop.ReplayExecution(t.Context(), engine.System, "f", x.ID)
	fails(t, err, engine.TypeExecutionAlive)
	k.Advance(time.Minute)
	dead, err := shop.ListExecutions(t.Context(), engine.System, "f", engine.Query{Filters: []engine.Filter{{Op: "equal", Attr: "status", Values: []any{"dead"}}}})
	if err != nil || dead.Total != 1 || dead.Items[0].ID != x.ID || dead.Items[0].Tries != 2 || !strings.Contains(dead.Items[0].Errors, "failure 2") {
		t.Fatalf("dead letters: %+v, %v", dead, err)
	}
	for _, by := range []engine.Actor{{}, {Kind: engine.ActorUser, UserID: "ann"}} {
		_, err = shop.ReplayExecution(t.Context(), by, "f", x.ID)
		fails(t, err, engine.TypeFunction)
	}
	_, err = shop.ReplayExecution(t.Context(), engine.System, "f", "nobody")
	fails(t, err, engine.TypeExecution)
	_, err = shop.ReplayExecution(t.Context(), engine.System, "g", x.ID)
	fails(t, err, engine.TypeFunction)
	_, err = k.Project("other").ReplayExecution(t.Context(), engine.System, "f", x.ID)
	fails(t, err, engine.TypeFunction)

	again, err := shop.ReplayExecution(t.Context(), engine.System, "f", x.ID)
	if err != nil || again.ID != x.ID || again.Status != "waiting" || again.Tries != 0 {
		t.Fatalf("%+v, %v", again, err)
	}
	_, err = shop.ReplayExecution(t.Context(), engine.System, "f", x.ID)
	fails(t, err, engine.TypeExecutionAlive)
	k.Drain()
	if got := k.Execution("shop", "f", x.ID); got.Status != "completed" || got.Errors != "" || got.RequestMethod != "PUT" || f.runs[2] != "PUT /p request" {
		t.Errorf("replayed: %+v, runs %q", got, f.runs)
	}
	_, err = shop.ReplayExecution(t.Context(), engine.System, "f", x.ID)
	fails(t, err, engine.TypeExecutionAlive)
}

// What a policy does not name is final at once, and can be replayed; without a
// policy nothing is kept.
func TestRetryOn(t *testing.T) {
	t.Parallel()
	answer := func(status int) fnbox.Func {
		return func(_ context.Context, c *fnbox.Context) error { return c.Text(status, "") }
	}
	for name, c := range map[string]struct {
		retry engine.Retry
		code  fnbox.Func
		want  string // status and number of runs
	}{
		"named":              {engine.Retry{Attempts: 3, On: []engine.Failure{"error"}}, answer(500), "dead 3"},
		"not named":          {engine.Retry{Attempts: 3, On: []engine.Failure{"timeout", "crash"}}, answer(500), "dead 1"},
		"one attempt":        {engine.Retry{Attempts: 1}, answer(500), "dead 1"},
		"no policy":          {engine.Retry{}, answer(500), "failed 1"},
		"no failure":         {engine.Retry{Attempts: 3}, answer(404), "completed 1"},
		"backoff is bounded": {engine.Retry{Attempts: 20, Backoff: 3600, MaxBackoff: 7200}, answer(503), "dead 20"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := 0
			k := enginetest.New(t, fnbox.Funcs{"f": func(ctx context.Context, r *fnbox.Context) error {
				runs++
				return c.code(ctx, r)
			}})
			k.Deploy("shop", engine.FunctionParams{ID: "f", Policy: engine.PolicyParams{Retry: &c.retry}})
			x := k.Execute("shop", "f", engine.ExecuteParams{Async: true})
			k.Advance(40 * time.Hour)
			if got := fmt.Sprint(k.Execution("shop", "f", x.ID).Status, " ", runs); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A process that ends and a call that takes too long are failures of their own.
func TestRetryOfProcesses(t *testing.T) {
	t.Parallel()
	h := start(t, node(t))
	for failure, code := range map[engine.Failure]string{
		"crash":   `process.exit(3)`,
		"timeout": `await new Promise(r => setTimeout(r, 1e6))`,
	} {
		f, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{
			ID: string(failure), Name: "n", Runtime: h.runtime(t, "node"), Entrypoint: "i.js", Timeout: map[engine.Failure]int{"crash": 60, "timeout": 1}[failure],
			Policy: engine.PolicyParams{Retry: &engine.Retry{Attempts: 2, Backoff: 1, On: []engine.Failure{failure}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		h.deploy(t, f.ID, map[string]string{"i.js": "module.exports = async () => { " + code + " }"})
		x := h.execute(t, f.ID, engine.ExecuteParams{Async: true})
		if x := h.ended(t, x.Execution); x.Status != "dead" || x.Tries != 2 {
			t.Errorf("%s: %+v", failure, x)
		}
	}
}

// An execution whose engine dies each time is given up in the end. (Its lease
// ends as often as another engine could have died in it.)
func TestPoison(t *testing.T) {
	t.Parallel()
	runs := 0
	k := enginetest.New(t, fnbox.Funcs{"f": func(context.Context, *fnbox.Context) error { runs++; return nil }}, func(c *engine.Config) { c.Work.Losses = 3 })
	k.Deploy("shop", engine.FunctionParams{ID: "f"})
	x := k.Execute("shop", "f", engine.ExecuteParams{Async: true})
	for range 4 {
		rows, err := k.Config().Store.Runs().Claim(t.Context(), store.ClaimParams{Now: k.Clock.Now(), LeaseUntil: k.Clock.Now().Add(time.Second), Limit: 5})
		if err != nil || len(rows) != 1 {
			t.Fatalf("%+v, %v", rows, err)
		}
		k.Clock.Add(time.Second)
	}
	k.Drain()
	if got := k.Execution("shop", "f", x.ID); got.Status != "failed" || runs != 0 || !strings.Contains(got.Errors, "given up") {
		t.Errorf("%+v after %d runs", got, runs)
	}
}
