package pluginbox_test

import (
	"cmp"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/fnbox/testdata/fixture"
	"github.com/fnkit/fnkit/sandbox/pluginbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/sandbox/procbox/testdata/left"
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

// TestDriver runs the suite with each driver behind a plugin.
func TestDriver(t *testing.T) {
	t.Parallel()
	t.Run("fnbox", func(t *testing.T) {
		t.Parallel()
		sandboxtest.Run(t, fnboxTarget(t))
	})
	for _, l := range languages {
		t.Run("procbox-"+l.key+"-"+l.isolation, func(t *testing.T) {
			t.Parallel()
			sandboxtest.Run(t, procboxTarget(t, l))
		})
	}
}

// another returns what opens drivers whose plugin can be watched and killed.
func another(open func(t testing.TB) (box *pluginbox.Box, left func() []string)) func(t testing.TB) sandboxtest.Other {
	return func(t testing.TB) sandboxtest.Other {
		box, files := open(t)
		return sandboxtest.Other{
			Driver: box,
			Left: func(testing.TB) []string {
				pid := box.Pid()
				if pid == 0 {
					return files()
				}
				return append(files(), append(left.Descriptors(pid), "plugin")...)
			},
			Kill: func(t testing.TB) sandbox.Driver {
				p, err := os.FindProcess(box.Pid())
				if err == nil {
					err = p.Kill()
				}
				if err != nil {
					t.Fatal(err)
				}
				return box
			},
		}
	}
}

func fnboxTarget(t testing.TB) sandboxtest.Target {
	box, _ := open(t, pluginbox.Config{})
	return sandboxtest.Target{
		Driver: box, Runtime: fnbox.RuntimeID, Entrypoint: "fixture", Lacks: fixture.Lacks,
		Open: another(func(t testing.TB) (*pluginbox.Box, func() []string) {
			box, _ := open(t, pluginbox.Config{})
			return box, func() []string { return nil }
		}),
	}
}

type language struct{ key, isolation, entrypoint string }

var languages = []language{{"node", "full", "index.js"}, {"python", "none", "main.py"}}

func procboxTarget(t testing.TB, l language) sandboxtest.Target {
	open := another(func(t testing.TB) (*pluginbox.Box, func() []string) {
		dir := t.TempDir()
		box, _ := openProcbox(t, dir, l.key, l.isolation)
		return box, func() []string { return left.Of(dir) }
	})
	box := open(t).Driver
	missing := require.Missing
	if l.isolation == "none" {
		missing = nil
	}
	return sandboxtest.Target{
		Missing: missing,
		Driver:  box, Runtime: runtimeOf(t, box, l.key), Source: "../procbox/testdata/" + l.key, Entrypoint: l.entrypoint, Open: open,
	}
}

// openProcbox opens a plugin that serves procbox on a directory.
func openProcbox(t testing.TB, dir, languages, isolation string) (*pluginbox.Box, *journal) {
	t.Helper()
	return open(t, pluginbox.Config{}, "-dir", dir, "-path", cmp.Or(os.Getenv("PATH"), procbox.DefaultPath),
		"-languages", languages, "-isolation", isolation, "-gocache", goCache())
}

var goCache = sync.OnceValue(func() string {
	out, _ := exec.Command("go", "env", "GOCACHE").Output()
	return strings.TrimSpace(string(out))
})

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
