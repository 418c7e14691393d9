package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/fnkit/fnkit/engine"
)

// HandlerOption changes a [FunctionHandler].
type HandlerOption func(*functionHandler)

// As lets a FunctionHandler act as whom the function says sent a request,
// instead of as a guest.
func As(actor func(*http.Request) (engine.Actor, error)) HandlerOption {
	return func(h *functionHandler) { h.actor = actor }
}

// BehindProxy takes the client's address from X-Forwarded-For, see
// [Options.TrustProxy].
func BehindProxy() HandlerOption {
	return func(h *functionHandler) { h.api.opt.TrustProxy = true }
}

// FunctionHandler returns a handler that runs one function for every request
// and streams its answer. The function sees the request's method, path, query,
// headers and body as they are; the caller is a guest, so the function's
// execute roles must contain "any" or "guests", unless [As] says otherwise. An
// error of the engine is answered as JSON to those who accept it, else as
// text. An answer that breaks off closes the connection. When the client goes
// away the function goes on until it writes more of its answer, or to its end.
func FunctionHandler(eng *engine.Engine, project, function string, options ...HandlerOption) http.Handler {
	cfg := eng.Config()
	h := &functionHandler{
		api:      &API{eng: eng, cfg: cfg, opt: Options{Version: cfg.Identity.Version, Logger: cfg.Logger}},
		project:  eng.Project(project),
		function: function,
		actor:    func(*http.Request) (engine.Actor, error) { return engine.Actor{}, nil },
	}
	for _, o := range options {
		o(h)
	}
	return h
}

type functionHandler struct {
	api      *API
	project  *engine.Project
	function string
	actor    func(*http.Request) (engine.Actor, error)
}

// maxMethod bounds the name of a method, which is recorded.
const maxMethod = 32

func (h *functionHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect || len(r.Method) > maxMethod { // the answer to CONNECT would be a tunnel
		http.Error(w, "The method is not supported.", http.StatusMethodNotAllowed)
		return
	}
	out := &streamWriter{w: w, control: http.NewResponseController(w)}
	err := h.stream(out, r)
	switch {
	case err == nil:
	case out.status != 0:
		panic(http.ErrAbortHandler) // the only way to tell the client that more was to come
	default:
		h.writeError(w, r, err)
	}
}

func (h *functionHandler) stream(out *streamWriter, r *http.Request) error {
	by, err := h.actor(r)
	if err != nil {
		return err
	}
	limit := int64(h.api.cfg.Limits.RequestBody)
	if r.ContentLength > limit {
		return &http.MaxBytesError{Limit: limit}
	}
	body := &requestBody{r: bufio.NewReader(r.Body), limit: limit, left: limit}
	out.body = body
	_, err = h.project.Stream(r.Context(), by, h.function, engine.StreamRequest{
		Method:   r.Method,
		Path:     requestPath(r),
		Headers:  requestHeaders(r),
		Body:     body,
		ClientIP: h.api.clientIP(r),
	}, out)
	return err
}

// writeError answers an error of the engine.
func (h *functionHandler) writeError(w http.ResponseWriter, r *http.Request, err error) {
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		http.Error(w, fmt.Sprintf("The request body must not be larger than %d bytes.", tooBig.Limit), http.StatusRequestEntityTooLarge)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "json") {
		h.api.writeError(w, r, err)
		return
	}
	status, e := h.api.prepareError(w, r, err)
	http.Error(w, e.Message, status)
}

// requestPath is the path and query of a request, after any prefix that the
// host stripped.
func requestPath(r *http.Request) string {
	p := r.URL.RequestURI()
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	return p
}

// hopByHop are headers that concern one connection only.
var hopByHop = []string{
	"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// requestHeaders are the headers of a request that go to the function.
func requestHeaders(r *http.Request) []engine.Header {
	drop := slices.Clone(hopByHop)
	for _, field := range r.Header.Values("Connection") {
		for name := range strings.SplitSeq(field, ",") {
			drop = append(drop, strings.ToLower(strings.TrimSpace(name)))
		}
	}
	headers := []engine.Header{{Name: "host", Value: r.Host}}
	if r.ContentLength >= 0 {
		headers = append(headers, engine.Header{Name: "content-length", Value: strconv.FormatInt(r.ContentLength, 10)})
	}
	for name, values := range r.Header {
		name = strings.ToLower(name)
		if slices.Contains(drop, name) || name == "host" || name == "content-length" {
			continue
		}
		for _, v := range values {
			headers = append(headers, engine.Header{Name: name, Value: v})
		}
	}
	slices.SortStableFunc(headers, func(a, b engine.Header) int { return strings.Compare(a.Name, b.Name) })
	return headers
}

// requestBody fails, rather than end, where a body exceeds its limit: a
// function must not take the first part of it for the whole.
type requestBody struct {
	r      *bufio.Reader
	limit  int64
	left   int64
	tooBig atomic.Bool // read while the answer is written
}

func (b *requestBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if b.left > 0 || err != nil {
		return n, err
	}
	if _, err = b.r.Peek(1); err == nil {
		b.tooBig.Store(true)
		return 0, engine.Errorf(engine.TypeBadRequest, "The request body is larger than %d bytes.", b.limit)
	}
	return n, err // the end, usually
}

// streamWriter writes a function's answer to a client as it comes.
type streamWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	body    *requestBody // of the request
	status  int
}

// Head implements engine.ResponseWriter.
func (s *streamWriter) Head(status int, headers []engine.Header) error {
	if status < 200 || status > 999 {
		return fmt.Errorf("status %d cannot be sent", status)
	}
	h := s.w.Header()
	for _, f := range headers {
		if !slices.Contains(hopByHop, strings.ToLower(f.Name)) {
			h.Add(f.Name, f.Value)
		}
	}
	if _, err := strconv.ParseUint(h.Get("Content-Length"), 10, 63); err != nil {
		h.Del("Content-Length")
	}
	if s.body.tooBig.Load() {
		status = http.StatusRequestEntityTooLarge
	}
	s.status = status
	if h.Get("Content-Type") == "" && !s.bodiless() {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	s.w.WriteHeader(status)
	return nil
}

// bodiless reports whether HTTP has no body in an answer of this status.
func (s *streamWriter) bodiless() bool {
	return s.status == http.StatusNoContent || s.status == http.StatusNotModified
}

// Write implements engine.ResponseWriter. It blocks while the client does not
// read, which holds the function up.
func (s *streamWriter) Write(p []byte) (int, error) {
	if s.bodiless() {
		return len(p), nil
	}
	return s.w.Write(p)
}

// Flush implements engine.ResponseWriter.
func (s *streamWriter) Flush() error {
	if err := s.control.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
