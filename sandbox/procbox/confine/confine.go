// Package confine shuts processes in: it starts a program behind as many walls
// as the machine has. The work in the child is done by a small static program,
// init, which is written in C (folder init), carried as a binary and started
// from sealed memory: the host needs no hook and no file for it.
//
// # What a confined program has
//
// At [sandbox.IsolationFull] and [sandbox.IsolationUserNS]: namespaces of its own
// for mounts, processes, IPC, host name, resource groups, and, unless it may use
// the host's network, for that; a read-only file tree of the system's programs, a
// few files of /etc, and what the [Plan] shows; a private /tmp, [Home] and /dev/shm in
// memory, bounded; no capabilities, no way to get any; Landlock where the kernel
// has it; an allow-list of system calls; limits. With Full, a user of its own as
// well. Process 1 is init: when the program ends, or the host does, the kernel
// ends all that it started.
//
// At [sandbox.IsolationRestricted]: the same capabilities, Landlock, system calls and
// limits, with Landlock as the only wall around files, as the host's own user.
//
// # Network
//
// A program has either none, or the host's: then it reaches what the host
// reaches, the host's own loopback included. Sockets of other families than
// UNIX and IP cannot be made.
package confine

import (
	"os"

	"github.com/fnkit/fnkit/sandbox"
)

// Home is the home directory in a program's own file tree.
const Home = "/home/fn"

// Config is what a [Host] is made with.
type Config struct {
	// Dir is a directory of the Host's own. It is kept between Hosts, so that the next
	// removes what one that died has left.
	Dir string
	// Most is the best isolation to try.
	Most sandbox.Isolation
	// Cgroup is a directory of the cgroup file system, version 2, below which groups may
	// be made: it has no processes itself. Empty: the host's own group or, with the
	// privilege, the top.
	Cgroup string
}

// Plan is what one program gets.
type Plan struct {
	Args []string // an absolute path in the program's file tree, and arguments
	Env  []string // "K=V", all of it
	Dir  string   // where it starts, in its file tree

	Binds []Bind
	// Temp is a directory of the host with "tmp" and "home" in it, for /tmp and
	// [Home]. Nothing hostile may have been put there. Empty: memory, of TempSize bytes. At IsolationRestricted it is needed.
	Temp     string
	TempSize int64

	// Mark is init's own environment, "K=V": by it those can be found that a host left
	// which died before it could note them.
	Mark string

	Channel *os.File // descriptor 3; nil: none
	Network bool     // the host's
	Build   bool     // it may change the metadata of files, at any tier

	// Late is for a program that is started before it is known for whom: the path in its
	// file tree at which Complete shows a directory, or, where a bind is there
	// already, that path. Memory and CPUs are Complete's to limit then, and until then
	// it has only the CPU time that others leave, where there are resource groups. It
	// needs a file tree of its own. Empty: all is known.
	Late string

	Memory int64 // bytes; 0: unlimited
	// Reserved is how much memory the program reserves without using it. It is not counted
	// where only reservations can be limited.
	Reserved  int64
	CPUs      float64 // 0: unlimited
	Processes int     // and threads; 0: unlimited
	FileSize  int64   // bytes of one file; 0: unlimited
	Files     int     // open at once; 0: the host's limit
}

// Hits counts how often a program's limits were hit.
type Hits struct {
	Memory    int64 // processes that were killed, since all together used too much
	Processes int64 // processes and threads that could not be started, since there were too many
}

// Late is what a program gets later; see [Cell.Complete].
type Late struct {
	// Dir is a directory of the host, to be shown read-only and as the program's own at
	// Plan.Late. Empty: none.
	Dir      string
	TempSize int64   // bytes of its file systems in memory
	Memory   int64   // bytes; 0: unlimited
	CPUs     float64 // 0: unlimited
}

// Bind shows a file or directory of the host.
type Bind struct {
	Source   string // absolute, on the host
	Target   string // absolute, in the program's file tree. At IsolationRestricted it is Source.
	Writable bool
	// Owned makes files of the host's user appear as the program's, and files that
	// it writes belong to the host's user. Mounts below Source are not shown.
	Owned bool
	// Lent is Owned where the file system can do that; elsewhere files are shown as
	// they are.
	Lent bool
}
