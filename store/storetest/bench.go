package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/fnkit/fnkit/store"
)

// Bench measures what engines do all the time. open returns an empty store and
// closes it when the benchmark ends; tuned, if not nil, is called when it has
// been filled, as a database is that has been in use.
func Bench(b *testing.B, open func(b *testing.B) store.Store, tuned func(b *testing.B, s store.Store)) {
	if tuned == nil {
		tuned = func(*testing.B, store.Store) {}
	}
	for _, batch := range []int{1, 27, 200} {
		b.Run(fmt.Sprint("append/batch=", batch), func(b *testing.B) { benchAppend(b, open(b), batch) })
	}
	for _, c := range []struct{ finished, later, projects, workers int }{
		{10_000, 0, 1, 1}, {10_000, 0, 200, 1}, {1_000_000, 0, 1, 1}, {1_000_000, 0, 200, 1}, {10_000, 10_000, 1, 1}, {10_000, 0, 200, 4},
	} {
		b.Run(fmt.Sprintf("queue/rows=%d/later=%d/projects=%d/workers=%d", c.finished, c.later, c.projects, c.workers), func(b *testing.B) {
			s := open(b)
			finish(b, s, c.finished)
			if err := s.AppendExecutions(b.Context(), forLater(c.later)); err != nil {
				b.Fatal(err)
			}
			tuned(b, s)
			benchQueue(b, s, c.projects, c.workers)
		})
	}
	for _, projects := range []int{10, 10_000} {
		b.Run(fmt.Sprint("claim/projects=", projects), func(b *testing.B) { benchClaim(b, open(b), projects, tuned) })
	}
	for _, rows := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint("list/rows=", rows), func(b *testing.B) {
			s := open(b)
			finish(b, s, rows)
			tuned(b, s)
			benchList(b, s, rows)
		})
	}
}

// finished are executions that are done, one in a hundred of them failed.
func finished(from, n int) []store.Execution {
	rows := make([]store.Execution, n)
	for i := range rows {
		status := store.ExecutionCompleted
		if (from+i)%100 == 0 {
			status = store.ExecutionFailed
		}
		at := epoch.Add(time.Duration(from+i) * time.Millisecond)
		rows[i] = store.Execution{
			Project: "p", ID: fmt.Sprintf("%020d", from+i), FunctionID: fmt.Sprint("f", (from+i)%3), DeploymentID: "d", CreatedAt: at, UpdatedAt: at, Status: status,
			Trigger: store.TriggerHTTP, RequestMethod: "GET", RequestPath: "/", ResponseStatusCode: 200, Logs: "one line\n", Duration: time.Millisecond,
		}
	}
	return rows
}

func finish(b *testing.B, s store.Store, rows int) {
	b.Helper()
	for n := 0; n < rows; n += 5000 {
		if err := s.AppendExecutions(b.Context(), finished(n, min(5000, rows-n))); err != nil {
			b.Fatal(err)
		}
	}
}

func perRow(b *testing.B, rows int) {
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/float64(rows), "µs/row")
}

func benchAppend(b *testing.B, s store.Store, batch int) {
	next := 0
	for b.Loop() {
		if err := s.AppendExecutions(b.Context(), finished(next, batch)); err != nil {
			b.Fatal(err)
		}
		next += batch
	}
	perRow(b, next)
}

// waiting are rows that are due, with payloads; nine of ten are of one project.
func waiting(from, n, projects int) []store.Execution {
	rows := make([]store.Execution, n)
	for i := range rows {
		project := 0
		if (from+i)%10 == 0 {
			project = (from + i) / 10 % projects
		}
		at := epoch.Add(time.Duration(from+i) * time.Millisecond)
		rows[i] = store.Execution{
			Project: fmt.Sprintf("q%04d", project), ID: fmt.Sprintf("%020d", from+i), FunctionID: "f", DeploymentID: "d", CreatedAt: at, UpdatedAt: at,
			Status: store.ExecutionWaiting, ReadyAt: at, Trigger: store.TriggerHTTP, RequestMethod: "POST", RequestPath: "/", Payload: []byte("two hundred bytes of a sealed request, more or less"),
		}
	}
	return rows
}

// forLater are rows that are not due, each of a project of its own.
func forLater(n int) []store.Execution {
	rows := waiting(0, n, 1)
	for i := range rows {
		rows[i].Project, rows[i].Status, rows[i].ReadyAt = fmt.Sprintf("r%06d", i), store.ExecutionScheduled, epoch.AddDate(10, 0, 0)
	}
	return rows
}

// benchQueue claims a hundred rows and settles them, from a backlog of 5000
// that is filled up again while the clock stands.
func benchQueue(b *testing.B, s store.Store, projects, workers int) {
	const backlog, batch = 5000, 100
	next, left := 0, 0
	now := epoch.AddDate(1, 0, 0)
	work := func(after *string) (int, error) {
		claimed, err := s.Runs().Claim(b.Context(), store.ClaimParams{Now: now, LeaseUntil: now.Add(time.Hour), Limit: batch, After: *after})
		if err != nil {
			return 0, err
		}
		settled := make([]store.Settlement[store.Execution], len(claimed))
		*after = ""
		for i, c := range claimed {
			c.Row.Status, c.Row.ReadyAt, c.Row.Logs, c.Row.ResponseStatusCode = store.ExecutionCompleted, time.Time{}, "one line\n", 200
			settled[i] = store.Settlement[store.Execution](c)
			*after = max(*after, c.Lease.Project)
		}
		lost, err := s.Runs().Settle(b.Context(), settled)
		if err == nil && len(lost) > 0 {
			err = fmt.Errorf("lost %v", lost)
		}
		return len(claimed), err
	}
	cursors, done := make([]string, workers), 0
	for b.Loop() {
		if left < batch*workers {
			b.StopTimer()
			if err := s.AppendExecutions(b.Context(), waiting(next, backlog, projects)); err != nil {
				b.Fatal(err)
			}
			next, left = next+backlog, left+backlog
			b.StartTimer()
		}
		type result struct {
			n   int
			err error
		}
		results := make(chan result, workers)
		for i := range workers {
			go func() {
				n, err := work(&cursors[i])
				results <- result{n, err}
			}()
		}
		for range workers {
			r := <-results
			if r.err != nil {
				b.Fatal(r.err)
			}
			done, left = done+r.n, left-r.n
		}
	}
	perRow(b, done)
}

// benchClaim claims single rows, among projects that have rows due and among
// as many that have none.
func benchClaim(b *testing.B, s store.Store, projects int, tuned func(*testing.B, store.Store)) {
	var rows []store.Execution
	for i := range projects {
		for j := range 5 {
			rows = append(rows, store.Execution{
				Project: fmt.Sprintf("p%06d", i), ID: fmt.Sprint(j), FunctionID: "f", Status: store.ExecutionWaiting,
				UpdatedAt: time.UnixMilli(1), ReadyAt: time.UnixMilli(int64(1 + i%2*1000)),
			})
		}
	}
	if err := s.AppendExecutions(b.Context(), rows); err != nil {
		b.Fatal(err)
	}
	tuned(b, s)
	after := ""
	for b.Loop() {
		claimed, err := s.Runs().Claim(b.Context(), store.ClaimParams{Now: time.UnixMilli(10), LeaseUntil: time.UnixMilli(5), Limit: 1, After: after})
		if err != nil || len(claimed) != 1 {
			b.Fatal(len(claimed), err)
		}
		after = claimed[0].Lease.Project
	}
}

// benchList reads a page of 25 of a function's failed executions, newest
// first, behind a cursor in the middle, and counts them.
func benchList(b *testing.B, s store.Store, rows int) {
	q := store.Query{
		Filters: []store.Filter{{Op: store.Equal, Attr: "status", Values: []any{"failed"}}},
		Orders:  []store.Order{{Attr: "$createdAt", Desc: true}}, After: fmt.Sprintf("%020d", rows/2/300*300), // a failed one of f0
	}
	for b.Loop() {
		page, err := s.ListExecutions(b.Context(), "p", "f0", "", q)
		if err != nil || len(page) < 10 {
			b.Fatal(len(page), err)
		}
		if _, err := s.CountExecutions(b.Context(), "p", "f0", "", q, 5000); err != nil {
			b.Fatal(err)
		}
	}
}
