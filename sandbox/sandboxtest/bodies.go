package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

func (s *suite) bodies(t *testing.T) {
	id := s.start(t)
	s.test(t, "upload", func(t *testing.T) { s.upload(t, id) }, "echo")
	s.test(t, "upload-fails", func(t *testing.T) { s.uploadFails(t) }, "echo")
	s.test(t, "big", func(t *testing.T) {
		if got := s.get(t, id, "/big?mib=8").text(); len(got) != 8<<20 || strings.Trim(got, "x") != "" {
			t.Errorf("%d bytes, want 8 MiB of x", len(got))
		}
	})
	s.test(t, "stream", func(t *testing.T) {
		if r := s.get(t, id, "/stream?n=3"); r.status != 200 || r.text() != "piece 0\npiece 1\npiece 2\n" {
			t.Errorf("status %d, body %q, errors %q", r.status, r.text(), r.Logs(sandbox.Stderr))
		}
	})
	s.test(t, "stream-breaks", func(t *testing.T) {
		r := s.calling(t.Context(), id, request("/breaks"))
		r.wait(t)
		if r.err != nil || r.result.Aborted == "" || r.text() != "half" {
			t.Errorf("%v, %+v, body %q, want Aborted after half", r.err, r.result, r.text())
		}
		s.get(t, id, "/hello")
	}, "breaks")
	s.test(t, "sink-fails", s.sinkFails, "endless", "closed")
	s.test(t, "sink-refuses-head", func(t *testing.T) {
		id := s.start(t)
		r := newRecorder()
		s.begin(t.Context(), id, request("/big?mib=1"), failing{discard{}, errSink, nil}, r)
		if r.wait(t); !errors.Is(r.err, errSink) {
			t.Errorf("%v, want the sink's error", r.err)
		}
	}, "big")
	s.test(t, "slow-reader", s.slowReader, "endless")
}

// upload sends bodies of all sizes, of known length and not.
func (s *suite) upload(t *testing.T, id string) {
	for _, size := range []int{1, 65535, 65536, 65537, 1 << 20, 2<<20 + 3} {
		sent := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size)}).Read(sent)
		for _, body := range []io.Reader{bytes.NewReader(sent), iotest.HalfReader(bytes.NewReader(sent)), iotest.DataErrReader(bytes.NewReader(sent))} {
			if got := s.call(t, id, post("/echo", "application/octet-stream", body)); got.text() != string(sent) {
				t.Errorf("%d bytes came back as %d", size, len(got.text()))
			}
		}
	}
}

var errBody = errors.New("the body cannot be read")

// uploadFails has the body fail in the middle: the call does, the instance not.
func (s *suite) uploadFails(t *testing.T) {
	for _, size := range []int{0, 10, 200 << 10} {
		id := s.start(t)
		body := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), iotest.ErrReader(errBody))
		r := s.calling(t.Context(), id, post("/echo", "text/plain", body))
		if r.wait(t); !errors.Is(r.err, errBody) {
			t.Errorf("after %d bytes: %v, want the body's error", size, r.err)
		}
	}
}

var errSink = errors.New("the client went away")

// failing is a sink that fails.
type failing struct {
	sandbox.Sink
	head, write error
}

func (f failing) Head(int, []sandbox.Header) error { return f.head }
func (f failing) Write([]byte) (int, error)        { return 0, f.write }

// sinkFails has the client go away in the middle of a stream: the stream is
// closed, and the instance serves others.
func (s *suite) sinkFails(t *testing.T) {
	id := s.start(t)
	r := newRecorder()
	s.begin(t.Context(), id, request("/endless"), failing{discard{}, nil, errSink}, r)
	if r.wait(t); !errors.Is(r.err, errSink) {
		t.Fatalf("%v, want the sink's error", r.err)
	}
	for deadline := time.Now().Add(patience); ; {
		if s.get(t, id, "/closed").text() == "1" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the stream was not closed")
		}
	}
}

// stuck is a sink whose first Write waits.
type stuck struct {
	discard
	reached, release chan struct{}
}

func (s stuck) Write(p []byte) (int, error) {
	select {
	case <-s.release:
	default:
		close(s.reached)
		<-s.release
	}
	return len(p), nil
}

// slowReader checks that a response nobody takes holds up no other call.
func (s *suite) slowReader(t *testing.T) {
	id := s.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slow, r := stuck{reached: make(chan struct{}), release: make(chan struct{})}, newRecorder()
	s.begin(ctx, id, request("/endless"), slow, r)
	<-slow.reached
	for range 100 {
		s.get(t, id, "/hello")
	}
	cancel()
	close(slow.release)
	if r.wait(t); !errors.Is(r.err, context.Canceled) {
		t.Errorf("%v, want the context's error", r.err)
	}
}
