// Package ids makes record ids: 20 lower-case hex digits, 13 of microseconds
// since 1970 and 7 that tell apart what is made within one, so that they sort
// by time.
package ids

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// turn counts the ids of this process, from where no other process begins: a
// clock that stands still, as in tests, does not make two that are equal.
var turn = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(rand.Uint32())
	return &n
}()

const digits = "0123456789abcdef"

// New returns an id made at now. Ids are unique, not secret.
func New(now time.Time) string {
	micros, n := uint64(now.UnixMicro()), turn.Add(1)
	var id [20]byte
	for i := 12; i >= 0; i, micros = i-1, micros>>4 {
		id[i] = digits[micros&15]
	}
	for i := 19; i >= 13; i, n = i-1, n>>4 {
		id[i] = digits[n&15]
	}
	return string(id[:])
}
