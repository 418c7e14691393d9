package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// mute is a driver that does not list its instances when a test says so.
type mute struct {
	*fnbox.Box
	on atomic.Bool
}

func (m *mute) List(ctx context.Context) ([]sandbox.Instance, error) {
	if m.on.Load() {
		return nil, errors.New("secret of the driver")
	}
	return m.Box.List(ctx)
}

// TestReadyNamesThePart that does not work, and not more; it asks once a second.
func TestReadyNamesThePart(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Now())
	var puts atomic.Int32
	var full atomic.Bool
	box, code := &mute{Box: funcs(ok)}, &blobs{put: func(context.Context, string) error {
		if puts.Add(1); full.Load() {
			return errors.New("secret of the disk")
		}
		return nil
	}}
	h := open(t, box, withBlobs(code), func(c *engine.Config) { c.Clock = mock })
	is := func(want string) {
		t.Helper()
		mock.Add(time.Second)
		err := h.Ready(t.Context())
		if want == "" {
			if err != nil {
				t.Errorf("not ready: %v", err)
			}
			return
		}
		fails(t, err, engine.TypeUnavailable)
		var e *engine.Error
		if errors.As(err, &e); e.Message != want || e.Unwrap() != nil && strings.Contains(e.Message, "secret") {
			t.Errorf("%q, want %q", e.Message, want)
		}
	}
	box.on.Store(true)
	is("") // it runs nothing
	box.on.Store(false)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	is("")
	before := puts.Load()
	for range 10 {
		if err := h.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if puts.Load() != before {
		t.Error("it asks as often as it is asked")
	}
	box.on.Store(true)
	is("The sandbox does not answer.")
	full.Store(true)
	is("Blobs cannot be written.")
	full.Store(false)
	box.on.Store(false)
	is("")
	h.stop(t)
	is("This server does not run functions at the moment.")
	if err := h.Alive(); err != nil {
		t.Error(err)
	}
}

func TestReadyWithoutItsStore(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok))
	if err := h.cfg.Store.Close(); err != nil {
		t.Fatal(err)
	}
	var e *engine.Error
	if err := h.Ready(t.Context()); !errors.As(err, &e) || e.Message != "The store does not answer." || e.Unwrap() == nil {
		t.Errorf("%v", err)
	}
}

// TestAliveNamesALoopThatIsStuck, and is well when it goes on.
func TestAliveNamesALoopThatIsStuck(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Now())
	stuck, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	st := &records{fault: func(call string) error {
		if call == "claim" && once.CompareAndSwap(false, true) {
			close(stuck)
			<-release
		}
		return nil
	}}
	h := start(t, funcs(ok), withRecords(st), func(c *engine.Config) { c.Clock = mock })
	<-stuck
	if err := h.Alive(); err != nil {
		t.Errorf("at first: %v", err)
	}
	eventually(t, func() (error, bool) {
		mock.Add(10 * time.Second)
		err := h.Alive()
		return err, err != nil && strings.Contains(err.Error(), "The loop for runs has been stuck for ")
	})
	fails(t, h.Ready(t.Context()), engine.TypeUnavailable)
	close(release)
	eventually(t, func() (error, bool) { err := h.Alive(); return err, err == nil })
}

// deaf is a store whose backend is slow to listen, if it does at all.
type deaf struct {
	store.Store
	asked chan context.Context
	hears chan (<-chan struct{})
}

func (d deaf) Wakes(ctx context.Context) (<-chan struct{}, error) {
	d.asked <- ctx
	if wakes := <-d.hears; wakes != nil {
		return wakes, nil
	}
	return nil, errors.New("no")
}

// TestAliveKnowsWhetherHintsAreListenedFor: who listens may do so for ever, who asks
// to listen may not.
func TestAliveKnowsWhetherHintsAreListenedFor(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Now())
	d := deaf{asked: make(chan context.Context), hears: make(chan (<-chan struct{}))}
	h := start(t, funcs(ok), func(c *engine.Config) {
		d.Store, c.Clock = c.Store, mock
		c.Store = d
	})
	stuck := func() (error, bool) {
		mock.Add(10 * time.Second)
		err := h.Alive()
		return err, err != nil && strings.Contains(err.Error(), "The loop for hints has been stuck for ")
	}
	well := func() (error, bool) {
		mock.Add(time.Second)
		err := h.Alive()
		return err, err == nil
	}
	ctx := <-d.asked
	eventually(t, stuck)
	if ctx.Err() == nil {
		t.Error("it is still asked, after minutes")
	}
	d.hears <- nil
	eventually(t, well) // it is asked again, after a pause
	eventually(t, func() (context.Context, bool) {
		mock.Add(time.Second)
		select {
		case ctx = <-d.asked:
			return ctx, true
		default:
			return nil, false
		}
	})
	wakes := make(chan struct{})
	d.hears <- wakes
	eventually(t, well)
	wakes <- struct{}{}
	for range 100 { // nothing to say for a long time
		mock.Add(10 * time.Second)
		if err, _ := stuck(); err != nil && strings.Contains(err.Error(), "hints") {
			t.Fatal(err)
		}
	}
	if ctx.Err() != nil {
		t.Errorf("it stopped to listen: %v", context.Cause(ctx))
	}
	close(wakes)
	go func() { // until the engine stops
		for range d.asked {
			d.hears <- nil
		}
	}()
	t.Cleanup(func() { close(d.asked) })
	h.stop(t)
}
