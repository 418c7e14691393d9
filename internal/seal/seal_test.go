package seal_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/fnkit/fnkit/internal/seal"
)

func ring(t *testing.T, ids ...string) *seal.Ring {
	t.Helper()
	r := &seal.Ring{}
	for _, id := range ids {
		if err := r.Add(id, []byte("secret of "+id)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestRotation(t *testing.T) {
	t.Parallel()
	sealed := ring(t, "k1").Seal([]byte("value"), "row")
	if bytes.Contains(sealed, []byte("value")) {
		t.Fatal("the value is readable")
	}
	plain, err := ring(t, "k2", "k1").Open(sealed, "row")
	if err != nil || string(plain) != "value" {
		t.Fatalf("after rotation: %q, %v", plain, err)
	}
	if _, err := ring(t, "k2").Open(sealed, "row"); !errors.Is(err, seal.ErrOpen) {
		t.Fatalf("without the key: %v", err)
	}
}

func TestBoundToRecordAndUnchanged(t *testing.T) {
	t.Parallel()
	r := ring(t, "k1")
	sealed := r.Seal([]byte("value"), "row")
	if _, err := r.Open(sealed, "other"); !errors.Is(err, seal.ErrOpen) {
		t.Fatalf("opened for another record: %v", err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := r.Open(changed, "row"); !errors.Is(err, seal.ErrOpen) {
			t.Fatalf("opened with byte %d changed: %v", i, err)
		}
		if _, err := r.Open(sealed[:i], "row"); !errors.Is(err, seal.ErrOpen) {
			t.Fatalf("opened cut at %d: %v", i, err)
		}
	}
}
