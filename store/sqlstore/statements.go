package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// statements are prepared when they are first needed, and kept: they serve
// what happens all the time. The rest goes through bun.
type statements struct {
	mu   sync.Mutex
	kept map[string]*sql.Stmt
}

// prepared returns the statement for a text. What it is used for inside a
// transaction, which may hold the only connection, is prepared there, and
// closed with it, unless it is known already.
func (r records) prepared(ctx context.Context, text string) (*sql.Stmt, error) {
	all := &r.s.statements
	all.mu.Lock()
	kept := all.kept[text]
	all.mu.Unlock()
	switch {
	case kept != nil && r.in != nil:
		return r.in.sql().StmtContext(ctx, kept), nil
	case kept != nil:
		return kept, nil
	case r.in != nil:
		return r.in.sql().PrepareContext(ctx, text)
	}
	// No lock is held while this waits for a connection, or whoever has that
	// could wait for the lock.
	made, err := r.s.db.DB.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	return all.keep(text, made)
}

// keep keeps a statement, unless another was quicker.
func (all *statements) keep(text string, made *sql.Stmt) (*sql.Stmt, error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if kept := all.kept[text]; kept != nil {
		return kept, made.Close()
	}
	if all.kept == nil {
		all.kept = map[string]*sql.Stmt{}
	}
	all.kept[text] = made
	return made, nil
}

func (all *statements) close() (err error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, s := range all.kept {
		err = errors.Join(err, s.Close())
	}
	all.kept = nil
	return err
}

// exec executes a prepared statement and returns how many rows it affected.
func (r records) exec(ctx context.Context, text string, args ...any) (int64, error) {
	s, err := r.prepared(ctx, text)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// scan reads what a prepared query returns into rows.
func (r records) scan(ctx context.Context, rows any, text string, args ...any) error {
	s, err := r.prepared(ctx, text)
	if err != nil {
		return err
	}
	found, err := s.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return r.s.db.ScanRows(ctx, found, rows)
}

// column is a column that many rows are written to at once.
type column struct {
	name string
	kind string // "text", "bigint" or "bytea"
}

func names(columns []column) string {
	all := make([]string, len(columns))
	for i, c := range columns {
		all[i] = c.name
	}
	return strings.Join(all, ", ")
}

// unnest is the arrays of columns as rows, the first one the parameter of
// number from.
func unnest(columns []column, from int) string {
	all := make([]string, len(columns))
	for i, c := range columns {
		all[i] = fmt.Sprintf("$%d::%s[]", from+i, c.kind)
	}
	return "unnest(" + strings.Join(all, ", ") + ")"
}

// arrays are the values of rows, an array literal for each column: every
// driver takes those.
func arrays(columns []column, rows [][]any) []any {
	all := make([]any, len(columns))
	for i := range columns {
		var b []byte
		for n, row := range rows {
			b = appendElement(append(b, "{,"[min(n, 1)]), row[i])
		}
		if len(rows) == 0 {
			b = append(b, '{')
		}
		all[i] = string(append(b, '}'))
	}
	return all
}

var quoteElement = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func appendElement(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "NULL"...)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case []byte:
		return fmt.Appendf(b, `"\\x%x"`, v)
	case string:
		return append(append(append(b, '"'), quoteElement.Replace(v)...), '"')
	}
	panic(fmt.Sprintf("sqlstore: no element for %T", v)) // a column was added without its kind
}
