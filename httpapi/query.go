package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fnkit/fnkit/engine"
)

// Limits of a query besides engine.MaxQueries and engine.MaxQuery.
const (
	maxValues     = 500
	maxDepth      = 8
	maxConditions = 5000 // and their values, in all queries together
)

// query reads the parameters "queries" and "search" of a list.
func (in *input) query(attrs engine.Attrs, v version) engine.Query {
	var q queryBuilder
	q.attrs = attrs
	for _, text := range in.queries() {
		if err := q.add(text, v.before(5)); err != nil {
			in.failQuery(err)
			break
		}
	}
	q.out.Search = in.text("search", between(0, engine.MaxSearch))
	return q.out
}

var errQueries = errors.New("Queries must be an array")

// queries returns the texts of the queries.
func (in *input) queries() []string {
	each := fmt.Errorf("Value must a valid array no longer than %d items and %w", engine.MaxQueries, engine.CheckText("", 1, engine.MaxQuery))
	return in.texts("queries", func(list []string) error {
		if len(list) > engine.MaxQueries || slices.ContainsFunc(list, func(s string) bool { return utf8.RuneCountInString(s) > engine.MaxQuery }) {
			return each
		}
		return nil
	}, errQueries, errors.New("Invalid query: Invalid query: Syntax error"))
}

// failQuery keeps an error: one of the contract's types as it is, any other as
// a broken rule.
func (in *input) failQuery(err error) {
	if e := engineError(err); e != nil && in.err == nil {
		in.err = e
	}
	in.fail("queries", fmt.Errorf("Invalid query: %w", err))
}

// jsonQuery is one query as clients write it.
type jsonQuery struct {
	Method    string
	Attribute string
	Values    []any
}

// queryBuilder collects queries.
type queryBuilder struct {
	attrs               engine.Attrs
	out                 engine.Query
	conditions          int // and their values
	hasLimit, hasOffset bool
}

// add reads one query and collects it.
func (b *queryBuilder) add(text string, legacy bool) error {
	var q jsonQuery
	var err error
	if legacy && !strings.HasPrefix(strings.TrimSpace(text), "{") {
		q, err = parseLegacyQuery(text)
	} else {
		q, err = parseQueryText(text)
	}
	if err != nil {
		return err
	}
	switch q.Method {
	case "limit", "offset":
		return b.addPage(q)
	case "cursorAfter", "cursorBefore":
		return b.addCursor(q)
	case "orderAsc", "orderDesc":
		return b.addOrder(q)
	case "select":
		return errors.New("Invalid query method: select")
	}
	f, err := b.filter(q, 1)
	b.out.Filters = append(b.out.Filters, f)
	return err
}

func parseQueryText(text string) (jsonQuery, error) {
	v, whole := decodeJSON([]byte(text))
	if !whole {
		return jsonQuery{}, errors.New("Invalid query: Syntax error")
	}
	return parseQuery(v)
}

// parseQuery reads a query from decoded JSON.
func parseQuery(v any) (q jsonQuery, err error) {
	fields, ok := v.(map[string]any)
	if !ok {
		return q, errors.New("Invalid query. Must be an array, got " + typeName(v))
	}
	if q.Method, ok = fields["method"].(string); !ok && fields["method"] != nil {
		return q, errors.New("Invalid query method. Must be a string, got " + typeName(fields["method"]))
	}
	if q.Attribute, ok = fields["attribute"].(string); !ok && fields["attribute"] != nil {
		return q, errors.New("Invalid query attribute. Must be a string, got " + typeName(fields["attribute"]))
	}
	if q.Values, ok = fields["values"].([]any); !ok && fields["values"] != nil {
		return q, errors.New("Invalid query values. Must be an array, got " + typeName(fields["values"]))
	}
	if !slices.Contains(methods, q.Method) {
		return q, errors.New("Invalid query method: " + q.Method)
	}
	return q, nil
}

// methods are all methods of the query language, also those a list refuses.
var methods = []string{
	"equal", "notEqual", "lessThan", "lessThanEqual", "greaterThan", "greaterThanEqual", "between", "isNull", "isNotNull",
	"startsWith", "endsWith", "contains", "search", "and", "or",
	"limit", "offset", "cursorAfter", "cursorBefore", "orderAsc", "orderDesc", "select",
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "NULL"
	case string:
		return "string"
	case bool:
		return "boolean"
	case json.Number:
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

// addPage collects a limit or an offset; the first of each wins.
func (b *queryBuilder) addPage(q jsonQuery) error {
	least, target, has := 1, &b.out.Limit, &b.hasLimit
	if q.Method == "offset" {
		least, target, has = 0, &b.out.Offset, &b.hasOffset
	}
	n, err := pageNumber(q, least)
	if err != nil || *has {
		return err
	}
	if q.Method == "limit" {
		n = min(n, engine.MaxPage)
	}
	*target, *has = n, true
	return nil
}

func pageNumber(q jsonQuery, least int) (int, error) {
	if len(q.Values) != 1 {
		return 0, exactlyOne(q.Method)
	}
	switch q.Values[0].(type) {
	case json.Number, string:
		if n, err := strconv.Atoi(fmt.Sprint(q.Values[0])); err == nil && n >= least {
			return n, nil
		}
	}
	return 0, fmt.Errorf("Invalid %s: Value must be a valid range between %d and 9,223,372,036,854,775,807", q.Method, least)
}

// addCursor collects a cursor; the first wins.
func (b *queryBuilder) addCursor(q jsonQuery) error {
	var id string
	if len(q.Values) == 1 {
		id, _ = q.Values[0].(string)
	}
	if err := engine.CheckID(id); err != nil {
		return fmt.Errorf("Invalid cursor: %w", err)
	}
	switch {
	case b.out.After != "" || b.out.Before != "":
	case q.Method == "cursorAfter":
		b.out.After = id
	default:
		b.out.Before = id
	}
	return nil
}

// addOrder collects an order; without an attribute it is the order of creation.
func (b *queryBuilder) addOrder(q jsonQuery) error {
	if _, ok := b.attrs[q.Attribute]; !ok && q.Attribute != "" {
		return errors.New("Attribute not found in schema: " + q.Attribute)
	}
	b.out.Orders = append(b.out.Orders, engine.Order{Attr: q.Attribute, Desc: q.Method == "orderDesc"})
	return nil
}

func exactlyOne(method string) error {
	return errors.New(capital(method) + " queries require exactly one value.")
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
