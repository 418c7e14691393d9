package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	"github.com/fnkit/fnkit/store"
)

// A synchronous call on an engine that runs nothing is queued for one that does,
// see Config.SyncViaQueue. Its answer comes back with a key, sealed, as that of a
// call with an idempotency key does. Who waits looks for it: an answer finds its way
// on every store, and an engine that was not started has no goroutine that listens.
// It is run at most once: not after the caller's time is up, and not again if the
// engine that ran it died.

// awaited says how a queued execution is waited for.
type awaited struct {
	Name, Value string        // of the key that takes the answer
	Limit       time.Duration // from the execution's creation; longer nobody waits
}

// left is how much of the time is left.
func (w awaited) left(x Execution, now time.Time) time.Duration {
	return x.CreatedAt.Add(w.Limit).Sub(now)
}

// mayBegin says why an execution must not begin.
func (w awaited) mayBegin(x Execution, now time.Time) error {
	switch {
	case x.Losses > 0: // how far it came nobody knows
		return errCut
	case w.left(x, now) <= 0:
		return Errorf(TypeSyncTimeout, "")
	}
	return nil
}

// viaQueue reports whether synchronous calls go through the queue.
func (e *Engine) viaQueue() bool {
	e.life.mu.Lock()
	defer e.life.mu.Unlock()
	return e.cfg.SyncViaQueue && e.life.state == created
}

// awaitedPriority is above all that nobody waits for.
const awaitedPriority = 2*MaxPriority + 1

// runElsewhere has another engine run an execution, and waits for its answer.
func (p *Project) runElsewhere(ctx context.Context, by Actor, x Execution, a ExecuteParams) (ExecuteResult, error) {
	limit := p.e.cfg.Limits.SyncTimeout
	waiting, cancel := p.e.within(ctx, limit+p.e.cfg.Work.Grace, errLimit)
	defer cancel()
	x.Priority += awaitedPriority
	key := p.answerKey(by, x, a)
	if err := p.e.toQueue(&x, by, a, &awaited{key.Name, key.Value, limit}); err != nil {
		return ExecuteResult{}, err
	}
	held, err := p.first(ctx, key, x, p.mayQueue(ctx, p.e.store, x.FunctionID, 1))
	if err != nil {
		return ExecuteResult{}, err
	}
	if held != nil {
		if x.ID, err = earlier(key, *held); err != nil {
			return ExecuteResult{}, err
		}
	} else {
		p.accepted(ctx, by, x)
	}
	ended, err := p.untilFinal(waiting, x)
	if err != nil && held == nil && waiting.Err() != nil {
		ended, err = p.giveUpWaiting(waiting, by, x, key, a.IdempotencyKey == "")
	}
	if err != nil {
		return ExecuteResult{}, err
	}
	res, err := p.answered(ctx, by, ended, key)
	res.Repeated = held != nil
	if a.IdempotencyKey == "" {
		if err := p.e.store.DeleteKey(context.WithoutCancel(ctx), key); err != nil { // it goes when it expires
			p.e.cfg.Logger.Warn("delete answer", "execution", ended.ID, "error", err)
		}
	}
	return res, err
}

// answerKey is the key that takes the answer of a call: its idempotency key, or
// one that lasts as long as the call may, and a lease for clocks that differ.
func (p *Project) answerKey(by Actor, x Execution, a ExecuteParams) store.Key {
	if a.IdempotencyKey != "" {
		return p.executionKey(by, x, a)
	}
	ends := x.CreatedAt.Add(p.e.cfg.Limits.SyncTimeout + p.e.cfg.Work.Grace + p.e.cfg.Work.Lease)
	return store.Key{Project: p.id, Kind: store.ExecutionKey, Name: x.FunctionID + "/call/" + x.ID, Value: x.ID + " ", ExpiresAt: ends}
}

// untilFinal returns an execution when it has ended. It looks the less often the
// longer that takes: an answer is noticed late by an eighth of its time at most.
func (p *Project) untilFinal(ctx context.Context, x Execution) (Execution, error) {
	began := p.e.clock.Now()
	for {
		now, err := p.e.store.GetExecution(ctx, p.id, x.FunctionID, x.ID)
		switch {
		case ctx.Err() != nil && errors.Is(context.Cause(ctx), errLimit):
			return x, Errorf(TypeSyncTimeout, "")
		case ctx.Err() != nil:
			return x, ctx.Err()
		case errors.Is(err, store.ErrUnavailable): // it may come back in time
		case err != nil:
			return x, fail(err, TypeExecution)
		case now.Status.Final():
			return now, nil
		}
		p.e.pause(ctx, min(max(p.e.clock.Since(began)/8, minLook), p.e.cfg.Work.Poll))
	}
}

// minLook is how long untilFinal waits at least before it looks again.
const minLook = 2 * time.Millisecond

// giveUpWaiting ends an execution that was not answered before ctx ended: if the
// caller went away, only one that has not begun, and if there is no idempotency key
// to ask for it with again. It returns the execution if it has ended meanwhile.
func (p *Project) giveUpWaiting(ctx context.Context, by Actor, x Execution, key store.Key, unasked bool) (Execution, error) {
	late := errors.Is(context.Cause(ctx), errLimit)
	if !late && !unasked {
		return x, ctx.Err()
	}
	gone, ctx := ctx.Err(), context.WithoutCancel(ctx)
	ended := x
	err := p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		if !late {
			if err = tx.DeleteExecution(ctx, p.id, x.FunctionID, x.ID, store.ExecutionWaiting); err == nil {
				err = tx.DeleteKey(ctx, key)
			}
			return err
		}
		if ended, err = tx.CancelExecution(ctx, p.id, x.FunctionID, x.ID, textTimedOut+"\n", p.e.now()); err != nil {
			return err
		}
		if key.Answer, err = p.e.secrets.sealReply(x, reply{Limited: true}); err != nil {
			return err
		}
		return tx.AnswerKey(ctx, key)
	})
	switch {
	case !late && (err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound)):
		return x, gone
	case errors.Is(err, store.ErrConflict): // it has ended
		ended, err = p.e.store.GetExecution(ctx, p.id, x.FunctionID, x.ID)
	case err == nil:
		p.emit(ctx, by, "functions."+x.FunctionID+".executions."+x.ID+".update", masked(ended, by))
	}
	return ended, fail(err, TypeExecution)
}

// answered returns the answer of an execution that has ended. One whose engine
// died has none, nor one that was canceled before it ran: then its record says why.
func (p *Project) answered(ctx context.Context, by Actor, x Execution, key store.Key) (ExecuteResult, error) {
	res := ExecuteResult{Execution: masked(x, by)}
	held, err := p.e.store.GetKey(ctx, p.id, key.Kind, key.Name)
	if errors.Is(err, store.ErrNotFound) || err == nil && held.Answer == nil {
		return res, nil
	}
	if err != nil {
		return ExecuteResult{}, fail(err, "")
	}
	r, err := p.e.secrets.openReply(x, held.Answer)
	if err == nil {
		err = r.refusal()
	}
	if err != nil {
		return ExecuteResult{}, err
	}
	res.ResponseHeaders, res.ResponseBody = r.Headers, r.Body
	return res, nil
}

// streamElsewhere is Stream through the queue: request and answer are passed on
// when they are whole.
func (p *Project) streamElsewhere(ctx context.Context, by Actor, k *known, r StreamRequest, w ResponseWriter) (Execution, error) {
	a := ExecuteParams{Method: r.Method, Path: r.Path, Headers: r.Headers, ClientIP: r.ClientIP}
	if err := CheckText(a.Path, 0, MaxPath); err != nil {
		return Execution{}, InvalidParam("path", err)
	}
	if body := p.e.boundedBody(r); body != nil {
		var err error
		if a.Body, err = io.ReadAll(body); err != nil {
			return Execution{}, err
		}
	}
	res, err := p.runElsewhere(ctx, by, p.newExecution(k, by, a), a)
	if err != nil {
		return Execution{}, err
	}
	if err := w.Head(cmp.Or(res.ResponseStatusCode, 500), res.ResponseHeaders); err != nil {
		return res.Execution, err
	}
	_, err = w.Write(res.ResponseBody)
	return res.Execution, err
}

// settleAwaited writes the result of an execution with its answer, for who waits.
func (e *Engine) settleAwaited(ctx context.Context, l store.Lease, x Execution, t turn, cause error) {
	x.Payload = nil
	r := reply{Limited: t.out.limited}
	if cause == nil {
		r.Headers, r.Body = t.answer.headers, t.answer.body
	} else {
		errors.As(cause, &r.Refused)
	}
	key := store.Key{Project: x.Project, Kind: store.ExecutionKey, Name: t.awaited.Name, Value: t.awaited.Value}
	var err error
	if key.Answer, err = e.secrets.sealReply(x, r); err != nil {
		e.cfg.Logger.Error("seal answer", "execution", x.ID, "error", err)
	}
	var lost bool
	err = e.persist(ctx, func(ctx context.Context) (err error) {
		lost, err = e.Project(x.Project).settleOnce(ctx, store.Settlement[Execution]{Lease: l, Row: x}, key)
		return err
	})
	switch {
	case err != nil:
		e.cfg.Logger.Error("settle execution", "execution", x.ID, "error", err)
	case !lost:
		e.settled(ctx, l, x, t.by, cause)
	}
}
