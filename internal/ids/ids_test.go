package ids_test

import (
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/ids"
)

func TestIdsSortByTime(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[0-9a-f]{20}$`)
	before, last := time.UnixMicro(1_800_000_000_000_000), ""
	for i := range 100 {
		id := ids.New(before.Add(time.Duration(i) * time.Microsecond))
		if !form.MatchString(id) || id <= last {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
}

// TestIdsOfOneMoment makes so many with a clock that stands still that random
// digits alone would meet several times.
func TestIdsOfOneMoment(t *testing.T) {
	t.Parallel()
	now := time.UnixMicro(1_800_000_000_000_000)
	const makers, each = 4, 25_000
	made := make([][]string, makers)
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			for range each {
				made[i] = append(made[i], ids.New(now))
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, all := range made {
		for _, id := range all {
			seen[id] = true
		}
	}
	if len(seen) != makers*each {
		t.Errorf("%d ids of %d are distinct", len(seen), makers*each)
	}
}
