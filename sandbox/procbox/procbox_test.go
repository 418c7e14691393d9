package procbox_test

import (
	"cmp"
	"os"
	"testing"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

// fixtures are the functions of testdata, one for each language.
var fixtures = []struct {
	key, entrypoint string
	lacks           []string
}{
	{"node", "index.js", nil},
	{"python", "main.py", nil},
	{"php", "index.php", []string{"closed"}},
	{"ruby", "index.rb", []string{"closed"}},
	{"go", "main.go", []string{"load", "native", "cookies", "body-json-charset", "body-json-bad", "stream", "breaks", "endless", "closed"}},
}

func TestDriver(t *testing.T) {
	t.Parallel()
	box := open(t)
	for _, f := range fixtures {
		t.Run(f.key, func(t *testing.T) {
			t.Parallel()
			sandboxtest.Run(t, sandboxtest.Target{
				Driver: box, Runtime: runtimeOf(t, box, f.key), Source: "testdata/" + f.key, Entrypoint: f.entrypoint, Lacks: f.lacks,
			})
		})
	}
}

func BenchmarkInvoke(b *testing.B) {
	box := open(b)
	for _, f := range fixtures {
		b.Run(f.key, func(b *testing.B) {
			sandboxtest.Benchmark(b, sandboxtest.Target{
				Driver: box, Runtime: runtimeOf(b, box, f.key), Source: "testdata/" + f.key, Entrypoint: f.entrypoint,
			})
		})
	}
}

// open opens a Box on a directory of its own, for some languages or all.
func open(t testing.TB, languages ...string) *procbox.Box {
	t.Helper()
	return openAt(t, t.TempDir(), languages...)
}

func openAt(t testing.TB, dir string, languages ...string) *procbox.Box {
	t.Helper()
	box, err := procbox.New(procbox.Config{Dir: dir, Path: cmp.Or(os.Getenv("PATH"), procbox.DefaultPath), Languages: languages})
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
