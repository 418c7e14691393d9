package engine_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

func trigger(t *testing.T, k *enginetest.Kit, by engine.Actor, p engine.TriggerParams) []engine.Execution {
	t.Helper()
	queued, err := k.Project("shop").Trigger(t.Context(), by, p)
	if err != nil {
		t.Fatal(err)
	}
	return queued
}

func TestTrigger(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]string{}
	k := enginetest.New(t, fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
		mu.Lock()
		defer mu.Unlock()
		h := c.Req.Headers
		seen[h["x-appwrite-trigger"]+" "+h["x-appwrite-event"]+" by "+h["x-appwrite-user-id"]+" "+h["content-type"]+" "+h["user-agent"]+" "+c.Req.Method+" "+c.Req.Path] = c.Req.Text()
		return c.Text(http.StatusOK, "")
	}})
	for id, patterns := range map[string][]string{
		"any":   {"users.*.update", "users.*.update.email"}, // one execution, though both match
		"one":   {"users.ann.update.email"},
		"other": {"users.bob.update.email", "users.*.delete", "teams.*.create"},
	} {
		k.Deploy("shop", engine.FunctionParams{ID: id, Entrypoint: "f", Events: patterns})
	}
	k.Deploy("shop", engine.FunctionParams{ID: "off", Entrypoint: "f", Events: []string{"users.*.update"}})
	if _, err := k.Project("shop").UpdateFunction(t.Context(), engine.System, "off", engine.FunctionParams{Name: "off", Events: []string{"users.*.update"}, Disabled: true}); err != nil {
		t.Fatal(err)
	}
	k.Deploy("elsewhere", engine.FunctionParams{ID: "any", Entrypoint: "f", Events: []string{"users.*.update"}})

	ann := engine.Actor{Kind: engine.ActorUser, UserID: "ann"}
	queued := trigger(t, k, ann, engine.TriggerParams{Name: "users.ann.update.email", Payload: []byte(`{"email":"a@b.c"}`)})
	k.Drain()
	var functions []string
	for _, x := range queued {
		functions = append(functions, x.FunctionID)
		got, err := k.Project("shop").GetExecution(t.Context(), ann, x.FunctionID, x.ID) // she may read it
		if err != nil || got.Status != "completed" || got.Trigger != "event" || got.Event != "users.ann.update.email" || x.Payload != nil {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	slices.Sort(functions)
	if fmt.Sprint(functions) != "[any one]" {
		t.Errorf("queued %v", functions)
	}
	want := map[string]string{"event users.ann.update.email by ann application/json Appwrite/" + engine.WireVersion + " POST /": `{"email":"a@b.c"}`}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("the functions saw %v", seen)
	}
	if n := len(k.Executions("elsewhere", "any")); n != 0 {
		t.Errorf("%d executions in another project", n)
	}

	clear(seen)
	trigger(t, k, engine.System, engine.TriggerParams{Name: "teams.T.create"})
	k.Drain()
	if body := fmt.Sprint(seen); !strings.Contains(body, "by  application/json") || !strings.HasSuffix(body, ":[]]") {
		t.Errorf("without user and payload: %s", body)
	}
}

func TestTriggerOnce(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Events: []string{"users.*.create"}})
	k.Deploy("elsewhere", engine.FunctionParams{ID: "f", Events: []string{"users.*.create"}})
	event := engine.TriggerParams{ID: "e1", Name: "users.U.create"}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if _, err := k.Project("shop").Trigger(t.Context(), engine.System, event); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if n := len(k.Executions("shop", "f")); n != 1 {
		t.Errorf("%d executions of one event, want 1", n)
	}
	if _, err := k.Project("elsewhere").Trigger(t.Context(), engine.System, event); err != nil || len(k.Executions("elsewhere", "f")) != 1 {
		t.Errorf("another project's event of the same id: %v", err)
	}
	for _, name := range []string{"", ""} { // no id: each is one
		trigger(t, k, engine.System, engine.TriggerParams{ID: name, Name: event.Name})
	}
	if n := len(k.Executions("shop", "f")); n != 3 {
		t.Errorf("%d executions, want 3", n)
	}
	k.Advance(24 * time.Hour)
	trigger(t, k, engine.System, event)
	if n := len(k.Executions("shop", "f")); n != 4 {
		t.Errorf("%d executions after a day, want 4", n)
	}
}

func TestTriggerRefuses(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet}, func(c *engine.Config) {
		c.Limits.RequestBody = 100
		c.Hooks.Projects = func(_ context.Context, id string) (engine.ProjectLimits, error) {
			if id != "shop" {
				return engine.ProjectLimits{}, engine.Errorf(engine.TypeProject, "")
			}
			return engine.ProjectLimits{}, nil
		}
	})
	for _, name := range []string{"", "users", "users.*.create", "users.U.explode", "functions.F.create", "users.U.update.age", strings.Repeat("x", 300)} {
		_, err := k.Project("shop").Trigger(t.Context(), engine.System, engine.TriggerParams{Name: name})
		fails(t, err, engine.TypeArgument)
	}
	for _, payload := range []string{"{", "text", `"` + strings.Repeat("x", 100) + `"`} {
		_, err := k.Project("shop").Trigger(t.Context(), engine.System, engine.TriggerParams{Name: "users.U.create", Payload: []byte(payload)})
		fails(t, err, engine.TypeArgument)
	}
	_, err := k.Project("shop").Trigger(t.Context(), engine.System, engine.TriggerParams{ID: strings.Repeat("i", 257), Name: "users.U.create"})
	fails(t, err, engine.TypeArgument)
	_, err = k.Project("nowhere").Trigger(t.Context(), engine.System, engine.TriggerParams{Name: "users.U.create"})
	fails(t, err, engine.TypeProject)
}

// A host may have other things that happen.
func TestTriggerOwnTree(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet}, func(c *engine.Config) {
		c.Hooks.Events = map[string]engine.Resource{"orders": {
			Actions: map[string][]string{"create": nil, "update": {"status"}},
			Below:   map[string]engine.Resource{"items": {Actions: map[string][]string{"delete": nil}}},
		}}
	})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Events: []string{"orders.*.update.status", "orders.*.items.*.delete"}})
	trigger(t, k, engine.System, engine.TriggerParams{Name: "orders.7.update.status"})
	trigger(t, k, engine.System, engine.TriggerParams{Name: "orders.7.items.1.delete"})
	trigger(t, k, engine.System, engine.TriggerParams{Name: "orders.7.create"})
	if n := len(k.Executions("shop", "f")); n != 2 {
		t.Errorf("%d executions, want 2", n)
	}
	_, err := k.Project("shop").CreateFunction(t.Context(), engine.System, engine.FunctionParams{Name: "g", Runtime: fnbox.RuntimeID, Events: []string{"users.*.create"}})
	fails(t, err, engine.TypeArgument)
}

// A function whose event triggers itself, through the key it was handed, comes
// to an end.
func TestTriggerChain(t *testing.T) {
	t.Parallel()
	var k *enginetest.Kit
	var refused error
	k = enginetest.New(t, fnbox.Funcs{"f": func(ctx context.Context, c *fnbox.Context) error {
		by, err := k.ActorForKey("shop", c.Req.Headers["x-appwrite-key"])
		if err == nil {
			_, refused = k.Project("shop").Trigger(ctx, by, engine.TriggerParams{Name: "users.U.create"})
		}
		return err
	}}, func(c *engine.Config) { c.Limits.Chain = 3 })
	k.Deploy("shop", engine.FunctionParams{ID: "f", Events: []string{"users.*.create"}})
	trigger(t, k, engine.System, engine.TriggerParams{Name: "users.U.create"})
	k.Drain()
	if n := len(k.Executions("shop", "f")); n != 3 {
		t.Errorf("%d executions, want 3", n)
	}
	fails(t, refused, engine.TypeRateLimit)
	if _, err := k.Project("shop").Execute(t.Context(), engine.System, "f", engine.ExecuteParams{}); err != nil {
		t.Fatal(err)
	}
	k.Drain()
	if n := len(k.Executions("shop", "f")); n != 6 { // the call, and two that follow
		t.Errorf("%d executions, want 6", n)
	}
}
