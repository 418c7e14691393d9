package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// executionColumns are the columns of executions that AppendExecutions writes, in
// the order of executionValues.
var executionColumns = []column{
	{"project_id", "text"}, {"id", "text"}, {"function_id", "text"}, {"deployment_id", "text"}, {"created_at", "bigint"}, {"updated_at", "bigint"},
	{"user_id", "text"}, {"trigger_kind", "text"}, {"event", "text"}, {"status", "text"}, {"request_method", "text"}, {"request_path", "text"},
	{"request_headers", "text"}, {"response_status_code", "bigint"}, {"response_headers", "text"}, {"logs", "text"}, {"errors", "text"},
	{"duration", "bigint"}, {"scheduled_at", "bigint"}, {"attempt", "bigint"}, {"tries", "bigint"}, {"rank", "bigint"}, {"lane", "text"},
}

func executionValues(x *store.Execution) []any {
	return []any{
		x.Project, x.ID, x.FunctionID, x.DeploymentID, millis(x.CreatedAt), millis(x.UpdatedAt), clean(x.UserID), string(x.Trigger), clean(x.Event), string(x.Status),
		clean(x.RequestMethod), clean(x.RequestPath), headerList(x.RequestHeaders), x.ResponseStatusCode, headerList(x.ResponseHeaders), clean(x.Logs), clean(x.Errors),
		x.Duration.Microseconds(), nullable(millis(x.ScheduledAt)), x.Attempt, x.Tries, -x.Priority, clean(x.Lane),
	}
}

// runColumns are those of the queue: some of an execution's, and queueColumns in
// the order of queueValues.
var (
	runColumns = append([]column{
		{"project_id", "text"}, {"function_id", "text"}, {"status", "text"}, {"attempt", "bigint"}, {"rank", "bigint"}, {"lane", "text"},
	}, queueColumns...)
	queueColumns = []column{{"ready_at", "bigint"}, {"due", "boolean"}, {"losses", "bigint"}, {"sealed", "bytea"}}
)

func queueValues(x *store.Execution) []any {
	return []any{nullable(millis(x.ReadyAt)), due(x.ReadyAt, x.UpdatedAt), x.Losses, payload(x, false)}
}

// inline is up to how many bytes a payload is kept in the row of the queue. Claims
// write that anew; a longer one is a row of its own.
const inline = 1 << 10

// payload is that of an execution, if it is as long as said.
func payload(x *store.Execution, long bool) any {
	if x.Payload == nil || len(x.Payload) > inline != long {
		return nil
	}
	return x.Payload
}

func nullable(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

// AppendExecutions implements store.Executions with prepared statements: it is
// what every synchronous execution waits for.
func (r records) AppendExecutions(ctx context.Context, rows []store.Execution) error {
	if len(rows) == 0 {
		return nil
	}
	err := r.append(ctx, rows)
	r.enqueued(err, slices.ContainsFunc(rows, func(x store.Execution) bool { return claimable(x.ReadyAt, x.Status) }))
	return failed("append executions", err)
}

func (r records) append(ctx context.Context, rows []store.Execution) error {
	if r.s.dialect.arrays {
		return r.statement(ctx, func() error { return r.appendAtOnce(ctx, rows) })
	}
	write := func(ctx context.Context, r records) error { return r.appendEach(ctx, rows) }
	if r.in == nil && len(rows) == 1 && !inQueue(&rows[0]) { // is one statement
		return r.statement(ctx, func() error { return write(ctx, r) })
	}
	if r.in != nil {
		return r.refusable(ctx, func() error { return write(ctx, r) })
	}
	return r.atomicWith(ctx, r.s.inserts[:], write)
}

// appendAtOnce inserts rows in one statement, which is a shorter one if none of
// them is for the queue.
func (r records) appendAtOnce(ctx context.Context, rows []store.Execution) error {
	text, columns := `INSERT INTO "%[1]sexecutions" (%[2]s) SELECT * FROM %[4]s`, executionColumns
	queued := slices.ContainsFunc(rows, func(x store.Execution) bool { return inQueue(&x) })
	if queued {
		text = `WITH u AS MATERIALIZED (SELECT nextval((SELECT pg_get_serial_sequence('"%[1]sexecutions"', 'seq')::regclass)) AS seq, u.* FROM %[4]s AS u (%[5]s)),
x AS (INSERT INTO "%[1]sexecutions" (seq, %[2]s) SELECT seq, %[2]s FROM u),
p AS (INSERT INTO "%[1]spayloads" (seq, sealed) SELECT seq, long FROM u WHERE long IS NOT NULL)
INSERT INTO "%[1]sruns" (seq, %[3]s) SELECT seq, %[3]s FROM u WHERE queued`
		columns = slices.Concat(executionColumns, queueColumns, []column{{"long", "bytea"}, {"queued", "boolean"}})
	}
	values := make([][]any, len(rows))
	for i := range rows {
		x := &rows[i]
		if values[i] = executionValues(x); queued {
			values[i] = append(append(values[i], queueValues(x)...), payload(x, true), inQueue(x))
		}
	}
	text = fmt.Sprintf(text, r.s.prefix, names(executionColumns), names(runColumns), unnest(columns, 1), names(columns))
	return r.refusable(ctx, func() error {
		_, err := r.exec(ctx, text, arrays(columns, values)...)
		return err
	})
}

// appendEach inserts rows one by one.
func (r records) appendEach(ctx context.Context, rows []store.Execution) error {
	for i := range rows {
		if err := r.appendOne(ctx, &rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r records) appendOne(ctx context.Context, x *store.Execution) error {
	_, err := r.exec(ctx, r.s.inserts[0], executionValues(x)...)
	if err != nil || !inQueue(x) {
		return err
	}
	shared := []any{x.Project, x.FunctionID, string(x.Status), x.Attempt, -x.Priority, clean(x.Lane)}
	if _, err := r.exec(ctx, r.s.inserts[1], append(shared, queueValues(x)...)...); err != nil {
		return err
	}
	if long := payload(x, true); long != nil {
		_, err = r.exec(ctx, r.s.inserts[2], long)
	}
	return err
}

// inserts are the statements of appendOne. The row of an execution gives those in
// the queue their sequence.
func inserts(prefix string) [3]string {
	insert := func(table string, columns []column, more, value string) string {
		marks := strings.TrimSuffix(strings.Repeat("?, ", len(columns)), ", ")
		return fmt.Sprintf(`INSERT INTO "%s%s" (%s%s) VALUES (%s%s)`, prefix, table, more, names(columns), value, marks)
	}
	return [3]string{
		insert("executions", executionColumns, "", ""),
		insert("runs", runColumns, "seq, ", "last_insert_rowid(), "),
		insert("payloads", []column{{"sealed", "bytea"}}, "seq, ", "last_insert_rowid(), "),
	}
}

// ofQueue are the columns of an execution e that its row in the queue has, if it
// has one. They are sought one by one: no planner joins them with all of the queue.
func (s *Store) ofQueue() string {
	of := func(column string) string {
		return fmt.Sprintf(`(SELECT q.%s FROM "%sruns" q WHERE q.seq = e.seq)`, column, s.prefix)
	}
	return s.status() + " AS status, coalesce(" + of("attempt") + ", e.attempt) AS attempt, " + of("ready_at") + " AS ready_at, " + of("losses") + " AS losses"
}

// status is the status of an execution e.
func (s *Store) status() string {
	return fmt.Sprintf(`coalesce((SELECT q.status FROM "%sruns" q WHERE q.seq = e.seq), e.status)`, s.prefix)
}

// GetExecution implements store.Executions.
func (r records) GetExecution(ctx context.Context, project, function, id string) (store.Execution, error) {
	var row executionRow
	err := r.r.NewSelect().Model(&row).ModelTableExpr("? AS e", r.s.table("executions")).ColumnExpr("?TableColumns").ColumnExpr(r.s.ofQueue()).
		Where("e.project_id = ? AND e.id = ? AND e.function_id = ?", project, id, function).Scan(ctx)
	if err != nil {
		return store.Execution{}, failed("get execution", err)
	}
	return row.record(), nil
}

// DeleteExecution implements store.Executions.
func (r records) DeleteExecution(ctx context.Context, project, function, id string, statuses ...store.ExecutionStatus) error {
	return r.atomic(ctx, func(ctx context.Context, r records) error {
		x, err := r.GetExecution(ctx, project, function, id)
		if err != nil {
			return err
		}
		if err := r.deleteIf(ctx, x.Seq, bun.List(statuses)); err != nil {
			return failed("delete execution", err)
		}
		return failed("delete execution", r.deleteExecutions(ctx, project, []execution{{x.Seq, id}}))
	})
}

// deleteIf deletes the row of an execution that has its status, if that is one of
// statuses.
func (r records) deleteIf(ctx context.Context, seq int64, statuses any) error {
	for _, of := range []struct{ table, unless string }{
		{"runs", ""},
		{"executions", " AND NOT EXISTS (SELECT 1 FROM ?3 q WHERE q.seq = e.seq)"},
	} {
		res, err := r.w.ExecContext(ctx, "DELETE FROM ?0 AS e WHERE seq = ?1 AND status IN (?2)"+of.unless, r.s.table(of.table), seq, statuses, r.s.table("runs"))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
	}
	return store.ErrConflict
}

// CancelExecution implements store.Executions.
func (r records) CancelExecution(ctx context.Context, project, function, id, errors string, at time.Time) (x store.Execution, err error) {
	err = r.atomic(ctx, func(ctx context.Context, r records) error {
		var attempt []int
		err := r.w.NewRaw("DELETE FROM ? WHERE seq = (SELECT e.seq FROM ? e WHERE e.project_id = ? AND e.id = ? AND e.function_id = ?) AND (ready_at IS NOT NULL OR gate = 1) RETURNING attempt",
			r.s.table("runs"), r.s.table("executions"), project, id, function).Scan(ctx, &attempt)
		if err != nil {
			return failed("cancel execution", err)
		}
		if len(attempt) > 0 {
			_, err := r.w.ExecContext(ctx, "UPDATE ? SET status = ?, errors = ?, updated_at = ?, attempt = ? WHERE project_id = ? AND id = ?",
				r.s.table("executions"), string(store.ExecutionCanceled), clean(errors), millis(at), attempt[0], project, id)
			if err != nil {
				return failed("cancel execution", err)
			}
		}
		if x, err = r.GetExecution(ctx, project, function, id); err != nil {
			return err
		}
		if len(attempt) == 0 {
			return fmt.Errorf("cancel execution: %w", store.ErrConflict)
		}
		_, err = r.w.ExecContext(ctx, "DELETE FROM ? WHERE seq = ?", r.s.table("payloads"), x.Seq)
		return failed("cancel execution", err)
	})
	return x, err
}

// ReplayExecution implements store.Executions.
func (r records) ReplayExecution(ctx context.Context, project, function, id string, at time.Time) (x store.Execution, err error) {
	err = r.atomic(ctx, func(ctx context.Context, r records) error {
		res, err := r.w.ExecContext(ctx, "UPDATE ? SET status = ?, losses = 0, ready_at = ?, due = TRUE "+
			"WHERE seq = (SELECT e.seq FROM ? e WHERE e.project_id = ? AND e.id = ? AND e.function_id = ?) AND status = ?",
			r.s.table("runs"), string(store.ExecutionWaiting), millis(at), r.s.table("executions"), project, id, function, string(store.ExecutionDead))
		if err != nil {
			return failed("replay execution", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return failed("replay execution", err)
		}
		if n > 0 {
			_, err := r.w.ExecContext(ctx, "UPDATE ? SET status = ?, tries = 0, updated_at = ? WHERE project_id = ? AND id = ?",
				r.s.table("executions"), string(store.ExecutionWaiting), millis(at), project, id)
			if err != nil {
				return failed("replay execution", err)
			}
		}
		if x, err = r.GetExecution(ctx, project, function, id); err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("replay execution: %w", store.ErrConflict)
		}
		return nil
	})
	r.enqueued(err, true)
	return x, err
}

// ListExecutions implements store.Executions.
func (r records) ListExecutions(ctx context.Context, project, function, reader string, q store.Query) ([]store.Execution, error) {
	var rows []executionRow
	if err := r.list(ctx, r.executionList(project, function, reader), q, &rows); err != nil {
		return nil, failed("list executions", err)
	}
	return convert(rows, (*executionRow).record), nil
}

// CountExecutions implements store.Executions.
func (r records) CountExecutions(ctx context.Context, project, function, reader string, q store.Query, max int) (int, error) {
	n, err := r.count(ctx, r.executionList(project, function, reader), q, max)
	return n, failed("count executions", err)
}
