package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// deafBus drops everything: what is published fails, and nothing is heard.
type deafBus struct{}

func (deafBus) Publish(context.Context, events.Event) error { return errors.New("dropped") }
func (deafBus) Subscribe(context.Context, events.Pattern) (<-chan events.Event, error) {
	return nil, errors.New("nobody is heard")
}
func (deafBus) Close() error { return nil }

// TestChaosBus: without a bus that works everything runs: builds, queued and
// synchronous executions, schedules, events and cancellation, on two engines.
func TestChaosBus(t *testing.T) {
	t.Parallel()
	funcs := fnbox.Funcs{"f": quiet}
	k := enginetest.New(t, funcs, func(c *engine.Config) { c.Bus, c.Logger = deafBus{}, nil })
	other := enginetest.New(t, funcs, func(c *engine.Config) {
		first := k.Config()
		c.Bus, c.Logger, c.Store, c.Blobs, c.Clock = deafBus{}, nil, first.Store, first.Blobs, first.Clock
	})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Schedule: "*/10 * * * *", Events: []string{"users.*.create"}})
	shop, now := other.Project("shop"), k.Clock.Now()
	if _, err := k.Project("shop").Execute(t.Context(), engine.System, "f", engine.ExecuteParams{}); err != nil {
		t.Fatal(err)
	}
	var last engine.ExecuteResult
	for _, at := range []time.Time{{}, now.Add(time.Minute), now.Add(time.Hour)} {
		var err error
		if last, err = shop.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Async: true, ScheduledAt: at}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := shop.CancelExecution(t.Context(), engine.System, "f", last.ID); err != nil {
		t.Fatal(err)
	}
	if rows, err := shop.Trigger(t.Context(), engine.System, engine.TriggerParams{Name: "users.u.create"}); err != nil || len(rows) != 1 {
		t.Fatalf("triggered %d, %v", len(rows), err)
	}
	k.Advance(25 * time.Minute)
	ended := map[engine.ExecutionStatus]int{}
	for _, x := range k.Executions("shop", "f") {
		ended[x.Status]++
	}
	// Two calls, the event's, the scheduled one and two ticks; one was canceled.
	if ended["completed"] != 6 || ended["canceled"] != 1 || len(ended) != 2 {
		t.Errorf("ended as %v", ended)
	}
}
