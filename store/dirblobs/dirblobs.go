// Package dirblobs keeps blobs as files of one directory.
//
// A blob is written under a temporary name, flushed to the disk and renamed,
// so that it is there whole or not at all. Directory and files are readable by
// their owner alone, and nothing outside the directory is reached, whatever
// links it may hold.
package dirblobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fnkit/fnkit/store"
)

// Blobs implements store.Blobs. It is safe for concurrent use, also by several
// processes on one directory.
type Blobs struct {
	dir string

	mu   sync.Mutex
	root *os.Root
}

var _ store.Blobs = (*Blobs)(nil)

// New returns the blobs of a directory. It is made when it is first needed.
func New(dir string) *Blobs { return &Blobs{dir: dir} }

// ErrKey: the key is not one that store.Blobs allows.
var ErrKey = errors.New("dirblobs: invalid key")

var keyRule = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)

// tempDir holds what is being written. Its name cannot be part of a key.
// What a process that died was writing is removed by a later one.
const tempDir = "#tmp"

// Put implements store.Blobs.
func (b *Blobs) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	root, err := b.open(key)
	if err != nil {
		return 0, err
	}
	temp := fmt.Sprintf("%s/%016x", tempDir, rand.Uint64())
	size, err := write(ctx, root, temp, r)
	if err == nil {
		err = publish(root, temp, key)
	}
	if err != nil {
		return 0, errors.Join(failedPut(key, err), ignoreMissing(root.Remove(temp)))
	}
	return size, nil
}

// write makes a file that is on the disk when it returns.
func write(ctx context.Context, root *os.Root, name string, r io.Reader) (size int64, err error) {
	if err := root.MkdirAll(tempDir, 0o700); err != nil {
		return 0, err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size, err = io.Copy(f, &interruptible{ctx, r}); err != nil {
		return size, err
	}
	return size, f.Sync()
}

// publish gives a written file its name, for good.
func publish(root *os.Root, temp, key string) error {
	parent := path.Dir(key)
	for {
		_, missing := root.Stat(parent)
		if err := root.MkdirAll(parent, 0o700); err != nil {
			return err
		}
		err := root.Rename(temp, key)
		if errors.Is(err, fs.ErrNotExist) {
			if _, gone := root.Stat(temp); gone == nil {
				continue // Delete removed the directory in between
			}
		}
		if err != nil {
			return err
		}
		if missing != nil {
			return syncUp(root, parent)
		}
		return ignoreMissing(syncDir(root, parent))
	}
}

// syncUp makes new directories last, each in the one above it.
func syncUp(root *os.Root, dir string) error {
	for {
		// One that is gone held no blob any more when Delete removed it.
		if err := syncDir(root, dir); ignoreMissing(err) != nil || dir == "." {
			return ignoreMissing(err)
		}
		dir = path.Dir(dir)
	}
}

// Open implements store.Blobs.
func (b *Blobs) Open(_ context.Context, key string) (io.ReadSeekCloser, int64, error) {
	root, err := b.open(key)
	if err != nil {
		return nil, 0, err
	}
	f, err := root.Open(key)
	if err != nil {
		return nil, 0, failed("open "+key, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, 0, errors.Join(failed("open "+key, err), f.Close())
	}
	return f, info.Size(), nil
}

// Delete implements store.Blobs. Directories that become empty go too.
func (b *Blobs) Delete(_ context.Context, key string) error {
	root, err := b.open(key)
	if err != nil {
		return err
	}
	if info, err := root.Lstat(key); err == nil && info.IsDir() {
		return nil // other keys continue this one; it is no blob
	}
	if err := ignoreMissing(root.Remove(key)); err != nil {
		return failed("delete "+key, err)
	}
	for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
		if root.Remove(dir) != nil {
			break // not empty
		}
	}
	return nil
}

// List implements store.Blobs.
func (b *Blobs) List(ctx context.Context, prefix string, fn func(store.BlobInfo) bool) error {
	start := "."
	if i := strings.LastIndex(prefix, "/"); i >= 0 {
		start = prefix[:i]
		if err := checkKey(start); err != nil {
			return err
		}
	}
	root, err := b.directory()
	if err != nil {
		return err
	}
	err = fs.WalkDir(root.FS(), start, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return ignoreMissing(err) // deleted meanwhile
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir() && name == tempDir:
			return fs.SkipDir
		case !d.Type().IsRegular() || !strings.HasPrefix(name, prefix):
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if !fn(store.BlobInfo{Key: name, Size: info.Size(), Modified: info.ModTime()}) {
			return fs.SkipAll
		}
		return nil
	})
	return failed("list blobs", err)
}

// open checks a key and opens the directory.
func (b *Blobs) open(key string) (*os.Root, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return b.directory()
}

// directory opens the directory, making it the first time.
func (b *Blobs) directory() (*os.Root, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.root != nil {
		return b.root, nil
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, failed("blobs", err)
	}
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return nil, failed("blobs", err)
	}
	sweep(root)
	b.root = root
	return root, nil
}

// abandoned is how long nothing was written to a temporary file whose writer
// is taken for dead, by the machine's clock: its files have their times from that.
const abandoned = 24 * time.Hour

// sweep removes what processes that died were writing. Another process may be
// writing too, so young files stay. Failing to tidy up is no reason to stop.
func sweep(root *os.Root) {
	left, err := fs.ReadDir(root.FS(), tempDir)
	if err != nil {
		return
	}
	for _, d := range left {
		if info, err := d.Info(); err == nil && time.Since(info.ModTime()) > abandoned {
			_ = root.Remove(tempDir + "/" + d.Name())
		}
	}
}

func checkKey(key string) error {
	if len(key) > 512 || !keyRule.MatchString(key) {
		return fmt.Errorf("%w: %q", ErrKey, key)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "." || part == ".." {
			return fmt.Errorf("%w: %q", ErrKey, key)
		}
	}
	return nil
}

// failed wraps an error with the act, as one of the contract where there is one.
func failed(act string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s: %w", act, store.ErrNotFound)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		return fmt.Errorf("%s: %w: %w", act, store.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", act, err)
}

// failedPut never says that the blob was not found: what is missing or in the
// way of a blob to be written is a directory.
func failedPut(key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return failed("put "+key, err)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

// interruptible stops reading when ctx ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}
