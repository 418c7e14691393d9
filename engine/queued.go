package engine

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/fnkit/fnkit/internal/groupcommit"
	"github.com/fnkit/fnkit/store"
)

// busyDelay is how long a queued execution waits that found no room.
const busyDelay = time.Second

// runQueued runs the execution of a claimed row and settles it.
func (e *Engine) runQueued(ctx context.Context, c store.Claimed[Execution]) {
	x := c.Row
	by, out, err := e.runClaimed(ctx, &x)
	if errors.Is(context.Cause(ctx), errLeaseLost) {
		return // somebody else has it, or it was deleted
	}
	switch {
	case out.canceled:
		x.Status = store.ExecutionCanceled
	case err != nil && context.Cause(ctx) == errCanceled:
		e.giveUp(&x, textCanceled)
		x.Status = store.ExecutionCanceled
	case err != nil:
		e.postpone(c.Lease, &x, err)
	case out.interrupted:
		x = c.Row
		x.Status, x.ReadyAt, x.UpdatedAt = store.ExecutionWaiting, e.now(), e.now()
	}
	x.Payload = nil
	s := &runSettlement{Settlement: store.Settlement[Execution]{Lease: c.Lease, Row: x}}
	if err := e.persist(ctx, func(ctx context.Context) error { return e.settles.Add(ctx, s) }); err != nil {
		e.cfg.Logger.Error("settle execution", "execution", x.ID, "error", err)
		return
	}
	if s.lost || !x.Status.Final() {
		return
	}
	e.runs.forget(c.Lease)
	ctx = context.WithoutCancel(ctx)
	if e.orphaned(ctx, x, err) {
		return
	}
	e.Project(x.Project).emit(ctx, by, "functions."+x.FunctionID+".executions."+x.ID+".update", x)
}

// orphaned removes an execution that failed because its function does not exist:
// it was queued while the function was being deleted.
func (e *Engine) orphaned(ctx context.Context, x Execution, err error) bool {
	var known *Error
	if !errors.As(err, &known) || known.Type != TypeFunction {
		return false
	}
	if err := e.store.DeleteExecution(ctx, x.Project, x.FunctionID, x.ID, x.Status); err != nil {
		e.cfg.Logger.Warn("delete execution", "execution", x.ID, "error", err)
	}
	return true
}

// runClaimed makes the call of a queued execution and records the result in x.
// An error means that it did not run.
func (e *Engine) runClaimed(ctx context.Context, x *Execution) (Actor, outcome, error) {
	p, err := e.secrets.openPayload(*x)
	if err != nil {
		return System, outcome{}, err
	}
	k, err := e.current(ctx, x.Project, x.FunctionID)
	if err != nil {
		return p.Actor, outcome{}, err
	}
	if err := k.runnable(); err != nil {
		return p.Actor, outcome{}, err
	}
	if !k.fn.Enabled && !p.Actor.Trusted() {
		return p.Actor, outcome{}, Errorf(TypeUnauthorized, "The function was disabled before the execution began.")
	}
	a := newAnswer(e.cfg.Limits, nil)
	a.live = newRunLog(e, *x)
	defer func() { e.endRunLog(ctx, a.live, *x) }()
	c, err := e.prepare(ctx, k, x, p.Actor, p.IP, a)
	if err != nil {
		return p.Actor, outcome{}, err
	}
	c.headers = append(append(callerHeaders(p.Headers), c.headers...), Header{Name: "content-length", Value: itoa(int64(len(p.Body)))})
	c.body = bytes.NewReader(p.Body)
	out, err := e.invoke(ctx, ctx, c)
	if err == nil && !out.interrupted {
		e.record(x, c, out)
	}
	return p.Actor, out, err
}

// postpone decides about an execution that did not run: what may pass is tried
// again later, what cannot be helped fails.
func (e *Engine) postpone(l store.Lease, x *Execution, err error) {
	now := e.now()
	x.UpdatedAt = now
	var known *Error
	errors.As(err, &known)
	switch {
	case known != nil && (known.Kind == Busy || known.Kind == Unavailable):
	case known != nil && known.Kind != Internal:
		e.giveUp(x, known.Message)
		return
	case e.runs.failed(l) >= maxRunTries:
		e.giveUp(x, "The execution failed with an internal error ("+e.logged("run execution", err)+").")
		return
	default:
		e.cfg.Logger.Error("run execution", "execution", x.ID, "error", err)
	}
	x.Status, x.ReadyAt = store.ExecutionWaiting, now.Add(busyDelay)
}

// giveUp ends an execution that never ran.
func (e *Engine) giveUp(x *Execution, reason string) {
	x.Status, x.ReadyAt, x.ResponseStatusCode, x.Errors = store.ExecutionFailed, time.Time{}, 500, reason
	e.observe.executed(*x)
}

// maxRunTries is how often an execution is tried whose instance cannot be
// started.
const maxRunTries = 5

// runSettlement is the settlement of one execution, on its way through a group.
type runSettlement struct {
	store.Settlement[Execution]
	lost bool // the lease was
}

// newSettles groups the settlement of queued executions.
func (e *Engine) newSettles() *groupcommit.Group[*runSettlement] {
	g := groupcommit.New(func(ctx context.Context, rows []*runSettlement) error {
		batch := make([]store.Settlement[Execution], len(rows))
		for i, r := range rows {
			batch[i] = r.Settlement
		}
		lost, err := e.store.Runs().Settle(ctx, batch)
		for _, l := range lost {
			for _, r := range rows {
				r.lost = r.lost || r.Lease == l
			}
		}
		return err
	})
	g.Size = func(s *runSettlement) int { return executionSize(s.Row) }
	g.Whole = func(err error) bool { return errors.Is(err, store.ErrUnavailable) }
	return g
}
