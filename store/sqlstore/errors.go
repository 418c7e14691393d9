package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/fnkit/fnkit/store"
)

// failed wraps an error of the database with the act, as one of the contract
// where there is one. Drivers are not linked, so their errors are told by the
// SQL state they carry or, with SQLite, by their texts.
func failed(act string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrExists), errors.Is(err, store.ErrUnavailable):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: %w", act, store.ErrNotFound)
	case state(err) == "23505", contains(err, "unique constraint failed"):
		return fmt.Errorf("%s: %w", act, store.ErrExists)
	case unavailable(err):
		return fmt.Errorf("%s: %w: %w", act, store.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", act, err)
}

// state is the five letters by which a SQL server names an error, if it was one.
func state(err error) string {
	var standard interface{ SQLState() string } // pgx, lib/pq
	if errors.As(err, &standard) {
		return standard.SQLState()
	}
	var fields interface{ Field(byte) string } // bun's pgdriver
	if errors.As(err, &fields) {
		return fields.Field('C')
	}
	return ""
}

// conflict reports whether the same may succeed when it is tried again: two
// transactions stood in each other's way, or one went on after it had failed
// for that.
func conflict(err error) bool {
	switch state(err) {
	case "40001", "40P01", "25P02":
		return true
	}
	return err != nil && contains(err, "commit unexpectedly resulted in rollback")
}

// away are the beginnings of SQL states of a server that cannot serve now: lost
// connections, refused log-ins, no such database, conflicts that did not end,
// read-only, idle for too long in a transaction, out of something, locked,
// canceled from outside, shutting down, broken disks.
var away = []string{"08", "28", "3D", "40", "25006", "25P03", "53", "55P03", "57014", "57P", "58"}

func unavailable(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	if s := state(err); s != "" && slices.ContainsFunc(away, func(begin string) bool { return strings.HasPrefix(s, begin) }) {
		return true
	}
	var network net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, &network) ||
		contains(err, "database is closed", "database is locked", "database table is locked", "database schema is locked", "locking protocol", "readonly database", "read-only transaction",
			"disk is full", "disk i/o error", "unable to open database", "connection refused", "connection reset", "statement is closed", "conn closed", "failed to connect")
}

func contains(err error, texts ...string) bool {
	s := strings.ToLower(err.Error())
	for _, t := range texts {
		if strings.Contains(s, t) {
			return true
		}
	}
	return false
}
