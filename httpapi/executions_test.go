package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

func TestExecutionModel(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "hello")
	a := s.execute(t, fn, "path", "/p?a=1", "method", "PUT", "headers", map[string]any{"Content-Type": "text/plain", "X-Other": "1"}, "body", "hi").ok(http.StatusCreated)
	shown := regexp.MustCompile(`"duration":[0-9.]+`).ReplaceAllString(undated(a.raw), `"duration":D`)
	want := `{"$id":"` + a.id() + `","$createdAt":"T","$updatedAt":"T","$permissions":[],"functionId":"` + fn + `","trigger":"http","status":"completed",` +
		`"requestMethod":"PUT","requestPath":"/p?a=1","requestHeaders":[{"name":"Content-Type","value":"text/plain"}],"responseStatusCode":200,` +
		`"responseBody":"hello","responseHeaders":[{"name":"x-more","value":"1"},{"name":"content-type","value":"text/plain; charset=utf-8"},{"name":"content-length","value":"5"}],` +
		`"logs":"a line\n","errors":"","duration":D,"scheduledAt":null,"fnkit":{"status":"completed","attempt":0,"failures":0,"nextAttemptAt":"","lane":"","priority":0}}`
	if shown != want {
		t.Errorf("got\n%s\nwant\n%s", shown, want)
	}
	stored := s.get(t, "/functions/"+fn+"/executions/"+a.id()).ok(200)
	if stored.text("responseBody") != "" || strings.Contains(string(stored.raw), "x-more") || stored.text("logs") != "a line\n" {
		t.Errorf("stored: %s", stored.raw)
	}
}

// What the function sees of the request.
func TestExecutionRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "echo")
	type echo struct{ Method, Path, Body string }
	for name, c := range map[string]struct {
		settings []any
		want     echo
	}{
		"nothing":         {nil, echo{"GET", "/", ""}},
		"body":            {[]any{"body", "x"}, echo{"POST", "/", "x"}},
		"body zero":       {[]any{"body", "0"}, echo{"POST", "/", "0"}},
		"body with NUL":   {[]any{"body", "a\x00b"}, echo{"POST", "/", "a\x00b"}},
		"method and path": {[]any{"method", "DELETE", "path", "x?y=z"}, echo{"DELETE", "/x?y=z", ""}},
		"headers as text": {[]any{"headers", `{"x-mine":"1"}`}, echo{"GET", "/", ""}},
		"async false":     {[]any{"async", "0", "body", "é"}, echo{"POST", "/", "é"}},
	} {
		var got echo
		a := s.execute(t, fn, c.settings...).ok(201)
		if err := json.Unmarshal([]byte(a.text("responseBody")), &got); err != nil || got != c.want {
			t.Errorf("%s: got %s (%v)", name, a.text("responseBody"), err)
		}
	}
}

// Headers in a text are those of the object it holds, numbers as they are written.
func TestHeadersAsText(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "request")
	headers := map[string]any{"x-number": json.Number("12345678901234567890"), "x-float": 0.1, "x-bool": true, "x-text": "a"}
	text, err := json.Marshal(headers)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []any{headers, string(text)} {
		seen := s.execute(t, fn, "headers", h).ok(201).text("responseBody")
		for _, want := range []string{"x-number: 12345678901234567890\n", "x-float: 0.1\n", "x-bool: true\n", "x-text: a\n"} {
			if !strings.Contains(seen, want) {
				t.Errorf("no %q in\n%s", want, seen)
			}
		}
	}
}

func TestExecutionParams(t *testing.T) {
	t.Parallel()
	const limit = 1000
	s := newServer(t, func(u *setup) { u.cfg.Limits.RequestBody = limit })
	fn := s.deployed(t, "echo")
	tooLong := "Value must be a valid string and no longer than 1000 chars"
	path := "Value must be a valid string and at least 1 chars and no longer than 2048 chars"
	notMethod := "Value must be one of (GET, POST, PUT, PATCH, DELETE, OPTIONS)"
	for _, p := range []param{
		{"body", strings.Repeat("b", limit), ""},
		{"body", strings.Repeat("\x00", limit), ""},
		{"body", strings.Repeat("b", limit+1), tooLong},
		{"body", map[string]any{}, tooLong},
		{"body", 5, tooLong},
		{"async", "maybe", notBool},
		{"async", 2, notBool},
		{"async", []any{}, notBool},
		{"path", "/" + strings.Repeat("p", 2047), ""},
		{"path", "/" + strings.Repeat("p", 2048), path},
		{"path", "", path},
		{"path", 5, path},
		{"method", "OPTIONS", ""},
		{"method", "get", notMethod},
		{"method", "HEAD", notMethod},
		{"method", 5, notMethod},
		{"headers", "", "*"},
		{"headers", []any{"a"}, "*"},
		{"headers", 5, "*"},
		{"headers", true, "*"},
		{"headers", `["a"]`, "*"},
		{"headers", "no JSON", ""},
		{"headers", []any{}, ""},
		{"headers", "{}", ""},
		{"headers", map[string]any{"x": strings.Repeat("v", 70000)}, "*"},
		{"headers", strings.Repeat("v", 65536), "*"},
		{"scheduledAt", "tomorrow", "*"},
		{"scheduledAt", "", "*"},
		{"scheduledAt", 5, "*"},
		{"scheduledAt", "2020-01-01T00:00:00.000+00:00", "*"},
	} {
		expectParam(t, p, s.execute(t, fn, p.name, p.value), http.StatusCreated)
	}
	message := `Invalid headers: Alphanumeric characters or hyphens only, cannot start with "x-appwrite", maximum 100 keys, and total size 16384.`
	headers := func(n int) map[string]any {
		h := map[string]any{}
		for i := range n {
			h[fmt.Sprintf("h%d", i)] = "v"
		}
		return h
	}
	for name, h := range map[string]map[string]any{
		"100": headers(100), "number": {"a": 5, "b": true}, "size": {"x": strings.Repeat("v", 16382)}, "hyphen": {"a-b": "1"}, "one letter": {"a": ""},
	} {
		if a := s.execute(t, fn, "headers", h); a.status != 201 {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	for name, h := range map[string]map[string]any{
		"101": headers(101), "size": {"x": strings.Repeat("v", 16383)}, "empty": {"": "v"}, "leading hyphen": {"-a": "v"}, "trailing hyphen": {"a-": "v"}, "underscore": {"a_b": "v"},
		"colon": {"a:b": "v"}, "reserved": {"x-appwrite-key": "v"}, "reserved, upper case": {"X-Appwrite-User-Id": "v"}, "digits": {"123": "v"}, "list": {"a": []any{"v"}},
		"object": {"a": map[string]any{}}, "null": {"a": nil}, "line break": {"a": "b\r\nc: d"},
	} {
		t.Run("headers "+name, func(t *testing.T) {
			s.execute(t, fn, "headers", h).ok(400).fails("general_argument_invalid", message)
		})
	}
	// Existence errors come after those of parameters, permissions last.
	s.execute(t, "nobody", "headers", map[string]any{"_": "v"}).fails("general_argument_invalid", message)
	s.execute(t, "nobody").ok(404).fails("function_not_found")
	s.post(t, "/functions/"+fn+"/executions", `{"body":"`+strings.Repeat(`\u0000`, limit)+`"}`).ok(201)
	s.post(t, "/functions/"+fn+"/executions", `{"body":"`+strings.Repeat("b", 6*limit+1<<20)+`"}`).ok(400).fails("general_bad_request")
}

// The first wrong parameter in the order of declaration is the one reported.
func TestExecutionParamOrder(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	path := "/functions/_/executions"
	wrong := map[string]any{"body": 1, "async": "x", "path": "", "method": "get", "headers": 1, "scheduledAt": "x"}
	for _, name := range []string{"functionId", "body", "async", "path", "method", "headers", "scheduledAt"} {
		if a := s.post(t, path, wrong).fails("general_argument_invalid"); !strings.HasPrefix(a.text("message"), "Invalid `"+name+"` param: ") {
			t.Errorf("%s: message %q", name, a.text("message"))
		}
		path = "/functions/f/executions"
		delete(wrong, name)
	}
	wrong = map[string]any{"scheduledAt": "2999-01-01T00:00:00Z", "headers": map[string]any{"_": "v"}}
	s.post(t, path, wrong).fails("general_bad_request")
	wrong["async"] = true
	s.post(t, path, wrong).fails("general_argument_invalid")
	delete(wrong, "headers")
	s.post(t, path, wrong).fails("function_not_found")
}

// What stands in the way of an execution, in its order.
func TestExecutionPreconditions(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.create(t, "echo", "execute", []string{})
	guest := s.guest()
	guest.execute(t, fn).ok(404).fails("deployment_not_found", "Deployment not found. Create a deployment before trying to execute a function")
	s.deploy(t, fn)
	guest.execute(t, fn).ok(401).fails("user_unauthorized", "No permissions provided for action 'execute'")
	s.execute(t, fn).ok(201)
	disabled := s.deployed(t, "echo", "enabled", false)
	guest.execute(t, disabled).ok(404).fails("function_not_found")
	s.user(alice).execute(t, disabled).ok(404).fails("function_not_found")
	s.execute(t, disabled).ok(201)
	s.user(alice).get(t, "/functions/"+disabled+"/executions").ok(404).fails("function_not_found")
	s.execute(t, fn, "scheduledAt", "2999-01-01T00:00:00.000+00:00").ok(400).fails("general_bad_request")
}

// bareBox is a sandbox that has lost its runtimes.
type bareBox struct{ *fnbox.Box }

func (b bareBox) Capabilities(ctx context.Context) (sandbox.Capabilities, error) {
	c, err := b.Box.Capabilities(ctx)
	c.Runtimes = nil
	return c, err
}

// A function whose runtime this machine has not is known and does not run.
func TestExecuteWithoutRuntime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "echo")
	elsewhere := newServer(t, func(u *setup) { u.cfg.Store, u.cfg.Sandbox = s.eng.Config().Store, bareBox{fnbox.New(nil)} })
	elsewhere.get(t, "/functions/"+fn).ok(200)
	elsewhere.execute(t, fn).ok(404).fails("function_runtime_unsupported", `Runtime "`+runtimeID+`" is not supported`)
}

// Roles decide what users and guests may execute; keys may everything.
func TestExecuteRoles(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	callers := map[string]client{"guest": s.guest(), "alice": s.user(alice), "bob": s.user(bob), "key": s.with("X-Appwrite-Key", execKey)}
	for role, may := range map[string]string{
		"": "key", "any": "guest alice bob key", "guests": "guest key", "users": "alice bob key", "users/verified": "alice key", "users/unverified": "bob key",
		"user:alice": "alice key", "user:bob/verified": "key", "team:red": "alice key", "team:red/owner": "alice key", "team:red/member": "key", "label:vip": "alice key", "member:m": "key",
	} {
		execute := []string{}
		if role != "" {
			execute = append(execute, role)
		}
		fn := s.deployed(t, "echo", "execute", execute)
		for who, c := range callers {
			a := c.execute(t, fn)
			if allowed := strings.Contains(" "+may+" ", " "+who+" "); allowed != (a.status == 201) || !allowed && a.body["type"] != "user_unauthorized" {
				t.Errorf("%s as %s: %d %s", role, who, a.status, a.raw)
			}
		}
	}
}

// Users see their own executions, without logs; keys see all.
func TestExecutionVisibility(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "hello")
	base := "/functions/" + fn + "/executions"
	mine := s.user(alice).execute(t, fn).ok(201)
	theirs := s.user(bob).execute(t, fn).ok(201)
	if mine.text("logs") != "" || fmt.Sprint(mine.body["$permissions"]) != `[read("user:alice")]` || mine.text("responseBody") != "hello" {
		t.Errorf("got %s", mine.raw)
	}
	s.guest().execute(t, fn).ok(201)
	s.execute(t, fn).ok(201)
	if a := s.get(t, base).ok(200); a.int("total") != 4 {
		t.Errorf("key: %s", a.raw)
	}
	a := s.user(alice).get(t, base).ok(200)
	if a.int("total") != 1 || a.ids("executions")[0] != mine.id() || a.list("executions")[0]["logs"] != "" {
		t.Errorf("alice: %s", a.raw)
	}
	if a := s.user(alice).get(t, base+"/"+mine.id()).ok(200); a.text("logs") != "" {
		t.Errorf("alice: %s", a.raw)
	}
	if a := s.get(t, base+"/"+mine.id()).ok(200); a.text("logs") != "a line\n" {
		t.Errorf("key: %s", a.raw)
	}
	s.user(alice).get(t, base+"/"+theirs.id()).ok(404).fails("execution_not_found")
	s.get(t, base+"/nobody").ok(404).fails("execution_not_found")
	other := s.create(t, "echo")
	s.get(t, "/functions/"+other+"/executions/"+mine.id()).ok(404).fails("execution_not_found")
	s.do(t, "DELETE", "/functions/"+other+"/executions/"+mine.id(), nil).ok(404).fails("execution_not_found")
	s.do(t, "DELETE", base+"/"+mine.id(), nil).ok(204)
	s.do(t, "DELETE", base+"/"+mine.id(), nil).ok(404).fails("execution_not_found")
}

func TestAsyncExecution(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "hello")
	base := "/functions/" + fn + "/executions/"
	for _, async := range []any{true, "true", "1", 1} {
		a := s.execute(t, fn, "async", async).ok(http.StatusAccepted)
		if a.text("status") != "waiting" || a.text("responseBody") != "" || a.int("responseStatusCode") != 0 {
			t.Errorf("got %s", a.raw)
		}
		if done := s.await(t, base+a.id(), "completed"); done.int("responseStatusCode") != 200 || done.text("logs") != "a line\n" {
			t.Errorf("got %s", done.raw)
		}
	}
}

func TestScheduledExecution(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC))
	s := newServer(t, func(u *setup) { u.idle, u.cfg.Clock = true, mock })
	fn := s.create(t, "hello")
	// Without the engine running nothing is built; what is refused is refused all the same.
	for at, ok := range map[string]bool{
		"2026-03-01T12:02:00.000+00:00": true, "2026-03-01T12:02:00Z": true, "2026-03-01T14:02:00+02:00": true, "2026-03-01 12:02:00": true,
		"2026-03-01T12:01:00.000+00:00": false, "2026-03-01T12:01:30Z": false, "2026-03-01T12:02:01Z": false, "2026-03-01T12:02:00.001Z": false, "2026-02-30T00:00:00Z": false,
		"9999-12-31T23:59:00Z": true, "9999-12-31T23:59:00-00:01": false, "10000-01-01T00:00:00Z": false,
	} {
		a := s.execute(t, fn, "async", true, "scheduledAt", at)
		want := map[bool]string{true: "deployment_not_found", false: "general_argument_invalid"}[ok]
		if a.body["type"] != want {
			t.Errorf("%s: %s", at, a.raw)
		}
	}
	s.execute(t, fn, "scheduledAt", "2026-03-01T12:01:00Z").fails("general_argument_invalid",
		"Invalid `scheduledAt` param: Value must be valid date at least 60 seconds in the future and with minutes precision between 0000-01-01 00:00:00 and 9999-12-31 23:59:59.")
}

func TestScheduleAndDelete(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "hello")
	a := s.user(alice).execute(t, fn, "async", true, "scheduledAt", "2999-01-01T00:00:00.000+00:00").ok(http.StatusAccepted)
	if a.text("status") != "scheduled" || a.text("scheduledAt") != "2999-01-01T00:00:00.000+00:00" || a.text("trigger") != "schedule" {
		t.Errorf("got %s", a.raw)
	}
	s.do(t, "DELETE", "/functions/"+fn+"/executions/"+a.id(), nil).ok(204)
	s.get(t, "/functions/"+fn+"/executions/"+a.id()).ok(404).fails("execution_not_found")
}

// What waits or runs cannot be deleted.
func TestDeleteOngoingExecution(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "gate")
	gate, _ := newGate(t)
	a := s.execute(t, fn, "async", true, "body", gate).ok(202)
	s.do(t, "DELETE", "/functions/"+fn+"/executions/"+a.id(), nil).ok(400).fails("execution_in_progress")
}

func TestCancelExecution(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "gate")
	path := func(a answer) string { return "/functions/" + fn + "/executions/" + a.id() }
	canceled := func(a answer) {
		t.Helper()
		ext, _ := a.ok(200).body["fnkit"].(map[string]any)
		if a.text("status") != "failed" || ext["status"] != "canceled" {
			t.Errorf("got %s", a.raw)
		}
	}
	scheduled := s.user(alice).execute(t, fn, "async", true, "scheduledAt", "2999-01-01T00:00:00.000+00:00").ok(202)
	s.user(bob).post(t, path(scheduled)+"/cancel", nil).ok(404).fails("execution_not_found")
	s.guest().post(t, path(scheduled)+"/cancel", nil).ok(404).fails("execution_not_found")
	canceled(s.user(alice).post(t, path(scheduled)+"/cancel", nil))
	canceled(s.get(t, path(scheduled)))
	s.post(t, path(scheduled)+"/cancel", nil).ok(400).fails("execution_already_completed")

	gate, _ := newGate(t)
	running := s.execute(t, fn, "async", true, "body", gate).ok(202)
	s.await(t, path(running), "processing")
	a := s.with("X-Appwrite-Response-Format", "1.6.0").post(t, path(running)+"/cancel", nil)
	canceled(a)
	if a.text("errors") != "The execution was canceled.\n" || a.int("responseStatusCode") != 500 {
		t.Errorf("got %s", a.raw)
	}
	if list := s.get(t, "/functions/"+fn+"/executions?queries[]="+query("equal", "status", "canceled")).ok(200); list.int("total") != 2 {
		t.Errorf("got %s", list.raw)
	}
	done := s.execute(t, s.deployed(t, "hello")).ok(201)
	s.post(t, "/functions/"+done.text("functionId")+"/executions/"+done.id()+"/cancel", nil).ok(400).fails("execution_already_completed")
	s.post(t, "/functions/"+fn+"/executions/"+done.id()+"/cancel", nil).ok(404).fails("execution_not_found")
	s.do(t, "DELETE", path(running), nil).ok(204)
}

// A dead letter is failed for those who know no other word, and can be replayed.
func TestReplayExecution(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "fail")
	s.do(t, "PUT", "/functions/"+fn, map[string]any{"name": "n", "execute": []string{"any"}, "fnkit": map[string]any{"retry": map[string]any{"attempts": 1}}}).ok(200)
	x := s.user(alice).execute(t, fn, "async", true).ok(202)
	path := "/functions/" + fn + "/executions/" + x.id()
	s.await(t, path, "failed")
	ext, _ := s.get(t, path).ok(200).body["fnkit"].(map[string]any)
	if fmt.Sprintf("%v %v", ext["status"], ext["failures"]) != "dead 1" {
		t.Errorf("got %v", ext)
	}
	for status, want := range map[string]int{"failed": 1, "dead": 1, "canceled": 0} {
		if list := s.get(t, "/functions/"+fn+"/executions?queries[]="+query("equal", "status", status)).ok(200); list.int("total") != want {
			t.Errorf("%s: %s", status, list.raw)
		}
	}
	if list := s.get(t, "/functions/"+fn+"/executions?queries[]="+query("notEqual", "status", "failed")).ok(200); list.int("total") != 0 {
		t.Errorf("got %s", list.raw)
	}
	s.user(alice).post(t, path+"/replay", nil).ok(404).fails("function_not_found")
	s.post(t, path+"/replay", nil).ok(202)
	s.await(t, path, "failed")
	done := s.execute(t, fn).ok(201)
	s.post(t, "/functions/"+fn+"/executions/"+done.id()+"/replay", nil).ok(400).fails("execution_not_dead")
	s.post(t, "/functions/"+fn+"/executions/nobody/replay", nil).ok(404).fails("execution_not_found")
}

// One key, one execution: the answer comes again, marked as such.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "echo")
	once := s.user(alice).with("Idempotency-Key", "k1")
	for _, async := range []bool{false, true} {
		status := map[bool]int{false: 201, true: 202}[async]
		once := once.with("Idempotency-Key", fmt.Sprint("k", async))
		first := once.execute(t, fn, "async", async, "body", "b").ok(status)
		if first.header.Get("Idempotency-Replayed") != "" {
			t.Error("the first is marked as repeated")
		}
		again := once.execute(t, fn, "async", async, "body", "b").ok(status)
		if again.header.Get("Idempotency-Replayed") != "true" || again.id() != first.id() || again.text("responseBody") != first.text("responseBody") {
			t.Errorf("got %s, first %s", again.raw, first.raw)
		}
		once.execute(t, fn, "async", async, "body", "other").ok(409).fails("execution_key_reused")
		s.await(t, "/functions/"+fn+"/executions/"+first.id(), "completed")
		s.do(t, "DELETE", "/functions/"+fn+"/executions/"+first.id(), nil).ok(204)
		once.execute(t, fn, "async", async, "body", "b").ok(404).fails("execution_not_found")
	}
	once.with("Idempotency-Key", strings.Repeat("k", 256)).execute(t, fn).ok(400).fails("general_argument_invalid")
}

// A synchronous execution beyond a limit is refused, a queued one waits.
func TestConcurrencyLimits(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "gate")
	policy := func(p map[string]any) {
		s.do(t, "PUT", "/functions/"+fn, map[string]any{"name": "n", "execute": []string{"any"}, "fnkit": p}).ok(200)
	}
	policy(map[string]any{"laneConcurrency": 1})
	lane := func(name string) map[string]any { return map[string]any{"lane": name} }
	gate, open := newGate(t)
	first := s.execute(t, fn, "async", true, "body", gate, "fnkit", lane("a")).ok(202)
	s.await(t, "/functions/"+fn+"/executions/"+first.id(), "processing")
	next := s.execute(t, fn, "async", true, "body", gate, "fnkit", lane("a")).ok(202)
	if ext, _ := next.body["fnkit"].(map[string]any); ext["lane"] != "a" {
		t.Errorf("got %s", next.raw)
	}
	s.execute(t, fn, "fnkit", map[string]any{"lane": strings.Repeat("l", 256)}).ok(400).fails("general_argument_invalid")
	for _, bad := range []any{101, "high", 1.5} {
		s.execute(t, fn, "fnkit", map[string]any{"priority": bad}).ok(400).fails("general_argument_invalid")
	}
	for priority, want := range map[any]float64{nil: 0, -7: -7, 100: 100} {
		x := s.execute(t, fn, "async", true, "body", gate, "fnkit", map[string]any{"lane": "a", "priority": priority}).ok(202)
		if ext, _ := x.body["fnkit"].(map[string]any); fmt.Sprint(ext["priority"]) != fmt.Sprint(want) {
			t.Errorf("priority %v: %s", priority, x.raw)
		}
	}
	other := s.execute(t, fn, "async", true, "body", gate, "fnkit", lane("b")).ok(202)
	s.await(t, "/functions/"+fn+"/executions/"+other.id(), "processing")
	if got := s.get(t, "/functions/"+fn+"/executions/"+next.id()).text("status"); got == "completed" {
		t.Errorf("the second of a lane is %s beside the first", got)
	}
	open()
	for _, x := range []answer{first, next, other} {
		s.await(t, "/functions/"+fn+"/executions/"+x.id(), "completed")
	}
	policy(map[string]any{"rate": map[string]any{"limit": 1, "period": 3600}})
	s.execute(t, fn, "body", gate).ok(201)
	s.execute(t, fn, "body", gate).ok(429).fails("general_rate_limit_exceeded")
}

func TestFailedExecutions(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.cfg.Limits.ResponseBody = 1000 })
	for code, want := range map[string]string{"fail": "failed 500", "notfound": "completed 404", "status42": "failed 500", "crlf": "failed 500", "big": "failed 500"} {
		a := s.execute(t, s.deployed(t, code)).ok(201)
		if got := fmt.Sprintf("%s %d", a.text("status"), a.int("responseStatusCode")); got != want || want == "failed 500" && a.text("errors") == "" {
			t.Errorf("%s: %s", code, a.raw)
		}
	}
	s = newServer(t, func(u *setup) { u.cfg.Limits.SyncTimeout = 100 * time.Millisecond })
	s.execute(t, s.deployed(t, "block")).ok(408).fails("function_synchronous_timeout")
}

// Who would wait too long for an instance is told so.
func TestBusy(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) {
		u.cfg.Instances = engine.Instances{Max: 1, PerDeployment: 1, Concurrency: 1, Wait: 20 * time.Millisecond}
	})
	fn := s.deployed(t, "gate")
	gate, _ := newGate(t)
	s.execute(t, fn, "async", true, "body", gate).ok(202)
	reached(gate)
	if a := s.execute(t, fn).ok(429).fails("function_busy"); a.header.Get("Retry-After") == "" {
		t.Errorf("got %v", a.header)
	}
}

// Bodies that are no text come back in a multipart answer only.
func TestMultipartAnswer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "binary")
	s.execute(t, fn).ok(400).fails("general_unknown")
	if a := s.get(t, "/functions/"+fn+"/executions").ok(200); a.int("total") != 1 {
		t.Errorf("it did run: %s", a.raw)
	}
	for _, accept := range []string{"multipart/form-data", "multipart/*", "text/html, multipart/form-data", "multipart/form-data, application/json"} {
		fields, contentType := multipartFields(t, s.with("Accept", accept).execute(t, fn).ok(201))
		if !regexp.MustCompile(`^multipart/form-data; boundary=-{29}[0-9a-f]{13}$`).MatchString(contentType) {
			t.Errorf("content type %q", contentType)
		}
		if !bytes.Equal(fields["responseBody"], everyByte) {
			t.Errorf("got %d bytes", len(fields["responseBody"]))
		}
		for name, want := range map[string]string{"functionId": fn, "status": "completed", "responseStatusCode": "200", "$permissions": "[]", "scheduledAt": "", "requestHeaders": "[]"} {
			if string(fields[name]) != want {
				t.Errorf("%s: %q, want %q", name, fields[name], want)
			}
		}
		if !json.Valid(fields["responseHeaders"]) || len(fields) != 18 || string(fields["fnkit"]) != `{"status":"completed","attempt":0,"failures":0,"nextAttemptAt":"","lane":"","priority":0}` {
			t.Errorf("%d fields, headers %s", len(fields), fields["responseHeaders"])
		}
	}
	text := s.deployed(t, "hello")
	for _, accept := range []string{"", "*/*", "application/json", "application/*", "application/json, multipart/form-data", "text/html"} {
		if a := s.with("Accept", accept).execute(t, text).ok(201); a.text("responseBody") != "hello" {
			t.Errorf("Accept %q: %s", accept, a.raw)
		}
	}
}

func multipartFields(t *testing.T, a answer) (map[string][]byte, string) {
	t.Helper()
	contentType := a.header.Get("Content-Type")
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string][]byte{}
	for mr := multipart.NewReader(bytes.NewReader(a.raw), params["boundary"]); ; {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return fields, contentType
		}
		if err != nil {
			t.Fatal(err)
		}
		if fields[p.FormName()], err = io.ReadAll(p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMultipartRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "mirror")
	body, contentType := form{activate: "-", fields: map[string]string{
		"body": string(everyByte), "headers": `{"content-type":"application/octet-stream"}`, "async": "false", "path": "/x",
	}}.encode(t)
	a := s.with("Content-Type", contentType, "Accept", "multipart/form-data").post(t, "/functions/"+fn+"/executions", body).ok(201)
	if fields, _ := multipartFields(t, a); !bytes.Equal(fields["responseBody"], everyByte) {
		t.Errorf("got %q", fields["responseBody"])
	}
	bracketed := s.with("Content-Type", "application/x-www-form-urlencoded").post(t, "/functions/"+s.deployed(t, "echo")+"/executions", "headers[content-type]=a/b&body=x").ok(201)
	if !strings.Contains(string(bracketed.raw), `"requestHeaders":[{"name":"content-type","value":"a/b"}]`) {
		t.Errorf("got %s", bracketed.raw)
	}
}

// The key that a function is handed works on the API, for its scopes.
func TestDynamicKey(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "key", "scopes", []string{"functions.read"})
	key := s.execute(t, fn).ok(201).text("responseBody")
	if !strings.HasPrefix(key, "dynamic_") {
		t.Fatalf("got %q", key)
	}
	back := s.with("X-Appwrite-Key", key)
	back.get(t, "/functions").ok(200)
	back.do(t, "DELETE", "/functions/"+fn, nil).ok(401).fails("general_unauthorized_scope")
	back.with("X-Appwrite-Project", "elsewhere").get(t, "/functions").ok(401).fails("user_unauthorized")
	s.with("X-Appwrite-Key", key+"x").get(t, "/functions").ok(401).fails("user_unauthorized")
}

// A key is valid a little longer than the function may run.
func TestDynamicKeyExpires(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "key", "scopes", []string{"functions.read"}, "timeout", 7)
	before := time.Now()
	key := s.execute(t, fn).ok(201).text("responseBody")
	after := time.Now()
	later := clock.NewMock()
	elsewhere := newServer(t, func(u *setup) { u.idle, u.cfg.Clock, u.cfg.Store = true, later, s.store }).with("X-Appwrite-Key", key)
	later.Set(before.Add(65 * time.Second))
	elsewhere.get(t, "/functions/"+fn).ok(200)
	later.Set(after.Add(2 * time.Minute))
	elsewhere.get(t, "/functions/"+fn).ok(401).fails("user_unauthorized")
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusting, wary := newServer(t, func(u *setup) { u.opt.TrustProxy = true }), newServer(t)
	fn := trusting.deployed(t, "address")
	for sent, want := range map[string]string{
		"203.0.113.9, 10.0.0.1": "203.0.113.9", " 203.0.113.9 ": "203.0.113.9", "203.0.113.9:4711": "203.0.113.9", "2001:DB8::1": "2001:db8::1", "[2001:db8::1]:443, x": "2001:db8::1",
		"fe80::1%../../etc": "fe80::1", "unknown, 203.0.113.9": "127.0.0.1", ", 203.0.113.9": "127.0.0.1", "<script>": "127.0.0.1", "": "127.0.0.1",
	} {
		if got := trusting.with("X-Forwarded-For", sent).execute(t, fn).ok(201).text("responseBody"); got != want {
			t.Errorf("%q gives %q, want %q", sent, got, want)
		}
	}
	if got := wary.with("X-Forwarded-For", "203.0.113.9").execute(t, wary.deployed(t, "address")).ok(201).text("responseBody"); got != "127.0.0.1" {
		t.Errorf("got %q", got)
	}
}
