// Package groupcommit lets callers that arrive at the same time share one
// transaction, without a timer and without a goroutine: the caller who opens a
// batch writes it as soon as the one before is written, and those who came
// meanwhile go with it. A lone caller waits for nobody.
package groupcommit

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

// Group collects rows into batches; see New. Set its fields before the first
// Add. It is safe for concurrent use.
type Group[T any] struct {
	// Write stores all rows or none, and does not keep rows. It is never called twice at
	// a time.
	Write func(ctx context.Context, rows []T) error
	// Size is what a row counts towards MaxSize; nil: nothing.
	Size func(T) int
	// MaxRows and MaxSize end a batch. Zero: 200 rows, 4 MiB.
	MaxRows int
	MaxSize int
	// Whole says that an error is not about one of the rows, so trying them
	// singly would not help; nil: no error is.
	Whole func(error) bool

	mu    sync.Mutex    // guards open and spare
	open  *batch[T]     // takes rows
	spare []T           // room for rows, used again
	turn  chan struct{} // holds one while a batch is written
}

// New returns a group that stores rows with write.
func New[T any](write func(ctx context.Context, rows []T) error) *Group[T] {
	return &Group[T]{Write: write, turn: make(chan struct{}, 1)}
}

type batch[T any] struct {
	rows []T
	size int
	done chan struct{}
	err  error
	each []error // after a failed batch was tried row by row
}

// Add writes one row, perhaps together with others, and returns when it is
// committed, or why it is not. If ctx ends first the row may be written or not.
// One bad row does not fail the others of its batch: they are tried singly.
func (g *Group[T]) Add(ctx context.Context, row T) error {
	b, at, lead := g.join(row)
	if !lead {
		select {
		case <-b.done:
			return b.result(at)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	g.gather(b)
	g.close(b)
	defer close(b.done) // also if Write panics: who follows must not wait for ever
	b.err = errPanic
	g.write(context.WithoutCancel(ctx), b)
	g.reuse(b)
	return b.result(at)
}

// yields is how often a leader lets others run at most.
const yields = 4

// gather lets those join who are about to, as long as there are some: fewer, larger
// commits under load.
func (g *Group[T]) gather(b *batch[T]) {
	for n, had := 0, 0; n < yields; n++ {
		runtime.Gosched()
		g.mu.Lock()
		have := len(b.rows)
		g.mu.Unlock()
		if have == had {
			return
		}
		had = have
	}
}

var errPanic = errors.New("groupcommit: the write panicked")

// join puts row into the open batch, or opens one, which makes the caller its leader.
func (g *Group[T]) join(row T) (b *batch[T], at int, lead bool) {
	size := 0
	if g.Size != nil {
		size = g.Size(row)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b = g.open
	if b == nil || len(b.rows) >= orDefault(g.MaxRows, 200) || b.size+size > orDefault(g.MaxSize, 4<<20) {
		b, lead = &batch[T]{done: make(chan struct{}), rows: g.spare}, true
		g.open, g.spare = b, nil
	}
	b.rows, b.size = append(b.rows, row), b.size+size
	return b, len(b.rows) - 1, lead
}

// close keeps b from taking more rows.
func (g *Group[T]) close(b *batch[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == b {
		g.open = nil
	}
}

func (g *Group[T]) write(ctx context.Context, b *batch[T]) {
	b.err = g.Write(ctx, b.rows)
	if b.err == nil || len(b.rows) == 1 || g.Whole != nil && g.Whole(b.err) {
		return
	}
	b.each = make([]error, len(b.rows))
	for i := range b.rows {
		b.each[i] = g.Write(ctx, b.rows[i:i+1])
	}
}

// reuse keeps the room for the rows of a batch that is written for a later one.
func (g *Group[T]) reuse(b *batch[T]) {
	rows := b.rows
	b.rows = nil
	clear(rows)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spare = rows[:0]
}

func (b *batch[T]) result(at int) error {
	if b.each != nil {
		return b.each[at]
	}
	return b.err
}

func orDefault(n, def int) int {
	if n > 0 {
		return n
	}
	return def
}
