package sandboxtest

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// Recorder is a sandbox.Sink that keeps everything.
type Recorder struct {
	mu      sync.Mutex
	status  int
	headers []sandbox.Header
	body    bytes.Buffer
	logs    map[sandbox.Stream]*bytes.Buffer
	changed chan struct{} // closed and replaced when something came

	result sandbox.Result
	err    error
	over   chan struct{} // closed when Invoke has returned
}

func newRecorder() *Recorder {
	return &Recorder{
		changed: make(chan struct{}), over: make(chan struct{}),
		logs: map[sandbox.Stream]*bytes.Buffer{sandbox.Stdout: {}, sandbox.Stderr: {}},
	}
}

// Head implements sandbox.Sink.
func (r *Recorder) Head(status int, h []sandbox.Header) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.headers = status, h
	r.wake()
	return nil
}

// Write implements sandbox.Sink.
func (r *Recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.wake()
	return r.body.Write(p)
}

// Log implements sandbox.Sink.
func (r *Recorder) Log(stream sandbox.Stream, lines []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs[stream].Write(lines)
	r.wake()
}

func (r *Recorder) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Logs returns what was logged to a stream so far.
func (r *Recorder) Logs(stream sandbox.Stream) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logs[stream].String()
}

func (r *Recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.String()
}

// header returns all values of a name, joined.
func (r *Recorder) header(name string) string {
	var values []string
	for _, h := range r.headers {
		if h.Name == name {
			values = append(values, h.Value)
		}
	}
	return strings.Join(values, "|")
}

// json decodes the body.
func (r *Recorder) json(t testing.TB) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(r.text()), &v); err != nil {
		t.Fatalf("body %q: %v", r.text(), err)
	}
	return v
}

// wait waits for the end of the call.
func (r *Recorder) wait(t testing.TB) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-r.over:
	case <-timer.C:
		r.mu.Lock()
		status := r.status
		r.mu.Unlock()
		t.Fatalf("the call does not end; status %d, logs %.2000q %.2000q", status, r.Logs(sandbox.Stdout), r.Logs(sandbox.Stderr))
	}
}

// until waits for a condition while the call runs.
func (r *Recorder) until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-r.over:
			if cond() {
				return
			}
			t.Fatalf("no %s: the call ended with %v, %+v; logs %q %q", what, r.err, r.result, r.Logs(sandbox.Stdout), r.Logs(sandbox.Stderr))
		case <-timer.C:
			t.Fatalf("no %s in time", what)
		}
	}
}

// logged waits for a line on standard output.
func (r *Recorder) logged(t testing.TB, line string) {
	t.Helper()
	r.until(t, "log "+line, func() bool { return strings.Contains(r.Logs(sandbox.Stdout), line+"\n") })
}

// discard is a sink that keeps nothing.
type discard struct{}

func (discard) Head(int, []sandbox.Header) error { return nil }
func (discard) Write(p []byte) (int, error)      { return len(p), nil }
func (discard) Log(sandbox.Stream, []byte)       {}
