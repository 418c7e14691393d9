package procbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fnkit/fnkit/internal/frame"
	"github.com/fnkit/fnkit/sandbox"
)

// appendCallHead appends the JSON head of a call, in ASCII. It is written by
// hand because every call needs one.
func appendCallHead(b []byte, r *sandbox.Request) []byte {
	b = append(b, `{"m":`...)
	b = appendString(b, r.Method)
	b = append(b, `,"p":`...)
	b = appendString(b, r.Path)
	b = append(b, `,"h":{`...)
	for i, h := range r.Headers {
		same := func(o sandbox.Header) bool { return o.Name == h.Name }
		if slices.ContainsFunc(r.Headers[:i], same) {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = appendString(b, h.Name)
		b = append(b, ':')
		value := h.Value
		if slices.ContainsFunc(r.Headers[i+1:], same) {
			value = joined(r.Headers[i:])
		}
		b = appendString(b, value)
	}
	b = append(b, '}')
	if r.Timeout > 0 {
		b = append(b, `,"t":`...)
		b = strconv.AppendInt(b, max(1, r.Timeout.Milliseconds()), 10)
	}
	if r.Logging {
		b = append(b, `,"l":1`...)
	}
	return append(b, '}')
}

// joined is the value of all fields that have the name of the first.
func joined(fields []sandbox.Header) string {
	sep := ", "
	if fields[0].Name == "cookie" {
		sep = "; "
	}
	value := []byte(fields[0].Value)
	for _, h := range fields[1:] {
		if h.Name == fields[0].Name {
			value = append(append(value, sep...), h.Value...)
		}
	}
	return string(value)
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ' && c < 0x7f:
			b = append(b, c)
		case c < utf8.RuneSelf:
			b = appendUnit(b, rune(c))
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r >= 0x10000 {
				b = appendUnit(b, 0xd800+(r-0x10000)>>10)
				r = 0xdc00 + (r-0x10000)&0x3ff
			}
			b = appendUnit(b, r)
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}

func appendUnit(b []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// responseHead is the JSON head of a response.
type responseHead struct {
	status   int
	headers  []sandbox.Header
	timedOut bool
	retire   bool
}

// parseResponseHead parses what a harness sends. The common form is parsed by
// hand because every call has one; any other by encoding/json.
func parseResponseHead(p []byte) (responseHead, error) {
	h, ok := parseCommonHead(p)
	if !ok {
		var err error
		if h, err = parseAnyHead(p); err != nil {
			return h, fmt.Errorf("%w: head: %w", frame.ErrProtocol, err)
		}
	}
	for i := range h.headers {
		h.headers[i].Name = strings.ToLower(h.headers[i].Name)
	}
	return h, nil
}

func parseAnyHead(p []byte) (responseHead, error) {
	var j struct {
		S int        `json:"s"`
		H [][]string `json:"h"`
		T int        `json:"t"`
		R int        `json:"r"`
	}
	if err := json.Unmarshal(p, &j); err != nil {
		return responseHead{}, err
	}
	h := responseHead{status: j.S, timedOut: j.T != 0, retire: j.R != 0}
	for _, f := range j.H {
		if len(f) != 2 {
			return responseHead{}, fmt.Errorf("header field of %d parts", len(f))
		}
		h.headers = append(h.headers, sandbox.Header{Name: f[0], Value: f[1]})
	}
	return h, nil
}

// parseCommonHead parses {"s":200,"h":[["name","value"],…]} without escapes.
func parseCommonHead(p []byte) (h responseHead, ok bool) {
	s := scanner{p, true}
	s.expect(`{"s":`)
	h.status = s.number()
	s.expect(`,"h":[`)
	for s.ok && !s.next(']') {
		if len(h.headers) > 0 {
			s.expect(`,`)
		} else {
			h.headers = make([]sandbox.Header, 0, 4)
		}
		s.expect(`["`)
		name := s.text()
		s.expect(`,"`)
		value := s.text()
		s.expect(`]`)
		h.headers = append(h.headers, sandbox.Header{Name: name, Value: value})
	}
	s.expect(`}`)
	return h, s.ok && len(s.p) == 0
}

// scanner reads JSON of one known form; ok says that it was met so far.
type scanner struct {
	p  []byte
	ok bool
}

func (s *scanner) expect(lit string) {
	if s.ok = s.ok && len(s.p) >= len(lit) && string(s.p[:len(lit)]) == lit; s.ok {
		s.p = s.p[len(lit):]
	}
}

func (s *scanner) next(c byte) bool {
	if s.ok && len(s.p) > 0 && s.p[0] == c {
		s.p = s.p[1:]
		return true
	}
	return false
}

func (s *scanner) number() (n int) {
	i := 0
	for ; i < len(s.p) && i < 9 && s.p[i] >= '0' && s.p[i] <= '9'; i++ {
		n = n*10 + int(s.p[i]-'0')
	}
	s.ok = s.ok && i > 0 && (i == 1 || s.p[0] != '0')
	s.p = s.p[i:]
	return n
}

// text reads up to and with the closing quote.
func (s *scanner) text() string {
	for i, c := range s.p {
		switch {
		case c == '"':
			t := string(s.p[:i])
			s.p = s.p[i+1:]
			return t
		case c < ' ' || c == '\\' || c >= utf8.RuneSelf:
			s.ok = false
			return ""
		}
	}
	s.ok = false
	return ""
}
