package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// query is one query as an escaped JSON text.
func query(method, attribute string, values ...any) string {
	q := map[string]any{"method": method}
	if attribute != "" {
		q["attribute"] = attribute
	}
	if len(values) > 0 {
		q["values"] = values
	}
	raw, _ := json.Marshal(q)
	return url.QueryEscape(string(raw))
}

// five creates the functions f1 to f5 with timeouts 1 to 5.
func five(t *testing.T, s *server) {
	t.Helper()
	for i := 1; i <= 5; i++ {
		s.create(t, "echo", "functionId", "f"+strconv.Itoa(i), "name", "Name "+strconv.Itoa(i), "timeout", i, "enabled", i%2 == 1)
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	five(t, s)
	for _, c := range []struct {
		name    string
		queries []string
		total   int
		want    string
	}{
		{"none", nil, 5, "f1 f2 f3 f4 f5"},
		{"equal", []string{query("equal", "name", "Name 2", "name 3")}, 2, "f2 f3"},
		{"boolean", []string{query("equal", "enabled", false)}, 2, "f2 f4"},
		{"integer", []string{query("greaterThan", "timeout", 3)}, 2, "f4 f5"},
		{"between", []string{query("between", "timeout", 2, 4)}, 3, "f2 f3 f4"},
		{"two", []string{query("greaterThan", "timeout", 1), query("lessThanEqual", "timeout", 3)}, 2, "f2 f3"},
		{"or", []string{`{"method":"or","values":[{"method":"equal","attribute":"timeout","values":[1]},{"method":"equal","attribute":"timeout","values":[5]}]}`}, 2, "f1 f5"},
		{"and in or", []string{`{"method":"or","values":[{"method":"and","values":[{"method":"startsWith","attribute":"name","values":["Name"]},{"method":"equal","attribute":"timeout","values":[2]}]},{"method":"equal","attribute":"timeout","values":[5]}]}`}, 2, "f2 f5"},
		{"contains", []string{query("contains", "$id", "f1", "f4")}, 2, "f1 f4"},
		{"starts, ends", []string{query("startsWith", "name", "name"), query("endsWith", "$id", "3")}, 1, "f3"},
		{"date", []string{query("greaterThan", "$createdAt", "2020-01-01T00:00:00.000+00:00"), query("lessThan", "$createdAt", "2999-01-01")}, 5, "f1 f2 f3 f4 f5"},
		{"null", []string{query("isNull", "scheduleNext")}, 5, "f1 f2 f3 f4 f5"},
		{"not null", []string{query("isNotNull", "schedulePrevious")}, 0, ""},
		{"limit", []string{query("limit", "", 2)}, 5, "f1 f2"},
		{"limit as text", []string{query("limit", "", "2")}, 5, "f1 f2"},
		{"huge limit", []string{query("limit", "", 1_000_000_000)}, 5, "f1 f2 f3 f4 f5"},
		{"offset", []string{query("limit", "", 2), query("offset", "", 3)}, 5, "f4 f5"},
		{"offset zero", []string{query("offset", "", 0)}, 5, "f1 f2 f3 f4 f5"},
		{"first limit wins", []string{query("limit", "", 1), query("limit", "", 4), query("offset", "", 0), query("offset", "", 4)}, 5, "f1"},
		{"descending", []string{query("orderDesc", "timeout")}, 5, "f5 f4 f3 f2 f1"},
		{"order without attribute", []string{query("orderDesc", "", "$id")}, 5, "f5 f4 f3 f2 f1"},
		{"order by sequence", []string{query("orderDesc", "$internalId")}, 5, "f5 f4 f3 f2 f1"},
		{"after", []string{query("cursorAfter", "", "f3")}, 5, "f4 f5"},
		{"before", []string{query("cursorBefore", "", "f3")}, 5, "f1 f2"},
		{"after, descending", []string{query("orderDesc", ""), query("cursorAfter", "", "f3")}, 5, "f2 f1"},
		{"first cursor wins", []string{query("cursorAfter", "", "f4"), query("cursorBefore", "", "f3")}, 5, "f5"},
	} {
		for _, form := range []string{"queries[%d]=%s", "queries%%5B%d%%5D=%s", "queries[]=%[2]s", "queries%%5B%%5D=%[2]s"} {
			var params []string
			for i, q := range c.queries {
				params = append(params, fmt.Sprintf(form, i, q))
			}
			a := s.get(t, "/functions?"+strings.Join(params, "&")).ok(200)
			if got := strings.Join(a.ids("functions"), " "); got != c.want || a.int("total") != c.total {
				t.Errorf("%s as %s: total %d, got %s, want %s", c.name, form, a.int("total"), got, c.want)
			}
		}
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	five(t, s)
	for search, total := range map[string]int{"": 5, "name": 5, "zebra": 0, url.QueryEscape(`"name 3"`): 1, "echo": 0, "nam": 5} {
		if a := s.get(t, "/functions?search="+search).ok(200); a.int("total") != total {
			t.Errorf("search %q: total %d, want %d", search, a.int("total"), total)
		}
	}
	if a := s.get(t, "/functions?search=name&queries[]="+query("equal", "timeout", 2)).ok(200); a.int("total") != 1 {
		t.Errorf("search and query: %s", a.raw)
	}
	// What is escaped wrongly is searched for as it stands, and not left out.
	for _, raw := range []string{"zebra%", "100%", "%zz", "%"} {
		if a := s.get(t, "/functions?search="+raw).ok(200); a.int("total") != 0 {
			t.Errorf("%s: %s", raw, a.raw)
		}
		s.get(t, "/functions?queries[]="+raw).ok(400).fails("general_argument_invalid")
	}
	s.get(t, "/functions?search="+strings.Repeat("x", 256)).ok(200)
	s.get(t, "/functions?search="+strings.Repeat("x", 257)).ok(400).fails("general_argument_invalid")
	s.get(t, "/functions?search[]=x").ok(400).fails("general_argument_invalid")
}

func TestQueryErrors(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	nested := func(depth int) string {
		q := `{"method":"equal","attribute":"timeout","values":[1]}`
		for range depth {
			q = `{"method":"or","values":[` + q + `,` + `{"method":"equal","attribute":"timeout","values":[2]}` + `]}`
		}
		return url.QueryEscape(q)
	}
	many := func(n int) string {
		values := make([]any, n)
		for i := range values {
			values[i] = i
		}
		return query("equal", "timeout", values...)
	}
	s.get(t, "/functions?queries[]="+nested(8)).ok(200)
	s.get(t, "/functions?queries[]="+many(500)).ok(200)
	notFound := "Attribute not found in schema: "
	uid := "Invalid cursor: UID must contain at most 36 chars. Valid chars are a-z, A-Z, 0-9, and underscore. Can't start with a leading underscore"
	for q, want := range map[string]string{
		"":                                     "Invalid query: Syntax error",
		"x":                                    "Invalid query: Syntax error",
		"{":                                    "Invalid query: Syntax error",
		"{}":                                   "Invalid query method: ",
		"{}{}":                                 "Invalid query: Syntax error",
		query("limit", "", 1) + "}":            "Invalid query: Syntax error",
		"5":                                    "Invalid query. Must be an array, got number",
		"null":                                 "Invalid query. Must be an array, got NULL",
		`"x"`:                                  "Invalid query. Must be an array, got string",
		`{"method":5}`:                         "Invalid query method. Must be a string, got number",
		`{"method":"equal","attribute":5}`:     "Invalid query attribute. Must be a string, got number",
		`{"method":"equal","values":"x"}`:      "Invalid query values. Must be an array, got string",
		`{"method":"foo"}`:                     "Invalid query method: foo",
		`{"method":"select","values":["$id"]}`: "Invalid query method: select",
		query("equal", "foo", "x"):             notFound + "foo",
		query("equal", "", "x"):                notFound,
		query("equal", "$internalId", 1):       notFound + "$internalId",
		query("orderAsc", "foo"):               notFound + "foo",
		query("equal", "name"):                 "Equal queries require at least one value.",
		query("contains", "name"):              "Contains queries require at least one value.",
		query("notEqual", "name", "a", "b"):    "NotEqual queries require exactly one value.",
		query("lessThan", "timeout"):           "LessThan queries require exactly one value.",
		query("between", "timeout", 1):         "Between queries require exactly two values.",
		query("isNull", "schedule", 1):         "IsNull queries take no value.",
		query("equal", "enabled", "true"):      `Query value is invalid for attribute "enabled"`,
		query("equal", "timeout", "1"):         `Query value is invalid for attribute "timeout"`,
		query("equal", "timeout", 1.5):         `Query value is invalid for attribute "timeout"`,
		query("equal", "name", 1):              `Query value is invalid for attribute "name"`,
		query("equal", "name", nil):            `Query value is invalid for attribute "name"`,
		query("equal", "$createdAt", "soon"):   `Query value is invalid for attribute "$createdAt"`,
		query("contains", "timeout", 1):        `Cannot query contains on attribute "timeout" because it is not a string.`,
		query("startsWith", "enabled", true):   `Cannot query startsWith on attribute "enabled" because it is not a string.`,
		query("or", ""):                        "Or queries require at least two queries",
		`{"method":"and","values":[{"method":"isNull","attribute":"schedule"}]}`:                                "And queries require at least two queries",
		`{"method":"or","values":["x","y"]}`:                                                                    "Invalid query. Must be an array, got string",
		`{"method":"or","values":[{"method":"limit","values":[1]},{"method":"isNull","attribute":"schedule"}]}`: "Or queries can only contain filter queries",
		nested(9):                      "Queries can not be nested deeper than 8 levels",
		many(501):                      "Query on attribute has greater than 500 values: timeout",
		query("limit", ""):             "Limit queries require exactly one value.",
		query("limit", "", 0):          "Invalid limit: Value must be a valid range between 1 and 9,223,372,036,854,775,807",
		query("limit", "", 1.5):        "Invalid limit: Value must be a valid range between 1 and 9,223,372,036,854,775,807",
		query("offset", "", -1):        "Invalid offset: Value must be a valid range between 0 and 9,223,372,036,854,775,807",
		query("cursorAfter", ""):       uid,
		query("cursorAfter", "", "_x"): uid,
		query("cursorBefore", "", 5):   uid,
	} {
		if !strings.Contains(q, "%") {
			q = url.QueryEscape(q)
		}
		s.get(t, "/functions?queries[]="+q).ok(400).fails("general_argument_invalid", "Invalid `queries` param: Invalid query: "+want)
	}
	s.get(t, "/functions?queries="+query("limit", "", 1)).ok(400).fails("general_argument_invalid", "Invalid `queries` param: Queries must be an array")
	s.get(t, "/functions?queries[a]="+query("limit", "", 1)).ok(400).fails("general_argument_invalid", "Invalid `queries` param: Queries must be an array")
	s.get(t, "/functions?queries[0][0]="+query("limit", "", 1)).ok(400).fails("general_argument_invalid")
	s.get(t, "/functions?queries[]="+query("search", "name", "x")).ok(400).fails("general_query_invalid", `Searching by attribute "name" requires a fulltext index.`)
}

func TestQueryLimits(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	each := "Invalid `queries` param: Value must a valid array no longer than 100 items and Value must be a valid string and at least 1 chars and no longer than 4096 chars"
	limit := "queries[]=" + query("limit", "", 1)
	s.get(t, "/functions?"+strings.Join(slices.Repeat([]string{limit}, 100), "&")).ok(200)
	s.get(t, "/functions?"+strings.Join(slices.Repeat([]string{limit}, 101), "&")).ok(400).fails("general_argument_invalid", each)
	long := func(n int) string {
		q := `{"method":"equal","attribute":"name","values":[""]}`
		return url.QueryEscape(strings.Replace(q, `""`, `"`+strings.Repeat("ü", n-len(q))+`"`, 1))
	}
	s.get(t, "/functions?queries[]="+long(4096)).ok(200)
	s.get(t, "/functions?queries[]="+long(4097)).ok(400).fails("general_argument_invalid", each)
}

// All queries together have so many conditions and values.
func TestQueriesTogether(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	contains := func(n int) string { return "queries[]=" + query("contains", "name", slices.Repeat([]any{"x"}, n)...) }
	most := strings.Repeat(contains(500)+"&", 9)
	s.get(t, "/functions?"+most+contains(490)).ok(200)
	s.get(t, "/functions?"+most+contains(491)).ok(400).
		fails("general_argument_invalid", "Invalid `queries` param: Invalid query: Queries have greater than 5000 conditions and values")
}

// Every list takes the query language and refuses bad cursors.
func TestEveryListTakesQueries(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "echo")
	s.execute(t, fn).ok(201)
	for path, list := range map[string]struct{ name, record, attribute string }{
		"/functions":                        {"functions", "Function", "runtime"},
		"/functions/" + fn + "/deployments": {"deployments", "Deployment", "type"},
		"/functions/" + fn + "/executions":  {"executions", "Execution", "trigger"},
	} {
		if a := s.get(t, path+"?queries[]="+query("isNotNull", list.attribute)).ok(200); a.int("total") != 1 || len(a.list(list.name)) != 1 {
			t.Errorf("%s: %s", path, a.raw)
		}
		s.get(t, path+"?queries[]="+query("equal", "foo", 1)).ok(400).fails("general_argument_invalid")
		s.get(t, path+"?queries[]="+query("search", list.attribute, "x")).ok(400).fails("general_query_invalid")
		s.get(t, path+"?queries[]="+query("cursorAfter", "", "nobody")).ok(400).
			fails("general_cursor_not_found", list.record+" 'nobody' for the 'cursor' value not found.")
	}
	execution := s.get(t, "/functions/"+fn+"/executions").ids("executions")[0]
	s.get(t, "/functions?queries[]="+query("orderAsc", "scheduleNext")+"&queries[]="+query("cursorAfter", "", fn)).ok(400).fails("database_query_order_null")
	s.get(t, "/functions/"+fn+"/executions?queries[]="+query("orderAsc", "scheduledAt")+"&queries[]="+query("cursorAfter", "", execution)).ok(400).fails("database_query_order_null")
}

// A cursor may name a record of another function, none of another project, and
// none that the caller may not read.
func TestCursors(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	one, two := s.deployed(t, "echo"), s.deployed(t, "echo")
	first := s.user(alice).execute(t, one).ok(201).id()
	second := s.user(bob).execute(t, two).ok(201).id()
	third := s.user(alice).execute(t, two).ok(201).id()
	after := func(c client, list, id string) answer {
		return c.get(t, "/functions"+list+"?queries[]="+query("cursorAfter", "", id))
	}
	executions := "/" + two + "/executions"
	if a := after(s.client, executions, first).ok(200); !slices.Equal(a.ids("executions"), []string{second, third}) || a.int("total") != 2 {
		t.Errorf("got %s", a.raw)
	}
	if a := after(s.user(alice), executions, first).ok(200); !slices.Equal(a.ids("executions"), []string{third}) || a.int("total") != 1 {
		t.Errorf("got %s", a.raw)
	}
	after(s.user(alice), executions, second).ok(400).fails("general_cursor_not_found", "Execution '"+second+"' for the 'cursor' value not found.")
	deployment := s.get(t, "/functions/"+one).text("deployment")
	if a := after(s.client, "/"+two+"/deployments", deployment).ok(200); a.int("total") != 1 || len(a.ids("deployments")) != 1 {
		t.Errorf("got %s", a.raw)
	}
	other := s.with("X-Appwrite-Project", "elsewhere", "X-Appwrite-Key", otherKey)
	other.post(t, "/functions", map[string]any{"functionId": two, "name": "n", "runtime": runtimeID}).ok(201)
	after(other, executions, second).ok(400).fails("general_cursor_not_found")
	after(other, "/"+two+"/deployments", deployment).ok(400).fails("general_cursor_not_found")
	after(other, "", one).ok(400).fails("general_cursor_not_found")
}

// A total counts up to 5000, and a page has so many rows at most.
func TestTotalsEnd(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(u *setup) { u.idle = true })
	fn := s.create(t, "echo")
	var rows []engine.Execution
	for i := range 5001 {
		at := time.Unix(int64(1_700_000_000+i), 0)
		rows = append(rows, engine.Execution{Project: project, ID: fmt.Sprintf("e%05d", i), FunctionID: fn, CreatedAt: at, UpdatedAt: at, UserID: "alice", Trigger: "http", Status: "completed"})
	}
	if err := s.store.AppendExecutions(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	list := "/functions/" + fn + "/executions?queries[]="
	for _, c := range []client{s.client, s.user(alice)} {
		if a := c.get(t, list+query("limit", "", 2)+"&queries[]="+query("offset", "", 4999)).ok(200); a.int("total") != 5000 || !slices.Equal(a.ids("executions"), []string{"e04999", "e05000"}) {
			t.Errorf("got %s", a.raw)
		}
	}
	if a := s.get(t, list+query("limit", "", 5001)).ok(200); a.int("total") != 5000 || len(a.ids("executions")) != 5000 {
		t.Errorf("total %d, %d rows", a.int("total"), len(a.ids("executions")))
	}
	if a := s.get(t, list+query("greaterThan", "$id", "e04000")).ok(200); a.int("total") != 1000 || len(a.ids("executions")) != 25 {
		t.Errorf("total %d, %d rows", a.int("total"), len(a.ids("executions")))
	}
}

// What deployments and executions are searched by.
func TestSearchOfOtherLists(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	fn := s.deployed(t, "echo", "functionId", "my-func", "entrypoint", "echo")
	deployment, execution := s.get(t, "/functions/"+fn).text("deployment"), s.execute(t, fn).ok(201).id()
	for path, searches := range map[string]map[string]int{
		"/functions":                        {"my-func": 1, "func": 1, "zzz func": 1, "func zzz": 1, `"my func"`: 1, `"func my"`: 0, "un": 0, "(my-func) @ec~ho": 1, "<>": 0, runtimeID: 1, "MY-FUNC": 1, "%": 0, "f_nc": 0},
		"/functions/" + fn + "/deployments": {deployment: 1, deployment[:5]: 1, deployment[1:]: 0, "echo": 1, "index echo": 1, "my-func": 0},
		"/functions/" + fn + "/executions":  {execution: 1, execution[:5]: 1, execution[1:]: 0, "my-func": 1, "echo": 0},
	} {
		for search, total := range searches {
			if a := s.get(t, path+"?search="+url.QueryEscape(search)).ok(200); a.int("total") != total {
				t.Errorf("%s, %q: total %d, want %d", path, search, a.int("total"), total)
			}
		}
	}
	s.do(t, "PUT", "/functions/"+fn, map[string]any{"name": "Renamed thing"}).ok(200)
	if a := s.get(t, "/functions?search=thing").ok(200); a.int("total") != 1 {
		t.Errorf("the new name is not found: %s", a.raw)
	}
}

// Clients of before 1.5 write queries another way.
func TestLegacyQueries(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	five(t, s)
	old := s.with("X-Appwrite-Response-Format", "1.4.0")
	for q, want := range map[string]string{
		`equal("name", ["Name 1", 'Name 2'])`: "f1 f2",
		`equal("name", "Name \"3\"")`:         "",
		`equal("enabled", [false])`:           "f2 f4",
		`greaterThan("timeout", 3)`:           "f4 f5",
		`between("timeout", 2, 3)`:            "f2 f3",
		`isNull("scheduleNext")`:              "f1 f2 f3 f4 f5",
		`orderDesc("$createdAt")`:             "f5 f4 f3 f2 f1",
		`orderDesc("")`:                       "f5 f4 f3 f2 f1",
		`limit(2)`:                            "f1 f2",
		`offset(4)`:                           "f5",
		`cursorAfter("f4")`:                   "f5",
		`{"method":"limit","values":[1]}`:     "f1",
	} {
		a := old.get(t, "/functions?queries[]="+url.QueryEscape(q)).ok(200)
		if got := strings.Join(a.ids("functions"), " "); got != want {
			t.Errorf("%s: got %s, want %s", q, got, want)
		}
	}
	for _, q := range []string{"limit", "limit(", "limit(x)", `limit(1 2)`, "foo(1)", `equal(1, 2)`, `equal("name", ["a")`, `equal("name", "a)`, `name.equal("x")`, `equal("name", [["a"]])`, "or(1)"} {
		old.get(t, "/functions?queries[]="+url.QueryEscape(q)).ok(400).fails("general_argument_invalid")
	}
	s.get(t, "/functions?queries[]="+url.QueryEscape("limit(2)")).ok(400).fails("general_argument_invalid")
}
