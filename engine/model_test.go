package engine_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// TestScheduleModel creates, changes, disables and deletes functions with
// schedules, lets time pass while the engine works and while it is stopped, and
// compares the runs with those that a plain list of minutes says.
func TestScheduleModel(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet})
	projects := 0
	rapid.Check(t, func(r *rapid.T) {
		projects++
		m := &scheduleModel{T: r, test: t, k: k, project: fmt.Sprint("p", projects), functions: map[string]*modelFunction{}}
		defer func() {
			if err := k.DeleteProject(t.Context(), engine.System, m.project); err != nil {
				t.Error(err)
			}
		}()
		r.Repeat(map[string]func(*rapid.T){
			"": m.same, "create": m.create, "change": m.change, "delete": m.delete, "pass time": m.pass, "pass more": m.pass, "sleep": m.sleep, "restart": m.restart,
		})
	})
}

// modelSchedules are schedules whose minutes are easy to tell.
var modelSchedules = map[string]func(time.Time) bool{
	"":              func(time.Time) bool { return false },
	"* * * * *":     func(time.Time) bool { return true },
	"*/7 * * * *":   func(t time.Time) bool { return t.Minute()%7 == 0 },
	"5,50 * * * *":  func(t time.Time) bool { return t.Minute() == 5 || t.Minute() == 50 },
	"30 */2 * * *":  func(t time.Time) bool { return t.Minute() == 30 && t.Hour()%2 == 0 },
	"0 9-10 1 * *":  func(t time.Time) bool { return t.Minute() == 0 && (t.Hour() == 9 || t.Hour() == 10) && t.Day() == 1 },
	"15 3 * * 1":    func(t time.Time) bool { return t.Minute() == 15 && t.Hour() == 3 && t.Weekday() == time.Monday },
	"59 23 31 12 *": func(t time.Time) bool { return t.Minute() == 59 && t.Hour() == 23 && t.Day() == 31 && t.Month() == 12 },
}

// scheduleModel is what the schedules of a project do.
type scheduleModel struct {
	*rapid.T
	test      *testing.T
	k         *enginetest.Kit
	project   string
	functions map[string]*modelFunction
	created   int
}

type modelFunction struct {
	schedule string
	enabled  bool
	policy   engine.CatchUp
	from     time.Time // minutes after this one are to be run
	runs     []time.Time
}

func (m *scheduleModel) now() time.Time { return m.k.Clock.Now().UTC() }

// due notes the runs of a function up to now, which the engine makes as soon as
// it works: each if it worked all the time, else those that its policy says.
func (f *modelFunction) due(now time.Time, worked bool) {
	var missed []time.Time
	for at := f.from.Truncate(time.Minute).Add(time.Minute); !at.After(now); at = at.Add(time.Minute) {
		if f.enabled && modelSchedules[f.schedule](at) {
			missed = append(missed, at)
		}
	}
	f.from = now
	if n := len(missed); n > 0 && !worked {
		switch {
		case f.policy == engine.CatchUpAll:
			missed = missed[max(0, n-100):]
		case f.policy == engine.CatchUpSkip && now.Sub(missed[n-1]) >= time.Minute:
			missed = nil
		default:
			missed = missed[n-1:]
		}
	}
	f.runs = append(f.runs, missed...)
}

func (m *scheduleModel) params(r *rapid.T) (engine.FunctionParams, *modelFunction) {
	all := []string{}
	for s := range modelSchedules {
		all = append(all, s)
	}
	slices.Sort(all)
	f := &modelFunction{schedule: rapid.SampledFrom(all).Draw(r, "schedule"), enabled: rapid.IntRange(0, 3).Draw(r, "enabled") > 0, from: m.now()}
	f.policy = rapid.SampledFrom([]engine.CatchUp{engine.CatchUpOnce, engine.CatchUpSkip, engine.CatchUpAll}).Draw(r, "catch up")
	return engine.FunctionParams{Schedule: f.schedule, Disabled: !f.enabled, Policy: engine.PolicyParams{CatchUp: &f.policy}}, f
}

func (m *scheduleModel) create(r *rapid.T) {
	if len(m.functions) == 3 {
		r.Skip("there are enough")
	}
	p, f := m.params(r)
	m.created++
	p.ID, p.Entrypoint = fmt.Sprint("f", m.created), "f"
	m.k.Deploy(m.project, p)
	m.functions[p.ID] = f
}

func (m *scheduleModel) any(r *rapid.T) string {
	var all []string
	for id := range m.functions {
		all = append(all, id)
	}
	if len(all) == 0 {
		r.Skip("there is none")
	}
	slices.Sort(all)
	return rapid.SampledFrom(all).Draw(r, "function")
}

// change gives a function other settings. What the old ones missed is not caught up.
func (m *scheduleModel) change(r *rapid.T) {
	id := m.any(r)
	p, f := m.params(r)
	p.Name, p.Execute = id, []string{"any"}
	if _, err := m.k.Project(m.project).UpdateFunction(m.test.Context(), engine.System, id, p); err != nil {
		r.Fatal(err)
	}
	f.runs = m.functions[id].runs
	m.functions[id] = f
}

func (m *scheduleModel) delete(r *rapid.T) {
	id := m.any(r)
	if err := m.k.Project(m.project).DeleteFunction(m.test.Context(), engine.System, id); err != nil {
		r.Fatal(err)
	}
	delete(m.functions, id)
}

// drawn is a length of time, most often a short one.
func drawn(r *rapid.T, longest int) time.Duration {
	minutes := rapid.SampledFrom([]int{1, 10, 30, longest}).Draw(r, "minutes, at most")
	return time.Duration(rapid.IntRange(0, minutes*60).Draw(r, "seconds")) * time.Second
}

// pass lets time pass while the engine works.
func (m *scheduleModel) pass(r *rapid.T) {
	m.k.Advance(drawn(r, 100))
	for _, f := range m.functions {
		f.due(m.now(), true)
	}
}

// sleep lets time pass while no engine works.
func (m *scheduleModel) sleep(r *rapid.T) {
	m.k.Clock.Add(drawn(r, 3000))
	m.k.Drain()
	for _, f := range m.functions {
		f.due(m.now(), false)
	}
}

// restart has another engine go on with what this one leaves.
func (m *scheduleModel) restart(r *rapid.T) {
	cfg := m.k.Config()
	if err := m.k.Stop(m.test.Context()); err != nil {
		r.Fatal(err)
	}
	next, err := engine.New(cfg)
	if err != nil {
		r.Fatal(err)
	}
	m.k.Engine = next
	m.test.Cleanup(func() { next.Stop(m.test.Context()) })
}

// same compares the runs of each function.
func (m *scheduleModel) same(r *rapid.T) {
	for id, f := range m.functions {
		var got []time.Time
		for _, x := range m.k.Executions(m.project, id) {
			if x.Status != "completed" {
				r.Fatalf("a run of %s ended as %+v", id, x)
			}
			got = append(got, x.ScheduledAt.UTC())
		}
		if !slices.EqualFunc(got, f.runs, time.Time.Equal) {
			r.Fatalf("%s on %q ran at %v, want %v", id, f.schedule, got, f.runs)
		}
	}
}
