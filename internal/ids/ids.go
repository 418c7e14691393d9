// Package ids makes record ids: 20 lower-case hex digits, 13 of microseconds
// since 1970 and 7 that tell apart what is made within one, so that they sort
// by time.
package ids

import (
	"fmt"
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

// New returns an id made at now. Ids are unique, not secret.
func New(now time.Time) string {
	return fmt.Sprintf("%013x%07x", uint64(now.UnixMicro())&(1<<52-1), turn.Add(1)&(1<<28-1))
}
