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

// queue is what the two queues share: a table with project_id, ready_at, due,
// status, attempt and losses.
type queue struct {
	records
	name string
	of   string // the table that has the ids of its rows, by sequence
	rank string // what those of a project are ordered by before the time
}

// Renew implements store.Queue.
func (q queue) Renew(ctx context.Context, leases []store.Lease, until time.Time) (lost []store.Lease, err error) {
	rows := make([]change, len(leases))
	for i, l := range leases {
		rows[i] = change{l, []any{millis(until)}}
	}
	lost, err = q.change(ctx, q.writing([]column{{"ready_at", "bigint"}}), rows)
	return lost, failed("renew leases", err)
}

// NextDue implements store.Queue.
func (q queue) NextDue(ctx context.Context) (time.Time, bool, error) {
	var at []int64
	// Not min(), for which a planner may read them all.
	text := fmt.Sprintf(`SELECT ready_at FROM (SELECT * FROM (SELECT ready_at FROM "%[1]s" x WHERE due AND ready_at IS NOT NULL ORDER BY project_id, %[2]sready_at LIMIT 1) AS marked
UNION ALL SELECT * FROM (SELECT ready_at FROM "%[1]s" WHERE ready_at IS NOT NULL AND NOT due ORDER BY ready_at LIMIT 1) AS later) AS first ORDER BY ready_at LIMIT 1`, q.s.prefix+q.name, q.rank)
	err := q.look(ctx, &at, text)
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

// claiming are the statements of a claim: what takes rows, and what marks rows that
// have become due.
type claiming struct{ take, mark string }

// claiming returns those for the given columns of the queue's table. If then is not
// empty, it is a query of what was taken, for databases that have such.
func (q queue) claiming(columns, then string) claiming {
	d := q.s.dialect
	text := take + fmt.Sprintf(d.in, d.shares) + " RETURNING " + columns + ", " + laterColumn
	if then == "" {
		text = shareRows + text
	} else {
		text = shareRows + ", taken AS (" + text + ") " + then
	}
	tokens := strings.NewReplacer("{{table}}", `"`+q.s.prefix+q.name+`"`, "{{rank}}", q.rank)
	return claiming{
		take: d.numbered(tokens.Replace(text)),
		mark: d.numbered(tokens.Replace("UPDATE {{table}} SET due = TRUE WHERE " + fmt.Sprintf(d.in, laterRows+d.due) + " RETURNING seq")),
	}
}

// claim takes due rows. Those that have become due are marked when there are no
// others, or for the next claim; later returns laterColumn of a row.
func claim[R any](ctx context.Context, q queue, p store.ClaimParams, by claiming, later func(*R) int64) (rows []R, err error) {
	if p.Limit < 1 {
		return nil, nil
	}
	now := millis(p.Now)
	take := func(after string) error {
		return q.statement(ctx, func() error { return q.scan(ctx, &rows, by.take, now, millis(p.LeaseUntil), p.Limit, after) })
	}
	mark := func() (marked bool, err error) {
		var seqs []int64
		err = q.statement(ctx, func() error { return q.scan(ctx, &seqs, by.mark, now, markBatch) })
		return len(seqs) > 0, err
	}
	if err := take(p.After); err != nil {
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
	err = take("")
	return rows, err
}

// held is the condition that a lease holds a row. It is none that the indexes
// of the queue serve: a planner whose statistics were taken when the queue was
// empty would read all of it.
const held = "(coalesce(ready_at, 0) <> 0 AND status IN ('processing', 'building'))"

// heldOf is held of a row by its alias.
func heldOf(alias string) string {
	return strings.NewReplacer("ready_at", alias+".ready_at", "status", alias+".status").Replace(held)
}

// change is new values for a row under a lease.
type change struct {
	lease  store.Lease
	values []any
}

// writing is how changes of as many rows are written, by databases that take arrays in
// one statement. Both return the leases that hold a row.
type writing struct {
	columns []column // of the values
	atOnce  string   // takes leaseColumns and columns
	texts   []string // of each
	each    func(ctx context.Context, r records, texts []string, rows []change) ([]store.Lease, error)
}

// change writes values to rows that leases hold, and returns the leases that
// hold none. Rows are written in the order of their keys, so that two changes
// cannot lock each other out. The second change of one row follows.
func (q queue) change(ctx context.Context, w writing, rows []change) (lost []store.Lease, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b change) int {
		return cmp.Or(strings.Compare(a.lease.Project, b.lease.Project), strings.Compare(a.lease.ID, b.lease.ID))
	})
	first, rest := make([]change, 0, len(rows)), []change(nil)
	for i, c := range rows {
		if i > 0 && c.lease.Project == rows[i-1].lease.Project && c.lease.ID == rows[i-1].lease.ID {
			rest = append(rest, c)
		} else {
			first = append(first, c)
		}
	}
	kept, err := q.write(ctx, w, first)
	if err != nil {
		return nil, err
	}
	for _, c := range first {
		if len(kept) > 0 && kept[0] == c.lease {
			kept = kept[1:]
		} else {
			lost = append(lost, c.lease)
		}
	}
	more, err := q.change(ctx, w, rest)
	return append(lost, more...), err
}

// write writes changes of rows, each of another, and returns the leases that hold
// one, in the same order.
func (q queue) write(ctx context.Context, w writing, rows []change) (kept []store.Lease, err error) {
	if !q.s.dialect.arrays {
		err = q.atomicWith(ctx, w.texts, func(ctx context.Context, r records) (err error) {
			kept, err = w.each(ctx, r, w.texts, rows)
			return err
		})
		return kept, err
	}
	values := make([][]any, len(rows))
	for i, c := range rows {
		values[i] = append([]any{c.lease.Project, c.lease.ID, c.lease.Attempt}, c.values...)
	}
	var found []struct{ N int }
	err = q.statement(ctx, func() error {
		found = nil
		return q.scan(ctx, &found, w.atOnce, arrays(append(slices.Clone(leaseColumns), w.columns...), values)...)
	})
	slices.SortFunc(found, func(a, b struct{ N int }) int { return a.N - b.N })
	for _, f := range found {
		kept = append(kept, rows[f.N-1].lease)
	}
	return kept, err
}

// leaseColumns are what a change begins with.
var leaseColumns = []column{{"project_id", "text"}, {"id", "text"}, {"attempt", "bigint"}}

// writing is how columns of the queue's table are written.
func (q queue) writing(columns []column) writing {
	return writing{
		columns: columns,
		atOnce: q.changed(columns) + fmt.Sprintf(`, changed AS (
  UPDATE "%s" AS q SET %s FROM v WHERE `+heldAtOnce("TRUE")+` RETURNING v.n
) SELECT n FROM changed`, q.s.prefix+q.name, assigned(columns)),
		texts: []string{fmt.Sprintf(`UPDATE "%s" SET %s WHERE seq = (SELECT e.seq FROM "%s" e WHERE e.project_id = ? AND e.id = ?) AND attempt = ? AND `+held,
			q.s.prefix+q.name, marked(columns), q.s.prefix+q.of)},
		each: func(ctx context.Context, r records, texts []string, rows []change) (kept []store.Lease, err error) {
			for _, c := range rows {
				n, err := r.exec(ctx, texts[0], append(slices.Clone(c.values), c.lease.Project, c.lease.ID, c.lease.Attempt)...)
				if err != nil {
					return nil, err
				}
				if n > 0 {
					kept = append(kept, c.lease)
				}
			}
			return kept, nil
		},
	}
}

// changed begins a statement with the changes v and the sequences of their rows.
// It finds them by their keys one by one: joining on the keys, a planner whose
// statistics were taken when nothing was in work would read the whole table or
// all that is in work.
func (q queue) changed(columns []column) string {
	all := append(slices.Clone(leaseColumns), columns...)
	return fmt.Sprintf(`WITH v AS MATERIALIZED (
  SELECT u.*, (SELECT e.seq FROM "%s" e WHERE e.project_id = u.project_id AND e.id = u.id) AS seq, TRUE AS held FROM %s WITH ORDINALITY AS u (%s, n)
)`, q.s.prefix+q.of, unnest(all, 1), names(all))
}

// heldAtOnce is the condition that q is the row of a change v which meets a
// condition. That of the lease is one on both sides, because one on the rows alone
// would make a planner expect a single row, and then compare each with all others.
func heldAtOnce(which string) string {
	return "q.seq = ANY(ARRAY(SELECT seq FROM v WHERE " + which + ")) AND q.seq = v.seq AND q.attempt = v.attempt AND " +
		heldOf("q") + " = v.held"
}

// marked sets columns to parameters, assigned to those of v.
func marked(columns []column) string {
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = c.name + " = ?"
	}
	return strings.Join(set, ", ")
}

func assigned(columns []column) string {
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = c.name + " = v." + c.name
	}
	return strings.Join(set, ", ")
}
