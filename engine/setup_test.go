package engine_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite/sqlitetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(asEngine) != "" {
		memberMain()
		return
	}
	if err := flag.Set("rapid.checks", "20"); err != nil { // the default here: some seconds
		panic(err)
	}
	goleak.VerifyTestMain(postgrestest.Main(m))
}

// host is an engine with its parts, as a host would put them together.
type host struct {
	*engine.Engine
	p   *engine.Project
	cfg engine.Config
}

// start returns a running engine on a fresh database. change may adjust the
// configuration.
func start(t *testing.T, box sandbox.Driver, change ...func(*engine.Config)) *host {
	t.Helper()
	h := open(t, box, change...)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.stop(t) })
	return h
}

// open returns an engine that is not started.
func open(t *testing.T, box sandbox.Driver, change ...func(*engine.Config)) *host {
	t.Helper()
	dir := t.TempDir()
	db := sqlitetest.Open(t, filepath.Join(dir, "fnkit.db"))
	t.Cleanup(func() {
		if err := errors.Join(box.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	cfg := engine.Config{
		Store: db, Blobs: dirblobs.New(filepath.Join(dir, "blobs")), Sandbox: box, Dir: filepath.Join(dir, "engine"),
		Keys: engine.Key("k1", bytes.Repeat([]byte("secret"), 4)), MinIsolation: "none",
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, c := range change {
		c(&cfg)
	}
	return with(t, cfg)
}

// with returns an engine of a configuration, which may share the parts of another.
func with(t *testing.T, cfg engine.Config) *host {
	t.Helper()
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &host{e, e.Project("shop"), cfg}
}

func (h *host) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := h.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// node returns a driver with Node, or skips the test.
func node(t *testing.T) sandbox.Driver {
	t.Helper()
	require.Command(t, "node")
	return processes(t, "node")
}

// processes returns a driver with some languages: to ask for all takes seconds.
func processes(t *testing.T, languages ...string) *procbox.Box {
	t.Helper()
	box, err := procbox.New(procbox.Config{
		Dir: filepath.Join(t.TempDir(), "box"), Path: os.Getenv("PATH"), Languages: languages,
		Isolation: "none", // functions of these tests note what they do in files of the host
	})
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// nodeRuntime is the id of the first Node the driver has.
func (h *host) runtime(t *testing.T, key string) string {
	t.Helper()
	all, err := h.p.Runtimes(t.Context(), engine.System)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Key == key {
			return r.ID
		}
	}
	require.Missing(t, key, "the sandbox has no such runtime")
	return ""
}

// function creates a function that anybody may execute.
func (h *host) function(t *testing.T, id, runtime, entrypoint string) engine.Function {
	t.Helper()
	f, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: id, Name: id, Runtime: runtime, Entrypoint: entrypoint, Execute: []string{"any"}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// deploy deploys files and waits until their build has ended.
func (h *host) deploy(t *testing.T, function string, files map[string]string) engine.Deployment {
	t.Helper()
	d, err := h.p.Deploy(t.Context(), engine.System, function, engine.DeployParams{Source: bytes.NewReader(archived(t, files)), Size: -1, Activate: true})
	if err != nil {
		t.Fatal(err)
	}
	return h.built(t, d)
}

// built waits until a build has ended.
func (h *host) built(t *testing.T, d engine.Deployment) engine.Deployment {
	t.Helper()
	return eventually(t, func() (engine.Deployment, bool) {
		d, err := h.p.GetDeployment(t.Context(), engine.System, d.FunctionID, d.ID)
		if err != nil {
			t.Fatal(err)
		}
		return d, d.Status.Final()
	})
}

// ended waits until a queued execution has ended.
func (h *host) ended(t *testing.T, x engine.Execution) engine.Execution {
	t.Helper()
	return eventually(t, func() (engine.Execution, bool) {
		x, err := h.p.GetExecution(t.Context(), engine.System, x.FunctionID, x.ID)
		if err != nil {
			t.Fatal(err)
		}
		return x, x.Status.Final()
	})
}

// eventually asks until the answer is there; the records have no other way to
// tell a test that a background job has ended.
func eventually[T any](t *testing.T, ask func() (T, bool)) T {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for {
		if v, ok := ask(); ok {
			return v
		}
		select {
		case <-tick.C:
		case <-limit:
			v, _ := ask()
			t.Fatalf("nothing happened for a minute: %+v", v)
		}
	}
}

// execute runs a function synchronously.
func (h *host) execute(t *testing.T, function string, a engine.ExecuteParams) engine.ExecuteResult {
	t.Helper()
	x, err := h.p.Execute(t.Context(), engine.System, function, a)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// fails checks that err is the engine's error of a type.
func fails(t *testing.T, err error, typ string) {
	t.Helper()
	var e *engine.Error
	if !errors.As(err, &e) || e.Type != typ {
		t.Errorf("got %v, want %s", err, typ)
	}
}

func archived(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for name, body := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var _ sandbox.Driver = (*fnbox.Box)(nil)
