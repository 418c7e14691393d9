package sqlstore

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/fnkit/fnkit/store"
)

// failed wraps an error of the database with the act, as one of the contract
// where there is one. Drivers are not linked, so their errors are told by
// their texts.
func failed(act string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrExists), errors.Is(err, store.ErrUnavailable):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: %w", act, store.ErrNotFound)
	case contains(err, "unique constraint failed", "duplicate key"):
		return fmt.Errorf("%s: %w", act, store.ErrExists)
	case unavailable(err):
		return fmt.Errorf("%s: %w: %w", act, store.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", act, err)
}

func unavailable(err error) bool {
	var network net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.As(err, &network) ||
		contains(err, "database is closed", "database is locked", "database table is locked", "database schema is locked", "locking protocol", "readonly database", "read-only transaction",
			"disk is full", "disk i/o error", "unable to open database", "connection refused", "connection reset", "statement is closed")
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
