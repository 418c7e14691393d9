package sandboxtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// Target is a driver and a function for it. Run may be called for several
// targets of one driver. Closing the driver is the caller's, in a t.Cleanup.
type Target struct {
	Driver     sandbox.Driver
	Runtime    string
	Source     string // directory with the function; it is copied; empty: the driver needs none
	Entrypoint string
	Lacks      []string // what the function or the driver has not: paths and names of subtests
	// Missing is called where the driver does not enforce a limit, one of those of
	// sandbox.Capabilities, with its notes; the test is then skipped, if Missing has not
	// failed it. nil: it is skipped.
	Missing func(t testing.TB, limit, why string)
	// Open opens another driver of the kind, on a state of its own, for tests that
	// close it or count what it leaves; nil: they are skipped. Closing it once more is the
	// caller's, in a t.Cleanup.
	Open func(t testing.TB) Other
}

// Other is a driver that a Target has opened.
type Other struct {
	Driver sandbox.Driver
	// Left lists what the driver has on the machine right now: processes, files,
	// mounts, descriptors, one a line, with names that are the same each time. What it has for as
	// long as it is open may be among it.
	Left func(t testing.TB) []string
	// Kill kills the process that owns the driver's instances, as kill -9 does, and
	// returns what is to go on: the same driver, or another on the same state. nil: this
	// process owns them.
	Kill func(t testing.TB) sandbox.Driver
}

// Run runs the suite.
func Run(t *testing.T, target Target) {
	s := newSuite(t, target)
	t.Run("capabilities", s.capabilities)
	t.Run("answers", s.answers)
	t.Run("logs", s.logs)
	t.Run("failures", s.failures)
	t.Run("ends", s.ends)
	t.Run("bodies", s.bodies)
	t.Run("instances", s.instances)
	t.Run("limits", s.limits)
	t.Run("builds", s.builds)
	t.Run("pressure", s.pressure)
	t.Run("leftovers", s.leftovers)
}

// Benchmark measures warm calls of "/hello", by calls in flight.
func Benchmark(b *testing.B, target Target) {
	s := newSuite(b, target)
	for _, c := range []int{1, 8, 64} {
		b.Run("c="+strconv.Itoa(c), func(b *testing.B) {
			id := s.start(b)
			s.get(b, id, "/hello")
			b.ReportAllocs()
			b.ResetTimer()
			s.spread(b, id, c)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

// spread makes b.N calls from c goroutines.
func (s *suite) spread(b *testing.B, id string, c int) {
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error, c)
	for range c {
		go func() {
			var err error
			for err == nil && left.Add(-1) >= 0 {
				err = s.hello(id)
			}
			done <- err
		}()
	}
	for range c {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// hello makes a call and checks that it was answered: what fails fast must not
// count as fast.
func (s *suite) hello(id string) error {
	var to status
	r, err := s.Driver.Invoke(context.Background(), id, request("/hello"), &to)
	if err == nil && (to != 200 || r != sandbox.Result{}) {
		err = fmt.Errorf("status %d, %+v", to, r)
	}
	return err
}

// status is a sandbox.Sink that keeps the status.
type status int

func (s *status) Head(code int, _ []sandbox.Header) error { *s = status(code); return nil }
func (s *status) Write(p []byte) (int, error)             { return len(p), nil }
func (s *status) Log(sandbox.Stream, []byte)              {}

// patience is how long a test waits for what must happen.
const patience = time.Minute

// suite is a target that was built.
type suite struct {
	Target
	dir   string   // the artefact
	slots sync.Map // instance → chan struct{}: a place for each call that it serves at once
}

var environment = map[string]string{"FIXTURE": "välue", "EMPTY": ""}

func newSuite(t testing.TB, target Target) *suite {
	t.Helper()
	s := &suite{Target: target}
	s.dir = s.copy(t)
	var logs strings.Builder
	r, err := s.Driver.Build(t.Context(), s.buildSpec(s.dir, ""), &logs)
	if err != nil || r.Failure != "" {
		t.Fatalf("build: %+v, %v\n%s", r, err, logs.String())
	}
	return s
}

// copy returns a fresh copy of the source.
func (s *suite) copy(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if s.Source != "" {
		if err := os.CopyFS(dir, os.DirFS(s.Source)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var serial atomic.Int64

func newID(kind string) string { return kind + "-" + strconv.FormatInt(serial.Add(1), 10) }

func (s *suite) buildSpec(dir, commands string) sandbox.BuildSpec {
	return sandbox.BuildSpec{
		ID: newID("build"), Runtime: s.Runtime, Dir: dir, Entrypoint: s.Entrypoint, Commands: commands,
		Env: environment, CPUs: 2, Memory: 512 << 20,
	}
}

func (s *suite) spec() sandbox.Spec {
	return sandbox.Spec{
		ID: newID("instance"), Project: "shop", Function: "fixture", Deployment: "d1", Runtime: s.Runtime,
		Dir: s.dir, Entrypoint: s.Entrypoint, Env: environment, CPUs: 2, Memory: 512 << 20,
	}
}

// start starts an instance, which is stopped when the test ends.
func (s *suite) start(t testing.TB) string {
	t.Helper()
	return s.startSpec(t, s.spec())
}

func (s *suite) startSpec(t testing.TB, spec sandbox.Spec) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	i, err := s.Driver.Start(ctx, spec)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	if i.ID != spec.ID || i.Project != spec.Project || i.Function != spec.Function || i.Deployment != spec.Deployment || i.Concurrency < 1 {
		t.Errorf("started %+v for %+v", i, spec)
	}
	s.slots.Store(spec.ID, make(chan struct{}, max(1, i.Concurrency)))
	t.Cleanup(func() {
		if err := s.Driver.Stop(context.Background(), spec.ID); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return spec.ID
}

// has skips the test if the target lacks one of the names.
func (s *suite) has(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		if slices.Contains(s.Lacks, n) {
			t.Skipf("%s has no %s", s.Runtime, n)
		}
	}
}

// test runs a subtest in parallel, unless the target lacks one of the names.
func (s *suite) test(t *testing.T, name string, f func(t *testing.T), needs ...string) {
	t.Run(name, func(t *testing.T) {
		s.has(t, append(needs, name)...)
		t.Parallel()
		f(t)
	})
}

func request(path string) sandbox.Request {
	return sandbox.Request{Method: "GET", Path: path, Logging: true}
}

func post(path, contentType string, body io.Reader) sandbox.Request {
	r := request(path)
	r.Method, r.Body = "POST", body
	r.Headers = []sandbox.Header{{Name: "content-type", Value: contentType}}
	return r
}

// call makes a call that must end by itself.
func (s *suite) call(t testing.TB, id string, r sandbox.Request) *Recorder {
	t.Helper()
	rec := s.calling(t.Context(), id, r)
	rec.wait(t)
	if rec.err != nil || rec.result.Crash != "" || rec.result.Aborted != "" {
		t.Fatalf("%s: %v, %+v; logs %q %q", r.Path, rec.err, rec.result, rec.Logs(sandbox.Stdout), rec.Logs(sandbox.Stderr))
	}
	return rec
}

func (s *suite) get(t testing.TB, id, path string) *Recorder {
	t.Helper()
	return s.call(t, id, request(path))
}

// calling begins a call.
func (s *suite) calling(ctx context.Context, id string, r sandbox.Request) *Recorder {
	rec := newRecorder()
	s.begin(ctx, id, r, rec, rec)
	return rec
}

// begin begins a call whose response goes to a sink; how it ends goes to rec.
func (s *suite) begin(ctx context.Context, id string, r sandbox.Request, to sandbox.Sink, rec *Recorder) {
	go func() {
		if slots, ok := s.slots.Load(id); ok {
			select {
			case slots.(chan struct{}) <- struct{}{}:
				defer func() { <-slots.(chan struct{}) }()
			case <-ctx.Done():
			}
		}
		rec.result, rec.err = s.Driver.Invoke(ctx, id, r, to)
		close(rec.over)
	}()
}
