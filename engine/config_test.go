package engine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// TestConfigIsChecked: New names every fault at once.
func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := engine.New(engine.Config{
		MinIsolation: "strong", Keys: engine.Key("k1", []byte("short")),
		Limits:    engine.Limits{Timeout: -1, SyncTimeout: -1, Memory: -1},
		Instances: engine.Instances{Max: -1, PerProject: -1, PerDeployment: -1, Wait: -1},
		Work:      engine.Work{Runs: -1, Lease: time.Millisecond},
	})
	for _, want := range []string{
		"Store is missing", "Blobs is missing", "Sandbox is missing", `key "k1" needs`, `MinIsolation: "strong"`,
		"Limits.Timeout: -1", "Limits.SyncTimeout: -1", "Limits.Memory must not be negative",
		"Instances.Max: -1", "Instances.PerProject: -1", "Instances.PerDeployment: -1", "Instances.Wait: -1",
		"Work.Runs: -1", "Work.Lease: 1ms",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said in %v", want, err)
		}
	}
}
