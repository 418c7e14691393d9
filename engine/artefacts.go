package engine

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fnkit/fnkit/internal/archive"
)

// artefacts is the engine's cache of unpacked code: one directory for each
// build that runs here, made when it is first needed, removed when room is
// needed and no instance uses it. What a build left never changes, so what is
// there is right.
type artefacts struct {
	e   *Engine
	dir *directory // since Start

	mu   sync.Mutex
	code map[artefactKey]*artefact
	tick int               // orders uses
	held map[string]func() // by instance: lets go of its code
}

// artefactKey names a build: the id of a deployment may be used again.
type artefactKey struct{ project, function, build string }

func artefactOf(d Deployment) artefactKey { return artefactKey{d.Project, d.FunctionID, d.BuildID} }

type artefact struct {
	ready chan struct{} // closed when err is set
	err   error
	users int
	used  int // tick of the last use
	size  int64
}

// maxCode is how many bytes of code stay unpacked while no instance uses them.
const maxCode = 10 << 30

func newArtefacts(e *Engine) *artefacts {
	return &artefacts{e: e, code: map[artefactKey]*artefact{}, held: map[string]func(){}}
}

// open opens the engine's directory.
func (a *artefacts) open() (err error) {
	a.dir, err = openDirectory(a.e.cfg.Dir)
	return err
}

// close closes it.
func (a *artefacts) close() error { return a.dir.close() }

// workDir makes an empty directory; the caller removes it with remove.
func (a *artefacts) workDir() (string, error) { return os.MkdirTemp(a.dir.in("work"), "") }

// remove removes directories. What cannot be removed goes with the engine's directory.
func (a *artefacts) remove(dirs ...string) {
	for _, dir := range dirs {
		if err := archive.Remove(dir); err != nil {
			a.e.cfg.Logger.Warn("remove code", "error", err)
		}
	}
}

func (a *artefacts) path(k artefactKey) string {
	return filepath.Join(a.dir.in("code"), k.project, k.build)
}

// use returns the directory of a deployment's code, and a function that lets
// go of it. Many callers at once unpack it once.
func (a *artefacts) use(ctx context.Context, d Deployment) (dir string, release func(), err error) {
	k := artefactOf(d)
	a.mu.Lock()
	c := a.code[k]
	mine := c == nil
	if mine {
		c = &artefact{ready: make(chan struct{})}
		a.code[k] = c
	}
	c.users++
	a.tick++
	c.used = a.tick
	a.mu.Unlock()
	if mine {
		c.size, c.err = a.fetch(ctx, k, d.ArtefactBlob)
		close(c.ready)
	}
	release = sync.OnceFunc(func() { a.release(k, c) })
	select {
	case <-c.ready:
		err = c.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		release()
		return "", nil, fmt.Errorf("code of deployment %s: %w", d.ID, err)
	}
	return a.path(k), release, nil
}

// release ends a use. What failed is forgotten, so that the next use tries again.
func (a *artefacts) release(k artefactKey, c *artefact) {
	a.mu.Lock()
	c.users--
	var old []string
	switch current := a.code[k]; {
	case c.users > 0:
	case current == c && c.err != nil:
		delete(a.code, k)
	case current == nil: // it was forgotten meanwhile
		old = a.take(old, k)
	}
	old = a.makeRoom(old)
	a.mu.Unlock()
	a.remove(old...)
}

// forget drops the code of the builds that the function selects, now or when
// their last instance is gone.
func (a *artefacts) forget(which func(artefactKey) bool) {
	a.mu.Lock()
	var old []string
	for k, c := range a.code {
		if !which(k) {
			continue
		}
		delete(a.code, k)
		if c.users == 0 {
			old = a.take(old, k)
		}
	}
	a.mu.Unlock()
	a.remove(old...)
}

// makeRoom takes away the code that was used longest ago until what is left fits.
func (a *artefacts) makeRoom(old []string) []string {
	var idle []use[artefactKey]
	for k, c := range a.code {
		if c.users == 0 {
			idle = append(idle, use[artefactKey]{k, c.size, c.used})
		}
	}
	for _, k := range surplus(idle, maxCode) {
		delete(a.code, k)
		old = a.take(old, k)
	}
	return old
}

// use says how large something is and when it was used last.
type use[K any] struct {
	key   K
	bytes int64
	tick  int
}

// surplus returns what was used longest ago, so much that the rest is no more than most.
func surplus[K any](all []use[K], most int64) (old []K) {
	var total int64
	for _, u := range all {
		total += u.bytes
	}
	if total <= most {
		return nil
	}
	slices.SortFunc(all, func(a, b use[K]) int { return cmp.Compare(a.tick, b.tick) })
	for _, u := range all {
		if total <= most {
			break
		}
		total -= u.bytes
		old = append(old, u.key)
	}
	return old
}

// take moves code out of the way.
func (a *artefacts) take(old []string, k artefactKey) []string { return a.aside(old, a.path(k)) }

// aside moves a directory out of the way, quickly since a mutex is held, and adds where
// it went to what the caller removes.
func (a *artefacts) aside(old []string, dir string) []string {
	work, err := a.workDir()
	if err == nil {
		err = move(dir, filepath.Join(work, "old"))
	}
	if err != nil && !os.IsNotExist(err) {
		a.e.cfg.Logger.Warn("remove code", "error", err)
	}
	return append(old, work)
}

// fetch brings an artefact from the blobs.
func (a *artefacts) fetch(ctx context.Context, k artefactKey, blob string) (int64, error) {
	r, _, err := a.e.cfg.Blobs.Open(ctx, blob)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return a.unpack(ctx, k, r)
}

// add unpacks an artefact that was just made, so that a build is ready only
// if its artefact can be used, and its first call finds it here.
func (a *artefacts) add(ctx context.Context, k artefactKey, packed io.Reader) error {
	size, err := a.unpack(ctx, k, packed)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.tick++
	c := &artefact{ready: make(chan struct{}), used: a.tick, size: size}
	close(c.ready)
	a.code[k] = c
	old := a.makeRoom(nil)
	a.mu.Unlock()
	a.remove(old...)
	return nil
}

func (a *artefacts) unpack(ctx context.Context, k artefactKey, packed io.Reader) (int64, error) {
	work, err := a.workDir()
	if err != nil {
		return 0, err
	}
	defer a.remove(work)
	dir := filepath.Join(work, "code")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	stats, err := archive.Unpack(ctx, packed, dir, a.e.artefactLimits())
	if err != nil {
		return 0, err
	}
	to := a.path(k)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return 0, err
	}
	return stats.Bytes, os.Rename(dir, to)
}

// hold keeps code in use for as long as an instance lives.
func (a *artefacts) hold(instance string, release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held[instance] = release
}

// letGo ends what hold began.
func (a *artefacts) letGo(instance string) {
	a.mu.Lock()
	release := a.held[instance]
	delete(a.held, instance)
	a.mu.Unlock()
	if release != nil {
		release()
	}
}

// artefactLimits bound what an artefact may unpack to.
func (e *Engine) artefactLimits() archive.Limits {
	return archive.Limits{Bytes: e.cfg.Limits.ArtefactSize * 4, Files: maxArtefactFiles}
}

// sourceLimits bound what a source archive may unpack to.
func (e *Engine) sourceLimits() archive.Limits {
	return archive.Limits{Bytes: e.cfg.Limits.UnpackedSize, Files: e.cfg.Limits.UnpackedFiles}
}

// maxArtefactFiles bounds the files of an artefact: source and dependencies.
const maxArtefactFiles = 2_000_000
