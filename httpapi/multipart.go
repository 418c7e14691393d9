package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
)

// writeMultipart answers with an object as multipart/form-data, one part for
// each field, so that a body that is not text survives.
func writeMultipart(w http.ResponseWriter, status int, o object) error {
	boundary := newBoundary(o)
	var b []byte
	for _, f := range o {
		b = append(b, "--"+boundary+"\r\nContent-Disposition: form-data; name=\""+f.name+"\"\r\n"...)
		b = append(appendPart(b, f.value), "\r\n"...)
	}
	b = append(b, "--"+boundary+"--\r\n"...)
	h := w.Header()
	h.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
	return nil
}

// appendPart appends the rest of a part's head and its content: lists are
// JSON, everything else is text.
func appendPart(b []byte, value any) []byte {
	switch v := value.(type) {
	case nil:
		return append(b, "\r\n"...)
	case string:
		return append(append(b, "\r\n"...), v...)
	case bool:
		if v {
			return append(b, "\r\n1"...)
		}
		return append(b, "\r\n0"...)
	case int, int64, float64:
		return appendJSON(append(b, "\r\n"...), v)
	}
	return appendJSON(append(b, "Content-Type: application/json\r\n\r\n"...), value)
}

// newBoundary returns a boundary that occurs in no text of the object.
func newBoundary(o object) string {
	for {
		var random [7]byte
		rand.Read(random[:])
		boundary := "-----------------------------" + hex.EncodeToString(random[:])[:13]
		if !occurs(o, boundary) {
			return boundary
		}
	}
}

func occurs(o object, boundary string) bool {
	for _, f := range o {
		if s, ok := f.value.(string); ok && strings.Contains(s, boundary) {
			return true
		}
	}
	return false
}
