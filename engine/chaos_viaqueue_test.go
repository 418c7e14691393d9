package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
)

// TestChaosViaQueue kills the process that runs a synchronous call of another, and
// then the one that waits for another's answer. Neither call runs twice.
func TestChaosViaQueue(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]func(t *testing.T, cfg *memberConfig){
		"sqlite":   func(_ *testing.T, cfg *memberConfig) { cfg.SQLite = filepath.Join(cfg.Dir, "fnkit.db") },
		"postgres": func(t *testing.T, cfg *memberConfig) { cfg.Postgres = postgrestest.DSN(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := memberConfig{Dir: t.TempDir(), Epoch: time.Now(), Speed: 1}
			on(t, &cfg)
			testChaosViaQueue(t, cfg)
		})
	}
}

func testChaosViaQueue(t *testing.T, cfg memberConfig) {
	first := startMember(t, cfg)
	first.create(t, engine.FunctionParams{ID: "f"})
	front := cfg
	front.Front = true
	caller := startMember(t, front)
	call := func(ms string) <-chan response {
		over := make(chan response, 1)
		go func() {
			q := request{Do: "execute", Function: engine.FunctionParams{ID: "f"}, Execute: engine.ExecuteParams{Path: "/?ms=" + ms}}
			a, err := caller.ask(t.Context(), q)
			if err != nil {
				a.Error = err.Error()
			}
			over <- a
		}()
		return over
	}
	last := func(by *remote, n int, is func(engine.ExecutionStatus) bool) engine.Execution {
		t.Helper()
		return eventually(t, func() (engine.Execution, bool) {
			all := by.all(t, "f")
			if len(all) != n {
				return engine.Execution{}, false
			}
			return all[n-1], is(all[n-1].Status)
		})
	}
	running := func(s engine.ExecutionStatus) bool { return s == store.ExecutionProcessing }
	ran := func(x engine.Execution) int {
		t.Helper()
		text, err := os.ReadFile(cfg.ledger())
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Count(string(text), x.ID+"\n")
	}

	answer := call("20000")
	x := last(first, 1, running)
	first.kill()
	second := startMember(t, cfg)
	if a := <-answer; !strings.Contains(a.Error, "not run again") {
		t.Errorf("the caller of one that was killed is told: %+v", a)
	}
	if x = last(second, 1, engine.ExecutionStatus.Final); x.Status != store.ExecutionFailed || ran(x) != 0 {
		t.Errorf("one that was killed: %+v, ran %d times", x, ran(x))
	}

	answer = call("3000")
	last(second, 2, running)
	caller.kill()
	if a := <-answer; a.Error == "" {
		t.Errorf("a process that was killed answers: %+v", a)
	}
	if x = last(second, 2, engine.ExecutionStatus.Final); x.Status != store.ExecutionCompleted || ran(x) != 1 {
		t.Errorf("one whose caller was killed: %+v, ran %d times", x, ran(x))
	}
}
