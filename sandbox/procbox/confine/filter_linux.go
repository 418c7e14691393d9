//go:build amd64 || arm64

package confine

import (
	"slices"

	"golang.org/x/sys/unix"
)

// admitted are the system calls that programs may make whatever the arguments.
// What is in no list fails with EPERM, and with ENOSYS if it is so new that a libc
// has an older way.
var admitted = slices.Concat(admittedHere, []uint32{
	// Files.
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64,
	unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_PREADV2, unix.SYS_PWRITEV2, unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_LSEEK,
	unix.SYS_FSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_STATFS, unix.SYS_FSTATFS, unix.SYS_FACCESSAT,
	unix.SYS_FACCESSAT2, unix.SYS_GETDENTS64, unix.SYS_GETCWD, unix.SYS_CHDIR, unix.SYS_FCHDIR, unix.SYS_MKDIRAT,
	unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_READLINKAT,
	unix.SYS_UMASK, unix.SYS_TRUNCATE, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC,
	unix.SYS_SYNC, unix.SYS_SYNCFS, unix.SYS_SYNC_FILE_RANGE, unix.SYS_FADVISE64, unix.SYS_READAHEAD, unix.SYS_COPY_FILE_RANGE,
	unix.SYS_SENDFILE, unix.SYS_SPLICE, unix.SYS_TEE, unix.SYS_VMSPLICE, unix.SYS_FLOCK, unix.SYS_FCNTL, unix.SYS_DUP,
	unix.SYS_DUP3, unix.SYS_PIPE2, unix.SYS_CACHESTAT, unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_FGETXATTR,
	unix.SYS_LISTXATTR, unix.SYS_LLISTXATTR, unix.SYS_FLISTXATTR, unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH,
	unix.SYS_INOTIFY_RM_WATCH, unix.SYS_IO_SETUP, unix.SYS_IO_DESTROY, unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS,
	unix.SYS_IO_SUBMIT, unix.SYS_IO_CANCEL,
	// Memory.
	unix.SYS_BRK, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MSYNC,
	unix.SYS_MINCORE, unix.SYS_MLOCK, unix.SYS_MLOCK2, unix.SYS_MUNLOCK, unix.SYS_MLOCKALL, unix.SYS_MUNLOCKALL,
	unix.SYS_MEMFD_CREATE, unix.SYS_MEMBARRIER, unix.SYS_PKEY_ALLOC, unix.SYS_PKEY_FREE, unix.SYS_PKEY_MPROTECT,
	unix.SYS_GET_MEMPOLICY, unix.SYS_MSEAL, unix.SYS_MAP_SHADOW_STACK,
	// Processes and threads. They end with the sandbox, however they are related.
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_WAIT4, unix.SYS_WAITID, unix.SYS_GETPID,
	unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_SETPGID, unix.SYS_GETPGID, unix.SYS_GETSID, unix.SYS_SETSID,
	unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST, unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_FUTEX,
	unix.SYS_FUTEX_WAITV, unix.SYS_FUTEX_WAKE, unix.SYS_FUTEX_WAIT, unix.SYS_FUTEX_REQUEUE, unix.SYS_SCHED_YIELD,
	unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_GETPARAM, unix.SYS_SCHED_GETSCHEDULER, unix.SYS_SCHED_GETATTR,
	unix.SYS_SCHED_GET_PRIORITY_MAX, unix.SYS_SCHED_GET_PRIORITY_MIN, unix.SYS_SCHED_RR_GET_INTERVAL, unix.SYS_GETPRIORITY,
	unix.SYS_IOPRIO_GET, unix.SYS_GETCPU, unix.SYS_PRCTL, unix.SYS_GETRLIMIT, unix.SYS_SETRLIMIT, unix.SYS_GETRUSAGE,
	unix.SYS_TIMES, unix.SYS_PIDFD_OPEN, unix.SYS_RESTART_SYSCALL, unix.SYS_SECCOMP, unix.SYS_LANDLOCK_CREATE_RULESET,
	unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF,
	// Who one is. There is no privilege left to become somebody else.
	unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETRESUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRESGID,
	unix.SYS_GETGROUPS, unix.SYS_SETUID, unix.SYS_SETREUID, unix.SYS_SETRESUID, unix.SYS_SETFSUID, unix.SYS_SETGID,
	unix.SYS_SETREGID, unix.SYS_SETRESGID, unix.SYS_SETFSGID, unix.SYS_SETGROUPS, unix.SYS_CAPGET, unix.SYS_CAPSET,
	// Signals.
	unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_TGKILL, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK,
	unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGPENDING, unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_RT_SIGSUSPEND, unix.SYS_RT_SIGQUEUEINFO,
	unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_SIGALTSTACK, unix.SYS_SIGNALFD4,
	// Time and events.
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY,
	unix.SYS_GETITIMER, unix.SYS_SETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_GETTIME,
	unix.SYS_TIMER_GETOVERRUN, unix.SYS_TIMER_DELETE, unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMERFD_GETTIME,
	unix.SYS_EVENTFD2, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_PPOLL,
	unix.SYS_PSELECT6,
	// Sockets that are there. Which can be made is decided below.
	unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_GETSOCKNAME,
	unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG,
	unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG, unix.SYS_SHUTDOWN,
	// The machine.
	unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETRANDOM,
})

// own are admitted where the sandbox has namespaces of its own. Without, they
// would reach what belongs to the same user on the host.
var own = []uint32{
	unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_SETPARAM,
	unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETATTR,
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SHMDT, unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMCTL,
	unix.SYS_SEMTIMEDOP, unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL, unix.SYS_MQ_OPEN,
	unix.SYS_MQ_UNLINK, unix.SYS_MQ_TIMEDSEND, unix.SYS_MQ_TIMEDRECEIVE, unix.SYS_MQ_NOTIFY, unix.SYS_MQ_GETSETATTR,
}

// metadata change what is known of a file, by its name: Landlock does not see
// them. They are admitted in a file tree of the sandbox's own, and to builds.
var metadata = slices.Concat(metadataHere, []uint32{
	unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT, unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR,
})

// setID are the bits of a file's mode that no file of a sandbox may have: builds
// write to a directory where its owner is the host's user.
const setID = unix.S_ISUID | unix.S_ISGID

// newAPI is the first number that all architectures share.
const newAPI = 424

// filterFor is the program that the kernel runs for each system call.
type filterFor struct {
	namespaces bool // the sandbox has its own
	network    bool // the host's network may be used
	metadata   bool // and that of files changed
}

func (f filterFor) compile() []unix.SockFilter {
	p := program{}
	p.load(4) // the architecture
	p.jump(unix.BPF_JEQ, auditArch, 1, 0)
	p.ret(unix.SECCOMP_RET_KILL_PROCESS)
	p.load(0)                                             // the number
	p.when(unix.BPF_JGE, 0x40000000, refuse(unix.ENOSYS)) // the x32 calls of amd64
	f.special(&p)
	calls := admitted
	if f.namespaces {
		calls = slices.Concat(calls, own)
	}
	if f.metadata || f.namespaces {
		calls = slices.Concat(calls, metadata)
	}
	for _, nr := range calls {
		p.when(unix.BPF_JEQ, nr, unix.SECCOMP_RET_ALLOW)
	}
	p.when(unix.BPF_JGE, newAPI, refuse(unix.ENOSYS))
	p.ret(refuse(unix.EPERM))
	return p
}

// special are the calls whose arguments decide.
func (f filterFor) special(p *program) {
	const cloneNew = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	p.call(unix.SYS_CLONE, without{arg: 0, bits: cloneNew})
	p.call(unix.SYS_IOCTL, but{arg: 1, values: []uint32{unix.TIOCSTI, tiocLinux}})
	p.call(unix.SYS_PRLIMIT64, only{arg: 0, values: []uint32{0}})
	p.call(unix.SYS_PERSONALITY, only{arg: 0, values: []uint32{0, 0xffffffff}})
	p.call(unix.SYS_SOCKETPAIR, only{arg: 0, values: []uint32{unix.AF_UNIX}, errno: unix.EACCES})
	p.call(unix.SYS_SOCKET, only{arg: 0, values: f.families(), errno: unix.EACCES})
	p.call(unix.SYS_MKNODAT, without{arg: 2, bits: unix.S_IFCHR | setID}) // a block device has the bit too
	p.call(unix.SYS_OPENAT, creating{flags: 2, mode: 3})
	if f.metadata || f.namespaces {
		p.call(unix.SYS_FCHMOD, without{arg: 1, bits: setID})
		p.call(unix.SYS_FCHMODAT, without{arg: 2, bits: setID})
		p.call(unix.SYS_FCHMODAT2, without{arg: 2, bits: setID})
	}
	f.specialHere(p)
}

// families are the kinds of sockets that can be made. Without a file tree of its
// own, a program could reach the host's sockets by their names.
func (f filterFor) families() []uint32 {
	switch {
	case f.network:
		return []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6}
	case f.namespaces:
		return []uint32{unix.AF_UNIX}
	}
	return nil
}

const tiocLinux = 0x541c

// condition admits or refuses a call by its arguments.
type condition interface{ add(p *program) }

// without refuses if an argument has any of the bits.
type without struct {
	arg  int
	bits uint32
}

func (c without) add(p *program) {
	p.loadArg(c.arg)
	p.when(unix.BPF_JSET, c.bits, refuse(unix.EPERM))
	p.ret(unix.SECCOMP_RET_ALLOW)
}

// only admits some values of an argument.
type only struct {
	arg    int
	values []uint32
	errno  unix.Errno
}

func (c only) add(p *program) {
	p.loadArg(c.arg)
	for _, v := range c.values {
		p.when(unix.BPF_JEQ, v, unix.SECCOMP_RET_ALLOW)
	}
	if c.errno == 0 {
		c.errno = unix.EPERM
	}
	p.ret(refuse(c.errno))
}

// but refuses some values of an argument.
type but struct {
	arg    int
	values []uint32
}

func (c but) add(p *program) {
	p.loadArg(c.arg)
	for _, v := range c.values {
		p.when(unix.BPF_JEQ, v, refuse(unix.EPERM))
	}
	p.ret(unix.SECCOMP_RET_ALLOW)
}

// creating refuses to make a file that runs as somebody else. The mode is only
// there if a file is made.
type creating struct{ flags, mode int }

func (c creating) add(p *program) {
	if c.flags >= 0 {
		p.loadArg(c.flags)
		p.jump(unix.BPF_JSET, unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY, 1, 0)
		p.ret(unix.SECCOMP_RET_ALLOW)
	}
	without{c.mode, setID}.add(p)
}

// program is a filter in the making. The call's number is loaded where a new
// call or a list begins.
type program []unix.SockFilter

// call adds what decides on one call. All of a condition's ways return.
func (p *program) call(nr uint32, c condition) {
	var body program
	c.add(&body)
	p.jump(unix.BPF_JEQ, nr, 0, uint8(len(body)))
	*p = append(*p, body...)
}

// load loads a word of struct seccomp_data.
func (p *program) load(offset uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

// loadArg loads the lower half of an argument. What it is compared with has no
// upper half, or the kernel takes the lower alone.
func (p *program) loadArg(n int) { p.load(uint32(16 + 8*n)) }

func (p *program) jump(op uint16, k uint32, yes, no uint8) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k})
}

func (p *program) ret(action uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action})
}

func (p *program) when(op uint16, k, action uint32) {
	p.jump(op, k, 0, 1)
	p.ret(action)
}

func refuse(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }
