package sqlstore

import (
	"context"

	"github.com/fnkit/fnkit/store"
)

// CreateDeployment implements store.Deployments.
func (r records) CreateDeployment(ctx context.Context, d store.Deployment) (int64, error) {
	row := newDeploymentRow(d)
	row.Seq = 0
	err := r.refusable(ctx, func() error {
		_, err := r.w.NewInsert().Model(row).ModelTableExpr("?", r.s.table("deployments")).Returning("seq").Exec(ctx)
		return err
	})
	r.enqueued(err, claimable(d.ReadyAt, d.Status))
	return row.Seq, failed("create deployment", err)
}

// GetDeployment implements store.Deployments.
func (r records) GetDeployment(ctx context.Context, project, function, id string) (store.Deployment, error) {
	return r.getDeployment(ctx, project, function, id, "")
}

// getDeployment reads a deployment, and locks it as the dialect does.
func (r records) getDeployment(ctx context.Context, project, function, id, lock string) (store.Deployment, error) {
	var row deploymentRow
	sel := r.r.NewSelect().Model(&row).ModelTableExpr("? AS d", r.s.table("deployments")).
		Where("d.project_id = ? AND d.id = ? AND d.function_id = ?", project, id, function)
	if lock != "" {
		sel.For(lock)
	}
	if err := sel.Scan(ctx); err != nil {
		return store.Deployment{}, failed("get deployment", err)
	}
	return row.record(), nil
}

// UpdateDeployment implements store.Deployments.
func (r records) UpdateDeployment(ctx context.Context, project, function, id string, change func(*store.Deployment) error) (store.Deployment, error) {
	var d store.Deployment
	err := r.atomic(ctx, func(ctx context.Context, r records) (err error) {
		if d, err = r.getDeployment(ctx, project, function, id, r.s.dialect.lock); err != nil {
			return err
		}
		seq, attempt := d.Seq, d.Attempt
		if err := change(&d); err != nil {
			return err
		}
		d.Project, d.FunctionID, d.ID, d.Seq, d.Attempt = project, function, id, seq, attempt
		_, err = r.w.NewUpdate().Model(newDeploymentRow(d)).ModelTableExpr("? AS d", r.s.table("deployments")).WherePK().Exec(ctx)
		r.enqueued(err, claimable(d.ReadyAt, d.Status))
		return failed("update deployment", err)
	})
	if err != nil {
		return store.Deployment{}, err
	}
	return d, nil
}

// DeleteDeployment implements store.Deployments.
func (r records) DeleteDeployment(ctx context.Context, project, function, id string) error {
	return r.atomic(ctx, func(ctx context.Context, r records) error {
		res, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND id = ? AND function_id = ?", r.s.table("deployments"), project, id, function)
		if err != nil {
			return failed("delete deployment", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return failed("delete deployment", orNotFound(err))
		}
		return r.deleteLogs(ctx, store.LogRef{Project: project, Kind: store.BuildLog, ID: id})
	})
}

// ClearActivate implements store.Deployments.
func (r records) ClearActivate(ctx context.Context, project, function, except string) error {
	_, err := r.w.ExecContext(ctx, "UPDATE ? SET activate = ? WHERE project_id = ? AND function_id = ? AND id <> ? AND activate = ?",
		r.s.table("deployments"), false, project, function, except, true)
	return failed("clear activate", err)
}

// ListDeployments implements store.Deployments.
func (r records) ListDeployments(ctx context.Context, project, function string, q store.Query) ([]store.Deployment, error) {
	var rows []deploymentRow
	if err := r.list(ctx, deploymentList(project, function), q, &rows); err != nil {
		return nil, failed("list deployments", err)
	}
	return convert(rows, (*deploymentRow).record), nil
}

// CountDeployments implements store.Deployments.
func (r records) CountDeployments(ctx context.Context, project, function string, q store.Query, max int) (int, error) {
	n, err := r.count(ctx, deploymentList(project, function), q, max)
	return n, failed("count deployments", err)
}

// orNotFound is err, or ErrNotFound when a statement found no row.
func orNotFound(err error) error {
	if err != nil {
		return err
	}
	return store.ErrNotFound
}
