package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// roleRule says what one kind of role looks like: role[:identifier][/dimension].
type roleRule struct {
	identifier part
	dimension  part
	dimensions []string // allowed ones; nil: the grammar of an id
}

type part int

const (
	forbidden part = iota
	optional
	required
)

var verified = []string{"verified", "unverified"}

var roleNames = []string{"any", "guests", "users", "user", "team", "member", "label"}

var roleRules = map[string]roleRule{
	"any":    {forbidden, forbidden, nil},
	"guests": {forbidden, forbidden, nil},
	"users":  {forbidden, optional, verified},
	"user":   {required, optional, verified},
	"team":   {required, optional, nil},
	"member": {required, forbidden, nil},
	"label":  {required, forbidden, nil},
}

// CheckRoles is the rule of a list of roles that may execute a function.
func CheckRoles(roles []string) error {
	if len(roles) > MaxRoles {
		return fmt.Errorf("You can only provide up to %d roles.", MaxRoles)
	}
	for _, r := range roles {
		if err := checkRole(r); err != nil {
			return err
		}
	}
	return nil
}

func checkRole(role string) error {
	switch {
	case role == "*":
		return errors.New(`Wildcard role "*" has been replaced. Use "any" instead.`)
	case strings.HasPrefix(role, "role:"):
		return errors.New(`Roles using the "role:" prefix have been removed. Use "users", "guests", or "any" instead.`)
	case len(role) > MaxRole:
		return fmt.Errorf("Every role must be no longer than %d chars.", MaxRole)
	}
	head, dimension, hasDimension := strings.Cut(role, "/")
	name, identifier, hasIdentifier := strings.Cut(head, ":")
	rule, ok := roleRules[name]
	if !ok {
		return fmt.Errorf("Role %q is not allowed. Must be one of: %s.", name, strings.Join(roleNames, ", "))
	}
	if err := rule.checkIdentifier(name, identifier, hasIdentifier); err != nil {
		return err
	}
	if !hasDimension {
		return nil
	}
	return rule.checkDimension(name, dimension)
}

func (r roleRule) checkIdentifier(name, identifier string, has bool) error {
	switch {
	case r.identifier == forbidden && has:
		return fmt.Errorf("Role %q can not have an ID value.", name)
	case r.identifier == forbidden:
		return nil
	case identifier == "":
		return fmt.Errorf("Role %q must have an ID value.", name)
	case name == "label" && !labelID.MatchString(identifier):
		return fmt.Errorf("Role %q identifier value is invalid: Value must contain only letters and digits, at most 36.", name)
	case name != "label":
		if err := CheckID(identifier); err != nil {
			return fmt.Errorf("Role %q identifier value is invalid: %w", name, err)
		}
	}
	return nil
}

func (r roleRule) checkDimension(name, dimension string) error {
	switch {
	case strings.Contains(dimension, "/"):
		return errors.New("Only one dimension can be provided")
	case dimension == "":
		return errors.New("Dimension must not be empty")
	case r.dimension == forbidden:
		return fmt.Errorf("Role %q can not have a dimension value.", name)
	case r.dimensions != nil && !slices.Contains(r.dimensions, dimension):
		return fmt.Errorf("Role %q dimension value is invalid. Must be one of: %s.", name, strings.Join(r.dimensions, ", "))
	case r.dimensions == nil:
		if err := CheckID(dimension); err != nil {
			return fmt.Errorf("Role %q dimension value is invalid: %w", name, err)
		}
	}
	return nil
}
