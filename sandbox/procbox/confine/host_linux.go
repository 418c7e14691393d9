//go:build amd64 || arm64

package confine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"golang.org/x/sys/unix"
)

// Host confines processes on this machine. Its methods are safe for concurrent use.
type Host struct {
	cfg      Config
	image    *os.File
	root     string // an empty directory, on which file trees are made
	tier     sandbox.Isolation
	landlock int // version; 0: none
	system   []mount
	groups   *groups // nil: none can be made
	notes    []string
	filters  sync.Map // filterFor → []unix.SockFilter
	without  walls    // to try the others alone

	mu   sync.Mutex
	uids map[int]bool // that are taken
	idle []*identity  // taken, but no program runs as them
}

// walls are those that hide each other's faults.
type walls struct{ filter, landlock bool }

// probeTimeout is how long a trial may take.
const probeTimeout = 10 * time.Second

// Open finds out what this machine can do by doing it. Each tier is tried from
// the best downwards; the first that holds is used. What is missing for more is a
// note, not an error.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	h := &Host{cfg: cfg, root: filepath.Join(cfg.Dir, "root"), uids: map[int]bool{}}
	if cfg.Most == sandbox.IsolationNone {
		return h, nil
	}
	if err := os.MkdirAll(h.root, 0o700); err != nil {
		return nil, err
	}
	image, err := openImage()
	if err != nil {
		h.note("isolation: none, since init cannot be started: %v", err)
		return h, nil
	}
	h.image, h.landlock, h.system = image, landlockVersion(), systemTree()
	if err := h.openGroups(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	for tier := cfg.Most; tier > sandbox.IsolationNone; tier-- {
		h.tier = tier
		err := h.try(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), h.Close())
		}
		h.note("isolation: %s is not reached: %v", tier, err)
		h.tier = tier - 1
	}
	h.explain()
	return h, nil
}

func (h *Host) note(format string, args ...any) {
	h.notes = append(h.notes, fmt.Sprintf(format, args...))
}

// explain notes what the tier that was reached does not have.
func (h *Host) explain() {
	if h.tier == sandbox.IsolationNone {
		return
	}
	if h.landlock < 2 {
		h.note("isolation: no second wall around files: needs Linux 5.19 or newer with Landlock")
	}
	if h.groups == nil || !h.groups.has("memory") {
		h.note("memory: limited for each process, not for all of an instance: needs a memory cgroup")
	}
	if h.groups == nil || !h.groups.has("cpu") {
		h.note("cpu: not limited: needs a cpu cgroup")
	}
	if !slices.Contains(h.Limits(), "pids") && os.Geteuid() == 0 {
		h.note("pids: not limited, since the kernel does not count the superuser's: needs a pids cgroup, or another user")
	} else if !slices.Contains(h.Limits(), "pids") {
		h.note("pids: limited for all processes of the user together: needs a pids cgroup")
	}
	if h.tier == sandbox.IsolationRestricted {
		h.note("disk: not limited: needs a mount namespace")
	} else {
		h.note("disk: limited exactly for instances, within a moment for builds")
	}
}

// try runs a trial in place of a program.
func (h *Host) try(ctx context.Context) error {
	if h.tier == sandbox.IsolationRestricted && h.landlock < 6 {
		return errors.New("needs Linux 6.12 or newer with Landlock")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	p := Plan{Dir: "/", TempSize: 1 << 20, Memory: 64 << 20, CPUs: 1, Processes: 16,
		Binds: []Bind{{Source: h.root, Target: "/fn/code", Owned: true}}}
	if h.tier == sandbox.IsolationRestricted {
		p.Dir, p.Temp = "/usr", h.root
	}
	cmd := exec.CommandContext(ctx, "")
	cell, err := h.Confine(cmd, p)
	if err != nil {
		return err
	}
	if err = cell.Start(); err == nil {
		err = cmd.Wait()
	}
	why := cell.Failure()
	if cerr := cell.Close(); cerr != nil {
		return cerr
	}
	if why != "" {
		return errors.New(why)
	}
	return err
}

// Isolation is the tier that was reached.
func (h *Host) Isolation() sandbox.Isolation { return h.tier }

// Namespaces reports whether programs have a file tree of their own.
func (h *Host) Namespaces() bool { return h.tier >= sandbox.IsolationUserNS }

// Notes say what is missing for more, one line each.
func (h *Host) Notes() []string { return slices.Clone(h.notes) }

// Limits names what is enforced for all processes of a program together.
func (h *Host) Limits() []string {
	var all []string
	for _, c := range []string{"memory", "cpu", "pids"} {
		if h.groups != nil && h.groups.has(c) || c == "pids" && h.ownUser() {
			all = append(all, c)
		}
	}
	if h.Namespaces() {
		all = append(all, "disk")
	}
	return all
}

// ownUser reports whether the kernel counts a program's processes apart.
// It never counts those of the superuser.
func (h *Host) ownUser() bool {
	return h.tier == sandbox.IsolationFull || h.tier == sandbox.IsolationUserNS && os.Geteuid() != 0
}

// Close releases what the Host holds. Its programs must have ended.
func (h *Host) Close() error {
	var err error
	if h.groups != nil {
		err = h.groups.close()
	}
	for _, user := range h.idle {
		err = errors.Join(err, user.owners.Close())
	}
	h.idle = nil
	if h.image != nil {
		err = errors.Join(err, h.image.Close())
	}
	return err
}

func landlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// systemPaths hold the system's programs and libraries.
var systemPaths = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"}

// systemFiles are those of /etc that programs need and that say nothing about
// the host that its users do not see.
var systemFiles = []string{
	"alternatives", "ca-certificates", "gai.conf", "host.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime",
	"magic", "mime.types", "nsswitch.conf", "php*", "pki/ca-trust/extracted", "pki/tls/certs", "protocols", "python3*", "services",
	"ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "timezone",
}

// networkFiles are those of /etc that say how names are resolved here.
var networkFiles = []string{"/etc/hosts", "/etc/resolv.conf"}

var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// systemTree shows the system as it is when the Host is opened.
func systemTree() (all []mount) {
	for _, path := range systemPaths {
		if to, err := os.Readlink(path); err == nil {
			all = append(all, mount{"link", to, path, ""})
		} else if _, err := os.Stat(path); err == nil {
			all = append(all, mount{"bind", path, path, ""})
		}
	}
	for _, pattern := range systemFiles {
		found, _ := filepath.Glob("/etc/" + pattern) // the patterns are good
		for _, path := range found {
			if _, err := os.Stat(path); err == nil {
				all = append(all, mount{"bind", path, path, "?"})
			}
		}
	}
	for _, path := range devices {
		all = append(all, mount{"bind", path, path, "d"})
	}
	return append(all,
		mount{"link", "/proc/self/fd", "/dev/fd", ""}, mount{"link", "/proc/self/fd/0", "/dev/stdin", ""},
		mount{"link", "/proc/self/fd/1", "/dev/stdout", ""}, mount{"link", "/proc/self/fd/2", "/dev/stderr", ""},
		mount{"proc", "", "/proc", "hidepid=2"})
}

// mounts is a program's file tree, in the order of its making. Paths are below
// the new root.
func (h *Host) mounts(p Plan, uid, gid int) []mount {
	all := slices.Clone(h.system)
	all = append(all,
		mount{"file", fmt.Sprintf("root:x:0:0::/:/bin/sh\nfn:x:%d:%d::"+Home+":/bin/sh\n", uid, gid), "/etc/passwd", ""},
		mount{"file", fmt.Sprintf("root:x:0:\nfn:x:%d:\n", gid), "/etc/group", ""})
	if p.Network {
		for _, path := range networkFiles {
			all = append(all, mount{"bind", path, path, "?"})
		}
	} else {
		all = append(all, mount{"file", "127.0.0.1 localhost\n", "/etc/hosts", ""})
	}
	if p.Temp != "" {
		all = append(all,
			mount{"bind", filepath.Join(p.Temp, "tmp"), "/tmp", "wo"}, mount{"bind", filepath.Join(p.Temp, "home"), Home, "wo"},
			mount{"tmpfs", "", "/dev/shm", "mode=1777,size=64m,nr_inodes=1000"})
	} else {
		all = append(all, mount{"tmpfs", "", "/tmp", fmt.Sprintf("mode=755,size=%d,nr_inodes=%d", p.TempSize, maxFiles)},
			mount{"dir", "", "/tmp/home", ""}, mount{"dir", "", "/tmp/shm", ""}, mount{"dir", "", "/tmp/tmp", ""},
			mount{"bind", "tmp/home", Home, "w"}, mount{"bind", "tmp/shm", "/dev/shm", "w"}, mount{"bind", "tmp/tmp", "/tmp", "w"})
	}
	if p.Late != "" && !slices.ContainsFunc(p.Binds, func(b Bind) bool { return b.Target == p.Late }) {
		all = append(all, mount{"dir", "", p.Late, ""})
	}
	for _, b := range p.Binds {
		options := ""
		if b.Writable {
			options = "w"
		}
		if b.Owned {
			options += "o"
		} else if b.Lent {
			options += "i"
		}
		all = append(all, mount{"bind", b.Source, b.Target, options})
	}
	for i := range all {
		all[i].target = strings.TrimPrefix(all[i].target, "/")
	}
	return all
}

// makePoints makes in a directory of the host what is to be mounted upon: init
// cannot, where files are owned by the program.
func (p Plan) makePoints() error {
	if p.Temp == "" {
		return nil
	}
	root, err := os.OpenRoot(filepath.Join(p.Temp, "tmp"))
	if err != nil {
		return err
	}
	defer root.Close()
	for _, b := range p.Binds {
		path, ok := strings.CutPrefix(b.Target, "/tmp/")
		st, err := os.Stat(b.Source)
		if !ok || err != nil {
			continue // init says what is missing
		}
		if st.IsDir() {
			err = root.MkdirAll(path, 0o700)
		} else if err = root.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = root.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxFiles is how many files a program's own file systems in memory hold.
const maxFiles = 20000

// rules are what Landlock admits.
func (h *Host) rules(p Plan) []rule {
	var all []rule
	for _, path := range devices {
		all = append(all, rule{"w", path})
	}
	if h.Namespaces() {
		all = append(all, rule{"r", "/"}, rule{"w", "/tmp"}, rule{"w", Home}, rule{"w", "/dev/shm"})
	} else {
		all = append(all, rule{"w", filepath.Join(p.Temp, "tmp")}, rule{"w", filepath.Join(p.Temp, "home")})
		for _, m := range h.system {
			if m.kind == "bind" && m.options != "d" {
				all = append(all, rule{"r", m.source})
			}
		}
		if p.Network {
			for _, path := range networkFiles {
				all = append(all, rule{"r", path})
			}
		}
	}
	for _, b := range p.Binds {
		path, access := b.Target, "r"
		if !h.Namespaces() {
			path = b.Source
		}
		if b.Writable {
			access = "w"
		}
		all = append(all, rule{access, path})
	}
	return all
}
