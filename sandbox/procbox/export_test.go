package procbox

import "github.com/fnkit/fnkit/sandbox"

// For the tests of the heads.

func AppendCallHead(b []byte, r *sandbox.Request) []byte { return appendCallHead(b, r) }

// ParseCommonHead is the parser of the common form.
func ParseCommonHead(p []byte) (status int, headers []sandbox.Header, ok bool) {
	h, ok := parseCommonHead(p)
	return h.status, h.headers, ok
}
