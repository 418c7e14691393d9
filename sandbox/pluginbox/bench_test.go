package pluginbox_test

import (
	"cmp"
	"os"
	"testing"

	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/fnbox/testdata/fixture"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

// BenchmarkInvoke makes warm calls of the same drivers here and behind a plugin.
func BenchmarkInvoke(b *testing.B) {
	b.Run("fnbox/here", func(b *testing.B) {
		target := fnboxTarget(b)
		target.Driver = fnbox.New(fixture.Funcs)
		sandboxtest.Benchmark(b, target)
	})
	b.Run("fnbox/plugin", func(b *testing.B) { sandboxtest.Benchmark(b, fnboxTarget(b)) })
	l := languages[0]
	b.Run("procbox/here", func(b *testing.B) {
		target := procboxTarget(b, l)
		box, err := procbox.New(procbox.Config{
			Dir: b.TempDir(), Path: cmp.Or(os.Getenv("PATH"), procbox.DefaultPath), Languages: []string{l.key}, Isolation: l.isolation,
		})
		if err != nil {
			b.Fatal(err)
		}
		defer box.Close()
		target.Driver = box
		sandboxtest.Benchmark(b, target)
	})
	b.Run("procbox/plugin", func(b *testing.B) { sandboxtest.Benchmark(b, procboxTarget(b, l)) })
}
