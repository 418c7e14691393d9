package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// caching is a driver whose builds read and write their package cache. Their commands
// are words: "size=N" writes so many bytes, "folders=N" makes so many folders, "fail" fails, "wait" waits until it is let go.
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
	size := int64(0)
	if info, err := os.Stat(file); err == nil {
		size = info.Size()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return sandbox.BuildResult{}, err
	}
	fmt.Fprintf(logs, "found %d", size)
	for word := range strings.FieldsSeq(spec.Commands) {
		what, number, _ := strings.Cut(word, "=")
		n, _ := strconv.ParseInt(number, 10, 64)
		switch what {
		case "size":
			err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600), os.Truncate(file, n))
			if err != nil {
				return sandbox.BuildResult{}, err
			}
		case "folders":
			for i := range n {
				if err := os.MkdirAll(filepath.Join(spec.Cache, "folders", strconv.FormatInt(i, 10)), 0o700); err != nil {
					return sandbox.BuildResult{}, err
				}
			}
		case "fail":
			return sandbox.BuildResult{Failure: "as told"}, nil
		case "wait":
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
	h := start(t, newCaching(), func(c *engine.Config) { c.Limits.PackageCache = 64 << 10 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	h.function(t, "F", fnbox.RuntimeID, "f")
	for _, c := range []struct{ function, commands, finds string }{
		{"f", "", "found 0"},
		{"f", "size=10", "found 0"},
		{"F", "size=30", "found 0"},
		{"f", "", "found 10"},
		{"f", "size=20", "found 10"},
		{"f", "size=999 fail", "found 20"},
		{"f", "size=40", "found 0"},     // what a failed build leaves is not trusted
		{"f", "size=61440", "found 40"}, // the folder counts too
		{"f", "size=61441", "found 61440"},
		{"f", "", "found 0"}, // it was too much
		{"f", "size=50 folders=13", "found 0"},
		{"f", "folders=14", "found 50"},
		{"f", "", "found 0"}, // empty folders are not for nothing
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

// TestPackagesOfAll: what is more than all functions may have costs no other its own.
func TestPackagesOfAll(t *testing.T) {
	t.Parallel()
	h := start(t, newCaching(), func(c *engine.Config) { c.Limits.PackageCache = 1 << 40 })
	h.function(t, "f", fnbox.RuntimeID, "f")
	h.function(t, "g", fnbox.RuntimeID, "f")
	h.builds(t, "g", "size=10", "found 0")
	h.builds(t, "f", "size=11000000000", "found 0")
	h.builds(t, "f", "", "found 0")
	h.builds(t, "g", "", "found 10")

	// Three that do not fit together: the one goes that was used longest ago.
	h.function(t, "h", fnbox.RuntimeID, "f")
	h.builds(t, "f", "size=4000000000", "found 0")
	h.builds(t, "g", "size=4000000000", "found 10")
	h.builds(t, "f", "", "found 4000000000")
	h.builds(t, "h", "size=4000000000", "found 0")
	h.builds(t, "g", "", "found 0")
	h.builds(t, "f", "", "found 4000000000")
	h.builds(t, "h", "", "found 4000000000")
}

// TestPackagesAreNotKeptAnyMore has an engine find more than its limit allows, and
// those of a function that another engine made anew, and whose folder is closed.
func TestPackagesAreNotKeptAnyMore(t *testing.T) {
	t.Parallel()
	h := start(t, newCaching())
	for _, id := range []string{"f", "g"} {
		h.function(t, id, fnbox.RuntimeID, "f")
	}
	h.builds(t, "f", "size=10", "found 0")
	h.builds(t, "g", "size=50000", "found 0")
	for _, name := range h.packages(t) {
		if err := os.Chmod(filepath.Join(h.cfg.Dir, "packages", name), 0); err != nil {
			t.Fatal(err)
		}
	}
	h.builds(t, "f", "", "found 10")

	other := with(t, h.cfg)
	if err := other.p.DeleteFunction(t.Context(), engine.System, "f"); err != nil {
		t.Fatal(err)
	}
	other.function(t, "f", fnbox.RuntimeID, "f")
	h.builds(t, "f", "size=20", "found 0")

	for i, limit := range []int64{10_000, -1} {
		h.stop(t)
		h.cfg.Limits.PackageCache = limit
		h = with(t, h.cfg)
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.stop(t) })
		eventually(t, func() ([]string, bool) {
			got := h.packages(t)
			return got, len(got) == 1-i
		})
	}
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
