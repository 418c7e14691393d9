package attack_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// compiled is the folder of the hostile harness.
var compiled string

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if compiled != "" {
			os.RemoveAll(compiled)
		}
		os.Exit(code)
	}))
}
