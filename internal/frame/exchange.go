package frame

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
)

// exchange is the state of one call. It is used again for another call, unless
// an upload may hold on to it; whoever comes from the channel's side must find
// the id it looked up.
type exchange struct {
	c       *Conn
	logging bool
	sig     chan struct{}      // cap 1: something came in
	stop    context.CancelFunc // of the upload; nil: there is none
	credits chan struct{}      // cap 1: the upload may send more
	pre     []byte
	body    []byte

	mu       sync.Mutex
	id       uint32 // 0: over
	to       Receiver
	in       []byte // came in and was not taken yet: the head, if new, and body
	out      []byte // taken
	head     int    // length of the head in in
	newHead  bool
	hasHead  bool
	data     int // of in, how much counts against the window
	owed     int // DATA bytes that came in since the last grant, less what was granted
	ended    bool
	aborted  bool
	why      string
	err      error
	credit   int  // DATA bytes the upload may send
	sealed   bool // nothing more of the body may be sent
	sent     bool
	at       uint64 // where the call begins in what was sent
	uploaded bool
}

var exchanges = sync.Pool{New: func() any { return &exchange{sig: make(chan struct{}, 1)} }}

func newExchange(c *Conn, call Call, to Receiver) *exchange {
	ex := exchanges.Get().(*exchange)
	select {
	case <-ex.sig:
	default:
	}
	*ex = exchange{
		c: c, to: to, logging: call.Logging, credit: WindowSize, sig: ex.sig, credits: ex.credits,
		pre: ex.pre[:0], body: small(ex.body), in: small(ex.in), out: small(ex.out),
	}
	if call.Body != nil && ex.credits == nil {
		ex.credits = make(chan struct{}, 1)
	}
	return ex
}

// small empties a buffer, and drops it if it is not worth keeping.
func small(p []byte) []byte {
	if cap(p) > 16<<10 {
		return nil
	}
	return p[:0]
}

// received is what the caller takes out at once.
type received struct {
	head    []byte
	body    []byte
	hasHead bool // head is new
	data    int  // bytes of body that count against the window
	ended   bool
	err     error
}

// take hands over what came in. It is valid until the next take.
func (ex *exchange) take() received {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	got := received{head: ex.in[:ex.head], body: ex.in[ex.head:], hasHead: ex.newHead, data: ex.data, ended: ex.ended, err: ex.err}
	ex.in, ex.out = ex.out[:0], ex.in
	ex.head, ex.newHead, ex.data = 0, false, 0
	return got
}

// deliver takes in a frame; called by the channel's reader.
func (ex *exchange) deliver(f Frame) error {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.id != f.ID {
		return nil // late
	}
	switch f.Type {
	case HEAD:
		return ex.onHead(f)
	case DATA:
		return ex.onData(f)
	case WINDOW:
		return ex.onWindow(f.Payload)
	case LOG:
		return ex.onLog(f.Payload)
	case RESET:
		ex.aborted, ex.ended = true, true
		ex.why = string(f.Payload[:min(len(f.Payload), 512)])
	}
	notify(ex.sig)
	return nil
}

func (ex *exchange) onHead(f Frame) error {
	head, body, err := SplitHead(f.Payload)
	if err != nil {
		return err
	}
	if ex.hasHead || len(body) > MaxData {
		return malformed("second head, or %d bytes with it", len(body))
	}
	ex.in = append(ex.in, f.Payload[2:]...)
	ex.head, ex.newHead, ex.hasHead = len(head), true, true
	ex.ended = f.Flags&End != 0
	notify(ex.sig)
	return nil
}

func (ex *exchange) onData(f Frame) error {
	n := len(f.Payload)
	if !ex.hasHead || n > MaxData {
		return malformed("%d bytes of body out of place", n)
	}
	if ex.owed += n; ex.owed > WindowSize {
		return malformed("window overrun")
	}
	ex.in = append(ex.in, f.Payload...)
	ex.data += n
	ex.ended = f.Flags&End != 0
	notify(ex.sig)
	return nil
}

func (ex *exchange) onWindow(p []byte) error {
	if len(p) != 4 {
		return malformed("credit of %d bytes", len(p))
	}
	ex.credit += int(binary.LittleEndian.Uint32(p) & (1<<31 - 1))
	if ex.credit > 1<<30 {
		return malformed("credit too large")
	}
	if ex.credits != nil {
		notify(ex.credits)
	}
	return nil
}

func (ex *exchange) onLog(p []byte) error {
	if len(p) < 1 || p[0] < 1 || p[0] > 2 {
		return malformed("log without a stream")
	}
	if ex.logging && len(p) > 1 {
		ex.to.Log(p[0], p[1:])
	}
	return nil
}

// fail ends the call: the channel is closed, or its body cannot be read.
func (ex *exchange) fail(id uint32, err error) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.id != id || ex.ended {
		return
	}
	ex.ended, ex.err = true, err
	notify(ex.sig)
}

// upload sends the call and its body as it is read.
func (ex *exchange) upload(ctx context.Context, id uint32, call Call) {
	buf := make([]byte, MaxData)
	n, err := io.ReadFull(call.Body, buf)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	flags := endIf(err)
	if err = unlessEOF(err); err == nil && ctx.Err() == nil {
		err = ex.start(id, call.Head, buf[:n], flags)
	}
	for err == nil && flags == 0 && ctx.Err() == nil {
		flags, err = ex.more(ctx, id, call.Body, buf)
	}
	if err != nil && ctx.Err() == nil {
		ex.fail(id, err)
	}
}

// more sends the next piece of the body.
func (ex *exchange) more(ctx context.Context, id uint32, body io.Reader, buf []byte) (flags byte, err error) {
	credit, err := ex.allowance(ctx)
	if err != nil {
		return 0, err
	}
	if err := ex.c.w.wait(ctx); err != nil {
		return 0, err
	}
	n, err := body.Read(buf[:min(credit, len(buf))])
	flags = endIf(err)
	if err := unlessEOF(err); err != nil {
		return 0, err
	}
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.id != id || ex.sealed {
		return 0, context.Canceled
	}
	ex.credit -= n
	ex.uploaded = flags == End
	if _, err = ex.c.w.send(Frame{id, DATA, flags, buf[:n]}, nil); err != nil {
		err = ErrClosed
	}
	return flags, err
}

// allowance waits until the harness takes more, and returns how much.
func (ex *exchange) allowance(ctx context.Context) (int, error) {
	for {
		ex.mu.Lock()
		credit := ex.credit
		ex.mu.Unlock()
		if credit > 0 {
			return credit, nil
		}
		select {
		case <-ex.credits:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func endIf(err error) byte {
	if err == io.EOF {
		return End
	}
	return 0
}

func unlessEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
