package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite/sqlitetest"
)

// onStores runs a test on a store of every kind. connect opens the store once
// more, as another process would.
func onStores(t *testing.T, test func(t *testing.T, connect func(t *testing.T) store.Store)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "fnkit.db")
		test(t, func(t *testing.T) store.Store { return opened(t)(sqlitetest.Open(t, file), nil) })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dsn := postgrestest.DSN(t)
		test(t, func(t *testing.T) store.Store { return opened(t)(postgres.Open(t.Context(), dsn)) })
	})
}

// opened closes a store when the test ends.
func opened(t *testing.T) func(store.Store, error) store.Store {
	return func(s store.Store, err error) store.Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
}

// Several engines, each with a clock a little off, fire every tick once.
func TestEnginesDoNotFireTwice(t *testing.T) {
	onStores(t, func(t *testing.T, connect func(*testing.T) store.Store) {
		const ticks = 6 * 12
		var kits []*enginetest.Kit
		for i := range 3 {
			s := connect(t)
			k := enginetest.New(t, fnbox.Funcs{"f": quiet}, func(c *engine.Config) {
				if c.Store = s; i > 0 {
					c.Blobs = kits[0].Config().Blobs
				}
			})
			k.Clock.Add(time.Duration(i) * time.Second)
			kits = append(kits, k)
		}
		kits[0].Deploy("shop", engine.FunctionParams{ID: "f", Schedule: "*/10 * * * *"})
		errs := make(chan error, len(kits))
		for _, k := range kits {
			go func() {
				for range ticks {
					k.Clock.Add(10 * time.Minute)
					if _, _, err := k.Step(t.Context()); err != nil {
						errs <- err
						return
					}
				}
				errs <- nil
			}()
		}
		for range kits {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		for at := enginetest.Epoch.Add(10 * time.Minute); len(want) < ticks; at = at.Add(10 * time.Minute) {
			want = append(want, at.Format("02T15:04"))
		}
		got := firedAt(kits[0], time.UTC)
		slices.Sort(got)
		// Who is late finds several ticks missed, and makes one run for them:
		// none is made twice, and the last one is made.
		if len(slices.Compact(slices.Clone(got))) != len(got) || got[len(got)-1] != want[ticks-1] {
			t.Errorf("%d runs of %d ticks: %v", len(got), ticks, got)
		}
		for _, at := range got {
			if !slices.Contains(want, at) {
				t.Errorf("a run at %s, which is no tick", at)
			}
		}
	})
}

// Several engines share the work that any of them accepted, and do each piece
// of it once.
func TestEnginesShareWork(t *testing.T) {
	onStores(t, func(t *testing.T, connect func(*testing.T) store.Store) {
		var mu sync.Mutex
		ran := map[string]int{}
		funcs := fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
			mu.Lock()
			defer mu.Unlock()
			ran[c.Req.Text()]++
			return c.Text(http.StatusOK, "")
		}}
		var hosts []*host
		for range 3 {
			s := connect(t)
			hosts = append(hosts, start(t, fnbox.New(funcs), func(c *engine.Config) {
				if c.Store = s; len(hosts) > 0 {
					c.Blobs = hosts[0].cfg.Blobs
				}
				c.Work.Runs, c.Work.Poll = 4, 20*time.Millisecond
			}))
		}
		hosts[0].function(t, "f", fnbox.RuntimeID, "f")
		hosts[0].deploy(t, "f", map[string]string{"README": ""})
		const n = 120
		var queued []engine.Execution
		for i := range n {
			x := hosts[i%len(hosts)].execute(t, "f", engine.ExecuteParams{Async: true, Body: fmt.Append(nil, i)})
			queued = append(queued, x.Execution)
		}
		for _, x := range queued {
			if x := hosts[0].ended(t, x); x.Status != "completed" || x.Attempt != 1 {
				t.Errorf("got %+v", x)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range n {
			if ran[fmt.Sprint(i)] != 1 {
				t.Errorf("%d ran %d times", i, ran[fmt.Sprint(i)])
			}
		}
	})
}

// On Postgres an engine hears of what others accept; it does not look for it.
func TestEnginesHearOfEachOther(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	seldom := func(t *testing.T) func(*engine.Config) {
		s := opened(t)(postgres.Open(t.Context(), dsn))
		return func(c *engine.Config) { c.Store, c.Work.Poll, c.Clock = s, time.Hour, clock.New() }
	}
	run, runs := counting()
	b := start(t, fnbox.New(fnbox.Funcs{"f": run}), seldom(t))
	a := enginetest.New(t, fnbox.Funcs{}, seldom(t), func(c *engine.Config) { c.Blobs, c.Keys = b.cfg.Blobs, b.cfg.Keys }).Project("shop")
	if _, err := a.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: fnbox.RuntimeID, Entrypoint: "f"}); err != nil {
		t.Fatal(err)
	}
	d, err := a.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Source: bytes.NewReader(archived(t, map[string]string{"README": ""})), Size: -1, Activate: true})
	if err != nil {
		t.Fatal(err)
	}
	if d := b.built(t, d); d.Status != "ready" {
		t.Fatalf("%+v", d)
	}
	x, err := a.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Async: true})
	if err != nil {
		t.Fatal(err)
	}
	if x := b.ended(t, x.Execution); x.Status != "completed" || runs.Load() != 1 {
		t.Errorf("%+v, %d runs", x, runs.Load())
	}
}
