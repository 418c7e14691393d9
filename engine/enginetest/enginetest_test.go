package enginetest_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hello(_ context.Context, c *fnbox.Context) error { return c.Text(http.StatusOK, "hello") }

func TestDrainDoesAllThatIsDue(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"hello": hello})
	k.Deploy("shop", engine.FunctionParams{ID: "hello"})
	for range 3 {
		if _, err := k.Project("shop").Execute(t.Context(), engine.System, "hello", engine.ExecuteParams{Async: true}); err != nil {
			t.Fatal(err)
		}
	}
	at := enginetest.Epoch.Add(time.Hour)
	if _, err := k.Project("shop").Execute(t.Context(), engine.System, "hello", engine.ExecuteParams{Async: true, ScheduledAt: at}); err != nil {
		t.Fatal(err)
	}
	if next := k.Drain(); !next.Equal(at) {
		t.Errorf("next is %s, want %s", next, at)
	}
	ended := func() (n int) {
		for _, x := range k.Executions("shop", "hello") {
			if x.Status == "completed" {
				n++
			}
		}
		return n
	}
	if n := ended(); n != 3 {
		t.Errorf("%d have ended, want 3", n)
	}
	k.Advance(time.Hour - time.Millisecond)
	if n := ended(); n != 3 {
		t.Errorf("%d have ended before the time, want 3", n)
	}
	k.Advance(time.Millisecond)
	if n := ended(); n != 4 {
		t.Errorf("%d have ended, want 4", n)
	}
	if next := k.Drain(); !next.IsZero() {
		t.Errorf("idle, and next is %s", next)
	}
	x, err := k.Project("shop").Execute(t.Context(), engine.System, "hello", engine.ExecuteParams{})
	if err != nil || string(x.ResponseBody) != "hello" {
		t.Errorf("a synchronous call: %q, %v", x.ResponseBody, err)
	}
}

func TestStartedIsNotStepped(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"hello": hello})
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Step(t.Context()); err == nil {
		t.Error("a started engine was stepped")
	}
	other := enginetest.New(t, fnbox.Funcs{"hello": hello})
	other.Drain()
	if err := other.Start(t.Context()); err == nil {
		t.Error("a stepped engine was started")
	}
}
