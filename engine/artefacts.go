package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/fnkit/fnkit/internal/archive"
)

// artefacts is the engine's directory of unpacked code: one directory for each
// deployment that runs here, made when it is first needed, removed when room
// is needed and no instance uses it. Deployments never change, so what is
// there is right.
type artefacts struct {
	e    *Engine
	temp bool // dir is removed at the end

	mu   sync.Mutex
	dir  string
	code map[artefactKey]*artefact
	tick int               // orders uses
	held map[string]func() // by instance: lets go of its code
}

type artefactKey struct{ project, deployment string }

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

// open makes the directory usable, and empty: what an engine that died left in
// it is removed.
func (a *artefacts) open() error {
	dir := a.e.cfg.Dir
	if a.temp = dir == ""; a.temp {
		made, err := os.MkdirTemp("", "fnkit-")
		if err != nil {
			return fmt.Errorf("make a directory for code: %w", err)
		}
		dir = made
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	a.dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory for code: %w", err)
	}
	for _, sub := range []string{"code", "work"} {
		if err := errors.Join(os.RemoveAll(filepath.Join(dir, sub)), os.Mkdir(filepath.Join(dir, sub), 0o700)); err != nil {
			return fmt.Errorf("directory for code: %w", err)
		}
	}
	return nil
}

// close removes what the engine put into the directory.
func (a *artefacts) close() error {
	if a.temp {
		return os.RemoveAll(a.dir)
	}
	return errors.Join(os.RemoveAll(filepath.Join(a.dir, "code")), os.RemoveAll(filepath.Join(a.dir, "work")))
}

// workDir makes an empty directory for a build; the caller removes it.
func (a *artefacts) workDir() (string, error) { return os.MkdirTemp(filepath.Join(a.dir, "work"), "") }

func (a *artefacts) path(k artefactKey) string {
	return filepath.Join(a.dir, "code", k.project, k.deployment)
}

// use returns the directory of a deployment's code, and a function that lets
// go of it. Many callers at once unpack it once.
func (a *artefacts) use(ctx context.Context, d Deployment) (dir string, release func(), err error) {
	k := artefactKey{d.Project, d.ID}
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
		c.size, c.err = a.unpack(ctx, k, d)
		close(c.ready)
	}
	release = sync.OnceFunc(func() { a.release(k, c) })
	select {
	case <-c.ready:
		err = c.err
	case <-ctx.Done():
		err = ctx.Err()
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
	defer a.mu.Unlock()
	c.users--
	if c.users == 0 && c.err != nil && a.code[k] == c {
		delete(a.code, k)
	}
	a.makeRoom()
}

// makeRoom removes the code that was used longest ago until what is left fits.
func (a *artefacts) makeRoom() {
	for {
		var total int64
		var oldest artefactKey
		var found *artefact
		for k, c := range a.code {
			if c.users == 0 {
				total += c.size
				if found == nil || c.used < found.used {
					oldest, found = k, c
				}
			}
		}
		if total <= maxCode || found == nil {
			return
		}
		delete(a.code, oldest)
		if err := os.RemoveAll(a.path(oldest)); err != nil {
			a.e.cfg.Logger.Warn("remove unpacked code", "error", err)
		}
	}
}

// unpack brings the artefact of a deployment from the blobs.
func (a *artefacts) unpack(ctx context.Context, k artefactKey, d Deployment) (int64, error) {
	blob, _, err := a.e.cfg.Blobs.Open(ctx, d.ArtefactBlob)
	if err != nil {
		return 0, err
	}
	defer blob.Close()
	work, err := a.workDir()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(work)
	stats, err := archive.Unpack(ctx, blob, work, a.e.artefactLimits())
	if err != nil {
		return 0, err
	}
	return stats.Bytes, a.moveIn(k, work)
}

// add takes the directory of a build over as the code of its deployment.
func (a *artefacts) add(d Deployment, dir string, size int64) error {
	k := artefactKey{d.Project, d.ID}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.code[k] != nil {
		return nil
	}
	if err := a.moveIn(k, dir); err != nil {
		return err
	}
	a.tick++
	c := &artefact{ready: make(chan struct{}), used: a.tick, size: size}
	close(c.ready)
	a.code[k] = c
	a.makeRoom()
	return nil
}

func (a *artefacts) moveIn(k artefactKey, dir string) error {
	to := a.path(k)
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.RemoveAll(to), os.Rename(dir, to))
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
