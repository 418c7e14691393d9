package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestVariables(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn, other := s.create(t, "echo"), s.create(t, "echo")
	path := "/functions/" + fn + "/variables"
	a := s.post(t, path, map[string]any{"key": "KEY", "value": "secret", "variableId": "ignored", "secret": false}).ok(http.StatusCreated)
	want := `{"$id":"` + a.id() + `","$createdAt":"T","$updatedAt":"T","key":"KEY","value":"secret","resourceType":"function","resourceId":"` + fn + `"}`
	if got := undated(a.raw); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	one := path + "/" + a.id()
	if got := s.get(t, one).ok(200); string(got.raw) != string(a.raw) {
		t.Errorf("read again: %s", got.raw)
	}
	if list := s.get(t, path).ok(200); list.int("total") != 1 || list.ids("variables")[0] != a.id() {
		t.Errorf("got %s", list.raw)
	}
	if got := s.do(t, "PUT", one, map[string]any{"key": "NEW"}).ok(200); got.text("key") != "NEW" || got.text("value") != "secret" {
		t.Errorf("the value must stay: %s", got.raw)
	}
	if got := s.do(t, "PUT", one, map[string]any{"key": "NEW", "value": ""}).ok(200); got.text("value") != "" {
		t.Errorf("the value must go: %s", got.raw)
	}
	s.post(t, path, map[string]any{"key": "NEW", "value": ""}).ok(409).fails("variable_already_exists")
	second := s.post(t, path, map[string]any{"key": "SECOND", "value": ""}).ok(201).id()
	s.do(t, "PUT", path+"/"+second, map[string]any{"key": "NEW"}).ok(409).fails("variable_already_exists")
	for _, wrong := range []string{path + "/nobody", "/functions/" + other + "/variables/" + a.id()} {
		s.get(t, wrong).ok(404).fails("variable_not_found")
		s.do(t, "PUT", wrong, map[string]any{"key": "K"}).ok(404).fails("variable_not_found")
		s.do(t, "DELETE", wrong, nil).ok(404).fails("variable_not_found")
	}
	s.do(t, "DELETE", one, map[string]any{}).ok(204)
	s.get(t, one).ok(404).fails("variable_not_found")
}

func TestVariableParams(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.create(t, "echo")
	key255 := "Value must be a valid string and at least 1 chars and no longer than 255 chars"
	for _, p := range []param{
		{"key", strings.Repeat("k", 255), ""},
		{"key", strings.Repeat("k", 256), key255},
		{"key", "", key255},
		{"key", "a\x00b", key255},
		{"key", 5, key255},
		{"key", "a b-c.ä", ""},
		{"key", "a=b", "*"},
		{"value", strings.Repeat("v", 8192), ""},
		{"value", strings.Repeat("v", 8193), "Value must be a valid string and no longer than 8192 chars"},
		{"value", 5, "Value must be a valid string and no longer than 8192 chars"},
	} {
		body := map[string]any{"key": "k", "value": "v"}
		body[p.name] = p.value
		a := s.post(t, "/functions/"+fn+"/variables", body)
		expectParam(t, p, a, http.StatusCreated)
		if a.status == http.StatusCreated {
			s.do(t, "DELETE", "/functions/"+fn+"/variables/"+a.id(), nil).ok(204)
		}
	}
	id := s.post(t, "/functions/"+fn+"/variables", map[string]any{"key": "k", "value": "v"}).ok(201).id()
	s.do(t, "PUT", "/functions/"+fn+"/variables/"+id, map[string]any{"key": "k", "value": strings.Repeat("v", 8193)}).ok(400).fails("general_argument_invalid")
}

// A change of variables marks the function as not live.
func TestVariableChangesAreNotLive(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.create(t, "echo")
	s.post(t, "/functions/"+fn+"/variables", map[string]any{"key": "k", "value": "v"}).ok(201)
	if a := s.get(t, "/functions/"+fn).ok(200); a.body["live"] != false {
		t.Errorf("got %s", a.raw)
	}
}
