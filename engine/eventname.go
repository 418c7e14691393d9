package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A resource is a node of the tree of event names: what can happen to it, and
// what lies below it.
type resource struct {
	actions map[string][]string // action → attributes
	below   map[string]resource
}

func actions(names string) map[string][]string {
	m := map[string][]string{}
	for _, n := range strings.Fields(names) {
		m[n] = nil
	}
	return m
}

func resourceOf(names string, below map[string]resource) resource {
	return resource{actions: actions(names), below: below}
}

// eventTree holds the names that functions can listen to.
var eventTree = func() map[string]resource {
	cud := "create update delete"
	tree := map[string]resource{
		"users": resourceOf(cud, map[string]resource{
			"sessions":     resourceOf("create delete", nil),
			"recovery":     resourceOf("create update", nil),
			"verification": resourceOf("create update", nil),
			"targets":      resourceOf(cud, nil),
			"tokens":       resourceOf("create", nil),
		}),
		"databases": resourceOf(cud, map[string]resource{"collections": resourceOf(cud, map[string]resource{
			"documents":  resourceOf(cud, nil),
			"indexes":    resourceOf("create delete", nil),
			"attributes": resourceOf("create delete", nil),
		})}),
		"buckets":   resourceOf(cud, map[string]resource{"files": resourceOf(cud, nil)}),
		"teams":     resourceOf(cud, map[string]resource{"memberships": resourceOf(cud, nil)}),
		"messages":  resourceOf("create update", nil),
		"topics":    resourceOf(cud, map[string]resource{"subscribers": resourceOf("create delete", nil)}),
		"providers": resourceOf(cud, nil),
		"rules":     resourceOf(cud, nil),
	}
	tree["users"].actions["update"] = []string{"email", "name", "password", "status", "prefs"}
	tree["teams"].actions["update"] = []string{"prefs"}
	tree["teams"].below["memberships"].actions["update"] = []string{"status"}
	return tree
}()

var errEvent = errors.New("Event is not valid.")

// CheckEvents is the rule of the events a function listens to.
func CheckEvents(names []string) error {
	for _, n := range names {
		if err := checkEvent(n); err != nil {
			return listError(MaxEvents, err)
		}
	}
	if len(names) > MaxEvents {
		return listError(MaxEvents, errEvent)
	}
	return nil
}

func checkEvent(name string) error {
	parts := strings.Split(name, ".")
	switch {
	case parts[0] == "functions":
		return errors.New("Triggering a function on a function event is not allowed.")
	case len(name) > MaxEvent || len(parts) < 2 || len(parts) > 8:
		return fmt.Errorf("%w", errEvent)
	}
	node, ok := eventTree[parts[0]]
	for parts = parts[1:]; ok; {
		if parts[0] == "" {
			return errEvent
		}
		if parts = parts[1:]; len(parts) == 0 {
			return nil // ends with an id
		}
		below, isResource := node.below[parts[0]]
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
func (r resource) checkAction(parts []string) error {
	attributes, ok := r.actions[parts[0]]
	if ok && (len(parts) == 1 || len(parts) == 2 && slices.Contains(attributes, parts[1])) {
		return nil
	}
	return errEvent
}
