package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fnkit/fnkit/engine"
)

// readBody reads the parameters of a body of at most limit bytes. JSON that is
// broken or no object gives none; required ones will be missed later.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) (map[string]any, error) {
	body := http.MaxBytesReader(w, r.Body, limit)
	media, params := contentType(r)
	if media == "multipart/form-data" && r.ContentLength != 0 {
		pairs, err := readParts(multipart.NewReader(body, params["boundary"]), limit, nil)
		if err != nil {
			return nil, bodyError(err)
		}
		return nest(pairs), nil
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, bodyError(err)
	}
	if media == "application/json" {
		return parseJSON(raw)
	}
	if bytes.Count(raw, []byte("&")) >= maxParams {
		return nil, errParams()
	}
	return parseForm(string(raw)), nil
}

// maxParams bounds the parameters of a body.
const maxParams = 1000

func errParams() error {
	return engine.Errorf(engine.TypeBadRequest, "The request body has more than %d parameters.", maxParams)
}

func contentType(r *http.Request) (media string, params map[string]string) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		media, _, _ = strings.Cut(r.Header.Get("Content-Type"), ";")
		media = strings.ToLower(strings.TrimSpace(media))
	}
	return media, params
}

// bodyError is the answer to a body that cannot be read.
func bodyError(err error) error {
	if e := engineError(err); e != nil {
		return e
	}
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		return engine.Errorf(engine.TypeBadRequest, "The request body must not be larger than %d bytes.", tooBig.Limit)
	}
	return engine.Errorf(engine.TypeBadRequest, "The request body ended early or is not well formed.")
}

// parseJSON reads parameters from JSON. What is broken or no object holds none.
func parseJSON(raw []byte) (map[string]any, error) {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	var params map[string]any
	var err error
	switch {
	case len(raw) == 0 || raw[0] == '[' || !utf8.Valid(raw):
	case raw[0] != '{':
		err = refuseScalar(raw)
	case len(raw) > smallBody:
		params, err = readMembers(raw)
	default:
		if v, whole := decodeJSON(raw); whole {
			params, _ = v.(map[string]any)
		}
	}
	if len(params) > maxParams {
		err = errParams()
	}
	if params == nil {
		params = map[string]any{}
	}
	return params, err
}

// refuseScalar refuses a body that is a text, a number or true; null, false
// and 0 are the same as no body.
func refuseScalar(raw []byte) error {
	v, whole := decodeJSON(raw)
	n, isNumber := v.(json.Number)
	f, err := n.Float64()
	if !whole || v == nil || v == false || isNumber && err == nil && f == 0 {
		return nil
	}
	return engine.Errorf(engine.TypeArgument, "The request body must be a JSON object.")
}

// readMembers reads a large JSON object member by member: what it holds beside
// texts is bounded. It returns nil if raw is anything else.
func readMembers(raw []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.Token() // the brace
	members, m := map[string]any{}, member{left: smallBody}
	for dec.More() && len(members) <= maxParams {
		token, _ := dec.Token()
		name, isName := token.(string)
		if err := dec.Decode(&m); engineError(err) != nil {
			return nil, err
		} else if err != nil || !isName {
			return nil, nil
		}
		members[name] = m.value
	}
	if len(members) > maxParams {
		return members, nil
	}
	_, broken := dec.Token()
	if _, end := dec.Token(); broken != nil || end != io.EOF {
		return nil, nil
	}
	return members, nil
}

// member decodes one value after the other: texts of any length, but of
// others, which are many times their size when decoded, no more than left bytes.
type member struct {
	value any
	left  int
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *member) UnmarshalJSON(raw []byte) error {
	if raw[0] == '"' {
		return json.Unmarshal(raw, &m.value)
	}
	if m.left -= len(raw); m.left < 0 {
		return engine.Errorf(engine.TypeBadRequest, "The request body has more than %d bytes beside its texts.", smallBody)
	}
	m.value, _ = decodeJSON(raw)
	return nil
}

// decodeJSON decodes one value, with its numbers as they are written. whole
// reports whether raw is that value and nothing else.
func decodeJSON(raw []byte) (v any, whole bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return nil, false
	}
	_, end := dec.Token()
	return v, end == io.EOF
}

// pair is one field of a form.
type pair struct{ name, value string }

// parseForm reads the parameters of a query string or an urlencoded form.
func parseForm(raw string) map[string]any {
	var pairs []pair
	for item := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(item, "=")
		if name != "" {
			pairs = append(pairs, pair{unescape(name), unescape(value)})
		}
	}
	return nest(pairs)
}

// unescape decodes what is escaped in a form. A "%" that begins no escape
// stands for itself.
func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			c = ' '
		} else if c == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				c, i = byte(v), i+2
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

// readParts reads the fields of a multipart body, each of at most limit bytes.
// Parts that are files go to file, which may be nil.
func readParts(mr *multipart.Reader, limit int64, file func(*multipart.Part) error) ([]pair, error) {
	var pairs []pair
	for n := 0; ; n++ {
		part, err := mr.NextRawPart()
		switch {
		case err == io.EOF:
			return pairs, nil
		case err != nil:
			return nil, err
		case n == maxParams:
			return nil, errParams()
		}
		if part.FileName() != "" {
			if file != nil {
				if err := file(part); err != nil {
					return nil, err
				}
			}
			continue
		}
		value, err := io.ReadAll(io.LimitReader(part, limit))
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, pair{part.FormName(), string(value)})
	}
}

// maxNesting bounds the brackets of a name; what is nested deeper is left out.
const maxNesting = 16

// nest builds the arrays and objects that bracketed names describe:
// "a[]=x&a[]=y", "a[0]=x&a[1]=y" and "a[k]=x".
func nest(pairs []pair) map[string]any {
	root := newBranch()
	for _, p := range pairs {
		if path, ok := splitName(p.name); ok {
			root.put(path, p.value)
		}
	}
	out := make(map[string]any, len(root.names))
	for name, v := range root.values {
		out[name] = plain(v)
	}
	return out
}

// splitName splits "a[b][]" into "a", "b", "".
func splitName(name string) (path []string, ok bool) {
	head, rest, bracketed := strings.Cut(name, "[")
	path = append(path, head)
	for bracketed {
		key, after, closed := strings.Cut(rest, "]")
		if !closed || len(path) > maxNesting {
			return nil, false
		}
		path = append(path, key)
		rest, bracketed = strings.CutPrefix(after, "[")
	}
	return path, head != ""
}

// branch is an array or object in the making; names keeps the order.
type branch struct {
	names  []string
	values map[string]any // string or *branch
	next   int            // index of the next "[]"
}

func newBranch() *branch { return &branch{values: map[string]any{}} }

func (b *branch) put(path []string, value string) {
	name := path[0]
	if n, err := strconv.Atoi(name); err == nil && n >= b.next {
		b.next = n + 1
	} else if name == "" {
		name = strconv.Itoa(b.next)
		b.next++
	}
	if _, seen := b.values[name]; !seen {
		b.names = append(b.names, name)
	}
	if len(path) == 1 {
		b.values[name] = value
		return
	}
	below, ok := b.values[name].(*branch)
	if !ok {
		below = newBranch()
		b.values[name] = below
	}
	below.put(path[1:], value)
}

// plain turns a branch whose names are all numbers into a list, in the order
// they came, and any other into an object.
func plain(v any) any {
	b, ok := v.(*branch)
	if !ok {
		return v
	}
	list, object, numbers := make([]any, 0, len(b.names)), map[string]any{}, true
	for _, name := range b.names {
		if _, err := strconv.Atoi(name); err != nil {
			numbers = false
		}
		value := plain(b.values[name])
		list, object[name] = append(list, value), value
	}
	if numbers {
		return list
	}
	return object
}
