package procbox

import "github.com/fnkit/fnkit/sandbox"

// FromSpare reports whether an instance was a spare.
func (b *Box) FromSpare(id string) bool {
	i := b.find(id)
	return i != nil && i.spare()
}

// Starting is how many processes have the turn to start, and how many may.
func (b *Box) Starting() (n, most int) { return len(b.turns), turns }

// For the tests of the heads.

func AppendCallHead(b []byte, r *sandbox.Request) []byte { return appendCallHead(b, r) }

// ParseCommonHead is the parser of the common form.
func ParseCommonHead(p []byte) (status int, headers []sandbox.Header, ok bool) {
	h, ok := parseCommonHead(p)
	return h.status, h.headers, ok
}
