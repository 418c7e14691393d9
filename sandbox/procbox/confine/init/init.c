// init shuts one program in: it makes namespaces and a file tree of its own for
// it, takes away privileges, limits and filters what it can do, starts it, stays
// as its process 1, and ends all of it when whoever asked for it goes away.
//
// It reads what to do from a configuration that package confine writes, and
// decides nothing itself. Descriptors at the start:
//
//	0 1 2  the program's
//	3      the program's channel, or closed
//	4      the control socket. Its other end is the host's: what fails is
//	       reported here, what completes a program that was started before it
//	       was known for whom comes from here, and when the host closes it, or
//	       dies, all ends.
//	5      the configuration
//	6 ...  the user namespace of owners, if the host has it; then resource groups
//	       (cgroups): one of version 2, if there is one, to be born in, and the
//	       lists of threads of those of version 1; last, this program
//
// There are three processes. The first stays outside: it watches the control
// socket and passes the program's exit status on. The second is process 1 of the
// new process namespace: it builds the file tree, gives up its privileges, and
// reaps. The third becomes the program. Without namespaces there is no second.

#include "sys.h"

enum { CHANNEL = 3, CONTROL = 4, CONFIG = 5, OTHERS = 6 };
enum { FAILED = 125 }; // exit status when the program could not be started
enum { MAX_WORDS = 4096, MAX_RULES = 64 };
enum { MSG_NOSIGNAL = 0x4000, MSG_DONTWAIT = 0x40, MSG_CMSG_CLOEXEC = 0x40000000, MNT_DETACH = 2, RLIMIT_CORE = 4 }; // are in headers of the libc alone

// ---- text

static u64 length(const char *s)
{
	u64 n = 0;
	while (s[n])
		n++;
	return n;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

// decimal writes n and returns where it begins in buf, which holds 24 bytes.
static char *decimal(char *buf, u64 n)
{
	char *p = buf + 23;
	*p = 0;
	do
		*--p = '0' + n % 10;
	while (n /= 10);
	return p;
}

// join concatenates texts, up to a null pointer, into buf of size bytes.
static char *join(char *buf, u64 size, const char *const *parts)
{
	u64 n = 0;
	for (; *parts; parts++)
		for (const char *s = *parts; *s && n + 1 < size; s++)
			buf[n++] = *s;
	buf[n] = 0;
	return buf;
}
#define JOIN(buf, ...) join(buf, sizeof buf, (const char *const[]){__VA_ARGS__, 0})

// The compiler may call these two.
void *memset(void *to, int c, u64 n)
{
	for (u64 i = 0; i < n; i++)
		((volatile u8 *)to)[i] = (u8)c;
	return to;
}

void *memcpy(void *to, const void *from, u64 n)
{
	for (u64 i = 0; i < n; i++)
		((volatile u8 *)to)[i] = ((const u8 *)from)[i];
	return to;
}

// ---- failures

static __attribute__((noreturn)) void quit(int status)
{
	for (;;)
		sys1(__NR_exit_group, status);
}

// fail reports "ERRNO WHAT SUBJECT" to the host and ends the process.
static __attribute__((noreturn)) void fail(const char *what, const char *subject, long error)
{
	char number[24], line[512];
	JOIN(line, decimal(number, (u64)-error), " ", what, " ", subject);
	sys5(__NR_sendto, CONTROL, line, length(line), MSG_NOSIGNAL, 0);
	quit(FAILED);
}

static long must(const char *what, const char *subject, long result)
{
	if (result < 0)
		fail(what, subject, result);
	return result;
}

// ---- configuration

// The file is "FNKINIT1", the size of the system call filter as a u64 and the
// filter itself, then words, each ended by a NUL. config mirrors their order.
struct mount {
	char *kind, *source, *target, *options;
};
struct rule {
	char *access, *path;
};
static struct {
	struct sock_fprog filter;
	u64 namespaces;       // to make, as flags of clone
	u64 uid, gid;         // to become; in a user namespace: to be called; 0: stay
	u64 network;          // 0: none
	u64 owners;           // whether there is a user namespace among the descriptors
	u64 born, groups;     // whether there is a group of version 2, and how many others there are
	char *hostname;
	char *root;           // an empty directory of the host, to build the file tree on
	char *directory;      // to start the program in
	char *late;           // where files are shown later, see complete; empty: nothing comes later
	u64 limits, mounts, rules;
	struct {
		u64 resource, value;
	} limit[16];
	struct mount mount[128];
	struct rule rule[MAX_RULES];
	char *argv[MAX_WORDS], *envp[MAX_WORDS];
} config;

static char *cursor, *end;

static char *word(void)
{
	char *s = cursor;
	while (cursor < end && *cursor)
		cursor++;
	if (cursor >= end)
		fail("read", "the configuration", -EINVAL);
	cursor++;
	return s;
}

static u64 number(void)
{
	u64 n = 0;
	for (char *s = word(); *s; s++) {
		if (*s < '0' || *s > '9')
			fail("read", "a number of the configuration", -EINVAL);
		n = n * 10 + (u64)(*s - '0');
	}
	return n;
}

static u64 count(u64 most)
{
	u64 n = number();
	if (n > most)
		fail("read", "the configuration: too long a list", -EINVAL);
	return n;
}

static void list(char **to)
{
	u64 n = count(MAX_WORDS - 1);
	for (u64 i = 0; i < n; i++)
		to[i] = word();
}

static void read_config(void)
{
	struct stat st;
	must("read", "the configuration", sys2(__NR_fstat, CONFIG, &st));
	long map = must("read", "the configuration",
			sys(__NR_mmap, 0, st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, CONFIG));
	cursor = (char *)map, end = cursor + st.st_size;
	if (!same(word(), "FNKINIT1") || (u64)(end - cursor) < 16)
		fail("read", "the configuration", -EINVAL);
	cursor = (char *)map + 16; // the filter is aligned
	u64 size = *(u64 *)cursor;
	if (size > (u64)(end - cursor) - 8 || size % sizeof(struct sock_filter))
		fail("read", "the filter", -EINVAL);
	config.filter.len = (unsigned short)(size / sizeof(struct sock_filter));
	config.filter.filter = (struct sock_filter *)(cursor + 8);
	cursor += 8 + size;

	config.namespaces = number();
	config.uid = number();
	config.gid = number();
	config.network = number();
	config.owners = number();
	config.born = number();
	config.groups = number();
	config.hostname = word();
	config.root = word();
	config.directory = word();
	config.late = word();
	config.limits = count(16);
	for (u64 i = 0; i < config.limits; i++) {
		config.limit[i].resource = number();
		config.limit[i].value = number();
	}
	config.mounts = count(128);
	for (u64 i = 0; i < config.mounts; i++) {
		struct mount *m = &config.mount[i];
		m->kind = word(), m->source = word(), m->target = word(), m->options = word();
	}
	config.rules = count(MAX_RULES);
	for (u64 i = 0; i < config.rules; i++)
		config.rule[i].access = word(), config.rule[i].path = word();
	list(config.argv);
	list(config.envp);
}

// has reports whether a letter is among a mount's options.
static int has(const char *options, char letter)
{
	for (; *options; options++)
		if (*options == letter)
			return 1;
	return 0;
}

// ---- processes

static long fork(u64 flags)
{
	return sys5(__NR_clone, flags | SIGCHLD, 0, 0, 0, 0);
}

static void write_file(const char *path, const char *text)
{
	long fd = must("open", path, sys4(__NR_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0));
	must("write", path, sys3(__NR_write, fd, text, length(text)));
	sys1(__NR_close, fd);
}

// kill_on_death has this process killed when its parent dies. The kernel forgets
// it whenever the process changes its credentials.
static void kill_on_death(void)
{
	sys2(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL);
}

// ---- file tree. All of it is made relative to the new root, which is the
// current directory, so that no path can lead out of it.

// owners is a user namespace that maps the host's user to the program's, or -1.
static long owners = -1;

// A message of the control socket: a text, and perhaps one descriptor.
struct rights {
	u64 length;
	int level, type, fd;
};
struct text {
	char *text;
	u64 length;
};
struct message {
	void *name;
	u32 name_length;
	struct text *text;
	u64 texts;
	struct rights *rights;
	u64 rights_length;
	int flags;
};

// send_owners gives the namespace to the host, to be used again.
static void send_owners(void)
{
	struct rights rights = {20, 1 /* SOL_SOCKET */, 1 /* SCM_RIGHTS */, (int)owners};
	struct text text = {"\n", 1};
	struct message message = {0, 0, &text, 1, &rights, sizeof rights, 0};
	must("send", "a user namespace", sys3(__NR_sendmsg, CONTROL, &message, MSG_NOSIGNAL));
}

// make_owners makes the namespace that lets the program own, in its own tree, the
// files that the host's user owns outside. A namespace needs a process while it
// is made.
static void make_owners(void)
{
	if (config.owners) {
		owners = OTHERS;
		return;
	}
	char pid[24], map[64], a[24], b[24], path[64];
	long child = must("make", "a user namespace", fork(CLONE_NEWUSER));
	if (!child) {
		kill_on_death();
		for (;;)
			sys4(__NR_ppoll, 0, 0, 0, 0);
	}
	char *number = decimal(pid, (u64)child);
	JOIN(map, decimal(a, (u64)sys0(__NR_geteuid)), " ", decimal(b, config.uid), " 1");
	write_file(JOIN(path, "/proc/", number, "/uid_map"), map);
	JOIN(map, decimal(a, (u64)sys0(__NR_getegid)), " ", decimal(b, config.gid), " 1");
	write_file(JOIN(path, "/proc/", number, "/gid_map"), map);
	JOIN(path, "/proc/", number, "/ns/user");
	owners = must("open", path, sys4(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
	send_owners();
	sys2(__NR_kill, child, SIGKILL);
	sys4(__NR_wait4, child, 0, 0, 0);
}

// make_parents makes the directories above a path.
static void make_parents(char *path)
{
	for (char *s = path; *s; s++) {
		if (*s != '/')
			continue;
		*s = 0;
		sys3(__NR_mkdirat, AT_FDCWD, path, 0755);
		*s = '/';
	}
}

// bind shows a file or a directory of the host. Options: w writable, d with
// devices, o with its owner changed to the program's, i the same if its file
// system can do that, ? only if it is there.
// It is read-only before it is visible.
static void bind(struct mount *m)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID};
	int own = has(m->options, 'o') || has(m->options, 'i');
	u64 deep = own ? 0 : AT_RECURSIVE;
	long tree = sys3(__NR_open_tree, AT_FDCWD, m->source, OPEN_TREE_CLONE | O_CLOEXEC | deep);
	if ((tree == -ENOENT || tree == -EACCES) && has(m->options, '?'))
		return;
	must("show", m->source, tree);
	if (!has(m->options, 'w'))
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	if (!has(m->options, 'd'))
		attr.attr_set |= MOUNT_ATTR_NODEV;
	if (own && owners >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (u64)owners;
	}
	long done = sys5(__NR_mount_setattr, tree, "", AT_EMPTY_PATH | deep, &attr, sizeof attr);
	if (done < 0 && has(m->options, 'i')) {
		attr.attr_set &= ~(u64)MOUNT_ATTR_IDMAP;
		attr.userns_fd = 0;
		done = sys5(__NR_mount_setattr, tree, "", AT_EMPTY_PATH | deep, &attr, sizeof attr);
	}
	must("restrict", m->source, done);
	make_parents(m->target);
	struct stat st;
	must("show", m->source, sys2(__NR_fstat, tree, &st));
	if ((st.st_mode & S_IFMT) == S_IFDIR) {
		sys3(__NR_mkdirat, AT_FDCWD, m->target, 0755);
	} else {
		long fd = sys4(__NR_openat, AT_FDCWD, m->target, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
		if (fd >= 0)
			sys1(__NR_close, fd);
	}
	must("show", m->target,
	     sys5(__NR_move_mount, tree, "", AT_FDCWD, m->target, MOVE_MOUNT_F_EMPTY_PATH));
	sys1(__NR_close, tree);
}

static void make_file(struct mount *m)
{
	make_parents(m->target);
	long fd = must("make", m->target,
		       sys4(__NR_openat, AT_FDCWD, m->target, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	must("write", m->target, sys3(__NR_write, fd, m->source, length(m->source)));
	sys1(__NR_close, fd);
}

// make_directory makes a directory of the program's own.
static void make_directory(struct mount *m)
{
	make_parents(m->target);
	must("make", m->target, sys3(__NR_mkdirat, AT_FDCWD, m->target, 0700));
	must("own", m->target, sys5(__NR_fchownat, AT_FDCWD, m->target, config.uid, config.gid, 0));
}

static void make_file_system(struct mount *m)
{
	long flags = MS_NOSUID | MS_NODEV;
	if (same(m->kind, "proc"))
		flags |= MS_NOEXEC | MS_RDONLY;
	make_parents(m->target);
	sys3(__NR_mkdirat, AT_FDCWD, m->target, 0755);
	must("mount", m->target, sys5(__NR_mount, m->kind, m->target, m->kind, flags, m->options));
}

static void make_tree(void)
{
	must("detach", "the file tree", sys5(__NR_mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0));
	must("mount", config.root,
	     sys5(__NR_mount, "tmpfs", config.root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m,nr_inodes=1024"));
	must("enter", config.root, sys1(__NR_chdir, config.root));
	sys1(__NR_umask, 0);
	for (u64 i = 0; i < config.mounts; i++) {
		struct mount *m = &config.mount[i];
		if (same(m->kind, "bind"))
			bind(m);
		else if (same(m->kind, "link"))
			make_parents(m->target), must("link", m->target, sys3(__NR_symlinkat, m->source, AT_FDCWD, m->target));
		else if (same(m->kind, "file"))
			make_file(m);
		else if (same(m->kind, "dir"))
			make_directory(m);
		else
			make_file_system(m);
	}
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	must("restrict", config.root, sys5(__NR_mount_setattr, AT_FDCWD, ".", 0, &attr, sizeof attr));
	// The old root comes to lie on the new one, and is taken away.
	must("change", "the root", sys2(__NR_pivot_root, ".", "."));
	must("leave", "the old root", sys2(__NR_umount2, ".", MNT_DETACH));
	must("enter", "the root", sys1(__NR_chdir, "/"));
}

// complete takes from the host what a program lacks that was started before it was
// known for whom: the size of its file systems in memory, and its files, as a
// mount that the host has made and restricted, and that is nowhere yet. It reports
// whether there was such a message. What fails ends the program.
static int complete(void)
{
	char size[32] = {0}, options[64];
	struct rights rights = {0, 0, 0, -1};
	struct text text = {size, sizeof size - 1};
	struct message message = {0, 0, &text, 1, &rights, sizeof rights, 0};
	long n = sys3(__NR_recvmsg, CONTROL, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n <= 0)
		return 0;
	JOIN(options, "size=", size);
	must("limit", "/tmp", sys5(__NR_mount, 0, "/tmp", 0, MS_REMOUNT | MS_NOSUID | MS_NODEV, options));
	if (message.rights_length >= 20 && rights.fd >= 0) {
		must("show", config.late,
		     sys5(__NR_move_mount, rights.fd, "", AT_FDCWD, config.late, MOVE_MOUNT_F_EMPTY_PATH));
		sys1(__NR_close, rights.fd);
	}
	must("report", "completion", sys5(__NR_sendto, CONTROL, "\n", 1, MSG_NOSIGNAL, 0));
	return 1;
}

// ---- restrictions

// keep_capabilities gives up all capabilities but those in the mask.
static void keep_capabilities(u64 mask)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct set[2];
	must("read", "capabilities", sys2(__NR_capget, &head, set));
	for (int i = 0; i < 2; i++) {
		set[i].permitted &= (u32)(mask >> (32 * i));
		set[i].effective = set[i].permitted;
		set[i].inheritable = 0;
	}
	must("give up", "capabilities", sys2(__NR_capset, &head, set));
}

// become gives up all privileges for good.
static void become(void)
{
	for (long c = 0; sys2(__NR_prctl, PR_CAPBSET_READ, c) >= 0; c++)
		sys2(__NR_prctl, PR_CAPBSET_DROP, c); // fails without the privilege, which is then not there to be used
	sys5(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (config.uid && !(config.namespaces & CLONE_NEWUSER)) {
		must("give up", "groups", sys2(__NR_setgroups, 0, 0));
		must("become", "the group", sys3(__NR_setresgid, config.gid, config.gid, config.gid));
		must("become", "the user", sys3(__NR_setresuid, config.uid, config.uid, config.uid));
	}
	keep_capabilities(0);
}

// The parts of struct landlock_ruleset_attr, of which older kernels know less.
struct ruleset {
	u64 fs, net, scoped;
};

static long make_ruleset(struct ruleset *r, u64 *size)
{
	static const u8 bits[] = {0, 13, 14, 15, 15, 16}; // of accesses, by version
	long version = sys3(__NR_landlock_create_ruleset, 0, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (version < 2)
		return -1; // the first forbids all moves between directories
	r->fs = (1ul << bits[version < 5 ? version : 5]) - 1;
	*size = 8;
	if (version >= 4) {
		r->net = config.network ? 0 : 3; // TCP
		*size = 16;
	}
	if (version >= 6) {
		r->scoped = 3; // no abstract sockets and no signals to those outside
		*size = 24;
	}
	return version;
}

// limit_files has Landlock admit only the files of the rules. In a file tree of
// our own this is a second wall; without one it is the first.
static void limit_files(void)
{
	struct ruleset r = {0};
	u64 size;
	if (!config.rules)
		return;
	if (make_ruleset(&r, &size) < 0) {
		if (config.namespaces)
			return; // the host knows and says so
		fail("use", "Landlock", -EINVAL);
	}
	long fd = must("make", "a Landlock ruleset", sys3(__NR_landlock_create_ruleset, &r, size, 0));
	for (u64 i = 0; i < config.rules; i++) {
		const u64 file = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | 1 << 14;
		const u64 devices = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK | 1 << 15;
		struct landlock_path_beneath_attr rule;
		struct stat st;
		long path = sys4(__NR_openat, AT_FDCWD, config.rule[i].path, O_PATH | O_CLOEXEC, 0);
		if (path < 0 || sys2(__NR_fstat, path, &st) < 0)
			continue; // what is not there is not admitted
		if (has(config.rule[i].access, 'w'))
			rule.allowed_access = r.fs & ~devices;
		else
			rule.allowed_access = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
		if ((st.st_mode & S_IFMT) != S_IFDIR)
			rule.allowed_access &= file & r.fs;
		rule.parent_fd = (int)path;
		must("admit", config.rule[i].path, sys4(__NR_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
		sys1(__NR_close, path);
	}
	must("use", "Landlock", sys2(__NR_landlock_restrict_self, fd, 0));
	sys1(__NR_close, fd);
}

static void set_limits(void)
{
	for (u64 i = 0; i < config.limits; i++) {
		u64 both[2] = {config.limit[i].value, config.limit[i].value};
		u64 now[2];
		must("read", "a limit", sys4(__NR_prlimit64, 0, config.limit[i].resource, 0, now));
		if (now[1] < both[1])
			both[0] = both[1] = now[1]; // the host's own limit is lower
		must("set", "a limit", sys4(__NR_prlimit64, 0, config.limit[i].resource, both, 0));
	}
}

// restrict_self is the point of no return.
static void restrict_self(void)
{
	set_limits();
	sys1(__NR_umask, 022);
	become();
	must("give up", "new privileges", sys5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	limit_files();
	if (config.filter.len)
		must("filter", "system calls", sys3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &config.filter));
}

// ---- the program

// check is what runs in place of a program when the host asks what this machine
// can do: it tries that it is really shut in.
static __attribute__((noreturn)) void check(void)
{
	if (config.namespaces && sys0(__NR_getpid) > 2)
		fail("be in", "a process namespace", -EINVAL);
	if (config.uid && (u64)sys0(__NR_getuid) != config.uid)
		fail("be", "another user", -EINVAL);
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct set[2];
	must("read", "capabilities", sys2(__NR_capget, &head, set));
	if (set[0].permitted | set[1].permitted)
		fail("be without", "capabilities", -EINVAL);
	if (sys5(__NR_mount, "tmpfs", "/tmp", "tmpfs", 0, 0) >= 0 || sys2(__NR_sethostname, "x", 1) >= 0)
		fail("be without", "privileged system calls", -EINVAL);
	must("read", config.directory, sys4(__NR_openat, AT_FDCWD, config.directory, O_RDONLY | O_CLOEXEC, 0));
	if (config.namespaces)
		must("read", "/proc", sys4(__NR_openat, AT_FDCWD, "/proc/self/stat", O_RDONLY | O_CLOEXEC, 0));
	quit(0);
}

static __attribute__((noreturn, noinline)) void execute(void)
{
	sys0(__NR_setsid); // signals to its own group do not reach process 1
	long first = sys3(__NR_fcntl, CHANNEL, F_GETFD, 0) < 0 ? CHANNEL : CONTROL;
	must("enter", config.directory, sys1(__NR_chdir, config.directory));
	must("close", "descriptors", sys3(__NR_close_range, first, ~0u, CLOSE_RANGE_CLOEXEC));
	if (!config.argv[0])
		check();
	fail("run", config.argv[0], sys3(__NR_execve, config.argv[0], config.argv, config.envp));
}

// keep_only closes all descriptors but the control socket.
static void keep_only_control(void)
{
	sys3(__NR_close_range, 0, CONTROL - 1, 0);
	sys3(__NR_close_range, CONTROL + 1, ~0u, 0);
}

// reap waits as process 1 until the program ends and leaves its status. When
// process 1 exits, the kernel kills what else is in the namespace.
static void reap(long program, volatile int *status)
{
	keep_only_control();
	for (;;) {
		int st;
		long pid = sys4(__NR_wait4, -1, &st, 0, 0);
		if (pid == program) {
			*status = st;
			quit(0);
		}
	}
}

// ---- the three processes

static long start(void)
{
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = OTHERS + config.owners};
	if (config.born)
		return sys2(__NR_clone3, &args, sizeof args);
	return fork(0);
}

static void enter_groups(void)
{
	for (u64 i = 0; i < config.groups; i++)
		must("enter", "a resource group", sys3(__NR_write, OTHERS + config.owners + config.born + i, "0", 1));
}

// start_program starts the third process. Until it runs the program it shares the
// memory of this one, which waits for that: nothing is copied. It never returns from
// here, so this one finds its stack as it left it.
static __attribute__((noinline)) long start_program(void)
{
	long pid = must("start", "the program", fork(CLONE_VM | CLONE_VFORK));
	if (!pid)
		execute();
	return pid;
}

// be_init is the second process.
static void be_init(volatile int *status)
{
	kill_on_death();
	enter_groups();
	must("make", "a resource group namespace", sys1(__NR_unshare, CLONE_NEWCGROUP));
	make_tree();
	must("set", "the host name", sys2(__NR_sethostname, config.hostname, length(config.hostname)));
	restrict_self();
	kill_on_death();
	reap(start_program(), status);
}

// make_namespaces leaves this process with one foot in each of them: its
// children are born into the process namespace.
static void make_namespaces(void)
{
	char a[24], b[24], map[64];
	u64 uid = (u64)sys0(__NR_geteuid), gid = (u64)sys0(__NR_getegid);
	if (config.uid && !(config.namespaces & CLONE_NEWUSER))
		make_owners();
	must("make", "namespaces", sys1(__NR_unshare, config.namespaces));
	if (!(config.namespaces & CLONE_NEWUSER))
		return;
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", JOIN(map, decimal(a, config.uid), " ", decimal(b, uid), " 1"));
	write_file("/proc/self/gid_map", JOIN(map, decimal(a, config.gid), " ", decimal(b, gid), " 1"));
}

// children is the name of the file that lists this process's children.
static char *children(char path[64])
{
	char number[24];
	return join(path, 64, (const char *const[]){"/proc/self/task/", decimal(number, (u64)sys0(__NR_getpid)), "/children", 0});
}

// kill_children kills this process's children, among them the orphans that it
// has adopted. Theirs become its own when they die.
static void kill_children(void)
{
	static char text[4096];
	char path[64];
	long fd = sys4(__NR_openat, AT_FDCWD, children(path), O_RDONLY | O_CLOEXEC, 0);
	long n = sys3(__NR_read, fd, text, sizeof text);
	sys1(__NR_close, fd);
	u64 pid = 0;
	for (long i = 0; i < n; i++) {
		if (text[i] != ' ') {
			pid = pid * 10 + (u64)(text[i] - '0');
			continue;
		}
		sys2(__NR_kill, pid, SIGKILL);
		pid = 0;
	}
}

// watch is the rest of the first process's life: it waits for its child to end,
// and ends it when the host closes the control socket. What comes later comes once;
// until then it keeps the privilege to mount, in the namespace of the file tree. It returns the child's
// wait status when nothing of all that was started is left.
static int watch(long child)
{
	u64 chld = 1ul << (SIGCHLD - 1);
	int status = FAILED << 8, st, over = 0;
	keep_only_control();
	sys4(__NR_rt_sigprocmask, SIG_BLOCK, &chld, 0, sizeof chld);
	long signals = must("watch", "processes", sys4(__NR_signalfd4, -1, &chld, sizeof chld, O_CLOEXEC));
	int late = config.late[0] != 0;
	keep_capabilities(1 << CAP_KILL | (late ? 1 << CAP_SYS_ADMIN : 0));
	struct pollfd fds[] = {{CONTROL, POLLRDHUP | (late ? POLLIN : 0), 0}, {(int)signals, POLLIN, 0}};
	for (;;) {
		u8 info[128];
		long pid;
		while ((pid = sys4(__NR_wait4, -1, &st, over ? 0 : WNOHANG, 0)) > 0) {
			if (pid == child)
				status = st, over = 1;
			if (over)
				kill_children();
		}
		if (pid == -ECHILD)
			return status;
		sys4(__NR_ppoll, fds, 2, 0, 0);
		if (fds[0].revents & (POLLRDHUP | POLLHUP)) {
			sys2(__NR_kill, child, SIGKILL);
			over = 1;
			kill_children();
		} else if (fds[0].revents & POLLIN && complete()) {
			keep_capabilities(1 << CAP_KILL);
			fds[0].events = POLLRDHUP;
		}
		if (fds[1].revents)
			sys3(__NR_read, signals, info, sizeof info);
	}
}

// end_like ends this process as another one ended.
static __attribute__((noreturn)) void end_like(int status)
{
	u64 none[2] = {0, 0};
	u64 all = ~0ul;
	int signal = status & 0x7f;
	if (!signal)
		quit(status >> 8 & 0xff);
	sys4(__NR_prlimit64, 0, RLIMIT_CORE, none, 0);
	sys4(__NR_rt_sigprocmask, SIG_UNBLOCK, &all, 0, sizeof all);
	sys2(__NR_kill, sys0(__NR_getpid), signal);
	quit(128 + signal);
}

__attribute__((noreturn, used)) void run(void)
{
	sys2(__NR_prctl, PR_SET_NAME, "fnkit-init");
	read_config();
	volatile int *status = (int *)must("share", "memory",
		sys5(__NR_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1));
	if (!config.namespaces) {
		char path[64];
		must("find", "children", sys4(__NR_openat, AT_FDCWD, children(path), O_RDONLY | O_CLOEXEC, 0));
		sys2(__NR_prctl, PR_SET_DUMPABLE, 0);
		must("adopt", "orphans", sys2(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1));
		long program = must("start", "the program", start());
		if (!program) {
			enter_groups();
			restrict_self();
			kill_on_death();
			execute();
		}
		end_like(watch(program));
	}
	make_namespaces();
	sys1(__NR_chdir, "/"); // not to hold on to a directory of the host's
	sys2(__NR_prctl, PR_SET_DUMPABLE, 0);
	*status = SIGKILL; // unless it is known better: process 1 was killed
	long init = must("start", "process 1", start());
	if (!init)
		be_init(status);
	int of_init = watch(init);
	end_like(of_init ? of_init : *status);
}
