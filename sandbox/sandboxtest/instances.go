package sandboxtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/sandbox"
)

func (s *suite) capabilities(t *testing.T) {
	c, err := s.Driver.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := func(r sandbox.Runtime) bool { return r.ID == s.Runtime && r.Key != "" && r.Concurrency > 0 }
	for _, limit := range c.Limits {
		if !slices.Contains([]string{"memory", "cpu", "pids", "disk", "wall"}, limit) {
			t.Errorf("there is no limit %q", limit)
		}
	}
	if c.Isolation.String() == "unknown" {
		t.Errorf("there is no isolation %d", c.Isolation)
	}
	if c.Driver == "" || !slices.ContainsFunc(c.Runtimes, known) {
		t.Errorf("%+v has no name, or no runtime %s", c, s.Runtime)
	}
}

func (s *suite) instances(t *testing.T) {
	s.test(t, "list", func(t *testing.T) {
		spec := s.spec()
		s.startSpec(t, spec)
		all, err := s.Driver.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		same := func(i sandbox.Instance) bool { return i.ID == spec.ID && i.Deployment == spec.Deployment }
		if !slices.ContainsFunc(all, same) {
			t.Errorf("%v has no %s", all, spec.ID)
		}
	})
	s.test(t, "unknown-runtime", func(t *testing.T) {
		spec := s.spec()
		spec.Runtime = "cobol-60"
		if _, err := s.Driver.Start(t.Context(), spec); !errors.Is(err, sandbox.ErrRuntime) {
			t.Errorf("start: %v, want ErrRuntime", err)
		}
	})
	s.test(t, "canceled-start", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		spec := s.spec()
		if _, err := s.Driver.Start(ctx, spec); !errors.Is(err, context.Canceled) {
			t.Errorf("start: %v, want the context's error", err)
		}
		s.gone(t, spec.ID)
	})
	s.test(t, "id-taken", func(t *testing.T) {
		spec := s.spec()
		id := s.startSpec(t, spec)
		if _, err := s.Driver.Start(t.Context(), spec); err == nil {
			t.Error("two instances have one id")
		}
		s.get(t, id, "/hello")
	})
	s.test(t, "warm", func(t *testing.T) {
		for _, n := range []int{2, 1} {
			if err := s.Driver.Warm(t.Context(), s.Runtime, n); err != nil {
				t.Errorf("warm %d: %v", n, err)
			}
			// Whether a spare is ready yet or not.
			first, second := s.start(t), s.start(t)
			for _, id := range []string{first, second, first} {
				if status := s.get(t, id, "/hello").status; status != 200 {
					t.Errorf("status %d", status)
				}
			}
		}
		if err := s.Driver.Warm(t.Context(), s.Runtime, 0); err != nil {
			t.Errorf("warm 0: %v", err)
		}
		if err := s.Driver.Warm(t.Context(), "cobol-60", 1); !errors.Is(err, sandbox.ErrRuntime) {
			t.Errorf("warm: %v, want ErrRuntime", err)
		}
	})
	s.test(t, "network", func(t *testing.T) {
		c, err := s.Driver.Capabilities(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, network := range append(c.Networks, "carrier pigeon") {
			spec := s.spec()
			spec.Network = network
			if network != "carrier pigeon" {
				s.startSpec(t, spec)
				continue
			}
			if _, err := s.Driver.Start(t.Context(), spec); !errors.Is(err, sandbox.ErrNetwork) {
				t.Errorf("start with network %q: %v, want ErrNetwork", network, err)
			}
			build := s.buildSpec(s.copy(t), "")
			build.Network = network
			if _, err := s.Driver.Build(t.Context(), build, newLines()); !errors.Is(err, sandbox.ErrNetwork) {
				t.Errorf("build with network %q: %v, want ErrNetwork", network, err)
			}
		}
	})
	s.test(t, "many", func(t *testing.T) {
		var starts sync.WaitGroup
		for range 4 {
			starts.Go(func() {
				if id := s.start(t); s.get(t, id, "/hello").status != 200 {
					t.Error("no answer")
				}
			})
		}
		starts.Wait()
	})
	// What the build notes of its directory still holds when the code runs.
	s.test(t, "directory", func(t *testing.T) {
		dir := s.copy(t)
		if r, err := s.Driver.Build(t.Context(), s.buildSpec(dir, "pwd -P > where"), newLines()); err != nil || r.Failure != "" {
			t.Fatalf("%+v, %v", r, err)
		}
		want, err := os.ReadFile(filepath.Join(dir, "where"))
		if err != nil {
			t.Fatal(err)
		}
		spec := s.spec()
		spec.Dir = dir
		if got := s.get(t, s.startSpec(t, spec), "/cwd").text(); got+"\n" != string(want) {
			t.Errorf("runs in %s, was built in %s", got, want)
		}
	}, "cwd", "commands")
}

func (s *suite) builds(t *testing.T) {
	build := func(ctx context.Context, t *testing.T, commands string) (dir, logs string, r sandbox.BuildResult, err error) {
		dir = s.copy(t)
		w := newLines()
		r, err = s.Driver.Build(ctx, s.buildSpec(dir, commands), w)
		return dir, w.String(), r, err
	}
	s.test(t, "commands", func(t *testing.T) {
		dir, logs, r, err := build(t.Context(), t, `echo "out $FIXTURE"; echo err >&2; echo made > made.txt`)
		if err != nil || r.Failure != "" || !strings.Contains(logs, "out välue\n") || !strings.Contains(logs, "err\n") {
			t.Errorf("%+v, %v, logs %q", r, err, logs)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "made.txt")); string(text) != "made\n" {
			t.Errorf("%q, %v", text, err)
		}
	})
	s.test(t, "command-fails", func(t *testing.T) {
		_, logs, r, err := build(t.Context(), t, "echo before; exit 7")
		if err != nil || r.Failure != "exit status 7" || logs != "before\n" {
			t.Errorf("%+v, %v, logs %q, want exit status 7", r, err, logs)
		}
	}, "commands")
	// Builds find what others left that were given the same cache, and nothing else.
	s.test(t, "package-cache", func(t *testing.T) {
		cache := t.TempDir()
		for i, c := range []struct{ cache, commands, logs string }{
			{cache, `mkdir -p "$XDG_CACHE_HOME/deep"; echo kept > "$XDG_CACHE_HOME/deep/file"`, ""},
			{cache, `cat "$XDG_CACHE_HOME/deep/file"; echo again >> "$XDG_CACHE_HOME/deep/file"`, "kept\n"},
			{t.TempDir(), `mkdir -p "$XDG_CACHE_HOME"; ls "$XDG_CACHE_HOME"`, ""},
			{"", `ls "${XDG_CACHE_HOME:-$HOME/.cache}" 2>/dev/null || true`, ""},
			{cache, `cat "$XDG_CACHE_HOME/deep/file"`, "kept\nagain\n"},
		} {
			dir, w := s.copy(t), newLines()
			spec := s.buildSpec(dir, c.commands)
			spec.Cache = c.cache
			if r, err := s.Driver.Build(t.Context(), spec, w); err != nil || r.Failure != "" || !strings.HasPrefix(w.String(), c.logs) || c.logs == "" && w.String() != "" {
				t.Errorf("build %d: %+v, %v, logs %q, want %q", i+1, r, err, w.String(), c.logs)
			}
			if entries, err := os.ReadDir(dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "deep" || e.Name() == "file" }) {
				t.Errorf("build %d: the cache is in the code: %v, %v", i+1, entries, err)
			}
		}
	}, "commands")
	s.test(t, "build-canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := newLines()
		go func() {
			<-w.first
			cancel()
		}()
		_, err := s.Driver.Build(ctx, s.buildSpec(s.copy(t), "echo hangs; sleep 1000"), w)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the context's error", err)
		}
	}, "commands")
	s.test(t, "build-unknown-runtime", func(t *testing.T) {
		spec := s.buildSpec(s.copy(t), "")
		spec.Runtime = "cobol-60"
		if _, err := s.Driver.Build(t.Context(), spec, newLines()); !errors.Is(err, sandbox.ErrRuntime) {
			t.Errorf("%v, want ErrRuntime", err)
		}
	})
}

// lines is a build log that tells when something was written.
type lines struct {
	mu    sync.Mutex
	text  strings.Builder
	once  sync.Once
	first chan struct{}
}

func newLines() *lines { return &lines{first: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.once.Do(func() { close(l.first) })
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
