package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	quickstart "github.com/fnkit/fnkit/examples/quickstart"
	"github.com/fnkit/fnkit/internal/require"
)

// asCommand in the environment makes the test binary the program itself.
const asCommand = "FNKIT_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		quickstart.Main()
		return
	}
	os.Exit(m.Run())
}

// command is the program on a machine that has these commands alone.
func command(t *testing.T, commands []string, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(commands, "sh") {
		path := require.Command(t, name)
		if name == "python3" { // may be a version manager's script, which needs more commands
			out, err := exec.CommandContext(t.Context(), path, "-c", "import sys; print(sys.executable)").Output()
			if err != nil {
				t.Fatal(err)
			}
			path = strings.TrimSpace(string(out))
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "PATH="+dir, "GOPROXY=off", "TMPDIR="+t.TempDir())
	return cmd
}

// tour is what the program says before it serves.
func tour(runtime, log string) *regexp.Regexp {
	return regexp.MustCompile(`^runtime      ` + runtime + `-[0-9.]+
isolation    (none: the function is a process of this user; run only code you trust|[a-z]+: the function is shut in)
(build        goes on.*\n)?build        ready after ([0-9]+m)?[0-9.]+[mµ]?s
first call   200 "Hello, world!" after [0-9.]+[mµ]?s
  its log    ` + log + `[0-9.]+
second call  200 "Hello, world!" after [0-9.]+[mµ]?s
  its log    ` + log + `[0-9.]+
`)
}

func TestOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		commands []string
		log      string
	}{
		"node":   {[]string{"node", "go"}, `hello from Node\.js v`},
		"php":    {[]string{"php", "go"}, `hello from PHP `},
		"ruby":   {[]string{"ruby"}, `hello from Ruby `},
		"python": {[]string{"python3"}, `hello from Python `},
		"go":     {[]string{"go"}, `hello from go`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := command(t, c.commands, "-once")
			out, err := cmd.CombinedOutput()
			if whole := tour(name, c.log).FindString(string(out)); err != nil || whole == "" || whole != string(out) {
				t.Errorf("%v, says\n%s", err, out)
			}
			for _, kv := range cmd.Env {
				if dir, ok := strings.CutPrefix(kv, "TMPDIR="); ok {
					if left, err := filepath.Glob(filepath.Join(dir, "fnkit-*")); err != nil || len(left) > 0 {
						t.Errorf("left %v", left)
					}
				}
			}
		})
	}
}

func TestNoLanguage(t *testing.T) {
	t.Parallel()
	out, err := command(t, nil, "-once").CombinedOutput()
	if want := "quickstart: no language was found on this machine: install Node.js, Python 3, PHP, Ruby or Go\n"; err == nil || string(out) != want {
		t.Errorf("%v, says %q, want %q", err, out, want)
	}
}

// TestHints pastes what the program says one can try into a shell.
func TestHints(t *testing.T) {
	t.Parallel()
	require.Command(t, "curl")
	cmd := command(t, []string{"node"}, "-addr", "127.0.0.1:0")
	hints := make(chan string, 10)
	out := &scan{lines: hints}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("ended with %v, and said\n%s", err, out.text.String())
		}
	}()
	for _, want := range []string{
		`^Hello, you!$`,
		`"status":"completed",.*"responseBody":"Hello, me!".*"logs":"hello from Node\.js`,
		`^{"total":4,"executions":\[.*"requestPath":"/hello/\?name=you"`,
	} {
		select {
		case hint := <-hints:
			answer, err := exec.CommandContext(t.Context(), "sh", "-c", hint+" -sS --max-time 30").CombinedOutput()
			if err != nil || !regexp.MustCompile(want).Match(answer) {
				t.Errorf("%s: %v, answers\n%s", hint, err, answer)
			}
		case <-time.After(time.Minute):
			t.Fatal("no hint came")
		}
	}
}

// scan passes on the lines that hold a curl command.
type scan struct {
	text  bytes.Buffer
	read  int
	lines chan<- string
}

func (s *scan) Write(p []byte) (int, error) {
	s.text.Write(p)
	for {
		line, _, whole := bytes.Cut(s.text.Bytes()[s.read:], []byte("\n"))
		if !whole {
			return len(p), nil
		}
		s.read += len(line) + 1
		if hint := strings.TrimSpace(string(line)); strings.HasPrefix(hint, "curl ") {
			s.lines <- hint
		}
	}
}
