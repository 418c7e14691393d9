//go:build amd64 || arm64

package confine_test

import (
	"fmt"
	"testing"

	"github.com/fnkit/fnkit/sandbox/procbox/confine"
	"golang.org/x/sys/unix"
)

// call is a system call as the kernel shows it to a filter.
type call struct {
	nr   uint32
	args [6]uint64
	arch uint32
}

// word is what the filter loads at an offset.
func (c call) word(offset uint32) uint32 {
	switch {
	case offset == 0:
		return c.nr
	case offset == 4:
		return c.arch
	case offset >= 16 && offset < 64:
		return uint32(c.args[(offset-16)/8] >> (offset % 8 * 8))
	}
	panic(fmt.Sprintf("the filter loads at %d", offset))
}

// run runs a filter as the kernel does.
func run(t *testing.T, filter []unix.SockFilter, c call) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; ; pc++ {
		i := filter[pc]
		yes := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = c.word(i.K)
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = a >= i.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			yes = a&i.K != 0
		default:
			t.Fatalf("instruction %d: %+v", pc, i)
		}
		if yes {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
}

const (
	allow  = unix.SECCOMP_RET_ALLOW
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	eacces = unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func TestFilterByArguments(t *testing.T) {
	t.Parallel()
	const arch = confine.AuditArch
	args := func(a ...uint64) (all [6]uint64) { copy(all[:], a); return }
	for name, tc := range map[string]struct {
		call
		want uint32
	}{
		"read":                {call{unix.SYS_READ, args(), arch}, allow},
		"another arch":        {call{unix.SYS_READ, args(), arch ^ 1}, unix.SECCOMP_RET_KILL_PROCESS},
		"x32":                 {call{unix.SYS_READ | 0x40000000, args(), arch}, enosys},
		"unknown":             {call{9999, args(), arch}, enosys},
		"thread":              {call{unix.SYS_CLONE, args(unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_FILES), arch}, allow},
		"user namespace":      {call{unix.SYS_CLONE, args(unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)), arch}, eperm},
		"mount namespace":     {call{unix.SYS_CLONE, args(unix.CLONE_NEWNS), arch}, eperm},
		"clone3":              {call{unix.SYS_CLONE3, args(), arch}, enosys},
		"io_uring":            {call{unix.SYS_IO_URING_SETUP, args(), arch}, enosys},
		"unix socket":         {call{unix.SYS_SOCKET, args(unix.AF_UNIX, unix.SOCK_STREAM), arch}, allow},
		"ip socket":           {call{unix.SYS_SOCKET, args(unix.AF_INET, unix.SOCK_STREAM), arch}, eacces},
		"upper half":          {call{unix.SYS_SOCKET, args(1<<32|unix.AF_INET, unix.SOCK_STREAM), arch}, eacces},
		"unix pair":           {call{unix.SYS_SOCKETPAIR, args(unix.AF_UNIX), arch}, allow},
		"tipc pair":           {call{unix.SYS_SOCKETPAIR, args(unix.AF_TIPC), arch}, eacces},
		"terminal input":      {call{unix.SYS_IOCTL, args(0, unix.TIOCSTI), arch}, eperm},
		"terminal input, too": {call{unix.SYS_IOCTL, args(0, 1<<32|unix.TIOCSTI), arch}, eperm},
		"terminal size":       {call{unix.SYS_IOCTL, args(0, unix.TIOCGWINSZ), arch}, allow},
		"own limits":          {call{unix.SYS_PRLIMIT64, args(0), arch}, allow},
		"foreign limits":      {call{unix.SYS_PRLIMIT64, args(17), arch}, eperm},
		"personality":         {call{unix.SYS_PERSONALITY, args(0x0040000), arch}, eperm},
		"which personality":   {call{unix.SYS_PERSONALITY, args(0xffffffff), arch}, allow},
		"open":                {call{unix.SYS_OPENAT, args(0, 0, unix.O_RDONLY, 0xffff), arch}, allow}, // no mode without O_CREAT
		"create":              {call{unix.SYS_OPENAT, args(0, 0, unix.O_CREAT|unix.O_RDWR, 0o644), arch}, allow},
		"create setuid":       {call{unix.SYS_OPENAT, args(0, 0, unix.O_CREAT|unix.O_RDWR, 0o4755), arch}, eperm},
		"temporary setuid":    {call{unix.SYS_OPENAT, args(0, 0, unix.O_TMPFILE|unix.O_RDWR, 0o2755), arch}, eperm},
		"directory":           {call{unix.SYS_OPENAT, args(0, 0, unix.O_DIRECTORY, 0o7777), arch}, allow},
		"chmod":               {call{unix.SYS_FCHMODAT, args(0, 0, 0o755), arch}, allow},
		"chmod setuid":        {call{unix.SYS_FCHMODAT, args(0, 0, 0o4755), arch}, eperm},
		"chmod setgid":        {call{unix.SYS_FCHMOD, args(0, 0o2755), arch}, eperm},
		"chmod2 setuid":       {call{unix.SYS_FCHMODAT2, args(0, 0, 0o4755), arch}, eperm},
		"fifo":                {call{unix.SYS_MKNODAT, args(0, 0, unix.S_IFIFO|0o600), arch}, allow},
		"character device":    {call{unix.SYS_MKNODAT, args(0, 0, unix.S_IFCHR|0o600), arch}, eperm},
		"block device":        {call{unix.SYS_MKNODAT, args(0, 0, unix.S_IFBLK|0o600), arch}, eperm},
		"setuid file":         {call{unix.SYS_MKNODAT, args(0, 0, unix.S_IFREG|0o4755), arch}, eperm},
	} {
		if got := run(t, confine.Filter(true, false, false), tc.call); got != tc.want {
			t.Errorf("%s: %#x, want %#x", name, got, tc.want)
		}
	}
}

func TestFilterByWhatIsOwn(t *testing.T) {
	t.Parallel()
	type variant struct{ namespaces, network, metadata bool }
	socket := func(family uint64) call {
		return call{unix.SYS_SOCKET, [6]uint64{family}, confine.AuditArch}
	}
	plain := func(nr uint32) call { return call{nr, [6]uint64{}, confine.AuditArch} }
	for _, tc := range []struct {
		name string
		variant
		call
		want uint32
	}{
		{"network", variant{true, true, false}, socket(unix.AF_INET6), allow},
		{"netlink", variant{true, true, false}, socket(unix.AF_NETLINK), eacces},
		{"vsock", variant{true, true, false}, socket(unix.AF_VSOCK), eacces},
		{"packet", variant{true, true, false}, socket(unix.AF_PACKET), eacces},
		{"the host's sockets by name", variant{false, false, false}, socket(unix.AF_UNIX), eacces},
		{"shared memory of the host", variant{false, false, true}, plain(unix.SYS_SHMGET), eperm},
		{"own shared memory", variant{true, false, false}, plain(unix.SYS_SHMGET), allow},
		{"priority of the host's", variant{false, false, true}, plain(unix.SYS_SETPRIORITY), eperm},
		{"mode of the host's files", variant{false, false, false}, plain(unix.SYS_FCHMODAT), eperm},
		{"times of the host's files", variant{false, false, false}, plain(unix.SYS_UTIMENSAT), eperm},
		{"mode of a build's files", variant{false, false, true}, plain(unix.SYS_FCHMODAT), allow},
	} {
		if got := run(t, confine.Filter(tc.namespaces, tc.network, tc.metadata), tc.call); got != tc.want {
			t.Errorf("%s: %#x, want %#x", tc.name, got, tc.want)
		}
	}
}

// TestFilterRefuses is the list of what must never be admitted.
func TestFilterRefuses(t *testing.T) {
	t.Parallel()
	for i := range 8 {
		filter := confine.Filter(i&1 != 0, i&2 != 0, i&4 != 0)
		if len(filter) > 4096 {
			t.Errorf("%d instructions are more than the kernel takes", len(filter))
		}
		for _, nr := range []uint32{
			unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_OPEN_TREE,
			unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
			unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
			unix.SYS_PIDFD_GETFD, unix.SYS_KCMP, unix.SYS_PROCESS_MADVISE, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
			unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER,
			unix.SYS_IO_URING_REGISTER, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
			unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
			unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_ACCT, unix.SYS_SWAPON,
			unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SYSLOG, unix.SYS_SETTIMEOFDAY,
			unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_VHANGUP, unix.SYS_LOOKUP_DCOOKIE,
			unix.SYS_MBIND, unix.SYS_SET_MEMPOLICY, unix.SYS_OPENAT2, unix.SYS_CLONE3, unix.SYS_MEMFD_SECRET,
		} {
			if got := run(t, filter, call{nr, [6]uint64{}, confine.AuditArch}); got == allow {
				t.Errorf("variant %d admits call %d", i, nr)
			}
		}
	}
}
