package procbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/sandbox/procbox/confine"
)

// Paths of a file tree of an instance's or a build's own.
const (
	codeDir     = "/fn/code"
	harnessDir  = "/fn/harness"
	workDir     = "/fn/work"
	cacheDir    = "/fn/cache"
	packagesDir = "/fn/packages"
	modulesDir  = "/fn/modules"
)

// What one instance or build may use besides what its specification says.
const (
	maxProcesses = 512
	maxOpenFiles = 4096
	maxFileSize  = 4 << 30
	// leastTemp is how much an instance can write at least; it is half of its memory otherwise.
	leastTemp = 64 << 20
	// confinedGrace is how long a confined command's end may take once it is killed.
	confinedGrace = 10 * time.Second
)

// job is a process with all that it starts: confined, or, without isolation, the
// leader of a process group.
type job struct {
	cmd  *exec.Cmd
	cell *confine.Cell // nil: not confined
}

// job prepares a command for a plan.
func (b *Box) job(cmd *exec.Cmd, p confine.Plan) (*job, error) {
	if !b.confines() {
		cmd.Path, cmd.Args, cmd.Env, cmd.Dir = p.Args[0], p.Args, p.Env, p.Dir
		cmd.SysProcAttr, cmd.ExtraFiles = ownGroup(), onlyThird(p.Channel)
		return &job{cmd: cmd}, nil
	}
	p.Processes, p.Files, p.FileSize = maxProcesses, maxOpenFiles, maxFileSize
	if p.TempSize = tempSize(p.Memory); p.Temp != "" {
		p.TempSize = 0
	}
	for _, path := range b.cfg.ReadOnly {
		p.Binds = append(p.Binds, confine.Bind{Source: path, Target: path})
	}
	cmd.WaitDelay = confinedGrace
	cell, err := b.host.Confine(cmd, p)
	if err != nil {
		return nil, err
	}
	return &job{cmd, cell}, nil
}

// tempSize is how much an instance can write that may use so much memory.
func tempSize(memory int64) int64 { return max(leastTemp, memory/2) }

func (j *job) start() error {
	if j.cell != nil {
		return j.cell.Start()
	}
	return j.cmd.Start()
}

// kill begins to end everything; it does not wait.
func (j *job) kill() {
	switch {
	case j.cmd.Process == nil:
	case j.cell != nil:
		j.cell.Kill()
	default:
		killGroup(j.cmd.Process.Pid)
	}
}

// wait waits for the process and ends what it left. The job must be closed.
func (j *job) wait() error {
	err := j.cmd.Wait()
	// Where init was killed itself, its group is what is left.
	killGroup(j.cmd.Process.Pid)
	return err
}

// failure says why a process that ended was never run; empty: it was.
func (j *job) failure() string {
	if j.cell == nil {
		return ""
	}
	return j.cell.Failure()
}

// hits counts how often it hit its limits so far.
func (j *job) hits() confine.Hits {
	if j.cell == nil {
		return confine.Hits{}
	}
	return j.cell.Hits()
}

func (j *job) close() error {
	if j.cell == nil {
		return nil
	}
	return j.cell.Close()
}

// confines reports whether jobs are confined at all.
func (b *Box) confines() bool { return b.host.Isolation() > 0 }

// at returns the path at which a confined program sees one of the host's.
func (b *Box) at(path, inside string) string {
	if b.host.Namespaces() {
		return inside
	}
	return path
}

// shown returns the binds that a tool needs: its own files, where they are not
// the system's.
func (t tool) shown() (binds []confine.Bind) {
	paths := []string{t.path}
	if real, err := filepath.EvalSymlinks(t.path); err == nil && real != t.path {
		paths = append(paths, real)
	}
	seen := map[string]bool{}
	for _, path := range paths {
		for _, dir := range installation(path) {
			if !seen[dir] {
				seen[dir] = true
				binds = append(binds, confine.Bind{Source: dir, Target: dir, Lent: true})
			}
		}
	}
	return binds
}

// installationParts are what belongs to an interpreter or a compiler beside its
// folder of commands. The whole of the folder above may hold more, such as a
// person's files in ~/.local.
var installationParts = []string{"bin", "lib", "lib64", "libexec", "include", "etc", "src", "pkg", "go.env", "VERSION"}

// installation lists the files and folders that belong to a command.
func installation(path string) (parts []string) {
	if strings.HasPrefix(path, "/usr/") || !filepath.IsAbs(path) {
		return nil
	}
	bin := filepath.Dir(path)
	if slices.Contains([]string{"/bin", "/sbin"}, bin) {
		return nil
	}
	if filepath.Base(bin) != "bin" {
		return []string{path}
	}
	for _, name := range installationParts {
		part := filepath.Join(filepath.Dir(bin), name)
		if _, err := os.Stat(part); err == nil {
			parts = append(parts, part)
		}
	}
	return parts
}

// overMemory says which limit was broken.
func overMemory(bytes int64) string {
	return fmt.Sprintf("more than the memory limit of %d MiB was used", bytes>>20)
}

// overProcesses says the same of processes and threads.
func overProcesses() string {
	return fmt.Sprintf("the limit of %d processes and threads was reached", maxProcesses)
}
