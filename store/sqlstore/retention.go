package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// NextFunctions implements store.Retention.
func (s *Store) NextFunctions(ctx context.Context, after int64, limit int) ([]store.FunctionStock, error) {
	var rows []struct {
		Seq         int64
		ProjectID   string
		ID          string
		Oldest      sql.NullInt64
		Deployments int
	}
	err := s.r.NewRaw(`SELECT f.seq, f.project_id, f.id,
  (SELECT x.created_at FROM ?1 x WHERE x.project_id = f.project_id AND x.function_id = f.id ORDER BY x.created_at, x.seq LIMIT 1) AS oldest,
  (SELECT count(*) FROM (SELECT 1 FROM ?2 d WHERE d.project_id = f.project_id AND d.function_id = f.id LIMIT ?3) AS counted) AS deployments
FROM ?0 f WHERE f.seq > ?4 ORDER BY f.seq LIMIT ?5`,
		s.table("functions"), s.table("executions"), s.table("deployments"), store.MaxStock, after, limit).Scan(ctx, &rows)
	if err != nil {
		return nil, failed("next functions", err)
	}
	page := make([]store.FunctionStock, len(rows))
	for i, r := range rows {
		page[i] = store.FunctionStock{Project: r.ProjectID, ID: r.ID, Seq: r.Seq, Oldest: moment(r.Oldest.Int64), Deployments: r.Deployments}
	}
	return page, nil
}

// DeleteExecutions implements store.Retention. The rows are found by the index
// of a function's executions by status; which of them go first is left to it:
// an order would sort all there are.
func (s *Store) DeleteExecutions(ctx context.Context, project, function string, before time.Time, limit int, statuses ...store.ExecutionStatus) (n int, err error) {
	of := convert(statuses, func(s *store.ExecutionStatus) any { return string(*s) })
	which := listing{queued: queuedStatuses}.byStatus(where(s.status()+" IN (?)", bun.List(of)), of)
	err = s.atomic(ctx, func(ctx context.Context, r records) error {
		var rows []execution
		args := append(append([]any{s.table("executions"), project, function}, which.args...), millis(before), millis(before), limit)
		err := r.w.NewRaw("SELECT seq, id FROM ? AS e WHERE project_id = ? AND function_id = ? AND "+which.sql+" AND created_at < ? AND updated_at < ? LIMIT ?"+s.dialect.due, args...).Scan(ctx, &rows)
		if n = len(rows); err != nil || n == 0 {
			return err
		}
		return r.deleteExecutions(ctx, project, rows)
	})
	if err != nil {
		return 0, failed("delete executions", err)
	}
	return n, nil
}

// finalDeployments are the statuses of deployments that never change.
var finalDeployments = bun.List([]store.DeploymentStatus{store.DeploymentReady, store.DeploymentFailed, store.DeploymentCanceled})

// OldDeployments implements store.Retention.
func (s *Store) OldDeployments(ctx context.Context, project, function string, keep, limit int) (ids []string, err error) {
	err = s.r.NewRaw(`SELECT d.id FROM ?0 d
WHERE d.project_id = ?1 AND d.function_id = ?2 AND d.status IN (?3)
AND d.seq < (SELECT k.seq FROM ?0 k WHERE k.project_id = ?1 AND k.function_id = ?2 AND k.status = ?4 ORDER BY k.seq DESC LIMIT 1 OFFSET ?5)
AND d.id <> (SELECT f.deployment FROM ?6 f WHERE f.project_id = ?1 AND f.id = ?2)
ORDER BY d.seq LIMIT ?7`,
		s.table("deployments"), project, function, finalDeployments, string(store.DeploymentReady), keep-1, s.table("functions"), limit).Scan(ctx, &ids)
	return ids, failed("old deployments", err)
}

// TrimRates implements store.Retention. A bucket that somebody takes a token from
// meanwhile is not full any more when its turn comes.
func (s *Store) TrimRates(ctx context.Context, at time.Time, limit int) (n int, err error) {
	err = s.statement(ctx, func() error {
		res, err := s.w.ExecContext(ctx, "DELETE FROM ?0 WHERE at <= ?1 AND (project_id, name) IN (SELECT project_id, name FROM ?0 WHERE at <= ?1 LIMIT ?2)",
			s.table("rates"), at.UnixMicro(), limit)
		if err != nil {
			return err
		}
		affected, err := res.RowsAffected()
		n = int(affected)
		return err
	})
	return n, failed("trim rates", err)
}

// TrimLogs implements store.Retention. Chunks are written in the order of their
// sequence, about: the first ones are the oldest, so no index of times is needed.
func (s *Store) TrimLogs(ctx context.Context, before time.Time, limit int) (n int, err error) {
	oldest := "SELECT o.seq FROM (SELECT seq, at FROM ?0 ORDER BY seq LIMIT ?1" + s.dialect.due + ") AS o WHERE o.at < ?2"
	err = s.statement(ctx, func() error {
		res, err := s.w.ExecContext(ctx, "DELETE FROM ?0 WHERE "+fmt.Sprintf(s.dialect.in, oldest), s.table("logs"), limit, millis(before))
		if err != nil {
			return err
		}
		affected, err := res.RowsAffected()
		n = int(affected)
		return err
	})
	return n, failed("trim logs", err)
}
