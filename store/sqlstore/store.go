// Package sqlstore keeps the engine's records in SQLite or Postgres through bun.
// It takes the host's own *bun.DB and links no driver; packages sqlite and
// postgres below it open one for those who have none.
//
// All tables carry a prefix, so that they can live beside the host's. Times
// are milliseconds since 1970 in UTC, durations microseconds, lists JSON. Texts
// are kept as valid UTF-8 without NUL: what is neither becomes U+FFFD.
package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// Options configure a store.
type Options struct {
	// Prefix starts the name of every table. Default: "fnkit_".
	Prefix string
	// Reader serves reads outside transactions. It must see what was committed:
	// a replica that lags does not do. Default: the handle that writes.
	Reader *bun.DB
	// Listen hears what is notified on a channel of Postgres, see Store.Wakes.
	// Default: nothing is heard.
	Listen func(ctx context.Context, channel string) (Listener, error)
	// LeasesLast is told how long leases last, see store.Lessor. Default: a host's own
	// sessions are its own affair.
	LeasesLast func(d time.Duration)
	// Close ends the handles when the store is closed. Default: they are the
	// host's and stay open.
	Close func() error
}

// Store implements store.Store. It is safe for concurrent use.
type Store struct {
	records
	db      *bun.DB // writes
	prefix  string
	dialect *dialect
	inserts [3]string // see the func
	advance string    // see the func
	close   func() error
	lessor  func(time.Duration)

	statements statements // on db
	reads      statements // on the reader
	hints      hints
	closing    sync.Once
}

var _ store.Store = (*Store)(nil)

var prefixRule = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// New returns a store on a host's handle. Call Migrate before anything else.
//
// With SQLite, which must be version 3.38 or later, the handle must open transactions
// with BEGIN IMMEDIATE and should have one connection, as package sqlite does. With
// Postgres, it should have several, keep the plans of what is prepared
// ("plan_cache_mode" is "force_generic_plan"), and with pgx not prepare what is
// executed once (the execution mode "exec"), as package postgres does; its role needs
// USAGE on the sequences of the tables, as their owner has it.
func New(db *bun.DB, o Options) (*Store, error) {
	if o.Prefix == "" {
		o.Prefix = "fnkit_"
	}
	if !prefixRule.MatchString(o.Prefix) {
		return nil, fmt.Errorf("sqlstore: prefix %q is not a small letter followed by up to 30 small letters, digits or _", o.Prefix)
	}
	d, err := dialectOf(db.Dialect().Name())
	if err != nil {
		return nil, err
	}
	if o.Reader == nil {
		o.Reader = db
	}
	s := &Store{db: db, prefix: o.Prefix, dialect: d, inserts: inserts(o.Prefix), advance: advance(o.Prefix, d), close: o.Close, lessor: o.LeasesLast, hints: newHints(o.Listen)}
	s.statements.db, s.reads.db = db.DB, o.Reader.DB
	s.records = records{s: s, r: o.Reader, w: db}
	return s, nil
}

// Builds implements store.Store.
func (s *Store) Builds() store.Queue[store.Deployment] { return s.records.Builds() }

// Runs implements store.Store.
func (s *Store) Runs() store.Queue[store.Execution] { return s.records.Runs() }

// Ping implements store.Store: it reads, and changes a row of its own, since what
// changes nothing finds out neither that the disk is full nor, with SQLite, that it
// is read-only.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	if err := s.r.NewRaw("SELECT 1").Scan(ctx, &one); err != nil {
		return failed("ping", err)
	}
	const never = 1 << 50 // when it expires
	_, err := s.db.ExecContext(ctx, "INSERT INTO ? (project_id, kind, name, value, expires_at) VALUES ('', 'ping', '', ?, ?) "+
		"ON CONFLICT (project_id, kind, name) DO UPDATE SET value = excluded.value", s.table("keys"), rand.Text(), never)
	return failed("ping", err)
}

var _ store.Clock = (*Store)(nil)

// Now implements store.Clock, on Postgres.
func (s *Store) Now(ctx context.Context) (now time.Time, ok bool, err error) {
	if s.dialect.now == "" {
		return now, false, nil
	}
	var at int64
	err = s.db.NewRaw(s.dialect.now).Scan(ctx, &at)
	return time.UnixMicro(at).UTC(), err == nil, failed("now", err)
}

var _ store.Lessor = (*Store)(nil)

// LeasesLast implements store.Lessor.
func (s *Store) LeasesLast(d time.Duration) {
	if s.lessor != nil {
		s.lessor(d)
	}
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.hints.close()
	err := errors.Join(s.statements.close(), s.reads.close())
	s.closing.Do(func() {
		if s.close != nil {
			err = errors.Join(err, s.close())
		}
	})
	return err
}

// InTx implements store.Store. On SQLite the transaction holds the only
// writing connection: a call to the store itself inside fn would wait for ever.
func (s *Store) InTx(ctx context.Context, fn func(context.Context, store.Tx) error) error {
	if !s.dialect.arrays {
		if err := s.prepareAll(ctx, append(s.inserts[:], s.advance)); err != nil { // what fn may do often
			return failed("transaction", err)
		}
	}
	return s.inTx(ctx, s.dialect.whole, func(ctx context.Context, t *tx) error { return fn(ctx, t) })
}

// inTx returns an error of fn as it is: it may be the caller's own.
func (s *Store) inTx(ctx context.Context, o *sql.TxOptions, fn func(context.Context, *tx) error) error {
	var t *tx
	err := again(ctx, func(attempt int) error {
		t = &tx{}
		var refused error
		err := s.db.RunInTx(ctx, o, func(ctx context.Context, b bun.Tx) error {
			t.bun = b
			t.records = records{s: s, r: b, w: b, in: t}
			if attempt > 0 {
				if _, err := b.ExecContext(ctx, s.dialect.turn, s.table("migrations")); err != nil {
					return err
				}
			}
			refused = fn(ctx, t)
			return refused
		})
		if refused != nil {
			return refused
		}
		return failed("transaction", err)
	})
	if err == nil {
		t.committed()
	}
	return err
}

// Within returns a store.Tx on a transaction of the host's, on the same
// database: what is written with it is committed together with what the host
// writes, or not at all. After the commit the host calls committed, which does
// what AfterCommit was told; after a rollback it does not. On Postgres, a
// transaction that looks before it writes should be serializable.
func (s *Store) Within(host bun.Tx) (t store.Tx, committed func()) {
	within := &tx{bun: host}
	within.records = records{s: s, r: host, w: host, in: within}
	return within, within.committed
}

// attempts is how often something is tried that fails by standing in the way
// of others. Each time one of those got through, and transactions that are
// tried again take turns.
const attempts = 50

// again calls fn until it fails for no such reason.
func again(ctx context.Context, fn func(attempt int) error) (err error) {
	for n := range attempts {
		if err = fn(n); err == nil || !conflict(err) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// tx implements store.Tx.
type tx struct {
	records
	bun      bun.Tx
	prepared map[string]*sql.Stmt
	after    []func()
	queued   bool // rows that others may claim
}

func (t *tx) committed() {
	if t.queued {
		t.s.hint()
	}
	for _, f := range t.after {
		f()
	}
}

// AfterCommit implements store.Tx.
func (t *tx) AfterCommit(f func()) { t.after = append(t.after, f) }

func (t *tx) sql() *sql.Tx { return t.bun.Tx }

// records implements store.Records on two handles, or on one transaction.
type records struct {
	s    *Store
	r, w bun.IDB
	in   *tx // set inside a transaction
}

// atomic runs fn in the transaction that is open, or in one of its own. What
// fn reads to write it again, it must lock.
func (r records) atomic(ctx context.Context, fn func(context.Context, records) error) error {
	if r.in != nil {
		return fn(ctx, r)
	}
	return r.s.inTx(ctx, r.s.dialect.short, func(ctx context.Context, t *tx) error { return fn(ctx, t.records) })
}

// statement runs fn, which is one statement, until it stands in nobody's way,
// or once in the transaction that is open.
func (r records) statement(ctx context.Context, fn func() error) error {
	if r.in != nil {
		return fn()
	}
	return again(ctx, func(int) error { return fn() })
}

// refusable runs fn so that, if it fails, a transaction that is open is as it
// was before and can go on.
func (r records) refusable(ctx context.Context, fn func() error) error {
	if r.in == nil {
		return fn()
	}
	t := r.in.sql()
	if _, err := t.ExecContext(ctx, "SAVEPOINT fnkit"); err != nil {
		return err
	}
	failure := fn()
	if failure != nil {
		if _, err := t.ExecContext(ctx, "ROLLBACK TO SAVEPOINT fnkit"); err != nil {
			return errors.Join(failure, err, t.Rollback())
		}
	}
	_, err := t.ExecContext(ctx, "RELEASE SAVEPOINT fnkit")
	return errors.Join(failure, err)
}

// table is the name of a table, quoted.
func (s *Store) table(name string) bun.Ident { return bun.Ident(s.prefix + name) }
