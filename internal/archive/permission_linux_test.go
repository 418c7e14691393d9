package archive_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/fnkit/fnkit/internal/archive"
	"github.com/fnkit/fnkit/internal/require"
)

// TestDirectoriesThatForbid runs as an ordinary user, also where tests are root:
// the thread gives up root's power over files and ends with the goroutine.
func TestDirectoriesThatForbid(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"near": "tree/closed/below",
		// Longer than the kernel takes paths.
		"deep": "tree/" + strings.Repeat(strings.Repeat("d", 60)+"/", 150) + "closed/below",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testForbidden(t, path)
		})
	}
}

func testForbidden(t *testing.T, path string) {
	top := t.TempDir()
	dir, closed := filepath.Join(top, "tree"), filepath.Dir(path)
	root, err := os.OpenRoot(top)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		for _, p := range []string{top, filepath.Dir(top)} { // both are the test's own
			if err := os.Chmod(p, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		for p := path; ; p = filepath.Dir(p) {
			if err := root.Chown(p, 65534, 65534); err != nil {
				t.Fatal(err)
			}
			if p == "." {
				break
			}
		}
	}
	if err := root.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	var reached error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if os.Getuid() == 0 {
			syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		}
		if _, reached = os.Stat(dir); reached != nil {
			return
		}
		var packed bytes.Buffer
		if _, err := archive.Pack(t.Context(), dir, &packed, limits); !archive.IsInvalid(err) {
			t.Errorf("pack of a directory that cannot be read: %v", err)
		}
		if err := archive.Remove(dir); err != nil {
			t.Errorf("remove: %v", err)
		}
	}()
	<-done
	if reached != nil {
		require.Missing(t, "shared-tmp", fmt.Sprintf("others may not enter the directory for temporary files: %v", reached))
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
