//go:build unix

package procbox_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

// source is the folder of a function.
func (f fixture) source(t testing.TB) string {
	t.Helper()
	if f.folder != "" {
		return filepath.Join("testdata", f.folder)
	}
	require.Command(t, "go")
	dir, err := execProgram()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

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
	r, ok := runtimeNamed(t, box, key)
	if !ok {
		require.Missing(t, key, "no such runtime was found")
	}
	return r.ID
}

func runtimeNamed(t testing.TB, box sandbox.Driver, key string) (r sandbox.Runtime, ok bool) {
	t.Helper()
	c, err := box.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.Runtimes, func(r sandbox.Runtime) bool { return r.Key == key })
	if i < 0 {
		return r, false
	}
	return c.Runtimes[i], true
}
