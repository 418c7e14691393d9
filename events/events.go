// Package events is the contract between the engine and whatever carries its
// events to subscribers, with the in-process bus that the engine uses unless
// the host brings another. It imports only the standard library.
//
// Delivery is best effort by contract: the tables of the store are the truth,
// and nothing in the engine depends on an event arriving. Package eventstest
// is the suite every bus passes.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// ErrClosed is returned by a bus after Close.
var ErrClosed = errors.New("events: bus is closed")

// Event says that something happened to a record.
type Event struct {
	ID      string // unique
	Project string
	// Names are all names of the event, most specific first, such as
	// "functions.F.executions.E.create", "functions.*.executions.*.create", …
	// "functions.*". See Expand.
	Names []string
	// Payload is the record as the API shows it; empty objects for deletions.
	Payload json.RawMessage
	UserID  string // the acting user; empty: none
	At      time.Time
}

// Name returns the most specific name.
func (e Event) Name() string {
	if len(e.Names) == 0 {
		return ""
	}
	return e.Names[0]
}

// Pattern selects events: those of Project (empty: of any) that have one of their names
// equal to Name (empty: all).
type Pattern struct {
	Project string
	Name    string
}

// Matches reports whether the pattern selects e.
func (p Pattern) Matches(e Event) bool {
	if p.Project != "" && p.Project != e.Project {
		return false
	}
	if p.Name == "" {
		return true
	}
	for _, n := range e.Names {
		if n == p.Name {
			return true
		}
	}
	return false
}

// Bus carries events. Its methods may be called concurrently.
type Bus interface {
	// Publish hands an event to the subscribers. It MUST NOT wait for them: a
	// subscriber that does not keep up loses events. It may fail with
	// ErrClosed or the transport's error; the engine logs that and goes on.
	Publish(ctx context.Context, e Event) error
	// Subscribe returns a channel of the events that match p and are published
	// from now on. It is closed when ctx ends or the bus is closed.
	Subscribe(ctx context.Context, p Pattern) (<-chan Event, error)
	// Close ends all subscriptions. It is safe to call twice.
	Close() error
}

// Expand returns all names of an event from its most specific one: resources
// and their ids in turn, then the action, then perhaps an attribute, such as
// "functions.F.deployments.D.update" or "users.U.update.email". For the full
// name, then for each shorter form down to the first resource, it gives every
// form with ids replaced by "*": first none of them, then all, then the rest.
func Expand(name string) []string {
	parts := strings.Split(name, ".")
	levels := (len(parts) - 1) / 2
	all := forms{make([]byte, 0, 512), make([]int, 0, 16)}
	for n := len(parts); n > 2*levels; n-- {
		all.add(parts[:n], levels)
	}
	for l := levels; l > 0; l-- {
		all.add(parts[:2*l], l)
	}
	return all.split()
}

// forms are the names of an event in one piece: a call of a function has ten.
type forms struct {
	text []byte
	ends []int
}

func (f *forms) split() []string {
	text, at := string(f.text), 0
	out := make([]string, len(f.ends))
	for i, end := range f.ends {
		out[i], at = text[at:end], end
	}
	return out
}

// add adds parts joined, with every subset of the ids of the first levels resources
// replaced, the last ones first.
func (f *forms) add(parts []string, levels int) {
	all := 1<<levels - 1
	for i := range 1 << levels {
		mask := i - 1 // behind none and all come the others in turn
		if i < 2 {
			mask = i * all
		}
		for n, part := range parts {
			if n > 0 {
				f.text = append(f.text, '.')
			}
			if l := n / 2; n%2 == 1 && l < levels && mask&(1<<(levels-1-l)) != 0 {
				part = "*"
			}
			f.text = append(f.text, part...)
		}
		f.ends = append(f.ends, len(f.text))
	}
}
