package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fnkit/fnkit/internal/cron"
	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/store"
)

// scheduleBatch is how many schedules are fired in one transaction.
const scheduleBatch = 100

// maxCaughtUp is how many missed runs of one schedule are caught up at most.
const maxCaughtUp = 100

// onTime is how late a run may be that was not missed: schedules have a
// resolution of one minute.
const onTime = time.Minute

// schedules fires schedules as they become due, until ctx ends. It looks every
// Work.Poll, since other engines change them too.
func (e *Engine) schedules(ctx context.Context) {
	for {
		e.life.pulses.rests("schedules", e.clock.Now())
		did, err := e.fireInTime(ctx)
		if err != nil && ctx.Err() == nil {
			e.cfg.Logger.Error("fire schedules", "error", err)
		}
		if did {
			continue // there may be more
		}
		wait := e.cfg.Work.Poll
		if next, ok, failed := e.store.NextSchedule(ctx); ok && failed == nil && err == nil {
			wait = min(wait, next.Sub(e.clock.Now()))
		}
		if wait <= 0 {
			continue // it became due meanwhile
		}
		e.life.pulses.rests("schedules", e.clock.Now().Add(wait))
		timer := e.clock.Timer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// fireInTime is fire within the time that the store has to answer.
func (e *Engine) fireInTime(ctx context.Context) (did bool, err error) {
	ctx, cancel := e.within(ctx, e.cfg.Work.Lease/3, errSlowStore)
	defer cancel()
	if did, err = e.fire(ctx, e.clock.Now()); err != nil {
		err = reason(ctx, err)
	}
	return did, err
}

// fire queues the runs of schedules that are due, and reports whether there were
// any. Each schedule is advanced from the run it was read with, in the
// transaction that queues its runs: another engine cannot fire the same, and a
// crash leaves both done or neither.
func (e *Engine) fire(ctx context.Context, now time.Time) (did bool, err error) {
	due, err := e.store.DueSchedules(ctx, now, scheduleBatch)
	if err != nil || len(due) == 0 {
		return false, err
	}
	var rows []Execution
	err = e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		rows = nil
		for _, f := range due {
			runs, next := e.runsOf(f, now)
			last := f.LastRunAt
			if len(runs) > 0 {
				last = runs[len(runs)-1]
			}
			switch err := tx.AdvanceSchedule(ctx, f.Project, f.ID, f.NextRunAt, last, next); {
			case errors.Is(err, store.ErrConflict):
				continue // another engine has, or it was changed just now
			case err != nil:
				return err
			}
			for _, at := range runs {
				x, err := e.scheduledRun(f, at)
				if err != nil {
					return err
				}
				rows = append(rows, x)
			}
		}
		if len(rows) == 0 {
			return nil
		}
		return tx.AppendExecutions(ctx, rows)
	})
	if err != nil {
		return false, err
	}
	for _, x := range rows {
		e.observe.fired(ctx, now.Sub(x.ScheduledAt))
	}
	e.runs.wake()
	return true, nil
}

// runsOf returns the runs of a due schedule that are to be made at now, and
// when it is due next.
func (e *Engine) runsOf(f Function, now time.Time) (runs []time.Time, next time.Time) {
	expr, loc, err := schedule(f)
	if err != nil { // it was checked when it was stored
		e.cfg.Logger.Error("read schedule", "project", f.Project, "function", f.ID, "error", err)
		return nil, time.Time{}
	}
	next, _ = expr.Next(now.In(loc))
	at, ok := expr.Prev(now.In(loc).Add(time.Nanosecond))
	for ; ok && !at.Before(f.NextRunAt) && len(runs) < maxCaughtUp; at, ok = expr.Prev(at) {
		if f.Policy.CatchUp == CatchUpSkip && now.Sub(at) >= onTime {
			break
		}
		runs = append(runs, at.UTC())
		if f.Policy.CatchUp != CatchUpAll {
			break
		}
	}
	slices.Reverse(runs)
	return runs, next.UTC()
}

// scheduledRun returns the execution of one run, to be queued.
func (e *Engine) scheduledRun(f Function, at time.Time) (Execution, error) {
	now := e.now()
	x := Execution{
		Project: f.Project, ID: ids.New(e.clock.Now()), FunctionID: f.ID, DeploymentID: f.Deployment, CreatedAt: now, UpdatedAt: now,
		Trigger: store.TriggerSchedule, Status: store.ExecutionWaiting, RequestMethod: "POST", RequestPath: "/", ScheduledAt: at, ReadyAt: at, Priority: f.Policy.Priority,
	}
	var err error
	x.Payload, err = e.secrets.sealPayload(x, payload{Actor: System})
	return x, err
}

// activate makes a deployment the active one; an empty id: none is.
func activate(f *Function, deployment string, now time.Time) {
	if f.Deployment != deployment {
		f.Deployment, f.UpdatedAt = deployment, now
	}
	reschedule(f, now)
}

// reschedule sets when a function is due next, after a change of it. Its
// schedule is followed while it is enabled and has an active deployment; when
// that begins, it counts from now.
func reschedule(f *Function, now time.Time) {
	if f.Schedule == "" || !f.Enabled || f.Deployment == "" {
		f.NextRunAt = time.Time{}
		return
	}
	if !f.NextRunAt.IsZero() {
		return
	}
	if f.LastRunAt.After(now) { // the clock was set back: no run is made twice
		now = f.LastRunAt
	}
	if expr, loc, err := schedule(*f); err == nil {
		next, _ := expr.Next(now.In(loc))
		f.NextRunAt = next.UTC()
	}
}

// ScheduleTimes returns when a function's schedule was due last and is due next,
// seen from now and whether or not it is followed at the moment; zero: never.
func ScheduleTimes(f Function, now time.Time) (previous, next time.Time) {
	expr, loc, err := schedule(f)
	if f.Schedule == "" || err != nil {
		return previous, next
	}
	previous, _ = expr.Prev(now.In(loc))
	next, _ = expr.Next(now.In(loc))
	return previous.UTC(), next.UTC()
}

// schedule is a function's cron expression and the zone whose clock it means.
func schedule(f Function) (*cron.Expr, *time.Location, error) {
	expr, err := cron.Parse(f.Schedule)
	if err != nil {
		return nil, nil, err
	}
	loc, err := location(f.Policy.TimeZone)
	return expr, loc, err
}

// location is a time zone by name; empty is UTC. The machine's own is none.
func location(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, errors.New("engine: no name of a time zone")
	}
	return time.LoadLocation(name)
}
