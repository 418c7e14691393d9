package sandboxtest

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

func (s *suite) ends(t *testing.T) {
	s.test(t, "cancel", func(t *testing.T) { s.cancels(t, "/hang", "hanging") }, "hang")
	s.test(t, "cancel-loop", func(t *testing.T) { s.cancels(t, "/spin", "spinning") }, "spin")
	s.test(t, "canceled-before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		id := s.start(t)
		if _, err := s.Driver.Invoke(ctx, id, request("/hello"), discard{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the context's error", err)
		}
		s.get(t, id, "/hello") // nothing had to be killed
	})
	s.test(t, "timeout", s.timeout, "sleep")
	s.test(t, "timeout-met", func(t *testing.T) {
		r := request("/sleep?ms=50")
		r.Timeout = patience
		rec := s.call(t, s.start(t), r)
		if rec.status != 200 || rec.text() != "slept" || rec.result.TimedOut || rec.Logs(sandbox.Stdout) != "sleep start\nsleep end\n" {
			t.Errorf("status %d, body %q, %+v, logs %q", rec.status, rec.text(), rec.result, rec.Logs(sandbox.Stdout))
		}
	}, "sleep")
	s.test(t, "stop", s.stops, "hang")
	s.test(t, "concurrency", s.concurrency, "hang")
	s.test(t, "temporary-files", func(t *testing.T) {
		id := s.start(t)
		file := s.get(t, id, "/tmp").text()
		if err := s.Driver.Stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", file, err)
		}
	}, "tmp")
}

// cancels ends a call that would not end by itself. A neighbour in the same
// instance either goes on or gets ErrGone.
func (s *suite) cancels(t *testing.T, path, line string) {
	began := time.Now()
	id := s.start(t)
	busy := time.Since(began) // the longer, the more the machine has to do
	neighbour := s.calling(t.Context(), id, request("/hang"))
	neighbour.logged(t, "hanging")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := s.calling(ctx, id, request(path))
	r.logged(t, line)
	began = time.Now()
	cancel()
	r.wait(t)
	if took := time.Since(began); !errors.Is(r.err, context.Canceled) || took > 2*time.Second+4*busy {
		t.Errorf("%v after %v, want the context's error within 100 ms", r.err, took)
	}
	select {
	case <-neighbour.over:
		if !errors.Is(neighbour.err, sandbox.ErrGone) || neighbour.result.Unsent {
			t.Errorf("neighbour: %v, %+v, want ErrGone", neighbour.err, neighbour.result)
		}
		s.gone(t, id)
	default:
		// Either the call alone was ended, or the neighbour is about to be.
		if r.result.Retire {
			neighbour.wait(t)
		} else {
			s.get(t, id, "/hello")
		}
	}
}

// timeout gives a call that does not end in time the more, the longer a call takes to begin
// on the machine: a time that has passed before it began says nothing.
func (s *suite) timeout(t *testing.T) {
	r := request("/sleep?ms=15000")
	var rec *Recorder
	for r.Timeout = 300 * time.Millisecond; r.Timeout < 10*time.Second; r.Timeout *= 2 {
		if rec = s.call(t, s.start(t), r); rec.Logs(sandbox.Stdout) != "" {
			break
		}
	}
	out, errs := rec.Logs(sandbox.Stdout), rec.Logs(sandbox.Stderr)
	if rec.status != 500 || !rec.result.TimedOut || out != "sleep start\n" || !strings.Contains(errs, "Execution timed out.\n") || rec.text() != "" {
		t.Errorf("status %d, body %q, %+v, logs %q, errors %q", rec.status, rec.text(), rec.result, out, errs)
	}
}

// stops stops an instance under a running call.
func (s *suite) stops(t *testing.T) {
	id := s.start(t)
	r := s.calling(t.Context(), id, request("/hang"))
	r.logged(t, "hanging")
	for range 2 {
		if err := s.Driver.Stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	r.wait(t)
	if !errors.Is(r.err, sandbox.ErrGone) || r.result.Unsent {
		t.Errorf("%v, %+v, want ErrGone of a call that was sent", r.err, r.result)
	}
	s.gone(t, id)
	if err := s.Driver.Stop(t.Context(), "never-started"); err != nil {
		t.Errorf("stop of an unknown instance: %v", err)
	}
}

// concurrency fills an instance with calls that wait.
func (s *suite) concurrency(t *testing.T) {
	spec := s.spec()
	spec.Concurrency = 3
	id := s.startSpec(t, spec)
	for range spec.Concurrency {
		s.calling(t.Context(), id, request("/hang")).logged(t, "hanging")
	}
}
