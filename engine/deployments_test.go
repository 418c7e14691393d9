package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// slow is a driver whose builds wait until they are let go, by entrypoint.
type slow struct {
	*fnbox.Box
	mu    sync.Mutex
	gates map[string]chan struct{}
}

func (s *slow) gate(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gates == nil {
		s.gates = map[string]chan struct{}{}
	}
	if s.gates[name] == nil {
		s.gates[name] = make(chan struct{})
	}
	return s.gates[name]
}

func (s *slow) Build(ctx context.Context, spec sandbox.BuildSpec, logs io.Writer) (sandbox.BuildResult, error) {
	fmt.Fprintln(logs, "building", spec.Commands)
	select {
	case <-s.gate(spec.Commands):
		return s.Box.Build(ctx, spec, logs)
	case <-ctx.Done():
		return sandbox.BuildResult{}, ctx.Err()
	}
}

func (h *host) upload(t *testing.T, function, commands string, activate bool) engine.Deployment {
	t.Helper()
	d, err := h.p.Deploy(t.Context(), engine.System, function, engine.DeployParams{
		Source: bytes.NewReader(archived(t, map[string]string{"x": ""})), Size: -1, Activate: activate, Commands: &commands,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (h *host) active(t *testing.T, function string) string {
	t.Helper()
	f, err := h.p.GetFunction(t.Context(), engine.System, function)
	if err != nil {
		t.Fatal(err)
	}
	return f.Deployment
}

func TestBuildsThatEndOutOfOrderDoNotGoBack(t *testing.T) {
	t.Parallel()
	box := &slow{Box: funcs(ok)}
	h := start(t, box, func(c *engine.Config) { c.Work.Builds = 4 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	older := h.upload(t, "f", "older", false)
	// Both ask to be activated: the flag of the older one is set again by hand,
	// as two uploads that cross do.
	newer := h.upload(t, "f", "newer", true)
	if _, err := h.cfg.Store.UpdateDeployment(t.Context(), "shop", "f", older.ID, func(d *engine.Deployment) error { d.Activate = true; return nil }); err != nil {
		t.Fatal(err)
	}
	close(box.gate("newer"))
	h.built(t, newer)
	if got := h.active(t, "f"); got != newer.ID {
		t.Fatalf("active is %s, want the newer %s", got, newer.ID)
	}
	close(box.gate("older"))
	if d := h.built(t, older); d.Status != "ready" {
		t.Fatalf("%+v", d)
	}
	if got := h.active(t, "f"); got != newer.ID {
		t.Errorf("the older build took over: active is %s", got)
	}
	// By hand one may go back.
	if _, err := h.p.ActivateDeployment(t.Context(), engine.System, "f", older.ID); err != nil {
		t.Fatal(err)
	}
	if got := h.active(t, "f"); got != older.ID {
		t.Errorf("active is %s", got)
	}
}

func TestCancelBuild(t *testing.T) {
	t.Parallel()
	box := &slow{Box: funcs(ok)}
	h := start(t, box, func(c *engine.Config) { c.Work.Builds = 1 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	running := h.upload(t, "f", "forever", true)
	eventually(t, func() (engine.Deployment, bool) {
		d, err := h.p.GetDeployment(t.Context(), engine.System, "f", running.ID)
		return d, err == nil && d.Status == "building" && strings.Contains(d.BuildLogs, "building forever")
	})
	waiting := h.upload(t, "f", "never", true)
	for _, d := range []engine.Deployment{waiting, running, running} {
		got, err := h.p.CancelBuild(t.Context(), engine.System, "f", d.ID)
		if err != nil || got.Status != "canceled" || got.BuildID == "" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	after := h.upload(t, "f", "after", true)
	close(box.gate("after"))
	if d := h.built(t, after); d.Status != "ready" || h.active(t, "f") != after.ID {
		t.Errorf("the build behind: %+v", d)
	}
	_, err := h.p.CancelBuild(t.Context(), engine.System, "f", after.ID)
	fails(t, err, engine.TypeBuildCompleted)
	_, err = h.p.ActivateDeployment(t.Context(), engine.System, "f", running.ID)
	fails(t, err, engine.TypeBuildNotReady)
	for _, d := range []engine.Deployment{waiting, running} {
		if d := h.built(t, d); d.Status != "canceled" {
			t.Errorf("a canceled build became %s", d.Status)
		}
	}
}

func TestStoppingPutsBuildsBack(t *testing.T) {
	t.Parallel()
	box := &slow{Box: funcs(ok)}
	h := open(t, box)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.function(t, "f", fnbox.RuntimeID, "f")
	d := h.upload(t, "f", "c", true)
	eventually(t, func() (engine.Deployment, bool) {
		d, err := h.p.GetDeployment(t.Context(), engine.System, "f", d.ID)
		return d, err == nil && d.Status == "building"
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("stop: %v", err)
	}
	if d, err := h.p.GetDeployment(t.Context(), engine.System, "f", d.ID); err != nil || d.Status != "waiting" {
		t.Fatalf("%+v, %v", d, err)
	}
	close(box.gate("c"))
	second := with(t, h.cfg)
	if err := second.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer second.stop(t)
	if d := second.built(t, d); d.Status != "ready" || second.active(t, "f") != d.ID {
		t.Errorf("%+v", d)
	}
}

func TestSourcesThatCannotBeBuilt(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok), func(c *engine.Config) { c.Limits.SourceSize, c.Limits.UnpackedSize = 100_000, 200_000 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	bomb := archived(t, map[string]string{"zeros": strings.Repeat("\x00", 300_000)})
	for reason, data := range map[string][]byte{
		"it is not a gzip file":                []byte("PK something else"),
		"it is cut off":                        bomb[:len(bomb)/2],
		"it unpacks to more than 200000 bytes": bomb,
		"leaves the archive":                   archived(t, map[string]string{"../x": ""}),
		"No source code found":                 archived(t, nil),
	} {
		d, err := h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Source: bytes.NewReader(data), Size: -1, Activate: true})
		if err != nil {
			t.Fatal(err)
		}
		if d = h.built(t, d); d.Status != "failed" || !strings.Contains(d.BuildLogs, reason) || d.BuildEnded.IsZero() {
			t.Errorf("%s: %s, %q", reason, d.Status, d.BuildLogs)
		}
	}
	_, err := h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Source: bytes.NewReader(nil), Size: -1})
	fails(t, err, engine.TypeFileEmpty)
	_, err = h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{Source: bytes.NewReader(make([]byte, 100_001)), Size: -1})
	fails(t, err, engine.TypeFileSize)
	_, err = h.p.Deploy(t.Context(), engine.System, "none", engine.DeployParams{Source: bytes.NewReader(bomb), Size: -1})
	fails(t, err, engine.TypeFunction)
	if _, err := h.p.UpdateFunction(t.Context(), engine.System, "f", engine.FunctionParams{Name: "f"}); err != nil {
		t.Fatal(err)
	}
	h.function(t, "bare", fnbox.RuntimeID, "")
	_, err = h.p.Deploy(t.Context(), engine.System, "bare", engine.DeployParams{Source: bytes.NewReader(bomb), Size: -1})
	fails(t, err, engine.TypeEntrypoint)
}

func TestBuildCommands(t *testing.T) {
	t.Parallel()
	require.Command(t, "sh")
	h := start(t, node(t), func(c *engine.Config) { c.Limits.ArtefactSize = 1_000_000 })
	h.function(t, "f", h.runtime(t, "node"), "i.js")
	build := func(commands string) engine.Deployment {
		t.Helper()
		d, err := h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{
			Source: bytes.NewReader(archived(t, map[string]string{"i.js": "module.exports = async ({res}) => res.text(require('./made'))"})), Size: -1, Activate: true, Commands: &commands,
		})
		if err != nil {
			t.Fatal(err)
		}
		return h.built(t, d)
	}
	d := build(`echo to the log; echo "module.exports='made'" > made.js; test -n "$APPWRITE_FUNCTION_API_KEY" && echo has a key`)
	if d.Status != "ready" || d.BuildLogs != "to the log\nhas a key\n" || d.BuildSize == 0 {
		t.Errorf("%s %q", d.Status, d.BuildLogs)
	}
	if x := h.execute(t, "f", engine.ExecuteParams{}); string(x.ResponseBody) != "made" {
		t.Errorf("%+v", x.Execution)
	}
	for commands, want := range map[string]string{
		"echo before; exit 3":                "before\nBuild failed: exit status 3\n",
		"head -c 3000000 /dev/urandom > big": "Build size should be less than 1.00 MBs.\n",
	} {
		if d := build(commands); d.Status != "failed" || d.BuildLogs != want {
			t.Errorf("%s: %s %q", commands, d.Status, d.BuildLogs)
		}
	}
	if d := build("head -c 5000000 /dev/zero | tr '\\0' '\\n'; echo the end"); d.Status != "ready" || len(d.BuildLogs) > 1_000_000 || !strings.HasSuffix(d.BuildLogs, "\nthe end\n") {
		t.Errorf("a flood: %s, %d bytes", d.Status, len(d.BuildLogs))
	}
}

func TestBuildTimeout(t *testing.T) {
	t.Parallel()
	h := start(t, node(t), func(c *engine.Config) { c.Limits.BuildTimeout = time.Second })
	h.function(t, "f", h.runtime(t, "node"), "i.js")
	commands := "sleep 1000"
	d, err := h.p.Deploy(t.Context(), engine.System, "f", engine.DeployParams{
		Source: bytes.NewReader(archived(t, map[string]string{"i.js": ""})), Size: -1, Commands: &commands,
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := h.built(t, d); d.Status != "failed" || d.BuildLogs != "The build took longer than 1s.\n" {
		t.Errorf("%s %q", d.Status, d.BuildLogs)
	}
}

// chunks cuts data into parts of size bytes.
func chunks(data []byte, size int) []engine.Chunk {
	var out []engine.Chunk
	for start := 0; start < len(data); start += size {
		end := min(start+size, len(data))
		out = append(out, engine.Chunk{
			Start: int64(start), End: int64(end - 1), Total: int64(len(data)),
			DeployParams: engine.DeployParams{Source: bytes.NewReader(data[start:end]), Activate: true},
		})
	}
	return out
}

// random is an archive that does not compress.
func random(t *testing.T, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	return archived(t, map[string]string{"data": string(body)})
}

func TestUploadInParts(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok))
	h.function(t, "f", fnbox.RuntimeID, "f")
	data := random(t, 100_000)
	for name, order := range map[string][]int{"in order": {0, 1, 2, 3, 4, 5, 6}, "backwards": {0, 6, 5, 4, 3, 2, 1}, "twice": {0, 3, 3, 1, 6, 2, 0, 4, 5}} {
		parts := chunks(data, 16_000)
		var d engine.Deployment
		for i, n := range order {
			c := parts[n]
			c.DeploymentID = d.ID
			c.Source = bytes.NewReader(data[c.Start : c.End+1])
			var err error
			if d, err = h.p.DeployChunk(t.Context(), engine.System, "f", c); err != nil {
				t.Fatal(name, n, err)
			}
			if last := i == len(order)-1; (d.Status != "uploading") != last {
				t.Fatalf("%s: %s after part %d of %d", name, d.Status, i+1, len(order))
			}
		}
		if d.Size != int64(len(data)) || d.ChunksTotal != 7 {
			t.Errorf("%s: %+v", name, d)
		}
		if d := h.built(t, d); d.Status != "ready" {
			t.Errorf("%s: %s", name, d.BuildLogs)
		}
		again := parts[6]
		again.DeploymentID, again.Source = d.ID, bytes.NewReader(data[again.Start:])
		if got, err := h.p.DeployChunk(t.Context(), engine.System, "f", again); err != nil || got.ID != d.ID {
			t.Errorf("%s: a part again after the end: %v", name, err)
		}
	}
	if err := leftBlobs(h, "uploads/"); err != nil {
		t.Error(err)
	}
}

func leftBlobs(h *host, prefix string) error {
	var found error
	err := h.cfg.Blobs.List(context.Background(), prefix, func(b engine.BlobInfo) bool {
		found = fmt.Errorf("the blob %s is left", b.Key)
		return false
	})
	return errors.Join(err, found)
}

func TestPartsAtOnceAndAfterARestart(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok))
	h.function(t, "f", fnbox.RuntimeID, "f")
	data := random(t, 100_000)
	parts := chunks(data, 9000)
	d, err := h.p.DeployChunk(t.Context(), engine.System, "f", parts[0])
	if err != nil {
		t.Fatal(err)
	}
	second := with(t, h.cfg) // another engine goes on
	if err := second.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer second.stop(t)
	var wg sync.WaitGroup
	for _, c := range parts[1:] {
		c.DeploymentID = d.ID
		wg.Go(func() {
			if _, err := second.p.DeployChunk(t.Context(), engine.System, "f", c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if d := second.built(t, d); d.Status != "ready" {
		t.Fatalf("%+v", d)
	}
	src, err := second.p.OpenSource(t.Context(), engine.System, "f", d.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got := make([]byte, src.Size)
	if _, err := src.Read(got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the joined archive differs, %v", err)
	}
}

func TestPartsThatDoNotFit(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok), func(c *engine.Config) { c.Limits.SourceSize = 1000 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	h.function(t, "g", fnbox.RuntimeID, "f")
	send := func(function, id string, start, end, total int64, bytesSent int) (engine.Deployment, error) {
		return h.p.DeployChunk(t.Context(), engine.System, function, engine.Chunk{
			DeploymentID: id, Start: start, End: end, Total: total,
			DeployParams: engine.DeployParams{Source: bytes.NewReader(make([]byte, bytesSent))},
		})
	}
	d, err := send("f", "", 0, 99, 250, 100)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		function, id      string
		start, end, total int64
		sent              int
		typ               string
	}{
		"too large":          {"f", "", 0, 99, 1001, 100, engine.TypeFileSize},
		"last first":         {"f", "", 200, 249, 250, 50, engine.TypeContentRange},
		"too many parts":     {"f", "", 0, 0, 0, 0, engine.TypeContentRange},
		"backwards":          {"f", "", 50, 10, 250, 0, engine.TypeContentRange},
		"negative":           {"f", "", -1, 10, 250, 12, engine.TypeContentRange},
		"another total":      {"f", d.ID, 100, 199, 251, 100, engine.TypeContentRange},
		"between parts":      {"f", d.ID, 150, 249, 250, 100, engine.TypeContentRange},
		"another size":       {"f", d.ID, 100, 149, 250, 50, engine.TypeContentRange},
		"behind the end":     {"f", d.ID, 300, 399, 250, 100, engine.TypeContentRange},
		"fewer bytes":        {"f", d.ID, 100, 199, 250, 99, engine.TypeContentRange},
		"more bytes":         {"f", d.ID, 100, 199, 250, 101, engine.TypeContentRange},
		"another function's": {"g", d.ID, 100, 199, 250, 100, engine.TypeDeployment},
		"bad id":             {"f", "../x", 0, 99, 250, 100, engine.TypeArgument},
	} {
		_, err := send(c.function, c.id, c.start, c.end, c.total, c.sent)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		t.Run(name, func(t *testing.T) { fails(t, err, c.typ) })
	}
	if d, err := send("f", d.ID, 100, 199, 250, 100); err != nil || len(d.Chunks) != 2 {
		t.Errorf("the upload does not go on: %+v, %v", d, err)
	}
	if err := h.p.DeleteDeployment(t.Context(), engine.System, "f", d.ID); err != nil {
		t.Error(err)
	}
	if err := leftBlobs(h, "uploads/"); err != nil {
		t.Error(err)
	}
	if d, err := send("f", "", 0, 249, 250, 250); err != nil || d.Status != "waiting" {
		t.Errorf("all in one part with a range: %+v, %v", d, err)
	}
}

func TestRebuildAndDelete(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok))
	h.ready(t, "f")
	old := h.active(t, "f")
	d, err := h.p.Rebuild(t.Context(), engine.System, "f", old)
	if err != nil || d.ID == old {
		t.Fatal(d, err)
	}
	if d = h.built(t, d); d.Status != "ready" || h.active(t, "f") != d.ID {
		t.Errorf("%+v", d)
	}
	list, err := h.p.ListDeployments(t.Context(), engine.System, "f", engine.Query{})
	if err != nil || list.Total != 2 || list.Items[0].ID != old {
		t.Errorf("%+v, %v", list, err)
	}
	if err := h.p.DeleteDeployment(t.Context(), engine.System, "f", d.ID); err != nil {
		t.Fatal(err)
	}
	_, err = h.p.Execute(t.Context(), engine.System, "f", engine.ExecuteParams{})
	fails(t, err, engine.TypeDeployment)
	if err := h.p.DeleteFunction(t.Context(), engine.System, "f"); err != nil {
		t.Fatal(err)
	}
	_, err = h.p.GetFunction(t.Context(), engine.System, "f")
	fails(t, err, engine.TypeFunction)
	if err := leftBlobs(h, ""); err != nil {
		t.Error(err)
	}
}

func TestProjectsAreApart(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok), func(c *engine.Config) {
		c.Hooks.Projects = func(_ context.Context, id string) (engine.ProjectLimits, error) {
			if id != "shop" && id != "blog" {
				return engine.ProjectLimits{}, engine.Errorf(engine.TypeProject, "")
			}
			return engine.ProjectLimits{Functions: 2}, nil
		}
	})
	h.ready(t, "f")
	x := h.execute(t, "f", engine.ExecuteParams{})
	blog := h.Project("blog")
	ctx, d := t.Context(), h.active(t, "f")
	for what, err := range map[string]error{
		"function":   second(blog.GetFunction(ctx, engine.System, "f")),
		"deployment": second(blog.GetDeployment(ctx, engine.System, "f", d)),
		"source":     second(blog.OpenSource(ctx, engine.System, "f", d)),
		"execution":  second(blog.GetExecution(ctx, engine.System, "f", x.ID)),
		"execute":    second(blog.Execute(ctx, engine.System, "f", engine.ExecuteParams{})),
		"variables":  second(blog.ListVariables(ctx, engine.System, "f")),
		"delete":     blog.DeleteFunction(ctx, engine.System, "f"),
	} {
		t.Run(what, func(t *testing.T) { fails(t, err, engine.TypeFunction) })
	}
	_, err := h.Project("none").GetFunction(ctx, engine.System, "f")
	fails(t, err, engine.TypeProject)
	_, err = h.Project("").GetFunction(ctx, engine.System, "f")
	fails(t, err, engine.TypeAccess)
	h.function(t, "g", fnbox.RuntimeID, "f")
	_, err = h.p.CreateFunction(ctx, engine.System, engine.FunctionParams{Name: "third", Runtime: fnbox.RuntimeID})
	fails(t, err, engine.TypeRateLimit)
	fails(t, h.DeleteProject(ctx, engine.Actor{Kind: engine.ActorKey}, "shop"), engine.TypeUnauthorized)
	if err := h.DeleteProject(ctx, engine.System, "shop"); err != nil {
		t.Fatal(err)
	}
	if list, err := h.p.ListFunctions(ctx, engine.System, engine.Query{}); err != nil || list.Total != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := leftBlobs(h, ""); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestEvents(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok), func(c *engine.Config) {
		c.Hooks.Payload = func(record any) (json.RawMessage, error) {
			return json.RawMessage(fmt.Sprintf("%q", fmt.Sprintf("%T", record))), nil
		}
	})
	ch, err := h.Subscribe(t.Context(), engine.Pattern{Project: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	hear := func(n int) {
		for len(got) < n {
			e := <-ch
			got = append(got, e.Names[1]+" "+string(e.Payload))
		}
	}
	h.ready(t, "f")
	hear(4) // those of a build come after who looks can see that it has ended
	h.execute(t, "f", engine.ExecuteParams{})
	h.ended(t, h.execute(t, "f", engine.ExecuteParams{Async: true}).Execution)
	hear(7)
	if err := h.p.DeleteFunction(t.Context(), engine.System, "f"); err != nil {
		t.Fatal(err)
	}
	hear(8)
	want := []string{
		`functions.*.create "store.Function"`,
		`functions.*.deployments.*.create "store.Deployment"`, `functions.*.deployments.*.update "store.Deployment"`, `functions.*.deployments.*.update "store.Deployment"`,
		`functions.*.executions.*.create "store.Execution"`,
		`functions.*.executions.*.create "store.Execution"`, `functions.*.executions.*.update "store.Execution"`,
		`functions.*.delete {}`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events\n got %q\nwant %q", got, want)
	}
}

func TestMinIsolation(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok), func(c *engine.Config) { c.MinIsolation = "" })
	if err := h.Start(t.Context()); err == nil || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("started with a sandbox that isolates nothing: %v", err)
	}
	if err := errors.Join(h.Stop(t.Context()), h.Stop(t.Context())); err != nil {
		t.Error(err)
	}
}
