package sqlstore

import (
	"context"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// CreateVariable implements store.Variables.
func (r records) CreateVariable(ctx context.Context, v store.Variable) (int64, error) {
	row := newVariableRow(v)
	row.Seq = 0
	err := r.atomic(ctx, func(ctx context.Context, r records) error {
		_, err := r.w.NewInsert().Model(row).ModelTableExpr("?", r.s.table("variables")).Returning("seq").Exec(ctx)
		if err != nil {
			return failed("create variable", err)
		}
		return r.revise(ctx, v.Project, v.FunctionID)
	})
	return row.Seq, err
}

// GetVariable implements store.Variables.
func (r records) GetVariable(ctx context.Context, project, function, id string) (store.Variable, error) {
	var row variableRow
	err := r.r.NewSelect().Model(&row).ModelTableExpr("? AS v", r.s.table("variables")).
		Where("v.project_id = ? AND v.id = ? AND v.function_id = ?", project, id, function).Scan(ctx)
	if err != nil {
		return store.Variable{}, failed("get variable", err)
	}
	return row.record(), nil
}

// UpdateVariable implements store.Variables.
func (r records) UpdateVariable(ctx context.Context, v store.Variable) error {
	row := newVariableRow(v)
	return r.change(ctx, v.Project, v.FunctionID, "UPDATE ? SET key = ?, sealed = ?, updated_at = ? WHERE project_id = ? AND id = ? AND function_id = ?",
		r.s.table("variables"), row.Key, row.Sealed, row.UpdatedAt, v.Project, v.ID, v.FunctionID)
}

// DeleteVariable implements store.Variables.
func (r records) DeleteVariable(ctx context.Context, project, function, id string) error {
	return r.change(ctx, project, function, "DELETE FROM ? WHERE project_id = ? AND id = ? AND function_id = ?",
		r.s.table("variables"), project, id, function)
}

// change executes a statement that affects one variable, and revises its function.
func (r records) change(ctx context.Context, project, function, statement string, args ...any) error {
	return r.atomic(ctx, func(ctx context.Context, r records) error {
		res, err := r.w.ExecContext(ctx, statement, args...)
		if err != nil {
			return failed("change variable", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return failed("change variable", orNotFound(err))
		}
		return r.revise(ctx, project, function)
	})
}

// revise increments a function's revision.
func (r records) revise(ctx context.Context, project, function string) error {
	_, err := r.w.ExecContext(ctx, "UPDATE ? SET revision = revision + 1 WHERE project_id = ? AND id = ?", r.s.table("functions"), project, function)
	return failed("revise function", err)
}

// ListVariables implements store.Variables.
func (r records) ListVariables(ctx context.Context, project string, functions []string, max int) ([]store.Variable, error) {
	if len(functions) == 0 {
		return nil, nil
	}
	var rows []variableRow
	err := r.r.NewSelect().Model(&rows).ModelTableExpr("? AS v", r.s.table("variables")).
		Where("v.project_id = ? AND v.function_id IN (?)", project, bun.List(functions)).OrderExpr("v.seq").Limit(int64(max)).Scan(ctx)
	if err != nil {
		return nil, failed("list variables", err)
	}
	return convert(rows, (*variableRow).record), nil
}
