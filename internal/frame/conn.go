package frame

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrClosed: the channel is closed, or was closed while the call ran.
var ErrClosed = errors.New("frame: channel is closed")

// Ready is the harness's greeting.
type Ready struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
}

// Bind tells the harness which code to load.
type Bind struct {
	Root       string            `json:"root"`
	Entrypoint string            `json:"entrypoint"`
	Env        map[string]string `json:"env"`
	Workers    int               `json:"workers"`
}

// Bound is the harness's answer to Bind.
type Bound struct {
	Error string `json:"error"` // why the code could not be loaded
}

// Conn is the host's end of a channel. It is safe for concurrent use.
type Conn struct {
	rw    io.ReadWriteCloser
	w     *writer
	ready greeting
	bound greeting

	mu    sync.Mutex
	calls map[uint32]*exchange // nil: the channel is closed
	last  uint32
	err   error // why the reader ended

	close   func() error
	done    chan struct{}
	running sync.WaitGroup
}

// New returns the host's end of the channel rw, and owns rw from then on.
// Close ends it.
func New(rw io.ReadWriteCloser) *Conn {
	c := &Conn{
		rw: rw, calls: map[uint32]*exchange{}, close: sync.OnceValue(rw.Close), done: make(chan struct{}),
		ready: greeting{payload: make(chan []byte, 1)}, bound: greeting{payload: make(chan []byte, 1)},
	}
	c.w = newWriter(rw, c.close)
	c.running.Go(c.read)
	c.running.Go(func() { c.w.run(c.done) })
	return c
}

// Ready waits for the harness's greeting.
func (c *Conn) Ready(ctx context.Context) (Ready, error) {
	var r Ready
	if err := c.await(ctx, c.ready.payload, &r); err != nil {
		return r, fmt.Errorf("wait for the harness: %w", err)
	}
	if r.Protocol != 1 {
		return r, malformed("harness speaks protocol %d", r.Protocol)
	}
	return r, nil
}

// Bind has the harness load code, and waits until it has. It is called once,
// after Ready and before Call.
func (c *Conn) Bind(ctx context.Context, b Bind) (Bound, error) {
	p, err := json.Marshal(b)
	if err != nil {
		return Bound{}, err
	}
	if len(p) > MaxFrame-headerSize {
		return Bound{}, errors.New("environment too large")
	}
	if _, err := c.w.send(Frame{Type: BIND, Payload: p}, nil); err != nil {
		return Bound{}, c.reason()
	}
	var r Bound
	if err := c.await(ctx, c.bound.payload, &r); err != nil {
		return r, fmt.Errorf("load code: %w", err)
	}
	return r, nil
}

func (c *Conn) await(ctx context.Context, from <-chan []byte, v any) error {
	select {
	case p := <-from:
		if err := json.Unmarshal(p, v); err != nil {
			return malformed("%v", err)
		}
		return nil
	case <-c.done:
		return c.reason()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when the channel is.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the channel was closed: io.EOF when the harness closed it,
// ErrProtocol when it wrote nonsense, ErrClosed when Close was called first. It is nil
// before Done.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

func (c *Conn) reason() error {
	if err := c.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// Close closes the channel; calls that run fail with ErrClosed. It returns when
// the channel's goroutines are gone, and is safe to call twice.
func (c *Conn) Close() error {
	c.w.stop(ErrClosed)
	err := c.close()
	c.running.Wait()
	return err
}

// read delivers frames until the channel ends.
func (c *Conn) read() {
	r := NewReader(c.rw)
	var err error
	for err == nil {
		var f Frame
		if f, err = r.Next(); err == nil {
			err = c.deliver(f)
		}
	}
	err = cause(err, c.w.stop(err))
	c.close()
	c.mu.Lock()
	calls := c.calls
	c.calls, c.err = nil, err
	c.mu.Unlock()
	close(c.done)
	for id, ex := range calls {
		ex.fail(id, ErrClosed)
	}
}

// cause chooses between why reading ended and why writing did: what was
// malformed first, then that Close was called, then what the harness did.
func cause(read, write error) error {
	switch {
	case errors.Is(read, ErrProtocol):
		return read
	case errors.Is(write, ErrProtocol), errors.Is(write, ErrClosed):
		return write
	case errors.Is(read, io.EOF):
		return read
	}
	return write
}

func (c *Conn) deliver(f Frame) error {
	if f.Flags&^End != 0 {
		return malformed("flags %#x", f.Flags)
	}
	switch f.Type {
	case READY:
		return c.ready.take(f)
	case BOUND:
		return c.bound.take(f)
	case HEAD, DATA, WINDOW, RESET, LOG:
	default:
		return malformed("frame of type %d", f.Type)
	}
	over := f.Type == RESET || (f.Flags&End != 0 && f.Type != LOG && f.Type != WINDOW)
	c.mu.Lock()
	ex := c.calls[f.ID]
	if over {
		delete(c.calls, f.ID)
	}
	c.mu.Unlock()
	if ex == nil {
		return nil // late
	}
	err := ex.deliver(f)
	if err != nil {
		ex.fail(f.ID, ErrClosed) // nobody else knows it any more, if it was to end
	}
	return err
}

// greeting is a frame of the channel itself, of which there is one.
type greeting struct {
	payload chan []byte // cap 1
	taken   bool        // used by the reader alone
}

func (g *greeting) take(f Frame) error {
	if f.ID != 0 || g.taken {
		return malformed("unexpected frame of type %d", f.Type)
	}
	g.taken = true
	g.payload <- bytes.Clone(f.Payload)
	return nil
}

// add gives a call its id.
func (c *Conn) add(ex *exchange) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil || c.last == 1<<32-1 {
		return ErrClosed
	}
	c.last++
	ex.id = c.last
	c.calls[c.last] = ex
	return nil
}

// runs reports whether the harness has not ended a call yet.
func (c *Conn) runs(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.calls[id]
	return ok
}

// forget ends a call on this side, and reports whether it ran.
func (c *Conn) forget(id uint32) (ran bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ran = c.calls[id]
	delete(c.calls, id)
	return ran
}
