//go:build amd64 || arm64

package attack_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// has reports whether a limit is enforced here, and skips the test if it is not.
func (s *scene) has(limit string) {
	s.t.Helper()
	caps, err := s.box.Capabilities(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if !slices.Contains(caps.Limits, limit) {
		require.Missing(s.t, limit, strings.Join(caps.Notes, "; "))
	}
}

// used splits what a bomb answers: how far it came, and what stopped it.
func (s *scene) used(op string, args ...any) (n int64, why string) {
	s.t.Helper()
	got := s.do(s.id, op, args...)
	if _, err := fmt.Sscan(got, &n, &why); err != nil {
		s.t.Fatalf("%s: %q", op, got)
	}
	return n, why
}

// TestBombs uses up what there is of everything. The host and the victim must
// not notice, and the next call must work.
func TestBombs(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		for name, bomb := range map[string]func(s *scene){
			"memory": func(s *scene) {
				s.has("memory")
				_, res, err := s.ask(s.id, "memory")
				if err != nil || !strings.HasPrefix(res.Crash, "more than the memory limit of 256 MiB was used") {
					s.t.Errorf("%v, %+v", err, res)
				}
			},
			"memory of files": func(s *scene) {
				s.has("memory")
				_, res, err := s.ask(s.id, "memfd")
				if err != nil || !strings.HasPrefix(res.Crash, "more than the memory limit of 256 MiB was used") {
					s.t.Errorf("%v, %+v", err, res)
				}
			},
			"processes": func(s *scene) {
				s.has("pids")
				if n, why := s.used("forks"); n < 100 || n > 512 || why != "EAGAIN" {
					s.t.Errorf("%d processes, then %s", n, why)
				}
			},
			"descriptors": func(s *scene) {
				if n, why := s.used("descriptors"); n > 4096 || why != "EMFILE" {
					s.t.Errorf("%d descriptors, then %s", n, why)
				}
			},
			"disk": func(s *scene) {
				if tier == "restricted" {
					s.t.Skip("disk is not limited at this tier")
				}
				for _, dir := range []string{"/tmp", "/home/fn", "/dev/shm"} {
					if n, why := s.used("disk", dir+"/bomb"); n > 128<<20 || why != "ENOSPC" {
						s.t.Errorf("%s: %d bytes, then %s", dir, n, why)
					}
				}
			},
			"files": func(s *scene) {
				if tier == "restricted" {
					s.t.Skip("disk is not limited at this tier")
				}
				if n, why := s.used("files", "/tmp"); n > 20000 || why != "ENOSPC" {
					s.t.Errorf("%d files, then %s", n, why)
				}
			},
		} {
			t.Run(tier+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := open(t, tier, "python")
				bomb(s)
				s.unharmed("the bomb")
				s.nextCall()
				s.unharmed("the next call")
				record(t, "use up "+name, tier, "python", "limited")
			})
		}
	}
}

// TestStopIsQuick has a function scatter processes that left its session and
// ignore signals, at last as many as it can have: when Stop returns all are gone.
func TestStopIsQuick(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			s := open(t, tier, "python")
			mark := "3" + strconv.FormatInt(time.Now().UnixNano(), 10)
			s.do(s.id, "escape", mark)
			waitFor(t, "escaped process", func() bool { return running(t, mark) > 0 })
			took := s.stops(mark)
			s.unharmed("a stop")
			began := time.Now()
			s.start()
			if busy := time.Since(began); took > time.Second+2*busy { // the start tells what the machine has to do
				t.Errorf("it took %v, want about 100 ms on a machine with nothing else to do; a start takes %v", took, busy)
			}
			s.has("pids")
			s.do(s.id, "escape", mark)
			s.do(s.id, "forks", mark)
			s.stops(mark)
			s.unharmed("a stop of many")
		})
	}
}

// stops stops the attacker, whose processes have a word among their arguments.
func (s *scene) stops(mark string) time.Duration {
	s.t.Helper()
	n, began := running(s.t, mark), time.Now()
	if err := s.box.Stop(s.t.Context(), s.id); err != nil {
		s.t.Fatal(err)
	}
	took := time.Since(began)
	if left := running(s.t, mark); left > 0 {
		s.t.Errorf("%d of %d processes are left", left, n)
	}
	s.t.Logf("%d processes were gone after %v", n, took)
	return took
}

func waitFor(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !there(); {
		if time.Now().After(deadline) {
			t.Fatalf("there is no %s", what)
		}
	}
}

// running counts the processes that have a word among their arguments.
func running(t *testing.T, word string) (n int) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, _ := os.ReadFile(name)
		if slices.Contains(strings.FieldsFunc(string(text), func(r rune) bool { return r == 0 || r == ' ' }), word) {
			n++
		}
	}
	return n
}

// TestLinksInTheCode has a build leave links that lead out of the code, and
// names that are not files where the build step itself looks.
func TestLinksInTheCode(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			s := open(t, tier, "python")
			s.hostileBuild("ln -s "+s.secret+" secret; ln -s /etc/shadow shadow; ln -s ../../../../../../../.. up; ln -s /proc/1/root root; ln "+s.secret+" hard || true", "")
			for _, name := range []string{"secret", "shadow", "up" + s.secret, "root" + s.secret, "hard"} {
				s.fails(attack{"read by the link " + name, "read", []any{s.codeAt() + "/" + name}, nil})
			}
		})
	}
}

// TestLinksInABuildStep is about the names that the build step of Go reads and
// writes outside of the sandbox.
func TestLinksInABuildStep(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			outside, shown := t.TempDir(), t.TempDir() // shown lies below /tmp
			s := open(t, tier, "go", func(c *procbox.Config) { c.ReadOnly = []string{shown} })
			top := strings.SplitN(strings.TrimPrefix(shown, "/tmp/"), "/", 2)[0]
			for commands, failure := range map[string]string{
				"rm -f go.mod; ln -s " + s.secret + " go.mod":                       "go.mod cannot be used",
				"ln -s " + outside + "/made go.mod":                                 "go.mod cannot be used",
				"mkfifo go.mod":                                                     "go.mod cannot be used",
				"mkfifo go.sum":                                                     "go.sum cannot be read",
				"ln -s " + s.secret + " go.sum":                                     "go.sum cannot be read",
				"ln -s " + outside + " .fnkit":                                      "the folder .fnkit cannot be made",
				"mkdir .fnkit; ln -s " + outside + "/x .fnkit/server":               anything,
				"mv /tmp/" + top + " /tmp/moved; ln -s " + outside + " /tmp/" + top: anything,
				"rm main.go; ln -s " + s.secret + " main.go":                        `the entrypoint "main.go" does not exist`,
			} {
				s.hostileBuild(commands, failure)
				if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
					t.Errorf("%s: the build wrote %v, %v", commands, left, err)
				}
				s.unharmed(commands)
			}
		})
	}
}

// anything is a failure, or none.
const anything = "*"

// hostileBuild builds the attacker with commands, and starts it if that can be.
func (s *scene) hostileBuild(commands, failure string) {
	s.t.Helper()
	dir := s.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder(s.key))); err != nil {
		s.t.Fatal(err)
	}
	var logs bytes.Buffer
	spec := sandbox.BuildSpec{ID: "hostile", Runtime: s.runtime(s.key), Dir: dir, Entrypoint: entrypoints[s.key], Commands: commands}
	r, err := s.box.Build(s.t.Context(), spec, &logs)
	if err != nil || failure != anything && (failure == "") != (r.Failure == "") || failure != anything && !strings.HasPrefix(r.Failure, failure) {
		s.t.Errorf("%s: %+v, %v\n%s", commands, r, err, &logs)
	}
	if strings.Contains(r.Failure+logs.String(), hostSecret) {
		s.t.Errorf("%s: the build shows the host's secret: %q, %s", commands, r.Failure, &logs)
	}
	if r.Failure == "" {
		s.code = dir
		if err := s.box.Stop(s.t.Context(), s.id); err != nil {
			s.t.Error(err)
		}
		s.start()
	}
}

// TestHostileBuilds are attacks by build commands.
func TestHostileBuilds(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			s := open(t, tier, "python")
			for name, commands := range map[string]string{
				"read the host's files":              "cat " + s.secret,
				"read another's code":                "ls " + s.victimCode,
				"write to the host's files":          "echo x > " + s.secret,
				"write to the system":                "touch /usr/x",
				"use the compiler's cache":           "ls " + filepath.Join(s.dir, "cache") + " || ls /fn/cache",
				"change the harness":                 "echo x > /fn/harness/python.py || echo x > " + filepath.Join(s.dir, "harness") + "/*/python.py",
				"connect to the host":                fmt.Sprintf("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", %d), 2)'", s.port),
				"leave a program of the host's user": "cp /bin/sh sh && chmod u+s sh",
				"be another user":                    "setpriv --reuid 1234 true",
			} {
				dir := t.TempDir()
				spec := sandbox.BuildSpec{ID: "hostile", Runtime: s.runtime("python"), Dir: dir, Entrypoint: "main.py", Commands: commands}
				if r, err := s.box.Build(t.Context(), spec, io.Discard); err != nil || r.Failure == "" {
					t.Errorf("%s: %+v, %v", name, r, err)
				}
				s.unharmed(name)
			}
		})
	}
}
