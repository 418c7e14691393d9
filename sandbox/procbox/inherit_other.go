//go:build !linux

package procbox

import "os"

// onlyThird returns the files that a child gets beside its standard streams.
func onlyThird(f *os.File) []*os.File { return []*os.File{f} }
