package engine_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

func quiet(_ context.Context, c *fnbox.Context) error { return c.Text(http.StatusOK, "") }

// kit has one function, "f", with a schedule.
func kit(t *testing.T, schedule string, policy engine.PolicyParams) *enginetest.Kit {
	t.Helper()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Schedule: schedule, Policy: policy})
	return k
}

// update sets the schedule of "f".
func update(t *testing.T, k *enginetest.Kit, f engine.FunctionParams) engine.Function {
	t.Helper()
	f.Name, f.Execute = "f", []string{"any"}
	fn, err := k.Project("shop").UpdateFunction(t.Context(), engine.System, "f", f)
	if err != nil {
		t.Fatal(err)
	}
	return fn
}

// firedAt are the times that the runs of "f" belong to, as "02T15:04" in a zone.
func firedAt(k *enginetest.Kit, loc *time.Location) (out []string) {
	for _, x := range k.Executions("shop", "f") {
		out = append(out, x.ScheduledAt.In(loc).Format("02T15:04"))
	}
	return out
}

func sameRuns(t *testing.T, k *enginetest.Kit, want ...string) {
	t.Helper()
	if got := firedAt(k, time.UTC); !slices.Equal(got, want) {
		t.Errorf("runs %v, want %v", got, want)
	}
}

func TestScheduleFires(t *testing.T) {
	t.Parallel()
	var headers map[string]string
	k := enginetest.New(t, fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
		headers = c.Req.Headers
		return c.Text(http.StatusOK, c.Req.Method+" "+c.Req.Path)
	}})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Schedule: "15,45 */6 * * *"})
	k.Advance(12 * time.Hour)
	sameRuns(t, k, "01T00:15", "01T00:45", "01T06:15", "01T06:45")
	for _, x := range k.Executions("shop", "f") {
		if x.Trigger != "schedule" || x.Status != "completed" || x.RequestMethod != "POST" || x.RequestPath != "/" || x.UserID != "" {
			t.Errorf("got %+v", x)
		}
	}
	if headers["x-appwrite-trigger"] != "schedule" || headers["x-appwrite-user-id"] != "" || !strings.HasPrefix(headers["x-appwrite-key"], "dynamic_") {
		t.Errorf("headers %v", headers)
	}
	fn, err := k.Project("shop").GetFunction(t.Context(), engine.System, "f")
	if err != nil || fn.NextRunAt.Format("02T15:04") != "01T12:15" || fn.LastRunAt.Format("02T15:04") != "01T06:45" {
		t.Errorf("next %s, last %s, %v", fn.NextRunAt, fn.LastRunAt, err)
	}
}

// A change takes effect on the next tick, and what the old settings missed is
// not caught up.
func TestScheduleFollowsChanges(t *testing.T) {
	t.Parallel()
	k := kit(t, "0 * * * *", engine.PolicyParams{})
	k.Advance(90 * time.Minute) // 01:30
	update(t, k, engine.FunctionParams{Schedule: "0 * * * *", Disabled: true})
	k.Advance(2 * time.Hour) // 03:30
	update(t, k, engine.FunctionParams{Schedule: "0 * * * *"})
	k.Advance(time.Hour) // 04:30
	update(t, k, engine.FunctionParams{Schedule: "*/20 4 * * *"})
	k.Advance(time.Hour) // 05:30
	update(t, k, engine.FunctionParams{})
	k.Advance(24 * time.Hour)
	sameRuns(t, k, "01T01:00", "01T04:00", "01T04:40")
}

func TestScheduleNeedsADeployment(t *testing.T) {
	t.Parallel()
	k := kit(t, "0 * * * *", engine.PolicyParams{})
	shop := k.Project("shop")
	fn, err := shop.GetFunction(t.Context(), engine.System, "f")
	if err != nil {
		t.Fatal(err)
	}
	deployment := fn.Deployment
	other, err := shop.Rebuild(t.Context(), engine.System, "f", deployment)
	if err != nil {
		t.Fatal(err)
	}
	k.Advance(90 * time.Minute) // 01:30; the rebuilt one is active by now
	if err := shop.DeleteDeployment(t.Context(), engine.System, "f", other.ID); err != nil {
		t.Fatal(err)
	}
	k.Advance(3 * time.Hour) // 04:30
	if _, err := shop.ActivateDeployment(t.Context(), engine.System, "f", deployment); err != nil {
		t.Fatal(err)
	}
	k.Advance(time.Hour)
	sameRuns(t, k, "01T01:00", "01T05:00")
	if err := shop.DeleteFunction(t.Context(), engine.System, "f"); err != nil {
		t.Fatal(err)
	}
	if next := k.Drain(); !next.IsZero() {
		t.Errorf("a deleted function is due at %s", next)
	}
}

// down lets time pass in which no engine looks.
func down(k *enginetest.Kit, d time.Duration) { k.Clock.Set(k.Clock.Now().Add(d)) }

func TestCatchUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy engine.PolicyParams
		want   []string
	}{
		"default": {engine.PolicyParams{}, []string{"01T03:00", "01T04:00"}},
		"once":    {engine.PolicyParams{CatchUp: new(engine.CatchUpOnce)}, []string{"01T03:00", "01T04:00"}},
		"skip":    {engine.PolicyParams{CatchUp: new(engine.CatchUpSkip)}, []string{"01T04:00"}},
		"all":     {engine.PolicyParams{CatchUp: new(engine.CatchUpAll)}, []string{"01T01:00", "01T02:00", "01T03:00", "01T04:00"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kit(t, "0 * * * *", c.policy)
			down(k, 3*time.Hour+30*time.Minute)
			k.Advance(time.Hour)
			sameRuns(t, k, c.want...)
		})
	}
}

// A run that is late, but by less than the resolution of schedules, was not missed.
func TestCatchUpSkipTakesLateRuns(t *testing.T) {
	t.Parallel()
	k := kit(t, "0 * * * *", engine.PolicyParams{CatchUp: new(engine.CatchUpSkip)})
	down(k, time.Hour+59*time.Second)
	k.Drain()
	sameRuns(t, k, "01T01:00")
}

func TestCatchUpAllIsBounded(t *testing.T) {
	t.Parallel()
	k := kit(t, "* * * * *", engine.PolicyParams{CatchUp: new(engine.CatchUpAll)})
	down(k, 10*time.Hour)
	k.Drain()
	got := firedAt(k, time.UTC)
	if len(got) != 100 || got[99] != "01T10:00" || got[0] != "01T08:21" {
		t.Errorf("%d runs: %v", len(got), got)
	}
}

func TestClockJumps(t *testing.T) {
	t.Parallel()
	k := kit(t, "0 * * * *", engine.PolicyParams{})
	k.Advance(150 * time.Minute) // 02:30
	k.Clock.Set(enginetest.Epoch.Add(10 * time.Minute))
	update(t, k, engine.FunctionParams{Schedule: "0 * * * *", Disabled: true})
	update(t, k, engine.FunctionParams{Schedule: "0 * * * *"}) // computed anew, behind what has run
	k.Advance(3 * time.Hour)                                   // 03:10
	sameRuns(t, k, "01T01:00", "01T02:00", "01T03:00")
}

func TestScheduleTimeZone(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	k := enginetest.New(t, fnbox.Funcs{"f": quiet})
	k.Clock.Set(time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC))
	k.Deploy("shop", engine.FunctionParams{ID: "f", Schedule: "30 2 * * *", Policy: engine.PolicyParams{TimeZone: new("Europe/Berlin")}})
	k.Advance(72 * time.Hour)
	if got := firedAt(k, berlin); !slices.Equal(got, []string{"28T02:30", "29T03:00", "30T02:30"}) { // on the 29th the clock skips 02:30
		t.Errorf("runs %v", got)
	}
	update(t, k, engine.FunctionParams{Schedule: "30 2 * * *"}) // keeps the zone
	fn := update(t, k, engine.FunctionParams{Schedule: "30 2 * * *", Policy: engine.PolicyParams{TimeZone: new("")}})
	if fn.Policy.TimeZone != "" || fn.NextRunAt.Format("15:04") != "02:30" {
		t.Errorf("got %+v", fn)
	}
	for _, zone := range []string{"Local", "Nowhere/Town", "../etc/passwd", strings.Repeat("x", 65)} {
		_, err := k.Project("shop").UpdateFunction(t.Context(), engine.System, "f", engine.FunctionParams{Name: "f", Policy: engine.PolicyParams{TimeZone: &zone}})
		fails(t, err, engine.TypeArgument)
	}
	_, err = k.Project("shop").UpdateFunction(t.Context(), engine.System, "f", engine.FunctionParams{Name: "f", Policy: engine.PolicyParams{CatchUp: new(engine.CatchUp("twice"))}})
	fails(t, err, engine.TypeArgument)
}

func TestImpossibleSchedule(t *testing.T) {
	t.Parallel()
	k := kit(t, "0 0 30 2 *", engine.PolicyParams{})
	k.Deploy("shop", engine.FunctionParams{ID: "g", Entrypoint: "f", Schedule: "0 0 * * *"})
	k.Advance(36 * time.Hour)
	sameRuns(t, k)
	if n := len(k.Executions("shop", "g")); n != 1 {
		t.Errorf("its neighbour ran %d times, want 1", n)
	}
}
