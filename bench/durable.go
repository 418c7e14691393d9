package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// database is where a comparison takes place.
type database struct {
	name string // "SQLite" or "Postgres"
	dir  string // for blobs
	dsn  string // of Postgres
	open func(ctx context.Context) (*sqlstore.Store, error)
	raw  *sql.DB // of whoever is compared with
	drop func() error
}

// sqliteIn makes a SQLite file.
func sqliteIn(dir string) (*database, error) {
	file := filepath.Join(dir, rand.Text()+".db")
	q := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)"}, "_txlock": {"immediate"}}
	raw, err := sql.Open("sqlite", "file:"+file+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	raw.SetMaxOpenConns(1)
	open := func(ctx context.Context) (*sqlstore.Store, error) { return sqlite.Open(ctx, file) }
	return &database{"SQLite", file + ".blobs", "", open, raw, raw.Close}, nil
}

// postgresAt makes a schema on a server.
func postgresAt(ctx context.Context, server, dir string) (*database, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	schema := "fnkit_bench_" + strings.ToLower(rand.Text())
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	raw, err := sql.Open("pgx", u.String())
	if err != nil {
		return nil, err
	}
	raw.SetMaxIdleConns(16)
	if _, err := raw.ExecContext(ctx, "CREATE SCHEMA "+schema); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	drop := func() error {
		_, err := raw.ExecContext(context.WithoutCancel(ctx), "DROP SCHEMA "+schema+" CASCADE")
		return errors.Join(err, raw.Close())
	}
	open := func(ctx context.Context) (*sqlstore.Store, error) { return postgres.Open(ctx, u.String()) }
	return &database{"Postgres", filepath.Join(dir, schema), u.String(), open, raw, drop}, nil
}

// each runs a comparison on a fresh database of each kind there is.
func each(ctx context.Context, o options, dir string, compare func(*database) error) error {
	kinds := []func() (*database, error){func() (*database, error) { return sqliteIn(dir) }}
	if o.postgres != "" {
		kinds = append(kinds, func() (*database, error) { return postgresAt(ctx, o.postgres, dir) })
	}
	for _, make := range kinds {
		db, err := make()
		if err != nil {
			return err
		}
		if err := errors.Join(compare(db), db.drop()); err != nil {
			return fmt.Errorf("%s: %w", db.name, err)
		}
	}
	return nil
}

// worker is an engine with Go functions.
type worker struct {
	eng   *engine.Engine
	p     *engine.Project
	store *sqlstore.Store
}

// newWorker makes one that is not started. change may adjust its configuration.
func newWorker(ctx context.Context, db *database, funcs fnbox.Funcs, change ...func(*engine.Config)) (*worker, error) {
	s, err := db.open(ctx)
	if err != nil {
		return nil, err
	}
	cfg := engine.Config{Store: s, Blobs: dirblobs.New(db.dir), Sandbox: fnbox.New(funcs), Keys: engine.Key("k1", []byte("a secret of at least 16 bytes")), MinIsolation: "none"}
	for _, c := range change {
		c(&cfg)
	}
	eng, err := engine.New(cfg)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &worker{eng, eng.Project(project), s}, nil
}

func (w *worker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := w.eng.Stop(ctx)
	return errors.Join(err, w.eng.Config().Sandbox.Close(), w.store.Close())
}

// deploy makes a function of the Go func of that name.
func deploy(ctx context.Context, db *database, id string) (err error) {
	w, err := newWorker(ctx, db, fnbox.Funcs{id: func(context.Context, *fnbox.Context) error { return nil }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.eng.Start(ctx); err != nil {
		return err
	}
	if _, err := w.p.CreateFunction(ctx, engine.System, engine.FunctionParams{ID: id, Name: id, Runtime: fnbox.RuntimeID, Entrypoint: id, Execute: []string{"any"}}); err != nil {
		return err
	}
	d, err := w.p.Deploy(ctx, engine.System, id, engine.DeployParams{Source: archive("README", ""), Size: -1, Activate: true})
	for err == nil && !d.Status.Final() {
		time.Sleep(5 * time.Millisecond)
		d, err = w.p.GetDeployment(ctx, engine.System, id, d.ID)
	}
	if err == nil && d.Status != store.DeploymentReady {
		err = fmt.Errorf("the build %s: %s", d.Status, d.BuildLogs)
	}
	return err
}

// bar is a line of the table: what was measured beside what.
type bar struct {
	what, beside string
	ratio        float64
	aim          float64
	less         bool // the ratio should be less than the aim
	detail       string
}

func (b bar) print() {
	verdict, sign := "met", "≥"
	if b.less {
		sign = "≤"
	}
	if b.less && b.ratio > b.aim || !b.less && b.ratio < b.aim {
		verdict = "missed"
	}
	fmt.Printf("| %s | %s | %.2f | %s %.2f | %s | %s |\n", b.what, b.beside, b.ratio, sign, b.aim, verdict, b.detail)
}
