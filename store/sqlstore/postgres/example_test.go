package postgres_test

import (
	"context"
	"log"
	"os"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
)

// All that an engine keeps lies in one database.
func Example() {
	ctx := context.Background()
	db, err := postgres.Open(ctx, "postgres://fnkit@db.example.com/fnkit")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	eng, err := engine.New(engine.Config{
		Store: db, Blobs: db.Blobs(sqlstore.BlobOptions{}), Sandbox: fnbox.New(fnbox.Funcs{}),
		Keys: engine.Key("k1", []byte(os.Getenv("SECRET"))), MinIsolation: "none",
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := eng.Run(ctx, time.Minute); err != nil {
		log.Print(err)
	}
}
