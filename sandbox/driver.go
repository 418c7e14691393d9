package sandbox

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors of the contract; drivers wrap them, callers test with errors.Is.
var (
	// ErrGone: the instance does not exist any more: it was stopped, or killed
	// because another of its calls had to end. The call may be made again elsewhere.
	ErrGone = errors.New("sandbox: instance is gone")
	// ErrRuntime: the driver cannot run this runtime here.
	ErrRuntime = errors.New("sandbox: runtime is not available")
	// ErrNetwork: the driver does not allow this much network here, or cannot keep code from having more.
	ErrNetwork = errors.New("sandbox: network policy is not available")
	// ErrTooLarge: the request head does not fit the driver's channel.
	ErrTooLarge = errors.New("sandbox: request head too large")
)

// LoadError is what Start returns when the function's own code ended the process
// while it was loaded: a fault of the code, which starting again does not mend.
// Calls are to be answered 503.
type LoadError struct {
	Reason string // how it ended, with the end of what it printed
}

// Error implements error.
func (e *LoadError) Error() string {
	return "the code ended its process while it was loaded: " + e.Reason
}

// Driver builds deployments and runs instances of them. All methods may be
// called concurrently.
type Driver interface {
	// Capabilities says what the driver can do on this machine. It may probe
	// once and MUST be cheap afterwards.
	Capabilities(ctx context.Context) (Capabilities, error)

	// Build turns the source in spec.Dir into something Start can run, in
	// place: what the directory holds afterwards is the artefact. Output of the
	// build commands goes to logs as it is produced. A build that fails because
	// of the code or its commands is a BuildResult with Failure set. When ctx
	// ends, everything the build started is killed and ctx's error returned.
	Build(ctx context.Context, spec BuildSpec, logs io.Writer) (BuildResult, error)

	// Warm has the driver keep n spares of a runtime: processes that are started and
	// isolated, and belong to nobody yet. A Start that one fits binds it to its deployment
	// for life, with the same isolation and limits that a new process would have, in a
	// fraction of the time; another then takes its place. It sets the number; 0, as
	// before the first Warm, keeps none and ends those there are. Spares are made after
	// Warm has returned, and MUST give way to starts that are asked for. They hold nothing of any
	// project, are in no List, and end with Close. ErrRuntime if the driver cannot run the
	// runtime; where spares mean nothing, see [Runtime.Spares], it returns nil.
	Warm(ctx context.Context, runtime string, n int) error

	// Start makes an instance, bound for its life to one deployment and one
	// environment, and returns when it can serve. Code that cannot be loaded
	// does not fail Start: calls answer 503. Only code that ends the process is
	// a *LoadError. When ctx ends first, nothing is left.
	Start(ctx context.Context, spec Spec) (Instance, error)

	// Invoke makes one call and returns when all of it is over: the response
	// body went to s, logs are complete. ErrGone if the instance does not
	// exist or is killed while the call runs for another's sake.
	//
	// ctx carries only cancellation. When it ends before the call does, the
	// instance's process tree is killed, and Invoke returns ctx's error within
	// 100 ms; other calls of the instance get ErrGone. (A driver that can end
	// one call alone, for certain, does only that.) When s returns an error,
	// the call is abandoned and that error returned.
	Invoke(ctx context.Context, id string, r Request, s Sink) (Result, error)

	// Stop ends an instance; when it returns its whole process tree is gone.
	// An unknown id is not an error. Calls that run get ErrGone.
	Stop(ctx context.Context, id string) error

	// List returns the instances that live, so that an engine that restarts
	// can stop what it left behind.
	List(ctx context.Context) ([]Instance, error)

	// Close stops every instance and waits for them. It is safe to call twice.
	Close() error
}

// Capabilities describe a driver on a machine, as data.
type Capabilities struct {
	Driver    string    // name of the driver, for people
	Isolation Isolation // what separates instances from the host and each other
	Networks  []Network // the policies it can enforce, besides the default
	Limits    []string  // which of "memory", "cpu", "pids", "disk", "wall" it enforces on instances; "disk" is temporary files
	Runtimes  []Runtime // what it can run here, in the order to list them
	Notes     []string  // what is missing for more, one line each, for people
}

// Network says what code can reach. There may be more values later, such as lists of
// hosts: a driver refuses those that it does not know with ErrNetwork.
type Network string

const (
	NetworkDefault Network = ""     // what the driver is configured to allow
	NetworkNone    Network = "none" // nothing
	NetworkHost    Network = "host" // what the host can reach, its own loopback included
)

// Isolation is how well an instance is shut in. Higher is better.
type Isolation int

const (
	// IsolationNone: a plain process of the same user. Only for trusted code.
	IsolationNone Isolation = iota
	// IsolationRestricted: no new privileges, system calls and files filtered.
	IsolationRestricted
	// IsolationUserNS: own namespaces, made without privileges.
	IsolationUserNS
	// IsolationFull: own namespaces, own user, resource groups.
	IsolationFull
)

// String is the name used in configuration and reports.
func (i Isolation) String() string {
	switch i {
	case IsolationNone:
		return "none"
	case IsolationRestricted:
		return "restricted"
	case IsolationUserNS:
		return "userns"
	case IsolationFull:
		return "full"
	}
	return "unknown"
}

// BuildSpec describes one build.
type BuildSpec struct {
	ID         string // unique; for naming what the build leaves
	Runtime    string // id in the driver's Capabilities
	Dir        string // absolute path of the source; becomes the artefact
	Entrypoint string // path of the entry file, relative to Dir
	Commands   string // shell snippet run in Dir; empty: none
	Env        map[string]string
	CPUs       float64
	Memory     int64   // bytes
	Network    Network // never more than the driver is configured to allow: else ErrNetwork
	// Cache is the absolute path of a directory where package managers keep what they
	// download, for a later build that is given it again. The build's commands find it, or a
	// part of it, in XDG_CACHE_HOME and can write to it; no instance sees it. A driver shows
	// it to this build alone, and may put there what it likes. Who calls decides which builds
	// share it, never two at once, and bounds and removes it. Empty: none is kept.
	Cache string
}

// BuildResult is the outcome of a build.
type BuildResult struct {
	// Failure says why the code could not be built ("exit status 1"); empty
	// when it was.
	Failure string
}

// Spec describes one instance.
type Spec struct {
	ID         string // unique; chosen by the caller, names the instance from then on
	Project    string
	Function   string
	Deployment string
	Runtime    string            // id in the driver's Capabilities
	Dir        string            // absolute path of the artefact; read-only to the function where the driver can
	Entrypoint string            // path of the entry file, relative to Dir
	Env        map[string]string // the whole environment user code sees, besides what the runtime itself needs
	CPUs       float64
	Memory     int64   // bytes
	Network    Network // never more than the driver is configured to allow: else ErrNetwork
	// Concurrency is how many calls will be made at once at most; 0: what the
	// runtime's catalogue entry says.
	Concurrency int
}

// Instance is a running instance.
type Instance struct {
	ID          string
	Project     string
	Function    string
	Deployment  string
	Concurrency int // calls it can serve at once
}

// Request is one call.
type Request struct {
	Method  string
	Path    string    // with the query, starting with "/"
	Headers []Header  // lower-case names; several of one name are joined for the function
	Body    io.Reader // nil: none. It is read to the end or until the call is over.
	// Timeout is when the runtime itself gives up waiting for user code and
	// answers 500; 0: never. It is wall time of the runtime, not a limit on
	// what the instance may do: the caller's ctx is.
	Timeout time.Duration
	// Logging false turns Sink.Log off.
	Logging bool
}

// Header is one header field.
type Header struct {
	Name  string
	Value string
}

// Result says how a call ended.
type Result struct {
	// Crash says how the instance's process ended ("exit status 3: …") if it did
	// by itself during the call; empty otherwise. There may have been no Head.
	Crash string
	// Aborted says why the response ended before it was complete, after Head.
	Aborted string
	// TimedOut: Request.Timeout passed. Head was called with 500.
	TimedOut bool
	// Unsent, beside ErrGone: nothing of the call reached the instance, so it
	// can be made elsewhere without being made twice.
	Unsent bool
	// Retire: user code may still be running although the call is over, or the
	// instance is dead: it should get no new calls and be stopped.
	Retire bool
}

// Stream is where a log line was written.
type Stream int

const (
	Stdout Stream = 1 // context.log and native output
	Stderr Stream = 2 // context.error
)

// String is "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Flusher is a Sink that may hold back what it was given. A driver calls Flush
// when a response has begun and it must wait for more of it: what came so far
// is to go on. It does not after the last of it.
type Flusher interface{ Flush() error }

// Sink takes the response of one call. It may be a Flusher. Head comes once, before any Write. Head
// and Write are called one after the other; Log may be called at the same time
// as they are, and from several goroutines.
type Sink interface {
	// Head delivers status and headers as the function gave them, unchecked
	// but for names being lower-case.
	Head(status int, h []Header) error
	// Write delivers body bytes. While it blocks, the function's stream is held up.
	Write(p []byte) (int, error)
	// Log delivers one or more whole lines with their newlines. It MUST NOT
	// block and must copy what it keeps.
	Log(stream Stream, lines []byte)
}
