package sqlstore

import (
	"context"
	"slices"

	"github.com/fnkit/fnkit/store"
)

// Builds implements store.Store and store.Tx.
func (r records) Builds() store.Queue[store.Deployment] {
	return builds{queue{records: r, name: "deployments", of: "deployments"}}
}

// builds is the queue of deployments. Their table is the queue.
type builds struct{ queue }

// claimedBuild is a deployment that was claimed.
type claimedBuild struct {
	deploymentRow `bun:",extend"`
	Later         int64 `bun:",scanonly,nullzero"`
}

// Claim implements store.Queue.
func (q builds) Claim(ctx context.Context, p store.ClaimParams) ([]store.Claimed[store.Deployment], error) {
	rows, err := claim(ctx, q.queue, p, q.s.columns(new([]claimedBuild)), func(r *claimedBuild) int64 { return r.Later })
	if err != nil {
		return nil, failed("claim builds", err)
	}
	return convert(rows, func(r *claimedBuild) store.Claimed[store.Deployment] {
		d := r.record()
		return store.Claimed[store.Deployment]{Lease: store.Lease{Project: d.Project, ID: d.ID, Attempt: d.Attempt}, Row: d}
	}), nil
}

// buildColumns are what Settle writes of a deployment.
var buildColumns = []column{
	{"status", "text"}, {"build_id", "text"}, {"build_started", "bigint"}, {"build_ended", "bigint"}, {"build_logs", "text"}, {"build_size", "bigint"},
	{"artefact_blob", "text"}, {"updated_at", "bigint"}, {"ready_at", "bigint"}, {"due", "boolean"},
}

// Settle implements store.Queue.
func (q builds) Settle(ctx context.Context, rows []store.Settlement[store.Deployment]) ([]store.Lease, error) {
	changes := make([]change, len(rows))
	for i, s := range rows {
		d := newDeploymentRow(s.Row)
		changes[i] = change{s.Lease, []any{
			d.Status, d.BuildID, nullable(d.BuildStarted), nullable(d.BuildEnded), d.BuildLogs, d.BuildSize, d.ArtefactBlob, d.UpdatedAt, nullable(d.ReadyAt), d.Due,
		}}
	}
	lost, err := q.change(ctx, q.writing(buildColumns), changes)
	q.enqueued(err, slices.ContainsFunc(rows, func(s store.Settlement[store.Deployment]) bool { return claimable(s.Row.ReadyAt, s.Row.Status) }))
	return lost, failed("settle builds", err)
}
