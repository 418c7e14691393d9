package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fnkit/fnkit/internal/archive"
	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/store"
)

// minBuildMemory is what a build gets at least, in MB.
const minBuildMemory = 1024

// buildFailure is why a deployment could not be built, for its log.
type buildFailure string

func (b buildFailure) Error() string { return string(b) }

// runBuild builds the deployment of a claimed row: unpack the source, run the
// build in the sandbox, pack what it left, activate.
func (e *Engine) runBuild(ctx context.Context, c store.Claimed[Deployment]) {
	d := c.Row
	d.BuildStarted, d.BuildEnded, d.BuildID = e.now(), time.Time{}, ids.New(e.clock.Now())
	d.BuildLogs, d.BuildSize, d.ArtefactBlob = "", 0, ""
	if err := e.store.DeleteLogs(ctx, buildLog(d)); err != nil {
		e.cfg.Logger.Error("clear build log", "deployment", d.ID, "error", err)
	}
	if !e.progress(ctx, c.Lease, &d, store.DeploymentProcessing) {
		return
	}
	log := newBuildOutput(e, d)
	err := e.buildInTime(ctx, c.Lease, &d, log)
	d.BuildLogs = log.finish()
	e.finishBuild(ctx, c.Lease, d, err)
}

// buildInTime ends a build that takes too long, whatever it is at.
func (e *Engine) buildInTime(ctx context.Context, l store.Lease, d *Deployment, log io.Writer) error {
	ctx, cancel := e.within(ctx, e.cfg.Limits.BuildTimeout, errBuildTimeout)
	defer cancel()
	if l.Attempt > maxBuildClaims {
		return buildFailure(fmt.Sprintf("The build was begun %d times, and each time the server ended before it did.", maxBuildClaims))
	}
	err := e.build(ctx, l, d, log)
	if err != nil && context.Cause(ctx) == errBuildTimeout {
		return buildFailure(fmt.Sprintf("The build took longer than %s.", e.cfg.Limits.BuildTimeout))
	}
	return err
}

// maxBuildClaims is how often a build is begun at most. One that takes the
// engine down with it must not do so for ever.
const maxBuildClaims = 10

// progress writes a build's new status under its lease; false: the lease is lost
// or the store does not answer, and the work must end.
func (e *Engine) progress(ctx context.Context, l store.Lease, d *Deployment, s DeploymentStatus) bool {
	d.Status, d.UpdatedAt, d.ReadyAt = s, e.now(), e.leaseEnd(e.now())
	lost, err := e.store.Builds().Settle(ctx, []store.Settlement[Deployment]{{Lease: l, Row: *d}})
	if err != nil {
		e.cfg.Logger.Error("write build status", "deployment", d.ID, "error", err)
	}
	return err == nil && len(lost) == 0
}

// build does the work. What is the code's fault is a buildFailure.
func (e *Engine) build(ctx context.Context, l store.Lease, d *Deployment, log io.Writer) error {
	fn, err := e.store.GetFunction(ctx, d.Project, d.FunctionID)
	if errors.Is(err, store.ErrNotFound) {
		return buildFailure("The function was deleted.")
	}
	if err != nil {
		return fmt.Errorf("function: %w", err)
	}
	k := &known{fn: fn, dep: *d, spec: specification(fn.Specification)}
	if k.rt, k.has, err = e.runtime(ctx, fn.Runtime); err != nil {
		return err
	}
	if !k.has {
		return buildFailure(fmt.Sprintf("Runtime %q is not available on this server.", fn.Runtime))
	}
	work, err := e.artefacts.workDir()
	if err != nil {
		return err
	}
	defer e.artefacts.remove(work)
	code := filepath.Join(work, "code")
	if err := e.unpackSource(ctx, *d, code); err != nil {
		return err
	}
	if !e.progress(ctx, l, d, store.DeploymentBuilding) {
		return errLeaseLost
	}
	e.Project(d.Project).emit(ctx, System, "functions."+d.FunctionID+".deployments."+d.ID+".update", *d)
	function := packagesOf(fn)
	cache, err := e.packages.lend(function, filepath.Join(work, "packages"))
	if err != nil {
		return fmt.Errorf("package cache: %w", err)
	}
	if err := e.runCommands(ctx, k, code, cache, log); err != nil {
		return err
	}
	e.packages.giveBack(ctx, function, cache)
	return e.packArtefact(ctx, d, code, work)
}

var errBuildTimeout = errors.New("engine: the build took too long")

// unpackSource unpacks the source archive into a new directory.
func (e *Engine) unpackSource(ctx context.Context, d Deployment, dir string) error {
	source, _, err := e.cfg.Blobs.Open(ctx, d.SourceBlob)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer source.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	stats, err := archive.Unpack(ctx, source, dir, e.sourceLimits())
	switch {
	case archive.IsInvalid(err):
		return buildFailure("The source archive cannot be used: " + err.Error())
	case err != nil:
		return fmt.Errorf("unpack source: %w", err)
	case stats.Files == 0:
		return buildFailure("Error: No source code found. Ensure your source isn't empty.")
	}
	return nil
}

// runCommands runs the build in the sandbox.
func (e *Engine) runCommands(ctx context.Context, k *known, dir, cache string, log io.Writer) error {
	var err error
	if k.shared, err = e.projectVariables(ctx, k.fn.Project); err != nil {
		return err
	}
	env, err := e.environment(ctx, k)
	if err != nil {
		return err
	}
	if env["APPWRITE_FUNCTION_API_KEY"], err = e.secrets.mint(k.fn, 1, e.cfg.Limits.BuildTimeout); err != nil {
		return err
	}
	memory := max(k.spec.Memory, minBuildMemory)
	env["APPWRITE_FUNCTION_MEMORY"] = itoa(int64(memory))
	res, err := e.cfg.Sandbox.Build(ctx, sandbox.BuildSpec{
		ID: k.dep.BuildID, Runtime: k.fn.Runtime, Dir: dir, Entrypoint: k.dep.Entrypoint, Commands: k.dep.Commands,
		Env: env, CPUs: k.spec.CPUs, Memory: int64(memory) << 20, Cache: cache,
	}, log)
	switch {
	case err != nil:
		return fmt.Errorf("sandbox: %w", err)
	case res.Failure != "":
		return buildFailure("Build failed: " + res.Failure)
	}
	return nil
}

// packArtefact stores what the build left, and unpacks it here, where the first
// call will need it. The blob is of this attempt alone: a worker that lost its
// lease cannot change what another one made.
func (e *Engine) packArtefact(ctx context.Context, d *Deployment, dir, work string) error {
	packed, err := os.Create(filepath.Join(work, "artefact.tar.gz"))
	if err != nil {
		return err
	}
	defer packed.Close()
	limit := e.cfg.Limits.ArtefactSize
	_, err = archive.Pack(ctx, dir, packed, e.artefactLimits())
	if archive.IsInvalid(err) {
		return buildFailure("The build's result cannot be used: " + err.Error())
	}
	if err != nil {
		return fmt.Errorf("pack artefact: %w", err)
	}
	e.artefacts.remove(dir)
	size, err := packed.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if size > limit {
		return buildFailure(fmt.Sprintf("Build size should be less than %.2f MBs.", float64(limit)/1_000_000))
	}
	d.ArtefactBlob, d.BuildSize = artefactBlob(*d), size
	for _, keep := range []func() error{
		func() error { _, err := e.cfg.Blobs.Put(ctx, d.ArtefactBlob, packed); return err },
		func() error { return e.artefacts.add(ctx, artefactOf(*d), packed) },
	} {
		if _, err := packed.Seek(0, io.SeekStart); err != nil {
			return err
		}
		err := keep()
		if archive.IsInvalid(err) {
			return buildFailure("The build's result cannot be used: " + err.Error())
		}
		if err != nil {
			return fmt.Errorf("store artefact: %w", err)
		}
	}
	return nil
}

// keepLogs puts what a canceled build has printed into its deployment, or
// removes it if that was deleted.
func (e *Engine) keepLogs(ctx context.Context, d Deployment) {
	ctx = context.WithoutCancel(ctx)
	_, err := e.store.UpdateDeployment(ctx, d.Project, d.FunctionID, d.ID, func(current *Deployment) error {
		if current.Status == store.DeploymentCanceled && current.BuildID == d.BuildID && current.BuildLogs == "" {
			current.BuildLogs = d.BuildLogs
			return nil
		}
		return errUnchanged
	})
	if errors.Is(err, store.ErrNotFound) {
		err = e.store.DeleteLogs(ctx, buildLog(d))
	}
	if err != nil && !errors.Is(err, errUnchanged) {
		e.cfg.Logger.Warn("keep build log", "deployment", d.ID, "error", err)
	}
}

// errUnchanged ends an update that would change nothing.
var errUnchanged = errors.New("engine: unchanged")

// dropArtefact removes what a build has stored that did not become ready.
func (e *Engine) dropArtefact(ctx context.Context, d *Deployment) {
	if d.ArtefactBlob == "" {
		return
	}
	e.deleteBlobs(ctx, []string{d.ArtefactBlob})
	k := artefactOf(*d)
	e.artefacts.forget(func(other artefactKey) bool { return other == k })
	d.ArtefactBlob, d.BuildSize = "", 0
}

// finishBuild writes how a build ended. A build that was cut off because the
// engine stops goes back to the queue; one whose lease is lost is left to
// whoever has it.
func (e *Engine) finishBuild(ctx context.Context, l store.Lease, d Deployment, err error) {
	now := e.now()
	var failure buildFailure
	d.UpdatedAt, d.BuildEnded, d.ReadyAt = now, now, time.Time{}
	lost := errors.Is(err, errLeaseLost) || errors.Is(context.Cause(ctx), errLeaseLost)
	switch {
	case lost:
		e.dropArtefact(ctx, &d)
		e.keepLogs(ctx, d)
		return
	case err != nil && ctx.Err() != nil:
		d.Status, d.ReadyAt, d.BuildEnded = store.DeploymentWaiting, now, time.Time{}
	case errors.As(err, &failure):
		d.Status, d.BuildLogs = store.DeploymentFailed, joinLines(d.BuildLogs, string(failure))
	case err != nil && e.builds.failed(l) < maxBuildTries:
		e.cfg.Logger.Error("build", "deployment", d.ID, "error", err)
		d.Status, d.ReadyAt, d.BuildEnded = store.DeploymentWaiting, now.Add(retryDelay), time.Time{}
	case err != nil:
		d.Status = store.DeploymentFailed
		d.BuildLogs = joinLines(d.BuildLogs, "The build failed with an internal error ("+e.logged("build", err)+").")
	default:
		d.Status = store.DeploymentReady
	}
	if err != nil {
		e.dropArtefact(ctx, &d)
	}
	defer e.changing(d.Project, d.FunctionID)() // who sees that it is ready has it called
	var activated bool
	err = e.persist(ctx, func(ctx context.Context) (err error) {
		activated, err = e.settleBuild(ctx, l, d)
		return err
	})
	if errors.Is(err, errLeaseLost) && e.written(ctx, d) {
		activated, err = true, nil // perhaps
	}
	if errors.Is(err, errLeaseLost) {
		e.dropArtefact(ctx, &d)
		e.keepLogs(ctx, d)
		return
	}
	if err != nil { // it may be written or not: the artefact stays until it is known, see sweep
		e.cfg.Logger.Error("write build result", "deployment", d.ID, "error", err)
		return
	}
	ctx = context.WithoutCancel(ctx)
	if !d.Status.Final() {
		return
	}
	e.builds.forget(l)
	e.observe.built(ctx, d)
	e.cfg.Logger.Info("build "+string(d.Status), "project", d.Project, "function", d.FunctionID, "deployment", d.ID, "active", activated)
	if activated {
		e.unlearn(functionKey{d.Project, d.FunctionID})
	}
	current := ""
	if d.Status == store.DeploymentReady {
		current = e.expect(ctx, d)
	}
	if activated {
		e.retireInstances(functionKey{d.Project, d.FunctionID}, current)
	}
	e.Project(d.Project).emit(ctx, System, "functions."+d.FunctionID+".deployments."+d.ID+".update", d)
}

// written reports whether the result of a build is in its row: a store may say that
// it is unavailable when it has committed.
func (e *Engine) written(ctx context.Context, d Deployment) bool {
	current, err := e.store.GetDeployment(context.WithoutCancel(ctx), d.Project, d.FunctionID, d.ID)
	return err == nil && current.BuildID == d.BuildID && current.Status == d.Status
}

// maxBuildTries is how often a build is tried that fails through no fault of
// the code, retryDelay how long after.
const (
	maxBuildTries = 3
	retryDelay    = time.Second
)

// settleBuild writes the result and, in the same transaction, makes the
// deployment the active one if it asked for that and no newer one is active:
// builds that end out of order never go back.
func (e *Engine) settleBuild(ctx context.Context, l store.Lease, d Deployment) (activated bool, err error) {
	err = e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		activated = false
		lost, err := tx.Builds().Settle(ctx, []store.Settlement[Deployment]{{Lease: l, Row: d}})
		if err != nil {
			return err
		}
		if len(lost) > 0 {
			return errLeaseLost
		}
		current, err := tx.GetDeployment(ctx, d.Project, d.FunctionID, d.ID)
		if err != nil || d.Status != store.DeploymentReady || !current.Activate {
			return err
		}
		fn, err := tx.GetFunction(ctx, d.Project, d.FunctionID)
		if err != nil {
			return err
		}
		if active, err := tx.GetDeployment(ctx, d.Project, d.FunctionID, fn.Deployment); err == nil && active.Seq > current.Seq {
			return nil
		}
		activated = true
		_, err = tx.UpdateFunction(ctx, d.Project, d.FunctionID, func(f *Function) error {
			f.Live = true
			activate(f, d.ID, d.UpdatedAt)
			return nil
		})
		return err
	})
	return activated, err
}

func joinLines(log, line string) string {
	if log != "" && log[len(log)-1] != '\n' {
		log += "\n"
	}
	return log + line + "\n"
}

// maxLogChunks is how many chunks of a live log are read at once.
const maxLogChunks = 10_000

// buildOutput takes what a build prints: it keeps the end for the record, and
// lets it be followed. It never holds the build up.
type buildOutput struct {
	live *liveLog

	mu   sync.Mutex
	tail tail
}

func newBuildOutput(e *Engine, d Deployment) *buildOutput {
	b := &buildOutput{live: newLiveLog(e, buildLog(d), e.cfg.Limits.LogSize), tail: tail{max: e.cfg.Limits.LogSize, name: "Logs"}}
	b.live.show()
	return b
}

// Write implements io.Writer; it never fails.
func (b *buildOutput) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tail.add(p)
	b.live.add("stdout", p)
	return len(p), nil
}

// finish waits for the store and returns the whole log.
func (b *buildOutput) finish() string {
	b.live.end()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tail.text()
}
