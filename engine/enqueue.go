package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fnkit/fnkit/store"
)

// enqueue stores an execution to be run by a worker.
func (p *Project) enqueue(ctx context.Context, by Actor, x Execution, a ExecuteParams) (ExecuteResult, error) {
	if err := p.e.toQueue(&x, by, a, nil); err != nil {
		return ExecuteResult{}, err
	}
	full := p.mayQueue(ctx, p.e.store, x.FunctionID, 1)
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

// MaxBatch and MaxBatchBody are how many executions ExecuteMany queues at once, and
// how many bytes their bodies have together.
const (
	MaxBatch     = 1000
	MaxBatchBody = 64 << 20
)

// ExecuteMany queues executions of a function, in the order of the calls and in one
// transaction: all of them or, with an error, none. Each runs on its own, as one of
// Execute with Async does, which is implied; IdempotencyKey is not for batches. An
// error about one of the calls says which, counted from 0.
// Errors: as those of Execute with Async.
func (p *Project) ExecuteMany(ctx context.Context, by Actor, function string, calls []ExecuteParams) ([]Execution, error) {
	if _, err := p.enter(ctx, by, ScopeExecutionWrite); err != nil {
		return nil, err
	}
	if err := CheckRange(len(calls), 0, MaxBatch); err != nil {
		return nil, InvalidParam("calls", err)
	}
	k, err := p.executable(ctx, by, function)
	if err != nil || len(calls) == 0 {
		return nil, err
	}
	rows, size := make([]Execution, len(calls)), 0
	for i, a := range calls {
		a.Async = true
		a.setDefaults()
		err := p.e.checkExecute(a)
		if size += len(a.Body); err == nil && a.IdempotencyKey != "" {
			err = Errorf(TypeBadRequest, "Executions of a batch have no idempotency key.")
		} else if err == nil && size > MaxBatchBody {
			err = Errorf(TypeBadRequest, "The bodies are longer than %d bytes together.", MaxBatchBody)
		}
		if err == nil {
			rows[i] = p.newExecution(k, by, a)
			err = p.e.toQueue(&rows[i], by, a, nil)
		}
		if err != nil {
			return nil, inCall(i, err)
		}
	}
	if err := p.mayQueue(ctx, p.e.store, k.fn.ID, len(rows)); err != nil {
		return nil, err
	}
	if err := p.e.store.AppendExecutions(ctx, rows); err != nil {
		return nil, fail(err, "")
	}
	for i, x := range rows {
		rows[i] = p.accepted(ctx, by, x)
	}
	return rows, nil
}

// inCall is an error of one call of a batch.
func inCall(i int, err error) error {
	var known *Error
	if !errors.As(err, &known) {
		return err
	}
	said := *known
	said.Message = fmt.Sprintf("calls[%d]: %s", i, known.Message)
	return &said
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
