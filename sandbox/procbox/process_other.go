//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package procbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"syscall"
)

func supported() error {
	return fmt.Errorf("procbox: not available on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func ownGroup() *syscall.SysProcAttr { return nil }

func killGroup(int) {}

func channel() (host, child *os.File, err error) { return nil, nil, supported() }

func allocated(info fs.FileInfo) int64 { return info.Size() }

func setBlocking(*os.File) error { return supported() }

const (
	nonePending = iota
	somePending
)

func pending(net.Conn) int { return nonePending }

func readNow(uintptr, []byte) (int, error) { return 0, supported() }
