package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// listing is what a list is made from: its table and the rows it is about.
type listing struct {
	table   string
	alias   string
	attrs   store.Attrs
	columns map[string]string // by attribute, where the column has another name
	search  string            // expression of the search text
	scope   []condition       // which rows
	owner   []condition       // which rows a cursor may name
	logs    []string          // columns of logs, which can be long
	noLogs  bool              // they are not read
	more    string            // columns that are read besides those of the table
	queued  []any             // statuses that are kept in the queue, see byStatus

	contains string // the dialect's condition
}

// condition is a piece of a WHERE clause.
type condition struct {
	sql  string
	args []any
}

func where(sql string, args ...any) condition { return condition{sql, args} }

func functionList(project string) listing {
	own := []condition{where("project_id = ?", project)}
	return listing{table: "functions", alias: "f", attrs: store.FunctionAttrs(), search: "search", scope: own, owner: own, columns: map[string]string{
		"scheduleNext": "next_run_at", "schedulePrevious": "last_run_at", "installationId": "installation_id",
	}}
}

func deploymentList(project, function string) listing {
	own := []condition{where("project_id = ?", project)}
	return listing{table: "deployments", alias: "d", attrs: store.DeploymentAttrs(), search: "search", logs: []string{"build_logs"},
		owner: own, scope: append(slices.Clone(own), where("function_id = ?", function)),
		columns: map[string]string{"buildId": "build_id"}}
}

func (r records) executionList(project, function, reader string) listing {
	own := []condition{where("project_id = ?", project)}
	if reader != "" {
		own = append(own, where("user_id = ? AND user_id <> ''", clean(reader))) // the second lets the partial index serve
	}
	return listing{table: "executions", alias: "e", attrs: store.ExecutionAttrs(), logs: []string{"logs", "errors"}, noLogs: reader != "", more: r.s.ofQueue(), queued: queuedStatuses,
		owner: own, scope: append(slices.Clone(own), where("function_id = ?", function)),
		// ids hold no other characters that separate words
		search: "' ' || lower(replace(replace(function_id || ' ' || id, '-', ' '), '.', ' ')) || ' '",
		columns: map[string]string{
			"trigger": "trigger_kind", "responseStatusCode": "response_status_code", "requestMethod": "request_method", "requestPath": "request_path",
			"deploymentId": "deployment_id", "scheduledAt": "scheduled_at", "status": r.s.status(),
		}}
}

// column returns the column of an attribute; creation order is the attribute "".
func (l listing) column(attr string) (string, store.Attr, error) {
	switch attr {
	case "", "$internalId":
		return "created_at", store.Attr{Type: store.Integer, OrderOnly: true}, nil
	case "$id":
		return "id", l.attrs[attr], nil
	case "$createdAt":
		return "created_at", l.attrs[attr], nil
	case "$updatedAt":
		return "updated_at", l.attrs[attr], nil
	}
	a, ok := l.attrs[attr]
	if !ok {
		return "", a, fmt.Errorf("%w: attribute %q", store.ErrQuery, attr)
	}
	if c, ok := l.columns[attr]; ok {
		return c, a, nil
	}
	return attr, a, nil
}

// list reads a page into rows.
func (r records) list(ctx context.Context, l listing, q store.Query, rows any) error {
	l.contains = r.s.dialect.contains
	sel := r.r.NewSelect().Model(rows).ModelTableExpr("? AS ?", r.s.table(l.table), bun.Ident(l.alias))
	l.selectLogs(sel, limit(q))
	if l.more != "" {
		sel.ColumnExpr(l.more)
	}
	conditions, err := l.conditions(q)
	if err != nil {
		return err
	}
	keys, err := l.keys(q)
	if err != nil {
		return err
	}
	if id := q.After + q.Before; id != "" {
		behind, err := r.behind(ctx, l, keys, id)
		if err != nil {
			return err
		}
		conditions = append(conditions, behind)
	}
	for _, c := range conditions {
		sel.Where(c.sql, c.args...)
	}
	for _, k := range keys {
		sel.OrderExpr(k.order())
	}
	if err := sel.Limit(int64(limit(q))).Offset(int64(max(0, q.Offset))).Scan(ctx); err != nil {
		return err
	}
	if q.Before != "" {
		reverse(rows)
	}
	return nil
}

// selectLogs reads of the logs what a page of so many rows has room for.
func (l listing) selectLogs(sel *bun.SelectQuery, rows int) {
	if len(l.logs) == 0 {
		return
	}
	sel.ExcludeColumn(l.logs...)
	share := store.PageLogs / (rows * len(l.logs))
	for _, c := range l.logs {
		if !l.noLogs {
			sel.ColumnExpr("CASE WHEN length(?0) > ?1 THEN ?2 || substr(?0, length(?0) - ?1 + 1) ELSE ?0 END AS ?0", bun.Ident(c), share, store.CutMark)
		}
	}
}

func limit(q store.Query) int {
	if q.Limit <= 0 {
		return store.DefaultLimit
	}
	return min(q.Limit, store.MaxLimit)
}

// reverse turns a page that was read backwards.
func reverse(rows any) {
	switch rows := rows.(type) {
	case *[]functionRow:
		slices.Reverse(*rows)
	case *[]deploymentRow:
		slices.Reverse(*rows)
	case *[]executionRow:
		slices.Reverse(*rows)
	}
}

// count counts what matches, up to max.
func (r records) count(ctx context.Context, l listing, q store.Query, max int) (n int, err error) {
	l.contains = r.s.dialect.contains
	conditions, err := l.conditions(q)
	if err != nil {
		return 0, err
	}
	inner := r.r.NewSelect().TableExpr("? AS ?", r.s.table(l.table), bun.Ident(l.alias)).ColumnExpr("1").Limit(int64(max))
	for _, c := range conditions {
		inner.Where(c.sql, c.args...)
	}
	err = r.r.NewSelect().TableExpr("(?) AS matches", inner).ColumnExpr("count(*)").Scan(ctx, &n)
	return n, err
}

// conditions are the scope, filters and search of a query.
func (l listing) conditions(q store.Query) ([]condition, error) {
	out := slices.Clone(l.scope)
	for _, f := range q.Filters {
		c, err := l.filter(f)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if q.Search != "" {
		out = append(out, l.matching(q.Search))
	}
	return out, nil
}

// matching is the condition of a search.
func (l listing) matching(search string) condition {
	words, phrase := store.Words(search)
	if len(words) == 0 {
		return where("1 = 0")
	}
	var parts []string
	var args []any
	for i, w := range words {
		pattern := "% " + escapeLike(w) + " %"
		if i == len(words)-1 && !phrase {
			pattern = "% " + escapeLike(w) + "%"
		}
		parts = append(parts, l.search+` LIKE ? ESCAPE '\'`)
		args = append(args, pattern)
	}
	return where("("+strings.Join(parts, " OR ")+")", args...)
}

func escapeLike(s string) string {
	return strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(s)
}

var comparisons = map[store.Op]string{
	store.LessThan: "<", store.LessThanEqual: "<=", store.GreaterThan: ">", store.GreaterThanEqual: ">=",
}

// filter is the condition of one filter.
func (l listing) filter(f store.Filter) (condition, error) {
	if f.Op == store.And || f.Op == store.Or {
		return l.junction(f)
	}
	column, attr, err := l.column(f.Attr)
	if err != nil {
		return condition{}, err
	}
	if attr.OrderOnly {
		return condition{}, fmt.Errorf("%w: attribute %q cannot be filtered by", store.ErrQuery, f.Attr)
	}
	if attr.Type == store.Fold {
		column = "lower(" + column + ")"
	}
	values := make([]any, len(f.Values))
	for i, v := range f.Values {
		if values[i], err = bind(attr.Type, f.Attr, v); err != nil {
			return condition{}, err
		}
	}
	c, err := compare(f, column, l.contains, attr, values)
	if err == nil && f.Attr == "status" && f.Op == store.Equal && l.queued != nil {
		return l.byStatus(c, values), nil
	}
	return c, err
}

// queuedStatuses are those of executions in the queue.
var queuedStatuses = []any{string(store.ExecutionScheduled), string(store.ExecutionWaiting), string(store.ExecutionProcessing)}

// byStatus narrows a condition on the status down to what the index of the table
// finds: what is not in the queue, or any of what is.
func (l listing) byStatus(c condition, values []any) condition {
	others := slices.DeleteFunc(slices.Clone(values), func(v any) bool { return slices.Contains(l.queued, v) })
	whole := !slices.ContainsFunc(l.queued, func(v any) bool { return !slices.Contains(values, v) })
	if len(others) == len(values) || whole {
		return where("status IN (?)", bun.List(values))
	}
	return where("status IN (?) AND "+c.sql, append([]any{bun.List(append(others, l.queued...))}, c.args...)...)
}

// compare is the condition of an operator on a column.
func compare(f store.Filter, column, contains string, attr store.Attr, v []any) (condition, error) {
	text := attr.Type == store.Text || attr.Type == store.Fold
	one := len(v) == 1
	switch {
	case f.Op == store.Equal && len(v) > 0:
		return where(column+" IN (?)", bun.List(v)), nil
	case f.Op == store.NotEqual && one:
		return where("("+column+" IS NULL OR "+column+" <> ?)", v[0]), nil
	case comparisons[f.Op] != "" && one:
		return where(column+" "+comparisons[f.Op]+" ?", v[0]), nil
	case f.Op == store.Between && len(v) == 2:
		return where(column+" BETWEEN ? AND ?", v[0], v[1]), nil
	case f.Op == store.IsNull && len(v) == 0:
		return where(column + " IS NULL"), nil
	case f.Op == store.IsNotNull && len(v) == 0:
		return where(column + " IS NOT NULL"), nil
	case f.Op == store.StartsWith && one && text:
		return where("substr("+column+", 1, length(?)) = ?", v[0], v[0]), nil
	case f.Op == store.EndsWith && one && text:
		return where("(length("+column+") >= length(?) AND substr("+column+", length("+column+") - length(?) + 1) = ?)", v[0], v[0], v[0]), nil
	case f.Op == store.Contains && len(v) > 0 && text:
		var parts []string
		for range v {
			parts = append(parts, fmt.Sprintf(contains, column))
		}
		return where("("+strings.Join(parts, " OR ")+")", v...), nil
	}
	return condition{}, fmt.Errorf("%w: %s on %q with %d values", store.ErrQuery, f.Op, f.Attr, len(v))
}

func (l listing) junction(f store.Filter) (condition, error) {
	if len(f.Nested) < 2 {
		return condition{}, fmt.Errorf("%w: %s needs two filters", store.ErrQuery, f.Op)
	}
	var parts []string
	var args []any
	for _, n := range f.Nested {
		c, err := l.filter(n)
		if err != nil {
			return condition{}, err
		}
		parts = append(parts, c.sql)
		args = append(args, c.args...)
	}
	return where("("+strings.Join(parts, " "+strings.ToUpper(string(f.Op))+" ")+")", args...), nil
}

// bind turns a value of an attribute's type into one of its column.
func bind(t store.Type, attr string, v any) (any, error) {
	switch v := v.(type) {
	case string:
		if t == store.Text {
			return clean(v), nil
		}
		if t == store.Fold {
			return lower(clean(v)), nil
		}
	case bool:
		if t == store.Boolean {
			return v, nil
		}
	case int64:
		if t == store.Integer {
			return v, nil
		}
		if t == store.Number {
			return micros(float64(v)), nil
		}
	case float64:
		if t == store.Number && !math.IsNaN(v) {
			return micros(v), nil
		}
	case time.Time:
		if t == store.Date {
			return v.UnixMilli(), nil
		}
	}
	return nil, fmt.Errorf("%w: %T is not a value of %q", store.ErrQuery, v, attr)
}

// micros turns seconds into microseconds, without what the multiplication adds
// to a number that was meant to be whole.
func micros(seconds float64) float64 {
	us := max(-math.MaxInt64, min(seconds*1e6, math.MaxInt64))
	if whole := math.Round(us); math.Abs(us-whole) < 0.001 {
		return whole
	}
	return us
}

// lower folds ASCII letters only, as the databases do.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// key is one column of the order.
type key struct {
	column string
	desc   bool
	null   bool // the column may be null: first when ascending, last when descending
}

func (k key) order() string {
	switch {
	case k.desc && k.null:
		return k.column + " DESC NULLS LAST"
	case k.desc:
		return k.column + " DESC"
	case k.null:
		return k.column + " NULLS FIRST"
	}
	return k.column
}

// keys are the columns that order a page, ending with the sequence so that
// the order is total. A page before a cursor is read backwards.
func (l listing) keys(q store.Query) ([]key, error) {
	orders := q.Orders
	if len(orders) == 0 {
		orders = []store.Order{{}}
	}
	var out []key
	for _, o := range orders {
		column, attr, err := l.column(o.Attr)
		if err != nil {
			return nil, err
		}
		if attr.Type == store.Fold {
			column = "lower(" + column + ")"
		}
		out = append(out, key{column, o.Desc, attr.Null})
	}
	last := out[len(out)-1].desc
	if !slices.ContainsFunc(out, func(k key) bool { return k.column == "created_at" }) {
		out = append(out, key{"created_at", last, false})
	}
	out = append(out, key{"seq", last, false})
	if q.Before != "" {
		for i := range out {
			out[i].desc = !out[i].desc
		}
	}
	return out, nil
}

// behind is the condition of the rows behind the one a cursor names.
func (r records) behind(ctx context.Context, l listing, keys []key, id string) (condition, error) {
	values, err := r.cursor(ctx, l, keys, id)
	if err != nil {
		return condition{}, err
	}
	var alternatives []string
	var args []any
	for i, k := range keys {
		var parts []string
		for j := range i {
			parts = append(parts, keys[j].column+" = ?")
			args = append(args, values[j])
		}
		op := " > ?"
		if k.desc {
			op = " < ?"
		}
		next := k.column + op
		if k.desc && k.null {
			next = "(" + next + " OR " + k.column + " IS NULL)"
		}
		alternatives = append(alternatives, "("+strings.Join(append(parts, next), " AND ")+")")
		args = append(args, values[i])
	}
	sql := "(" + strings.Join(alternatives, " OR ") + ")"
	if first := keys[0]; !first.null { // lets the index seek
		op := " >= ? AND "
		if first.desc {
			op = " <= ? AND "
		}
		sql, args = first.column+op+sql, append([]any{values[0]}, args...)
	}
	return where(sql, args...), nil
}

// cursor reads the keys of the row a cursor names.
func (r records) cursor(ctx context.Context, l listing, keys []key, id string) ([]any, error) {
	sel := r.r.NewSelect().TableExpr("? AS ?", r.s.table(l.table), bun.Ident(l.alias)).Where("id = ?", clean(id))
	for _, c := range l.owner {
		sel.Where(c.sql, c.args...)
	}
	values, into := make([]any, len(keys)), make([]any, len(keys))
	for i, k := range keys {
		sel.ColumnExpr(k.column)
		into[i] = &values[i]
	}
	err := failed("cursor", sel.Scan(ctx, into...))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: %q", store.ErrCursor, id)
	}
	for i, v := range values {
		if b, ok := v.([]byte); ok {
			values[i] = string(b)
		}
		if err == nil && v == nil {
			return nil, fmt.Errorf("%w: %s", store.ErrCursorNull, keys[i].column)
		}
	}
	return values, err
}
