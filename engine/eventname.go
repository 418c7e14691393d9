package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Resource is a node of the tree of event names: what can happen to one of its
// kind, and what lies below it. "users.U.sessions.S.delete" is the action delete
// of the resource sessions below the resource users.
type Resource struct {
	Actions map[string][]string // action → what of the resource it can be about, such as update → email
	Below   map[string]Resource
}

func actions(names string) map[string][]string {
	m := map[string][]string{}
	for _, n := range strings.Fields(names) {
		m[n] = nil
	}
	return m
}

func resourceOf(names string, below map[string]Resource) Resource {
	return Resource{Actions: actions(names), Below: below}
}

// DefaultEvents returns the tree of the reference: users, databases, buckets,
// teams and so on.
func DefaultEvents() map[string]Resource {
	cud := "create update delete"
	tree := map[string]Resource{
		"users": resourceOf(cud, map[string]Resource{
			"sessions":     resourceOf("create delete", nil),
			"recovery":     resourceOf("create update", nil),
			"verification": resourceOf("create update", nil),
			"targets":      resourceOf(cud, nil),
			"tokens":       resourceOf("create", nil),
		}),
		"databases": resourceOf(cud, map[string]Resource{"collections": resourceOf(cud, map[string]Resource{
			"documents":  resourceOf(cud, nil),
			"indexes":    resourceOf("create delete", nil),
			"attributes": resourceOf("create delete", nil),
		})}),
		"buckets":   resourceOf(cud, map[string]Resource{"files": resourceOf(cud, nil)}),
		"teams":     resourceOf(cud, map[string]Resource{"memberships": resourceOf(cud, nil)}),
		"messages":  resourceOf("create update", nil),
		"topics":    resourceOf(cud, map[string]Resource{"subscribers": resourceOf("create delete", nil)}),
		"providers": resourceOf(cud, nil),
		"rules":     resourceOf(cud, nil),
	}
	tree["users"].Actions["update"] = []string{"email", "name", "password", "status", "prefs"}
	tree["teams"].Actions["update"] = []string{"prefs"}
	tree["teams"].Below["memberships"].Actions["update"] = []string{"status"}
	return tree
}

var errEvent = errors.New("Event is not valid.")

// CheckEvents is the rule of the events a function listens to.
func (e *Engine) CheckEvents(names []string) error {
	for _, n := range names {
		if err := e.checkEvent(n); err != nil {
			return listError(MaxEvents, err)
		}
	}
	if len(names) > MaxEvents {
		return listError(MaxEvents, errEvent)
	}
	return nil
}

func (e *Engine) checkEvent(name string) error {
	parts := strings.Split(name, ".")
	switch {
	case parts[0] == "functions":
		return errors.New("Triggering a function on a function event is not allowed.")
	case len(name) > MaxEvent || len(parts) < 2 || len(parts) > 8:
		return fmt.Errorf("%w", errEvent)
	}
	node, ok := e.cfg.Hooks.Events[parts[0]]
	for parts = parts[1:]; ok; {
		if parts[0] == "" {
			return errEvent
		}
		if parts = parts[1:]; len(parts) == 0 {
			return nil // ends with an id
		}
		below, isResource := node.Below[parts[0]]
		if !isResource {
			return node.checkAction(parts)
		}
		if node, parts = below, parts[1:]; len(parts) == 0 {
			return errEvent // a resource without an id
		}
	}
	return errEvent
}

// checkAction is the rule of what follows an id: an action, perhaps with an attribute.
func (r Resource) checkAction(parts []string) error {
	attributes, ok := r.Actions[parts[0]]
	if ok && (len(parts) == 1 || len(parts) == 2 && slices.Contains(attributes, parts[1])) {
		return nil
	}
	return errEvent
}
