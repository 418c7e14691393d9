package fnkit_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/clock"
	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box runs Go funcs of this program as functions.
var box = fnbox.New(fnbox.Funcs{
	"hello": func(_ context.Context, c *fnbox.Context) error {
		return c.Text(http.StatusOK, "hello, "+c.Req.Query["name"])
	},
})

var secret = []byte("a secret of at least 16 bytes")

// who lets everybody act as the host itself in the project shop.
func who(*http.Request) (engine.Caller, error) {
	return engine.Caller{Project: "shop", Actor: engine.System}, nil
}

// mount is the program of doc.go.
func mount(ctx context.Context, dir string, mux *http.ServeMux) error {
	db, err := sqlite.Open(ctx, filepath.Join(dir, "app.db"))
	if err != nil {
		return err
	}
	eng, err := engine.New(engine.Config{
		Store: db, Blobs: dirblobs.New(dir), Sandbox: box, Keys: engine.Key("k1", secret), MinIsolation: "none",
	})
	if err != nil {
		return err
	}
	if err := eng.Start(ctx); err != nil {
		return err
	}
	api, err := httpapi.New(eng, httpapi.Options{Identify: who})
	mux.Handle("/v1/", api)
	stop = func() error { return errors.Join(eng.Stop(context.WithoutCancel(ctx)), db.Close()) }
	return err
}

// stop ends what mount began.
var stop = func() error { return nil }

func Example() {
	dir, _ := os.MkdirTemp("", "fnkit-example-")
	defer os.RemoveAll(dir)
	mux := http.NewServeMux()
	if err := mount(context.Background(), dir, mux); err != nil {
		fmt.Println(err)
		return
	}
	defer func() { stop() }()
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest("GET", "/v1/functions", nil))
	fmt.Println(answer.Code, answer.Body)
	// Output: 200 {"total":0,"functions":[]}
}

// A function is an http.Handler like any other.
func Example_mount() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "fnkit-example-")
	defer os.RemoveAll(dir)
	db, _ := sqlite.Open(ctx, filepath.Join(dir, "app.db"))
	defer db.Close()
	eng, _ := engine.New(engine.Config{
		Store: db, Blobs: dirblobs.New(dir), Sandbox: box, Keys: engine.Key("k1", secret), MinIsolation: "none",
	})
	eng.Start(ctx)
	defer eng.Stop(ctx)

	shop := eng.Project("shop")
	shop.CreateFunction(ctx, engine.System, engine.FunctionParams{
		ID: "hello", Name: "Hello", Runtime: fnbox.RuntimeID, Entrypoint: "hello", Execute: []string{"any"},
	})
	events, _ := eng.Subscribe(ctx, engine.Pattern{Project: "shop", Name: "functions.hello.deployments.*.update"})
	shop.Deploy(ctx, engine.System, "hello", engine.DeployParams{Source: emptyArchive(), Size: -1, Activate: true})
	<-events // it builds
	<-events // it is ready

	mux := http.NewServeMux()
	mux.Handle("/hello/", httpapi.FunctionHandler(eng, "shop", "hello"))
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest("GET", "/hello/?name=world", nil))
	fmt.Println(answer.Code, answer.Body)
	// Output: 200 hello, world
}

// A unit test runs a year of schedules in no time: it moves the clock, and the
// engine does what is due. Package enginetest has this ready-made for tests.
func Example_fakeClock() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "fnkit-example-")
	defer os.RemoveAll(dir)
	db, _ := sqlite.Open(ctx, filepath.Join(dir, "app.db"))
	defer db.Close()
	mock := clock.NewMock()
	mock.Set(time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC))
	eng, _ := engine.New(engine.Config{
		Store: db, Blobs: dirblobs.New(dir), Sandbox: box, Keys: engine.Key("k1", secret), MinIsolation: "none", Clock: mock,
		Retention: engine.Retention{Executions: -1}, // by default those of two weeks
	})
	defer eng.Stop(ctx)

	shop := eng.Project("shop")
	shop.CreateFunction(ctx, engine.System, engine.FunctionParams{
		ID: "report", Name: "Report", Runtime: fnbox.RuntimeID, Entrypoint: "hello", Schedule: "0 3 * * MON",
	})
	shop.Deploy(ctx, engine.System, "report", engine.DeployParams{Source: emptyArchive(), Size: -1, Activate: true})

	newYear := time.Date(2027, time.January, 1, 0, 0, 0, 0, time.UTC)
	steps := 0
	for next := mock.Now(); next.Before(newYear); steps++ {
		mock.Set(next)
		for did := true; did; {
			next, did, _ = eng.Step(ctx)
		}
	}
	runs, _ := shop.ListExecutions(ctx, engine.System, "report", engine.Query{Limit: 1})
	fmt.Println(runs.Total, "runs in", steps-1, "steps, the first on", runs.Items[0].ScheduledAt.Format(time.RFC1123))
	// Output: 52 runs in 52 steps, the first on Mon, 05 Jan 2026 03:00:00 UTC
}

// TestDocProgram keeps the program of doc.go the one that Example runs, and short.
func TestDocProgram(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "// # A program\n//\n")
	text, _, _ = strings.Cut(text, "//\n// box is")
	own, err := os.ReadFile("engine_test.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 15 {
		t.Errorf("the program has %d lines", len(lines))
	}
	for _, line := range lines {
		code := strings.TrimPrefix(strings.TrimPrefix(line, "//"), "\t")
		if !strings.Contains(string(own), "\t"+code+"\n") {
			t.Errorf("Example does not run the line %q", code)
		}
	}
}

// emptyArchive is a source archive of one file, for functions that have no source.
func emptyArchive() *bytes.Buffer {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	tw.WriteHeader(&tar.Header{Name: "README", Mode: 0o644})
	tw.Close()
	zw.Close()
	return &b
}
