package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"

	"github.com/fnkit/fnkit/engine"
)

// Types of errors that only the wire knows; the others are the engine's.
const (
	TypeRoute            = "general_route_not_found"
	TypeUnknownOrigin    = "general_unknown_origin"
	TypeUnreadableAnswer = "general_unknown"
	TypeJWT              = "user_jwt_invalid"
	TypeKeyAndSession    = "user_key_and_session_set"
)

var wireErrors = map[string]engine.Error{
	TypeRoute:            {Kind: engine.NotFound, Message: "Route not found. Please ensure the endpoint is configured correctly and that the API route is valid for this SDK version."},
	TypeUnknownOrigin:    {Kind: engine.Forbidden, Message: "Invalid Origin. The request comes from a page whose host is not allowed to call this API."},
	TypeUnreadableAnswer: {Kind: engine.Invalid, Message: "Failed to parse response: the function's body is not valid UTF-8. Send \"Accept: multipart/form-data\" to get it as it is."},
	TypeJWT:              {Kind: engine.Unauthorized, Message: "Failed to verify JWT. The token is not known."},
	TypeKeyAndSession:    {Kind: engine.Forbidden, Message: "API key and session used in the same request. Use either one of them."},
}

// statuses is the one map from what an error is to what HTTP calls it.
var statuses = map[engine.Kind]int{
	engine.Internal:     http.StatusInternalServerError,
	engine.Invalid:      http.StatusBadRequest,
	engine.Unauthorized: http.StatusUnauthorized,
	engine.Forbidden:    http.StatusForbidden,
	engine.NotFound:     http.StatusNotFound,
	engine.Timeout:      http.StatusRequestTimeout,
	engine.Conflict:     http.StatusConflict,
	engine.Range:        http.StatusRequestedRangeNotSatisfiable,
	engine.Busy:         http.StatusTooManyRequests,
	engine.Unavailable:  http.StatusServiceUnavailable,
}

// ErrorTypes returns every type of error the API can answer, with its status.
func ErrorTypes() map[string]int {
	all := map[string]int{}
	for typ, kind := range engine.ErrorTypes() {
		all[typ] = statuses[kind]
	}
	for typ, e := range wireErrors {
		all[typ] = statuses[e.Kind]
	}
	return all
}

func wireError(typ string) error {
	e := wireErrors[typ]
	return &engine.Error{Kind: e.Kind, Type: typ, Message: e.Message}
}

// engineError returns the error of the engine that err is or wraps, or nil.
func engineError(err error) *engine.Error {
	var e *engine.Error
	errors.As(err, &e)
	return e
}

// writeError answers an error. It is the only place that does.
func (a *API) writeError(w http.ResponseWriter, r *http.Request, err error) {
	status, e := a.prepareError(w, r, err)
	writeJSON(w, r, status, object{
		{"message", e.Message}, {"code", status}, {"type", e.Type}, {"version", a.opt.Version},
	})
}

// prepareError sets the headers of an answer that is an error, and returns its
// status and what the caller may be told. The text of an error that is not
// meant for callers goes to the log, under an id that the answer names.
func (a *API) prepareError(w http.ResponseWriter, r *http.Request, err error) (int, engine.Error) {
	told := *engine.Errorf(engine.TypeServer, "")
	status := statuses[told.Kind]
	if e := engineError(err); e != nil {
		told.Type = e.Type
		if code, public := statuses[e.Kind]; public && e.Kind != engine.Internal {
			status, told.Kind, told.Message = code, e.Kind, e.Message
		}
	}
	h := w.Header()
	if status >= http.StatusInternalServerError {
		h.Set("X-Error-Id", a.logError(r, err))
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Expires", "0")
	h.Set("Pragma", "no-cache")
	return status, told
}

// logError writes an error to the log and returns the id it is found by.
func (a *API) logError(r *http.Request, err error) string {
	b := make([]byte, 8)
	rand.Read(b)
	id := hex.EncodeToString(b)
	level := slog.LevelError
	if errors.Is(err, context.Canceled) {
		level = slog.LevelDebug // the client is gone
	}
	attrs := []slog.Attr{slog.String("id", id), slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("error", err)}
	if e := engineError(err); e != nil && e.Unwrap() != nil {
		attrs = append(attrs, slog.Any("cause", e.Unwrap()))
	}
	a.opt.Logger.LogAttrs(r.Context(), level, "request failed", attrs...)
	return id
}
