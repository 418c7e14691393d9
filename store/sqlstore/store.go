// Package sqlstore keeps the engine's records in a SQL database through bun. It
// takes the host's own *bun.DB and links no driver; packages sqlite below it
// opens one for those who have none.
//
// All tables carry a prefix, so that they can live beside the host's. Times
// are milliseconds since 1970 in UTC, durations microseconds, lists JSON.
package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/fnkit/fnkit/store"
)

// Options configure a store.
type Options struct {
	// Prefix starts the name of every table. Default: "fnkit_".
	Prefix string
	// Reader serves reads outside transactions. Default: the handle that writes.
	Reader *bun.DB
	// Close ends the handles when the store is closed. Default: they are the
	// host's and stay open.
	Close func() error
}

// Store implements store.Store. It is safe for concurrent use.
type Store struct {
	records
	db     *bun.DB // writes
	prefix string
	close  func() error

	inserts atomic.Pointer[inserts] // prepared when first needed
	closing sync.Once
}

var _ store.Store = (*Store)(nil)

var prefixRule = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// New returns a store on a host's handle. Call Migrate before anything else.
// With SQLite, the handle should open transactions with BEGIN IMMEDIATE and
// have one connection, as package sqlite does.
func New(db *bun.DB, o Options) (*Store, error) {
	if o.Prefix == "" {
		o.Prefix = "fnkit_"
	}
	if !prefixRule.MatchString(o.Prefix) {
		return nil, fmt.Errorf("sqlstore: prefix %q is not a small letter followed by up to 30 small letters, digits or _", o.Prefix)
	}
	if name := db.Dialect().Name(); name != dialect.SQLite {
		return nil, fmt.Errorf("sqlstore: the dialect %s is not supported", name)
	}
	if o.Reader == nil {
		o.Reader = db
	}
	s := &Store{db: db, prefix: o.Prefix, close: o.Close}
	s.records = records{s: s, r: o.Reader, w: db}
	return s, nil
}

// Builds implements store.Store.
func (s *Store) Builds() store.Queue[store.Deployment] { return s.records.Builds() }

// Runs implements store.Store.
func (s *Store) Runs() store.Queue[store.Execution] { return s.records.Runs() }

// Ping implements store.Store: it reads and writes.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	if err := s.r.NewRaw("SELECT 1").Scan(ctx, &one); err != nil {
		return failed("ping", err)
	}
	_, err := s.db.ExecContext(ctx, "UPDATE ? SET version = version WHERE version < 0", s.table("migrations"))
	return failed("ping", err)
}

// Close implements store.Store.
func (s *Store) Close() (err error) {
	if in := s.inserts.Swap(nil); in != nil {
		err = in.close()
	}
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
	return s.inTx(ctx, func(ctx context.Context, t *tx) error { return fn(ctx, t) })
}

// inTx returns an error of fn as it is: it may be the caller's own.
func (s *Store) inTx(ctx context.Context, fn func(context.Context, *tx) error) error {
	t := &tx{}
	var refused error
	err := s.db.RunInTx(ctx, nil, func(ctx context.Context, b bun.Tx) error {
		t.records = records{s: s, r: b, w: b, tx: &b}
		t.after = nil
		refused = fn(ctx, t)
		return refused
	})
	if refused != nil {
		return refused
	}
	if err != nil {
		return failed("transaction", err)
	}
	for _, f := range t.after {
		f()
	}
	return nil
}

// tx implements store.Tx.
type tx struct {
	records
	after []func()
}

// AfterCommit implements store.Tx.
func (t *tx) AfterCommit(f func()) { t.after = append(t.after, f) }

// records implements store.Records on two handles, or on one transaction.
type records struct {
	s    *Store
	r, w bun.IDB
	tx   *bun.Tx // set inside a transaction
}

// atomic runs fn in the transaction that is open, or in one of its own.
func (r records) atomic(ctx context.Context, fn func(context.Context, records) error) error {
	if r.tx != nil {
		return fn(ctx, r)
	}
	return r.s.inTx(ctx, func(ctx context.Context, t *tx) error { return fn(ctx, t.records) })
}

// table is the name of a table, quoted.
func (s *Store) table(name string) bun.Ident { return bun.Ident(s.prefix + name) }
