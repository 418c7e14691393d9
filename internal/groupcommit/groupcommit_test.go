package groupcommit_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fnkit/fnkit/internal/groupcommit"
)

var errBad = errors.New("bad row")

func TestThoseWhoArriveMeanwhileShareTheNextCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var batches []int
		g := groupcommit.New(func(_ context.Context, rows []int) error {
			batches = append(batches, len(rows))
			<-gate
			return nil
		})
		var wg sync.WaitGroup
		wg.Go(func() { g.Add(t.Context(), 0) })
		synctest.Wait() // the first is writing, alone
		for i := range 50 {
			wg.Go(func() {
				if err := g.Add(t.Context(), i); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if len(batches) != 2 || batches[0] != 1 || batches[1] != 50 {
			t.Fatalf("batches of %v, want [1 50]", batches)
		}
	})
}

func TestOneBadRowFailsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		stored := map[int]bool{}
		g := groupcommit.New(func(_ context.Context, rows []int) error {
			<-gate
			for _, r := range rows {
				if r == 7 {
					return errBad
				}
			}
			for _, r := range rows {
				stored[r] = true
			}
			return nil
		})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				err := g.Add(t.Context(), i)
				if i == 7 && !errors.Is(err, errBad) || i != 7 && err != nil {
					t.Errorf("row %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if len(stored) != 19 {
			t.Fatalf("%d rows stored, want 19", len(stored))
		}
	})
}

func TestAFollowerMayLeaveAndTheLeaderMayNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		stored := 0
		g := groupcommit.New(func(ctx context.Context, rows []int) error {
			<-gate
			stored += len(rows)
			return ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		errs := make(chan error, 3)
		for range 3 { // one writes, one leads the next batch, one follows
			wg.Go(func() { errs <- g.Add(ctx, 1) })
			synctest.Wait()
		}
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Fatalf("the follower got %v", err)
		}
		close(gate)
		wg.Wait()
		if a, b := <-errs, <-errs; a != nil || b != nil || stored != 3 {
			t.Fatalf("leaders got %v, %v; %d rows stored", a, b, stored)
		}
	})
}

func TestBatchesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		g := groupcommit.New(func(_ context.Context, rows []int) error {
			<-gate
			size := 0
			for _, r := range rows {
				size += r
			}
			if len(rows) > 10 || size > 30 && len(rows) > 1 {
				t.Errorf("batch of %d rows, size %d", len(rows), size)
			}
			return nil
		})
		g.MaxRows, g.MaxSize, g.Size = 10, 30, func(n int) int { return n }
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { g.Add(t.Context(), i%12) })
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
	})
}

func TestAPanicOfTheWriteLetsFollowersGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		g := groupcommit.New(func(_ context.Context, rows []int) error {
			<-gate
			if len(rows) > 1 {
				panic("a bug")
			}
			return nil
		})
		var wg sync.WaitGroup
		var errs, panics atomic.Int32
		for range 3 { // one writes, one leads the next batch, one follows
			wg.Go(func() {
				defer func() {
					if recover() != nil {
						panics.Add(1)
					}
				}()
				if g.Add(t.Context(), 1) != nil {
					errs.Add(1)
				}
			})
			synctest.Wait()
		}
		close(gate)
		wg.Wait()
		if panics.Load() != 1 || errs.Load() != 1 {
			t.Errorf("%d panics and %d errors, want one of each", panics.Load(), errs.Load())
		}
		if err := g.Add(t.Context(), 1); err != nil {
			t.Errorf("after the panic: %v", err)
		}
	})
}
