package fnbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/fnkit/fnkit/sandbox"
)

// logLimit is how much of one line is logged, in bytes.
const logLimit = 8000

var (
	errOver   = errors.New("fnbox: the call is over")
	errNoHead = errors.New("fnbox: Write before Head")
	errHead   = errors.New("fnbox: the response has begun")
)

// Context is what a function gets: the request, and the means to answer it.
// Log, Error and Env may be called from several goroutines.
type Context struct {
	Req Request

	env      map[string]string
	headers  []sandbox.Header // set by SetHeader and AddHeader
	response *piece           // what was answered
	started  bool             // Head was called
	logs     logs
	ended    <-chan struct{} // closed when the call must end
	over     chan struct{}   // closed when it is over
	pieces   chan piece      // of a stream, to the caller of the sink
	written  chan error      // its answer to each
}

type piece struct {
	status  int
	headers []sandbox.Header
	body    []byte
}

// Env returns a variable of the function's environment, or "".
func (c *Context) Env(name string) string { return c.env[name] }

// LookupEnv is as Env; ok reports whether the variable exists.
func (c *Context) LookupEnv(name string) (value string, ok bool) {
	value, ok = c.env[name]
	return value, ok
}

// Environ returns all variables of the function's environment.
func (c *Context) Environ() map[string]string {
	return maps.Clone(c.env)
}

// Log writes a line to the execution's logs: the arguments with a space between.
func (c *Context) Log(args ...any) { c.logs.write(sandbox.Stdout, args) }

// Error writes a line to the execution's errors, as Log does.
func (c *Context) Error(args ...any) { c.logs.write(sandbox.Stderr, args) }

// SetHeader sets a header of the response. It replaces earlier values, and is to be
// called before the method that answers.
func (c *Context) SetHeader(name, value string) {
	name = strings.ToLower(name)
	kept := c.headers[:0:0]
	for _, h := range c.headers {
		if h.Name != name {
			kept = append(kept, h)
		}
	}
	c.headers = append(kept, sandbox.Header{Name: name, Value: value})
}

// AddHeader adds a header to the response beside those of the same name.
func (c *Context) AddHeader(name, value string) {
	c.headers = append(c.headers, sandbox.Header{Name: strings.ToLower(name), Value: value})
}

// Text answers with a text. Like all that answer it returns an error only if the
// response has begun already.
func (c *Context) Text(status int, body string) error { return c.respond(status, []byte(body)) }

// Binary answers with bytes, which must not change afterwards.
func (c *Context) Binary(status int, body []byte) error { return c.respond(status, body) }

// JSON answers with v in JSON, or returns the error of making it.
func (c *Context) JSON(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.SetHeader("content-type", "application/json")
	return c.respond(status, body)
}

// Empty answers 204 with nothing.
func (c *Context) Empty() error { return c.respond(204, nil) }

// Redirect sends the client to url; status is 301 for ever, 302 or another.
func (c *Context) Redirect(status int, url string) error {
	c.SetHeader("location", url)
	return c.respond(status, nil)
}

// Head begins a response whose body follows by Write as it is produced.
func (c *Context) Head(status int) error {
	if c.started {
		return errHead
	}
	c.started = true
	return c.send(piece{status: status, headers: responseHeaders(c.headers)})
}

// Write sends a piece of the body after Head. It blocks while the client does not
// take more, and fails when the call is over. Call it from one goroutine at a time.
func (c *Context) Write(p []byte) (int, error) {
	if !c.started {
		return 0, errNoHead
	}
	if err := c.send(piece{body: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *Context) respond(status int, body []byte) error {
	if c.started {
		return errHead
	}
	c.response = &piece{status: status, headers: responseHeaders(c.headers), body: body}
	return nil
}

func (c *Context) send(p piece) error {
	select {
	case c.pieces <- p:
		return <-c.written
	case <-c.ended:
	case <-c.over:
	}
	return errOver
}

// responseHeaders applies what every runtime does to headers: a content type
// with a character set, and none of the reserved names.
func responseHeaders(given []sandbox.Header) []sandbox.Header {
	typed := false
	headers := make([]sandbox.Header, 0, len(given)+1)
	for _, h := range given {
		if strings.HasPrefix(h.Name, "x-open-runtimes-") {
			continue
		}
		if h.Name == "content-type" {
			typed, h.Value = true, contentType(h.Value)
		}
		headers = append(headers, h)
	}
	if !typed {
		headers = append(headers, sandbox.Header{Name: "content-type", Value: contentType("text/plain")})
	}
	return headers
}

func contentType(value string) string {
	lower := strings.ToLower(value)
	if strings.HasPrefix(lower, "multipart/") || strings.Contains(lower, "charset=") {
		return value
	}
	return lower + "; charset=utf-8"
}

// logs hands lines to the sink until the call is over.
type logs struct {
	on   bool
	mu   sync.Mutex
	sink sandbox.Sink // nil: the call is over
}

func (l *logs) write(stream sandbox.Stream, args []any) {
	if !l.on {
		return
	}
	line := strings.TrimSuffix(fmt.Sprintln(args...), "\n")
	if len(line) > logLimit {
		line = strings.ToValidUTF8(line[:logLimit], "") + "... Log truncated due to size limit (8000 characters)"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sink != nil {
		l.sink.Log(stream, []byte(line+"\n"))
	}
}

func (l *logs) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sink = nil
}
