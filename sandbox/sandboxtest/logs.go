package sandboxtest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/sandbox"
)

func (s *suite) logs(t *testing.T) {
	id := s.start(t)
	s.test(t, "log", func(t *testing.T) {
		r := s.get(t, id, "/log")
		if out, errs := r.Logs(sandbox.Stdout), r.Logs(sandbox.Stderr); out != "one two\n" || errs != "three\n" {
			t.Errorf("logs %q, errors %q", out, errs)
		}
	})
	s.test(t, "log-off", func(t *testing.T) {
		r := request("/log")
		r.Logging = false
		rec := s.call(t, id, r)
		if rec.text() != "logged" || rec.Logs(sandbox.Stdout)+rec.Logs(sandbox.Stderr) != "" {
			t.Errorf("logs %q, errors %q, body %q", rec.Logs(sandbox.Stdout), rec.Logs(sandbox.Stderr), rec.text())
		}
	})
	s.test(t, "many", func(t *testing.T) {
		var want strings.Builder
		for i := range 3000 {
			want.WriteString("line " + strconv.Itoa(i) + "\n")
		}
		if got := s.get(t, id, "/logs?n=3000").Logs(sandbox.Stdout); got != want.String() {
			t.Errorf("%d bytes of logs, want %d", len(got), want.Len())
		}
	}, "logs")
	s.test(t, "flood", func(t *testing.T) {
		if r := s.get(t, id, "/logs?n=100000"); r.text() != "logged" {
			t.Errorf("body %q", r.text())
		}
	}, "logs")
	s.test(t, "longlog", func(t *testing.T) {
		want := strings.Repeat("x", 8000) + "... Log truncated due to size limit (8000 characters)\n"
		if got := s.get(t, id, "/longlog").Logs(sandbox.Stdout); got != want {
			t.Errorf("%d bytes that end in %q", len(got), got[max(0, len(got)-80):])
		}
	})
	s.test(t, "native", func(t *testing.T) {
		got := s.get(t, id, "/native").Logs(sandbox.Stdout)
		if !strings.HasPrefix(got, "Native logs detected. Use ") || !strings.HasSuffix(got, "\nnative out\n") || strings.Count(got, "\n") != 2 {
			t.Errorf("logs %q", got)
		}
	})
	s.test(t, "throw-logs", func(t *testing.T) {
		r := s.get(t, id, "/throw")
		if r.Logs(sandbox.Stdout) != "before throw\n" || !strings.Contains(r.Logs(sandbox.Stderr), s.Entrypoint) {
			t.Errorf("logs %q, errors %q: what was logged before is kept, and errors name the file", r.Logs(sandbox.Stdout), r.Logs(sandbox.Stderr))
		}
	}, "throw")
	s.test(t, "live", func(t *testing.T) {
		rec := s.calling(t.Context(), s.start(t), request("/hang"))
		rec.logged(t, "hanging") // the call is not over
	}, "hang")
}
