package httpapi

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
)

var errLegacy = errors.New("Invalid query: Syntax error")

// parseLegacyQuery reads the form that clients before 1.5 write:
// method("attribute", [values]), method(value) or method("attribute", a, b).
func parseLegacyQuery(text string) (jsonQuery, error) {
	method, rest, ok := strings.Cut(strings.TrimSpace(text), "(")
	if !ok || !strings.HasSuffix(rest, ")") {
		return jsonQuery{}, errLegacy
	}
	if !slices.Contains(methods, method) || method == "and" || method == "or" {
		return jsonQuery{}, errors.New("Invalid query method: " + method)
	}
	args, err := parseArguments(strings.TrimSuffix(rest, ")"))
	if err != nil {
		return jsonQuery{}, err
	}
	q := jsonQuery{Method: method}
	switch method {
	case "limit", "offset", "cursorAfter", "cursorBefore":
		q.Values = args
		return q, nil
	}
	if len(args) > 0 {
		if q.Attribute, ok = args[0].(string); !ok {
			return q, errLegacy
		}
		q.Values = flatten(args[1:])
	}
	return q, nil
}

// flatten puts the items of lists in their place.
func flatten(args []any) (out []any) {
	for _, a := range args {
		if list, ok := a.([]any); ok {
			out = append(out, list...)
			continue
		}
		out = append(out, a)
	}
	return out
}

// parseArguments reads literals separated by commas.
func parseArguments(s string) (args []any, err error) {
	p := literals{rest: s}
	for p.skip(); p.rest != ""; p.skip() {
		if len(args) > 0 && !p.take(",") {
			return nil, errLegacy
		}
		v, ok := p.value(true)
		if !ok {
			return nil, errLegacy
		}
		args = append(args, v)
	}
	return args, nil
}

// literals reads one literal after the other.
type literals struct{ rest string }

func (p *literals) skip() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *literals) take(token string) bool {
	p.skip()
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *literals) value(lists bool) (any, bool) {
	p.skip()
	switch {
	case p.rest == "":
		return nil, false
	case p.rest[0] == '"' || p.rest[0] == '\'':
		return p.quoted()
	case lists && p.take("["):
		return p.list()
	}
	return p.word()
}

func (p *literals) list() (any, bool) {
	list := []any{}
	for !p.take("]") {
		if len(list) > 0 && !p.take(",") {
			return nil, false
		}
		v, ok := p.value(false)
		if !ok {
			return nil, false
		}
		list = append(list, v)
	}
	return list, true
}

// quoted reads a text in quotes; a backslash takes the next character as it is.
func (p *literals) quoted() (any, bool) {
	quote := p.rest[0]
	var out []byte
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == quote:
			p.rest = p.rest[i+1:]
			return string(out), true
		case c == '\\' && i+1 < len(p.rest):
			i++
			out = append(out, p.rest[i])
		default:
			out = append(out, c)
		}
	}
	return nil, false
}

var legacyWord = regexp.MustCompile(`^(true|false|null|-?[0-9]+(\.[0-9]+)?)`)

func (p *literals) word() (any, bool) {
	w := legacyWord.FindString(p.rest)
	if w == "" {
		return nil, false
	}
	p.rest = p.rest[len(w):]
	switch w {
	case "true", "false":
		return w == "true", true
	case "null":
		return nil, true
	}
	return json.Number(w), true
}
