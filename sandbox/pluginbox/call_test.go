package pluginbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/pluginbox"
)

func command(t testing.TB, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(t.Context(), name, args...)
}

func decode[V any](t testing.TB, text string) (v V) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

// TestErrors: what an error is it is on the other side, too.
func TestErrors(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	known := []error{sandbox.ErrGone, sandbox.ErrRuntime, sandbox.ErrTooLarge, sandbox.ErrNetwork, context.Canceled, context.DeadlineExceeded}
	for name, want := range map[string][]error{
		"gone": {sandbox.ErrGone}, "runtime": {sandbox.ErrRuntime}, "too-large": {sandbox.ErrTooLarge}, "network": {sandbox.ErrNetwork}, "load": nil,
		"canceled": {context.Canceled}, "deadline": {context.DeadlineExceeded}, "both": {sandbox.ErrGone, sandbox.ErrTooLarge}, "other": nil,
	} {
		check := func(act string, err error) {
			t.Helper()
			if err == nil || !strings.HasPrefix(err.Error(), "probe: ") {
				t.Errorf("%s of %s: text %q, want the driver's", act, name, err)
				return
			}
			var is []error
			for _, k := range known {
				if errors.Is(err, k) {
					is = append(is, k)
				}
			}
			if !reflect.DeepEqual(is, want) {
				t.Errorf("%s of %s: %v, want %v", act, name, is, want)
			}
			var load *sandbox.LoadError
			if errors.As(err, &load) != (name == "load") || name == "load" && load.Reason != "exit status 9: bad \xff" {
				t.Errorf("%s of %s: %+v", act, name, load)
			}
		}
		_, err := box.Start(t.Context(), sandbox.Spec{ID: "i", Runtime: name})
		check("start", err)
		res, err := box.Invoke(t.Context(), name, get("/"), newAnswer())
		check("invoke", err)
		if want := (sandbox.Result{Unsent: true, Retire: true, TimedOut: true, Crash: "crash", Aborted: "aborted"}); res != want {
			t.Errorf("%s: %+v, want %+v", name, res, want)
		}
	}
}

// TestBytes: texts from outside need not be UTF-8.
func TestBytes(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	start(t, box, "i1", "faults")
	r := get("/headers?\xff")
	r.Headers = []sandbox.Header{{Name: "x-bad", Value: "\xff\x00\r\n"}}
	a := newAnswer()
	if _, err := box.Invoke(t.Context(), "i1", r, a); err != nil {
		t.Fatal(err)
	}
	for _, h := range a.headers {
		if h.Name == "x-given" && h.Value == r.Headers[0].Value {
			return
		}
	}
	t.Errorf("headers %q", a.headers)
}

func TestSizes(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	begin := func(id string, size int) error {
		_, err := box.Start(t.Context(), sandbox.Spec{
			ID: id, Runtime: fnbox.RuntimeID, Entrypoint: "faults", Env: map[string]string{"LARGE": strings.Repeat("x", size)},
		})
		return err
	}
	if err := begin("large", 4<<20); err != nil {
		t.Errorf("an environment of 4 MiB: %v", err)
	}
	if err := begin("too-large", 9<<20); err == nil || errors.Is(err, sandbox.ErrGone) {
		t.Errorf("an environment of 9 MiB: %v, want an error that names it", err)
	}
	r := get("/headers")
	r.Headers = []sandbox.Header{{Name: "x-large", Value: strings.Repeat("x", 900<<10)}}
	a := newAnswer()
	if _, err := box.Invoke(t.Context(), "large", r, a); err != nil || a.status != 204 {
		t.Errorf("headers of 900 KiB: %v, status %d", err, a.status)
	}
	r.Headers[0].Value = strings.Repeat("x", 1<<20)
	if _, err := box.Invoke(t.Context(), "large", r, newAnswer()); !errors.Is(err, sandbox.ErrTooLarge) {
		t.Errorf("headers of 1 MiB: %v, want ErrTooLarge", err)
	}
	call(t, box, "large", "/pid")
}

// endless is a body that counts what was read of it.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.read.Add(int64(len(p)))
	return len(p), nil
}

// TestUploadIsHeldBack: of a body that the driver does not read, the host reads a
// window.
func TestUploadIsHeldBack(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	start(t, box, "i1", "faults")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var body endless
	e := &ending{answer: newAnswer(), over: make(chan struct{})}
	go func() {
		defer close(e.over)
		r := get("/")
		r.Body = &body
		e.res, e.err = box.Invoke(ctx, "unread", r, e.answer)
	}()
	e.logs.wait(t, "hanging")
	for deadline := time.Now().Add(patience); body.read.Load() < 256<<10; {
		call(t, box, "i1", "/pid")
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes were read", body.read.Load())
		}
	}
	for range 100 {
		call(t, box, "i1", "/pid")
	}
	if n := body.read.Load(); n > 256<<10 {
		t.Errorf("%d bytes were read", n)
	}
	cancel()
	if e.wait(t, patience); !errors.Is(e.err, context.Canceled) {
		t.Errorf("%v, want the context's error", e.err)
	}
}

// stuck is a sink whose Write waits. Its logs come nevertheless.
type stuck struct {
	*answer
	reached chan struct{}
	release chan struct{}
	once    sync.Once
}

func (s *stuck) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.reached) })
	<-s.release
	return len(p), nil
}

// TestDownloadIsHeldBack: of a response that nobody takes, the function can give
// a bounded part.
func TestDownloadIsHeldBack(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	start(t, box, "i1", "faults")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &stuck{answer: newAnswer(), reached: make(chan struct{}), release: make(chan struct{})}
	over := make(chan error, 1)
	go func() {
		_, err := box.Invoke(ctx, "i1", get("/flood"), s)
		over <- err
	}()
	<-s.reached
	last, same := -1, 0
	for same < 50 {
		n := decode[int](t, call(t, box, "i1", "/flooded"))
		if same++; n != last {
			last, same = n, 0
		}
		if n > 8 {
			t.Fatalf("%d pieces of 64 KiB were taken", n)
		}
	}
	cancel()
	close(s.release)
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
}

// TestLateReader: who takes a large response late gets all of it, and until then the
// plugin sends a window.
func TestLateReader(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	start(t, box, "i1", "fixture")
	s := &late{stuck: stuck{answer: newAnswer(), reached: make(chan struct{}), release: make(chan struct{})}}
	over := make(chan error, 1)
	go func() {
		_, err := box.Invoke(t.Context(), "i1", get("/big?mib=4"), s)
		over <- err
	}()
	<-s.reached
	for range 50 {
		call(t, box, "i1", "/hello")
	}
	close(s.release)
	if err := <-over; err != nil || s.taken != 4<<20 {
		t.Errorf("%v after %d bytes", err, s.taken)
	}
}

type late struct {
	stuck
	taken int
}

func (l *late) Write(p []byte) (int, error) {
	l.taken += len(p)
	return l.stuck.Write(p)
}

type failing struct{ *answer }

var errAway = errors.New("the client went away")

func (failing) Flush() error { return errAway }

// TestSinkFails: a driver that does not look is cancelled.
func TestSinkFails(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	if _, err := box.Invoke(t.Context(), "deaf", get("/"), failing{newAnswer()}); err != errAway {
		t.Errorf("%v, want the sink's error", err)
	}
}

// TestStubbornDriver: a call is over soon after its context, whatever the driver does.
func TestStubbornDriver(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e := &ending{answer: newAnswer(), over: make(chan struct{})}
	go func() {
		defer close(e.over)
		e.res, e.err = box.Invoke(ctx, "stubborn", get("/"), e.answer)
	}()
	e.logs.wait(t, "hanging")
	began := time.Now()
	cancel()
	if e.wait(t, patience); !errors.Is(e.err, context.Canceled) || !e.res.Retire {
		t.Errorf("%+v, %v after %s, want the context's error, and Retire", e.res, e.err, time.Since(began))
	}
}

// TestBodyFails: the host's error comes back, not what the plugin was told of it.
func TestBodyFails(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{})
	start(t, box, "i1", "fixture")
	r := get("/echo")
	r.Body = io.MultiReader(bytes.NewReader(make([]byte, 500<<10)), readFails{})
	if _, err := box.Invoke(t.Context(), "i1", r, newAnswer()); err != errAway {
		t.Errorf("%v, want the body's error", err)
	}
}

type readFails struct{}

func (readFails) Read([]byte) (int, error) { return 0, errAway }
