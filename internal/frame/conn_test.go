package frame_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/fnkit/fnkit/internal/frame"
)

func TestSmallCallIsTwoFrames(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	call := plain
	call.Body = strings.NewReader("in")
	a := p.begin(t.Context(), call, &answer{})
	f := p.expect(frame.CALL)
	h, body, err := frame.SplitHead(f.Payload)
	if f.ID != 1 || f.Flags != frame.End || string(h) != `{"m":"GET"}` || string(body) != "in" || err != nil {
		t.Errorf("got %d %d %q %q %v", f.ID, f.Flags, h, body, err)
	}
	p.send(1, frame.LOG, 0, "\x01a line\n")
	p.send(1, frame.LOG, 0, "\x02bad\n")
	p.send(1, frame.HEAD, frame.End, head(`{"s":200}`, "out"))
	a.wait(t)
	if a.err != nil || a.head != `{"s":200}` || a.more || a.body.String() != "out" || a.logs.String() != "1a line\n2bad\n" || !a.Over {
		t.Errorf("got %+v", a)
	}
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	go p.send(0, frame.READY, 0, `{"protocol":1,"version":"1.2"}`)
	if r, err := p.conn.Ready(t.Context()); err != nil || r.Version != "1.2" {
		t.Fatal(r, err)
	}
	go func() {
		p.expect(frame.BIND)
		p.send(0, frame.BOUND, 0, `{"error":"no file"}`)
	}()
	b, err := p.conn.Bind(t.Context(), frame.Bind{Root: "/r", Entrypoint: "e", Env: map[string]string{"K": "V"}, Workers: 2})
	if err != nil || b.Error != "no file" {
		t.Error(b, err)
	}
}

func TestHandshakeEnds(t *testing.T) {
	t.Parallel()
	for name, hello := range map[string]string{"other protocol": `{"protocol":2}`, "nonsense": `{`} {
		p := newPeer(t)
		go p.send(0, frame.READY, 0, hello)
		if _, err := p.conn.Ready(t.Context()); !errors.Is(err, frame.ErrProtocol) {
			t.Errorf("%s: %v, want ErrProtocol", name, err)
		}
	}
	p := newPeer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.conn.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	p.raw.Close()
	if _, err := p.conn.Ready(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want EOF", err)
	}
}

// malformed are frames that no harness may send while call 1 runs.
var malformed = map[string][]byte{
	"garbage":            []byte(strings.Repeat("\xff", 64)),
	"short length":       {5, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	"unknown type":       one(1, 77, 0, ""),
	"type of the host":   one(1, frame.CALL, 0, head("{}", "")),
	"bind":               one(0, frame.BIND, 0, "{}"),
	"unknown flag":       one(1, frame.HEAD, 2, head("{}", "")),
	"head without":       one(1, frame.HEAD, 0, ""),
	"head too long":      one(1, frame.HEAD, 0, "\xff\xff{}"),
	"last and bad":       one(1, frame.HEAD, frame.End, "\xe3\x00{}"),
	"second head":        append(one(1, frame.HEAD, 0, head("{}", "")), one(1, frame.HEAD, 0, head("{}", ""))...),
	"large inline":       one(1, frame.HEAD, 0, head("{}", strings.Repeat("x", frame.MaxData+1))),
	"data before head":   one(1, frame.DATA, 0, "x"),
	"large data":         append(one(1, frame.HEAD, 0, head("{}", "")), one(1, frame.DATA, 0, strings.Repeat("x", frame.MaxData+1))...),
	"short window":       one(1, frame.WINDOW, 0, "abc"),
	"huge window":        one(1, frame.WINDOW, 0, "\xff\xff\xff\xff"),
	"log without stream": one(1, frame.LOG, 0, ""),
	"log of stream 3":    one(1, frame.LOG, 0, "\x03x\n"),
	"ready of a call":    one(1, frame.READY, 0, "{}"),
	"two readies":        append(one(0, frame.READY, 0, "{}"), one(0, frame.READY, 0, "{}")...),
}

func one(id uint32, typ frame.Type, flags byte, payload string) []byte {
	return frame.Append(nil, frame.Frame{ID: id, Type: typ, Flags: flags, Payload: []byte(payload)}, nil)
}

func TestMalformedEndsTheChannel(t *testing.T) {
	t.Parallel()
	for name, sent := range malformed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			a := p.begin(t.Context(), plain, &answer{})
			p.expect(frame.CALL)
			p.raw.Write(sent) // may fail at its end: the host has closed
			p.broken(a)
		})
	}
}

func TestWindowOverrunEndsTheChannel(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	gate := make(chan struct{})
	a := p.begin(t.Context(), plain, &answer{gate: gate})
	p.expect(frame.CALL)
	p.send(1, frame.HEAD, 0, head("{}", "first")) // not counted
	piece := strings.Repeat("x", frame.MaxData)
	for range frame.WindowSize / frame.MaxData {
		p.send(1, frame.DATA, 0, piece)
	}
	p.raw.Write(one(1, frame.DATA, 0, "x"))
	<-p.conn.Done()
	close(gate)
	p.broken(a)
}

func TestWindowIsGrantedWhenHalfIsConsumed(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	a := p.begin(t.Context(), plain, &answer{})
	p.expect(frame.CALL)
	p.send(1, frame.HEAD, 0, head("{}", ""))
	piece := strings.Repeat("x", frame.MaxData)
	total, credit := 0, frame.WindowSize
	for total < 4*frame.WindowSize {
		for credit < frame.MaxData {
			credit += int(binary.LittleEndian.Uint32(p.expect(frame.WINDOW).Payload))
		}
		go p.send(1, frame.DATA, 0, piece)
		total, credit = total+len(piece), credit-len(piece)
		if total%(frame.WindowSize/2) == 0 {
			credit += int(binary.LittleEndian.Uint32(p.expect(frame.WINDOW).Payload))
		}
	}
	p.send(1, frame.DATA, frame.End, "end")
	if a.wait(t); a.err != nil || a.body.Len() != total+3 {
		t.Errorf("%v, %d bytes, want %d", a.err, a.body.Len(), total+3)
	}
}

func TestUploadKeepsToTheWindow(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	call := plain
	const size = 1<<20 + 7
	call.Body = iotest.HalfReader(strings.NewReader(strings.Repeat("x", size)))
	a := p.begin(t.Context(), call, &answer{})
	_, first, _ := frame.SplitHead(p.expect(frame.CALL).Payload)
	got, credit := len(first), frame.WindowSize
	for {
		f := p.expect(frame.DATA)
		got += len(f.Payload)
		if credit -= len(f.Payload); credit < 0 || len(f.Payload) > frame.MaxData {
			t.Fatalf("%d bytes more than granted, %d in one frame", -credit, len(f.Payload))
		}
		if f.Flags == frame.End {
			break
		}
		if credit == 0 {
			credit = 100_000
			p.send(1, frame.WINDOW, 0, string(binary.LittleEndian.AppendUint32(nil, 100_000)))
		}
	}
	p.send(1, frame.HEAD, frame.End, head("{}", ""))
	if a.wait(t); a.err != nil || got != size {
		t.Errorf("%v, %d bytes, want %d", a.err, got, size)
	}
}

func TestAnswerBeforeTheUploadEnds(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	body, more := io.Pipe()
	defer more.Close()
	call := plain
	call.Body = body
	a := p.begin(t.Context(), call, &answer{})
	go more.Write(make([]byte, frame.MaxData))
	p.expect(frame.CALL)
	go p.send(1, frame.HEAD, frame.End, head("{}", "early"))
	p.expect(frame.RESET)
	if a.wait(t); a.err != nil || a.body.String() != "early" {
		t.Error(a.err, a.body.String())
	}
}

func TestBodyFails(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	cause := errors.New("cannot be read")
	call := plain
	call.Body = io.MultiReader(strings.NewReader(strings.Repeat("x", frame.MaxData)), iotest.ErrReader(cause))
	a := p.begin(t.Context(), call, &answer{})
	p.expect(frame.CALL)
	p.expect(frame.RESET)
	if a.wait(t); !errors.Is(a.err, cause) || a.Over {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
}

// TestBodyFailsAtOnce has a body fail before there is anything to send: the
// harness hears nothing of the call.
func TestBodyFailsAtOnce(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	cause := errors.New("cannot be read")
	call := plain
	call.Body = iotest.ErrReader(cause)
	if a := p.begin(t.Context(), call, &answer{}).wait(t); !errors.Is(a.err, cause) || !a.Over {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
	p.begin(t.Context(), plain, &answer{})
	if f := p.expect(frame.CALL); f.ID != 2 {
		t.Errorf("frame of call %d, want 2", f.ID)
	}
}

func TestCanceledBefore(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if a := p.begin(ctx, plain, &answer{}).wait(t); !errors.Is(a.err, context.Canceled) || !a.Over {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
	p.begin(t.Context(), plain, &answer{})
	if f := p.expect(frame.CALL); f.ID != 2 {
		t.Errorf("frame of call %d, want 2", f.ID)
	}
}

// TestCancelWhileTheBodyIsRead has a call end before its body came: it is never
// sent, also when the body comes later.
func TestCancelWhileTheBodyIsRead(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	body, more := io.Pipe()
	call := plain
	call.Body = body
	ctx, cancel := context.WithCancel(t.Context())
	a := p.begin(ctx, call, &answer{})
	more.Write([]byte("early")) // returns when it was read
	cancel()
	if a.wait(t); !errors.Is(a.err, context.Canceled) || !a.Over {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
	more.Write([]byte("late"))
	more.Close()
	p.begin(t.Context(), plain, &answer{})
	if f := p.expect(frame.CALL); f.ID != 2 {
		t.Errorf("frame of call %d, want 2", f.ID)
	}
}

func TestResetByHarness(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	a := p.begin(t.Context(), plain, &answer{})
	p.expect(frame.CALL)
	p.send(1, frame.HEAD, 0, head("{}", "half"))
	p.send(1, frame.RESET, 0, "broken")
	if a.wait(t); a.err != nil || !a.Aborted || a.Why != "broken" || a.body.String() != "half" {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
}

func TestCancelResets(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	ctx, cancel := context.WithCancel(t.Context())
	a := p.begin(ctx, plain, &answer{})
	p.expect(frame.CALL)
	cancel()
	p.expect(frame.RESET)
	if a.wait(t); !errors.Is(a.err, context.Canceled) || a.Over {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
	// What comes late is ignored, and the channel goes on.
	p.send(1, frame.LOG, 0, "\x01late\n")
	p.send(1, frame.HEAD, 0, head("{}", ""))
	p.send(1, frame.DATA, frame.End, "late")
	p.send(99, frame.DATA, 0, "unknown")
	b := p.begin(t.Context(), plain, &answer{})
	p.expect(frame.CALL)
	p.send(2, frame.HEAD, frame.End, head("{}", "two"))
	if b.wait(t); b.err != nil || b.body.String() != "two" || a.logs.Len() > 0 {
		t.Error(b.err, b.body.String(), a.logs.String())
	}
}

func TestCancelIsConfirmed(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	ctx, cancel := context.WithCancel(t.Context())
	call := plain
	call.Grace = patience
	a := p.begin(ctx, call, &answer{})
	p.expect(frame.CALL)
	cancel()
	p.expect(frame.RESET)
	p.send(1, frame.RESET, 0, "")
	if a.wait(t); !errors.Is(a.err, context.Canceled) || !a.Over {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
}

func TestCancelIsNotConfirmed(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	ctx, cancel := context.WithCancel(t.Context())
	call := plain
	call.Grace = time.Millisecond
	a := p.begin(ctx, call, &answer{})
	p.expect(frame.CALL)
	cancel()
	p.expect(frame.RESET)
	if a.wait(t); !errors.Is(a.err, context.Canceled) || a.Over {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
}

// TestFlush has a response come in pieces: who takes it is told when it must
// wait for more, and not at the end.
func TestFlush(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	a := p.begin(t.Context(), plain, &answer{})
	p.expect(frame.CALL)
	p.send(1, frame.HEAD, 0, head("{}", "one"))
	flushed := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; runtime.Gosched() {
			a.mu.Lock()
			got := a.flushed
			a.mu.Unlock()
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("flushed at %d bytes, want %d", got, want)
			}
		}
	}
	flushed(3)
	p.send(1, frame.DATA, 0, "two")
	flushed(6)
	p.send(1, frame.DATA, frame.End, "three")
	if a.wait(t); a.err != nil || a.body.String() != "onetwothree" || a.flushed != 6 {
		t.Errorf("%v, body %q, flushed at %d", a.err, a.body.String(), a.flushed)
	}
	b := p.begin(t.Context(), plain, &answer{})
	p.expect(frame.CALL)
	p.send(2, frame.HEAD, frame.End, head("{}", "whole"))
	if b.wait(t); b.body.String() != "whole" || b.flushed != -1 {
		t.Errorf("body %q, flushed at %d", b.body.String(), b.flushed)
	}
}

func TestReceiverFails(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	cause := errors.New("gone away")
	a := p.begin(t.Context(), plain, &answer{fail: cause})
	p.expect(frame.CALL)
	p.send(1, frame.HEAD, 0, head("{}", "x"))
	p.expect(frame.RESET)
	if a.wait(t); !errors.Is(a.err, cause) {
		t.Error(a.err)
	}
}

func TestSlowReaderHoldsUpNobody(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	gate := make(chan struct{})
	slow := p.begin(t.Context(), plain, &answer{gate: gate})
	p.expect(frame.CALL)
	p.send(1, frame.HEAD, 0, head("{}", ""))
	for range frame.WindowSize / frame.MaxData {
		p.send(1, frame.DATA, 0, strings.Repeat("x", frame.MaxData))
	}
	for id := uint32(2); id < 50; id++ {
		a := p.begin(t.Context(), plain, &answer{})
		p.expect(frame.CALL)
		p.send(id, frame.HEAD, frame.End, head("{}", ""))
		if a.wait(t); a.err != nil {
			t.Fatal(a.err)
		}
	}
	close(gate)
	for granted := 0; granted < frame.WindowSize/2; {
		granted += int(binary.LittleEndian.Uint32(p.expect(frame.WINDOW).Payload))
	}
	p.send(1, frame.DATA, frame.End, "")
	if slow.wait(t); slow.err != nil || slow.body.Len() != frame.WindowSize {
		t.Error(slow.err, slow.body.Len())
	}
}

func TestCloseFailsAllCalls(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	var all []*answer
	for range 5 {
		all = append(all, p.begin(t.Context(), plain, &answer{}))
		p.expect(frame.CALL)
	}
	p.conn.Close()
	for _, a := range all {
		if a.wait(t); !errors.Is(a.err, frame.ErrClosed) || a.Unsent {
			t.Errorf("%v, %+v, want ErrClosed of a call that was sent", a.err, a.Outcome)
		}
	}
	late := p.begin(t.Context(), plain, &answer{}).wait(t)
	if !errors.Is(late.err, frame.ErrClosed) || !late.Unsent {
		t.Errorf("%v, %+v, want ErrClosed of a call that was not sent", late.err, late.Outcome)
	}
	if err := p.conn.Err(); !errors.Is(err, frame.ErrClosed) {
		t.Error(err)
	}
}

func TestHarnessCloses(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	a := p.begin(t.Context(), plain, &answer{})
	p.expect(frame.CALL)
	p.raw.Close()
	if a.wait(t); !errors.Is(a.err, frame.ErrClosed) || a.Unsent {
		t.Errorf("%v, %+v", a.err, a.Outcome)
	}
	<-p.conn.Done()
	if err := p.conn.Err(); !errors.Is(err, io.EOF) {
		t.Errorf("channel ended with %v, want EOF", err)
	}
}

// TestHarnessDoesNotRead has calls wait for a peer that reads nothing: they end
// with their context, and were not sent once the channel is closed.
func TestHarnessDoesNotRead(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	ctx, cancel := context.WithCancel(t.Context())
	a := p.begin(ctx, plain, &answer{})
	p.raw.Read(make([]byte, 1)) // it is being written, and b must wait
	b := p.begin(t.Context(), plain, &answer{})
	cancel()
	if a.wait(t); !errors.Is(a.err, context.Canceled) {
		t.Error(a.err)
	}
	p.conn.Close()
	if b.wait(t); !errors.Is(b.err, frame.ErrClosed) || !b.Unsent {
		t.Errorf("%v, %+v, want a call that was not sent", b.err, b.Outcome)
	}
}

func TestHeadTooLarge(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	_, err := p.conn.Call(t.Context(), frame.Call{Head: make([]byte, frame.MaxHead+1)}, &answer{})
	if !errors.Is(err, frame.ErrHeadTooLarge) {
		t.Error(err)
	}
}
