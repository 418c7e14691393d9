package sqlstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/fnkit/fnkit/store"
)

// Executions that wait or are in work, parked or dead have a row in the table
// "runs" besides, of the same sequence. It is narrow, with few indexes, since a
// claim writes it; "executions", which has the indexes of lists, is written when
// the execution is accepted and when it is settled. Meanwhile status, attempt,
// ready_at and losses are those of "runs". Who changes both locks the row of
// "runs" first; but who removes what is old has found the execution first.

// Runs implements store.Store and store.Tx.
func (r records) Runs() store.Queue[store.Execution] {
	return runs{queue{records: r, name: "runs", of: "executions", rank: "x.rank, "}}
}

// runs is the queue of executions.
type runs struct{ queue }

// inQueue reports whether an execution has a row in the queue.
func inQueue(x *store.Execution) bool {
	return !x.ReadyAt.IsZero() || x.Payload != nil || x.Status == store.ExecutionDead
}

// claimedRun is an execution that was claimed.
type claimedRun struct {
	executionRow `bun:",extend"`
	Sealed       []byte `bun:",scanonly"`
	Later        int64  `bun:",scanonly,nullzero"`
}

// Claim implements store.Queue.
func (q runs) Claim(ctx context.Context, p store.ClaimParams) ([]store.Claimed[store.Execution], error) {
	rows, err := q.claim(ctx, p)
	if err != nil {
		return nil, failed("claim runs", err)
	}
	return convert(rows, func(r *claimedRun) store.Claimed[store.Execution] {
		r.Status = string(store.ExecutionProcessing)
		x := r.record()
		x.Payload = r.Sealed
		return store.Claimed[store.Execution]{Lease: store.Lease{Project: x.Project, ID: x.ID, Attempt: x.Attempt}, Row: x}
	}), nil
}

// claim takes rows of the queue and reads their executions, in one statement or in
// one transaction: what is cut off in between is not claimed.
func (q runs) claim(ctx context.Context, p store.ClaimParams) (rows []claimedRun, err error) {
	later := func(r *claimedRun) int64 { return r.Later }
	columns := fmt.Sprintf(`seq, attempt, ready_at, losses, coalesce(sealed, (SELECT p.sealed FROM "%spayloads" p WHERE p.seq = {{table}}.seq)) AS sealed`, q.s.prefix)
	wide := q.s.columns(new([]executionRow), "e.")
	if q.s.dialect.arrays {
		then := fmt.Sprintf(`SELECT %s, t.attempt, t.ready_at, t.losses, t.sealed, t.later FROM taken t
JOIN "%sexecutions" e ON e.seq = t.seq AND e.seq = ANY(ARRAY(SELECT seq FROM taken))`, wide, q.s.prefix)
		return claim(ctx, q.queue, p, q.claiming(columns, then), later)
	}
	by := q.claiming(columns, "")
	read := fmt.Sprintf(`SELECT %s FROM json_each(?) v CROSS JOIN "%sexecutions" e ON e.seq = v.value ORDER BY v.key`, wide, q.s.prefix)
	err = q.atomicWith(ctx, []string{by.take, by.mark, read}, func(ctx context.Context, r records) error {
		within := q.queue
		within.records = r
		if rows, err = claim(ctx, within, p, by, later); err != nil || len(rows) == 0 {
			return err
		}
		seqs := make([]int64, len(rows))
		for i, r := range rows {
			seqs[i] = r.Seq
		}
		var found []executionRow
		if err := r.scan(ctx, &found, read, document(seqs)); err != nil {
			return err
		}
		claimed := rows
		rows = rows[:0]
		for _, r := range claimed {
			if len(found) == 0 || found[0].Seq != r.Seq {
				continue // it has no execution, as on Postgres
			}
			found[0].Attempt, found[0].ReadyAt, found[0].Losses = r.Attempt, r.ReadyAt, r.Losses
			r.executionRow, found = found[0], found[1:]
			rows = append(rows, r)
		}
		return nil
	})
	return rows, err
}

// settledColumns are what Settle writes of an execution, besides the attempt.
var settledColumns = []column{
	{"status", "text"}, {"deployment_id", "text"}, {"response_status_code", "bigint"}, {"response_headers", "text"}, {"logs", "text"}, {"errors", "text"},
	{"duration", "bigint"}, {"tries", "bigint"}, {"updated_at", "bigint"},
}

// settlementColumns are those with what it does to the row in the queue.
var settlementColumns = append(slices.Clone(settledColumns), column{"ready_at", "bigint"}, column{"due", "boolean"}, column{"leaves", "boolean"})

// Settle implements store.Queue.
func (q runs) Settle(ctx context.Context, rows []store.Settlement[store.Execution]) ([]store.Lease, error) {
	changes := make([]change, len(rows))
	for i, s := range rows {
		x := s.Row
		changes[i] = change{s.Lease, []any{
			string(x.Status), x.DeploymentID, x.ResponseStatusCode, headerList(x.ResponseHeaders), clean(x.Logs), clean(x.Errors),
			x.Duration.Microseconds(), x.Tries, millis(x.UpdatedAt),
			nullable(millis(x.ReadyAt)), due(x.ReadyAt, x.UpdatedAt), x.Status.Final() && x.Status != store.ExecutionDead,
		}}
	}
	lost, err := q.change(ctx, q.settling(), changes)
	q.enqueued(err, slices.ContainsFunc(rows, func(s store.Settlement[store.Execution]) bool { return claimable(s.Row.ReadyAt, s.Row.Status) }))
	return lost, failed("settle runs", err)
}

// settling is how settlementColumns are written. What leaves the queue loses its
// payload; what stays has to be admitted again.
func (q runs) settling() writing {
	// CROSS JOIN keeps the order of the tables.
	find := `SELECT v.key AS n, q.seq FROM json_each(?) v CROSS JOIN "%[1]sexecutions" e ON e.project_id = v.value ->> 0 AND e.id = v.value ->> 1
CROSS JOIN "%[1]sruns" q ON q.seq = e.seq AND q.attempt = v.value ->> 2 WHERE ` + heldOf("q") + ` ORDER BY v.key`
	write := `UPDATE "%[1]sexecutions" SET ` + marked(settledColumns) + `, attempt = ? WHERE seq = ?`
	stay := `UPDATE "%[1]sruns" SET status = ?, ready_at = ?, due = ?, gate = 0, paid = FALSE WHERE seq = ?`
	leave := `DELETE FROM "%[1]sruns" WHERE seq IN (SELECT value FROM json_each(?))`
	drop := `DELETE FROM "%[1]spayloads" WHERE seq IN (SELECT value FROM json_each(?))`
	texts := []string{find, write, stay, leave, drop}
	for i, t := range texts {
		texts[i] = fmt.Sprintf(t, q.s.prefix)
	}
	return writing{
		columns: settlementColumns,
		atOnce: q.changed(settlementColumns) + fmt.Sprintf(`, gone AS (
  DELETE FROM "%[1]sruns" AS q USING v WHERE `+heldAtOnce("leaves")+` RETURNING q.seq
), kept AS (
  UPDATE "%[1]sruns" AS q SET status = v.status, ready_at = v.ready_at, due = v.due, gate = 0, paid = FALSE FROM v WHERE `+heldAtOnce("NOT leaves")+` RETURNING q.seq
), dropped AS (
  DELETE FROM "%[1]spayloads" WHERE seq = ANY(ARRAY(SELECT seq FROM gone))
), written AS (
  UPDATE "%[1]sexecutions" AS e SET %[2]s, attempt = v.attempt FROM v
  WHERE e.seq = ANY(ARRAY(SELECT seq FROM gone UNION ALL SELECT seq FROM kept)) AND e.seq = v.seq RETURNING v.n
) SELECT n FROM written`, q.s.prefix, assigned(settledColumns)),
		texts: texts,
		each:  settleEach,
	}
}

// settleEach writes settlements by the statements of settling.
func settleEach(ctx context.Context, r records, texts []string, rows []change) (kept []store.Lease, err error) {
	find, write, stay, leave, drop := texts[0], texts[1], texts[2], texts[3], texts[4]
	keys := make([][3]any, len(rows))
	for i, c := range rows {
		keys[i] = [3]any{c.lease.Project, c.lease.ID, c.lease.Attempt}
	}
	var found []struct {
		N   int
		Seq int64
	}
	if err := r.scan(ctx, &found, find, document(keys)); err != nil {
		return nil, err
	}
	var gone []int64
	for _, f := range found {
		c := rows[f.N]
		settled, queued := c.values[:len(settledColumns)], c.values[len(settledColumns):]
		if _, err := r.exec(ctx, write, append(slices.Clone(settled), c.lease.Attempt, f.Seq)...); err != nil {
			return nil, err
		}
		if leaves := queued[2].(bool); leaves {
			gone = append(gone, f.Seq)
		} else if _, err := r.exec(ctx, stay, settled[0], queued[0], queued[1], f.Seq); err != nil {
			return nil, err
		}
		kept = append(kept, c.lease)
	}
	if len(gone) == 0 {
		return kept, nil
	}
	for _, text := range []string{leave, drop} {
		if _, err := r.exec(ctx, text, document(gone)); err != nil {
			return nil, err
		}
	}
	return kept, nil
}
