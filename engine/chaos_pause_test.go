//go:build unix

package engine_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
)

// TestChaosPause stops an engine for longer than its lease, while it writes a
// result and while a function runs. Another takes over, and what the first one
// says when it goes on is refused.
func TestChaosPause(t *testing.T) {
	t.Parallel()
	cfg := memberConfig{Postgres: postgrestest.DSN(t), Dir: t.TempDir(), Epoch: time.Now(), Speed: 1}
	second := startMember(t, cfg)
	second.create(t, engine.FunctionParams{ID: "f"})
	second.pause(t, syscall.SIGSTOP) // the first one gets the work
	slow := cfg
	slow.Held = filepath.Join(cfg.Dir, "go on")
	first := startMember(t, slow)
	execute := func(ms int) string {
		q := request{Do: "execute", Function: engine.FunctionParams{ID: "f"}, Execute: engine.ExecuteParams{Async: true, Path: "/?ms=" + strconv.Itoa(ms)}}
		return first.must(t, q).Executions[0].ID
	}
	written, running := execute(0), execute(1500)
	cfg.await(t, "settles", first, written)
	eventually(t, func() (any, bool) {
		all := first.all(t, "f")
		return all, all[1].Status == store.ExecutionProcessing
	})
	first.pause(t, syscall.SIGSTOP)
	second.pause(t, syscall.SIGCONT)
	for _, id := range []string{written, running} {
		cfg.await(t, "ran", second, id)
	}
	ended := func() []engine.Execution {
		return eventually(t, func() ([]engine.Execution, bool) {
			all := second.all(t, "f")
			return all, all[0].Status.Final() && all[1].Status.Final()
		})
	}
	answers := ended()
	if err := os.WriteFile(slow.Held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first.pause(t, syscall.SIGCONT)
	cfg.await(t, "refused", first, written)
	cfg.await(t, "lost", first, running)
	for i, x := range ended() {
		if by := strconv.Itoa(second.cmd.Process.Pid) + "\n"; x.Status != store.ExecutionCompleted || x.Attempt != 2 || x.Logs != by || !x.UpdatedAt.Equal(answers[i].UpdatedAt) {
			t.Errorf("%+v, want the answer of %s", x, by)
		}
	}
}

// pause sends a signal that stops the process or lets it go on.
func (r *remote) pause(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// await waits until a process has noted something about an execution.
func (c memberConfig) await(t *testing.T, what string, r *remote, id string) {
	t.Helper()
	line := what + " " + strconv.Itoa(r.cmd.Process.Pid) + " " + id + "\n"
	eventually(t, func() (string, bool) {
		text, _ := os.ReadFile(c.ledger())
		return "want " + line + string(text), strings.Contains(string(text), line)
	})
}
