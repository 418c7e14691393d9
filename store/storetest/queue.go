package storetest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fnkit/fnkit/store"
)

// past is when the rows of queue tests are due.
func past(n int) time.Time { return epoch.AddDate(-1, 0, 0).Add(time.Duration(n) * time.Second) }

func (s *suite) waiting(id string, due time.Time) store.Execution {
	x := s.execution(id, "f")
	x.Status, x.ReadyAt, x.Payload, x.Logs, x.Errors = store.ExecutionWaiting, due, []byte("sealed "+id), "", ""
	return x
}

// claim claims rows and returns those of the test's project.
func (s *suite) claim(now, until time.Time, limit int) []store.Claimed[store.Execution] {
	s.Helper()
	rows, err := s.Runs().Claim(s.ctx, store.ClaimParams{Now: now, LeaseUntil: until, Limit: limit})
	s.must(err)
	return slices.DeleteFunc(rows, func(c store.Claimed[store.Execution]) bool { return c.Lease.Project != s.project })
}

func ids(rows []store.Claimed[store.Execution]) []string {
	var out []string
	for _, c := range rows {
		out = append(out, c.Lease.ID)
	}
	slices.Sort(out)
	return out
}

func (s *suite) queue() {
	s.append(s.waiting("due1", past(1)), s.waiting("due2", past(2)), s.waiting("later", past(100)), s.execution("final", "f"))
	next, ok, err := s.Runs().NextDue(s.ctx)
	if s.must(err); !ok || next.After(past(1)) {
		s.Errorf("next due %s, %v", next, ok)
	}
	for max, want := range map[int]int{10: 2, 1: 1} {
		if n, err := s.Runs().Depth(s.ctx, past(10), max); err != nil || n != want {
			s.Errorf("%d are due, %v; up to %d: want %d", n, err, max, want)
		}
	}
	rows := s.claim(past(10), past(40), 10)
	s.same("claimed", ids(rows), []string{"due1", "due2"})
	if n, err := s.Runs().Depth(s.ctx, past(10), 10); err != nil || n != 0 {
		s.Errorf("%d are due after a claim, %v", n, err)
	}
	for _, c := range rows {
		if c.Row.Status != store.ExecutionProcessing || c.Row.Attempt != 1 || c.Lease.Attempt != 1 || !c.Row.ReadyAt.Equal(past(40)) || string(c.Row.Payload) != "sealed "+c.Row.ID {
			s.Errorf("claimed %+v", c)
		}
	}
	if again := s.claim(past(11), past(41), 10); len(again) != 0 {
		s.Errorf("claimed again %v", ids(again))
	}

	done := rows[0]
	done.Row.Status, done.Row.ReadyAt, done.Row.Logs, done.Row.ResponseStatusCode = store.ExecutionCompleted, time.Time{}, "done\n", 201
	done.Row.UserID = "somebody else" // is not written
	back := rows[1]
	back.Row.Status, back.Row.ReadyAt = store.ExecutionWaiting, past(20)
	lost, err := s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{{Lease: done.Lease, Row: done.Row}, {Lease: back.Lease, Row: back.Row}})
	if s.must(err); len(lost) != 0 {
		s.Fatalf("lost %v", lost)
	}
	got, err := s.GetExecution(s.ctx, s.project, "f", done.Lease.ID)
	if s.must(err); got.Status != store.ExecutionCompleted || got.Logs != "done\n" || got.ResponseStatusCode != 201 || got.UserID != "u" || !got.ReadyAt.IsZero() {
		s.Errorf("settled %+v", got)
	}
	if early := s.claim(past(19), past(60), 10); len(early) != 0 {
		s.Errorf("claimed before it was due: %v", ids(early))
	}
	rows = s.claim(past(20), past(60), 10)
	if len(rows) != 1 || rows[0].Lease.Attempt != 2 || len(rows[0].Row.Payload) == 0 {
		s.Fatalf("put back and claimed: %+v", rows)
	}
}

func (s *suite) leases() {
	s.append(s.waiting("x", past(1)))
	first := s.claim(past(1), past(10), 5)
	if len(first) != 1 {
		s.Fatalf("claimed %v", ids(first))
	}
	lost, err := s.Runs().Renew(s.ctx, []store.Lease{first[0].Lease, {Project: s.project, ID: "none", Attempt: 1}}, past(20))
	s.must(err)
	s.same("lost", lost, []store.Lease{{Project: s.project, ID: "none", Attempt: 1}})
	if early := s.claim(past(19), past(30), 5); len(early) != 0 {
		s.Fatal("claimed under a renewed lease")
	}
	second := s.claim(past(20), past(40), 5) // the lease has ended
	if len(second) != 1 || second[0].Lease.Attempt != 2 {
		s.Fatalf("after the lease: %+v", second)
	}
	// The first worker wakes up late: nothing it says counts.
	late := first[0]
	late.Row.Status, late.Row.ReadyAt, late.Row.Logs = store.ExecutionFailed, time.Time{}, "late"
	lost, err = s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{{Lease: late.Lease, Row: late.Row}})
	s.must(err)
	s.same("lost by the late worker", lost, []store.Lease{late.Lease})
	lost, err = s.Runs().Renew(s.ctx, []store.Lease{late.Lease}, past(100))
	s.must(err)
	s.same("not renewed", lost, []store.Lease{late.Lease})
	if got, err := s.GetExecution(s.ctx, s.project, "f", "x"); err != nil || got.Status != store.ExecutionProcessing || got.Logs != "" {
		s.Errorf("%+v, %v", got, err)
	}
	// Once final, a row is nobody's.
	done := second[0]
	done.Row.Status, done.Row.ReadyAt = store.ExecutionCompleted, time.Time{}
	for i, want := range []int{0, 1} {
		lost, err := s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{{Lease: done.Lease, Row: done.Row}})
		if s.must(err); len(lost) != want {
			s.Errorf("settle %d lost %v", i, lost)
		}
	}
}

// fair: one project with many rows does not keep the others waiting.
func (s *suite) fair() {
	loud := *s
	loud.project += "-0-loud"
	var rows []store.Execution
	for i := range 200 {
		rows = append(rows, loud.waiting(fmt.Sprint("x", i), past(0)))
	}
	var quiet []string
	for i := range 5 {
		q := *s
		q.project += fmt.Sprint("-1-quiet", i)
		quiet = append(quiet, q.project)
		rows = append(rows, q.waiting("x", past(5)))
	}
	future := *s
	future.project += "-0-future" // has rows, none of them due
	rows = append(rows, future.waiting("x", past(5000)))
	s.append(rows...)
	got := map[string]int{}
	claimed, err := s.Runs().Claim(s.ctx, store.ClaimParams{Now: past(10), LeaseUntil: past(4000), Limit: 20})
	if s.must(err); len(claimed) > 20 {
		s.Errorf("%d rows claimed, asked for 20", len(claimed))
	}
	for _, c := range claimed {
		got[c.Lease.Project]++
	}
	if n := got[loud.project]; n < 1 || n > 4 {
		s.Errorf("%d of 20 rows are of the loud one of six projects", n)
	}
	for _, q := range quiet {
		if got[q] != 1 {
			s.Errorf("%d rows of %s", got[q], q)
		}
	}
	if got[future.project] != 0 {
		s.Error("a row was claimed before it was due")
	}
	rest, err := s.Runs().Claim(s.ctx, store.ClaimParams{Now: past(10), LeaseUntil: past(4000), Limit: 20, After: claimed[0].Lease.Project})
	if s.must(err); len(rest) != 20 {
		s.Errorf("alone, the loud project gets %d of 20", len(rest))
	}
}

// comingDue: rows whose time comes, and rows whose lease ends, get their turn
// like those that were due from the start, also when the clock is set back.
func (s *suite) comingDue() {
	project := func(name string) *suite {
		p := *s
		p.project += "-" + name
		return &p
	}
	loud, timed, leased, later := project("0-loud"), project("1-timed"), project("2-leased"), project("3-later")
	s.append(leased.waiting("x", at(1)))
	if held := leased.claim(at(5), at(10), 1); len(held) != 1 {
		s.Fatalf("claimed %v", ids(held))
	}
	var rows []store.Execution
	for i := range 100 {
		rows = append(rows, loud.waiting(fmt.Sprint("x", i), at(1)))
	}
	rows = append(rows, timed.waiting("x", at(10)), later.waiting("x", at(1000)))
	s.append(rows...)
	taken := 0
	for _, c := range []struct {
		now, claims int // what comes due is claimed by the next claim at the latest
		want        []string
	}{{9, 1, []string{loud.project}}, {10, 2, []string{loud.project, timed.project, leased.project}}, {9, 1, []string{loud.project}}} {
		var from []string
		for range c.claims {
			claimed, err := s.Runs().Claim(s.ctx, store.ClaimParams{Now: at(c.now), LeaseUntil: at(20), Limit: 6})
			s.must(err)
			taken += len(claimed)
			for _, row := range claimed {
				if !slices.Contains(from, row.Lease.Project) {
					from = append(from, row.Lease.Project)
				}
			}
		}
		slices.Sort(from)
		if !slices.Equal(from, c.want) {
			s.Errorf("at %d claimed of %v, want %v", c.now, from, c.want)
		}
	}
	// Beyond the limit everything comes, whatever the clock did.
	if rest := s.claimAll(at(19), at(3000)); rest != 102-taken {
		s.Errorf("%d rows were left", rest)
	}
	if again := s.claimAll(at(20), at(3000)); again != taken {
		s.Errorf("%d rows came back when their lease had ended", again)
	}
	if last := s.claimAll(at(1000), at(3000)); last != 1 {
		s.Errorf("%d rows were due at last", last)
	}
}

// claimAll claims until nothing is due, and returns how many rows that were.
func (s *suite) claimAll(now, until time.Time) (n int) {
	for {
		claimed, err := s.Runs().Claim(s.ctx, store.ClaimParams{Now: now, LeaseUntil: until, Limit: 7})
		if s.must(err); len(claimed) == 0 {
			return n
		}
		n += len(claimed)
	}
}

// turns: claims of one row each serve the projects in turn, past any number
// of projects that have nothing due.
func (s *suite) turns() {
	var rows []store.Execution
	for i := range 30 {
		p := *s
		p.project += fmt.Sprintf("-%02d", i)
		due := past(5000)
		if i%10 == 5 {
			due = past(1)
		}
		for j := range 3 {
			rows = append(rows, p.waiting(fmt.Sprint("x", j), due))
		}
	}
	s.append(rows...)
	var served []string
	after := ""
	for range 9 {
		claimed, err := s.Runs().Claim(s.ctx, store.ClaimParams{Now: past(1), LeaseUntil: past(4000), Limit: 1, After: after})
		if s.must(err); len(claimed) != 1 {
			s.Fatalf("claimed %d rows", len(claimed))
		}
		after = claimed[0].Lease.Project
		served = append(served, after[len(after)-2:])
	}
	s.same("served", served, []string{"05", "15", "25", "05", "15", "25", "05", "15", "25"})
}

// payloads are kept until an execution is final, and not longer.
func (s *suite) payloads() {
	s.create(s.function("f"))
	round := func(x store.Execution, want string) {
		s.Helper()
		s.append(x)
		c := s.claim(past(1), past(10), 1)
		if len(c) != 1 || string(c[0].Row.Payload) != want {
			s.Fatalf("claimed %+v, want payload %q", c, want)
		}
		c[0].Row.Status, c[0].Row.ReadyAt = store.ExecutionFailed, time.Time{}
		lost, err := s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{{Lease: c[0].Lease, Row: c[0].Row}})
		if s.must(err); len(lost) != 0 {
			s.Fatalf("lost %v", lost)
		}
		s.must(s.DeleteExecution(s.ctx, s.project, "f", "x", store.ExecutionFailed))
	}
	x := s.waiting("x", past(1))
	round(x, "sealed x")
	x.Payload = nil
	round(x, "")
	x.Payload = []byte{0, 255, '\''}
	round(x, string(x.Payload))

	// Deleted before it ran, it leaves no payload either.
	x.Status = store.ExecutionScheduled
	s.append(x)
	s.must(s.DeleteExecution(s.ctx, s.project, "f", "x", store.ExecutionScheduled))
	round(x, string(x.Payload))
}

// claims: many workers at once take each row once.
func (s *suite) claims() {
	var rows []store.Execution
	for i := range 150 {
		rows = append(rows, s.waiting(fmt.Sprint("x", i), past(i%7)))
	}
	s.append(rows...)
	var mu sync.Mutex
	taken := map[string]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 40 {
				claimed, err := s.Runs().Claim(s.ctx, store.ClaimParams{Now: past(50), LeaseUntil: past(4000), Limit: 10})
				if err != nil {
					s.Error(err)
					return
				}
				mu.Lock()
				for _, c := range claimed {
					if c.Lease.Project == s.project {
						taken[c.Lease.ID]++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(taken) != 150 {
		s.Errorf("%d of 150 rows claimed", len(taken))
	}
	for id, n := range taken {
		if n != 1 {
			s.Errorf("%s was claimed %d times", id, n)
		}
	}
}

func (s *suite) builds() {
	s.create(s.function("f"))
	d := s.deployment("d", "f")
	d.ReadyAt, d.BuildID, d.BuildLogs = past(1), "", ""
	d = s.createDeployment(d)
	uploading := s.deployment("u", "f")
	uploading.Status, uploading.ReadyAt = store.DeploymentUploading, time.Time{}
	s.createDeployment(uploading)
	claimed, err := s.Builds().Claim(s.ctx, store.ClaimParams{Now: past(2), LeaseUntil: past(10), Limit: 10})
	s.must(err)
	claimed = slices.DeleteFunc(claimed, func(c store.Claimed[store.Deployment]) bool { return c.Lease.Project != s.project })
	if len(claimed) != 1 || claimed[0].Row.Status != store.DeploymentProcessing || claimed[0].Row.ID != "d" {
		s.Fatalf("claimed %+v", claimed)
	}
	c := claimed[0]
	c.Row.Status, c.Row.ReadyAt, c.Row.BuildID, c.Row.Activate = store.DeploymentBuilding, past(20), "b", false
	settle := func() []store.Lease {
		s.Helper()
		lost, err := s.Builds().Settle(s.ctx, []store.Settlement[store.Deployment]{{Lease: c.Lease, Row: c.Row}})
		s.must(err)
		return lost
	}
	if lost := settle(); len(lost) != 0 {
		s.Fatalf("lost %v", lost)
	}
	got, err := s.GetDeployment(s.ctx, s.project, "f", "d")
	if s.must(err); got.Status != store.DeploymentBuilding || got.BuildID != "b" || !got.Activate || !got.ReadyAt.Equal(past(20)) {
		s.Errorf("building: %+v", got)
	}
	// Canceled by the API: the worker's result does not count.
	_, err = s.UpdateDeployment(s.ctx, s.project, "f", "d", func(d *store.Deployment) error {
		d.Status, d.ReadyAt = store.DeploymentCanceled, time.Time{}
		return nil
	})
	s.must(err)
	c.Row.Status, c.Row.ReadyAt = store.DeploymentReady, time.Time{}
	if lost := settle(); len(lost) != 1 {
		s.Error("a canceled build was settled")
	}
	if got, err = s.GetDeployment(s.ctx, s.project, "f", "d"); err != nil || got.Status != store.DeploymentCanceled {
		s.Errorf("%+v, %v", got, err)
	}
}

// cancel ends executions in every state that is not final.
func (s *suite) cancel() {
	scheduled := s.waiting("scheduled", at(1_000_000))
	scheduled.Status, scheduled.ScheduledAt = store.ExecutionScheduled, at(1_000_000)
	s.append(scheduled, s.waiting("held", past(1)), s.execution("final", "f"))
	held := s.claim(past(2), past(40), 10)
	s.append(s.waiting("waiting", past(1)))
	for _, id := range []string{"scheduled", "held", "waiting"} {
		x, err := s.CancelExecution(s.ctx, s.project, "f", id, "no more", at(7))
		s.must(err)
		got, err := s.GetExecution(s.ctx, s.project, "f", id)
		s.must(err)
		s.same("what CancelExecution returns", x, got)
		if got.Status != store.ExecutionCanceled || got.Errors != "no more" || !got.UpdatedAt.Equal(at(7)) || !got.ReadyAt.IsZero() {
			s.Errorf("canceled: %+v", got)
		}
		_, err = s.CancelExecution(s.ctx, s.project, "f", id, "again", at(8))
		s.is(err, store.ErrConflict)
	}
	held[0].Row.Status, held[0].Row.ReadyAt = store.ExecutionCompleted, time.Time{}
	lost, err := s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{{Lease: held[0].Lease, Row: held[0].Row}})
	if s.must(err); len(lost) != 1 {
		s.Errorf("the worker lost %v", lost)
	}
	if again := s.claim(at(2_000_000), at(2_000_040), 10); len(again) != 0 {
		s.Errorf("claimed %v", ids(again))
	}
	_, err = s.CancelExecution(s.ctx, s.project, "f", "final", "", at(7))
	s.is(err, store.ErrConflict)
	for _, where := range [][3]string{{s.project, "f", "nobody"}, {s.project, "g", "held"}, {s.project + "-other", "f", "held"}} {
		_, err := s.CancelExecution(s.ctx, where[0], where[1], where[2], "", at(7))
		s.is(err, store.ErrNotFound)
	}
}

// statuses: lists find executions by the status they have, in the queue or not, and
// order and page by it.
func (s *suite) statuses() {
	s.append(s.waiting("dead", past(1)), s.waiting("working", past(2)), s.waiting("over", past(3)), s.waiting("back", past(4)))
	claimed := s.claim(past(5), past(50), 4)
	for _, c := range claimed {
		switch c.Row.ID {
		case "dead":
			c.Row.Status, c.Row.ReadyAt = store.ExecutionDead, time.Time{}
		case "over":
			c.Row.Status, c.Row.ReadyAt = store.ExecutionFailed, time.Time{}
		case "back":
			c.Row.Status, c.Row.ReadyAt = store.ExecutionWaiting, past(60)
		default:
			continue
		}
		s.settle(c)
	}
	later := s.waiting("later", past(70))
	later.Status = store.ExecutionScheduled
	s.append(s.execution("done", "f"), s.waiting("next", past(6)), later)
	want := map[string]store.ExecutionStatus{"dead": store.ExecutionDead, "working": store.ExecutionProcessing, "over": store.ExecutionFailed, "back": store.ExecutionWaiting,
		"done": store.ExecutionCompleted, "next": store.ExecutionWaiting, "later": store.ExecutionScheduled}
	statuses := []any{"scheduled", "waiting", "processing", "completed", "failed", "canceled", "dead", "odd"}
	for n := range 1 << len(statuses) { // every set of them
		var values []any
		for i, v := range statuses {
			if n>>i&1 > 0 {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			continue
		}
		found := map[string]store.ExecutionStatus{}
		for id, status := range want {
			if slices.Contains(values, any(string(status))) {
				found[id] = status
			}
		}
		f := store.Filter{Op: store.Equal, Attr: "status", Values: values}
		s.listed(store.Query{Filters: []store.Filter{f}}, found)
		s.listed(store.Query{Filters: []store.Filter{{Op: store.Or, Nested: []store.Filter{f, {Op: store.Equal, Attr: "status", Values: []any{"odd"}}}}}}, found)
		if len(values) > 1 {
			continue
		}
		others := maps.Clone(want)
		maps.DeleteFunc(others, func(_ string, s store.ExecutionStatus) bool { return any(string(s)) == values[0] })
		s.listed(store.Query{Filters: []store.Filter{{Op: store.NotEqual, Attr: "status", Values: values}}}, others)
		s.listed(store.Query{Filters: []store.Filter{{Op: store.StartsWith, Attr: "status", Values: []any{values[0].(string)[:3]}}}}, found)
	}
	order := []store.Order{{Attr: "status", Desc: true}}
	var pages []string
	for after := ""; ; after = pages[len(pages)-1] {
		page, err := s.ListExecutions(s.ctx, s.project, "f", "", store.Query{Orders: order, Limit: 2, After: after})
		s.must(err)
		for _, x := range page {
			pages = append(pages, x.ID)
		}
		if len(page) < 2 {
			break
		}
	}
	s.same("by status", pages, []string{"next", "back", "later", "working", "over", "dead", "done"})
	for _, status := range []store.ExecutionStatus{store.ExecutionDead, store.ExecutionProcessing, store.ExecutionWaiting, store.ExecutionFailed} {
		_, err := s.DeleteExecutions(s.ctx, s.project, "f", epoch.AddDate(100, 0, 0), 10, status)
		s.must(err)
		maps.DeleteFunc(want, func(_ string, s store.ExecutionStatus) bool { return s == status })
		s.listed(store.Query{}, want)
	}
}

// listed compares what a query lists and counts.
func (s *suite) listed(q store.Query, want map[string]store.ExecutionStatus) {
	s.Helper()
	rows, err := s.ListExecutions(s.ctx, s.project, "f", "", q)
	s.must(err)
	got := map[string]store.ExecutionStatus{}
	for _, x := range rows {
		got[x.ID] = x.Status
	}
	s.same(fmt.Sprintf("executions by %+v", q.Filters), got, want)
	n, err := s.CountExecutions(s.ctx, s.project, "f", "", q, 100)
	s.must(err)
	s.same("count", n, len(want))
}
