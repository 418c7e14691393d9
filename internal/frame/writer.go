package frame

import (
	"context"
	"io"
	"runtime"
	"sync"
)

const (
	// roomy is how much may wait to be written before senders of bodies wait.
	roomy = 512 << 10
	// stuffed is how much may wait in all. It is reached by small frames
	// alone, when the harness writes and does not read.
	stuffed = 16 << 20
	// keep is the largest buffer that is kept for later.
	keep = 256 << 10
	// rounds is how often a sender writes for others before its own call goes on.
	rounds = 4
)

// writer sends frames. Senders append to a buffer; whoever finds nobody writing
// writes for all. No sender ever blocks in a write: what the socket does
// not take at once is left to a goroutine.
type writer struct {
	w     io.Writer
	close func() error
	try   func(p []byte) (int, error) // writes what can be written at once; nil: unknown

	mu       sync.Mutex
	buf      []byte
	spare    []byte
	flushing bool
	err      error
	room     chan struct{} // closed when there is room again; nil: nobody waits
	queued   uint64        // bytes ever appended
	offered  uint64        // of them, those the socket took, or may have taken

	stalled chan []byte // cap 1; to the goroutine: what it writes first
}

// newWriter returns a writer to w that calls close at the first error.
func newWriter(w io.Writer, close func() error) *writer {
	return &writer{w: w, close: close, try: nonblocking(w), stalled: make(chan []byte, 1)}
}

// send appends a frame, its payload followed by b, and returns where it begins
// in the stream of bytes.
func (w *writer) send(f Frame, b []byte) (at uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && len(w.buf) > stuffed {
		w.fail(malformed("the harness does not read"))
	}
	if w.err != nil {
		return 0, w.err
	}
	at = w.queued
	w.queued += uint64(headerSize + len(f.Payload) + len(b))
	w.buf = Append(w.buf, f, b)
	if !w.flushing {
		w.flush()
	}
	return at, nil
}

// wait returns when there is room for more of a body.
func (w *writer) wait(ctx context.Context) error {
	for {
		w.mu.Lock()
		if w.err != nil {
			w.mu.Unlock()
			return ErrClosed
		}
		if len(w.buf) < roomy {
			w.mu.Unlock()
			return nil
		}
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reached reports whether any byte from position at on may have left.
func (w *writer) reached(at uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.offered > at
}

// flush writes what is in the buffer, and what comes meanwhile. w.mu is held,
// but not while writing.
func (w *writer) flush() {
	w.flushing = true
	w.mu.Unlock()
	runtime.Gosched() // who is about to send may: fewer, larger writes under load
	w.mu.Lock()
	for n := 0; len(w.buf) > 0 && w.err == nil; n++ {
		out := w.take()
		if w.try == nil || n == rounds {
			w.stalled <- out
			return // still flushing
		}
		w.mu.Unlock()
		done, err := w.try(out)
		w.mu.Lock()
		if err != nil {
			w.offered -= uint64(len(out) - done)
			w.fail(err)
		}
		if done < len(out) && w.err == nil {
			w.stalled <- out[done:]
			return // still flushing
		}
		w.give(out)
	}
	w.flushing = false
}

// run writes what the socket did not take at once, until done is closed.
func (w *writer) run(done <-chan struct{}) {
	for {
		select {
		case out := <-w.stalled:
			w.drain(out)
		case <-done:
			return
		}
	}
}

func (w *writer) drain(out []byte) {
	for {
		n, err := w.w.Write(out)
		w.mu.Lock()
		if err != nil {
			w.offered -= uint64(len(out) - n)
			w.fail(err)
		}
		if w.err != nil || len(w.buf) == 0 {
			w.flushing = false
			w.mu.Unlock()
			return
		}
		out = w.take()
		w.mu.Unlock()
	}
}

func (w *writer) take() []byte {
	out := w.buf
	w.offered = w.queued
	w.buf, w.spare = w.spare[:0], nil
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
	return out
}

func (w *writer) give(out []byte) {
	if cap(out) <= keep {
		w.spare = out
	}
}

// fail makes the first error permanent and wakes who waits. w.mu is held.
func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
		w.close()
	}
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// stop makes all further sends fail, and returns the first error there was.
func (w *writer) stop(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail(err)
	return w.err
}
