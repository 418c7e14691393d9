package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// noop is a job for River.
type noop struct{ Payload []byte }

func (noop) Kind() string { return "noop" }

// riverPeer is River with the settings at which it is fastest.
type riverPeer struct {
	db     *database
	pool   *pgxpool.Pool
	client func() (*river.Client[pgx.Tx], error)
	done   atomic.Int64
}

type noopWorker struct {
	river.WorkerDefaults[noop]
	r *riverPeer
}

func (w noopWorker) Work(context.Context, *river.Job[noop]) error {
	w.r.done.Add(1)
	return nil
}

func newRiver(ctx context.Context, db *database) (*riverPeer, error) {
	pool, err := pgxpool.New(ctx, db.dsn)
	if err != nil {
		return nil, err
	}
	r := &riverPeer{db: db, pool: pool}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	r.client = func() (*river.Client[pgx.Tx], error) {
		workers := river.NewWorkers()
		river.AddWorker(workers, noopWorker{r: r})
		return river.NewClient(riverpgxv5.New(pool), &river.Config{
			Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
			Workers: workers, FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 100 * time.Millisecond,
			Logger: slog.New(slog.DiscardHandler),
		})
	}
	return r, nil
}

// work works off n jobs, until the last one is completed, which River does when it
// stops.
func (r *riverPeer) work(ctx context.Context, n int) (drained, error) {
	client, err := r.client()
	if err != nil {
		return drained{}, err
	}
	for left := n; left > 0; left -= 1000 {
		params := make([]river.InsertManyParams, min(left, 1000))
		for i := range params {
			params[i].Args = noop{make([]byte, 150)} // 200 in base64
		}
		if _, err := client.InsertMany(ctx, params); err != nil {
			return drained{}, err
		}
	}
	r.done.Store(0)
	return timed(ctx, r.db, n, func() error {
		if err := client.Start(ctx); err != nil {
			return err
		}
		for r.done.Load() < int64(n) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		return client.Stop(ctx)
	})
}
