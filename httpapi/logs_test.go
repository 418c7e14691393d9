package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
)

// stream is an open stream of events.
type stream struct {
	t      *testing.T
	resp   *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// event is one of them; a comment has nothing but data.
type event struct {
	id, name string
	data     map[string]string
	comment  string
}

// stream begins to read events; Last-Event-ID is left out if it is empty.
func (c client) stream(t *testing.T, path, last string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", c.url+"/v1"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range c.with("Last-Event-ID", last).header {
		req.Header[name] = values
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: %d %v", path, resp.StatusCode, resp.Header)
	}
	return &stream{t, resp, bufio.NewScanner(resp.Body), cancel}
}

// next returns the next event or comment; ok is false at the end.
func (s *stream) next() (e event, ok bool) {
	s.t.Helper()
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "":
			if value == "" {
				return e, true
			}
			e.comment = value
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				s.t.Fatalf("%q: %v", value, err)
			}
		}
	}
	return e, false
}

// events reads to the end and returns the events as text, and the last id.
func (s *stream) events() (all, last string) {
	s.t.Helper()
	for {
		e, ok := s.next()
		if !ok {
			return all, last
		}
		if e.name != "" {
			all, last = all+e.name+" "+e.data["stream"]+e.data["status"]+" "+e.data["data"]+"|", e.id
		}
	}
}

// talking has a function log a line and wait at a gate, and returns where its
// logs are.
func (s *server) talking(t *testing.T) (logs string, open func()) {
	t.Helper()
	fn := s.deployed(t, "talk")
	name, open := newGate(t)
	x := s.execute(t, fn, "async", true, "method", "POST", "body", name).ok(http.StatusAccepted).id()
	reached(name)
	return "/functions/" + fn + "/executions/" + x + "/logs", open
}

func TestFollowALog(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	logs, open := s.talking(t)
	live := s.stream(t, logs, "")
	if e, _ := live.next(); e.comment == "" {
		t.Errorf("it does not begin at once: %+v", e)
	}
	first, _ := live.next()
	if first.name != "log" || first.id == "" || first.data["data"] != "one\n" || first.data["stream"] != "stdout" || len(first.data["at"]) != len("2026-01-01T00:00:00.000+00:00") {
		t.Errorf("%+v", first)
	}
	open()
	const rest = "log stderr tw\uFFFD\no\n|end completed |"
	if got, last := live.events(); got != rest || last != "end" {
		t.Errorf("%q, %q", got, last)
	}
	if got, _ := s.stream(t, logs, first.id).events(); got != rest {
		t.Errorf("resumed: %q", got)
	}
	if got, _ := s.stream(t, logs, "").events(); got != "log stdout one\n|"+rest {
		t.Errorf("after the end: %q", got)
	}
	s.with("Last-Event-ID", "end").get(t, logs).ok(http.StatusNoContent)
	s.with("Last-Event-ID", "one").get(t, logs).ok(http.StatusBadRequest).fails("general_argument_invalid")
	s.user(alice).get(t, logs).ok(http.StatusNotFound).fails("execution_not_found")
	s.with("X-Appwrite-Key", writeKey).get(t, logs).fails("general_unauthorized_scope")
}

func TestUsersDoNotFollow(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "hello")
	own := s.user(alice).execute(t, fn).ok(http.StatusCreated).id()
	s.user(alice).get(t, "/functions/"+fn+"/executions/"+own+"/logs").ok(http.StatusUnauthorized).fails("user_unauthorized")
}

func TestFollowErrors(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.cfg.Limits.Followers = 1 })
	logs, _ := s.talking(t)
	fn := strings.Split(logs, "/")[2]
	build := "/functions/" + fn + "/deployments/"
	list := s.get(t, strings.TrimSuffix(build, "/")).ok(http.StatusOK)
	build += list.body["deployments"].([]any)[0].(map[string]any)["$id"].(string) + "/logs"
	if got, _ := s.stream(t, build, "").events(); got != "end ready |" {
		t.Errorf("a build: %q", got)
	}
	first := s.stream(t, logs, "")
	first.next()
	for _, path := range []string{logs, build} {
		s.get(t, path).ok(http.StatusTooManyRequests).fails("function_busy")
	}
	s.get(t, "/functions/none/executions/e/logs").ok(http.StatusNotFound).fails("function_not_found")
	s.get(t, "/functions/none/deployments/d/logs").ok(http.StatusNotFound).fails("function_not_found")
	s.get(t, "/functions/"+fn+"/executions/none/logs").ok(http.StatusNotFound).fails("execution_not_found")
	s.get(t, "/functions/"+fn+"/deployments/none/logs").ok(http.StatusNotFound).fails("deployment_not_found")
	s.get(t, "/functions/"+fn+"/executions/-/logs").ok(http.StatusBadRequest).fails("general_argument_invalid")
	s.get(t, "/functions/"+fn+"/deployments/-/logs").ok(http.StatusBadRequest).fails("general_argument_invalid")
}

// TestStreamsEnd when the host shuts down, when the execution is deleted, and
// when the client goes away.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.cfg.Limits.Followers = 1 })
	logs, _ := s.talking(t)
	gone := s.stream(t, logs, "")
	gone.next()
	gone.cancel()
	for s.with("Last-Event-ID", "end").get(t, logs).status != http.StatusNoContent { // until the server has noticed
		if t.Context().Err() != nil {
			t.Fatal("a client that went away is still served")
		}
	}
	live := s.stream(t, logs, "")
	live.next()
	if e, _ := live.next(); e.data["data"] != "one\n" {
		t.Errorf("%+v", e)
	}
	if err := s.eng.DeleteProject(t.Context(), engine.System, project); err != nil {
		t.Fatal(err)
	}
	if got, _ := live.events(); !strings.HasSuffix(got, "end deleted |") {
		t.Errorf("%q", got)
	}
	logs, _ = s.talking(t)
	live = s.stream(t, logs, "")
	live.next()
	live.next()
	s.api.EndStreams()
	if got, _ := live.events(); got != "" {
		t.Errorf("%q", got)
	}
}

// TestHeartbeats has a clock that only the test moves.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Now())
	s := newServer(t, func(u *setup) { u.cfg.Clock, u.idle = mock, true })
	fn := s.create(t, "talk")
	s.upload(t, fn, form{code: archive(t)}).ok(http.StatusAccepted)
	step := func() {
		if _, _, err := s.eng.Step(t.Context()); err != nil {
			t.Error(err)
		}
	}
	step()
	x := s.execute(t, fn, "async", true, "body", "x").ok(http.StatusAccepted).id()
	live := s.stream(t, "/functions/"+fn+"/executions/"+x+"/logs", "")
	live.next()
	beat := make(chan event, 1)
	go func() {
		e, _ := live.next()
		beat <- e
	}()
	for {
		select {
		case e := <-beat:
			if e.comment == "" || e.name != "" {
				t.Errorf("%+v", e)
			}
			return
		default:
			mock.Add(time.Second) // the server may not wait for it yet
		}
	}
}
