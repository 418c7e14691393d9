//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package procbox

import (
	"io/fs"
	"net"
	"os"
	"syscall"
)

func supported() error { return nil }

// ownGroup has a process lead a process group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killGroup kills the process group that pid leads.
func killGroup(pid int) {
	if pid > 1 {
		syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// channel makes the two ends of an instance's channel.
func channel() (host, child *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		syscall.Close(fds[0])
		syscall.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel"), nil
}

// allocated is how many bytes of the disk a file takes.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}

// setBlocking makes a descriptor what programs expect of one that they inherit.
func setBlocking(f *os.File) error {
	return os.NewSyscallError("fcntl", syscall.SetNonblock(int(f.Fd()), false))
}

// What pending tells of a connection.
const (
	nonePending = iota // a read would wait
	somePending
	endPending
)

// pending tells what there is to read, without reading it.
func pending(conn net.Conn) int {
	state := endPending
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return state
	}
	raw.Control(func(fd uintptr) {
		var p [1]byte
		switch n, _, err := syscall.Recvfrom(int(fd), p[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT); {
		case err == syscall.EAGAIN:
			state = nonePending
		case err == nil && n > 0:
			state = somePending
		}
	})
	return state
}

// readNow reads what is there.
func readNow(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }
