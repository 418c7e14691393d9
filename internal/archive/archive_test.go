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
	"sync"
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
		"headers without end":   gzipped(t, repeat(paxHeader(t), 8<<20)),
		"zeros behind the tar":  gzipped(t, io.MultiReader(bytes.NewReader(make([]byte, 1024)), io.LimitReader(zeros{}, 8<<20))),
		"sparse terabyte":       gzipped(t, bytes.NewReader(sparse())),
		"long name":             pack(t, entry{name: strings.Repeat("d", 5000)}),
		"socket":                gzipped(t, bytes.NewReader(rawHeader('z', "s"))),
		"link over a directory": pack(t, entry{name: "d/f"}, entry{name: "d", kind: tar.TypeSymlink, link: "."}),
		"file through a link":   pack(t, entry{name: "real/f"}, entry{name: "d", kind: tar.TypeSymlink, link: "real"}, entry{name: "d/f"}),
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

func TestAMillionEntriesEndEarly(t *testing.T) {
	t.Parallel()
	pr, pw := io.Pipe()
	made := &entries{n: 1e6}
	var wg sync.WaitGroup
	wg.Go(func() {
		zw := gzip.NewWriter(pw)
		_, err := io.Copy(zw, made)
		pw.CloseWithError(errors.Join(err, zw.Close()))
	})
	_, err := archive.Unpack(t.Context(), pr, t.TempDir(), limits)
	pr.Close()
	wg.Wait()
	if !archive.IsInvalid(err) || made.made > 100_000 {
		t.Fatalf("%v, after %d entries", err, made.made)
	}
}

func TestConcatenatedMembers(t *testing.T) {
	t.Parallel()
	whole := unzipped(t, pack(t, entry{name: "a", body: strings.Repeat("x", 5000)}))
	data := append(gzipped(t, bytes.NewReader(whole[:2000])), gzipped(t, bytes.NewReader(whole[2000:]))...)
	dir := t.TempDir()
	if _, err := archive.Unpack(t.Context(), bytes.NewReader(data), dir, limits); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || len(got) != 5000 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestPackLeavesOutWhatLeadsOutside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, target := range map[string]string{"out": "../x", "abs": "/etc/passwd", "in": "f"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	var packed bytes.Buffer
	stats, err := archive.Pack(t.Context(), dir, &packed, limits)
	if err != nil || stats.Files != 1 {
		t.Fatalf("%+v, %v", stats, err)
	}
	if _, err := archive.Pack(t.Context(), dir, io.Discard, archive.Limits{Bytes: 1, Files: 2}); !archive.IsInvalid(err) {
		t.Fatalf("too many entries: %v", err)
	}
}

// TestWhatIsPackedCanBeUnpacked: what Unpack refuses, Pack refuses or leaves out.
func TestWhatIsPackedCanBeUnpacked(t *testing.T) {
	t.Parallel()
	links := func(pairs ...string) func(dir string) error {
		return func(dir string) error {
			for i := 0; i < len(pairs); i += 2 {
				if err := os.Symlink(pairs[i+1], filepath.Join(dir, pairs[i])); err != nil {
					return err
				}
			}
			return nil
		}
	}
	file := func(name string) func(dir string) error {
		return func(dir string) error {
			name := filepath.Join(dir, name)
			return errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte("x"), 0o600))
		}
	}
	for name, c := range map[string]struct {
		make    func(dir string) error
		refused bool
		want    int // entries that are not directories
	}{
		"newline":                {file("a\nb"), true, 0},
		"backslash":              {file(`a\b`), true, 0},
		"deep":                   {file(strings.Repeat("d/", 101) + "x"), true, 0},
		"bytes":                  {file("a\xffb"), false, 1},
		"out by two links":       {links("d", ".", "e", "d/.."), false, 1},
		"link to itself":         {links("loop", "loop"), false, 1},
		"link below a file":      {links("l", "f/x", "f", "g"), false, 2},
		"link to nothing":        {links("l", "nothing"), false, 1},
		"link to a name too big": {links("l", strings.Repeat("y", 300)), false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := c.make(dir); err != nil {
				t.Skip(err)
			}
			var packed bytes.Buffer
			_, err := archive.Pack(t.Context(), dir, &packed, limits)
			if archive.IsInvalid(err) != c.refused {
				t.Fatalf("pack: %v", err)
			}
			if c.refused {
				return
			}
			stats, err := archive.Unpack(t.Context(), &packed, t.TempDir(), limits)
			if err != nil || stats.Files != c.want {
				t.Errorf("unpack: %+v, %v", stats, err)
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

// bombTar is a tar of one file of 8 MiB of zeros.
func bombTar(t testing.TB) io.Reader {
	t.Helper()
	const size = 8 << 20
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "bomb", Mode: 0o600, Size: size}); err != nil {
		t.Fatal(err)
	}
	return io.MultiReader(&head, io.LimitReader(zeros{}, size))
}

// paxHeader is a header that only speaks of the next one.
func paxHeader(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	h := &tar.Header{Name: strings.Repeat("n", 300), Mode: 0o600, Format: tar.FormatPAX}
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()[:b.Len()-512] // without the header it speaks of
}

// repeat returns block over and over, about n bytes of it.
func repeat(block []byte, n int) io.Reader {
	var all []io.Reader
	for range n / len(block) {
		all = append(all, bytes.NewReader(block))
	}
	return io.MultiReader(all...)
}

// entries is a tar of n empty files, made as it is read.
type entries struct {
	n, made int
	rest    []byte
}

func (e *entries) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		if e.made == e.n {
			return 0, io.EOF
		}
		e.rest = rawHeader(tar.TypeReg, fmt.Sprint("f", e.made))
		e.made++
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// rawHeader is the header of an empty entry that archive/tar would not write.
func rawHeader(kind byte, name string) []byte { return ustar(kind, name, "00000000000\x00") }

// sparse is a file of GNU's sparse kind that claims to be a terabyte.
func sparse() []byte {
	h := ustar(tar.TypeGNUSparse, "s", "00000000000\x00")
	copy(h[257:], "ustar  \x00")
	copy(h[483:], "10000000000000\x00")
	return checksummed(h)
}

func ustar(kind byte, name, size string) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], size+"00000000000\x00")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	return checksummed(h)
}

func checksummed(h []byte) []byte {
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func unzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
