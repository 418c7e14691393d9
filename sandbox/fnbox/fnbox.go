package fnbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// RuntimeID is the id of the only runtime.
const RuntimeID = "func-1"

const (
	// callGrace is how long a cancelled call may take to return.
	callGrace = 50 * time.Millisecond
	// stopGrace is how long Stop and Close wait for functions to return.
	stopGrace = time.Second
)

// Func is a function. It answers by a method of c, last call wins, and returns
// nil, or it returns an error, which is logged and answered with 500. ctx ends
// when the call must. Neither c nor what it gives may be used after it returned.
type Func func(ctx context.Context, c *Context) error

// Funcs are functions by name.
type Funcs map[string]Func

// Box is the driver. It is safe for concurrent use.
type Box struct {
	funcs Funcs

	mu        sync.Mutex
	closed    bool
	instances map[string]*instance
}

var _ sandbox.Driver = (*Box)(nil)

// New returns a driver for funcs, which it copies.
func New(funcs Funcs) *Box {
	return &Box{funcs: maps.Clone(funcs), instances: map[string]*instance{}}
}

type instance struct {
	sandbox.Instance
	name string
	fn   Func // nil: there is none of that name
	env  map[string]string

	ctx   context.Context // of all its calls; ends with the instance
	end   context.CancelFunc
	mu    sync.Mutex // guards ended and running.Add against Wait
	ended bool
	// running are the functions that run, those whose call is over included.
	running sync.WaitGroup
}

// Capabilities says that there is no isolation, and one runtime.
func (b *Box) Capabilities(context.Context) (sandbox.Capabilities, error) {
	return sandbox.Capabilities{
		Driver: "fnbox", Isolation: sandbox.IsolationNone, Networks: []sandbox.Network{sandbox.NetworkHost}, Runtimes: []sandbox.Runtime{funcRuntime()},
	}, nil
}

func funcRuntime() sandbox.Runtime {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x86"
	}
	return sandbox.Runtime{
		ID: RuntimeID, Key: "func", Name: "Go function", Version: "1", Logo: "go.png",
		Supports: []string{arch}, Concurrency: 100, NativeLogs: sandbox.PerInstance,
	}
}

// Build does nothing: the code is built already.
func (b *Box) Build(ctx context.Context, spec sandbox.BuildSpec, _ io.Writer) (sandbox.BuildResult, error) {
	if spec.Runtime != RuntimeID {
		return sandbox.BuildResult{}, unknownRuntime(spec.Runtime)
	}
	if err := checkNetwork(spec.Network); err != nil {
		return sandbox.BuildResult{}, err
	}
	return sandbox.BuildResult{}, ctx.Err()
}

// Warm does nothing: a start costs nothing.
func (b *Box) Warm(_ context.Context, runtime string, _ int) error {
	if runtime != RuntimeID {
		return unknownRuntime(runtime)
	}
	return nil
}

// Start makes an instance of the function named by spec.Entrypoint.
func (b *Box) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if spec.Runtime != RuntimeID {
		return sandbox.Instance{}, unknownRuntime(spec.Runtime)
	}
	if err := checkNetwork(spec.Network); err != nil {
		return sandbox.Instance{}, err
	}
	if err := ctx.Err(); err != nil {
		return sandbox.Instance{}, err
	}
	in := &instance{
		Instance: sandbox.Instance{
			ID: spec.ID, Project: spec.Project, Function: spec.Function, Deployment: spec.Deployment,
			Concurrency: spec.Concurrency,
		},
		name: spec.Entrypoint, fn: b.funcs[spec.Entrypoint], env: maps.Clone(spec.Env),
	}
	if in.Concurrency <= 0 {
		in.Concurrency = funcRuntime().Concurrency
	}
	in.ctx, in.end = context.WithCancel(context.Background())
	return in.Instance, b.add(in)
}

func (b *Box) add(in *instance) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		in.end()
		return errors.New("fnbox: closed")
	}
	if b.instances[in.ID] != nil {
		in.end()
		return fmt.Errorf("fnbox: instance %q exists already", in.ID)
	}
	b.instances[in.ID] = in
	return nil
}

func (b *Box) find(id string) *instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.instances[id]
}

// Stop cancels the instance's calls, and waits a second at most for their
// functions to return. It is an error if they did not.
func (b *Box) Stop(ctx context.Context, id string) error {
	b.mu.Lock()
	in := b.instances[id]
	delete(b.instances, id)
	b.mu.Unlock()
	if in == nil {
		return nil
	}
	return in.stop(ctx)
}

// List returns the instances in the order of their ids.
func (b *Box) List(context.Context) ([]sandbox.Instance, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]sandbox.Instance, 0, len(b.instances))
	for _, id := range slices.Sorted(maps.Keys(b.instances)) {
		list = append(list, b.instances[id].Instance)
	}
	return list, nil
}

// Close stops every instance as Stop does.
func (b *Box) Close() error {
	b.mu.Lock()
	b.closed = true
	all := b.instances
	b.instances = map[string]*instance{}
	b.mu.Unlock()
	for _, in := range all {
		in.cancel()
	}
	var errs []error
	for _, in := range all {
		errs = append(errs, in.stop(context.Background()))
	}
	return errors.Join(errs...)
}

// begin counts one more running function; false: the instance has ended.
func (in *instance) begin() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return false
	}
	in.running.Add(1)
	return true
}

func (in *instance) cancel() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	in.end()
}

func (in *instance) stop(ctx context.Context) error {
	in.cancel()
	returned := make(chan struct{})
	go func() {
		in.running.Wait()
		close(returned)
	}()
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	select {
	case <-returned:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fnbox: %s does not return", in.name)
	}
}

// checkNetwork refuses what would keep a function of this program from anything.
func checkNetwork(n sandbox.Network) error {
	if n != sandbox.NetworkDefault && n != sandbox.NetworkHost {
		return fmt.Errorf("fnbox: network %q: %w", n, sandbox.ErrNetwork)
	}
	return nil
}

func unknownRuntime(id string) error {
	return fmt.Errorf("fnbox: %q: %w", id, sandbox.ErrRuntime)
}
