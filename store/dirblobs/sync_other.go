//go:build !unix

package dirblobs

import "os"

// syncDir does nothing: directories cannot be flushed here.
func syncDir(*os.Root, string) error { return nil }
