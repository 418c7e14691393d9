package sandbox_test

import (
	"testing"

	"github.com/fnkit/fnkit/sandbox"
)

func TestRuntimeForUsesCatalogueIDs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ key, version, id string }{
		{"node", "20.20.2", "node-20.0"}, {"node", "14.21.0", "node-14"}, {"node", "18.1.0", "node-18.0"},
		{"node", "22.9.0", "node-22"}, {"node", "24.1.0", "node-24"},
		{"python", "3.11.7", "python-3.11"}, {"python", "3.13.1", "python-3.13"},
		{"php", "8.2.36", "php-8.2"}, {"ruby", "3.1.2", "ruby-3.1"}, {"go", "1.26.8", "go-1.26"}, {"go", "1.23.1", "go-1.23"},
	} {
		if got := sandbox.RuntimeFor(c.key, c.version, "x86").ID; got != c.id {
			t.Errorf("RuntimeFor(%s, %s) = %s, want %s", c.key, c.version, got, c.id)
		}
	}
}

func TestCatalogue(t *testing.T) {
	t.Parallel()
	all := sandbox.Catalogue()
	if len(all) != 59 {
		t.Fatalf("%d runtimes in the catalogue, want 59", len(all))
	}
	seen := map[string]bool{}
	for _, r := range all {
		if seen[r.ID] || r.Name == "" || r.Concurrency < 1 || len(r.Supports) == 0 {
			t.Errorf("bad entry %+v", r)
		}
		seen[r.ID] = true
	}
}
