package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/sandbox/procbox/testdata/left"
)

// TestIdleFunctions deploys functions and calls each once: as long as they may, their
// instances stay, and then nothing is left of them, until they are called again. Of real
// processes there are as many as a small machine starts in a few seconds.
func TestIdleFunctions(t *testing.T) {
	t.Parallel()
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		comeAndGo(t, 30, fnbox.New(fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error { return c.Empty() }}), fnbox.RuntimeID, "f", "")
	})
	t.Run("processes", func(t *testing.T) {
		t.Parallel()
		require.Command(t, "node")
		dir := filepath.Join(t.TempDir(), "box")
		box, err := procbox.New(procbox.Config{Dir: dir, Path: os.Getenv("PATH"), Languages: []string{"node"}})
		if err != nil {
			t.Fatal(err)
		}
		caps, err := box.Capabilities(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		comeAndGo(t, 8, box, caps.Runtimes[0].ID, "index.js", "module.exports = ({ res }) => res.empty();")
		eventually(t, func() (string, bool) { // the last one may just be ending
			left := strings.Join(left.Of(dir), ", ")
			return left, !strings.Contains(left, "process")
		})
	})
}

func comeAndGo(t *testing.T, n int, box sandbox.Driver, runtime, entrypoint, code string) {
	t.Helper()
	mock := clock.NewMock()
	mock.Set(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	h := start(t, box, func(c *engine.Config) {
		c.Clock, c.Instances.Max, c.Instances.Idle, c.Instances.Spares = mock, n, time.Hour, -1
		c.Work.Poll, c.Work.Lease = 100*time.Hour, 100*time.Hour // a jump is no death
	})
	instances := func() int {
		all, err := box.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	call := func(id string) {
		t.Helper()
		if x := h.execute(t, id, engine.ExecuteParams{}); x.ResponseStatusCode != 204 {
			t.Fatalf("%+v", x.Execution)
		}
	}
	for i := range n {
		id := fmt.Sprintf("f%d", i)
		h.function(t, id, runtime, entrypoint)
		h.deploy(t, id, map[string]string{entrypoint: code})
		call(id)
	}
	mock.Add(time.Hour - time.Second)
	if got := instances(); got != n {
		t.Errorf("there are %d instances, want %d", got, n)
	}
	eventually(t, func() (int, bool) { // the loop may not have asked the clock yet
		mock.Add(time.Second)
		return instances(), instances() == 0
	})
	call("f0")
	if got := instances(); got != 1 {
		t.Errorf("there are %d instances, want 1", got)
	}
	eventually(t, func() (int, bool) {
		mock.Add(time.Hour)
		return instances(), instances() == 0
	})
}
