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
	return parseForm(string(raw)), nil
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
	if e := new(engine.Error); errors.As(err, &e) {
		return e
	}
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		return engine.Errorf(engine.TypeBadRequest, "The request body must not be larger than %d bytes.", tooBig.Limit)
	}
	return engine.Errorf(engine.TypeBadRequest, "The request body ended early or is not well formed.")
}

// parseJSON reads parameters from JSON.
func parseJSON(raw []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil || dec.More() {
		return map[string]any{}, nil
	}
	switch v := value.(type) {
	case map[string]any:
		return v, nil
	case string:
		return nil, errScalarBody()
	case json.Number:
		if n, err := v.Float64(); err != nil || n != 0 {
			return nil, errScalarBody()
		}
	case bool:
		if v {
			return nil, errScalarBody()
		}
	}
	return map[string]any{}, nil
}

func errScalarBody() error {
	return engine.Errorf(engine.TypeArgument, "The request body must be a JSON object.")
}

// pair is one field of a form.
type pair struct{ name, value string }

// parseForm reads the parameters of a query string or an urlencoded form.
func parseForm(raw string) map[string]any {
	var pairs []pair
	for item := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(item, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		if name != "" && err1 == nil && err2 == nil {
			pairs = append(pairs, pair{name, value})
		}
	}
	return nest(pairs)
}

// maxParts bounds the parts of a multipart body.
const maxParts = 1000

// readParts reads the fields of a multipart body, each of at most limit bytes.
// Parts that are files go to file, which may be nil.
func readParts(mr *multipart.Reader, limit int64, file func(*multipart.Part) error) ([]pair, error) {
	var pairs []pair
	for range maxParts {
		part, err := mr.NextRawPart()
		if err == io.EOF {
			return pairs, nil
		}
		if err != nil {
			return nil, err
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
	return nil, engine.Errorf(engine.TypeBadRequest, "The request body has more than %d parts.", maxParts)
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
