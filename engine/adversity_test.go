package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
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

// TestAQueuedExecutionSeesWhatAnotherEngineJustActivated: an engine that knows a
// function without code looks again before it fails the execution.
func TestAQueuedExecutionSeesWhatAnotherEngineJustActivated(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok))
	h.function(t, "f", fnbox.RuntimeID, "f")
	other := h.beside(t, funcs(ok), func(c *engine.Config) { c.Work.MaxStaleness = time.Hour })
	_, err := other.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeDeployment)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.deploy(t, "f", map[string]string{"x": ""})
	h.stop(t)
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer other.stop(t)
	queued := h.execute(t, "f", engine.ExecuteParams{Async: true})
	if x := other.ended(t, queued.Execution); x.Status != "completed" {
		t.Errorf("%+v", x)
	}
}

// full starts a function whose only slot a queued execution holds until gate is
// closed, and returns how many calls began.
func full(t *testing.T, change ...func(*engine.Config)) (h *host, began *atomic.Int32, gate chan struct{}) {
	t.Helper()
	began, gate = new(atomic.Int32), make(chan struct{})
	change = append([]func(*engine.Config){func(c *engine.Config) {
		c.Instances = engine.Instances{Max: 1, PerDeployment: 1, Concurrency: 1, Wait: time.Minute}
	}}, change...)
	h = start(t, funcs(func(ctx context.Context, c *fnbox.Context) error {
		began.Add(1)
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return c.Empty()
	}), change...)
	h.ready(t, "f")
	h.execute(t, "f", engine.ExecuteParams{Async: true})
	eventually(t, func() (int32, bool) { return began.Load(), began.Load() == 1 })
	return h, began, gate
}

func TestSynchronousCallersWaitNoLongerThanTheirLimit(t *testing.T) {
	t.Parallel()
	h, _, gate := full(t, func(c *engine.Config) { c.Limits.SyncTimeout = 100 * time.Millisecond })
	defer close(gate)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // less than the function takes, and Instances.Wait
	defer cancel()
	_, err := h.p.Execute(ctx, engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeSyncTimeout)
	list, err := h.p.ListExecutions(t.Context(), engine.System, "f", engine.Query{Filters: []engine.Filter{{Op: store.Equal, Attr: "status", Values: []any{"failed"}}}})
	if err != nil || list.Total != 1 || !strings.Contains(list.Items[0].Errors, "timed out") {
		t.Errorf("the record: %+v, %v", list, err)
	}
}

func TestWhoGoesAwayWhileWaitingIsNotServed(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	h, began, gate := full(t, func(c *engine.Config) {
		c.Hooks.Projects = func(context.Context, string) (engine.ProjectLimits, error) {
			asked.Add(1)
			return engine.ProjectLimits{}, nil
		}
	})
	before := asked.Load()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := h.p.Execute(ctx, engine.System, "f", engine.ExecuteParams{})
		gone <- err
	}()
	eventually(t, func() (int32, bool) { return asked.Load(), asked.Load() >= before+2 }) // at the gate, and where it waits
	cancel()
	select {
	case err := <-gone:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("still waits")
	}
	close(gate)
	h.execute(t, "f", engine.ExecuteParams{})
	if n := began.Load(); n != 2 {
		t.Errorf("%d calls were made, want the first and the last", n)
	}
}

func TestABuildThatIsSlowToUnpackTimesOut(t *testing.T) {
	t.Parallel()
	b := &blobs{open: func(ctx context.Context, key string) error {
		if strings.HasPrefix(key, "sources/") {
			<-ctx.Done() // a disk that is too slow for the build's time
		}
		return nil
	}}
	h := start(t, funcs(ok), withBlobs(b), func(c *engine.Config) { c.Limits.BuildTimeout = 100 * time.Millisecond })
	h.function(t, "f", fnbox.RuntimeID, "f")
	d := h.deploy(t, "f", map[string]string{"x": ""})
	if d.Status != "failed" || d.Attempt != 1 || !strings.Contains(d.BuildLogs, "took longer than 100ms") {
		t.Errorf("%s at attempt %d: %q", d.Status, d.Attempt, d.BuildLogs)
	}
}

// TestNothingIsLeftOfADeploymentDeletedWhileItsArtefactIsStored covers the
// moment between the blob and the row that names it.
func TestNothingIsLeftOfADeploymentDeletedWhileItsArtefactIsStored(t *testing.T) {
	t.Parallel()
	stored, gate := make(chan struct{}), make(chan struct{})
	b := &blobs{put: func(_ context.Context, key string) error {
		if strings.HasPrefix(key, "artefacts/") {
			close(stored)
			<-gate
		}
		return nil
	}}
	h := start(t, funcs(ok), withBlobs(b))
	h.function(t, "f", fnbox.RuntimeID, "f")
	d := h.upload(t, "f", "", true)
	<-stored
	if err := h.p.DeleteDeployment(t.Context(), engine.System, "f", d.ID); err != nil {
		t.Fatal(err)
	}
	close(gate)
	eventually(t, func() (error, bool) { err := leftBlobs(h, ""); return err, err == nil })
}

// talkative is a driver whose builds print until they are ended, and then once more.
type talkative struct{ *fnbox.Box }

func (talkative) Build(ctx context.Context, _ sandbox.BuildSpec, logs io.Writer) (sandbox.BuildResult, error) {
	fmt.Fprintln(logs, "begun")
	<-ctx.Done()
	fmt.Fprintln(logs, "ended")
	return sandbox.BuildResult{}, ctx.Err()
}

func TestNoLogIsLeftOfADeploymentDeletedWhileItIsBuilt(t *testing.T) {
	t.Parallel()
	h := start(t, talkative{funcs(ok)})
	h.function(t, "f", fnbox.RuntimeID, "f")
	d := h.upload(t, "f", "", true)
	eventually(t, func() (engine.Deployment, bool) {
		d, err := h.p.GetDeployment(t.Context(), engine.System, "f", d.ID)
		return d, err == nil && d.BuildLogs == "begun\n"
	})
	if err := h.p.DeleteDeployment(t.Context(), engine.System, "f", d.ID); err != nil {
		t.Fatal(err)
	}
	h.stop(t)
	left, err := h.cfg.Store.ReadLogs(t.Context(), store.LogRef{Project: "shop", Kind: store.BuildLog, ID: d.ID}, 0, 10)
	if err != nil || len(left) > 0 {
		t.Errorf("%+v, %v", left, err)
	}
}

func TestNothingIsLeftOfAFunctionDeletedDuringAnUpload(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok))
	h.function(t, "f", fnbox.RuntimeID, "f")
	parts := chunks(random(t, 30_000), 10_000)
	d, err := h.p.DeployChunk(t.Context(), engine.System, "f", parts[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := h.p.DeleteFunction(t.Context(), engine.System, "f"); err != nil {
		t.Fatal(err)
	}
	parts[1].DeploymentID = d.ID
	_, err = h.p.DeployChunk(t.Context(), engine.System, "f", parts[1])
	fails(t, err, engine.TypeFunction)
	if err := leftBlobs(h, ""); err != nil {
		t.Error(err)
	}
}

// TestAPartThatArrivesAfterTheEndLeavesNothing: the function, the deployment or
// the upload ends while a part is being stored.
func TestAPartThatArrivesAfterTheEndLeavesNothing(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(h *host, id string) error{
		"function": func(h *host, _ string) error { return h.p.DeleteFunction(t.Context(), engine.System, "f") },
		"upload":   func(h *host, id string) error { return h.p.DeleteDeployment(t.Context(), engine.System, "f", id) },
		"build": func(h *host, id string) error {
			_, err := h.p.CancelBuild(t.Context(), engine.System, "f", id)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var h *host
			var id atomic.Value
			b := &blobs{put: func(_ context.Context, key string) error {
				if strings.HasSuffix(key, "/1") {
					return end(h, id.Load().(string))
				}
				return nil
			}}
			h = start(t, funcs(ok), withBlobs(b))
			h.function(t, "f", fnbox.RuntimeID, "f")
			parts := chunks(random(t, 30_000), 10_000)
			d, err := h.p.DeployChunk(t.Context(), engine.System, "f", parts[0])
			if err != nil {
				t.Fatal(err)
			}
			id.Store(d.ID)
			parts[1].DeploymentID = d.ID
			_, err = h.p.DeployChunk(t.Context(), engine.System, "f", parts[1])
			if what != "build" {
				fails(t, err, engine.TypeDeployment)
			}
			if err := leftBlobs(h, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDeployingToAFunctionThatIsDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	var h *host
	b := &blobs{put: func(context.Context, string) error { return h.p.DeleteFunction(t.Context(), engine.System, "f") }}
	h = start(t, funcs(ok), withBlobs(b))
	h.function(t, "f", fnbox.RuntimeID, "f")
	_, err := h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Source: bytes.NewReader(archived(t, map[string]string{"x": ""})), Size: -1})
	fails(t, err, engine.TypeFunction)
	b.put = nil
	h.function(t, "f", fnbox.RuntimeID, "f")
	list, err := h.p.ListDeployments(t.Context(), engine.System, "f", engine.Query{})
	if err != nil || list.Total != 0 {
		t.Errorf("the new function has deployments of the old one: %+v, %v", list, err)
	}
	if err := leftBlobs(h, ""); err != nil {
		t.Error(err)
	}
}

func TestACallThatOutlivesItsFunctionLeavesNoRecord(t *testing.T) {
	t.Parallel()
	h, _, gate := full(t)
	if err := h.p.DeleteFunction(t.Context(), engine.System, "f"); err != nil {
		t.Fatal(err)
	}
	close(gate)
	h.stop(t)
	h.function(t, "f", fnbox.RuntimeID, "f")
	list, err := h.p.ListExecutions(t.Context(), engine.System, "f", engine.Query{})
	if err != nil || list.Total != 0 {
		t.Errorf("the new function has executions of the old one: %+v, %v", list, err)
	}
}

func TestRuntimesAreKnownBeforeStart(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok))
	all, err := h.p.Runtimes(t.Context(), engine.System)
	if err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestADriverThatDoesNotAnswerIsNoMissingRuntime: it is asked again.
func TestADriverThatDoesNotAnswerIsNoMissingRuntime(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	down.Store(true)
	h := open(t, &broken{Box: funcs(ok), can: func() error {
		if down.Load() {
			return errors.New("the driver does not answer")
		}
		return nil
	}})
	params := engine.FunctionParams{Name: "f", Runtime: "node-20.0"}
	_, err := h.p.CreateFunction(t.Context(), engine.System, params)
	if known := new(engine.Error); err == nil || errors.As(err, &known) {
		t.Errorf("got %v, want an internal error", err)
	}
	if err := h.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("Start: %v", err)
	}
	down.Store(false)
	_, err = h.p.CreateFunction(t.Context(), engine.System, params)
	fails(t, err, engine.TypeRuntime)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.stop(t)
}

// TestAnIdOfADeploymentCanBeUsedAgain: callers may choose the ids of uploads.
func TestAnIdOfADeploymentCanBeUsedAgain(t *testing.T) {
	t.Parallel()
	h := start(t, node(t))
	h.function(t, "f", h.runtime(t, "node"), "i.js")
	for _, want := range []string{"one", "two"} {
		data := archived(t, map[string]string{"i.js": fmt.Sprintf("module.exports = async ({res}) => res.text(%q)", want)})
		parts := chunks(data, len(data))
		parts[0].DeploymentID = "mine"
		d, err := h.p.DeployChunk(t.Context(), engine.System, "f", parts[0])
		if err != nil {
			t.Fatal(err)
		}
		h.built(t, d)
		if x := h.execute(t, "f", engine.ExecuteParams{}); string(x.ResponseBody) != want {
			t.Errorf("got %q, want %q", x.ResponseBody, want)
		}
		if err := h.p.DeleteDeployment(t.Context(), engine.System, "f", d.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAFunctionMadeAgainIsNotTakenForTheOldOne: another engine remembers the
// old one, and the new one went through the same steps.
func TestAFunctionMadeAgainIsNotTakenForTheOldOne(t *testing.T) {
	t.Parallel()
	env := func(_ context.Context, c *fnbox.Context) error { return c.Text(200, c.Env("WHICH")) }
	h := start(t, funcs(env))
	other := h.beside(t, funcs(env), func(c *engine.Config) { c.Work.MaxStaleness = time.Nanosecond })
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer other.stop(t)
	for _, which := range []string{"old", "new"} {
		h.function(t, "f", fnbox.RuntimeID, "f")
		if _, err := h.p.CreateVariable(t.Context(), engine.System, "f", "WHICH", which); err != nil {
			t.Fatal(err)
		}
		h.deploy(t, "f", map[string]string{"x": ""})
		if x := other.execute(t, "f", engine.ExecuteParams{}); string(x.ResponseBody) != which {
			t.Errorf("the other engine runs the %q function, want the %s one", x.ResponseBody, which)
		}
		if which == "old" {
			if err := h.p.DeleteFunction(t.Context(), engine.System, "f"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestArtefactsSurviveARestart: what a build leaves must be the same when
// another engine unpacks it.
func TestArtefactsSurviveARestart(t *testing.T) {
	t.Parallel()
	h := start(t, node(t))
	h.function(t, "f", h.runtime(t, "node"), "i.js")
	commands := "ln -s . d; ln -s d/.. e; ln -s loop loop; ln -s $PWD/i.js absolute; chmod 600 i.js"
	d, err := h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Size: -1, Activate: true, Commands: &commands, Source: bytes.NewReader(archived(t, map[string]string{
		"i.js": `module.exports = async ({res}) => {
			const fs = require("fs");
			return res.json(fs.readdirSync(__dirname).sort().map((f) => [f, f === "i.js" && fs.statSync(__dirname + "/" + f).mode & 0o777]));
		}`}))})
	if err != nil {
		t.Fatal(err)
	}
	if d = h.built(t, d); d.Status != "ready" {
		t.Fatalf("%s: %s", d.Status, d.BuildLogs)
	}
	first := h.execute(t, "f", engine.ExecuteParams{})
	h.stop(t)
	other := h.beside(t, node(t))
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer other.stop(t)
	second := other.execute(t, "f", engine.ExecuteParams{})
	if first.ResponseStatusCode != 200 || !bytes.Equal(first.ResponseBody, second.ResponseBody) {
		t.Errorf("where it was built the function sees %d %s, after a restart %d %s", first.ResponseStatusCode, first.ResponseBody, second.ResponseStatusCode, second.ResponseBody)
	}
}

var errDown = fmt.Errorf("the test says so: %w", store.ErrUnavailable)

// failing returns a fault that fails the first n calls of a kind, and how many
// there were.
func failing(call string, n int32) (fault func(string) error, calls *atomic.Int32) {
	calls = new(atomic.Int32)
	return func(c string) error {
		if c == call && calls.Add(1) <= n {
			return errDown
		}
		return nil
	}, calls
}

// TestLeasesOutliveAShortOutage: an engine that cannot renew tries again well
// before the lease ends.
func TestLeasesOutliveAShortOutage(t *testing.T) {
	t.Parallel()
	fault, renewals := failing("renew", 3)
	r := &records{fault: fault}
	var began atomic.Int32
	gate := make(chan struct{})
	h := start(t, funcs(func(ctx context.Context, c *fnbox.Context) error {
		began.Add(1)
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return c.Empty()
	}), withRecords(r), func(c *engine.Config) { c.Work.Lease, c.Work.Poll = 4500*time.Millisecond, 20*time.Millisecond })
	h.ready(t, "f")
	queued := h.execute(t, "f", engine.ExecuteParams{Async: true})
	eventually(t, func() (int32, bool) { return renewals.Load(), renewals.Load() > 4 }) // one of them a third of a lease after those that failed
	close(gate)
	if x := h.ended(t, queued.Execution); x.Attempt != 1 || began.Load() != 1 {
		t.Errorf("%d calls, %+v", began.Load(), x)
	}
}

func TestResultsOutliveAShortOutage(t *testing.T) {
	t.Parallel()
	r := &records{}
	var began atomic.Int32
	box := &slow{Box: funcs(func(_ context.Context, c *fnbox.Context) error {
		began.Add(1)
		return c.Empty()
	})}
	h := start(t, box, withRecords(r), func(c *engine.Config) { c.Work.Poll = 20 * time.Millisecond })
	h.function(t, "f", fnbox.RuntimeID, "f")
	d := h.upload(t, "f", "", true)
	fault, calls := failing("tx", 3)
	r.set(fault)
	close(box.gate(""))
	if d = h.built(t, d); d.Status != "ready" || d.Attempt != 1 || calls.Load() < 4 {
		t.Errorf("%+v after %d calls", d, calls.Load())
	}
	fault, _ = failing("settle", 3)
	r.set(fault)
	queued := h.execute(t, "f", engine.ExecuteParams{Async: true})
	if x := h.ended(t, queued.Execution); x.Attempt != 1 || began.Load() != 1 {
		t.Errorf("%d calls, %+v", began.Load(), x)
	}
}

// TestACommitThatSeemedToFail: the store loses its connection between the commit
// and the answer.
func TestACommitThatSeemedToFail(t *testing.T) {
	t.Parallel()
	r, box := &records{}, &slow{Box: funcs(ok)}
	h := start(t, box, withRecords(r), func(c *engine.Config) { c.Work.Poll = 20 * time.Millisecond })
	h.function(t, "f", fnbox.RuntimeID, "f")
	d := h.upload(t, "f", "", true)
	fault, commits := failing("committed", 1)
	r.set(fault)
	close(box.gate(""))
	if d = h.built(t, d); d.Status != "ready" || d.Attempt != 1 {
		t.Errorf("%+v", d)
	}
	eventually(t, func() (int32, bool) { return commits.Load(), commits.Load() > 0 })
	h.stop(t)
	next := h.beside(t, funcs(ok))
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.stop(t)
	if x := next.execute(t, "f", engine.ExecuteParams{}); x.Status != "completed" {
		t.Errorf("%+v", x.Execution)
	}
}

func TestAStoreThatIsDownIsNotHammered(t *testing.T) {
	t.Parallel()
	fault, claims := failing("claim", 10)
	h := open(t, funcs(ok), withRecords(&records{fault: fault}), func(c *engine.Config) { c.Work.Poll = 30 * time.Millisecond })
	before := time.Now()
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.stop(t)
	eventually(t, func() (int32, bool) { return claims.Load(), claims.Load() > 10 })
	if took := time.Since(before); took < 9*30*time.Millisecond {
		t.Errorf("10 claims failed within %s", took)
	}
}

func TestAStoreThatTakesNothingIsNotHammeredBySchedules(t *testing.T) {
	t.Parallel()
	r := &records{}
	h := open(t, funcs(ok), withRecords(r), func(c *engine.Config) { c.Work.Poll = 30 * time.Millisecond })
	h.function(t, "f", fnbox.RuntimeID, "f")
	fn, err := h.cfg.Store.UpdateFunction(t.Context(), "shop", "f", func(f *engine.Function) error {
		f.Schedule, f.NextRunAt = "0 0 1 1 *", time.Now().Add(-time.Second).Truncate(time.Millisecond)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	fault, writes := failing("tx", 10)
	r.set(fault)
	before := time.Now()
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.stop(t)
	eventually(t, func() (engine.Function, bool) {
		f, err := h.p.GetFunction(t.Context(), engine.System, "f")
		return f, err == nil && !f.NextRunAt.Equal(fn.NextRunAt)
	})
	if took := time.Since(before); writes.Load() < 10 || took < 9*30*time.Millisecond {
		t.Errorf("%d writes within %s", writes.Load(), took)
	}
}

// TestProjectVariablesReachTheNextCall: the host changes what all functions of
// a project share.
func TestProjectVariablesReachTheNextCall(t *testing.T) {
	t.Parallel()
	var shared atomic.Value
	shared.Store("before")
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error { return c.Text(200, c.Env("SHARED")) }), func(c *engine.Config) {
		c.Work.MaxStaleness = time.Nanosecond
		c.Hooks.ProjectVariables = func(context.Context, string) (map[string]string, error) {
			if shared.Load() == "" {
				return nil, errors.New("no variables at the moment")
			}
			return map[string]string{"SHARED": shared.Load().(string)}, nil
		}
	})
	h.ready(t, "f")
	h.stop(t)
	h = with(t, h.cfg) // a build that ends has its engine forget what it knows
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.stop(t) })
	for _, value := range []string{"before", "after", "", "last"} {
		shared.Store(value)
		want := value
		if value == "" {
			want = "after" // what is known still serves
		}
		if x := h.execute(t, "f", engine.ExecuteParams{}); string(x.ResponseBody) != want {
			t.Errorf("the function sees %q, want %q", x.ResponseBody, want)
		}
	}
}

// TestAStartThatFails: the execution is on record, and the next one works.
func TestAStartThatFails(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	down.Store(true)
	box := &broken{Box: funcs(ok), start: func(context.Context) error {
		if down.Load() {
			return errors.New("no more processes in /secret/place")
		}
		return nil
	}}
	h := start(t, box)
	h.ready(t, "f")
	x, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	if err != nil || x.Status != "failed" || x.ResponseStatusCode != 500 || !strings.Contains(x.Errors, "could not be started") || strings.Contains(x.Errors, "secret") {
		t.Errorf("%+v, %v", x.Execution, err)
	}
	if stored, err := h.p.GetExecution(t.Context(), engine.System, "f", x.ID); err != nil || stored.Status != "failed" {
		t.Errorf("%+v, %v", stored, err)
	}
	queued := h.execute(t, "f", engine.ExecuteParams{Async: true})
	eventually(t, func() (int, bool) {
		x, err := h.p.GetExecution(t.Context(), engine.System, "f", queued.ID)
		return x.Attempt, err == nil && x.Attempt > 1
	})
	down.Store(false)
	if x := h.ended(t, queued.Execution); x.Status != "completed" {
		t.Errorf("%+v", x)
	}
	if x := h.execute(t, "f", engine.ExecuteParams{}); x.Status != "completed" {
		t.Errorf("%+v", x.Execution)
	}
}

// TestAWorkerThatLostItsLeaseChangesNothing: neither the row nor a blob.
func TestAWorkerThatLostItsLeaseChangesNothing(t *testing.T) {
	t.Parallel()
	box := &slow{Box: funcs(ok)}
	stored := make(chan string, 9)
	b := &blobs{put: func(_ context.Context, key string) error {
		if strings.HasPrefix(key, "artefacts/") {
			stored <- key
		}
		return nil
	}}
	h := start(t, box, withBlobs(b), func(c *engine.Config) { c.Work.Lease = time.Hour }) // it does not notice by itself
	h.function(t, "f", fnbox.RuntimeID, "f")
	d := h.upload(t, "f", "", true)
	eventually(t, func() (engine.Deployment, bool) {
		d, err := h.p.GetDeployment(t.Context(), engine.System, "f", d.ID)
		return d, err == nil && d.Status == "building"
	})
	claim := store.ClaimParams{Now: time.Now().Add(2 * time.Hour), LeaseUntil: time.Now().Add(3 * time.Hour), Limit: 1}
	stolen, err := h.cfg.Store.Builds().Claim(t.Context(), claim)
	if err != nil || len(stolen) != 1 {
		t.Fatal(stolen, err)
	}
	close(box.gate(""))
	lost := <-stored
	eventually(t, func() (error, bool) { err := leftBlobs(h, "artefacts/"); return err, err == nil })
	if d, err = h.p.GetDeployment(t.Context(), engine.System, "f", d.ID); err != nil || d.Status != "processing" || d.Attempt != 2 || d.ArtefactBlob != "" {
		t.Fatalf("%+v, %v", d, err)
	}
	row := stolen[0].Row
	row.Status, row.ReadyAt = "waiting", time.Now().Add(-time.Second)
	if _, err := h.cfg.Store.Builds().Settle(t.Context(), []store.Settlement[engine.Deployment]{{Lease: stolen[0].Lease, Row: row}}); err != nil {
		t.Fatal(err)
	}
	if d = h.built(t, d); d.Status != "ready" || d.ArtefactBlob == lost || h.active(t, "f") != d.ID {
		t.Errorf("%+v", d)
	}
	if x := h.execute(t, "f", engine.ExecuteParams{}); x.Status != "completed" {
		t.Errorf("%+v", x.Execution)
	}
}

// TestRefusedAnswersCostNoInstance: neither what cannot be answered nor what is
// canceled makes the next call wait for a start, if the function gives way.
func TestRefusedAnswersCostNoInstance(t *testing.T) {
	t.Parallel()
	box, hanging := watch(), make(chan struct{})
	box.Box = fnbox.New(fnbox.Funcs{"f": func(ctx context.Context, c *fnbox.Context) error {
		switch c.Req.Path {
		case "/bad":
			return c.Text(42, "")
		case "/hang":
			close(hanging)
			<-ctx.Done()
			return ctx.Err()
		}
		return c.Empty()
	}})
	h := start(t, box)
	h.ready(t, "f")
	for _, path := range []string{"/", "/bad", "/", "/bad"} {
		h.execute(t, "f", engine.ExecuteParams{Path: path})
	}
	canceled := h.execute(t, "f", engine.ExecuteParams{Path: "/hang", Async: true})
	<-hanging
	if _, err := h.p.CancelExecution(t.Context(), engine.System, "f", canceled.ID); err != nil {
		t.Fatal(err)
	}
	h.execute(t, "f", engine.ExecuteParams{})
	box.mu.Lock()
	defer box.mu.Unlock()
	if len(box.specs) != 1 {
		t.Errorf("%d instances were started", len(box.specs))
	}
}

// TestAFunctionDisabledMeanwhileRunsForNoClient: as if it were called now.
func TestAFunctionDisabledMeanwhileRunsForNoClient(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok))
	h.function(t, "f", fnbox.RuntimeID, "f")
	builder := h.beside(t, funcs(ok))
	if err := builder.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	builder.deploy(t, "f", map[string]string{"x": ""})
	builder.stop(t)
	var queued []engine.Execution
	for _, by := range []engine.Actor{{}, {Kind: engine.ActorUser, UserID: "u"}, {Kind: engine.ActorKey, Scopes: []string{engine.ScopeExecutionWrite}}} {
		x, err := h.p.Execute(t.Context(), by, "f", engine.ExecuteParams{Async: true})
		if err != nil {
			t.Fatal(err)
		}
		queued = append(queued, x.Execution)
	}
	if _, err := h.p.UpdateFunction(t.Context(), engine.System, "f", engine.FunctionParams{Name: "f", Disabled: true}); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.stop(t)
	for i, want := range []string{"failed", "failed", "completed"} {
		if x := h.ended(t, queued[i]); string(x.Status) != want || x.Attempt != 1 || want == "failed" && !strings.Contains(x.Errors, "disabled") {
			t.Errorf("%+v, want %s", x, want)
		}
	}
}

// TestAStartThatHangs: callers wait no longer than they must, the start is given
// up, and whoever waits for it then is told.
func TestAStartThatHangs(t *testing.T) {
	t.Parallel()
	var hangs atomic.Bool
	var starts atomic.Int32
	var begun atomic.Pointer[time.Time] // the last of them
	mock := clock.NewMock()
	mock.Set(time.Now())
	hangs.Store(true)
	box := &broken{Box: funcs(ok), start: func(ctx context.Context) error {
		now := mock.Now()
		begun.Store(&now)
		starts.Add(1)
		if hangs.Load() {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	h := start(t, box, func(c *engine.Config) {
		c.Clock, c.Instances.Wait, c.Limits.StartTimeout = mock, time.Second, time.Hour
		c.Work.Poll, c.Work.Lease = 100*time.Hour, 100*time.Hour // the jumps below are no death
	})
	h.ready(t, "f")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
			fails(t, err, engine.TypeBusy)
		})
	}
	passing(mock, 100*time.Millisecond, wg.Wait)
	if n := starts.Load(); n != 1 {
		t.Errorf("%d starts for callers at once", n)
	}
	call := func() (x engine.ExecuteResult, err error) {
		passing(mock, 100*time.Millisecond, func() { x, err = h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{}) })
		return x, err
	}
	eventually(t, func() (engine.ExecuteResult, bool) { // whoever waits when the start is given up
		if left := begun.Load().Add(time.Hour).Sub(mock.Now()) - 500*time.Millisecond; left > 0 {
			mock.Add(left)
		}
		x, err := call()
		return x, err == nil && x.Status == "failed" && strings.Contains(x.Errors, "could not be started in time")
	})
	hangs.Store(false)
	eventually(t, func() (engine.ExecuteResult, bool) {
		mock.Add(time.Hour) // another may have begun, and hangs
		x, err := call()
		return x, err == nil && x.Status == "completed"
	})
}

// passing moves a clock on, step by step, until f has returned.
func passing(mock *clock.Mock, step time.Duration, f func()) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		f()
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			mock.Add(step)
		}
	}
}

// TestNeighboursOfAKilledCall: a process that must be killed for one call takes
// others with it. Those are not to blame.
func TestNeighboursOfAKilledCall(t *testing.T) {
	t.Parallel()
	h := start(t, node(t), func(c *engine.Config) {
		c.Work.Grace = 200 * time.Millisecond
		c.Instances.PerDeployment = 1
	})
	_, err := h.p.CreateFunction(t.Context(), engine.System, engine.FunctionParams{ID: "f", Name: "f", Runtime: h.runtime(t, "node"), Entrypoint: "i.js", Timeout: 4})
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(t.TempDir(), "spins")
	if _, err := h.p.CreateVariable(t.Context(), engine.System, "f", "MARK", mark); err != nil {
		t.Fatal(err)
	}
	h.deploy(t, "f", map[string]string{"i.js": `module.exports = async ({req, res}) => {
		if (req.path === "/block") {
			const block = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms); // as a loop does, and uses no CPU
			block(1500);
			require("fs").writeFileSync(process.env.MARK, ""); // those who come now have more time left
			block();
		}
		return res.text("done");
	}`})
	var wg sync.WaitGroup
	wg.Go(func() {
		x, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Path: "/block"})
		if err != nil || x.Status != "failed" || !strings.Contains(x.Errors, "timed out") {
			t.Errorf("the call that blocks: %+v, %v", x.Execution, err)
		}
	})
	eventually(t, func() (error, bool) { _, err := os.Stat(mark); return err, err == nil })
	wg.Go(func() {
		x, err := h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{Path: "/neighbour"})
		if err != nil || x.Status != "failed" || !strings.Contains(x.Errors, "another execution") {
			t.Errorf("the neighbour: %+v, %v", x.Execution, err)
		}
	})
	queued := h.execute(t, "f", engine.ExecuteParams{Path: "/queued", Async: true})
	wg.Wait()
	if x := h.ended(t, queued.Execution); x.Status != "completed" || x.Attempt != 2 {
		t.Errorf("the queued one: %+v", x)
	}
}

// TestTheNewestOfManyWins: builds end in any order, and each takes over at once.
func TestTheNewestOfManyWins(t *testing.T) {
	t.Parallel()
	box := &slow{Box: funcs(ok)}
	h := start(t, box, func(c *engine.Config) { c.Work.Builds = 16 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	var all []engine.Deployment
	for i := range 8 {
		all = append(all, h.upload(t, "f", fmt.Sprint(i), true))
	}
	for _, d := range all { // as if all had been uploaded at once
		if _, err := h.cfg.Store.UpdateDeployment(t.Context(), "shop", "f", d.ID, func(d *engine.Deployment) error { d.Activate = true; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{3, 7, 0, 5, 6, 1, 4, 2} {
		go close(box.gate(fmt.Sprint(i)))
	}
	for _, d := range all {
		if d = h.built(t, d); d.Status != "ready" {
			t.Errorf("%+v", d)
		}
	}
	if got, want := h.active(t, "f"), all[7].ID; got != want {
		t.Errorf("active is %s, want %s", got, want)
	}
}

// TestCodeThatEndsItsProcessWhileItLoads: that is the code's fault, and whoever
// deployed it is told what it printed.
func TestCodeThatEndsItsProcessWhileItLoads(t *testing.T) {
	t.Parallel()
	for key, code := range map[string][2]string{
		"node":   {"i.js", `console.error("DATABASE_URL is missing"); process.exit(3);`},
		"python": {"i.py", "import os\nos.write(2, b'DATABASE_URL is missing\\n')\nos._exit(3)"},
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			h := start(t, processes(t, key))
			h.function(t, "f", h.runtime(t, key), code[0])
			if d := h.deploy(t, "f", map[string]string{code[0]: code[1]}); d.Status != "ready" {
				t.Fatalf("%s: %s", d.Status, d.BuildLogs)
			}
			now := h.execute(t, "f", engine.ExecuteParams{}).Execution
			later := h.ended(t, h.execute(t, "f", engine.ExecuteParams{Async: true}).Execution)
			for _, x := range []engine.Execution{now, later} {
				if x.Status != "failed" || x.ResponseStatusCode != 503 || x.Attempt > 1 || x.Errors != "Failed to load module: its process ended with exit status 3: DATABASE_URL is missing\n" {
					t.Errorf("%+v", x)
				}
			}
		})
	}
}
