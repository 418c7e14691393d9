package attack_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if compiled != "" {
			os.RemoveAll(compiled)
		}
		os.Exit(code)
	}))
}
