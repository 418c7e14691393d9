//go:build amd64 || arm64

package attack_test

import (
	"context"
	"errors"
	"testing"

	"github.com/fnkit/fnkit/sandbox"
)

// TestPoison has a function take over what the harness in its process uses. It is
// alone there: what it spoils are its own calls, which end nevertheless.
func TestPoison(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"node", "bun", "deno"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			s := open(t, "full", key)
			for _, what := range []string{"JSON", "Buffer", "Promise", "Map", "prototype", "socket", "exit"} {
				for n := range 2 { // in the call itself, and in the next
					got, res, err := s.askWithin(spoiled, s.id, "poison", what)
					t.Logf("%-10s %d: %q %+v %v", what, n, got, res, err)
					if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, sandbox.ErrGone) {
						t.Errorf("%s: %v", what, err)
					}
				}
				s.unharmed(what)
				if err := s.box.Stop(t.Context(), s.id); err != nil {
					t.Error(err)
				}
				s.start()
				s.do(s.id, "true")
			}
		})
	}
}
