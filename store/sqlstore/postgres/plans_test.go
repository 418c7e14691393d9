package postgres_test

import (
	"database/sql"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
)

// TestPlans counts the rows that the queue reads: as many as it needs, however
// many others there are, and whatever the planner believes. It believes most of
// the time that the queue is empty, because it looked when it was.
func TestPlans(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"auto", "force_generic_plan"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			testPlans(t, mode)
		})
	}
}

func testPlans(t *testing.T, mode string) {
	cfg, err := pgx.ParseConfig(postgrestest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, plan *pgconn.Notice) {
		for _, m := range comparisons.FindAllStringSubmatch(plan.Message, -1) {
			if n, _ := strconv.Atoi(m[1]); n > 1000 {
				t.Errorf("rows are compared with each other, %d times:\n%s", n, plan.Message)
			}
		}
	}
	cfg.RuntimeParams["plan_cache_mode"] = mode
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(1) // the server counts for each session apart
	s, err := sqlstore.New(bun.NewDB(db, pgdialect.New()), sqlstore.Options{Close: db.Close})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var version int
	if err := db.QueryRowContext(t.Context(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&version); err != nil || version < 15 {
		require.Missing(t, "postgres", fmt.Sprintf("version 15 is needed to see what is read: %d, %v", version, err))
	}
	rows := func(kind string, n int, change func(i int, x *store.Execution)) {
		t.Helper()
		all := make([]store.Execution, n)
		for i := range all {
			at := time.UnixMilli(int64(1000 + i))
			all[i] = store.Execution{Project: "p", ID: fmt.Sprint(kind, i), FunctionID: "f", CreatedAt: at, UpdatedAt: at, Status: store.ExecutionCompleted}
			change(i, &all[i])
		}
		if err := s.AppendExecutions(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	queue := func(i int, x *store.Execution) {
		x.Status, x.ReadyAt, x.Payload = store.ExecutionWaiting, x.CreatedAt, []byte("sealed")
	}
	count := func(what string) {
		t.Helper()
		for round := range 8 { // after five the server may settle for one plan
			before := reads(t, db)
			work(t, s)
			for name, n := range reads(t, db) {
				// A project, or a row, is sought a few times, past what was claimed
				// before: while another session may still see that, it stays.
				if n -= before[name]; n > 8000 {
					t.Errorf("%s, round %d: %d rows of %s are read to claim and settle 100", what, round, n, name)
				}
			}
		}
	}
	if _, err := s.CreateFunction(t.Context(), store.Function{Project: "p", ID: "f", CreatedAt: time.UnixMilli(1), UpdatedAt: time.UnixMilli(1)}); err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"LOAD 'auto_explain'", "SET auto_explain.log_min_duration = 0", "SET auto_explain.log_analyze = on", "SET auto_explain.log_timing = off", "SET auto_explain.log_level = notice"} {
		exec(set) // plans come as notices
	}
	rows("final", 10_000, func(int, *store.Execution) {})
	exec("VACUUM ANALYZE")
	rows("loud", 10_000, queue)
	rows("working", 2000, func(i int, x *store.Execution) {
		queue(i, x)
		x.Status, x.ReadyAt = store.ExecutionProcessing, time.UnixMilli(1e9)
	})
	rows("later", 2000, func(i int, x *store.Execution) {
		queue(i, x)
		x.Project, x.ReadyAt = fmt.Sprint("r", i), time.UnixMilli(1e9)
	})
	count("believing that the queue is empty")
	exec("VACUUM ANALYZE")
	count("knowing that one project waits")
	rows("other", 500, func(i int, x *store.Execution) { queue(i, x); x.Project = fmt.Sprint("q", i) })
	count("believing that one project waits")
	exec("VACUUM ANALYZE")
	count("knowing all")
}

// comparisons is what a plan says of rows that a join compared in vain.
var comparisons = regexp.MustCompile(`Rows Removed by Join Filter: (\d+)`)

// work claims and settles a hundred rows.
func work(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	claimed, err := s.Runs().Claim(t.Context(), store.ClaimParams{Now: time.UnixMilli(1e6), LeaseUntil: time.UnixMilli(1e9), Limit: 100})
	if err != nil || len(claimed) == 0 {
		t.Fatalf("claimed %d, %v", len(claimed), err)
	}
	settled := make([]store.Settlement[store.Execution], len(claimed))
	for i, c := range claimed {
		c.Row.Status, c.Row.ReadyAt = store.ExecutionCompleted, time.Time{}
		settled[i] = store.Settlement[store.Execution](c)
	}
	if lost, err := s.Runs().Settle(t.Context(), settled); err != nil || len(lost) > 0 {
		t.Fatalf("lost %v, %v", lost, err)
	}
	if page, err := s.NextFunctions(t.Context(), 0, 10); err != nil || len(page) != 1 || !page[0].Oldest.Equal(time.UnixMilli(1000)) {
		t.Fatalf("functions: %+v, %v", page, err)
	}
	if _, ok, err := s.Runs().NextDue(t.Context()); err != nil || !ok {
		t.Fatalf("next due: %v, %v", ok, err)
	}
}

// reads are how many rows were read so far, by the index or table they were read from.
func reads(t *testing.T, db *sql.DB) map[string]int {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "SELECT pg_stat_force_next_flush()"); err != nil {
		t.Fatal(err)
	}
	found, err := db.QueryContext(t.Context(), `SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = current_schema()
UNION ALL SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = current_schema()`)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	all := map[string]int{}
	for found.Next() {
		var name string
		var n int
		if err := found.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		all[name] = n
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
