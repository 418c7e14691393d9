package sqlstore

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/store"
)

// Builds implements store.Store and store.Tx.
func (r records) Builds() store.Queue[store.Deployment] { return builds{queue{r, "deployments"}} }

// Runs implements store.Store and store.Tx.
func (r records) Runs() store.Queue[store.Execution] { return runs{queue{r, "executions"}} }

// queue is what the two queues share: a table with ready_at, attempt and status.
type queue struct {
	records
	name string
}

// Renew implements store.Queue.
func (q queue) Renew(ctx context.Context, leases []store.Lease, until time.Time) (lost []store.Lease, err error) {
	err = q.atomic(ctx, func(ctx context.Context, r records) error {
		lost = nil
		for _, l := range leases {
			held, err := r.underLease(ctx, q.name, l, "ready_at = ?", millis(until))
			if err != nil {
				return err
			}
			if !held {
				lost = append(lost, l)
			}
		}
		return nil
	})
	return lost, failed("renew leases", err)
}

// underLease updates a row if the lease still holds it.
func (r records) underLease(ctx context.Context, table string, l store.Lease, set string, args ...any) (held bool, err error) {
	args = append(append([]any{r.s.table(table)}, args...), l.Project, l.ID, l.Attempt)
	res, err := r.w.ExecContext(ctx, "UPDATE ? SET "+set+
		" WHERE project_id = ? AND id = ? AND attempt = ? AND ready_at IS NOT NULL AND status IN ('processing', 'building')", args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// NextDue implements store.Queue.
func (q queue) NextDue(ctx context.Context) (time.Time, bool, error) {
	var at sql.NullInt64
	err := q.r.NewRaw("SELECT min(ready_at) FROM ? WHERE ready_at IS NOT NULL", q.s.table(q.name)).Scan(ctx, &at)
	return moment(at.Int64), at.Valid, failed("next due", err)
}

// takeSQL takes due rows, the first due first.
const takeSQL = `UPDATE ?0 SET status = 'processing', attempt = attempt + 1, ready_at = ?2
WHERE seq IN (SELECT x.seq FROM ?0 x WHERE x.ready_at <= ?1 ORDER BY x.ready_at, x.seq LIMIT ?3)
RETURNING *`

// shareSQL takes due rows, sharing them between projects. p hops from project
// to project along the index, one seek each, beginning after the cursor, until
// it has found as many projects with due rows as there are rows to take; of
// each, as many rows are taken as divide the limit evenly. Ordering by a window
// over the whole backlog would read it.
const shareSQL = `WITH RECURSIVE p (project_id, found) AS (
  SELECT (SELECT min(project_id) FROM ?0 WHERE ready_at IS NOT NULL AND project_id > ?4), 0
  UNION ALL
  SELECT (SELECT min(project_id) FROM ?0 WHERE ready_at IS NOT NULL AND project_id > p.project_id),
    found + CASE WHEN EXISTS (SELECT 1 FROM ?0 x WHERE x.project_id = p.project_id AND x.ready_at <= ?1) THEN 1 ELSE 0 END
  FROM p WHERE p.project_id IS NOT NULL AND found < ?3
), share AS MATERIALIZED (
  SELECT project_id FROM p WHERE project_id IS NOT NULL
  AND EXISTS (SELECT 1 FROM ?0 x WHERE x.project_id = p.project_id AND x.ready_at <= ?1) LIMIT ?3
)
UPDATE ?0 SET status = 'processing', attempt = attempt + 1, ready_at = ?2
WHERE seq IN (
  SELECT e.seq FROM share CROSS JOIN ?0 e WHERE e.seq IN (
    SELECT x.seq FROM ?0 x WHERE x.project_id = share.project_id AND x.ready_at <= ?1
    ORDER BY x.ready_at, x.seq LIMIT ?3 / (SELECT count(*) FROM share)))
RETURNING *`

// claim takes due rows into rows. If the limit covers all that is due there is
// nothing to share. If nothing lies behind the cursor it starts over.
func (r records) claim(ctx context.Context, table string, p store.ClaimParams, rows any, empty func() bool) error {
	if p.Limit < 1 {
		return nil
	}
	var due int
	err := r.w.NewRaw("SELECT count(*) FROM (SELECT 1 FROM ? WHERE ready_at <= ? LIMIT ?) AS due", r.s.table(table), millis(p.Now), p.Limit+1).Scan(ctx, &due)
	if err != nil || due == 0 {
		return err
	}
	take := func(sql, after string) error {
		return r.w.NewRaw(sql, r.s.table(table), millis(p.Now), millis(p.LeaseUntil), p.Limit, after).Scan(ctx, rows)
	}
	if due <= p.Limit {
		return take(takeSQL, "")
	}
	for _, after := range slices.Compact([]string{p.After, ""}) {
		if err := take(shareSQL, after); err != nil || !empty() {
			return err
		}
	}
	return nil
}

// builds is the queue of deployments.
type builds struct{ queue }

// Claim implements store.Queue.
func (q builds) Claim(ctx context.Context, p store.ClaimParams) (out []store.Claimed[store.Deployment], err error) {
	err = q.atomic(ctx, func(ctx context.Context, r records) error {
		var rows []deploymentRow
		if err := r.claim(ctx, q.name, p, &rows, func() bool { return len(rows) == 0 }); err != nil {
			return err
		}
		out = convert(rows, func(r *deploymentRow) store.Claimed[store.Deployment] {
			d := r.record()
			return store.Claimed[store.Deployment]{Lease: store.Lease{Project: d.Project, ID: d.ID, Attempt: d.Attempt}, Row: d}
		})
		return nil
	})
	if err != nil {
		return nil, failed("claim builds", err)
	}
	return out, nil
}

// Settle implements store.Queue.
func (q builds) Settle(ctx context.Context, rows []store.Settlement[store.Deployment]) ([]store.Lease, error) {
	return settle(ctx, q.queue, rows, func(ctx context.Context, r records, s store.Settlement[store.Deployment]) (bool, error) {
		d := newDeploymentRow(s.Row)
		return r.underLease(ctx, q.name, s.Lease,
			"status = ?, build_id = ?, build_started = ?, build_ended = ?, build_logs = ?, build_size = ?, artefact_blob = ?, updated_at = ?, ready_at = ?",
			d.Status, d.BuildID, nullable(d.BuildStarted), nullable(d.BuildEnded), d.BuildLogs, d.BuildSize, d.ArtefactBlob, d.UpdatedAt, nullable(d.ReadyAt))
	})
}

// runs is the queue of executions.
type runs struct{ queue }

// Claim implements store.Queue.
func (q runs) Claim(ctx context.Context, p store.ClaimParams) (out []store.Claimed[store.Execution], err error) {
	err = q.atomic(ctx, func(ctx context.Context, r records) error {
		var rows []executionRow
		if err := r.claim(ctx, q.name, p, &rows, func() bool { return len(rows) == 0 }); err != nil {
			return err
		}
		out = convert(rows, func(r *executionRow) store.Claimed[store.Execution] {
			x := r.record()
			return store.Claimed[store.Execution]{Lease: store.Lease{Project: x.Project, ID: x.ID, Attempt: x.Attempt}, Row: x}
		})
		return r.payloads(ctx, out)
	})
	if err != nil {
		return nil, failed("claim runs", err)
	}
	return out, nil
}

// payloads adds to claimed executions what they need to run.
func (r records) payloads(ctx context.Context, claimed []store.Claimed[store.Execution]) error {
	for i := range claimed {
		l := claimed[i].Lease
		var sealed [][]byte
		err := r.w.NewRaw("SELECT sealed FROM ? WHERE project_id = ? AND execution_id = ?", r.s.table("payloads"), l.Project, l.ID).Scan(ctx, &sealed)
		if err != nil {
			return err
		}
		if len(sealed) > 0 {
			claimed[i].Row.Payload = sealed[0]
		}
	}
	return nil
}

// Settle implements store.Queue.
func (q runs) Settle(ctx context.Context, rows []store.Settlement[store.Execution]) ([]store.Lease, error) {
	return settle(ctx, q.queue, rows, func(ctx context.Context, r records, s store.Settlement[store.Execution]) (bool, error) {
		x := s.Row
		held, err := r.underLease(ctx, q.name, s.Lease,
			"status = ?, deployment_id = ?, response_status_code = ?, response_headers = ?, logs = ?, errors = ?, duration = ?, updated_at = ?, ready_at = ?",
			string(x.Status), x.DeploymentID, x.ResponseStatusCode, headerList(x.ResponseHeaders), clean(x.Logs), clean(x.Errors),
			x.Duration.Microseconds(), millis(x.UpdatedAt), nullable(millis(x.ReadyAt)))
		if err != nil || !held || !x.Status.Final() {
			return held, err
		}
		return true, r.deletePayload(ctx, s.Lease.Project, s.Lease.ID)
	})
}

// settle writes rows in one transaction, in the order of their keys so that
// two settlements cannot lock each other out.
func settle[T any](ctx context.Context, q queue, rows []store.Settlement[T], write func(context.Context, records, store.Settlement[T]) (bool, error)) (lost []store.Lease, err error) {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b store.Settlement[T]) int {
		if c := strings.Compare(a.Lease.Project, b.Lease.Project); c != 0 {
			return c
		}
		return strings.Compare(a.Lease.ID, b.Lease.ID)
	})
	err = q.atomic(ctx, func(ctx context.Context, r records) error {
		lost = nil
		for _, s := range rows {
			held, err := write(ctx, r, s)
			if err != nil {
				return err
			}
			if !held {
				lost = append(lost, s.Lease)
			}
		}
		return nil
	})
	return lost, failed("settle", err)
}
