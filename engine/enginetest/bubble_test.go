package enginetest_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// TestStartedInABubble: the loops of an engine, and functions that take their time,
// run on the time of a bubble.
func TestStartedInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, c *fnbox.Context) error {
			select {
			case <-time.After(time.Hour):
				return c.Text(http.StatusOK, "at last")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		fails := func(context.Context, *fnbox.Context) error { return errors.New("no") }
		kit := enginetest.Start(t, fnbox.Funcs{"slow": slow, "fails": fails, "hello": hello}, func(c *engine.Config) {
			c.Limits.Timeout, c.Limits.SyncTimeout = 7200, 2*time.Hour
		})
		began := time.Now()
		passed := func(what string, want time.Duration) {
			t.Helper()
			if got := time.Since(began).Round(time.Second); got != want {
				t.Errorf("%s: %s have passed, want %s", what, got, want)
			}
			began = time.Now()
		}
		kit.Deploy("shop", engine.FunctionParams{ID: "slow", Timeout: 15})
		passed("deployed", 0)
		if x := kit.Execute("shop", "slow", engine.ExecuteParams{}); x.Status != "failed" {
			t.Errorf("%+v", x)
		}
		passed("beyond its timeout", 15*time.Second)
		kit.Deploy("shop", engine.FunctionParams{ID: "patient", Entrypoint: "slow", Timeout: 7200})
		if x := kit.Execute("shop", "patient", engine.ExecuteParams{}); string(x.ResponseBody) != "at last" {
			t.Errorf("%+v", x)
		}
		passed("an answer", time.Hour)

		kit.Deploy("shop", engine.FunctionParams{ID: "fails", Policy: engine.PolicyParams{Retry: &engine.Retry{Attempts: 3, Backoff: 3600}}})
		queued := kit.Execute("shop", "fails", engine.ExecuteParams{Async: true})
		if next := kit.Drain(); next.Sub(began) < 30*time.Minute || next.Sub(began) > time.Hour {
			t.Errorf("run again at %s", next)
		}
		kit.Advance(4 * time.Hour)
		passed("retries", 4*time.Hour)
		if x := kit.Execution("shop", "fails", queued.ID); x.Status != "dead" || x.Tries != 3 {
			t.Errorf("%+v", x)
		}

		kit.Deploy("shop", engine.FunctionParams{ID: "hello", Schedule: "0 3 * * MON"})
		kit.AdvanceTo(began.AddDate(0, 0, 28))
		if n := len(kit.Executions("shop", "hello")); n != 4 {
			t.Errorf("%d runs of a weekly schedule in four weeks", n)
		}

		w := httptest.NewRecorder() // a handler needs no server
		httpapi.FunctionHandler(kit.Engine, "shop", "hello").ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		if w.Code != http.StatusOK || w.Body.String() != "hello" {
			t.Errorf("%d %q", w.Code, w.Body)
		}
		kit.Execute("shop", "patient", engine.ExecuteParams{Async: true}) // which the end of the test ends
		kit.Drain()
	})
}

// TestSteppedInABubble: a kit whose clock the test moves is the same there, and
// if its loops run they can be followed too.
func TestSteppedInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kit := enginetest.New(t, fnbox.Funcs{"hello": hello})
		kit.Deploy("shop", engine.FunctionParams{ID: "hello", Schedule: "0 3 * * MON"})
		kit.AdvanceTo(enginetest.Epoch.AddDate(1, 0, 0))
		if n := len(kit.Executions("shop", "hello")); n != 52 {
			t.Errorf("%d runs in a year", n)
		}
		cfg := kit.Config()
		if err := kit.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		cfg.Dir, cfg.Work.Poll = t.TempDir(), time.Hour
		loops, err := engine.New(cfg)
		if err == nil {
			err = loops.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		kit.Clock.Add(7 * 24 * time.Hour) // lets goroutines run at each step, in a bubble until they wait
		synctest.Wait()
		if n := len(kit.Executions("shop", "hello")); n != 53 {
			t.Errorf("%d runs in a week more", n)
		}
		if err := loops.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
