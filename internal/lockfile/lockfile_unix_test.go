//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package lockfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fnkit/fnkit/internal/lockfile"
)

func TestOneOwnerAtATime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first, second := open(), open()
	if err := lockfile.Lock(first); err != nil {
		t.Fatal(err)
	}
	if err := lockfile.Lock(second); !errors.Is(err, lockfile.ErrHeld) {
		t.Errorf("a second owner got %v", err)
	}
	copied, err := syscall.Dup(int(first.Fd())) // as a process that is being started has it
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(copied)
	if err := lockfile.Unlock(first); err != nil {
		t.Fatal(err)
	}
	if err := lockfile.Lock(second); err != nil {
		t.Errorf("after the first ended: %v", err)
	}
	if info, err := second.Stat(); err != nil || !lockfile.Mine(info) {
		t.Errorf("an own file is not ours, %v", err)
	}
}
