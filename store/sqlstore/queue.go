package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/store"
)

// Builds implements store.Store and store.Tx.
func (r records) Builds() store.Queue[store.Deployment] { return builds{queue{r, "deployments", ""}} }

// Runs implements store.Store and store.Tx.
func (r records) Runs() store.Queue[store.Execution] { return runs{queue{r, "executions", "x.rank, "}} }

// queue is what the two queues share: a table with ready_at, attempt and status.
type queue struct {
	records
	name string
	rank string // what those of a project are ordered by before the time
}

// Renew implements store.Queue.
func (q queue) Renew(ctx context.Context, leases []store.Lease, until time.Time) (lost []store.Lease, err error) {
	rows := make([]change, len(leases))
	for i, l := range leases {
		rows[i] = change{l, []any{millis(until)}}
	}
	lost, err = q.change(ctx, []column{{"ready_at", "bigint"}}, rows)
	return lost, failed("renew leases", err)
}

// NextDue implements store.Queue.
func (q queue) NextDue(ctx context.Context) (time.Time, bool, error) {
	var at []int64
	// Not min(), for which a planner may read them all.
	err := q.r.NewRaw("SELECT ready_at FROM (SELECT * FROM (SELECT ready_at FROM ?0 x WHERE due AND ready_at IS NOT NULL ORDER BY project_id, "+q.rank+"ready_at LIMIT 1) AS marked "+
		"UNION ALL SELECT * FROM (SELECT ready_at FROM ?0 WHERE ready_at IS NOT NULL AND NOT due ORDER BY ready_at LIMIT 1) AS later) AS first ORDER BY ready_at LIMIT 1", q.s.table(q.name)).Scan(ctx, &at)
	if err != nil || len(at) == 0 {
		return time.Time{}, false, failed("next due", err)
	}
	return moment(at[0]), true, nil
}

// Depth implements store.Queue.
func (q queue) Depth(ctx context.Context, now time.Time, max int) (n int, err error) {
	err = q.r.NewRaw("SELECT count(*) FROM (SELECT 1 FROM ?0 WHERE due AND ready_at IS NOT NULL AND ready_at <= ?1 "+
		"UNION ALL SELECT 1 FROM ?0 WHERE ready_at <= ?1 AND NOT due LIMIT ?2) AS first", q.s.table(q.name), millis(now), max).Scan(ctx, &n)
	return n, failed("count due", err)
}

// shareRows are due rows shared between projects. Of the parameters, ?1 is the
// time, ?2 the end of the leases, ?3 the limit and ?4 the cursor. p hops from
// project to project along an index of what is marked as due, one seek each,
// beginning after the cursor, or anew if nothing lies behind it, until it has
// found as many projects as there are rows to take (after the clock was set back
// it may meet some that are not due again); of each, as many rows are taken as
// divide the limit evenly. Ordering by a window over the whole backlog would read
// it.
//
// So would a planner that thinks there is none, or that all of it is of one
// project, because that was so when it looked. It would take EXISTS for a join,
// min() for an aggregate, and a filter on another index for as good as this
// one. Hence the queries for one row, in the order of this index alone.
const shareRows = `WITH RECURSIVE p (project_id, found) AS (
  SELECT coalesce(
    (SELECT project_id FROM {{table}} WHERE due AND ready_at IS NOT NULL AND project_id > ?4 ORDER BY project_id LIMIT 1),
    (SELECT project_id FROM {{table}} WHERE due AND ready_at IS NOT NULL ORDER BY project_id LIMIT 1)
  ), 0
  UNION ALL
  SELECT (SELECT project_id FROM {{table}} WHERE due AND ready_at IS NOT NULL AND project_id > p.project_id ORDER BY project_id LIMIT 1),
    found + CASE WHEN (SELECT 1 FROM {{table}} x WHERE ` + dueOfProject + ` LIMIT 1) IS NULL THEN 0 ELSE 1 END
  FROM p WHERE p.project_id IS NOT NULL AND found < CAST(?3 AS BIGINT)
), share AS MATERIALIZED (
  SELECT p.project_id FROM p WHERE p.project_id IS NOT NULL
  AND (SELECT 1 FROM {{table}} x WHERE ` + dueOfProject + ` LIMIT 1) IS NOT NULL LIMIT CAST(?3 AS BIGINT)
) `

// dueOfProject are the due rows x of the project of p. It is a range of one
// project, because an order by what is equal is none.
const dueOfProject = "x.due AND x.project_id >= p.project_id AND x.project_id <= p.project_id AND x.ready_at <= ?1 ORDER BY x.project_id, {{rank}}x.ready_at, x.seq"

// rowsOfProject are the rows of one project's share.
const rowsOfProject = "SELECT x.seq FROM {{table}} x WHERE " + dueOfProject + " LIMIT CAST(?3 AS BIGINT) / (SELECT count(*) FROM share)"

// take writes the claim of rows. One that is in work has lost its worker.
const take = "UPDATE {{table}} SET status = 'processing', attempt = attempt + 1, ready_at = ?2, due = FALSE, " +
	"losses = losses + CASE WHEN status IN ('processing', 'building') THEN 1 ELSE 0 END WHERE "

// markBatch is how many rows that have become due are marked as such at once.
const markBatch = 1000

// laterRows are rows that have become due since they were written: their time
// came, or their lease ended. Projects that have only rows for later are none
// to hop over, so these are marked before they are claimed.
const laterRows = "SELECT x.seq FROM {{table}} x WHERE x.ready_at <= ?1 AND NOT x.due ORDER BY x.ready_at LIMIT ?2"

// laterColumn tells with each row that is claimed when the first of those is due.
const laterColumn = "(SELECT ready_at FROM {{table}} WHERE ready_at IS NOT NULL AND NOT due ORDER BY ready_at LIMIT 1) AS later"

// claim takes due rows and returns the given columns of them. Those that have become
// due are marked when there are no others, or for the next claim; later returns
// laterColumn of a row.
func claim[R any](ctx context.Context, q queue, p store.ClaimParams, columns string, later func(*R) int64) (rows []R, err error) {
	if p.Limit < 1 {
		return nil, nil
	}
	d, now, until := q.s.dialect, millis(p.Now), millis(p.LeaseUntil)
	tokens := strings.NewReplacer("{{table}}", `"`+q.s.prefix+q.name+`"`, "{{rank}}", q.rank)
	run := func(into any, sql string, args ...any) error {
		return q.statement(ctx, func() error { return q.scan(ctx, into, d.numbered(tokens.Replace(sql)), args...) })
	}
	mark := func() (marked bool, err error) {
		var seqs []int64
		err = run(&seqs, "UPDATE {{table}} SET due = TRUE WHERE "+fmt.Sprintf(d.in, laterRows+d.due)+" RETURNING seq", now, markBatch)
		return len(seqs) > 0, err
	}
	text := shareRows + take + fmt.Sprintf(d.in, d.shares) + " RETURNING " + columns + ", " + laterColumn
	if err := run(&rows, text, now, until, p.Limit, p.After); err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		if at := later(&rows[0]); at != 0 && at <= now {
			mark() // if it fails, the next claim does it
		}
		return rows, nil
	}
	if marked, err := mark(); err != nil || !marked && p.After == "" {
		return nil, err
	}
	err = run(&rows, text, now, until, p.Limit, "")
	return rows, err
}

// change is new values for a row under a lease.
type change struct {
	lease  store.Lease
	values []any
}

// held is the condition that a lease holds a row. It is none that the indexes
// of the queue serve: a planner whose statistics were taken when the queue was
// empty would read all of it.
const held = "(coalesce(ready_at, 0) <> 0 AND status IN ('processing', 'building'))"

// change writes values to rows that leases hold, and returns the leases that
// hold none. Rows are written in the order of their keys, so that two changes
// cannot lock each other out. Executions that become final lose their payload,
// unless they are dead.
func (q queue) change(ctx context.Context, columns []column, rows []change) (lost []store.Lease, err error) {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b change) int {
		return cmp.Or(strings.Compare(a.lease.Project, b.lease.Project), strings.Compare(a.lease.ID, b.lease.ID))
	})
	if len(rows) == 0 {
		return nil, nil
	}
	if q.s.dialect.arrays {
		return q.changeAtOnce(ctx, columns, rows)
	}
	return q.changeEach(ctx, columns, rows)
}

// changeEach changes rows one by one.
func (q queue) changeEach(ctx context.Context, columns []column, rows []change) (lost []store.Lease, err error) {
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = c.name + " = ?"
	}
	text := fmt.Sprintf(`UPDATE "%s%s" SET %s WHERE project_id = ? AND id = ? AND attempt = ? AND %s`, q.s.prefix, q.name, strings.Join(set, ", "), held)
	drop := fmt.Sprintf(`DELETE FROM "%spayloads" WHERE project_id = ? AND execution_id = ?`, q.s.prefix)
	err = q.atomicWith(ctx, []string{text, drop}, func(ctx context.Context, r records) error {
		lost = nil
		for _, c := range rows {
			l := c.lease
			n, err := r.exec(ctx, text, append(slices.Clone(c.values), l.Project, l.ID, l.Attempt)...)
			if err == nil && n > 0 && q.ends(columns, c) {
				_, err = r.exec(ctx, drop, l.Project, l.ID)
			}
			if err != nil {
				return err
			}
			if n == 0 {
				lost = append(lost, l)
			}
		}
		return nil
	})
	return lost, err
}

// ends reports whether a change makes an execution final and not dead.
func (q queue) ends(columns []column, c change) bool {
	i := slices.IndexFunc(columns, func(c column) bool { return c.name == "status" })
	if q.name != "executions" || i < 0 {
		return false
	}
	status := store.ExecutionStatus(c.values[i].(string))
	return status.Final() && status != store.ExecutionDead
}

// changeAtOnce changes rows in one statement, which takes each row once: the
// second change of one row follows.
func (q queue) changeAtOnce(ctx context.Context, columns []column, rows []change) (lost []store.Lease, err error) {
	first, rest := make([]change, 0, len(rows)), []change(nil)
	for i, c := range rows {
		if i > 0 && c.lease.Project == rows[i-1].lease.Project && c.lease.ID == rows[i-1].lease.ID {
			rest = append(rest, c)
		} else {
			first = append(first, c)
		}
	}
	var kept []struct {
		ProjectID string
		ID        string
		Attempt   int
	}
	err = q.statement(ctx, func() error {
		kept = nil
		return q.scan(ctx, &kept, q.changeText(columns), q.changeArgs(columns, first)...)
	})
	if err != nil {
		return nil, err
	}
	have := map[store.Lease]bool{}
	for _, k := range kept {
		have[store.Lease{Project: k.ProjectID, ID: k.ID, Attempt: k.Attempt}] = true
	}
	for _, c := range first {
		if !have[c.lease] {
			lost = append(lost, c.lease)
		}
	}
	if len(rest) > 0 {
		more, err := q.change(ctx, columns, rest)
		return append(lost, more...), err
	}
	return lost, nil
}

// leaseColumns are what a change begins with.
var leaseColumns = []column{{"project_id", "text"}, {"id", "text"}, {"attempt", "bigint"}}

// changeText finds the rows by their keys one by one, and then takes them by
// their sequence: joining on the keys, a planner whose statistics were taken
// when nothing was in work would read the whole table or all that is in work. The
// condition of the lease is one on both sides, because one on the rows alone would
// make it expect a single row, and then compare each row with all the others.
func (q queue) changeText(columns []column) string {
	all := append(slices.Clone(leaseColumns), columns...)
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = c.name + " = v." + c.name
	}
	const text = `WITH v AS MATERIALIZED (
  SELECT u.*, (SELECT q.seq FROM "%[1]s%[2]s" q WHERE q.project_id = u.project_id AND q.id = u.id) AS seq, TRUE AS held FROM %[4]s AS u (%[3]s)
), changed AS (
  UPDATE "%[1]s%[2]s" AS q SET %[5]s FROM v
  WHERE q.seq = ANY(ARRAY(SELECT seq FROM v)) AND q.seq = v.seq AND q.attempt = v.attempt AND %[6]s = v.held
  RETURNING q.project_id, q.id, q.attempt, q.status
)%[7]s SELECT project_id, id, attempt FROM changed`
	drop := ""
	if q.name == "executions" {
		drop = fmt.Sprintf(`, dropped AS (
  DELETE FROM "%spayloads" AS p USING changed AS c WHERE p.project_id = c.project_id AND p.execution_id = c.id AND c.status IN ('%s', '%s', '%s')
)`, q.s.prefix, store.ExecutionCompleted, store.ExecutionFailed, store.ExecutionCanceled)
	}
	return fmt.Sprintf(text, q.s.prefix, q.name, names(all), unnest(all, 1), strings.Join(set, ", "),
		strings.NewReplacer("ready_at", "q.ready_at", "status", "q.status").Replace(held), drop)
}

func (q queue) changeArgs(columns []column, rows []change) []any {
	values := make([][]any, len(rows))
	for i, c := range rows {
		values[i] = append([]any{c.lease.Project, c.lease.ID, c.lease.Attempt}, c.values...)
	}
	return arrays(append(slices.Clone(leaseColumns), columns...), values)
}

// builds is the queue of deployments.
type builds struct{ queue }

// claimedBuild is a deployment that was claimed.
type claimedBuild struct {
	deploymentRow `bun:",extend"`
	Later         int64 `bun:",scanonly,nullzero"`
}

// Claim implements store.Queue.
func (q builds) Claim(ctx context.Context, p store.ClaimParams) ([]store.Claimed[store.Deployment], error) {
	rows, err := claim(ctx, q.queue, p, q.s.columns(new([]claimedBuild)), func(r *claimedBuild) int64 { return r.Later })
	if err != nil {
		return nil, failed("claim builds", err)
	}
	return convert(rows, func(r *claimedBuild) store.Claimed[store.Deployment] {
		d := r.record()
		return store.Claimed[store.Deployment]{Lease: store.Lease{Project: d.Project, ID: d.ID, Attempt: d.Attempt}, Row: d}
	}), nil
}

// buildColumns are what Settle writes of a deployment.
var buildColumns = []column{
	{"status", "text"}, {"build_id", "text"}, {"build_started", "bigint"}, {"build_ended", "bigint"}, {"build_logs", "text"}, {"build_size", "bigint"},
	{"artefact_blob", "text"}, {"updated_at", "bigint"}, {"ready_at", "bigint"}, {"due", "boolean"},
}

// Settle implements store.Queue.
func (q builds) Settle(ctx context.Context, rows []store.Settlement[store.Deployment]) ([]store.Lease, error) {
	changes := make([]change, len(rows))
	for i, s := range rows {
		d := newDeploymentRow(s.Row)
		changes[i] = change{s.Lease, []any{
			d.Status, d.BuildID, nullable(d.BuildStarted), nullable(d.BuildEnded), d.BuildLogs, d.BuildSize, d.ArtefactBlob, d.UpdatedAt, nullable(d.ReadyAt), d.Due,
		}}
	}
	lost, err := q.change(ctx, buildColumns, changes)
	q.enqueued(err, slices.ContainsFunc(rows, func(s store.Settlement[store.Deployment]) bool { return claimable(s.Row.ReadyAt, s.Row.Status) }))
	return lost, failed("settle builds", err)
}

// runs is the queue of executions.
type runs struct{ queue }

// claimedRun is an execution that was claimed, with its payload.
type claimedRun struct {
	executionRow `bun:",extend"`
	Sealed       []byte `bun:",scanonly"`
	Later        int64  `bun:",scanonly,nullzero"`
}

// Claim implements store.Queue.
func (q runs) Claim(ctx context.Context, p store.ClaimParams) ([]store.Claimed[store.Execution], error) {
	columns := q.s.columns(new([]claimedRun)) + fmt.Sprintf(`, (SELECT p.sealed FROM "%spayloads" p WHERE p.project_id = {{table}}.project_id AND p.execution_id = {{table}}.id) AS sealed`, q.s.prefix)
	rows, err := claim(ctx, q.queue, p, columns, func(r *claimedRun) int64 { return r.Later })
	if err != nil {
		return nil, failed("claim runs", err)
	}
	return convert(rows, func(r *claimedRun) store.Claimed[store.Execution] {
		x := r.record()
		x.Payload = r.Sealed
		return store.Claimed[store.Execution]{Lease: store.Lease{Project: x.Project, ID: x.ID, Attempt: x.Attempt}, Row: x}
	}), nil
}

// runColumns are what Settle writes of an execution.
var runColumns = []column{
	{"status", "text"}, {"deployment_id", "text"}, {"response_status_code", "bigint"}, {"response_headers", "text"}, {"logs", "text"}, {"errors", "text"},
	{"duration", "bigint"}, {"tries", "bigint"}, {"updated_at", "bigint"}, {"ready_at", "bigint"}, {"due", "boolean"}, {"gate", "bigint"}, {"paid", "boolean"},
}

// Settle implements store.Queue.
func (q runs) Settle(ctx context.Context, rows []store.Settlement[store.Execution]) ([]store.Lease, error) {
	changes := make([]change, len(rows))
	for i, s := range rows {
		x := s.Row
		changes[i] = change{s.Lease, []any{
			string(x.Status), x.DeploymentID, x.ResponseStatusCode, headerList(x.ResponseHeaders), clean(x.Logs), clean(x.Errors),
			x.Duration.Microseconds(), x.Tries, millis(x.UpdatedAt), nullable(millis(x.ReadyAt)), due(x.ReadyAt, x.UpdatedAt), 0, false,
		}}
	}
	lost, err := q.change(ctx, runColumns, changes)
	q.enqueued(err, slices.ContainsFunc(rows, func(s store.Settlement[store.Execution]) bool { return claimable(s.Row.ReadyAt, s.Row.Status) }))
	return lost, failed("settle runs", err)
}
