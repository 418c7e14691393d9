package engine

import (
	"context"
	"time"

	"github.com/fnkit/fnkit/store"
)

// enqueue stores an execution to be run by a worker.
func (p *Project) enqueue(ctx context.Context, by Actor, x Execution, a ExecuteParams) (ExecuteResult, error) {
	if err := p.e.toQueue(&x, by, a, nil); err != nil {
		return ExecuteResult{}, err
	}
	full := p.mayQueue(ctx, p.e.store, x.FunctionID)
	if a.IdempotencyKey != "" {
		return p.enqueueOnce(ctx, by, x, a, full)
	}
	if full != nil {
		return ExecuteResult{}, full
	}
	if err := p.e.appends.Add(ctx, x); err != nil {
		return ExecuteResult{}, fail(err, "")
	}
	return ExecuteResult{Execution: p.accepted(ctx, by, x)}, nil
}

// toQueue makes an execution one for the queue; w says how it is awaited, if it is.
func (e *Engine) toQueue(x *Execution, by Actor, a ExecuteParams, w *awaited) (err error) {
	x.Status, x.ReadyAt = store.ExecutionWaiting, x.CreatedAt
	if !a.ScheduledAt.IsZero() {
		at := a.ScheduledAt.UTC().Truncate(time.Millisecond)
		x.Status, x.Trigger, x.ReadyAt, x.ScheduledAt = store.ExecutionScheduled, store.TriggerSchedule, at, at
	}
	x.Payload, err = e.secrets.sealPayload(*x, payload{Headers: a.Headers, Body: a.Body, Actor: by, IP: a.ClientIP, Awaited: w})
	return err
}

// accepted has an execution run that was queued, tells the world, and returns
// it as by may see it.
func (p *Project) accepted(ctx context.Context, by Actor, x Execution) Execution {
	x.Payload = nil
	p.e.runs.wake()
	x = masked(x, by)
	p.emit(ctx, by, "functions."+x.FunctionID+".executions."+x.ID+".create", x)
	return x
}
