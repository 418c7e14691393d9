package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	_ "github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
	_ "github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "40"); err != nil { // the default here: some seconds
		panic(err)
	}
	goleak.VerifyTestMain(postgrestest.Main(m))
}

// database is an empty one, as a host may have it.
type database struct {
	open func() *bun.DB // a handle of its own for each caller
	// columns lists table.column of all tables.
	columns string
}

var kinds = map[string]func(*testing.T) database{"sqlite": inFile, "postgres": inSchema}

// each runs a test on every kind of database.
func each(t *testing.T, test func(*testing.T, database)) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, kind(t))
		})
	}
}

func inFile(t *testing.T) database {
	path := filepath.Join(t.TempDir(), "db")
	return database{
		open: func() *bun.DB {
			db := handle(t, "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate")
			db.SetMaxOpenConns(1)
			return bun.NewDB(db, sqlitedialect.New())
		},
		columns: "SELECT m.name || '.' || p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table' AND m.name LIKE 'fnkit%' ORDER BY 1",
	}
}

func inSchema(t *testing.T) database {
	dsn := postgrestest.DSN(t)
	return database{
		// As a host has it that knows nothing of package postgres.
		open:    func() *bun.DB { return bun.NewDB(handle(t, "pgx", dsn), pgdialect.New()) },
		columns: "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1",
	}
}

func handle(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func (d database) store(t *testing.T) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.New(d.open(), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// shape is all tables and columns there are.
func (d database) shape(t *testing.T) string {
	t.Helper()
	var all []string
	if err := d.open().NewRaw(d.columns).Scan(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func (d database) exec(t *testing.T, statement string) {
	t.Helper()
	if _, err := d.open().ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// at is a time in seconds, and none for 0.
func at(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMigrateUpAndDown(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		s := d.store(t)
		must(t, s.Migrate(t.Context()))
		newest := d.shape(t)
		fill(t, s)
		// To each version, and up again from there.
		for version := sqlstore.Version - 1; version >= 0; version-- {
			must(t, s.MigrateDown(t.Context(), version))
			below := d.shape(t)
			must(t, s.MigrateDown(t.Context(), version))
			if again := d.shape(t); again != below || version < 6 && below == newest { // version 7 has other indexes only
				t.Errorf("down to %d:\n%s\nand once more:\n%s", version, below, again)
			}
			must(t, s.Migrate(t.Context()))
			if up := d.shape(t); up != newest {
				t.Errorf("up from %d:\n%s\nwant\n%s", version, up, newest)
			}
			if _, err := s.GetFunction(t.Context(), "p", "f"); (err == nil) != (version > 0) {
				t.Errorf("after going down to %d: %v", version, err)
			}
		}
		must(t, s.MigrateDown(t.Context(), 0))
		if left := d.shape(t); left != "fnkit_migrations.version" {
			t.Errorf("version 0 has\n%s", left)
		}
	})
}

// TestTheQueueGoesUpAndDown: whatever state an execution is in, it is in it after the
// tables went to where the queue was one with the executions, and back.
func TestTheQueueGoesUpAndDown(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		s := d.store(t)
		must(t, s.Migrate(t.Context()))
		long := bytes.Repeat([]byte("long "), 1000)
		for i, id := range []string{"dead", "working", "parked", "waiting", "later"} { // due in this order
			x := store.Execution{Project: "p", ID: id, FunctionID: "f", CreatedAt: at(int64(i)), UpdatedAt: at(9), Status: store.ExecutionWaiting, ReadyAt: at(int64(1 + i)), Priority: 3, Lane: "l", Payload: long}
			if i%2 > 0 {
				x.Payload = []byte(id)
			}
			must(t, s.AppendExecutions(t.Context(), []store.Execution{x}))
		}
		must(t, s.AppendExecutions(t.Context(), []store.Execution{{Project: "p", ID: "final", FunctionID: "f", CreatedAt: at(7), UpdatedAt: at(9), Status: store.ExecutionFailed, Errors: "no"}}))
		claimed, err := s.Runs().Claim(t.Context(), store.ClaimParams{Now: at(3), LeaseUntil: at(90), Limit: 10})
		if err != nil || len(claimed) != 3 {
			t.Fatalf("claimed %d, %v", len(claimed), err)
		}
		for _, c := range claimed {
			switch c.Row.ID {
			case "dead":
				c.Row.Status, c.Row.ReadyAt = store.ExecutionDead, at(0)
				_, err = s.Runs().Settle(t.Context(), []store.Settlement[store.Execution]{store.Settlement[store.Execution](c)})
			case "parked", "working":
				_, err = s.Admit(t.Context(), c.Lease, store.Room{Lane: 1}, at(4))
			}
			must(t, err)
		}
		all := func() (rows []store.Execution) {
			t.Helper()
			rows, err := s.ListExecutions(t.Context(), "p", "f", "", store.Query{})
			must(t, err)
			return rows
		}
		before := all()
		var states []string
		for _, x := range before {
			states = append(states, fmt.Sprint(x.ID, " ", x.Status, " ", x.Attempt, " ", x.ReadyAt.IsZero()))
		}
		want := []string{"dead dead 1 true", "working processing 1 false", "parked waiting 1 true", "waiting waiting 0 false", "later waiting 0 false", "final failed 0 true"}
		if !slices.Equal(states, want) {
			t.Fatalf("%q, want %q", states, want)
		}
		must(t, s.MigrateDown(t.Context(), 7))
		must(t, s.Migrate(t.Context()))
		if after := all(); !reflect.DeepEqual(after, before) {
			t.Fatalf("after version 7:\n%+v\nbefore:\n%+v", after, before)
		}
		_, err = s.ReplayExecution(t.Context(), "p", "f", "dead", at(5))
		must(t, err)
		if n, err := s.Unpark(t.Context(), "p", "f", store.Room{}, at(5)); err != nil || n != 1 {
			t.Fatalf("%d left the gate, %v", n, err)
		}
		claimed = nil
		for range 2 { // the second takes what became due meanwhile
			more, err := s.Runs().Claim(t.Context(), store.ClaimParams{Now: at(90), LeaseUntil: at(99), Limit: 10})
			must(t, err)
			claimed = append(claimed, more...)
		}
		if len(claimed) != 5 {
			t.Fatalf("claimed %d", len(claimed))
		}
		for _, c := range claimed {
			if p := string(c.Row.Payload); p != c.Row.ID && p != string(long) || c.Row.Priority != 3 || c.Row.Lane != "l" {
				t.Errorf("claimed %+v", c)
			}
		}
	})
}

func fill(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	_, err1 := s.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f"})
	_, err2 := s.CreateDeployment(t.Context(), store.Deployment{Project: "p", ID: "d", FunctionID: "f"})
	_, err3 := s.CreateVariable(t.Context(), store.Variable{Project: "p", ID: "v", FunctionID: "f", Key: "K"})
	err4 := s.AppendExecutions(t.Context(), []store.Execution{{Project: "p", ID: "x", FunctionID: "f", Payload: []byte("sealed")}})
	must(t, errors.Join(err1, err2, err3, err4))
}

func TestManyMigrateAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		var wg sync.WaitGroup
		for range 8 {
			s := d.store(t)
			wg.Go(func() {
				if err := errors.Join(s.Migrate(t.Context()), s.Ping(t.Context())); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		fill(t, d.store(t))
	})
}

// TestACutOffMigrationIsDoneAgain: one that fails in the middle leaves nothing.
func TestACutOffMigrationIsDoneAgain(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE fnkit_logs (x INTEGER)") // in the way
		s := d.store(t)
		if err := s.Migrate(t.Context()); err == nil {
			t.Fatal("migrated over a table in the way")
		}
		if left := d.shape(t); left != "fnkit_logs.x\nfnkit_migrations.version" {
			t.Errorf("a step that failed left\n%s", left)
		}
		d.exec(t, "DROP TABLE fnkit_logs")
		must(t, s.Migrate(t.Context()))
		fill(t, s)
	})
}

// TestNeighbours: a version works on with tables that a later one has added
// to, and refuses those that it cannot work with.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		s := d.store(t)
		must(t, s.Migrate(t.Context()))
		exercise(t, s, "before") // statements are prepared, and stay so
		for _, table := range []string{"functions", "deployments", "variables", "executions", "runs", "payloads", "logs"} {
			d.exec(t, "ALTER TABLE fnkit_"+table+" ADD COLUMN later BIGINT NOT NULL DEFAULT 7")
		}
		d.exec(t, fmt.Sprintf("INSERT INTO fnkit_migrations (version, oldest) VALUES (%d, %d)", sqlstore.Version+1, sqlstore.Version))
		exercise(t, s, "beside")
		restarted := d.store(t)
		must(t, restarted.Migrate(t.Context()))
		exercise(t, restarted, "restarted")
		if err := restarted.MigrateDown(t.Context(), 0); !errors.Is(err, sqlstore.ErrNewer) {
			t.Errorf("down from a newer version: %v", err)
		}
		d.exec(t, fmt.Sprintf("INSERT INTO fnkit_migrations (version, oldest) VALUES (%d, %d)", sqlstore.Version+2, sqlstore.Version+1))
		if err := d.store(t).Migrate(t.Context()); !errors.Is(err, sqlstore.ErrNewer) {
			t.Errorf("a database of a version too far: %v", err)
		}
	})
}

// exercise uses every table, in a project of its own.
func exercise(t *testing.T, s *sqlstore.Store, project string) {
	t.Helper()
	ctx := t.Context()
	_, err := s.CreateFunction(ctx, store.Function{Project: project, ID: "f"})
	must(t, err)
	_, err = s.UpdateFunction(ctx, project, "f", func(f *store.Function) error { f.Name = "new"; return nil })
	must(t, err)
	_, err = s.CreateDeployment(ctx, store.Deployment{Project: project, ID: "d", FunctionID: "f", Status: store.DeploymentWaiting, ReadyAt: at(1)})
	must(t, err)
	_, err = s.CreateVariable(ctx, store.Variable{Project: project, ID: "v", FunctionID: "f", Key: "K"})
	must(t, err)
	rows := make([]store.Execution, 3)
	for i := range rows {
		rows[i] = store.Execution{Project: project, ID: fmt.Sprint(i), FunctionID: "f", Status: store.ExecutionWaiting, ReadyAt: at(1), Payload: []byte("sealed")}
	}
	must(t, s.AppendExecutions(ctx, rows))
	must(t, s.AppendLogs(ctx, store.LogRef{Project: project, Kind: store.BuildLog, ID: "d"}, []store.LogChunk{{Data: []byte("x")}}))
	p := store.ClaimParams{Now: at(1), LeaseUntil: at(2), Limit: 2}
	builds, err := s.Builds().Claim(ctx, p)
	if err != nil || len(builds) != 1 {
		t.Fatalf("claimed %d builds, %v", len(builds), err)
	}
	builds[0].Row.Status, builds[0].Row.ReadyAt = store.DeploymentReady, at(0)
	if lost, err := s.Builds().Settle(ctx, []store.Settlement[store.Deployment]{store.Settlement[store.Deployment](builds[0])}); err != nil || len(lost) > 0 {
		t.Fatalf("lost %v, %v", lost, err)
	}
	for left := len(rows); left > 0; {
		runs, err := s.Runs().Claim(ctx, p)
		if err != nil || len(runs) == 0 || string(runs[0].Row.Payload) != "sealed" {
			t.Fatalf("claimed %+v, %v", runs, err)
		}
		left -= len(runs)
		settled := make([]store.Settlement[store.Execution], len(runs))
		for i, r := range runs {
			r.Row.Status, r.Row.ReadyAt = store.ExecutionCompleted, at(0)
			settled[i] = store.Settlement[store.Execution](r)
		}
		if lost, err := s.Runs().Settle(ctx, settled); err != nil || len(lost) > 0 {
			t.Fatalf("lost %v, %v", lost, err)
		}
	}
	must(t, s.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		return tx.DeleteVariable(ctx, project, "f", "v")
	}))
	if rows, err := s.ListExecutions(ctx, project, "f", "", store.Query{}); err != nil || len(rows) != 3 {
		t.Fatalf("%d executions, %v", len(rows), err)
	}
}

// TestPayloadsGoWithTheEnd: what an execution was given is dropped when it is
// final, not before.
func TestPayloadsGoWithTheEnd(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		s, db := d.store(t), d.open()
		must(t, s.Migrate(t.Context()))
		for _, end := range []store.ExecutionStatus{store.ExecutionCompleted, store.ExecutionFailed, store.ExecutionCanceled} {
			row := store.Execution{Project: "p", ID: string(end), FunctionID: "f", Status: store.ExecutionWaiting, ReadyAt: at(1), Payload: []byte("sealed")}
			must(t, s.AppendExecutions(t.Context(), []store.Execution{row}))
			for _, next := range []store.Execution{{Status: store.ExecutionWaiting, ReadyAt: at(1)}, {Status: end}} {
				claimed, err := s.Runs().Claim(t.Context(), store.ClaimParams{Now: at(1), LeaseUntil: at(2), Limit: 1})
				if err != nil || len(claimed) != 1 {
					t.Fatal(len(claimed), err)
				}
				if lost, err := s.Runs().Settle(t.Context(), []store.Settlement[store.Execution]{{Lease: claimed[0].Lease, Row: next}}); err != nil || len(lost) != 0 {
					t.Fatal(lost, err)
				}
				var left int
				if err := db.NewRaw("SELECT (SELECT count(*) FROM fnkit_runs) + (SELECT count(*) FROM fnkit_payloads)").Scan(t.Context(), &left); err != nil || (left == 0) != next.Status.Final() {
					t.Errorf("%s: %d payloads are left, %v", next.Status, left, err)
				}
			}
		}
	})
}

// TestWithin: an execution is queued together with what the host writes.
func TestWithin(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d database) {
		db := d.open()
		s, err := sqlstore.New(db, sqlstore.Options{})
		must(t, err)
		t.Cleanup(func() { s.Close() })
		must(t, s.Migrate(t.Context()))
		d.exec(t, "CREATE TABLE orders (id TEXT)")
		refusal := errors.New("refused")
		for _, answer := range []error{refusal, nil} {
			told := 0
			var committed func()
			err := db.RunInTx(t.Context(), nil, func(ctx context.Context, host bun.Tx) error {
				var tx store.Tx
				tx, committed = s.Within(host)
				tx.AfterCommit(func() { told++ })
				_, err := host.ExecContext(ctx, "INSERT INTO orders (id) VALUES ('o')")
				row := store.Execution{Project: "p", ID: "x", FunctionID: "f", Status: store.ExecutionWaiting, ReadyAt: at(1)}
				if err := errors.Join(err, tx.AppendExecutions(ctx, []store.Execution{row})); err != nil {
					return err
				}
				// A refusal of the store's does not spoil the host's transaction.
				if err := tx.AppendExecutions(ctx, []store.Execution{row}); !errors.Is(err, store.ErrExists) {
					return fmt.Errorf("the same once more: %w", err)
				}
				return answer
			})
			if err != answer {
				t.Fatal(err)
			}
			if err == nil {
				committed()
			}
			var orders int
			must(t, db.NewRaw("SELECT count(*) FROM orders").Scan(t.Context(), &orders))
			_, found := s.GetExecution(t.Context(), "p", "f", "x")
			if want := answer == nil; (orders == 1) != want || (found == nil) != want || (told == 1) != want {
				t.Errorf("after %v: %d orders, execution %v, told %d times", answer, orders, found, told)
			}
		}
	})
}
