package storetest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnkit/fnkit/store"
)

// admit claims an execution and asks whether it may run.
func (s *suite) admit(id string, r store.Room, now time.Time) (store.Claimed[store.Execution], store.Admission) {
	s.Helper()
	for _, c := range s.claim(now, now.Add(30*time.Second), 100) {
		if c.Lease.ID == id {
			a, err := s.Admit(s.ctx, c.Lease, r, now)
			s.must(err)
			return c, a
		}
	}
	s.Fatalf("%s could not be claimed", id)
	panic("unreachable")
}

func (s *suite) status(id string) store.Execution {
	s.Helper()
	x, err := s.GetExecution(s.ctx, s.project, "f", id)
	s.must(err)
	return x
}

// gates: as many run as may; the others are parked until there is room.
func (s *suite) gates() {
	room := store.Room{Function: 2, Lane: 1}
	add := func(id, lane string, priority int) {
		x := s.waiting(id, past(1))
		x.Lane, x.Priority = lane, priority
		s.append(x)
	}
	var held []store.Claimed[store.Execution]
	for i, id := range []string{"a", "b"} {
		add(id, fmt.Sprint("lane", i), 0)
		c, a := s.admit(id, room, past(2))
		if held = append(held, c); a != store.Admitted {
			s.Fatalf("%s: %v", id, a)
		}
	}
	for _, x := range []struct {
		id, lane string
		priority int
	}{{"c", "", 0}, {"d", "lane0", 5}, {"e", "lane0", 5}, {"f", "", 1}} {
		add(x.id, x.lane, x.priority)
		if _, a := s.admit(x.id, room, past(3)); a != store.Parked {
			s.Fatalf("%s: %v", x.id, a)
		}
		if got := s.status(x.id); got.Status != store.ExecutionWaiting || !got.ReadyAt.IsZero() || got.Lane != x.lane {
			s.Errorf("parked: %+v", got)
		}
	}
	unpark := func(want int, r store.Room) {
		s.Helper()
		n, err := s.Unpark(s.ctx, s.project, "f", r, past(5))
		if s.must(err); n != want {
			s.Errorf("unparked %d, want %d", n, want)
		}
	}
	unpark(0, room)
	if late := s.claim(at(1_000_000), at(1_000_040), 10); len(late) != 2 { // leases of a and b have ended; nothing else is in the queue
		s.Errorf("claimed %v", ids(late))
	} else {
		held = late
		slices.SortFunc(held, func(a, b store.Claimed[store.Execution]) int { return int(a.Lease.ID[0]) - int(b.Lease.ID[0]) })
	}
	if a, err := s.Admit(s.ctx, held[0].Lease, room, past(4)); err != nil || a != store.Admitted { // it has its place already
		s.Errorf("again: %v, %v", a, err)
	}
	_, err := s.Admit(s.ctx, store.Lease{Project: s.project, ID: "a", Attempt: 1}, room, past(4))
	s.is(err, store.ErrConflict)
	refs, err := s.Parked(s.ctx, s.project, 10)
	s.must(err)
	s.same("parked", refs, []store.FunctionRef{{Project: s.project, ID: "f"}})

	// One ends: of those that may run, the one with the highest priority is next.
	held[1].Row.Status, held[1].Row.ReadyAt = store.ExecutionCompleted, time.Time{}
	s.settle(held[1])
	unpark(1, room) // not d or e: their lane is full
	if c, a := s.admit("f", room, past(6)); a != store.Admitted || string(c.Row.Payload) != "sealed f" {
		s.Errorf("f: %v, %+v", a, c)
	}
	// One is canceled, of those that run and of those that are parked.
	for _, id := range []string{"a", "c"} {
		_, err := s.CancelExecution(s.ctx, s.project, "f", id, "", past(7))
		s.must(err)
	}
	unpark(1, room) // d or e: they are of one lane
	rows := s.claim(past(8), past(40), 10)
	if len(rows) != 1 || rows[0].Row.Lane != "lane0" {
		s.Fatalf("claimed %v", ids(rows))
	}
	unpark(1, store.Room{}) // no limit any more
	if refs, err = s.Parked(s.ctx, s.project, 10); err != nil || len(refs) != 0 {
		s.Errorf("parked %v, %v", refs, err)
	}
}

// roomOfProject: a project's limit holds for its functions together, and for
// no other project.
func (s *suite) roomOfProject() {
	room := store.Room{Project: 1}
	s.append(s.waiting("a", past(1)))
	if _, a := s.admit("a", room, past(2)); a != store.Admitted {
		s.Fatal(a)
	}
	other := s.waiting("b", past(1))
	other.FunctionID = "g"
	s.append(other)
	if _, a := s.admit("b", room, past(2)); a != store.Parked {
		s.Error(a)
	}
	far := *s
	far.project += "-other"
	far.append(far.waiting("a", past(1)))
	if _, a := far.admit("a", room, past(2)); a != store.Admitted {
		s.Error(a)
	}
	for _, c := range []struct {
		project string
		want    int
	}{{s.project, 1}, {far.project, 0}} {
		refs, err := s.Parked(s.ctx, c.project, 10)
		if s.must(err); len(refs) != c.want {
			s.Errorf("%s: %v", c.project, refs)
		}
	}
	if refs, err := s.Parked(s.ctx, "", 1000); err != nil || !slices.Contains(refs, store.FunctionRef{Project: s.project, ID: "g"}) {
		s.Errorf("%v, %v", refs, err)
	}
}

// rates: executions begin as tokens come, in their turn, and keep their turn.
func (s *suite) rates() {
	room := store.Room{FunctionRate: store.Rate{Limit: 2, Period: 10}, ProjectRate: store.Rate{Limit: 1000, Period: 1}}
	var begins []time.Duration
	for i := range 5 {
		id := fmt.Sprint("x", i)
		s.append(s.waiting(id, past(1)))
		_, a := s.admit(id, room, past(1))
		if x := s.status(id); a == store.Postponed && x.Status == store.ExecutionWaiting {
			begins = append(begins, x.ReadyAt.Sub(past(1)))
		} else if a == store.Admitted {
			begins = append(begins, 0)
		}
	}
	s.same("begins", begins, []time.Duration{0, 0, 5 * time.Second, 10 * time.Second, 15 * time.Second})
	if early := s.claim(past(5), past(9), 10); len(early) != 0 {
		s.Errorf("claimed early: %v", ids(early))
	}
	if _, a := s.admit("x2", room, past(6)); a != store.Admitted { // has its token
		s.Error(a)
	}
	s.append(s.waiting("late", past(1)))
	if _, a := s.admit("late", room, past(100)); a != store.Admitted { // the bucket is full again
		s.Error(a)
	}
}

// ratesOfLanes: each lane of a function has a bucket of its own, beside the
// function's, until it is full and trimmed, or the function is deleted.
func (s *suite) ratesOfLanes() {
	s.must(second(s.CreateFunction(s.ctx, s.function("f"))))
	room := store.Room{LaneRate: store.Rate{Limit: 1, Period: 10}, FunctionRate: store.Rate{Limit: 5, Period: 50}}
	n := 0
	wait := func(lane string, at time.Time) time.Duration {
		s.Helper()
		n++
		x := s.waiting(fmt.Sprint("x", n), past(1))
		x.Lane = lane
		s.append(x)
		switch _, a := s.admit(x.ID, room, at); a {
		case store.Admitted:
			return 0
		case store.Postponed:
			return s.status(x.ID).ReadyAt.Sub(at)
		}
		return -1
	}
	var got []time.Duration
	for _, lane := range []string{"a", "a", "b", "", ""} {
		got = append(got, wait(lane, past(1)))
	}
	s.same("waits", got, []time.Duration{0, 10 * time.Second, 0, 0, 0})
	s.same("beyond the function's", wait("c", past(1)), 10*time.Second)

	trim := func(at time.Time) (all int) {
		s.Helper()
		for {
			n, err := s.TrimRates(s.ctx, at, 1)
			if s.must(err); n > 1 {
				s.Errorf("trimmed %d at once", n)
			}
			if all += n; n == 0 {
				return all
			}
		}
	}
	s.same("trimmed at once", trim(past(1)), 0)
	s.same("trimmed later", trim(past(11)), 2) // those of b and c
	s.same("a has to wait still", wait("a", past(11)), 10*time.Second)
	s.must(second(s.DeleteFunction(s.ctx, s.project, "f")))
	s.same("left of a function that was deleted", trim(past(1000)), 0)
}

// admissions: however many ask at once, no more are admitted than may.
func (s *suite) admissions(stores []store.Store) {
	const n = 40
	var rows []store.Execution
	for i := range n {
		rows = append(rows, s.waiting(fmt.Sprintf("x%02d", i), past(1)))
	}
	s.append(rows...)
	var inside, most, done atomic.Int32
	var wg sync.WaitGroup
	room := store.Room{Function: 3}
	work := func(st store.Store, c store.Claimed[store.Execution]) error {
		switch a, err := st.Admit(s.ctx, c.Lease, room, past(2)); {
		case err != nil:
			return err
		case a == store.Parked:
			return nil
		}
		now := inside.Add(1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		c.Row.Status, c.Row.ReadyAt = store.ExecutionCompleted, time.Time{}
		inside.Add(-1)
		done.Add(1)
		_, err := st.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{store.Settlement[store.Execution](c)})
		return err
	}
	for i := range 6 {
		st := stores[i%len(stores)]
		wg.Go(func() {
			for done.Load() < n && s.ctx.Err() == nil {
				rows, err := st.Runs().Claim(s.ctx, store.ClaimParams{Now: past(2), LeaseUntil: past(1000), Limit: 3})
				for _, c := range rows {
					if err == nil {
						err = work(st, c)
					}
				}
				if err == nil {
					_, err = st.Unpark(s.ctx, s.project, "f", room, past(2))
				}
				if err != nil {
					s.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if done.Load() != n || most.Load() > 3 {
		s.Errorf("%d of %d done, %d at once", done.Load(), n, most.Load())
	}
}
