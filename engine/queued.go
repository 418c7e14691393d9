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

// turn is what became of an execution that was claimed.
type turn struct {
	policy  Policy // of its function, as far as it could be read
	by      Actor
	out     outcome
	counted bool // before a gate; others may be waiting for its end
}

// runQueued runs the execution of a claimed row and settles it.
func (e *Engine) runQueued(ctx context.Context, c store.Claimed[Execution]) {
	x := c.Row
	t, err := e.runClaimed(ctx, c.Lease, &x)
	if t.counted {
		defer e.unparkBehind(ctx, x.Project)
	}
	if errors.Is(context.Cause(ctx), errLeaseLost) || errors.Is(err, errHeldBack) {
		return // somebody else has it, or it was deleted, or waits
	}
	switch {
	case t.out.canceled:
		x.Status = store.ExecutionCanceled
	case err != nil && context.Cause(ctx) == errCanceled:
		e.giveUp(&x, textCanceled+"\n")
		x.Status = store.ExecutionCanceled
	case err != nil:
		e.postpone(c.Lease, &x, err)
	case t.out.interrupted:
		x = c.Row
		x.Status, x.ReadyAt, x.UpdatedAt = store.ExecutionWaiting, e.now(), e.now()
	case t.out.failed:
		x.Tries++
		e.retry(&x, t.policy.Retry, t.out.why)
	}
	if x.Status == store.ExecutionFailed && t.policy.Retry.Attempts > 0 && c.Row.Payload != nil {
		x.Status = store.ExecutionDead
		e.observe.deadLettered(x)
	}
	e.runs.vacate(c.Lease)
	e.settle(ctx, c.Lease, x, t.by, err)
}

// settle writes the result of a turn, and tells the world if it is final.
func (e *Engine) settle(ctx context.Context, l store.Lease, x Execution, by Actor, cause error) {
	x.Payload = nil
	s := &runSettlement{Settlement: store.Settlement[Execution]{Lease: l, Row: x}}
	if err := e.persist(ctx, func(ctx context.Context) error { return e.settles.Add(ctx, s) }); err != nil {
		e.cfg.Logger.Error("settle execution", "execution", x.ID, "error", err)
		return
	}
	if s.lost || !x.Status.Final() {
		return
	}
	e.runs.forget(l)
	ctx = context.WithoutCancel(ctx)
	if e.orphaned(ctx, x, cause) {
		return
	}
	e.Project(x.Project).emit(ctx, by, "functions."+x.FunctionID+".executions."+x.ID+".update", x)
}

// unparkBehind lets those run that wait for an execution that has ended.
func (e *Engine) unparkBehind(ctx context.Context, project string) {
	if _, err := e.unpark(context.WithoutCancel(ctx), project); err != nil {
		e.cfg.Logger.Warn("unpark executions", "project", project, "error", err)
	}
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

// retry puts an execution that failed back into the queue, if its function's
// policy says so. What the run left in its record stays there meanwhile.
func (e *Engine) retry(x *Execution, r Retry, why Failure) {
	if !retries(r, why, x.Tries) {
		return
	}
	x.Status, x.ReadyAt = store.ExecutionWaiting, x.UpdatedAt.Add(backoff(r, x.Tries))
	e.observe.retried(*x)
}

// errCut ends a synchronous execution whose engine died, see runOnce.
var errCut = Errorf(TypeUnavailable, "The server that ran the execution ended before it did. Synchronous executions are not run again.")

// runClaimed makes the call of a queued execution and records the result in x.
// An error means that it did not run.
func (e *Engine) runClaimed(ctx context.Context, l store.Lease, x *Execution) (t turn, err error) {
	t.by = System
	if x.Payload == nil {
		return t, errCut
	}
	p, err := e.secrets.openPayload(*x)
	if err != nil {
		return t, err
	}
	t.by = p.Actor
	k, err := e.current(ctx, x.Project, x.FunctionID)
	if err != nil {
		return t, err
	}
	t.policy = k.fn.Policy
	if err := e.runnableQueued(k, *x, p); err != nil {
		return t, err
	}
	if t.counted, err = e.admit(ctx, l, x, k); err != nil {
		return t, err
	}
	t.out, err = e.runPayload(ctx, x, k, p)
	return t, err
}

// runnableQueued says why an execution that was queued cannot run.
func (e *Engine) runnableQueued(k *known, x Execution, p payload) error {
	if err := k.runnable(); err != nil {
		return err
	}
	if !k.fn.Enabled && !p.Actor.Trusted() {
		return Errorf(TypeUnauthorized, "The function was disabled before the execution began.")
	}
	if x.Losses >= e.cfg.Work.Losses { // it may be what ends the engines that run it
		return Errorf(TypeBadRequest, "The execution was given up: %d times the server that ran it ended, or lost its database, before the execution did.", x.Losses)
	}
	return nil
}

func (e *Engine) runPayload(ctx context.Context, x *Execution, k *known, p payload) (outcome, error) {
	a := newAnswer(e.cfg.Limits, nil)
	a.live = newRunLog(e, *x)
	defer func() { e.endRunLog(ctx, a.live, *x) }()
	c, err := e.prepare(ctx, k, x, p.Actor, p.IP, a)
	if err != nil {
		return outcome{}, err
	}
	c.headers = append(append(callerHeaders(p.Headers), c.headers...), Header{Name: "content-length", Value: itoa(int64(len(p.Body)))})
	c.body = bytes.NewReader(p.Body)
	out, err := e.invoke(ctx, ctx, c)
	if err == nil && !out.interrupted {
		e.record(x, c, out)
	}
	return out, err
}

// postpone decides about an execution that did not run: what may pass is tried
// again later, what cannot be helped fails.
func (e *Engine) postpone(l store.Lease, x *Execution, err error) {
	now := e.now()
	x.UpdatedAt = now
	var known *Error
	errors.As(err, &known)
	switch {
	case known == errCut:
		e.giveUp(x, known.Message)
		return
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
