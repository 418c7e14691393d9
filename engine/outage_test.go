package engine_test

import (
	"bytes"
	"context"
	"database/sql"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
)

// outage is a store that stops serving when a test says so.
type outage struct {
	store.Store
	fail  func(t *testing.T, failing bool)
	reads bool // it goes on answering reads
}

// switched returns what executes one statement or the other.
func switched(db *sql.DB, begin, end string) func(*testing.T, bool) {
	return func(t *testing.T, failing bool) {
		t.Helper()
		text := map[bool]string{true: begin, false: end}[failing]
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
}

// sqliteOutage fails by what the connection is told.
func sqliteOutage(t *testing.T, begin, end string) outage {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fnkit.db")
	q := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+file+"?"+q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	s, err := sqlstore.New(bun.NewDB(db, sqlitedialect.New()), sqlstore.Options{})
	if err == nil {
		err = s.Migrate(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return outage{Store: s, fail: switched(db, begin, end), reads: true}
}

// postgresOutage fails by errors that the server answers on every write.
func postgresOutage(t *testing.T, state string) outage {
	t.Helper()
	dsn := postgrestest.DSN(t)
	s := opened(t)(postgres.Open(t.Context(), dsn))
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	begin := "CREATE FUNCTION outage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'out of order' USING ERRCODE = '" + state + "'; END $$;"
	for _, table := range outageTables {
		begin += "CREATE TRIGGER outage BEFORE INSERT OR UPDATE OR DELETE ON fnkit_" + table + " FOR EACH STATEMENT EXECUTE FUNCTION outage();"
	}
	return outage{Store: s, fail: switched(db, begin, "DROP FUNCTION outage CASCADE"), reads: true}
}

// outageTables are the tables that cannot be written.
var outageTables = []string{"functions", "executions", "deployments", "keys", "runs", "payloads", "migrations"}

var outages = map[string]func(t *testing.T) outage{
	"postgres gone": func(t *testing.T) outage {
		w, dsn := postgrestest.Through(t, postgrestest.DSN(t))
		return outage{Store: opened(t)(postgres.Open(t.Context(), dsn)), fail: func(_ *testing.T, failing bool) { w.Cut(failing) }}
	},
	"postgres read-only": func(t *testing.T) outage { return postgresOutage(t, "25006") },
	"postgres disk full": func(t *testing.T) outage { return postgresOutage(t, "53100") },
	"sqlite read-only": func(t *testing.T) outage {
		return sqliteOutage(t, "PRAGMA query_only = 1", "PRAGMA query_only = 0")
	},
	// With the words of SQLite: what still fits into its pages cannot be told beforehand.
	"sqlite disk full": func(t *testing.T) outage {
		var begin, end string
		for _, table := range outageTables {
			for _, act := range []string{"INSERT", "UPDATE", "DELETE"} {
				begin += "CREATE TRIGGER outage_" + table + act + " BEFORE " + act + " ON fnkit_" + table + " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END;"
				end += "DROP TRIGGER outage_" + table + act + ";"
			}
		}
		return sqliteOutage(t, begin, end)
	},
}

// TestChaosOutage: while the database does not serve, the API says so at once, and
// the workers ask it now and then only. When it is back all goes on, and nothing
// that was accepted is missing.
func TestChaosOutage(t *testing.T) {
	t.Parallel()
	for name, make := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testOutage(t, make(t))
		})
	}
}

// Durations of an outage: long enough for a lease to end.
const (
	outageLasts = 1500 * time.Millisecond
	pollOutage  = 100 * time.Millisecond
	// quickly is how long six answers may take, on a machine that does other things.
	quickly = 10 * time.Second
)

func testOutage(t *testing.T, o outage) {
	asked := &countedStore{Store: o.Store}
	gate, began := make(chan struct{}), make(chan struct{}, 10)
	h := start(t, fnbox.New(fnbox.Funcs{
		"held": func(ctx context.Context, c *fnbox.Context) error {
			began <- struct{}{}
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return c.Text(http.StatusOK, "")
		},
		"f": quiet,
	}), func(c *engine.Config) {
		c.Store, c.Logger, c.Work = asked, nil, engine.Work{Lease: time.Second, Poll: pollOutage, MaxStaleness: time.Millisecond}
	})
	for _, id := range []string{"held", "f"} {
		f := engine.FunctionParams{ID: id, Name: id, Runtime: fnbox.RuntimeID, Entrypoint: id, Execute: []string{"any"}, Timeout: 600}
		if _, err := h.p.CreateFunction(t.Context(), engine.System, f); err != nil {
			t.Fatal(err)
		}
		h.deploy(t, id, map[string]string{"README": ""})
	}
	api, err := httpapi.New(h.Engine, httpapi.Options{Identify: func(*http.Request) (engine.Caller, error) {
		return engine.Caller{Project: "shop", Actor: engine.System}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		return w
	}
	held := h.execute(t, "held", engine.ExecuteParams{Async: true}).Execution
	<-began
	later := h.execute(t, "f", engine.ExecuteParams{Async: true, ScheduledAt: time.Now().Add(outageLasts / 2)}).Execution

	o.fail(t, true)
	asked.n.Store(0)
	failing := time.Now()
	over := time.After(outageLasts)
	close(gate) // a result that cannot be written
	for _, q := range [][3]string{
		{"POST", "/v1/functions/f/executions", `{"async":true}`}, {"POST", "/v1/functions/f/executions", `{}`},
		{"POST", "/v1/functions", `{"functionId":"g","name":"g","runtime":"` + fnbox.RuntimeID + `"}`},
		{"DELETE", "/v1/functions/f", ""},
	} {
		w := ask(q[0], q[1], q[2])
		if w.Code != http.StatusServiceUnavailable || !bytes.Contains(w.Body.Bytes(), []byte(engine.TypeUnavailable)) {
			t.Errorf("%s %s: %d %s", q[0], q[1], w.Code, w.Body)
		}
	}
	want := http.StatusServiceUnavailable
	if o.reads {
		want = http.StatusOK
	}
	if w := ask("GET", "/v1/functions/f", ""); w.Code != want {
		t.Errorf("read: %d %s", w.Code, w.Body)
	}
	if err := h.Ready(t.Context()); err == nil {
		t.Error("it says that it is ready")
	}
	if took := time.Since(failing); took > quickly {
		t.Errorf("the answers took %s", took)
	}
	<-over
	// Runs, builds and schedules ask in turns of a poll, each a few things, and
	// results are offered again as often.
	n, turns := asked.n.Load(), int64(time.Since(failing)/pollOutage)
	if n > 12*turns {
		t.Errorf("the store was asked %d times in %d turns", n, turns)
	}
	t.Logf("the store was asked %d times in %d turns of %s", n, turns, pollOutage)
	o.fail(t, false)

	for _, x := range []engine.Execution{held, later, h.execute(t, "f", engine.ExecuteParams{Async: true}).Execution} {
		if x := h.ended(t, x); x.Status != store.ExecutionCompleted {
			t.Errorf("it ended as %+v", x)
		}
	}
	if x := h.execute(t, "f", engine.ExecuteParams{}); x.Status != store.ExecutionCompleted {
		t.Errorf("a synchronous one ended as %+v", x)
	}
	if err := h.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// countedStore counts what the loops of an engine ask.
type countedStore struct {
	store.Store
	n atomic.Int64
}

type countedQueue[T any] struct {
	store.Queue[T]
	n *atomic.Int64
}

func (c *countedStore) Runs() store.Queue[engine.Execution] {
	return countedQueue[engine.Execution]{c.Store.Runs(), &c.n}
}

func (c *countedStore) Builds() store.Queue[engine.Deployment] {
	return countedQueue[engine.Deployment]{c.Store.Builds(), &c.n}
}

func (c *countedStore) DueSchedules(ctx context.Context, now time.Time, limit int) ([]engine.Function, error) {
	c.n.Add(1)
	return c.Store.DueSchedules(ctx, now, limit)
}

func (c *countedStore) NextSchedule(ctx context.Context) (time.Time, bool, error) {
	c.n.Add(1)
	return c.Store.NextSchedule(ctx)
}

func (q countedQueue[T]) Claim(ctx context.Context, p store.ClaimParams) ([]store.Claimed[T], error) {
	q.n.Add(1)
	return q.Queue.Claim(ctx, p)
}

func (q countedQueue[T]) Renew(ctx context.Context, l []store.Lease, until time.Time) ([]store.Lease, error) {
	q.n.Add(1)
	return q.Queue.Renew(ctx, l, until)
}

func (q countedQueue[T]) Settle(ctx context.Context, rows []store.Settlement[T]) ([]store.Lease, error) {
	q.n.Add(1)
	return q.Queue.Settle(ctx, rows)
}

func (q countedQueue[T]) NextDue(ctx context.Context) (time.Time, bool, error) {
	q.n.Add(1)
	return q.Queue.NextDue(ctx)
}
