package engine

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/fnkit/fnkit/store"
)

const (
	// retainBatch is how many rows one transaction removes: so few that those who
	// wait for the database meanwhile do not wait long.
	retainBatch = 200
	// retainPage is how many functions are looked at together.
	retainPage = 1000
	// chunksKept is how long chunks of a log are kept for those who follow it. It
	// is longer than anything runs: when that has ended, its record has the log.
	chunksKept = 24 * time.Hour
)

// endedStatuses are those of executions that are over.
var endedStatuses = []ExecutionStatus{store.ExecutionCompleted, store.ExecutionFailed, store.ExecutionCanceled, store.ExecutionDead}

// retain removes what is older than it is to be kept. It can be cut off
// anywhere: what is left goes the next time. Engines that do so at once take turns.
func (e *Engine) retain(ctx context.Context, now time.Time) {
	e.batches(ctx, "keys", func() (int, error) { return e.store.DeleteKeys(ctx, now, retainBatch) })
	e.batches(ctx, "chunks of logs", func() (int, error) { return e.store.TrimLogs(ctx, now.Add(-e.chunksKept()), retainBatch) })
	e.batches(ctx, "rates", func() (int, error) { return e.store.TrimRates(ctx, now, retainBatch) })
	e.packages.sweep(ctx)
	kept := map[string]Retention{}
	for after := int64(0); ; {
		began := e.clock.Now()
		page, err := e.store.NextFunctions(ctx, after, retainPage)
		if err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("look for old records", "error", err)
		}
		e.pause(ctx, e.clock.Since(began))
		for _, f := range page {
			after = f.Seq
			r, known := kept[f.Project]
			if !known {
				r = e.retentionOf(ctx, f.Project)
				kept[f.Project] = r
			}
			e.retainOf(ctx, f, r, now)
		}
		if len(page) < retainPage || ctx.Err() != nil {
			return
		}
	}
}

func (e *Engine) chunksKept() time.Duration {
	longest := max(time.Duration(e.cfg.Limits.Timeout)*time.Second, e.cfg.Limits.BuildTimeout)
	return max(chunksKept, 2*longest)
}

// retentionOf returns what a project keeps. Of one that the host does not know,
// or not at the moment, everything is kept.
func (e *Engine) retentionOf(ctx context.Context, project string) Retention {
	r := e.cfg.Retention
	limits, err := e.projectLimits(ctx, project)
	if err != nil {
		var known *Error
		if !errors.As(err, &known) && ctx.Err() == nil {
			e.cfg.Logger.Warn("read the limits of a project", "project", project, "error", err)
		}
		return Retention{Executions: -1, Deployments: -1}
	}
	r.Executions = cmp.Or(limits.Retention.Executions, r.Executions)
	r.Deployments = cmp.Or(limits.Retention.Deployments, r.Deployments)
	return r
}

// retainOf removes what is old of one function, if there may be something.
func (e *Engine) retainOf(ctx context.Context, f store.FunctionStock, r Retention, now time.Time) {
	if before := now.Add(-r.Executions); r.Executions > 0 && !f.Oldest.IsZero() && f.Oldest.Before(before) {
		e.batches(ctx, "executions", func() (int, error) {
			return e.store.DeleteExecutions(ctx, f.Project, f.ID, before, retainBatch, endedStatuses...)
		})
	}
	if r.Deployments > 0 && f.Deployments > min(r.Deployments, store.MaxStock-1) {
		e.batches(ctx, "deployments", func() (int, error) { return e.pruneDeployments(ctx, f, r.Deployments) })
	}
}

// batches removes a kind of records until less than a batch is left. After each
// batch the database belongs to others for as long as that took.
func (e *Engine) batches(ctx context.Context, kind string, remove func() (int, error)) {
	all := 0
	for n := retainBatch; n >= retainBatch && ctx.Err() == nil; all += n {
		began := e.clock.Now()
		var err error
		if n, err = remove(); err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("remove old "+kind, "error", err)
		}
		if n >= retainBatch {
			e.pause(ctx, e.clock.Since(began))
		}
	}
	if all > 0 {
		e.observe.removed(ctx, kind, all)
		e.cfg.Logger.Debug("old "+kind+" removed", "count", all)
	}
}

// pruneDeployments removes a batch of a function's deployments that are older
// than those it keeps, and returns how many.
func (e *Engine) pruneDeployments(ctx context.Context, f store.FunctionStock, keep int) (n int, err error) {
	ids, err := e.store.OldDeployments(ctx, f.Project, f.ID, keep, retainBatch)
	for _, id := range ids {
		gone, err := e.Project(f.Project).pruneDeployment(ctx, f.ID, id)
		if err != nil {
			return n, err
		}
		if gone {
			n++
		}
	}
	return n, err
}

// pruneDeployment removes a deployment, unless it has become the active one.
func (p *Project) pruneDeployment(ctx context.Context, function, id string) (gone bool, err error) {
	var d Deployment
	err = p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		gone = false
		fn, err := tx.GetFunction(ctx, p.id, function)
		if err != nil || fn.Deployment == id {
			return err
		}
		if d, err = tx.GetDeployment(ctx, p.id, function, id); err != nil {
			return err
		}
		gone = true
		return tx.DeleteDeployment(ctx, p.id, function, id)
	})
	if errors.Is(err, store.ErrNotFound) { // somebody else removed it
		return false, nil
	}
	if err != nil || !gone {
		return false, err
	}
	p.removed(ctx, System, d)
	return true, nil
}

// pause waits for d on the engine's clock, or until ctx ends.
func (e *Engine) pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := e.clock.Timer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
