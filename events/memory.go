package events

import (
	"context"
	"sync"
)

// Memory is the in-process Bus: subscribers of the same process get events
// through a buffer each; one that is full loses the newest.
type Memory struct {
	mu     sync.Mutex
	subs   map[*subscription]struct{}
	closed bool
}

type subscription struct {
	pattern Pattern
	out     chan Event
	stop    func() bool
}

// buffered is how many events a subscriber may be behind.
const buffered = 256

// NewMemory returns an in-process bus.
func NewMemory() *Memory { return &Memory{subs: map[*subscription]struct{}{}} }

// Publish implements Bus.
func (m *Memory) Publish(ctx context.Context, e Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	for s := range m.subs {
		if !s.pattern.Matches(e) {
			continue
		}
		select {
		case s.out <- e:
		default:
		}
	}
	return nil
}

// Subscribe implements Bus.
func (m *Memory) Subscribe(ctx context.Context, p Pattern) (<-chan Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	s := &subscription{pattern: p, out: make(chan Event, buffered)}
	m.subs[s] = struct{}{}
	s.stop = context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.drop(s)
	})
	return s.out, nil
}

// Close implements Bus.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for s := range m.subs {
		s.stop()
		m.drop(s)
	}
	return nil
}

// drop ends a subscription; m.mu is held.
func (m *Memory) drop(s *subscription) {
	if _, ok := m.subs[s]; ok {
		delete(m.subs, s)
		close(s.out)
	}
}
