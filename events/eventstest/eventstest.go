// Package eventstest is the suite every events.Bus passes.
package eventstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/events"
)

// patience is how long an event may be on its way.
const patience = 10 * time.Second

// Run runs the suite. open returns a bus of its own for each test, which the
// suite closes.
func Run(t *testing.T, open func(t *testing.T) events.Bus) {
	for name, test := range map[string]func(*testing.T, events.Bus){
		"delivers":           delivers,
		"selects":            selects,
		"ends with context":  endsWithContext,
		"closes":             closes,
		"never waits":        neverWaits,
		"many at once":       manyAtOnce,
		"subscribers differ": subscribersDiffer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bus := open(t)
			defer bus.Close()
			test(t, bus)
		})
	}
}

func event(project, id string) events.Event {
	name := "functions." + id + ".create"
	return events.Event{
		ID: id, Project: project, Names: events.Expand(name), Payload: json.RawMessage(`{"$id":"` + id + `"}`),
		UserID: "u", At: time.UnixMilli(1_700_000_000_000).UTC(),
	}
}

func subscribe(t *testing.T, b events.Bus, p events.Pattern) <-chan events.Event {
	t.Helper()
	c, err := b.Subscribe(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func publish(t *testing.T, b events.Bus, e events.Event) {
	t.Helper()
	if err := b.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// next returns the next event, which must come.
func next(t *testing.T, c <-chan events.Event) events.Event {
	t.Helper()
	select {
	case e, ok := <-c:
		if !ok {
			t.Fatal("the subscription has ended")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no event came")
	}
	return events.Event{}
}

func delivers(t *testing.T, b events.Bus) {
	c := subscribe(t, b, events.Pattern{})
	want := event("p", "f")
	publish(t, b, want)
	got := next(t, c)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for i := range 10 {
		publish(t, b, event("p", fmt.Sprint("f", i)))
	}
	for i := range 10 {
		if e := next(t, c); e.ID != fmt.Sprint("f", i) {
			t.Errorf("event %d is %s", i, e.ID)
		}
	}
}

func selects(t *testing.T, b events.Bus) {
	c := subscribe(t, b, events.Pattern{Project: "p", Name: "functions.*.create"})
	one := subscribe(t, b, events.Pattern{Name: "functions.f2"})
	publish(t, b, event("q", "f1"))
	publish(t, b, event("p", "f2"))
	update := event("p", "f3")
	update.Names = events.Expand("functions.f3.update")
	publish(t, b, update)
	publish(t, b, event("p", "f4"))
	if a, b := next(t, c), next(t, c); a.ID != "f2" || b.ID != "f4" {
		t.Errorf("got %s and %s, want f2 and f4", a.ID, b.ID)
	}
	if e := next(t, one); e.ID != "f2" {
		t.Errorf("got %s, want f2", e.ID)
	}
}

func endsWithContext(t *testing.T, b events.Bus) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := b.Subscribe(ctx, events.Pattern{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	ended(t, c)
	publish(t, b, event("p", "f"))
}

// ended waits until a subscription has ended; what was on its way may still come.
func ended(t *testing.T, c <-chan events.Event) {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case _, ok := <-c:
			if !ok {
				return
			}
		case <-limit:
			t.Fatal("the subscription does not end")
		}
	}
}

func closes(t *testing.T, b events.Bus) {
	c := subscribe(t, b, events.Pattern{})
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ended(t, c)
	if err := b.Publish(t.Context(), event("p", "f")); !errors.Is(err, events.ErrClosed) {
		t.Errorf("Publish after Close: %v", err)
	}
	if _, err := b.Subscribe(t.Context(), events.Pattern{}); !errors.Is(err, events.ErrClosed) {
		t.Errorf("Subscribe after Close: %v", err)
	}
}

func neverWaits(t *testing.T, b events.Bus) {
	slow := subscribe(t, b, events.Pattern{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 20_000 {
			if err := b.Publish(context.Background(), event("p", fmt.Sprint(i))); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Publish waits for a subscriber that does not read")
	}
	if e := next(t, slow); e.ID != "0" {
		t.Errorf("the first event kept is %s, want the first published", e.ID)
	}
}

func manyAtOnce(t *testing.T, b events.Bus) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c, err := b.Subscribe(ctx, events.Pattern{Project: fmt.Sprint("p", i)})
			if err != nil {
				t.Error(err)
				return
			}
			for j := range 50 {
				if err := b.Publish(t.Context(), event(fmt.Sprint("p", i), fmt.Sprint("f", j))); err != nil {
					t.Error(err)
				}
			}
			for j := range 50 {
				if e := next(t, c); e.ID != fmt.Sprint("f", j) || e.Project != fmt.Sprint("p", i) {
					t.Errorf("subscriber %d got %s/%s as event %d", i, e.Project, e.ID, j)
				}
			}
		})
	}
	wg.Wait()
}

func subscribersDiffer(t *testing.T, b events.Bus) {
	first, second := subscribe(t, b, events.Pattern{}), subscribe(t, b, events.Pattern{})
	publish(t, b, event("p", "f"))
	if a, b := next(t, first), next(t, second); a.ID != "f" || b.ID != "f" {
		t.Errorf("got %s and %s", a.ID, b.ID)
	}
}
