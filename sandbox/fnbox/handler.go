package fnbox

import (
	"bytes"
	"context"
	"net/http"
)

// heldBack is how much of a response is gathered before it is sent unasked.
const heldBack = 64 << 10

// Handler returns a function that answers with h, as an HTTP server would. The
// response is streamed when h flushes it, or writes more than 64 KiB.
func Handler(h http.Handler) Func {
	return func(ctx context.Context, c *Context) error {
		r, err := http.NewRequestWithContext(ctx, c.Req.Method, c.Req.URL(), bytes.NewReader(c.Req.Body))
		if err != nil {
			return err
		}
		for name, value := range c.Req.Headers {
			r.Header.Set(name, value)
		}
		r.RequestURI = r.URL.RequestURI()
		w := &responseWriter{c: c, header: http.Header{}}
		h.ServeHTTP(w, r)
		return w.finish()
	}
}

// responseWriter is the http.ResponseWriter of a call.
type responseWriter struct {
	c      *Context
	header http.Header
	status int // 0: not given yet
	held   []byte
	sent   bool // the head is out
	err    error
}

// Header implements http.ResponseWriter.
func (w *responseWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Informational responses are not
// sent.
func (w *responseWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
		w.setHeaders()
	}
}

// Write implements http.ResponseWriter.
func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		if w.header.Get("Content-Type") == "" {
			w.header.Set("Content-Type", http.DetectContentType(p))
		}
		w.WriteHeader(http.StatusOK)
	}
	w.held = append(w.held, p...)
	if len(w.held) > heldBack {
		w.Flush()
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Flush implements http.Flusher.
func (w *responseWriter) Flush() {
	w.WriteHeader(http.StatusOK)
	if !w.sent {
		w.sent = true
		w.err = w.c.Head(w.status)
	}
	if w.err == nil && len(w.held) > 0 {
		_, w.err = w.c.Write(w.held)
	}
	w.held = w.held[:0]
}

func (w *responseWriter) setHeaders() {
	for name, values := range w.header {
		for _, v := range values {
			w.c.AddHeader(name, v)
		}
	}
}

func (w *responseWriter) finish() error {
	w.WriteHeader(http.StatusOK)
	if w.sent {
		w.Flush()
		return w.err
	}
	return w.c.Binary(w.status, w.held)
}
