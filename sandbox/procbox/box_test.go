//go:build unix

package procbox_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

const patience = time.Minute

// answer is a sink that keeps a response.
type answer struct {
	status int
	body   bytes.Buffer
	mu     sync.Mutex
	logs   bytes.Buffer
}

func (a *answer) Head(status int, _ []sandbox.Header) error {
	a.status = status
	return nil
}
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
func (a *answer) Log(_ sandbox.Stream, lines []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.logs.Write(lines)
}

// function writes a Node function and returns what starts it.
func function(t *testing.T, box *procbox.Box, code string) sandbox.Spec {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.js"), []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	return sandbox.Spec{ID: "i1", Function: "f", Runtime: runtimeOf(t, box, "node"), Dir: dir, Entrypoint: "index.js"}
}

func start(t *testing.T, box *procbox.Box, spec sandbox.Spec) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := box.Start(ctx, spec); err != nil {
		t.Fatal(err)
	}
}

// call calls an instance and returns the body.
func call(t *testing.T, box *procbox.Box, id, path string) string {
	t.Helper()
	var a answer
	res, err := box.Invoke(t.Context(), id, sandbox.Request{Method: "GET", Path: path, Logging: true}, &a)
	if err != nil || res.Crash != "" || a.status != 200 {
		t.Fatalf("%v, %+v, status %d, logs %q", err, res, a.status, a.logs.String())
	}
	return a.body.String()
}

// process is one that runs; the dead that nobody has reaped do not.
type process struct {
	pid, parent, group int
	args               string
}

func processes(t *testing.T) map[int]process {
	t.Helper()
	require.Command(t, "ps")
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,pgid=,stat=,args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]process{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 5 || strings.HasPrefix(f[3], "Z") {
			continue
		}
		var p process
		for i, to := range []*int{&p.pid, &p.parent, &p.group} {
			*to, _ = strconv.Atoi(f[i])
		}
		p.args = strings.Join(f[4:], " ")
		all[p.pid] = p
	}
	return all
}

// tree returns the processes of the instances of a Box, by the record in its
// directory: instances know their numbers in a namespace of their own at most.
func tree(t *testing.T, dir string) (found []process) {
	t.Helper()
	all, inside, groups := processes(t), map[int]bool{}, map[int]bool{}
	records, err := filepath.Glob(filepath.Join(dir, "run", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range records {
		var record struct{ Group int }
		text, err := os.ReadFile(name)
		if err != nil || json.Unmarshal(text, &record) != nil {
			t.Fatalf("%s, %v", text, err)
		}
		groups[record.Group] = true
	}
	for more := true; more; {
		more = false
		for pid, p := range all {
			if !inside[pid] && (inside[p.parent] || groups[p.group]) {
				inside[pid], more = true, true
			}
		}
	}
	for pid := range inside {
		if p, ok := all[pid]; ok {
			found = append(found, p)
		}
	}
	return found
}

// sleeps matches what user code starts.
var sleeps = regexp.MustCompile(`^([a-z/]*/)?sleep `)

// child returns a Box's processes when one of them is what user code started.
func child(t *testing.T, dir string) []process {
	t.Helper()
	all := tree(t, dir)
	if !slices.ContainsFunc(all, func(p process) bool { return sleeps.MatchString(p.args) }) {
		t.Fatalf("processes %v: there is nothing to kill", all)
	}
	return all
}

func alive(t *testing.T, p process) bool {
	t.Helper()
	return processes(t)[p.pid].args == p.args
}

func dies(t *testing.T, all ...process) {
	t.Helper()
	until(t, fmt.Sprintf("end of the processes %v", all), func() bool {
		now := processes(t)
		return !slices.ContainsFunc(all, func(p process) bool { return now[p.pid].args == p.args })
	})
}

const spawns = `const {spawn} = require('child_process');
module.exports = ({res}) => {
  spawn('sleep', ['1000'], {stdio: 'inherit'});
  return res.text('spawned');
};`

// TestStopKillsWhatUserCodeStarted is about every language: harnesses must not
// leave the process group.
func TestStopKillsWhatUserCodeStarted(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures {
		for _, tier := range []string{"full", "none"} {
			t.Run(f.key+"/"+tier, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				box := openTier(t, dir, tier, f.key)
				code := t.TempDir()
				if err := os.CopyFS(code, os.DirFS(f.source(t))); err != nil {
					t.Fatal(err)
				}
				spec := sandbox.Spec{ID: f.key, Runtime: runtimeOf(t, box, f.key), Dir: code, Entrypoint: f.entrypoint}
				r, err := box.Build(t.Context(), sandbox.BuildSpec{Runtime: spec.Runtime, Dir: code, Entrypoint: f.entrypoint}, io.Discard)
				if err != nil || r.Failure != "" {
					t.Fatal(r, err)
				}
				start(t, box, spec)
				call(t, box, f.key, "/child")
				all := child(t, dir)
				if err := box.Stop(t.Context(), f.key); err != nil {
					t.Fatal(err)
				}
				dies(t, all...)
			})
		}
	}
}

func TestCloseStopsAll(t *testing.T) {
	t.Parallel()
	require.Command(t, "ps")
	dir := t.TempDir()
	box := openAt(t, dir, "node")
	spec := function(t, box, spawns)
	start(t, box, spec)
	call(t, box, "i1", "/")
	all := child(t, dir)
	for range 2 {
		if err := box.Close(); err != nil {
			t.Fatal(err)
		}
	}
	dies(t, all...)
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := box.Start(t.Context(), spec); err == nil {
		t.Error("a closed box starts an instance")
	}
	if _, err := box.Build(t.Context(), sandbox.BuildSpec{Runtime: spec.Runtime}, io.Discard); err == nil {
		t.Error("a closed box builds")
	}
	openAt(t, dir, "node") // the directory is free again
}

func TestDirectoryHasOneOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openAt(t, dir, "node")
	if second, err := procbox.New(procbox.Config{Dir: dir}); err == nil {
		second.Close()
		t.Error("two boxes on one directory")
	}
	if _, err := procbox.New(procbox.Config{}); err == nil {
		t.Error("a box without a directory")
	}
}

// ownerDir makes TestOwnerProcess the owner of a directory that is then killed,
// at the tier in ownerTier, with as many spares as ownerSpares says.
const ownerDir, ownerTier, ownerSpares = "FNKIT_TEST_OWNER_DIR", "FNKIT_TEST_OWNER_TIER", "FNKIT_TEST_OWNER_SPARES"

func TestOwnerProcess(t *testing.T) {
	dir := os.Getenv(ownerDir)
	if dir == "" {
		t.Skip("is run by TestDeadOwner")
	}
	box := openTier(t, dir, os.Getenv(ownerTier), "node")
	start(t, box, function(t, box, spawns))
	if n, _ := strconv.Atoi(os.Getenv(ownerSpares)); n > 0 && os.Getenv(ownerTier) != "restricted" {
		warm(t, box, runtimeOf(t, box, "node"), n)
	}
	fmt.Printf("\n%s\n", call(t, box, "i1", "/"))
	io.Copy(io.Discard, os.Stdin) // until it is killed
}

// killOwner runs a box on a directory in another process, kills that, and
// returns the processes the box had started.
func killOwner(t *testing.T, dir, tier string, spares int) []process {
	t.Helper()
	owner := exec.Command(os.Args[0], "-test.run=^TestOwnerProcess$")
	owner.Env = append(os.Environ(), ownerDir+"="+dir, ownerTier+"="+tier, ownerSpares+"="+strconv.Itoa(spares))
	in, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "spawned" {
	}
	all := child(t, dir)
	owner.Process.Kill()
	owner.Wait()
	return all
}

// TestDeadOwnerIsReaped leaves it to the next owner to end what is not confined,
// whatever the last had time to record of what it started.
func TestDeadOwnerIsReaped(t *testing.T) {
	t.Parallel()
	require.Command(t, "ps")
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		require.Missing(t, "proc", "what is left can be told only from /proc")
	}
	runtimeOf(t, open(t, "node"), "node")
	for name, spoil := range map[string]func(record string) error{
		"recorded":      func(string) error { return nil },
		"half recorded": func(record string) error { return os.Truncate(record, 5) },
		"not recorded":  os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			all := killOwner(t, dir, "none", 0)
			i := slices.IndexFunc(all, func(p process) bool { return strings.HasPrefix(p.args, "sleep ") })
			records, _ := filepath.Glob(filepath.Join(dir, "run", "*.json"))
			if !alive(t, all[i]) || len(records) != 1 {
				t.Fatalf("processes %v, records %v: there is nothing to reap", all, records)
			}
			if err := spoil(records[0]); err != nil {
				t.Fatal(err)
			}
			openAt(t, dir, "node")
			dies(t, all...)
			if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// TestConfinedDieWithTheirOwner is without another owner: init sees to it.
func TestConfinedDieWithTheirOwner(t *testing.T) {
	t.Parallel()
	for _, tier := range confined {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			requireTier(t, tier)
			runtimeOf(t, open(t, "node"), "node")
			dies(t, killOwner(t, dir, tier, 2)...)
			openAt(t, dir, "node")
			if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// TestRecycledNumberIsLetAlone has a record name a process that is not the one
// recorded.
func TestRecycledNumberIsLetAlone(t *testing.T) {
	t.Parallel()
	require.Command(t, "ps")
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "run", "box-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"group":%d,"start":"another boot 1"}`, other.Process.Pid)
	if err := os.WriteFile(filepath.Join(dir, "run", "box-1.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	openAt(t, dir, "node")
	if !alive(t, process{other.Process.Pid, 0, 0, "sleep 1000"}) {
		t.Error("a process of another was killed")
	}
}

func TestEnvironmentDoesNotReachTheStart(t *testing.T) {
	t.Parallel()
	box := open(t, "node")
	spec := function(t, box, `module.exports = ({res}) => res.text(process.env.NODE_OPTIONS + process.env.HOME)`)
	spec.Env = map[string]string{"NODE_OPTIONS": "--require=/does/not/exist", "LD_PRELOAD": "/does/not/exist.so", "HOME": "/mine"}
	start(t, box, spec)
	if got := call(t, box, "i1", "/"); got != "--require=/does/not/exist/mine" {
		t.Errorf("environment %q", got)
	}
}

// TestDescriptorsAreNotInherited has the host hold a descriptor that children
// would inherit, and user code start a command: neither sees what is not its own.
func TestDescriptorsAreNotInherited(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		require.Missing(t, "proc", err.Error())
	}
	box := open(t, "node")
	spec := function(t, box, `const fs = require('fs');
const {execSync} = require('child_process');
module.exports = ({res}) => res.text(fs.readdirSync('/proc/self/fd').map((fd) => {
  try { return fs.readlinkSync('/proc/self/fd/' + fd); } catch { return ''; }
}).join('\n') + execSync('ls -l /proc/self/fd').toString())`)
	file, err := os.CreateTemp(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	leak, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)
	start(t, box, spec)
	if got := call(t, box, "i1", "/"); strings.Contains(got, "secret") || strings.Contains(got, "3 -> socket") {
		t.Errorf("open descriptors:\n%s", got)
	}
}

func TestCrashShowsLastOutput(t *testing.T) {
	t.Parallel()
	box := open(t, "node")
	start(t, box, function(t, box, `module.exports = () => {
  require('fs').writeSync(2, 'x'.repeat(20000) + 'last words\n');
  process.reallyExit(134);
}`))
	var a answer
	res, err := box.Invoke(t.Context(), "i1", sandbox.Request{Method: "GET", Path: "/"}, &a)
	if err != nil || !strings.HasPrefix(res.Crash, "exit status 134: x") || !strings.HasSuffix(res.Crash, "last words") || len(res.Crash) > 9000 || !res.Retire {
		t.Errorf("%v, %d bytes: %.60q", err, len(res.Crash), res.Crash)
	}
}

// TestLogFlood has a function log 100 MB without giving way: its process drops
// most of it, says so, and lives.
func TestLogFlood(t *testing.T) {
	t.Parallel()
	box := open(t, "node")
	start(t, box, function(t, box, `const line = 'x'.repeat(1000);
module.exports = ({res, log}) => {
  for (let i = 0; i < 100000; i++) log(line);
  return res.text('lives');
};`))
	var a answer
	_, err := box.Invoke(t.Context(), "i1", sandbox.Request{Method: "GET", Path: "/", Logging: true}, &a)
	if err != nil || a.body.String() != "lives" || a.logs.Len() > 16<<20 || !strings.HasSuffix(a.logs.String(), "\nLog lines were dropped: they came faster than they could be sent.\n") {
		t.Errorf("%v, body %q, %d bytes of logs", err, a.body.String(), a.logs.Len())
	}
	call(t, box, "i1", "/")
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box := openAt(t, dir, "node")
	spec := function(t, box, `for (;;);`)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := box.Start(ctx, spec); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestCodeThatExitsFailsStart(t *testing.T) {
	t.Parallel()
	box := open(t, "node")
	spec := function(t, box, `process.stderr.write('no licence\n'); process.exit(5)`)
	var load *sandbox.LoadError
	if _, err := box.Start(t.Context(), spec); !errors.As(err, &load) || load.Reason != "exit status 5: no licence" {
		t.Errorf("%v, want what it printed", err)
	}
	start(t, box, function(t, box, `module.exports = ({res}) => res.text('ok')`)) // the id is free
}

func TestInstanceIDsAreUnique(t *testing.T) {
	t.Parallel()
	box := open(t, "node")
	spec := function(t, box, `module.exports = ({res}) => res.text('first')`)
	start(t, box, spec)
	if _, err := box.Start(t.Context(), spec); err == nil {
		t.Error("two instances of one id")
	}
	if got := call(t, box, "i1", "/"); got != "first" {
		t.Errorf("the first answers %q", got)
	}
}

func TestBuildKillsWhatItLeaves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box := openTier(t, dir, "full", "node")
	spec := function(t, box, "")
	var logs bytes.Buffer
	r, err := box.Build(t.Context(), sandbox.BuildSpec{
		Runtime: spec.Runtime, Dir: spec.Dir, Entrypoint: "index.js", Commands: "sleep 1000.5 & pwd; echo $HOME; node --version",
	}, &logs)
	if err != nil || r.Failure != "" {
		t.Fatalf("%v, %+v, %s", err, r, logs.String())
	}
	lines := strings.Fields(logs.String())
	for _, p := range processes(t) {
		if p.args == "sleep 1000.5" {
			dies(t, p)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 || lines[1] != "/home/fn" {
		t.Errorf("home %s; left %v, %v", lines[1], left, err)
	}
}

func TestCapabilitiesNameWhatIsMissing(t *testing.T) {
	t.Parallel()
	box, err := procbox.New(procbox.Config{Dir: t.TempDir(), Path: t.TempDir(), Isolation: "none"})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	c, err := box.Capabilities(t.Context())
	if err != nil || len(c.Runtimes) != 1 || c.Runtimes[0].ID != "exec-1" || c.Isolation != sandbox.IsolationNone {
		t.Errorf("%+v, %v", c, err)
	}
	hint := func(n string) bool { return strings.HasPrefix(n, "node: install ") }
	if !slices.ContainsFunc(c.Notes, hint) {
		t.Errorf("notes %q", c.Notes)
	}
}

// TestVersionManagersAreAskedOnce has one script under three names, as version
// managers put them on the PATH, and another that is like it.
func TestVersionManagersAreAskedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	shim := "#!/bin/sh\necho \"${0##*/}\" >> '" + asked + "'\n"
	for name, text := range map[string]string{
		"python3": shim + "echo 3.11.2", "python3.9": shim + "echo 3.11.2", "python3.10": shim + "echo 3.11.2", "python3.12": shim + "echo 3.12.1",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	box, err := procbox.New(procbox.Config{Dir: filepath.Join(dir, "box"), Path: dir, Languages: []string{"python"}})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	c, err := box.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(asked); err != nil || string(text) != "python3\npython3.12\n" || len(c.Runtimes) != 2 {
		t.Errorf("asked %q, %v; runtimes %+v", text, err, c.Runtimes)
	}
}

// TestMinimalPython has a Python without the library that the harness needs, as
// some systems install it: it is no runtime.
func TestMinimalPython(t *testing.T) {
	t.Parallel()
	real, err := exec.Command(require.Command(t, "python3"), "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Fatal(err)
	}
	for script, want := range map[string]int{
		"import sys; exec(sys.argv[-1])":                                1,
		`import sys; sys.modules["asyncio"] = None; exec(sys.argv[-1])`: 0,
	} {
		dir := t.TempDir()
		text := fmt.Sprintf("#!/bin/sh\nexec '%s' -c '%s' \"$@\"\n", strings.TrimSpace(string(real)), script)
		if err := os.WriteFile(filepath.Join(dir, "python3"), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		box, err := procbox.New(procbox.Config{Dir: t.TempDir(), Path: dir, Languages: []string{"python"}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := box.Capabilities(t.Context())
		if err != nil || len(c.Runtimes) != want {
			t.Errorf("%s: %+v, %v", script, c, err)
		}
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	}
}
