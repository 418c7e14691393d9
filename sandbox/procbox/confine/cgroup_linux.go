//go:build amd64 || arm64

package confine

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// groups is where a Host makes resource groups (cgroups), one for each program.
// On a machine of version 2 there is one hierarchy with all controllers, on older
// ones there is one for each, and on some both kinds are in use.
type groups struct {
	hierarchies []hierarchy
	serial      atomic.Int64
}

// hierarchy is a directory of one hierarchy in which groups are made.
type hierarchy struct {
	dir         string
	unified     bool // version 2
	controllers []string
}

var controllers = []string{"memory", "cpu", "pids"}

// openGroups makes the Host's directories in the hierarchies that can be
// written, and removes what one before it has left in them.
func (h *Host) openGroups() error {
	name, err := h.groupName()
	if err != nil {
		return err
	}
	g := &groups{}
	for _, parent := range h.hierarchies() {
		parent.dir = filepath.Join(parent.dir, name)
		parent.controllers = slices.DeleteFunc(parent.controllers, g.has)
		second := parent.unified && len(g.hierarchies) > 0 // a process is in one group of a hierarchy
		if second || len(parent.controllers) == 0 || parent.open() != nil {
			continue
		}
		g.hierarchies = append(g.hierarchies, parent)
	}
	if len(g.hierarchies) == 0 {
		return nil
	}
	h.groups = g
	trial, err := g.make(Plan{Memory: 64 << 20, CPUs: 1, Processes: 16})
	if err = errors.Join(err, trial.remove()); err != nil {
		h.note("limits: no resource groups: %v", err)
		h.groups = nil
		return g.close()
	}
	return nil
}

// groupName is the name of this Host's directories, kept with its state.
func (h *Host) groupName() (string, error) {
	path := filepath.Join(h.cfg.Dir, "cgroup")
	text, err := os.ReadFile(path)
	if err == nil && strings.HasPrefix(string(text), "fnkit-") && filepath.Base(string(text)) == string(text) {
		return string(text), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	name := "fnkit-" + rand.Text()[:16]
	return name, os.WriteFile(path, []byte(name), 0o600)
}

// hierarchies lists where groups might be made, best first.
func (h *Host) hierarchies() (all []hierarchy) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil
	}
	if h.cfg.Cgroup != "" {
		all = append(all, hierarchy{dir: h.cfg.Cgroup, unified: true})
	}
	for _, m := range mounts {
		if m.unified {
			all = append(all, hierarchy{dir: m.own, unified: true}, hierarchy{dir: m.top, unified: true})
		}
	}
	for i := range all {
		text, _ := os.ReadFile(filepath.Join(all[i].dir, "cgroup.controllers"))
		for _, c := range strings.Fields(string(text)) {
			if slices.Contains(controllers, c) {
				all[i].controllers = append(all[i].controllers, c)
			}
		}
	}
	for _, m := range mounts {
		if !m.unified {
			all = append(all, hierarchy{dir: m.own, controllers: m.controllers})
		}
	}
	return all
}

// cgroupMount is a mounted hierarchy: its top, and the host's own place in it.
type cgroupMount struct {
	top, own    string
	unified     bool
	controllers []string
}

func cgroupMounts() (all []cgroupMount, err error) {
	own, err := ownGroups()
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		m, fs := strings.Fields(before), strings.Fields(after)
		if len(m) < 5 || len(fs) < 3 || !strings.HasPrefix(fs[0], "cgroup") {
			continue
		}
		c := cgroupMount{top: m[4], unified: fs[0] == "cgroup2"}
		for _, option := range strings.Split(fs[2], ",") {
			if slices.Contains(controllers, option) {
				c.controllers = append(c.controllers, option)
			}
		}
		key := ""
		if !c.unified {
			if len(c.controllers) == 0 {
				continue
			}
			key = c.controllers[0]
		}
		path, err := filepath.Rel(m[3], own[key]) // what is mounted may be a part of the hierarchy
		if err != nil || !filepath.IsLocal(path) {
			continue
		}
		c.own = filepath.Join(c.top, path)
		all = append(all, c)
	}
	return all, nil
}

// ownGroups are the paths of the host's groups by controller; "" is version 2.
func ownGroups() (map[string]string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			own[c] = f[2]
		}
	}
	return own, nil
}

// open makes the directory. In version 2 its controllers must be handed down.
func (h hierarchy) open() error {
	if h.unified {
		if err := h.handDown(filepath.Dir(h.dir)); err != nil {
			return err
		}
	}
	if err := sweep(h.dir); err != nil {
		return err
	}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return err
	}
	if h.unified {
		if err := h.handDown(h.dir); err != nil {
			return err
		}
	}
	return h.weigh(float64(runtime.NumCPU()))
}

// weigh gives a directory's processes together the weight that as many ordinary
// processes would have. Without, all programs together would weigh as much as one.
func (h hierarchy) weigh(cpus float64) error {
	if !slices.Contains(h.controllers, "cpu") {
		return nil
	}
	if h.unified {
		return os.WriteFile(filepath.Join(h.dir, "cpu.weight"), []byte(strconv.Itoa(min(10000, max(1, int(cpus*100))))), 0)
	}
	return os.WriteFile(filepath.Join(h.dir, "cpu.shares"), []byte(strconv.Itoa(min(262144, max(2, int(cpus*1024))))), 0)
}

func (h hierarchy) handDown(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+strings.Join(h.controllers, " +")), 0)
}

// sweep ends what runs in a directory's groups, which a dead owner left, and
// removes them.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return removeGroup(dir)
}

// removeGroup kills what is in a group and removes it. The dead leave it some
// time after they are gone.
func removeGroup(dir string) error {
	var err error
	for try := range 200 {
		if err = unix.Rmdir(dir); err == nil || err == unix.ENOENT {
			return nil
		}
		text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, pid := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 1 {
				unix.Kill(n, unix.SIGKILL)
			}
		}
		time.Sleep(time.Duration(min(try, 20)) * time.Millisecond / 2)
	}
	return fmt.Errorf("remove resource group %s: %w", dir, err)
}

// has reports whether a controller can be used.
func (g *groups) has(controller string) bool {
	return slices.ContainsFunc(g.hierarchies, func(h hierarchy) bool { return slices.Contains(h.controllers, controller) })
}

func (g *groups) close() error {
	var errs []error
	for _, h := range g.hierarchies {
		errs = append(errs, sweep(h.dir))
	}
	return errors.Join(errs...)
}

// group is one program's directories. A nil one does nothing.
type group struct {
	dirs  []hierarchy
	lists []*os.File // what init enters it by
}

// make makes a group with a plan's limits.
func (g *groups) make(p Plan) (*group, error) {
	made := &group{}
	name := strconv.FormatInt(g.serial.Add(1), 10)
	for _, h := range g.hierarchies {
		h.dir = filepath.Join(h.dir, name)
		if err := os.Mkdir(h.dir, 0o755); err != nil {
			return made, errors.Join(err, made.remove())
		}
		made.dirs = append(made.dirs, h)
		// A thread that enters itself, and init has no other, need not wait until no
		// process of the machine forks or exits, as one does that is listed in cgroup.procs.
		list, flags := filepath.Join(h.dir, "tasks"), os.O_WRONLY
		if h.unified {
			list, flags = h.dir, os.O_RDONLY
		}
		f, err := os.OpenFile(list, flags, 0)
		if err == nil {
			made.lists = append(made.lists, f)
			err = h.limit(p)
		}
		if err != nil {
			return made, errors.Join(err, made.remove())
		}
	}
	return made, nil
}

// cpuPeriod is over how many microseconds the use of CPUs is averaged. Groups are made with it.
const cpuPeriod = 100_000

// limit writes a plan's limits.
func (h hierarchy) limit(p Plan) error {
	set := func(controller, file, value string, optional bool) error {
		if !slices.Contains(h.controllers, controller) {
			return nil
		}
		err := os.WriteFile(filepath.Join(h.dir, file), []byte(value), 0)
		if optional && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	memory, quota := strconv.FormatInt(p.Memory, 10), strconv.Itoa(max(1000, int(p.CPUs*cpuPeriod)))
	if p.Memory > 0 && h.unified {
		errs = append(errs, set("memory", "memory.max", memory, false), set("memory", "memory.swap.max", "0", true), set("memory", "memory.oom.group", "1", true))
	} else if p.Memory > 0 {
		errs = append(errs, set("memory", "memory.limit_in_bytes", memory, false), set("memory", "memory.memsw.limit_in_bytes", memory, true))
	}
	if p.CPUs > 0 {
		errs = append(errs, h.weigh(p.CPUs))
	}
	if p.CPUs > 0 && h.unified {
		errs = append(errs, set("cpu", "cpu.max", quota+" "+strconv.Itoa(cpuPeriod), false))
	} else if p.CPUs > 0 {
		errs = append(errs, set("cpu", "cpu.cfs_quota_us", quota, false))
	}
	if p.Processes > 0 {
		errs = append(errs, set("pids", "pids.max", strconv.Itoa(p.Processes), false))
	}
	return errors.Join(errs...)
}

// files are what init inherits.
func (g *group) files() []*os.File {
	if g == nil {
		return nil
	}
	return g.lists
}

// unified reports whether the first of files is a group to be born in.
func (g *group) unified() bool { return g != nil && g.dirs[0].unified }

// listed is how many of files are lists to be entered.
func (g *group) listed() int {
	if g == nil {
		return 0
	}
	n := len(g.lists)
	if g.unified() {
		n--
	}
	return n
}

// unleash lets processes that are about to be killed have the time to die.
func (g *group) unleash() {
	if g == nil {
		return
	}
	for _, h := range g.dirs {
		if !slices.Contains(h.controllers, "cpu") {
			continue
		}
		if h.unified {
			os.WriteFile(filepath.Join(h.dir, "cpu.max"), []byte("max"), 0)
		} else {
			os.WriteFile(filepath.Join(h.dir, "cpu.cfs_quota_us"), []byte("-1"), 0)
		}
	}
}

func (g *group) hits() Hits {
	if g == nil {
		return Hits{}
	}
	return Hits{Memory: g.count("oom_kill", "memory.events", "memory.oom_control"), Processes: g.count("max", "pids.events")}
}

// count sums up a counter of the group's files; those that are not there have none.
func (g *group) count(name string, files ...string) (sum int64) {
	for _, h := range g.dirs {
		for _, file := range files {
			text, _ := os.ReadFile(filepath.Join(h.dir, file))
			for line := range strings.Lines(string(text)) {
				if n, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
					more, _ := strconv.ParseInt(n, 10, 64)
					sum += more
				}
			}
		}
	}
	return sum
}

// remove removes a group whose processes are gone, or are to be.
func (g *group) remove() error {
	if g == nil {
		return nil
	}
	for _, f := range g.lists {
		f.Close()
	}
	var errs []error
	for _, h := range g.dirs {
		errs = append(errs, removeGroup(h.dir))
	}
	g.lists, g.dirs = nil, nil
	return errors.Join(errs...)
}
