package httpapi_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/httpapi"
)

// sample is a request for every operation, with ids that are well formed.
func samples(s *server) map[string][2]string {
	out := map[string][2]string{}
	for op, route := range s.api.Operations() {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{functionId}", "f", "{deploymentId}", "d", "{buildId}", "b", "{executionId}", "e", "{variableId}", "v").Replace(path)
		out[op] = [2]string{method, strings.TrimPrefix(path, "/v1")}
	}
	return out
}

// Who lacks a scope is told so, on every route, before parameters are looked at.
func TestScopes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	callers := map[string]struct {
		client client
		can    []string
	}{
		"guest":             {s.guest(), []string{"execution.write"}},
		"user":              {s.user(alice), []string{"execution.read", "execution.write"}},
		"key that reads":    {s.with("X-Appwrite-Key", readKey), []string{"functions.read", "execution.read"}},
		"key that executes": {s.with("X-Appwrite-Key", execKey), []string{"execution.read", "execution.write"}},
		"key that writes":   {s.with("X-Appwrite-Key", writeKey), []string{"functions.write"}},
		"key for all":       {s.client, []string{"functions.read", "functions.write", "execution.read", "execution.write"}},
	}
	scopes := s.api.Scopes()
	for who, c := range callers {
		for op, req := range samples(s) {
			may := scopes[op] == ""
			for _, scope := range c.can {
				may = may || scope == scopes[op]
			}
			a := c.client.do(t, req[0], req[1], nil)
			if refused := a.body["type"] == "general_unauthorized_scope"; refused == may {
				t.Errorf("%s on %s: %d %s", who, op, a.status, a.raw)
			}
		}
	}
}

func TestScopeMessage(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.guest().get(t, "/functions").fails("general_unauthorized_scope", "User (role: guests) missing scope (functions.read)")
	s.user(alice).get(t, "/functions").fails("general_unauthorized_scope", "alice@example.com (role: users) missing scope (functions.read)")
	s.with("X-Appwrite-Key", writeKey).get(t, "/functions").
		fails("general_unauthorized_scope", "app.shop@service.127.0.0.1 (role: applications) missing scope (functions.read)")
}

// Every gate before the handler, on every route.
func TestGates(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	broken := newServer(t, func(u *setup) {
		u.opt.Identify = func(*http.Request) (engine.Caller, error) {
			return engine.Caller{}, errors.New("the directory is down")
		}
	})
	down := newServer(t, func(u *setup) { u.idle = true })
	down.store.Close()
	scopes := s.api.Scopes()
	for op, req := range samples(s) {
		method, path := req[0], req[1]
		if scopes[op] == "" {
			s.guest().with("X-Appwrite-Key", "nonsense").do(t, method, path, nil).ok(http.StatusOK)
			continue
		}
		s.with("X-Appwrite-Key", "nonsense").do(t, method, path, nil).ok(401).fails("user_unauthorized")
		s.with("X-Appwrite-Session", alice).do(t, method, path, nil).ok(403).fails("user_key_and_session_set")
		s.guest().with("X-Appwrite-JWT", "nonsense").do(t, method, path, nil).ok(401).fails("user_jwt_invalid")
		missing := s.guest().with("X-Appwrite-Project", "missing") // which is said before anything else of the caller
		for _, c := range []client{missing, missing.with("X-Appwrite-Key", "nowhere"), missing.with("X-Appwrite-Key", "nonsense"), missing.with("X-Appwrite-JWT", "nonsense"),
			missing.with("X-Appwrite-Session", "carl-token"), missing.with("X-Appwrite-Session", "carl-token", "X-Appwrite-Key", "nowhere")} {
			c.do(t, method, path, nil).ok(404).fails("project_not_found")
		}
		broken.do(t, method, path, nil).ok(500).fails("general_server_error", "Server Error")
		if op != "functionsListRuntimes" && op != "functionsListSpecifications" { // which are not in the store
			down.do(t, method, path, validBody(op)).ok(503).fails("general_service_unavailable")
		}
		if method != "GET" {
			s.guest().with("Origin", "https://evil.example").do(t, method, path, nil).ok(403).fails("general_unknown_origin")
		}
	}
	down.get(t, "/health").ok(503).fails("general_service_unavailable")
}

// validBody passes the validation of an operation's parameters.
func validBody(op string) any {
	switch op {
	case "functionsCreate", "functionsUpdate":
		return map[string]any{"functionId": "f", "name": "n", "runtime": runtimeID}
	case "functionsCreateVariable", "functionsUpdateVariable":
		return map[string]any{"key": "k", "value": "v"}
	case "functionsCreateDeployment":
		return map[string]any{"activate": true}
	}
	return nil
}

func TestInternalErrorHasAnId(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) {
		u.opt.Identify = func(*http.Request) (engine.Caller, error) { panic("a defect") }
	})
	a := s.get(t, "/functions").fails("general_server_error", "Server Error")
	if a.header.Get("X-Error-Id") == "" || strings.Contains(string(a.raw), "defect") {
		t.Errorf("got %v %s", a.header, a.raw)
	}
}

// Whatever Identify returns is answered, and tells nothing that is not meant for callers.
func TestOddCallers(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		caller engine.Caller
		err    error
		status int
		body   string
	}{
		"unknown kind":  {err: &engine.Error{Kind: 99, Type: "odd", Message: "a secret"}, status: 500, body: `"message":"Server Error","code":500,"type":"odd"`},
		"internal":      {err: &engine.Error{Kind: engine.Internal, Type: "odd", Message: "a secret"}, status: 500, body: `"message":"Server Error","code":500,"type":"odd"`},
		"host's own":    {err: &engine.Error{Kind: engine.Unauthorized, Type: "user_blocked", Message: "Blocked."}, status: 401, body: `"message":"Blocked.","code":401,"type":"user_blocked"`},
		"wrapped":       {err: fmt.Errorf("a secret: %w", engine.Errorf(engine.TypeUnauthorized, "No.")), status: 401, body: `"message":"No.","code":401,"type":"user_unauthorized"`},
		"any other":     {err: errors.New("a secret"), status: 500, body: `"message":"Server Error","code":500,"type":"general_server_error"`},
		"system":        {caller: engine.Caller{Project: project, Actor: engine.System}, status: 200, body: `"total":0`},
		"no project":    {caller: engine.Caller{Actor: engine.System}, status: 401, body: `"type":"general_access_forbidden"`},
		"console":       {caller: engine.Caller{Project: "console", Actor: engine.System}, status: 401, body: `"type":"general_access_forbidden"`},
		"path":          {caller: engine.Caller{Project: "../x", Actor: engine.System}, status: 404, body: `"type":"project_not_found"`},
		"unknown actor": {caller: engine.Caller{Project: project, Actor: engine.Actor{Kind: 42, Scopes: []string{engine.ScopeFunctionsRead}}}, status: 401, body: `"type":"general_unauthorized_scope"`},
		"nobody's user": {caller: engine.Caller{Project: project, Actor: engine.Actor{Kind: engine.ActorUser}}, status: 401, body: `"type":"general_unauthorized_scope"`},
		"zero":          {status: 401, body: `"type":"general_unauthorized_scope"`},
	}
	s := newServer(t, func(u *setup) {
		u.opt.Identify = func(r *http.Request) (engine.Caller, error) {
			c := cases[r.Header.Get("X-Case")]
			return c.caller, c.err
		}
	})
	for name, c := range cases {
		resp, body := fetch(t, "GET", s.url+"/v1/functions", "", "X-Case", name)
		if resp.StatusCode != c.status || !strings.Contains(body, c.body) || strings.Contains(body, "secret") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
}

// What no key proves is refused; it never becomes a guest.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, key := range []string{"foo_x", "standard_x", "dynamic_x", "dynamic_a.b.c", "dynamic_", otherKey, strings.Repeat("x", 4000)} {
		s.with("X-Appwrite-Key", key).get(t, "/functions").ok(401).fails("user_unauthorized")
	}
	s.with("X-Appwrite-Project", "").get(t, "/functions").ok(401).fails("user_unauthorized")
	s.with("X-Appwrite-Project", "console").get(t, "/functions").ok(401).fails("user_unauthorized")
	s.with("X-Appwrite-Project", "").get(t, "/functions?project=shop").ok(200)
	s.with("X-Appwrite-Project", "elsewhere").get(t, "/functions").ok(401).fails("user_unauthorized")
	s.guest().with("X-Appwrite-Project", "").get(t, "/functions").ok(401).fails("general_unauthorized_scope")
	s.guest().with("X-Appwrite-Project", "").post(t, "/functions/f/executions", nil).ok(401).fails("general_access_forbidden")
	s.guest().with("X-Appwrite-Project", "").do(t, "DELETE", "/functions/f/executions/e", nil).ok(401).fails("general_access_forbidden")
	s.guest().with("X-Appwrite-Project", "").post(t, "/functions/f/executions/e/cancel", nil).ok(401).fails("general_access_forbidden")
	s.guest().with("X-Appwrite-Project", "").post(t, "/functions/f/executions/e/replay", nil).ok(401).fails("general_access_forbidden")
}

// A user's token is found wherever clients put it.
func TestSessions(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	blob := base64.StdEncoding.EncodeToString([]byte(`{"id":"alice","secret":"` + alice + `"}`))
	stolen := base64.StdEncoding.EncodeToString([]byte(`{"id":"bob","secret":"` + alice + `"}`))
	for name, c := range map[string]client{
		"session":         s.guest().with("X-Appwrite-Session", blob),
		"raw session":     s.guest().with("X-Appwrite-Session", alice),
		"cookie":          s.guest().with("Cookie", "a_session_shop="+strings.TrimRight(blob, "=")),
		"escaped cookie":  s.guest().with("Cookie", "a_session_shop="+strings.ReplaceAll(blob, "=", "%3D")),
		"legacy cookie":   s.guest().with("Cookie", "a_session_shop_legacy="+strings.TrimRight(blob, "=")),
		"fallback cookie": s.guest().with("X-Fallback-Cookies", `{"a_session_shop":"`+blob+`"}`),
		"jwt":             s.guest().with("X-Appwrite-JWT", alice),
		"cookie first":    s.guest().with("Cookie", "a_session_shop="+alice, "X-Appwrite-Session", "nonsense"),
	} {
		if a := c.get(t, "/functions/f/executions"); a.body["type"] != "function_not_found" {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	for name, c := range map[string]client{
		"nobody's":        s.guest().with("X-Appwrite-Session", "nonsense"),
		"another's":       s.guest().with("X-Appwrite-Session", stolen),
		"other project's": s.guest().with("Cookie", "a_session_other="+alice),
		"broken fallback": s.guest().with("X-Fallback-Cookies", "{"),
		"empty":           s.guest().with("Cookie", "a_session_shop="),
	} {
		if a := c.get(t, "/functions/f/executions"); a.body["type"] != "general_unauthorized_scope" {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
}

// What has no secret lets nobody in.
func TestEmptySecrets(t *testing.T) {
	t.Parallel()
	keys := &httpapi.Keys{Keys: []httpapi.Key{{}}, Users: []httpapi.User{{ID: "alice"}}}
	s := newServer(t, func(u *setup) { u.opt.Identify = keys.Identify })
	blob := base64.StdEncoding.EncodeToString([]byte(`{"id":"alice","secret":""}`))
	for _, c := range []client{
		s.guest(), s.guest().with("X-Appwrite-Session", blob), s.guest().with("Cookie", "a_session_shop="+blob), s.guest().with("Cookie", `a_session_shop=""`),
		s.guest().with("X-Fallback-Cookies", `{"a_session_shop":""}`), s.guest().with("X-Fallback-Cookies", `{"a_session_shop":"`+blob+`"}`),
	} {
		c.get(t, "/functions/f/executions").ok(401).fails("general_unauthorized_scope")
	}
	s.guest().with("X-Appwrite-JWT", blob).get(t, "/functions").ok(401).fails("user_jwt_invalid")
	s.with("X-Appwrite-Key", "x").get(t, "/functions").ok(401).fails("user_unauthorized")
	s.with("X-Appwrite-Key", "dynamic_x").get(t, "/functions").ok(401).fails("user_unauthorized")
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, req := range [][2]string{
		{"GET", "/"}, {"GET", ""}, {"GET", "/nothing"}, {"PATCH", "/functions"}, {"POST", "/functions/f"}, {"PUT", "/functions/f/deployments/d"},
		{"GET", "/functions/"}, {"GET", "//functions"}, {"GET", "/functions/../functions"}, {"GET", "/functions/f/deployments/"},
		{"POST", "/functions/f/deployments/duplicate"}, {"GET", "/functions/f/deployments/d/build"}, {"PUT", "/health/version"},
	} {
		s.do(t, req[0], req[1], nil).ok(404).fails("general_route_not_found")
	}
}
