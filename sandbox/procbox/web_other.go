//go:build !linux

package procbox

import (
	"os"
	"path/filepath"
)

// socketAddress is an address in a directory. Its length is limited.
func socketAddress(dir *os.File) string { return filepath.Join(dir.Name(), socketName) }
