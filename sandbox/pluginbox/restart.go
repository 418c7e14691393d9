package pluginbox

import (
	"context"
	"time"
)

// A plugin that ends soon after its start, time and again, is started ever more
// seldom.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
	// settled is how long a plugin must have run for its end to be the first.
	settled = time.Minute
)

// attempt is one start of the plugin; all who need it wait for the same.
type attempt struct {
	done chan struct{}
	p    *process
	err  error
}

// current returns the process, if there is one.
func (b *Box) current() *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notice()
	return b.live
}

// notice lets go of a process that has ended. b.mu is held.
func (b *Box) notice() {
	p := b.live
	if p == nil || p.run.ctx.Err() == nil {
		return
	}
	b.live = nil
	b.count(time.Since(p.began))
	if b.closed {
		b.log.Info("plugin stopped")
	} else {
		b.log.Error("plugin ended", "why", p.run.reason())
	}
}

// connect returns the process; if there is none it waits until one was started.
func (b *Box) connect(ctx context.Context) (*process, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, errClosed
	}
	b.notice()
	if p := b.live; p != nil {
		b.mu.Unlock()
		return p, nil
	}
	if b.starting == nil {
		b.starting = &attempt{done: make(chan struct{})}
		a, wait := b.starting, pause(b.ends)-time.Since(b.ended)
		b.group.Go(func() { b.start(a, wait) })
	}
	a := b.starting
	b.mu.Unlock()
	select {
	case <-a.done:
		return a.p, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pause is how long to wait between the end of the plugin and its next start, if
// that was the nth end: not at all after the first.
func pause(n int) time.Duration {
	if n < 2 {
		return 0
	}
	return min(leastPause<<min(n-2, 10), mostPause)
}

// start makes an attempt, and watches the process that comes of it.
func (b *Box) start(a *attempt, wait time.Duration) {
	defer close(a.done)
	if a.err = b.rest(wait); a.err == nil {
		a.p, a.err = b.launch(b.ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.starting = nil
	switch {
	case a.err != nil:
		b.count(0)
		b.log.Error("plugin does not start", "error", a.err)
	case b.closed:
		a.err = errClosed
		b.group.Go(func() { a.p.close(); a.p.bury() })
	default:
		b.live = a.p
		b.log.Info("plugin started", "pid", a.p.run.pid(), "took", time.Since(a.p.began))
		b.group.Go(func() { b.watch(a.p) })
		for runtime, n := range b.spares {
			b.group.Go(func() { b.rewarm(a.p, runtime, n) })
		}
	}
}

// rewarm has a plugin keep the spares that the last one kept.
func (b *Box) rewarm(p *process, runtime string, n int) {
	ctx, cancel := context.WithTimeout(p.run.ctx, b.cfg.StartTimeout)
	defer cancel()
	if err := p.warm(ctx, runtime, n); err != nil {
		b.log.Warn("plugin keeps no spares", "runtime", runtime, "error", err)
	}
}

// rest waits before a start; the Box's end ends that.
func (b *Box) rest(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-b.ctx.Done():
		return errClosed
	}
}

// count notes that the plugin ended after it had run for a while.
func (b *Box) count(ran time.Duration) {
	if ran > settled {
		b.ends = 0
	}
	b.ends++
	b.ended = time.Now()
}

// watch waits for the end of a process, and brings it about if it does not answer.
func (b *Box) watch(p *process) {
	ticker := time.NewTicker(b.cfg.Ping)
	defer ticker.Stop()
	for alive := true; alive; {
		select {
		case <-p.run.ctx.Done():
			alive = false
		case <-ticker.C:
			b.check(p)
		}
	}
	b.current()
	p.bury()
}

// check kills the process if it gives no sign of life.
func (b *Box) check(p *process) {
	ctx, cancel := context.WithTimeout(p.run.ctx, b.cfg.Ping)
	defer cancel()
	if err := p.ping(ctx); err != nil && ctx.Err() == context.DeadlineExceeded {
		b.log.Error("plugin does not answer and is killed", "after", b.cfg.Ping)
		p.run.kill()
	}
}

// spawn runs f in a goroutine that Close waits for, unless the Box is closed.
func (b *Box) spawn(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.group.Go(f)
	}
}
