package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// pressure is about many calls, and about those who are slow.
func (s *suite) pressure(t *testing.T) {
	s.test(t, "held-back", s.heldBack, "endless", "given")
	s.test(t, "live-body", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := s.calling(ctx, s.start(t), request("/waits"))
		r.until(t, "piece", func() bool { return r.text() == "piece\n" }) // the call is not over
		cancel()
		if r.wait(t); !errors.Is(r.err, context.Canceled) {
			t.Errorf("%v, want the context's error", r.err)
		}
	}, "waits")
	s.test(t, "flush", s.flushes, "waits")
	s.test(t, "unread-body", s.unreadBody, "hang")
	s.test(t, "cancel-many", s.cancelMany, "hang", "cancel")
	s.test(t, "calls-at-once", s.callsAtOnce, "logs")
}

// heldBack checks that a function can give only so much that nobody takes.
func (s *suite) heldBack(t *testing.T) {
	const most = 1024 // pieces of 64 KiB
	id, key := s.start(t), newID("key")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slow, r := stuck{reached: make(chan struct{}), release: make(chan struct{})}, newRecorder()
	s.begin(ctx, id, request("/endless?key="+key), slow, r)
	<-slow.reached
	last, same := "", 0
	for deadline := time.Now().Add(patience); same < 50; same++ {
		given := s.get(t, id, "/given?key="+key).text()
		if given != last {
			last, same = given, 0
		}
		if n, err := strconv.Atoi(given); err != nil || n > most || time.Now().After(deadline) {
			t.Fatalf("%q pieces were given, %v, and nobody takes them", given, err)
		}
	}
	cancel()
	close(slow.release)
	r.wait(t)
}

// buffered is a sink that shows what it has only when it is flushed.
type buffered struct {
	*Recorder
	mu   sync.Mutex
	held bytes.Buffer
}

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held.Write(p)
}

func (b *buffered) Flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.held.WriteTo(b.Recorder)
	return err
}

// flushes checks that a sink hears when there is nothing more for now.
func (s *suite) flushes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := newRecorder()
	s.begin(ctx, s.start(t), request("/waits"), &buffered{Recorder: r}, r)
	r.until(t, "piece", func() bool { return r.text() == "piece\n" })
	cancel()
	r.wait(t)
}

// unreadBody ends a call whose request's body never ends.
func (s *suite) unreadBody(t *testing.T) {
	id := s.start(t)
	body, never := io.Pipe()
	defer never.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := s.calling(ctx, id, post("/hang", "text/plain", body))
	if _, err := never.Write([]byte("begun")); err != nil { // until that is read
		t.Fatal(err)
	}
	cancel()
	if r.wait(t); !errors.Is(r.err, context.Canceled) {
		t.Errorf("%v, want the context's error", r.err)
	}
}

// cancelMany ends all calls of an instance at once.
func (s *suite) cancelMany(t *testing.T) {
	spec := s.spec()
	spec.Concurrency = 4
	id := s.startSpec(t, spec)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls []*Recorder
	for range spec.Concurrency {
		r := s.calling(ctx, id, request("/hang"))
		r.logged(t, "hanging")
		calls = append(calls, r)
	}
	cancel()
	for _, r := range calls {
		if r.wait(t); !errors.Is(r.err, context.Canceled) {
			t.Errorf("%v, want the context's error", r.err)
		}
	}
}

// callsAtOnce makes many calls of one instance at once: answers and logs are each
// call's own.
func (s *suite) callsAtOnce(t *testing.T) {
	spec := s.spec()
	spec.Concurrency = 4
	id := s.startSpec(t, spec)
	var callers sync.WaitGroup
	for c := range spec.Concurrency {
		callers.Go(func() {
			for i := range 10 {
				n := 10*c + i
				logs := s.calling(t.Context(), id, request("/logs?n="+strconv.Itoa(n)))
				if logs.wait(t); logs.err != nil || strings.Count(logs.Logs(sandbox.Stdout), "\n") != n {
					t.Errorf("%v, logs %q, want %d lines", logs.err, logs.Logs(sandbox.Stdout), n)
				}
				sent := strings.Repeat(strconv.Itoa(c), 1000*i)
				echo := s.calling(t.Context(), id, post("/echo", "text/plain", strings.NewReader(sent)))
				if echo.wait(t); echo.err != nil || echo.text() != sent {
					t.Errorf("%v, %d bytes of %d came back", echo.err, len(echo.text()), len(sent))
				}
			}
		})
	}
	callers.Wait()
}
