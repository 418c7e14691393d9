package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

const (
	// slack is how much later than it meant to a loop may be back; and it is
	// never less than two leases, within which the store's answers are bounded.
	slack = time.Minute
	// probeEvery is how old the answers of the parts may be: whoever asks
	// often, perhaps from outside, must not make work.
	probeEvery = time.Second
	// probeTimeout is how long a part may take to answer.
	probeTimeout = 5 * time.Second
	// probeBlob is the blob that says whether blobs can be written.
	probeBlob = "ready"
)

// loops are those of a started engine, by the names of their pulses.
var loops = []string{"builds", "runs", "schedules", "limits", "eviction", "hints"}

// pulses say when loops will be back.
type pulses struct {
	mu   sync.Mutex
	back map[string]time.Time
}

// rests notes that a loop is back at a time at the latest, unless it is stuck.
func (p *pulses) rests(loop string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.back == nil {
		p.back = map[string]time.Time{}
	}
	p.back[loop] = until
}

// gone notes that a loop ended, or that nobody knows when it is back.
func (p *pulses) gone(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.back, loop)
}

// late returns a loop that should have been back before a time.
func (p *pulses) late(than time.Time) (loop string, since time.Time, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for loop, until := range p.back {
		if until.Before(than) && (!found || until.Before(since)) {
			return loop, until, true
		}
	}
	return "", time.Time{}, false
}

// Alive reports whether the loops of a started engine make progress, by the
// engine's clock: none is later than a minute, or two leases if that is longer. It
// asks nobody and returns at once, so it says nothing about store and sandbox: a
// process that is not alive should be restarted. An engine that was not
// started, is stepped, or stops is alive. Error: general_service_unavailable.
func (e *Engine) Alive() error {
	e.life.mu.Lock()
	looping := e.life.state == running && !e.life.stepped
	e.life.mu.Unlock()
	if !looping {
		return nil
	}
	now := e.clock.Now()
	if loop, since, late := e.life.pulses.late(now.Add(-max(slack, 2*e.cfg.Work.Lease))); late {
		return Errorf(TypeUnavailable, "The loop for %s has been stuck for %s.", loop, now.Sub(since).Round(time.Second))
	}
	return nil
}

// readiness is what the parts answered last.
type readiness struct {
	mu   sync.Mutex
	at   time.Time
	last error
}

// Ready reports whether the engine can serve: it does not stop, the store
// answers, blobs can be written, and, if it was started, the sandbox answers and
// the engine is Alive. It asks the parts once a second at most, for up to 5 s
// each, and leaves one blob of one byte, "ready". A process that is not ready should get no
// requests. Error: general_service_unavailable; the message names the part and
// can be shown, the cause that it wraps is for the log.
func (e *Engine) Ready(ctx context.Context) error {
	e.life.mu.Lock()
	state := e.life.state
	e.life.mu.Unlock()
	if state >= stopping {
		return errNotRunning()
	}
	if err := e.Alive(); err != nil {
		return err
	}
	r := &e.readiness
	r.mu.Lock()
	defer r.mu.Unlock()
	now := e.clock.Now()
	if since := now.Sub(r.at); r.at.IsZero() || since < 0 || since >= probeEvery {
		r.at, r.last = now, e.probeParts(context.WithoutCancel(ctx), state == running)
	}
	return r.last
}

// probeParts asks the parts whether they work.
func (e *Engine) probeParts(ctx context.Context, started bool) error {
	parts := []struct {
		what string
		ask  func(context.Context) error
	}{
		{"The store does not answer.", e.store.Ping},
		{"Blobs cannot be written.", func(ctx context.Context) error {
			_, err := e.cfg.Blobs.Put(ctx, probeBlob, strings.NewReader("."))
			return err
		}},
		{"The sandbox does not answer.", func(ctx context.Context) error {
			_, err := e.cfg.Sandbox.List(ctx)
			return err
		}},
	}
	if !started {
		parts = parts[:2]
	}
	for _, part := range parts {
		if err := e.probePart(ctx, part.ask); err != nil {
			failure := Errorf(TypeUnavailable, "%s", part.what)
			failure.cause = err
			return failure
		}
	}
	return nil
}

func (e *Engine) probePart(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := e.within(ctx, probeTimeout, errSlowPart)
	defer cancel()
	return ask(ctx)
}

var errSlowPart = errors.New("engine: no answer in time")
