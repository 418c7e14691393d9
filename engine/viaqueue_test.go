package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// front returns an engine on the records of another, or on s, that is not started
// and takes synchronous calls.
func front(t *testing.T, h *host, s store.Store, change ...func(*engine.Config)) *host {
	t.Helper()
	cfg := h.cfg
	cfg.Sandbox, cfg.Dir, cfg.SyncViaQueue = fnbox.New(fnbox.Funcs{}), filepath.Join(t.TempDir(), "engine"), true
	if s != nil {
		cfg.Store = s
	}
	for _, c := range change {
		c(&cfg)
	}
	return with(t, cfg)
}

// kept reports whether the answer of a call is still stored.
func kept(t *testing.T, s store.Store, x engine.Execution) bool {
	t.Helper()
	_, err := s.GetKey(t.Context(), x.Project, store.ExecutionKey, x.FunctionID+"/call/"+x.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// A synchronous call on an engine that was not started is answered through the
// queue as one that was started answers it.
func TestSyncViaQueue(t *testing.T) {
	onStores(t, func(t *testing.T, connect func(*testing.T) store.Store) {
		funcs := fnbox.Funcs{"f": func(_ context.Context, c *fnbox.Context) error {
			c.Log("it ran")
			if c.Req.Path == "/fail" {
				return errors.New("no")
			}
			c.SetHeader("x-told", strings.Join([]string{c.Req.Method, c.Req.Path, c.Req.Headers["x-asked"], c.Req.Headers["x-appwrite-trigger"], c.Req.Headers["x-appwrite-client-ip"]}, " "))
			return c.Binary(203, append([]byte{0xff, 0}, c.Req.Body...))
		}}
		var workers []*host
		for range 2 {
			workers = append(workers, start(t, fnbox.New(funcs), func(c *engine.Config) {
				c.Store = connect(t)
				if len(workers) > 0 {
					c.Blobs = workers[0].cfg.Blobs
				}
			}))
		}
		a := workers[0]
		a.ready(t, "f")
		h := front(t, a, connect(t))
		ann := engine.Actor{Kind: engine.ActorUser, UserID: "ann"}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				asked := engine.ExecuteParams{Method: "PUT", Path: "/p?q=1", Body: fmt.Append(nil, "call ", i), Headers: []engine.Header{{Name: "X-Asked", Value: "this"}}, ClientIP: "10.1.2.3"}
				x, err := h.p.Execute(t.Context(), ann, "f", asked)
				if err != nil {
					t.Error(err)
					return
				}
				want, err := a.p.Execute(t.Context(), ann, "f", asked)
				if err != nil || string(x.ResponseBody) != string(want.ResponseBody) || fmt.Sprint(x.ResponseHeaders) != fmt.Sprint(want.ResponseHeaders) {
					t.Errorf("got %q %v, want %q %v, %v", x.ResponseBody, x.ResponseHeaders, want.ResponseBody, want.ResponseHeaders, err)
				}
				if x.Status != "completed" || x.ResponseStatusCode != 203 || x.Logs != "" || x.Trigger != "http" || x.UserID != "ann" || x.Repeated || x.Duration == 0 {
					t.Errorf("got %+v", x)
				}
				if kept(t, a.cfg.Store, x.Execution) {
					t.Error("the answer is kept after it was taken")
				}
			})
		}
		wg.Wait()
		x, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Path: "/fail"})
		if err != nil || x.Status != "failed" || x.ResponseStatusCode != 500 || x.Logs != "it ran\n" {
			t.Errorf("one that fails: %+v, %v", x, err)
		}
		for _, repeated := range []bool{false, true} {
			x, err := h.p.Execute(t.Context(), ann, "f", engine.ExecuteParams{IdempotencyKey: "k", Body: []byte("once")})
			if err != nil || x.Repeated != repeated || string(x.ResponseBody) != "\xff\x00once" {
				t.Errorf("with a key: %+v, %v", x, err)
			}
		}
		if x, err := a.p.Execute(t.Context(), ann, "f", engine.ExecuteParams{IdempotencyKey: "k", Body: []byte("once")}); err != nil || !x.Repeated || string(x.ResponseBody) != "\xff\x00once" {
			t.Errorf("with a key, elsewhere: %+v, %v", x, err)
		}
		server := httptest.NewServer(httpapi.FunctionHandler(h.Engine, "shop", "f"))
		defer server.Close()
		for method, body := range map[string]string{"PATCH": "\xff\x00streamed", "HEAD": ""} {
			req, _ := http.NewRequestWithContext(t.Context(), method, server.URL+"/there", strings.NewReader("streamed"))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 203 || string(got) != body || !strings.HasPrefix(resp.Header.Get("X-Told"), method+" /there") {
				t.Errorf("%s: %d %q %v", method, resp.StatusCode, got, resp.Header)
			}
		}
		_, err = h.p.Execute(t.Context(), engine.System, "none", engine.ExecuteParams{})
		fails(t, err, engine.TypeFunction)
		_, err = front(t, a, nil, func(c *engine.Config) { c.SyncViaQueue = false }).p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
		fails(t, err, engine.TypeUnavailable)
	})
}

// TestSyncViaQueueGoesFirst: before all that nobody waits for.
func TestSyncViaQueueGoesFirst(t *testing.T) {
	t.Parallel()
	hold, entered := make(chan struct{}), make(chan struct{}, 1)
	var order []string
	h := start(t, funcs(func(ctx context.Context, c *fnbox.Context) error {
		if order = append(order, c.Req.Text()); c.Req.Text() == "holds" {
			entered <- struct{}{}
			<-hold
		}
		return c.Empty()
	}), func(c *engine.Config) { c.Work.Runs = 1 })
	if _, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: fnbox.RuntimeID, Entrypoint: "f", Policy: engine.PolicyParams{Priority: new(engine.MaxPriority)}}); err != nil {
		t.Fatal(err)
	}
	h.deploy(t, "f", map[string]string{"README": ""})
	h.execute(t, "f", engine.ExecuteParams{Async: true, Body: []byte("holds")})
	<-entered
	last := h.execute(t, "f", engine.ExecuteParams{Async: true, Body: []byte("queued")})
	called := make(chan error, 1)
	go func() {
		_, err := front(t, h, nil).p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Body: []byte("called")})
		called <- err
	}()
	eventually(t, func() (int, bool) {
		n, err := h.cfg.Store.Runs().Depth(t.Context(), time.Now().Add(time.Minute), 10)
		return n, err == nil && n == 3
	})
	close(hold)
	if err := <-called; err != nil {
		t.Error(err)
	}
	h.ended(t, last.Execution)
	if fmt.Sprint(order) != "[holds called queued]" {
		t.Errorf("ran in the order %q", order)
	}
}

// TestSyncViaQueueInTime: whose time is up is told so, whether it ran or not, and
// what has not begun by then does not.
func TestSyncViaQueueInTime(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	box := funcs(func(ctx context.Context, c *fnbox.Context) error {
		runs.Add(1)
		<-ctx.Done()
		return ctx.Err()
	})
	mock := clock.NewMock()
	mock.Set(time.Now())
	short := func(c *engine.Config) {
		c.Clock, c.Limits.SyncTimeout, c.Work.Grace, c.Work.Poll = mock, 10*time.Minute, time.Hour, time.Second
		c.Work.Lease = 100 * time.Hour // a jump is no death
	}
	h := start(t, box, short)
	if _, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: fnbox.RuntimeID, Entrypoint: "f", Timeout: 900}); err != nil {
		t.Fatal(err)
	}
	h.deploy(t, "f", map[string]string{"README": ""})
	told, f := make(chan error, 1), front(t, h, nil, short)
	go func() {
		_, err := f.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{IdempotencyKey: "k"})
		told <- err
	}()
	eventually(t, func() (int64, bool) {
		mock.Add(time.Second) // the worker looks for it
		return runs.Load(), runs.Load() == 1
	})
	passing(mock, time.Minute, func() { fails(t, <-told, engine.TypeSyncTimeout) })
	_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{IdempotencyKey: "k"})
	fails(t, err, engine.TypeSyncTimeout)
	only := func() engine.Execution {
		t.Helper()
		all, err := h.p.ListExecutions(t.Context(), engine.System, "f", engine.Query{})
		if err != nil || all.Total != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all.Items[0]
	}
	if x := only(); runs.Load() != 1 || x.Status != "failed" || !strings.Contains(x.Errors, "timed out") {
		t.Errorf("one that ran: %+v", x)
	}
	if err := h.p.DeleteExecution(t.Context(), engine.System, "f", only().ID); err != nil {
		t.Fatal(err)
	}
	h.stop(t)
	runs.Store(0)
	hurry := func(c *engine.Config) {
		c.Clock, c.Limits.SyncTimeout, c.Work.Grace = nil, 300*time.Millisecond, time.Millisecond
	}
	for range 2 {
		_, err = front(t, h, nil, hurry).p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{IdempotencyKey: "l"})
		fails(t, err, engine.TypeSyncTimeout)
	}
	x := only()
	if x.Status != "canceled" || x.Errors != "Execution timed out.\n" {
		t.Errorf("one that did not: %+v", x)
	}
	if _, ok, err := h.cfg.Store.Runs().NextDue(t.Context()); ok || err != nil || runs.Load() > 0 {
		t.Errorf("%+v is queued (%v), %v, or ran %d times", x, ok, err, runs.Load())
	}
}

// TestSyncViaQueueCallerGoes: a call that has not begun is withdrawn; with an
// idempotency key it can still be asked for.
func TestSyncViaQueueCallerGoes(t *testing.T) {
	t.Parallel()
	h := start(t, fnbox.New(fnbox.Funcs{"f": quiet}))
	h.ready(t, "f")
	h.stop(t)
	f := front(t, h, nil)
	for _, key := range []string{"", "k"} {
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := f.p.Execute(ctx, engine.System, "f", engine.ExecuteParams{IdempotencyKey: key})
			gone <- err
		}()
		x := eventually(t, func() (engine.Execution, bool) {
			all, err := h.p.ListExecutions(t.Context(), engine.System, "f", engine.Query{})
			if err != nil || len(all.Items) == 0 {
				return engine.Execution{}, false
			}
			return all.Items[0], true
		})
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller: %v", err)
		}
		_, err := h.cfg.Store.GetExecution(t.Context(), "shop", "f", x.ID)
		if key == "" && (!errors.Is(err, store.ErrNotFound) || kept(t, h.cfg.Store, x)) {
			t.Errorf("it is still there: %v", err)
		} else if key != "" && err != nil {
			t.Error(err)
		}
	}
	next := h.beside(t, fnbox.New(fnbox.Funcs{"f": quiet}))
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.stop(t)
	if x, err := f.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{IdempotencyKey: "k"}); err != nil || !x.Repeated || x.Status != "completed" {
		t.Errorf("asked for again: %+v, %v", x, err)
	}
}

// waiting is a store that does not say what became of an execution, as to a
// process that has died.
type waiting struct {
	store.Store
	queued chan string
}

func (w waiting) GetExecution(ctx context.Context, _, _, id string) (store.Execution, error) {
	w.queued <- id
	<-ctx.Done()
	return store.Execution{}, ctx.Err()
}

// TestSyncViaQueueWaiterDies: what it waited for is run within its time or not at
// all, and the answer that nobody takes goes.
func TestSyncViaQueueWaiterDies(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	now := clock.NewMock()
	now.Set(time.Now())
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		runs.Add(1)
		return c.Text(200, "for nobody")
	}))
	h.ready(t, "f")
	h.stop(t)
	for _, late := range []bool{false, true} {
		dead := waiting{h.cfg.Store, make(chan string)}
		f := front(t, h, dead, func(c *engine.Config) { c.Clock = now })
		ctx, end := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { f.p.Execute(ctx, engine.System, "f", engine.ExecuteParams{}) })
		id := <-dead.queued
		if late {
			now.Set(now.Now().Add(30 * time.Second))
		}
		cfg := h.cfg
		cfg.Sandbox, cfg.Dir, cfg.Clock = funcs(func(_ context.Context, c *fnbox.Context) error {
			runs.Add(1)
			return c.Text(200, "for nobody")
		}), filepath.Join(t.TempDir(), "engine"), now
		worker := with(t, cfg)
		for did := true; did; {
			var err error
			if _, did, err = worker.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		x, err := h.cfg.Store.GetExecution(t.Context(), "shop", "f", id)
		if want := map[bool]string{false: "completed", true: "failed"}[late]; err != nil || string(x.Status) != want {
			t.Errorf("late %v: %+v, %v", late, x, err)
		}
		key, err := h.cfg.Store.GetKey(t.Context(), "shop", store.ExecutionKey, "f/call/"+id)
		if err != nil || len(key.Answer) == 0 || strings.Contains(string(key.Answer), "nobody") {
			t.Errorf("the answer is not kept, sealed, for who may wait: %q, %v", key.Answer, err)
		}
		if n, err := h.cfg.Store.DeleteKeys(t.Context(), x.CreatedAt.Add(2*time.Minute), 10); err != nil || n != 1 {
			t.Errorf("%d answers went, %v", n, err)
		}
		end()
		wg.Wait()
		worker.stop(t)
	}
	if runs.Load() != 1 {
		t.Errorf("ran %d times", runs.Load())
	}
}

// TestSyncViaQueueWorkerDies: the call is not made again, and the caller is told.
func TestSyncViaQueueWorkerDies(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	dead, alive := clock.NewMock(), clock.NewMock()
	dead.Set(time.Now())
	built := start(t, fnbox.New(fnbox.Funcs{"f": quiet}))
	built.ready(t, "f")
	built.stop(t)
	on := func(now clock.Clock, run fnbox.Func) *host {
		cfg := built.cfg
		cfg.Sandbox, cfg.Dir, cfg.Clock = funcs(run), filepath.Join(t.TempDir(), "engine"), now
		h := with(t, cfg)
		t.Cleanup(func() { h.stop(t) })
		return h
	}
	step := func(h *host) {
		if _, _, err := h.Step(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
	a := on(dead, func(_ context.Context, c *fnbox.Context) error {
		close(entered)
		<-leave
		return c.Text(200, "too late")
	})
	f := front(t, built, nil, func(c *engine.Config) { c.Limits.SyncTimeout = 10 * time.Minute })
	told := make(chan error, 1)
	go func() {
		_, err := f.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
		told <- err
	}()
	eventually(t, func() (bool, bool) {
		_, ok, _ := built.cfg.Store.Runs().NextDue(t.Context())
		return ok, ok
	})
	dead.Set(time.Now())
	var wg sync.WaitGroup
	wg.Go(func() { step(a) })
	<-entered
	alive.Set(dead.Now().Add(31 * time.Second))
	step(on(alive, func(context.Context, *fnbox.Context) error {
		t.Error("it is run again")
		return nil
	}))
	err := <-told
	fails(t, err, engine.TypeUnavailable)
	if err != nil && !strings.Contains(err.Error(), "not run again") {
		t.Error(err)
	}
	close(leave)
	wg.Wait()
	list, err := built.p.ListExecutions(t.Context(), engine.System, "f", engine.Query{})
	if err != nil || list.Total != 1 || list.Items[0].Status != "failed" || list.Items[0].Attempt != 2 {
		t.Errorf("in the end: %+v, %v", list, err)
	}
}
