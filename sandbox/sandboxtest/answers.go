package sandboxtest

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/sandbox"
)

// answer is what a call must give.
type answer struct {
	name    string // of the subtest; empty: the path
	request sandbox.Request
	status  int
	headers map[string]string
	body    string // the exact text
	json    string // or the JSON value
	errors  string // what standard error contains
}

func (s *suite) answers(t *testing.T) {
	id := s.start(t)
	for _, a := range answerTable() {
		path, _, _ := strings.Cut(strings.TrimPrefix(a.request.Path, "/"), "?")
		if a.name == "" {
			a.name = path
		}
		s.test(t, a.name, func(t *testing.T) { a.check(t, s.call(t, id, a.request)) }, path)
	}
	s.test(t, "request", func(t *testing.T) { s.requests(t, id) })
	s.test(t, "environ", func(t *testing.T) { s.environ(t, id) })
	s.test(t, "count", func(t *testing.T) {
		id := s.start(t)
		for _, want := range []string{"1", "2", "3"} {
			if got := s.get(t, id, "/count").text(); got != want {
				t.Errorf("count is %q, want %q: state of the process is kept", got, want)
			}
		}
	})
}

const (
	textType = "text/plain; charset=utf-8"
	jsonType = "application/json; charset=utf-8"
)

func answerTable() []answer {
	all256 := make([]byte, 256)
	for i := range all256 {
		all256[i] = byte(i)
	}
	typed := func(name, given, want string) answer {
		return answer{name, post("/type", "text/plain", strings.NewReader(given)), 200, map[string]string{"content-type": want}, "typed", "", ""}
	}
	return []answer{
		{request: request("/hello"), status: 200, headers: map[string]string{"content-type": jsonType}, json: `{"hello":"world"}`},
		{request: post("/echo", "application/octet-stream", strings.NewReader(string(all256))), status: 200, body: string(all256)},
		{name: "echo-empty", request: post("/echo", "text/plain", nil), status: 200},
		{name: "echo-head", request: sandbox.Request{Method: "HEAD", Path: "/echo", Headers: post("", "text/plain", nil).Headers}, status: 200},
		{request: post("/body", "text/plain", strings.NewReader("täxt")), status: 200, json: `{"body":"täxt"}`},
		{name: "body-json", request: post("/body", "application/json", strings.NewReader(`{"a":{"b":[1,"é"]}}`)), status: 200, json: `{"body":{"a":{"b":[1,"é"]}}}`},
		{name: "body-json-charset", request: post("/body", "Application/JSON; charset=utf-8", strings.NewReader(`{"a":1}`)), status: 200, json: `{"body":{"a":1}}`},
		{name: "body-json-empty", request: post("/body", "application/json", nil), status: 200, json: `{"body":{}}`},
		{name: "body-json-bad", request: post("/body", "application/json", strings.NewReader(`{"a`)), status: 500},
		{request: post("/bodyjson", "text/plain", strings.NewReader(`{"a":1}`)), status: 200, json: `{"body":{"a":1}}`},
		{name: "bodyjson-bad", request: post("/bodyjson", "text/plain", strings.NewReader(`no`)), status: 500},
		{request: request("/text"), status: 201, headers: map[string]string{"content-type": textType, "x-custom": "Value"}, body: "téxt"},
		{request: request("/binary"), status: 200, body: string(all256)},
		{request: request("/json"), status: 200, headers: map[string]string{"content-type": jsonType}, json: `{"a":1,"b":"é","c":{"d":true}}`},
		{request: request("/empty"), status: 204},
		{request: request("/redirect"), status: 301, headers: map[string]string{"location": "https://example.org/a"}},
		{request: request("/found"), status: 302, headers: map[string]string{"location": "https://example.org/b", "x-why": "moved"}},
		{request: request("/send"), status: 202, body: "sent", headers: map[string]string{"content-type": textType}},
		{request: request("/record"), status: 200, body: "own"},
		{request: request("/status?n=42"), status: 42, body: "status"},
		{request: request("/crlf"), status: 200, headers: map[string]string{"x-bad": "a\r\nx-evil: 1"}, body: "crlf"},
		{request: request("/cookies"), status: 200, headers: map[string]string{"set-cookie": "a=1|b=2"}, body: "cookies"},
		{request: request("/env?name=FIXTURE"), status: 200, json: `{"value":"välue"}`},
		{name: "env-empty", request: request("/env?name=EMPTY"), status: 200, json: `{"value":""}`},
		{name: "env-absent", request: request("/env?name=ABSENT"), status: 200, json: `{"value":null}`},
		{name: "not-found", request: request("/nothing"), status: 404, body: "not found"},
		{request: request("/noreturn"), status: 500, errors: "Return statement missing."},
		{request: request("/throw"), status: 500, errors: "thrown on purpose"},
		typed("type-lowered", "TEXT/PLAIN", textType),
		typed("type-charset", "text/plain; charset=iso-8859-1", "text/plain; charset=iso-8859-1"),
		typed("type-multipart", "multipart/form-data; boundary=AbC12", "multipart/form-data; boundary=AbC12"),
		typed("type-image", "image/png", "image/png; charset=utf-8"),
	}
}

func (a answer) check(t *testing.T, r *Recorder) {
	t.Helper()
	if r.status != a.status {
		t.Errorf("status %d, want %d; errors %q", r.status, a.status, r.Logs(sandbox.Stderr))
	}
	for name, want := range a.headers {
		if got := r.header(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	if a.json == "" && r.text() != a.body {
		t.Errorf("body %q, want %q", r.text(), a.body)
	}
	if a.json != "" {
		sameJSON(t, r.json(t), a.json)
	}
	if !strings.Contains(r.Logs(sandbox.Stderr), a.errors) || (a.status == 500) == (r.Logs(sandbox.Stderr) == "") {
		t.Errorf("errors %q, want %q", r.Logs(sandbox.Stderr), a.errors)
	}
}

func sameJSON(t *testing.T, got any, want string) {
	t.Helper()
	var w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, w) {
		t.Errorf("JSON %v, want %s", got, want)
	}
}

// requests checks what the request object gives.
func (s *suite) requests(t *testing.T, id string) {
	const query = "a=b&c==d&e=f=g=&h&i=j&&k"
	r := post("/request?"+query, "text/plain", strings.NewReader("body"))
	r.Headers = append(r.Headers, sandbox.Header{Name: "host", Value: "www.mydomain.com:3001"}, sandbox.Header{Name: "x-forwarded-proto", Value: "https"},
		sandbox.Header{Name: "x-open-runtimes-secret", Value: "s"}, sandbox.Header{Name: "cookie", Value: "a=b=c; d=e:f"},
		sandbox.Header{Name: "x-twice", Value: "1"}, sandbox.Header{Name: "x-twice", Value: "2"})
	got := s.call(t, id, r).json(t).(map[string]any)
	for name, want := range map[string]any{
		"method": "POST", "scheme": "https", "host": "www.mydomain.com", "port": 3001.0, "path": "/request",
		"queryString": query, "url": "https://www.mydomain.com:3001/request?" + query, "bodyText": "body",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	sameFields(t, "query", got["query"], map[string]string{"a": "b", "c": "=d", "e": "f=g=", "h": "", "i": "j", "k": ""})
	sameFields(t, "headers", got["headers"], map[string]string{
		"content-type": "text/plain", "host": "www.mydomain.com:3001", "x-forwarded-proto": "https", "cookie": "a=b=c; d=e:f", "x-twice": "1, 2",
	})
	for _, h := range hostTable {
		s.host(t, id, h)
	}
}

func sameFields(t *testing.T, what string, got any, want map[string]string) {
	t.Helper()
	fields, _ := got.(map[string]any)
	if len(fields) != len(want) {
		t.Errorf("%s are %v, want %v", what, got, want)
	}
	for k, v := range want {
		if g, ok := fields[k]; !ok || (g != v && (g != nil || v != "")) { // a key without "=" may be null
			t.Errorf("%s: %s is %v, want %q", what, k, g, v)
		}
	}
}

type hostCase struct {
	host, proto string
	name        string
	port        float64
	url         string
}

var hostTable = []hostCase{
	{"www.mydomain.com:80", "", "www.mydomain.com", 80, "http://www.mydomain.com/request"},
	{"myapp.com", "https", "myapp.com", 443, "https://myapp.com/request"},
	{"myapp.com", "", "myapp.com", 80, "http://myapp.com/request"},
	{"myapp.com:443", "https", "myapp.com", 443, "https://myapp.com/request"},
	{"myapp.com:80", "https", "myapp.com", 80, "https://myapp.com:80/request"},
	{"myapp.com:80", "http", "myapp.com", 80, "http://myapp.com/request"},
}

func (s *suite) host(t *testing.T, id string, h hostCase) {
	t.Helper()
	r := request("/request")
	r.Headers = []sandbox.Header{{Name: "host", Value: h.host}}
	if h.proto != "" {
		r.Headers = append(r.Headers, sandbox.Header{Name: "x-forwarded-proto", Value: h.proto})
	}
	got := s.call(t, id, r).json(t).(map[string]any)
	if got["host"] != h.name || got["port"] != h.port || got["url"] != h.url {
		t.Errorf("%s %s: %v %v %v, want %+v", h.host, h.proto, got["host"], got["port"], got["url"], h)
	}
}

// environ checks that nothing of the host's environment is seen.
func (s *suite) environ(t *testing.T, id string) {
	for name := range s.get(t, id, "/environ").json(t).(map[string]any) {
		if _, given := environment[name]; !given && !slices.Contains(ofRuntimes, name) {
			t.Errorf("user code sees variable %s", name)
		}
	}
}

// ofRuntimes are variables that runtimes, shells and systems set by themselves.
var ofRuntimes = []string{"PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "PWD", "SHLVL", "_", "__CF_USER_TEXT_ENCODING", "LISTEN_FDS", "FNKIT_SOCKET"}
