package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/benbjohnson/clock"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/store"
)

// Config is everything an engine is made of. Store, Blobs, Sandbox and Keys
// are required; every other field has a default.
type Config struct {
	Store   store.Store    // records
	Blobs   store.Blobs    // source archives and artefacts
	Sandbox sandbox.Driver // runs the code; of one engine alone: Start stops the instances it finds
	Keys    Keys           // seal variables and payloads, sign the keys of executions; see Key
	Bus     events.Bus     // carries events to subscribers. Default: events.NewMemory()

	// MinIsolation is the least isolation of the sandbox that Start accepts,
	// by name: "full", "userns", "restricted" or "none". Default: "restricted".
	MinIsolation string
	// Dir is a directory of the engine's own for unpacked code, and for packages that builds
	// downloaded: Start empties it but for those, and fails while another engine that
	// lives has it. Default: a temporary one, removed by Stop, or by a later Start if the
	// process died.
	Dir string

	Clock  clock.Clock          // Default: the machine's
	Logger *slog.Logger         // Default: none
	Meter  metric.MeterProvider // Default: none
	Tracer trace.TracerProvider // a span for each call of a function. Default: none
	// MeterFunctions has metrics name the project and the function: there are as
	// many series then as functions. Default: they do not.
	MeterFunctions bool

	// SyncViaQueue lets an engine that was not started take synchronous calls: they go
	// through the queue, before all that nobody waits for, to an engine that was, and
	// run there once or not at all. Queued work's limits hold for them: they wait for
	// room, for up to Limits.SyncTimeout. Where engines do not hear of each other's work
	// (SQLite) they begin within Work.Poll. Default: they are refused, with
	// general_service_unavailable.
	SyncViaQueue bool

	Limits    Limits    // sizes and durations a client can reach
	Instances Instances // how many instances live, and how long
	Work      Work      // the queue's workers
	Retention Retention // how long what is over is kept
	Hooks     Hooks     // what only the host knows
	Identity  Identity  // what functions are told about this server
}

// Limits bound what comes from outside. A zero field takes its default.
type Limits struct {
	SourceSize        int64         // bytes of a source archive. Default: 30 000 000
	UnpackedSize      int64         // bytes of an unpacked archive. Default: 1 GiB
	UnpackedFiles     int           // entries of an archive. Default: 200 000
	ArtefactSize      int64         // bytes of a packed artefact. Default: 2 000 000 000
	UploadPause       time.Duration // an upload in parts that stands still for so long is given up, within a day. Default: 24 h
	Timeout           int           // seconds a function may ask for. Default: 900
	BuildTimeout      time.Duration // Default: 900 s
	PackageCache      int64         // bytes of packages that one function's builds downloaded, kept on this machine for the next; more are not. A file or folder counts as 4 KiB at least. All functions together have 10 GiB. Default: 1 GiB; negative: none are kept
	SyncTimeout       time.Duration // how long a synchronous caller waits. Default: 30 s
	StartTimeout      time.Duration // how long an instance may take to be able to serve. Default: 30 s
	RequestBody       int           // bytes of an execution's body. Default: 10 485 760
	ResponseBody      int           // bytes of a response kept whole, for the API. Default: 20 MiB
	LogSize           int           // bytes kept of each of an execution's logs and errors, and of a build's log. Default: 1 000 000
	Followers         int           // who follow logs at once, through one engine. Default: 1000
	Variables         int           // per function. Default: 1000
	Queued            int           // executions of one function in the queue, about; more are refused. Default: 100 000. Those of events and schedules are not
	IdempotencyWindow time.Duration // how long an idempotency key is remembered. Default: 24 h
	Chain             int           // how many functions may cause one another's executions through events. Default: 8
	Environment       int           // bytes of a function's variables together, as JSON. Default: 768 KiB, what drivers can hand over
	CPUs              float64       // of a specification. Default: no cap
	Memory            int           // MB of a specification. Default: no cap
}

// Instances says how many instances may live at once. A zero field takes its default.
type Instances struct {
	Max           int           // in all. Default: 16 × CPUs
	PerProject    int           // Default: Max
	PerDeployment int           // Default: 4
	Concurrency   int           // calls of one instance at once, at most; the runtime may allow fewer. Default: 100
	Waiting       int           // callers waiting for an instance of one deployment; more are refused. Default: 1000
	Wait          time.Duration // how long a caller waits for an instance, its start included. Default: 15 s
	Idle          time.Duration // an instance without a call for so long is stopped. Default: 60 s
	// Spares is how many processes the sandbox may keep ready for each runtime, at most,
	// so that a cold start takes milliseconds. There are as many as were needed lately: one for each
	// cold start, half as many every five minutes, none after a while. Default: 4; negative: none.
	Spares int
}

// DefaultSpares is that of Instances.Spares.
const DefaultSpares = 4

// Work configures the workers of the queue. A zero field takes its default.
type Work struct {
	Runs         int           // queued executions running at once. Default: 64
	Builds       int           // builds running at once. Default: half the CPUs, at least 1
	Lease        time.Duration // after this long without a sign of life a worker's rows go to another. Default: 30 s; at least 1 s
	Losses       int           // workers an execution may lose, because they die while it runs, before it is given up. Default: 20
	Poll         time.Duration // how often to look for work that other engines accepted. Default: 1 s
	MaxStaleness time.Duration // how old what an engine knows of a function may be, when another engine changed it. Default: 1 s
	Grace        time.Duration // how long after a function's timeout its process is killed. Default: 1 s
}

// Retention says how long records are kept that are over. Any engine on the
// store removes them, in small batches. A zero field takes its default, and a
// negative one keeps for ever. ProjectLimits may say otherwise for a project.
type Retention struct {
	// Executions is how long an execution is kept, with its logs, from when it
	// was created or ended, whichever is later. Default: 14 days.
	Executions time.Duration
	// Deployments is how many of a function's newest ready deployments are kept;
	// older ones go with their archives, whether or not their build succeeded.
	// The active one stays, and what is not built yet. Default: all are kept.
	Deployments int
	// Every is how often it is looked, the first time at Start. Default: 1 h.
	// Keys that have expired and old chunks of logs go at the same time.
	Every time.Duration
}

// Hooks are what only the host knows. Each may be nil.
type Hooks struct {
	// Projects says whether a project exists, and its quotas. An error that is
	// an *Error is answered as it is. Default: every project exists, without quotas.
	Projects func(ctx context.Context, project string) (ProjectLimits, error)
	// UserToken mints the token handed to an execution that a user caused.
	// Default: none is handed out.
	UserToken func(ctx context.Context, project string, user Actor, ttl time.Duration) (string, error)
	// Locate says where an IP address is. Default: unknown.
	Locate func(ip string) Location
	// ProjectVariables returns the variables all functions of a project share;
	// a function's own win. It is asked again before a call once what is known
	// is older than Work.MaxStaleness. Default: none.
	ProjectVariables func(ctx context.Context, project string) (map[string]string, error)
	// Payload encodes a Function, Deployment or Execution for an event, as the
	// host's API shows it; httpapi.EncodeRecord does. Default: an empty object.
	Payload func(record any) (json.RawMessage, error)
	// Events is the tree of the event names that functions can listen to and
	// Trigger takes. Default: DefaultEvents().
	Events map[string]Resource
	// Runtimes lists the ids of the runtimes that functions may use. Default: all that the sandbox has.
	Runtimes []string
}

// ProjectLimits are the quotas of one project. Zero fields do not limit.
type ProjectLimits struct {
	Functions int // functions that may exist
	Instances int // instances that may live at once, within Instances.PerProject
	// Concurrency is how many executions of the project run at once and Rate how
	// fast they begin: of queued ones over all engines, which wait; of synchronous
	// ones on each engine, which are refused.
	Concurrency int
	Rate        Rate
	// Retention takes the place of the engine's where it is not zero; Every is ignored.
	Retention Retention
}

// Location is where a client is.
type Location struct {
	Country   string // ISO 3166-1 alpha-2, lower case; empty: unknown
	Continent string // two letters, lower case; empty: unknown
	EU        bool
}

// Identity is what functions are told about the server they run on.
type Identity struct {
	Endpoint string // of the API, for a function that calls back. Default: "http://localhost/v1"
	Host     string // Host header of an execution whose caller gave none. Default: "localhost"
	Region   string // Default: "default"
	Version  string // of the API. Default: WireVersion
}

// WireVersion is the version of the Appwrite API that the wire speaks.
const WireVersion = "1.6.2"

// withDefaults returns the configuration with every field set.
func (c Config) withDefaults() Config {
	cpus := runtime.NumCPU()
	c.MinIsolation = cmp.Or(c.MinIsolation, sandbox.IsolationRestricted.String())
	if c.Bus == nil {
		c.Bus = events.NewMemory()
	}
	if c.Clock == nil {
		c.Clock = clock.New()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Hooks.Events == nil {
		c.Hooks.Events = DefaultEvents()
	}
	c.Limits = c.Limits.withDefaults()
	in := &c.Instances
	in.Max = cmp.Or(in.Max, 16*cpus)
	in.PerProject = cmp.Or(in.PerProject, in.Max)
	in.PerDeployment = cmp.Or(in.PerDeployment, 4)
	in.Concurrency = cmp.Or(in.Concurrency, 100)
	in.Waiting = cmp.Or(in.Waiting, 1000)
	in.Wait = cmp.Or(in.Wait, 15*time.Second)
	in.Idle = cmp.Or(in.Idle, time.Minute)
	in.Spares = cmp.Or(in.Spares, DefaultSpares)
	w := &c.Work
	w.Runs = cmp.Or(w.Runs, 64)
	w.Builds = cmp.Or(w.Builds, max(1, cpus/2))
	w.Lease = cmp.Or(w.Lease, 30*time.Second)
	w.Losses = cmp.Or(w.Losses, 20)
	w.Poll = cmp.Or(w.Poll, time.Second)
	w.MaxStaleness = cmp.Or(w.MaxStaleness, time.Second)
	w.Grace = cmp.Or(w.Grace, time.Second)
	c.Retention.Executions = cmp.Or(c.Retention.Executions, 14*24*time.Hour)
	c.Retention.Deployments = cmp.Or(c.Retention.Deployments, -1)
	c.Retention.Every = cmp.Or(c.Retention.Every, time.Hour)
	id := &c.Identity
	id.Endpoint = cmp.Or(id.Endpoint, "http://localhost/v1")
	id.Host = cmp.Or(id.Host, "localhost")
	id.Region = cmp.Or(id.Region, "default")
	id.Version = cmp.Or(id.Version, WireVersion)
	return c
}

func (l Limits) withDefaults() Limits {
	l.SourceSize = cmp.Or(l.SourceSize, 30_000_000)
	l.UnpackedSize = cmp.Or(l.UnpackedSize, 1<<30)
	l.UnpackedFiles = cmp.Or(l.UnpackedFiles, 200_000)
	l.ArtefactSize = cmp.Or(l.ArtefactSize, 2_000_000_000)
	l.UploadPause = cmp.Or(l.UploadPause, 24*time.Hour)
	l.Timeout = cmp.Or(l.Timeout, 900)
	l.BuildTimeout = cmp.Or(l.BuildTimeout, 900*time.Second)
	l.PackageCache = cmp.Or(l.PackageCache, 1<<30)
	l.SyncTimeout = cmp.Or(l.SyncTimeout, 30*time.Second)
	l.StartTimeout = cmp.Or(l.StartTimeout, 30*time.Second)
	l.RequestBody = cmp.Or(l.RequestBody, 10_485_760)
	l.ResponseBody = cmp.Or(l.ResponseBody, 20<<20)
	l.LogSize = cmp.Or(l.LogSize, 1_000_000)
	l.Followers = cmp.Or(l.Followers, 1000)
	l.Variables = cmp.Or(l.Variables, 1000)
	l.Queued = cmp.Or(l.Queued, 100_000)
	l.IdempotencyWindow = cmp.Or(l.IdempotencyWindow, 24*time.Hour)
	l.Chain = cmp.Or(l.Chain, 8)
	l.Environment = cmp.Or(l.Environment, 768<<10)
	return l
}

// validate reports everything that is wrong with a configuration that has its defaults.
func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("engine: Config."+format, args...))
		}
	}
	check(c.Store != nil, "Store is missing")
	check(c.Blobs != nil, "Blobs is missing")
	check(c.Sandbox != nil, "Sandbox is missing")
	check(len(c.Keys) > 0, "Keys is missing: variables are stored sealed, see engine.Key")
	for _, k := range c.Keys {
		check(k.id != "" && len(k.secret) >= 16, "Keys: key %q needs an id and a secret of at least 16 bytes", k.id)
	}
	_, ok := isolationByName(c.MinIsolation)
	check(ok, `MinIsolation: %q is none of "full", "userns", "restricted", "none"`, c.MinIsolation)
	l := c.Limits
	for name, v := range map[string]int64{
		"Limits.SourceSize": l.SourceSize, "Limits.UnpackedSize": l.UnpackedSize, "Limits.UnpackedFiles": int64(l.UnpackedFiles),
		"Limits.ArtefactSize": l.ArtefactSize, "Limits.UploadPause": int64(l.UploadPause), "Limits.Timeout": int64(l.Timeout), "Limits.BuildTimeout": int64(l.BuildTimeout),
		"Limits.SyncTimeout": int64(l.SyncTimeout), "Limits.StartTimeout": int64(l.StartTimeout), "Limits.RequestBody": int64(l.RequestBody),
		"Limits.ResponseBody": int64(l.ResponseBody), "Limits.LogSize": int64(l.LogSize), "Limits.Followers": int64(l.Followers), "Limits.Variables": int64(l.Variables), "Limits.Environment": int64(l.Environment), "Limits.Chain": int64(l.Chain), "Limits.IdempotencyWindow": int64(l.IdempotencyWindow), "Limits.Queued": int64(l.Queued),
		"Instances.Max": int64(c.Instances.Max), "Instances.PerProject": int64(c.Instances.PerProject), "Instances.PerDeployment": int64(c.Instances.PerDeployment), "Instances.Concurrency": int64(c.Instances.Concurrency),
		"Instances.Waiting": int64(c.Instances.Waiting), "Instances.Wait": int64(c.Instances.Wait), "Instances.Idle": int64(c.Instances.Idle),
		"Work.Runs": int64(c.Work.Runs), "Work.Builds": int64(c.Work.Builds), "Work.Losses": int64(c.Work.Losses), "Work.Poll": int64(c.Work.Poll),
		"Work.MaxStaleness": int64(c.Work.MaxStaleness), "Work.Grace": int64(c.Work.Grace), "Retention.Every": int64(c.Retention.Every),
	} {
		check(v > 0, "%s: %d is not positive", name, v)
	}
	check(c.Work.Lease >= time.Second, "Work.Lease: %s is shorter than 1s", c.Work.Lease)
	check(l.CPUs >= 0 && l.Memory >= 0, "Limits.CPUs and Limits.Memory must not be negative")
	return errors.Join(errs...)
}

func isolationByName(name string) (sandbox.Isolation, bool) {
	for i := sandbox.IsolationNone; i <= sandbox.IsolationFull; i++ {
		if i.String() == name {
			return i, true
		}
	}
	return 0, false
}
