package sqlstore

import (
	"context"
	"slices"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// deleteBatch is how many rows one transaction deletes where a function or a
// project may have millions: others write in between.
const deleteBatch = 1000

// DeleteFunction implements store.Functions. Outside a transaction its
// executions go first, in batches: if that is cut off, the function is still
// there to be deleted again.
func (r records) DeleteFunction(ctx context.Context, project, id string) (blobs []string, err error) {
	if _, err := r.FunctionRevision(ctx, project, id); err != nil {
		return nil, failed("delete function", err)
	}
	if r.in == nil {
		if err := r.drain(ctx, project, "function_id = ?", id); err != nil {
			return nil, failed("delete executions", err)
		}
	}
	err = r.atomic(ctx, func(ctx context.Context, r records) (err error) {
		blobs, err = r.deleteFunction(ctx, project, id)
		return err
	})
	return blobs, failed("delete function", err)
}

// drain deletes the executions of a project that meet a condition, batch by batch.
func (r records) drain(ctx context.Context, project, which string, args ...any) error {
	for n := deleteBatch; n == deleteBatch; {
		err := r.atomic(ctx, func(ctx context.Context, r records) error {
			var ids []string
			err := r.r.NewSelect().TableExpr("?", r.s.table("executions")).Column("id").Where("project_id = ?", project).Where(which, args...).Limit(deleteBatch).Scan(ctx, &ids)
			if n = len(ids); err != nil || n == 0 {
				return err
			}
			return r.deleteExecutions(ctx, project, ids)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteExecutions removes executions with all they have.
func (r records) deleteExecutions(ctx context.Context, project string, ids []string) error {
	for _, table := range []string{"runs", "payloads"} {
		_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE seq IN (SELECT seq FROM ? WHERE project_id = ? AND id IN (?))", r.s.table(table), r.s.table("executions"), project, bun.List(ids))
		if err != nil {
			return err
		}
	}
	_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND kind = ? AND id IN (?)", r.s.table("logs"), project, string(store.ExecutionLog), bun.List(ids))
	if err != nil {
		return err
	}
	_, err = r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND id IN (?)", r.s.table("executions"), project, bun.List(ids))
	return err
}

// deleteFunction removes the rows of a function from every table, and returns
// the keys of the blobs that its deployments held.
func (r records) deleteFunction(ctx context.Context, project, id string) (blobs []string, err error) {
	for _, l := range []struct {
		kind  store.LogKind
		table string
	}{{store.BuildLog, "deployments"}, {store.ExecutionLog, "executions"}} {
		_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND kind = ? AND id IN (SELECT id FROM ? WHERE project_id = ? AND function_id = ?)",
			r.s.table("logs"), project, string(l.kind), r.s.table(l.table), project, id)
		if err != nil {
			return nil, failed("delete logs", err)
		}
	}
	// Names of its lanes' rates and of these keys begin with the function and "/", which "0" follows.
	if _, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND (name = ? OR name >= ? AND name < ?)", r.s.table("rates"), project, id, id+"/", id+"0"); err != nil {
		return nil, failed("delete rates", err)
	}
	if _, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND kind = ? AND name >= ? AND name < ?",
		r.s.table("keys"), project, string(store.ExecutionKey), id+"/", id+"0"); err != nil {
		return nil, failed("delete keys", err)
	}
	for _, table := range []string{"runs", "payloads"} {
		_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE seq IN (SELECT seq FROM ? WHERE project_id = ? AND function_id = ?)", r.s.table(table), r.s.table("executions"), project, id)
		if err != nil {
			return nil, failed("delete "+table, err)
		}
	}
	for _, table := range []string{"executions", "variables"} {
		if _, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND function_id = ?", r.s.table(table), project, id); err != nil {
			return nil, failed("delete "+table, err)
		}
	}
	var held []struct{ SourceBlob, ArtefactBlob string }
	err = r.w.NewRaw("DELETE FROM ? WHERE project_id = ? AND function_id = ? RETURNING source_blob, artefact_blob", r.s.table("deployments"), project, id).Scan(ctx, &held)
	if err != nil {
		return nil, failed("delete deployments", err)
	}
	for _, h := range held {
		blobs = append(blobs, h.SourceBlob, h.ArtefactBlob)
	}
	res, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND id = ?", r.s.table("functions"), project, id)
	if err != nil {
		return nil, failed("delete function", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return nil, orNotFound(err)
	}
	return slices.DeleteFunc(blobs, func(key string) bool { return key == "" }), nil
}

// DeleteProject implements store.Store, in batches. Functions go first, so
// that nothing new starts for long.
func (s *Store) DeleteProject(ctx context.Context, project string) error {
	// By sequence alone where there is one: with the project beside it, the
	// planner would look at all rows of the project for each batch.
	const bySeq = "DELETE FROM ?0 WHERE seq IN (SELECT seq FROM ?0 WHERE project_id = ?1 LIMIT ?2)"
	const byName = "DELETE FROM ?0 WHERE project_id = ?1 AND name IN (SELECT name FROM ?0 WHERE project_id = ?1 LIMIT ?2)"
	for _, t := range []struct{ table, statement string }{
		{"functions", bySeq}, {"deployments", bySeq}, {"variables", bySeq}, {"logs", bySeq}, {"keys", bySeq}, {"rates", byName},
	} {
		if err := s.inBatches(ctx, t.statement, s.table(t.table), project, deleteBatch); err != nil {
			return failed("delete project", err)
		}
	}
	return failed("delete project", s.drain(ctx, project, "TRUE"))
}

// inBatches executes a statement until it affects less than a batch.
func (s *Store) inBatches(ctx context.Context, statement string, args ...any) error {
	for {
		res, err := s.db.ExecContext(ctx, statement, args...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n < deleteBatch {
			return err
		}
	}
}
