package pluginbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fnkit/fnkit/sandbox"
	pb "github.com/fnkit/fnkit/sandbox/pluginbox/internal/driverpb"
)

const (
	// abandonGrace is how long a driver has to notice by itself, at its next Write or
	// Flush, that the host's Sink failed, before the call is cancelled.
	abandonGrace = time.Second
	// maxLogs is how much of a call's logs may wait to be sent, in bytes.
	maxLogs = 1 << 20
)

// dropped is logged in place of lines that came faster than they could be sent.
const dropped = "Log lines were dropped: they came faster than they could be sent.\n"

// served is the plugin's side of a call: the driver's Sink.
type served struct {
	stream pb.Driver_InvokeServer
	ctx    context.Context // of the driver's call
	cancel context.CancelFunc
	body   *upload // nil: the body is whole

	sendMu sync.Mutex
	over   bool // the end was sent

	// Of the driver's goroutine that calls Head, Write and Flush.
	head *pb.Head // not sent yet
	buf  []byte   // body that was not sent yet

	signal chan struct{} // cap 1: one of the next changed

	mu        sync.Mutex
	credit    int // how much of the body may be sent
	flushing  bool
	abandoned bool
	broken    error // the host breaks the rules

	logs    []*pb.Log // not sent yet
	logged  int       // bytes of them
	full    bool      // some were dropped
	sending bool      // somebody is about to send them
}

var _ sandbox.Sink = (*served)(nil)
var _ sandbox.Flusher = (*served)(nil)

func newServed(stream pb.Driver_InvokeServer) *served {
	k := &served{stream: stream, signal: make(chan struct{}, 1), credit: window}
	k.ctx, k.cancel = context.WithCancel(stream.Context())
	return k
}

var errProtocol = status.Error(codes.InvalidArgument, "pluginbox: message out of place")

// request makes the driver's request of the host's first message.
func (k *served) request(first *pb.InvokeRequest) (sandbox.Request, error) {
	c := first.Call
	if c == nil || len(first.Body) > maxData {
		return sandbox.Request{}, errProtocol
	}
	r := sandbox.Request{
		Method: c.Method, Path: c.Path, Headers: fromHeaders(c.Headers), Timeout: time.Duration(c.Timeout), Logging: c.Logging,
	}
	switch {
	case !c.HasBody:
	case first.Last:
		r.Body = bytes.NewReader(first.Body)
	default:
		k.body = &upload{call: k, signal: make(chan struct{}, 1)}
		r.Body = k.body
	}
	return r, nil
}

// read takes what else the host says until the stream ends.
func (k *served) read() {
	defer k.cancel()
	for {
		m, err := k.stream.Recv()
		if err != nil {
			return
		}
		if err := k.take(m); err != nil {
			k.mu.Lock()
			k.broken = err
			k.mu.Unlock()
			return
		}
	}
}

func (k *served) take(m *pb.InvokeRequest) error {
	if m.Cancel {
		k.cancel()
	}
	if m.Body != nil || m.Last || m.BodyError != "" {
		if k.body == nil || !k.body.add(m) {
			return errProtocol
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.credit += int(m.Window); k.credit > window {
		return errProtocol
	}
	if m.Flushed {
		k.flushing = false
	}
	if m.Abandon && !k.abandoned {
		k.abandoned = true
		time.AfterFunc(abandonGrace, k.cancel)
	}
	notify(k.signal)
	return nil
}

// Head implements sandbox.Sink. It goes with what comes next.
func (k *served) Head(status int, h []sandbox.Header) error {
	if headSize("", "", h) > maxHead {
		return errors.New("pluginbox: the head of the response is too large")
	}
	k.head = &pb.Head{Status: int32(status), Headers: toHeaders(h)}
	return k.state()
}

// Write implements sandbox.Sink.
func (k *served) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if len(k.buf) == maxData {
			if err := k.emit(&pb.InvokeResponse{}); err != nil {
				return n, err
			}
		}
		piece := p[n:min(len(p), n+maxData-len(k.buf))]
		k.buf = append(k.buf, piece...)
		n += len(piece)
	}
	return n, k.state()
}

// Flush implements sandbox.Flusher: it returns when the host has flushed. So a
// driver that waits for its function knows whether anybody still waits for it.
func (k *served) Flush() error {
	if k.head == nil && len(k.buf) == 0 {
		return k.state()
	}
	k.mu.Lock()
	k.flushing = true
	k.mu.Unlock()
	if err := k.emit(&pb.InvokeResponse{Flush: true}); err != nil {
		return err
	}
	return k.until(func() bool { return !k.flushing })
}

// emit sends what is held back, with m, once the host takes it.
func (k *served) emit(m *pb.InvokeResponse) error {
	if err := k.until(func() bool { return k.credit >= len(k.buf) }); err != nil {
		return err
	}
	k.mu.Lock()
	k.credit -= len(k.buf)
	k.mu.Unlock()
	m.Head, m.Body = k.head, k.buf
	err := k.send(m)
	k.head, k.buf = nil, k.buf[:0]
	return err
}

// until waits for a condition; it fails when the call must end.
func (k *served) until(cond func() bool) error {
	for {
		k.mu.Lock()
		met := cond()
		k.mu.Unlock()
		if err := k.state(); err != nil || met {
			return err
		}
		select {
		case <-k.signal:
		case <-k.ctx.Done():
		}
	}
}

// state says why the response is not wanted any more, if so.
func (k *served) state() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.abandoned {
		return errAbandoned
	}
	return k.ctx.Err()
}

// send sends a message with logs that wait.
func (k *served) send(m *pb.InvokeResponse) error {
	k.sendMu.Lock()
	defer k.sendMu.Unlock()
	if k.over {
		return errOver
	}
	m.Logs, _ = k.takeLogs()
	return k.stream.Send(m)
}

// errOver: a driver used what it was given after it returned.
var errOver = errors.New("pluginbox: the call is over")

// Log implements sandbox.Sink.
func (k *served) Log(stream sandbox.Stream, lines []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.logged+len(lines) > maxLogs {
		if k.full {
			return
		}
		k.full, stream, lines = true, sandbox.Stderr, []byte(dropped)
	}
	for rest := lines; len(rest) > 0; {
		piece := rest[:min(len(rest), maxData)]
		rest = rest[len(piece):]
		k.logs = append(k.logs, &pb.Log{Stream: int32(stream), Lines: bytes.Clone(piece)})
	}
	k.logged += len(lines)
	if !k.sending {
		k.sending = true
		go k.sendLogs()
	}
}

// sendLogs sends logs for which no other message was there. It is not waited for:
// once the call is over there are none.
func (k *served) sendLogs() {
	for more := true; more; {
		k.sendMu.Lock()
		var logs []*pb.Log
		if logs, more = k.takeLogs(); len(logs) > 0 && !k.over {
			more = k.stream.Send(&pb.InvokeResponse{Logs: logs}) == nil && more
		}
		k.sendMu.Unlock()
	}
}

// takeLogs takes as much of the logs as fits into a message. If there are no more
// nobody is about to send them.
func (k *served) takeLogs() (logs []*pb.Log, more bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, size := 0, 0
	for n < len(k.logs) && (n == 0 || size+len(k.logs[n].Lines) <= maxData) {
		size += len(k.logs[n].Lines)
		n++
	}
	logs, k.logs = k.logs[:n], k.logs[n:]
	k.logged -= size
	if len(k.logs) == 0 {
		k.full, k.sending = false, false
	}
	return logs, len(k.logs) > 0
}

// finish sends the rest and how the call ended.
func (k *served) finish(res sandbox.Result, err error) error {
	k.mu.Lock()
	broken := k.broken
	k.mu.Unlock()
	if broken != nil {
		return broken
	}
	m := &pb.InvokeResponse{}
	if len(k.buf) > 0 || k.head != nil {
		sent := k.until(func() bool { return k.credit >= len(k.buf) })
		if sent == nil {
			m.Head, m.Body = k.head, k.buf
		} else if err == nil {
			err = sent
		}
	}
	m.End = toResult(res, err)
	k.sendMu.Lock()
	defer k.sendMu.Unlock()
	k.over = true
	logs, more := k.takeLogs()
	for ; more; logs, more = k.takeLogs() {
		if err := k.stream.Send(&pb.InvokeResponse{Logs: logs}); err != nil {
			return err
		}
	}
	m.Logs = logs
	return k.stream.Send(m)
}

// upload is the request's body as it comes.
type upload struct {
	call   *served
	signal chan struct{} // cap 1

	mu    sync.Mutex
	list  [][]byte
	owed  int // bytes that came and were not credited
	taken int // of them, were read
	end   error
}

// add takes what came; false: it is out of place.
func (u *upload) add(m *pb.InvokeRequest) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.owed += len(m.Body); u.end != nil || u.owed > window || len(m.Body) > maxData {
		return false
	}
	if len(m.Body) > 0 {
		u.list = append(u.list, m.Body)
	}
	switch {
	case m.BodyError != "":
		u.end = bodyError(m.BodyError)
	case m.Last:
		u.end = io.EOF
	}
	notify(u.signal)
	return true
}

// bodyError is what the host said of the body.
type bodyError string

func (e bodyError) Error() string { return string(e) }
func (e bodyError) Unwrap() error { return errBody }

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	for len(p) > 0 {
		n, credit, err := u.next(p)
		if credit > 0 {
			u.call.send(&pb.InvokeResponse{Window: uint32(credit)})
		}
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-u.signal:
		case <-u.call.ctx.Done():
			return 0, u.call.ctx.Err()
		}
	}
	return 0, nil
}

func (u *upload) next(p []byte) (n, credit int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.list) == 0 {
		return 0, 0, u.end
	}
	n = copy(p, u.list[0])
	if u.list[0] = u.list[0][n:]; len(u.list[0]) == 0 {
		u.list = u.list[1:]
	}
	if u.taken += n; u.taken >= window/2 && u.end == nil {
		credit = u.taken
		u.owed -= credit
		u.taken = 0
	}
	return n, credit, nil
}
