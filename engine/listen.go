package engine

import (
	"context"

	"github.com/fnkit/fnkit/store"
)

// listen wakes the workers when other engines have queued something, until ctx
// ends. These are hints: what is missed is found within Work.Poll.
func (e *Engine) listen(ctx context.Context) {
	defer e.life.pulses.gone("hints")
	waker, ok := e.store.(store.Waker)
	if !ok {
		return
	}
	for ctx.Err() == nil {
		e.life.pulses.rests("hints", e.clock.Now())
		wakes, end, err := e.wakes(ctx, waker)
		if err == nil && wakes == nil {
			end()
			return
		}
		if err == nil {
			e.life.pulses.gone("hints") // it waits for others, for as long as they have nothing to say
			for range wakes {
				e.builds.wake()
				e.runs.wake()
			}
		} else if ctx.Err() == nil {
			e.cfg.Logger.Warn("listen for queued work", "error", err)
		}
		end()
		e.life.pulses.rests("hints", e.clock.Now().Add(e.cfg.Work.Poll))
		e.pause(ctx, e.cfg.Work.Poll)
	}
}

// wakes asks for hints, within the time that the store has to answer. They come
// until end is called, or ctx ends.
func (e *Engine) wakes(ctx context.Context, waker store.Waker) (wakes <-chan struct{}, end func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	slow := e.clock.AfterFunc(e.cfg.Work.Lease/3, func() { cancel(errSlowStore) })
	defer slow.Stop()
	if wakes, err = waker.Wakes(ctx); err != nil {
		err = reason(ctx, err)
	}
	return wakes, func() { cancel(nil) }, err
}
