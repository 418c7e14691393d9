// Package ids makes record ids: 20 lower-case hex digits, 13 of microseconds
// since 1970 and 7 random ones, so that they sort by time.
package ids

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// New returns an id made at now. Ids are unique, not secret.
func New(now time.Time) string {
	return fmt.Sprintf("%013x%07x", uint64(now.UnixMicro())&(1<<52-1), rand.Uint32N(1<<28))
}
