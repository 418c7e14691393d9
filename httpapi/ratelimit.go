package httpapi

import (
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// rateLimit allows a number of requests per name in a window of time that
// begins with the first of them. It counts what this process sees.
type rateLimit struct {
	max    int
	window time.Duration

	mu   sync.Mutex
	used map[string]usage
}

type usage struct {
	count int
	ends  time.Time
}

func newRateLimit(max int, window time.Duration) *rateLimit {
	return &rateLimit{max: max, window: window, used: map[string]usage{}}
}

// manyNames is from how many names on those of the past are forgotten.
const manyNames = 1024

// take counts one request, says in h how many are left, and refuses it when
// there are none.
func (l *rateLimit) take(h http.Header, name string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.used) >= manyNames {
		maps.DeleteFunc(l.used, func(_ string, u usage) bool { return !now.Before(u.ends) })
	}
	u := l.used[name]
	if !now.Before(u.ends) {
		u = usage{ends: now.Add(l.window)}
	}
	u.count++
	l.used[name] = u
	h.Set("X-RateLimit-Limit", strconv.Itoa(l.max))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, l.max-u.count)))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(u.ends.Unix(), 10))
	if u.count > l.max {
		return engine.Errorf(engine.TypeRateLimit, "")
	}
	return nil
}
