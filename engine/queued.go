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
	policy, by, out, err := e.runClaimed(ctx, &x)
	if errors.Is(context.Cause(ctx), errLeaseLost) {
		return // somebody else has it, or it was deleted
	}
	switch {
	case out.canceled:
		x.Status = store.ExecutionCanceled
	case err != nil && context.Cause(ctx) == errCanceled:
		e.giveUp(&x, textCanceled+"\n")
		x.Status = store.ExecutionCanceled
	case err != nil:
		e.postpone(c.Lease, &x, err)
	case out.interrupted:
		x = c.Row
		x.Status, x.ReadyAt, x.UpdatedAt = store.ExecutionWaiting, e.now(), e.now()
	case out.failed:
		x.Tries++
		e.retry(&x, policy.Retry, out.why)
	}
	if x.Status == store.ExecutionFailed && policy.Retry.Attempts > 0 && c.Row.Payload != nil {
		x.Status = store.ExecutionDead
		e.observe.deadLettered(x)
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

// errLosses ends an execution that may be what ends the engines that run it.
var errLosses = Errorf(TypeServer, "The execution was given up: %d times the server that ran it ended, or lost its database, before the execution did.", maxLosses)

// maxLosses is how many workers one execution may lose.
const maxLosses = 10

// runClaimed makes the call of a queued execution and records the result in x.
// An error means that it did not run. The policy is that of its function, as
// far as it could be read.
func (e *Engine) runClaimed(ctx context.Context, x *Execution) (policy Policy, by Actor, out outcome, err error) {
	if x.Payload == nil {
		return policy, System, outcome{}, errCut
	}
	p, err := e.secrets.openPayload(*x)
	if err != nil {
		return policy, System, outcome{}, err
	}
	k, err := e.current(ctx, x.Project, x.FunctionID)
	if err != nil {
		return policy, p.Actor, outcome{}, err
	}
	out, err = e.runPayload(ctx, x, k, p)
	return k.fn.Policy, p.Actor, out, err
}

func (e *Engine) runPayload(ctx context.Context, x *Execution, k *known, p payload) (outcome, error) {
	if err := k.runnable(); err != nil {
		return outcome{}, err
	}
	if !k.fn.Enabled && !p.Actor.Trusted() {
		return outcome{}, Errorf(TypeUnauthorized, "The function was disabled before the execution began.")
	}
	if x.Losses >= maxLosses {
		return outcome{}, errLosses
	}
	a := newAnswer(e.cfg.Limits, nil)
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
	case known != nil && (known.Kind != Internal || known == errLosses):
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
