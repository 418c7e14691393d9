package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fnkit/fnkit/store"
)

func (s *suite) transactions() {
	var order []int
	s.must(s.InTx(s.ctx, func(ctx context.Context, tx store.Tx) error {
		order = nil
		tx.AfterCommit(func() { order = append(order, 1) })
		if _, err := tx.CreateFunction(ctx, s.function("f")); err != nil {
			return err
		}
		if _, err := tx.GetFunction(ctx, s.project, "f"); err != nil {
			return fmt.Errorf("its own write is not visible: %w", err)
		}
		if _, err := tx.UpdateFunction(ctx, s.project, "f", func(f *store.Function) error { f.Name = "in"; return nil }); err != nil {
			return err
		}
		tx.AfterCommit(func() { order = append(order, 2) })
		if len(order) > 0 {
			return errors.New("AfterCommit ran before the commit")
		}
		return tx.AppendExecutions(ctx, []store.Execution{s.execution("x", "f")})
	}))
	s.same("order of AfterCommit", order, []int{1, 2})
	f, err := s.GetFunction(s.ctx, s.project, "f")
	if s.must(err); f.Name != "in" {
		s.Errorf("name %q", f.Name)
	}
	refusal := errors.New("refused")
	err = s.InTx(s.ctx, func(ctx context.Context, tx store.Tx) error {
		tx.AfterCommit(func() { s.Error("AfterCommit ran after a rollback") })
		_, err := tx.CreateFunction(ctx, s.function("gone"))
		if err == nil {
			err = tx.AppendExecutions(ctx, []store.Execution{s.execution("gone", "f")})
		}
		return errors.Join(err, refusal)
	})
	s.is(err, refusal)
	s.is(second(s.GetFunction(s.ctx, s.project, "gone")), store.ErrNotFound)
	s.is(second(s.GetExecution(s.ctx, s.project, "f", "gone")), store.ErrNotFound)

	// Updates at once lose none.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := s.UpdateFunction(s.ctx, s.project, "f", func(f *store.Function) error { f.Timeout++; return nil })
			if err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	if f, err = s.GetFunction(s.ctx, s.project, "f"); err != nil || f.Timeout != 35 {
		s.Errorf("timeout %d after 20 increments of 15, %v", f.Timeout, err)
	}
}

// transactionQueues settles a build and activates it, together or not at all.
func (s *suite) transactionQueues() {
	s.create(s.function("f"))
	d := s.deployment("d", "f")
	d.ReadyAt = past(1)
	s.createDeployment(d)
	s.append(s.waiting("x", past(1)))
	claimed, err := s.Builds().Claim(s.ctx, store.ClaimParams{Now: past(1), LeaseUntil: past(10), Limit: 1})
	if s.must(err); len(claimed) != 1 {
		s.Fatalf("claimed %+v", claimed)
	}
	built := store.Settlement[store.Deployment](claimed[0])
	built.Row.Status, built.Row.ReadyAt = store.DeploymentReady, time.Time{}
	refusal := errors.New("refused")
	activate := func(answer error) error {
		return s.InTx(s.ctx, func(ctx context.Context, tx store.Tx) error {
			if lost, err := tx.Builds().Settle(ctx, []store.Settlement[store.Deployment]{built}); err != nil || len(lost) != 0 {
				return fmt.Errorf("lost %v: %w", lost, err)
			}
			if _, err := tx.UpdateFunction(ctx, s.project, "f", func(f *store.Function) error { f.Deployment = "d"; return nil }); err != nil {
				return err
			}
			if at, ok, err := tx.Runs().NextDue(ctx); err != nil || !ok || !at.Equal(past(1)) {
				return fmt.Errorf("next due %s, %v: %w", at, ok, err)
			}
			runs, err := tx.Runs().Claim(ctx, store.ClaimParams{Now: past(1), LeaseUntil: past(10), Limit: 1})
			if err != nil || len(runs) != 1 || len(runs[0].Row.Payload) == 0 {
				return fmt.Errorf("claimed %+v: %w", runs, err)
			}
			if lost, err := tx.Runs().Renew(ctx, []store.Lease{runs[0].Lease}, past(20)); err != nil || len(lost) != 0 {
				return fmt.Errorf("lost %v: %w", lost, err)
			}
			return answer
		})
	}
	state := func() (store.DeploymentStatus, string, store.ExecutionStatus) {
		d, err := s.GetDeployment(s.ctx, s.project, "f", "d")
		s.must(err)
		f, err := s.GetFunction(s.ctx, s.project, "f")
		s.must(err)
		x, err := s.GetExecution(s.ctx, s.project, "f", "x")
		s.must(err)
		return d.Status, f.Deployment, x.Status
	}
	s.is(activate(refusal), refusal)
	if build, active, run := state(); build != store.DeploymentProcessing || active != "" || run != store.ExecutionWaiting {
		s.Errorf("after a rollback: %s, %q, %s", build, active, run)
	}
	s.must(activate(nil))
	if build, active, run := state(); build != store.DeploymentReady || active != "d" || run != store.ExecutionProcessing {
		s.Errorf("after the commit: %s, %q, %s", build, active, run)
	}
}

// refusals: what is refused inside a transaction leaves nothing there, the
// transaction can go on, and its errors are the caller's, as they are.
func (s *suite) refusals() {
	s.create(s.function("f"))
	s.append(s.execution("b", "f"))
	s.must(s.InTx(s.ctx, func(ctx context.Context, tx store.Tx) error {
		err := tx.AppendExecutions(ctx, []store.Execution{s.execution("a", "f"), s.execution("b", "f")})
		s.is(err, store.ErrExists)
		return tx.AppendExecutions(ctx, []store.Execution{s.execution("c", "f")})
	}))
	s.is(second(s.GetExecution(s.ctx, s.project, "f", "a")), store.ErrNotFound)
	s.must(second(s.GetExecution(s.ctx, s.project, "f", "c")))

	mine := errors.New("dial: connection refused: unique constraint failed: database is locked")
	if err := s.InTx(s.ctx, func(context.Context, store.Tx) error { return mine }); err != mine {
		s.Errorf("a transaction's error came back as %v", err)
	}
	if _, err := s.UpdateFunction(s.ctx, s.project, "f", func(*store.Function) error { return mine }); err != mine {
		s.Errorf("an update's error came back as %v", err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	err := s.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		_, err := tx.CreateFunction(ctx, s.function("late"))
		cancel()
		return err
	})
	if err == nil {
		s.Error("committed after the context had ended")
	}
	s.is(second(s.GetFunction(s.ctx, s.project, "late")), store.ErrNotFound)
}
