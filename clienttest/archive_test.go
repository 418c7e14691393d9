package clienttest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io/fs"
	"math/rand/v2"
	"testing"
)

const (
	part = 5 << 20  // the clients send larger files in parts of this size
	big  = 11 << 20 // three parts
)

// pack returns the archive of a function that says it is this version. Padding
// adds a file of that many bytes, which do not compress.
func pack(t *testing.T, language, version string, padding int) []byte {
	t.Helper()
	return packWith(t, language, version, padding, nil)
}

// packSized returns an archive of exactly size bytes.
func packSized(t *testing.T, language, version string, size int) []byte {
	t.Helper()
	padding := size - 32<<10
	rest := size - len(packWith(t, language, version, padding, []byte{}))
	code := packWith(t, language, version, padding, make([]byte, rest))
	if len(code) != size {
		t.Fatalf("the archive has %d bytes, not %d", len(code), size)
	}
	return code
}

// packWith adds extra to the header of the gzip stream.
func packWith(t *testing.T, language, version string, padding int, extra []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	check(t, err)
	z.Extra = extra
	w := tar.NewWriter(z)
	src := sources(t, language)
	names, err := fs.Glob(src, "*")
	check(t, err)
	for _, name := range names {
		data, err := fs.ReadFile(src, name)
		check(t, err)
		add(t, w, name, data)
	}
	add(t, w, "version.txt", []byte(version))
	if padding > 0 {
		data := make([]byte, padding)
		rand.NewChaCha8([32]byte{}).Read(data)
		add(t, w, "blob.bin", data)
	}
	check(t, w.Close())
	check(t, z.Close())
	return buf.Bytes()
}

func add(t *testing.T, w *tar.Writer, name string, data []byte) {
	t.Helper()
	check(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}))
	_, err := w.Write(data)
	check(t, err)
}
