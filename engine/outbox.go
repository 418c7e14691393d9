package engine

import (
	"context"
	"errors"

	"github.com/fnkit/fnkit/store"
)

// Outbox writes executions within a transaction of the host's: they are
// accepted when it commits, together with what the host wrote, or not at all.
type Outbox struct {
	e  *Engine
	tx store.Tx
}

// WithTx returns the engine within a transaction on its store: one of
// Store.InTx, or one of the host's own (sqlstore.Store.Within). It must not be
// used after the transaction has ended. Other calls of the engine do not see
// what the transaction has written, and some wait for it: on SQLite all that write.
func (e *Engine) WithTx(tx store.Tx) *Outbox { return &Outbox{e, tx} }

// Project returns the outbox of a project.
func (o *Outbox) Project(id string) *OutboxProject { return &OutboxProject{o.e.Project(id), o.tx} }

// OutboxProject is a project within a transaction.
type OutboxProject struct {
	p  *Project
	tx store.Tx
}

// Execute queues an execution, as Project.Execute does with Async. It runs when
// the transaction has committed. With an IdempotencyKey that is held already it
// queues nothing and returns that execution. Errors as Project.Execute.
func (o *OutboxProject) Execute(ctx context.Context, by Actor, function string, a ExecuteParams) (ExecuteResult, error) {
	if _, err := o.p.enter(ctx, by, ScopeExecutionWrite); err != nil {
		return ExecuteResult{}, err
	}
	a.Async = true
	a.setDefaults()
	if err := o.p.e.checkExecute(a); err != nil {
		return ExecuteResult{}, err
	}
	k, err := o.executable(ctx, by, function)
	if err != nil {
		return ExecuteResult{}, err
	}
	x := o.p.newExecution(k, by, a)
	if err := o.p.e.toQueue(&x, by, a, nil); err != nil {
		return ExecuteResult{}, err
	}
	err = o.p.mayQueue(ctx, o.tx, k.fn.ID, 1)
	if a.IdempotencyKey != "" {
		key := o.p.executionKey(by, x, a)
		var held *store.Key
		if held, err = claimFirst(ctx, o.tx, key, x, err); held != nil {
			return o.earlier(ctx, by, x.FunctionID, key, *held)
		}
	} else if err == nil {
		err = o.tx.AppendExecutions(ctx, []Execution{x})
	}
	if err != nil {
		return ExecuteResult{}, fail(err, "")
	}
	o.tx.AfterCommit(func() { o.p.accepted(context.WithoutCancel(ctx), by, x) })
	x.Payload = nil
	return ExecuteResult{Execution: masked(x, by)}, nil
}

// earlier returns the execution that was queued with a key before.
func (o *OutboxProject) earlier(ctx context.Context, by Actor, function string, key, held store.Key) (ExecuteResult, error) {
	id, err := earlier(key, held)
	if err != nil {
		return ExecuteResult{}, err
	}
	x, err := o.tx.GetExecution(ctx, o.p.id, function, id)
	return ExecuteResult{Execution: masked(x, by), Repeated: true}, fail(err, TypeExecution)
}

// executable returns a function that by may execute now, as the transaction
// sees it.
func (o *OutboxProject) executable(ctx context.Context, by Actor, function string) (*known, error) {
	f, err := o.tx.GetFunction(ctx, o.p.id, function)
	if err != nil {
		return nil, fail(err, TypeFunction)
	}
	k := &known{fn: f}
	if f.Deployment != "" {
		if k.dep, err = o.tx.GetDeployment(ctx, o.p.id, f.ID, f.Deployment); err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, fail(err, "")
		}
	}
	if k.rt, k.has, err = o.p.e.runtime(ctx, f.Runtime); err != nil {
		return nil, err
	}
	return k, k.executableBy(by)
}

// Trigger queues executions as Project.Trigger does. They run when the
// transaction has committed.
func (o *OutboxProject) Trigger(ctx context.Context, by Actor, t TriggerParams) ([]Execution, error) {
	if err := o.p.mayTrigger(ctx, by, t); err != nil {
		return nil, err
	}
	rows, err := o.p.trigger(ctx, o.tx, by, t)
	if err != nil {
		return nil, fail(err, "")
	}
	o.tx.AfterCommit(o.p.e.runs.wake)
	return withoutPayloads(rows), nil
}
