package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"maps"
	"mime"
	"net/http"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// client sends requests to a server and checks every answer against the API's
// own description.
type client struct {
	url    string
	header http.Header
}

// with returns a client whose requests have more headers: name, value, …
// An empty value removes one.
func (c client) with(pairs ...string) client {
	c.header = maps.Clone(c.header)
	if c.header == nil {
		c.header = http.Header{}
	}
	for i := 0; i < len(pairs); i += 2 {
		if c.header.Del(pairs[i]); pairs[i+1] != "" {
			c.header.Set(pairs[i], pairs[i+1])
		}
	}
	return c
}

func (c client) guest() client            { return c.with("X-Appwrite-Key", "") }
func (c client) user(token string) client { return c.guest().with("X-Appwrite-Session", token) }

// answer is what a server answered.
type answer struct {
	t      *testing.T
	op     string
	status int
	header http.Header
	raw    []byte // decompressed
	body   map[string]any
}

// do sends a request and returns the answer. A body that is a string or bytes
// is sent as it is, any other as JSON. Paths are below /v1.
func (c client) do(t *testing.T, method, where string, body any) answer {
	t.Helper()
	var r io.Reader = http.NoBody
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	case io.Reader:
		r = b
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+"/v1"+where, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for name, values := range c.header {
		req.Header[name] = values
	}
	if host := c.header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, where, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", method, where, err)
	}
	if resp.Header.Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = io.ReadAll(zr); err != nil {
			t.Fatal(err)
		}
	}
	a := answer{t: t, status: resp.StatusCode, header: resp.Header, raw: raw}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			t.Fatalf("%s %s: %v in %s", method, where, err, raw)
		}
	}
	a.op = validate(t, req, a)
	return a
}

func (c client) get(t *testing.T, path string) answer {
	t.Helper()
	return c.do(t, "GET", path, nil)
}

func (c client) post(t *testing.T, path string, body any) answer {
	t.Helper()
	return c.do(t, "POST", path, body)
}

// ok fails the test unless the answer has the status.
func (a answer) ok(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d: %s", a.op, a.status, status, a.raw)
	}
	return a
}

// fails fails the test unless the answer is an error of the type. A message,
// if given, must be the error's.
func (a answer) fails(typ string, message ...string) answer {
	a.t.Helper()
	if a.body["type"] != typ {
		a.t.Fatalf("%s: got %d %s, want error %s", a.op, a.status, a.raw, typ)
	}
	if len(message) > 0 && a.body["message"] != message[0] {
		a.t.Fatalf("%s: message\n got %q\nwant %q", a.op, a.body["message"], message[0])
	}
	if a.header.Get("Cache-Control") != "no-cache, no-store, must-revalidate" || a.header.Get("Pragma") != "no-cache" || a.header.Get("Expires") != "0" {
		a.t.Errorf("%s: an error must not be cached: %v", a.op, a.header)
	}
	return a
}

func (a answer) text(name string) string {
	a.t.Helper()
	s, ok := a.body[name].(string)
	if !ok {
		a.t.Fatalf("%s: %s is no text in %s", a.op, name, a.raw)
	}
	return s
}

func (a answer) id() string { a.t.Helper(); return a.text("$id") }

func (a answer) int(name string) int {
	a.t.Helper()
	n, ok := a.body[name].(float64)
	if !ok {
		a.t.Fatalf("%s: %s is no number in %s", a.op, name, a.raw)
	}
	return int(n)
}

// list returns the items of a list.
func (a answer) list(name string) []map[string]any {
	a.t.Helper()
	items, ok := a.body[name].([]any)
	if !ok {
		a.t.Fatalf("%s: %s is no list in %s", a.op, name, a.raw)
	}
	var out []map[string]any
	for _, i := range items {
		out = append(out, i.(map[string]any))
	}
	return out
}

// ids returns the ids of a list.
func (a answer) ids(name string) []string {
	a.t.Helper()
	var out []string
	for _, i := range a.list(name) {
		out = append(out, i["$id"].(string))
	}
	return out
}

// description is the API's own, as the tests read it from the file.
var description = sync.OnceValues(func() (*openapi3.T, routers.Router) {
	raw, err := os.ReadFile("openapi.json")
	if err != nil {
		panic(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		panic(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		panic(err)
	}
	doc.Servers = nil // paths are matched without the host
	router, err := legacy.NewRouter(doc)
	if err != nil {
		panic(err)
	}
	return doc, router
})

// validate checks an answer against the description and returns the operation.
func validate(t *testing.T, req *http.Request, a answer) string {
	t.Helper()
	_, router := description()
	r := req.Clone(req.Context())
	r.URL.Path = strings.ReplaceAll(strings.TrimPrefix(r.URL.EscapedPath(), "/v1"), "%2F", "-")
	r.URL.RawPath = ""
	noRoute := a.status == http.StatusNotFound && a.body["type"] == "general_route_not_found"
	route, params, err := router.FindRoute(r)
	if err != nil || noRoute && path.Clean(r.URL.Path) != r.URL.Path {
		if !noRoute {
			t.Errorf("%s %s is not described: %d %s", req.Method, req.URL.Path, a.status, a.raw)
		}
		return ""
	}
	op := route.Operation.OperationID
	if typ, isError := a.body["type"].(string); isError && a.status >= 400 {
		if !slices.Contains(errorsOf(route.Operation), typ) {
			t.Errorf("%s: error %s is not described", op, typ)
		}
		seen.Store(op+" "+typ, true)
	}
	if a.status == http.StatusNoContent && (len(a.raw) > 0 || a.header.Get("Content-Type") != "") {
		t.Errorf("%s: 204 with content type %q and %d bytes", op, a.header.Get("Content-Type"), len(a.raw))
	}
	media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	options := &openapi3filter.Options{
		IncludeResponseStatus: true, MultiError: true,
		ExcludeResponseBody: media != "application/json" || a.status < 400 && oldFormat.MatchString(req.Header.Get("X-Appwrite-Response-Format")),
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: options},
		Status:                 a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.raw)), Options: options,
	}
	if err := openapi3filter.ValidateResponse(context.Background(), in); err != nil {
		t.Errorf("%s %s: the answer is not as described: %v\n%.4000s", req.Method, req.URL.Path, err, a.raw)
	}
	return op
}

// oldFormat are the versions whose models are described nowhere.
var oldFormat = regexp.MustCompile(`^(0\.\d+|1\.[0-5])\.\d+$`)

// errorsOf are the types of errors that an operation is described to answer.
func errorsOf(op *openapi3.Operation) []string {
	var out []string
	list, _ := op.Extensions["x-errors"].([]any)
	for _, typ := range list {
		out = append(out, typ.(string))
	}
	return out
}

// seen holds "operation type" of every error that a test met.
var seen sync.Map

func itoa(n int) string { return strconv.Itoa(n) }
