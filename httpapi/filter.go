package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/fnkit/fnkit/engine"
)

// filter checks one condition and gives its values their types.
func (b *queryBuilder) filter(q jsonQuery, depth int) (engine.Filter, error) {
	if q.Method == "and" || q.Method == "or" {
		return b.junction(q, depth)
	}
	if err := checkArity(q); err != nil {
		return engine.Filter{}, err
	}
	if b.conditions += 1 + len(q.Values); b.conditions > maxConditions {
		return engine.Filter{}, fmt.Errorf("Queries have greater than %d conditions and values", maxConditions)
	}
	attr, ok := b.attrs[q.Attribute]
	if !ok || attr.OrderOnly {
		return engine.Filter{}, errors.New("Attribute not found in schema: " + q.Attribute)
	}
	isText := attr.Type == engine.AttrText || attr.Type == engine.AttrFold
	switch q.Method {
	case "search":
		return engine.Filter{}, engine.Errorf(engine.TypeQuery, "Searching by attribute %q requires a fulltext index.", q.Attribute)
	case "contains", "startsWith", "endsWith":
		if !isText {
			return engine.Filter{}, fmt.Errorf("Cannot query %s on attribute %q because it is not a string.", q.Method, q.Attribute)
		}
	}
	f := engine.Filter{Op: engine.Op(q.Method), Attr: q.Attribute}
	for _, v := range q.Values {
		typed, ok := typedValue(v, attr.Type)
		if !ok {
			return f, fmt.Errorf("Query value is invalid for attribute %q", q.Attribute)
		}
		f.Values = append(f.Values, typed)
	}
	return f, nil
}

// junction checks an "and" or "or" and what it holds.
func (b *queryBuilder) junction(q jsonQuery, depth int) (engine.Filter, error) {
	f := engine.Filter{Op: engine.Op(q.Method)}
	if depth > maxDepth {
		return f, fmt.Errorf("Queries can not be nested deeper than %d levels", maxDepth)
	}
	for _, v := range q.Values {
		below, err := parseQuery(v)
		if err != nil {
			return f, err
		}
		switch below.Method {
		case "limit", "offset", "cursorAfter", "cursorBefore", "orderAsc", "orderDesc", "select":
			return f, errors.New(capital(q.Method) + " queries can only contain filter queries")
		}
		nested, err := b.filter(below, depth+1)
		if err != nil {
			return f, err
		}
		f.Nested = append(f.Nested, nested)
	}
	if len(f.Nested) < 2 {
		return f, errors.New(capital(q.Method) + " queries require at least two queries")
	}
	return f, nil
}

// checkArity is the rule of how many values a method takes.
func checkArity(q jsonQuery) error {
	n := len(q.Values)
	switch q.Method {
	case "equal", "contains":
		if n == 0 {
			return errors.New(capital(q.Method) + " queries require at least one value.")
		}
		if n > maxValues {
			return fmt.Errorf("Query on attribute has greater than %d values: %s", maxValues, q.Attribute)
		}
	case "between":
		if n != 2 {
			return errors.New("Between queries require exactly two values.")
		}
	case "isNull", "isNotNull":
		if n != 0 {
			return errors.New(capital(q.Method) + " queries take no value.")
		}
	default:
		if n != 1 {
			return exactlyOne(q.Method)
		}
	}
	return nil
}

// typedValue gives a JSON value the type of an attribute.
func typedValue(v any, t engine.AttrType) (any, bool) {
	number, isNumber := v.(json.Number)
	text, isText := v.(string)
	switch t {
	case engine.AttrText, engine.AttrFold:
		return text, isText
	case engine.AttrBoolean:
		b, ok := v.(bool)
		return b, ok
	case engine.AttrInteger:
		n, err := strconv.ParseInt(number.String(), 10, 64)
		return n, isNumber && err == nil
	case engine.AttrNumber:
		f, err := number.Float64()
		return f, isNumber && err == nil
	case engine.AttrDate:
		d, err := parseDate(text)
		return d, isText && err == nil
	}
	return nil, false
}
