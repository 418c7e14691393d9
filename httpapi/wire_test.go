package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/store"
)

func TestPreflight(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, path := range []string{"/functions", "/functions/f/executions", "/nothing"} {
		req, err := http.NewRequestWithContext(t.Context(), "OPTIONS", s.url+"/v1"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", "https://anywhere.example")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		h := resp.Header
		if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://anywhere.example" || h.Get("Access-Control-Allow-Credentials") != "true" ||
			h.Get("Access-Control-Allow-Methods") != "GET, POST, PUT, PATCH, DELETE" || h.Get("X-Content-Type-Options") != "" || h.Get("X-Debug-Fallback") != "" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, h)
		}
		for _, name := range []string{"X-Appwrite-Project", "X-Appwrite-Response-Format", "X-SDK-Name", "Content-Type", "X-Appwrite-Session", "X-Fallback-Cookies", "Content-Range"} {
			if !strings.Contains(h.Get("Access-Control-Allow-Headers"), name) {
				t.Errorf("header %s is not allowed", name)
			}
		}
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.opt.AllowedOrigins = []string{"app.example.com", "*.shop.example"} })
	open := newServer(t, func(u *setup) { u.opt.AllowedOrigins = []string{"*"} })
	for origin, trusted := range map[string]bool{
		"https://app.example.com": true, "https://APP.example.com:8443": true, "https://a.shop.example": true, "http://localhost:3000": true, s.url: true,
		"https://example.com": false, "https://evilshop.example": false, "https://app.example.com.evil.example": false, "null": false, "https://": false, "%": false,
	} {
		a := s.guest().with("Origin", origin).post(t, "/functions/f/executions", nil)
		want, allow := map[bool]string{true: "function_not_found", false: "general_unknown_origin"}[trusted], map[bool]string{true: origin, false: "http://localhost"}[trusted]
		if a.body["type"] != want || a.header.Get("Access-Control-Allow-Origin") != allow {
			t.Errorf("%s: %s %v", origin, a.raw, a.header)
		}
		if a := s.with("Origin", origin).get(t, "/functions").ok(200); a.header.Get("Access-Control-Allow-Origin") != allow {
			t.Errorf("%s: %v", origin, a.header)
		}
		s.with("Origin", origin).do(t, "DELETE", "/functions/f", nil).fails("function_not_found") // a key needs no origin
		if !strings.HasSuffix(origin, "//") && origin != "null" && origin != "%" {
			open.guest().with("Origin", origin).post(t, "/functions/f/executions", nil).fails("function_not_found")
		}
	}
	for host, origin := range map[string]string{"[::1]": "http://[::1]", "[::1]:8080": "http://[::1]:3000", "API.example": "https://api.example"} {
		s.guest().with("Host", host, "Origin", origin).post(t, "/functions/f/executions", nil).fails("function_not_found")
	}
	s.guest().with("Referer", "https://evil.example/page").post(t, "/functions/f/executions", nil).ok(403).fails("general_unknown_origin")
}

func TestResponseHeaders(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, a := range []answer{s.get(t, "/functions").ok(200), s.get(t, "/nothing").ok(404), s.guest().get(t, "/health/version").ok(200)} {
		for name, want := range map[string]string{
			"Server": "Appwrite", "X-Content-Type-Options": "nosniff", "X-Debug-Fallback": "false", "Access-Control-Allow-Origin": "http://localhost",
			"Access-Control-Allow-Credentials": "true", "Access-Control-Expose-Headers": "X-Appwrite-Session, X-Fallback-Cookies, Idempotency-Replayed", "Strict-Transport-Security": "",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

func TestCompression(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	small := s.with("Accept-Encoding", "gzip").get(t, "/functions").ok(200)
	if small.header.Get("Content-Encoding") != "" {
		t.Errorf("%d bytes were compressed", len(small.raw))
	}
	big := s.create(t, "echo", "commands", strings.Repeat("c", 2000))
	for accept, want := range map[string]string{"gzip": "gzip", "deflate, gzip;q=0.5": "gzip", "gzip;q=0": "", "identity": "", "br": ""} {
		a := s.with("Accept-Encoding", accept).get(t, "/functions/"+big).ok(200)
		if len(a.raw) <= 1024 {
			t.Fatalf("only %d bytes", len(a.raw))
		}
		if got := a.header.Get("Content-Encoding"); got != want || want != "" && !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Accept-Encoding") {
			t.Errorf("%s: %q, vary %v", accept, got, a.header.Values("Vary"))
		}
	}
}

func TestCreateLimit(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	s := newServer(t, func(u *setup) { u.idle, u.cfg.Clock, u.opt.CreateLimit = true, mock, 2 })
	body := map[string]any{"functionId": "unique()", "name": "n", "runtime": runtimeID}
	for i, remaining := range []string{"1", "0"} {
		a := s.post(t, "/functions", body).ok(201)
		if a.header.Get("X-RateLimit-Limit") != "2" || a.header.Get("X-RateLimit-Remaining") != remaining || a.header.Get("X-RateLimit-Reset") != "1772452800" {
			t.Errorf("%d: %v", i, a.header)
		}
	}
	if a := s.post(t, "/functions", nil).ok(429).fails("general_rate_limit_exceeded"); a.header.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("got %v", a.header)
	}
	s.with("X-Appwrite-Project", "elsewhere", "X-Appwrite-Key", otherKey).post(t, "/functions", body).ok(201)
	mock.Add(24 * time.Hour)
	s.post(t, "/functions", body).ok(201)
	if a := s.get(t, "/functions").ok(200); a.header.Get("X-RateLimit-Limit") != "" {
		t.Errorf("got %v", a.header)
	}
}

func TestSystemRoutes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.guest().with("X-Appwrite-Project", "console", "Content-Type", "")
	for path, want := range map[string]string{
		"/health":         `{"name":"functions","status":"pass","ping":0}`,
		"/health/version": `{"version":"1.6.2"}`,
		"/proxy/rules?queries[0]=" + query("limit", "", 1): `{"total":0,"rules":[]}`,
	} {
		if a := c.get(t, path).ok(200); string(a.raw) != want {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
}

// Clients send content types where there is no body.
func TestContentTypeWithoutBody(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, contentType := range []string{"", "application/json", "multipart/form-data", "nonsense", "multipart/form-data; boundary=x"} {
		c := s.with("Content-Type", contentType)
		c.get(t, "/functions").ok(200)
		c.do(t, "DELETE", "/functions/nobody", nil).ok(404).fails("function_not_found")
		c.post(t, "/functions", nil).ok(400).fails("general_argument_invalid", `Param "functionId" is not optional.`)
	}
}

// Every id in a path is checked before anything is looked up.
func TestMalformedIds(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	message := "UID must contain at most 36 chars. Valid chars are a-z, A-Z, 0-9, and underscore. Can't start with a leading underscore"
	for op, req := range samples(s) {
		if !strings.Contains(req[1], "/f") || req[1] == "/functions" {
			continue
		}
		segments := strings.Split(req[1], "/")
		for i, name := range map[int]string{2: "functionId", 4: map[byte]string{'d': "deploymentId", 'e': "executionId", 'v': "variableId"}[(req[1] + "/////")[len("/functions/f/")]]} {
			if i >= len(segments) || len(segments[2]) != 1 {
				continue
			}
			for _, bad := range []string{"_x", "%20", "a%2Fb", strings.Repeat("a", 37), "%00", "ä", ".a", "%ff"} {
				changed := append([]string(nil), segments...)
				changed[i] = bad
				a := s.do(t, req[0], strings.Join(changed, "/"), validBody(op))
				if a.op != "" { // the description has no route for some of them
					a.ok(400).fails("general_argument_invalid", "Invalid `"+name+"` param: "+message)
				}
			}
		}
	}
}

// What does not exist is said to be missing, on every route.
func TestUnknownIds(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for op, req := range samples(s) {
		if !strings.HasPrefix(req[1], "/functions/f") {
			continue
		}
		a := s.do(t, req[0], req[1], validBody(op))
		a.ok(404).fails("function_not_found")
	}
}

// brokenBlobs are archives on a disk that fails after some bytes.
type brokenBlobs struct {
	store.Blobs
	good int64
}

type brokenBlob struct {
	io.ReadSeekCloser
	good *int64
}

func (b brokenBlobs) Open(ctx context.Context, key string) (io.ReadSeekCloser, int64, error) {
	r, size, err := b.Blobs.Open(ctx, key)
	return brokenBlob{r, &b.good}, size, err
}

func (b brokenBlob) Read(p []byte) (int, error) {
	if *b.good <= 0 {
		return 0, errors.New("a bad sector")
	}
	n, err := b.ReadSeekCloser.Read(p[:min(int64(len(p)), *b.good)])
	*b.good -= int64(n)
	return n, err
}

// What fails in the middle of an answer is seen as a break by the client, and reported.
func TestAnswerBreaksOff(t *testing.T) {
	t.Parallel()
	seen := make(chan httpapi.Outcome, 10)
	s := newServer(t, func(u *setup) {
		u.idle, u.cfg.Blobs = true, brokenBlobs{u.cfg.Blobs, 100}
		u.opt.OnResponse = func(_ *http.Request, o httpapi.Outcome) { seen <- o }
	})
	fn := s.create(t, "echo")
	id := s.upload(t, fn, form{code: archive(t)}).ok(202).id()
	<-seen
	<-seen
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/functions/"+fn+"/deployments/"+id+"/download", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = s.header
	if resp, err := http.DefaultClient.Do(req); err == nil { // it may break off before the head
		if raw, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%d bytes look whole", len(raw))
		}
		resp.Body.Close()
	}
	if o := <-seen; o.Route != "functionsGetDeploymentDownload" || o.Status != 200 || o.Bytes > 100 || o.Err == nil || !strings.Contains(o.Err.Error(), "a bad sector") {
		t.Errorf("got %+v", o)
	}
}

func TestOnResponse(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	seen := make(chan httpapi.Outcome, 1)
	s := newServer(t, func(u *setup) {
		u.opt.OnResponse = func(_ *http.Request, o httpapi.Outcome) { calls.Add(1); seen <- o }
	})
	a := s.get(t, "/functions/nobody").ok(404)
	if o := <-seen; o.Route != "functionsGet" || o.Project != project || o.Status != 404 || o.Bytes != int64(len(a.raw)) || o.Err == nil {
		t.Errorf("got %+v", o)
	}
	s.get(t, "/nothing")
	if o := <-seen; o.Route != "" || o.Status != 404 {
		t.Errorf("got %+v", o)
	}
	s.api.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("OPTIONS", "/v1/functions", nil))
	if o := <-seen; o.Status != 204 || o.Err != nil {
		t.Errorf("got %+v", o)
	}
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("the handler ended with %v", p)
			}
		}()
		s.api.ServeHTTP(brokenWriter{httptest.NewRecorder()}, httptest.NewRequest("GET", "/v1/openapi.json", nil))
	}()
	if o := <-seen; o.Status != 200 || o.Err == nil {
		t.Errorf("got %+v", o)
	}
}

// brokenWriter is a connection whose other end is gone.
type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
