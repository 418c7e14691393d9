package engine

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/store"
)

// GetDeployment returns a deployment; its BuildLogs hold what a running build
// has printed so far. Errors: function_not_found, deployment_not_found.
func (p *Project) GetDeployment(ctx context.Context, by Actor, function, id string) (Deployment, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return Deployment{}, err
	}
	d, err := p.deployment(ctx, function, id)
	if err != nil {
		return Deployment{}, err
	}
	return d, p.liveLogs(ctx, &d)
}

// ListDeployments returns the deployments of a function that match q.
func (p *Project) ListDeployments(ctx context.Context, by Actor, function string, q Query) (List[Deployment], error) {
	var none List[Deployment]
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return none, err
	}
	if _, err := p.e.store.GetFunction(ctx, p.id, function); err != nil {
		return none, fail(err, TypeFunction)
	}
	items, err := p.e.store.ListDeployments(ctx, p.id, function, q)
	if err != nil {
		return none, failList(err, "Deployment", q)
	}
	for i := range items {
		if err := p.liveLogs(ctx, &items[i]); err != nil {
			return none, err
		}
	}
	total, err := p.e.store.CountDeployments(ctx, p.id, function, q, MaxTotal)
	return List[Deployment]{total, items}, fail(err, "")
}

// ActivateDeployment makes a deployment the one that executions use; the next
// call uses it. Errors: function_not_found, deployment_not_found,
// build_not_found, build_not_ready.
func (p *Project) ActivateDeployment(ctx context.Context, by Actor, function, id string) (Function, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return Function{}, err
	}
	var fn Function
	err := p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		d, err := deploymentOf(ctx, tx, p.id, function, id)
		if err != nil {
			return err
		}
		if err := ready(d); err != nil {
			return err
		}
		fn, err = tx.UpdateFunction(ctx, p.id, function, func(f *Function) error {
			activate(f, id, p.e.now())
			return nil
		})
		return err
	})
	if err != nil {
		return Function{}, fail(err, TypeFunction)
	}
	p.e.forget(p.id, function)
	p.emit(ctx, by, "functions."+function+".deployments."+id+".update", fn)
	return fn, nil
}

// DeleteDeployment removes a deployment with its archives, and ends its build.
// If it is the active one, the function has none afterwards.
// Errors: function_not_found, deployment_not_found.
func (p *Project) DeleteDeployment(ctx context.Context, by Actor, function, id string) error {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return err
	}
	var d Deployment
	var active bool
	err := p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		if d, err = deploymentOf(ctx, tx, p.id, function, id); err != nil {
			return err
		}
		if err := tx.DeleteDeployment(ctx, p.id, function, id); err != nil {
			return err
		}
		fn, err := tx.GetFunction(ctx, p.id, function)
		if active = fn.Deployment == id; err != nil || !active {
			return err
		}
		_, err = tx.UpdateFunction(ctx, p.id, function, func(f *Function) error {
			activate(f, "", p.e.now())
			return nil
		})
		return err
	})
	if err != nil {
		return fail(err, TypeDeployment)
	}
	if active {
		p.e.forget(p.id, function)
	}
	p.e.builds.cancelIf(func(b Deployment) bool { return b.Project == p.id && b.ID == id })
	p.removed(ctx, by, d)
	return nil
}

// removed deletes the blobs of a deployment whose record is gone, and tells the world.
func (p *Project) removed(ctx context.Context, by Actor, d Deployment) {
	p.e.deleteBlobs(ctx, []string{d.SourceBlob})
	p.e.dropArtefact(ctx, &d)
	p.e.deleteUploads(ctx, d)
	p.emit(ctx, by, "functions."+d.FunctionID+".deployments."+d.ID+".delete", nil)
}

// Rebuild makes a new deployment from the source of an existing one, with the
// function's present entrypoint and commands, and queues its build.
// Errors: function_not_found, deployment_not_found (also if its source is missing).
func (p *Project) Rebuild(ctx context.Context, by Actor, function, id string) (Deployment, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return Deployment{}, err
	}
	fn, err := p.e.store.GetFunction(ctx, p.id, function)
	if err != nil {
		return Deployment{}, fail(err, TypeFunction)
	}
	old, err := p.deployment(ctx, function, id)
	if err != nil {
		return Deployment{}, err
	}
	if old.SourceBlob == "" {
		return Deployment{}, Errorf(TypeDeployment, "")
	}
	source, _, err := p.e.cfg.Blobs.Open(ctx, old.SourceBlob)
	if err != nil {
		return Deployment{}, fail(err, TypeDeployment)
	}
	defer source.Close()
	d := p.newDeployment(fn, DeployParams{Activate: old.Activate, Type: old.Type})
	d.Entrypoint = cmp.Or(d.Entrypoint, old.Entrypoint) // the function may have none
	if d.Size, err = p.e.cfg.Blobs.Put(ctx, d.SourceBlob, source); err != nil {
		return Deployment{}, fail(err, "")
	}
	if d, err = p.queueBuild(ctx, d); err != nil {
		return Deployment{}, err
	}
	p.emit(ctx, by, "functions."+function+".deployments."+d.ID+".update", nil)
	return d, nil
}

// CancelBuild ends a deployment's build, or keeps it from beginning. A
// canceled build never becomes ready. Repeating it is allowed.
// Errors: function_not_found, deployment_not_found, build_already_completed.
func (p *Project) CancelBuild(ctx context.Context, by Actor, function, id string) (Deployment, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return Deployment{}, err
	}
	if _, err := p.deployment(ctx, function, id); err != nil {
		return Deployment{}, err
	}
	now := p.e.now()
	d, err := p.e.store.UpdateDeployment(ctx, p.id, function, id, func(d *Deployment) error {
		switch d.Status {
		case store.DeploymentReady, store.DeploymentFailed:
			return Errorf(TypeBuildCompleted, "")
		case store.DeploymentCanceled:
			return nil
		}
		d.Status, d.ReadyAt, d.UpdatedAt, d.BuildEnded = store.DeploymentCanceled, time.Time{}, now, now
		d.BuildID = cmp.Or(d.BuildID, ids.New(now))
		if d.BuildStarted.IsZero() {
			d.BuildStarted = now
		}
		return nil
	})
	if err != nil {
		return Deployment{}, fail(err, TypeDeployment)
	}
	p.e.builds.cancelIf(func(b Deployment) bool { return b.Project == p.id && b.ID == id })
	p.e.deleteUploads(ctx, d)
	p.emit(ctx, by, "functions."+function+".deployments."+id+".update", d)
	return d, p.liveLogs(ctx, &d)
}

// OpenSource opens the source archive of a deployment; the caller closes it.
// Errors: function_not_found, deployment_not_found.
func (p *Project) OpenSource(ctx context.Context, by Actor, function, id string) (Source, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return Source{}, err
	}
	d, err := p.deployment(ctx, function, id)
	if err != nil {
		return Source{}, err
	}
	if d.SourceBlob == "" {
		return Source{}, Errorf(TypeDeployment, "")
	}
	r, size, err := p.e.cfg.Blobs.Open(ctx, d.SourceBlob)
	if err != nil {
		return Source{}, fail(err, TypeDeployment)
	}
	return Source{r, size, d.CreatedAt}, nil
}

// deployment returns a deployment of a function, or the error that says which
// of the two does not exist.
func (p *Project) deployment(ctx context.Context, function, id string) (Deployment, error) {
	return deploymentOf(ctx, p.e.store, p.id, function, id)
}

func deploymentOf(ctx context.Context, r store.Records, project, function, id string) (Deployment, error) {
	if _, err := r.GetFunction(ctx, project, function); err != nil {
		return Deployment{}, fail(err, TypeFunction)
	}
	d, err := r.GetDeployment(ctx, project, function, id)
	return d, fail(err, TypeDeployment)
}

// ready says why a deployment cannot be used for executions.
func ready(d Deployment) error {
	switch {
	case d.BuildID == "":
		return Errorf(TypeBuild, "")
	case d.Status != store.DeploymentReady:
		return Errorf(TypeBuildNotReady, "")
	}
	return nil
}

// liveLogs completes a deployment whose build is running with its log so far.
func (p *Project) liveLogs(ctx context.Context, d *Deployment) error {
	if d.Status != store.DeploymentBuilding && d.Status != store.DeploymentCanceled || d.BuildLogs != "" {
		return nil
	}
	chunks, err := p.e.store.ReadLogs(ctx, buildLog(*d), 0, maxLogChunks)
	if err != nil {
		return fail(err, "")
	}
	var b strings.Builder
	for _, c := range chunks {
		b.Write(c.Data)
	}
	d.BuildLogs = cleanText([]byte(b.String()))
	return nil
}

func buildLog(d Deployment) store.LogRef {
	return store.LogRef{Project: d.Project, Kind: store.BuildLog, ID: d.ID}
}

// failList turns an error of a list into one of the contract.
func failList(err error, what string, q Query) error {
	switch {
	case errors.Is(err, store.ErrCursor):
		return Errorf(TypeCursor, "%s '%s' for the 'cursor' value not found.", what, cmp.Or(q.After, q.Before))
	case errors.Is(err, store.ErrCursorNull):
		return Errorf(TypeCursorNull, "")
	case errors.Is(err, store.ErrQuery):
		return Errorf(TypeQuery, "%s", strings.TrimPrefix(err.Error(), store.ErrQuery.Error()+": "))
	}
	return fail(err, "")
}
