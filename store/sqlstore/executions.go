package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// executionColumns are the columns AppendExecutions writes, in the order of
// executionValues.
const executionColumns = "project_id, id, function_id, deployment_id, created_at, updated_at, user_id, trigger_kind, event, status, " +
	"request_method, request_path, request_headers, response_status_code, response_headers, logs, errors, duration, scheduled_at, attempt, ready_at"

func executionValues(x *store.Execution) []any {
	return []any{
		x.Project, x.ID, x.FunctionID, x.DeploymentID, millis(x.CreatedAt), millis(x.UpdatedAt), x.UserID, string(x.Trigger), clean(x.Event), string(x.Status),
		x.RequestMethod, clean(x.RequestPath), headerList(x.RequestHeaders), x.ResponseStatusCode, headerList(x.ResponseHeaders), clean(x.Logs), clean(x.Errors),
		x.Duration.Microseconds(), nullable(millis(x.ScheduledAt)), x.Attempt, nullable(millis(x.ReadyAt)),
	}
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
	if r.tx != nil {
		return failed("append executions", r.s.appendWithin(ctx, r.tx.Tx, rows))
	}
	if err := r.s.prepare(ctx); err != nil {
		return failed("prepare insert", err)
	}
	t, err := r.s.db.DB.BeginTx(ctx, nil)
	if err != nil {
		return failed("append executions", err)
	}
	if err := r.s.append(ctx, t, rows); err != nil {
		_ = t.Rollback()
		return failed("append executions", err)
	}
	return failed("append executions", t.Commit())
}

// appendWithin inserts all rows or none in a transaction that may go on after
// a refusal.
func (s *Store) appendWithin(ctx context.Context, t *sql.Tx, rows []store.Execution) error {
	if _, err := t.ExecContext(ctx, "SAVEPOINT fnkit_append"); err != nil {
		return err
	}
	failure := s.append(ctx, t, rows)
	if failure != nil {
		if _, err := t.ExecContext(ctx, "ROLLBACK TO SAVEPOINT fnkit_append"); err != nil {
			return errors.Join(failure, err, t.Rollback())
		}
	}
	_, err := t.ExecContext(ctx, "RELEASE SAVEPOINT fnkit_append")
	return errors.Join(failure, err)
}

// inserts are the statements of AppendExecutions.
type inserts struct{ execution, payload *sql.Stmt }

func (in inserts) close() error { return errors.Join(in.execution.Close(), in.payload.Close()) }

// prepare makes the statements once. Inside a transaction, which may hold the
// only connection, it must not be called. It holds no lock while it waits for
// a connection, or whoever has that could wait for the lock.
func (s *Store) prepare(ctx context.Context) error {
	if s.inserts.Load() != nil {
		return nil
	}
	in, err := s.prepareOn(ctx, s.db.DB)
	if err != nil {
		return err
	}
	if !s.inserts.CompareAndSwap(nil, &in) {
		return in.close()
	}
	return nil
}

func (s *Store) prepareOn(ctx context.Context, db interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}) (in inserts, err error) {
	marks := strings.TrimSuffix(strings.Repeat("?, ", strings.Count(executionColumns, ",")+1), ", ")
	in.execution, err = db.PrepareContext(ctx, fmt.Sprintf(`INSERT INTO "%sexecutions" (%s) VALUES (%s)`, s.prefix, executionColumns, marks))
	if err != nil {
		return in, err
	}
	in.payload, err = db.PrepareContext(ctx, fmt.Sprintf(`INSERT INTO "%spayloads" (project_id, execution_id, function_id, sealed) VALUES (?, ?, ?, ?)`, s.prefix))
	if err != nil {
		return in, errors.Join(err, in.execution.Close())
	}
	return in, nil
}

// on returns the statements on a transaction.
func (s *Store) on(ctx context.Context, t *sql.Tx) (inserts, error) {
	in := s.inserts.Load()
	if in == nil {
		return s.prepareOn(ctx, t)
	}
	return inserts{t.StmtContext(ctx, in.execution), t.StmtContext(ctx, in.payload)}, nil
}

// append inserts rows on a transaction, which closes the statements when it ends.
func (s *Store) append(ctx context.Context, t *sql.Tx, rows []store.Execution) error {
	in, err := s.on(ctx, t)
	if err != nil {
		return err
	}
	for i := range rows {
		x := &rows[i]
		if _, err := in.execution.ExecContext(ctx, executionValues(x)...); err != nil {
			return err
		}
		if x.Payload == nil {
			continue
		}
		if _, err := in.payload.ExecContext(ctx, x.Project, x.ID, x.FunctionID, x.Payload); err != nil {
			return err
		}
	}
	return nil
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
		res, err := r.w.ExecContext(ctx, "UPDATE ? SET status = ?, errors = ?, updated_at = ?, ready_at = NULL WHERE project_id = ? AND id = ? AND function_id = ? AND ready_at IS NOT NULL",
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
