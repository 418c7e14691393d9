package archive

import (
	"errors"
	"syscall"
)

// What Windows answers when a disk is full or broken, or too much is open.
const (
	errTooManyOpenFiles = syscall.Errno(4)
	errWriteProtect     = syscall.Errno(19)
	errHandleDiskFull   = syscall.Errno(39)
	errDiskFull         = syscall.Errno(112)
	errIODevice         = syscall.Errno(1117)
)

// diskTrouble reports whether an error is the machine's and not the archive's.
func diskTrouble(err error) bool {
	for _, trouble := range []error{errTooManyOpenFiles, errWriteProtect, errHandleDiskFull, errDiskFull, errIODevice} {
		if errors.Is(err, trouble) {
			return true
		}
	}
	return false
}
