package engine_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// uses are all use cases, by the scope they ask for.
func uses(ctx context.Context, p *engine.Project) map[string]map[string]func(engine.Actor) error {
	q, f := engine.Query{}, "f"
	return map[string]map[string]func(engine.Actor) error{
		engine.ScopeFunctionsRead: {
			"GetFunction":     func(by engine.Actor) error { return second(p.GetFunction(ctx, by, f)) },
			"ListFunctions":   func(by engine.Actor) error { return second(p.ListFunctions(ctx, by, q)) },
			"Runtimes":        func(by engine.Actor) error { return second(p.Runtimes(ctx, by)) },
			"Specifications":  func(by engine.Actor) error { return second(p.Specifications(ctx, by)) },
			"GetDeployment":   func(by engine.Actor) error { return second(p.GetDeployment(ctx, by, f, "d")) },
			"ListDeployments": func(by engine.Actor) error { return second(p.ListDeployments(ctx, by, f, q)) },
			"OpenSource":      func(by engine.Actor) error { return second(p.OpenSource(ctx, by, f, "d")) },
			"GetVariable":     func(by engine.Actor) error { return second(p.GetVariable(ctx, by, f, "v")) },
			"ListVariables":   func(by engine.Actor) error { return second(p.ListVariables(ctx, by, f)) },
			"VariablesOf":     func(by engine.Actor) error { return second(p.VariablesOf(ctx, by, f)) },
		},
		engine.ScopeFunctionsWrite: {
			"CreateFunction":     func(by engine.Actor) error { return second(p.CreateFunction(ctx, by, engine.FunctionParams{})) },
			"UpdateFunction":     func(by engine.Actor) error { return second(p.UpdateFunction(ctx, by, f, engine.FunctionParams{})) },
			"DeleteFunction":     func(by engine.Actor) error { return p.DeleteFunction(ctx, by, f) },
			"Deploy":             func(by engine.Actor) error { return second(p.Deploy(ctx, by, f, engine.DeployParams{})) },
			"DeployChunk":        func(by engine.Actor) error { return second(p.DeployChunk(ctx, by, f, engine.Chunk{})) },
			"ActivateDeployment": func(by engine.Actor) error { return second(p.ActivateDeployment(ctx, by, f, "d")) },
			"DeleteDeployment":   func(by engine.Actor) error { return p.DeleteDeployment(ctx, by, f, "d") },
			"Rebuild":            func(by engine.Actor) error { return second(p.Rebuild(ctx, by, f, "d")) },
			"CancelBuild":        func(by engine.Actor) error { return second(p.CancelBuild(ctx, by, f, "d")) },
			"CreateVariable":     func(by engine.Actor) error { return second(p.CreateVariable(ctx, by, f, "k", "v")) },
			"UpdateVariable":     func(by engine.Actor) error { return second(p.UpdateVariable(ctx, by, f, "v", "k", nil)) },
			"DeleteVariable":     func(by engine.Actor) error { return p.DeleteVariable(ctx, by, f, "v") },
		},
		engine.ScopeExecutionRead: {
			"GetExecution":   func(by engine.Actor) error { return second(p.GetExecution(ctx, by, f, "x")) },
			"ListExecutions": func(by engine.Actor) error { return second(p.ListExecutions(ctx, by, f, q)) },
		},
		engine.ScopeExecutionWrite: {
			"Execute":         func(by engine.Actor) error { return second(p.Execute(ctx, by, f, engine.ExecuteParams{})) },
			"Stream":          func(by engine.Actor) error { return second(p.Stream(ctx, by, f, engine.StreamRequest{}, nil)) },
			"DeleteExecution": func(by engine.Actor) error { return p.DeleteExecution(ctx, by, f, "x") },
		},
	}
}

// TestEveryUseCaseAsksForItsScope: in the engine, whatever calls it.
func TestEveryUseCaseAsksForItsScope(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok))
	guest, user := engine.Actor{}, engine.Actor{Kind: engine.ActorUser, UserID: "u"}
	for scope, all := range uses(t.Context(), h.p) {
		others := []string{engine.ScopeFunctionsRead, engine.ScopeFunctionsWrite, engine.ScopeExecutionRead, engine.ScopeExecutionWrite, "users.write", ""}
		for i, s := range others {
			if s == scope {
				others[i] = "x"
			}
		}
		for name, use := range all {
			asks := others
			if name == "VariablesOf" { // also shown to who may write
				asks = []string{engine.ScopeExecutionRead, engine.ScopeExecutionWrite}
			}
			refused := []engine.Actor{{Kind: engine.ActorKey, Scopes: asks}, {Kind: engine.ActorKey}, {Kind: 99, Scopes: []string{scope}}, guest, user}
			switch scope {
			case engine.ScopeExecutionRead:
				refused = refused[:4]
			case engine.ScopeExecutionWrite:
				refused = refused[:2]
			}
			t.Run(name, func(t *testing.T) {
				for _, by := range refused {
					fails(t, use(by), engine.TypeScope)
				}
				for _, by := range []engine.Actor{{Kind: engine.ActorKey, Scopes: []string{scope}}, engine.System} {
					if err := use(by); err != nil && strings.Contains(err.Error(), "scope") {
						t.Errorf("%+v: %v", by, err)
					}
				}
			})
		}
	}
}

// TestKeysOfExecutions: scoped, of one project, and valid a little longer than
// the call may take, the wait for an instance included.
func TestKeysOfExecutions(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	var mu sync.Mutex
	var key string
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		mu.Lock()
		key = c.Req.Headers["x-appwrite-key"]
		mu.Unlock()
		return c.Empty()
	}), func(c *engine.Config) {
		c.Clock, c.Instances.Wait, c.Instances.Idle = mock, 10*time.Minute, time.Hour
		c.Work.Poll, c.Work.Lease = time.Hour, 100*time.Hour
	})
	_, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: fnbox.RuntimeID, Entrypoint: "f", Timeout: 60, Scopes: []string{"users.read"}})
	if err != nil {
		t.Fatal(err)
	}
	h.deploy(t, "f", map[string]string{"x": ""})
	h.execute(t, "f", engine.ExecuteParams{})
	by, err := h.ActorForKey("shop", key)
	if err != nil || by.Kind != engine.ActorKey || len(by.Scopes) != 1 || by.Scopes[0] != "users.read" {
		t.Fatalf("%+v, %v", by, err)
	}
	refused := func(project, key string) {
		t.Helper()
		_, err := h.ActorForKey(project, key)
		fails(t, err, engine.TypeUnauthorized)
	}
	part := strings.Split(strings.TrimPrefix(key, "dynamic_"), ".")
	claims, _ := base64.RawURLEncoding.DecodeString(part[1])
	forged := base64.RawURLEncoding.EncodeToString(bytes.Replace(claims, []byte("users.read"), []byte("users.write"), 1))
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT","kid":"k1"}`))
	for _, k := range []string{"", "dynamic_", strings.TrimPrefix(key, "dynamic_"), "dynamic_" + part[0] + "." + forged + "." + part[2], "dynamic_" + none + "." + part[1] + ".", key[:len(key)-2]} {
		refused("shop", k)
	}
	refused("blog", key)
	refused("", key)
	mock.Add(11 * time.Minute) // the longest wait and the whole timeout
	if _, err := h.ActorForKey("shop", key); err != nil {
		t.Errorf("at the deadline: %v", err)
	}
	mock.Add(2 * time.Minute)
	refused("shop", key)
}

// TestSecretsStayWhereTheyBelong: neither in the log, nor events, nor records,
// nor on disk.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-in-clear"
	var logged bytes.Buffer
	var mu sync.Mutex
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		if c.Env("TOKEN") != secret {
			t.Error("the function lacks its variable")
		}
		return c.Empty()
	}), func(c *engine.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&locked{w: &logged, mu: &mu}, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Hooks.Payload = func(record any) (json.RawMessage, error) { return json.Marshal(record) }
	})
	heard, err := h.Subscribe(t.Context(), engine.Pattern{})
	if err != nil {
		t.Fatal(err)
	}
	h.function(t, "f", fnbox.RuntimeID, "f")
	if _, err := h.p.CreateVariable(t.Context(), engine.System, "f", "TOKEN", secret); err != nil {
		t.Fatal(err)
	}
	h.deploy(t, "f", map[string]string{"x": ""})
	h.execute(t, "f", engine.ExecuteParams{Body: []byte(secret), Headers: []engine.Header{{Name: "x-mine", Value: secret}}})
	h.ended(t, h.execute(t, "f", engine.ExecuteParams{Async: true, Body: []byte(secret), Headers: []engine.Header{{Name: "authorization", Value: secret}}}).Execution)
	h.execute(t, "f", engine.ExecuteParams{Async: true, Body: []byte(secret), ScheduledAt: time.Now().Add(time.Hour)})
	if err := h.p.DeleteFunction(t.Context(), engine.System, "f"); err != nil {
		t.Fatal(err)
	}
	for e := range heard {
		if bytes.Contains(e.Payload, []byte(secret)) || bytes.Contains(e.Payload, []byte(base64.StdEncoding.EncodeToString([]byte(secret)))) {
			t.Errorf("event %s holds it", e.Name())
		}
		if e.Name() == "functions.f.delete" {
			break
		}
	}
	h.stop(t)
	mu.Lock()
	defer mu.Unlock()
	if bytes.Contains(logged.Bytes(), []byte(secret)) {
		t.Errorf("the log holds it: %s", &logged)
	}
	root := filepath.Dir(h.cfg.Dir)
	err = filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(name)
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%s holds it", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

type locked struct {
	w  *bytes.Buffer
	mu *sync.Mutex
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestDeleteProjectLeavesNothing: with work of every kind under way.
func TestDeleteProjectLeavesNothing(t *testing.T) {
	t.Parallel()
	box := &slow{Box: funcs(func(ctx context.Context, c *fnbox.Context) error {
		if c.Req.Path != "/hang" {
			return c.Empty()
		}
		<-ctx.Done()
		return ctx.Err()
	})}
	close(box.gate(""))
	h := start(t, box, func(c *engine.Config) { c.Work.Builds = 4; c.Limits.SyncTimeout = 2 * time.Second })
	h.ready(t, "f")
	kept := h.Project("blog")
	if _, err := kept.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: fnbox.RuntimeID}); err != nil {
		t.Fatal(err)
	}
	h.execute(t, "f", engine.ExecuteParams{})
	later := h.execute(t, "f", engine.ExecuteParams{Path: "/hang", Async: true})
	h.execute(t, "f", engine.ExecuteParams{Async: true, ScheduledAt: time.Now().Add(time.Hour)})
	building := h.upload(t, "f", "hangs", true)
	if _, err := h.p.DeployChunk(t.Context(), engine.System, "f", chunks(random(t, 30_000), 10_000)[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (engine.Deployment, bool) {
		d, err := h.p.GetDeployment(t.Context(), engine.System, "f", building.ID)
		return d, err == nil && d.Status == "building"
	})
	eventually(t, func() (engine.Execution, bool) {
		x, err := h.p.GetExecution(t.Context(), engine.System, "f", later.ID)
		return x, err == nil && x.Status == "processing"
	})
	now := make(chan struct{})
	go func() {
		defer close(now)
		_, _ = h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Path: "/hang"})
	}()
	if err := h.DeleteProject(t.Context(), engine.System, "shop"); err != nil {
		t.Fatal(err)
	}
	<-now
	h.stop(t)
	if err := leftBlobs(h, ""); err != nil {
		t.Error(err)
	}
	h.function(t, "f", fnbox.RuntimeID, "f") // the id is free, and shows nothing of before
	for what, n := range map[string]func() (int, error){
		"deployments": func() (int, error) {
			l, err := h.p.ListDeployments(t.Context(), engine.System, "f", engine.Query{})
			return l.Total, err
		},
		"executions": func() (int, error) {
			l, err := h.p.ListExecutions(t.Context(), engine.System, "f", engine.Query{})
			return l.Total, err
		},
		"variables": func() (int, error) { l, err := h.p.ListVariables(t.Context(), engine.System, "f"); return l.Total, err },
	} {
		if left, err := n(); err != nil || left != 0 {
			t.Errorf("%d %s are left, %v", left, what, err)
		}
	}
	if list, err := kept.ListFunctions(t.Context(), engine.System, engine.Query{}); err != nil || list.Total != 1 {
		t.Errorf("the other project: %+v, %v", list, err)
	}
}
