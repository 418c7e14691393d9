package engine

import (
	"context"
	"encoding/json"

	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/internal/ids"
)

// emit publishes an event about a record. Subscribers get what they can keep
// up with; nothing in the engine waits for them or depends on them.
func (p *Project) emit(ctx context.Context, by Actor, name string, record any) {
	now := p.e.clock.Now()
	event := Event{ID: ids.New(now), Project: p.id, Names: events.Expand(name), Payload: p.e.payload(record), UserID: by.UserID, At: now.UTC()}
	if err := p.e.cfg.Bus.Publish(context.WithoutCancel(ctx), event); err != nil {
		p.e.cfg.Logger.Warn("publish event", "event", name, "error", err)
	}
}

// payload is a record as the host's API shows it; nil is an empty object.
func (e *Engine) payload(record any) json.RawMessage {
	encode := e.cfg.Hooks.Payload
	if record == nil || encode == nil {
		return json.RawMessage("{}")
	}
	out, err := encode(record)
	if err != nil {
		e.cfg.Logger.Warn("encode event", "error", err)
		return json.RawMessage("{}")
	}
	return out
}
