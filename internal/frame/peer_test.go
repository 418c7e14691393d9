package frame_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/frame"
)

const patience = 10 * time.Second

// peer is a harness in the test's hands.
type peer struct {
	t    *testing.T
	conn *frame.Conn
	raw  net.Conn
	in   *frame.Reader
}

// newPeer returns a host's end and its peer on an unbuffered pipe.
func newPeer(t *testing.T) *peer {
	t.Helper()
	host, raw := net.Pipe()
	p := &peer{t: t, conn: frame.New(host), raw: raw, in: frame.NewReader(raw)}
	raw.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() {
		raw.Close()
		p.conn.Close()
	})
	return p
}

func (p *peer) send(id uint32, typ frame.Type, flags byte, payload string) {
	p.t.Helper()
	if _, err := p.raw.Write(frame.Append(nil, frame.Frame{ID: id, Type: typ, Flags: flags, Payload: []byte(payload)}, nil)); err != nil {
		p.t.Errorf("send type %d: %v", typ, err)
	}
}

// expect reads a frame, which must be of a type, and copies its payload.
func (p *peer) expect(typ frame.Type) frame.Frame {
	p.t.Helper()
	f, err := p.in.Next()
	if err != nil || f.Type != typ {
		p.t.Fatalf("got frame %d %v, want type %d", f.Type, err, typ)
	}
	f.Payload = bytes.Clone(f.Payload)
	return f
}

// head is the payload of a HEAD frame.
func head(json, body string) string {
	return string(frame.AppendHead(nil, []byte(json))) + body
}

// answer collects what comes back from one call.
type answer struct {
	frame.Outcome
	err  error
	over chan struct{}

	mu      sync.Mutex
	head    string
	more    bool
	body    strings.Builder
	logs    strings.Builder
	flushed int           // length of the body at the last flush; -1: none
	fail    error         // what Write returns
	gate    chan struct{} // if not nil, Write waits for it
}

func (a *answer) Head(h []byte, more bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.head, a.more = string(h), more
	return nil
}

func (a *answer) Write(p []byte) (int, error) {
	if a.gate != nil {
		<-a.gate
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.body.Write(p)
	return len(p), a.fail
}

func (a *answer) Flush() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flushed = a.body.Len()
	return nil
}

func (a *answer) Log(stream byte, lines []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.logs.WriteByte('0' + stream)
	a.logs.Write(lines)
}

// begin begins a call.
func (p *peer) begin(ctx context.Context, c frame.Call, a *answer) *answer {
	a.over, a.flushed = make(chan struct{}), -1
	go func() {
		a.Outcome, a.err = p.conn.Call(ctx, c, a)
		close(a.over)
	}()
	return a
}

func (a *answer) wait(t *testing.T) *answer {
	t.Helper()
	select {
	case <-a.over:
	case <-time.After(patience):
		t.Fatal("the call does not end")
	}
	return a
}

// broken checks that the host gave the channel up because of what came.
func (p *peer) broken(a *answer) {
	p.t.Helper()
	if a.wait(p.t); !errors.Is(a.err, frame.ErrClosed) {
		p.t.Errorf("call ended with %v, want ErrClosed", a.err)
	}
	<-p.conn.Done()
	if err := p.conn.Err(); !errors.Is(err, frame.ErrProtocol) {
		p.t.Errorf("channel ended with %v, want ErrProtocol", err)
	}
}

var plain = frame.Call{Head: []byte(`{"m":"GET"}`), Logging: true}
