package procbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fnkit/fnkit/internal/frame"
	"github.com/fnkit/fnkit/sandbox"
)

const (
	// confirmGrace is how long a harness that can end one call alone has to do so.
	confirmGrace = 60 * time.Millisecond
	// killGrace is how long an Invoke waits for a killed process to be gone.
	killGrace = 30 * time.Millisecond
)

// Invoke implements sandbox.Driver. It ends with ctx even if the request's body
// does not; a Sink's Write that blocks must end by itself.
func (b *Box) Invoke(ctx context.Context, id string, r sandbox.Request, s sandbox.Sink) (sandbox.Result, error) {
	i := b.find(id)
	if i == nil || !i.bound.Load() {
		return sandbox.Result{Unsent: true, Retire: true}, sandbox.ErrGone
	}
	if i.web != nil {
		return b.invokeWeb(ctx, i, r, s)
	}
	head := heads.Get().(*[]byte)
	defer heads.Put(head)
	*head = appendCallHead((*head)[:0], &r)
	if len(*head) > frame.MaxHead {
		return sandbox.Result{}, fmt.Errorf("procbox: head of %d bytes: %w", len(*head), sandbox.ErrTooLarge)
	}
	call := frame.Call{Head: *head, Body: r.Body, Logging: r.Logging}
	to := receiver{sink: s}
	if i.lang.killsCall {
		call.Grace = confirmGrace
	} else {
		// While Write blocks nobody else would see ctx's end.
		to.stream = func() { to.unwatch = context.AfterFunc(ctx, func() { b.end(i, "") }) }
	}
	out, err := i.conn.Call(ctx, call, &to)
	if to.unwatch != nil {
		to.unwatch()
	}
	if err == nil {
		i.tell(to.head.status, r.Logging, s)
	}
	return b.settle(ctx, i, ended{out, err, to.head})
}

var heads = sync.Pool{New: func() any { return new([]byte) }}

// receiver passes a response on to a sink.
type receiver struct {
	sink    sandbox.Sink
	head    responseHead
	stream  func() // called once if the response is more than its head's frame
	unwatch func() bool
}

func (r *receiver) Head(head []byte, more bool) (err error) {
	if r.head, err = parseResponseHead(head); err != nil {
		return err
	}
	if more && r.stream != nil {
		r.stream()
	}
	return r.sink.Head(r.head.status, r.head.headers)
}

func (r *receiver) Write(p []byte) (int, error) { return r.sink.Write(p) }

func (r *receiver) Flush() error {
	if f, ok := r.sink.(sandbox.Flusher); ok {
		return f.Flush()
	}
	return nil
}

func (r *receiver) Log(stream byte, lines []byte) { r.sink.Log(sandbox.Stream(stream), lines) }

// ended is how a call came back from the channel.
type ended struct {
	frame.Outcome
	err  error
	head responseHead
}

// settle decides what a call's end means for the instance and the caller.
func (b *Box) settle(ctx context.Context, i *instance, e ended) (sandbox.Result, error) {
	switch {
	case e.err == nil:
		return sandbox.Result{TimedOut: e.head.timedOut, Retire: e.head.retire, Aborted: e.aborted()}, nil
	case ctx.Err() != nil:
		if !e.Over {
			b.end(i, "")
			i.wait(killGrace)
		}
		return sandbox.Result{Retire: !e.Over}, ctx.Err()
	case errors.Is(e.err, frame.ErrProtocol):
		b.end(i, e.err.Error())
		return sandbox.Result{Crash: e.err.Error(), Retire: true}, nil
	case errors.Is(e.err, frame.ErrClosed):
		return i.lost(ctx, e.Unsent)
	}
	return sandbox.Result{Retire: !e.Over}, e.err
}

func (e ended) aborted() string {
	if e.Aborted && e.Why == "" {
		return "the runtime gave up the response"
	}
	return e.Why
}

// lost is the end of a call whose instance is gone. It waits to learn how.
func (i *instance) lost(ctx context.Context, unsent bool) (sandbox.Result, error) {
	select {
	case <-i.dead:
	case <-ctx.Done():
		return sandbox.Result{Unsent: unsent, Retire: true}, ctx.Err()
	}
	if i.crash == "" || unsent {
		return sandbox.Result{Unsent: unsent, Retire: true}, sandbox.ErrGone
	}
	return sandbox.Result{Crash: i.crash, Retire: true}, nil
}

func (i *instance) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-i.dead:
	case <-timer.C:
	}
}
