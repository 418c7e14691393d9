package procbox

import (
	"fmt"
	"os"
)

// socketAddress is an address in a directory, however long its path is.
func socketAddress(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName)
}
