package procbox_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

type callHead struct {
	M string
	P string
	H map[string]string
	T int
	L int
}

func fields(texts ...string) (all []sandbox.Header) {
	for pair := range slices.Chunk(texts, 2) {
		all = append(all, sandbox.Header{Name: pair[0], Value: pair[1]})
	}
	return all
}

func TestCallHead(t *testing.T) {
	t.Parallel()
	text := procbox.AppendCallHead(nil, &sandbox.Request{
		Method: "GET", Path: `/a"b?ü`, Timeout: 1500 * time.Microsecond, Logging: true,
		Headers: fields("a", "1", "cookie", "x=1", "a", "2", "cookie", "y=2", "a", "\x00\\😀\xff"),
	})
	var got callHead
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	want := callHead{"GET", `/a"b?ü`, map[string]string{"a": "1, 2, \x00\\😀�", "cookie": "x=1; y=2"}, 1, 1}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func FuzzCallHead(f *testing.F) {
	f.Add("GET", "/", "host", "example.org")
	f.Add("\"", "\\u0000", "\x7f", "\xf0\x9f\x98\x80\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, method, path, name, value string) {
		text := procbox.AppendCallHead(nil, &sandbox.Request{Method: method, Path: path, Headers: fields(name, value)})
		var got callHead
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		clean := func(s string) string { return string([]rune(s)) }
		if got.M != clean(method) || got.P != clean(path) || got.H[clean(name)] != clean(value) {
			t.Errorf("%s for %q %q %q %q", text, method, path, name, value)
		}
		if strings.ContainsFunc(string(text), func(r rune) bool { return r >= utf8.RuneSelf }) {
			t.Errorf("%s is not ASCII", text)
		}
	})
}

// FuzzResponseHead holds the quick parser to what encoding/json says.
func FuzzResponseHead(f *testing.F) {
	for _, s := range []string{
		`{"s":200,"h":[["content-type","text/plain"],["a","b"]]}`, `{"s":200,"h":[]}`, `{"s":200,"h":[["a","b"]}`,
		`{"s":200,"h":[,["a","b"]]}`, `{"s":01,"h":[]}`, `{"s":,"h":[]}`, `{"s":1,"h":[["a","\n"]]}`, `{"s":1,"h":[["a","é"]]}`, `{"s":1,"h":[["a","b"]]} `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		status, headers, ok := procbox.ParseCommonHead(text)
		if !ok {
			return
		}
		var want struct {
			S int
			H [][]string
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%s: accepted, but %v", text, err)
		}
		if status != want.S || len(headers) != len(want.H) {
			t.Fatalf("%s: %d %v", text, status, headers)
		}
		for i, h := range headers {
			if len(want.H[i]) != 2 || h.Name != want.H[i][0] || h.Value != want.H[i][1] {
				t.Errorf("%s: %v", text, headers)
			}
		}
	})
}
