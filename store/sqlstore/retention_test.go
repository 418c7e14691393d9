package sqlstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/fnkit/fnkit/store"
)

// TestOldRowsAndTheQueueDoNotWaitForEachOther: on Postgres, while a transaction
// holds the locks of one, the other goes on.
func TestOldRowsAndTheQueueDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	d := inSchema(t)
	s := d.store(t)
	must(t, s.Migrate(t.Context()))
	old := store.Execution{Project: "p", ID: "old", FunctionID: "f", CreatedAt: at(1), UpdatedAt: at(1), Status: store.ExecutionCompleted}
	waiting := old
	waiting.ID, waiting.Status, waiting.ReadyAt = "waiting", store.ExecutionWaiting, at(1)
	must(t, s.AppendExecutions(t.Context(), []store.Execution{old, waiting}))

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	remove := func() int {
		t.Helper()
		n, err := s.DeleteExecutions(ctx, "p", "f", at(9), 10, store.ExecutionCompleted)
		must(t, err)
		return n
	}
	holding := func(statement string, meanwhile func()) {
		t.Helper()
		tx, err := d.open().BeginTx(t.Context(), nil)
		must(t, err)
		defer tx.Rollback()
		_, err = tx.ExecContext(t.Context(), statement)
		must(t, err)
		meanwhile()
	}
	holding("DELETE FROM fnkit_executions WHERE status = 'completed'", func() {
		if n := remove(); n != 0 { // another engine is at it
			t.Errorf("%d removed beside another", n)
		}
		rows, err := s.Runs().Claim(ctx, store.ClaimParams{Now: at(5), LeaseUntil: at(9), Limit: 10})
		if must(t, err); len(rows) != 1 {
			t.Errorf("%d claimed", len(rows))
		}
	})
	holding("UPDATE fnkit_runs SET attempt = attempt + 1 WHERE status = 'processing'", func() {
		if n := remove(); n != 1 {
			t.Errorf("%d removed beside a claim", n)
		}
	})
}
