package sandboxtest

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// limits has instances use more than they may of what the driver says it limits:
// the call fails, or takes longer, and nobody else notices.
func (s *suite) limits(t *testing.T) {
	for _, l := range []limit{
		{"memory", "/alloc?mib=16", "/alloc?mib=1024", "allocated", []string{"memory"}},
		{"pids", "/children?n=8", "/children?n=1000", "started", []string{"processes", "temporarily unavailable", "EAGAIN"}},
		{"disk", "/fill?mib=16", "/fill?mib=1024", "written", []string{"disk", "space left"}},
	} {
		path, _, _ := strings.Cut(l.within[1:], "?")
		s.test(t, l.name, func(t *testing.T) { s.exceeds(t, l) }, path)
	}
	s.test(t, "cpu", s.cpu, "burn")
}

// limit is one that makes a call fail.
type limit struct {
	name           string   // in the Capabilities
	within, beyond string   // paths: what an instance may do, and what it may not
	text           string   // the answer of both, if they can be done
	names          []string // what an error has one of: the limit's name, or the system's words
}

// exceeds makes a call that uses too much of something.
func (s *suite) exceeds(t *testing.T, l limit) {
	other, id := s.start(t), s.startSpec(t, s.small())
	if got := s.get(t, id, l.within).text(); got != l.text {
		t.Errorf("within the limit: %q", got)
	}
	s.enforced(t, l.name)
	r := s.calling(t.Context(), id, request(l.beyond))
	r.wait(t)
	if r.err != nil || r.text() == l.text || (r.result.Crash == "" && r.status != 500) {
		t.Errorf("beyond the limit: %v, %+v, status %d, body %q, want a crash or 500", r.err, r.result, r.status, r.text())
	}
	why := r.result.Crash + r.Logs(sandbox.Stderr)
	if !slices.ContainsFunc(l.names, func(name string) bool { return strings.Contains(why, name) }) {
		t.Errorf("beyond the limit: %q, want one of %q", why, l.names)
	}
	if r.result.Crash != "" {
		s.gone(t, id)
		id = s.startSpec(t, s.small())
	}
	for _, id := range []string{other, id} {
		if got := s.get(t, id, l.within).text(); got != l.text {
			t.Errorf("the next call: %q", got)
		}
	}
}

func (s *suite) small() sandbox.Spec {
	spec := s.spec()
	spec.Memory = 256 << 20
	return spec
}

// cpu has an instance use more of it than it gets at once: the call takes longer.
func (s *suite) cpu(t *testing.T) {
	const (
		share = 0.2
		used  = 300 * time.Millisecond
		least = 3 * used // less than the share says: what is not used for a moment may be used in the next
	)
	s.enforced(t, "cpu")
	other, spec := s.start(t), s.spec()
	spec.CPUs = share
	id := s.startSpec(t, spec)
	began := time.Now()
	r := s.calling(t.Context(), id, request("/burn?ms="+strconv.FormatInt(used.Milliseconds(), 10)))
	for range 3 {
		s.get(t, other, "/hello")
	}
	if r.wait(t); r.err != nil || r.text() != "burned" || time.Since(began) < least {
		t.Errorf("%v, %+v, body %q: used %v of %v of the CPU in %v, want at least %v", r.err, r.result, r.text(), used, share, time.Since(began), least)
	}
	s.get(t, id, "/hello")
}

// enforced ends the test if the driver does not enforce a limit.
func (s *suite) enforced(t *testing.T, limit string) {
	t.Helper()
	c, err := s.Driver.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(c.Limits, limit) {
		return
	}
	if s.Missing != nil {
		s.Missing(t, limit, strings.Join(c.Notes, "; "))
	}
	t.Skipf("the driver does not limit %s", limit)
}
