//go:build amd64 || arm64

package attack_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/sandbox/procbox"
	"golang.org/x/sys/unix"
)

// tiers are those that confine, the best first.
var tiers = []string{"full", "userns", "restricted"}

// attack is something that must fail.
type attack struct {
	name string
	op   string
	args []any
	// only are the tiers at which it is an attack; empty: all.
	only []string
}

// attacks lists what is tried in each language that can do it.
func (s *scene) attacks() []attack {
	pid := s.process.Process.Pid
	proc := fmt.Sprintf("/proc/%d/", pid)
	temp := s.tempAt(s.id)
	all := []attack{
		{"read a file of the host", "read", []any{s.secret}, nil},
		{"read the engine's database", "read", []any{s.database}, nil},
		{"read a file of the host by a way up", "read", []any{strings.Repeat("../", 20) + s.secret[1:]}, nil},
		{"read passwords", "read", []any{"/etc/shadow"}, nil},
		{"read a file of the superuser", "read", []any{"/root/.bashrc"}, nil},
		{"list the host's temporary files", "list", []any{filepath.Dir(s.secret)}, nil},
		{"list the state of the Box", "list", []any{s.dir}, nil},
		{"list what other instances write", "list", []any{filepath.Join(s.dir, "run")}, nil},
		{"read another instance's file", "read", []any{s.victimFile}, nil},
		{"read another instance's code", "list", []any{s.victimCode}, nil},
		{"read the kernel's memory", "read", []any{"/proc/kcore"}, nil},
		{"read the kernel's messages", "read", []any{"/dev/kmsg"}, nil},
		{"read the machine's memory", "read", []any{"/dev/mem"}, nil},
		{"list the control groups", "list", []any{"/sys/fs/cgroup"}, nil},
		{"read variables of the host's process", "read", []any{proc + "environ"}, nil},
		{"read memory of the host's process", "read", []any{proc + "mem"}, nil},
		{"read by the root of the host's process", "read", []any{proc + "root" + s.secret}, nil},
		{"read by the directory of the host's process", "list", []any{proc + "cwd/"}, nil},
		{"list descriptors of the host's process", "list", []any{proc + "fd"}, nil},
		{"read variables of process 1", "read", []any{"/proc/1/environ"}, nil},
		{"read memory of process 1", "read", []any{"/proc/1/mem"}, nil},
		{"read by the root of process 1", "read", []any{"/proc/1/root/etc/shadow"}, nil},
		{"write to the own code", "write", []any{s.codeAt() + "/main.py", "x"}, nil},
		{"write beside the own code", "write", []any{s.codeAt() + "/x", "x"}, nil},
		{"write to the system", "write", []any{"/usr/x", "x"}, nil},
		{"write to the root", "write", []any{"/x", "x"}, nil},
		{"write to /etc", "write", []any{"/etc/x", "x"}, nil},
		{"write to a file of the host", "write", []any{s.secret, "x"}, nil},
		{"write to the engine's database", "write", []any{s.database, "x"}, nil},
		{"write to a device", "write", []any{"/dev/x", "x"}, nil},
		{"set the core pattern", "write", []any{"/proc/sys/kernel/core_pattern", "|/bin/false"}, nil},
		{"set a kernel setting", "write", []any{"/proc/sys/kernel/hostname", "x"}, nil},
		{"ask for a magic key", "write", []any{"/proc/sysrq-trigger", "h"}, nil},
		{"be spared by the memory killer", "write", []any{"/proc/self/oom_score_adj", "-1000"}, nil},
		{"change a file's mode", "chmod", []any{s.secret, 0o777}, nil},
		{"change a file's times", "utime", []any{s.secret}, nil},
		{"change the system's modes", "chmod", []any{"/usr/bin", 0o700}, nil},
		{"make a file that runs as its owner", "chmod", []any{temp + "/mine", 0o4755}, nil},
		{"link to a file of the host", "link", []any{s.secret, temp + "/linked"}, nil},
		{"signal a process of the host", "kill", []any{pid, 0}, nil},
		{"kill a process of the host", "kill", []any{pid, 9}, nil},
		{"signal the host's process group", "kill", []any{-pid, 0}, nil},
		{"become the superuser", "setuid", []any{0}, []string{"full", "userns"}},
		{"connect to the host's loopback", "tcp", []any{"127.0.0.1", s.port}, nil},
		{"connect to the metadata service", "tcp", []any{"169.254.169.254", 80}, nil},
		{"ask a name server", "udp", []any{"127.0.0.53", 53}, nil},
		{"connect to a socket of the host", "unix", []any{s.socket}, nil},
		{"connect to an abstract socket of the host", "unix", []any{"@" + s.abstract()}, nil},
		{"connect to Docker", "unix", []any{strings.TrimPrefix(cmp.Or(os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"), "unix://")}, nil},
		{"mount", "run", []any{"/bin/sh", "-c", "mount -t tmpfs none /tmp"}, nil},
		{"make a namespace", "run", []any{"/bin/sh", "-c", "unshare -U true"}, nil},
		{"become the superuser by su", "run", []any{"/bin/sh", "-c", `[ "$(su -c 'id -u' </dev/null 2>/dev/null)" = 0 ] && [ "$(id -u)" != 0 ]`}, nil},
		{"make a device", "run", []any{"/bin/sh", "-c", "mknod $TMPDIR/disk b 254 0 || mknod $TMPDIR/memory c 1 1"}, nil},
	}
	if s.key == "python" || s.key == "go" {
		all = append(all, s.calls()...)
	}
	if s.key == "python" && runtime.GOARCH == "amd64" {
		// mov eax, 20 (getpid of i386); int 0x80; ret
		all = append(all, attack{"make a call of another architecture", "machine", []any{0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3}, nil})
	}
	return all
}

// codeAt is where the attacker's code is in its own view.
func (s *scene) codeAt() string {
	if s.tier == "restricted" {
		return s.code
	}
	return "/fn/code"
}

// calls are system calls that must not reach the kernel. Their arguments do no
// harm if one does.
func (s *scene) calls() (all []attack) {
	pid, temp := s.process.Process.Pid, s.tempAt(s.id)
	for _, c := range []struct {
		name string
		args []any
		only []string
	}{
		{"mount", []any{unix.SYS_MOUNT, "none", "/none", "tmpfs", 0, 0}, nil},
		{"umount2", []any{unix.SYS_UMOUNT2, "/none", 0}, nil},
		{"pivot_root", []any{unix.SYS_PIVOT_ROOT, "/none", "/none"}, nil},
		{"chroot", []any{unix.SYS_CHROOT, "/"}, nil},
		{"setns", []any{unix.SYS_SETNS, -1, 0}, nil},
		{"unshare user", []any{unix.SYS_UNSHARE, unix.CLONE_NEWUSER}, nil},
		{"unshare network", []any{unix.SYS_UNSHARE, unix.CLONE_NEWNET}, nil},
		{"clone3", []any{unix.SYS_CLONE3, 0, 0}, nil},
		{"open_tree", []any{unix.SYS_OPEN_TREE, -100, "/", 1}, nil},
		{"move_mount", []any{unix.SYS_MOVE_MOUNT, -1, "", -1, "", 0}, nil},
		{"fsopen", []any{unix.SYS_FSOPEN, "tmpfs", 0}, nil},
		{"fsmount", []any{unix.SYS_FSMOUNT, -1, 0, 0}, nil},
		{"mount_setattr", []any{unix.SYS_MOUNT_SETATTR, -1, "", 0, 0, 0}, nil},
		{"listmount", []any{unix.SYS_LISTMOUNT, 0, 0, 0, 0}, nil},
		{"ptrace", []any{unix.SYS_PTRACE, unix.PTRACE_SEIZE, pid, 0, 0}, nil},
		{"ptrace of process 1", []any{unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1, 0, 0}, nil},
		{"process_vm_readv", []any{unix.SYS_PROCESS_VM_READV, pid, "@", 1, "@", 1, 0}, nil},
		{"process_vm_writev", []any{unix.SYS_PROCESS_VM_WRITEV, pid, "@", 0, "@", 0, 0}, nil},
		{"pidfd_getfd", []any{unix.SYS_PIDFD_GETFD, -1, 0, 0}, nil},
		{"kcmp", []any{unix.SYS_KCMP, pid, pid, 0, 0, 0}, nil},
		{"limits of another process", []any{unix.SYS_PRLIMIT64, pid, unix.RLIMIT_NOFILE, 0, "@"}, nil},
		{"priority of another process", []any{unix.SYS_SETPRIORITY, 0, pid, 0}, []string{"restricted"}},
		{"affinity of another process", []any{unix.SYS_SCHED_SETAFFINITY, pid, 8, "@"}, []string{"restricted"}},
		{"scheduler of another process", []any{unix.SYS_SCHED_SETSCHEDULER, pid, -1, 0}, []string{"restricted"}},
		{"signal of process 1", []any{unix.SYS_KILL, 1, 0}, []string{"restricted"}},
		{"signal of another process", []any{unix.SYS_TGKILL, pid, pid, 0}, []string{"restricted"}},
		{"bpf", []any{unix.SYS_BPF, -1, 0, 0}, nil},
		{"perf_event_open", []any{unix.SYS_PERF_EVENT_OPEN, 0, 0, -1, -1, 0}, nil},
		{"userfaultfd", []any{unix.SYS_USERFAULTFD, -1}, nil},
		{"io_uring_setup", []any{unix.SYS_IO_URING_SETUP, 1, 0}, nil},
		{"keyctl", []any{unix.SYS_KEYCTL, 0, -3, 0}, nil},
		{"add_key", []any{unix.SYS_ADD_KEY, "user", "x", 0, 0, -3}, nil},
		{"request_key", []any{unix.SYS_REQUEST_KEY, "user", "x", 0, 0}, nil},
		{"kexec_load", []any{unix.SYS_KEXEC_LOAD, 0, 99, 0, 0}, nil},
		{"init_module", []any{unix.SYS_INIT_MODULE, 0, 0, ""}, nil},
		{"delete_module", []any{unix.SYS_DELETE_MODULE, "none", 0}, nil},
		{"open_by_handle_at", []any{unix.SYS_OPEN_BY_HANDLE_AT, -1, 0, 0}, nil},
		{"name_to_handle_at", []any{unix.SYS_NAME_TO_HANDLE_AT, -1, "", 0, 0, 0}, nil},
		{"fanotify_init", []any{unix.SYS_FANOTIFY_INIT, 0, 0}, nil},
		{"quotactl", []any{unix.SYS_QUOTACTL, -1, 0, 0, 0}, nil},
		{"acct", []any{unix.SYS_ACCT, "/none"}, nil},
		{"swapon", []any{unix.SYS_SWAPON, "/none", 0}, nil},
		{"swapoff", []any{unix.SYS_SWAPOFF, "/none"}, nil},
		{"reboot", []any{unix.SYS_REBOOT, 0, 0, 0, 0}, nil},
		{"sethostname", []any{unix.SYS_SETHOSTNAME, "x", -1}, nil},
		{"syslog", []any{unix.SYS_SYSLOG, 3, "@", 100}, nil},
		{"adjtimex", []any{unix.SYS_ADJTIMEX, 0}, nil},
		{"clock_settime", []any{unix.SYS_CLOCK_SETTIME, 0, 0}, nil},
		{"personality", []any{unix.SYS_PERSONALITY, 0x0040000}, nil},
		{"openat2", []any{unix.SYS_OPENAT2, -1, "", 0, 0}, nil},
		{"mbind", []any{unix.SYS_MBIND, 0, 0, 0, 0, 0, 0}, nil},
		{"a device node", []any{unix.SYS_MKNODAT, -100, temp + "/node", unix.S_IFCHR | 0o666, 0x101}, nil},
		{"a file that runs as its owner", []any{unix.SYS_OPENAT, -100, temp + "/suid", unix.O_CREAT | unix.O_WRONLY, 0o4755}, nil},
		{"terminal input", []any{unix.SYS_IOCTL, 0, unix.TIOCSTI, "x"}, nil},
		{"inet socket", []any{unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0}, nil},
		{"netlink socket", []any{unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0}, nil},
		{"packet socket", []any{unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0}, nil},
		{"vsock socket", []any{unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0}, nil},
		{"alg socket", []any{unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, nil},
		{"tipc pair", []any{unix.SYS_SOCKETPAIR, unix.AF_TIPC, unix.SOCK_SEQPACKET, 0, "@"}, nil},
		{"shared memory of the host", []any{unix.SYS_SHMGET, 0, 4096, 0o1600}, []string{"restricted"}},
		{"x32", []any{0x40000000 + 39}, nil},
	} {
		if c.name == "x32" && runtime.GOARCH != "amd64" {
			continue
		}
		all = append(all, attack{"call: " + c.name, "call", c.args, c.only})
	}
	return all
}

// TestAttacks runs each attack in each language at each tier.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		for _, key := range languages {
			t.Run(tier+"/"+key, func(t *testing.T) {
				if (key == "bun" || key == "deno") && tier == "restricted" {
					t.Skip("it is not offered at this tier")
				}
				t.Parallel()
				s := open(t, tier, key)
				s.do(s.id, "write", s.tempAt(s.id)+"/mine", "x")
				for _, a := range s.attacks() {
					if len(a.only) == 0 || slices.Contains(a.only, tier) {
						record(t, a.name, tier, key, s.fails(a))
					}
				}
			})
		}
	}
}

// languages are those of attackers.
var languages = []string{"python", "node", "bun", "deno", "go"}

// record prints a line of the table of attacks: CI shows it.
func record(t *testing.T, attack, tier, by, result string) {
	t.Helper()
	t.Logf("table: %s | %s, %s | %s | %s", attack, where(), tier, by, result)
}

// fails runs an attack and checks that it failed, that nothing was harmed, and
// that the function can be called again.
func (s *scene) fails(a attack) string {
	s.t.Helper()
	got, res, err := s.ask(s.id, a.op, a.args...)
	switch {
	case err != nil:
		s.t.Errorf("%s: %v", a.name, err)
	case strings.HasPrefix(got, "did"):
		s.t.Errorf("%s succeeded: %q", a.name, got)
	case res.Crash != "" && a.op != "machine":
		s.t.Errorf("%s: %s", a.name, res.Crash)
	case a.op == "call" && !refused.MatchString(got):
		s.t.Errorf("%s reached the kernel: %q", a.name, got)
	}
	s.unharmed(a.name)
	s.nextCall()
	if res.Crash != "" {
		return "killed: " + res.Crash
	}
	return strings.TrimPrefix(strings.SplitN(got, "\n", 2)[0], "failed ")
}

// refused is what a call that is not let through gives.
var refused = regexp.MustCompile(`^failed (EPERM|EACCES|ENOSYS) `)

// TestSeenProcesses lists what is to be seen of others: nothing at all where
// there is a process namespace.
func TestSeenProcesses(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			s := open(t, tier, "python")
			got, _, err := s.ask(s.id, "scan")
			if err != nil || strings.Contains(got, hostSecret) || strings.Contains(got, victimSecret) {
				t.Errorf("%v, sees %q", err, got)
			}
			if environ := s.do(s.id, "environ"); strings.Contains(environ, "FNKIT") || strings.Contains(environ, "SECRET") {
				t.Errorf("variables %q", environ)
			}
			s.unharmed("looking around")
		})
	}
}

// TestHostNetwork is the policy that is asked for by name: the host's network,
// its loopback included, and nothing else.
func TestHostNetwork(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			s := open(t, tier, "python", func(c *procbox.Config) { c.Network = "host" })
			s.do(s.id, "tcp", "127.0.0.1", s.port)
			for _, a := range s.calls() {
				if strings.HasSuffix(a.name, "socket") && a.name != "call: inet socket" {
					s.fails(a)
				}
			}
			s.fails(attack{"connect to an abstract socket", "unix", []any{"@" + s.abstract()}, nil})
			if tier != "restricted" {
				s.fails(attack{"connect to a socket of the host", "unix", []any{s.socket}, nil})
			}
		})
	}
}
