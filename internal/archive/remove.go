package archive

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Remove removes a tree, also one with directories that forbid it, and however deep it
// is: deeper than paths are long, and than files can be open at once. Links are removed,
// never followed, also where somebody changes the tree meanwhile.
func Remove(dir string) error {
	if dir == "" {
		return nil
	}
	dir = filepath.Clean(dir)
	parent, err := os.OpenRoot(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return removal{parent, filepath.Base(dir)}.remove(parent, filepath.Base(dir), 0)
}

// removal is of one tree.
type removal struct {
	root *os.Root // where it lies
	top  string   // its name there
}

// removeBatch is how many entries of a directory are read at once.
const removeBatch = 1024

// remove removes what lies in a directory at a path from the root, so deep in the tree.
func (r removal) remove(in *os.Root, path string, depth int) error {
	name := filepath.Base(path)
	err := in.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if info, serr := in.Lstat(name); serr != nil || !info.IsDir() {
		return err
	}
	if depth > maxDepth {
		return r.raise(in, path)
	}
	_ = in.Chmod(name, 0o700) // before what is in it is read
	dir, err := in.OpenRoot(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := r.empty(dir, path, depth); err != nil {
		return err
	}
	return in.Remove(name)
}

// empty removes what a directory has. It is read again until there is nothing: only so is
// nothing missed that is removed, or comes from below, while it is read.
func (r removal) empty(dir *os.Root, path string, depth int) error {
	for {
		names, err := someNames(dir)
		if err != nil || len(names) == 0 {
			return err
		}
		left := 0
		for _, name := range names {
			if e := r.remove(dir, filepath.Join(path, name), depth+1); e != nil {
				left, err = left+1, e
			}
		}
		if left == len(names) {
			return err
		}
	}
}

func someNames(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(removeBatch)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// raise moves a directory to the top of the tree, whose removal comes to it later.
func (r removal) raise(in *os.Root, path string) error {
	_ = in.Chmod(filepath.Base(path), 0o700) // it is written to, too: its parent changes
	return r.root.Rename(path, filepath.Join(r.top, rand.Text()))
}
