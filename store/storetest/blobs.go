package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/store"
)

// RunBlobs runs the suite of blobs. open returns blobs for one test; keys are
// its own.
func RunBlobs(t *testing.T, open func(t *testing.T) store.Blobs) {
	for name, test := range map[string]func(*testing.T, store.Blobs){
		"round trip":       blobRoundTrip,
		"whole or not":     blobWhole,
		"replace and open": blobReplace,
		"keys":             blobKeys,
		"list":             blobList,
		"many at once":     blobsAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func put(t *testing.T, b store.Blobs, key, body string) {
	t.Helper()
	if n, err := b.Put(t.Context(), key, strings.NewReader(body)); err != nil || n != int64(len(body)) {
		t.Fatalf("put %s: %d, %v", key, n, err)
	}
}

func get(t *testing.T, b store.Blobs, key string) string {
	t.Helper()
	r, size, err := b.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil || int64(len(body)) != size {
		t.Fatalf("%s: %d bytes, size %d, %v", key, len(body), size, err)
	}
	return string(body)
}

func missing(t *testing.T, b store.Blobs, key string) {
	t.Helper()
	if r, _, err := b.Open(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		if err == nil {
			r.Close()
		}
		t.Errorf("open %s: %v", key, err)
	}
}

func blobRoundTrip(t *testing.T, b store.Blobs) {
	missing(t, b, "a/b/c")
	big := strings.Repeat("0123456789", 100_000)
	put(t, b, "a/b/c", big)
	put(t, b, "a/empty", "")
	if get(t, b, "a/b/c") != big || get(t, b, "a/empty") != "" {
		t.Error("the blobs changed")
	}
	r, _, err := b.Open(t.Context(), "a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	part := make([]byte, 5)
	if _, err := r.Seek(-7, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, part); err != nil || string(part) != "34567" {
		t.Errorf("%q, %v", part, err)
	}
	missing(t, b, "a/b") // what other keys continue is no blob
	if err := b.Delete(t.Context(), "a/b"); err != nil || get(t, b, "a/b/c") != big {
		t.Errorf("delete of a key that others continue: %v", err)
	}
	for range 2 {
		if err := b.Delete(t.Context(), "a/b/c"); err != nil {
			t.Fatal(err)
		}
	}
	missing(t, b, "a/b/c")
	put(t, b, "a/b/c", "again")
}

// blobWhole: what breaks off while it is written is not there.
func blobWhole(t *testing.T, b store.Blobs) {
	broken := errors.New("the client went away")
	body := io.MultiReader(bytes.NewReader(make([]byte, 100_000)), failing{broken})
	if _, err := b.Put(t.Context(), "w/x", body); !errors.Is(err, broken) {
		t.Errorf("put: %v", err)
	}
	missing(t, b, "w/x")
	put(t, b, "w/x", "old")
	if _, err := b.Put(t.Context(), "w/x", io.MultiReader(strings.NewReader("new"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("put: %v", err)
	}
	if got := get(t, b, "w/x"); got != "old" {
		t.Errorf("after a put that failed: %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Put(ctx, "w/y", strings.NewReader("body")); !errors.Is(err, context.Canceled) {
		t.Errorf("put with an ended context: %v", err)
	}
	missing(t, b, "w/y")
	if keys := listed(t, b, ""); !slices.Equal(keys, []string{"w/x"}) {
		t.Errorf("listed %v", keys)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func blobReplace(t *testing.T, b store.Blobs) {
	put(t, b, "k", "first")
	r, _, err := b.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	put(t, b, "k", "second, longer")
	if got := get(t, b, "k"); got != "second, longer" {
		t.Errorf("replaced: %q", got)
	}
	if err := b.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r); err != nil || string(body) != "first" {
		t.Errorf("what was open reads %q, %v", body, err)
	}
}

func blobKeys(t *testing.T, b store.Blobs) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "a b", "a\\b", "a\x00b", "ü", "a/\n", "~", strings.Repeat("x", 513), "C:/x", "#tmp/x",
	} {
		if _, err := b.Put(t.Context(), key, strings.NewReader("x")); err == nil {
			t.Errorf("put took the key %q", key)
		}
		if r, _, err := b.Open(t.Context(), key); err == nil {
			r.Close()
			t.Errorf("open took the key %q", key)
		}
		if err := b.Delete(t.Context(), key); err == nil {
			t.Errorf("delete took the key %q", key)
		}
	}
	for _, key := range []string{"a", "A-b_c.d", "x/..y", "x/.hidden", strings.Repeat("y", 200) + "/z"} {
		put(t, b, key, key)
		if get(t, b, key) != key {
			t.Errorf("%q changed", key)
		}
	}
}

func listed(t *testing.T, b store.Blobs, prefix string) []string {
	t.Helper()
	var keys []string
	err := b.List(t.Context(), prefix, func(i store.BlobInfo) bool {
		keys = append(keys, i.Key)
		if i.Modified.IsZero() || i.Size != int64(len(i.Key)) {
			t.Errorf("%+v", i)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

func blobList(t *testing.T, b store.Blobs) {
	all := []string{"p/a/1", "p/a/2", "p/ab/3", "q/1"}
	for _, key := range append(slices.Clone(all), "p/gone/1") {
		put(t, b, key, key)
	}
	if err := b.Delete(t.Context(), "p/gone/1"); err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string][]string{"": all, "p/": all[:3], "p/a": all[:3], "p/a/": all[:2], "p/a/2": all[1:2], "p/a/2/": nil, "p/a/2/x/": nil, "none/": nil} {
		if got := listed(t, b, prefix); !slices.Equal(got, want) {
			t.Errorf("prefix %q: %v, want %v", prefix, got, want)
		}
	}
	for _, prefix := range []string{"../", "/", "p/../", "p//a"} {
		// Refused or without a match: either way nothing is listed.
		_ = b.List(t.Context(), prefix, func(i store.BlobInfo) bool { t.Errorf("%q lists %+v", prefix, i); return true })
	}
	n := 0
	if err := b.List(t.Context(), "", func(store.BlobInfo) bool { n++; return n < 2 }); err != nil || n != 2 {
		t.Errorf("stopped after %d, %v", n, err)
	}
}

func blobsAtOnce(t *testing.T, b store.Blobs) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				key := fmt.Sprintf("shared/%d", j%3)
				if _, err := b.Put(t.Context(), key, strings.NewReader(strings.Repeat(fmt.Sprint(i), 1000))); err != nil {
					t.Error(err)
				}
				if r, size, err := b.Open(t.Context(), key); err == nil {
					body, err := io.ReadAll(r)
					r.Close()
					if err != nil || size != 1000 || strings.Trim(string(body), string(body[:1])) != "" {
						t.Errorf("a mixed blob of %d bytes, %v", size, err)
					}
				} else if !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
				}
				if j%5 == 0 {
					if err := b.Delete(t.Context(), key); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}
