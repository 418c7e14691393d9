package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// warmed is a driver whose runtimes have spares; it notes how many are asked for.
type warmed struct {
	sandbox.Driver
	mu    sync.Mutex
	asked []int
}

func (w *warmed) Capabilities(ctx context.Context) (sandbox.Capabilities, error) {
	c, err := w.Driver.Capabilities(ctx)
	for i := range c.Runtimes {
		c.Runtimes[i].Spares = true
	}
	return c, err
}

func (w *warmed) Warm(ctx context.Context, runtime string, n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, n)
	return w.Driver.Warm(ctx, runtime, n)
}

func (w *warmed) take() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

// TestSparesFollowDemand moves the clock from cold starts to long after them.
func TestSparesFollowDemand(t *testing.T) {
	t.Parallel()
	for spares, want := range map[int]string{
		0:  "built [1]; 1 started [2]; 6 started [4]; later [3 2 1 0]; later []",
		2:  "built [1]; 1 started [2]; 6 started []; later [1 0]; later []",
		-1: "built []; 1 started []; 6 started []; later []; later []",
	} {
		t.Run(strconv.Itoa(spares), func(t *testing.T) {
			t.Parallel()
			var box *warmed
			funcs := fnbox.Funcs{}
			for i := range 7 {
				funcs[fmt.Sprintf("f%d", i)] = quiet
			}
			kit := enginetest.New(t, funcs, func(c *engine.Config) {
				box = &warmed{Driver: c.Sandbox}
				c.Sandbox, c.Instances.Spares = box, spares
			})
			for name := range funcs {
				kit.Deploy("shop", engine.FunctionParams{ID: name})
			}
			got := []string{fmt.Sprint("built ", box.take())}
			call := func(name string) {
				t.Helper()
				if x, err := kit.Project("shop").Execute(t.Context(), engine.System, name, engine.ExecuteParams{}); err != nil || x.Status != store.ExecutionCompleted {
					t.Fatalf("%+v, %v", x, err)
				}
			}
			call("f0")
			kit.Drain()
			got = append(got, fmt.Sprint("1 started ", box.take()))
			for i := 1; i < 7; i++ {
				call("f" + strconv.Itoa(i))
			}
			kit.Drain()
			got = append(got, fmt.Sprint("6 started ", box.take()))
			for range 2 {
				for range 60 {
					kit.Advance(time.Minute)
					kit.Drain()
				}
				got = append(got, fmt.Sprint("later ", box.take()))
			}
			if got := strings.Join(got, "; "); got != want {
				t.Errorf("spares\n%s, want\n%s", got, want)
			}
		})
	}
}

// TestSparesEndWithTheEngine is about an engine whose loops run.
func TestSparesEndWithTheEngine(t *testing.T) {
	t.Parallel()
	box := &warmed{Driver: funcs(quiet)}
	h := open(t, box)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.stop(t)
	h.ready(t, "f")
	h.execute(t, "f", engine.ExecuteParams{})
	eventually(t, func() ([]int, bool) {
		box.mu.Lock()
		defer box.mu.Unlock()
		asked := slices.Clone(box.asked)
		return asked, len(asked) > 0 && asked[len(asked)-1] > 0
	})
	h.stop(t)
	if asked := box.take(); asked[len(asked)-1] != 0 {
		t.Errorf("spares asked for: %v, want 0 at the end", asked)
	}
}
