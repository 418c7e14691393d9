package engine_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// watched is a driver that tells what the last call was made with.
type watched struct {
	*fnbox.Box
	mu    sync.Mutex
	specs map[string]sandbox.Spec
	last  string
}

func (w *watched) Start(ctx context.Context, s sandbox.Spec) (sandbox.Instance, error) {
	w.mu.Lock()
	w.specs[s.ID] = s
	w.mu.Unlock()
	return w.Box.Start(ctx, s)
}

func (w *watched) Invoke(ctx context.Context, id string, r sandbox.Request, s sandbox.Sink) (sandbox.Result, error) {
	w.mu.Lock()
	spec := w.specs[id]
	w.last = fmt.Sprintf("%s %gcpu %dMB %s logging=%t X=%s name=%s", spec.Entrypoint, spec.CPUs, spec.Memory>>20, r.Timeout, r.Logging,
		spec.Env["X"], spec.Env["APPWRITE_FUNCTION_NAME"])
	w.mu.Unlock()
	return w.Box.Invoke(ctx, id, r, s)
}

func (w *watched) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func watch() *watched {
	return &watched{Box: fnbox.New(fnbox.Funcs{"f": ok, "g": ok}), specs: map[string]sandbox.Spec{}}
}

// buildsNothing is a store whose builds are left to others.
type buildsNothing struct{ store.Store }

type noBuilds struct{ store.Queue[engine.Deployment] }

func (s buildsNothing) Builds() store.Queue[engine.Deployment] { return noBuilds{s.Store.Builds()} }

func (noBuilds) Claim(context.Context, store.ClaimParams) ([]store.Claimed[engine.Deployment], error) {
	return nil, nil
}

// TestChangesReachTheVeryNextCall: at once on the engine that took them, after
// MaxStaleness on another.
func TestChangesReachTheVeryNextCall(t *testing.T) {
	t.Parallel()
	here, there := watch(), watch()
	h := start(t, here, func(c *engine.Config) { c.Work.MaxStaleness = time.Hour })
	other := h.beside(t, there, func(c *engine.Config) { c.Store, c.Work.MaxStaleness = buildsNothing{c.Store}, time.Nanosecond })
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer other.stop(t)
	h.ready(t, "f")
	ctx := t.Context()
	var v engine.Variable
	first := h.active(t, "f")
	update := func(p engine.FunctionParams) func() error {
		return func() error {
			_, err := h.p.UpdateFunction(ctx, engine.System, "f", p)
			return err
		}
	}
	value := "b"
	for i, c := range []struct {
		change func() error
		want   string
	}{
		{func() error { return nil }, "f 1cpu 512MB 15s logging=true X= name=f"},
		{func() (err error) { v, err = h.p.CreateVariable(ctx, engine.System, "f", "X", "a"); return err }, "f 1cpu 512MB 15s logging=true X=a name=f"},
		{func() error { _, err := h.p.UpdateVariable(ctx, engine.System, "f", v.ID, "X", &value); return err }, "f 1cpu 512MB 15s logging=true X=b name=f"},
		{update(engine.FunctionParams{Name: "n", Timeout: 7}), "f 1cpu 512MB 7s logging=true X=b name=n"},
		{update(engine.FunctionParams{Name: "n", NoLogging: true, Specification: "s-2vcpu-4gb"}), "f 2cpu 4096MB 15s logging=false X=b name=n"},
		{func() error { return h.p.DeleteVariable(ctx, engine.System, "f", v.ID) }, "f 2cpu 4096MB 15s logging=false X= name=n"},
		{update(engine.FunctionParams{Name: "f", Entrypoint: "g"}), "f 1cpu 512MB 15s logging=true X= name=f"}, // the deployment has its own
		{func() error { h.deploy(t, "f", map[string]string{"x": ""}); return nil }, "g 1cpu 512MB 15s logging=true X= name=f"},
		{func() error { _, err := h.p.ActivateDeployment(ctx, engine.System, "f", first); return err }, "f 1cpu 512MB 15s logging=true X= name=f"},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		for where, e := range map[*watched]*host{here: h, there: other} {
			e.execute(t, "f", engine.ExecuteParams{})
			if got := where.said(); got != c.want {
				t.Errorf("after change %d a call has %q, want %q (on the other engine: %t)", i, got, c.want, where == there)
			}
		}
	}
	if err := update(engine.FunctionParams{Name: "f", Disabled: true})(); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*host{h, other} {
		_, err := e.p.Execute(ctx, engine.Actor{}, "f", engine.ExecuteParams{})
		fails(t, err, engine.TypeFunction)
	}
	if err := h.p.DeleteFunction(ctx, engine.System, "f"); err != nil {
		t.Fatal(err)
	}
	for where, e := range map[*watched]*host{here: h, there: other} {
		_, err := e.p.Execute(ctx, engine.System, "f", engine.ExecuteParams{})
		fails(t, err, engine.TypeFunction)
		eventually(t, func() ([]sandbox.Instance, bool) {
			all, err := where.List(ctx)
			return all, err == nil && len(all) == 0
		})
	}
}

// countedReads is a store that counts how often functions and their revisions are
// read, and holds the answers back, if it shall.
type countedReads struct {
	store.Store
	held atomic.Pointer[chan struct{}]
	n    atomic.Int64
}

func (s *countedReads) read() {
	if held := s.held.Load(); held != nil {
		s.n.Add(1)
		<-*held
	}
}

func (s *countedReads) GetFunction(ctx context.Context, project, id string) (engine.Function, error) {
	s.read()
	return s.Store.GetFunction(ctx, project, id)
}

func (s *countedReads) FunctionRevision(ctx context.Context, project, id string) (int64, error) {
	s.read()
	return s.Store.FunctionRevision(ctx, project, id)
}

// TestCallersAtOnceAskOnce: when what is known is too old, one asks for all.
func TestCallersAtOnceAskOnce(t *testing.T) {
	t.Parallel()
	s, mock, held := &countedReads{}, clock.NewMock(), make(chan struct{})
	mock.Set(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	h := start(t, funcs(ok), func(c *engine.Config) { s.Store, c.Store, c.Clock, c.Work.MaxStaleness = c.Store, s, mock, time.Second })
	h.readyElsewhere(t, "f")
	h.execute(t, "f", engine.ExecuteParams{})
	s.held.Store(&held)
	mock.Add(time.Second)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { h.execute(t, "f", engine.ExecuteParams{}) })
	}
	eventually(t, func() (int64, bool) { return s.n.Load(), s.n.Load() > 0 })
	close(held)
	wg.Wait()
	if n := s.n.Load(); n != 1 {
		t.Errorf("the store was asked %d times", n)
	}
}

// afterCommit is a store that tells when a transaction has been committed.
type afterCommit struct {
	store.Store
	then atomic.Pointer[func()]
}

func (s *afterCommit) InTx(ctx context.Context, fn func(context.Context, store.Tx) error) error {
	err := s.Store.InTx(ctx, fn)
	if then := s.then.Load(); then != nil && err == nil {
		(*then)()
	}
	return err
}

// TestWhoSeesABuildReadyCallsIt: also before the engine that built it has gone on.
func TestWhoSeesABuildReadyCallsIt(t *testing.T) {
	t.Parallel()
	box, s := watch(), &afterCommit{}
	h := start(t, box, func(c *engine.Config) { s.Store, c.Store = c.Store, s })
	h.ready(t, "f")
	if _, err := h.p.UpdateFunction(t.Context(), engine.System, "f", engine.FunctionParams{Name: "f", Entrypoint: "g"}); err != nil {
		t.Fatal(err)
	}
	h.execute(t, "f", engine.ExecuteParams{}) // the engine knows what is active now
	first, called := h.active(t, "f"), make(chan struct{})
	then := func() {
		if h.active(t, "f") == first {
			return
		}
		s.then.Store(nil)
		defer close(called)
		for range 2 { // the second one knows what the first one learned
			h.execute(t, "f", engine.ExecuteParams{})
			if want := "g 1cpu 512MB 15s logging=true X= name=f"; box.said() != want {
				t.Errorf("a call has %q, want %q", box.said(), want)
			}
		}
	}
	s.then.Store(&then)
	h.deploy(t, "f", map[string]string{"x": ""})
	select {
	case <-called:
	case <-t.Context().Done():
	}
}

// TestDeletingAnOldDeploymentLeavesTheActiveOneWarm: no call pays for tidying up.
func TestDeletingAnOldDeploymentLeavesTheActiveOneWarm(t *testing.T) {
	t.Parallel()
	box := watch()
	h := start(t, box)
	h.ready(t, "f")
	old := h.active(t, "f")
	h.deploy(t, "f", map[string]string{"x": ""})
	h.execute(t, "f", engine.ExecuteParams{})
	warm, err := box.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.p.DeleteDeployment(t.Context(), engine.System, "f", old); err != nil {
		t.Fatal(err)
	}
	h.execute(t, "f", engine.ExecuteParams{})
	if all, err := box.List(t.Context()); err != nil || len(all) != 1 || len(warm) != 1 || all[0].ID != warm[0].ID {
		t.Errorf("instances %v, before %v, %v", all, warm, err)
	}
}

// TestAChangeCostsOneStart: callers at once who notice what another engine
// changed do not retire each other's instances.
func TestAChangeCostsOneStart(t *testing.T) {
	t.Parallel()
	box := watch()
	h := start(t, funcs(ok))
	other := h.beside(t, box, func(c *engine.Config) { c.Work.MaxStaleness = time.Nanosecond })
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer other.stop(t)
	h.ready(t, "f")
	other.execute(t, "f", engine.ExecuteParams{})
	if _, err := h.p.UpdateFunction(t.Context(), engine.System, "f", engine.FunctionParams{Name: "renamed"}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 90 {
		wg.Go(func() { other.execute(t, "f", engine.ExecuteParams{}) })
	}
	wg.Wait()
	box.mu.Lock()
	defer box.mu.Unlock()
	if len(box.specs) != 2 {
		t.Errorf("%d instances were started, want the old and the new one", len(box.specs))
	}
}
