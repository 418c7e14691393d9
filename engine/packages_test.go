package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// caching is a driver whose builds read and write their package cache. Their commands
// are words: "size=N" writes so many bytes, "fail" fails, "wait" waits until it is let go.
type caching struct {
	*fnbox.Box
	waits, let chan struct{}
}

func newCaching() *caching {
	return &caching{Box: fnbox.New(fnbox.Funcs{"f": ok}), waits: make(chan struct{}), let: make(chan struct{})}
}

func (c *caching) Build(ctx context.Context, spec sandbox.BuildSpec, logs io.Writer) (sandbox.BuildResult, error) {
	if spec.Cache == "" {
		fmt.Fprint(logs, "no cache")
		return c.Box.Build(ctx, spec, logs)
	}
	file := filepath.Join(spec.Cache, "deep", "file")
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sandbox.BuildResult{}, err
	}
	fmt.Fprintf(logs, "found %d", len(text))
	for word := range strings.FieldsSeq(spec.Commands) {
		size := 0
		switch _, err := fmt.Sscanf(word, "size=%d", &size); {
		case err == nil:
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, make([]byte, size), 0o600)); err != nil {
				return sandbox.BuildResult{}, err
			}
		case word == "fail":
			return sandbox.BuildResult{Failure: "as told"}, nil
		case word == "wait":
			c.waits <- struct{}{}
			<-c.let
		}
	}
	return c.Box.Build(ctx, spec, logs)
}

// packages lists what an engine keeps.
func (h *host) packages(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.cfg.Dir, "packages"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// builds deploys a function again and checks what its build says.
func (h *host) builds(t *testing.T, function, commands, want string) {
	t.Helper()
	if d := h.built(t, h.upload(t, function, commands, true)); !strings.HasPrefix(d.BuildLogs, want) {
		t.Errorf("build %q of %s: %s, %q, want %q", commands, function, d.Status, d.BuildLogs, want)
	}
}

func TestPackagesOfBuilds(t *testing.T) {
	t.Parallel()
	h := start(t, newCaching(), func(c *engine.Config) { c.Limits.PackageCache = 1000 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	h.function(t, "F", fnbox.RuntimeID, "f")
	for _, c := range []struct{ function, commands, finds string }{
		{"f", "", "found 0"},
		{"f", "size=10", "found 0"},
		{"F", "size=30", "found 0"},
		{"f", "", "found 10"},
		{"f", "size=20", "found 10"},
		{"f", "size=999 fail", "found 20"},
		{"f", "size=40", "found 0"}, // what a failed build leaves is not trusted
		{"f", "size=1000", "found 40"},
		{"f", "size=1001", "found 1000"},
		{"f", "", "found 0"}, // it was too much
		{"F", "", "found 30"},
	} {
		h.builds(t, c.function, c.commands, c.finds)
	}
}

func TestNoPackages(t *testing.T) {
	t.Parallel()
	h := start(t, newCaching(), func(c *engine.Config) { c.Limits.PackageCache = -1 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	h.builds(t, "f", "size=10", "no cache")
}

// TestPackagesBelongToOneBuild: who builds at the same time has others.
func TestPackagesBelongToOneBuild(t *testing.T) {
	t.Parallel()
	box := newCaching()
	h := start(t, box, func(c *engine.Config) { c.Work.Builds = 2 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	h.builds(t, "f", "size=10", "found 0")
	first := h.upload(t, "f", "wait size=20", true)
	<-box.waits
	h.builds(t, "f", "size=30", "found 0")
	box.let <- struct{}{}
	if d := h.built(t, first); d.Status != "ready" || d.BuildLogs != "found 10" {
		t.Errorf("%s, %q", d.Status, d.BuildLogs)
	}
	h.builds(t, "f", "", "found 20") // whoever was last
	if got := h.packages(t); len(got) != 1 {
		t.Errorf("kept: %v", got)
	}
}

// TestPackagesOutliveTheEngine, but not their function.
func TestPackagesOutliveTheEngine(t *testing.T) {
	t.Parallel()
	box := newCaching()
	h := start(t, box)
	for _, id := range []string{"f", "g", "gone"} {
		h.function(t, id, fnbox.RuntimeID, "f")
		h.builds(t, id, "size=10", "found 0")
	}
	building := h.upload(t, "f", "wait", true)
	<-box.waits
	if err := h.p.DeleteFunction(t.Context(), engine.System, "g"); err != nil {
		t.Fatal(err)
	}
	if got := h.packages(t); len(got) != 1 {
		t.Errorf("f is being built, g is deleted: %v are kept", got)
	}
	box.let <- struct{}{}
	h.built(t, building)
	h.stop(t)

	// Meanwhile another engine deletes a function, and somebody else is in the directory.
	if err := with(t, h.cfg).p.DeleteFunction(t.Context(), engine.System, "gone"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(h.cfg.Dir, "packages", "strange"), 0o700); err != nil {
		t.Fatal(err)
	}
	h = with(t, h.cfg)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.stop(t) })
	h.builds(t, "f", "size=20", "found 10")
	eventually(t, func() ([]string, bool) {
		got := h.packages(t)
		return got, len(got) == 1
	})

	// A function that is deleted while it is built leaves none.
	last := h.upload(t, "f", "wait size=30", true)
	<-box.waits
	if err := with(t, h.cfg).DeleteProject(t.Context(), engine.System, "shop"); err != nil {
		t.Fatal(err)
	}
	box.let <- struct{}{}
	if _, err := h.p.GetDeployment(t.Context(), engine.System, "f", last.ID); err == nil {
		t.Error("the deployment outlived its project")
	}
	h.stop(t)
	if got := h.packages(t); len(got) != 0 {
		t.Errorf("the project is deleted: %v are kept", got)
	}
}
