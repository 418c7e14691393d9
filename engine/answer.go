package engine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fnkit/fnkit/sandbox"
)

// answer takes what a function answers: it checks the head, keeps the body or
// passes it on, and keeps the logs within their limit.
type answer struct {
	out     ResponseWriter // nil: the body is kept, up to maxBody
	maxBody int

	status  int // 0: there was no head
	headers []Header
	body    []byte
	passed  bool // something went to out
	aborted bool // and then the answer failed
	refused bool // Head or Write failed, here or in out

	mu     sync.Mutex // guards the logs
	logs   tail
	errors tail
	live   *liveLog // lets the logs be followed; nil: they cannot
}

func newAnswer(l Limits, out ResponseWriter) *answer {
	return &answer{out: out, maxBody: l.ResponseBody, logs: tail{max: l.LogSize, name: "Logs"}, errors: tail{max: l.LogSize, name: "Errors"}}
}

// badAnswer is an answer that no HTTP response can carry.
type badAnswer string

func (b badAnswer) Error() string { return string(b) }

// Head implements sandbox.Sink.
func (a *answer) Head(status int, h []sandbox.Header) error {
	err := a.head(status, h)
	a.refused = a.refused || err != nil
	return err
}

func (a *answer) head(status int, h []sandbox.Header) error {
	if status < 200 || status > 599 {
		return badAnswer(fmt.Sprintf("The function answered with status code %d, which is not between 200 and 599.", status))
	}
	var headers []Header
	for _, f := range h {
		name := strings.ToLower(f.Name)
		switch {
		case !validToken(name):
			return badAnswer(fmt.Sprintf("The function answered with a header whose name %q is not valid.", clip(name)))
		case strings.ContainsAny(f.Value, "\r\n\x00"):
			return badAnswer(fmt.Sprintf("The function answered with a line break in the header %q.", clip(name)))
		case slices.Contains(connectionHeaders, name), strings.HasPrefix(name, "x-open-runtimes-"):
			continue
		}
		headers = append(headers, Header{Name: name, Value: f.Value})
	}
	a.status, a.headers = status, headers
	if a.out == nil {
		return nil
	}
	a.passed = true
	return a.out.Head(status, headers)
}

// connectionHeaders are not the function's to set: they belong to the
// connection, or are made from the body.
var connectionHeaders = []string{"connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer",
	"transfer-encoding", "upgrade", "content-length"}

// Write implements sandbox.Sink.
func (a *answer) Write(p []byte) (int, error) {
	n, err := a.write(p)
	a.refused = a.refused || err != nil
	return n, err
}

func (a *answer) write(p []byte) (int, error) {
	if a.out != nil {
		return a.out.Write(p)
	}
	if len(a.body)+len(p) > a.maxBody {
		return 0, badAnswer(fmt.Sprintf("The function's answer is larger than %d bytes.", a.maxBody))
	}
	a.body = append(a.body, p...)
	return len(p), nil
}

// Flush implements sandbox.Flusher.
func (a *answer) Flush() error {
	if a.out == nil {
		return nil
	}
	return a.out.Flush()
}

// Log implements sandbox.Sink.
func (a *answer) Log(stream sandbox.Stream, lines []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := "stdout"
	if stream == sandbox.Stderr {
		name = "stderr"
		a.errors.add(lines)
	} else {
		a.logs.add(lines)
	}
	if a.live != nil {
		a.live.add(name, lines)
	}
}

// fail makes the answer a 500 with a reason in the errors, unless its head is
// already with the client.
func (a *answer) fail(reason string) {
	a.Log(sandbox.Stderr, []byte(reason+"\n"))
	if a.aborted = a.passed; !a.passed {
		a.status, a.headers = 500, nil
	}
	a.body = nil
}

// finish sets the headers that are made from the body.
func (a *answer) finish() {
	if a.out == nil && a.status != 204 && a.status != 304 {
		a.headers = append(a.headers, Header{Name: "content-length", Value: strconv.Itoa(len(a.body))})
	}
}

// texts returns the logs and errors.
func (a *answer) texts() (logs, errs string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.logs.text(), a.errors.text()
}

// tail keeps the last max bytes of what is added.
type tail struct {
	max  int
	name string
	buf  []byte
	cut  bool
}

func (t *tail) add(p []byte) {
	if len(p) > t.max {
		p, t.buf, t.cut = p[len(p)-t.max:], nil, true
	}
	if len(t.buf)+len(p) > 2*t.max { // drop in large steps, so that adding stays cheap
		n := copy(t.buf, t.buf[len(t.buf)+len(p)-t.max:])
		t.buf, t.cut = t.buf[:n], true
	}
	t.buf = append(t.buf, p...)
}

// text returns what is kept, from the start of a line, with a warning in front
// if something was dropped. The warning counts towards max.
func (t *tail) text() string {
	if len(t.buf) <= t.max && !t.cut {
		return cleanText(t.buf)
	}
	warning := fmt.Sprintf("[WARNING] %s truncated. The output exceeded %d characters.\n", t.name, t.max)
	kept := t.buf
	if room := max(0, t.max-len(warning)); len(kept) > room {
		kept = kept[len(kept)-room:]
		if i := bytes.IndexByte(kept, '\n'); i >= 0 && i < len(kept)-1 {
			kept = kept[i+1:]
		}
	}
	return warning + cleanText(kept)
}

// cleanText makes text that every database and JSON can hold.
func cleanText(b []byte) string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(b), "\uFFFD"), "\x00", "\uFFFD")
}

// validToken reports whether a header name is one that HTTP allows.
func validToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	})
}

// clip shortens a text from outside for a message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// isBadAnswer returns the reason of a badAnswer.
func isBadAnswer(err error) (string, bool) {
	var b badAnswer
	ok := errors.As(err, &b)
	return string(b), ok
}
