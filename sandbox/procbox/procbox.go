// Package procbox runs functions as local processes: one long-lived process
// for each instance, which serves many calls over one inherited socket. It finds
// the interpreters of the machine itself and carries a harness for each
// language.
//
// On Linux instances and builds are shut in, as well as the machine allows:
// package confine says how. What was reached is in the Capabilities. Elsewhere, or
// if Config.Isolation is "none", they run as the user of the host process and see
// its files: only for code that is trusted. It needs a Unix system.
package procbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/confine"
)

// DefaultPath is where interpreters and compilers are looked for by default.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin"

// Config configures a Box. Only Dir is required.
type Config struct {
	// Dir is a directory for this Box alone: harnesses, temporary directories of
	// instances, and a record of what runs, so that what a host that died left
	// behind is removed by the next Box on it. It is made if it is missing.
	Dir string
	// Path is the list of directories where interpreters and compilers are
	// looked for, and the PATH of builds and functions. Default: DefaultPath.
	Path string
	// Languages limits what is looked for to these keys, such as "node". Default: all.
	Languages []string
	// Isolation is the best tier to use: "full", "userns", "restricted" or "none". What
	// this machine cannot reach is replaced by the next lower; the tier that is used is in
	// the Capabilities. Default: "full".
	Isolation string
	// Network is what functions can reach: "none" or "host", which is all that the host
	// can reach, its own loopback included. Without isolation it is always "host".
	// Default: "none".
	Network string
	// BuildNetwork is the same for builds. Default: "none".
	BuildNetwork string
	// BuildDisk is how many bytes a build may have on the disk at once, its code, home,
	// temporary files and what it adds to its package cache together. It is looked at about four times a second: what is written until then
	// is on top. Default: 4 GiB; negative: no limit.
	BuildDisk int64
	// ReadOnly are files and directories of the host, by absolute paths, that functions
	// and builds see beside the system's and their runtime's. With a user of their own they can
	// read what everybody may.
	ReadOnly []string
	// GoCache is the build cache of Go functions. Only the compiler can write to it, never what a
	// function brings; Boxes may share one. Default: in Dir.
	GoCache string
	// Cgroup is a directory of the cgroup file system, version 2, without processes of
	// its own, below which the Box may make groups to limit memory and CPUs. Default: the host's
	// own group, if it can be used so, or with the privilege the top.
	Cgroup string
	// Logger is told when instances start, end and crash. Default: none.
	Logger *slog.Logger
}

// Box is a sandbox.Driver. Its methods are safe for concurrent use.
type Box struct {
	cfg    Config
	log    *slog.Logger
	state  *state
	host   *confine.Host
	tools  func() []tool
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu        sync.Mutex
	instances map[string]*instance
	spares    spares
	closed    bool
	active    sync.WaitGroup // starts, builds, fills, and processes that are not reaped

	turns chan struct{} // one for each process that starts
}

var _ sandbox.Driver = (*Box)(nil)

// New opens the state directory, ends what a dead owner left in it, and returns
// a Box on it. A directory has one Box at a time. Close releases it.
func New(cfg Config) (*Box, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		return nil, errors.New("procbox: Config.Dir is required")
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("procbox: %w", err)
	}
	cfg.Dir = dir
	if cfg.GoCache == "" {
		cfg.GoCache = filepath.Join(dir, "cache", "go-build")
	}
	cfg.BuildDisk = cmp.Or(cfg.BuildDisk, defaultBuildDisk)
	if cfg.Path == "" {
		cfg.Path = DefaultPath
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	st, err := openState(dir)
	if err != nil {
		return nil, fmt.Errorf("procbox: open state directory: %w", err)
	}
	host, err := confine.Open(context.Background(), confine.Config{
		Dir: filepath.Join(dir, "confine"), Most: tiers[cfg.Isolation], Cgroup: cfg.Cgroup,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("procbox: isolation: %w", err), st.close())
	}
	b := &Box{cfg: cfg, log: cfg.Logger, state: st, host: host, instances: map[string]*instance{}, spares: newSpares(), turns: make(chan struct{}, turns)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.tools = sync.OnceValue(func() []tool { return slices.DeleteFunc(findTools(b.ctx, cfg), b.cannotRun) })
	return b, nil
}

// tiers are the values of Config.Isolation.
var tiers = map[string]sandbox.Isolation{
	"": sandbox.IsolationFull, "full": sandbox.IsolationFull, "userns": sandbox.IsolationUserNS,
	"restricted": sandbox.IsolationRestricted, "none": sandbox.IsolationNone,
}

// check finds what can never work.
func (c Config) check() error {
	var errs []error
	if _, ok := tiers[c.Isolation]; !ok {
		errs = append(errs, fmt.Errorf("procbox: Config.Isolation: %q is none of full, userns, restricted, none", c.Isolation))
	}
	for field, value := range map[string]string{"Network": c.Network, "BuildNetwork": c.BuildNetwork} {
		if !slices.Contains([]string{"", "none", "host"}, value) {
			errs = append(errs, fmt.Errorf("procbox: Config.%s: %q is neither none nor host", field, value))
		}
	}
	for _, path := range append(slices.Clone(c.ReadOnly), c.GoCache, c.Cgroup) {
		if path != "" && !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("procbox: Config: %q is not an absolute path", path))
		}
	}
	return errors.Join(errs...)
}

// Capabilities implements sandbox.Driver.
func (b *Box) Capabilities(context.Context) (sandbox.Capabilities, error) {
	c := sandbox.Capabilities{
		Driver: "procbox", Isolation: b.host.Isolation(), Limits: append(b.host.Limits(), "wall"), Notes: b.host.Notes(),
		Networks: b.networks(b.cfg.Network),
	}
	if !b.confines() {
		c.Notes = append(c.Notes, "isolation: instances are plain processes of the host's user; run only trusted code")
	}
	found := map[string]bool{}
	for _, t := range b.tools() {
		t.runtime.Spares = b.spared(t)
		c.Runtimes = append(c.Runtimes, t.runtime)
		found[t.lang.key] = true
	}
	for _, l := range languages {
		if b.cannotRun(tool{lang: &l}) && b.cfg.wants(l.key) {
			c.Notes = append(c.Notes, l.key+": not at this isolation, since it does not start without /proc")
		} else if !found[l.key] && b.cfg.wants(l.key) {
			c.Notes = append(c.Notes, l.key+": "+l.install)
		}
	}
	return c, nil
}

// Command is an interpreter or a compiler that a Box has found.
type Command struct {
	Runtime string // the id of its runtime
	Version string // as it says itself, such as "20.20.2"
	Path    string
}

// Commands lists what the runtimes of the Capabilities are run with, in their order.
// Runtimes that need none are left out.
func (b *Box) Commands() (all []Command) {
	for _, t := range b.tools() {
		if t.path != "" {
			all = append(all, Command{t.runtime.ID, t.version, t.path})
		}
	}
	return all
}

// cannotRun reports whether the isolation that was reached keeps a tool from starting.
func (b *Box) cannotRun(t tool) bool { return t.lang.proc && b.confines() && !b.host.Namespaces() }

// networks are the policies that the Box can enforce for what its configuration allows most.
func (b *Box) networks(most string) []sandbox.Network {
	switch {
	case !b.confines():
		return []sandbox.Network{sandbox.NetworkHost}
	case most == "host":
		return []sandbox.Network{sandbox.NetworkNone, sandbox.NetworkHost}
	}
	return []sandbox.Network{sandbox.NetworkNone}
}

// network returns the policy that is asked for, within what is allowed.
func (b *Box) network(asked sandbox.Network, most string) (sandbox.Network, error) {
	all := b.networks(most)
	if asked == sandbox.NetworkDefault {
		return all[len(all)-1], nil
	}
	if !slices.Contains(all, asked) {
		return "", fmt.Errorf("network %q: %w", asked, sandbox.ErrNetwork)
	}
	return asked, nil
}

func (c Config) wants(key string) bool {
	return len(c.Languages) == 0 || slices.Contains(c.Languages, key)
}

// List implements sandbox.Driver.
func (b *Box) List(context.Context) ([]sandbox.Instance, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []sandbox.Instance
	for _, i := range b.instances {
		if i.bound.Load() {
			all = append(all, i.info)
		}
	}
	return all, nil
}

// Stop implements sandbox.Driver.
func (b *Box) Stop(ctx context.Context, id string) error {
	i := b.find(id)
	if i == nil {
		return nil
	}
	b.end(i, "")
	select {
	case <-i.dead:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements sandbox.Driver.
func (b *Box) Close() error {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	all := slices.AppendSeq(slices.Collect(maps.Values(b.instances)), maps.Keys(b.spares.unbound))
	b.mu.Unlock()
	b.cancel()
	for _, i := range all {
		b.end(i, "")
	}
	b.active.Wait()
	if !first {
		return nil
	}
	return errors.Join(b.host.Close(), b.state.close())
}

// enter reserves the Box for a start or a build; leave ends that.
func (b *Box) enter() (leave func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	b.active.Add(1)
	return b.active.Done, nil
}

func (b *Box) find(id string) *instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.instances[id]
}

func (b *Box) tool(runtime string) (tool, error) {
	for _, t := range b.tools() {
		if t.runtime.ID == runtime {
			return t, nil
		}
	}
	return tool{}, fmt.Errorf("procbox: runtime %q: %w", runtime, sandbox.ErrRuntime)
}
