package engine

import (
	"context"
	"io"
	"time"

	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/store"
)

// LogChunk is a piece of a log that is followed.
type LogChunk = store.LogChunk

// Seq of the chunks of a log that is read from the record of what has ended.
const (
	wholeOutput = -1
	wholeErrors = -2
)

// followPage is how many chunks are read at once.
const followPage = 100

// LogFollower reads a log while it is written, see Project.FollowLogs. It is
// for one goroutine, and nothing waits for it. Close it.
type LogFollower struct {
	e      *Engine
	ref    store.LogRef
	after  int64
	record func(context.Context) (followed, error)
	now    followed // as it was read last

	stale    bool // now may have changed
	woken    chan struct{}
	events   <-chan Event
	stopping <-chan struct{}
	cancel   context.CancelFunc
}

// followed is what the record of a log says.
type followed struct {
	status string
	over   bool
	run    string     // changes when the log begins anew
	whole  []LogChunk // the log in the record, if it is over
}

// FollowLogs follows the output of an execution that is queued or runs: the
// follower's Next returns it as it comes, wherever it runs, and io.EOF when it
// is over. Of one that has ended, it returns what its record has. after is the
// Seq of the last chunk that is known from before; 0: none is.
//
// On the engine that runs the execution output arrives at once, on others
// within Work.Poll, and once it has run for a second. Of output beyond twice
// Limits.LogSize only the record has the end. When an execution is run again
// its output follows that of the attempt before. A synchronous execution can be
// followed when it has ended.
//
// Users do not see logs. Errors: function_not_found, execution_not_found,
// user_unauthorized, function_busy (Limits.Followers), general_service_unavailable.
func (p *Project) FollowLogs(ctx context.Context, by Actor, function, id string, after int64) (*LogFollower, error) {
	if _, err := p.enter(ctx, by, ScopeExecutionRead); err != nil {
		return nil, err
	}
	if _, err := p.readable(ctx, by, function, id); err != nil {
		return nil, err
	}
	if !by.Trusted() {
		return nil, Errorf(TypeUnauthorized, "Only API keys can read the logs of an execution.")
	}
	record := func(ctx context.Context) (followed, error) {
		x, err := p.e.store.GetExecution(ctx, p.id, function, id)
		if err != nil {
			return followed{}, fail(err, TypeExecution)
		}
		now := followed{status: string(x.Status), over: x.Status.Final()}
		now.add(wholeOutput, x.UpdatedAt, "stdout", x.Logs)
		now.add(wholeErrors, x.UpdatedAt, "stderr", x.Errors)
		return now, nil
	}
	return p.follow(ctx, store.LogRef{Project: p.id, Kind: store.ExecutionLog, ID: id}, "functions."+function+".executions."+id, after, record)
}

// FollowBuildLogs follows the output of a deployment's build, as FollowLogs. A
// build that is begun again begins a new log.
// Errors: function_not_found, deployment_not_found, function_busy, general_service_unavailable.
func (p *Project) FollowBuildLogs(ctx context.Context, by Actor, function, id string, after int64) (*LogFollower, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return nil, err
	}
	if _, err := p.deployment(ctx, function, id); err != nil {
		return nil, err
	}
	record := func(ctx context.Context) (followed, error) {
		d, err := p.e.store.GetDeployment(ctx, p.id, function, id)
		if err != nil {
			return followed{}, fail(err, TypeDeployment)
		}
		now := followed{status: string(d.Status), over: d.Status.Final(), run: d.BuildID}
		now.add(wholeOutput, d.UpdatedAt, "stdout", d.BuildLogs)
		return now, nil
	}
	return p.follow(ctx, store.LogRef{Project: p.id, Kind: store.BuildLog, ID: id}, "functions."+function+".deployments."+id, after, record)
}

// add adds a part of a log that is in the record.
func (f *followed) add(seq int64, at time.Time, stream, text string) {
	if text != "" {
		f.whole = append(f.whole, LogChunk{Seq: seq, At: at, Stream: stream, Data: []byte(text)})
	}
}

func (p *Project) follow(ctx context.Context, ref store.LogRef, event string, after int64, record func(context.Context) (followed, error)) (*LogFollower, error) {
	stopping, err := p.e.stopping()
	if err != nil {
		return nil, err
	}
	f := &LogFollower{e: p.e, ref: ref, after: after, record: record, stale: true, stopping: stopping}
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if f.events, err = p.e.Subscribe(ctx, events.Pattern{Project: p.id, Name: event}); err != nil {
		p.e.cfg.Logger.Warn("subscribe", "error", err) // it is polled all the same
	}
	var ok bool
	if f.woken, ok = p.e.feeds.follow(ref, p.e.cfg.Limits.Followers); !ok {
		f.cancel()
		return nil, Errorf(TypeBusy, "Too many logs are being followed. Please try again after some time.")
	}
	return f, nil
}

// Next returns the chunks of the log behind those it has returned, at least one,
// as soon as there are any; io.EOF when it is over. Other errors: ctx's,
// execution_not_found or deployment_not_found if it was deleted meanwhile,
// general_service_unavailable also when the engine stops. It may be called again
// after an error.
func (f *LogFollower) Next(ctx context.Context) ([]LogChunk, error) {
	for {
		if err := f.look(ctx); err != nil { // before the chunks: those from before the end are all there
			return nil, err
		}
		if f.now.over && (f.after < 0 || f.after == 0 && len(f.now.whole) > 0) {
			for _, c := range f.now.whole {
				if c.Seq < f.after {
					f.after = c.Seq
					return []LogChunk{c}, nil
				}
			}
			return nil, io.EOF
		}
		chunks, err := f.e.store.ReadLogs(ctx, f.ref, max(f.after, 0), followPage)
		if err != nil {
			return nil, f.failure(ctx, err)
		}
		if len(chunks) > 0 {
			f.after = chunks[len(chunks)-1].Seq
			return chunks, nil
		}
		if f.now.over {
			return nil, io.EOF
		}
		if err := f.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// Status is the status of the execution or deployment when Next was called last.
func (f *LogFollower) Status() string { return f.now.status }

// Close ends the following. It is called once.
func (f *LogFollower) Close() {
	f.cancel()
	f.e.feeds.leave(f.ref, f.woken)
}

// look reads the record, if it may have changed.
func (f *LogFollower) look(ctx context.Context) error {
	if !f.stale {
		return nil
	}
	now, err := f.record(ctx)
	if err != nil {
		return f.failure(ctx, err)
	}
	if f.now.run != "" && now.run != f.now.run {
		f.after = 0
	}
	f.now, f.stale = now, false
	return nil
}

func (f *LogFollower) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fail(err, "")
}

// wait waits until there may be more.
func (f *LogFollower) wait(ctx context.Context) error {
	timer := f.e.clock.Timer(f.e.cfg.Work.Poll)
	defer timer.Stop()
	select {
	case <-f.woken:
	case _, ok := <-f.events:
		if f.stale = true; !ok {
			f.events = nil
		}
	case <-timer.C:
		f.stale = true
	case <-f.stopping:
		return errNotRunning()
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
