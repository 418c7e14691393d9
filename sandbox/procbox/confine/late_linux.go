//go:build amd64 || arm64

package confine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fnkit/fnkit/sandbox"
	"golang.org/x/sys/unix"
)

// ShowsLate reports whether Complete can show a directory of the host. Making a
// mount for another namespace takes the host's privilege.
func (h *Host) ShowsLate() bool { return h.tier == sandbox.IsolationFull }

// Complete gives a program that was started with Plan.Late what it lacked; it is
// for a program that has not run anybody's code yet, and is called once. When it
// fails the cell is half complete and must be killed.
func (c *Cell) Complete(ctx context.Context, l Late) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.New("the program has ended")
	}
	c.receive() // the namespace of owners, which the mount needs
	tree, err := c.tree(l.Dir)
	if err != nil {
		return err
	}
	if tree != nil {
		defer tree.Close()
	}
	if err := c.order(l.TempSize, tree); err != nil {
		return err
	}
	// init works while the limits are written.
	if err := c.group.relimit(Plan{Memory: l.Memory, CPUs: l.CPUs}); err != nil {
		return err
	}
	if l.Memory > 0 && (c.group == nil || !c.host.groups.has("memory")) {
		if err := limitData(c.cmd.Process.Pid, l.Memory+dataSlack); err != nil {
			return err
		}
	}
	return c.confirmed(ctx)
}

// tree makes a mount of a directory, read-only and with the program as its owner,
// which is nowhere yet.
func (c *Cell) tree(dir string) (*os.File, error) {
	if dir == "" {
		return nil, nil
	}
	if c.user == nil || c.user.owners == nil {
		return nil, fmt.Errorf("show %s: the program's user is not known", dir)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("show %s: %w", dir, err)
	}
	attr := unix.MountAttr{
		Attr_set:  unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_IDMAP,
		Userns_fd: uint64(c.user.owners.Fd()),
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("restrict %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// order sends init what it completes.
func (c *Cell) order(size int64, tree *os.File) error {
	var rights []byte
	if tree != nil {
		rights = unix.UnixRights(int(tree.Fd()))
	}
	text := strconv.AppendInt(nil, size, 10)
	if err := unix.Sendmsg(int(c.control.Fd()), text, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT); err != nil {
		return fmt.Errorf("reach init: %w", err)
	}
	return nil
}

// confirmed waits until init says that it is done.
func (c *Cell) confirmed(ctx context.Context) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.control.Fd()), Events: unix.POLLIN}}, confirmTurn)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	// The descriptor is not in the runtime's poller, so nobody else reads it.
	if heard := c.receive(); c.failure != "" {
		return errors.New(c.failure)
	} else if !heard {
		return errors.New("init has ended")
	}
	return nil
}

// confirmTurn is after how many milliseconds the caller's context is looked at.
const confirmTurn = 20

// limitData limits what each process below one may reserve. They must be at rest.
func limitData(pid int, bytes int64) error {
	limit := unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
	for _, child := range childrenOf(pid) {
		if err := unix.Prlimit(child, unix.RLIMIT_DATA, &limit, nil); err != nil && err != unix.ESRCH {
			return fmt.Errorf("limit memory: %w", err)
		}
		if err := limitData(child, bytes); err != nil {
			return err
		}
	}
	return nil
}

func childrenOf(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is good
	for _, name := range lists {
		text, _ := os.ReadFile(name)
		for _, f := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(f); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// relimit writes other limits of memory and CPUs.
func (g *group) relimit(p Plan) error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, h := range g.dirs {
		errs = append(errs, h.limit(p))
		if p.CPUs == 0 {
			errs = append(errs, h.weigh(1))
		}
	}
	return errors.Join(errs...)
}

// rest lets what runs in the group have only what others leave.
func (g *group) rest() error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, h := range g.dirs {
		errs = append(errs, h.weigh(0))
	}
	return errors.Join(errs...)
}
