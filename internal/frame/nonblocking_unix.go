//go:build unix

package frame

import (
	"errors"
	"io"
	"syscall"
)

// nonblocking returns a function that writes to w what can be written without
// waiting, or nil if w is nothing of the operating system's. It is not safe for
// concurrent use.
func nonblocking(w io.Writer) func(p []byte) (int, error) {
	sc, ok := w.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	var (
		buf  []byte
		n    int
		fail error
	)
	once := func(fd uintptr) bool {
		for {
			n, fail = syscall.Write(int(fd), buf)
			if !errors.Is(fail, syscall.EINTR) {
				return true
			}
		}
	}
	return func(p []byte) (int, error) {
		buf = p
		err := raw.Write(once)
		buf = nil
		switch {
		case err != nil:
			return 0, err
		case fail == syscall.EAGAIN:
			return 0, nil
		case fail != nil:
			return 0, fail
		}
		return n, nil
	}
}
