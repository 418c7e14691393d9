package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fnkit/fnkit/store"
)

// packages keeps for each function what the package managers of its builds have
// downloaded here. It belongs to one build at a time, which has it in its own
// directory and gives it back when it has succeeded: what a build leaves that failed or
// was cut off is not trusted, and what is kept is never half written. Builds of other
// functions never see it.
type packages struct {
	e   *Engine
	dir *directory // since Start

	mu   sync.Mutex
	kept map[packagesKey]*keptPackages
	tick int // orders uses
}

// packagesKey names a function, and when it was created, in nanoseconds: ids of
// functions and projects may be used again, by others.
type packagesKey struct {
	functionKey
	born int64
}

func packagesOf(f Function) packagesKey {
	return packagesKey{functionKey{f.Project, f.ID}, f.CreatedAt.UnixNano()}
}

type keptPackages struct {
	bytes int64
	used  int // tick of the last use
}

const (
	// maxPackages is how many bytes are kept of all functions together.
	maxPackages = 10 << 30
	// minPackages is what those of one function count at least, so that they are not too many.
	minPackages = 1 << 20
	// maxPackageFiles bounds those of one function, directories among them.
	maxPackageFiles = 500_000
	// minPackageFile is what a file or directory counts at least, since it takes room
	// even if it is empty.
	minPackageFile = 4 << 10
)

func newPackages(e *Engine) *packages {
	return &packages{e: e, kept: map[packagesKey]*keptPackages{}}
}

// most is how many bytes are kept of one function; negative: none are.
func (p *packages) most() int64 { return min(p.e.cfg.Limits.PackageCache, maxPackages) }

// open finds what was kept in the engine's directory, and removes what is not kept any more.
func (p *packages) open(dir *directory) error {
	p.dir = dir
	entries, err := os.ReadDir(dir.in("packages"))
	if err != nil {
		return err
	}
	infos := make(map[string]fs.FileInfo, len(entries))
	for _, e := range entries {
		if infos[e.Name()], err = e.Info(); err != nil {
			return err
		}
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return infos[a.Name()].ModTime().Compare(infos[b.Name()].ModTime()) })
	var old []string
	p.mu.Lock()
	clear(p.kept)
	for _, e := range entries {
		f, bytes, ok := parsePackagesName(e.Name())
		if !ok || !e.IsDir() || bytes > p.most() || p.kept[f] != nil {
			old = append(old, filepath.Join(dir.in("packages"), e.Name()))
			continue
		}
		p.tick++
		p.kept[f] = &keptPackages{bytes, p.tick}
	}
	p.mu.Unlock()
	p.e.artefacts.remove(old...)
	return nil
}

// path is where a function's packages are kept. Its size is in its name, and ids are
// written so that they differ where file systems ignore case.
func (p *packages) path(f packagesKey, bytes int64) string {
	return filepath.Join(p.dir.in("packages"), strings.Join([]string{
		hex.EncodeToString([]byte(f.project)), hex.EncodeToString([]byte(f.id)), itoa(f.born), itoa(bytes),
	}, "."))
}

func parsePackagesName(name string) (f packagesKey, bytes int64, ok bool) {
	part := strings.Split(name, ".")
	if len(part) != 4 {
		return f, 0, false
	}
	project, err1 := hex.DecodeString(part[0])
	id, err2 := hex.DecodeString(part[1])
	born, err3 := strconv.ParseInt(part[2], 10, 64)
	bytes, err4 := strconv.ParseInt(part[3], 10, 64)
	return packagesKey{functionKey{string(project), string(id)}, born}, bytes, errors.Join(err1, err2, err3, err4) == nil && bytes >= 0
}

// lend makes dir the directory of a function's packages, with what is kept of them
// unless another build has it. Empty: none are kept.
func (p *packages) lend(f packagesKey, dir string) (string, error) {
	if p.most() < 0 {
		return "", nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.kept[f]; have != nil {
		delete(p.kept, f)
		err := move(p.path(f, have.bytes), dir)
		if err == nil {
			return dir, nil
		}
		p.e.cfg.Logger.Warn("use packages", "function", f.id, "error", err)
	}
	return dir, os.Mkdir(dir, 0o700)
}

// giveBack keeps what a build has left of what it was lent, if it may be so much. It
// does not fail: without, the next build takes longer.
func (p *packages) giveBack(ctx context.Context, f packagesKey, dir string) {
	if dir == "" {
		return
	}
	bytes, err := sizeOf(dir, p.most())
	switch {
	case err == nil && bytes == 0:
		return
	case err == nil:
		err = p.keep(f, dir, bytes)
	}
	if err == nil {
		err = p.lookFor(context.WithoutCancel(ctx), f) // deleted meanwhile? There was nothing to forget then
	}
	if err != nil {
		p.e.cfg.Logger.Warn("keep packages", "project", f.project, "function", f.id, "error", err)
	}
}

func (p *packages) keep(f packagesKey, dir string, bytes int64) error {
	now := p.e.clock.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		return err
	}
	p.mu.Lock()
	old := p.drop(nil, f)
	err := move(dir, p.path(f, bytes))
	if err == nil {
		p.tick++
		p.kept[f] = &keptPackages{bytes, p.tick}
		old = p.makeRoom(old)
	}
	p.mu.Unlock()
	p.e.artefacts.remove(old...)
	return err
}

// lookFor drops the packages of a function that does not exist, or is another one now.
func (p *packages) lookFor(ctx context.Context, f packagesKey) error {
	fn, err := p.e.store.GetFunction(ctx, f.project, f.id)
	if err == nil && packagesOf(fn) != f || errors.Is(err, store.ErrNotFound) {
		p.forget(func(k packagesKey) bool { return k == f })
		return nil
	}
	return err
}

// sweep drops what is kept for functions that other engines have deleted.
func (p *packages) sweep(ctx context.Context) {
	p.mu.Lock()
	all := make([]packagesKey, 0, len(p.kept))
	for f := range p.kept {
		all = append(all, f)
	}
	p.mu.Unlock()
	for _, f := range all {
		if err := p.lookFor(ctx, f); err != nil {
			if ctx.Err() == nil {
				p.e.cfg.Logger.Warn("look for old packages", "error", err)
			}
			return
		}
	}
}

// forget drops the packages of the functions that are selected.
func (p *packages) forget(which func(packagesKey) bool) {
	p.mu.Lock()
	var old []string
	for f := range p.kept {
		if which(f) {
			old = p.drop(old, f)
		}
	}
	p.mu.Unlock()
	p.e.artefacts.remove(old...)
}

// makeRoom drops the packages that were used longest ago until the others fit.
func (p *packages) makeRoom(old []string) []string {
	var all []use[packagesKey]
	for f, k := range p.kept {
		all = append(all, use[packagesKey]{f, max(k.bytes, minPackages), k.used})
	}
	for _, f := range surplus(all, maxPackages) {
		old = p.drop(old, f)
	}
	return old
}

// drop moves what is kept of a function out of the way, if there is something, and adds
// where it went to what the caller removes once p.mu is free.
func (p *packages) drop(old []string, f packagesKey) []string {
	have := p.kept[f]
	if have == nil {
		return old
	}
	delete(p.kept, f)
	return p.e.artefacts.aside(old, p.path(f, have.bytes))
}

var errTooMuchKept = errors.New("they are more than Limits.PackageCache, or too many files")

// sizeOf is how many bytes what is in a directory takes, about, and 0 if there is nothing.
func sizeOf(dir string, most int64) (bytes int64, err error) {
	files := 0
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && name == dir && !d.IsDir() {
			err = errors.New("they are no directory")
		}
		if err != nil || name == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size := max(info.Size(), minPackageFile)
		if files++; size > most-bytes || files > maxPackageFiles {
			return errTooMuchKept
		}
		bytes += size
		return nil
	})
	return bytes, err
}
