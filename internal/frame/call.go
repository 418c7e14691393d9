package frame

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// ErrHeadTooLarge: a call's head is longer than MaxHead.
var ErrHeadTooLarge = errors.New("frame: head too large")

// Call is one call to make.
type Call struct {
	Head []byte    // JSON; at most MaxHead bytes
	Body io.Reader // nil: none. A Read that blocks may outlast the call.
	// Logging false drops what the harness logs.
	Logging bool
	// Grace is how long to wait, once the call was reset, for the harness to
	// confirm with a RESET of its own that it has ended the call's code.
	Grace time.Duration
}

// Receiver takes what comes back. Head, Write and Flush are called by the goroutine
// that called Conn.Call; Log by another one, and it must not block. What is
// passed is valid during the method's call only. After Conn.Call has returned,
// no method is called.
type Receiver interface {
	// Head is called once; more says that the response is not complete yet.
	Head(head []byte, more bool) error
	Write(p []byte) (int, error)
	// Flush is called when something was passed and more is to come, but is not
	// there yet.
	Flush() error
	Log(stream byte, lines []byte)
}

// Outcome says how a call ended.
type Outcome struct {
	// Unsent, beside ErrClosed: not a byte of the call left the host.
	Unsent bool
	// Aborted: the harness ended the call with RESET, for the reason Why.
	Aborted bool
	Why     string
	// Over: the harness is done with the call. It is false if the call was
	// reset and the harness did not confirm that its code has ended.
	Over bool
}

// Call makes a call and returns when it is over. If ctx ends first the call is
// reset and ctx's error returned; if the Receiver or the body fails it is
// reset and that error returned; ErrClosed means that the channel was closed.
func (c *Conn) Call(ctx context.Context, call Call, to Receiver) (Outcome, error) {
	if len(call.Head) > MaxHead {
		return Outcome{Unsent: true, Over: true}, ErrHeadTooLarge
	}
	ex := newExchange(c, call, to)
	if err := c.add(ex); err != nil {
		return Outcome{Unsent: true}, err
	}
	err := ex.open(ctx, call)
	if err == nil {
		err = ex.receive(ctx)
	}
	return ex.end(call.Grace, err), err
}

// open sends the call, or starts a goroutine that does while its body is read.
func (ex *exchange) open(ctx context.Context, call Call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	body, ok, err := ex.inline(call.Body)
	if err != nil {
		return err
	}
	if !ok {
		ctx, ex.stop = context.WithCancel(ctx)
		go ex.upload(ctx, ex.id, call)
		return nil
	}
	if err := ex.c.w.wait(ctx); err != nil {
		return err
	}
	return ex.start(ex.id, call.Head, body, End)
}

// inline returns a body that is small and in memory.
func (ex *exchange) inline(body io.Reader) (p []byte, ok bool, err error) {
	if body == nil {
		return nil, true, nil
	}
	b, ok := body.(interface{ Len() int })
	if !ok || b.Len() > MaxData {
		return nil, false, nil
	}
	ex.body = append(ex.body[:0], make([]byte, b.Len())...)
	n, err := io.ReadFull(body, ex.body)
	return ex.body[:n], true, err
}

// start sends the call, unless it is over already.
func (ex *exchange) start(id uint32, head, body []byte, flags byte) error {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.id != id || ex.sealed {
		return context.Canceled
	}
	ex.pre = AppendHead(ex.pre[:0], head)
	at, err := ex.c.w.send(Frame{id, CALL, flags, ex.pre}, body)
	if err != nil {
		return ErrClosed
	}
	ex.sent, ex.at, ex.uploaded = true, at, flags == End
	return nil
}

// receive passes on the response until it is complete.
func (ex *exchange) receive(ctx context.Context) error {
	var consumed int
	held := false // something was passed since the last Flush
	for {
		select {
		case <-ex.sig:
		case <-ctx.Done():
			return ctx.Err()
		}
		got := ex.take()
		if err := ex.pass(got); err != nil {
			return err
		}
		if got.ended {
			return got.err
		}
		held = held || got.hasHead || len(got.body) > 0
		if held && len(ex.sig) == 0 { // if more is there, it may be what was just passed
			held = false
			if err := ex.to.Flush(); err != nil {
				return err
			}
		}
		if consumed += got.data; consumed >= WindowSize/2 {
			ex.grant(consumed)
			consumed = 0
		}
	}
}

func (ex *exchange) pass(got received) error {
	if got.hasHead {
		if err := ex.to.Head(got.head, !got.ended); err != nil {
			return err
		}
	}
	if len(got.body) > 0 {
		if _, err := ex.to.Write(got.body); err != nil {
			return err
		}
	}
	return nil
}

// grant lets the harness send n more bytes.
func (ex *exchange) grant(n int) {
	ex.mu.Lock()
	ex.owed -= n
	ex.mu.Unlock()
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], uint32(n))
	ex.c.w.send(Frame{ex.id, WINDOW, 0, p[:]}, nil)
}

// end forgets the call, tells the harness if it does not know, and lets go of
// the receiver.
func (ex *exchange) end(grace time.Duration, err error) Outcome {
	ex.mu.Lock()
	ex.sealed = true
	id, sent, at := ex.id, ex.sent, ex.at
	finished := ex.uploaded || !sent
	ex.mu.Unlock()
	over := true
	switch {
	case err != nil && sent:
		over = ex.reset(grace)
	case err != nil:
		ex.c.forget(id)
	case !finished:
		ex.c.w.send(Frame{id, RESET, End, nil}, nil) // answered before all was uploaded
	}
	ex.mu.Lock()
	out := Outcome{Aborted: ex.aborted, Why: ex.why, Over: over}
	ex.id, ex.to = 0, nil
	ex.mu.Unlock()
	if errors.Is(err, ErrClosed) {
		out.Unsent = !sent || !ex.c.w.reached(at)
	}
	if ex.stop == nil {
		exchanges.Put(ex)
	} else {
		ex.stop()
	}
	return out
}

// reset ends a call that is not complete. It reports whether the harness is
// done with it.
func (ex *exchange) reset(grace time.Duration) (over bool) {
	if !ex.c.runs(ex.id) {
		return true
	}
	ex.c.w.send(Frame{ex.id, RESET, End, nil}, nil)
	if grace > 0 {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		for waiting := true; waiting && ex.c.runs(ex.id); {
			select {
			case <-ex.sig:
			case <-timer.C:
				waiting = false
			}
		}
	}
	return !ex.c.forget(ex.id)
}
