package storetest

import (
	"time"

	"github.com/fnkit/fnkit/store"
)

// settle writes one row back under its lease.
func (s *suite) settle(c store.Claimed[store.Execution]) {
	s.Helper()
	lost, err := s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{store.Settlement[store.Execution](c)})
	if s.must(err); len(lost) != 0 {
		s.Fatalf("lost %v", lost)
	}
}

// replays: a dead execution keeps its payload and can be queued again, once.
func (s *suite) replays() {
	s.append(s.waiting("x", past(1)), s.execution("failed", "f"))
	c := s.claim(past(1), past(40), 1)[0]
	c.Row.Status, c.Row.ReadyAt, c.Row.Tries, c.Row.Errors = store.ExecutionWaiting, past(50), 1, "once"
	s.settle(c)
	got, err := s.GetExecution(s.ctx, s.project, "f", "x")
	if s.must(err); got.Tries != 1 || got.Errors != "once" || got.Status != store.ExecutionWaiting || got.Losses != 0 {
		s.Errorf("put back: %+v", got)
	}
	_, err = s.ReplayExecution(s.ctx, s.project, "f", "x", at(1))
	s.is(err, store.ErrConflict)
	c = s.claim(past(50), past(60), 1)[0]
	c = s.claim(past(61), past(70), 1)[0] // its worker died
	if c.Row.Losses != 1 || c.Row.Tries != 1 || c.Lease.Attempt != 3 {
		s.Errorf("after a lost lease: %+v", c)
	}
	c.Row.Status, c.Row.ReadyAt, c.Row.Tries = store.ExecutionDead, time.Time{}, 2
	s.settle(c)
	if _, ok, err := s.Runs().NextDue(s.ctx); err != nil || ok {
		s.Errorf("a dead one is due: %v, %v", ok, err)
	}
	_, err = s.CancelExecution(s.ctx, s.project, "f", "x", "", at(2))
	s.is(err, store.ErrConflict)
	x, err := s.ReplayExecution(s.ctx, s.project, "f", "x", at(3))
	if s.must(err); x.Status != store.ExecutionWaiting || x.Tries != 0 || x.Losses != 0 || !x.ReadyAt.Equal(at(3)) || !x.UpdatedAt.Equal(at(3)) || x.Errors != "once" {
		s.Errorf("replayed: %+v", x)
	}
	for id, want := range map[string]error{"x": store.ErrConflict, "failed": store.ErrConflict, "nobody": store.ErrNotFound} {
		_, err = s.ReplayExecution(s.ctx, s.project, "f", id, at(4))
		s.is(err, want)
	}
	_, err = s.ReplayExecution(s.ctx, s.project, "g", "x", at(4))
	s.is(err, store.ErrNotFound)
	rows := s.claim(at(3), at(40), 5)
	if len(rows) != 1 || string(rows[0].Row.Payload) != "sealed x" {
		s.Fatalf("claimed %+v", rows)
	}
	rows[0].Row.Status, rows[0].Row.ReadyAt = store.ExecutionDead, time.Time{}
	s.settle(rows[0])
	s.must(s.DeleteExecution(s.ctx, s.project, "f", "x", store.ExecutionDead))
	s.append(s.waiting("x", past(1))) // nothing of it is left in the way
}

// priorities: of one project, the ones with higher priorities come first, and
// what is put back keeps its own.
func (s *suite) priorities() {
	var rows []store.Execution
	for id, priority := range map[string]int{"low": -1, "first": 0, "second": 0, "high": 7} {
		x := s.waiting(id, past(2))
		if x.Priority = priority; id == "second" || id == "high" {
			x.ReadyAt = past(3)
		}
		rows = append(rows, x)
	}
	s.append(rows...)
	for _, want := range []string{"high", "first", "second", "low"} {
		c := s.claim(past(9), past(40), 1)
		if len(c) != 1 || c[0].Lease.ID != want {
			s.Fatalf("claimed %v, want %s", ids(c), want)
		}
		if want == "high" {
			c[0].Row.Status, c[0].Row.ReadyAt = store.ExecutionWaiting, past(8)
			s.settle(c[0])
			if again := s.claim(past(9), past(40), 1); len(again) != 1 || again[0].Lease.ID != "high" || again[0].Row.Priority != 7 {
				s.Fatalf("put back, and claimed %v", ids(again))
			}
		}
	}
}
