package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// talker is a function that logs what a test says; an empty line ends it.
func talker(say <-chan string) fnbox.Func {
	return func(ctx context.Context, c *fnbox.Context) error {
		for {
			select {
			case line := <-say:
				if line == "" {
					return c.Text(200, "ok")
				}
				if text, bad := strings.CutPrefix(line, "!"); bad {
					c.Error(text)
				} else {
					c.Log(line)
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// follow follows an execution of "f" from a chunk on.
func (h *host) follow(t *testing.T, x engine.Execution, after int64) *engine.LogFollower {
	t.Helper()
	f, err := h.p.FollowLogs(t.Context(), engine.System, "f", x.ID, after)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// hears reads a follower until it has heard a text, or to the end if there is
// none, and returns what it heard and the last Seq.
func hears(t *testing.T, f *engine.LogFollower, until string) (text string, last int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		chunks, err := f.Next(ctx)
		if err == io.EOF && until == "" {
			return text, last
		}
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		for _, c := range chunks {
			if c.Stream == "stderr" {
				text += "!"
			}
			text, last = text+string(c.Data), c.Seq
		}
		if until != "" && strings.HasSuffix(text, until) {
			return text, last
		}
	}
}

func (h *host) background(t *testing.T) engine.Execution {
	t.Helper()
	return h.execute(t, "f", engine.ExecuteParams{Async: true}).Execution
}

// TestFollowWhatRuns: lines arrive while the function runs, here at once, and
// the end is told; who comes back goes on where it was.
func TestFollowWhatRuns(t *testing.T) {
	t.Parallel()
	say := make(chan string)
	h := start(t, funcs(talker(say)))
	h.ready(t, "f")
	x := h.background(t)
	say <- "before"
	f := h.follow(t, x, 0)
	defer f.Close()
	if got, _ := hears(t, f, "before\n"); got != "before\n" || f.Status() != "processing" {
		t.Errorf("%q, %s", got, f.Status())
	}
	say <- "one"
	_, last := hears(t, f, "one\n")
	say <- "!two"
	say <- "three"
	say <- ""
	if got, _ := hears(t, f, ""); got != "!two\nthree\n" || f.Status() != "completed" {
		t.Errorf("%q, %s", got, f.Status())
	}
	again := h.follow(t, x, last)
	defer again.Close()
	if got, _ := hears(t, again, ""); got != "!two\nthree\n" {
		t.Errorf("resumed: %q", got)
	}
	whole := h.follow(t, x, 0)
	defer whole.Close()
	if got, _ := hears(t, whole, ""); got != "before\none\nthree\n!two\n" {
		t.Errorf("from the record: %q", got)
	}
	if x := h.ended(t, x); x.Logs != "before\none\nthree\n" || x.Errors != "two\n" {
		t.Errorf("%+v", x)
	}
}

// TestFollowBeforeItRuns: who waits for an execution hears it from its first line.
func TestFollowBeforeItRuns(t *testing.T) {
	t.Parallel()
	say := make(chan string)
	h := open(t, funcs(talker(say)), func(c *engine.Config) { c.Work.Poll = 50 * time.Millisecond })
	other := h.beside(t, funcs(ok))
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	other.ready(t, "f")
	other.stop(t)
	x := h.background(t)
	f := h.follow(t, x, 0)
	defer f.Close()
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.stop(t)
	say <- "first"
	hears(t, f, "first\n")
	say <- ""
	if got, _ := hears(t, f, ""); got != "" || f.Status() != "completed" {
		t.Errorf("%q, %s", got, f.Status())
	}
}

// TestFollowFromAnotherEngine, which runs nothing.
func TestFollowFromAnotherEngine(t *testing.T) {
	t.Parallel()
	say := make(chan string)
	h := start(t, funcs(talker(say)))
	h.ready(t, "f")
	x := h.background(t)
	other := h.beside(t, funcs(ok), func(c *engine.Config) { c.Work.Poll = 20 * time.Millisecond })
	f := other.follow(t, x, 0)
	defer f.Close()
	say <- "one" // is shown when the execution has run for a second
	hears(t, f, "one\n")
	say <- "two"
	hears(t, f, "two\n")
	say <- ""
	if got, _ := hears(t, f, ""); got != "" || f.Status() != "completed" {
		t.Errorf("%q, %s", got, f.Status())
	}
}

// TestShortExecutionsKeepTheirLogsInTheRecord alone, and are followed from there.
func TestShortExecutionsKeepTheirLogsInTheRecord(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		c.Log("out")
		c.Error("err")
		return c.Text(200, "ok")
	}))
	h.ready(t, "f")
	x := h.ended(t, h.background(t))
	chunks, err := h.cfg.Store.ReadLogs(t.Context(), store.LogRef{Project: "shop", Kind: store.ExecutionLog, ID: x.ID}, 0, 10)
	if err != nil || len(chunks) != 0 {
		t.Errorf("chunks of a short execution: %v, %v", chunks, err)
	}
	sync := h.execute(t, "f", engine.ExecuteParams{}).Execution
	for _, x := range []engine.Execution{x, sync} {
		f := h.follow(t, x, 0)
		first, err := f.Next(t.Context())
		if err != nil || len(first) != 1 || string(first[0].Data) != "out\n" || first[0].Stream != "stdout" {
			t.Errorf("%+v, %v", first, err)
		}
		f.Close()
		f = h.follow(t, x, first[0].Seq)
		if got, _ := hears(t, f, ""); got != "!err\n" || f.Status() != "completed" {
			t.Errorf("%q", got)
		}
		f.Close()
	}
}

// TestFollowAnotherAttempt: what is run again goes on in the same log.
func TestFollowAnotherAttempt(t *testing.T) {
	t.Parallel()
	say := make(chan string)
	h := start(t, funcs(talker(say)))
	h.ready(t, "f")
	x := h.background(t)
	next := h.beside(t, funcs(talker(say)), func(c *engine.Config) { c.Work.Poll = 20 * time.Millisecond })
	f := next.follow(t, x, 0)
	defer f.Close()
	say <- "first attempt"
	hears(t, f, "first attempt\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.stop(t)
	say <- "second attempt"
	hears(t, f, "second attempt\n")
	say <- ""
	hears(t, f, "")
	if x := next.ended(t, x); x.Logs != "second attempt\n" || x.Attempt != 2 {
		t.Errorf("%+v", x)
	}
}

func TestWhoMayFollow(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok), func(c *engine.Config) { c.Limits.Followers = 2 })
	h.ready(t, "f")
	alice := engine.Actor{Kind: engine.ActorUser, UserID: "alice"}
	own, err := h.p.Execute(t.Context(), alice, "f", engine.ExecuteParams{Async: true})
	if err != nil {
		t.Fatal(err)
	}
	x := h.ended(t, own.Execution)
	key := func(scope string) engine.Actor {
		return engine.Actor{Kind: engine.ActorKey, Scopes: []string{scope}}
	}
	follow := func(by engine.Actor, function, id string) error {
		f, err := h.p.FollowLogs(t.Context(), by, function, id, 0)
		if err == nil {
			f.Close()
		}
		return err
	}
	if err := follow(key(engine.ScopeExecutionRead), "f", x.ID); err != nil {
		t.Error(err)
	}
	fails(t, follow(key(engine.ScopeFunctionsRead), "f", x.ID), engine.TypeScope)
	fails(t, follow(engine.Actor{}, "f", x.ID), engine.TypeScope)
	fails(t, follow(alice, "f", x.ID), engine.TypeUnauthorized)
	fails(t, follow(engine.Actor{Kind: engine.ActorUser, UserID: "bob"}, "f", x.ID), engine.TypeExecution)
	fails(t, follow(engine.System, "f", "none"), engine.TypeExecution)
	fails(t, follow(engine.System, "none", x.ID), engine.TypeFunction)
	_, err = h.Project("other").FollowLogs(t.Context(), engine.System, "f", x.ID, 0)
	fails(t, err, engine.TypeFunction)
	_, err = h.p.FollowBuildLogs(t.Context(), key(engine.ScopeExecutionRead), "f", h.active(t, "f"), 0)
	fails(t, err, engine.TypeScope)
	_, err = h.p.FollowBuildLogs(t.Context(), engine.System, "f", "none", 0)
	fails(t, err, engine.TypeDeployment)

	a, b := h.follow(t, x, 0), h.follow(t, x, 0)
	fails(t, follow(engine.System, "f", x.ID), engine.TypeBusy)
	a.Close()
	if err := follow(engine.System, "f", x.ID); err != nil {
		t.Error(err)
	}
	b.Close()
}

// TestFollowingEnds when there is nothing to follow any more.
func TestFollowingEnds(t *testing.T) {
	t.Parallel()
	say := make(chan string)
	h := start(t, funcs(talker(say)))
	h.ready(t, "f")
	x := h.background(t)
	say <- "x"
	f := h.follow(t, x, 0)
	defer f.Close()
	hears(t, f, "x\n")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing came: %v", err)
	}
	if _, err := h.p.CancelExecution(t.Context(), engine.System, "f", x.ID); err != nil {
		t.Fatal(err)
	}
	if got, _ := hears(t, f, ""); !strings.Contains(got, "canceled") || f.Status() != "canceled" {
		t.Errorf("%q, %s", got, f.Status())
	}

	gone := h.background(t)
	say <- "y"
	f = h.follow(t, gone, 0)
	defer f.Close()
	hears(t, f, "y\n")
	if err := h.DeleteProject(t.Context(), engine.System, "shop"); err != nil {
		t.Fatal(err)
	}
	_, err := f.Next(t.Context())
	fails(t, err, engine.TypeExecution)
	eventually(t, func() (int, bool) {
		chunks, err := h.cfg.Store.ReadLogs(t.Context(), store.LogRef{Project: "shop", Kind: store.ExecutionLog, ID: gone.ID}, 0, 10)
		return len(chunks), err == nil && len(chunks) == 0
	})

	h.ready(t, "f")
	last := h.background(t)
	say <- "z"
	f = h.follow(t, last, 0)
	defer f.Close()
	hears(t, f, "z\n")
	ended := make(chan error, 1)
	go func() { _, err := f.Next(context.WithoutCancel(t.Context())); ended <- err }()
	stopped := make(chan struct{})
	go func() { h.stop(t); close(stopped) }()
	fails(t, <-ended, engine.TypeUnavailable)
	say <- ""
	<-stopped
	_, err = h.p.FollowLogs(t.Context(), engine.System, "f", last.ID, 0)
	fails(t, err, engine.TypeUnavailable)
}

// written is a store that tells a test what is added to logs.
type written struct {
	store.Store
	chunks chan string
}

func (w written) AppendLogs(ctx context.Context, ref store.LogRef, chunks []store.LogChunk) error {
	for _, c := range chunks {
		w.chunks <- string(c.Data)
	}
	return w.Store.AppendLogs(ctx, ref, chunks)
}

// TestWhyACallWasEnded: who follows it is told the true reason.
func TestWhyACallWasEnded(t *testing.T) {
	t.Parallel()
	const elsewhere = "canceled or deleted, or another"
	for want, end := range map[string]func(t *testing.T, h *host, x engine.Execution) error{
		"it was deleted": func(t *testing.T, h *host, _ engine.Execution) error {
			return h.DeleteProject(t.Context(), engine.System, "shop")
		},
		"with its function": func(t *testing.T, h *host, _ engine.Execution) error {
			return h.p.DeleteFunction(t.Context(), engine.System, "f")
		},
		elsewhere: func(t *testing.T, h *host, x engine.Execution) error {
			_, err := h.cfg.Store.CancelExecution(t.Context(), "shop", "f", x.ID, "", time.Now()) // as another engine does
			return err
		},
		"the server stops": func(t *testing.T, h *host, _ engine.Execution) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := h.Stop(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			say, chunks := make(chan string), make(chan string, 100)
			h := start(t, funcs(talker(say)), func(c *engine.Config) {
				if c.Store = (written{c.Store, chunks}); want == elsewhere {
					c.Work.Lease = time.Second // what was done elsewhere is noticed when the lease is renewed
				}
			})
			h.ready(t, "f")
			x := h.background(t)
			say <- "x"
			f := h.follow(t, x, 0)
			defer f.Close()
			hears(t, f, "x\n")
			if err := end(t, h, x); err != nil {
				t.Fatal(err)
			}
			var text string
			for text = range chunks {
				if strings.HasPrefix(text, "The execution was ended") {
					break
				}
			}
			if !strings.Contains(text, want) {
				t.Errorf("it ended with %q", text)
			}
		})
	}
}

// TestWhatIsTooMuchToFollow: the log ends with a mark, and the record has the end.
func TestWhatIsTooMuchToFollow(t *testing.T) {
	t.Parallel()
	say := make(chan string)
	h := start(t, funcs(talker(say)), func(c *engine.Config) { c.Limits.LogSize = 1000 })
	h.ready(t, "f")
	x := h.background(t)
	f := h.follow(t, x, 0)
	defer f.Close()
	say <- "line 0"
	got, _ := hears(t, f, "line 0\n")
	for i := range 100 {
		say <- fmt.Sprintf("line %d %s", i+1, strings.Repeat("x", 90))
	}
	say <- "the end"
	say <- ""
	rest, _ := hears(t, f, "")
	got += rest
	if !strings.HasPrefix(got, "line 0") || !strings.HasSuffix(got, "The end is in the record.\n") || len(got) > 2100 {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if x := h.ended(t, x); !strings.HasSuffix(x.Logs, "the end\n") {
		t.Errorf("%q", x.Logs)
	}
}

// TestNobodyWaitsForASlowFollower, who gets all of it when it comes to read.
func TestNobodyWaitsForASlowFollower(t *testing.T) {
	t.Parallel()
	const lines = 2000
	followed := make(chan struct{})
	h := start(t, funcs(func(_ context.Context, c *fnbox.Context) error {
		<-followed
		for i := range lines {
			c.Log("line", i)
		}
		return c.Text(200, "ok")
	}))
	h.ready(t, "f")
	x := h.background(t)
	f := h.follow(t, x, 0)
	defer f.Close()
	close(followed)
	h.ended(t, x)
	if got, _ := hears(t, f, ""); strings.Count(got, "\n") != lines {
		t.Errorf("%d lines", strings.Count(got, "\n"))
	}
}

// printing is a driver whose builds print what a test says.
type printing struct {
	*fnbox.Box
	say <-chan string
}

func (p *printing) Build(ctx context.Context, spec sandbox.BuildSpec, log io.Writer) (sandbox.BuildResult, error) {
	for line := range p.say {
		if line == "" {
			break
		}
		io.WriteString(log, line+"\n")
	}
	return p.Box.Build(ctx, spec, log)
}

func TestFollowABuild(t *testing.T) {
	t.Parallel()
	say := make(chan string)
	h := start(t, &printing{funcs(ok), say})
	h.function(t, "f", fnbox.RuntimeID, "f")
	build := func() engine.Deployment {
		t.Helper()
		d, err := h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Source: bytes.NewReader(archived(t, map[string]string{"x": "x"})), Size: -1})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	follow := func(d engine.Deployment) *engine.LogFollower {
		t.Helper()
		f, err := h.p.FollowBuildLogs(t.Context(), engine.System, "f", d.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	d := build()
	f := follow(d)
	defer f.Close()
	say <- "one"
	hears(t, f, "one\n")
	say <- "two"
	say <- ""
	if got, _ := hears(t, f, ""); got != "two\n" || f.Status() != "ready" {
		t.Errorf("%q, %s", got, f.Status())
	}
	again := follow(d)
	defer again.Close()
	if got, _ := hears(t, again, ""); got != "one\ntwo\n" {
		t.Errorf("from the record: %q", got)
	}

	canceled := build()
	say <- "so far"
	eventually(t, func() (engine.Deployment, bool) {
		d, err := h.p.GetDeployment(t.Context(), engine.System, "f", canceled.ID)
		return d, err == nil && d.Status == "building"
	})
	if _, err := h.p.CancelBuild(t.Context(), engine.System, "f", canceled.ID); err != nil {
		t.Fatal(err)
	}
	say <- ""
	eventually(t, func() (string, bool) {
		d, err := h.cfg.Store.GetDeployment(t.Context(), "shop", "f", canceled.ID)
		return d.BuildLogs, err == nil && d.Status == "canceled" && d.BuildLogs == "so far\n"
	})
}

// TestLinesArriveAtOnce where they are made: p99 within 50 ms on a machine that
// is not busy; the test asks that of half of them, and grants ten writes to the store
// besides, which tell how busy it is.
func TestLinesArriveAtOnce(t *testing.T) {
	t.Parallel()
	say := make(chan string)
	h := start(t, funcs(talker(say)))
	h.ready(t, "f")
	f := h.follow(t, h.background(t), 0)
	defer f.Close()
	took, wrote := make([]time.Duration, 100), make([]time.Duration, 100)
	for i := range took {
		began := time.Now()
		if err := h.cfg.Store.AppendLogs(t.Context(), store.LogRef{Project: "shop", Kind: store.ExecutionLog, ID: "another"}, []store.LogChunk{{Data: []byte("a line\n")}}); err != nil {
			t.Fatal(err)
		}
		wrote[i], began = time.Since(began), time.Now()
		say <- "a line"
		if _, err := f.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(began)
	}
	say <- ""
	slices.Sort(took)
	slices.Sort(wrote)
	t.Logf("median %s, p99 %s; of writes %s", took[len(took)/2], took[len(took)*99/100], wrote[len(wrote)/2])
	if took[len(took)/2] > 50*time.Millisecond+10*wrote[len(wrote)/2] {
		t.Error("too slow")
	}
}
