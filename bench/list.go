package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// list compares pages of a long table with pages of a short one.
func list(ctx context.Context, o options, dir string) error {
	dir = filepath.Join(dir, "list")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sizes := []int{10_000, o.rows}
	var stores []*sqlstore.Store
	defer func() {
		for _, s := range stores {
			s.Close()
		}
	}()
	for i, n := range sizes {
		s, err := sqlite.Open(ctx, filepath.Join(dir, fmt.Sprintf("%d.db", i)))
		if err != nil {
			return err
		}
		stores = append(stores, s)
		if err := fill(ctx, s, 0, n); err != nil {
			return err
		}
	}
	pages, counts := make([][]time.Duration, len(sizes)), make([][]time.Duration, len(sizes))
	for range 100 {
		for i, s := range stores {
			page, count, err := walk(ctx, s)
			if err != nil {
				return err
			}
			pages[i], counts[i] = append(pages[i], page...), append(counts[i], count)
		}
	}
	fmt.Print("\n| rows | page of 25 by cursor, µs | total, counted to 5000, µs |\n|---|---|---|\n")
	for i, n := range sizes {
		fmt.Printf("| %d | %d | %d |\n", n, middle(pages[i]), middle(counts[i]))
	}
	fmt.Printf("\nPage: %.2f×. Filtered by function and status (1 row of 40 matches), newest first.\n", float64(middle(pages[1]))/float64(middle(pages[0])))
	return nil
}

func middle(all []time.Duration) int64 {
	slices.Sort(all)
	return all[len(all)/2].Microseconds()
}

// fill stores executions of ten functions, a quarter of them failed, beside those that
// are there already, until there are n.
func fill(ctx context.Context, s *sqlstore.Store, at, n int) error {
	began := time.UnixMilli(1_700_000_000_000).UTC()
	for at < n {
		var rows []store.Execution
		for ; len(rows) < 1000 && at < n; at++ {
			now := began.Add(time.Duration(at) * time.Millisecond)
			x := store.Execution{
				Project: project, ID: fmt.Sprintf("x%d", at), FunctionID: fmt.Sprintf("f%d", at%10), DeploymentID: "d", CreatedAt: now, UpdatedAt: now,
				Trigger: store.TriggerHTTP, Status: store.ExecutionCompleted, RequestMethod: "GET", RequestPath: "/", ResponseStatusCode: 200,
				Logs: "a line\n", Duration: time.Millisecond,
			}
			if at/10%4 == 0 {
				x.Status = store.ExecutionFailed
			}
			rows = append(rows, x)
		}
		if err := s.AppendExecutions(ctx, rows); err != nil {
			return err
		}
	}
	return nil
}

// walk reads eight pages, one behind the other, and counts.
func walk(ctx context.Context, s *sqlstore.Store) (pages []time.Duration, count time.Duration, err error) {
	q := store.Query{
		Filters: []store.Filter{{Op: store.Equal, Attr: "status", Values: []any{string(store.ExecutionFailed)}}},
		Orders:  []store.Order{{Desc: true}}, Limit: 25,
	}
	for range 8 {
		began := time.Now()
		rows, err := s.ListExecutions(ctx, project, "f3", "", q)
		pages = append(pages, time.Since(began))
		if err == nil && len(rows) != 25 {
			err = errors.New("a page is not full")
		}
		if err != nil {
			return nil, 0, err
		}
		q.After = rows[24].ID
	}
	began := time.Now()
	_, err = s.CountExecutions(ctx, project, "f3", "", q, 5000)
	return pages, time.Since(began), err
}
