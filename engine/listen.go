package engine

import (
	"context"

	"github.com/fnkit/fnkit/store"
)

// listen wakes the workers when other engines have queued something, until ctx
// ends. These are hints: what is missed is found within Work.Poll.
func (e *Engine) listen(ctx context.Context) {
	waker, ok := e.store.(store.Waker)
	if !ok {
		return
	}
	for ctx.Err() == nil {
		wakes, err := waker.Wakes(ctx)
		if err == nil && wakes == nil {
			return
		}
		switch {
		case err == nil:
			for range wakes {
				e.builds.wake()
				e.runs.wake()
			}
		case ctx.Err() == nil:
			e.cfg.Logger.Warn("listen for queued work", "error", err)
		}
		e.pause(ctx, e.cfg.Work.Poll)
	}
}
