package storetest

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnkit/fnkit/store"
)

// scheduled creates a function that is due at a time; zero: never.
func (s *suite) scheduled(id string, due time.Time) store.Function {
	f := s.function(id)
	f.NextRunAt, f.LastRunAt = due, time.Time{}
	return s.create(f)
}

// due returns the test's own functions that are due.
func (s *suite) due(now time.Time) (ids []string) {
	s.Helper()
	all, err := s.DueSchedules(s.ctx, now, 1000)
	s.must(err)
	if !slices.IsSortedFunc(all, func(a, b store.Function) int { return a.NextRunAt.Compare(b.NextRunAt) }) {
		s.Error("due schedules are not in order")
	}
	for _, f := range all {
		if f.Project == s.project {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

func (s *suite) schedules() {
	s.scheduled("second", past(20))
	first := s.scheduled("first", past(10))
	s.scheduled("later", at(1_000_000))
	s.scheduled("never", time.Time{})
	s.same("due", s.due(past(20)), []string{"first", "second"})
	s.same("due before", s.due(past(20).Add(-time.Millisecond)), []string{"first"})
	if all, err := s.DueSchedules(s.ctx, past(20), 1); err != nil || len(all) != 1 {
		s.Errorf("limit 1: %d, %v", len(all), err)
	}
	if next, ok, err := s.NextSchedule(s.ctx); err != nil || !ok || next.After(past(10)) {
		s.Errorf("next schedule %s, %v, %v", next, ok, err)
	}

	s.is(s.AdvanceSchedule(s.ctx, s.project, "first", past(11), past(10), past(40)), store.ErrConflict)
	s.is(s.AdvanceSchedule(s.ctx, s.project+"-other", "first", past(10), past(10), past(40)), store.ErrConflict)
	s.is(s.AdvanceSchedule(s.ctx, s.project, "nobody", past(10), past(10), past(40)), store.ErrConflict)
	s.must(s.AdvanceSchedule(s.ctx, s.project, "first", past(10), past(10), past(40)))
	s.is(s.AdvanceSchedule(s.ctx, s.project, "first", past(10), past(10), past(40)), store.ErrConflict)
	got, err := s.GetFunction(s.ctx, s.project, "first")
	s.must(err)
	first.LastRunAt, first.NextRunAt = past(10), past(40)
	s.same("advanced", got, first) // the revision, too
	s.same("due now", s.due(past(20)), []string{"second"})
	s.must(s.AdvanceSchedule(s.ctx, s.project, "second", past(20), past(20), time.Time{}))
	s.same("none is due", s.due(past(39)), []string(nil))

	s.onlyOneAdvances()
}

// onlyOneAdvances has engines fire one run at once: each inserts an execution
// in the transaction that advances the schedule, and one of them stays.
func (s *suite) onlyOneAdvances() {
	s.scheduled("raced", past(50))
	var won atomic.Int32
	var engines sync.WaitGroup
	for i := range 8 {
		engines.Go(func() {
			err := s.InTx(s.ctx, func(ctx context.Context, tx store.Tx) error {
				x := s.waiting("raced-"+string(rune('a'+i)), at(1_000_000))
				if err := tx.AppendExecutions(ctx, []store.Execution{x}); err != nil {
					return err
				}
				return tx.AdvanceSchedule(ctx, s.project, "raced", past(50), past(50), past(60))
			})
			if err == nil {
				won.Add(1)
			} else {
				s.is(err, store.ErrConflict)
			}
		})
	}
	engines.Wait()
	n, err := s.CountExecutions(s.ctx, s.project, "f", "", store.Query{}, 100)
	s.must(err)
	if won.Load() != 1 || n != 1 {
		s.Errorf("%d advanced, %d executions", won.Load(), n)
	}
}
