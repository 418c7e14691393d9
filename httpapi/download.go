package httpapi

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"strconv"

	"github.com/fnkit/fnkit/engine"
)

// download sends a deployment's source archive, or one range of it. A range in
// another unit, several ranges and what is no range at all give the whole, as
// RFC 9110 allows.
func (a *API) download(c *call) error {
	function, id, err := c.deploymentIDs()
	if err != nil {
		return err
	}
	src, err := c.p.OpenSource(c.r.Context(), c.by, function, id)
	if err != nil {
		return err
	}
	defer src.Close()

	h := c.w.Header()
	r := c.r.Clone(c.r.Context())
	r.Header.Del("Range")
	if start, end, ok := parseRange(c.r.Header.Get("Range"), src.Size); ok {
		if start > end {
			start, end = src.Size, src.Size // refused by ServeContent, unless a condition says to ignore the range
		}
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", start, end))
	}
	h.Set("Content-Type", "application/gzip")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", id+".tar.gz"))
	h.Set("Cache-Control", "private, max-age=3888000")
	h.Set("ETag", strconv.Quote(id+"-"+strconv.FormatInt(src.Modified.UnixMilli(), 36))) // an id can be chosen again after a delete
	w, content := &rangeWriter{ResponseWriter: c.w}, &archiveReader{ReadSeeker: src}
	http.ServeContent(w, r, "", src.Modified, content)
	if w.refused {
		h.Del("Content-Disposition")
		return engine.Errorf(engine.TypeRange, "")
	}
	return content.err
}

// archiveReader remembers why it could not be read, which ServeContent does not tell.
type archiveReader struct {
	io.ReadSeeker
	err error
}

func (r *archiveReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeeker.Read(p)
	if err != nil && err != io.EOF {
		r.err = fmt.Errorf("read a source archive: %w", err)
	}
	return n, err
}

// rangeWriter keeps the answer to a range that does not exist from being
// written, to be answered as other errors are.
type rangeWriter struct {
	http.ResponseWriter
	refused bool
}

func (w *rangeWriter) WriteHeader(status int) {
	if w.refused = status == http.StatusRequestedRangeNotSatisfiable; !w.refused {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *rangeWriter) Write(p []byte) (int, error) {
	if w.refused {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

var singleRange = regexp.MustCompile(`^bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*$`)

// parseRange returns the first and the last byte a Range header asks for; ok
// is false if it asks for no single range. A range that cannot be satisfied
// has its start behind its end.
func parseRange(header string, size int64) (start, end int64, ok bool) {
	m := singleRange.FindStringSubmatch(header)
	if m == nil || m[1] == "" && m[2] == "" {
		return 0, 0, false
	}
	if m[1] == "" {
		return max(0, size-number(m[2])), size - 1, true
	}
	start, end = number(m[1]), math.MaxInt64
	if m[2] != "" {
		if end = number(m[2]); end < start {
			return 0, 0, false
		}
	}
	return start, min(end, size-1), true
}

// number reads digits; too many of them are the largest number.
func number(digits string) int64 {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return math.MaxInt64
	}
	return n
}
