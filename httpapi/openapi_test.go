package httpapi_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/internal/require"
)

// Every route is described, and nothing else.
func TestDescriptionHasTheRoutes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	doc, _ := description()
	described := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[op.OperationID] = method + " /v1" + path
			scope, _ := op.Extensions["x-scope"].(string)
			if got := s.api.Scopes()[op.OperationID]; got != scope {
				t.Errorf("%s: scope %q, described as %q", op.OperationID, got, scope)
			}
		}
	}
	for op, route := range s.api.Operations() {
		if described[op] != route {
			t.Errorf("%s is %q, described as %q", op, route, described[op])
		}
		delete(described, op)
	}
	for op, route := range described {
		t.Errorf("%s is described as %q and is no route", op, route)
	}
}

// Every type of error is described with its status, and nothing else.
func TestDescriptionHasTheErrors(t *testing.T) {
	t.Parallel()
	doc, _ := description()
	statuses := httpapi.ErrorTypes()
	described := map[string]bool{}
	for name, schema := range doc.Components.Schemas {
		code, isError := strings.CutPrefix(name, "error")
		if !isError {
			continue
		}
		for _, typ := range schema.Value.Properties["type"].Value.Enum {
			described[typ.(string)] = true
			if strconv.Itoa(statuses[typ.(string)]) != code {
				t.Errorf("%s has status %d, described as %s", typ, statuses[typ.(string)], code)
			}
		}
	}
	for typ := range statuses {
		if !described[typ] {
			t.Errorf("%s is not described", typ)
		}
	}
}

func TestDescriptionIsServed(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	a := newServer(t).client.guest().get(t, "/openapi.json").ok(http.StatusOK)
	if string(a.raw) != string(want) {
		t.Error("what is served is not the file")
	}
}

// What the published description of 1.6 requires is in ours, with the same type.
func TestDescriptionCoversThePublishedOne(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("FNKIT_CONTRACT")
	if dir == "" {
		require.Missing(t, "contract", "FNKIT_CONTRACT does not name the directory of functions-openapi-1.6.json")
	}
	published, err := openapi3.NewLoader().LoadFromFile(filepath.Join(dir, "functions-openapi-1.6.json"))
	if err != nil {
		t.Fatal(err)
	}
	ours, _ := description()
	if err := published.Validate(context.Background(), openapi3.DisableSchemaDefaultsValidation(), openapi3.DisableExamplesValidation()); err != nil {
		t.Log(err)
	}
	for path, item := range published.Paths.Map() {
		for method, theirs := range item.Operations() {
			where := method + " " + path
			mine := ours.Paths.Value(path)
			if mine == nil || mine.GetOperation(method) == nil {
				t.Errorf("%s is missing", where)
				continue
			}
			compareOperations(t, where, mine.GetOperation(method), theirs)
		}
	}
}

func compareOperations(t *testing.T, where string, ours, theirs *openapi3.Operation) {
	t.Helper()
	for _, p := range theirs.Parameters {
		if p.Value.In != "header" && ours.Parameters.GetByInAndName(p.Value.In, p.Value.Name) == nil {
			t.Errorf("%s: parameter %s is missing", where, p.Value.Name)
		}
	}
	if theirs.RequestBody != nil {
		for media, content := range theirs.RequestBody.Value.Content {
			mine := ours.RequestBody.Value.Content[media]
			if mine == nil {
				t.Errorf("%s: no request body %s", where, media)
				continue
			}
			compareSchemas(t, where+" request", mine.Schema.Value, content.Schema.Value)
		}
	}
	for status, response := range theirs.Responses.Map() {
		mine := ours.Responses.Value(status)
		if mine == nil {
			t.Errorf("%s: status %s is missing", where, status)
			continue
		}
		for media, content := range response.Value.Content {
			switch {
			case content.Schema == nil:
			case mine.Value.Content[media] == nil:
				t.Errorf("%s %s: no answer %s", where, status, media)
			default:
				compareSchemas(t, where+" "+status, mine.Value.Content[media].Schema.Value, content.Schema.Value)
			}
		}
	}
}

// compareSchemas reports what theirs has or requires and ours has not, or has
// with another type.
func compareSchemas(t *testing.T, where string, ours, theirs *openapi3.Schema) {
	t.Helper()
	if !sameType(ours, theirs) {
		t.Errorf("%s: type %v, want %v", where, ours.Type, theirs.Type)
		return
	}
	for name, p := range theirs.Properties {
		mine := ours.Properties[name]
		if mine == nil {
			t.Errorf("%s: %s is missing", where, name)
			continue
		}
		compareSchemas(t, where+"."+name, mine.Value, p.Value)
	}
	for _, name := range theirs.Required {
		if !slices.Contains(ours.Required, name) {
			t.Errorf("%s: %s is not required", where, name)
		}
	}
	if theirs.Items != nil && ours.Items != nil {
		compareSchemas(t, where+"[]", ours.Items.Value, theirs.Items.Value)
	}
}

func sameType(ours, theirs *openapi3.Schema) bool {
	if theirs.Type == nil || ours.Type != nil && slices.Equal(*ours.Type, *theirs.Type) {
		return true
	}
	return slices.ContainsFunc(ours.AnyOf, func(s *openapi3.SchemaRef) bool { return slices.Equal(*s.Value.Type, *theirs.Type) })
}
