//go:build amd64 || arm64

package confine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openImage writes init to sealed memory, from which it is executed: nobody,
// the programs it starts included, can change it.
func openImage() (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("fnkit-init", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("fnkit-init", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memory for init: %w", err)
	}
	f := os.NewFile(uintptr(fd), "fnkit-init")
	if _, err = f.Write(initProgram); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write init: %w", err)
	}
	return f, nil
}
