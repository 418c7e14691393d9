package procbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fnkit/fnkit/internal/frame"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/harness"
)

// web is the channel to a program that serves HTTP itself, as
// [sandbox.Exec] describes. Each call is a connection of its own, so that whatever a
// program writes to one, no other call gets it.
type web struct {
	dir      *os.File // the socket's; its path may be longer than an address
	addr     string
	console  *console
	enforced map[string]string // request headers set by OPEN_RUNTIMES_HEADERS
	answered atomic.Bool       // a call
}

// socketName is the socket's file in a scratch directory.
const socketName = "http"

// newWeb makes the socket in a scratch directory. listener is for the program alone:
// when that has ended, connections to it fail.
func newWeb(scratch string, env map[string]string, out *tail) (w *web, listener *os.File, err error) {
	w = &web{enforced: enforcedHeaders(env["OPEN_RUNTIMES_HEADERS"])}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.dir, err = os.Open(scratch); err != nil {
		return nil, nil, err
	}
	w.addr = socketAddress(w.dir)
	l, err := net.Listen("unix", w.addr)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if w.console, err = newConsole(out); err != nil {
		return nil, nil, err
	}
	if listener, err = l.(*net.UnixListener).File(); err != nil {
		return nil, nil, err
	}
	return w, listener, setBlocking(listener)
}

// Close lets go of the channel; the program must have ended.
func (w *web) Close() error {
	return errors.Join(w.console.Close(), w.dir.Close())
}

// enforcedHeaders are those that every request has, whatever the caller sent.
func enforcedHeaders(text string) map[string]string {
	var given map[string]any
	if json.Unmarshal([]byte(text), &given) != nil {
		return nil
	}
	headers := map[string]string{}
	for name, value := range given {
		if s, ok := value.(string); ok {
			headers[strings.ToLower(name)] = s
		} else if p, err := json.Marshal(value); err == nil {
			headers[strings.ToLower(name)] = string(p)
		}
	}
	return headers
}

// inherited are the variables that tell a program of its socket.
var inherited = map[string]string{"LISTEN_FDS": "1", "FNKIT_SOCKET": "/dev/fd/3"}

// execVersion is the version of the protocol that such programs speak.
const execVersion = "1"

// invokeWeb makes one call. Its end is judged as that of other calls is.
func (b *Box) invokeWeb(ctx context.Context, i *instance, r sandbox.Request, s sandbox.Sink) (sandbox.Result, error) {
	head, err := i.web.appendHead(nil, &r)
	if err != nil {
		return sandbox.Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return sandbox.Result{}, err
	}
	c := &webCall{web: i.web, request: r, sink: s, head: head, gone: i.dead}
	c.console = i.web.console.begin(s, r.Logging)
	stop := context.AfterFunc(ctx, func() {
		b.end(i, "")
		c.hangUp(ctx.Err())
	})
	e := c.run()
	if canceled := !stop(); canceled && e.err != nil {
		e.err = ctx.Err()
	}
	if errors.Is(e.err, frame.ErrClosed) && !i.endsWithin(exitGrace) {
		b.end(i, "it closed its socket")
	}
	if e.err == nil {
		i.tell(e.head.status, r.Logging, s)
	}
	res, err := b.settle(ctx, i, e)
	if c.surplus {
		b.end(i, "it sent more than its answer")
		res.Retire = true
	}
	i.web.console.end(c.console)
	return res, err
}

func (i *instance) endsWithin(d time.Duration) bool {
	i.wait(d)
	select {
	case <-i.dead:
		return true
	default:
		return false
	}
}

// webCall is one call.
type webCall struct {
	*web
	request sandbox.Request
	sink    sandbox.Sink
	head    []byte
	console *consoleCall
	gone    <-chan struct{} // closed when the instance is
	surplus bool            // bytes came after the answer

	mu     sync.Mutex
	conn   net.Conn
	broken error // why this side closed the connection
}

// errSoftTimeout ends a call whose Timeout passed.
var errSoftTimeout = errors.New("timeout")

// hangUp closes the connection for a reason of this side's. The first counts.
func (c *webCall) hangUp(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = why
	}
	if c.conn != nil {
		c.conn.Close()
	}
}

// reason is why this side closed the connection, or else err.
func (c *webCall) reason(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	return err
}

var errOver = errors.New("the call is over")

func (c *webCall) run() ended {
	var timeout *time.Timer
	if c.request.Timeout > 0 {
		timeout = time.AfterFunc(c.request.Timeout, func() { c.hangUp(errSoftTimeout) })
		defer timeout.Stop()
	}
	err := c.dial()
	if err != nil {
		return ended{err: err, Outcome: frame.Outcome{Unsent: c.answered.Load()}}
	}
	defer c.hangUp(errOver)
	if err := c.send(); err != nil {
		return ended{err: err}
	}
	in := &answerReader{conn: c.conn, left: frame.MaxHead}
	in.buf = bufio.NewReaderSize(in, 8<<10)
	res, err := in.head(c.request.Method)
	if timeout != nil && !timeout.Stop() {
		err = errSoftTimeout
	}
	if err = c.reason(err); err != nil {
		return c.unanswered(in, err)
	}
	c.answered.Store(true)
	if err := c.sink.Head(res.StatusCode, responseFields(res.Header)); err != nil {
		return ended{err: err}
	}
	return c.receive(in, res.Body)
}

// dial connects. A connection waits in the program's backlog until it is accepted,
// so that a program that has just been started need not be waited for.
func (c *webCall) dial() error {
	conn, err := net.Dial("unix", c.addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.broken != nil && err == nil:
		conn.Close()
		return c.broken
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return frame.ErrClosed
	}
	c.conn = conn
	return err
}

// unanswered is the end of a call without a valid head of an answer.
func (c *webCall) unanswered(in *answerReader, err error) ended {
	switch {
	case errors.Is(err, errSoftTimeout):
		return c.fail("Execution timed out.", responseHead{timedOut: true, retire: true})
	case c.reason(nil) != nil:
		return ended{err: err}
	case in.read == 0 && hungUp(err):
		select {
		case <-c.gone:
			return ended{err: frame.ErrClosed}
		case <-time.After(exitGrace):
			return c.fail("The function closed the connection without an answer.", responseHead{})
		}
	case hungUp(err):
		err = errors.New("it ended in the middle")
	}
	return ended{err: fmt.Errorf("%w: answer: %w", frame.ErrProtocol, err)}
}

// fail answers 500 in place of the program, and says why in its log.
func (c *webCall) fail(why string, head responseHead) ended {
	head.status = http.StatusInternalServerError
	if c.request.Logging {
		c.sink.Log(sandbox.Stderr, []byte(why+"\n"))
	}
	return ended{err: c.sink.Head(head.status, nil), head: head}
}

// hungUp reports whether the program closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// receive passes on the body.
func (c *webCall) receive(in *answerReader, body io.Reader) ended {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	piece := *buf
	for {
		n, err := body.Read(piece)
		if n > 0 {
			if _, err := c.sink.Write(piece[:n]); err != nil {
				return ended{err: err}
			}
		}
		switch {
		case err == io.EOF:
			c.surplus = in.buf.Buffered() > 0 || pending(c.conn) == somePending
			return ended{Outcome: frame.Outcome{Over: true}}
		case err != nil:
			return c.brokenOff(c.reason(err))
		}
		if f, ok := c.sink.(sandbox.Flusher); ok && in.buf.Buffered() == 0 && pending(c.conn) == nonePending {
			if err := f.Flush(); err != nil {
				return ended{err: err}
			}
		}
	}
}

var pieces = sync.Pool{New: func() any { p := make([]byte, 32<<10); return &p }}

// brokenOff is the end of a call whose answer is not complete.
func (c *webCall) brokenOff(err error) ended {
	if c.reason(nil) != nil {
		return ended{err: err}
	}
	if !hungUp(err) {
		return ended{err: fmt.Errorf("%w: body: %w", frame.ErrProtocol, err)}
	}
	select {
	case <-c.gone:
		return ended{err: frame.ErrClosed}
	case <-time.After(exitGrace):
		return ended{Outcome: frame.Outcome{Aborted: true, Why: "the function closed the connection", Over: true}}
	}
}

// send sends the request, the body in the background unless it is small and in
// memory. That a program does not take all of it is no error: its answer counts.
func (c *webCall) send() error {
	body := c.request.Body
	if body == nil {
		c.conn.Write(c.head)
		return nil
	}
	sized, ok := body.(interface{ Len() int })
	if ok && sized.Len() <= frame.MaxData {
		p, err := io.ReadAll(body)
		if err == nil {
			c.conn.Write(append(c.head, p...))
		}
		return err
	}
	go c.upload(c.conn, body, !ok)
	return nil
}

// upload may outlast the call if the body's Read does.
func (c *webCall) upload(conn net.Conn, body io.Reader, chunked bool) {
	if _, err := conn.Write(c.head); err != nil {
		return
	}
	piece := make([]byte, frame.MaxData)
	for {
		n, err := body.Read(piece)
		if n > 0 {
			out := piece[:n]
			if chunked {
				out = fmt.Appendf(nil, "%x\r\n%s\r\n", n, out)
			}
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
		switch {
		case err == io.EOF && chunked:
			io.WriteString(conn, "0\r\n\r\n")
			return
		case err == io.EOF:
			return
		case err != nil:
			c.hangUp(err)
			return
		}
	}
}

// appendHead appends the head of a request.
func (w *web) appendHead(b []byte, r *sandbox.Request) ([]byte, error) {
	if !isToken(r.Method) {
		return nil, fmt.Errorf("procbox: method %q cannot be sent", r.Method)
	}
	b = append(append(b, r.Method...), ' ')
	b = appendTarget(b, r.Path)
	b = append(b, " HTTP/1.1\r\n"...)
	if !slices.ContainsFunc(r.Headers, named("host")) && w.enforced["host"] == "" {
		b = append(b, "host: localhost\r\n"...)
	}
	for i, h := range r.Headers {
		if w.carries(h.Name) && !slices.ContainsFunc(r.Headers[:i], named(h.Name)) {
			b = appendField(b, h.Name, joined(r.Headers[i:]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.enforced)) {
		if isToken(name) && !slices.Contains(ofConnection, name) {
			b = appendField(b, name, w.enforced[name])
		}
	}
	b = append(b, "connection: close\r\n"...)
	switch sized, ok := r.Body.(interface{ Len() int }); {
	case ok:
		b = fmt.Appendf(b, "content-length: %d\r\n", sized.Len())
	case r.Body != nil:
		b = append(b, "transfer-encoding: chunked\r\n"...)
	case !slices.Contains([]string{"GET", "HEAD", "OPTIONS", "DELETE"}, r.Method):
		b = append(b, "content-length: 0\r\n"...)
	}
	b = append(b, "\r\n"...)
	if len(b) > frame.MaxHead {
		return nil, fmt.Errorf("procbox: head of %d bytes: %w", len(b), sandbox.ErrTooLarge)
	}
	return b, nil
}

// ofConnection are headers that this side sets itself, or that no function gets.
var ofConnection = []string{
	"connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// carries reports whether a header of the call's reaches the program.
func (w *web) carries(name string) bool {
	_, over := w.enforced[name]
	return !over && isToken(name) && !slices.Contains(ofConnection, name) && !strings.HasPrefix(name, "x-open-runtimes-")
}

func named(name string) func(sandbox.Header) bool {
	return func(h sandbox.Header) bool { return h.Name == name }
}

// appendField appends a header field on one line, whatever its value.
func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	for _, c := range []byte(value) {
		if c == '\r' || c == '\n' || c == 0 {
			c = ' '
		}
		b = append(b, c)
	}
	return append(b, "\r\n"...)
}

// appendTarget appends a path with what a request line cannot hold escaped.
func appendTarget(b []byte, path string) []byte {
	if !strings.HasPrefix(path, "/") {
		b = append(b, '/')
	}
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f {
			b = fmt.Appendf(b, "%%%02X", c)
		} else {
			b = append(b, c)
		}
	}
	return b
}

func isToken(s string) bool {
	other := func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	}
	return s != "" && !strings.ContainsFunc(s, other)
}

// responseFields are a response's headers, less those of its connection.
func responseFields(h http.Header) (fields []sandbox.Header) {
	for _, key := range slices.Sorted(maps.Keys(h)) {
		name := strings.ToLower(key)
		if slices.Contains(ofConnection, name) || strings.HasPrefix(name, "x-open-runtimes-") {
			continue
		}
		for _, value := range h[key] {
			fields = append(fields, sandbox.Header{Name: name, Value: value})
		}
	}
	return fields
}

// answerReader reads from a connection; heads are bounded.
type answerReader struct {
	conn net.Conn
	buf  *bufio.Reader
	read int64
	left int // bytes of heads that may come; -1: the head is there
}

var errHeadTooLarge = fmt.Errorf("its head is longer than %d bytes", frame.MaxHead)

func (a *answerReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, errHeadTooLarge
	}
	if a.left > 0 && len(p) > a.left {
		p = p[:a.left]
	}
	n, err := a.conn.Read(p)
	a.read += int64(n)
	if a.left > 0 {
		a.left -= n
	}
	return n, err
}

// head reads up to the head of the final response. Those before it count against the
// bound too.
func (a *answerReader) head(method string) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(a.buf, &http.Request{Method: method})
		switch {
		case a.left == 0 && err != nil:
			return nil, errHeadTooLarge
		case err != nil:
			return nil, err
		case res.ProtoMajor != 1 || res.StatusCode == http.StatusSwitchingProtocols:
			return nil, fmt.Errorf("%s %s", res.Proto, res.Status)
		case res.StatusCode >= 200 || res.StatusCode < 100:
			a.left = -1
			return res, nil
		}
	}
}

// buildExecutable looks whether there is a program once the build commands have run.
func buildExecutable(_ context.Context, b harness.Build) (failure string, err error) {
	return checkExecutable(b.Dir, b.Entrypoint), nil
}

// checkExecutable finds out why an entrypoint cannot be run; empty: it seems that it can.
func checkExecutable(dir, entrypoint string) string {
	missing := fmt.Sprintf("Failed to load entrypoint, file %s does not exist.", entrypoint)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return missing
	}
	defer root.Close()
	st, err := root.Stat(filepath.FromSlash(entrypoint))
	switch {
	case err != nil || !st.Mode().IsRegular():
		return missing
	case st.Mode()&0o111 == 0:
		return fmt.Sprintf("Failed to load entrypoint, file %s is not executable.", entrypoint)
	}
	return ""
}
