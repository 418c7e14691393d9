package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"

	"github.com/fnkit/fnkit/store"
)

// An idempotency key is claimed in the transaction that stores the execution:
// of calls that carry it, one executes the function. A synchronous execution is
// therefore stored before it runs, under a lease. If its engine dies, the
// worker that finds the lease ended writes that down; it is not run again.

// executionKey returns the key of a call. Its name belongs to one caller: what
// one is answered is not for another. Its value is the execution's id and what
// was asked for.
func (p *Project) executionKey(by Actor, x Execution, a ExecuteParams) store.Key {
	who := "key"
	switch by.Kind {
	case ActorUser:
		who = "user:" + by.UserID
	case ActorGuest:
		who = "guest:" + a.ClientIP
	}
	return store.Key{
		Project: p.id, Kind: store.ExecutionKey, Name: strings.Join([]string{x.FunctionID, who, a.IdempotencyKey}, "/"),
		Value: x.ID + " " + fingerprint(a), ExpiresAt: x.CreatedAt.Add(p.e.cfg.Limits.IdempotencyWindow),
	}
}

// fingerprint tells requests apart.
func fingerprint(a ExecuteParams) string {
	a.ClientIP, a.IdempotencyKey = "", ""
	request, _ := json.Marshal(a) // plain fields always can
	sum := sha256.Sum256(request)
	return hex.EncodeToString(sum[:])
}

// first stores an execution together with its key. If the key is held already
// it stores nothing and returns that one; if it is not, and refused says why
// there may be no more executions, it stores nothing either.
func (p *Project) first(ctx context.Context, key store.Key, x Execution, refused error) (held *store.Key, err error) {
	err = p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		held, err = claimFirst(ctx, tx, key, x, refused)
		return err
	})
	return held, fail(err, "")
}

func claimFirst(ctx context.Context, tx store.Tx, key store.Key, x Execution, refused error) (*store.Key, error) {
	other, err := tx.ClaimKey(ctx, key, x.CreatedAt)
	switch {
	case errors.Is(err, store.ErrExists):
		return &other, nil
	case err != nil:
		return nil, err
	case refused != nil:
		if err := tx.DeleteKey(ctx, key); err != nil { // a host's transaction may go on
			return nil, err
		}
		return nil, refused
	}
	return nil, tx.AppendExecutions(ctx, []Execution{x})
}

// earlier returns the id of the execution that a key is held by, if that was
// asked for the same.
func earlier(key, held store.Key) (id string, err error) {
	id, asked, _ := strings.Cut(held.Value, " ")
	if !strings.HasSuffix(key.Value, " "+asked) {
		return "", Errorf(TypeKeyReused, "")
	}
	return id, nil
}

// enqueueOnce queues an execution, unless one was with the same key, or refused
// says why it may not be queued.
func (p *Project) enqueueOnce(ctx context.Context, by Actor, x Execution, a ExecuteParams, refused error) (ExecuteResult, error) {
	key := p.executionKey(by, x, a)
	held, err := p.first(ctx, key, x, refused)
	if err != nil {
		return ExecuteResult{}, err
	}
	if held == nil {
		return ExecuteResult{Execution: p.accepted(ctx, by, x)}, nil
	}
	id, err := earlier(key, *held)
	if err != nil {
		return ExecuteResult{}, err
	}
	x, err = p.e.store.GetExecution(ctx, p.id, x.FunctionID, id)
	return ExecuteResult{Execution: masked(x, by), Repeated: true}, fail(err, TypeExecution)
}

// runOnce runs an execution on the caller's time, unless one was with the same
// key: then it waits for that one's answer.
func (p *Project) runOnce(ctx context.Context, by Actor, k *known, x Execution, a ExecuteParams, room store.Room) (ExecuteResult, error) {
	run, done, err := p.e.call()
	if err != nil {
		return ExecuteResult{}, err
	}
	defer done()
	waiting, cancel := p.e.within(ctx, p.e.cfg.Limits.SyncTimeout, errLimit)
	defer cancel()
	x.Status, x.Attempt = store.ExecutionProcessing, 1
	for looked := 0; ; {
		now := p.e.now()
		x.CreatedAt, x.UpdatedAt, x.ReadyAt = now, now, p.e.leaseEnd(now)
		key := p.executionKey(by, x, a)
		held, err := p.first(ctx, key, x, nil)
		if err != nil {
			return ExecuteResult{}, err
		}
		if held == nil {
			return p.runHeld(ctx, run, by, k, x, a, room, key)
		}
		res, over, err := p.repeat(ctx, by, x.FunctionID, key, *held)
		switch {
		case err != nil || res.Repeated:
			return res, err
		case over && looked > 0: // it has no answer: its engine died
			res.Repeated = true
			return res, nil
		case over:
			looked++ // the answer was written meanwhile
			continue
		}
		if err := p.e.untilOver(waiting, row{p.id, res.ID}); err != nil {
			return ExecuteResult{}, err
		}
	}
}

// repeat returns the answer of the execution that holds a key, if there is one;
// over: it has ended.
func (p *Project) repeat(ctx context.Context, by Actor, function string, key, held store.Key) (res ExecuteResult, over bool, err error) {
	id, err := earlier(key, held)
	if err != nil {
		return res, false, err
	}
	x, err := p.e.store.GetExecution(ctx, p.id, function, id)
	if err != nil {
		return res, false, fail(err, TypeExecution)
	}
	res.Execution = masked(x, by)
	if held.Answer == nil {
		return res, x.Status.Final(), nil
	}
	r, err := p.e.secrets.openReply(x, held.Answer)
	if err == nil {
		err = r.refusal()
	}
	if err != nil {
		return res, true, err
	}
	res.ResponseHeaders, res.ResponseBody, res.Repeated = r.Headers, r.Body, true
	return res, true, nil
}

// untilOver waits a while for an execution to end: until it has, if it runs
// here, else until it is time to ask the store again.
func (e *Engine) untilOver(ctx context.Context, r row) error {
	timer := e.clock.Timer(e.cfg.Work.Poll)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.runs.over(r):
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errLimit) {
			return Errorf(TypeSyncTimeout, "")
		}
		return ctx.Err()
	}
	return nil
}

// runHeld runs an execution that is stored, under its lease, and keeps its
// answer with its key.
func (p *Project) runHeld(ctx, run context.Context, by Actor, k *known, x Execution, a ExecuteParams, room store.Room, key store.Key) (ExecuteResult, error) {
	lease := store.Lease{Project: x.Project, ID: x.ID, Attempt: x.Attempt}
	run, done := p.e.runs.hold(run, store.Claimed[Execution]{Lease: lease, Row: x}, true)
	defer done()
	out, res, err := p.answer(ctx, run, by, k, &x, a, room)
	if err != nil {
		p.withdraw(ctx, x, key)
		return ExecuteResult{}, err
	}
	if res.canceled {
		x.Status = store.ExecutionCanceled
	}
	if key.Answer, err = p.e.secrets.sealReply(x, reply{Headers: out.headers, Body: out.body, Limited: res.limited}); err != nil {
		return ExecuteResult{}, err
	}
	lost, err := p.settleOnce(context.WithoutCancel(ctx), store.Settlement[Execution]{Lease: lease, Row: x}, key)
	switch {
	case err != nil:
		return ExecuteResult{}, fail(err, "")
	case lost && p.e.deletedSince(ctx, k, x.CreatedAt):
		return ExecuteResult{}, Errorf(TypeFunction, "")
	case lost:
		return ExecuteResult{}, Errorf(TypeUnavailable, "The execution took place, and was meanwhile taken for lost: its answer was not kept.")
	}
	p.emit(ctx, by, "functions."+x.FunctionID+".executions."+x.ID+".create", masked(x, by))
	if res.limited {
		return ExecuteResult{}, Errorf(TypeSyncTimeout, "")
	}
	return ExecuteResult{Execution: masked(x, by), ResponseHeaders: out.headers, ResponseBody: out.body}, nil
}

// settleOnce writes the result of an execution together with its answer.
func (p *Project) settleOnce(ctx context.Context, s store.Settlement[Execution], key store.Key) (lost bool, err error) {
	err = p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		leases, err := tx.Runs().Settle(ctx, []store.Settlement[Execution]{s})
		if lost = len(leases) > 0; err != nil || lost {
			return err
		}
		if err := tx.AnswerKey(ctx, key); !errors.Is(err, store.ErrNotFound) { // its window may have passed
			return err
		}
		return nil
	})
	return lost, err
}

// withdraw removes an execution that could not begin, and its key: the call may
// be made again.
func (p *Project) withdraw(ctx context.Context, x Execution, key store.Key) {
	err := p.e.store.InTx(context.WithoutCancel(ctx), func(ctx context.Context, tx store.Tx) error {
		if err := tx.DeleteExecution(ctx, x.Project, x.FunctionID, x.ID, store.ExecutionProcessing); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return tx.DeleteKey(ctx, key)
	})
	if err != nil {
		p.e.cfg.Logger.Error("withdraw execution", "execution", x.ID, "error", err)
	}
}
