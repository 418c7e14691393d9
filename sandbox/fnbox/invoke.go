package fnbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// Invoke makes one call. When ctx ends, the function's does, and the call is over
// 50 ms later at most; Result.Retire then says that the function still runs.
func (b *Box) Invoke(ctx context.Context, id string, r sandbox.Request, s sandbox.Sink) (sandbox.Result, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Result{Unsent: true}, err
	}
	in := b.find(id)
	if in == nil || !in.begin() {
		return sandbox.Result{Unsent: true}, sandbox.ErrGone
	}
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(in.ctx, cancel)()
	c := &Context{
		env: in.env, ended: callCtx.Done(), over: make(chan struct{}), pieces: make(chan piece), written: make(chan error),
		logs: logs{sink: s, on: r.Logging},
	}
	done := make(chan error, 1)
	go func() {
		defer in.running.Done()
		done <- in.run(callCtx, c, r)
	}()
	call := &call{Context: c, in: in, sink: s, done: done}
	result, err := call.wait(ctx, callCtx, r.Timeout)
	close(c.over)
	c.logs.end()
	return result, err
}

// errBody wraps what reading the request's body failed with.
type errBody struct{ error }

// run calls the function. What it panics with is an error.
func (in *instance) run(ctx context.Context, c *Context, r sandbox.Request) (err error) {
	var body []byte
	if r.Body != nil {
		if body, err = io.ReadAll(r.Body); err != nil {
			return errBody{err}
		}
	}
	c.Req = newRequest(r, body)
	if in.fn == nil {
		c.Error(fmt.Sprintf("Failed to load entrypoint, function %s does not exist.", in.name))
		c.respond(503, nil)
		return nil
	}
	returned := false
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		} else if !returned {
			err = errors.New("function ended its goroutine")
		}
	}()
	err = in.fn(ctx, c)
	returned = true
	return err
}

// call is the side of Invoke: it alone calls the sink's Head and Write.
type call struct {
	*Context
	in     *instance
	sink   sandbox.Sink
	done   <-chan error
	headed bool
}

func (k *call) wait(ctx, callCtx context.Context, timeout time.Duration) (sandbox.Result, error) {
	var timer <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		timer = t.C
	}
	for {
		select {
		case p := <-k.pieces:
			timer = nil // the function has answered
			if err := k.pass(p); err != nil {
				return sandbox.Result{Retire: true}, err
			}
		case err := <-k.done:
			return k.finish(ctx, callCtx, err)
		case <-timer:
			return k.timedOut()
		case <-callCtx.Done():
			return k.ended(ctx)
		}
	}
}

// pass hands a piece of a stream to the sink.
func (k *call) pass(p piece) error {
	err := k.deliver(p)
	if f, ok := k.sink.(sandbox.Flusher); ok && err == nil {
		err = f.Flush()
	}
	k.written <- err
	return err
}

func (k *call) deliver(p piece) error {
	if !k.headed {
		k.headed = true
		if err := k.sink.Head(p.status, p.headers); err != nil {
			return err
		}
	}
	if len(p.body) == 0 {
		return nil
	}
	_, err := k.sink.Write(p.body)
	return err
}

// finish answers for a function that has returned.
func (k *call) finish(ctx, callCtx context.Context, err error) (sandbox.Result, error) {
	var body errBody
	switch {
	case errors.As(err, &body):
		return sandbox.Result{}, body.error
	case callCtx.Err() != nil && (err != nil || k.response == nil):
		return sandbox.Result{}, gone(ctx)
	case err != nil:
		k.Error(err)
		if k.headed {
			return sandbox.Result{Aborted: "function failed"}, nil
		}
		return sandbox.Result{}, k.sink.Head(500, nil)
	case k.headed:
		return sandbox.Result{}, nil
	case k.response == nil:
		k.Error("Return statement missing. Call c.Empty() if no response is expected.")
		return sandbox.Result{}, k.sink.Head(500, nil)
	}
	return sandbox.Result{}, k.deliver(*k.response)
}

func (k *call) timedOut() (sandbox.Result, error) {
	k.Error("Execution timed out.")
	return sandbox.Result{TimedOut: true, Retire: true}, k.sink.Head(500, nil)
}

// ended gives a cancelled function a moment to return.
func (k *call) ended(ctx context.Context) (sandbox.Result, error) {
	timer := time.NewTimer(callGrace)
	defer timer.Stop()
	select {
	case <-k.done:
		return sandbox.Result{}, gone(ctx)
	case <-timer.C:
		return sandbox.Result{Retire: true}, gone(ctx)
	}
}

// gone is why a call was cancelled: its own context ended, or its instance.
func gone(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return sandbox.ErrGone
}
