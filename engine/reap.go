package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fnkit/fnkit/store"
)

// sweepEvery is how often blobs are looked through, the first time at Start.
const sweepEvery = 24 * time.Hour

// orphanAge is how much older than the newest blob one must be that no record
// names: a younger one may be about to get its record. Blobs are compared with
// each other, not with the engine's clock: their times are of another.
const orphanAge = time.Hour

// reap stops the instances that an engine before this one left in the sandbox.
func (e *Engine) reap(ctx context.Context) error {
	left, err := e.cfg.Sandbox.List(ctx)
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	for _, in := range left {
		if err := e.cfg.Sandbox.Stop(ctx, in.ID); err != nil {
			return fmt.Errorf("stop instance %s: %w", in.ID, err)
		}
	}
	return nil
}

// housekeeping does what is due now and then, until ctx ends.
func (e *Engine) housekeeping(ctx context.Context) {
	for {
		timer := e.clock.Timer(e.keepHouse(ctx, e.clock.Now()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// keepHouse does what was done long enough ago, and returns how long it is then
// until something is due.
func (e *Engine) keepHouse(ctx context.Context, now time.Time) time.Duration {
	wait := sweepEvery
	for _, task := range []struct {
		last  *time.Time
		every time.Duration
		do    func(context.Context, time.Time)
	}{{&e.retained, e.cfg.Retention.Every, e.retain}, {&e.swept, sweepEvery, e.sweep}} {
		since := now.Sub(*task.last)
		if task.last.IsZero() || since >= task.every || since < 0 { // the clock may be set back
			*task.last = now
			task.do(ctx, now)
			since = e.clock.Since(now)
		}
		wait = min(wait, max(task.every-since, 0))
	}
	return wait
}

// sweep removes blobs that no record names, what was left when a process died
// between writing the two, or a blob could not be deleted; and uploads that
// nobody goes on with.
func (e *Engine) sweep(ctx context.Context, now time.Time) {
	newest, err := e.newestBlob(ctx)
	if err != nil && ctx.Err() == nil {
		e.cfg.Logger.Warn("list blobs", "error", err)
	}
	for _, kind := range []string{sourceBlobs, uploadBlobs, artefactBlobs} {
		var orphans []string
		stale := map[string]Deployment{}
		err := e.cfg.Blobs.List(ctx, kind+"/", func(b store.BlobInfo) bool {
			d, orphan, err := e.orphan(ctx, b, newest)
			switch {
			case err != nil && ctx.Err() == nil:
				e.cfg.Logger.Warn("look for the record of a blob", "key", b.Key, "error", err)
			case orphan:
				orphans = append(orphans, b.Key)
			case e.stale(d, now):
				stale[d.Project+"/"+d.ID] = d
			}
			return err == nil // a store that does not answer is asked another time
		})
		if err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("list blobs", "error", err)
		}
		e.deleteBlobs(ctx, orphans)
		for _, d := range stale {
			if err := e.expire(ctx, d, now); err != nil && ctx.Err() == nil {
				e.cfg.Logger.Warn("give an upload up", "deployment", d.ID, "error", err)
			}
		}
	}
}

// newestBlob returns when the newest blob was written.
func (e *Engine) newestBlob(ctx context.Context) (newest time.Time, err error) {
	err = e.cfg.Blobs.List(ctx, "", func(b store.BlobInfo) bool {
		if b.Modified.After(newest) {
			newest = b.Modified
		}
		return true
	})
	return newest, err
}

// orphan returns the deployment a blob belongs to, and whether no record names
// the blob.
func (e *Engine) orphan(ctx context.Context, b store.BlobInfo, newest time.Time) (d Deployment, orphan bool, err error) {
	part := strings.Split(strings.TrimSuffix(b.Key, ".tar.gz"), "/")
	if len(part) < 4 {
		return d, false, nil // not the engine's
	}
	old := newest.Sub(b.Modified) > orphanAge
	d, err = e.store.GetDeployment(ctx, part[1], part[2], part[3])
	switch {
	case errors.Is(err, store.ErrNotFound):
		return d, old, nil
	case err != nil:
		return d, false, err
	case part[0] == uploadBlobs:
		return d, old && d.Status != store.DeploymentUploading, nil
	}
	return d, old && b.Key != d.SourceBlob && b.Key != d.ArtefactBlob, nil
}

// stale reports whether an upload has stood still for too long.
func (e *Engine) stale(d Deployment, now time.Time) bool {
	return d.Status == store.DeploymentUploading && now.Sub(d.UpdatedAt) > e.cfg.Limits.UploadPause
}

// expire removes an upload, unless it went on meanwhile.
func (e *Engine) expire(ctx context.Context, d Deployment, now time.Time) error {
	gone := false
	err := e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		d, err = tx.GetDeployment(ctx, d.Project, d.FunctionID, d.ID)
		if gone = err == nil && e.stale(d, now); !gone {
			return err
		}
		return tx.DeleteDeployment(ctx, d.Project, d.FunctionID, d.ID)
	})
	if err != nil || !gone {
		return err
	}
	e.deleteUploads(ctx, d)
	e.cfg.Logger.Info("upload given up", "project", d.Project, "function", d.FunctionID, "deployment", d.ID)
	e.Project(d.Project).emit(ctx, System, "functions."+d.FunctionID+".deployments."+d.ID+".delete", nil)
	return nil
}
