package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/fnkit/fnkit/store"
)

var _ store.Waker = (*Store)(nil)

// Listener hears what is notified on a channel of Postgres. It is used by one
// goroutine at a time.
type Listener interface {
	// Wait returns the next payload. An error ends the listener.
	Wait(ctx context.Context) (payload string, err error)
	Close() error
}

// hints are what a store tells others, and hears from them.
type hints struct {
	listen func(ctx context.Context, channel string) (Listener, error)
	self   string // tells its own notifications from those of others

	mu      sync.Mutex
	wanted  bool // rows were queued that nobody was told of
	sending bool
	ended   bool
	end     chan struct{} // closed when the store is
	group   sync.WaitGroup
}

func newHints(listen func(context.Context, string) (Listener, error)) hints {
	return hints{listen: listen, self: rand.Text(), end: make(chan struct{})}
}

func (h *hints) close() {
	h.mu.Lock()
	if !h.ended {
		close(h.end)
	}
	h.ended = true
	h.mu.Unlock()
	h.group.Wait()
}

// run runs fn on a goroutine that close waits for, unless the store is closed.
func (h *hints) run(fn func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.group.Go(fn)
	}
	return !h.ended
}

// enqueued says, if err is nil, that rows were queued, when they are committed;
// unless none were.
func (r records) enqueued(err error, any bool) {
	switch {
	case err != nil || !any:
	case r.in != nil:
		r.in.queued = true
	default:
		r.s.hint()
	}
}

// claimable reports whether others may claim a row of this state, now or later.
func claimable[S ~string](ready time.Time, status S) bool {
	return !ready.IsZero() && status != "processing" && status != "building"
}

// hint tells others that rows were queued, without making the caller wait. A
// notification inside the transaction would do, but the server makes commits
// that notify stand in line. What is queued while one is on its way goes with
// the next.
func (s *Store) hint() {
	if s.dialect.notify == "" {
		return
	}
	h := &s.hints
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wanted = true
	if !h.sending && !h.ended {
		h.sending = true
		h.group.Go(s.sendHints)
	}
}

// sendHints sends until nothing is wanted any more.
func (s *Store) sendHints() {
	for s.hints.next() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		// It is only a hint: who did not get it finds the rows later.
		_, _ = s.db.ExecContext(ctx, s.dialect.notify, s.prefix, s.hints.self)
		cancel()
	}
}

func (h *hints) next() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sending = h.wanted && !h.ended
	h.wanted = false
	return h.sending
}

// Wakes implements store.Waker, on Postgres with Options.Listen.
func (s *Store) Wakes(ctx context.Context) (<-chan struct{}, error) {
	if s.hints.listen == nil || s.dialect.channel == "" {
		return nil, nil
	}
	var channel string
	if err := s.r.NewRaw(s.dialect.channel, s.prefix).Scan(ctx, &channel); err != nil {
		return nil, failed("listen", err)
	}
	l, err := s.hints.listen(ctx, channel)
	if err != nil {
		return nil, failed("listen", err)
	}
	wakes := make(chan struct{}, 1)
	wakes <- struct{}{} // what was queued before it listened
	if !s.hints.run(func() { s.hear(ctx, l, wakes) }) {
		return nil, failed("listen", errors.Join(store.ErrUnavailable, l.Close()))
	}
	return wakes, nil
}

// hear passes on what others notify, until ctx ends, the store is closed or
// the connection is lost.
func (s *Store) hear(ctx context.Context, l Listener, wakes chan<- struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	if !s.hints.run(func() {
		select {
		case <-s.hints.end:
			cancel()
		case <-ctx.Done():
		}
	}) {
		cancel()
	}
	defer close(wakes)
	defer cancel()
	defer l.Close()
	for {
		from, err := l.Wait(ctx)
		if err != nil {
			return
		}
		if from == s.hints.self {
			continue
		}
		select {
		case wakes <- struct{}{}:
		default:
		}
	}
}
