package procbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnkit/fnkit/internal/frame"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/confine"
)

// instance is a process that runs a function.
type instance struct {
	info    sandbox.Instance
	lang    *language
	job     *job
	env     map[string]string // at its start
	memory  int64             // its limit
	conn    *frame.Conn
	web     *web // instead of conn, if the program serves HTTP itself
	scratch string
	output  tail
	dead    chan struct{} // closed when the process group is gone and nothing is left

	spareOf spareKey    // if it was started as a spare
	ready   bool        // the harness is; what comes next is user code
	bound   atomic.Bool // calls may come

	mu     sync.Mutex
	ending bool         // the Box ends it
	reaped bool         // its process is gone
	crash  string       // how it ended by itself; set before dead is closed
	told   confine.Hits // that calls were told of
	// refused: it was never run, since it could not be shut in.
	refused bool
}

// exitGrace is how long a process that closed its channel has to exit before it
// is killed, so that its exit status can be told.
const exitGrace = 500 * time.Millisecond

// Start implements sandbox.Driver.
func (b *Box) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	leave, err := b.enter()
	if err != nil {
		return sandbox.Instance{}, err
	}
	defer leave()
	t, err := b.tool(spec.Runtime)
	if err != nil {
		return sandbox.Instance{}, err
	}
	if t.lang.web {
		if why := checkExecutable(spec.Dir, spec.Entrypoint); why != "" {
			return sandbox.Instance{}, &sandbox.LoadError{Reason: why}
		}
	}
	if spec.Network, err = b.network(spec.Network, b.cfg.Network); err != nil {
		return sandbox.Instance{}, fmt.Errorf("procbox: start %s: %w", spec.Runtime, err)
	}
	ctx, cancel := b.within(ctx)
	defer cancel()
	defer b.refillSoon()
	began := time.Now()
	i, err := b.fromSpare(ctx, t, spec)
	spare := i != nil
	if !spare && err == nil {
		i, err = b.fresh(ctx, t, spec)
	}
	if none := (*fs.PathError)(nil); t.lang.web && errors.As(err, &none) && none.Op == "fork/exec" {
		err = &sandbox.LoadError{Reason: none.Err.Error()}
	}
	if i == nil {
		return sandbox.Instance{}, fmt.Errorf("procbox: start %s: %w", spec.Runtime, err)
	}
	if err == nil {
		err = b.bind(ctx, i, spec)
	}
	if err != nil {
		if i.conn == nil || i.conn.Err() == nil {
			b.end(i, "") // else it ends by itself, and then it is known how
		}
		<-i.dead
		switch {
		case i.crash != "" && !i.refused && (i.ready || t.lang.file == ""):
			err = &sandbox.LoadError{Reason: i.crash}
		case i.crash != "":
			err = fmt.Errorf("%w (%s)", err, i.crash)
		}
		return sandbox.Instance{}, fmt.Errorf("procbox: start %s: %w", spec.Runtime, err)
	}
	b.log.Debug("instance started", "instance", spec.ID, "function", spec.Function, "runtime", spec.Runtime, "spare", spare, "took", time.Since(began))
	return i.info, nil
}

// within ends ctx with the Box.
func (b *Box) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// fresh starts an instance without a spare, as soon as it is its turn.
func (b *Box) fresh(ctx context.Context, t tool, spec sandbox.Spec) (*instance, error) {
	done, err := b.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	i, err := b.launch(t, spec, nil)
	if err != nil {
		return nil, err
	}
	if err = i.greet(ctx); err == nil {
		b.note(func(s *spares) { s.failed[spareKey{t.runtime.ID, spec.Network}] = 0 })
	}
	return i, err
}

func info(t tool, spec sandbox.Spec) sandbox.Instance {
	i := sandbox.Instance{
		ID: spec.ID, Project: spec.Project, Function: spec.Function, Deployment: spec.Deployment, Concurrency: spec.Concurrency,
	}
	if i.Concurrency <= 0 {
		i.Concurrency = t.runtime.Concurrency
	}
	return i
}

// launch starts the process with its harness; spare: as a spare of that kind.
func (b *Box) launch(t tool, spec sandbox.Spec, spare *spareKey) (*instance, error) {
	scratch, err := b.state.scratch()
	if err != nil {
		return nil, err
	}
	i := &instance{
		lang: t.lang, scratch: scratch, dead: make(chan struct{}), memory: spec.Memory, env: b.baseEnv(t, scratch), info: info(t, spec),
	}
	if t.lang.file == "" {
		i.env = overlay(i.env, spec.Env)
	}
	if t.lang.web {
		i.env = overlay(i.env, inherited)
	}
	if spare != nil {
		i.spareOf = *spare
		spec.Dir, err = i.lateDir()
	}
	var p confine.Plan
	if err == nil {
		p, err = b.plan(t, spec, i)
	}
	if err == nil {
		err = b.run(i, p)
	}
	if err != nil {
		return nil, errors.Join(err, b.state.release(scratch))
	}
	return i, nil
}

// lateDir makes the directory in which a spare's code may come to lie.
func (i *instance) lateDir() (string, error) {
	dir := filepath.Join(i.scratch, "code")
	return dir, os.Mkdir(dir, 0o700)
}

// spare reports whether the instance was started as one.
func (i *instance) spare() bool { return i.spareOf.runtime != "" }

// plan says what an instance runs and sees.
func (b *Box) plan(t tool, spec sandbox.Spec, i *instance) (confine.Plan, error) {
	p := confine.Plan{
		Env: list(i.env), Dir: i.scratch, Mark: mark(i.scratch), Memory: spec.Memory, CPUs: spec.CPUs, Network: spec.Network == sandbox.NetworkHost,
		Binds: t.shown(),
	}
	if !i.spare() || !b.host.ShowsLate() {
		p.Binds = append(p.Binds, confine.Bind{Source: spec.Dir, Target: codeDir, Owned: true})
	}
	if b.confines() {
		p.Dir = i.env["HOME"]
	}
	if !b.host.Namespaces() {
		p.Temp = i.scratch
	}
	if t.lang.web {
		p.Dir = b.at(spec.Dir, codeDir)
		p.Args = []string{filepath.Join(p.Dir, filepath.FromSlash(spec.Entrypoint))}
		return p, nil
	}
	if t.lang.file == "" {
		p.Args = []string{program(b.at(spec.Dir, codeDir))}
		return p, nil
	}
	if t.lang.starts != nil {
		p.Env = list(overlay(i.env, t.lang.starts(b.at(spec.Dir, codeDir))))
	}
	if i.spare() {
		p.Late, p.Env = codeDir, append(p.Env, "FNKIT_REHEARSE=1")
	}
	if t.lang.reserves != nil {
		p.Reserved = t.lang.reserves(t.runtime.Version)
	}
	file, err := b.state.harness(t.lang.file)
	if err != nil {
		return p, err
	}
	inside := filepath.Join(harnessDir, t.lang.file)
	p.Binds = append(p.Binds, confine.Bind{Source: file, Target: inside, Owned: true})
	p.Args = append([]string{t.path}, t.lang.argv...)
	p.Args = append(p.Args, b.at(file, inside))
	return p, nil
}

// mark lets the next owner of the state directory find init by its environment.
func mark(scratch string) string { return "FNKIT_SCRATCH=" + scratch + "/" }

// baseEnv is what the runtime itself needs.
func (b *Box) baseEnv(t tool, scratch string) map[string]string {
	path := b.cfg.Path
	if t.path != "" {
		path = filepath.Dir(t.path) + string(os.PathListSeparator) + path
	}
	return map[string]string{
		"PATH": path, "LANG": "C.UTF-8",
		"HOME": b.at(filepath.Join(scratch, "home"), confine.Home), "TMPDIR": b.at(filepath.Join(scratch, "tmp"), "/tmp"),
	}
}

// overlay returns env with what more adds to it or overrides.
func overlay(env, more map[string]string) map[string]string {
	env = maps.Clone(env)
	maps.Copy(env, more)
	return env
}

func list(env map[string]string) []string {
	var all []string
	for k, v := range env {
		all = append(all, k+"="+v)
	}
	return all
}

// run starts the process and the goroutines that watch it.
func (b *Box) run(i *instance, p confine.Plan) error {
	cmd := &exec.Cmd{Stdout: &i.output, Stderr: &i.output, WaitDelay: exitGrace}
	host, child, err := i.open(cmd)
	if err != nil {
		return err
	}
	defer child.Close()
	p.Channel = child
	i.job, err = b.job(cmd, p)
	if err != nil {
		i.hangUp(host)
		return err
	}
	if err := b.admit(i); err != nil {
		i.hangUp(host)
		return errors.Join(err, i.job.close())
	}
	if err := i.launch(host); err != nil {
		i.hangUp(host)
		b.remove(i)
		close(i.dead)
		b.active.Done()
		return errors.Join(err, i.job.close())
	}
	err = b.state.use(i.scratch, i.job.cmd.Process.Pid)
	go b.watch(i)
	if i.conn != nil {
		go b.watchChannel(i)
	}
	if err != nil {
		b.end(i, "")
		<-i.dead
	}
	return err
}

// open makes the instance's channel: child is what the process inherits, host this
// side's end of it if calls are frames.
func (i *instance) open(cmd *exec.Cmd) (host, child *os.File, err error) {
	if !i.lang.web {
		return channel()
	}
	if i.web, child, err = newWeb(i.scratch, i.env, &i.output); err == nil {
		cmd.Stdout, cmd.Stderr = i.web.console.streams[0].program, i.web.console.streams[1].program
	}
	return nil, child, err
}

// hangUp closes the channel.
func (i *instance) hangUp(host *os.File) {
	switch {
	case i.web != nil:
		i.web.Close()
	case i.conn != nil:
		i.conn.Close()
	default:
		host.Close()
	}
}

// launch starts the process, unless the Box has ended it already.
func (i *instance) launch(host *os.File) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ending {
		return errClosed
	}
	if err := i.job.start(); err != nil {
		return err
	}
	if i.web != nil {
		i.web.console.inherit()
		return nil
	}
	i.conn = frame.New(host)
	return nil
}

// greet waits until the harness is ready.
func (i *instance) greet(ctx context.Context) error {
	if i.web != nil {
		return ctx.Err()
	}
	_, err := i.conn.Ready(ctx)
	i.ready = err == nil
	return err
}

// bind has the harness load the function's code.
func (b *Box) bind(ctx context.Context, i *instance, spec sandbox.Spec) error {
	if i.web != nil {
		i.bound.Store(true)
		return ctx.Err()
	}
	bound, err := i.conn.Bind(ctx, frame.Bind{
		Root: b.at(spec.Dir, codeDir), Entrypoint: spec.Entrypoint, Env: overlay(i.env, spec.Env), Workers: i.info.Concurrency,
	})
	if err != nil {
		return err
	}
	if bound.Error != "" {
		b.log.Debug("code cannot be loaded", "instance", spec.ID, "function", spec.Function, "error", bound.Error)
	}
	i.bound.Store(true)
	return nil
}
