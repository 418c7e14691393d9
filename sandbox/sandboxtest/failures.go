package sandboxtest

import (
	"context"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/sandbox"
)

func (s *suite) failures(t *testing.T) {
	ext := path.Ext(s.Entrypoint)
	for _, c := range []struct{ file, want string }{
		{"missing" + ext, "Failed to load entrypoint, file missing" + ext + " does not exist."},
		{"syntax" + ext, "Syntax error in syntax" + ext},
		{"nomain" + ext, "Function signature invalid. Did you forget to export a 'main' function?"},
		{"raises" + ext, "raised at load"},
	} {
		s.test(t, "load-"+strings.TrimSuffix(c.file, ext), func(t *testing.T) { s.unloadable(t, c.file, c.want) }, "load")
	}
	s.test(t, "load-exits", func(t *testing.T) { s.exitsAtLoad(t, "exits"+ext) }, "load")
	s.test(t, "exit", s.exits)
	s.test(t, "garbage", s.garbage)
	s.test(t, "large-head", func(t *testing.T) {
		id := s.start(t)
		_, err := s.Driver.Invoke(t.Context(), id, request("/"+strings.Repeat("x", 70000)), discard{})
		if !errors.Is(err, sandbox.ErrTooLarge) {
			t.Errorf("a path of 70000 bytes: %v, want ErrTooLarge", err)
		}
		s.get(t, id, "/hello")
	})
}

// unloadable starts code that cannot be loaded: every call says why.
func (s *suite) unloadable(t *testing.T, file, want string) {
	spec := s.spec()
	spec.Entrypoint = file
	id := s.startSpec(t, spec)
	for range 2 {
		r := s.get(t, id, "/hello")
		if r.status != 503 || r.text() != "" || !strings.Contains(r.Logs(sandbox.Stderr), want) {
			t.Errorf("status %d, body %q, errors %q, want %q", r.status, r.text(), r.Logs(sandbox.Stderr), want)
		}
	}
}

// exitsAtLoad starts code that ends its process while it is loaded: a fault of
// the code, and nothing is left.
func (s *suite) exitsAtLoad(t *testing.T, file string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	spec := s.spec()
	spec.Entrypoint = file
	_, err := s.Driver.Start(ctx, spec)
	var load *sandbox.LoadError
	if !errors.As(err, &load) || !strings.Contains(load.Reason, "exit status 3") || !strings.Contains(load.Reason, "ended while it was loaded") {
		t.Errorf("%v, want a LoadError that says how", err)
	}
	s.gone(t, spec.ID)
}

// exits has user code end its process: either the whole instance is gone, or
// its runtime answers for the process it lost.
func (s *suite) exits(t *testing.T) {
	id := s.start(t)
	r := s.calling(t.Context(), id, request("/exit"))
	r.wait(t)
	if !strings.Contains(r.Logs(sandbox.Stdout), "exiting\n") {
		t.Errorf("logs %q", r.Logs(sandbox.Stdout))
	}
	if r.err != nil || (!strings.HasPrefix(r.result.Crash, "exit status 3") && (r.status != 500 || r.Logs(sandbox.Stderr) == "")) {
		t.Fatalf("%v, %+v, status %d, errors %q", r.err, r.result, r.status, r.Logs(sandbox.Stderr))
	}
	if r.result.Crash == "" {
		s.get(t, id, "/hello")
		return
	}
	s.gone(t, id)
}

// gone checks that an instance does not exist.
func (s *suite) gone(t *testing.T, id string) {
	t.Helper()
	res, err := s.Driver.Invoke(t.Context(), id, request("/hello"), discard{})
	if !errors.Is(err, sandbox.ErrGone) || !res.Unsent {
		t.Errorf("call of an instance that is gone: %+v, %v, want Unsent and ErrGone", res, err)
	}
	all, err := s.Driver.List(t.Context())
	if err != nil {
		t.Error(err)
	}
	for _, i := range all {
		if i.ID == id {
			t.Errorf("instance %s is gone and listed", id)
		}
	}
}

// garbage has user code write nonsense where only the runtime may write.
func (s *suite) garbage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience/2)
	defer cancel()
	id := s.start(t)
	r := s.calling(ctx, id, request("/garbage"))
	r.wait(t)
	if errors.Is(r.err, context.DeadlineExceeded) || (r.result.Crash == "" && r.text() != "no") {
		t.Errorf("%v, %+v, body %q, want a crash", r.err, r.result, r.text())
	}
	s.get(t, s.start(t), "/hello") // the driver is unharmed
}
