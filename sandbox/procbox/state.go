package procbox

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fnkit/fnkit/internal/archive"
	"github.com/fnkit/fnkit/internal/lockfile"
	"github.com/fnkit/fnkit/sandbox/procbox/harness"
)

// state is the directory of a Box:
//
//	lock          held by the owner
//	harness/HASH  the harness programs
//	run/NAME      a scratch directory: home and tmp of an instance or a build
//	run/NAME.json the process group that uses it
type state struct {
	dir  string
	lock *os.File
}

// record says which process group uses a scratch directory.
type record struct {
	Group int    `json:"group"`
	Start string `json:"start"` // of its leader, so that another process of that number is let alone
}

func openState(dir string) (*state, error) {
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockfile.Lock(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	s := &state{dir, lock}
	if err := s.reap(); err != nil {
		lockfile.Unlock(lock)
		return nil, err
	}
	return s, nil
}

func (s *state) close() error { return lockfile.Unlock(s.lock) }

// reap ends and removes what the last owner left; the lock says that it is dead.
func (s *state) reap() error {
	run := filepath.Join(s.dir, "run")
	entries, err := os.ReadDir(run)
	if err != nil {
		return err
	}
	var records []record
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" {
			continue
		}
		var r record
		text, err := os.ReadFile(filepath.Join(run, e.Name()))
		if err == nil && json.Unmarshal(text, &r) == nil && r.Group > 1 {
			records = append(records, r)
		}
	}
	killLeftovers(run, records)
	for _, e := range entries {
		if err := archive.Remove(filepath.Join(run, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// scratch makes a private directory with a home and a directory for temporary
// files.
func (s *state) scratch() (string, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "run"), "box-")
	if err != nil {
		return "", err
	}
	if err := furnish(dir); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// furnish makes a home and a directory for temporary files.
func furnish(dir string) error {
	return errors.Join(os.Mkdir(filepath.Join(dir, "home"), 0o700), os.Mkdir(filepath.Join(dir, "tmp"), 0o700))
}

// use records the process group that uses a scratch directory.
func (s *state) use(scratch string, pid int) error {
	text, err := json.Marshal(record{pid, startTime(pid)})
	if err != nil {
		return err
	}
	return os.WriteFile(scratch+".json", text, 0o600)
}

// release removes a scratch directory whose processes are gone.
func (s *state) release(scratch string) error {
	return errors.Join(archive.Remove(scratch), archive.Remove(scratch+".json"))
}

// harness returns the path of a harness program, which it writes first if it is
// not there. Others cannot change it, and its name follows its content.
func (s *state) harness(name string) (string, error) {
	text, err := harness.Files.ReadFile(name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	dir := filepath.Join(s.dir, "harness", hex.EncodeToString(sum[:8]))
	path := filepath.Join(dir, name)
	if have, err := os.ReadFile(path); err == nil && string(have) == string(text) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return path, writeFile(path, text)
}

// writeFile writes a file that is there only when it is whole.
func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o400), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
