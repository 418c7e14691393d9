//go:build unix

package procbox_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
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

// TestTiers builds, starts, calls and stops a function of each language at each
// tier.
func TestTiers(t *testing.T) {
	t.Parallel()
	for _, tier := range append(slices.Clone(confined), "none") {
		for _, f := range fixtures {
			t.Run(tier+"/"+f.key, func(t *testing.T) {
				t.Parallel()
				box := openTier(t, t.TempDir(), tier, f.key)
				if why, ok := f.notAt[tier]; ok {
					if r, ok := runtimeNamed(t, box, f.key); ok {
						t.Errorf("%s is offered", r.ID)
					}
					t.Skip(why)
				}
				code := t.TempDir()
				if err := os.CopyFS(code, os.DirFS(f.source(t))); err != nil {
					t.Fatal(err)
				}
				id := runtimeOf(t, box, f.key)
				var logs bytes.Buffer
				r, err := box.Build(t.Context(), sandbox.BuildSpec{
					Runtime: id, Dir: code, Entrypoint: f.entrypoint, Commands: "echo built > $HOME/note && cat $HOME/note && mktemp && date", Memory: 1 << 30, CPUs: 2,
				}, &logs)
				if err != nil || r.Failure != "" || !strings.HasPrefix(logs.String(), "built\n") {
					t.Fatalf("%+v, %v\n%s", r, err, &logs)
				}
				start(t, box, sandbox.Spec{ID: "i", Runtime: id, Dir: code, Entrypoint: f.entrypoint, Memory: 256 << 20, CPUs: 2})
				for range 2 {
					if got := call(t, box, "i", "/hello"); !strings.Contains(got, "world") {
						t.Errorf("%q", got)
					}
				}
				if file := call(t, box, "i", "/tmp"); !filepath.IsAbs(file) {
					t.Errorf("temporary file %q", file)
				}
				call(t, box, "i", "/child")
				if err := box.Stop(t.Context(), "i"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestLimitIsNamed has a function use more memory than it may.
func TestLimitIsNamed(t *testing.T) {
	t.Parallel()
	box := open(t, "node")
	c, err := box.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(c.Limits, "memory") {
		require.Missing(t, "memory", strings.Join(c.Notes, "; "))
	}
	spec := function(t, box, `const all = []; module.exports = ({req, res}) => {
  while (req.path === '/bomb') all.push(Buffer.alloc(8 << 20, 1));
  return res.text('fine');
}`)
	spec.Memory = 128 << 20
	start(t, box, spec)
	if got := call(t, box, "i1", "/"); got != "fine" {
		t.Errorf("%q", got)
	}
	var a answer
	res, err := box.Invoke(t.Context(), "i1", sandbox.Request{Method: "GET", Path: "/bomb"}, &a)
	if err != nil || !strings.HasPrefix(res.Crash, "more than the memory limit of 128 MiB was used: signal: killed") || !res.Retire {
		t.Errorf("%v, %+v", err, res)
	}
	r, err := box.Build(t.Context(), sandbox.BuildSpec{
		Runtime: spec.Runtime, Dir: spec.Dir, Entrypoint: "index.js", Memory: 64 << 20,
		Commands: `node -e "const all = []; for (;;) all.push(Buffer.alloc(8 << 20, 1))"`,
	}, &bytes.Buffer{})
	if err != nil || r.Failure != "more than the memory limit of 64 MiB was used" {
		t.Errorf("build: %+v, %v", r, err)
	}
}

// TestProcessLimitIsNamed has a function start more threads than it may, which is
// quicker than processes, and answer 503, and later another fail for its own reasons.
func TestProcessLimitIsNamed(t *testing.T) {
	t.Parallel()
	box := open(t, "python")
	c, err := box.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(c.Limits, "pids") {
		require.Missing(t, "pids", strings.Join(c.Notes, "; "))
	}
	f := deploy(t, "python", "main.py", "", source{"main.py": `import threading
def main(context):
    if context.req.path == "/fails":
        raise RuntimeError("on purpose")
    over, threads = threading.Event(), []
    try:
        while len(threads) < 1000:
            thread = threading.Thread(target=over.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        return context.res.text("", 503)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return context.res.text("no limit")
`})
	const named = "the limit of 512 processes and threads was reached\n"
	for range 2 {
		if r := f.get("/"); r.status != 503 || r.logs[sandbox.Stderr].String() != named {
			t.Errorf("status %d, errors %q, want %q", r.status, &r.logs[sandbox.Stderr], named)
		}
		if r := f.get("/fails"); r.status != 500 || strings.Contains(r.logs[sandbox.Stderr].String(), named) {
			t.Errorf("status %d, errors %q, which had nothing to do with the limit", r.status, &r.logs[sandbox.Stderr])
		}
	}
}

// TestBuildDisk has builds write more than they may, quickly and for long, in many
// files and one, and a little.
func TestBuildDisk(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"full", "none"} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			requireTier(t, tier)
			box := openBox(t, procbox.Config{Dir: t.TempDir(), Languages: []string{"node"}, Isolation: tier, BuildDisk: 8 << 20})
			spec := function(t, box, "")
			const over = "more than the disk limit of 8 MiB was used"
			for commands, want := range map[string]string{
				"head -c 9000000 /dev/zero > big": over, "head -c 9000000 /dev/zero > $HOME/big": over,
				"while :; do head -c 1000000 /dev/zero >> $TMPDIR/big; sleep 0.01; done":                         over,
				"i=0; mkdir -p a/b; while :; do head -c 100000 /dev/zero > a/b/$i; i=$((i+1)); sleep 0.01; done": over,
				"head -c 3000000 /dev/zero > fits; exit 3":                                                       "exit status 3",
				"head -c 9000000 /dev/zero > $XDG_CACHE_HOME/big":                                                over,
				"truncate -s 100M sparse":                                                                        "",
				// What is deeper than the kernel takes paths.
				`d=$(printf %200d 0); for i in $(seq 30); do mkdir "$d" && cd -P "$d" || exit 4; done; head -c 3000000 /dev/zero > big`: over,
			} {
				spec.Dir = t.TempDir()
				cache := t.TempDir()
				if err := os.WriteFile(filepath.Join(cache, "old"), make([]byte, 7<<20), 0o600); err != nil { // not this build's doing
					t.Fatal(err)
				}
				r, err := box.Build(t.Context(), sandbox.BuildSpec{Runtime: spec.Runtime, Dir: spec.Dir, Entrypoint: "index.js", Commands: commands, Cache: cache}, t.Output())
				if err != nil || r.Failure != want {
					t.Errorf("%s: %v, %q, want %q", commands, err, r.Failure, want)
				}
			}
		})
	}
}

// TestPackageCacheIsNoLink has a build find a link in its cache, as one without
// isolation may leave it: where it leads is not shown.
func TestPackageCacheIsNoLink(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"full", "none"} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			requireTier(t, tier)
			box := openBox(t, procbox.Config{Dir: t.TempDir(), Languages: []string{"node"}, Isolation: tier})
			spec := function(t, box, "")
			cache, other := t.TempDir(), t.TempDir()
			if err := os.Symlink(other, filepath.Join(cache, "packages")); err != nil {
				t.Fatal(err)
			}
			b := sandbox.BuildSpec{Runtime: spec.Runtime, Dir: spec.Dir, Entrypoint: "index.js", Commands: "touch $XDG_CACHE_HOME/reached", Cache: cache}
			r, err := box.Build(t.Context(), b, t.Output())
			if err == nil {
				t.Errorf("it was built: %+v", r)
			}
			if entries, err := os.ReadDir(other); err != nil || len(entries) > 0 {
				t.Errorf("a build has reached %v, %v", entries, err)
			}
		})
	}
}

// TestPackagesAreOfBuilds: running code does not reach what its builds have kept.
func TestPackagesAreOfBuilds(t *testing.T) {
	t.Parallel()
	for _, tier := range confined {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			box := openTier(t, t.TempDir(), tier, "node")
			cache := t.TempDir()
			kept := filepath.Join(cache, "packages", "kept")
			spec := function(t, box, `const fs = require('fs'); module.exports = ({res}) => res.text(
  [`+strconv.Quote(kept)+`, '/fn/packages/kept', process.env.XDG_CACHE_HOME + '/kept'].filter((name) => { try { return fs.readFileSync(name) } catch { return false } }).join());`)
			b := sandbox.BuildSpec{Runtime: spec.Runtime, Dir: spec.Dir, Entrypoint: "index.js", Commands: "echo x > $XDG_CACHE_HOME/kept", Cache: cache}
			if r, err := box.Build(t.Context(), b, t.Output()); err != nil || r.Failure != "" {
				t.Fatalf("%+v, %v", r, err)
			}
			if _, err := os.Stat(kept); err != nil {
				t.Fatal(err)
			}
			start(t, box, spec)
			if got := call(t, box, "i1", "/"); got != "" {
				t.Errorf("it reaches %s", got)
			}
		})
	}
}

// TestConfigIsChecked lists what New refuses.
func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]procbox.Config{
		"tier": {Isolation: "strong"}, "network": {Network: "on"}, "build network": {BuildNetwork: "yes"},
		"shown": {ReadOnly: []string{"relative"}}, "cache": {GoCache: "relative"}, "cgroup": {Cgroup: "relative"},
	} {
		cfg.Dir = t.TempDir()
		if box, err := procbox.New(cfg); err == nil {
			box.Close()
			t.Errorf("%s: %+v was taken", name, cfg)
		}
	}
}

// TestReadOnly shows a folder of the host.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	for _, tier := range confined {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			requireTier(t, tier)
			shown := t.TempDir()
			if err := os.WriteFile(filepath.Join(shown, "data"), []byte("shown"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(shown, 0o755); err != nil {
				t.Fatal(err)
			}
			box := openBox(t, procbox.Config{Dir: t.TempDir(), Languages: []string{"node"}, Isolation: tier, ReadOnly: []string{shown}})
			start(t, box, function(t, box, `const fs = require('fs'); module.exports = ({res}) => {
  const file = `+strconv.Quote(filepath.Join(shown, "data"))+`;
  try { fs.writeFileSync(file, 'x'); } catch { return res.text(fs.readFileSync(file)); }
  return res.text('written');
}`))
			if got := call(t, box, "i1", "/"); got != "shown" {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestRuntimeElsewhere has an interpreter lie where programs have files of their
// own: below the directory for temporary files, and in a home.
func TestRuntimeElsewhere(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(require.Command(t, "node"))
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("cp", real, filepath.Join(bin, "node")).Run(); err != nil {
		t.Fatal(err)
	}
	for _, tier := range confined {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			requireTier(t, tier)
			box, err := procbox.New(procbox.Config{Dir: t.TempDir(), Languages: []string{"node"}, Isolation: tier, Path: bin + ":/usr/bin:/bin"})
			if err != nil {
				t.Fatal(err)
			}
			defer box.Close()
			spec := function(t, box, `module.exports = ({res}) => res.text(process.execPath)`)
			var logs bytes.Buffer
			build := sandbox.BuildSpec{ID: "b", Runtime: spec.Runtime, Dir: spec.Dir, Entrypoint: "index.js", Commands: "node -p process.execPath"}
			if r, err := box.Build(t.Context(), build, &logs); err != nil || r.Failure != "" || logs.String() != filepath.Join(bin, "node")+"\n" {
				t.Errorf("%+v, %v, %s", r, err, &logs)
			}
			start(t, box, spec)
			if got := call(t, box, "i1", "/"); got != filepath.Join(bin, "node") {
				t.Errorf("runs %s", got)
			}
		})
	}
}

// TestWhatCannotBeShutIn is nobody's code's fault.
func TestWhatCannotBeShutIn(t *testing.T) {
	t.Parallel()
	requireTier(t, "userns")
	none := filepath.Join(t.TempDir(), "none")
	box := openBox(t, procbox.Config{Dir: t.TempDir(), Languages: []string{"node"}, ReadOnly: []string{none}})
	spec := function(t, box, `module.exports = ({res}) => res.text('fine')`)
	want := "it could not be shut in: show " + none + ": no such file or directory"
	var load *sandbox.LoadError
	if _, err := box.Start(t.Context(), spec); err == nil || errors.As(err, &load) || !strings.Contains(err.Error(), want) {
		t.Errorf("start: %v, want %q", err, want)
	}
	build := sandbox.BuildSpec{ID: "b", Runtime: spec.Runtime, Dir: spec.Dir, Entrypoint: "index.js", Commands: "true"}
	if r, err := box.Build(t.Context(), build, &bytes.Buffer{}); err == nil || r.Failure != "" || !strings.Contains(err.Error(), want) {
		t.Errorf("build: %+v, %v, want %q", r, err, want)
	}
}

// BenchmarkStart measures a start, until the function can be called, and the stop
// after it, at each tier, turn by turn, so that all meet the same noise.
func BenchmarkStart(b *testing.B) {
	for _, f := range fixtures[:2] {
		b.Run(f.key, func(b *testing.B) {
			type variant struct {
				name        string
				box         *procbox.Box
				start, stop []time.Duration
			}
			var variants []*variant
			for _, tier := range append([]string{"none"}, confined...) {
				variants = append(variants, &variant{name: tier, box: openTier(b, b.TempDir(), tier, f.key)})
			}
			code := b.TempDir()
			if err := os.CopyFS(code, os.DirFS(f.source(b))); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				for _, v := range variants {
					spec := sandbox.Spec{ID: "i", Runtime: runtimeOf(b, v.box, f.key), Dir: code, Entrypoint: f.entrypoint, Memory: 256 << 20, CPUs: 2}
					began := time.Now()
					if _, err := v.box.Start(context.Background(), spec); err != nil {
						b.Fatal(err)
					}
					started := time.Now()
					if err := v.box.Stop(context.Background(), spec.ID); err != nil {
						b.Fatal(err)
					}
					v.start, v.stop = append(v.start, started.Sub(began)), append(v.stop, time.Since(started))
				}
			}
			for _, v := range variants {
				for what, times := range map[string][]time.Duration{"start": v.start, "stop": v.stop} {
					slices.Sort(times)
					b.ReportMetric(float64(times[0].Microseconds())/1000, v.name+"-"+what+"-min-ms")
					b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, v.name+"-"+what+"-p50-ms")
				}
			}
		})
	}
}
