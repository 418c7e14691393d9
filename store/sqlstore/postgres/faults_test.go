package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
)

// calls are one call of each kind.
func calls(ctx context.Context, s *sqlstore.Store) map[string]error {
	log := store.LogRef{Project: "p", Kind: store.BuildLog, ID: "d"}
	claim := store.ClaimParams{Now: time.Unix(1, 0), LeaseUntil: time.Unix(2, 0), Limit: 1}
	return map[string]error{
		"read":    second(s.GetFunction(ctx, "p", "f")),
		"list":    second(s.ListExecutions(ctx, "p", "f", "", store.Query{})),
		"count":   second(s.CountExecutions(ctx, "p", "f", "", store.Query{}, 10)),
		"write":   second(s.CreateFunction(ctx, store.Function{Project: "p", ID: fmt.Sprint("f", time.Now().UnixNano())})),
		"update":  second(s.UpdateFunction(ctx, "p", "f", func(*store.Function) error { return nil })),
		"append":  s.AppendExecutions(ctx, []store.Execution{{Project: "p", ID: fmt.Sprint("x", time.Now().UnixNano()), FunctionID: "f"}}),
		"logs":    s.AppendLogs(ctx, log, []store.LogChunk{{Data: []byte("x")}}),
		"claim":   second(s.Runs().Claim(ctx, claim)),
		"settle":  second(s.Runs().Settle(ctx, []store.Settlement[store.Execution]{{Lease: store.Lease{Project: "p", ID: "x"}}})),
		"tx":      s.InTx(ctx, func(ctx context.Context, tx store.Tx) error { return second(tx.FunctionRevision(ctx, "p", "f")) }),
		"ping":    s.Ping(ctx),
		"migrate": s.Migrate(ctx),
	}
}

func second[T any](_ T, err error) error { return err }

func filled(t *testing.T, dsn string) *sqlstore.Store {
	t.Helper()
	s := open(t, dsn)
	if _, err := s.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestServerGone: while the server cannot be reached every call says so, and
// when it is back all goes on.
func TestServerGone(t *testing.T) {
	t.Parallel()
	w, dsn := postgrestest.Through(t, postgrestest.DSN(t))
	s := filled(t, dsn)
	for range 2 {
		w.Cut(true)
		for what, err := range calls(t.Context(), s) {
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s without a server: %v", what, err)
			}
		}
		if other, err := postgres.Open(t.Context(), dsn); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("open without a server: %v", err)
			if err == nil {
				other.Close()
			}
		}
		w.Cut(false)
		for what, err := range calls(t.Context(), s) {
			if err != nil {
				t.Errorf("%s after the server is back: %v", what, err)
			}
		}
	}
}

// TestWakesEnd: hints end with the connection, and with the store.
func TestWakesEnd(t *testing.T) {
	t.Parallel()
	w, dsn := postgrestest.Through(t, postgrestest.DSN(t))
	s := filled(t, dsn)
	ends := func(wakes <-chan struct{}) {
		t.Helper()
		for {
			select {
			case _, open := <-wakes:
				if !open {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the channel is still open")
			}
		}
	}
	wakes, err := s.Wakes(t.Context())
	if err != nil || wakes == nil {
		t.Fatalf("%v, %v", wakes, err)
	}
	w.Cut(true)
	ends(wakes)
	if _, err := s.Wakes(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without a server: %v", err)
	}
	w.Cut(false)
	if wakes, err = s.Wakes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	ends(wakes)
	if _, err := s.Wakes(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("of a closed store: %v", err)
	}
}

// TestServerGoneInATransaction: nothing of it is there.
func TestServerGoneInATransaction(t *testing.T) {
	t.Parallel()
	w, dsn := postgrestest.Through(t, postgrestest.DSN(t))
	s := filled(t, dsn)
	err := s.InTx(t.Context(), func(ctx context.Context, tx store.Tx) error {
		tx.AfterCommit(func() { t.Error("AfterCommit ran without a commit") })
		_, err := tx.CreateFunction(ctx, store.Function{Project: "p", ID: "lost"})
		w.Cut(true)
		return err
	})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the commit: %v", err)
	}
	w.Cut(false)
	if _, err := s.GetFunction(t.Context(), "p", "lost"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after a lost transaction: %v", err)
	}
}

// TestConnectionsEnded: connections that the server ended while they were idle
// are not noticed.
func TestConnectionsEnded(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	s := filled(t, postgrestest.With(dsn, "application_name", "doomed_"+t.Name()))
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var ended int
	query := "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1"
	if err := db.QueryRowContext(t.Context(), query, "doomed_"+t.Name()).Scan(&ended); err != nil || ended == 0 {
		t.Fatalf("ended %d connections, %v", ended, err)
	}
	failed := 0
	for range 20 {
		for what, err := range calls(t.Context(), s) {
			if err != nil && !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s: %v", what, err)
			}
			if err != nil {
				failed++
			}
		}
	}
	if failed > ended {
		t.Errorf("%d calls failed for %d connections that were ended", failed, ended)
	}
}

// TestDeadline: a call ends with its context, whatever the server does.
func TestDeadline(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	s := filled(t, postgrestest.With(dsn, "idle_in_transaction_session_timeout", "10min")) // it stands still for as long as the test lasts
	held := make(chan struct{})
	release := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.InTx(t.Context(), func(ctx context.Context, tx store.Tx) error {
			_, err := tx.UpdateFunction(ctx, "p", "f", func(*store.Function) error { return nil })
			close(held)
			<-release
			return err
		})
	}()
	<-held
	update := func(ctx context.Context, dsn string) error {
		return second(open(t, dsn).UpdateFunction(ctx, "p", "f", func(*store.Function) error { return nil }))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := update(ctx, dsn); !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past its deadline: %v", err)
	}
	for _, setting := range []string{"lock_timeout", "statement_timeout"} {
		if err := update(t.Context(), postgrestest.With(dsn, setting, "100ms")); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", setting, err)
		}
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go cancelWaiting(ctx, cancel, dsn)
	if err := update(ctx, postgrestest.With(dsn, "application_name", "waiting")); !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("canceled: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// cancelWaiting cancels when a session of the name "waiting" waits for a lock.
func cancelWaiting(ctx context.Context, cancel func(), dsn string) {
	defer cancel()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return
	}
	defer db.Close()
	for waits := false; err == nil && !waits; {
		err = db.QueryRowContext(ctx, "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'waiting' AND wait_event_type = 'Lock'").Scan(&waits)
	}
}

// TestATransactionThatStandsStill: an engine that stops in the middle of a
// transaction does not keep its rows from the others for ever, and commits
// nothing when it wakes up.
func TestATransactionThatStandsStill(t *testing.T) {
	t.Parallel()
	for name, sleeper := range map[string]func(t *testing.T, dsn string) *sqlstore.Store{
		"by its DSN": func(t *testing.T, dsn string) *sqlstore.Store {
			s := open(t, postgrestest.With(dsn, "idle_in_transaction_session_timeout", "3s"))
			s.LeasesLast(time.Millisecond) // the host knows better
			return s
		},
		"by the lease": func(t *testing.T, dsn string) *sqlstore.Store {
			s := open(t, dsn) // and has sessions already
			for _, lease := range []time.Duration{time.Minute, time.Second, 2 * time.Second} {
				s.LeasesLast(lease)
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := postgrestest.DSN(t)
			standStill(t, sleeper(t, dsn), open(t, dsn))
		})
	}
}

// standStill has one engine stand still in a transaction until another gets its row.
func standStill(t *testing.T, sleeper, other *sqlstore.Store) {
	row := store.Execution{Project: "p", ID: "x", FunctionID: "f", Status: store.ExecutionWaiting, ReadyAt: time.Unix(1, 0)}
	if err := other.AppendExecutions(t.Context(), []store.Execution{row}); err != nil {
		t.Fatal(err)
	}
	claim := store.ClaimParams{Now: time.Unix(1, 0), LeaseUntil: time.Unix(2, 0), Limit: 1}
	began := time.Now()
	err := sleeper.InTx(t.Context(), func(ctx context.Context, tx store.Tx) error {
		if rows, err := tx.Runs().Claim(ctx, claim); err != nil || len(rows) != 1 {
			return fmt.Errorf("claimed %d rows: %w", len(rows), err)
		}
		if rows, err := other.Runs().Claim(ctx, claim); err != nil || len(rows) != 0 {
			return fmt.Errorf("the other claimed %d rows at once: %w", len(rows), err)
		}
		for ctx.Err() == nil {
			if rows, err := other.Runs().Claim(ctx, claim); err != nil || len(rows) == 1 {
				return err
			}
			runtime.Gosched()
		}
		return ctx.Err()
	})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the sleeper's commit: %v", err)
	}
	if took := time.Since(began); took > 9*time.Second || took < 900*time.Millisecond { // without a limit, 10 s
		t.Errorf("the other waited for %s", took)
	}
	if x, err := other.GetExecution(t.Context(), "p", "f", "x"); err != nil || x.Attempt != 1 {
		t.Errorf("%+v, %v", x, err)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	filled(t, dsn)
	db, err := sql.Open("pgx", postgrestest.With(dsn, "default_transaction_read_only", "on"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := sqlstore.New(bun.NewDB(db, pgdialect.New()), sqlstore.Options{Close: db.Close})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for what, err := range calls(t.Context(), s) {
		if reads := what == "read" || what == "list" || what == "count" || what == "tx"; reads && err != nil {
			t.Errorf("%s: %v", what, err)
		} else if !reads && what != "claim" && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s on a read-only server: %v", what, err)
		}
	}
}

// TestDiskFull: the server answers as it does when its disk is full.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	s := filled(t, dsn)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON fnkit_executions FOR EACH STATEMENT EXECUTE FUNCTION full_disk();
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON fnkit_functions FOR EACH STATEMENT EXECUTE FUNCTION full_disk()`)
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range calls(t.Context(), s) {
		if writes := what == "write" || what == "update" || what == "append" || what == "settle"; writes && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s on a full disk: %v", what, err)
		} else if !writes && what != "claim" && err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if errors.Is(s.AppendExecutions(t.Context(), nil), store.ErrUnavailable) {
		t.Error("nothing does not fit")
	}
}

func TestNoSuchServer(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	for what, dsn := range map[string]string{
		"database": postgrestest.With(dsn, "dbname", "no_such_database"), "user": postgrestest.With(dsn, "user", "no_such_user"),
		"host": "host=127.0.0.1 port=1 user=x dbname=x", "schema": postgrestest.With(dsn, "search_path", "no_such_schema"),
	} {
		s, err := postgres.Open(t.Context(), dsn)
		if err == nil {
			s.Close()
		}
		if err == nil || what != "schema" && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("no such %s: %v", what, err)
		}
	}
	if _, err := postgres.Open(t.Context(), "postgres://%zz"); err == nil {
		t.Error("opened a DSN that is none")
	} else if text := err.Error(); text == "" || errors.As(err, new(*url.Error)) {
		t.Errorf("%v", err)
	}
}
