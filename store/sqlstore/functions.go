package sqlstore

import (
	"context"

	"github.com/fnkit/fnkit/store"
)

// CreateFunction implements store.Functions.
func (r records) CreateFunction(ctx context.Context, f store.Function) (int64, error) {
	row := newFunctionRow(f)
	row.Seq = 0
	_, err := r.w.NewInsert().Model(row).ModelTableExpr("?", r.s.table("functions")).Returning("seq").Exec(ctx)
	return row.Seq, failed("create function", err)
}

// GetFunction implements store.Functions.
func (r records) GetFunction(ctx context.Context, project, id string) (store.Function, error) {
	var row functionRow
	err := r.r.NewSelect().Model(&row).ModelTableExpr("? AS f", r.s.table("functions")).
		Where("f.project_id = ? AND f.id = ?", project, id).Scan(ctx)
	if err != nil {
		return store.Function{}, failed("get function", err)
	}
	return row.record(), nil
}

// FunctionRevision implements store.Functions.
func (r records) FunctionRevision(ctx context.Context, project, id string) (revision int64, err error) {
	err = r.r.NewRaw("SELECT revision FROM ? WHERE project_id = ? AND id = ?", r.s.table("functions"), project, id).Scan(ctx, &revision)
	return revision, failed("read revision", err)
}

// UpdateFunction implements store.Functions.
func (r records) UpdateFunction(ctx context.Context, project, id string, change func(*store.Function) error) (store.Function, error) {
	var f store.Function
	var refused error
	err := r.atomic(ctx, func(ctx context.Context, r records) (err error) {
		if f, err = r.GetFunction(ctx, project, id); err != nil {
			return err
		}
		seq, revision := f.Seq, f.Revision
		if refused = change(&f); refused != nil {
			return refused
		}
		f.Project, f.ID, f.Seq, f.Revision = project, id, seq, revision+1
		_, err = r.w.NewUpdate().Model(newFunctionRow(f)).ModelTableExpr("? AS f", r.s.table("functions")).WherePK().Exec(ctx)
		return failed("update function", err)
	})
	if refused != nil {
		return store.Function{}, refused
	}
	return f, err
}

// DeleteFunction implements store.Functions.
func (r records) DeleteFunction(ctx context.Context, project, id string) (blobs []string, err error) {
	err = r.atomic(ctx, func(ctx context.Context, r records) error {
		if _, err := r.GetFunction(ctx, project, id); err != nil {
			return err
		}
		var rows []deploymentRow
		err := r.r.NewSelect().Model(&rows).ModelTableExpr("? AS d", r.s.table("deployments")).
			Column("id", "source_blob", "artefact_blob", "project_id").
			Where("d.project_id = ? AND d.function_id = ?", project, id).Scan(ctx)
		if err != nil {
			return failed("list blobs", err)
		}
		blobs = nil
		for _, d := range rows {
			for _, key := range []string{d.SourceBlob, d.ArtefactBlob} {
				if key != "" {
					blobs = append(blobs, key)
				}
			}
		}
		return r.deleteFunction(ctx, project, id)
	})
	return blobs, err
}

// deleteFunction removes the rows of a function from every table.
func (r records) deleteFunction(ctx context.Context, project, id string) error {
	for _, kind := range []struct {
		kind  store.LogKind
		table string
	}{{store.BuildLog, "deployments"}, {store.ExecutionLog, "executions"}} {
		_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND kind = ? AND id IN (SELECT id FROM ? WHERE project_id = ? AND function_id = ?)",
			r.s.table("logs"), project, kind.kind, r.s.table(kind.table), project, id)
		if err != nil {
			return failed("delete logs", err)
		}
	}
	for _, table := range []string{"payloads", "executions", "deployments", "variables"} {
		if _, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND function_id = ?", r.s.table(table), project, id); err != nil {
			return failed("delete "+table, err)
		}
	}
	_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND id = ?", r.s.table("functions"), project, id)
	return failed("delete function", err)
}

// ListFunctions implements store.Functions.
func (r records) ListFunctions(ctx context.Context, project string, q store.Query) ([]store.Function, error) {
	var rows []functionRow
	if err := r.list(ctx, functionList(project), q, &rows); err != nil {
		return nil, failed("list functions", err)
	}
	return convert(rows, (*functionRow).record), nil
}

// CountFunctions implements store.Functions.
func (r records) CountFunctions(ctx context.Context, project string, q store.Query, max int) (int, error) {
	n, err := r.count(ctx, functionList(project), q, max)
	return n, failed("count functions", err)
}

func convert[R, T any](rows []R, record func(*R) T) []T {
	out := make([]T, len(rows))
	for i := range rows {
		out[i] = record(&rows[i])
	}
	return out
}
