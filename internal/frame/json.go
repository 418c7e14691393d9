package frame

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// ReadyBody is the payload of READY.
type ReadyBody struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
}

// BindBody is the payload of BIND.
type BindBody struct {
	Root       string            `json:"root"`
	Entrypoint string            `json:"entrypoint"`
	Env        map[string]string `json:"env"`
	Workers    int               `json:"workers"`
}

// BoundBody is the payload of BOUND.
type BoundBody struct {
	Error string `json:"error"`
}

type responseHead struct {
	Status   int        `json:"s"`
	Headers  [][]string `json:"h"`
	TimedOut int        `json:"t"`
	Retire   int        `json:"r"`
}

func parseHead(b []byte) (responseHead, []sandbox.Header, error) {
	var h responseHead
	if err := json.Unmarshal(b, &h); err != nil {
		return h, nil, fmt.Errorf("%w: head: %w", ErrMalformed, err)
	}
	fields := make([]sandbox.Header, len(h.Headers))
	for i, f := range h.Headers {
		if len(f) != 2 {
			return h, nil, fmt.Errorf("%w: header field of %d parts", ErrMalformed, len(f))
		}
		fields[i] = sandbox.Header{Name: f[0], Value: f[1]}
	}
	return h, fields, nil
}

// appendCallHead appends the JSON head of a CALL. It is written by hand
// because it is on the path of every call.
func appendCallHead(b []byte, r *sandbox.Request) []byte {
	b = append(b, `{"m":`...)
	b = appendString(b, r.Method)
	b = append(b, `,"p":`...)
	b = appendString(b, r.Path)
	b = append(b, `,"h":{`...)
	for i, h := range r.Headers {
		if repeated(r.Headers[:i], h.Name) {
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, h.Name)
		b = append(b, ':')
		b = appendString(b, joined(r.Headers[i:]))
	}
	b = append(b, '}')
	if r.Timeout > 0 {
		b = append(b, `,"t":`...)
		b = strconv.AppendInt(b, max(1, int64(r.Timeout/time.Millisecond)), 10)
	}
	if r.Logging {
		b = append(b, `,"l":1`...)
	}
	return append(b, '}')
}

func repeated(before []sandbox.Header, name string) bool {
	for _, h := range before {
		if h.Name == name {
			return true
		}
	}
	return false
}

// joined is the value of the first field and of all later ones of its name.
func joined(fields []sandbox.Header) string {
	value, sep := fields[0].Value, ", "
	if fields[0].Name == "cookie" {
		sep = "; "
	}
	for _, h := range fields[1:] {
		if h.Name == fields[0].Name {
			value += sep + h.Value
		}
	}
	return value
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string cannot fail
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
