package frame_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/fnkit/fnkit/internal/frame"
)

// FuzzReader reads anything: every frame is within the limits, and what was
// read is what was written.
func FuzzReader(f *testing.F) {
	for _, sent := range malformed {
		f.Add(sent)
	}
	f.Add(append(one(7, frame.HEAD, frame.End, head("{}", "body")), 1, 2))
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := frame.NewReader(bytes.NewReader(sent))
		var again []byte
		for {
			fr, err := r.Next()
			if err != nil {
				if err == io.EOF && len(again) != len(sent) {
					t.Errorf("ended after %d bytes of %d", len(again), len(sent))
				}
				if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.Is(err, frame.ErrProtocol) {
					t.Error(err)
				}
				break
			}
			if len(fr.Payload) > frame.MaxFrame {
				t.Errorf("payload of %d bytes", len(fr.Payload))
			}
			again = frame.Append(again, fr, nil)
		}
		if !bytes.HasPrefix(sent, again) {
			t.Errorf("read %x of %x", again, sent)
		}
	})
}

// FuzzConn answers a call with anything: the call ends when the channel does.
func FuzzConn(f *testing.F) {
	for _, sent := range malformed {
		f.Add(sent)
	}
	f.Add(one(1, frame.HEAD, frame.End, head(`{"s":200}`, "body")))
	f.Add(append(one(1, frame.HEAD, 0, head(`{}`, "")), one(1, frame.DATA, frame.End, "x")...))
	f.Fuzz(func(t *testing.T, sent []byte) {
		host, raw := net.Pipe()
		conn := frame.New(host)
		defer conn.Close()
		go io.Copy(io.Discard, raw)
		go func() {
			raw.Write(sent)
			raw.Close()
		}()
		var a answer
		if _, err := conn.Call(t.Context(), plain, &a); err != nil && !errors.Is(err, frame.ErrClosed) {
			t.Error(err)
		}
		<-conn.Done()
	})
}
