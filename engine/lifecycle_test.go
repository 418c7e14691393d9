package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// TestStopWaitsThenCutsOff: calls get their time; then synchronous ones end with
// a reason on record, queued ones go back and are run by the next engine.
func TestStopWaitsThenCutsOff(t *testing.T) {
	t.Parallel()
	var began atomic.Int32
	until := make(chan struct{})
	box := func() *fnbox.Box {
		return funcs(func(ctx context.Context, c *fnbox.Context) error {
			began.Add(1)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-until:
			}
			return c.Empty()
		})
	}
	h := start(t, box())
	h.ready(t, "f")
	var wg sync.WaitGroup
	var now engine.ExecuteResult
	wg.Go(func() {
		var err error
		if now, err = h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{}); err != nil {
			t.Error(err)
		}
	})
	later := h.execute(t, "f", engine.ExecuteParams{Async: true})
	eventually(t, func() (int32, bool) { return began.Load(), began.Load() == 2 })

	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 2)
	for range 2 {
		go func() { stopped <- h.Stop(ctx) }()
	}
	eventually(t, func() (error, bool) { err := h.Ready(t.Context()); return err, err != nil })
	_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeUnavailable)
	select {
	case err := <-stopped:
		t.Fatalf("stopped during calls: %v", err)
	default:
	}
	cancel()
	for range 2 {
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("Stop: %v", err)
		}
	}
	wg.Wait()
	if stored, err := h.p.GetExecution(t.Context(), engine.System, "f", now.ID); err != nil || stored.Status != "failed" || !strings.Contains(stored.Errors, "server stops") {
		t.Errorf("%+v, %v", stored, err)
	}
	if x, err := h.p.GetExecution(t.Context(), engine.System, "f", later.ID); err != nil || x.Status != "waiting" {
		t.Errorf("%+v, %v", x, err)
	}
	close(until)
	next := h.beside(t, box())
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.stop(t)
	if x := next.ended(t, later.Execution); x.Status != "completed" || x.Attempt != 2 {
		t.Errorf("%+v", x)
	}
}

// TestStopDuringAStartThatHangs: nobody waits for the start.
func TestStopDuringAStartThatHangs(t *testing.T) {
	t.Parallel()
	starting := make(chan struct{})
	h := start(t, &broken{Box: funcs(ok), start: func(ctx context.Context) error {
		close(starting)
		<-ctx.Done()
		return ctx.Err()
	}})
	h.ready(t, "f")
	ended := make(chan error, 1)
	go func() {
		_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
		ended <- err
	}()
	<-starting
	h.stop(t)
	fails(t, <-ended, engine.TypeUnavailable)
}

func TestStopBeforeStart(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok))
	h.stop(t)
	h.stop(t)
	if err := h.Start(t.Context()); err == nil {
		t.Error("it started after Stop")
	}
	fails(t, h.Ready(t.Context()), engine.TypeUnavailable)
}

// unlistable is a driver that cannot list its instances at first.
type unlistable struct {
	*fnbox.Box
	works atomic.Bool
}

func (u *unlistable) List(ctx context.Context) ([]sandbox.Instance, error) {
	if !u.works.Load() {
		return nil, errors.New("no list today")
	}
	return u.Box.List(ctx)
}

func TestAStartThatFailsHalfwayCanBeTriedAgain(t *testing.T) {
	t.Parallel()
	box := &unlistable{Box: funcs(ok)}
	h := open(t, box)
	if err := h.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no list today") {
		t.Fatalf("Start: %v", err)
	}
	box.works.Store(true)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.stop(t)
	h.ready(t, "f")
	h.execute(t, "f", engine.ExecuteParams{})
}

func TestRunStopsWithItsContext(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx, time.Minute) }()
	h.ready(t, "f")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	fails(t, h.Ready(t.Context()), engine.TypeUnavailable)
}

// TestRunCutsOff what has not ended when its grace, by the engine's clock, is over.
func TestRunCutsOff(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Now())
	began := make(chan struct{})
	h := open(t, funcs(func(ctx context.Context, c *fnbox.Context) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}), func(c *engine.Config) { c.Clock = mock })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx, 10*time.Second) }()
	h.ready(t, "f")
	called := make(chan error, 1)
	go func() {
		_, err := h.p.Execute(context.WithoutCancel(ctx), engine.System, "f", engine.ExecuteParams{})
		called <- err
	}()
	<-began
	cancel()
	eventually(t, func() (error, bool) { err := h.Ready(t.Context()); return err, err != nil })
	select {
	case err := <-ended:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	err := eventually(t, func() (error, bool) {
		mock.Add(time.Second)
		select {
		case err := <-ended:
			return err, true
		default:
			return nil, false
		}
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v", err)
	}
	<-called
}

// TestTimeIsTheClocks: on a clock that stands still nothing passes, and what is
// bounded ends when the clock is moved.
func TestTimeIsTheClocks(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	var began atomic.Int32
	h := start(t, funcs(func(ctx context.Context, c *fnbox.Context) error {
		if c.Req.Path == "/hang" {
			began.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}
		return c.Empty()
	}), func(c *engine.Config) {
		c.Clock = mock
		c.Instances.Idle = time.Hour
		c.Work.Poll, c.Work.Lease = 100*time.Hour, 100*time.Hour // the jumps below are no death
	})
	_, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: fnbox.RuntimeID, Entrypoint: "f", Timeout: 900})
	if err != nil {
		t.Fatal(err)
	}
	h.deploy(t, "f", map[string]string{"x": ""})
	if x := h.execute(t, "f", engine.ExecuteParams{}); !x.CreatedAt.Equal(mock.Now()) || x.Duration != 0 {
		t.Errorf("%+v", x.Execution)
	}
	hung := make(chan error, 1)
	go func() {
		_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Path: "/hang"})
		hung <- err
	}()
	later := h.execute(t, "f", engine.ExecuteParams{Path: "/hang", Async: true})
	tomorrow := h.execute(t, "f", engine.ExecuteParams{Async: true, ScheduledAt: mock.Now().Add(24 * time.Hour)})
	eventually(t, func() (int32, bool) { return began.Load(), began.Load() == 2 })
	mock.Add(31 * time.Second)
	fails(t, <-hung, engine.TypeSyncTimeout)
	mock.Add(15 * time.Minute)
	if x := h.ended(t, later.Execution); x.Status != "failed" || !strings.Contains(x.Errors, "timed out") || x.Duration < 15*time.Minute {
		t.Errorf("%+v", x)
	}
	if x, err := h.p.GetExecution(t.Context(), engine.System, "f", tomorrow.ID); err != nil || x.Status != "scheduled" {
		t.Errorf("%+v, %v", x, err)
	}
	eventually(t, func() (int, bool) { // the loops may not have asked the clock yet
		mock.Add(time.Hour)
		all, err := h.cfg.Sandbox.List(t.Context())
		return len(all), err == nil && len(all) == 0
	})
	mock.Add(24 * time.Hour)
	if x := h.ended(t, tomorrow.Execution); x.Status != "completed" {
		t.Errorf("%+v", x)
	}
}

// TestCodeMayTakeLongerToFetchThanAStartMayLast: what was fetched is not thrown
// away, so the second caller finds it.
func TestCodeMayTakeLongerToFetchThanAStartMayLast(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	opening, gate := make(chan struct{}, 9), make(chan struct{})
	var opened atomic.Int32
	b := &blobs{open: func(_ context.Context, key string) error {
		if strings.HasPrefix(key, "artefacts/") {
			opened.Add(1)
			opening <- struct{}{}
			<-gate
		}
		return nil
	}}
	h := start(t, funcs(ok), withBlobs(b))
	h.ready(t, "f")
	h.stop(t)
	next := h.beside(t, funcs(ok), func(c *engine.Config) { c.Clock = mock })
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.stop(t)
	first := make(chan error, 1)
	go func() {
		_, err := next.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
		first <- err
	}()
	<-opening
	mock.Add(31 * time.Second)
	fails(t, <-first, engine.TypeBusy)
	close(gate)
	if x := next.execute(t, "f", engine.ExecuteParams{}); x.Status != "completed" || opened.Load() != 1 {
		t.Errorf("%+v after the code was opened %d times", x.Execution, opened.Load())
	}
}

// gated is a clock that gives out timers when a test says so.
type gated struct {
	*clock.Mock
	asked, gate chan struct{}
}

func (g gated) Timer(d time.Duration) *clock.Timer {
	g.asked <- struct{}{}
	<-g.gate
	return g.Mock.Timer(d)
}

// TestStopAsLoopsGoToSleep: none sleeps through it, on a clock that stands still.
func TestStopAsLoopsGoToSleep(t *testing.T) {
	t.Parallel()
	now := gated{clock.NewMock(), make(chan struct{}, 100), make(chan struct{})}
	now.Set(time.Now())
	d := deaf{asked: make(chan context.Context), hears: make(chan (<-chan struct{}))}
	h := open(t, funcs(ok), func(c *engine.Config) {
		d.Store, c.Clock = c.Store, now
		c.Store = d
	})
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx := <-d.asked
	for range 7 { // builds, runs, schedules, limits, eviction, housekeeping, spares
		<-now.asked
	}
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(context.Background()) }()
	<-ctx.Done()
	close(now.gate)
	d.hears <- nil
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
