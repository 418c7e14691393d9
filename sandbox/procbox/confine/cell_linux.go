//go:build amd64 || arm64

package confine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/fnkit/fnkit/sandbox"
	"golang.org/x/sys/unix"
)

// Cell is where one program is confined.
type Cell struct {
	host    *Host
	cmd     *exec.Cmd
	control *os.File // when it closes, init ends all
	theirs  []*os.File
	group   *group
	user    *identity
	over    sync.Once

	mu      sync.Mutex // guards what init says, and the cell's end
	failure string
	closed  bool
}

// identity is a user that programs of the Host run as, one after the other.
type identity struct {
	uid    int
	owners *os.File // the user namespace that maps the host's user to this one; nil: not made yet
}

// Users of programs come from a range that no distribution gives to anybody.
const firstUID, lastUID = 0x70000000, 0x7ffdfffe

// innerUID is what a program's user is called in a user namespace.
const innerUID = 1000

// Confine makes a cell for the command, which runs the plan's program instead of
// one of its own. Output and WaitDelay are the caller's to set, Start and Close to
// call.
func (h *Host) Confine(cmd *exec.Cmd, p Plan) (_ *Cell, err error) {
	c := &Cell{host: h, cmd: cmd}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if h.groups != nil {
		if c.group, err = h.groups.make(p); err != nil {
			return nil, err
		}
		if p.Late != "" {
			if err = c.group.rest(); err != nil {
				return nil, err
			}
		}
	}
	if h.Namespaces() {
		if err := p.makePoints(); err != nil {
			return nil, err
		}
	}
	o := h.orders(p, c)
	config, err := o.file()
	if err != nil {
		return nil, err
	}
	c.theirs = append(c.theirs, config)
	host, child, err := controlPair()
	if err != nil {
		return nil, err
	}
	c.control, c.theirs = host, append(c.theirs, child)
	cmd.Args, cmd.Env, cmd.Err = []string{"fnkit-init"}, []string{p.Mark}, nil
	cmd.Dir, cmd.SysProcAttr = "", &syscall.SysProcAttr{Setpgid: true}
	cmd.ExtraFiles = []*os.File{p.Channel, child, config}
	if o.owners {
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.user.owners)
	}
	// The image goes along: under the number that it has here, the child may have
	// something else by the time it executes it.
	cmd.ExtraFiles = append(append(cmd.ExtraFiles, c.group.files()...), h.image)
	cmd.Path = fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles))
	return c, nil
}

// orders are what init does for a plan.
func (h *Host) orders(p Plan, c *Cell) orders {
	o := orders{
		filter:  h.filter(filterFor{namespaces: h.Namespaces(), network: p.Network, metadata: p.Build}),
		network: p.Network, born: c.group.unified(), groups: c.group.listed(),
		hostname: "fn", root: h.root, directory: p.Dir, limits: h.limits(p), rules: h.rules(p), args: p.Args, env: p.Env,
	}
	if h.without.filter {
		o.filter = nil
	}
	if h.without.landlock {
		o.rules = nil
	}
	if !h.Namespaces() {
		return o
	}
	o.namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !p.Network {
		o.namespaces |= unix.CLONE_NEWNET
	}
	if h.tier == sandbox.IsolationFull {
		c.user = h.takeIdentity()
		o.uid, o.gid, o.owners = c.user.uid, c.user.uid, c.user.owners != nil
	} else {
		o.namespaces |= unix.CLONE_NEWUSER
		o.uid, o.gid = innerUID, innerUID
	}
	o.mounts, o.late = h.mounts(p, o.uid, o.gid), p.Late
	return o
}

// limits are those that the kernel keeps for each process or user.
func (h *Host) limits(p Plan) []limit {
	all := []limit{{unix.RLIMIT_CORE, 0}}
	add := func(resource int, value int64) {
		if value > 0 {
			all = append(all, limit{resource, value})
		}
	}
	add(unix.RLIMIT_FSIZE, p.FileSize)
	add(unix.RLIMIT_NOFILE, int64(p.Files))
	switch {
	case h.ownUser() && h.groups != nil && h.groups.has("pids") && p.Processes > 0:
		add(unix.RLIMIT_NPROC, int64(p.Processes)+1) // the group comes first, since it counts who hits it
	case h.ownUser():
		add(unix.RLIMIT_NPROC, int64(p.Processes))
	case p.Processes > 0:
		add(unix.RLIMIT_NPROC, sharedProcesses)
	}
	if p.Memory > 0 && (h.groups == nil || !h.groups.has("memory")) {
		add(unix.RLIMIT_DATA, p.Memory+dataSlack+p.Reserved)
	}
	return all
}

// sharedProcesses is how many processes and threads the host's user may have,
// those of the host included, for a program of the same user to start another. It
// is all there is against fork bombs where programs are not counted apart.
const sharedProcesses = 4096

// dataSlack is what a process may reserve beyond its memory limit where only
// reservations can be limited: stacks of threads count whole.
const dataSlack = 256 << 20

func (h *Host) filter(f filterFor) []unix.SockFilter {
	if have, ok := h.filters.Load(f); ok {
		return have.([]unix.SockFilter)
	}
	made, _ := h.filters.LoadOrStore(f, f.compile())
	return made.([]unix.SockFilter)
}

// takeIdentity returns a user that no program of the Host runs as. Those of other
// Hosts are unlikely to meet it, and have namespaces of their own.
func (h *Host) takeIdentity() *identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.idle); n > 0 {
		user := h.idle[n-1]
		h.idle = h.idle[:n-1]
		return user
	}
	for {
		if uid := firstUID + rand.IntN(lastUID-firstUID+1); !h.uids[uid] {
			h.uids[uid] = true
			return &identity{uid: uid}
		}
	}
}

// maxIdle is how many users are kept for programs to come.
const maxIdle = 64

func (h *Host) releaseIdentity(user *identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if user.owners != nil && len(h.idle) < maxIdle {
		h.idle = append(h.idle, user)
		return
	}
	delete(h.uids, user.uid)
	if user.owners != nil {
		user.owners.Close()
	}
}

func controlPair() (host, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// Start starts the program. That it could be shut in is not known yet when it
// returns: see Failure.
func (c *Cell) Start() error {
	err := c.cmd.Start()
	c.closeTheirs()
	return err
}

func (c *Cell) closeTheirs() {
	for _, f := range c.theirs {
		f.Close()
	}
	c.theirs = nil
}

// Kill has init end everything in the cell. It does not wait: the command's Wait
// returns when nothing is left.
func (c *Cell) Kill() {
	c.over.Do(func() {
		c.group.unleash()
		unix.Shutdown(int(c.control.Fd()), unix.SHUT_WR)
	})
}

// Failure says, once the command has ended, why the program was not started; it
// is empty if it was.
func (c *Cell) Failure() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.receive()
	return c.failure
}

// receive takes what init has sent: the namespace of owners that it made, and
// what failed. It reports whether there was anything. c.mu is held.
func (c *Cell) receive() (any bool) {
	for {
		line, rights := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
		n, r, _, _, err := unix.Recvmsg(int(c.control.Fd()), line, rights, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != nil || n <= 0 {
			return any
		}
		any = true
		c.takeOwners(rights[:r])
		number, what, _ := strings.Cut(strings.TrimSpace(string(line[:n])), " ")
		if errno, err := strconv.Atoi(number); err == nil {
			what += ": " + syscall.Errno(errno).Error()
		}
		if c.failure == "" {
			c.failure = what
		}
	}
}

func (c *Cell) takeOwners(rights []byte) {
	messages, _ := unix.ParseSocketControlMessage(rights)
	for _, m := range messages {
		fds, _ := unix.ParseUnixRights(&m)
		for _, fd := range fds {
			if c.user == nil || c.user.owners != nil {
				unix.Close(fd)
				continue
			}
			c.user.owners = os.NewFile(uintptr(fd), "owners")
		}
	}
}

// Hits counts how often the cell's limits were hit so far, as far as its resource
// groups tell; 0 once it is closed.
func (c *Cell) Hits() Hits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.group.hits()
}

// Close removes what is left of the cell. The command must have ended, or never
// been started.
func (c *Cell) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.closeTheirs()
	if c.control != nil {
		c.receive()
		c.control.Close()
	}
	err := c.group.remove()
	if c.user != nil {
		c.host.releaseIdentity(c.user)
	}
	return err
}
