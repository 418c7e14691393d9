package pluginbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/pluginbox"
)

// buildFlags are those of plugins: what the tests check they check in both processes.
var buildFlags []string

func TestMain(m *testing.M) {
	if how := os.Getenv(foreign); how != "" {
		serveForeign(how)
		return
	}
	os.Setenv("FNKIT_TEST_SECRET", "of the host alone")
	var dir string
	if built = os.Getenv(builtBefore); built == "" {
		var err error
		if dir, err = os.MkdirTemp("", "fnkit-plugin-"); err != nil {
			panic(err)
		}
		built = filepath.Join(dir, "plugin")
	}
	code := m.Run()
	os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var built string

// builtBefore in the environment names the plugin that another process built: one
// that is killed could not remove its own.
const builtBefore = "FNKIT_TEST_PLUGIN"

// build builds the plugin of testdata once.
var build = sync.OnceValue(func() error {
	if os.Getenv(builtBefore) != "" {
		return nil
	}
	args := append([]string{"build", "-o", built}, buildFlags...)
	out, err := exec.Command("go", append(args, "./testdata/plugin")...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return err
})

// program returns the plugin's path.
func program(t testing.TB) string {
	t.Helper()
	require.Command(t, "go")
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return built
}

const patience = time.Minute

// open opens a Box on the plugin of testdata. A data race there fails the test here.
func open(t testing.TB, cfg pluginbox.Config, args ...string) (*pluginbox.Box, *journal) {
	t.Helper()
	j := newJournal()
	cfg.Command, cfg.Logger = append([]string{program(t)}, args...), slog.New(j)
	box, err := pluginbox.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
		if text := j.String(); strings.Contains(text, "DATA RACE") {
			t.Error(text)
		}
	})
	return box, j
}

// journal is a slog.Handler that keeps everything.
type journal struct {
	slog.Handler
	text *lockedBuilder
}

type lockedBuilder struct {
	mu      sync.Mutex
	b       strings.Builder
	changed chan struct{}
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.b.Write(p)
}

func newJournal() *journal {
	text := &lockedBuilder{changed: make(chan struct{})}
	return &journal{slog.NewTextHandler(text, &slog.HandlerOptions{Level: slog.LevelDebug}), text}
}

func (j *journal) String() string {
	j.text.mu.Lock()
	defer j.text.mu.Unlock()
	return j.text.b.String()
}

// wait waits until all texts are in the journal.
func (j *journal) wait(t testing.TB, texts ...string) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for _, text := range texts {
		for {
			j.text.mu.Lock()
			changed, found := j.text.changed, strings.Contains(j.text.b.String(), text)
			j.text.mu.Unlock()
			if found {
				break
			}
			select {
			case <-changed:
			case <-timer.C:
				t.Fatalf("%q was not logged:\n%s", text, j)
			}
		}
	}
}

// answer is a sink that keeps a response.
type answer struct {
	status  int
	headers []sandbox.Header
	body    lockedBuilder
	logs    lockedBuilder
}

func newAnswer() *answer {
	return &answer{body: lockedBuilder{changed: make(chan struct{})}, logs: lockedBuilder{changed: make(chan struct{})}}
}

func (a *answer) Head(status int, h []sandbox.Header) error {
	a.status, a.headers = status, h
	return nil
}
func (a *answer) Write(p []byte) (int, error)        { return a.body.Write(p) }
func (a *answer) Log(_ sandbox.Stream, lines []byte) { a.logs.Write(lines) }

func (l *lockedBuilder) wait(t testing.TB, text string) {
	t.Helper()
	(&journal{text: l}).wait(t, text)
}

// start starts an instance of one of the plugin's Go functions.
func start(t testing.TB, box sandbox.Driver, id, function string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := box.Start(ctx, sandbox.Spec{ID: id, Runtime: fnbox.RuntimeID, Entrypoint: function}); err != nil {
		t.Fatal(err)
	}
}

func get(path string) sandbox.Request {
	return sandbox.Request{Method: "GET", Path: path, Logging: true}
}

// call makes a call that must be answered, and returns the body.
func call(t testing.TB, box sandbox.Driver, id, path string) string {
	t.Helper()
	a := newAnswer()
	res, err := box.Invoke(t.Context(), id, get(path), a)
	if err != nil || res != (sandbox.Result{}) || a.status/100 != 2 {
		t.Fatalf("%v, %+v, status %d, logs %q", err, res, a.status, a.logs.b.String())
	}
	return a.body.b.String()
}

// ending is a call that goes on in the background.
type ending struct {
	*answer
	res  sandbox.Result
	err  error
	over chan struct{}
}

// begin makes a call, and returns when the function has logged that it hangs.
func begin(t testing.TB, ctx context.Context, box sandbox.Driver, id string) *ending {
	t.Helper()
	e := &ending{answer: newAnswer(), over: make(chan struct{})}
	go func() {
		defer close(e.over)
		e.res, e.err = box.Invoke(ctx, id, get("/hang"), e.answer)
	}()
	e.logs.wait(t, "hanging")
	return e
}

// wait waits for the call's end, which must come in time.
func (e *ending) wait(t testing.TB, within time.Duration) {
	t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-e.over:
	case <-timer.C:
		t.Fatalf("the call has not ended after %s", within)
	}
}

func wantGone(t testing.TB, res sandbox.Result, err error, unsent bool) {
	t.Helper()
	if !errors.Is(err, sandbox.ErrGone) || res.Unsent != unsent {
		t.Errorf("%+v, %v, want ErrGone and Unsent %v", res, err, unsent)
	}
}
