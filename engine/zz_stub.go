package engine

import (
	"context"
	"github.com/fnkit/fnkit/events"
	"io"
	"time"
)

// Signatures being filled in; this file goes away.

type Engine struct{ cfg Config }
type Project struct {
	e  *Engine
	id string
}

// New returns an engine, or every fault of the configuration. It does no I/O, starts no goroutine and reads no environment.
func New(c Config) (*Engine, error) { panic("") }

// Start checks the dependencies and starts the workers.
func (e *Engine) Start(ctx context.Context) error { panic("") }

// Stop stops claiming, drains until ctx ends, then cancels.
func (e *Engine) Stop(ctx context.Context) error { panic("") }

// Run is Start, wait for ctx, Stop.
func (e *Engine) Run(ctx context.Context) error { panic("") }

// Ready reports whether the engine can serve: the store answers.
func (e *Engine) Ready(ctx context.Context) error                              { panic("") }
func (e *Engine) Project(id string) *Project                                   { panic("") }
func (e *Engine) DeleteProject(ctx context.Context, by Actor, id string) error { panic("") }

// Authorize says whether a caller may use what needs the scope: the project exists, and the actor has the scope.
func (e *Engine) Authorize(ctx context.Context, c Caller, scope string) error { panic("") }

// ActorForKey verifies a key minted for an execution or build ("dynamic_…") and returns its actor.
func (e *Engine) ActorForKey(project, key string) (Actor, error) { panic("") }

// Config returns the configuration with all defaults set.
func (e *Engine) Config() Config                                                        { panic("") }
func (e *Engine) Subscribe(ctx context.Context, p events.Pattern) (<-chan Event, error) { panic("") }

// Runtimes lists what functions may be created with on this machine.
func (p *Project) Runtimes(ctx context.Context, by Actor) ([]Runtime, error)             { panic("") }
func (p *Project) Specifications(ctx context.Context, by Actor) ([]Specification, error) { panic("") }

// KnownRuntimes are the ids that pass validation: the catalogue's and the sandbox's.
func (e *Engine) KnownRuntimes() []string { panic("") }

func (p *Project) CreateFunction(ctx context.Context, by Actor, f FunctionParams) (Function, error) {
	panic("")
}
func (p *Project) GetFunction(ctx context.Context, by Actor, id string) (Function, error) { panic("") }
func (p *Project) ListFunctions(ctx context.Context, by Actor, q Query) (List[Function], error) {
	panic("")
}

// UpdateFunction replaces the settings; what f leaves out goes back to its default, but for Runtime and Entrypoint.
func (p *Project) UpdateFunction(ctx context.Context, by Actor, id string, f FunctionParams) (Function, error) {
	panic("")
}
func (p *Project) DeleteFunction(ctx context.Context, by Actor, id string) error { panic("") }

func (p *Project) Deploy(ctx context.Context, by Actor, function string, d DeployParams) (Deployment, error) {
	panic("")
}
func (p *Project) DeployChunk(ctx context.Context, by Actor, function string, c Chunk) (Deployment, error) {
	panic("")
}
func (p *Project) GetDeployment(ctx context.Context, by Actor, function, id string) (Deployment, error) {
	panic("")
}
func (p *Project) ListDeployments(ctx context.Context, by Actor, function string, q Query) (List[Deployment], error) {
	panic("")
}
func (p *Project) ActivateDeployment(ctx context.Context, by Actor, function, id string) (Function, error) {
	panic("")
}
func (p *Project) DeleteDeployment(ctx context.Context, by Actor, function, id string) error {
	panic("")
}

// Rebuild makes a new deployment from the source of one and queues its build.
func (p *Project) Rebuild(ctx context.Context, by Actor, function, id string) (Deployment, error) {
	panic("")
}
func (p *Project) CancelBuild(ctx context.Context, by Actor, function, id string) (Deployment, error) {
	panic("")
}

// OpenSource opens the source archive of a deployment. The caller closes it.
func (p *Project) OpenSource(ctx context.Context, by Actor, function, id string) (Source, error) {
	panic("")
}

// Source is an open source archive.
type Source struct {
	io.ReadSeekCloser
	Size     int64
	Modified time.Time
}

// Execute runs a function: synchronously, or queued when a.Async is set.
func (p *Project) Execute(ctx context.Context, by Actor, function string, a ExecuteParams) (ExecuteResult, error) {
	panic("")
}

// Stream runs a function and passes its answer on as it is produced. The error is set only when nothing was written to w.
func (p *Project) Stream(ctx context.Context, by Actor, function string, r StreamRequest, w ResponseWriter) (Execution, error) {
	panic("")
}
func (p *Project) GetExecution(ctx context.Context, by Actor, function, id string) (Execution, error) {
	panic("")
}
func (p *Project) ListExecutions(ctx context.Context, by Actor, function string, q Query) (List[Execution], error) {
	panic("")
}
func (p *Project) DeleteExecution(ctx context.Context, by Actor, function, id string) error {
	panic("")
}

func (p *Project) CreateVariable(ctx context.Context, by Actor, function, key, value string) (Variable, error) {
	panic("")
}
func (p *Project) GetVariable(ctx context.Context, by Actor, function, id string) (Variable, error) {
	panic("")
}

// ListVariables returns the variables of a function, in order of creation. Total is exact.
func (p *Project) ListVariables(ctx context.Context, by Actor, function string) (List[Variable], error) {
	panic("")
}

// VariablesOf returns the variables of several functions, by function id.
func (p *Project) VariablesOf(ctx context.Context, by Actor, functions ...string) (map[string][]Variable, error) {
	panic("")
}

// UpdateVariable changes a variable's key and, unless value is nil, its value.
func (p *Project) UpdateVariable(ctx context.Context, by Actor, function, id, key string, value *string) (Variable, error) {
	panic("")
}
func (p *Project) DeleteVariable(ctx context.Context, by Actor, function, id string) error { panic("") }
