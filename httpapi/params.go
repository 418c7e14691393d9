package httpapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/fnkit/fnkit/engine"
)

// input hands out the parameters of a request, each checked by its rule. It
// remembers the first error and checks nothing after it, so the order of the
// calls is the order of validation; read err when all are read. A null is the
// same as an absent parameter.
type input struct {
	values map[string]any
	path   func(name string) string
	prefix string // of the names in errors
	err    error
}

// extension returns the input of the object "fnkit"; if that is null, it has no
// values at all. given is false if it is absent.
func (in *input) extension() (ext *input, given bool) {
	v, given := in.values["fnkit"]
	ext = in.object("fnkit", v)
	in.err = ext.err
	return ext, given && in.err == nil
}

// object returns the input of an object; if v, its value, is null, it has no
// values at all.
func (in *input) object(name string, v any) *input {
	fields, isObject := v.(map[string]any)
	if v != nil && !isObject {
		in.fail(name, errors.New("Value must be a valid object"))
	}
	return &input{values: fields, prefix: in.prefix + name + ".", err: in.err}
}

// get returns a parameter that is there.
func (in *input) get(name string) (v any, ok bool) {
	v = in.values[name]
	return v, v != nil && in.err == nil
}

func (in *input) fail(name string, rule error) {
	if in.err == nil && rule != nil {
		in.err = engine.InvalidParam(in.prefix+name, rule)
	}
}

// need reports that a required parameter is missing.
func (in *input) need(name string) {
	if in.values[name] == nil && in.err == nil {
		in.err = engine.Errorf(engine.TypeArgument, "Param %q is not optional.", name)
	}
}

// id is an id in the path.
func (in *input) id(name string) string {
	id := in.path(name)
	in.fail(name, engine.CheckID(id))
	return id
}

// text is an optional text; "" if absent.
func (in *input) text(name string, rule func(string) error) string {
	v, ok := in.get(name)
	if !ok {
		return ""
	}
	s, isText := v.(string)
	if !isText {
		in.fail(name, notText(rule))
		return ""
	}
	if !utf8.ValidString(s) {
		in.fail(name, errors.New("Value must be a valid string"))
	}
	in.fail(name, rule(s))
	return s
}

// mustText is a required text.
func (in *input) mustText(name string, rule func(string) error) string {
	in.need(name)
	return in.text(name, rule)
}

// notText is the error of a rule for texts given something else.
func notText(rule func(string) error) error {
	if err := rule("\x00"); err != nil {
		return err
	}
	return errors.New("Value must be a valid string")
}

// between is the rule of a text of min to max characters.
func between(min, max int) func(string) error {
	return func(s string) error { return engine.CheckText(s, min, max) }
}

var integer = regexp.MustCompile(`^-?[0-9]{1,18}$`)

// integer is an optional whole number, perhaps written as a text; def if absent.
func (in *input) integer(name string, def int, rule func(int) error) int {
	v, ok := in.get(name)
	if !ok {
		return def
	}
	s := fmt.Sprint(v)
	_, isNumber := v.(json.Number)
	_, isText := v.(string)
	if !isNumber && !isText || !integer.MatchString(s) {
		err := rule(-1) // what most rules say of it
		if err == nil {
			err = errors.New("Value must be a valid integer")
		}
		in.fail(name, err)
		return def
	}
	n, _ := strconv.Atoi(s)
	in.fail(name, rule(n))
	return n
}

var errBoolean = errors.New("Value must be a valid boolean")

// boolean is an optional JSON boolean; def if absent.
func (in *input) boolean(name string, def bool) bool {
	v, ok := in.get(name)
	if !ok {
		return def
	}
	b, isBool := v.(bool)
	if !isBool {
		in.fail(name, errBoolean)
	}
	return b
}

// looseBoolean is an optional boolean, perhaps written as a text or number;
// false if absent.
func (in *input) looseBoolean(name string) bool {
	v, ok := in.get(name)
	if !ok {
		return false
	}
	switch fmt.Sprint(v) {
	case "true", "1":
		return true
	case "false", "0":
		return false
	}
	in.fail(name, errBoolean)
	return false
}

// texts is an optional list of texts. notList and notTexts are the errors of
// another type, and of a list of others.
func (in *input) texts(name string, rule func([]string) error, notList, notTexts error) []string {
	v, ok := in.get(name)
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList {
		in.fail(name, notList)
		return nil
	}
	out := make([]string, len(list))
	for i, item := range list {
		s, isText := item.(string)
		if !isText || !utf8.ValidString(s) {
			in.fail(name, notTexts)
			return nil
		}
		out[i] = s
	}
	in.fail(name, rule(out))
	return out
}

// roles is an optional list of roles.
func (in *input) roles(name string) []string {
	return in.texts(name, engine.CheckRoles,
		errors.New("Roles must be an array of strings."), errors.New("Every role must be of type string."))
}

// items is an optional list whose rule has a text that fits all faults.
func (in *input) items(name string, rule func([]string) error) []string {
	other := rule([]string{""}) // an empty item breaks every such rule
	return in.texts(name, rule, other, other)
}

// bytes is an optional body of at most max bytes.
func (in *input) bytes(name string, max int) []byte {
	v, ok := in.get(name)
	if !ok {
		return nil
	}
	s, isText := v.(string)
	if !isText || len(s) > max {
		in.fail(name, fmt.Errorf("Value must be a valid string and no longer than %d chars", max))
	}
	return []byte(s)
}

// maxHeadersParam bounds the headers parameter, in bytes of JSON.
const maxHeadersParam = 65535

var errHeadersParam = fmt.Errorf("Value must be a valid object, or a string that holds one, no longer than %d bytes of JSON.", maxHeadersParam)

// headers is an optional object of headers, or a string that holds one. A
// string that is not JSON counts as none.
func (in *input) headers(name string) []engine.Header {
	v, ok := in.get(name)
	if !ok {
		return nil
	}
	if s, isText := v.(string); isText {
		if s == "" || len(s) > maxHeadersParam {
			in.fail(name, errHeadersParam)
			return nil
		}
		var whole bool
		if v, whole = decodeJSON([]byte(s)); v == nil || !whole {
			return nil
		}
	}
	return in.headerFields(name, v)
}

func (in *input) headerFields(name string, v any) []engine.Header {
	if list, isList := v.([]any); isList && len(list) == 0 {
		return nil // some languages write an empty object so
	}
	fields, isObject := v.(map[string]any)
	size, err := json.Marshal(fields)
	if !isObject || err != nil || len(size) > maxHeadersParam {
		in.fail(name, errHeadersParam)
		return nil
	}
	headers := make([]engine.Header, 0, len(fields))
	for key, value := range fields {
		switch value.(type) {
		case string, json.Number, bool:
			headers = append(headers, engine.Header{Name: key, Value: fmt.Sprint(value)})
		default:
			headers = append(headers, engine.Header{}) // which no rule lets pass
		}
	}
	slices.SortFunc(headers, func(a, b engine.Header) int { return cmp.Compare(a.Name, b.Name) })
	return headers
}

var errMinute = errors.New("Value must be valid date at least 60 seconds in the future and with minutes precision between 0000-01-01 00:00:00 and 9999-12-31 23:59:59.")

// minute is an optional date more than a minute after now, to the minute.
func (in *input) minute(name string, now time.Time) time.Time {
	v, ok := in.get(name)
	if !ok {
		return time.Time{}
	}
	s, _ := v.(string)
	t, err := parseDate(s)
	if err != nil || !t.After(now.Add(time.Minute)) || !t.Equal(t.Truncate(time.Minute)) || t.Year() > 9999 {
		in.fail(name, errMinute)
	}
	return t
}

// dateLayouts are the forms of dates that are understood; without an offset
// they mean UTC.
var dateLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05.999999999Z0700",
	"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04", "2006-01-02",
}

func parseDate(s string) (time.Time, error) {
	for _, layout := range dateLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("not a date")
}
