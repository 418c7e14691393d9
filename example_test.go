package fnkit_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// runs is how often the function below ran.
var runs int

// charge fails the first two times.
func charge(_ context.Context, c *fnbox.Context) error {
	if runs++; runs <= 2 {
		return fmt.Errorf("the bank does not answer")
	}
	return c.Text(http.StatusOK, "charged")
}

// newShop returns a project with a function, and the engine, which is stepped
// and not started.
func newShop(ctx context.Context, st *sqlstore.Store, dir string, f engine.FunctionParams) (*engine.Engine, *engine.Project) {
	eng, _ := engine.New(engine.Config{
		Store: st, Blobs: dirblobs.New(dir), Sandbox: fnbox.New(fnbox.Funcs{"charge": charge}),
		Keys: engine.Key("k1", secret), MinIsolation: "none",
	})
	shop := eng.Project("shop")
	shop.CreateFunction(ctx, engine.System, f)
	shop.Deploy(ctx, engine.System, f.ID, engine.DeployParams{Source: emptyArchive(), Size: -1, Activate: true})
	work(ctx, eng)
	return eng, shop
}

// work does all that is due now.
func work(ctx context.Context, eng *engine.Engine) {
	for did := true; did; {
		_, did, _ = eng.Step(ctx)
	}
}

// An execution that fails is run again, if its function's policy says so. What
// fails too often keeps its request, to be replayed when the cause is mended.
func Example_deadLetters() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "fnkit-example-")
	defer os.RemoveAll(dir)
	db, _ := sqlite.Open(ctx, filepath.Join(dir, "app.db"))
	defer db.Close()
	runs = 1
	eng, shop := newShop(ctx, db, dir, engine.FunctionParams{
		ID: "charge", Name: "Charge", Runtime: fnbox.RuntimeID, Entrypoint: "charge",
		Policy: engine.PolicyParams{Retry: &engine.Retry{Attempts: 1}},
	})
	defer eng.Stop(ctx)

	x, _ := shop.Execute(ctx, engine.System, "charge", engine.ExecuteParams{Async: true, Body: []byte("order 17")})
	work(ctx, eng)
	dead, _ := shop.ListExecutions(ctx, engine.System, "charge", engine.Query{
		Filters: []engine.Filter{{Op: "equal", Attr: "status", Values: []any{"dead"}}},
	})
	fmt.Print(dead.Total, " dead letter: ", dead.Items[0].Errors)

	shop.ReplayExecution(ctx, engine.System, "charge", x.ID)
	work(ctx, eng)
	again, _ := shop.GetExecution(ctx, engine.System, "charge", x.ID)
	fmt.Println(again.Status)
	// Output:
	// 1 dead letter: the bank does not answer
	// completed
}

// A host queues an execution in its own transaction: both happen, or neither.
// The idempotency key makes it safe to repeat.
func Example_outbox() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "fnkit-example-")
	defer os.RemoveAll(dir)
	handle, _ := sql.Open("sqlite", "file:"+filepath.Join(dir, "host.db")+"?_txlock=immediate")
	handle.SetMaxOpenConns(1)
	defer handle.Close()
	db := bun.NewDB(handle, sqlitedialect.New())
	st, _ := sqlstore.New(db, sqlstore.Options{})
	st.Migrate(ctx)
	db.Exec("CREATE TABLE orders (id INTEGER)")
	runs = 2
	eng, shop := newShop(ctx, st, dir, engine.FunctionParams{ID: "charge", Name: "Charge", Runtime: fnbox.RuntimeID, Entrypoint: "charge"})
	defer eng.Stop(ctx)

	for range 2 {
		var committed func()
		err := db.RunInTx(ctx, nil, func(ctx context.Context, b bun.Tx) error {
			var tx engine.Tx
			tx, committed = st.Within(b)
			if _, err := b.Exec("INSERT INTO orders VALUES (17)"); err != nil {
				return err
			}
			_, err := eng.WithTx(tx).Project("shop").Execute(ctx, engine.System, "charge", engine.ExecuteParams{
				IdempotencyKey: "order 17", Body: []byte("order 17"),
			})
			return err
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		committed()
	}
	work(ctx, eng)
	all, _ := shop.ListExecutions(ctx, engine.System, "charge", engine.Query{})
	fmt.Println(all.Total, "execution,", all.Items[0].Status)
	// Output: 1 execution, completed
}

// Engines that share a database and blobs share the work. Each runs what it
// claims under a lease; one that dies leaves it to the others.
func Example_severalEngines() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "fnkit-example-")
	defer os.RemoveAll(dir)
	open := func() (*engine.Engine, func()) {
		db, _ := sqlite.Open(ctx, filepath.Join(dir, "app.db")) // or postgres.Open, on several machines
		eng, _ := engine.New(engine.Config{
			Store: db, Blobs: dirblobs.New(dir), Sandbox: fnbox.New(fnbox.Funcs{"charge": charge}),
			Keys: engine.Key("k1", secret), MinIsolation: "none", Work: engine.Work{Lease: 10 * time.Second},
		})
		return eng, func() { eng.Stop(ctx); db.Close() }
	}
	api, closeAPI := open() // it is not started: it answers, and accepts work
	defer closeAPI()
	worker, closeWorker := open()
	defer closeWorker()
	runs = 2

	shop := api.Project("shop")
	shop.CreateFunction(ctx, engine.System, engine.FunctionParams{ID: "charge", Name: "Charge", Runtime: fnbox.RuntimeID, Entrypoint: "charge"})
	shop.Deploy(ctx, engine.System, "charge", engine.DeployParams{Source: emptyArchive(), Size: -1, Activate: true})
	work(ctx, worker)
	x, _ := shop.Execute(ctx, engine.System, "charge", engine.ExecuteParams{Async: true})
	work(ctx, worker)
	done, _ := shop.GetExecution(ctx, engine.System, "charge", x.ID)
	fmt.Println(done.Status)
	// Output: completed
}
