package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// TestWhatDeadEnginesLeftIsRemoved: blobs without a record, uploads that stand
// still, instances and directories.
func TestWhatDeadEnginesLeftIsRemoved(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok))
	h.ready(t, "f")
	kept := h.active(t, "f")
	parts := chunks(random(t, 30_000), 10_000)
	d, err := h.p.DeployChunk(t.Context(), engine.System, "f", parts[0])
	if err != nil {
		t.Fatal(err)
	}
	h.stop(t)
	root := strings.TrimSuffix(h.cfg.Dir, "engine") + "blobs"
	put := func(key string) {
		t.Helper()
		if _, err := h.cfg.Blobs.Put(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	orphans := []string{
		"sources/shop/f/none.tar.gz", "sources/shop/none/none.tar.gz", "sources/none/f/" + kept + ".tar.gz", "artefacts/shop/f/" + kept + "/another.tar.gz",
		"artefacts/shop/f/none/x.tar.gz", "uploads/shop/f/none/0", "uploads/shop/f/" + kept + "/0",
	}
	for _, key := range append(orphans, "sources/shop/f/young.tar.gz", "sources/other.txt", "mine/of/the/host") {
		put(key)
	}
	old := time.Now().Add(-2 * time.Hour)
	var keys []string
	err = h.cfg.Blobs.List(t.Context(), "", func(b engine.BlobInfo) bool { keys = append(keys, b.Key); return true })
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if !strings.Contains(key, "young") {
			if err := os.Chtimes(filepath.Join(root, key), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}

	next := h.beside(t, funcs(ok))
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, key := range orphans {
		eventually(t, func() (error, bool) { err := leftBlobs(next, key); return err, err == nil })
	}
	next.stop(t)
	left := map[string]bool{}
	err = h.cfg.Blobs.List(t.Context(), "", func(b engine.BlobInfo) bool { left[b.Key] = true; return true })
	if err != nil {
		t.Fatal(err)
	}
	if want := len(keys) - len(orphans); len(left) != want {
		t.Errorf("%d blobs are left, want %d: %v", len(left), want, left)
	}

	next = h.beside(t, funcs(ok), func(c *engine.Config) { c.Limits.UploadPause = time.Nanosecond })
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.stop(t)
	eventually(t, func() (error, bool) { err := leftBlobs(next, "uploads/"); return err, err == nil })
	_, err = next.p.GetDeployment(t.Context(), engine.System, "f", d.ID)
	fails(t, err, engine.TypeDeployment)
	if x := next.execute(t, "f", engine.ExecuteParams{}); x.Status != "completed" {
		t.Errorf("%+v", x.Execution)
	}
}

func TestADirectoryHasOneEngine(t *testing.T) {
	t.Parallel()
	h := start(t, funcs(ok))
	h.ready(t, "f")
	other := h.beside(t, funcs(ok), func(c *engine.Config) { c.Dir = h.cfg.Dir })
	if err := other.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second engine on the directory: %v", err)
	}
	if x := h.execute(t, "f", engine.ExecuteParams{}); x.Status != "completed" {
		t.Errorf("after that the first: %+v", x.Execution)
	}
	h.stop(t)
	if err := other.Start(t.Context()); err != nil { // Start that failed may be tried again
		t.Fatal(err)
	}
	other.stop(t)
}

func TestInstancesThatWereLeftAreStopped(t *testing.T) {
	t.Parallel()
	box := funcs(ok)
	h := open(t, box)
	if _, err := box.Start(t.Context(), sandbox.Spec{ID: "left", Runtime: fnbox.RuntimeID, Entrypoint: "f"}); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.stop(t)
	if all, err := box.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestTemporaryDirectories is not parallel: it sets where they are made.
func TestTemporaryDirectories(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	left := func() []string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(os.TempDir(), "fnkit-engine-*"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	noDir := func(c *engine.Config) { c.Dir = "" }
	living := start(t, funcs(ok), noDir)
	living.ready(t, "f")
	dead := filepath.Join(os.TempDir(), "fnkit-engine-dead")
	making := filepath.Join(os.TempDir(), "fnkit-engine-making") // has no lock yet
	for _, dir := range []string{dead, making} {
		if err := os.MkdirAll(filepath.Join(dir, "code"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dead, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := living.beside(t, funcs(ok), noDir)
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := left(); len(all) != 3 || strings.Contains(strings.Join(all, " "), dead) {
		t.Errorf("directories: %v", all)
	}
	if x := living.execute(t, "f", engine.ExecuteParams{}); x.Status != "completed" {
		t.Errorf("%+v", x.Execution)
	}
	other.stop(t)
	living.stop(t)
	if all := left(); len(all) != 1 || all[0] != making {
		t.Errorf("directories after Stop: %v", all)
	}
}

// TestBlobsAreAsOldAsOthers has an engine whose clock is years ahead of the
// blobs': one that was written just now may be about to get its record.
func TestBlobsAreAsOldAsOthers(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Now().AddDate(5, 0, 0))
	h := open(t, funcs(ok), func(c *engine.Config) { c.Clock = mock })
	const young, old = "sources/shop/f/young.tar.gz", "sources/shop/f/old.tar.gz"
	for _, key := range []string{young, old} {
		if _, err := h.cfg.Blobs.Put(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	before := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(strings.TrimSuffix(h.cfg.Dir, "engine")+"blobs", old), before, before); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.stop(t)
	eventually(t, func() (error, bool) { err := leftBlobs(h, old); return err, err == nil })
	if leftBlobs(h, young) == nil {
		t.Error("a blob that was written just now is gone")
	}
}
