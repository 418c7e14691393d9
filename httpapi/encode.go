package httpapi

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
)

// object is a JSON object whose fields keep their order. Values are nil,
// string, bool, int, int64, float64, []string, object or []object.
type object []field

type field struct {
	name  string
	value any
}

// get returns a field's value, nil if there is none.
func (o object) get(name string) any {
	for _, f := range o {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

// set replaces a field's value.
func (o object) set(name string, value any) {
	for i := range o {
		if o[i].name == name {
			o[i].value = value
		}
	}
}

// rename gives a field another name, in its place.
func (o object) rename(from, to string) {
	for i := range o {
		if o[i].name == from {
			o[i].name = to
		}
	}
}

// drop returns the object without some fields.
func (o object) drop(names ...string) object {
	return slices.DeleteFunc(o, func(f field) bool { return slices.Contains(names, f.name) })
}

// appendJSON appends the JSON form of a value.
func appendJSON(b []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendString(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		return strconv.AppendFloat(b, v, 'f', -1, 64)
	case []string:
		return appendList(b, v)
	case []object:
		return appendList(b, v)
	case object:
		b = append(b, '{')
		for i, f := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, f.name), ':')
			b = appendJSON(b, f.value)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

func appendList[T any](b []byte, list []T) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, v)
	}
	return append(b, ']')
}

// appendString appends a JSON string; most need no escapes.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return appendEscaped(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendEscaped(b []byte, s string) []byte {
	buf := bytes.NewBuffer(b)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string never fails
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
