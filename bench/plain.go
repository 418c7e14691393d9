package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// plain is a queue without an engine: a table, and a loop that claims a
// hundred rows and completes them.
type plain struct {
	db      *database
	loops   int // at once
	payload []byte
	next    int // id
}

const plainBatch = 100

func newPlain(ctx context.Context, db *database) (*plain, error) {
	p := &plain{db: db, loops: 4, payload: make([]byte, 200)}
	kind := "BYTEA"
	if db.name == "SQLite" {
		p.loops, kind = 1, "BLOB"
	}
	for _, text := range []string{
		"CREATE TABLE plain (id BIGINT PRIMARY KEY, state TEXT NOT NULL, attempt BIGINT NOT NULL, ready_at BIGINT, payload " + kind + " NOT NULL)",
		"CREATE INDEX plain_ready ON plain (ready_at) WHERE ready_at IS NOT NULL",
	} {
		if _, err := db.raw.ExecContext(ctx, text); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// insert inserts n rows with one statement.
func (p *plain) insert(ctx context.Context, n int) error {
	const row = "(%d, 'waiting', 0, 1, $1)"
	rows := make([]string, n)
	for i := range rows {
		rows[i] = fmt.Sprintf(row, p.next)
		p.next++
	}
	_, err := p.db.raw.ExecContext(ctx, "INSERT INTO plain (id, state, attempt, ready_at, payload) VALUES "+strings.Join(rows, ", "), p.payload)
	return err
}

// one returns an insert of one row, prepared.
func (p *plain) one(ctx context.Context) (call, func() error, error) {
	s, err := p.db.raw.PrepareContext(ctx, "INSERT INTO plain (id, state, attempt, ready_at, payload) VALUES ($1, 'waiting', 0, 1, $2)")
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) error {
		_, err := s.ExecContext(ctx, p.next, p.payload)
		p.next++
		return err
	}, s.Close, nil
}

// work works off n rows.
func (p *plain) work(ctx context.Context, n int) (drained, error) {
	for left := n; left > 0; left -= 1000 {
		if err := p.insert(ctx, min(left, 1000)); err != nil {
			return drained{}, err
		}
	}
	return timed(ctx, p.db, n, func() error { return p.loop(ctx, n) })
}

// loop has rows worked off by several at once.
func (p *plain) loop(ctx context.Context, n int) error {
	var done atomic.Int64
	errs := make([]error, p.loops)
	var loops sync.WaitGroup
	for i := range p.loops {
		loops.Go(func() {
			for errs[i] == nil {
				var n int
				if n, errs[i] = p.round(ctx); n == 0 {
					return
				}
				done.Add(int64(n))
			}
		})
	}
	loops.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if int(done.Load()) != n {
		return fmt.Errorf("worked off %d rows of %d", done.Load(), n)
	}
	return nil
}

func (p *plain) round(ctx context.Context) (int, error) {
	claim := fmt.Sprintf("UPDATE plain SET state = 'processing', attempt = attempt + 1, ready_at = 2 WHERE id %s RETURNING id, payload",
		map[bool]string{
			true:  fmt.Sprintf("IN (SELECT id FROM plain WHERE ready_at <= 1 ORDER BY ready_at LIMIT %d)", plainBatch),
			false: fmt.Sprintf("= ANY(ARRAY(SELECT id FROM plain WHERE ready_at <= 1 ORDER BY ready_at LIMIT %d FOR UPDATE SKIP LOCKED))", plainBatch),
		}[p.db.name == "SQLite"])
	rows, err := p.db.raw.QueryContext(ctx, claim)
	if err != nil {
		return 0, err
	}
	ids, err := scanIDs(rows)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	list := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ids)), ", "), "[]")
	_, err = p.db.raw.ExecContext(ctx, "UPDATE plain SET state = 'completed', ready_at = NULL WHERE id IN ("+list+")")
	return len(ids), err
}

func scanIDs(rows *sql.Rows) (ids []int64, err error) {
	defer rows.Close()
	for rows.Next() {
		var id int64
		var payload []byte
		if err := rows.Scan(&id, &payload); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
