package procbox

import (
	"os"
	"strconv"
	"syscall"
)

// onlyThird returns the files that a child gets beside its standard streams: f
// as descriptor 3, and none of those that the host has open without
// close-on-exec, which it may have got from its own parent.
func onlyThird(f *os.File) []*os.File {
	files := []*os.File{f}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return files
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd < 4 || fd > 1<<16 {
			continue
		}
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if errno == 0 && flags&syscall.FD_CLOEXEC == 0 {
			files = append(files, make([]*os.File, max(0, fd-2-len(files)))...) // a nil closes
		}
	}
	return files
}
