//go:build unix

package procbox_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// builtProgram is a folder that execProgram made.
var builtProgram string

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if dir := builtProgram; dir != "" {
			os.RemoveAll(dir)
		}
		os.Exit(code)
	}))
}
