package httpapi_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite/sqlitetest"
)

// setup is what a test may change before its server starts.
type setup struct {
	cfg  engine.Config
	opt  httpapi.Options
	idle bool // do not start the engine: nothing queued runs
}

// server is an engine on real parts, with its API on a real listener. Its
// client has a key for everything.
type server struct {
	client
	eng   *engine.Engine
	api   *httpapi.API
	store *sqlstore.Store
	blobs string // directory
}

// Projects, keys and tokens of every server.
const (
	project  = "shop"
	allKey   = "all-scopes"
	readKey  = "read-only"
	writeKey = "write-only"
	execKey  = "executions-only"
	otherKey = "other-project"
	alice    = "alice-token"
	bob      = "bob-token"
)

func newServer(t *testing.T, change ...func(*setup)) *server {
	t.Helper()
	dir := t.TempDir()
	st := sqlitetest.Open(t, filepath.Join(dir, "app.db"))
	s := &server{store: st, blobs: filepath.Join(dir, "code")}
	keys := &httpapi.Keys{
		Keys: []httpapi.Key{
			{Secret: allKey, Project: project},
			{Secret: readKey, Project: project, Scopes: []string{engine.ScopeFunctionsRead, engine.ScopeExecutionRead}},
			{Secret: writeKey, Project: project, Scopes: []string{engine.ScopeFunctionsWrite}},
			{Secret: execKey, Project: project, Scopes: []string{engine.ScopeExecutionRead, engine.ScopeExecutionWrite}},
			{Secret: otherKey, Project: "elsewhere"},
			{Secret: "nowhere", Project: "missing"},
		},
		Users: []httpapi.User{
			{Project: project, ID: "alice", Token: alice, Email: "alice@example.com", Verified: true, Roles: []string{"team:red", "team:red/owner"}, Labels: []string{"vip"}},
			{Project: project, ID: "bob", Token: bob},
			{Project: "missing", ID: "carl", Token: "carl-token"},
		},
	}
	u := setup{
		cfg: engine.Config{
			Store: st, Blobs: dirblobs.New(s.blobs), Sandbox: fnbox.New(functions), MinIsolation: "none",
			Keys: engine.Key("k1", []byte("0123456789abcdef0123456789abcdef")), Dir: filepath.Join(dir, "engine"),
			Hooks: engine.Hooks{Projects: func(_ context.Context, id string) (engine.ProjectLimits, error) {
				if id == "missing" {
					return engine.ProjectLimits{}, engine.Errorf(engine.TypeProject, "")
				}
				return engine.ProjectLimits{}, nil
			}},
		},
		opt: httpapi.Options{Identify: keys.Identify, TempDir: dir},
	}
	for _, c := range change {
		c(&u)
	}
	var err error
	if s.eng, err = engine.New(u.cfg); err != nil {
		t.Fatal(err)
	}
	keys.Engine = s.eng
	if s.api, err = httpapi.New(s.eng, u.opt); err != nil {
		t.Fatal(err)
	}
	if !u.idle {
		if err := s.eng.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ts := httptest.NewServer(s.api)
	t.Cleanup(func() {
		ts.Close()
		if err := s.eng.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		st.Close()
	})
	s.client = client{url: ts.URL}.with("X-Appwrite-Project", project, "X-Appwrite-Key", allKey)
	return s
}

// create makes a function whose code is the Go func of that name.
func (s *server) create(t *testing.T, code string, settings ...any) string {
	t.Helper()
	body := map[string]any{"functionId": "unique()", "name": code, "runtime": runtimeID, "entrypoint": code, "execute": []string{"any"}}
	for i := 0; i < len(settings); i += 2 {
		body[settings[i].(string)] = settings[i+1]
	}
	return s.post(t, "/functions", body).ok(http.StatusCreated).id()
}

// deployed makes a function that can be executed.
func (s *server) deployed(t *testing.T, code string, settings ...any) string {
	t.Helper()
	id := s.create(t, code, settings...)
	s.deploy(t, id)
	return id
}

// deploy uploads code, waits until it is built and active, and returns the id
// of the deployment.
func (s *server) deploy(t *testing.T, function string) string {
	t.Helper()
	id := s.upload(t, function, form{code: archive(t)}).ok(http.StatusAccepted).id()
	s.await(t, "/functions/"+function+"/deployments/"+id, "ready")
	return id
}

// await reads a record until it has the status.
func (s *server) await(t *testing.T, path, status string) answer {
	t.Helper()
	changes, err := s.eng.Subscribe(t.Context(), events.Pattern{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		a := s.get(t, path).ok(http.StatusOK)
		if got := a.text("status"); got == status {
			return a
		} else if got == "failed" || got == "completed" || got == "ready" || got == "canceled" {
			t.Fatalf("%s: status %s, want %s: %s", path, got, status, a.raw)
		}
		select {
		case <-changes:
		case <-time.After(100 * time.Millisecond): // not every change has an event: look again
		case <-t.Context().Done():
			t.Fatalf("%s did not become %s", path, status)
		}
	}
}

// form is an upload.
type form struct {
	code     []byte
	name     string // of the file. Default: "code.tar.gz"
	slice    []byte // part "file"
	fields   map[string]string
	activate string // Default: "true"; "-": left out
	last     bool   // fields come before the file
	rng      string // Content-Range
	id       string // X-Appwrite-ID
}

func (f form) encode(t *testing.T) (body []byte, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	file := func(part, name string, data []byte) {
		p, err := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {fmt.Sprintf(`form-data; name=%q; filename=%q`, part, name)}, "Content-Type": {"application/octet-stream"},
		})
		if err != nil {
			t.Fatal(err)
		}
		p.Write(data)
	}
	name := f.name
	if name == "" {
		name = "code.tar.gz"
	}
	if f.code != nil && !f.last {
		file("code", name, f.code)
	}
	for k, v := range f.fields {
		w.WriteField(k, v)
	}
	if f.activate == "" {
		f.activate = "true"
	}
	if f.activate != "-" {
		w.WriteField("activate", f.activate)
	}
	if f.code != nil && f.last {
		file("code", name, f.code)
	}
	if f.slice != nil {
		file("file", "blob", f.slice)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), w.FormDataContentType()
}

func (c client) upload(t *testing.T, function string, f form) answer {
	t.Helper()
	body, contentType := f.encode(t)
	return c.with("Content-Type", contentType, "Content-Range", f.rng, "X-Appwrite-ID", f.id).
		post(t, "/functions/"+function+"/deployments", body)
}

// part is one part of data, of at most size bytes, with its range.
func part(data []byte, index, size int) (chunk []byte, rng string) {
	start := index * size
	end := min(start+size, len(data))
	return data[start:end], "bytes " + strconv.Itoa(start) + "-" + strconv.Itoa(end-1) + "/" + strconv.Itoa(len(data))
}

// archive is a small source archive.
func archive(t *testing.T, padding ...byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&b, gzip.NoCompression)
	tw := tar.NewWriter(zw)
	for _, file := range []struct {
		name string
		data []byte
	}{{"index.js", []byte("// code")}, {"padding", padding}} {
		if err := tw.WriteHeader(&tar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.data))}); err != nil {
			t.Fatal(err)
		}
		tw.Write(file.data)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// execute runs a function synchronously.
func (c client) execute(t *testing.T, function string, settings ...any) answer {
	t.Helper()
	body := map[string]any{}
	for i := 0; i < len(settings); i += 2 {
		body[settings[i].(string)] = settings[i+1]
	}
	return c.post(t, "/functions/"+function+"/executions", body)
}
