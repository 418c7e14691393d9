package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestFunctionModel(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a := s.post(t, "/functions", map[string]any{"functionId": "hello", "name": "Hello", "runtime": runtimeID}).ok(http.StatusCreated)
	want := `{"$id":"hello","$createdAt":"T","$updatedAt":"T","execute":[],"name":"Hello","enabled":true,"live":true,"logging":true,` +
		`"runtime":"` + runtimeID + `","deployment":"","scopes":[],"vars":[],"events":[],"schedule":"","timeout":15,"entrypoint":"","commands":"",` +
		`"version":"v4","installationId":"","providerRepositoryId":"","providerBranch":"","providerRootDirectory":"","providerSilentMode":false,"specification":"s-1vcpu-512mb","fnkit":{"timeZone":"UTC","catchUp":"once","retry":{"attempts":0,"backoff":1,"maxBackoff":3600,"on":["error","timeout","crash"]},"priority":0,"concurrency":0,"laneConcurrency":0,"rate":null,"laneRate":null,"network":"","nextRunAt":"","lastRunAt":""}}`
	if got := undated(a.raw); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := s.get(t, "/functions/hello").ok(200); string(got.raw) != string(a.raw) {
		t.Errorf("read again: %s", got.raw)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json; charset=UTF-8" {
		t.Errorf("content type %q", ct)
	}
}

var dates = regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"`)

// undated replaces dates by "T".
func undated(raw []byte) string { return dates.ReplaceAllString(string(raw), `"T"`) }

func TestGeneratedId(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if id := s.create(t, "echo"); !regexp.MustCompile(`^[0-9a-f]{20}$`).MatchString(id) {
		t.Errorf("generated id %q", id)
	}
}

// param is a value of one parameter and the error text it must give; empty: none.
type param struct {
	name  string
	value any
	want  string
}

const (
	name128  = "Value must be a valid string and at least 1 chars and no longer than 128 chars"
	text128  = "Value must be a valid string and no longer than 128 chars"
	notBool  = "Value must be a valid boolean"
	notCron  = "String must be a valid cron expression"
	notEvent = "Value must a valid array no longer than 100 items and Event is not valid."
	newID    = "Parameter must contain at most 36 chars. Valid chars are a-z, A-Z, 0-9, period, hyphen, and underscore. Can't start with a special char"
	notRange = "Value must be a valid range between 1 and 900"
)

func list(n int, item func(int) string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = item(i)
	}
	return out
}

func same(s string) func(int) string { return func(int) string { return s } }

// functionParams are parameters of both create and update.
var functionParams = []param{
	{"name", strings.Repeat("ü", 128), ""},
	{"name", strings.Repeat("x", 129), name128},
	{"name", "", name128},
	{"name", 5, name128},
	{"name", []string{"x"}, name128},
	{"name", "a\x00b", name128},
	{"runtime", "node-99", "*"},
	{"runtime", "NODE-18.0", "*"},
	{"runtime", 18, "*"},
	{"execute", list(100, same("any")), ""},
	{"execute", list(101, same("any")), "You can only provide up to 100 roles."},
	{"execute", "any", "Roles must be an array of strings."},
	{"execute", map[string]any{"a": "any"}, "Roles must be an array of strings."},
	{"execute", []any{"any", 5}, "Every role must be of type string."},
	{"execute", []string{"*"}, `Wildcard role "*" has been replaced. Use "any" instead.`},
	{"execute", []string{"everyone"}, `Role "everyone" is not allowed. Must be one of: any, guests, users, user, team, member, label.`},
	{"execute", []string{"user"}, `Role "user" must have an ID value.`},
	{"execute", []string{"any:x"}, `Role "any" can not have an ID value.`},
	{"execute", []string{"any/x"}, `Role "any" can not have a dimension value.`},
	{"execute", []string{"users/x"}, `Role "users" dimension value is invalid. Must be one of: verified, unverified.`},
	{"execute", []string{"team:a/b/c"}, "Only one dimension can be provided"},
	{"execute", []string{"team:a/"}, "Dimension must not be empty"},
	{"execute", []string{"team:" + strings.Repeat("a", 36) + "/" + strings.Repeat("b", 36), "user:a/verified", "member:m", "label:vip", "users"}, ""},
	{"events", list(100, same("users.*.create")), ""},
	{"events", list(101, same("users.*.create")), notEvent},
	{"events", "users.*.create", notEvent},
	{"events", []any{7}, notEvent},
	{"events", []string{"users.*.explode"}, notEvent},
	{"events", []string{"functions.*.create"}, "Value must a valid array no longer than 100 items and Triggering a function on a function event is not allowed."},
	{"schedule", "*/5 * * * *", ""},
	{"schedule", "", ""},
	{"schedule", "0/5 * * * *", notCron},
	{"schedule", "* * * * * *", notCron},
	{"schedule", 5, notCron},
	{"timeout", 1, ""},
	{"timeout", 900, ""},
	{"timeout", "30", ""},
	{"timeout", 0, notRange},
	{"timeout", 901, notRange},
	{"timeout", -1, notRange},
	{"timeout", 1.5, notRange},
	{"timeout", "1.5", notRange},
	{"timeout", "x", notRange},
	{"timeout", true, notRange},
	{"timeout", json.Number("99999999999999999999"), notRange},
	{"enabled", false, ""},
	{"enabled", "false", notBool},
	{"enabled", 0, notBool},
	{"logging", false, ""},
	{"logging", "true", notBool},
	{"entrypoint", strings.Repeat("e", 1028), ""},
	{"entrypoint", strings.Repeat("e", 1029), "Value must be a valid string and no longer than 1028 chars"},
	{"commands", strings.Repeat("c", 8192), ""},
	{"commands", strings.Repeat("c", 8193), "Value must be a valid string and no longer than 8192 chars"},
	{"scopes", []string{"users.read", "functions.write"}, ""},
	{"scopes", list(100, same("users.read")), ""},
	{"scopes", list(101, same("users.read")), "*"},
	{"scopes", []string{"Users.read"}, "*"},
	{"scopes", "users.read", "*"},
	{"installationId", strings.Repeat("i", 129), text128},
	{"providerRepositoryId", strings.Repeat("i", 129), text128},
	{"providerBranch", strings.Repeat("i", 129), text128},
	{"providerRootDirectory", strings.Repeat("i", 129), text128},
	{"providerSilentMode", "yes", notBool},
	{"providerSilentMode", true, ""},
	{"specification", "s-8vcpu-8gb", ""},
	{"specification", "s-99vcpu", "*"},
	{"specification", 1, "*"},
	{"unknown", "is ignored", ""},
}

// Every parameter at, below and above its limit, and of other types.
func TestFunctionParams(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	target := s.create(t, "echo")
	createOnly := []param{
		{"functionId", "a", ""},
		{"functionId", strings.Repeat("a", 36), ""},
		{"functionId", "A.b-c_9", ""},
		{"functionId", strings.Repeat("a", 37), newID},
		{"functionId", "", newID},
		{"functionId", "_a", newID},
		{"functionId", "a/b", newID},
		{"functionId", "ä", newID},
		{"functionId", 5, newID},
		{"functionId", "runtimes", newID},
		{"functionId", "specifications", newID},
		{"functionId", "usage", newID},
		{"functionId", "templates", newID},
		{"templateRepository", strings.Repeat("i", 129), text128},
		{"templateOwner", strings.Repeat("i", 129), text128},
		{"templateRootDirectory", strings.Repeat("i", 129), text128},
		{"templateVersion", strings.Repeat("i", 129), text128},
	}
	for _, p := range slices.Concat(functionParams, createOnly) {
		body := map[string]any{"functionId": "unique()", "name": "n", "runtime": runtimeID}
		body[p.name] = p.value
		expectParam(t, p, s.post(t, "/functions", body), http.StatusCreated)
	}
	for _, p := range functionParams {
		body := map[string]any{"name": "n"}
		body[p.name] = p.value
		expectParam(t, p, s.do(t, "PUT", "/functions/"+target, body), http.StatusOK)
	}
}

// expectParam checks what a request with one interesting parameter answered.
func expectParam(t *testing.T, p param, a answer, ok int) {
	t.Helper()
	what := fmt.Sprintf("%s %s=%.60v", a.op, p.name, p.value)
	switch {
	case p.want == "" && a.status != ok:
		t.Errorf("%s: %d %s", what, a.status, a.raw)
	case p.want == "":
	case a.body["type"] != "general_argument_invalid":
		t.Errorf("%s: %d %s", what, a.status, a.raw)
	case p.want == "*":
		if !strings.HasPrefix(a.text("message"), "Invalid `"+p.name+"` param: ") {
			t.Errorf("%s: message %q", what, a.text("message"))
		}
	case a.text("message") != "Invalid `"+p.name+"` param: "+p.want:
		t.Errorf("%s: message\n got %q\nwant %q", what, a.text("message"), "Invalid `"+p.name+"` param: "+p.want)
	}
}

// The first wrong parameter in the order of declaration is the one reported.
func TestValidationOrder(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	wrong := map[string]any{"functionId": "_", "name": "", "runtime": "x", "execute": 1, "events": 1, "schedule": 1, "timeout": 0, "enabled": 1, "logging": 1,
		"entrypoint": 1, "commands": 1, "scopes": 1, "installationId": 1, "providerRepositoryId": 1, "providerBranch": 1, "providerSilentMode": 1,
		"providerRootDirectory": 1, "templateRepository": 1, "templateOwner": 1, "templateRootDirectory": 1, "templateVersion": 1, "specification": 1}
	right := map[string]any{"functionId": "f", "name": "n", "runtime": runtimeID}
	for _, name := range strings.Fields("functionId name runtime execute events schedule timeout enabled logging entrypoint commands scopes installationId " +
		"providerRepositoryId providerBranch providerSilentMode providerRootDirectory templateRepository templateOwner templateRootDirectory templateVersion specification") {
		a := s.post(t, "/functions", wrong).fails("general_argument_invalid")
		if !strings.HasPrefix(a.text("message"), "Invalid `"+name+"` param: ") {
			t.Errorf("%s: message %q", name, a.text("message"))
		}
		if delete(wrong, name); right[name] != nil {
			wrong[name] = right[name]
		}
	}
}

func TestMissingParams(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, body := range []any{nil, "", "{", "null", "false", "0", "[]", `[{"functionId":"f"}]`, `{"functionId":null}`, `{"functionId":"f"}{}`,
		`{"functionId":"f"}}`, `{"functionId":"f"`, `{"functionId":"f",}`, `{5:"f"}`, `{"functionId" "f"}`, "{\"functionId\":\"f\",\"name\":\"\xff\"}", "nul", " 0.0 "} {
		s.post(t, "/functions", body).ok(400).fails("general_argument_invalid", `Param "functionId" is not optional.`)
	}
	for _, body := range []string{`"text"`, "5", "true", " -1e99"} {
		s.post(t, "/functions", body).ok(400).fails("general_argument_invalid", "The request body must be a JSON object.")
	}
	s.post(t, "/functions", map[string]any{"functionId": "f", "runtime": "x"}).fails("general_argument_invalid", `Param "name" is not optional.`)
	s.post(t, "/functions", map[string]any{"functionId": "f", "name": "n", "runtime": nil}).fails("general_argument_invalid", `Param "runtime" is not optional.`)
	s.do(t, "PUT", "/functions/f", nil).fails("general_argument_invalid", `Param "name" is not optional.`)
	s.post(t, "/functions/f/variables", nil).fails("general_argument_invalid", `Param "key" is not optional.`)
	s.post(t, "/functions/f/variables", map[string]any{"key": "k"}).fails("general_argument_invalid", `Param "value" is not optional.`)
	s.do(t, "PUT", "/functions/f/variables/v", nil).fails("general_argument_invalid", `Param "key" is not optional.`)
	// A null is the same as nothing.
	s.post(t, "/functions", map[string]any{"functionId": "f", "name": "n", "runtime": runtimeID, "execute": nil, "timeout": nil, "enabled": nil, "commands": nil}).ok(201)
}

// Parameters in a query string do not count where a body has them.
func TestOneSourceOfParams(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.post(t, "/functions?functionId=f&name=n&runtime="+runtimeID, nil).fails("general_argument_invalid")
	s.create(t, "echo", "functionId", "f", "name", "n")
	if a := s.get(t, "/functions/f?functionId=other").ok(200); a.id() != "f" {
		t.Errorf("the path must win: %s", a.raw)
	}
}

// Forms give the same parameters as JSON.
func TestForms(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	urlencoded := s.with("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	a := urlencoded.post(t, "/functions", "functionId=form&name=a+b%21&runtime="+runtimeID+"&execute[]=any&execute%5B%5D=users&events[0]=users.*.create&events[1]=users.*.delete&timeout=7").ok(201)
	if a.text("name") != "a b!" || a.int("timeout") != 7 || fmt.Sprint(a.body["execute"]) != "[any users]" || fmt.Sprint(a.body["events"]) != "[users.*.create users.*.delete]" {
		t.Errorf("got %s", a.raw)
	}
	urlencoded.post(t, "/functions", "functionId=form2&name=n&runtime="+runtimeID+"&enabled=true").fails("general_argument_invalid")
	if a := urlencoded.post(t, "/functions", "functionId=percent&name=100%+of+%zz%2&runtime="+runtimeID).ok(201); a.text("name") != "100% of %zz%2" {
		t.Errorf("got %s", a.raw)
	}
	urlencoded.post(t, "/functions", "functionId=form2&name=%FF&runtime="+runtimeID).fails("general_argument_invalid")
	body, contentType := form{activate: "-", fields: map[string]string{"functionId": "multi", "name": "n", "runtime": runtimeID, "scopes[0]": "users.read"}}.encode(t)
	m := s.with("Content-Type", contentType).post(t, "/functions", body).ok(201)
	if fmt.Sprint(m.body["scopes"]) != "[users.read]" {
		t.Errorf("got %s", m.raw)
	}
	s.with("Content-Type", contentType).post(t, "/functions", body[:len(body)/2]).ok(400).fails("general_bad_request")
}

// An update is a replacement, but for the runtime and the entrypoint.
func TestUpdateReplaces(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.create(t, "echo", "execute", []string{"any"}, "events", []string{"users.*.create"}, "schedule", "0 0 * * *", "timeout", 30, "enabled", false,
		"logging", false, "commands", "make", "scopes", []string{"users.read"}, "specification", "s-2vcpu-2gb")
	a := s.do(t, "PUT", "/functions/"+id, map[string]any{"name": "new"}).ok(200)
	want := `{"$id":"` + id + `","$createdAt":"T","$updatedAt":"T","execute":[],"name":"new","enabled":true,"live":false,"logging":true,` +
		`"runtime":"` + runtimeID + `","deployment":"","scopes":[],"vars":[],"events":[],"schedule":"","timeout":15,"entrypoint":"echo","commands":"",` +
		`"version":"v4","installationId":"","providerRepositoryId":"","providerBranch":"","providerRootDirectory":"","providerSilentMode":false,"specification":"s-1vcpu-512mb","fnkit":{"timeZone":"UTC","catchUp":"once","retry":{"attempts":0,"backoff":1,"maxBackoff":3600,"on":["error","timeout","crash"]},"priority":0,"concurrency":0,"laneConcurrency":0,"rate":null,"laneRate":null,"network":"","nextRunAt":"","lastRunAt":""}}`
	if got := undated(a.raw); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.do(t, "PUT", "/functions/nobody", map[string]any{"name": "new"}).ok(404).fails("function_not_found")
}

func TestFunctionConflictAndSources(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.create(t, "echo")
	body := func(more ...string) map[string]any {
		b := map[string]any{"functionId": "other", "name": "n", "runtime": runtimeID}
		for i := 0; i < len(more); i += 2 {
			b[more[i]] = more[i+1]
		}
		return b
	}
	s.post(t, "/functions", body("functionId", id)).ok(409).fails("document_already_exists")
	s.post(t, "/functions", body("installationId", "x", "providerRepositoryId", "r", "providerBranch", "main")).ok(404).fails("installation_not_found")
	s.post(t, "/functions", body("providerRepositoryId", "r")).ok(400).fails("general_argument_invalid")
	s.post(t, "/functions", body("templateRepository", "r", "templateOwner", "o", "templateRootDirectory", "d", "templateVersion", "v")).ok(404).fails("function_template_not_found")
	s.post(t, "/functions", body("runtime", "dart-3.5")).ok(404).fails("function_runtime_unsupported")
	s.do(t, "PUT", "/functions/"+id, body("installationId", "x")).ok(404).fails("installation_not_found")
	s.do(t, "PUT", "/functions/"+id, body("templateRepository", "is no parameter here")).ok(200)
}

func TestDeleteFunction(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.create(t, "echo")
	s.do(t, "DELETE", "/functions/"+id, map[string]any{}).ok(204)
	s.do(t, "DELETE", "/functions/"+id, nil).ok(404).fails("function_not_found")
	s.get(t, "/functions/"+id).ok(404).fails("function_not_found", "Function with the requested ID could not be found.")
}

func TestFunctionVars(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	one, two := s.create(t, "echo"), s.create(t, "echo")
	s.post(t, "/functions/"+one+"/variables", map[string]any{"key": "A", "value": "1"}).ok(201)
	for _, where := range []answer{s.get(t, "/functions/"+one), s.do(t, "PUT", "/functions/"+one, map[string]any{"name": "n"}),
		s.with("X-Appwrite-Key", writeKey).do(t, "PUT", "/functions/"+one, map[string]any{"name": "n"})} {
		vars := where.ok(200).list("vars")
		if len(vars) != 1 || vars[0]["key"] != "A" || vars[0]["value"] != "1" || vars[0]["resourceId"] != one || vars[0]["resourceType"] != "function" {
			t.Errorf("got %v", vars)
		}
	}
	for _, f := range s.get(t, "/functions").ok(200).list("functions") {
		if want := map[string]int{one: 1, two: 0}[f["$id"].(string)]; len(f["vars"].([]any)) != want {
			t.Errorf("got %v", f)
		}
	}
}

func TestRuntimesAndSpecifications(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.cfg.Limits.CPUs = 1 })
	runtimes := s.get(t, "/functions/runtimes").ok(200)
	if items := runtimes.list("runtimes"); runtimes.int("total") != len(items) || len(items) == 0 || !slices.Contains(runtimes.ids("runtimes"), runtimeID) {
		t.Errorf("got %s", runtimes.raw)
	}
	want := `{"specifications":[{"memory":512,"cpus":0.5,"enabled":true,"slug":"s-0.5vcpu-512mb"},{"memory":512,"cpus":1,"enabled":true,"slug":"s-1vcpu-512mb"},` +
		`{"memory":1024,"cpus":1,"enabled":true,"slug":"s-1vcpu-1gb"}],"total":3}`
	if a := s.get(t, "/functions/specifications").ok(200); string(a.raw) != want {
		t.Errorf("got %s", a.raw)
	}
	a := s.post(t, "/functions", map[string]any{"functionId": "f", "name": "n", "runtime": runtimeID, "specification": "s-2vcpu-2gb"})
	a.fails("general_argument_invalid", "Invalid `specification` param: Specification must be one of: s-0.5vcpu-512mb, s-1vcpu-512mb, s-1vcpu-1gb")
}

// A body larger than the route takes is refused, one that is just not too large is read.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	pad := func(n int) string {
		b := fmt.Sprintf(`{"functionId":"unique()","name":"n","runtime":%q,"x":"`, runtimeID)
		return b + strings.Repeat("x", n-len(b)-2) + `"}`
	}
	s.post(t, "/functions", pad(1<<20)).ok(201)
	for _, req := range [][2]string{{"POST", "/functions"}, {"PUT", "/functions/f"}, {"POST", "/functions/f/variables"}, {"PUT", "/functions/f/variables/v"}} {
		s.do(t, req[0], req[1], pad(1<<20+1)).ok(400).fails("general_bad_request", "The request body must not be larger than 1048576 bytes.")
	}
}

// However a body is written, it holds so many parameters, and so much that is no text.
func TestBodyIsBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "mirror")
	guest, path := s.guest(), "/functions/"+fn+"/executions"
	urlencoded := guest.with("Content-Type", "application/x-www-form-urlencoded")
	multipart := func(n int) (string, []byte) {
		fields := map[string]string{}
		for i := range n {
			fields["x"+itoa(i)] = "1"
		}
		body, contentType := form{activate: "-", fields: fields}.encode(t)
		return contentType, body
	}
	contentType, body := multipart(1000)
	guest.with("Content-Type", contentType).post(t, path, body).ok(201)
	urlencoded.post(t, path, strings.Repeat("x=1&", 999)+"x=1").ok(201)
	object := func(n, size int) string {
		fields := map[string]any{"x0": strings.Repeat("x", size)}
		for i := 1; i < n; i++ {
			fields["x"+itoa(i)] = 1
		}
		raw, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	guest.post(t, path, object(1000, 1)).ok(201)
	guest.post(t, path, object(1000, 1<<20)).ok(201)
	message := "The request body has more than 1000 parameters."
	contentType, body = multipart(1001)
	guest.with("Content-Type", contentType).post(t, path, body).ok(400).fails("general_bad_request", message)
	urlencoded.post(t, path, strings.Repeat("x=1&", 1000)+"x=1").ok(400).fails("general_bad_request", message)
	guest.post(t, path, object(1001, 1)).ok(400).fails("general_bad_request", message)
	guest.post(t, path, object(1001, 1<<20)).ok(400).fails("general_bad_request", message)

	// A large body is read another way than a small one, and is as broken.
	large := `{"x":"` + strings.Repeat("x", 1<<20) + `","body":"seen"`
	for end, want := range map[string]string{"}": "seen", "": "", "}}": "", ",}": "", `,5:1}`: "", `,"a" 1}`: "", "}5": "", `,"a":1,"a":"b"} `: "seen"} {
		if a := guest.post(t, path, large+end).ok(201); a.text("responseBody") != want {
			t.Errorf("%s: %s", end, a.raw)
		}
	}
	message = "The request body has more than 1048576 bytes beside its texts."
	list := "[" + strings.Repeat("1,", 1<<19-1) + "1]" // a byte more than 1 MiB
	guest.post(t, path, `{"x":`+list+`}`).ok(400).fails("general_bad_request", message)
	guest.post(t, path, `{"headers":`+list+`}`).ok(400).fails("general_bad_request", message)
	guest.post(t, path, `{"x":`+list[:1<<19]+`1],"y":`+list[:1<<19]+`1]}`).ok(400).fails("general_bad_request", message)
	text := strings.Repeat("b", 1<<20)
	if a := guest.post(t, path, `{"x":`+list[:1<<19]+`1],"y":"`+text+`","body":"`+text+`"}`).ok(201); a.text("responseBody") != text {
		t.Errorf("%d bytes came back", len(a.text("responseBody")))
	}
}

// What belongs to one project is not reachable from another.
func TestProjectsAreApart(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.deployed(t, "echo", "functionId", "mine")
	deployment := s.get(t, "/functions/"+id).text("deployment")
	execution := s.execute(t, id).ok(201).id()
	variable := s.post(t, "/functions/"+id+"/variables", map[string]any{"key": "K", "value": "v"}).ok(201).id()
	other := s.with("X-Appwrite-Project", "elsewhere", "X-Appwrite-Key", otherKey)
	for op, req := range samples(s) {
		if s.api.Scopes()[op] == "" || !strings.HasPrefix(req[1], "/functions/f") {
			continue
		}
		path := req[1]
		if path == "/functions/f" {
			path = "/functions/" + id
		} else {
			segments := strings.Split(path, "/")
			segments[2] = id
			if len(segments) > 4 {
				segments[4] = map[string]string{"d": deployment, "e": execution, "v": variable}[segments[4]]
			}
			path = strings.Join(segments, "/")
		}
		a := other.do(t, req[0], path, validBody(op))
		if op == "functionsCreateDeployment" {
			a = other.upload(t, id, form{code: archive(t)})
		}
		a.ok(404).fails("function_not_found")
	}
	if a := other.get(t, "/functions").ok(200); a.int("total") != 0 || len(a.list("functions")) != 0 {
		t.Errorf("got %s", a.raw)
	}
	other.get(t, "/functions?queries[]="+query("cursorAfter", "", id)).ok(400).fails("general_cursor_not_found")
	// The same ids exist there independently.
	other.post(t, "/functions", map[string]any{"functionId": id, "name": "n", "runtime": runtimeID}).ok(201)
	other.get(t, "/functions/"+id+"/deployments/"+deployment).ok(404).fails("deployment_not_found")
	other.get(t, "/functions/"+id+"/deployments/"+deployment+"/download").ok(404).fails("deployment_not_found")
	other.get(t, "/functions/"+id+"/executions/"+execution).ok(404).fails("execution_not_found")
	other.get(t, "/functions/"+id+"/variables/"+variable).ok(404).fails("variable_not_found")
	other.upload(t, id, form{code: archive(t), id: deployment, rng: "bytes 0-9/20"})
	if a := s.get(t, "/functions/"+id).ok(200); a.text("deployment") != deployment {
		t.Errorf("changed from outside: %s", a.raw)
	}
}
