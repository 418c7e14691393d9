package httpapi_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fnkit/fnkit/httpapi"
)

// Whatever is sent as queries gives a query within the limits or an error.
func FuzzQueries(f *testing.F) {
	for _, seed := range []string{
		`queries[0]={"method":"equal","attribute":"name","values":["x"]}`, `queries[]={"method":"or","values":[{"method":"isNull","attribute":"$id"},{}]}`,
		`queries[]=limit(5)&search=x`, `queries[]=equal("name", ["a", 'b'])&queries[]=cursorAfter("f")`, `queries[a][b]=1&queries=%FF`, `a[=1&[]=2&a[][][]=3`,
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, raw string, legacy bool) {
		q, err := httpapi.ParseQueries(raw, legacy)
		if err == nil && (q.Limit < 0 || q.Limit > 5000 || q.Offset < 0 || q.After != "" && q.Before != "" || len(q.Filters)+len(q.Orders) > 100) {
			t.Errorf("%q gives %+v", raw, q)
		}
	})
}

// Whatever is a form, its plain fields come out as they went in.
func FuzzForm(f *testing.F) {
	f.Add("a=1&b[]=2&b[]=3&c[x][y]=4&=5&d")
	f.Add("a[0]=1&a[9999999999999999999]=2&a[-1]=3")
	f.Fuzz(func(t *testing.T, raw string) {
		values := httpapi.ParseForm(raw)
		if len(values) > strings.Count(raw, "&")+1 {
			t.Errorf("%q gives %v", raw, values)
		}
	})
}

// Whatever is sent as JSON gives what the standard library reads from it, or
// nothing where it reads none.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":"x","c":[1.0,{"d":null}],"a":true}`, ` {"a" : {} } `, `{"a":1}}`, `{5:1}`, `[1]`, `"x"`, `0`, "{\"a\":\"\xff\"}", `{"\u0061":"\ud800"}`, `{"a":1,}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := httpapi.ParseJSON(raw)
		var v any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		broken := !json.Valid(raw) || !utf8.Valid(raw) || dec.Decode(&v) != nil
		want, isObject := v.(map[string]any)
		if broken || !isObject {
			want = map[string]any{}
		}
		if err != nil && isObject {
			t.Errorf("%q: %v", raw, err)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q gives %#v, want %#v", raw, got, want)
		}
	})
}

func TestFormNames(t *testing.T) {
	t.Parallel()
	values := httpapi.ParseForm("l[]=a&l[]=b&m[1]=y&m[0]=x&n[k][]=v&p=1&p=2&deep" + strings.Repeat("[a]", 20) + "=z&q[=1&[x]=2&l[]=c")
	if l := values["l"].([]any); !slices.Equal(l, []any{"a", "b", "c"}) {
		t.Errorf("l is %v", l)
	}
	if m := values["m"].([]any); !slices.Equal(m, []any{"y", "x"}) {
		t.Errorf("m is %v", m)
	}
	if n := values["n"].(map[string]any)["k"].([]any); !slices.Equal(n, []any{"v"}) {
		t.Errorf("n is %v", values["n"])
	}
	if values["p"] != "2" || len(values) != 4 {
		t.Errorf("got %v", values)
	}
}
