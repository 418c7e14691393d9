package sqlstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrNewer: the tables were made by a later version of this package.
var ErrNewer = errors.New("sqlstore: the database is of a newer version")

// Migrate brings the tables to the version of this package. Each step is one
// transaction together with its version, so that one which was cut off has not
// happened; the database's write lock makes two processes go one after the other.
func (s *Store) Migrate(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS ? (version INTEGER PRIMARY KEY)", s.table("migrations"))
	if err != nil {
		return failed("migrate", err)
	}
	steps, err := steps()
	if err != nil {
		return err
	}
	for i, sql := range steps {
		if err := s.step(ctx, i+1, sql, len(steps)); err != nil {
			return failed("migrate to version "+strconv.Itoa(i+1), err)
		}
	}
	return nil
}

// step applies one migration, unless it was.
func (s *Store) step(ctx context.Context, version int, sql string, newest int) error {
	return s.inTx(ctx, func(ctx context.Context, t *tx) error {
		// A write first: two processes stand in line here, whatever kind of
		// transactions the host's handle begins.
		if _, err := t.w.ExecContext(ctx, "DELETE FROM ? WHERE version < 0", s.table("migrations")); err != nil {
			return err
		}
		var at int
		if err := t.w.NewRaw("SELECT coalesce(max(version), 0) FROM ?", s.table("migrations")).Scan(ctx, &at); err != nil {
			return err
		}
		if at > newest {
			return fmt.Errorf("%w: %d, this is %d", ErrNewer, at, newest)
		}
		if at >= version {
			return nil
		}
		sql = strings.NewReplacer("{{prefix}}", s.prefix, "{{seq}}", "INTEGER PRIMARY KEY", "{{bytes}}", "BLOB").Replace(sql)
		for statement := range strings.SplitSeq(sql, ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			if _, err := t.w.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		_, err := t.w.ExecContext(ctx, "INSERT INTO ? (version) VALUES (?)", s.table("migrations"), version)
		return err
	})
}

// steps returns the migrations in order of their names.
func steps() ([]string, error) {
	files, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		sql, err := fs.ReadFile(migrations, "migrations/"+f.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, string(sql))
	}
	return out, nil
}
