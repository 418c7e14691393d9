package procbox

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/fnkit/fnkit/sandbox"
)

// lineLimit is how much of a line is kept.
const (
	lineLimit = 8000
	lineCut   = "... Log truncated due to size limit (8000 characters)"
)

// console takes what a program prints. It belongs to the one call that runs; what
// is printed while none does, or several, only to the instance.
type console struct {
	tail    *tail
	streams [2]*consoleStream

	mu    sync.Mutex
	calls []*consoleCall
}

type consoleStream struct {
	stream   sandbox.Stream
	host     *os.File
	program  *os.File // nil: the program has it alone
	raw      syscall.RawConn
	buf      []byte
	rest     []byte // of a line; no more than lineLimit and one
	followed chan struct{}
}

// consoleCall is a call whose output is taken.
type consoleCall struct {
	sink    sandbox.Sink
	logging bool
}

func newConsole(t *tail) (c *console, err error) {
	c = &console{tail: t}
	for n, stream := range []sandbox.Stream{sandbox.Stdout, sandbox.Stderr} {
		s := &consoleStream{stream: stream, buf: make([]byte, lineLimit), followed: make(chan struct{})}
		if s.host, s.program, err = os.Pipe(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.streams[n] = s
		if s.raw, err = s.host.SyscallConn(); err != nil {
			close(s.followed)
			return nil, errors.Join(err, c.Close())
		}
		go c.follow(s)
	}
	return c, nil
}

// inherit lets go of the program's ends, once it has them.
func (c *console) inherit() {
	for _, s := range c.streams {
		s.program.Close()
	}
}

// Close ends the console; the program has ended.
func (c *console) Close() error {
	if c == nil {
		return nil
	}
	for _, s := range c.streams {
		if s != nil {
			s.program.Close()
			s.host.Close()
			<-s.followed
		}
	}
	return nil
}

// follow takes what is printed as it comes.
func (c *console) follow(s *consoleStream) {
	defer close(s.followed)
	s.raw.Read(func(fd uintptr) (ended bool) {
		for {
			switch _, err := c.take(s, fd); err {
			case nil, syscall.EINTR:
			case syscall.EAGAIN:
				return false // wait for more
			default:
				return true
			}
		}
	})
}

var errNoMore = errors.New("no more")

// take reads once what is there. Whoever reads has it passed on before another
// reads.
func (c *console) take(s *consoleStream, fd uintptr) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := readNow(fd, s.buf)
	if err != nil {
		return 0, err
	}
	if n <= 0 {
		return 0, errNoMore
	}
	c.tail.Write(s.buf[:n])
	c.give(s, s.split(s.buf[:n]))
	return n, nil
}

// split returns the lines that p completes, and keeps what follows them. p is no
// longer than a line may be.
func (s *consoleStream) split(p []byte) (lines []byte) {
	if end := bytes.IndexByte(p, '\n'); end >= 0 && len(s.rest) > 0 {
		s.keep(p[:end])
		lines = s.line(nil)
		p = p[end+1:]
	}
	last := bytes.LastIndexByte(p, '\n') + 1
	s.keep(p[last:])
	whole := p[:last]
	if !utf8.Valid(whole) {
		whole = bytes.ToValidUTF8(whole, []byte("\uFFFD"))
	}
	if lines == nil {
		return whole
	}
	return append(lines, whole...)
}

func (s *consoleStream) keep(p []byte) {
	s.rest = append(s.rest, p[:min(len(p), lineLimit+1-len(s.rest))]...)
}

// line appends the line that is kept.
func (s *consoleStream) line(to []byte) []byte {
	text, cut := s.rest, ""
	if len(text) > lineLimit {
		text, cut = text[:lineLimit], lineCut
	}
	to = append(append(to, bytes.ToValidUTF8(text, []byte("\uFFFD"))...), cut...)
	s.rest = s.rest[:0]
	return append(to, '\n')
}

// give passes lines on to the call they belong to; c.mu is held.
func (c *console) give(s *consoleStream, lines []byte) {
	if len(c.calls) == 1 && c.calls[0].logging && len(lines) > 0 {
		c.calls[0].sink.Log(s.stream, lines)
	}
}

// begin has a call get what is printed.
func (c *console) begin(s sandbox.Sink, logging bool) *consoleCall {
	call := &consoleCall{s, logging}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call)
	return call
}

// end passes on what has been printed up to now. From then on the call gets nothing.
func (c *console) end(call *consoleCall) {
	c.drain()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		if len(s.rest) > 0 {
			c.give(s, s.line(nil))
		}
	}
	c.calls = slices.DeleteFunc(c.calls, func(o *consoleCall) bool { return o == call })
}

// maxDrained is how much is read of what a program printed before it answered. A
// pipe holds less, unless the program has asked for a larger one.
const maxDrained = 1 << 20

// drain takes what has been printed up to now, as far as a pipe holds it.
func (c *console) drain() {
	for _, s := range c.streams {
		s.raw.Control(func(fd uintptr) {
			for total := 0; total < maxDrained; {
				n, err := c.take(s, fd)
				if total += n; err != nil && err != syscall.EINTR {
					return
				}
			}
		})
	}
}
