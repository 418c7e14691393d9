package engine_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// blobs are real ones whose calls a test can watch, hold up and fail.
type blobs struct {
	store.Blobs
	put  func(ctx context.Context, key string) error // after each Put
	open func(ctx context.Context, key string) error // before each Open
}

func (b *blobs) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	n, err := b.Blobs.Put(ctx, key, r)
	if err == nil && b.put != nil {
		err = b.put(ctx, key)
	}
	return n, err
}

func (b *blobs) Open(ctx context.Context, key string) (io.ReadSeekCloser, int64, error) {
	if b.open != nil {
		if err := b.open(ctx, key); err != nil {
			return nil, 0, err
		}
	}
	return b.Blobs.Open(ctx, key)
}

// records are a real store that does not answer when a test says so.
type records struct {
	store.Store
	mu    sync.Mutex
	fault func(call string) error
}

// ask returns what a call fails with: "claim", "renew", "settle" of runs, "tx", and
// "committed", which has been.
func (r *records) ask(call string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault == nil {
		return nil
	}
	return r.fault(call)
}

func (r *records) set(fault func(call string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
}

func (r *records) Runs() store.Queue[engine.Execution] { return runs{r.Store.Runs(), r} }

func (r *records) InTx(ctx context.Context, fn func(context.Context, store.Tx) error) error {
	if err := r.ask("tx"); err != nil {
		return err
	}
	if err := r.Store.InTx(ctx, fn); err != nil {
		return err
	}
	return r.ask("committed")
}

type runs struct {
	store.Queue[engine.Execution]
	r *records
}

func (q runs) Claim(ctx context.Context, p store.ClaimParams) ([]store.Claimed[engine.Execution], error) {
	if err := q.r.ask("claim"); err != nil {
		return nil, err
	}
	return q.Queue.Claim(ctx, p)
}

func (q runs) Renew(ctx context.Context, l []store.Lease, until time.Time) ([]store.Lease, error) {
	if err := q.r.ask("renew"); err != nil {
		return nil, err
	}
	return q.Queue.Renew(ctx, l, until)
}

func (q runs) Settle(ctx context.Context, s []store.Settlement[engine.Execution]) ([]store.Lease, error) {
	if err := q.r.ask("settle"); err != nil {
		return nil, err
	}
	return q.Queue.Settle(ctx, s)
}

// broken is a driver that cannot start instances, or say what it can do, when a
// test says so.
type broken struct {
	*fnbox.Box
	start func(ctx context.Context) error
	can   func() error
}

func (b *broken) Capabilities(ctx context.Context) (sandbox.Capabilities, error) {
	if b.can != nil {
		if err := b.can(); err != nil {
			return sandbox.Capabilities{}, err
		}
	}
	return b.Box.Capabilities(ctx)
}

func (b *broken) Start(ctx context.Context, s sandbox.Spec) (sandbox.Instance, error) {
	if err := b.start(ctx); err != nil {
		return sandbox.Instance{}, err
	}
	return b.Box.Start(ctx, s)
}

// withBlobs puts b in front of the blobs of a configuration.
func withBlobs(b *blobs) func(*engine.Config) {
	return func(c *engine.Config) { c.Blobs, b.Blobs = b, c.Blobs }
}

// withRecords puts r in front of the store of a configuration.
func withRecords(r *records) func(*engine.Config) {
	return func(c *engine.Config) { c.Store, r.Store = r, c.Store }
}

// beside returns another engine on the same store and blobs, with a driver and
// a directory of its own; it is not started.
func (h *host) beside(t *testing.T, box sandbox.Driver, change ...func(*engine.Config)) *host {
	t.Helper()
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := h.cfg
	cfg.Sandbox, cfg.Dir = box, t.TempDir()
	for _, c := range change {
		c(&cfg)
	}
	return with(t, cfg)
}
