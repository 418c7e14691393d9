package procbox_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

type fixture struct {
	key, entrypoint string
	lacks           []string
}

// fixtures are the functions of testdata, one for each language.
var fixtures = []fixture{
	{"node", "index.js", nil},
	{"python", "main.py", nil},
	{"bun", "index.ts", nil},
	{"deno", "index.ts", nil},
	{"php", "index.php", []string{"closed"}},
	{"ruby", "index.rb", []string{"closed"}},
	{"go", "main.go", []string{"load", "native", "cookies", "body-json-charset", "body-json-bad", "stream", "breaks", "endless", "closed"}},
	{"exec", "server", []string{
		"load", "native", "noreturn", "record", "type", "crlf", "throw", // there is no context
		"cancel", "cancel-loop", "concurrency", "slow-reader", // it serves one call at once
	}},
}

// source is the folder of a function.
func (f fixture) source(t testing.TB) string {
	t.Helper()
	if f.key == "bun" || f.key == "deno" {
		return filepath.Join("testdata", "typescript")
	}
	if f.key != "exec" {
		return filepath.Join("testdata", f.key)
	}
	require.Command(t, "go")
	dir, err := execProgram()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// builtProgram is the folder that execProgram made; TestMain removes it.
var builtProgram string

// execProgram compiles the program of testdata/exec once, and returns its folder.
var execProgram = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "fnkit-exec-"); err != nil {
		return "", err
	}
	builtProgram = dir
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "server"), "./testdata/exec/main.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// TestDriver runs the suite at the best tier in all languages, and at each other in
// one; TestTiers tries the rest.
func TestDriver(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures {
		t.Run(f.key, func(t *testing.T) {
			t.Parallel()
			suite(t, open(t, f.key), f)
		})
	}
	for _, tier := range []string{"userns", "restricted", "none"} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			suite(t, openTier(t, t.TempDir(), tier, "python"), fixtures[1])
		})
	}
}

func suite(t *testing.T, box *procbox.Box, f fixture) {
	t.Helper()
	sandboxtest.Run(t, sandboxtest.Target{
		Driver: box, Runtime: runtimeOf(t, box, f.key), Source: f.source(t), Entrypoint: f.entrypoint, Lacks: f.lacks,
	})
}

func BenchmarkInvoke(b *testing.B) {
	for _, f := range fixtures {
		for _, tier := range []string{"none", "full"} {
			b.Run(f.key+"/"+tier, func(b *testing.B) {
				box := openTier(b, b.TempDir(), tier, f.key)
				sandboxtest.Benchmark(b, sandboxtest.Target{
					Driver: box, Runtime: runtimeOf(b, box, f.key), Source: f.source(b), Entrypoint: f.entrypoint,
				})
			})
		}
	}
}

// open opens a Box on a directory of its own, for some languages or all.
func open(t testing.TB, languages ...string) *procbox.Box {
	t.Helper()
	return openAt(t, t.TempDir(), languages...)
}

func openAt(t testing.TB, dir string, languages ...string) *procbox.Box {
	t.Helper()
	return openBox(t, procbox.Config{Dir: dir, Languages: languages})
}

// openTier opens a Box of a tier, or skips the test.
func openTier(t testing.TB, dir, tier string, languages ...string) *procbox.Box {
	t.Helper()
	requireTier(t, tier)
	return openBox(t, procbox.Config{Dir: dir, Languages: languages, Isolation: tier})
}

// openBox opens a Box with the machine's tools. The cache of the go command is the
// user's own: what is compiled here is trusted.
func openBox(t testing.TB, cfg procbox.Config) *procbox.Box {
	t.Helper()
	cfg.Path, cfg.GoCache = cmp.Or(os.Getenv("PATH"), procbox.DefaultPath), goCache()
	box, err := procbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	return box
}

var goCache = sync.OnceValue(func() string {
	out, _ := exec.Command("go", "env", "GOCACHE").Output()
	return strings.TrimSpace(string(out))
})

// confined are the tiers that confine, the best first.
var confined = []string{"full", "userns", "restricted"}

// reached are the tiers that this machine has, and why it has not the others.
var reached = sync.OnceValue(func() map[string]string {
	why := map[string]string{"none": ""}
	for _, tier := range confined {
		dir, err := os.MkdirTemp("", "fnkit-tier-")
		if err == nil {
			defer os.RemoveAll(dir)
			why[tier], err = missing(dir, tier)
		}
		if err != nil {
			why[tier] = err.Error()
		}
	}
	return why
})

func missing(dir, tier string) (why string, err error) {
	box, err := procbox.New(procbox.Config{Dir: dir, Isolation: tier, Languages: []string{"none"}})
	if err != nil {
		return "", err
	}
	c, err := box.Capabilities(context.Background())
	if err == nil && c.Isolation.String() != tier {
		why = strings.Join(c.Notes, "; ")
	}
	return why, errors.Join(err, box.Close())
}

// requireTier skips the test if the machine does not reach a tier of isolation.
func requireTier(t testing.TB, tier string) {
	t.Helper()
	if why := reached()[tier]; why != "" {
		require.Missing(t, "isolation", why)
	}
}

// runtimeOf returns a language's runtime on this machine, or skips the test.
func runtimeOf(t testing.TB, box sandbox.Driver, key string) string {
	t.Helper()
	c, err := box.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Runtimes {
		if r.Key == key {
			return r.ID
		}
	}
	require.Missing(t, key, "no such runtime was found")
	return ""
}
