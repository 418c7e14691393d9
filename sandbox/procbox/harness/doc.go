// Package harness holds the programs that run user code inside an instance, one
// for each language, and the build steps of languages that are compiled.
//
// # How a harness is started
//
// As "interpreter [options] file", in an empty private directory, with standard
// input closed off, standard output and error going to the driver (they are
// shown if the process dies), the channel of package frame as file descriptor 3, and
// an environment of PATH, HOME, TMPDIR and LANG only. It sends READY at once. BIND
// brings the whole environment of the user code, PATH, HOME, TMPDIR and LANG
// included: it replaces the harness's own. The harness then changes to root, loads
// the code, and answers BOUND. It ends when the channel closes.
//
// A process that is started before it is known for whom has FNKIT_REHEARSE in its
// environment: before READY the harness may then take the time to do what the first
// call would wait for, and leaves nothing of it that user code could see.
//
// The process leads a process group of its own; workers stay in it. When the
// instance ends, all of the group is killed at once, without warning.
//
// Descriptor 3 is for the harness alone: it is marked close-on-exec, so that
// commands started by user code do not inherit it.
//
// What build commands install for Python lies in root/.fnkit/site-packages, which
// the harness puts on the module path; Ruby's bundle in root/vendor/bundle.
//
// Output of user code that is waiting to be sent is bounded: a harness drops log
// lines, and says so in a line, rather than let them fill its memory.
//
// # A process for each call
//
// PHP and Ruby run one call at a time in a process. A master owns the channel, runs
// no user code, and passes frames to workers, one for each call that runs at the
// same time. A worker serves many calls one after the other, and is loaded anew
// where one ended: a call that is reset or takes too long costs its worker only.
// PHP cannot mark a descriptor close-on-exec: what a function starts inherits its
// worker's socket, never the channel.
//
// # Compiled languages
//
// A build step turns the source into the program Dir/.fnkit/server, which is
// started in the same way, except that the environment of the user code is
// there from the start: package-level code may read it.
//
// A program that serves HTTP itself, of runtime [sandbox.Exec], has no harness.
//
// The folder golang holds the harness of Go functions, and types-for-go the module
// it shares with them: a copy, so that builds need no network, whose loggers
// hand lines to the harness instead of writing files. Functions are built with
// it whichever version of the module they ask for.
package harness

import (
	"context"
	"embed"
)

// Files are the harness programs by file name.
//
//go:embed *.cjs *.[pr]*
var Files embed.FS

// Build is what a language's own build step gets. The source may be hostile, and
// with it every name in Dir: a step opens them by [os.Root] alone.
type Build struct {
	Dir        string // absolute path of the source; becomes the artefact
	Root       string // where commands see Dir
	Entrypoint string // relative to Dir
	Scratch    string // absolute path of an empty private directory, removed after the build
	Work       string // where commands see Scratch
	Tool       string // absolute path of the compiler
	// Settings are the variables of the function that its language's step may see.
	Settings map[string]string
	// Cache is where commands see a directory for what the compiler makes, which no
	// function can write to. Empty: commands use the host user's own.
	Cache string
	// Modules is where they see one for the modules that this function's builds
	// downloaded, which its own commands cannot write to where they are confined. Empty: as Cache, or none is kept.
	Modules string
	// Run runs a command to its end, its output going to the build's log. failure
	// says how it failed ("exit status 1"), empty if it did not; err is for
	// commands that could not be run, and for ctx's end.
	Run func(ctx context.Context, c Command) (failure string, err error)
	// Fetch is Run for a command that may download, and has no Cache. Run has no network
	// then. Nil: Run may download, if the build may, or nothing is to be had.
	Fetch func(ctx context.Context, c Command) (failure string, err error)
}

// Command is one command of a build step.
type Command struct {
	Dir  string
	Args []string // the program and its arguments
	Env  []string // "K=V" beside the environment of the build
}
