package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// The column "gate" of the queue is 1 while an execution is parked, and 2 while it is
// admitted and counts; "paid" is set once it has its tokens of the rates.

// Admit implements store.Gates. Admissions of one project stand in line.
func (r records) Admit(ctx context.Context, lease store.Lease, room store.Room, at time.Time) (admission store.Admission, err error) {
	err = r.atomic(ctx, func(ctx context.Context, r records) error {
		if err := r.lockGates(ctx, lease.Project); err != nil {
			return err
		}
		var row struct {
			Seq        int64
			FunctionID string
			Lane       string
			Paid       bool
		}
		err := r.r.NewRaw("SELECT seq, function_id, lane, paid FROM ? WHERE seq = (SELECT e.seq FROM ? e WHERE e.project_id = ? AND e.id = ?) AND attempt = ? AND status = ? AND ready_at IS NOT NULL",
			r.s.table("runs"), r.s.table("executions"), lease.Project, lease.ID, lease.Attempt, string(store.ExecutionProcessing)).Scan(ctx, &row)
		if err = failed("", err); err != nil {
			return orConflict(err)
		}
		if !row.Paid {
			begin, err := r.reserve(ctx, lease.Project, row.FunctionID, row.Lane, room, at)
			if err != nil {
				return err
			}
			if begin.After(at) {
				admission = store.Postponed
				return r.putBack(ctx, row.Seq, lease, at, "ready_at = ?, gate = 0", millis(begin))
			}
		}
		full, err := r.full(ctx, lease.Project, row.Seq, row.FunctionID, row.Lane, room)
		if err != nil {
			return err
		}
		if full {
			admission = store.Parked
			return r.putBack(ctx, row.Seq, lease, at, "ready_at = NULL, gate = 1")
		}
		admission = store.Admitted
		return r.setGate(ctx, row.Seq, lease, "gate = 2")
	})
	return admission, failed("admit execution", err)
}

func orConflict(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("the lease is lost: %w", store.ErrConflict)
	}
	return err
}

func (r records) lockGates(ctx context.Context, project string) error {
	if r.s.dialect.lockLog == "" {
		// The first write of a transaction is what stands in line.
		_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND name = '' AND at < 0", r.s.table("rates"), project)
		return err
	}
	_, err := r.w.ExecContext(ctx, r.s.dialect.lockLog, r.s.prefix+project+"/gates")
	return err
}

// setGate changes the row of a lease, which has its tokens now.
func (r records) setGate(ctx context.Context, seq int64, lease store.Lease, set string, args ...any) error {
	args = append(append([]any{r.s.table("runs")}, args...), seq, lease.Attempt)
	res, err := r.w.ExecContext(ctx, "UPDATE ? SET paid = TRUE, "+set+" WHERE seq = ? AND attempt = ?", args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return orConflict(store.ErrNotFound)
}

// putBack makes the execution of a lease wait again, in a state of its gate.
func (r records) putBack(ctx context.Context, seq int64, lease store.Lease, at time.Time, set string, args ...any) error {
	if err := r.setGate(ctx, seq, lease, "status = 'waiting', due = FALSE, "+set, args...); err != nil {
		return err
	}
	_, err := r.w.ExecContext(ctx, "UPDATE ? SET status = 'waiting', updated_at = ? WHERE seq = ?", r.s.table("executions"), millis(at), seq)
	return err
}

// full reports whether as many executions run already as may, the one of a sequence
// not counted.
func (r records) full(ctx context.Context, project string, seq int64, function, lane string, room store.Room) (bool, error) {
	inside := func(max int, where string, args ...any) (bool, error) {
		if max == 0 {
			return false, nil
		}
		var n int
		args = append(append([]any{r.s.table("runs"), project, seq}, args...), max)
		err := r.r.NewRaw("SELECT count(*) FROM (SELECT 1 FROM ? WHERE project_id = ? AND gate = 2 AND seq <> ?"+where+" LIMIT ?) AS inside", args...).Scan(ctx, &n)
		return n >= max, err
	}
	if full, err := inside(room.Project, ""); full || err != nil {
		return full, err
	}
	if full, err := inside(room.Function, " AND function_id = ?", function); full || err != nil || lane == "" {
		return full, err
	}
	return inside(room.Lane, " AND function_id = ? AND lane = ?", function, lane)
}

// reserve takes a token of each rate, and returns when the execution that has
// them may begin: who has to wait has its place in line already.
func (r records) reserve(ctx context.Context, project, function, lane string, room store.Room, at time.Time) (begin time.Time, err error) {
	begin = at
	if lane == "" {
		room.LaneRate = store.Rate{}
	}
	for _, b := range []struct {
		name string // no id of a function has a "/"
		rate store.Rate
	}{{"", room.ProjectRate}, {function, room.FunctionRate}, {function + "/" + lane, room.LaneRate}} {
		if b.rate.Limit == 0 {
			continue
		}
		free, err := r.token(ctx, project, b.name, b.rate, at)
		if err != nil {
			return begin, err
		}
		if free.After(begin) {
			begin = free
		}
	}
	return begin, nil
}

// token takes a token of a bucket and returns when there is one. The column
// "at", in microseconds, is when the bucket is full again.
func (r records) token(ctx context.Context, project, name string, rate store.Rate, now time.Time) (time.Time, error) {
	var full []int64
	err := r.r.NewRaw("SELECT at FROM ? WHERE project_id = ? AND name = ?", r.s.table("rates"), project, name).Scan(ctx, &full)
	if err != nil {
		return now, err
	}
	at := now
	if len(full) > 0 {
		at = time.UnixMicro(full[0]).UTC()
	}
	begin, at := rate.Take(at, now)
	_, err = r.w.ExecContext(ctx, "INSERT INTO ? (project_id, name, at) VALUES (?, ?, ?) ON CONFLICT (project_id, name) DO UPDATE SET at = excluded.at",
		r.s.table("rates"), project, name, at.UnixMicro())
	return begin, err
}

// unparkWindow is how many parked executions are looked at, at most.
const unparkWindow = 1000

// Unpark implements store.Gates.
func (r records) Unpark(ctx context.Context, project, function string, room store.Room, at time.Time) (n int, err error) {
	err = r.atomic(ctx, func(ctx context.Context, r records) error {
		if err := r.lockGates(ctx, project); err != nil {
			return err
		}
		seqs, err := r.unparkable(ctx, project, function, room)
		if n = len(seqs); err != nil || n == 0 {
			return err
		}
		if _, err = r.w.ExecContext(ctx, "UPDATE ? SET ready_at = ?, due = TRUE, gate = 0 WHERE seq IN (?)", r.s.table("runs"), millis(at), bun.List(seqs)); err != nil {
			return err
		}
		_, err = r.w.ExecContext(ctx, "UPDATE ? SET updated_at = ? WHERE seq IN (?)", r.s.table("executions"), millis(at), bun.List(seqs))
		return err
	})
	r.enqueued(err, n > 0)
	return n, failed("unpark executions", err)
}

// unparkable returns the parked executions that there is room for.
func (r records) unparkable(ctx context.Context, project, function string, room store.Room) (seqs []int64, err error) {
	free := unparkWindow
	var lanes []struct {
		FunctionID string
		Lane       string
		N          int
	}
	err = r.r.NewRaw("SELECT function_id, lane, count(*) AS n FROM ? WHERE project_id = ? AND gate = 2 GROUP BY function_id, lane", r.s.table("runs"), project).Scan(ctx, &lanes)
	if err != nil {
		return nil, err
	}
	inProject, inFunction, inLane := 0, 0, map[string]int{}
	full := []string{""} // of lanes; "" is none
	for _, l := range lanes {
		inProject += l.N
		if l.FunctionID == function {
			inFunction += l.N
			if inLane[l.Lane] = l.N; room.Lane > 0 && l.N >= room.Lane && l.Lane != "" {
				full = append(full, l.Lane)
			}
		}
	}
	if room.Project > 0 {
		free = min(free, room.Project-inProject)
	}
	if room.Function > 0 {
		free = min(free, room.Function-inFunction)
	}
	if free <= 0 {
		return nil, nil
	}
	var parked []struct {
		Seq  int64
		Lane string
	}
	err = r.r.NewRaw("SELECT seq, lane FROM ? WHERE project_id = ? AND function_id = ? AND gate = 1 AND (lane = '' OR lane NOT IN (?)) ORDER BY rank, seq LIMIT ?",
		r.s.table("runs"), project, function, bun.List(full), unparkWindow).Scan(ctx, &parked)
	if err != nil {
		return nil, err
	}
	for _, p := range parked {
		if len(seqs) == free {
			break
		}
		if room.Lane > 0 && p.Lane != "" {
			if inLane[p.Lane] >= room.Lane {
				continue
			}
			inLane[p.Lane]++
		}
		seqs = append(seqs, p.Seq)
	}
	return seqs, nil
}

// Parked implements store.Gates. It hops from function to function.
func (r records) Parked(ctx context.Context, project string, limit int) ([]store.FunctionRef, error) {
	var refs []store.FunctionRef
	var at store.FunctionRef
	if project != "" {
		at.Project = project
	}
	for len(refs) < limit {
		var next []struct{ ProjectID, FunctionID string }
		err := r.r.NewRaw("SELECT project_id, function_id FROM ? WHERE gate = 1 AND (project_id, function_id) > (?, ?) ORDER BY project_id, function_id LIMIT 1",
			r.s.table("runs"), at.Project, at.ID).Scan(ctx, &next)
		if err != nil {
			return nil, failed("list parked executions", err)
		}
		if len(next) == 0 || project != "" && next[0].ProjectID != project {
			break
		}
		at = store.FunctionRef{Project: next[0].ProjectID, ID: next[0].FunctionID}
		refs = append(refs, at)
	}
	return refs, nil
}
