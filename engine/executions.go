package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/fnkit/fnkit/internal/groupcommit"
	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/store"
)

// Execute runs a function. A synchronous execution returns when the function
// has answered and the record is stored; a queued one returns at once, and
// runs at least once even if every engine dies meanwhile.
// Errors: general_argument_invalid, general_bad_request, function_not_found,
// function_runtime_unsupported, deployment_not_found, build_not_found,
// build_not_ready, user_unauthorized, function_busy, execution_key_reused,
// function_synchronous_timeout, general_service_unavailable.
func (p *Project) Execute(ctx context.Context, by Actor, function string, a ExecuteParams) (ExecuteResult, error) {
	limits, err := p.enter(ctx, by, ScopeExecutionWrite)
	if err != nil {
		return ExecuteResult{}, err
	}
	a.setDefaults()
	if err := p.e.checkExecute(a); err != nil {
		return ExecuteResult{}, err
	}
	k, err := p.executable(ctx, by, function)
	if err != nil {
		return ExecuteResult{}, err
	}
	x, room := p.newExecution(k, by, a), roomOf(limits, k.fn.Policy)
	switch {
	case a.Async:
		return p.enqueue(ctx, by, x, a)
	case p.e.viaQueue():
		return p.runElsewhere(ctx, by, x, a)
	case a.IdempotencyKey != "":
		return p.runOnce(ctx, by, k, x, a, room)
	}
	return p.runNow(ctx, by, k, x, a, room)
}

// Stream runs a function and passes its answer on to w as it is produced. An
// error of type *Error comes before anything was written; ErrAborted after the
// head was, when the answer broke off. With Config.SyncViaQueue, where nothing runs,
// request and answer are passed on when they are whole. Errors as Execute.
func (p *Project) Stream(ctx context.Context, by Actor, function string, r StreamRequest, w ResponseWriter) (Execution, error) {
	limits, err := p.enter(ctx, by, ScopeExecutionWrite)
	if err != nil {
		return Execution{}, err
	}
	k, err := p.executable(ctx, by, function)
	if err != nil {
		return Execution{}, err
	}
	if p.e.viaQueue() {
		return p.streamElsewhere(ctx, by, k, r, w)
	}
	leave, err := p.e.gauge.enter(p.id, k.fn.ID, "", roomOf(limits, k.fn.Policy), p.e.clock.Now())
	if err != nil {
		return Execution{}, err
	}
	defer leave()
	run, done, err := p.e.call()
	if err != nil {
		return Execution{}, err
	}
	defer done()
	x := p.newExecution(k, by, ExecuteParams{Method: r.Method, Path: r.Path, Headers: r.Headers})
	out := newAnswer(p.e.cfg.Limits, w)
	body := p.e.boundedBody(r)
	c, err := p.e.prepare(ctx, k, &x, by, r.ClientIP, out)
	if err != nil {
		return Execution{}, err
	}
	c.headers, c.body, c.limit = append(callerHeaders(r.Headers), c.headers...), body, p.e.cfg.Limits.SyncTimeout
	for _, h := range keep(r.Headers, []string{"content-length"}) { // the caller knows it; other bodies are as long as they get
		c.headers = append(c.headers, Header{Name: "content-length", Value: h.Value})
	}
	x.RequestPath = cleanText([]byte(x.RequestPath[:min(len(x.RequestPath), MaxPath)]))
	res, err := p.e.invokeFor(ctx, run, c)
	if err != nil {
		return Execution{}, err
	}
	p.e.record(&x, c, res)
	if err := p.keep(ctx, by, k, x); err != nil {
		p.e.logged("store execution", err)
	}
	switch {
	case !out.passed && res.limited:
		return x, Errorf(TypeSyncTimeout, "")
	case !out.passed:
		err = w.Head(out.status, out.headers)
	case out.aborted:
		err = ErrAborted
	}
	return x, err
}

// boundedBody is the body of a request, up to what it may be; nil: it has none.
func (e *Engine) boundedBody(r StreamRequest) io.Reader {
	if r.Body == nil {
		return nil
	}
	max := int64(e.cfg.Limits.RequestBody)
	return &bounded{r.Body, max, Errorf(TypeBadRequest, "The request's body is larger than %d bytes.", max)}
}

// ErrAborted: the function's answer broke off after its head had been passed on.
var ErrAborted = errors.New("engine: the function's answer broke off")

// GetExecution returns an execution. Users see those they caused, without logs.
// Errors: function_not_found, execution_not_found.
func (p *Project) GetExecution(ctx context.Context, by Actor, function, id string) (Execution, error) {
	if _, err := p.enter(ctx, by, ScopeExecutionRead); err != nil {
		return Execution{}, err
	}
	x, err := p.readable(ctx, by, function, id)
	return masked(x, by), err
}

// readable returns an execution that by may know of.
func (p *Project) readable(ctx context.Context, by Actor, function, id string) (Execution, error) {
	if err := p.visible(ctx, by, function); err != nil {
		return Execution{}, err
	}
	x, err := p.e.store.GetExecution(ctx, p.id, function, id)
	if err == nil && !by.Trusted() && (by.UserID == "" || x.UserID != by.UserID) {
		err = store.ErrNotFound
	}
	if err != nil {
		return Execution{}, fail(err, TypeExecution)
	}
	return x, nil
}

// ListExecutions returns the executions of a function that match q. Users see
// those they caused, without logs. Error: function_not_found.
func (p *Project) ListExecutions(ctx context.Context, by Actor, function string, q Query) (List[Execution], error) {
	var none List[Execution]
	if _, err := p.enter(ctx, by, ScopeExecutionRead); err != nil {
		return none, err
	}
	if err := p.visible(ctx, by, function); err != nil {
		return none, err
	}
	reader := ""
	if !by.Trusted() {
		if reader = by.UserID; reader == "" {
			return none, nil
		}
	}
	items, err := p.e.store.ListExecutions(ctx, p.id, function, reader, q)
	if err != nil {
		return none, failList(err, "Execution", q)
	}
	for i := range items {
		items[i] = masked(items[i], by)
	}
	total, err := p.e.store.CountExecutions(ctx, p.id, function, reader, q, MaxTotal)
	return List[Execution]{total, items}, fail(err, "")
}

// DeleteExecution removes an execution that has ended, or that is scheduled
// and then does not run. Errors: function_not_found, execution_not_found,
// execution_in_progress.
func (p *Project) DeleteExecution(ctx context.Context, by Actor, function, id string) error {
	if _, err := p.enter(ctx, by, ScopeExecutionWrite); err != nil {
		return err
	}
	if !by.Trusted() {
		return Errorf(TypeFunction, "")
	}
	if err := p.visible(ctx, by, function); err != nil {
		return err
	}
	x, err := p.e.store.GetExecution(ctx, p.id, function, id)
	if err != nil {
		return fail(err, TypeExecution)
	}
	err = p.e.store.DeleteExecution(ctx, p.id, function, id, store.ExecutionCompleted, store.ExecutionFailed, store.ExecutionCanceled, store.ExecutionDead, store.ExecutionScheduled)
	if errors.Is(err, store.ErrConflict) {
		return Errorf(TypeExecutionOngoing, "")
	}
	if err != nil {
		return fail(err, TypeExecution)
	}
	p.emit(ctx, by, "functions."+function+".executions."+id+".delete", x)
	return nil
}

// CancelExecution ends an execution that is scheduled, waits or runs, and
// returns it. One that runs is ended with its process, where the runtime cannot
// do that for one call alone; when this engine runs it, it is gone when
// CancelExecution returns, else within a third of Work.Lease. Users may cancel
// what they may read. Errors: function_not_found, execution_not_found,
// execution_already_completed.
func (p *Project) CancelExecution(ctx context.Context, by Actor, function, id string) (Execution, error) {
	if _, err := p.enter(ctx, by, ScopeExecutionWrite); err != nil {
		return Execution{}, err
	}
	x, err := p.readable(ctx, by, function, id)
	if err != nil {
		return Execution{}, err
	}
	if x.Status.Final() {
		return Execution{}, Errorf(TypeExecutionEnded, "")
	}
	if over := p.e.runs.end(row{p.id, id}, errCanceled); over != nil {
		select {
		case <-over:
		case <-ctx.Done():
			return Execution{}, ctx.Err()
		}
		if x, err = p.e.store.GetExecution(ctx, p.id, function, id); err != nil {
			return Execution{}, fail(err, TypeExecution)
		}
		if x.Status.Final() && x.Status != store.ExecutionCanceled {
			return Execution{}, Errorf(TypeExecutionEnded, "")
		}
	}
	if x.Status != store.ExecutionCanceled {
		x, err = p.e.store.CancelExecution(ctx, p.id, function, id, textCanceled+"\n", p.e.now())
		if errors.Is(err, store.ErrConflict) {
			return Execution{}, Errorf(TypeExecutionEnded, "")
		}
		if err != nil {
			return Execution{}, fail(err, TypeExecution)
		}
		p.emit(ctx, by, "functions."+function+".executions."+id+".update", x)
	}
	return masked(x, by), nil
}

// ReplayExecution queues a dead letter again, with the request it was queued
// with and all its attempts, and returns it. It runs what is active by then.
// Errors: function_not_found, execution_not_found, execution_not_dead.
func (p *Project) ReplayExecution(ctx context.Context, by Actor, function, id string) (Execution, error) {
	if _, err := p.enter(ctx, by, ScopeExecutionWrite); err != nil {
		return Execution{}, err
	}
	if !by.Trusted() {
		return Execution{}, Errorf(TypeFunction, "")
	}
	x, err := p.e.store.ReplayExecution(ctx, p.id, function, id, p.e.now())
	switch {
	case errors.Is(err, store.ErrConflict):
		return Execution{}, Errorf(TypeExecutionAlive, "")
	case errors.Is(err, store.ErrNotFound):
		if err := p.visible(ctx, by, function); err != nil {
			return Execution{}, err
		}
		return Execution{}, Errorf(TypeExecution, "")
	case err != nil:
		return Execution{}, fail(err, "")
	}
	p.e.runs.wake()
	p.emit(ctx, by, "functions."+function+".executions."+id+".update", masked(x, by))
	return masked(x, by), nil
}

// setDefaults fills what the caller left out.
func (a *ExecuteParams) setDefaults() {
	a.Path = cmp.Or(a.Path, "/")
	if a.Method == "" {
		a.Method = "GET"
		if len(a.Body) > 0 {
			a.Method = "POST"
		}
	}
}

// checkExecute applies the rules of the parameters.
func (e *Engine) checkExecute(a ExecuteParams) error {
	if len(a.Body) > e.cfg.Limits.RequestBody {
		return InvalidParam("body", CheckText(strings.Repeat(" ", e.cfg.Limits.RequestBody+1), 0, e.cfg.Limits.RequestBody))
	}
	if err := firstBroken([]rule{{"path", CheckText(a.Path, 1, MaxPath)}, {"method", CheckMethod(a.Method)}, {"headers", CheckHeaders(a.Headers)}, {"idempotency-key", CheckText(a.IdempotencyKey, 0, MaxIdempotencyKey)}, {"fnkit.lane", CheckText(a.Lane, 0, MaxLane)}, {"fnkit.priority", checkPriority(a.Priority)}}); err != nil {
		return err
	}
	if a.ScheduledAt.IsZero() {
		return nil
	}
	if !a.Async {
		return Errorf(TypeBadRequest, "Scheduled executions must run asynchronously. Set scheduledAt to a future date, or set async to true.")
	}
	if !a.ScheduledAt.After(e.clock.Now()) {
		return InvalidParam("scheduledAt", errors.New("Value must be a date in the future."))
	}
	return nil
}

// executable returns a function that by may execute now.
func (p *Project) executable(ctx context.Context, by Actor, function string) (*known, error) {
	k, err := p.e.current(ctx, p.id, function)
	if err != nil {
		return nil, err
	}
	return k, k.executableBy(by)
}

// executableBy says why by cannot execute a function now.
func (k *known) executableBy(by Actor) error {
	if !k.fn.Enabled && !by.Trusted() {
		return Errorf(TypeFunction, "")
	}
	if err := k.runnable(); err != nil {
		return err
	}
	return by.mayExecute(k.fn.Execute)
}

// runnable says why a function cannot run here now.
func (k *known) runnable() error {
	switch {
	case !k.has:
		return Errorf(TypeRuntime, "Runtime %q is not supported", k.fn.Runtime)
	case k.dep.ID == "":
		return Errorf(TypeDeployment, "Deployment not found. Create a deployment before trying to execute a function")
	}
	return ready(k.dep)
}

// visible says whether by may know of a function's executions.
func (p *Project) visible(ctx context.Context, by Actor, function string) error {
	fn, err := p.e.store.GetFunction(ctx, p.id, function)
	if err == nil && !fn.Enabled && !by.Trusted() {
		err = store.ErrNotFound
	}
	return fail(err, TypeFunction)
}

// newExecution returns the record of a request that is not stored yet.
func (p *Project) newExecution(k *known, by Actor, a ExecuteParams) Execution {
	now := p.e.now()
	return Execution{
		Project: p.id, ID: ids.New(p.e.clock.Now()), FunctionID: k.fn.ID, DeploymentID: k.dep.ID, CreatedAt: now, UpdatedAt: now,
		UserID: by.UserID, Trigger: store.TriggerHTTP, Priority: k.priority(by, a.Priority), Lane: a.Lane,
		RequestMethod: a.Method, RequestPath: a.Path, RequestHeaders: keep(a.Headers, storedRequestHeaders),
	}
}

// priority is that of an execution for which by asks for one.
func (k *known) priority(by Actor, asked *int) int {
	own := k.fn.Policy.Priority
	switch {
	case asked == nil:
		return own
	case by.Trusted():
		return *asked
	}
	return min(*asked, own)
}

func checkPriority(n *int) error {
	if n == nil {
		return nil
	}
	return CheckRange(*n, -MaxPriority, MaxPriority)
}

// Headers that are kept in the record, unless they are too large for it.
var (
	storedRequestHeaders  = []string{"content-type", "agent", "content-length", "host"}
	storedResponseHeaders = []string{"content-type", "content-length"}
)

func keep(headers []Header, names []string) []Header {
	var out []Header
	for _, h := range headers {
		for _, n := range names {
			if strings.EqualFold(h.Name, n) && len(h.Value) < MaxHeaderSize {
				out = append(out, h)
			}
		}
	}
	return out
}

// masked hides from users and guests what only the owner of a function sees.
func masked(x Execution, by Actor) Execution {
	if !by.Trusted() {
		x.Logs, x.Errors = "", ""
	}
	return x
}

// runNow runs an execution on the caller's time and stores it when it has ended.
func (p *Project) runNow(ctx context.Context, by Actor, k *known, x Execution, a ExecuteParams, room store.Room) (ExecuteResult, error) {
	run, done, err := p.e.call()
	if err != nil {
		return ExecuteResult{}, err
	}
	defer done()
	out, res, err := p.answer(ctx, run, by, k, &x, a, room)
	if err != nil {
		return ExecuteResult{}, err
	}
	if err := p.keep(ctx, by, k, x); err != nil {
		return ExecuteResult{}, fail(err, "")
	}
	if res.limited {
		return ExecuteResult{}, Errorf(TypeSyncTimeout, "")
	}
	return ExecuteResult{Execution: masked(x, by), ResponseHeaders: out.headers, ResponseBody: out.body}, nil
}

// answer makes the call of a synchronous execution and records it in x. An
// error means that it did not run.
func (p *Project) answer(ctx, run context.Context, by Actor, k *known, x *Execution, a ExecuteParams, room store.Room) (*answer, outcome, error) {
	leave, err := p.e.gauge.enter(p.id, k.fn.ID, a.Lane, room, p.e.clock.Now())
	if err != nil {
		return nil, outcome{}, err
	}
	defer leave()
	out := newAnswer(p.e.cfg.Limits, nil)
	c, err := p.e.prepare(ctx, k, x, by, a.ClientIP, out)
	if err != nil {
		return nil, outcome{}, err
	}
	c.headers, c.body, c.limit = append(callerHeaders(a.Headers), c.headers...), bytes.NewReader(a.Body), p.e.cfg.Limits.SyncTimeout
	c.headers = append(c.headers, Header{Name: "content-length", Value: itoa(int64(len(a.Body)))})
	res, err := p.e.invokeFor(ctx, run, c)
	if err != nil {
		return nil, outcome{}, err
	}
	p.e.record(x, c, res)
	return out, res, nil
}

// invokeFor makes a call on the engine's time, so that a caller who goes away
// does not end it; but who goes away before it began is not served. That the
// function's process could not be started is an outcome, for the record.
func (e *Engine) invokeFor(ctx, run context.Context, c call) (outcome, error) {
	if ctx.Err() != nil {
		return outcome{}, context.Cause(ctx)
	}
	waiting := func() (context.Context, context.CancelFunc) {
		waiting, cancel := context.WithCancelCause(run)
		stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
		return waiting, func() { stop(); cancel(nil) }
	}
	c.caller = e.observe.caller(ctx)
	out, err := e.invokeWithin(run, waiting, c)
	var known *Error
	switch {
	case err == nil || ctx.Err() != nil || run.Err() != nil || errors.As(err, &known):
		return out, err
	case errors.Is(err, errStartTimeout):
		c.out.fail("The function could not be started in time.")
	default:
		c.out.fail("The function could not be started (" + e.logged("start function", err) + ").")
	}
	c.out.finish()
	return outcome{failed: true}, nil
}

// prepare returns the call of an execution, with the headers that the engine
// sets.
func (e *Engine) prepare(ctx context.Context, k *known, x *Execution, by Actor, ip string, out *answer) (call, error) {
	// Tokens must outlive the call, which may have to wait for an instance first.
	life := e.cfg.Instances.Wait + time.Duration(k.fn.Timeout)*time.Second + e.cfg.Work.Grace
	in := injected{trigger: string(x.Trigger), event: x.Event, userID: x.UserID, id: x.ID, ip: ip}
	var err error
	if in.key, err = e.secrets.executionKey(k, by, life); err != nil {
		return call{}, err
	}
	if hook := e.cfg.Hooks.UserToken; hook != nil && by.Kind == ActorUser && x.Trigger != store.TriggerEvent {
		if in.userJWT, err = hook(ctx, x.Project, by, life); err != nil {
			return call{}, err
		}
	}
	if hook := e.cfg.Hooks.Locate; hook != nil && ip != "" {
		in.location = hook(ip)
	}
	path := x.RequestPath
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return call{k: k, id: x.ID, method: x.RequestMethod, path: path, headers: in.headers(), limit: maxDuration, out: out}, nil
}

// maxDuration is no limit.
const maxDuration = time.Duration(1<<63 - 1)

// record writes the result of a call into its execution.
func (e *Engine) record(x *Execution, c call, res outcome) {
	x.Status = store.ExecutionCompleted
	if res.failed {
		x.Status = store.ExecutionFailed
	}
	x.UpdatedAt, x.ReadyAt = e.now(), time.Time{}
	x.DeploymentID = c.k.dep.ID
	x.ResponseStatusCode, x.ResponseHeaders = c.out.status, keep(c.out.headers, storedResponseHeaders)
	x.Duration = res.duration
	x.Logs, x.Errors = c.out.texts()
	e.observe.executed(*x)
	e.observe.computed(*x, c.k.spec)
}

// keep stores a synchronous execution, also if its caller went away, and tells
// the world. Of a function that was deleted meanwhile nothing is kept.
func (p *Project) keep(ctx context.Context, by Actor, k *known, x Execution) error {
	ctx = context.WithoutCancel(ctx)
	if p.e.deletedSince(ctx, k, x.CreatedAt) {
		return nil
	}
	if err := p.e.appends.Add(ctx, x); err != nil {
		return err
	}
	var record any // a copy, so only for who looks at it
	if p.e.cfg.Hooks.Payload != nil {
		record = masked(x, by)
	}
	p.emit(ctx, by, "functions."+x.FunctionID+".executions."+x.ID+".create", record)
	return nil
}

// newAppends groups the insertion of executions.
func (e *Engine) newAppends() *groupcommit.Group[Execution] {
	g := groupcommit.New(func(ctx context.Context, rows []Execution) error { return e.store.AppendExecutions(ctx, rows) })
	g.Size = executionSize
	g.Whole = func(err error) bool { return errors.Is(err, store.ErrUnavailable) }
	return g
}

func executionSize(x Execution) int {
	return 512 + len(x.Logs) + len(x.Errors) + len(x.Payload) + len(x.RequestPath)
}
