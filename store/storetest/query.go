package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fnkit/fnkit/store"
)

// sample is a record as its public attributes: what filters are tried on here,
// in memory, and in the store.
type sample map[string]any

// samples are functions that differ in every attribute.
func (s *suite) samples() (rows []store.Function, values []sample) {
	for i := range 12 {
		f := s.function(fmt.Sprintf("f%02d", i))
		f.CreatedAt, f.UpdatedAt = at(i/2), at(100-i) // pairs are created in one instant
		f.Name = []string{"Alpha", "beta", "ALPHA two", "100% _x", "", "gamma", "Éclair", "éclair", "_z", "Zeta", "alpha", "🚀 up"}[i]
		f.Enabled = i%3 == 0
		f.Runtime = []string{"node-20.0", "python-3.11"}[i%2]
		f.Deployment = []string{"", "d1", "d2"}[i%3]
		f.Schedule = []string{"", "* * * * *"}[i%2]
		f.NextRunAt, f.LastRunAt = time.Time{}, time.Time{}
		if i%4 == 0 {
			f.NextRunAt = at(i)
		}
		f.Timeout = 10 + i%5
		f.Entrypoint = []string{"index.js", "src/main.py", `a\b`, "Index.js", "é"}[i%5]
		f.Commands = strings.Repeat("x", i%3)
		f.InstallationID = []string{"", "inst"}[i%2]
		rows = append(rows, s.create(f))
		var next any
		if !f.NextRunAt.IsZero() {
			next = f.NextRunAt
		}
		values = append(values, sample{
			"$id": f.ID, "$createdAt": f.CreatedAt, "$updatedAt": f.UpdatedAt, "name": f.Name, "enabled": f.Enabled, "runtime": f.Runtime,
			"deployment": f.Deployment, "schedule": f.Schedule, "scheduleNext": next, "schedulePrevious": nil, "timeout": int64(f.Timeout),
			"entrypoint": f.Entrypoint, "commands": f.Commands, "installationId": f.InstallationID,
		})
	}
	return rows, values
}

// queries tries every operator on every attribute, with values that exist and
// values that do not, against a plain evaluation of the same filter.
func (s *suite) queries() {
	rows, values := s.samples()
	attrs := store.FunctionAttrs()
	for name := range attrs {
		if _, ok := values[0][name]; !ok && !attrs[name].OrderOnly {
			s.Errorf("the suite has no values for %s", name)
		}
	}
	for name, attr := range attrs {
		if attr.OrderOnly {
			continue
		}
		for _, f := range filters(name, attr, values) {
			s.compare(f, rows, values, attrs)
		}
	}
	some := store.Filter{Op: store.Equal, Attr: "enabled", Values: []any{true}}
	other := store.Filter{Op: store.GreaterThan, Attr: "timeout", Values: []any{int64(12)}}
	third := store.Filter{Op: store.IsNull, Attr: "scheduleNext"}
	for _, op := range []store.Op{store.And, store.Or} {
		inner := store.Filter{Op: op, Nested: []store.Filter{some, other}}
		s.compare(inner, rows, values, attrs)
		s.compare(store.Filter{Op: store.Or, Nested: []store.Filter{inner, third}}, rows, values, attrs)
		s.compare(store.Filter{Op: store.And, Nested: []store.Filter{inner, third, other}}, rows, values, attrs)
	}
	s.otherLists()
}

// filters are all operators that an attribute takes, on some of its values.
func filters(name string, attr store.Attr, values []sample) []store.Filter {
	var known []any
	for _, v := range values {
		if v[name] != nil && !slices.Contains(known, v[name]) {
			known = append(known, v[name])
		}
	}
	strange := map[store.Type]any{store.Text: "zzz", store.Fold: "ZZZ", store.Integer: int64(-1), store.Boolean: false, store.Date: at(-5)}[attr.Type]
	known = append(known[:min(7, len(known))], strange)
	out := []store.Filter{{Op: store.IsNull, Attr: name}, {Op: store.IsNotNull, Attr: name}, {Op: store.Equal, Attr: name, Values: known}}
	for _, v := range known {
		for _, op := range []store.Op{store.Equal, store.NotEqual, store.LessThan, store.LessThanEqual, store.GreaterThan, store.GreaterThanEqual} {
			out = append(out, store.Filter{Op: op, Attr: name, Values: []any{v}})
		}
		out = append(out, store.Filter{Op: store.Between, Attr: name, Values: []any{v, known[0]}}, store.Filter{Op: store.Between, Attr: name, Values: []any{known[0], v}})
	}
	if attr.Type == store.Text || attr.Type == store.Fold {
		for _, v := range []any{"a", "A", "ind", ".js", "%", "_", `\`, "alpha", "x", "", "é", "É", "🚀"} {
			for _, op := range []store.Op{store.StartsWith, store.EndsWith, store.Contains} {
				if v != "" || op != store.Contains {
					out = append(out, store.Filter{Op: op, Attr: name, Values: []any{v}})
				}
			}
		}
		out = append(out, store.Filter{Op: store.Contains, Attr: name, Values: []any{"main", "lph"}})
	}
	return out
}

func (s *suite) compare(f store.Filter, rows []store.Function, values []sample, attrs store.Attrs) {
	s.Helper()
	var want []string
	for i := range rows {
		if matches(f, values[i], attrs) {
			want = append(want, rows[i].ID)
		}
	}
	q := store.Query{Filters: []store.Filter{f}, Limit: 100, Orders: []store.Order{{Attr: "$id"}}}
	got, err := s.ListFunctions(s.ctx, s.project, q)
	if err != nil {
		s.Errorf("%+v: %v", f, err)
		return
	}
	if names := functionIDs(got); !slices.Equal(names, want) {
		s.Errorf("%+v:\n got %v\nwant %v", f, names, want)
	}
	if n, err := s.CountFunctions(s.ctx, s.project, q, 100); err != nil || n != len(want) {
		s.Errorf("%+v: counted %d, %v; want %d", f, n, err, len(want))
	}
}

func functionIDs(rows []store.Function) []string {
	var out []string
	for _, f := range rows {
		out = append(out, f.ID)
	}
	return out
}

// matches evaluates a filter on a sample.
func matches(f store.Filter, v sample, attrs store.Attrs) bool {
	if f.Op == store.And || f.Op == store.Or {
		for _, n := range f.Nested {
			if matches(n, v, attrs) == (f.Op == store.Or) {
				return f.Op == store.Or
			}
		}
		return f.Op == store.And
	}
	fold := attrs[f.Attr].Type == store.Fold
	value := folded(v[f.Attr], fold)
	var args []any
	for _, a := range f.Values {
		args = append(args, folded(a, fold))
	}
	switch f.Op {
	case store.IsNull:
		return value == nil
	case store.IsNotNull:
		return value != nil
	case store.NotEqual:
		return value == nil || order(value, args[0]) != 0
	}
	if value == nil {
		return false
	}
	has := func(test func(s, part string) bool) bool {
		return slices.ContainsFunc(args, func(a any) bool { return test(value.(string), a.(string)) })
	}
	switch f.Op {
	case store.Equal:
		return slices.ContainsFunc(args, func(a any) bool { return order(value, a) == 0 })
	case store.LessThan:
		return order(value, args[0]) < 0
	case store.LessThanEqual:
		return order(value, args[0]) <= 0
	case store.GreaterThan:
		return order(value, args[0]) > 0
	case store.GreaterThanEqual:
		return order(value, args[0]) >= 0
	case store.Between:
		return order(value, args[0]) >= 0 && order(value, args[1]) <= 0
	case store.StartsWith:
		return has(strings.HasPrefix)
	case store.EndsWith:
		return has(strings.HasSuffix)
	case store.Contains:
		return has(strings.Contains)
	}
	panic("unknown operator " + f.Op)
}

// folded is a value without regard to ASCII case.
func folded(v any, fold bool) any {
	if s, ok := v.(string); ok && fold {
		return strings.Map(func(r rune) rune {
			if r < utf8.RuneSelf {
				return unicode.ToLower(r)
			}
			return r
		}, s)
	}
	return v
}

// order compares two values of one type.
func order(a, b any) int {
	switch a := a.(type) {
	case string:
		return strings.Compare(a, b.(string))
	case int64:
		return cmp.Compare(a, b.(int64))
	case float64:
		return cmp.Compare(a, b.(float64))
	case time.Time:
		return a.Compare(b.(time.Time))
	case bool:
		number := map[bool]int{true: 1}
		return cmp.Compare(number[a], number[b.(bool)])
	}
	panic(fmt.Sprintf("unknown type %T", a))
}

// otherLists tries each attribute of the other lists once: that it is there,
// and of its type.
func (s *suite) otherLists() {
	s.createDeployment(s.deployment("d", "f00"))
	x := s.execution("x", "f00")
	s.append(x)
	match := func(what string, f store.Filter, count func(store.Query) (int, error)) {
		s.Helper()
		if n, err := count(store.Query{Filters: []store.Filter{f}}); err != nil || n != 1 {
			s.Errorf("%s by %+v: %d, %v; want 1", what, f, n, err)
		}
		f.Op = store.NotEqual
		if n, err := count(store.Query{Filters: []store.Filter{f}}); err != nil || n != 0 {
			s.Errorf("%s by %+v: %d, %v; want 0", what, f, n, err)
		}
	}
	deployments := sample{"$id": "d", "$createdAt": at(1), "$updatedAt": at(2), "size": int64(12), "buildId": "b-d", "activate": true,
		"entrypoint": "index.js", "commands": "make", "type": "manual", "status": "waiting"}
	for name, attr := range store.DeploymentAttrs() {
		if !attr.OrderOnly {
			match("deployments", store.Filter{Op: store.Equal, Attr: name, Values: []any{deployments[name]}}, func(q store.Query) (int, error) {
				return s.CountDeployments(s.ctx, s.project, "f00", q, 10)
			})
		}
	}
	executions := sample{"$id": "x", "$createdAt": at(1), "$updatedAt": at(2), "trigger": "event", "status": "completed", "responseStatusCode": int64(200),
		"duration": 1.234567, "requestMethod": "POST", "requestPath": "/?a=b", "deploymentId": "d", "scheduledAt": at(9)}
	for name, attr := range store.ExecutionAttrs() {
		if !attr.OrderOnly {
			match("executions", store.Filter{Op: store.Equal, Attr: name, Values: []any{executions[name]}}, func(q store.Query) (int, error) {
				return s.CountExecutions(s.ctx, s.project, "f00", "", q, 10)
			})
		}
	}
	for reader, want := range map[string]int{"": 1, "u": 1, "v": 0} {
		rows, err := s.ListExecutions(s.ctx, s.project, "f00", reader, store.Query{})
		if err != nil || len(rows) != want {
			s.Errorf("reader %q sees %d executions, %v", reader, len(rows), err)
		}
		for _, x := range rows {
			if logs := x.Logs + x.Errors; (logs == "") != (reader != "") {
				s.Errorf("reader %q gets the logs %q", reader, logs)
			}
		}
	}
}

// cursors walks lists in many orders, forwards and backwards, in pages of
// several sizes, and compares with the same order made in memory.
func (s *suite) cursors() {
	rows, values := s.samples()
	position := map[string]int{}
	for i, r := range rows {
		position[r.ID] = i
	}
	for _, orders := range [][]store.Order{
		nil, {{}}, {{Desc: true}}, {{Attr: "$createdAt", Desc: true}}, {{Attr: "$internalId"}}, {{Attr: "$id", Desc: true}},
		{{Attr: "name"}}, {{Attr: "timeout", Desc: true}}, {{Attr: "enabled"}, {Attr: "timeout", Desc: true}},
		{{Attr: "runtime"}, {Attr: "$createdAt", Desc: true}}, {{Attr: "$updatedAt"}},
	} {
		want := slices.Clone(rows)
		slices.SortStableFunc(want, func(a, b store.Function) int {
			return inOrder(orders, values[position[a.ID]], values[position[b.ID]], position[a.ID]-position[b.ID])
		})
		names := functionIDs(want)
		for _, size := range []int{1, 5, 12} {
			s.walk(orders, size, names)
		}
		if got, err := s.ListFunctions(s.ctx, s.project, store.Query{Orders: orders, Offset: 10, Limit: 5}); err != nil || !slices.Equal(functionIDs(got), names[10:]) {
			s.Errorf("%+v from 10: %v, %v", orders, functionIDs(got), err)
		}
	}
	if got, err := s.ListFunctions(s.ctx, s.project, store.Query{}); err != nil || len(got) != 12 {
		s.Errorf("default page: %d, %v", len(got), err)
	}
	_, err := s.ListFunctions(s.ctx, s.project, store.Query{After: "none"})
	s.is(err, store.ErrCursor)
	_, err = s.ListFunctions(s.ctx, s.project, store.Query{Before: "none"})
	s.is(err, store.ErrCursor)
	_, err = s.ListFunctions(s.ctx, s.project, store.Query{After: "f01", Orders: []store.Order{{Attr: "scheduleNext"}}})
	s.is(err, store.ErrCursorNull)
	s.nullOrders()
}

// nullOrders: null comes before everything else, also around a cursor.
func (s *suite) nullOrders() {
	nulls := []string{"f01", "f02", "f03", "f05", "f06", "f07", "f09", "f10", "f11"}
	backwards := slices.Clone(nulls)
	slices.Reverse(backwards)
	for _, c := range []struct {
		desc          bool
		after, before string
		want          []string
	}{
		{false, "", "", append(slices.Clone(nulls), "f00", "f04", "f08")},
		{true, "", "", append([]string{"f08", "f04", "f00"}, backwards...)},
		{false, "f00", "", []string{"f04", "f08"}},
		{true, "f04", "", append([]string{"f00"}, backwards...)},
		{false, "", "f04", append(slices.Clone(nulls), "f00")},
		{true, "", "f00", []string{"f08", "f04"}},
	} {
		q := store.Query{Orders: []store.Order{{Attr: "scheduleNext", Desc: c.desc}}, After: c.after, Before: c.before}
		got, err := s.ListFunctions(s.ctx, s.project, q)
		if s.must(err); !slices.Equal(functionIDs(got), c.want) {
			s.Errorf("%+v:\n got %v\nwant %v", q, functionIDs(got), c.want)
		}
	}
}

// inOrder compares by orders; ties by creation, in the direction of the last order.
func inOrder(orders []store.Order, a, b sample, created int) int {
	for _, o := range orders {
		c := created
		if o.Attr != "" && o.Attr != "$internalId" {
			c = order(folded(a[o.Attr], o.Attr == "name"), folded(b[o.Attr], o.Attr == "name"))
		}
		if o.Desc {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	if len(orders) > 0 && orders[len(orders)-1].Desc {
		return -created
	}
	return created
}

// walk pages through a list with cursors, there and back.
func (s *suite) walk(orders []store.Order, size int, want []string) {
	s.Helper()
	var there, back []string
	for after := ""; ; {
		page, err := s.ListFunctions(s.ctx, s.project, store.Query{Orders: orders, Limit: size, After: after})
		if s.must(err); len(page) == 0 {
			break
		}
		there = append(there, functionIDs(page)...)
		after = there[len(there)-1]
	}
	for before := want[len(want)-1]; ; {
		page, err := s.ListFunctions(s.ctx, s.project, store.Query{Orders: orders, Limit: size, Before: before})
		if s.must(err); len(page) == 0 {
			break
		}
		back = append(functionIDs(page), back...)
		before = back[0]
	}
	if !slices.Equal(there, want) || !slices.Equal(back, want[:len(want)-1]) {
		s.Errorf("%+v in pages of %d:\nthere %v\n back %v\n want %v", orders, size, there, back, want)
	}
}

// longLists: pages and counts are bounded.
func (s *suite) longLists() {
	s.append(s.many(store.MaxLimit+10, "f")...)
	for limit, want := range map[int]int{0: store.DefaultLimit, -1: store.DefaultLimit, 1: 1, store.MaxLimit + 5: store.MaxLimit} {
		rows, err := s.ListExecutions(s.ctx, s.project, "f", "", store.Query{Limit: limit})
		if err != nil || len(rows) != want {
			s.Errorf("limit %d: %d rows, %v", limit, len(rows), err)
		}
	}
	if n, err := s.CountExecutions(s.ctx, s.project, "f", "", store.Query{Limit: 3, Offset: 100}, store.MaxLimit); err != nil || n != store.MaxLimit {
		s.Errorf("counted %d, %v", n, err)
	}
	if rows, err := s.ListExecutions(s.ctx, s.project, "f", "", store.Query{Offset: store.MaxLimit + 5}); err != nil || len(rows) != 5 {
		s.Errorf("behind the offset: %d rows, %v", len(rows), err)
	}
}

// durations are found by the seconds they are shown as.
func (s *suite) durations() {
	rows := s.many(200, "f")
	for i := range rows {
		rows[i].Duration = time.Duration(i*i*7+1) * time.Microsecond
	}
	s.append(rows...)
	for _, x := range rows {
		for op, want := range map[store.Op]int{store.Equal: 1, store.LessThanEqual: 1, store.NotEqual: 0, store.LessThan: 0} {
			filters := []store.Filter{{Op: store.Equal, Attr: "$id", Values: []any{x.ID}}, {Op: op, Attr: "duration", Values: []any{x.Duration.Seconds()}}}
			if n, err := s.CountExecutions(s.ctx, s.project, "f", "", store.Query{Filters: filters}, 2); err != nil || n != want {
				s.Errorf("%s %v: %d, %v", op, x.Duration.Seconds(), n, err)
			}
		}
	}
}

func (s *suite) search() {
	f := s.function("blog-api")
	f.Name, f.Runtime = "Weekly Report, v2 (100%)", "python-3.11"
	s.create(f)
	g := s.function("shop")
	g.Name = "Checkout"
	s.create(g)
	s.createDeployment(s.deployment("dep1", "shop"))
	s.append(s.execution("exe-cution1", "shop"))
	for search, want := range map[string]int{
		"weekly": 1, "WEEKLY": 1, "week": 1, "report weekly": 1, "nothing check": 1, "week checkout": 1, "checkout report": 2, `"weekly report"`: 1, `"report weekly"`: 0,
		`"week"`: 0, "python": 1, "api": 1, "ap": 0, "v2": 0, "%": 0, "100": 1, "___": 0, "shop": 1, "node": 1, "": 2,
	} {
		got, err := s.ListFunctions(s.ctx, s.project, store.Query{Search: search})
		if err != nil || len(got) != want {
			s.Errorf("search %q: %v, %v; want %d", search, functionIDs(got), err, want)
		}
	}
	for search, want := range map[string]int{"dep1": 1, "index": 1, "index.js": 1, "python": 0} {
		if n, err := s.CountDeployments(s.ctx, s.project, "shop", store.Query{Search: search}, 10); err != nil || n != want {
			s.Errorf("search deployments for %q: %d, %v", search, n, err)
		}
	}
	for search, want := range map[string]int{"cution1": 1, "exe": 1, "shop": 1, "other": 0, `"shop exe cution1"`: 1} {
		if n, err := s.CountExecutions(s.ctx, s.project, "shop", "", store.Query{Search: search}, 10); err != nil || n != want {
			s.Errorf("search executions for %q: %d, %v", search, n, err)
		}
	}
}

// badQueries: what the engine should have refused does no harm.
func (s *suite) badQueries() {
	s.create(s.function("f"))
	for _, f := range []store.Filter{
		{Op: store.Equal, Attr: "nope", Values: []any{"x"}},
		{Op: store.Equal, Attr: "name; DROP TABLE functions", Values: []any{"x"}},
		{Op: "explode", Attr: "name", Values: []any{"x"}},
		{Op: store.Equal, Attr: "name"},
		{Op: store.Equal, Attr: "name", Values: []any{int64(1)}},
		{Op: store.Equal, Attr: "enabled", Values: []any{"true"}},
		{Op: store.Between, Attr: "timeout", Values: []any{int64(1)}},
		{Op: store.StartsWith, Attr: "timeout", Values: []any{int64(1)}},
		{Op: store.Equal, Attr: "$internalId", Values: []any{int64(1)}},
		{Op: store.Or, Nested: []store.Filter{{Op: store.IsNull, Attr: "name"}}},
	} {
		_, err := s.ListFunctions(s.ctx, s.project, store.Query{Filters: []store.Filter{f}})
		if s.is(err, store.ErrQuery); err == nil {
			s.Errorf("%+v was taken", f)
		}
	}
	_, err := s.ListFunctions(s.ctx, s.project, store.Query{Orders: []store.Order{{Attr: "nope"}}})
	s.is(err, store.ErrQuery)
	got, err := s.ListFunctions(s.ctx, s.project, store.Query{Filters: []store.Filter{{Op: store.Equal, Attr: "name", Values: []any{`'; DROP TABLE x; --`}}}})
	if s.must(err); len(got) != 0 {
		s.Errorf("found %v", functionIDs(got))
	}
}

// longLogs: the logs of a page are bounded; a short page has them whole.
func (s *suite) longLogs() {
	_, err := s.CreateFunction(s.ctx, s.function("f"))
	s.must(err)
	whole := strings.Repeat("ä", 20_000) + strings.Repeat("z", 20_000)
	x, d := s.execution("x", "f"), s.deployment("d", "f")
	x.Logs, x.Errors, d.BuildLogs = whole, whole[:10], whole
	s.append(x)
	s.createDeployment(d)
	cut := func(rows int) string {
		runes := []rune(whole)
		return store.CutMark + string(runes[len(runes)-store.PageLogs/rows:])
	}
	for limit, want := range map[int][2]string{0: {whole, whole}, store.MaxLimit: {cut(2 * store.MaxLimit), cut(store.MaxLimit)}} {
		executions, err := s.ListExecutions(s.ctx, s.project, "f", "", store.Query{Limit: limit})
		s.must(err)
		if got := executions[0]; got.Logs != want[0] || got.Errors != x.Errors {
			s.Errorf("a page of %d has %d and %d bytes of logs, want %d and %d", limit, len(got.Logs), len(got.Errors), len(want[0]), len(x.Errors))
		}
		deployments, err := s.ListDeployments(s.ctx, s.project, "f", store.Query{Limit: limit})
		s.must(err)
		if got := deployments[0]; got.BuildLogs != want[1] {
			s.Errorf("a page of %d has %d bytes of a build's logs, want %d", limit, len(got.BuildLogs), len(want[1]))
		}
	}
	one, err := s.GetExecution(s.ctx, s.project, "f", "x")
	if s.must(err); one.Logs != whole {
		s.Errorf("an execution has %d bytes of logs, want %d", len(one.Logs), len(whole))
	}
}
