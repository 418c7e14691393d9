package httpapi

import (
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/fnkit/fnkit/engine"
)

// call is one request on its way to a handler.
type call struct {
	api    *API
	w      http.ResponseWriter
	r      *http.Request
	route  route
	format version

	caller engine.Caller
	by     engine.Actor
	p      *engine.Project
	in     *input
}

// authorize finds out who calls and whether they may use the route.
func (c *call) authorize() error {
	caller, err := c.api.opt.Identify(c.r)
	if err != nil {
		return c.refused(caller.Project, err)
	}
	c.caller, c.by = caller, caller.Actor
	c.p = c.api.eng.Project(caller.Project)
	return c.api.eng.Authorize(c.r.Context(), caller, c.route.scope)
}

// refused says why a caller was refused: that the project does not exist comes
// before anything about its keys and users.
func (c *call) refused(project string, err error) error {
	if project == "" || engineError(err) == nil {
		return err
	}
	if missing := c.api.eng.Authorize(c.r.Context(), engine.Caller{Project: project, Actor: engine.System}, c.route.scope); missing != nil {
		if e := engineError(missing); e != nil && e.Type == engine.TypeProject {
			return missing
		}
	}
	return err
}

// readParams reads the parameters from the one place a method has them in.
func (c *call) readParams() error {
	values, err := map[string]any{}, error(nil)
	switch {
	case c.route.scope == "": // open to everyone, and takes none
	case c.r.Method == http.MethodGet || c.r.Method == http.MethodHead:
		values = parseForm(c.r.URL.RawQuery)
	case c.route.body > 0:
		values, err = readBody(c.w, c.r, c.route.body)
	}
	c.in = &input{values: values, path: c.r.PathValue}
	return err
}

// json answers with one model.
func (c *call) json(status int, o object) error {
	writeJSON(c.w, c.r, status, o)
	return nil
}

// list answers with a list of models.
func (c *call) list(name string, total int, items []object) error {
	return c.json(http.StatusOK, object{{"total", total}, {name, items}})
}

// noContent answers that it is done. There must be no content type: clients
// parse what has one.
func (c *call) noContent() error {
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// compressFrom is the size from which JSON is compressed.
const compressFrom = 1024

// writeJSON answers with a JSON object.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, o object) {
	body := appendJSON(make([]byte, 0, 1024), o)
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=UTF-8")
	if len(body) <= compressFrom || !acceptsGzip(r) {
		h.Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		w.Write(body)
		return
	}
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
	h.Del("Content-Length")
	w.WriteHeader(status)
	zw := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(zw)
	zw.Reset(w)
	zw.Write(body)
	zw.Close()
}

var gzipWriters = sync.Pool{New: func() any {
	zw, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return zw
}}

// acceptsGzip reports whether the client asked for gzip.
func acceptsGzip(r *http.Request) bool {
	for _, field := range r.Header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(field, ",") {
			name, params, _ := strings.Cut(strings.TrimSpace(coding), ";")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") {
				q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(params), "q="), 64)
				return err != nil || q > 0
			}
		}
	}
	return false
}
