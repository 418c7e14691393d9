package clienttest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
)

// TestNodeSDK takes a function through its whole life with two versions of the
// SDK for Node.js.
func TestNodeSDK(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"14", "27"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			travel(t, "server"+version+".mjs")
		})
	}
}

// TestWebSDK calls functions as users and guests do.
func TestWebSDK(t *testing.T) {
	t.Parallel()
	travel(t, "web.mjs")
}

// travel runs a journey of the directory js against a server of its own.
func travel(t *testing.T, journey string) {
	t.Helper()
	dir := clients(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, require.Command(t, "node"), filepath.Join(dir, journey))
	cmd.Env = append(os.Environ(), "FNKIT_ENDPOINT="+start(t, "node"), "FNKIT_PROJECT="+project, "FNKIT_KEY="+key,
		"FNKIT_ANN="+ann, "FNKIT_ANN_TOKEN="+annToken, "FNKIT_BOB="+bob, "FNKIT_BOB_TOKEN="+bobToken)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the journey ends with %v", err)
	}
}
