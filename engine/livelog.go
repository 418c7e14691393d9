package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/store"
)

const (
	// liveAfter is how long an execution runs before its output goes to the
	// store, where every engine can follow it; earlier if somebody does so here.
	liveAfter = time.Second
	// followedPause and livePause are how long output is collected between two
	// writes to the store, while somebody follows it here and otherwise.
	followedPause = 20 * time.Millisecond
	livePause     = 250 * time.Millisecond
	// chunkCost is what a chunk counts beside its bytes.
	chunkCost = 64
	// cutMark is the last chunk of a log that has too many.
	cutMark = "[WARNING] More output than can be followed. The end is in the record.\n"
)

// liveLog passes the output of what runs here on to the store, once somebody
// may want to follow it. It never holds up what runs: what the store is too slow
// for is joined to the next chunk, and what is beyond the limit is left out.
// Until it is shown it costs a copy of the output.
type liveLog struct {
	e    *Engine
	ref  store.LogRef
	from time.Time // when it is shown at the latest
	max  int       // bytes, with chunkCost for each chunk

	mu      sync.Mutex
	pending []store.LogChunk // not passed on yet
	size    int              // of all chunks there were
	full    bool
	listed  bool // in Engine.feeds
	timer   *clock.Timer
	shown   bool
	ended   bool
	hurry   chan struct{} // made when it is shown; has room for one
	sent    bool          // there may be chunks in the store
	failing bool          // the last write failed
	writing bool
	idle    sync.Cond // writing became false
}

func newLiveLog(e *Engine, ref store.LogRef, max int) *liveLog {
	l := &liveLog{e: e, ref: ref, max: max}
	l.idle.L = &l.mu
	return l
}

func runLog(x Execution) store.LogRef {
	return store.LogRef{Project: x.Project, Kind: store.ExecutionLog, ID: x.ID}
}

// newRunLog returns the log of a queued execution that begins. That of an
// attempt after the first is shown at once: those before may have been.
func newRunLog(e *Engine, x Execution) *liveLog {
	l := newLiveLog(e, runLog(x), 2*e.cfg.Limits.LogSize)
	l.from = e.clock.Now()
	if x.Attempt <= 1 {
		l.from = l.from.Add(liveAfter)
	}
	return l
}

// endRunLog ends the log of an execution, and removes it if that was deleted.
func (e *Engine) endRunLog(ctx context.Context, l *liveLog, x Execution) {
	if sent := l.end(); !sent || !errors.Is(context.Cause(ctx), errLeaseLost) {
		return
	}
	ctx = context.WithoutCancel(ctx)
	_, err := e.store.GetExecution(ctx, x.Project, x.FunctionID, x.ID)
	if errors.Is(err, store.ErrNotFound) {
		err = e.store.DeleteLogs(ctx, l.ref)
	}
	if err != nil {
		e.cfg.Logger.Warn("delete log", "execution", x.ID, "error", err)
	}
}

// add takes output.
func (l *liveLog) add(stream string, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full || l.ended || len(p) == 0 {
		return
	}
	l.queue(stream, p)
	followed := false
	if !l.listed {
		l.listed, followed = true, l.e.feeds.list(l)
	}
	switch wait := l.from.Sub(l.e.clock.Now()); {
	case l.shown, followed, wait <= 0:
		l.open()
	case l.timer == nil:
		l.timer = l.e.clock.AfterFunc(wait, l.show)
	}
}

// queue adds output to what is pending.
func (l *liveLog) queue(stream string, p []byte) {
	last := len(l.pending) - 1
	if last < 0 || l.pending[last].Stream != stream {
		last = -1
		l.size += chunkCost
	}
	if l.size += len(p); l.size > l.max {
		l.full = true
		stream, p, last = "stderr", []byte(cutMark), -1
	}
	if last < 0 {
		l.pending = append(l.pending, store.LogChunk{At: l.e.now(), Stream: stream, Data: append([]byte(nil), p...)})
	} else {
		l.pending[last].Data = append(l.pending[last].Data, p...)
	}
}

// show has the log pass on what there is and what comes, soon.
func (l *liveLog) show() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.open()
	l.wake()
}

// open has what is pending passed on.
func (l *liveLog) open() {
	if l.hurry == nil {
		l.shown, l.hurry = true, make(chan struct{}, 1)
	}
	if !l.writing && len(l.pending) > 0 {
		l.writing, l.sent = true, true
		l.e.life.group.Go(l.write)
	}
}

// wake ends a pause between two writes.
func (l *liveLog) wake() {
	select {
	case l.hurry <- struct{}{}:
	default:
	}
}

// write passes on what is pending until nothing is.
func (l *liveLog) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > 0 {
		chunks := l.pending
		l.pending = nil
		l.mu.Unlock()
		err := l.append(chunks)
		l.mu.Lock()
		if err != nil && !l.failing {
			l.e.cfg.Logger.Warn("append log", "kind", l.ref.Kind, "id", l.ref.ID, "error", err)
		}
		if l.failing = err != nil; l.failing && !l.ended {
			l.pending = append(chunks, l.pending...)
		}
		if !l.ended {
			l.mu.Unlock()
			l.pause(err != nil)
			l.mu.Lock()
		}
	}
	l.writing = false
	l.idle.Broadcast()
}

// append writes chunks to the store and tells those who follow them here.
func (l *liveLog) append(chunks []store.LogChunk) error {
	ctx, cancel := l.e.within(context.WithoutCancel(l.e.life.ctx), l.e.cfg.Work.Lease/3, errSlowStore)
	defer cancel()
	defer l.e.feeds.tell(l.ref)
	return l.e.store.AppendLogs(ctx, l.ref, chunks)
}

// pause collects output for a while, so that much of it makes few writes.
func (l *liveLog) pause(failed bool) {
	d := livePause
	if l.e.feeds.followed(l.ref) && !failed {
		d = followedPause
	}
	timer := l.e.clock.Timer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.hurry:
	}
}

// end passes on what is left of a log that was shown, waits until that is done,
// and reports whether anything was passed on. Nothing is added afterwards.
func (l *liveLog) end() (sent bool) {
	l.mu.Lock()
	if l.timer != nil {
		l.timer.Stop()
	}
	if l.ended = true; l.shown {
		l.open()
		l.wake()
	}
	for l.writing {
		l.idle.Wait()
	}
	listed := l.listed
	l.mu.Unlock()
	if listed {
		l.e.feeds.unlist(l)
	}
	return l.sent
}

// feeds are the logs of what runs here, and of what is followed here.
type feeds struct {
	mu      sync.Mutex
	all     map[store.LogRef]*feed
	readers int
}

type feed struct {
	log     *liveLog // nil: it does not run here, or has no output yet
	readers []chan struct{}
}

// at returns the feed of a log; f.mu is held.
func (f *feeds) at(ref store.LogRef) *feed {
	have := f.all[ref]
	if have == nil {
		have = &feed{}
		f.all[ref] = have
	}
	return have
}

// drop forgets a feed that is of no use any more; f.mu is held.
func (f *feeds) drop(ref store.LogRef) {
	if have := f.all[ref]; have != nil && have.log == nil && len(have.readers) == 0 {
		delete(f.all, ref)
	}
}

// list notes that a log has output, and reports whether somebody follows it.
func (f *feeds) list(l *liveLog) (followed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	have := f.at(l.ref)
	have.log = l
	return len(have.readers) > 0
}

func (f *feeds) unlist(l *liveLog) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have := f.all[l.ref]; have != nil && have.log == l {
		have.log = nil
	}
	f.drop(l.ref)
}

// follow notes that somebody follows a log; max are followed at once.
// The channel gets a value when there may be more of it.
func (f *feeds) follow(ref store.LogRef, max int) (woken chan struct{}, ok bool) {
	f.mu.Lock()
	if f.readers >= max {
		f.mu.Unlock()
		return nil, false
	}
	f.readers++
	woken = make(chan struct{}, 1)
	have := f.at(ref)
	have.readers = append(have.readers, woken)
	running := have.log
	f.mu.Unlock()
	if running != nil {
		running.show()
	}
	return woken, true
}

func (f *feeds) leave(ref store.LogRef, woken chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers--
	have := f.all[ref]
	have.readers = slices.DeleteFunc(have.readers, func(c chan struct{}) bool { return c == woken })
	f.drop(ref)
}

// tell wakes those who follow a log.
func (f *feeds) tell(ref store.LogRef) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have := f.all[ref]; have != nil {
		for _, woken := range have.readers {
			select {
			case woken <- struct{}{}:
			default:
			}
		}
	}
}

// count is how many follow.
func (f *feeds) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readers
}

func (f *feeds) followed(ref store.LogRef) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	have := f.all[ref]
	return have != nil && len(have.readers) > 0
}
