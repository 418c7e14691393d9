package httpapi

import (
	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/store"
)

// Operations returns the method and pattern of every operation.
func (a *API) Operations() map[string]string {
	all := map[string]string{}
	for _, rt := range a.routes() {
		all[rt.operation] = rt.method + " " + rt.pattern
	}
	return all
}

// Scopes returns the scope of every operation.
func (a *API) Scopes() map[string]string {
	all := map[string]string{}
	for _, rt := range a.routes() {
		all[rt.operation] = rt.scope
	}
	return all
}

// ParseForm reads a query string.
func ParseForm(raw string) map[string]any { return parseForm(raw) }

// ParseJSON reads a JSON body.
func ParseJSON(raw []byte) (map[string]any, error) { return parseJSON(raw) }

// ParseQueries reads the queries of a list of functions from a query string.
func ParseQueries(raw string, legacy bool) (engine.Query, error) {
	in := &input{values: parseForm(raw)}
	v := version{}
	if legacy {
		v = version{1, 4, 0}
	}
	q := in.query(store.FunctionAttrs(), v)
	return q, in.err
}
