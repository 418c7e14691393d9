//go:build unix

package procbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
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
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

// spared are the tiers at which there are spares.
var spared = []string{"full", "userns", "none"}

// warm has a Box keep n spares and waits until they are ready.
func warm(t testing.TB, box *procbox.Box, runtime string, n int) {
	t.Helper()
	if err := box.Warm(t.Context(), runtime, n); err != nil {
		t.Fatal(err)
	}
	until(t, fmt.Sprintf("%d spares", n), func() bool { return box.Spares(runtime) == n })
}

// until waits for what must happen.
func until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s in time", what)
		}
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 1000})
	}
}

// sourceOf copies a language's function.
func sourceOf(t testing.TB, key string) string {
	t.Helper()
	i := slices.IndexFunc(fixtures, func(f fixture) bool { return f.key == key })
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(fixtures[i].source(t))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSpare has spares of each language serve deployments at each tier, as what
// was started for them alone would.
func TestSpare(t *testing.T) {
	t.Parallel()
	for _, tier := range spared {
		for _, f := range fixtures {
			if f.key == "go" || f.key == "exec" || f.key == "deno" && tier == "none" {
				continue // they have no spares
			}
			t.Run(tier+"/"+f.key, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				box := openTier(t, dir, tier, f.key)
				id := runtimeOf(t, box, f.key)
				warm(t, box, id, 2)
				code := sourceOf(t, f.key)
				var environments [3]map[string]string
				for i := range 3 {
					name := "i" + strconv.Itoa(i)
					if i == 2 {
						warm(t, box, id, 0)
					}
					start(t, box, sandbox.Spec{
						ID: name, Function: "f", Deployment: "d", Runtime: id, Dir: code, Entrypoint: f.entrypoint,
						Env: map[string]string{"OWN": name}, Memory: 256 << 20, CPUs: 2, Concurrency: 3,
					})
					if got := box.FromSpare(name); got != (i < 2) {
						t.Errorf("start %d: from a spare: %v", i, got)
					}
					if got := call(t, box, name, "/hello"); !strings.Contains(got, "world") {
						t.Errorf("%q", got)
					}
					if err := json.Unmarshal([]byte(call(t, box, name, "/environ")), &environments[i]); err != nil {
						t.Error(err)
					}
					if got := environments[i]["OWN"]; got != name {
						t.Errorf("%s has the environment of %q", name, got)
					}
					delete(environments[i], "OWN")
					if where := call(t, box, name, "/cwd"); tier != "none" && where != "/fn/code" {
						t.Errorf("runs in %s", where)
					}
					call(t, box, name, "/tmp")
				}
				if tier != "none" && fmt.Sprint(environments[0]) != fmt.Sprint(environments[2]) {
					t.Errorf("from a spare %v\nwithout %v", environments[0], environments[2])
				}
				all, err := box.List(t.Context())
				if err != nil || len(all) != 3 || all[0].Concurrency != 3 || all[0].Deployment != "d" {
					t.Errorf("%+v, %v", all, err)
				}
				for i := range 3 {
					if err := box.Stop(t.Context(), "i"+strconv.Itoa(i)); err != nil {
						t.Error(err)
					}
				}
				until(t, "empty directory", func() bool { // the last spares end by themselves
					left, err := os.ReadDir(filepath.Join(dir, "run"))
					return err == nil && len(left) == 0
				})
			})
		}
	}
}

// TestDriverWithSpares runs the suite on a Box that has spares for most starts.
func TestDriverWithSpares(t *testing.T) {
	t.Parallel()
	for i, tier := range spared {
		f := fixtures[i%2]
		t.Run(tier+"/"+f.key, func(t *testing.T) {
			t.Parallel()
			box := openTier(t, t.TempDir(), tier, f.key)
			warm(t, box, runtimeOf(t, box, f.key), 4)
			sandboxtest.Run(t, sandboxtest.Target{ // what comes and goes besides instances are spares, so it cannot tell what is left
				Driver: box, Runtime: runtimeOf(t, box, f.key), Source: f.source(t), Entrypoint: f.entrypoint, Lacks: slices.Collect(maps.Keys(f.lacks)),
			})
		})
	}
}

// TestWarmOfWhatHasNoSpares asks for what means nothing, and for what there is not.
func TestWarmOfWhatHasNoSpares(t *testing.T) {
	t.Parallel()
	box := openTier(t, t.TempDir(), "restricted", "node", "go")
	caps, err := box.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range caps.Runtimes {
		if err := box.Warm(t.Context(), r.ID, 3); err != nil || r.Spares || box.Spares(r.ID) != 0 {
			t.Errorf("%s: %v, %+v", r.ID, err, r)
		}
	}
	if err := box.Warm(t.Context(), "cobol-60", 1); !errors.Is(err, sandbox.ErrRuntime) {
		t.Error(err)
	}
	full := open(t, "node", "go")
	if caps, err = full.Capabilities(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range caps.Runtimes {
		if r.Spares != (r.Key == "node") {
			t.Errorf("%s: spares %v", r.ID, r.Spares)
		}
	}
}

// TestSpareIsReplaced has spares be used, and die.
func TestSpareIsReplaced(t *testing.T) {
	t.Parallel()
	for _, tier := range spared {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			box := openTier(t, dir, tier, "node")
			spec := function(t, box, `module.exports = ({res}) => res.text('fine')`)
			warm(t, box, spec.Runtime, 1)
			for i := range 3 {
				spec.ID = "i" + strconv.Itoa(i)
				start(t, box, spec)
				if !box.FromSpare(spec.ID) {
					t.Errorf("start %d found no spare", i)
				}
				until(t, "new spare", func() bool { return box.Spares(spec.Runtime) == 1 })
				if err := box.Stop(t.Context(), spec.ID); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, dir)
			for _, p := range before {
				syscall.Kill(p.pid, syscall.SIGKILL)
			}
			dies(t, before...)
			until(t, "new spare", func() bool { return len(tree(t, dir)) > 0 && box.Spares(spec.Runtime) == 1 }) // in this order: until it has begun, the dead one may count
			spec.ID = "after"
			start(t, box, spec)
			if got := call(t, box, "after", "/"); got != "fine" || !box.FromSpare("after") {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestSparesEnd has them end when none are asked for any more, and with the Box.
func TestSparesEnd(t *testing.T) {
	t.Parallel()
	for _, tier := range spared {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			box := openTier(t, dir, tier, "node")
			id := runtimeOf(t, box, "node")
			warm(t, box, id, 3)
			if all, err := box.List(t.Context()); err != nil || len(all) > 0 {
				t.Errorf("%v, %v: a spare is no instance", all, err)
			}
			all := tree(t, dir)
			if len(all) < 3 {
				t.Fatalf("processes %v", all)
			}
			warm(t, box, id, 0)
			dies(t, all...)
			warm(t, box, id, 2)
			all = tree(t, dir)
			if err := box.Close(); err != nil {
				t.Fatal(err)
			}
			dies(t, all...)
			if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
			if err := box.Warm(t.Context(), id, 1); err == nil {
				t.Error("a closed box is warmed")
			}
		})
	}
}

// TestDeadOwnersSparesEnd leaves spares that are not confined: they see that their
// channel closes.
func TestDeadOwnersSparesEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runtimeOf(t, open(t, "node"), "node")
	all := killOwner(t, dir, "none", 2)
	spares := 0
	for _, p := range all {
		if strings.Contains(p.args, "node.cjs") {
			spares++
			dies(t, p)
		}
	}
	if spares < 2 {
		t.Errorf("%d processes of spares and instances among %v", spares, all)
	}
	openAt(t, dir, "node")
	dies(t, all...)
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestSpareLimits has a function that was bound to a spare use more than it may.
func TestSpareLimits(t *testing.T) {
	t.Parallel()
	box := open(t, "node")
	c, err := box.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	spec := function(t, box, `const fs = require('fs');
const all = []; module.exports = ({req, res}) => {
  while (req.path === '/bomb') all.push(Buffer.alloc(8 << 20, 1));
  const piece = Buffer.alloc(1 << 20);
  try { for (let i = 0; i < 90; i++) fs.appendFileSync('/tmp/big', piece); } catch (e) { return res.text(e.code); }
  fs.unlinkSync('/tmp/big');
  return res.text('fits');
}`)
	warm(t, box, spec.Runtime, 1)
	for _, memory := range []int64{160 << 20, 400 << 20} { // half of it can be written
		spec.ID, spec.Memory = fmt.Sprint(memory), memory
		until(t, "spare", func() bool { return box.Spares(spec.Runtime) == 1 })
		start(t, box, spec)
		if !box.FromSpare(spec.ID) {
			t.Error("there was no spare")
		}
		want := map[int64]string{160 << 20: "ENOSPC", 400 << 20: "fits"}[memory]
		if got := call(t, box, spec.ID, "/"); got != want && c.Isolation >= sandbox.IsolationUserNS {
			t.Errorf("with %d: %q, want %q", memory, got, want)
		}
		if !strings.Contains(fmt.Sprint(c.Limits), "memory") {
			require.Missing(t, "memory", strings.Join(c.Notes, "; "))
		}
		var a answer
		res, err := box.Invoke(t.Context(), spec.ID, sandbox.Request{Method: "GET", Path: "/bomb"}, &a)
		want = fmt.Sprintf("more than the memory limit of %d MiB was used", memory>>20)
		if err != nil || !strings.HasPrefix(res.Crash, want) {
			t.Errorf("%v, %+v, want %s", err, res, want)
		}
	}
}

// TestCodeThatExitsFailsStartOfSpare is the code's fault, and nobody else's.
func TestCodeThatExitsFailsStartOfSpare(t *testing.T) {
	t.Parallel()
	box := open(t, "node")
	spec := function(t, box, `process.stderr.write('no licence\n'); process.exit(5)`)
	warm(t, box, spec.Runtime, 1)
	var load *sandbox.LoadError
	if _, err := box.Start(t.Context(), spec); !errors.As(err, &load) || load.Reason != "exit status 5: no licence" {
		t.Errorf("%v, want what it printed", err)
	}
	until(t, "new spare", func() bool { return box.Spares(spec.Runtime) == 1 })
	good := function(t, box, `module.exports = ({res}) => res.text('ok')`)
	start(t, box, good)
	if got := call(t, box, "i1", "/"); got != "ok" {
		t.Errorf("%q", got)
	}
	if _, err := box.Start(t.Context(), good); err == nil {
		t.Error("two instances of one id")
	}
}

// TestBurst starts many instances at once: spares serve the first, and of the others
// no more start at once than may.
func TestBurst(t *testing.T) {
	t.Parallel()
	box := open(t, "python")
	id := runtimeOf(t, box, "python")
	const calls, spares = 100, 8
	warm(t, box, id, spares)
	code := sourceOf(t, "python")
	over := make(chan struct{})
	var most int
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			n, may := box.Starting()
			if most = max(most, n); n > may {
				t.Errorf("%d start at once, more than %d", n, may)
			}
			select {
			case <-over:
				return
			default:
				syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 200})
			}
		}
	})
	var starts sync.WaitGroup
	for i := range calls {
		starts.Go(func() {
			name := "i" + strconv.Itoa(i)
			if _, err := box.Start(t.Context(), sandbox.Spec{ID: name, Runtime: id, Dir: code, Entrypoint: "main.py", Memory: 128 << 20}); err != nil {
				t.Error(err)
				return
			}
			call(t, box, name, "/hello")
		})
	}
	starts.Wait()
	close(over)
	watching.Wait()
	fromSpares := 0
	for i := range calls {
		if box.FromSpare("i" + strconv.Itoa(i)) {
			fromSpares++
		}
	}
	if fromSpares < spares || most == 0 {
		t.Errorf("%d of %d were spares of %d; %d started at once", fromSpares, calls, spares, most)
	}
}

// TestNetworkPolicy has functions try the network under each policy, from spares
// and without.
func TestNetworkPolicy(t *testing.T) {
	t.Parallel()
	requireTier(t, "full")
	const tries = `const net = require('net');
module.exports = async ({res}) => res.text(await new Promise((done) => {
  const s = net.connect(1, '127.0.0.1');
  s.on('error', (e) => done(e.code)).on('connect', () => done('connected'));
}))`
	const off, on = "EACCES", "ECONNREFUSED"
	for allowed, policies := range map[string]map[sandbox.Network]string{
		"none": {sandbox.NetworkDefault: off, sandbox.NetworkNone: off, sandbox.NetworkHost: ""},
		"host": {sandbox.NetworkDefault: on, sandbox.NetworkNone: off, sandbox.NetworkHost: on},
	} {
		t.Run(allowed, func(t *testing.T) {
			t.Parallel()
			box := openBox(t, procbox.Config{Dir: t.TempDir(), Languages: []string{"node"}, Network: allowed})
			spec := function(t, box, tries)
			warm(t, box, spec.Runtime, 1)
			for round := range 2 {
				for policy, want := range policies {
					spec.ID, spec.Network = fmt.Sprintf("%s%d", policy, round), policy
					if want == "" {
						if _, err := box.Start(t.Context(), spec); !errors.Is(err, sandbox.ErrNetwork) {
							t.Errorf("%q where %q is allowed: %v, want ErrNetwork", policy, allowed, err)
						}
						continue
					}
					start(t, box, spec)
					if got := call(t, box, spec.ID, "/"); got != want {
						t.Errorf("%q where %q is allowed, spare %v: %q, want %q", policy, allowed, box.FromSpare(spec.ID), got, want)
					}
				}
			}
		})
	}
}

// TestBytecode builds a Python function and has it say where a module comes from that
// was spoilt after the build, as no artefact is: it is not compiled again. What cannot
// be compiled fails no build.
func TestBytecode(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"full", "none"} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			box := openTier(t, t.TempDir(), tier, "python")
			id := runtimeOf(t, box, "python")
			dir := t.TempDir()
			for name, text := range map[string]string{
				"main.py":   "from function import part\ndef main(context):\n    return context.res.text(part.value)\n",
				"part.py":   "value = 'as it was built'\n",
				"broken.py": "def\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, err := box.Build(t.Context(), sandbox.BuildSpec{Runtime: id, Dir: dir, Entrypoint: "main.py", Env: map[string]string{"PYTHONHOME": "/none"}}, t.Output())
			if err != nil || r.Failure != "" {
				t.Fatal(r, err)
			}
			if err := os.WriteFile(filepath.Join(dir, "part.py"), []byte("value = 'compiled again'\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			start(t, box, sandbox.Spec{ID: "i", Runtime: id, Dir: dir, Entrypoint: "main.py"})
			if got := call(t, box, "i", "/"); got != "as it was built" {
				t.Errorf("%q", got)
			}
			caches, err := filepath.Glob(filepath.Join(dir, "__pycache__", "part.*.pyc"))
			if err != nil || len(caches) != 1 {
				t.Fatal(caches, err)
			}
			if err := os.WriteFile(caches[0], []byte("of another version, or nonsense"), 0o600); err != nil {
				t.Fatal(err)
			}
			start(t, box, sandbox.Spec{ID: "j", Runtime: id, Dir: dir, Entrypoint: "main.py"})
			if got := call(t, box, "j", "/"); got != "compiled again" {
				t.Errorf("%q", got)
			}
		})
	}
}
