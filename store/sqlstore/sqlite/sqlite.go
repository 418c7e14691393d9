// Package sqlite opens a store in a SQLite file, without cgo.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/fnkit/fnkit/store/sqlstore"
)

// readers is how many connections serve reads at once.
const readers = 8

// Open opens the file, makes it if it does not exist (readable by its owner
// alone), and brings its tables up to date. One connection writes, with
// transactions that take the write lock when they begin, so that none fails
// halfway for want of it; others read at the same time. Commits survive the
// death of the process; the last ones may be lost if the machine loses power.
// Close the store when done.
func Open(ctx context.Context, path string) (*sqlstore.Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	writer, err := open(path, 1, "_txlock", "immediate", "_pragma", "journal_mode(WAL)", "_pragma", "synchronous(NORMAL)", "_pragma", "foreign_keys(1)")
	if err != nil {
		return nil, err
	}
	reader, err := open(path, readers, "_pragma", "query_only(1)")
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	s, err := sqlstore.New(writer, sqlstore.Options{Reader: reader, Close: func() error { return errors.Join(reader.Close(), writer.Close()) }})
	if err == nil {
		err = s.Migrate(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", path, err), reader.Close(), writer.Close())
	}
	return s, nil
}

// open returns a handle with up to n connections, all of them with the
// settings given as names and values.
func open(path string, n int, settings ...string) (*bun.DB, error) {
	q := url.Values{"_pragma": {"busy_timeout(10000)", "cache_size(-1000)", "temp_store(MEMORY)"}}
	for i := 0; i < len(settings); i += 2 {
		q.Add(settings[i], settings[i+1])
	}
	name := url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(0)
	return bun.NewDB(db, sqlitedialect.New()), nil
}
