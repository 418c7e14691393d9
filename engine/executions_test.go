package engine_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// funcs returns a driver with one function, "f".
func funcs(f fnbox.Func) *fnbox.Box { return fnbox.New(fnbox.Funcs{"f": f}) }

// ready deploys the function "f" of fnbox.
func (h *host) ready(t *testing.T, id string) {
	t.Helper()
	h.function(t, id, fnbox.RuntimeID, "f")
	if d := h.deploy(t, id, map[string]string{"x": "x"}); d.Status != "ready" {
		t.Fatalf("%s: %s", d.Status, d.BuildLogs)
	}
}

// readyElsewhere has an engine deploy the function that ends before this returns, for
// who asks what an engine does to know of it: while one notes the end of a build, that is
// another matter.
func (h *host) readyElsewhere(t *testing.T, id string) {
	t.Helper()
	other := h.beside(t, funcs(ok))
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	other.ready(t, id)
	other.stop(t)
}

func ok(_ context.Context, c *fnbox.Context) error { return c.Text(200, "ok") }

func TestPreconditionsComeInTheirOrder(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok))
	guest := engine.Actor{}
	run := func(by engine.Actor, id string) error {
		_, err := h.p.Execute(t.Context(), by, id, engine.ExecuteParams{})
		return err
	}
	fails(t, run(guest, "none"), engine.TypeFunction)
	f := h.function(t, "f", fnbox.RuntimeID, "f")
	fails(t, run(guest, "f"), engine.TypeDeployment)
	h.deploy(t, "f", map[string]string{"x": ""})
	if err := run(guest, "f"); err != nil {
		t.Error(err)
	}
	update := func(p engine.FunctionParams) {
		t.Helper()
		p.Name = f.Name
		if _, err := h.p.UpdateFunction(t.Context(), engine.System, "f", p); err != nil {
			t.Fatal(err)
		}
	}
	update(engine.FunctionParams{Execute: []string{"users"}})
	fails(t, run(guest, "f"), engine.TypeUnauthorized)
	if err := run(engine.Actor{Kind: engine.ActorUser, UserID: "u"}, "f"); err != nil {
		t.Error(err)
	}
	update(engine.FunctionParams{})
	fails(t, run(engine.Actor{Kind: engine.ActorUser, UserID: "u"}, "f"), engine.TypeUnauthorized)
	if err := run(engine.System, "f"); err != nil {
		t.Error(err)
	}
	update(engine.FunctionParams{Execute: []string{"any"}, Disabled: true})
	fails(t, run(guest, "f"), engine.TypeFunction)
	fails(t, run(engine.Actor{Kind: engine.ActorKey}, "f"), engine.TypeScope)

	for _, c := range []struct {
		a   engine.ExecuteParams
		typ string
	}{
		{engine.ExecuteParams{Method: "TRACE"}, engine.TypeArgument},
		{engine.ExecuteParams{Path: strings.Repeat("x", 2049)}, engine.TypeArgument},
		{engine.ExecuteParams{Headers: []engine.Header{{Name: "X-Appwrite-Key", Value: "x"}}}, engine.TypeArgument},
		{engine.ExecuteParams{Body: make([]byte, 10_485_761)}, engine.TypeArgument},
		{engine.ExecuteParams{ScheduledAt: time.Now().Add(time.Hour)}, engine.TypeBadRequest},
		{engine.ExecuteParams{ScheduledAt: time.Now().Add(-time.Hour), Async: true}, engine.TypeArgument},
	} {
		_, err := h.p.Execute(t.Context(), engine.System, "f", c.a)
		fails(t, err, c.typ)
	}
}

func TestAnswersThatCannotBeGiven(t *testing.T) {
	t.Parallel()
	answers := map[string]fnbox.Func{
		"status code 42": func(_ context.Context, c *fnbox.Context) error { return c.Text(42, "x") },
		"line break in the header": func(_ context.Context, c *fnbox.Context) error {
			c.SetHeader("x-a", "b\r\nevil: 1")
			return c.Text(200, "x")
		},
		"larger than 20971520 bytes": func(_ context.Context, c *fnbox.Context) error { return c.Binary(200, make([]byte, 30<<20)) },
		"a panic":                    func(context.Context, *fnbox.Context) error { panic("a panic") },
		"an error":                   func(context.Context, *fnbox.Context) error { return errors.New("an error") },
	}
	h := start(t, funcs(func(ctx context.Context, c *fnbox.Context) error {
		if f := answers[c.Req.Text()]; f != nil {
			return f(ctx, c)
		}
		return ok(ctx, c)
	}))
	h.ready(t, "f")
	for reason := range answers {
		x := h.execute(t, "f", engine.ExecuteParams{Body: []byte(reason)})
		if x.Status != "failed" || x.ResponseStatusCode != 500 || !strings.Contains(x.Errors, reason) || len(x.ResponseBody) > 0 {
			t.Errorf("%s: %s %d, errors %.200q", reason, x.Status, x.ResponseStatusCode, x.Errors)
		}
		if x := h.execute(t, "f", engine.ExecuteParams{}); x.Status != "completed" || string(x.ResponseBody) != "ok" {
			t.Errorf("the call after %s: %+v", reason, x.Execution)
		}
	}
}

func TestHeadersInAndOut(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen map[string]string
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		mu.Lock()
		seen = c.Req.Headers
		mu.Unlock()
		c.AddHeader("Set-Cookie", "a=1")
		c.AddHeader("Set-Cookie", "b=2")
		c.SetHeader("Transfer-Encoding", "chunked")
		c.SetHeader("X-Own", "v")
		return c.Text(200, "body")
	}), func(c *engine.Config) {
		c.Hooks.Locate = func(ip string) engine.Location {
			return engine.Location{Country: "de", Continent: "eu", EU: ip == "192.0.2.1"}
		}
	})
	h.ready(t, "f")
	x, err := h.p.Execute(t.Context(), engine.Actor{Kind: engine.ActorUser, UserID: "u1"}, "f", engine.ExecuteParams{
		Headers: []engine.Header{{Name: "X-Mine", Value: "1"}, {Name: "Content-Type", Value: "text/plain"}, {Name: "X-Empty", Value: ""}}, ClientIP: "192.0.2.1", Body: []byte("abc"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"x-mine": "1", "content-type": "text/plain", "content-length": "3", "accept": "*/*", "host": "localhost", "x-appwrite-trigger": "http",
		"x-appwrite-user-id": "u1", "x-appwrite-country-code": "de", "x-appwrite-continent-eu": "true", "x-appwrite-execution-id": x.ID, "x-appwrite-client-ip": "192.0.2.1",
	} {
		if seen[name] != want {
			t.Errorf("header %s is %q, want %q", name, seen[name], want)
		}
	}
	if _, has := seen["x-empty"]; has {
		t.Error("an empty header was handed on")
	}
	actor, err := h.ActorForKey("shop", seen["x-appwrite-key"])
	if err != nil || actor.Kind != engine.ActorKey || actor.Can(engine.ScopeFunctionsRead) {
		t.Errorf("the key is that of %+v, %v", actor, err)
	}
	for project, key := range map[string]string{"other": seen["x-appwrite-key"], "shop": seen["x-appwrite-key"] + "x"} {
		_, err := h.ActorForKey(project, key)
		fails(t, err, engine.TypeUnauthorized)
	}
	var got []string
	for _, f := range x.ResponseHeaders {
		got = append(got, f.Name+": "+f.Value)
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{"set-cookie: a=1\nset-cookie: b=2", "x-own: v", "content-length: 4"} {
		if !strings.Contains(text, want) {
			t.Errorf("headers lack %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "transfer-encoding") {
		t.Errorf("headers hold transfer-encoding:\n%s", text)
	}
	if x.Logs != "" || len(x.RequestHeaders) != 1 || x.UserID != "u1" {
		t.Errorf("the user sees %+v", x.Execution)
	}
}

func TestUsersSeeTheirOwnExecutions(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		c.Log("a secret of the owner")
		return c.Empty()
	}))
	h.ready(t, "f")
	alice, bob := engine.Actor{Kind: engine.ActorUser, UserID: "alice"}, engine.Actor{Kind: engine.ActorUser, UserID: "bob"}
	x, err := h.p.Execute(t.Context(), alice, "f", engine.ExecuteParams{})
	if err != nil {
		t.Fatal(err)
	}
	h.execute(t, "f", engine.ExecuteParams{})
	for who, want := range map[*engine.Actor]int{&alice: 1, &bob: 0, {Kind: engine.ActorSystem}: 2} {
		list, err := h.p.ListExecutions(t.Context(), *who, "f", engine.Query{})
		if err != nil || list.Total != want || len(list.Items) != want {
			t.Errorf("%s sees %d of %d executions, %v", who.UserID, len(list.Items), list.Total, err)
		}
	}
	if own, err := h.p.GetExecution(t.Context(), alice, "f", x.ID); err != nil || own.Logs != "" {
		t.Errorf("%+v, %v", own, err)
	}
	_, err = h.p.GetExecution(t.Context(), bob, "f", x.ID)
	fails(t, err, engine.TypeExecution)
	_, err = h.p.GetExecution(t.Context(), engine.Actor{}, "f", x.ID)
	fails(t, err, engine.TypeScope)
	fails(t, h.p.DeleteExecution(t.Context(), alice, "f", x.ID), engine.TypeFunction)
	if err := h.p.DeleteExecution(t.Context(), engine.System, "f", x.ID); err != nil {
		t.Error(err)
	}
	fails(t, h.p.DeleteExecution(t.Context(), engine.System, "f", x.ID), engine.TypeExecution)
}

func TestLogsKeepTheirEnd(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		for range 5000 {
			c.Log(strings.Repeat("x", 990))
		}
		c.Log("the last line")
		return c.Empty()
	}))
	h.ready(t, "f")
	x := h.execute(t, "f", engine.ExecuteParams{})
	if !strings.HasPrefix(x.Logs, "[WARNING] Logs truncated. The output exceeded 1000000 characters.\nxxx") || !strings.HasSuffix(x.Logs, "\nthe last line\n") || len(x.Logs) > 1_000_000 {
		t.Errorf("%d bytes: %.100q … %q", len(x.Logs), x.Logs, x.Logs[max(0, len(x.Logs)-50):])
	}
}

// TestTimeLimits uses a process that does not give way.
func TestTimeLimits(t *testing.T) {
	t.Parallel()
	h := start(t, node(t), func(c *engine.Config) { c.Limits.SyncTimeout, c.Work.Grace = 10*time.Second, 200*time.Millisecond })
	const blocks = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)" // as a loop does, and uses no CPU
	create := func(id string, timeout int) {
		_, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: id, Name: id, Runtime: h.runtime(t, "node"), Entrypoint: "i.js", Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		h.deploy(t, id, map[string]string{"i.js": `module.exports = async ({req, res, log}) => {
			log("began");
			if (req.path === "/block") ` + blocks + `;
			if (req.path === "/wait") await new Promise(() => setTimeout(() => {}, 1e6));
			return res.text("ok");
		}`})
	}
	create("short", 2)
	create("long", 60)
	for _, path := range []string{"/wait", "/block"} {
		x := h.execute(t, "short", engine.ExecuteParams{Path: path})
		if x.Status != "failed" || x.ResponseStatusCode != 500 || !strings.Contains(x.Errors, "Execution timed out.") || x.Duration > 8*time.Second {
			t.Errorf("%s: %+v", path, x.Execution)
		}
		if path == "/wait" && x.Logs != "began\n" {
			t.Errorf("logs of %s are %q", path, x.Logs)
		}
		if x := h.execute(t, "short", engine.ExecuteParams{}); string(x.ResponseBody) != "ok" {
			t.Errorf("after %s: %+v", path, x.Execution)
		}
	}
	_, err := h.p.Execute(t.Context(), engine.System, "long", engine.ExecuteParams{Path: "/block"})
	fails(t, err, engine.TypeSyncTimeout)
	list, err := h.p.ListExecutions(t.Context(), engine.System, "long", engine.Query{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Status != "failed" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestACrashFailsItsCallsAndNoOthers(t *testing.T) {
	t.Parallel()
	h := start(t, node(t))
	h.function(t, "f", h.runtime(t, "node"), "i.js")
	h.deploy(t, "f", map[string]string{"i.js": `module.exports = async ({req, res}) => {
		if (req.path === "/exit") process.exit(7);
		if (req.path === "/garbage") { require("fs").writeSync(3, Buffer.alloc(64, 255)); await new Promise(() => {}); }
		return res.text("ok");
	}`})
	for path, reason := range map[string]string{"/exit": "exit status 7", "/garbage": "protocol error"} {
		x := h.execute(t, "f", engine.ExecuteParams{Path: path})
		if x.Status != "failed" || !strings.Contains(x.Errors, reason) {
			t.Errorf("%s: %+v", path, x.Execution)
		}
		if x := h.execute(t, "f", engine.ExecuteParams{}); string(x.ResponseBody) != "ok" {
			t.Errorf("after %s: %+v", path, x.Execution)
		}
	}
	queued := h.execute(t, "f", engine.ExecuteParams{Path: "/exit", Async: true})
	if x := h.ended(t, queued.Execution); x.Status != "failed" || !strings.Contains(x.Errors, "exit status 7") {
		t.Errorf("queued: %+v", x)
	}
}

func TestFullInstancesAreBusy(t *testing.T) {
	t.Parallel()
	began, gate := make(chan struct{}, 10), make(chan struct{})
	h := start(t, funcs(func(ctx context.Context, c *fnbox.Context) error {
		if c.Req.Path != "/start" {
			began <- struct{}{}
			<-gate
		}
		return c.Empty()
	}), func(c *engine.Config) {
		c.Instances = engine.Instances{Max: 1, PerDeployment: 1, Concurrency: 1, Waiting: 1, Wait: 50 * time.Millisecond}
	})
	h.ready(t, "f")
	eventually(t, func() (error, bool) { // its start may take longer than callers wait
		_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Path: "/start"})
		return err, err == nil
	})
	first := make(chan error, 1)
	go func() {
		_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
		first <- err
	}()
	<-began
	_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeBusy)
	// What is queued waits instead.
	queued := h.execute(t, "f", engine.ExecuteParams{Async: true})
	close(gate)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if x := h.ended(t, queued.Execution); x.Status != "completed" {
		t.Errorf("%+v", x)
	}
}

func TestScheduledExecutions(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Now().Truncate(time.Millisecond))
	h := start(t, funcs(ok), func(c *engine.Config) { c.Clock, c.Work.Lease = mock, 100*time.Hour }) // a jump is no death
	h.ready(t, "f")
	at := mock.Now().Add(time.Minute)
	soon := h.execute(t, "f", engine.ExecuteParams{Async: true, ScheduledAt: at})
	never := h.execute(t, "f", engine.ExecuteParams{Async: true, ScheduledAt: at.Add(100 * time.Hour)})
	if soon.Status != "scheduled" || soon.Trigger != "schedule" || !soon.ScheduledAt.Equal(at) {
		t.Errorf("%+v", soon.Execution)
	}
	x := eventually(t, func() (engine.Execution, bool) {
		mock.Add(10 * time.Second)
		x, err := h.p.GetExecution(t.Context(), engine.System, "f", soon.ID)
		return x, err == nil && x.Status.Final()
	})
	if x.Status != "completed" || x.UpdatedAt.Before(at) {
		t.Errorf("%+v", x)
	}
	if err := h.p.DeleteExecution(t.Context(), engine.System, "f", never.ID); err != nil {
		t.Error(err)
	}
}

// TestQueuedWorkOutlivesEngines: what a node accepts that is not started, or
// that stops, is run by the next one.
func TestQueuedWorkOutlivesEngines(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok))
	h.function(t, "f", fnbox.RuntimeID, "f")
	d, err := h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Source: bytes.NewReader(archived(t, map[string]string{"x": ""})), Activate: true, Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeDeployment)

	second := with(t, h.cfg)
	if err := second.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := second.built(t, d); d.Status != "ready" {
		t.Fatalf("%+v", d)
	}
	second.stop(t)
	_, err = h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeUnavailable) // not started
	queued := h.execute(t, "f", engine.ExecuteParams{Async: true})
	_, err = second.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeUnavailable) // stopped
	if err := second.Start(t.Context()); err == nil {
		t.Error("a stopped engine started again")
	}

	third := with(t, h.cfg)
	if err := third.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer third.stop(t)
	if x := third.ended(t, queued.Execution); x.Status != "completed" {
		t.Errorf("%+v", x)
	}
}

func TestStreaming(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		if err := c.Head(200); err != nil {
			return err
		}
		for _, part := range []string{"one ", "two ", c.Req.Text()} {
			if _, err := c.Write([]byte(part)); err != nil {
				return err
			}
		}
		return nil
	}))
	h.ready(t, "f")
	var w writer
	x, err := h.p.Stream(t.Context(), engine.Actor{}, "f", engine.StreamRequest{Method: "PUT", Path: "/", Body: strings.NewReader("three")}, &w)
	if err != nil || w.status != 200 || w.body.String() != "one two three" || x.Status != "completed" {
		t.Errorf("%d %q, %+v, %v", w.status, w.body.String(), x, err)
	}
	if stored, err := h.p.GetExecution(t.Context(), engine.System, "f", x.ID); err != nil || stored.RequestMethod != "PUT" {
		t.Errorf("%+v, %v", stored, err)
	}
	_, err = h.p.Stream(t.Context(), engine.Actor{}, "none", engine.StreamRequest{Method: "GET", Path: "/"}, &w)
	fails(t, err, engine.TypeFunction)
}

type writer struct {
	status int
	body   bytes.Buffer
}

func (w *writer) Head(status int, _ []engine.Header) error { w.status = status; return nil }
func (w *writer) Flush() error                             { return nil }

func (w *writer) Write(p []byte) (int, error) { return w.body.Write(p) }

func TestVariablesAreSealedAtRest(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error { return c.Text(http.StatusOK, c.Env("TOKEN")) }))
	h.ready(t, "f")
	v, err := h.p.CreateVariable(t.Context(), engine.System, "f", "TOKEN", "plaintext-secret")
	if err != nil {
		t.Fatal(err)
	}
	call := func(want string) {
		t.Helper()
		if x := h.execute(t, "f", engine.ExecuteParams{}); string(x.ResponseBody) != want {
			t.Errorf("the function sees %q, want %q", x.ResponseBody, want)
		}
	}
	call("plaintext-secret")
	value := "another-secret"
	if _, err := h.p.UpdateVariable(t.Context(), engine.System, "f", v.ID, "TOKEN", &value); err != nil {
		t.Fatal(err)
	}
	call("another-secret")
	if _, err := h.p.CreateVariable(t.Context(), engine.System, "f", "TOKEN", "x"); err == nil {
		t.Error("the key was taken twice")
	}
	if err := h.p.DeleteVariable(t.Context(), engine.System, "f", v.ID); err != nil {
		t.Fatal(err)
	}
	call("")
	h.execute(t, "f", engine.ExecuteParams{Async: true, Body: []byte("body-of-a-queued-call"), ScheduledAt: time.Now().Add(time.Hour)})
	for _, name := range []string{"fnkit.db", "fnkit.db-wal"} {
		raw, err := os.ReadFile(strings.TrimSuffix(h.cfg.Dir, "engine") + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"plaintext-secret", "another-secret", "body-of-a-queued-call"} {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s holds %q in clear", name, secret)
			}
		}
	}
}
