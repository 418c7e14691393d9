//go:build unix

package pluginbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/pluginbox"
	"github.com/fnkit/fnkit/sandbox/procbox/testdata/left"
)

// TestCrash: calls under way are over at once, and the next finds another plugin.
func TestCrash(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(box *pluginbox.Box){
		"panic": func(box *pluginbox.Box) { box.Invoke(context.Background(), "faults", get("/die"), newAnswer()) },
		"exit":  func(box *pluginbox.Box) { box.Invoke(context.Background(), "faults", get("/exit"), newAnswer()) },
		"kill":  func(box *pluginbox.Box) { syscall.Kill(box.Pid(), syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box, j := open(t, pluginbox.Config{})
			start(t, box, "faults", "faults")
			start(t, box, "fixture", "fixture")
			first := box.Pid()
			var calls []*ending
			for range 20 {
				calls = append(calls, begin(t, t.Context(), box, "fixture"))
			}
			crash(box)
			for _, e := range calls {
				e.wait(t, patience)
				wantGone(t, e.res, e.err, false)
			}
			j.wait(t, `msg="plugin ended"`)
			if all, err := box.List(t.Context()); err != nil || len(all) > 0 {
				t.Errorf("after the crash there are %v, %v", all, err)
			}
			res, err := box.Invoke(t.Context(), "fixture", get("/hello"), newAnswer())
			wantGone(t, res, err, true)
			start(t, box, "fixture", "fixture")
			call(t, box, "fixture", "/hello")
			if box.Pid() == first {
				t.Error("it is the same process")
			}
		})
	}
}

// TestCrashWithoutPlugin: as long as no plugin runs there is no instance, and
// nobody waits for one to learn that.
func TestCrashWithoutPlugin(t *testing.T) {
	t.Parallel()
	box, j := open(t, pluginbox.Config{})
	start(t, box, "i1", "fixture")
	syscall.Kill(box.Pid(), syscall.SIGKILL)
	j.wait(t, `msg="plugin ended"`)
	res, err := box.Invoke(t.Context(), "i1", get("/hello"), newAnswer())
	wantGone(t, res, err, true)
	if box.Pid() != 0 {
		t.Error("a plugin was started for it")
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	for n, want := range []time.Duration{0, 0, 100e6, 200e6, 400e6, 800e6, 1600e6, 3200e6, 5e9, 5e9} {
		if got := pluginbox.Pause(n); got != want {
			t.Errorf("after end %d: %s, want %s", n, got, want)
		}
	}
	if got := pluginbox.Pause(1 << 40); got != 5*time.Second {
		t.Errorf("%s, want 5s", got)
	}
}

// TestCrashLoop: a plugin that does not start any more fails calls with the reason.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	executable, program := program(t), filepath.Join(t.TempDir(), "plugin")
	if err := os.Symlink(executable, program); err != nil {
		t.Fatal(err)
	}
	box, err := pluginbox.Open(t.Context(), pluginbox.Config{Command: []string{program}})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(box.Pid(), syscall.SIGKILL)
	for range 3 {
		if _, err := box.List(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("%v, want the reason", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := box.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	if err := os.Symlink(executable, program); err != nil {
		t.Fatal(err)
	}
	if _, err := box.List(t.Context()); err != nil {
		t.Errorf("it is there again: %v", err)
	}
}

// TestSilence: a plugin that does not answer holds nobody up longer than they want
// to wait. If it answers again all goes on.
func TestSilence(t *testing.T) {
	t.Parallel()
	box, _ := open(t, pluginbox.Config{Ping: time.Hour})
	start(t, box, "i1", "fixture")
	pid := box.Pid()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e := begin(t, ctx, box, "i1")
	freeze(t, pid)
	defer syscall.Kill(pid, syscall.SIGCONT)
	cancel()
	if e.wait(t, patience); !errors.Is(e.err, context.Canceled) || !e.res.Retire {
		t.Errorf("call under way: %+v, %v, want the context's error, and Retire", e.res, e.err)
	}
	for name, act := range map[string]func(ctx context.Context) error{
		"invoke": func(ctx context.Context) error {
			_, err := box.Invoke(ctx, "i1", get("/hello"), newAnswer())
			return err
		},
		"upload": func(ctx context.Context) error {
			r := get("/echo")
			r.Body = &endless{}
			_, err := box.Invoke(ctx, "i1", r, newAnswer())
			return err
		},
		"start": func(ctx context.Context) error {
			_, err := box.Start(ctx, sandbox.Spec{ID: "late", Runtime: fnbox.RuntimeID, Entrypoint: "fixture"})
			return err
		},
		"build": func(ctx context.Context) error {
			_, err := box.Build(ctx, sandbox.BuildSpec{Runtime: fnbox.RuntimeID}, io.Discard)
			return err
		},
		"list": func(ctx context.Context) error { _, err := box.List(ctx); return err },
		"stop": func(ctx context.Context) error { return box.Stop(ctx, "other") },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		began := time.Now()
		if err := act(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want the context's error", name, err)
		}
		if took := time.Since(began); took > patience/2 {
			t.Errorf("%s took %s", name, took)
		}
		cancel()
	}
	syscall.Kill(pid, syscall.SIGCONT)
	call(t, box, "i1", "/hello")
	// What was started although nobody waited any more is stopped.
	for deadline := time.Now().Add(patience); ; {
		all, err := box.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are %v", all)
		}
	}
}

// TestSilenceIsPunished: a plugin that does not answer is killed and replaced.
func TestSilenceIsPunished(t *testing.T) {
	t.Parallel()
	box, j := open(t, pluginbox.Config{Ping: 5 * time.Second}) // the next one must answer as soon
	start(t, box, "i1", "fixture")
	e := begin(t, t.Context(), box, "i1")
	freeze(t, box.Pid())
	e.wait(t, patience)
	wantGone(t, e.res, e.err, false)
	j.wait(t, "does not answer")
	start(t, box, "i2", "fixture")
	call(t, box, "i2", "/hello")
}

// state returns the letter of a process's state; "": there is none.
func state(pid int) string {
	out, _ := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return strings.TrimSpace(string(out))
}

func lives(pid int) bool {
	s := state(pid)
	return s != "" && s[0] != 'Z'
}

// freeze stops a process and all its threads.
func freeze(t testing.TB, pid int) {
	t.Helper()
	require.Command(t, "ps")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !strings.HasPrefix(state(pid), "T"); {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is %s", pid, state(pid))
		}
	}
}

func dies(t testing.TB, what string, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); lives(pid); {
		if time.Now().After(deadline) {
			t.Fatalf("%s, process %d, lives", what, pid)
		}
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	box, j := open(t, pluginbox.Config{})
	start(t, box, "i1", "fixture")
	e := begin(t, t.Context(), box, "i1")
	pid, sockets := box.Pid(), box.Sockets()
	if _, err := os.Stat(sockets); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := box.Close(); err != nil {
			t.Fatal(err)
		}
	}
	e.wait(t, patience)
	wantGone(t, e.res, e.err, false)
	if lives(pid) {
		t.Error("the plugin lives")
	}
	if _, err := os.Stat(sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", sockets, err)
	}
	res, err := box.Invoke(t.Context(), "i1", get("/hello"), newAnswer())
	wantGone(t, res, err, true)
	if _, err := box.Start(t.Context(), sandbox.Spec{ID: "i2", Runtime: fnbox.RuntimeID}); err == nil {
		t.Error("a closed Box starts an instance")
	}
	if text := j.String(); strings.Contains(text, "level=ERROR") || strings.Contains(text, "level=WARN") {
		t.Errorf("an orderly end is no trouble:\n%s", text)
	}
}

// childOf starts an instance of Python, with no isolation, that has a process of its
// own, and returns its number.
func childOf(t testing.TB, box sandbox.Driver, id string) int {
	t.Helper()
	spec := sandbox.Spec{ID: id, Runtime: runtimeOf(t, box, "python"), Dir: t.TempDir(), Entrypoint: "main.py"}
	if err := os.CopyFS(spec.Dir, os.DirFS("../procbox/testdata/python")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := box.Start(ctx, spec); err != nil {
		t.Fatal(err)
	}
	pid := decode[int](t, call(t, box, id, "/child"))
	if !lives(pid) {
		t.Fatal("there is nothing to end")
	}
	return pid
}

// TestCrashIsReaped: what a dead plugin left is ended by its successor, before Stop of
// it returns.
func TestCrashIsReaped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box, j := openProcbox(t, dir, "python", "none")
	child := childOf(t, box, "i1")
	syscall.Kill(box.Pid(), syscall.SIGKILL)
	j.wait(t, `msg="plugin ended"`)
	if err := box.Stop(t.Context(), "i1"); err != nil {
		t.Fatal(err)
	}
	if lives(child) {
		t.Error("a process of the instance lives")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestSparesSurvive: the next plugin keeps as many spares as the last was told to.
func TestSparesSurvive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box, j := openProcbox(t, dir, "python", "none")
	if err := box.Warm(t.Context(), runtimeOf(t, box, "python"), 1); err != nil {
		t.Fatal(err)
	}
	spare := func() { // a process of an instance that nobody started
		t.Helper()
		for deadline := time.Now().Add(patience); !slices.Contains(left.Of(dir), "process 1"); {
			if time.Now().After(deadline) {
				t.Fatalf("there is no spare, only %v", left.Of(dir))
			}
		}
	}
	spare()
	syscall.Kill(box.Pid(), syscall.SIGKILL)
	j.wait(t, `msg="plugin ended"`)
	if err := box.Stop(t.Context(), "any"); err != nil { // starts the next
		t.Fatal(err)
	}
	j.wait(t, "plugin started")
	spare()
}

// hostDir makes TestHostProcess a host with its plugin's directory there.
const hostDir = "FNKIT_TEST_HOST_DIR"

func TestHostProcess(t *testing.T) {
	dir := os.Getenv(hostDir)
	if dir == "" {
		t.Skip("is run by TestHostDies")
	}
	box, _ := openProcbox(t, dir, "python", "none")
	fmt.Printf("\nhas %d %d %s\n", box.Pid(), childOf(t, box, "i1"), box.Sockets())
	io.Copy(io.Discard, os.Stdin) // until it is killed
}

// TestHostDies: a plugin ends with its host, and its instances with it.
func TestHostDies(t *testing.T) {
	t.Parallel()
	box, _ := openProcbox(t, t.TempDir(), "python", "none")
	runtimeOf(t, box, "python")
	host := exec.Command(os.Args[0], "-test.run=^TestHostProcess$", "-test.v")
	host.Env = append(os.Environ(), hostDir+"="+t.TempDir(), builtBefore+"="+program(t))
	in, err := host.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var plugin, child int
	var sockets string
	for lines := bufio.NewScanner(out); child == 0 && lines.Scan(); {
		fmt.Sscanf(lines.Text(), "has %d %d %s", &plugin, &child, &sockets)
	}
	host.Process.Kill()
	host.Wait()
	if child == 0 {
		t.Fatal("the host has started nothing")
	}
	dies(t, "the plugin", plugin)
	dies(t, "an instance's child", child)
	if _, err := os.Stat(sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", sockets, err)
	}
}
