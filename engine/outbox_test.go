package engine_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store/sqlstore"
)

// What a host does in its own transaction, and what it queues there, happen
// together or not at all.
func TestOutbox(t *testing.T) {
	t.Parallel()
	raw, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "host.db")+"?_txlock=immediate&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	raw.SetMaxOpenConns(1)
	t.Cleanup(func() { raw.Close() })
	db := bun.NewDB(raw, sqlitedialect.New())
	st, err := sqlstore.New(db, sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE orders (id TEXT)"); err != nil {
		t.Fatal(err)
	}
	run, runs := counting()
	k := enginetest.New(t, fnbox.Funcs{"f": run}, func(c *engine.Config) {
		if err := c.Store.Close(); err != nil {
			t.Fatal(err)
		}
		c.Store = st
	})
	k.Deploy("shop", engine.FunctionParams{ID: "f", Events: []string{"users.*.create"}})
	created, err := k.Subscribe(t.Context(), engine.Pattern{Name: "functions.*.executions.*.create"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, failure := t.Context(), errors.New("no")
	order := func(outcome error) (ids []string) {
		t.Helper()
		var committed func()
		err := db.RunInTx(ctx, nil, func(ctx context.Context, b bun.Tx) error {
			if _, err := b.Exec("INSERT INTO orders VALUES ('o')"); err != nil {
				return err
			}
			var tx engine.Tx
			tx, committed = st.Within(b)
			shop := k.WithTx(tx).Project("shop")
			x, err := shop.Execute(ctx, engine.System, "f", engine.ExecuteParams{Body: []byte("order")})
			if err != nil {
				return err
			}
			once, err := shop.Execute(ctx, engine.System, "f", engine.ExecuteParams{IdempotencyKey: "k"})
			if err != nil {
				return err
			}
			again, err := shop.Execute(ctx, engine.System, "f", engine.ExecuteParams{IdempotencyKey: "k"})
			if err != nil || !again.Repeated || again.ID != once.ID {
				t.Errorf("again: %+v, %v", again, err)
			}
			_, err = shop.Execute(ctx, engine.System, "f", engine.ExecuteParams{IdempotencyKey: "k", Path: "/other"})
			fails(t, err, engine.TypeKeyReused)
			_, err = shop.Execute(ctx, engine.System, "none", engine.ExecuteParams{})
			fails(t, err, engine.TypeFunction)
			listeners, err := shop.Trigger(ctx, engine.System, engine.TriggerParams{ID: "e", Name: "users.u.create"})
			if err != nil || len(listeners) != 1 || listeners[0].Payload != nil {
				t.Errorf("listeners: %+v, %v", listeners, err)
			}
			ids = []string{x.ID, once.ID, listeners[0].ID}
			return outcome
		})
		if !errors.Is(err, outcome) {
			t.Fatal(err)
		}
		if err == nil {
			committed()
		}
		return ids
	}
	order(failure)
	k.Drain()
	if n := len(k.Executions("shop", "f")); n != 0 || runs.Load() != 0 {
		t.Errorf("rolled back, and %d executions, %d runs", n, runs.Load())
	}
	if list := order(nil); len(list) != 3 {
		t.Fatal(list)
	}
	select {
	case <-created:
	case <-time.After(10 * time.Second):
		t.Error("nobody was told")
	}
	k.Drain()
	if n := len(k.Executions("shop", "f")); n != 3 || runs.Load() != 3 {
		t.Errorf("%d executions, %d runs", n, runs.Load())
	}
	var orders int
	if err := db.NewRaw("SELECT count(*) FROM orders").Scan(ctx, &orders); err != nil || orders != 1 {
		t.Errorf("%d orders, %v", orders, err)
	}
}
