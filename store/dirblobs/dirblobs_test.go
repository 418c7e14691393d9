package dirblobs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/storetest"
)

func TestBlobs(t *testing.T) {
	t.Parallel()
	storetest.RunBlobs(t, func(t *testing.T) store.Blobs { return dirblobs.New(filepath.Join(t.TempDir(), "blobs")) })
}

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "blobs")
	if _, err := dirblobs.New(dir).Put(t.Context(), "a/b", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, "a": os.ModeDir | 0o700, "a/b": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%q has mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestLinksDoNotLeadOut(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "blobs")
	b := dirblobs.New(dir)
	if _, err := b.Put(t.Context(), "a", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(parent, filepath.Join(dir, "out")); err != nil {
		t.Skip(err)
	}
	if _, err := b.Put(t.Context(), "out/x", strings.NewReader("x")); err == nil {
		t.Error("written through a link")
	}
	if left, _ := os.ReadDir(parent); len(left) != 1 {
		t.Errorf("outside lies %v", left)
	}
}

func TestNothingIsDoneBeforeTheFirstUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "blobs")
	b := dirblobs.New(dir)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("New made the directory: %v", err)
	}
	if _, _, err := b.Open(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

// TestLeftovers: what a process that died was writing is not seen, and is
// removed by a later one when nobody can be writing it any more.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := dirblobs.New(dir).Put(t.Context(), "a", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	temps := filepath.Join(dir, "#tmp")
	old, young := filepath.Join(temps, "old"), filepath.Join(temps, "young")
	for _, name := range []string{old, young} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().AddDate(0, 0, -2)); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := dirblobs.New(dir).List(t.Context(), "", func(store.BlobInfo) bool { n++; return true }); err != nil || n != 1 {
		t.Errorf("listed %d, %v", n, err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old one is left: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("the young one is gone: %v", err)
	}
}

// TestABlobInTheWay: a key that continues another blob's is refused, and not
// as one that was not found.
func TestABlobInTheWay(t *testing.T) {
	t.Parallel()
	b := dirblobs.New(t.TempDir())
	if _, err := b.Put(t.Context(), "a", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "a/b", strings.NewReader("y")); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("put: %v", err)
	}
}
