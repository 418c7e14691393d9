package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite/sqlitetest"
	"github.com/fnkit/fnkit/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, path string) *sqlstore.Store {
	t.Helper()
	s := sqlitetest.Open(t, path)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "a b?.db")) })
}

func TestShared(t *testing.T) {
	t.Parallel()
	storetest.RunShared(t, func(t *testing.T, n int) []store.Store {
		path := filepath.Join(t.TempDir(), "db")
		all := make([]store.Store, n)
		for i := range all {
			all[i] = open(t, path)
		}
		return all
	})
}

// host returns a handle as a host may have it.
func host(t *testing.T, path string) *bun.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return bun.NewDB(db, sqlitedialect.New())
}

func TestBesideTheHostsTables(t *testing.T) {
	t.Parallel()
	db := host(t, filepath.Join(t.TempDir(), "host.db"))
	if _, err := db.Exec("CREATE TABLE functions (id TEXT)"); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"fnkit_", "other_"} {
		s, err := sqlstore.New(db, sqlstore.Options{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f", CreatedAt: time.UnixMilli(1), UpdatedAt: time.UnixMilli(1)}); err != nil {
			t.Fatal(err)
		}
		if err := s.AppendExecutions(t.Context(), []store.Execution{{Project: "p", ID: "x", CreatedAt: time.UnixMilli(1), UpdatedAt: time.UnixMilli(1)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Ping(); err != nil {
		t.Errorf("the host's handle was closed: %v", err)
	}
	for _, prefix := range []string{"", "1a", "A_", `x"; DROP`, strings.Repeat("x", 40)} {
		if _, err := sqlstore.New(db, sqlstore.Options{Prefix: prefix}); prefix != "" && err == nil {
			t.Errorf("took the prefix %q", prefix)
		}
	}
}

func TestManyMigrateAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := sqlite.Open(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(s.Ping(t.Context()), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestHostsMigrateAtOnce: also with transactions that take the lock late.
func TestHostsMigrateAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	var wg sync.WaitGroup
	for range 8 {
		db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		s, err := sqlstore.New(bun.NewDB(db, sqlitedialect.New()), sqlstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := s.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestFirstAppendBesideATransaction: an append that waits for the connection
// a transaction holds keeps that transaction from nothing.
func TestFirstAppendBesideATransaction(t *testing.T) {
	t.Parallel()
	db := host(t, filepath.Join(t.TempDir(), "db"))
	s, err := sqlstore.New(db, sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	waits := db.Stats().WaitCount
	beside := make(chan error, 1)
	err = s.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		go func() { beside <- s.AppendExecutions(ctx, executions(1, 1)) }()
		for db.Stats().WaitCount == waits && ctx.Err() == nil {
			runtime.Gosched()
		}
		return tx.AppendExecutions(ctx, executions(0, 1))
	})
	if err := errors.Join(err, <-beside); err != nil {
		t.Error(err)
	}
}

// TestNothingIsLeft looks into the tables themselves.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for what, remove := range map[string]func(*sqlstore.Store) error{
		"project": func(s *sqlstore.Store) error { return s.DeleteProject(t.Context(), "p") },
		"function": func(s *sqlstore.Store) error {
			_, err := s.DeleteFunction(t.Context(), "p", "f")
			return err
		},
		"function in a transaction": func(s *sqlstore.Store) error {
			return s.InTx(t.Context(), func(ctx context.Context, tx store.Tx) error {
				_, err := tx.DeleteFunction(ctx, "p", "f")
				return err
			})
		},
	} {
		path := filepath.Join(t.TempDir(), "db")
		s := open(t, path)
		fill(t, s)
		if err := remove(s); err != nil {
			t.Fatal(err)
		}
		db := host(t, path)
		for _, table := range []string{"functions", "deployments", "variables", "executions", "runs", "payloads", "logs"} {
			var n int
			if err := db.QueryRow("SELECT count(*) FROM fnkit_" + table).Scan(&n); err != nil || n != 0 {
				t.Errorf("after deleting the %s %d rows are left of %s, %v", what, n, table, err)
			}
		}
	}
}

// fill makes records in every table, more executions than one batch deletes.
func fill(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	_, err1 := s.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f"})
	_, err2 := s.CreateDeployment(t.Context(), store.Deployment{Project: "p", ID: "d", FunctionID: "f"})
	_, err3 := s.CreateVariable(t.Context(), store.Variable{Project: "p", ID: "v", FunctionID: "f", Key: "K"})
	rows := executions(0, 1500)
	for i := range rows {
		rows[i].FunctionID, rows[i].Payload = "f", []byte("sealed")
	}
	if err := errors.Join(err1, err2, err3, s.AppendExecutions(t.Context(), rows)); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []store.LogRef{{Project: "p", Kind: store.BuildLog, ID: "d"}, {Project: "p", Kind: store.ExecutionLog, ID: rows[7].ID}} {
		if err := s.AppendLogs(t.Context(), ref, []store.LogChunk{{Data: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordsSurviveReopening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f", Name: "kept"}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if f, err := open(t, path).GetFunction(t.Context(), "p", "f"); err != nil || f.Name != "kept" {
		t.Errorf("%+v, %v", f, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := sqlite.Open(t.Context(), filepath.Join(dir, "no", "such", "db")); err == nil {
		t.Error("opened a file in a directory that does not exist")
	}
	path := filepath.Join(dir, "db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"read":  second(s.GetFunction(t.Context(), "p", "f")),
		"write": second(s.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f"})),
		"tx":    s.AppendExecutions(t.Context(), []store.Execution{{Project: "p", ID: "x"}}),
		"ping":  s.Ping(t.Context()),
	} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s on a closed store: %v", what, err)
		}
	}
	// A handle that may only read.
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=query_only(1)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ro, err := sqlstore.New(bun.NewDB(db, sqlitedialect.New()), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ro.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f"}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("write to a read-only database: %v", err)
	}
	if err := ro.Ping(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("ping of a read-only database: %v", err)
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=max_page_count(80)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	s, err := sqlstore.New(bun.NewDB(db, sqlitedialect.New()), sqlstore.Options{Close: db.Close})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := 0
	for err == nil {
		if err = s.AppendExecutions(t.Context(), executions(stored, 10)); err == nil {
			stored += 10
		}
	}
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("on a full disk: %v", err)
	}
	var kept int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM fnkit_executions").Scan(&kept); err != nil || kept != stored || kept == 0 {
		t.Errorf("%d of %d rows are kept, %v", kept, stored, err)
	}
}

func second[T any](_ T, err error) error { return err }

func executions(from, n int) []store.Execution {
	rows := make([]store.Execution, n)
	for i := range rows {
		status := store.ExecutionCompleted
		if (from+i)%100 == 0 {
			status = store.ExecutionFailed
		}
		at := time.UnixMilli(1_700_000_000_000 + int64(from+i))
		rows[i] = store.Execution{
			Project: "p", ID: fmt.Sprintf("%020d", from+i), FunctionID: fmt.Sprint("f", (from+i)%3), DeploymentID: "d", CreatedAt: at, UpdatedAt: at, Status: status,
			Trigger: store.TriggerHTTP, RequestMethod: "GET", RequestPath: "/", ResponseStatusCode: 200, Logs: "one line\n", Duration: time.Millisecond,
		}
	}
	return rows
}

func BenchmarkStore(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Store { return open(b, filepath.Join(b.TempDir(), "db")) }, nil)
}
