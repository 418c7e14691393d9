package sqlstore

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// CreateFunction implements store.Functions.
func (r records) CreateFunction(ctx context.Context, f store.Function) (int64, error) {
	row := newFunctionRow(f)
	row.Seq = 0
	err := r.refusable(ctx, func() error {
		_, err := r.w.NewInsert().Model(row).ModelTableExpr("?", r.s.table("functions")).Returning("seq").Exec(ctx)
		return err
	})
	return row.Seq, failed("create function", err)
}

// GetFunction implements store.Functions.
func (r records) GetFunction(ctx context.Context, project, id string) (store.Function, error) {
	return r.getFunction(ctx, project, id, "")
}

// getFunction reads a function, and locks it as the dialect does.
func (r records) getFunction(ctx context.Context, project, id, lock string) (store.Function, error) {
	var row functionRow
	sel := r.r.NewSelect().Model(&row).ModelTableExpr("? AS f", r.s.table("functions")).Where("f.project_id = ? AND f.id = ?", project, id)
	if lock != "" {
		sel.For(lock)
	}
	if err := sel.Scan(ctx); err != nil {
		return store.Function{}, failed("get function", err)
	}
	return row.record(), nil
}

// FunctionRevision implements store.Functions.
func (r records) FunctionRevision(ctx context.Context, project, id string) (revision int64, err error) {
	var found []int64
	text := fmt.Sprintf(`SELECT revision FROM "%sfunctions" WHERE project_id = ?1 AND id = ?2`, r.s.prefix)
	if err = r.look(ctx, &found, r.s.dialect.numbered(text), project, id); err == nil && len(found) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return 0, failed("read revision", err)
	}
	return found[0], nil
}

// Listeners implements store.Functions. Triggers keep what functions listen to in a
// table of their own, project and event as one topic: a planner that takes all of a
// project for few would read that. Functions are found by their keys one by one, and
// then taken by their sequence, whatever it thinks of a join.
func (r records) Listeners(ctx context.Context, project string, names []string) ([]store.Function, error) {
	if len(names) == 0 {
		return nil, nil
	}
	topics := make([]string, len(names))
	for i, name := range names {
		topics[i] = project + "/" + name
	}
	found := fmt.Sprintf(r.s.dialect.in, "SELECT (SELECT g.seq FROM ?0 AS g WHERE g.project_id = l.project_id AND g.id = l.function_id) FROM ?1 AS l WHERE l.topic IN (?2)")
	var rows []functionRow
	err := r.r.NewSelect().Model(&rows).ModelTableExpr("? AS f", r.s.table("functions")).
		Where(found, r.s.table("functions"), r.s.table("listens"), bun.List(topics)).
		Where("f.enabled AND f.deployment <> ''").OrderExpr("f.seq").Scan(ctx)
	if err != nil {
		return nil, failed("find listeners", err)
	}
	return convert(rows, (*functionRow).record), nil
}

// UpdateFunction implements store.Functions.
func (r records) UpdateFunction(ctx context.Context, project, id string, change func(*store.Function) error) (store.Function, error) {
	var f store.Function
	err := r.atomic(ctx, func(ctx context.Context, r records) (err error) {
		if f, err = r.getFunction(ctx, project, id, r.s.dialect.lock); err != nil {
			return err
		}
		seq, revision := f.Seq, f.Revision
		if err := change(&f); err != nil {
			return err
		}
		f.Project, f.ID, f.Seq, f.Revision = project, id, seq, revision+1
		_, err = r.w.NewUpdate().Model(newFunctionRow(f)).ModelTableExpr("? AS f", r.s.table("functions")).WherePK().Exec(ctx)
		return failed("update function", err)
	})
	if err != nil {
		return store.Function{}, err
	}
	return f, nil
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
