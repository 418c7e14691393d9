package procbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/harness"
)

// buildGrace is how long output is still read after a build command has ended, from
// what it left running.
const buildGrace = 500 * time.Millisecond

// Build implements sandbox.Driver. Commands run as "sh -c" in spec.Dir; their
// home and temporary directories are private and removed afterwards.
func (b *Box) Build(ctx context.Context, spec sandbox.BuildSpec, logs io.Writer) (sandbox.BuildResult, error) {
	leave, err := b.enter()
	if err != nil {
		return sandbox.BuildResult{}, err
	}
	defer leave()
	t, err := b.tool(spec.Runtime)
	if err != nil {
		return sandbox.BuildResult{}, err
	}
	failure, err := b.build(ctx, t, spec, logs)
	if ctx.Err() != nil {
		return sandbox.BuildResult{}, ctx.Err()
	}
	if err != nil {
		return sandbox.BuildResult{}, fmt.Errorf("procbox: build %s: %w", spec.ID, err)
	}
	return sandbox.BuildResult{Failure: failure}, nil
}

func (b *Box) build(ctx context.Context, t tool, spec sandbox.BuildSpec, logs io.Writer) (failure string, err error) {
	ctx, cancel := b.within(ctx)
	defer cancel()
	scratch, err := b.state.scratch()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.state.release(scratch)) }()
	env := b.baseEnv(t, scratch)
	if t.lang.env != nil {
		env = overlay(env, t.lang.env(spec.Dir))
	}
	w := workshop{b, scratch, overlay(env, spec.Env), logs}
	if spec.Commands != "" {
		failure, err = w.run(ctx, harness.Command{Dir: spec.Dir, Args: []string{"sh", "-c", spec.Commands}})
	}
	if failure != "" || err != nil || t.lang.build == nil {
		return failure, err
	}
	work, err := os.MkdirTemp(scratch, "work-")
	if err != nil {
		return "", err
	}
	return t.lang.build(ctx, harness.Build{
		Dir: spec.Dir, Entrypoint: spec.Entrypoint, Scratch: work, Tool: t.path, Run: w.run,
	})
}

// workshop runs the commands of one build.
type workshop struct {
	box     *Box
	scratch string
	env     map[string]string
	logs    io.Writer
}

// run runs one command in a process group of its own, which is killed when the
// command or ctx ends.
func (w workshop) run(ctx context.Context, c harness.Command) (failure string, err error) {
	path, err := lookPath(c.Args[0], w.env["PATH"])
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, c.Args[1:]...)
	cmd.Dir, cmd.Env = c.Dir, append(list(w.env), c.Env...)
	cmd.Stdout, cmd.Stderr = w.logs, w.logs
	cmd.SysProcAttr, cmd.WaitDelay, cmd.ExtraFiles = ownGroup(), buildGrace, onlyThird(nil)
	cmd.Cancel = func() error { killGroup(cmd.Process.Pid); return nil }
	if err := cmd.Start(); err != nil {
		return "", err
	}
	err = w.box.state.use(w.scratch, cmd.Process.Pid)
	if err != nil {
		killGroup(cmd.Process.Pid)
	}
	werr := cmd.Wait()
	killGroup(cmd.Process.Pid)
	var exit *exec.ExitError
	switch {
	case err != nil:
		return "", err
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.As(werr, &exit):
		return exit.Error(), nil
	case errors.Is(werr, exec.ErrWaitDelay):
		return "", nil // what it left running held its output open
	}
	return "", werr
}
