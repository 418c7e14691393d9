package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/store"
)

// call is one call of a function's code.
type call struct {
	k       *known
	id      string // of the execution
	method  string
	path    string
	headers []Header
	body    io.Reader
	// limit is how long the call may take at most, the wait for an instance
	// included; a function's own timeout may be shorter.
	limit  time.Duration
	out    *answer
	caller trace.SpanContext // of a synchronous call
}

// outcome is how a call ended. The answer is in call.out.
type outcome struct {
	duration time.Duration
	failed   bool
	why      Failure // of one that failed
	// interrupted: the call was ended for the sake of another, or because the
	// engine stops, and is not to blame. It can be made again.
	interrupted bool
	// limited: call.limit passed.
	limited bool
	// canceled: somebody asked for that.
	canceled bool
}

// Reasons for which a call is ended.
var (
	errDeadline = errors.New("engine: the function's timeout passed")
	errLimit    = errors.New("engine: the caller's limit passed")
	errCanceled = errors.New("engine: the execution was canceled")
)

// Texts that users see in an execution's errors.
const (
	textTimedOut    = "Execution timed out."
	textInterrupted = "The instance was stopped because another execution in it had to be ended."
	textCanceled    = "The execution was canceled."
	textStopping    = "The execution was ended because the server stops."
	textDeleted     = "The execution was ended because it was deleted, with its function or project."
	textTakenOver   = "The execution was ended because it was canceled or deleted, or another server took it over."
)

// invoke makes a call: the only road to a sandbox. ctx ends it, and waiting the
// wait for an instance. An error means that the code did not run; what the code
// did wrong is in the outcome.
func (e *Engine) invoke(ctx, waiting context.Context, c call) (out outcome, err error) {
	return e.invokeWithin(ctx, func() (context.Context, context.CancelFunc) { return waiting, func() {} }, c)
}

func (e *Engine) invokeWithin(ctx context.Context, waiting patience, c call) (out outcome, err error) {
	ctx, end := e.observe.span(ctx, c)
	defer func() { end(out, err) }()
	entered := e.clock.Now()
	bounded := func() (context.Context, context.CancelFunc) {
		ctx, cancel := waiting()
		ctx, stop := e.waitFor(ctx, c, e.clock.Now().Sub(entered))
		return ctx, func() { stop(); cancel() }
	}
	for attempt := 0; ; attempt++ {
		slot, err := e.acquire(ctx, bounded, c.k)
		if out, ended := c.ended(err); ended {
			out.duration = e.clock.Now().Sub(entered)
			return out, nil
		}
		if err != nil {
			return outcome{}, err
		}
		began := e.clock.Now()
		res, err := e.invokeOn(ctx, slot.ID, c, c.limit-began.Sub(entered))
		e.pool.Release(slot, c.reusable(res, err))
		if errors.Is(err, sandbox.ErrGone) && res.Unsent && attempt < maxUnsent {
			continue // the instance died while it was idle: nothing has happened yet
		}
		out := e.judge(ctx, c, res, err)
		out.duration = e.clock.Now().Sub(began)
		c.out.finish()
		return out, nil
	}
}

// reusable reports whether the instance of a call may serve others. After what
// this side ended or refused, the driver knows; an error of its own says that
// it is broken.
func (c call) reusable(res sandbox.Result, err error) bool {
	if res.Retire || res.Crash != "" || errors.Is(err, sandbox.ErrGone) {
		return false
	}
	var body *Error
	return err == nil || c.out.refused || errors.As(err, &body) || errors.Is(err, sandbox.ErrTooLarge) ||
		errors.Is(err, errDeadline) || errors.Is(err, errLimit) || errors.Is(err, errLeaseLost) || errors.Is(err, errCanceled) || errors.Is(err, context.Canceled)
}

// ended completes the answer of a call that is over without an instance: its
// time is, or the code ended its own process.
func (c call) ended(err error) (outcome, bool) {
	var load *sandbox.LoadError
	switch {
	case errors.Is(err, errLimit):
		c.out.fail(textTimedOut)
	case errors.As(err, &load):
		c.out.fail("Failed to load module: its process ended with " + load.Reason)
		c.out.status = 503
	default:
		return outcome{}, false
	}
	c.out.finish()
	if load == nil {
		return outcome{failed: true, why: store.FailureTimeout, limited: true}, true
	}
	return outcome{failed: true, why: store.FailureCrash}, true
}

// waitFor bounds the wait for an instance: by the patience of the engine, or
// the caller's if that is shorter, less what has passed of it.
func (e *Engine) waitFor(ctx context.Context, c call, passed time.Duration) (context.Context, context.CancelFunc) {
	if c.limit < e.cfg.Instances.Wait {
		return e.within(ctx, c.limit-passed, errLimit)
	}
	return e.within(ctx, e.cfg.Instances.Wait-passed, errWaited)
}

// maxUnsent is how many dead instances one call may meet.
const maxUnsent = 3

// invokeOn makes a call on an instance, within the function's timeout and what
// is left of the call's limit. The runtime itself ends the call at the timeout;
// if it cannot, its process is killed a grace later.
func (e *Engine) invokeOn(ctx context.Context, instance string, c call, limit time.Duration) (sandbox.Result, error) {
	timeout := time.Duration(c.k.fn.Timeout) * time.Second
	hard, why := timeout+e.cfg.Work.Grace, errDeadline
	if limit < hard {
		hard, why = limit, errLimit
	}
	ctx, cancel := e.within(ctx, hard, why)
	defer cancel()
	res, err := e.cfg.Sandbox.Invoke(ctx, instance, sandbox.Request{
		Method: c.method, Path: c.path, Headers: e.requestHeaders(c), Body: c.body,
		Timeout: timeout, Logging: c.k.fn.Logging,
	}, c.out)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return res, err
}

// judge turns how a call ended into an outcome, and completes the answer.
func (e *Engine) judge(ctx context.Context, c call, res sandbox.Result, err error) outcome {
	reason, bad := isBadAnswer(err)
	var refused *Error
	switch {
	case bad:
		c.out.fail(reason)
	case errors.Is(err, errDeadline):
		c.out.fail(textTimedOut)
		return outcome{failed: true, why: store.FailureTimeout}
	case errors.Is(err, errLimit):
		c.out.fail(textTimedOut)
		return outcome{failed: true, why: store.FailureTimeout, limited: true}
	case errors.Is(err, sandbox.ErrGone):
		c.out.fail(textInterrupted)
		return outcome{failed: true, interrupted: true}
	case context.Cause(ctx) == errCanceled:
		c.out.fail(textCanceled)
		return outcome{failed: true, canceled: true}
	case errors.Is(context.Cause(ctx), errDeleted):
		c.out.fail(textDeleted)
		return outcome{failed: true, interrupted: true}
	case errors.Is(context.Cause(ctx), errLeaseLost):
		c.out.fail(textTakenOver)
		return outcome{failed: true, interrupted: true}
	case ctx.Err() != nil:
		c.out.fail(textStopping)
		return outcome{failed: true, interrupted: true}
	case errors.As(err, &refused): // the request's body
		c.out.fail(refused.Message)
	case errors.Is(err, sandbox.ErrTooLarge):
		c.out.fail("The request's headers are too large.")
	case err != nil && c.out.passed:
		c.out.fail("The client went away before the answer was complete.")
	case err != nil:
		c.out.fail("The execution failed with an internal error (" + e.logged("invoke", err) + ").")
	case res.Crash != "":
		c.out.fail("The function's process ended during the execution: " + res.Crash)
		return outcome{failed: true, why: store.FailureCrash}
	case res.Aborted != "":
		c.out.fail("The answer broke off: " + res.Aborted)
	case res.TimedOut:
		return outcome{failed: true, why: store.FailureTimeout}
	default:
		return outcome{failed: c.out.status >= 500, why: store.FailureError}
	}
	return outcome{failed: true, why: store.FailureError}
}

// requestHeaders are the headers user code sees: the caller's, defaults for
// what it left out, and none that are empty.
func (e *Engine) requestHeaders(c call) []sandbox.Header {
	out := make([]sandbox.Header, 0, len(c.headers)+3)
	for _, h := range c.headers {
		if h.Value != "" {
			out = append(out, sandbox.Header(h))
		}
	}
	given := out
	for _, h := range [...]sandbox.Header{
		{Name: "host", Value: e.cfg.Identity.Host},
		{Name: "accept", Value: "*/*"},
		{Name: "content-type", Value: "application/x-www-form-urlencoded"},
	} {
		if !slices.ContainsFunc(given, func(g sandbox.Header) bool { return g.Name == h.Name }) {
			out = append(out, h)
		}
	}
	return out
}

// injected are the headers that the engine sets on every execution; a caller
// cannot, see callerHeaders.
type injected struct {
	trigger  string
	event    string
	userID   string
	userJWT  string
	key      string
	id       string
	ip       string
	location Location
}

func (i injected) headers() []Header {
	return []Header{
		{Name: "x-appwrite-key", Value: i.key},
		{Name: "x-appwrite-trigger", Value: i.trigger},
		{Name: "x-appwrite-event", Value: i.event},
		{Name: "x-appwrite-user-id", Value: i.userID},
		{Name: "x-appwrite-user-jwt", Value: i.userJWT},
		{Name: "x-appwrite-country-code", Value: i.location.Country},
		{Name: "x-appwrite-continent-code", Value: i.location.Continent},
		{Name: "x-appwrite-continent-eu", Value: strconv.FormatBool(i.location.EU)},
		{Name: "x-appwrite-execution-id", Value: i.id},
		{Name: "x-appwrite-client-ip", Value: i.ip},
	}
}

// callerHeaders lower-cases a caller's headers and drops those that only the
// engine sets, and those made from the body.
func callerHeaders(headers []Header) []Header {
	out := make([]Header, 0, len(headers)+11) // the engine's come, too
	for _, h := range headers {
		name := strings.ToLower(h.Name)
		if strings.HasPrefix(name, "x-appwrite-") || strings.HasPrefix(name, "x-open-runtimes-") || name == "content-length" || name == "transfer-encoding" {
			continue
		}
		out = append(out, Header{Name: name, Value: h.Value})
	}
	return out
}

// logged writes an internal error to the log under an id, and returns the id.
func (e *Engine) logged(act string, err error) string {
	id := ids.New(e.clock.Now())
	e.cfg.Logger.Error(act, "id", id, "error", err)
	return id
}
