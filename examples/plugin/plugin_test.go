package plugin_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/fnkit/fnkit/internal/require"
)

// TestExample builds both programs and runs the host.
func TestExample(t *testing.T) {
	t.Parallel()
	require.Command(t, "go")
	require.Command(t, "node")
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "./plugin", "./host")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "host"), filepath.Join(dir, "plugin")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^node-[0-9.]+ in a plugin answers 200 "Hello!"$`).Match(out) {
		t.Errorf("it says\n%s", out)
	}
}
