package pluginbox

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	pb "github.com/fnkit/fnkit/sandbox/pluginbox/internal/driverpb"
)

const (
	// window is how much of a body may be under way in one direction, in bytes. Whoever
	// takes it gives credit for what is taken: no reader of the channel ever waits for
	// a Sink or a function.
	window = 256 << 10
	// maxData is how much of a body or of logs a message has at most.
	maxData = 64 << 10
	// maxHead bounds method, path and headers, and those of the response.
	maxHead = 1 << 20
	// cancelGrace is how long the plugin has to say how a cancelled call ended.
	cancelGrace = 100 * time.Millisecond
)

// Invoke implements sandbox.Driver. A Sink's Write that blocks must end by itself;
// a Read of the request's body that blocks may outlast the call.
func (b *Box) Invoke(ctx context.Context, id string, r sandbox.Request, s sandbox.Sink) (sandbox.Result, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Result{Unsent: true}, err
	}
	if n := headSize(r.Method, r.Path, r.Headers); n > maxHead {
		return sandbox.Result{}, fmt.Errorf("pluginbox: head of %d bytes: %w", n, sandbox.ErrTooLarge)
	}
	p := b.current()
	if p == nil { // with it went the instance
		return sandbox.Result{Unsent: true, Retire: true}, fmt.Errorf("pluginbox: no plugin runs: %w", sandbox.ErrGone)
	}
	body, whole, err := inline(r.Body)
	if err != nil {
		return sandbox.Result{Unsent: true}, err
	}
	c := &call{p: p, ctx: ctx, sink: s, credit: window, credited: make(chan struct{}, 1)}
	c.session = newSession(ctx, p, cancelGrace, func() { c.stream.Send(&pb.InvokeRequest{Cancel: true}) })
	defer c.close()
	opened := false
	err = c.open(func(ctx context.Context) (err error) {
		if c.stream, err = p.driver.Invoke(ctx); err == nil {
			opened = true
			err = ignoreEOF(c.stream.Send(&pb.InvokeRequest{Call: toCall(id, r), Body: body, Last: whole}))
		}
		return err
	})
	if err != nil {
		return sandbox.Result{Unsent: !opened, Retire: true}, p.failed(ctx, "invoke", err)
	}
	if !whole {
		go c.upload(r.Body)
	}
	return c.receive()
}

func toCall(id string, r sandbox.Request) *pb.Call {
	return &pb.Call{
		Instance: id, Method: r.Method, Path: r.Path, Headers: toHeaders(r.Headers), Timeout: int64(r.Timeout), Logging: r.Logging,
		HasBody: r.Body != nil,
	}
}

func headSize(method, path string, headers []sandbox.Header) int {
	n := len(method) + len(path)
	for _, h := range headers {
		n += len(h.Name) + len(h.Value) + 8
	}
	return n
}

// inline returns a body that is small and in memory.
func inline(body io.Reader) (p []byte, whole bool, err error) {
	if body == nil {
		return nil, true, nil
	}
	b, ok := body.(interface{ Len() int })
	if !ok || b.Len() > maxData {
		return nil, false, nil
	}
	p = make([]byte, b.Len())
	_, err = io.ReadFull(body, p)
	return p, true, err
}

// call is the host's side of a call.
type call struct {
	*session
	p      *process
	ctx    context.Context // of the caller
	stream pb.Driver_InvokeClient
	sink   sandbox.Sink

	headed bool
	taken  int   // of the response's body, since the last credit
	failed error // of the sink
	passed bool  // something of the response was not passed on, since ctx ended

	mu       sync.Mutex
	credit   int           // how much of the request's body may be sent
	credited chan struct{} // cap 1
	bodyErr  error         // it cannot be read
}

// send sends a message. What went wrong is learnt by receiving.
func (c *call) send(m *pb.InvokeRequest) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.stream.Send(m)
}

// upload sends the request's body as it is read.
func (c *call) upload(body io.Reader) {
	buf := make([]byte, maxData)
	for last := false; !last; {
		most := c.allowance(len(buf))
		if most == 0 {
			return
		}
		n, err := body.Read(buf[:most])
		last = err == io.EOF
		switch {
		case c.session.ctx.Err() != nil:
			return
		case err != nil && !last:
			c.mu.Lock()
			c.bodyErr = err
			c.mu.Unlock()
			c.send(&pb.InvokeRequest{BodyError: cut(err.Error())})
			return
		case n > 0 || last:
			c.spend(n)
			c.send(&pb.InvokeRequest{Body: buf[:n], Last: last})
		}
	}
}

// allowance waits until the plugin takes more, and returns how much, up to most.
// When the call is over it is 0.
func (c *call) allowance(most int) int {
	for {
		c.mu.Lock()
		credit := c.credit
		c.mu.Unlock()
		if credit > 0 {
			return min(credit, most)
		}
		select {
		case <-c.credited:
		case <-c.session.ctx.Done():
			return 0
		}
	}
}

func (c *call) spend(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.credit -= n
}

// receive passes on the response. A small one is a single message, and is taken by
// the caller itself; a long one is received beside it, so that logs come
// through while the sink is busy.
func (c *call) receive() (sandbox.Result, error) {
	for {
		m, err := c.next()
		if err != nil {
			return c.broken(err)
		}
		if m.End == nil && m.Head != nil {
			return c.follow(m)
		}
		if m.End != nil {
			c.pass(m)
			return c.finish(m.End)
		}
	}
}

// next receives a message and does what needs no waiting.
func (c *call) next() (*pb.InvokeResponse, error) {
	m, err := c.stream.Recv()
	if err != nil {
		return nil, err
	}
	for _, l := range m.Logs {
		stream := sandbox.Stdout
		if sandbox.Stream(l.Stream) == sandbox.Stderr {
			stream = sandbox.Stderr
		}
		c.sink.Log(stream, l.Lines)
	}
	if m.Window > 0 {
		c.mu.Lock()
		c.credit = min(c.credit+int(m.Window), window)
		c.mu.Unlock()
		notify(c.credited)
	}
	if (m.Head != nil) == c.headed && (m.Head != nil || len(m.Body) > 0 || m.Flush) || len(m.Body) > maxData {
		return nil, fmt.Errorf("head or %d bytes of body out of place", len(m.Body))
	}
	c.headed = c.headed || m.Head != nil
	return m, nil
}

// arrivals are the messages of a long response that were not passed on yet.
type arrivals struct {
	mu    sync.Mutex
	list  []*pb.InvokeResponse
	owed  int // bytes of body that came and were not credited
	err   error
	some  chan struct{} // cap 1
	ended bool
}

// fill receives until the end.
func (c *call) fill(a *arrivals) {
	for {
		m, err := c.next()
		a.mu.Lock()
		if err == nil {
			if a.owed += len(m.Body); a.owed > window {
				err = fmt.Errorf("%d bytes of body more than were asked for", a.owed-window)
			}
		}
		if err == nil && (m.Head != nil || len(m.Body) > 0 || m.Flush || m.End != nil) {
			a.list = append(a.list, m)
		}
		a.err, a.ended = err, err != nil || m.End != nil
		ended := a.ended
		a.mu.Unlock()
		notify(a.some)
		if ended {
			return
		}
	}
}

// take waits for messages, and returns them.
func (a *arrivals) take() (list []*pb.InvokeResponse, err error) {
	for {
		a.mu.Lock()
		list, a.list = a.list, nil
		ended := a.ended
		err = a.err
		a.mu.Unlock()
		if len(list) > 0 || ended {
			return list, err
		}
		<-a.some
	}
}

// follow passes on a long response, of which m is the first.
func (c *call) follow(m *pb.InvokeResponse) (sandbox.Result, error) {
	a := &arrivals{list: []*pb.InvokeResponse{m}, owed: len(m.Body), some: make(chan struct{}, 1)}
	var receiving sync.WaitGroup
	receiving.Go(func() { c.fill(a) })
	defer receiving.Wait()
	defer c.close() // ends it
	for {
		list, err := a.take()
		for _, m := range list {
			c.pass(m)
			if m.End != nil {
				return c.finish(m.End)
			}
			c.acknowledge(a, m)
		}
		if err != nil {
			return c.broken(err)
		}
	}
}

// pass hands a message to the sink, unless that has failed or nobody waits for it.
func (c *call) pass(m *pb.InvokeResponse) {
	if c.failed == nil && c.ctx.Err() != nil {
		c.passed = true
	}
	if c.failed != nil || c.passed {
		return
	}
	if c.failed = c.deliver(m); c.failed != nil && m.End == nil {
		c.send(&pb.InvokeRequest{Abandon: true})
	}
}

func (c *call) deliver(m *pb.InvokeResponse) error {
	if m.Head != nil {
		if err := c.sink.Head(int(m.Head.Status), fromHeaders(m.Head.Headers)); err != nil {
			return err
		}
	}
	if len(m.Body) > 0 {
		if _, err := c.sink.Write(m.Body); err != nil {
			return err
		}
	}
	if f, ok := c.sink.(sandbox.Flusher); ok && m.Flush {
		return f.Flush()
	}
	return nil
}

// acknowledge says what was taken.
func (c *call) acknowledge(a *arrivals, m *pb.InvokeResponse) {
	c.taken += len(m.Body)
	if !m.Flush && c.taken < window/2 {
		return
	}
	a.mu.Lock()
	a.owed -= c.taken
	a.mu.Unlock()
	c.send(&pb.InvokeRequest{Window: uint32(c.taken), Flushed: m.Flush})
	c.taken = 0
}

// finish returns how the call ended, as the plugin says.
func (c *call) finish(e *pb.InvokeEnd) (sandbox.Result, error) {
	res, err := fromResult(e), fromError(e.Error)
	switch {
	case c.failed != nil:
		return res, c.failed
	case c.passed, err != nil && c.ctx.Err() != nil:
		return res, c.ctx.Err()
	case err != nil:
		return res, c.own(err)
	}
	return res, nil
}

// own returns the error of the request's body in place of what the plugin knows
// of it.
func (c *call) own(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bodyErr != nil {
		return c.bodyErr
	}
	return err
}

// broken returns how a call ended whose end the plugin has not told.
func (c *call) broken(err error) (sandbox.Result, error) {
	res := sandbox.Result{Retire: true}
	if c.failed != nil {
		return res, c.failed
	}
	return res, c.p.failed(c.ctx, "invoke", err)
}

func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
