package sqlstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/uptrace/bun"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Version is the version of the tables that this package makes and works with.
const Version = 8

// ErrNewer: the tables were made by a version of this package that this one
// cannot work beside.
var ErrNewer = errors.New("sqlstore: the database is of a newer version")

// Migrate brings the tables to the version of this package. It may be called
// by many processes at once, and again after it was cut off: each step is one
// transaction together with its version. Tables of a newer version stay as
// they are if that one can be used beside this one, otherwise it is ErrNewer.
func (s *Store) Migrate(ctx context.Context) error {
	steps, err := steps()
	if err != nil {
		return err
	}
	if err := s.makeVersions(ctx); err != nil {
		return failed("migrate", err)
	}
	done := false // others have taken all steps
	for _, m := range steps {
		if done {
			break
		}
		err := s.inTurn(ctx, func(ctx context.Context, r records, at int) error {
			if done = at >= Version; at > Version {
				return r.usable(ctx, at)
			}
			if at >= m.version {
				return nil
			}
			return r.apply(ctx, m)
		})
		if err != nil {
			return failed("migrate to version "+strconv.Itoa(m.version), err)
		}
	}
	return nil
}

// MigrateDown takes the tables back to an earlier version, step by step, and
// loses what only the later ones keep; version 0 has none. No engine should be
// running.
func (s *Store) MigrateDown(ctx context.Context, version int) error {
	steps, err := steps()
	if err != nil {
		return err
	}
	if err := s.makeVersions(ctx); err != nil {
		return failed("migrate down", err)
	}
	for i := Version - 1; i >= max(0, version); i-- {
		err := s.inTurn(ctx, func(ctx context.Context, r records, at int) error {
			if at > Version {
				return fmt.Errorf("%w: %d, this is %d", ErrNewer, at, Version)
			}
			if at < steps[i].version {
				return nil
			}
			return r.revert(ctx, steps[i])
		})
		if err != nil {
			return failed("migrate down to version "+strconv.Itoa(i), err)
		}
	}
	return nil
}

// makeVersions makes the table that says which steps have been taken.
func (s *Store) makeVersions(ctx context.Context) error {
	return s.inTx(ctx, s.dialect.short, func(ctx context.Context, t *tx) error {
		if err := t.lockMigrations(ctx); err != nil {
			return err
		}
		_, err := t.w.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS ? (version INTEGER PRIMARY KEY)", s.table("migrations"))
		return err
	})
}

// inTurn calls fn in a transaction of its own, with the version of the tables,
// while no other process migrates.
func (s *Store) inTurn(ctx context.Context, fn func(context.Context, records, int) error) error {
	return s.inTx(ctx, s.dialect.short, func(ctx context.Context, t *tx) error {
		if err := t.lockMigrations(ctx); err != nil {
			return err
		}
		// A write first: with SQLite processes stand in line here, whatever kind
		// of transactions the host's handle begins.
		if _, err := t.w.ExecContext(ctx, "DELETE FROM ? WHERE version < 0", s.table("migrations")); err != nil {
			return err
		}
		var at int
		if err := t.w.NewRaw("SELECT coalesce(max(version), 0) FROM ?", s.table("migrations")).Scan(ctx, &at); err != nil {
			return err
		}
		return fn(ctx, t.records, at)
	})
}

// lockMigrations keeps other processes from migrating until the transaction
// ends, where a first write would not.
func (r records) lockMigrations(ctx context.Context) error {
	for _, statement := range r.s.dialect.lockMigrations {
		if _, err := r.w.ExecContext(ctx, statement, bun.Safe(r.s.prefix)); err != nil {
			return err
		}
	}
	return nil
}

// usable reports whether this version of the package may work with tables of a
// newer one: each step says which is the oldest version that may.
func (r records) usable(ctx context.Context, at int) error {
	var oldest int
	if err := r.w.NewRaw("SELECT max(oldest) FROM ?", r.s.table("migrations")).Scan(ctx, &oldest); err != nil {
		return err
	}
	if oldest > Version {
		return fmt.Errorf("%w: %d, for versions from %d, this is %d", ErrNewer, at, oldest, Version)
	}
	return nil
}

// apply takes a step.
func (r records) apply(ctx context.Context, m migration) error {
	if err := r.script(ctx, m.up); err != nil {
		return err
	}
	if m.version == 1 { // has no column for the oldest yet
		_, err := r.w.ExecContext(ctx, "INSERT INTO ? (version) VALUES (?)", r.s.table("migrations"), m.version)
		return err
	}
	_, err := r.w.ExecContext(ctx, "INSERT INTO ? (version, oldest) VALUES (?, ?)", r.s.table("migrations"), m.version, m.oldest)
	return err
}

// revert takes a step back.
func (r records) revert(ctx context.Context, m migration) error {
	if err := r.script(ctx, m.down); err != nil {
		return err
	}
	_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE version = ?", r.s.table("migrations"), m.version)
	return err
}

// script executes the statements of a migration.
func (r records) script(ctx context.Context, sql string) error {
	sql = strings.ReplaceAll(strings.NewReplacer(r.s.dialect.types...).Replace(sql), "{{prefix}}", r.s.prefix)
	for statement := range strings.SplitSeq(strings.ReplaceAll(sql, ";\n  ", "; "), ";\n") { // indented lines go on with a statement
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := r.w.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// migration is one step between two versions of the tables.
type migration struct {
	version int
	// oldest is the oldest version of this package that may work with the
	// tables after the step. A step that only adds, with defaults, leaves it the
	// version before; what is no longer needed goes a version later. Before one
	// that moves rows, as 8 does, engines of earlier versions have to be stopped.
	oldest   int
	up, down string
}

// steps returns the migrations in order of their names.
func steps() (out []migration, err error) {
	names, err := fs.Glob(migrations, "migrations/*.up.sql")
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		up, err := fs.ReadFile(migrations, name)
		if err != nil {
			return nil, err
		}
		down, err := fs.ReadFile(migrations, strings.TrimSuffix(name, ".up.sql")+".down.sql")
		if err != nil {
			return nil, err
		}
		m := migration{version: i + 1, up: string(up), down: string(down)}
		if _, err := fmt.Sscanf(m.up, "-- oldest: %d", &m.oldest); err != nil && i > 0 {
			return nil, fmt.Errorf("sqlstore: %s does not begin with its oldest version: %w", name, err)
		}
		out = append(out, m)
	}
	if len(out) != Version {
		return nil, fmt.Errorf("sqlstore: %d migrations make version %d", len(out), Version)
	}
	return out, nil
}
