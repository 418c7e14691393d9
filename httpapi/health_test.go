package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/httpapi"
)

func TestHealthHandlers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ask := func(h http.Handler, status int) map[string]string {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/healthz", nil))
		var body map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != status || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%d %s, %v", w.Code, w.Body, err)
		}
		return body
	}
	live, ready := httpapi.LiveHandler(s.eng), httpapi.ReadyHandler(s.eng)
	for _, h := range []http.Handler{live, ready} {
		if body := ask(h, http.StatusOK); body["status"] != "ok" {
			t.Errorf("%v", body)
		}
	}
	if err := s.eng.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask(live, http.StatusOK)
	if body := ask(ready, http.StatusServiceUnavailable); body["status"] != "failing" || !strings.Contains(body["reason"], "does not run") {
		t.Errorf("%v", body)
	}
	down := newServer(t, func(u *setup) { u.idle = true })
	down.store.Close()
	if body := ask(httpapi.ReadyHandler(down.eng), http.StatusServiceUnavailable); body["reason"] != "The store does not answer." {
		t.Errorf("%v", body)
	}
}
