// Package enginetest runs an engine inside a test: on a SQLite file of its own,
// with Go funcs as functions, and with a clock that only the test moves.
//
//	kit := enginetest.New(t, fnbox.Funcs{"report": report})
//	kit.Deploy("shop", engine.FunctionParams{ID: "report", Schedule: "0 3 * * MON"})
//	kit.Advance(7 * 24 * time.Hour)
//	kit.Executions("shop", "report") // has one
//
// Nothing runs in the background: executions, builds and schedules happen in
// Drain and Advance, on the test's goroutine, one after the other, so a test has one
// outcome. A function must not wait for the clock: it would wait for ever.
//
// Code that needs the engine's loops, or functions that take their time, is tested in a
// bubble of package testing/synctest: Start returns a kit whose engine runs by itself
// there, on the bubble's time.
//
//	synctest.Test(t, func(t *testing.T) {
//		kit := enginetest.Start(t, fnbox.Funcs{"slow": slow}) // sleeps for an hour
//		kit.Deploy("shop", engine.FunctionParams{ID: "slow", Timeout: 15})
//		kit.Execute("shop", "slow", engine.ExecuteParams{}) // fails after 15 s, at once
//
// In a bubble time stands still while anything is going on that the bubble does not
// know of. So nothing in it may wait for a socket, a pipe or another process: a store
// on a server, a sandbox with processes, and an HTTP server (unlike its handler, with
// httptest.NewRecorder) would stop it for ever. Files, and so SQLite, are fine. A kit of New
// works in a bubble as it does outside.
package enginetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite/sqlitetest"
)

// Epoch is where the clock of a kit begins: a Thursday.
var Epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Kit is an engine in a test's hands. Its methods fail the test on an error.
type Kit struct {
	*engine.Engine
	Clock *clock.Mock // nil in a kit of Start, whose time is package time's
	t     testing.TB
}

// New returns a kit whose functions have the Go funcs as entrypoints. change
// may adjust the configuration. All of it ends with the test. Executions are
// kept however far the clock is moved.
func New(t testing.TB, funcs fnbox.Funcs, change ...func(*engine.Config)) *Kit {
	t.Helper()
	mock := clock.NewMock()
	mock.Set(Epoch)
	k := open(t, funcs, mock, change)
	k.Clock = mock
	return k
}

// Start returns a kit whose engine was started, in the bubble of testing/synctest that
// t is of. Its time is the bubble's, which begins on a Saturday, the 1st of January
// 2000: it goes on while the test waits, in Advance, time.Sleep or for an answer. The
// engine's loops look at their tables once an hour only (Work.Poll, unless change says
// otherwise), and besides when something is due.
func Start(t testing.TB, funcs fnbox.Funcs, change ...func(*engine.Config)) *Kit {
	t.Helper()
	k := open(t, funcs, clock.New(), append([]func(*engine.Config){func(c *engine.Config) { c.Work.Poll = time.Hour }}, change...))
	if err := k.Engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

// open returns a kit on a clock, whose engine was not started.
func open(t testing.TB, funcs fnbox.Funcs, now clock.Clock, change []func(*engine.Config)) *Kit {
	t.Helper()
	dir := t.TempDir()
	db := sqlitetest.Open(t, filepath.Join(dir, "fnkit.db"))
	box := fnbox.New(funcs)
	cfg := engine.Config{
		Store: db, Blobs: dirblobs.New(filepath.Join(dir, "blobs")), Sandbox: box, Dir: filepath.Join(dir, "engine"),
		Keys: engine.Key("test", []byte("a key for tests alone")), MinIsolation: "none", Clock: now,
		Retention: engine.Retention{Executions: -1},
		Logger:    slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, c := range change {
		c(&cfg)
	}
	eng, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(eng.Stop(context.WithoutCancel(t.Context())), box.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return &Kit{Engine: eng, t: t}
}

// Deploy creates a function and brings it to where it can be executed. What f
// leaves out: the name and the entrypoint are the id, and everybody may execute it.
func (k *Kit) Deploy(project string, f engine.FunctionParams) engine.Function {
	k.t.Helper()
	f.Runtime = fnbox.RuntimeID
	if f.Name == "" {
		f.Name = f.ID
	}
	if f.Entrypoint == "" {
		f.Entrypoint = f.ID
	}
	if f.Execute == nil {
		f.Execute = []string{"any"}
	}
	ctx, p := k.t.Context(), k.Project(project)
	fn, err := p.CreateFunction(ctx, engine.System, f)
	if err != nil {
		k.t.Fatal(err)
	}
	d, err := p.Deploy(ctx, engine.System, fn.ID, engine.DeployParams{Source: source(), Size: -1, Activate: true})
	if err != nil {
		k.t.Fatal(err)
	}
	k.Drain()
	if d, err = p.GetDeployment(ctx, engine.System, fn.ID, d.ID); err != nil || d.Status != "ready" {
		k.t.Fatalf("the build is %q, %v: %s", d.Status, err, d.BuildLogs)
	}
	if fn, err = p.GetFunction(ctx, engine.System, fn.ID); err != nil {
		k.t.Fatal(err)
	}
	return fn
}

// Drain does everything that is due now and all that follows from it, and
// returns when work is due next; zero: none is. In a bubble it waits until all is done
// that can be without time going on.
func (k *Kit) Drain() (next time.Time) {
	k.t.Helper()
	if k.Clock == nil {
		synctest.Wait()
		return k.nextDue()
	}
	for {
		next, did, err := k.Step(k.t.Context())
		if err != nil {
			k.t.Fatal(err)
		}
		if !did && next.After(k.Clock.Now()) || next.IsZero() {
			return next
		}
	}
}

// nextDue is when work is due next, by the tables.
func (k *Kit) nextDue() (next time.Time) {
	k.t.Helper()
	s := k.Config().Store
	for _, due := range []func(context.Context) (time.Time, bool, error){s.NextSchedule, s.Builds().NextDue, s.Runs().NextDue} {
		at, ok, err := due(k.t.Context())
		if err != nil {
			k.t.Fatal(err)
		}
		if ok && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// Advance moves the clock by d, stopping wherever work is due to do it.
func (k *Kit) Advance(d time.Duration) {
	k.t.Helper()
	k.AdvanceTo(k.Config().Clock.Now().Add(d))
}

// AdvanceTo moves the clock to a time, stopping wherever work is due to do it.
func (k *Kit) AdvanceTo(end time.Time) {
	k.t.Helper()
	if k.Clock == nil {
		bubble := k.Config().Clock
		bubble.Sleep(bubble.Until(end))
		synctest.Wait()
		return
	}
	for next := k.Drain(); !next.IsZero() && !next.After(end); next = k.Drain() {
		k.Clock.Set(next)
	}
	k.Clock.Set(end)
}

// Execute executes a function as the host's code may, see engine.System. A
// queued execution runs when work is done next.
func (k *Kit) Execute(project, function string, a engine.ExecuteParams) engine.ExecuteResult {
	k.t.Helper()
	x, err := k.Project(project).Execute(k.t.Context(), engine.System, function, a)
	if err != nil {
		k.t.Fatal(err)
	}
	return x
}

// Execution returns an execution as it is now.
func (k *Kit) Execution(project, function, id string) engine.Execution {
	k.t.Helper()
	x, err := k.Project(project).GetExecution(k.t.Context(), engine.System, function, id)
	if err != nil {
		k.t.Fatal(err)
	}
	return x
}

// Executions returns the executions of a function, the oldest first, up to 5000.
func (k *Kit) Executions(project, function string) []engine.Execution {
	k.t.Helper()
	list, err := k.Project(project).ListExecutions(k.t.Context(), engine.System, function, engine.Query{Limit: 5000})
	if err != nil {
		k.t.Fatal(err)
	}
	return list.Items
}

// source is an archive for functions whose code is in the test.
func source() *bytes.Buffer {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	err := tw.WriteHeader(&tar.Header{Name: "README", Mode: 0o644})
	if err := errors.Join(err, tw.Close(), zw.Close()); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return &b
}
