// Package postgres opens a store in a Postgres database, version 13 or later.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/fnkit/fnkit/store/sqlstore"
)

// connections is how many a store holds at most; half of them stay open.
const connections = 16

// Open connects to a database and brings the tables up to date in the schema
// that is current there. dsn is a URL or a list of settings, as libpq takes
// them; what it leaves out comes from the PG… environment variables. Many
// engines may open one database, and their versions may be neighbours.
//
// Statements are prepared, so a proxy in front of the database must keep a
// session's server for it or know prepared statements. Close the store when
// done.
func Open(ctx context.Context, dsn string) (*sqlstore.Store, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	// What is executed often is prepared by the store, the rest is never the same.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "fnkit"
	}
	idle := &idleLimit{given: config.RuntimeParams[idleSetting] != ""}
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(settle(config.RuntimeParams, idle)), stdlib.OptionResetSession(idle.reset))
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections / 2)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour) // also after the server's addresses have changed
	s, err := open(ctx, db, config, idle)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("postgres: open: %w", err), db.Close())
	}
	return s, nil
}

func open(ctx context.Context, db *sql.DB, config *pgx.ConnConfig, idle *idleLimit) (*sqlstore.Store, error) {
	listen := func(ctx context.Context, channel string) (sqlstore.Listener, error) {
		return listen(ctx, config, channel)
	}
	s, err := sqlstore.New(bun.NewDB(db, pgdialect.New()), sqlstore.Options{Listen: listen, LeasesLast: idle.lower, Close: db.Close})
	if err != nil {
		return nil, err
	}
	return s, s.Migrate(ctx)
}

// listener has a connection of its own, beside those of the handle.
type listener struct{ conn *pgx.Conn }

func listen(ctx context.Context, config *pgx.ConnConfig, channel string) (sqlstore.Listener, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return listener{conn}, nil
}

// Wait implements sqlstore.Listener.
func (l listener) Wait(ctx context.Context) (string, error) {
	n, err := l.conn.WaitForNotification(ctx)
	if err != nil {
		return "", err
	}
	return n.Payload, nil
}

// Close implements sqlstore.Listener.
func (l listener) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return l.conn.Close(ctx)
}

// settings are those of each session, unless the DSN says otherwise. An engine
// that stops in the middle of a transaction, or whose machine goes away, must
// not keep rows from the others for long, see also idleLimit; nor may a
// statement that hangs keep an engine.
var settings = map[string]string{
	idleSetting:               "10s",
	"statement_timeout":       "60s",
	"lock_timeout":            "20s",
	"tcp_keepalives_idle":     "10",
	"tcp_keepalives_interval": "5",
	"tcp_keepalives_count":    "3",
	// What is prepared is planned to follow its indexes whatever there is. To plan the
	// end of a few executions anew costs more than to write it.
	"plan_cache_mode": "force_generic_plan",
}

// settle sets them. Proxies refuse most of them when a session begins.
func settle(given map[string]string, idle *idleLimit) func(context.Context, *pgx.Conn) error {
	var statement strings.Builder
	statement.WriteString("SET standard_conforming_strings = on;") // what quotes texts relies on it
	for name, value := range settings {
		if given[name] == "" {
			fmt.Fprintf(&statement, "SET %s = '%s';", name, value)
		}
	}
	return func(ctx context.Context, c *pgx.Conn) error {
		if _, err := c.Exec(ctx, statement.String()); err != nil {
			return err
		}
		return idle.reset(ctx, c)
	}
}

const idleSetting = "idle_in_transaction_session_timeout"

// idleLimit shortens idleSetting to the lease of the engines on a store: rows that
// one keeps which stands still are others' when its lease has ended.
type idleLimit struct {
	given bool         // the DSN says what it is
	limit atomic.Int64 // milliseconds; 0: as in settings
}

// lower takes a limit, if it is lower.
func (l *idleLimit) lower(to time.Duration) {
	if l.given {
		return
	}
	ms := min(to, 10*time.Second).Milliseconds()
	for old := l.limit.Load(); (old == 0 || ms < old) && !l.limit.CompareAndSwap(old, ms); old = l.limit.Load() {
	}
}

// reset tells a session the limit, if it does not know it: a new one, and one that is
// to be used again.
func (l *idleLimit) reset(ctx context.Context, c *pgx.Conn) error {
	known, ms := c.PgConn().CustomData(), l.limit.Load()
	if ms == 0 || known[idleSetting] == ms {
		return nil
	}
	_, err := c.Exec(ctx, fmt.Sprintf("SET %s = %d", idleSetting, ms))
	if err == nil {
		known[idleSetting] = ms
	}
	return err
}
