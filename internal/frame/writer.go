package frame

import (
	"io"
	"sync"
)

// keptBuffer is how large a buffer may be to be used again.
const keptBuffer = 1 << 20

// writer sends frames in the order they were added. All that gather while one write
// runs leave with the next. Adding never blocks; what can gather is bounded by
// the windows of the calls.
type writer struct {
	mu   sync.Mutex
	buf  []byte
	wake chan struct{} // holds one when buf is not empty
}

func newWriter() *writer {
	return &writer{wake: make(chan struct{}, 1)}
}

func (w *writer) add(h Header, payload []byte) {
	w.addHead(h, nil, payload)
}

// addHead adds a frame whose payload is in two parts.
func (w *writer) addHead(h Header, first, second []byte) {
	h.Size = len(first) + len(second)
	w.mu.Lock()
	w.buf = AppendHeader(w.buf, h)
	w.buf = append(w.buf, first...)
	w.buf = append(w.buf, second...)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run writes until done closes or a write fails.
func (w *writer) run(to io.Writer, done <-chan struct{}) error {
	var spare []byte
	for {
		select {
		case <-done:
			return nil
		case <-w.wake:
		}
		w.mu.Lock()
		full := w.buf
		w.buf = spare[:0]
		w.mu.Unlock()
		if _, err := to.Write(full); err != nil {
			return err
		}
		spare = full
		if cap(spare) > keptBuffer {
			spare = nil
		}
	}
}
