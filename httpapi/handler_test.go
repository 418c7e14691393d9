package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/httpapi"
)

// serveFunction serves one function of s.
func serveFunction(t *testing.T, s *server, function string, options ...httpapi.HandlerOption) string {
	t.Helper()
	mux := http.NewServeMux()
	h := httpapi.FunctionHandler(s.eng, project, function, options...)
	mux.Handle("/hello/", h)
	mux.Handle("/bare/", http.StripPrefix("/bare/", h))
	ts := httptest.NewServer(mux)
	t.Cleanup(ts.Close)
	return ts.URL
}

func fetch(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(raw)
}

// The function sees the request as it came, without what concerns the connection or is the engine's.
func TestHandlerRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	url := serveFunction(t, s, s.deployed(t, "request"))
	resp, body := fetch(t, "PUT", url+"/hello/a%20b?q=1&q=2", "content", "X-Mine", "1", "Cookie", "a=b", "Connection", "X-Gone", "X-Gone", "1", "Keep-Alive", "5",
		"X-Appwrite-User-Id", "admin", "X-Appwrite-Key", "stolen", "X-Open-Runtimes-Secret", "x")
	if resp.StatusCode != 200 || !strings.HasPrefix(body, "PUT /hello/a%20b?q=1&q=2 content\n") {
		t.Fatalf("got %d %s", resp.StatusCode, body)
	}
	for _, want := range []string{"x-mine: 1\n", "cookie: a=b\n", "content-length: 7\n", "host: 127.0.0.1:", "x-appwrite-trigger: http\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	for _, not := range []string{"x-gone", "keep-alive", "connection", "admin", "stolen", "x-open-runtimes"} {
		if strings.Contains(body, not) {
			t.Errorf("%q in\n%s", not, body)
		}
	}
	if _, body := fetch(t, "GET", url+"/bare/deep/er?x", ""); !strings.HasPrefix(body, "GET /deep/er?x \n") || !strings.Contains(body, "content-length: 0\n") {
		t.Errorf("got %s", body)
	}
	for _, method := range []string{"OPTIONS", "PROPFIND", "TRACE", strings.Repeat("M", 32)} {
		if _, body := fetch(t, method, url+"/hello/", ""); !strings.HasPrefix(body, method+" /hello/?") {
			t.Errorf("got %s", body)
		}
	}
	for _, method := range []string{"CONNECT", strings.Repeat("M", 33)} {
		if resp, body := fetch(t, method, url+"/hello/", ""); resp.StatusCode != 405 || strings.Contains(body, "hello") {
			t.Errorf("%s: got %d %s", method, resp.StatusCode, body)
		}
	}
}

// The record of a request has room for so much of it.
func TestHandlerRecord(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "request")
	url, query := serveFunction(t, s, fn), strings.Repeat("q", 100_000)
	stored, err := s.eng.Subscribe(t.Context(), events.Pattern{Project: project, Name: "functions." + fn + ".executions.*.create"})
	if err != nil {
		t.Fatal(err)
	}
	if _, body := fetch(t, "POST", url+"/hello/?\xff"+query, "x", "Content-Type", "a/"+strings.Repeat("b", 1<<14)); !strings.Contains(body, query) {
		t.Errorf("the function sees %d bytes", len(body))
	}
	fetch(t, "HEAD", url+"/hello/", "")
	<-stored
	<-stored // the answer may have come before
	a := s.get(t, "/functions/"+fn+"/executions").ok(200)
	if a.int("total") != 2 || len(a.raw) > 4000 {
		t.Fatalf("%d bytes: %.4000s", len(a.raw), a.raw)
	}
	first := a.list("executions")[0]
	if path := first["requestPath"].(string); !strings.HasPrefix(path, "/hello/?\uFFFDqqq") || len(path) > 2050 || first["requestMethod"] != "POST" || first["status"] != "completed" {
		t.Errorf("got %v", first)
	}
}

func TestHandlerResponse(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	resp, body := fetch(t, "GET", serveFunction(t, s, s.deployed(t, "cookies"))+"/hello/", "")
	if resp.StatusCode != 418 || len(resp.Header.Values("Set-Cookie")) != 2 || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || body != "tea" {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
	}
}

// A body where HTTP has none is dropped, and nothing else of the answer.
func TestHandlerWithoutBody(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "bodiless")
	url := serveFunction(t, s, fn)
	for _, req := range [][2]string{{"GET", "204"}, {"GET", "304"}, {"HEAD", "200"}, {"HEAD", "204"}} {
		resp, body := fetch(t, req[0], url+"/hello/?status="+req[1], "")
		if fmt.Sprint(resp.StatusCode) != req[1] || body != "" {
			t.Errorf("%v: %d %q", req, resp.StatusCode, body)
		}
	}
	for _, e := range s.get(t, "/functions/"+fn+"/executions").ok(200).list("executions") {
		if e["status"] != "completed" || e["errors"] != "" {
			t.Errorf("got %v", e)
		}
	}
}

// The head of an answer does not wait for its body.
func TestHandlerSendsTheHead(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	gate, open := newGate(t)
	resp, err := http.Post(serveFunction(t, s, s.deployed(t, "slowbody"))+"/hello/", "text/plain", strings.NewReader(gate))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	open()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "late" {
		t.Errorf("got %q %v", body, err)
	}
}

// A function that writes to a client that is gone is told so.
func TestHandlerClientGoes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ended := make(chan struct{})
	gates.Store(t.Name(), ended)
	fn := s.deployed(t, "endless")
	resp, err := http.Post(serveFunction(t, s, fn)+"/hello/", "text/plain", strings.NewReader(t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := resp.Body.Read(make([]byte, 100)); err != nil {
		t.Error(err)
	}
	resp.Body.Close()
	select {
	case <-ended:
	case <-t.Context().Done():
		t.Error("it still writes")
	}
}

// What the function writes reaches the client before the function ends.
func TestHandlerStreams(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	gate, open := newGate(t)
	url := serveFunction(t, s, s.deployed(t, "stream"))
	resp, err := http.Post(url+"/hello/", "text/plain", strings.NewReader(gate))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if first, err := lines.ReadString('\n'); err != nil || first != "first\n" {
		t.Fatalf("got %q %v", first, err)
	}
	open()
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "second\n" {
		t.Errorf("got %q %v", rest, err)
	}
}

// An answer that breaks off is seen as such by the client.
func TestHandlerBreaksOff(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	resp, err := http.Get(serveFunction(t, s, s.deployed(t, "breakoff")) + "/hello/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if raw, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the end looks like one: %q", raw)
	}
}

func TestHandlerErrors(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.cfg.Limits.RequestBody = 100 })
	hasty := newServer(t, func(u *setup) { u.cfg.Limits.SyncTimeout = 200 * time.Millisecond })
	private := s.deployed(t, "echo", "execute", []string{"users"})
	resp, body := fetch(t, "GET", serveFunction(t, s, "nobody")+"/hello/", "", "Accept", "application/json")
	if resp.StatusCode != 404 || !strings.Contains(body, `"type":"function_not_found"`) || resp.Header.Get("Content-Type") != "application/json; charset=UTF-8" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	resp, body = fetch(t, "GET", serveFunction(t, s, "nobody")+"/hello/", "", "Accept", "text/html")
	if resp.StatusCode != 404 || body != "Function with the requested ID could not be found.\n" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body = fetch(t, "GET", serveFunction(t, s, private)+"/hello/", ""); resp.StatusCode != 401 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	as := httpapi.As(func(r *http.Request) (engine.Actor, error) {
		if r.Header.Get("Authorization") == "" {
			return engine.Actor{}, engine.Errorf(engine.TypeUnauthorized, "Log in.")
		}
		return engine.Actor{Kind: engine.ActorUser, UserID: "alice"}, nil
	})
	url := serveFunction(t, s, private, as)
	if resp, body = fetch(t, "GET", url+"/hello/", ""); resp.StatusCode != 401 || body != "Log in.\n" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body = fetch(t, "GET", url+"/hello/", "", "Authorization", "x"); resp.StatusCode != 200 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	open := serveFunction(t, s, s.deployed(t, "echo"))
	if resp, body = fetch(t, "POST", open+"/hello/", strings.Repeat("x", 100)); resp.StatusCode != 200 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body = fetch(t, "POST", open+"/hello/", strings.Repeat("x", 101)); resp.StatusCode != 413 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	for n, want := range map[int]int{100: 200, 101: 413, 5000: 413} { // sent without a length
		resp, err := http.Post(open+"/hello/", "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", n))))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%d bytes: got %d", n, resp.StatusCode)
		}
	}
	if resp, body = fetch(t, "GET", serveFunction(t, hasty, hasty.deployed(t, "block"))+"/hello/", ""); resp.StatusCode != 408 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body = fetch(t, "GET", serveFunction(t, s, s.deployed(t, "status42"))+"/hello/", ""); resp.StatusCode != 500 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

func TestHandlerClientAddress(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "address")
	for want, options := range map[string][]httpapi.HandlerOption{"127.0.0.1": nil, "203.0.113.9": {httpapi.BehindProxy()}} {
		if _, got := fetch(t, "GET", serveFunction(t, s, fn, options...)+"/hello/", "", "X-Forwarded-For", "203.0.113.9"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, c := range []struct {
		eng *engine.Engine
		opt httpapi.Options
	}{{nil, httpapi.Options{}}, {s.eng, httpapi.Options{}}} {
		if api, err := httpapi.New(c.eng, c.opt); err == nil || api != nil {
			t.Error(fmt.Sprint("got ", api, err))
		}
	}
}

// An answer that came whole goes out whole, with its length.
func TestHandlerSendsWholeAnswersAtOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	url := serveFunction(t, s, s.deployed(t, "hello"))
	if resp, body := fetch(t, "GET", url+"/hello/", ""); body != "hello" || resp.ContentLength != 5 || len(resp.TransferEncoding) > 0 {
		t.Errorf("%q, length %d, encoding %v", body, resp.ContentLength, resp.TransferEncoding)
	}
}
