package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fnkit/fnkit/internal/archive"
	"github.com/fnkit/fnkit/internal/lockfile"
)

// directory is where an engine keeps unpacked code:
//
//	lock       held for as long as the engine lives
//	code/      what instances run
//	work/      what is being unpacked, built or removed
//	packages/  what builds downloaded, for the next ones
type directory struct {
	path string
	temp bool // made for this engine, and removed with it
	lock *os.File
}

// tempPrefix names the directories of engines that were given none.
const tempPrefix = "fnkit-engine-"

// openDirectory makes a directory usable, and empty but for packages: what an engine that
// died left in it is removed. An empty path makes a temporary one, and removes those
// that dead engines of the same user left. It fails if an engine that lives
// has the directory.
func openDirectory(path string) (d *directory, err error) {
	d = &directory{temp: path == ""}
	if d.temp {
		removeAbandoned()
		path, err = os.MkdirTemp("", tempPrefix)
	} else if path, err = filepath.Abs(path); err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("directory for code: %w", err)
	}
	d.path = path
	if err := errors.Join(d.acquire(), d.clear()); err != nil {
		return nil, errors.Join(fmt.Errorf("directory for code %s: %w", path, err), d.abandon())
	}
	return d, nil
}

// acquire takes the lock. A new temporary directory gets its lock file locked,
// so that nobody takes it for abandoned in between.
func (d *directory) acquire() error {
	name := d.in("lock")
	if d.temp {
		name = d.in("new")
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := lockfile.Lock(f); err != nil {
		return errors.Join(err, f.Close())
	}
	d.lock = f
	if d.temp {
		return os.Rename(name, d.in("lock"))
	}
	return nil
}

// clear makes the directories of the engine anew. Without the lock it does nothing.
func (d *directory) clear() error {
	if d.lock == nil {
		return nil
	}
	for _, sub := range []string{"code", "work"} {
		if err := errors.Join(archive.Remove(d.in(sub)), os.Mkdir(d.in(sub), 0o700)); err != nil {
			return err
		}
	}
	return os.MkdirAll(d.in("packages"), 0o700)
}

// abandon lets go of a directory that could not be opened.
func (d *directory) abandon() error {
	if d.lock == nil && !d.temp {
		return nil
	}
	return d.close()
}

// close removes what the engine put into the directory, but for packages if it is not
// temporary, and lets go of it.
func (d *directory) close() error {
	var err error
	if d.temp {
		err = archive.Remove(d.path)
	} else {
		err = errors.Join(archive.Remove(d.in("code")), archive.Remove(d.in("work")))
	}
	if d.lock != nil {
		err = errors.Join(err, lockfile.Unlock(d.lock))
	}
	return err
}

// move moves a directory. Its parent changes, so that it must be writable, and where
// builds run as the engine's user they can have changed its mode.
func move(from, to string) error {
	_ = os.Chmod(from, 0o700)
	return os.Rename(from, to)
}

func (d *directory) in(name string) string { return filepath.Join(d.path, name) }

// removeAbandoned removes the temporary directories of dead engines. What
// cannot be removed stays: it is in nobody's way.
func removeAbandoned() {
	if !lockfile.Supported {
		return
	}
	all, _ := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*"))
	for _, dir := range all {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || !lockfile.Mine(info) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue // it is just being made
		}
		if lockfile.Lock(f) == nil {
			_ = archive.Remove(dir)
		}
		_ = f.Close()
	}
}
