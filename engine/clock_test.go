package engine_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
)

// clocked is a store whose backend's clock is another than the machine's.
type clocked struct {
	store.Store
	now func(context.Context) (time.Time, bool, error)
}

func (c clocked) Now(ctx context.Context) (time.Time, bool, error) { return c.now(ctx) }

// TestClocksThatDiffer: leases end by the clock that all engines share, unless
// this machine's is too wrong.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	for _, c := range []struct {
		ahead   time.Duration
		none    bool
		err     error
		starts  bool
		offsets time.Duration
	}{
		{0, false, nil, true, 0}, {20 * time.Second, false, nil, true, 20 * time.Second}, {-20 * time.Second, false, nil, true, -20 * time.Second},
		{40 * time.Second, false, nil, false, 0}, {-40 * time.Second, false, nil, false, 0}, {time.Hour, true, nil, true, 0}, {0, false, gone, false, 0},
	} {
		began, gate := make(chan struct{}, 1), make(chan struct{})
		h := open(t, fnbox.New(fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
			began <- struct{}{}
			<-gate
			return c.Text(http.StatusOK, "")
		}}), func(cfg *engine.Config) {
			cfg.Store = clocked{cfg.Store, func(context.Context) (time.Time, bool, error) { return time.Now().Add(c.ahead), !c.none, c.err }}
			cfg.Work.Lease = 2 * time.Minute // a quarter is 30 s
		})
		if err := h.Start(t.Context()); (err == nil) != c.starts || c.err != nil && !errors.Is(err, c.err) {
			t.Fatalf("%+v: %v", c, err)
		}
		if c.starts {
			h.function(t, "f", fnbox.RuntimeID, "f")
			h.deploy(t, "f", map[string]string{"README": ""})
			x := h.execute(t, "f", engine.ExecuteParams{Async: true})
			<-began
			at, _, err := h.cfg.Store.Runs().NextDue(t.Context())
			lease := at.Sub(x.CreatedAt) - 2*time.Minute - c.offsets
			if err != nil || lease < -time.Second || lease > 20*time.Second {
				t.Errorf("%+v: the lease ends %s after that, %v", c, lease, err)
			}
			close(gate)
			h.ended(t, x.Execution)
		}
		h.stop(t)
	}
}

// TestServerClock: Postgres has a clock, and a file has none.
func TestServerClock(t *testing.T) {
	t.Parallel()
	file := open(t, fnbox.New(nil)).cfg.Store.(*sqlstore.Store)
	if now, ok, err := file.Now(t.Context()); ok || err != nil {
		t.Errorf("SQLite says that it is %s, %v", now, err)
	}
	s := opened(t)(postgres.Open(t.Context(), postgrestest.DSN(t))).(*sqlstore.Store)
	before := time.Now()
	if now, ok, err := s.Now(t.Context()); !ok || err != nil || now.Sub(before).Abs() > time.Minute { // of the same machine, most often
		t.Errorf("Postgres says that it is %s, %t, %v", now, ok, err)
	}
}

// TestChaosClockJumps sets the clock forward and back, while work waits, runs
// and is due later: each comes once, and no tick comes twice.
func TestChaosClockJumps(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet})
	all := engine.CatchUpAll
	k.Deploy("shop", engine.FunctionParams{ID: "f", Schedule: "*/10 * * * *", Policy: engine.PolicyParams{CatchUp: &all}})
	shop, queued := k.Project("shop"), 0
	queue := func(in time.Duration) {
		t.Helper()
		p := engine.ExecuteParams{Async: true}
		if in > 0 {
			p.ScheduledAt = k.Clock.Now().Add(in)
		}
		if _, err := shop.Execute(t.Context(), engine.System, "f", p); err != nil {
			t.Fatal(err)
		}
		queued++
	}
	k.Advance(35 * time.Minute)
	queue(30 * time.Minute) // for 01:05
	queue(0)
	k.Clock.Set(k.Clock.Now().Add(-20 * time.Minute)) // 00:15: what waits is due at 00:35
	k.Drain()
	queue(0) // is not behind it
	k.Drain()
	k.Advance(4 * time.Hour)                      // 04:15
	k.Clock.Set(k.Clock.Now().Add(3 * time.Hour)) // 07:15
	k.Drain()
	k.Clock.Set(k.Clock.Now().Add(-5 * time.Hour)) // 02:15
	k.Advance(6 * time.Hour)                       // 08:15
	fired, ran := map[time.Time]int{}, 0
	for _, x := range k.Executions("shop", "f") {
		if x.Status != store.ExecutionCompleted {
			t.Errorf("it is %+v", x)
		}
		if ran++; x.Trigger == store.TriggerSchedule && x.ScheduledAt.Minute()%10 == 0 {
			fired[x.ScheduledAt.UTC()]++
		}
	}
	for at := enginetest.Epoch.Add(10 * time.Minute); at.Before(k.Clock.Now()); at = at.Add(10 * time.Minute) {
		if fired[at] != 1 {
			t.Errorf("%s fired %d times", at, fired[at])
		}
	}
	if ran != len(fired)+queued || len(fired) != 49 {
		t.Errorf("%d ran, %d of them ticks, and %d were queued", ran, len(fired), queued)
	}
}
