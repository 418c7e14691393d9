// Package procbox runs functions as local processes: one long-lived process
// for each instance, which serves many calls over one inherited socket. It finds
// the interpreters of the machine itself and carries a harness for each
// language.
//
// It does not shut instances in: they run as the user of the host process and
// see its files. Use it for code that is trusted. It needs a Unix system.
package procbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fnkit/fnkit/sandbox"
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
	// Logger is told when instances start, end and crash. Default: none.
	Logger *slog.Logger
}

// Box is a sandbox.Driver. Its methods are safe for concurrent use.
type Box struct {
	cfg    Config
	log    *slog.Logger
	state  *state
	tools  func() []tool
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu        sync.Mutex
	instances map[string]*instance
	closed    bool
	active    sync.WaitGroup // starts, builds, and processes that are not reaped
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
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("procbox: %w", err)
	}
	cfg.Dir = dir
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
	b := &Box{cfg: cfg, log: cfg.Logger, state: st, instances: map[string]*instance{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.tools = sync.OnceValue(func() []tool { return findTools(b.ctx, cfg) })
	return b, nil
}

// Capabilities implements sandbox.Driver.
func (b *Box) Capabilities(context.Context) (sandbox.Capabilities, error) {
	c := sandbox.Capabilities{
		Driver: "procbox", Isolation: sandbox.IsolationNone, Limits: []string{"wall"},
		Notes: []string{"isolation: instances are plain processes of the host's user; run only trusted code"},
	}
	found := map[string]bool{}
	for _, t := range b.tools() {
		c.Runtimes = append(c.Runtimes, t.runtime)
		found[t.lang.key] = true
	}
	for _, l := range languages {
		if !found[l.key] && b.cfg.wants(l.key) {
			c.Notes = append(c.Notes, l.key+": "+l.install)
		}
	}
	return c, nil
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
	all := slices.Collect(maps.Values(b.instances))
	b.mu.Unlock()
	b.cancel()
	for _, i := range all {
		b.end(i, "")
	}
	b.active.Wait()
	if !first {
		return nil
	}
	return b.state.close()
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
