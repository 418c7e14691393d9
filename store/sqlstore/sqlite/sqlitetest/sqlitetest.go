// Package sqlitetest opens SQLite files for tests.
package sqlitetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// Open opens the file as [sqlite.Open] does, and makes it, if it does not exist, as a copy
// of one whose tables were made once in this process: to make them takes half a second
// with the race detector. It fails the test if it cannot. Close the store when done.
func Open(t testing.TB, path string) *sqlstore.Store {
	t.Helper()
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		var file []byte
		if file, err = tables(); err == nil {
			err = os.WriteFile(path, file, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tables returns a database that has nothing but its tables.
var tables = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "fnkit-tables-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "db")
	s, err := sqlite.Open(context.Background(), path)
	if err == nil {
		err = s.Close() // which leaves all in one file
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})
