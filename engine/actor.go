package engine

import (
	"fmt"
	"slices"
	"strings"
)

// Actor is who acts. It is an explicit parameter of every use case. The zero
// Actor is a guest, who may do the least.
type Actor struct {
	Kind ActorKind
	// UserID and SessionID identify an ActorUser.
	UserID    string
	SessionID string
	// Verified says that the user's email or phone is verified.
	Verified bool
	// Roles are the roles the actor has besides those its kind gives it, such
	// as "team:T", "team:T/owner", "member:M" or "label:vip".
	Roles []string
	// Scopes are what an ActorKey may do. Guests and users have a fixed set.
	Scopes []string
	// Depth is how many functions stand behind the actor, each of which caused the
	// next one's execution; 0: none. Keys of executions carry it.
	Depth int
	// Label names the actor in messages and logs, such as an email address.
	Label string
}

// ActorKind says what sort of caller an actor is.
type ActorKind int

const (
	ActorGuest  ActorKind = iota
	ActorUser             // a logged-in user: roles decide
	ActorKey              // an API key, or a function calling back: scopes decide, roles are not asked
	ActorSystem           // the host's own code: may do everything
)

// System is the host's own trusted code.
var System = Actor{Kind: ActorSystem, Label: "system"}

// Caller is an actor and the project it acts in.
type Caller struct {
	Project string
	Actor   Actor
}

// Scopes that use cases ask for.
const (
	ScopeFunctionsRead  = "functions.read"
	ScopeFunctionsWrite = "functions.write"
	ScopeExecutionRead  = "execution.read"
	ScopeExecutionWrite = "execution.write"
)

// Can reports whether the actor has a scope.
func (a Actor) Can(scope string) bool {
	switch a.Kind {
	case ActorSystem:
		return true
	case ActorKey:
		return slices.Contains(a.Scopes, scope)
	case ActorUser:
		return scope == ScopeExecutionRead || scope == ScopeExecutionWrite
	}
	return scope == ScopeExecutionWrite
}

// Trusted reports whether roles and read permissions are not asked: the actor
// sees every record, sensitive fields and disabled functions.
func (a Actor) Trusted() bool { return a.Kind == ActorKey || a.Kind == ActorSystem }

// AllRoles returns the roles the actor has, those of its kind first.
func (a Actor) AllRoles() []string {
	switch a.Kind {
	case ActorGuest:
		return append([]string{"any", "guests"}, a.Roles...)
	case ActorUser:
		dimension := "unverified"
		if a.Verified {
			dimension = "verified"
		}
		user := "user:" + a.UserID
		return append([]string{"any", "users", user, "users/" + dimension, user + "/" + dimension}, a.Roles...)
	}
	return append([]string{"any", "apps"}, a.Roles...)
}

// require returns the error of an actor that lacks a scope, or nil.
func (a Actor) require(scope string) error {
	if a.Can(scope) {
		return nil
	}
	who, role := a.Label, map[ActorKind]string{ActorGuest: "guests", ActorUser: "users", ActorKey: "applications"}[a.Kind]
	if who == "" {
		who = "User"
	}
	return Errorf(TypeScope, "%s (role: %s) missing scope (%s)", who, role, scope)
}

// mayExecute returns the error of an actor none of whose roles is among those
// a function's execute list names, or nil.
func (a Actor) mayExecute(execute []string) error {
	if a.Trusted() {
		return nil
	}
	if len(execute) == 0 {
		return Errorf(TypeUnauthorized, "No permissions provided for action 'execute'")
	}
	held := a.AllRoles()
	for _, role := range execute {
		if slices.Contains(held, role) {
			return nil
		}
	}
	return Errorf(TypeUnauthorized, "%s", fmt.Sprintf(`Missing "execute" permission for role "%s". Only "%s" scopes are allowed and "%s" was given.`,
		held[len(held)-1], quoted(held), quoted(execute)))
}

func quoted(roles []string) string { return `["` + strings.Join(roles, `","`) + `"]` }
