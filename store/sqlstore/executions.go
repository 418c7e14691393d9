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

// executionColumns are the columns AppendExecutions writes, in the order of
// executionValues.
var executionColumns = []column{
	{"project_id", "text"}, {"id", "text"}, {"function_id", "text"}, {"deployment_id", "text"}, {"created_at", "bigint"}, {"updated_at", "bigint"},
	{"user_id", "text"}, {"trigger_kind", "text"}, {"event", "text"}, {"status", "text"}, {"request_method", "text"}, {"request_path", "text"},
	{"request_headers", "text"}, {"response_status_code", "bigint"}, {"response_headers", "text"}, {"logs", "text"}, {"errors", "text"},
	{"duration", "bigint"}, {"scheduled_at", "bigint"}, {"attempt", "bigint"}, {"ready_at", "bigint"},
	{"due", "boolean"}, {"tries", "bigint"}, {"losses", "bigint"}, {"rank", "bigint"}, {"lane", "text"},
}

func executionValues(x *store.Execution) []any {
	return []any{
		x.Project, x.ID, x.FunctionID, x.DeploymentID, millis(x.CreatedAt), millis(x.UpdatedAt), clean(x.UserID), string(x.Trigger), clean(x.Event), string(x.Status),
		clean(x.RequestMethod), clean(x.RequestPath), headerList(x.RequestHeaders), x.ResponseStatusCode, headerList(x.ResponseHeaders), clean(x.Logs), clean(x.Errors),
		x.Duration.Microseconds(), nullable(millis(x.ScheduledAt)), x.Attempt, nullable(millis(x.ReadyAt)), due(x.ReadyAt, x.UpdatedAt), x.Tries, x.Losses, -x.Priority, clean(x.Lane),
	}
}

var payloadColumns = []column{{"project_id", "text"}, {"execution_id", "text"}, {"function_id", "text"}, {"sealed", "bytea"}}

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
	values := make([][]any, len(rows))
	var payloads [][]any
	for i := range rows {
		x := &rows[i]
		values[i] = executionValues(x)
		if x.Payload != nil {
			payloads = append(payloads, []any{x.Project, x.ID, x.FunctionID, x.Payload})
		}
	}
	if r.s.dialect.arrays {
		return r.statement(ctx, func() error { return r.appendAtOnce(ctx, values, payloads) })
	}
	return r.appendEach(ctx, values, payloads)
}

// appendAtOnce inserts rows in one statement.
func (r records) appendAtOnce(ctx context.Context, values, payloads [][]any) error {
	text := fmt.Sprintf(`WITH x AS (INSERT INTO "%[1]sexecutions" (%[2]s) SELECT * FROM %[3]s) INSERT INTO "%[1]spayloads" (%[4]s) SELECT * FROM %[5]s`,
		r.s.prefix, names(executionColumns), unnest(executionColumns, 1), names(payloadColumns), unnest(payloadColumns, len(executionColumns)+1))
	return r.refusable(ctx, func() error {
		_, err := r.exec(ctx, text, append(arrays(executionColumns, values), arrays(payloadColumns, payloads)...)...)
		return err
	})
}

// appendEach inserts rows one by one.
func (r records) appendEach(ctx context.Context, values, payloads [][]any) error {
	texts := r.s.inserts
	write := func(ctx context.Context, r records) error {
		for i, rows := range [][][]any{values, payloads} {
			for _, row := range rows {
				if _, err := r.exec(ctx, texts[i], row...); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if r.in != nil {
		return r.refusable(ctx, func() error { return write(ctx, r) })
	}
	return r.atomicWith(ctx, texts[:], write)
}

// inserts are the statements of appendEach: of executions and of payloads.
func inserts(prefix string) [2]string {
	insert := func(table string, columns []column) string {
		marks := strings.TrimSuffix(strings.Repeat("?, ", len(columns)), ", ")
		return fmt.Sprintf(`INSERT INTO "%s%s" (%s) VALUES (%s)`, prefix, table, names(columns), marks)
	}
	return [2]string{insert("executions", executionColumns), insert("payloads", payloadColumns)}
}

// GetExecution implements store.Executions.
func (r records) GetExecution(ctx context.Context, project, function, id string) (store.Execution, error) {
	var row executionRow
	err := r.r.NewSelect().Model(&row).ModelTableExpr("? AS e", r.s.table("executions")).
		Where("e.project_id = ? AND e.id = ? AND e.function_id = ?", project, id, function).Scan(ctx)
	if err != nil {
		return store.Execution{}, failed("get execution", err)
	}
	return row.record(), nil
}

// DeleteExecution implements store.Executions.
func (r records) DeleteExecution(ctx context.Context, project, function, id string, statuses ...store.ExecutionStatus) error {
	return r.atomic(ctx, func(ctx context.Context, r records) error {
		if _, err := r.GetExecution(ctx, project, function, id); err != nil {
			return err
		}
		res, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND id = ? AND status IN (?)", r.s.table("executions"), project, id, bun.List(statuses))
		if err != nil {
			return failed("delete execution", err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return failed("delete execution", err)
		} else if n == 0 {
			return fmt.Errorf("delete execution: %w", store.ErrConflict)
		}
		if err := r.deletePayload(ctx, project, id); err != nil {
			return err
		}
		return r.deleteLogs(ctx, store.LogRef{Project: project, Kind: store.ExecutionLog, ID: id})
	})
}

// CancelExecution implements store.Executions.
func (r records) CancelExecution(ctx context.Context, project, function, id, errors string, at time.Time) (x store.Execution, err error) {
	err = r.atomic(ctx, func(ctx context.Context, r records) error {
		res, err := r.w.ExecContext(ctx, "UPDATE ? SET status = ?, errors = ?, updated_at = ?, ready_at = NULL, due = FALSE, gate = 0 "+
			"WHERE project_id = ? AND id = ? AND function_id = ? AND (ready_at IS NOT NULL OR gate = 1)",
			r.s.table("executions"), string(store.ExecutionCanceled), clean(errors), millis(at), project, id, function)
		if err != nil {
			return failed("cancel execution", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return failed("cancel execution", err)
		}
		if x, err = r.GetExecution(ctx, project, function, id); err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("cancel execution: %w", store.ErrConflict)
		}
		return r.deletePayload(ctx, project, id)
	})
	return x, err
}

// ReplayExecution implements store.Executions.
func (r records) ReplayExecution(ctx context.Context, project, function, id string, at time.Time) (x store.Execution, err error) {
	err = r.atomic(ctx, func(ctx context.Context, r records) error {
		res, err := r.w.ExecContext(ctx, "UPDATE ? SET status = ?, tries = 0, losses = 0, updated_at = ?, ready_at = ?, due = TRUE "+
			"WHERE project_id = ? AND id = ? AND function_id = ? AND status = ?",
			r.s.table("executions"), string(store.ExecutionWaiting), millis(at), millis(at), project, id, function, string(store.ExecutionDead))
		if err != nil {
			return failed("replay execution", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return failed("replay execution", err)
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

func (r records) deletePayload(ctx context.Context, project, id string) error {
	_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND execution_id = ?", r.s.table("payloads"), project, id)
	return failed("delete payload", err)
}

// ListExecutions implements store.Executions.
func (r records) ListExecutions(ctx context.Context, project, function, reader string, q store.Query) ([]store.Execution, error) {
	var rows []executionRow
	if err := r.list(ctx, executionList(project, function, reader), q, &rows); err != nil {
		return nil, failed("list executions", err)
	}
	return convert(rows, (*executionRow).record), nil
}

// CountExecutions implements store.Executions.
func (r records) CountExecutions(ctx context.Context, project, function, reader string, q store.Query, max int) (int, error) {
	n, err := r.count(ctx, executionList(project, function, reader), q, max)
	return n, failed("count executions", err)
}
