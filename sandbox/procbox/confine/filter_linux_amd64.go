package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// admittedHere are the older forms of what other architectures have too.
var admittedHere = []uint32{
	unix.SYS_ARCH_PRCTL, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_GETDENTS, unix.SYS_MKDIR, unix.SYS_RMDIR,
	unix.SYS_UNLINK, unix.SYS_RENAME, unix.SYS_LINK, unix.SYS_SYMLINK, unix.SYS_READLINK, unix.SYS_PIPE, unix.SYS_DUP2,
	unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_EPOLL_CREATE, unix.SYS_EPOLL_WAIT, unix.SYS_EVENTFD, unix.SYS_SIGNALFD,
	unix.SYS_INOTIFY_INIT, unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_GETPGRP, unix.SYS_PAUSE, unix.SYS_ALARM, unix.SYS_TIME,
}

var metadataHere = []uint32{unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT}

func (f filterFor) specialHere(p *program) {
	p.call(unix.SYS_OPEN, creating{flags: 1, mode: 2})
	p.call(unix.SYS_CREAT, creating{flags: -1, mode: 1})
	p.call(unix.SYS_MKNOD, without{arg: 1, bits: unix.S_IFCHR | setID})
	if f.metadata || f.namespaces {
		p.call(unix.SYS_CHMOD, without{arg: 1, bits: setID})
	}
}
