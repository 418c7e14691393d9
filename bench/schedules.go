package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/benbjohnson/clock"
	"github.com/robfig/cron/v3"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// manySchedules is how many entries a table of schedules has.
const manySchedules = 100_000

// spec is the schedule of one of many: once a day, spread over the day.
func spec(i int) string { return fmt.Sprintf("%d %d * * *", i%60, i/60%24) }

// unclaimed is a store whose executions are left to others.
type unclaimed struct{ store.Store }

func (u unclaimed) Runs() store.Queue[engine.Execution] { return unclaimedRuns{u.Store.Runs()} }

type unclaimedRuns struct{ store.Queue[engine.Execution] }

func (unclaimedRuns) Claim(context.Context, store.ClaimParams) ([]store.Claimed[engine.Execution], error) {
	return nil, nil
}

// schedules compares the CPU of a tick at which one of many schedules is due,
// and of one more schedule, with robfig/cron.
func schedules(ctx context.Context, o options, dir string) error {
	tickPeer, addPeer, err := robfig()
	if err != nil {
		return err
	}
	return each(ctx, o, dir, func(db *database) (err error) {
		mock := clock.NewMock()
		mock.Set(time.Date(2026, 1, 1, 12, 0, 30, 0, time.UTC))
		w, err := newWorker(ctx, db, nil, func(c *engine.Config) {
			c.Clock, c.Store, c.Retention.Every = mock, unclaimed{c.Store}, 1000*time.Hour
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.close()) }()
		if err := w.functions(ctx, manySchedules, func(i int, f *store.Function) {
			f.Schedule, f.NextRunAt = spec(i), mock.Now().AddDate(0, 0, 2) // none is due in this test
		}); err != nil {
			return err
		}
		if err := w.functions(ctx, 1, func(_ int, f *store.Function) {
			f.ID, f.Deployment, f.Schedule, f.NextRunAt = "due", "due", "* * * * *", mock.Now().Truncate(time.Minute).Add(time.Minute)
		}); err != nil {
			return err
		}
		for did := true; did; { // looks through all functions for what is old, page by page, when it starts
			if _, did, err = w.eng.Step(ctx); err != nil {
				return err
			}
		}
		const ticks = 200
		tick, err := spent(ticks, func(int) error {
			mock.Set(mock.Now().Add(time.Minute))
			_, did, err := w.eng.Step(ctx)
			if err == nil && !did {
				err = errors.New("nothing was due")
			}
			return err
		})
		if err != nil {
			return err
		}
		add, err := spent(ticks, func(i int) error {
			id := fmt.Sprint("f", i)
			_, err := w.p.UpdateFunction(ctx, engine.System, id, engine.FunctionParams{Name: id, Execute: []string{"any"}, Schedule: "30 4 * * *"})
			return err
		})
		if err != nil {
			return err
		}
		bar{fmt.Sprintf("a tick with %d schedules and one due, %s", manySchedules, db.name), "robfig/cron, CPU", ratio(tick, tickPeer), 0.05, true, fmt.Sprintf("%s, %s", tick, tickPeer)}.print()
		bar{"adding one to them, " + db.name, "robfig/cron, CPU", ratio(add, addPeer), 0.05, true, fmt.Sprintf("%s, %s", add, addPeer)}.print()
		return nil
	})
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// spent is the CPU time of doing something, on average.
func spent(n int, do func(i int) error) (time.Duration, error) {
	for i := range n / 10 { // warms up
		if err := do(n + i); err != nil {
			return 0, err
		}
	}
	before, err := cpuTime()
	if err != nil {
		return 0, err
	}
	for i := range n {
		if err := do(i); err != nil {
			return 0, err
		}
	}
	after, err := cpuTime()
	return (after - before) / time.Duration(n), err
}

// robfig measures the peer: at each second one entry is due.
func robfig() (tick, add time.Duration, err error) {
	c := cron.New(cron.WithLocation(time.UTC))
	for i := range manySchedules {
		if _, err := c.AddFunc(spec(i), func() {}); err != nil {
			return 0, 0, err
		}
	}
	fired := make(chan struct{}, 1)
	if _, err := c.AddFunc("@every 1s", func() { fired <- struct{}{} }); err != nil {
		return 0, 0, err
	}
	c.Start()
	defer c.Stop()
	<-fired
	tick, err = spent(5, func(int) error {
		<-fired
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	add, err = spent(20, func(int) error {
		_, err := c.AddFunc("30 4 * * *", func() {})
		c.Entries() // returns when the loop has taken it
		return err
	})
	return tick, add, err
}

// functions stores n functions with an active deployment.
func (w *worker) functions(ctx context.Context, n int, change func(i int, f *store.Function)) error {
	now := time.UnixMilli(1_767_225_600_000).UTC()
	for at := 0; at < n; {
		first := at
		err := w.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
			for at = first; at < min(first+1000, n); at++ {
				id := fmt.Sprint("f", at)
				f := store.Function{
					Project: project, ID: id, CreatedAt: now, UpdatedAt: now, Name: id, Runtime: fnbox.RuntimeID, Entrypoint: "f", Execute: []string{"any"},
					Timeout: 15, Enabled: true, Live: true, Logging: true, Deployment: id, Specification: engine.DefaultSpecification,
				}
				change(at, &f)
				if _, err := tx.CreateFunction(ctx, f); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// manyListeners is how many functions listen to something.
const manyListeners = 10_000

// listening compares finding the functions that listen to an event with reading
// the patterns of all and comparing each.
func listening(ctx context.Context, o options, dir string) error {
	return each(ctx, o, dir, func(db *database) (err error) {
		w, err := newWorker(ctx, db, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.close()) }()
		pattern := func(i int) string {
			return fmt.Sprintf("databases.d%d.collections.c%d.documents.*.create", i%100, i/100)
		}
		if err := w.functions(ctx, manyListeners, func(i int, f *store.Function) { f.Events = []string{pattern(i)} }); err != nil {
			return err
		}
		const name = "databases.d7.collections.c42.documents.x.create"
		scan, err := took(20, func() error {
			found, err := scanListeners(ctx, db, events.Expand(name))
			if err == nil && found != 1 {
				err = fmt.Errorf("the scan found %d", found)
			}
			return err
		})
		if err != nil {
			return err
		}
		own, err := took(50, func() error {
			rows, err := w.store.Listeners(ctx, project, events.Expand(name))
			if err == nil && len(rows) != 1 {
				err = fmt.Errorf("found %d listeners", len(rows))
			}
			return err
		})
		if err != nil {
			return err
		}
		bar{fmt.Sprintf("an event against the patterns of %d functions, %s", manyListeners, db.name), "reading and comparing all of them", ratio(scan, own), 20, false, fmt.Sprintf("%s, %s", own, scan)}.print()
		return nil
	})
}

// scanListeners finds listeners as a table without an index for them would.
func scanListeners(ctx context.Context, db *database, names []string) (found int, err error) {
	rows, err := db.raw.QueryContext(ctx, "SELECT events FROM fnkit_functions WHERE project_id = $1 AND enabled AND deployment <> ''", project)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var text []byte
		var patterns []string
		if err := errors.Join(rows.Scan(&text), json.Unmarshal(text, &patterns)); err != nil {
			return 0, err
		}
		if slices.ContainsFunc(patterns, func(p string) bool { return slices.Contains(names, p) }) {
			found++
		}
	}
	return found, rows.Err()
}

// took is how long something takes, in the middle.
func took(n int, do func() error) (time.Duration, error) {
	var all []float64
	for range n {
		began := time.Now()
		if err := do(); err != nil {
			return 0, err
		}
		all = append(all, float64(time.Since(began)))
	}
	return time.Duration(mid(all)), nil
}
