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

// statements of one handle are prepared when they are first needed, and kept:
// they serve what happens all the time. The rest goes through bun.
type statements struct {
	db   *sql.DB
	mu   sync.Mutex
	kept map[string]*sql.Stmt
}

func (all *statements) get(text string) *sql.Stmt {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.kept[text]
}

// prepared returns the statement for a text. Inside a transaction, which may
// hold the only connection, one that is not known yet is prepared there, and
// lasts as long: what many rows are written with should be known before.
func (r records) prepared(ctx context.Context, text string) (*sql.Stmt, error) {
	if r.in == nil {
		return r.s.statements.prepare(ctx, text)
	}
	if own := r.in.prepared[text]; own != nil {
		return own, nil
	}
	var own *sql.Stmt
	var err error
	if kept := r.s.statements.get(text); kept != nil {
		own = r.in.sql().StmtContext(ctx, kept)
	} else if own, err = r.in.sql().PrepareContext(ctx, text); err != nil {
		return nil, err
	}
	if r.in.prepared == nil {
		r.in.prepared = map[string]*sql.Stmt{}
	}
	r.in.prepared[text] = own
	return own, nil
}

// prepare makes a statement known. No lock is held while it waits for a
// connection, or whoever has that could wait for the lock.
func (all *statements) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if kept := all.get(text); kept != nil {
		return kept, nil
	}
	made, err := all.db.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	return all.keep(text, made)
}

// atomicWith is atomic for a fn that executes statements many times.
func (r records) atomicWith(ctx context.Context, texts []string, fn func(context.Context, records) error) error {
	if r.in == nil {
		if err := r.s.prepareAll(ctx, texts); err != nil {
			return err
		}
	}
	return r.atomic(ctx, fn)
}

// prepareAll makes statements known.
func (s *Store) prepareAll(ctx context.Context, texts []string) error {
	for _, text := range texts {
		if _, err := s.statements.prepare(ctx, text); err != nil {
			return err
		}
	}
	return nil
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
	return r.s.fetch(ctx, s, rows, args)
}

// look is scan for what changes nothing: outside a transaction the reader answers.
func (r records) look(ctx context.Context, rows any, text string, args ...any) error {
	if r.in != nil {
		return r.scan(ctx, rows, text, args...)
	}
	s, err := r.s.reads.prepare(ctx, text)
	if err != nil {
		return err
	}
	return r.s.fetch(ctx, s, rows, args)
}

func (s *Store) fetch(ctx context.Context, query *sql.Stmt, rows any, args []any) error {
	found, err := query.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return s.db.ScanRows(ctx, found, rows)
}

// column is a column that many rows are written to at once.
type column struct {
	name string
	kind string // "text", "bigint", "boolean" or "bytea"
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
	case bool:
		return strconv.AppendBool(b, v)
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
