// Package require lets tests skip what a machine does not have, and lets CI
// turn such a skip into a failure.
package require

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Env names the parts that must be present, separated by commas: a test that
// would skip because one of them is missing fails instead.
const Env = "FNKIT_REQUIRE"

// Command skips the test if the command name is not on the PATH, and returns
// its path otherwise. The part has the command's name.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name, err.Error())
	}
	return path
}

// Missing skips the test because a part is missing, or fails it if the part is
// required.
func Missing(t testing.TB, part, why string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv(Env), ","), part) {
		t.Fatalf("%s is required by %s: %s", part, Env, why)
	}
	t.Skipf("needs %s: %s", part, why)
}
