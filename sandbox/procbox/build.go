package procbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/confine"
	"github.com/fnkit/fnkit/sandbox/procbox/harness"
)

// buildGrace is how long output is still read after a build command has ended, from
// what it left running.
const buildGrace = 500 * time.Millisecond

// Build implements sandbox.Driver. Commands run as "sh -c" in spec.Dir; their
// home and temporary directories are private and removed afterwards. What
// package managers keep in spec.Cache a compiler that downloads modules itself does not
// see, and the other way round: it trusts what it has.
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
	if spec.Network, err = b.network(spec.Network, b.cfg.BuildNetwork); err != nil {
		return sandbox.BuildResult{}, fmt.Errorf("procbox: build %s: %w", spec.ID, err)
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
	root := b.at(spec.Dir, codeDir)
	env := b.baseEnv(t, scratch)
	if t.lang.env != nil {
		env = overlay(env, t.lang.env(root))
	}
	w := workshop{b, t, spec, b.diskFor(spec), scratch, scratch, overlay(env, spec.Env), logs, nil}
	if spec.Commands != "" {
		failure, err = w.command(ctx, root, env)
	}
	switch {
	case failure != "" || err != nil:
		return failure, err
	case t.lang.build != nil:
		return w.compile(ctx, root)
	case t.lang.caches != nil:
		return "", w.cache(ctx, root)
	}
	return "", nil
}

// diskFor is how much a build may have on the disk: what its cache had before is on top,
// or it could fail for what other builds have left there.
func (b *Box) diskFor(spec sandbox.BuildSpec) int64 {
	if b.cfg.BuildDisk < 0 || spec.Cache == "" {
		return b.cfg.BuildDisk
	}
	return b.cfg.BuildDisk + usage(b.cfg.BuildDisk, []string{spec.Cache})
}

// command runs the function's own commands, with its cache if it has one.
func (w workshop) command(ctx context.Context, root string, env map[string]string) (failure string, err error) {
	packages, binds, err := w.lend("packages", packagesDir)
	if err != nil {
		return "", err
	}
	w.binds, w.env = binds, overlay(overlay(env, packageCaches(packages)), w.spec.Env)
	return w.run(ctx, harness.Command{Dir: root, Args: []string{"sh", "-c", w.spec.Commands}})
}

// lend has a part of the function's cache shown, and returns where; empty: it has none.
func (w workshop) lend(part, inside string) (at string, binds []confine.Bind, err error) {
	if w.spec.Cache == "" {
		return "", nil, nil
	}
	dir := filepath.Join(w.spec.Cache, part)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", nil, err
	}
	// A build without isolation may have left a link here, which a later one must not follow.
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return "", nil, errors.Join(err, fmt.Errorf("package cache: %s is not a directory", part))
	}
	return w.box.at(dir, inside), []confine.Bind{{Source: dir, Target: inside, Writable: true, Owned: true}}, nil
}

// packageCaches has package managers keep in dir what they download. Most look for
// XDG_CACHE_HOME, the others have a variable of their own.
func packageCaches(dir string) map[string]string {
	if dir == "" {
		return nil
	}
	return map[string]string{
		"XDG_CACHE_HOME": dir, "npm_config_cache": filepath.Join(dir, "npm"), "PNPM_HOME": filepath.Join(dir, "pnpm"),
		"YARN_GLOBAL_FOLDER": filepath.Join(dir, "yarn-berry"), "BUN_INSTALL_CACHE_DIR": filepath.Join(dir, "bun"),
		"COMPOSER_CACHE_DIR": filepath.Join(dir, "composer"), "BUNDLE_USER_CACHE": filepath.Join(dir, "bundle"), "BUNDLE_GLOBAL_GEM_CACHE": "true",
		"GOMODCACHE": filepath.Join(dir, "go"),
	}
}

// cache makes what loading the code takes less time with.
func (w workshop) cache(ctx context.Context, root string) error {
	began := time.Now()
	w.logs = io.Discard
	failure, err := w.run(ctx, harness.Command{Dir: root, Args: w.tool.lang.caches(w.tool.path, root)})
	w.box.log.Debug("caches made", "build", w.spec.ID, "failure", failure, "took", time.Since(began))
	return err
}

// compile runs a language's own build step. What the function's owner says in
// variables reaches it only where it cannot make the compiler run something.
func (w workshop) compile(ctx context.Context, root string) (failure string, err error) {
	work, temp := filepath.Join(w.scratch, "work"), filepath.Join(w.scratch, "compile")
	if err := errors.Join(os.Mkdir(work, 0o700), os.Mkdir(temp, 0o700), furnish(temp)); err != nil {
		return "", err
	}
	w.temp = temp // the function's commands may have left anything in the other
	w.env = w.box.baseEnv(w.tool, temp)
	b := harness.Build{
		Dir: w.spec.Dir, Root: root, Entrypoint: w.spec.Entrypoint, Scratch: work, Work: w.box.at(work, workDir), Tool: w.tool.path,
		Settings: map[string]string{},
	}
	for _, name := range w.tool.lang.settings {
		if value, ok := w.spec.Env[name]; ok {
			b.Settings[name] = value
		}
	}
	if w.box.confines() || len(b.Settings) > 0 { // else what the host's user has comes from the same place
		if b.Modules, w.binds, err = w.lend("modules", modulesDir); err != nil {
			return "", err
		}
	}
	if b.Modules == "" && len(b.Settings) > 0 {
		b.Modules = filepath.Join(w.box.at(work, workDir), "modules")
	}
	w.binds = append(w.binds, confine.Bind{Source: work, Target: workDir, Writable: true, Owned: true})
	if w.box.confines() {
		if err := os.MkdirAll(w.box.cfg.GoCache, 0o700); err != nil {
			return "", err
		}
		if w.spec.Network == sandbox.NetworkHost || len(b.Settings) > 0 { // perhaps a proxy in the function's own files
			b.Fetch = w.run
		}
		b.Cache, w.spec.Network = w.box.at(w.box.cfg.GoCache, cacheDir), sandbox.NetworkNone
		w.binds = append(slices.Clip(w.binds), confine.Bind{Source: w.box.cfg.GoCache, Target: cacheDir, Writable: true, Owned: true})
	}
	b.Run = w.run
	return w.tool.lang.build(ctx, b)
}

// workshop runs the commands of one build.
type workshop struct {
	box     *Box
	tool    tool
	spec    sandbox.BuildSpec
	disk    int64 // bytes that code, scratch and cache may have; negative: no limit
	scratch string
	temp    string // has the home and the temporary files
	env     map[string]string
	logs    io.Writer
	binds   []confine.Bind // beside the code
}

// run runs one command. When it or ctx ends, all that it started is killed.
func (w workshop) run(ctx context.Context, c harness.Command) (failure string, err error) {
	p, err := w.plan(c)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, p.Args[0])
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = w.logs, w.logs, buildGrace
	j, err := w.box.job(cmd, p)
	if err != nil {
		return "", err
	}
	cmd.Cancel = func() error { j.kill(); return nil }
	if err := j.start(); err != nil {
		return "", errors.Join(err, j.close())
	}
	err = w.box.state.use(w.scratch, cmd.Process.Pid)
	if err != nil {
		j.kill()
	}
	dirs := []string{w.spec.Dir, w.scratch}
	if w.spec.Cache != "" {
		dirs = append(dirs, w.spec.Cache)
	}
	tooMuch := watchDisk(j, w.disk, dirs...)
	werr := j.wait()
	full := tooMuch()
	why, over := j.failure(), j.hits().Memory > 0
	err = errors.Join(err, j.close())
	var exit *exec.ExitError
	switch {
	case err != nil:
		return "", err
	case ctx.Err() != nil:
		return "", ctx.Err()
	case why != "":
		return "", errors.New("it could not be shut in: " + why)
	case full:
		return overDisk(w.box.cfg.BuildDisk), nil
	case over && werr != nil:
		return overMemory(w.spec.Memory), nil
	case errors.As(werr, &exit):
		return exit.Error(), nil
	case errors.Is(werr, exec.ErrWaitDelay):
		return "", nil // what it left running held its output open
	}
	return "", werr
}

// plan says what a command runs and sees.
func (w workshop) plan(c harness.Command) (confine.Plan, error) {
	env := maps.Clone(w.env)
	for _, kv := range c.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	path, err := lookPath(c.Args[0], env["PATH"])
	if err != nil {
		return confine.Plan{}, err
	}
	if c.Args[0] == "sh" && w.box.confines() {
		path = "/bin/sh"
	}
	return confine.Plan{
		Args: append([]string{path}, c.Args[1:]...), Env: list(env), Dir: c.Dir, Temp: w.temp, Mark: mark(w.scratch),
		Binds:   append(append(w.tool.shown(), confine.Bind{Source: w.spec.Dir, Target: codeDir, Writable: true, Owned: true}), w.binds...),
		Network: w.spec.Network == sandbox.NetworkHost, Build: true, Memory: w.spec.Memory, CPUs: w.spec.CPUs,
	}, nil
}
