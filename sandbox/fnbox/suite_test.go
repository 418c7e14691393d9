package fnbox_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/fnbox/testdata/fixture"
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// target is the suite's function in Go.
func target(t testing.TB) sandboxtest.Target {
	return sandboxtest.Target{
		Driver: open(t).Driver, Runtime: fnbox.RuntimeID, Entrypoint: "fixture", Lacks: fixture.Lacks, Open: open,
	}
}

func open(t testing.TB) sandboxtest.Other {
	box := fnbox.New(fixture.Funcs)
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	return sandboxtest.Other{Driver: box}
}

func TestDriver(t *testing.T) {
	t.Parallel()
	sandboxtest.Run(t, target(t))
}

func BenchmarkInvoke(b *testing.B) { sandboxtest.Benchmark(b, target(b)) }
