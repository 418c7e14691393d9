package sandboxtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// leftovers is about what remains when something has ended, and needs Target.Open.
func (s *suite) leftovers(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, o *suite, other Other){"leaks": s.leaks, "close": s.closes, "restart": s.restarts} {
		s.test(t, name, func(t *testing.T) {
			if s.Open == nil {
				t.Skip("the target opens no other driver")
			}
			other := s.Open(t)
			if other.Left == nil {
				other.Left = func(testing.TB) []string { return nil }
			}
			target := s.Target
			target.Driver = other.Driver
			f(t, &suite{Target: target, dir: s.dir}, other)
		})
	}
}

// leaks does all that leaves something, and checks that the driver has no more
// than before. What it opens once, for good, is no leak: that would grow each time.
func (s *suite) leaks(t *testing.T, o *suite, other Other) {
	o.round(t)
	var more []string
	for range 3 {
		before := other.Left(t)
		for range 2 {
			o.round(t)
		}
		if more = moreThan(t, other, before); len(more) == 0 {
			return
		}
	}
	t.Errorf("left are %q, more each time", more)
}

// round makes instances and builds, and ends them in all ways.
func (s *suite) round(t *testing.T) {
	id := s.start(t)
	s.get(t, id, "/hello")
	if !s.lacks("hang", "cancel") {
		ctx, cancel := context.WithCancel(t.Context())
		r := s.calling(ctx, id, request("/hang"))
		r.logged(t, "hanging")
		cancel()
		r.wait(t)
	}
	if !s.lacks("endless") {
		second, r := s.start(t), newRecorder()
		s.begin(t.Context(), second, request("/endless"), failing{discard{}, nil, errSink}, r)
		r.wait(t)
		s.stop(t, second)
	}
	s.stop(t, id)
	if !s.lacks("exit") {
		dead := s.start(t)
		s.calling(t.Context(), dead, request("/exit")).wait(t)
		s.stop(t, dead)
	}
	if !s.lacks("commands") {
		r, err := s.Driver.Build(t.Context(), s.buildSpec(s.copy(t), "sleep 1000 & exit 7"), newLines())
		if err != nil || r.Failure == "" {
			t.Errorf("%+v, %v, want a failure", r, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Driver.Start(canceled, s.spec()); !errors.Is(err, context.Canceled) {
		t.Errorf("start: %v, want the context's error", err)
	}
}

func (s *suite) lacks(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(s.Lacks, n) })
}

func (s *suite) stop(t *testing.T, id string) {
	t.Helper()
	if err := s.Driver.Stop(t.Context(), id); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// noMore waits until a driver has nothing on the machine that is not in a list.
func noMore(t *testing.T, other Other, than []string) {
	t.Helper()
	if more := moreThan(t, other, than); len(more) > 0 {
		t.Fatalf("left are %q", more)
	}
}

// moreThan returns what a driver still has after a while that is not in a list.
func moreThan(t *testing.T, other Other, list []string) (more []string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience / 4); ; <-tick.C {
		more = slices.DeleteFunc(other.Left(t), func(line string) bool { return slices.Contains(list, line) })
		if len(more) == 0 || time.Now().After(deadline) {
			return more
		}
	}
}

// closes closes a driver under a running call: all ends, and nothing is left.
func (s *suite) closes(t *testing.T, o *suite, other Other) {
	spec := s.spec()
	if _, err := other.Driver.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	var r *Recorder
	if !s.lacks("hang") {
		r = o.calling(t.Context(), spec.ID, request("/hang"))
		r.logged(t, "hanging")
	}
	for range 2 {
		if err := other.Driver.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if r != nil {
		if r.wait(t); !errors.Is(r.err, sandbox.ErrGone) {
			t.Errorf("%v, want ErrGone", r.err)
		}
	}
	if _, err := other.Driver.Invoke(t.Context(), spec.ID, request("/hello"), discard{}); !errors.Is(err, sandbox.ErrGone) {
		t.Errorf("call of a closed driver: %v, want ErrGone", err)
	}
	if _, err := other.Driver.Start(t.Context(), s.spec()); err == nil {
		t.Error("a closed driver starts an instance")
	}
	noMore(t, other, nil)
}

// restarts kills the owner of instances: the calls are over, and the next owner
// knows none of the instances, ends what is left of them, and goes on.
func (s *suite) restarts(t *testing.T, o *suite, other Other) {
	if other.Kill == nil {
		t.Skip("this process owns the instances")
	}
	before := other.Left(t)
	spec := s.spec()
	if _, err := other.Driver.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if !s.lacks("child") {
		o.get(t, spec.ID, "/child")
	}
	r := o.calling(t.Context(), spec.ID, request("/hang"))
	r.logged(t, "hanging")
	o.Driver = other.Kill(t)
	if r.wait(t); !errors.Is(r.err, sandbox.ErrGone) || r.result.Unsent {
		t.Errorf("%v, %+v, want ErrGone of a call that was sent", r.err, r.result)
	}
	o.stop(t, spec.ID)
	o.gone(t, spec.ID)
	noMore(t, other, before)
	o.get(t, o.startSpec(t, spec), "/hello")
}
