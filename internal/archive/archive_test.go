package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/internal/archive"
)

var limits = archive.Limits{Bytes: 1 << 20, Files: 100}

type entry struct {
	name, body, link string
	kind             byte
	mode             int64
}

func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode | 0o600, Size: int64(len(e.body))}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := pack(t,
		entry{name: "./", kind: tar.TypeDir},
		entry{name: "index.js", body: "code"},
		entry{name: "bin/run", body: "#!/bin/sh", mode: 0o6755},
		entry{name: "bin/again", kind: tar.TypeLink, link: "bin/run"},
		entry{name: "lib", kind: tar.TypeSymlink, link: "bin/../bin"},
		entry{name: "index.js", body: "newer"},
	)
	stats, err := archive.Unpack(t.Context(), bytes.NewReader(data), dir, limits)
	if err != nil || stats.Files != 5 {
		t.Fatalf("%+v, %v", stats, err)
	}
	var packed bytes.Buffer
	if _, err := archive.Pack(t.Context(), dir, &packed, limits); err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	if _, err := archive.Unpack(t.Context(), bytes.NewReader(packed.Bytes()), again, limits); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"index.js": "newer", "lib/run": "#!/bin/sh", "bin/again": "#!/bin/sh"} {
		if got, err := os.ReadFile(filepath.Join(again, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if info, _ := os.Stat(filepath.Join(again, "bin/run")); info.Mode() != 0o755 {
		t.Errorf("bin/run has mode %v", info.Mode())
	}
	var second bytes.Buffer
	if _, err := archive.Pack(t.Context(), again, &second, limits); err != nil || !bytes.Equal(packed.Bytes(), second.Bytes()) {
		t.Errorf("packing is not deterministic: %v", err)
	}
}

func TestAttacksAreRefused(t *testing.T) {
	t.Parallel()
	whole := pack(t, entry{name: "a", body: strings.Repeat("x", 5000)})
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-6] ^= 0xff
	many := make([]entry, 101)
	for i := range many {
		many[i] = entry{name: fmt.Sprint("f", i)}
	}
	for name, data := range map[string][]byte{
		"not a gzip":            []byte("PK\x03\x04 this is something else"),
		"empty":                 {},
		"truncated":             whole[:len(whole)/2],
		"damaged":               damaged,
		"not a tar":             gzipped(t, strings.NewReader(strings.Repeat("not a tar ", 1000))),
		"bomb":                  gzipped(t, bombTar(t)),
		"many entries":          pack(t, many...),
		"parent":                pack(t, entry{name: "../x"}),
		"hidden parent":         pack(t, entry{name: "a/../../x"}),
		"absolute":              pack(t, entry{name: "/etc/x"}),
		"newline":               pack(t, entry{name: "a\nb"}),
		"backslash":             pack(t, entry{name: `..\x`}),
		"deep":                  pack(t, entry{name: strings.Repeat("d/", 150) + "x"}),
		"device":                pack(t, entry{name: "dev", kind: tar.TypeChar}),
		"fifo":                  pack(t, entry{name: "fifo", kind: tar.TypeFifo}),
		"link out":              pack(t, entry{name: "l", kind: tar.TypeSymlink, link: "../../etc"}),
		"absolute link":         pack(t, entry{name: "l", kind: tar.TypeSymlink, link: "/etc/passwd"}),
		"hard link out":         pack(t, entry{name: "l", kind: tar.TypeLink, link: "../../etc/passwd"}),
		"hard link to nothing":  pack(t, entry{name: "l", kind: tar.TypeLink, link: "nothing"}),
		"out by two links":      pack(t, entry{name: "d", kind: tar.TypeSymlink, link: "."}, entry{name: "e", kind: tar.TypeSymlink, link: "d/.."}),
		"link under a link":     pack(t, entry{name: "d", kind: tar.TypeSymlink, link: "."}, entry{name: "d/e", kind: tar.TypeSymlink, link: ".."}),
		"file under a file":     pack(t, entry{name: "a"}, entry{name: "a/b"}),
		"file over a directory": pack(t, entry{name: "a/b"}, entry{name: "a"}),
		"hard link to a link":   pack(t, entry{name: "s", kind: tar.TypeSymlink, link: "x"}, entry{name: "l", kind: tar.TypeLink, link: "s"}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			dir := filepath.Join(parent, "in", "here")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			_, err := archive.Unpack(t.Context(), bytes.NewReader(data), dir, limits)
			if !archive.IsInvalid(err) {
				t.Fatalf("got %v, want a fault of the archive", err)
			}
			for _, d := range []string{parent, filepath.Join(parent, "in")} {
				if left, _ := os.ReadDir(d); len(left) != 1 {
					t.Fatalf("something was written outside: %v", left)
				}
			}
		})
	}
}

func TestWritesNeverGoThroughLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := pack(t, entry{name: "real/keep", body: "kept"}, entry{name: "l", kind: tar.TypeSymlink, link: "real"}, entry{name: "l/keep", body: "changed"})
	_, err := archive.Unpack(t.Context(), bytes.NewReader(data), dir, limits)
	if got, _ := os.ReadFile(filepath.Join(dir, "real/keep")); string(got) != "kept" {
		t.Fatalf("written through a link: %q, %v", got, err)
	}
}

func TestUnpackEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := archive.Unpack(ctx, bytes.NewReader(pack(t, entry{name: "a"})), t.TempDir(), limits)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestPackIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, limits.Bytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Pack(t.Context(), dir, io.Discard, limits); !archive.IsInvalid(err) {
		t.Fatal(err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack(f, entry{name: "a", body: "b"}, entry{name: "l", kind: tar.TypeSymlink, link: "a"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, _ = archive.Unpack(t.Context(), bytes.NewReader(data), dir, limits)
		if left, _ := os.ReadDir(parent); len(left) != 1 {
			t.Fatalf("something was written outside: %v", left)
		}
	})
}

func gzipped(t testing.TB, r io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	if _, err := io.Copy(zw, r); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bombTar is a tar of one file of 64 MiB of zeros.
func bombTar(t testing.TB) io.Reader {
	t.Helper()
	const size = 64 << 20
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "bomb", Mode: 0o600, Size: size}); err != nil {
		t.Fatal(err)
	}
	return io.MultiReader(&head, io.LimitReader(zeros{}, size))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
