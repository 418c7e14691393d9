package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/store"
)

// BlobOptions configure Blobs.
type BlobOptions struct {
	// Now is the clock by which blobs are dated and removed. Default: the machine's.
	Now func() time.Time
	// Linger is how long a blob that was deleted or replaced stays readable for
	// those who have it open, and how long a writer may stand still. Each use
	// begins it anew. Default: 10 minutes.
	Linger time.Duration
}

// Blobs keeps blobs in the database, in rows of a quarter of a megabyte, so
// that engines on several machines need nothing beside it. It implements
// store.Blobs, and is safe for concurrent use, also by several processes.
//
// A row of the table of blobs is visible while it has no time to be removed at.
// One that is being written has such a time, and so does one that was deleted
// or replaced: what a writer that died has left goes the same way. Each Put,
// Delete and List removes some of what is past its time.
type Blobs struct {
	s *Store
	o BlobOptions
}

var _ store.Blobs = (*Blobs)(nil)

// Blobs returns the blobs of this database. They are closed with the store.
func (s *Store) Blobs(o BlobOptions) *Blobs {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Linger <= 0 {
		o.Linger = 10 * time.Minute
	}
	return &Blobs{s, o}
}

// ErrKey: the key is not one that store.Blobs allows.
var ErrKey = errors.New("sqlstore: invalid blob key")

var (
	keyRule    = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
	prefixChar = regexp.MustCompile(`^[A-Za-z0-9._/-]*$`)
)

func checkKey(key string) error {
	dots := func(part string) bool { return part == "." || part == ".." }
	if len(key) > 512 || !keyRule.MatchString(key) || slices.ContainsFunc(strings.Split(key, "/"), dots) {
		return fmt.Errorf("%w: %q", ErrKey, key)
	}
	return nil
}

// chunkSize is how many bytes a row of a new blob has, but the last.
const chunkSize = 256 << 10

// Put implements store.Blobs. No transaction is open while it waits for r.
func (b *Blobs) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	w := &blobWriter{b: b, key: key}
	err := w.copy(ctx, r)
	if err == nil {
		err = w.publish(ctx)
	}
	if err != nil {
		w.discard(ctx)
		return 0, err
	}
	b.sweep(ctx)
	return w.size, nil
}

// blobWriter writes one blob.
type blobWriter struct {
	b       *Blobs
	key     string
	id      int64 // 0: nothing is written yet
	size    int64
	renewed time.Time // when its time to be removed was set
}

// copy writes chunks until r ends.
func (w *blobWriter) copy(ctx context.Context, r io.Reader) error {
	buf := make([]byte, chunkSize)
	for n := int64(0); ; n++ {
		got, end := 0, ctx.Err()
		if end == nil {
			got, end = io.ReadFull(r, buf)
		}
		if end != nil && end != io.EOF && end != io.ErrUnexpectedEOF {
			return fmt.Errorf("put %s: %w", w.key, end) // is not the database's
		}
		if err := w.chunk(ctx, n, buf[:got]); err != nil {
			return failed("put "+w.key, err)
		}
		if w.size += int64(got); end != nil {
			return nil
		}
	}
}

// chunk writes one chunk, if it is not empty, and the row of the blob before
// the first.
func (w *blobWriter) chunk(ctx context.Context, n int64, data []byte) error {
	now := w.b.o.Now()
	if w.id == 0 {
		err := w.b.s.db.NewRaw("INSERT INTO ? (key, size, chunk, modified_at, remove_at) VALUES (?, 0, ?, ?, ?) RETURNING id",
			w.b.s.table("blobs"), w.key, chunkSize, now.UnixMilli(), now.Add(w.b.o.Linger).UnixMilli()).Scan(ctx, &w.id)
		if err != nil {
			return err
		}
		w.renewed = now
	} else if now.Sub(w.renewed) > w.b.o.Linger/4 {
		if err := w.b.keep(ctx, w.id, w.key, now); err != nil {
			return err
		}
		w.renewed = now
	}
	if len(data) == 0 {
		return nil
	}
	_, err := w.b.s.exec(ctx, w.b.s.dialect.numbered(fmt.Sprintf(`INSERT INTO "%sblob_chunks" (blob_id, n, data) VALUES (?1, ?2, ?3)`, w.b.s.prefix)), w.id, n, data)
	return err
}

// keep puts off the removal of a blob that is being written or read. A blob
// that is about to be removed has lost its key.
func (b *Blobs) keep(ctx context.Context, id int64, key string, now time.Time) error {
	res, err := b.s.db.ExecContext(ctx, "UPDATE ? SET remove_at = ? WHERE id = ? AND key = ? AND remove_at IS NOT NULL",
		b.s.table("blobs"), now.Add(b.o.Linger).UnixMilli(), id, key)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return b.present(ctx, id, key)
}

// errRemoved: a blob that was not visible was not used for too long.
var errRemoved = fmt.Errorf("the blob was removed meanwhile: %w", store.ErrUnavailable)

// present reports whether a blob is there, visible or not.
func (b *Blobs) present(ctx context.Context, id int64, key string) error {
	var n int
	err := b.s.db.NewRaw("SELECT count(*) FROM ? WHERE id = ? AND key = ?", b.s.table("blobs"), id, key).Scan(ctx, &n)
	if err == nil && n == 0 {
		err = errRemoved
	}
	return err
}

// publish makes the blob visible. If another of its key was published at the
// same time, that one is replaced.
func (w *blobWriter) publish(ctx context.Context) error {
	err := w.replace(ctx)
	for n := 1; n < attempts && errors.Is(err, store.ErrExists); n++ {
		err = w.replace(ctx)
	}
	return err
}

// replace makes the blob visible and the one before it invisible, together.
func (w *blobWriter) replace(ctx context.Context) error {
	now := w.b.o.Now()
	return w.b.s.atomic(ctx, func(ctx context.Context, r records) error {
		if err := w.b.retire(ctx, r, w.key, now); err != nil {
			return failed("put "+w.key, err)
		}
		res, err := r.w.ExecContext(ctx, "UPDATE ? SET remove_at = NULL, size = ?, modified_at = ? WHERE id = ? AND key = ? AND remove_at IS NOT NULL",
			w.b.s.table("blobs"), w.size, now.UnixMilli(), w.id, w.key)
		if err != nil {
			return failed("put "+w.key, err)
		}
		if n, err := res.RowsAffected(); err == nil && n == 0 {
			return failed("put "+w.key, errRemoved)
		}
		return nil
	})
}

// retire makes the visible blob of a key invisible, if there is one.
func (b *Blobs) retire(ctx context.Context, r records, key string, now time.Time) error {
	_, err := r.w.ExecContext(ctx, "UPDATE ? SET remove_at = ? WHERE key = ? AND remove_at IS NULL", b.s.table("blobs"), now.Add(b.o.Linger).UnixMilli(), key)
	return err
}

// discard removes what was written of a blob that will not be. If that fails it
// is removed when it is past its time.
func (w *blobWriter) discard(ctx context.Context) {
	if w.id == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = w.b.remove(ctx, w.id)
}

// Delete implements store.Blobs.
func (b *Blobs) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := b.retire(ctx, b.s.records, key, b.o.Now()); err != nil {
		return failed("delete "+key, err)
	}
	b.sweep(ctx)
	return nil
}

// listPage is how many blobs List reads at once; it holds no connection while
// it calls its caller.
const listPage = 500

// List implements store.Blobs.
func (b *Blobs) List(ctx context.Context, prefix string, fn func(store.BlobInfo) bool) error {
	b.sweep(ctx)
	if !prefixChar.MatchString(prefix) {
		return nil // no key begins so
	}
	for last := ""; ; {
		var page []struct {
			Key        string
			Size       int64
			ModifiedAt int64
		}
		// No key has a sign behind "z".
		err := b.s.r.NewRaw("SELECT key, size, modified_at FROM ? WHERE remove_at IS NULL AND key > ? AND key >= ? AND key < ? ORDER BY key LIMIT ?",
			b.s.table("blobs"), last, prefix, prefix+"~", listPage).Scan(ctx, &page)
		if err != nil {
			return failed("list blobs", err)
		}
		for _, i := range page {
			if !fn(store.BlobInfo{Key: i.Key, Size: i.Size, Modified: time.UnixMilli(i.ModifiedAt).UTC()}) {
				return nil
			}
			last = i.Key
		}
		if len(page) < listPage {
			return nil
		}
	}
}

// sweepBatch is how many blobs one call removes at most.
const sweepBatch = 10

// sweep removes some blobs that are past their time. Failing to tidy up is no
// reason to stop.
func (b *Blobs) sweep(ctx context.Context) {
	var ids []int64
	now := b.o.Now().UnixMilli()
	err := b.s.db.NewRaw("SELECT id FROM ? WHERE remove_at < ? ORDER BY remove_at LIMIT ?", b.s.table("blobs"), now, sweepBatch).Scan(ctx, &ids)
	if err != nil {
		return
	}
	for _, id := range ids {
		res, err := b.s.db.ExecContext(ctx, "UPDATE ? SET key = '' WHERE id = ? AND remove_at < ?", b.s.table("blobs"), id, now)
		if err != nil {
			return
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 || b.remove(ctx, id) != nil {
			return
		}
	}
}

// removeBatch is how many chunks are removed at once: others write in between.
const removeBatch = 32

// remove removes an invisible blob: first its key, so that whoever writes or
// reads it learns of it, then its chunks, then its row, by which a removal that
// was cut off is found again.
func (b *Blobs) remove(ctx context.Context, id int64) error {
	blobs, chunks := b.s.table("blobs"), b.s.table("blob_chunks")
	res, err := b.s.db.ExecContext(ctx, "UPDATE ? SET key = '' WHERE id = ? AND remove_at IS NOT NULL", blobs, id)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err // it became visible, whatever its writer was told
	}
	for n := int64(removeBatch); n == removeBatch; {
		res, err := b.s.db.ExecContext(ctx, "DELETE FROM ?0 WHERE blob_id = ?1 AND n IN (SELECT n FROM ?0 WHERE blob_id = ?1 ORDER BY n LIMIT ?2)", chunks, id, removeBatch)
		if err != nil {
			return err
		}
		if n, err = res.RowsAffected(); err != nil {
			return err
		}
	}
	_, err = b.s.db.ExecContext(ctx, "DELETE FROM ? WHERE id = ? AND key = ''", blobs, id)
	return err
}

// Open implements store.Blobs. Reads end with ctx.
func (b *Blobs) Open(ctx context.Context, key string) (io.ReadSeekCloser, int64, error) {
	if err := checkKey(key); err != nil {
		return nil, 0, err
	}
	r := &blobReader{ctx: ctx, b: b, key: key, renewed: b.o.Now(), loaded: -1}
	err := b.s.r.NewRaw("SELECT id, size, chunk FROM ? WHERE key = ? AND remove_at IS NULL", b.s.table("blobs"), key).Scan(ctx, &r.id, &r.size, &r.chunk)
	if err != nil {
		return nil, 0, failed("open "+key, err)
	}
	return r, r.size, nil
}

// blobReader reads a blob, chunk by chunk. It holds no connection between.
type blobReader struct {
	ctx     context.Context // of Open: io.Reader takes none
	b       *Blobs
	key     string
	id      int64
	size    int64
	chunk   int64
	at      int64
	renewed time.Time
	loaded  int64 // number of the chunk in data; -1: none
	data    []byte
	closed  bool
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, fs.ErrClosed
	}
	if r.at >= r.size {
		return 0, io.EOF
	}
	if err := r.load(r.at / r.chunk); err != nil {
		return 0, failed("read "+r.key, err)
	}
	n := copy(p, r.data[r.at%r.chunk:])
	r.at += int64(n)
	return n, nil
}

// load reads a chunk, unless it is there.
func (r *blobReader) load(n int64) error {
	if n == r.loaded {
		return nil
	}
	if now := r.b.o.Now(); now.Sub(r.renewed) > r.b.o.Linger/4 {
		if err := r.b.keep(r.ctx, r.id, r.key, now); err != nil {
			return err
		}
		r.renewed = now
	}
	text := fmt.Sprintf(`SELECT data FROM "%sblob_chunks" WHERE blob_id = ?1 AND n = ?2`, r.b.s.prefix)
	read, err := r.b.s.reads.prepare(r.ctx, r.b.s.dialect.numbered(text))
	if err != nil {
		return err
	}
	r.loaded, r.data = -1, nil
	var data []byte
	err = read.QueryRowContext(r.ctx, r.id, n).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) || err == nil && int64(len(data)) != min(r.chunk, r.size-n*r.chunk) {
		return errRemoved
	}
	if err == nil {
		r.loaded, r.data = n, data
	}
	return err
}

// Seek implements io.Seeker.
func (r *blobReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if r.closed || offset < 0 {
		return 0, fmt.Errorf("seek %s: %w", r.key, fs.ErrInvalid)
	}
	r.at = offset
	return offset, nil
}

// Close implements io.Closer.
func (r *blobReader) Close() error {
	r.closed, r.data = true, nil
	return nil
}
