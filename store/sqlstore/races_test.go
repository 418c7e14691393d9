package sqlstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
)

// atPostgres returns a store in a schema of its own, and a handle.
func atPostgres(t *testing.T) (*sqlstore.Store, *bun.DB) {
	t.Helper()
	d := inSchema(t)
	s := d.store(t)
	must(t, s.Migrate(t.Context()))
	return s, d.open()
}

// holding executes statements in a transaction, begins something that has to wait for it,
// calls meanwhile when it does, ends the transaction, and returns what became of it.
func holding(t *testing.T, db *bun.DB, statement string, begin func() error, meanwhile func()) error {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), statement)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- begin() }()
	const waits = `SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND (relation IN (SELECT oid FROM pg_class WHERE relnamespace = CAST(current_schema() AS regnamespace))
OR locktype = 'advisory' AND CAST(classid AS BIGINT) << 32 | CAST(objid AS BIGINT) = hashtextextended(current_schema(), 0))`
	for waiting := false; !waiting; {
		must(t, db.NewRaw(waits).Scan(t.Context(), &waiting))
	}
	meanwhile()
	must(t, tx.Commit())
	return <-done
}

// rows counts those of a table.
func rows(t *testing.T, db *bun.DB, table string) (n int) {
	t.Helper()
	must(t, db.NewRaw("SELECT count(*) FROM ?", bun.Ident("fnkit_"+table)).Scan(t.Context(), &n))
	return n
}

func queued(id string) store.Execution {
	return store.Execution{Project: "p", ID: id, FunctionID: "f", CreatedAt: at(1), UpdatedAt: at(1), Status: store.ExecutionWaiting, ReadyAt: at(1), Payload: []byte("sealed")}
}

// TestAcceptedWhileItsFunctionIsDeleted: what is left of an execution is all of it.
func TestAcceptedWhileItsFunctionIsDeleted(t *testing.T) {
	t.Parallel()
	s, db := atPostgres(t)
	_, err := s.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f"})
	must(t, err)
	must(t, s.AppendExecutions(t.Context(), []store.Execution{queued("before")}))
	for _, statement := range []string{
		"CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(hashtextextended(current_schema(), 0)); RETURN NULL; END $$",
		"CREATE TRIGGER pause BEFORE DELETE ON fnkit_executions FOR EACH STATEMENT EXECUTE FUNCTION pause()",
	} {
		_, err := db.ExecContext(t.Context(), statement)
		must(t, err)
	}
	must(t, holding(t, db, "SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 0))", func() error {
		_, err := s.DeleteFunction(t.Context(), "p", "f")
		return err
	}, func() {
		must(t, s.AppendExecutions(t.Context(), []store.Execution{queued("meanwhile")}))
	}))
	if executions, runs := rows(t, db, "executions"), rows(t, db, "runs"); executions != runs {
		t.Errorf("%d executions and %d in the queue are left", executions, runs)
	}
	must(t, s.DeleteProject(t.Context(), "p"))
	if executions, runs := rows(t, db, "executions"), rows(t, db, "runs"); executions+runs > 0 {
		t.Errorf("%d executions and %d in the queue are left of the project", executions, runs)
	}
}

// TestAClaimThatIsCutOff claims nothing: no attempt, no loss.
func TestAClaimThatIsCutOff(t *testing.T) {
	t.Parallel()
	s, db := atPostgres(t)
	must(t, s.AppendExecutions(t.Context(), []store.Execution{queued("x")}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := holding(t, db, "LOCK TABLE fnkit_executions IN ACCESS EXCLUSIVE MODE", func() error {
		_, err := s.Runs().Claim(ctx, store.ClaimParams{Now: at(2), LeaseUntil: at(9), Limit: 1})
		return err
	}, cancel)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	claimed, err := s.Runs().Claim(t.Context(), store.ClaimParams{Now: at(2), LeaseUntil: at(9), Limit: 1})
	if err != nil || len(claimed) != 1 || claimed[0].Lease.Attempt != 1 || claimed[0].Row.Losses != 0 {
		t.Errorf("claimed %+v, %v", claimed, err)
	}
}

// TestAcceptedWhileTheQueueMoves: an engine of the version before, which should have
// been stopped, accepts an execution while the tables are migrated.
func TestAcceptedWhileTheQueueMoves(t *testing.T) {
	t.Parallel()
	s, db := atPostgres(t)
	must(t, s.MigrateDown(t.Context(), 7))
	const accept = `INSERT INTO fnkit_executions (project_id, id, function_id, deployment_id, created_at, updated_at, user_id, trigger_kind, event, status, request_method, request_path,
  request_headers, response_status_code, response_headers, logs, errors, duration, attempt, ready_at) VALUES ('p', 'x', 'f', '', 1, 1, '', 'http', '', 'waiting', '', '', '[]', 0, '[]', '', '', 0, 0, 1);
INSERT INTO fnkit_payloads (project_id, execution_id, function_id, sealed) VALUES ('p', 'x', 'f', 'sealed')`
	must(t, holding(t, db, accept, func() error { return s.Migrate(t.Context()) }, func() {}))
	claimed, err := s.Runs().Claim(t.Context(), store.ClaimParams{Now: at(2), LeaseUntil: at(9), Limit: 1})
	if err != nil || len(claimed) != 1 || string(claimed[0].Row.Payload) != "sealed" {
		t.Errorf("claimed %+v, %v", claimed, err)
	}
}
