package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/store"
)

// eventMemory is how long the id of an event is remembered.
const eventMemory = 24 * time.Hour

// Trigger queues an execution of every enabled function of the project that
// listens to an event, with the event's payload as its body. by is who caused
// the event: a user may read the executions. All are queued or none, and an id
// that was triggered before queues none; the result holds what this call queued.
//
// Functions that cause events cause executions of functions: Trigger refuses an
// actor with Limits.Chain functions behind it, so no circle lasts.
// Errors: project_not_found, general_argument_invalid, general_rate_limit_exceeded.
func (p *Project) Trigger(ctx context.Context, by Actor, t TriggerParams) ([]Execution, error) {
	if err := p.mayTrigger(ctx, by, t); err != nil {
		return nil, err
	}
	var rows []Execution
	err := p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		rows, err = p.trigger(ctx, tx, by, t)
		return err
	})
	if err != nil {
		return nil, fail(err, "")
	}
	p.e.runs.wake()
	return withoutPayloads(rows), nil
}

// mayTrigger says why by may not trigger an event.
func (p *Project) mayTrigger(ctx context.Context, by Actor, t TriggerParams) error {
	if _, err := p.e.projectLimits(ctx, p.id); err != nil {
		return err
	}
	if err := p.e.checkTrigger(t); err != nil {
		return err
	}
	if by.Depth >= p.e.cfg.Limits.Chain {
		return Errorf(TypeRateLimit, "The event is the end of a chain of %d functions, each of which caused the next one's execution. No more are executed.", by.Depth)
	}
	return nil
}

// trigger stores the executions of an event, unless it was triggered before.
func (p *Project) trigger(ctx context.Context, tx store.Tx, by Actor, t TriggerParams) (rows []Execution, err error) {
	if fresh, err := p.remember(ctx, tx, t); err != nil || !fresh {
		return nil, err
	}
	listeners, err := tx.Listeners(ctx, p.id, events.Expand(t.Name))
	if err != nil || len(listeners) == 0 {
		return nil, err
	}
	for _, f := range listeners {
		x, err := p.triggered(f, by, t)
		if err != nil {
			return nil, err
		}
		rows = append(rows, x)
	}
	return rows, tx.AppendExecutions(ctx, rows)
}

func withoutPayloads(rows []Execution) []Execution {
	for i := range rows {
		rows[i].Payload = nil
	}
	return rows
}

// remember notes that an event was triggered. fresh is false if it was before.
func (p *Project) remember(ctx context.Context, tx store.Tx, t TriggerParams) (fresh bool, err error) {
	if t.ID == "" {
		return true, nil
	}
	now := p.e.now()
	_, err = tx.ClaimKey(ctx, store.Key{Project: p.id, Kind: store.EventKey, Name: t.ID, Value: t.Name, ExpiresAt: now.Add(eventMemory)}, now)
	if errors.Is(err, store.ErrExists) {
		return false, nil
	}
	return err == nil, err
}

// checkTrigger applies the rules of an event.
func (e *Engine) checkTrigger(t TriggerParams) error {
	name := e.checkEvent(t.Name)
	if name == nil && slices.Contains(strings.Split(t.Name, "."), "*") {
		name = errEvent
	}
	var payload error
	switch max := e.cfg.Limits.RequestBody; {
	case len(t.Payload) > max:
		payload = fmt.Errorf("Value must be no longer than %d bytes", max)
	case len(t.Payload) > 0 && !json.Valid(t.Payload):
		payload = errors.New("Value must be valid JSON")
	}
	return firstBroken([]rule{{"id", CheckText(t.ID, 0, MaxEvent)}, {"name", name}, {"payload", payload}})
}

// triggered returns the execution of a function that listens to an event, to be queued.
func (p *Project) triggered(f Function, by Actor, t TriggerParams) (Execution, error) {
	headers := []Header{{Name: "content-type", Value: "application/json"}, {Name: "user-agent", Value: "Appwrite/" + p.e.cfg.Identity.Version}}
	now, body := p.e.now(), t.Payload
	if len(body) == 0 {
		body = []byte("[]")
	}
	x := Execution{
		Project: p.id, ID: ids.New(p.e.clock.Now()), FunctionID: f.ID, DeploymentID: f.Deployment, CreatedAt: now, UpdatedAt: now,
		UserID: by.UserID, Trigger: store.TriggerEvent, Event: t.Name, Status: store.ExecutionWaiting, ReadyAt: now, Priority: f.Policy.Priority,
		RequestMethod: "POST", RequestPath: "/", RequestHeaders: keep(headers, storedRequestHeaders),
	}
	var err error
	x.Payload, err = p.e.secrets.sealPayload(x, payload{Headers: headers, Body: body, Actor: by})
	return x, err
}
