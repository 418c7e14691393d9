package store

import "strings"

// Query selects, orders and pages the rows of a list. The zero Query is the
// first 25 rows in order of creation.
type Query struct {
	Filters []Filter // all must match
	Orders  []Order  // first decides; ties by creation, in the direction of the last
	Limit   int      // 0: DefaultLimit; more than MaxLimit: MaxLimit
	Offset  int
	// After and Before are ids: only rows behind or in front of that one, in
	// the requested order. At most one is set.
	After  string
	Before string
	// Search matches words of the list's search text, see Words.
	Search string
}

// Limits of a page.
const (
	DefaultLimit = 25
	MaxLimit     = 5000
	// PageLogs is how many characters of logs a page holds, about. Each row has
	// the same share; of longer logs it has the end, after CutMark.
	PageLogs = 64 << 20
	CutMark  = "[WARNING] Truncated. The list is too long to hold all of it.\n"
)

// Filter is one condition: an attribute, an operator and its values, or a
// junction (And, Or) of other filters.
type Filter struct {
	Op     Op
	Attr   string
	Values []any // string, bool, int64, float64 or time.Time, by the attribute's Type
	Nested []Filter
}

// Order is one sort key. An empty Attr is the order of creation: CreatedAt, and
// Seq within one instant. Null sorts before everything else.
type Order struct {
	Attr string
	Desc bool
}

// Op is an operator of the query language.
type Op string

// The operators. Unless said otherwise they take exactly one value.
const (
	Equal            Op = "equal"    // one or more values, any of them
	NotEqual         Op = "notEqual" // rows where the attribute is null match
	LessThan         Op = "lessThan"
	LessThanEqual    Op = "lessThanEqual"
	GreaterThan      Op = "greaterThan"
	GreaterThanEqual Op = "greaterThanEqual"
	Between          Op = "between"    // two values, inclusive
	IsNull           Op = "isNull"     // no value
	IsNotNull        Op = "isNotNull"  // no value
	StartsWith       Op = "startsWith" // text only
	EndsWith         Op = "endsWith"   // text only
	Contains         Op = "contains"   // text only; one or more values, any of them
	And              Op = "and"        // Nested, two or more
	Or               Op = "or"         // Nested, two or more
)

// Words splits a search parameter into what must match: words, any of which
// may match, the last one as a prefix; or, if the parameter is in double
// quotes, one phrase. Words of fewer than three characters are left out.
//
// The search text of a list is split the same way: letters, digits and "_"
// make words, everything else separates them, case is ignored.
func Words(search string) (words []string, phrase bool) {
	search = strings.TrimSpace(search)
	if len(search) > 1 && strings.HasPrefix(search, `"`) && strings.HasSuffix(search, `"`) {
		if p := strings.Join(splitWords(search), " "); p != "" {
			return []string{p}, true
		}
		return nil, true
	}
	for _, w := range splitWords(search) {
		if len(w) >= 3 {
			words = append(words, w)
		}
	}
	return words, false
}

func splitWords(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && r < 0x80
	})
}
