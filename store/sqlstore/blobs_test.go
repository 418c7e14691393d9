package sqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/storetest"
)

func TestBlobs(t *testing.T) {
	t.Parallel()
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.RunBlobs(t, func(t *testing.T) store.Blobs { return kind(t).migrated(t).Blobs(sqlstore.BlobOptions{}) })
		})
	}
}

func (d database) migrated(t *testing.T) *sqlstore.Store {
	t.Helper()
	s := d.store(t)
	must(t, s.Migrate(t.Context()))
	return s
}

// hand is a clock that tests set.
type hand struct{ ms atomic.Int64 }

func (h *hand) now() time.Time          { return time.UnixMilli(1_700_000_000_000 + h.ms.Load()) }
func (h *hand) advance(d time.Duration) { h.ms.Add(d.Milliseconds()) }

const linger = time.Hour

func (h *hand) blobs(s *sqlstore.Store) *sqlstore.Blobs {
	return s.Blobs(sqlstore.BlobOptions{Now: h.now, Linger: linger})
}

// rows counts what the tables of blobs hold.
func (d database) rows(t *testing.T) (blobs, chunks int) {
	t.Helper()
	db := d.open()
	must(t, db.NewRaw("SELECT count(*) FROM fnkit_blobs").Scan(t.Context(), &blobs))
	must(t, db.NewRaw("SELECT count(*) FROM fnkit_blob_chunks").Scan(t.Context(), &chunks))
	return blobs, chunks
}

func list(t *testing.T, b store.Blobs) (keys []string) {
	t.Helper()
	must(t, b.List(t.Context(), "", func(i store.BlobInfo) bool { keys = append(keys, i.Key); return true }))
	return keys
}

func body(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

const chunk = 256 << 10

// TestBlobRanges reads parts of blobs whose ends lie around those of rows.
func TestBlobRanges(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		b := d.migrated(t).Blobs(sqlstore.BlobOptions{})
		for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 17} {
			want := body(size)
			if n, err := b.Put(t.Context(), "k", bytes.NewReader(want)); err != nil || n != int64(size) {
				t.Fatalf("put %d bytes: %d, %v", size, n, err)
			}
			r, got, err := b.Open(t.Context(), "k")
			if err != nil || got != int64(size) {
				t.Fatalf("open: %d, %v", got, err)
			}
			for _, from := range []int{0, 1, chunk - 2, chunk, 2*chunk - 1, size - 1, size, size + 5} {
				if from < 0 {
					continue
				}
				at, err := r.Seek(int64(from), io.SeekStart)
				rest, err2 := io.ReadAll(r)
				if err := errors.Join(err, err2); err != nil || at != int64(from) || !bytes.Equal(rest, want[min(from, size):]) {
					t.Errorf("%d bytes from %d: %d bytes, %v", size, from, len(rest), err)
				}
			}
			if _, err := r.Seek(-1, io.SeekStart); err == nil {
				t.Error("sought before the beginning")
			}
			must(t, r.Close())
			if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("read after close: %v", err)
			}
		}
	})
}

// TestBlobsLeaveNothing: what was deleted, replaced or broken off goes, and
// what a process that died has left.
func TestBlobsLeaveNothing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		var h hand
		b := h.blobs(d.migrated(t))
		put := func(key string, size int) {
			t.Helper()
			if _, err := b.Put(t.Context(), key, bytes.NewReader(body(size))); err != nil {
				t.Fatal(err)
			}
		}
		put("kept", 2*chunk)
		put("replaced", 3*chunk)
		put("replaced", chunk)
		for i := range 25 {
			put(fmt.Sprint("deleted/", i), chunk+1)
			must(t, b.Delete(t.Context(), fmt.Sprint("deleted/", i)))
		}
		put("large", 40*chunk)
		must(t, b.Delete(t.Context(), "large"))
		broken := io.MultiReader(bytes.NewReader(body(2*chunk)), failing{errors.New("connection reset")})
		if _, err := b.Put(t.Context(), "broken", broken); err == nil || errors.Is(err, store.ErrUnavailable) {
			t.Errorf("put of what broke off: %v", err)
		}
		// A writer that died, and a removal that was cut off.
		soon := h.now().Add(linger).UnixMilli()
		for _, key := range []string{"died", ""} {
			d.exec(t, fmt.Sprintf("INSERT INTO fnkit_blobs (key, size, chunk, modified_at, remove_at) VALUES ('%s', 0, 1, 1, %d)", key, soon))
			d.exec(t, "INSERT INTO fnkit_blob_chunks (blob_id, n, data) SELECT max(id), 7, 'x' FROM fnkit_blobs")
		}
		if keys := list(t, b); strings.Join(keys, " ") != "kept replaced" {
			t.Errorf("visible: %v", keys)
		}
		if blobs, _ := d.rows(t); blobs != 2+1+25+1+2 {
			t.Errorf("%d blobs before anything is past its time", blobs)
		}
		h.advance(linger + time.Second)
		for range 4 { // each removes some
			list(t, b)
		}
		if blobs, chunks := d.rows(t); blobs != 2 || chunks != 3 {
			t.Errorf("%d blobs with %d chunks are left of 2 with 3", blobs, chunks)
		}
	})
}

type failing struct{ err error }

func (e failing) Read([]byte) (int, error) { return 0, e.err }

// stepReader yields a body in steps, and calls before each.
type stepReader struct {
	r      io.Reader
	before func()
}

func (s *stepReader) Read(p []byte) (int, error) {
	s.before()
	return s.r.Read(p[:min(len(p), chunk/2)])
}

// TestASlowWriter: one that goes on is not taken for dead, one that stands
// still for too long is, and learns of it.
func TestASlowWriter(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		var h hand
		b, other := h.blobs(d.migrated(t)), h.blobs(d.store(t))
		want := body(4 * chunk)
		slow := &stepReader{bytes.NewReader(want), func() { h.advance(linger / 5); list(t, other) }}
		if _, err := b.Put(t.Context(), "slow", slow); err != nil {
			t.Errorf("a slow one: %v", err)
		}
		if got := read(t, other, "slow"); !bytes.Equal(got, want) {
			t.Errorf("the slow one has %d bytes", len(got))
		}
		steps := 0
		stuck := &stepReader{bytes.NewReader(want), func() {
			if steps++; steps == 6 {
				h.advance(linger + time.Second)
				list(t, other)
			}
		}}
		if _, err := b.Put(t.Context(), "stuck", stuck); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("one that stood still: %v", err)
		}
		if keys := list(t, b); strings.Join(keys, " ") != "slow" {
			t.Errorf("visible: %v", keys)
		}
		h.advance(linger + time.Second)
		list(t, b)
		if blobs, chunks := d.rows(t); blobs != 1 || chunks != 4 {
			t.Errorf("%d blobs with %d chunks", blobs, chunks)
		}
	})
}

func read(t *testing.T, b store.Blobs, key string) []byte {
	t.Helper()
	r, _, err := b.Open(t.Context(), key)
	must(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	must(t, err)
	return got
}

// TestASlowReader: a deleted blob stays for those who go on reading it, and not
// for ever.
func TestASlowReader(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		var h hand
		b, other := h.blobs(d.migrated(t)), h.blobs(d.store(t))
		want := body(8 * chunk)
		_, err := b.Put(t.Context(), "k", bytes.NewReader(want))
		must(t, err)
		slow, _, err := b.Open(t.Context(), "k")
		must(t, err)
		stuck, _, err := b.Open(t.Context(), "k")
		must(t, err)
		if _, err := io.ReadFull(stuck, make([]byte, chunk)); err != nil {
			t.Fatal(err)
		}
		must(t, other.Delete(t.Context(), "k"))
		got := make([]byte, len(want))
		n, err := io.ReadFull(&stepReader{slow, func() { h.advance(linger / 5); list(t, other) }}, got)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes slowly, %v", n, err)
		}
		h.advance(2 * linger)
		list(t, other)
		if _, err := io.ReadAll(stuck); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("read on after a long time: %v", err)
		}
		if blobs, chunks := d.rows(t); blobs != 0 || chunks != 0 {
			t.Errorf("%d blobs with %d chunks are left", blobs, chunks)
		}
	})
}

// TestAWriterHoldsNothing: while a body comes slowly, the only connection is
// free for others.
func TestAWriterHoldsNothing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		db := d.open()
		db.SetMaxOpenConns(1)
		s, err := sqlstore.New(db, sqlstore.Options{})
		must(t, err)
		defer s.Close()
		must(t, s.Migrate(t.Context()))
		b := s.Blobs(sqlstore.BlobOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r := &stepReader{bytes.NewReader(body(2 * chunk)), func() { must(t, s.Ping(ctx)) }}
		if _, err := b.Put(ctx, "k", r); err != nil {
			t.Fatal(err)
		}
		must(t, b.List(ctx, "", func(i store.BlobInfo) bool { must(t, b.Delete(ctx, i.Key)); return true }))
	})
}

// TestBlobsOfManyStores: of blobs that several publish under one key at once
// one is visible, whole, and nothing is left of the others.
func TestBlobsOfManyStores(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		var h hand
		d.migrated(t)
		var wg sync.WaitGroup
		for i := range 4 {
			b := h.blobs(d.store(t))
			wg.Go(func() {
				for range 8 {
					if _, err := b.Put(t.Context(), "k", bytes.NewReader(bytes.Repeat([]byte{byte(i)}, chunk+i))); err != nil {
						t.Error(err)
					}
					if got := read(t, b, "k"); len(got) != chunk+int(got[0]) || len(bytes.Trim(got, string(got[:1]))) > 0 {
						t.Errorf("a mixed blob of %d bytes", len(got))
					}
				}
			})
		}
		wg.Wait()
		b := h.blobs(d.store(t))
		h.advance(linger + time.Second)
		for range 5 {
			list(t, b)
		}
		if blobs, chunks := d.rows(t); blobs != 1 || chunks > 2 {
			t.Errorf("%d blobs with %d chunks", blobs, chunks)
		}
	})
}

func TestBlobsWithoutADatabase(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		db := d.open()
		s, err := sqlstore.New(db, sqlstore.Options{})
		must(t, err)
		must(t, s.Migrate(t.Context()))
		b := s.Blobs(sqlstore.BlobOptions{})
		_, err = b.Put(t.Context(), "k", strings.NewReader("x"))
		must(t, err)
		r, _, err := b.Open(t.Context(), "k")
		must(t, err)
		must(t, errors.Join(s.Close(), db.Close()))
		_, err1 := b.Put(t.Context(), "k", strings.NewReader("y"))
		_, _, err2 := b.Open(t.Context(), "k")
		_, err3 := r.Read(make([]byte, 1))
		for what, err := range map[string]error{
			"put": err1, "open": err2, "read": err3, "delete": b.Delete(t.Context(), "k"),
			"list": b.List(t.Context(), "", func(store.BlobInfo) bool { return true }),
		} {
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
