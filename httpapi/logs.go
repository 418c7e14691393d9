package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fnkit/fnkit/engine"
)

const (
	// heartbeat is how often a stream of events says that it lives; a client that
	// is gone is noticed by it.
	heartbeat = 15 * time.Second
	// patience is how long a client may take to read one event. It is of the
	// machine's clock, as all that connections do.
	patience = 30 * time.Second
	// lastEvent is the id of the event that ends a stream.
	lastEvent = "end"
)

// followExecution streams the logs of an execution as server-sent events.
func (a *API) followExecution(c *call) error {
	function, id := c.in.id("functionId"), c.in.id("executionId")
	if c.in.err != nil {
		return c.in.err
	}
	return c.follow(engine.TypeExecution, func(after int64) (*engine.LogFollower, error) {
		return c.p.FollowLogs(c.r.Context(), c.by, function, id, after)
	})
}

// followBuild streams the logs of a deployment's build.
func (a *API) followBuild(c *call) error {
	function, id, err := c.deploymentIDs()
	if err != nil {
		return err
	}
	return c.follow(engine.TypeDeployment, func(after int64) (*engine.LogFollower, error) {
		return c.p.FollowBuildLogs(c.r.Context(), c.by, function, id, after)
	})
}

// follow answers with a log: an event for each chunk, one that tells how it
// ended, and then the end, also when EndStreams is called or the engine stops; a
// client that connects again with the id of the last event it has goes on from
// there, and is told that there is nothing more (204) if that was the end.
// deleted is the error of a record that is deleted meanwhile.
func (c *call) follow(deleted string, open func(after int64) (*engine.LogFollower, error)) error {
	after, over, err := lastEventID(c.r.Header.Get("Last-Event-ID"))
	if err != nil {
		return err
	}
	f, err := open(after)
	if err != nil {
		return err
	}
	defer f.Close()
	if over {
		return c.noContent()
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies would hold events back
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	out := &eventWriter{w: c.w, control: http.NewResponseController(c.w)}
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	defer context.AfterFunc(c.api.streams, cancel)()
	out.comment("logs")
	for out.err == nil && ctx.Err() == nil {
		chunks, err := c.next(ctx, f)
		switch e := engineError(err); {
		case err == io.EOF:
			out.event(lastEvent, "end", object{{"status", f.Status()}})
			return out.err
		case ctx.Err() != nil:
			return nil
		case err == errQuiet:
			out.comment("still there")
		case e != nil && e.Type == deleted:
			out.event(lastEvent, "end", object{{"status", "deleted"}})
			return out.err
		case e != nil && e.Kind == engine.Unavailable:
			return nil
		case err != nil:
			return err
		}
		for _, chunk := range chunks {
			out.event(strconv.FormatInt(chunk.Seq, 10), "log", object{
				{"stream", chunk.Stream}, {"at", date(chunk.At)}, {"data", text(chunk.Data)},
			})
		}
	}
	return nil // who follows is gone
}

// next returns what comes next, or errQuiet when it is time for a heartbeat.
func (c *call) next(ctx context.Context, f *engine.LogFollower) ([]engine.LogChunk, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.api.cfg.Clock.AfterFunc(heartbeat, func() { cancel(errQuiet) }).Stop()
	chunks, err := f.Next(ctx)
	if err != nil && err != io.EOF && context.Cause(ctx) == errQuiet {
		err = errQuiet
	}
	return chunks, err
}

var errQuiet = errors.New("httpapi: there is nothing to follow at the moment")

// lastEventID reads what a client knows from before; over: all of it.
func lastEventID(id string) (after int64, over bool, err error) {
	if id == "" || id == lastEvent {
		return 0, id != "", nil
	}
	if after, err = strconv.ParseInt(id, 10, 64); err != nil {
		return 0, false, engine.InvalidParam("Last-Event-ID", errors.New("Value must be the id of an event of this stream"))
	}
	return after, false, nil
}

// text is a piece of output as a text: what is no UTF-8 is replaced.
func text(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// eventWriter writes server-sent events, until that fails.
type eventWriter struct {
	w       io.Writer
	control *http.ResponseController
	err     error
}

func (w *eventWriter) event(id, name string, data object) {
	b := append([]byte("id: "), id...)
	b = append(append(b, "\nevent: "...), name...)
	b = appendJSON(append(b, "\ndata: "...), data)
	w.write(append(b, "\n\n"...))
}

func (w *eventWriter) comment(text string) { w.write([]byte(": " + text + "\n\n")) }

func (w *eventWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	if err := w.control.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		w.err = err
		return
	}
	if _, w.err = w.w.Write(b); w.err != nil {
		return
	}
	if err := w.control.Flush(); !errors.Is(err, http.ErrNotSupported) {
		w.err = err
	}
}
