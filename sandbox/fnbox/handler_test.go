package fnbox_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

func TestHandler(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Add("X-Seen", r.Header.Get("x-sent"))
		w.Header().Add("X-Seen", r.URL.Query().Get("q")+" "+r.Host)
		w.WriteHeader(http.StatusTeapot)
		w.Write(body)
	})
	mux.HandleFunc("GET /nothing", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html></html>") })
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "piece %d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		}
	})
	mux.HandleFunc("GET /large", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1<<20)) })
	box := start(t, fnbox.Handler(mux))
	for _, c := range []struct {
		method, path, body string
		status             int
		header, value      string
		want               string
	}{
		{"POST", "/echo?q=a", "hi", 418, "x-seen", "sent", "hi"},
		{"GET", "/nothing", "", 200, "", "", ""},
		{"GET", "/page", "", 200, "content-type", "text/html; charset=utf-8", "<html></html>"},
		{"GET", "/stream", "", 200, "content-type", "text/plain; charset=utf-8", "piece 0\npiece 1\npiece 2\n"},
		{"GET", "/large", "", 200, "", "", strings.Repeat("x", 1<<20)},
		{"GET", "/echo", "", 405, "allow", "POST", "Method Not Allowed\n"},
	} {
		var a answer
		_, err := box.Invoke(t.Context(), "i", sandbox.Request{
			Method: c.method, Path: c.path, Body: strings.NewReader(c.body),
			Headers: []sandbox.Header{{Name: "host", Value: "example.org"}, {Name: "x-sent", Value: "sent"}},
		}, &a)
		if err != nil || a.status != c.status || a.body.String() != c.want || (c.header != "" && a.header(c.header) != c.value) {
			t.Errorf("%s %s: %v, status %d, %s %q, %d bytes", c.method, c.path, err, a.status, c.header, a.header(c.header), a.body.Len())
		}
	}
}
