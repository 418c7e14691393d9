package store

import "time"

// Function is the settings of one function. ID is unique within its project.
type Function struct {
	Project string
	ID      string
	// Seq is the creation sequence within the store. The store assigns it on
	// insert; it never changes and orders records created in one millisecond.
	Seq       int64
	CreatedAt time.Time
	UpdatedAt time.Time

	Name          string
	Runtime       string
	Execute       []string // roles that may execute
	Events        []string // event patterns that trigger it
	Scopes        []string // scopes of the key handed to each execution
	Schedule      string   // five-field cron; empty: none
	Timeout       int      // seconds
	Enabled       bool
	Live          bool // false: settings changed since the active deployment was made
	Logging       bool
	Entrypoint    string
	Commands      string
	Specification string
	Deployment    string // id of the active deployment; empty: none

	// NextRunAt is when Schedule is due next; zero: not at all, see Schedules.
	// LastRunAt is the run before.
	NextRunAt time.Time
	LastRunAt time.Time
	Policy    Policy

	// Source control. InstallationID is the account the repository belongs to.
	InstallationID        string
	ProviderRepositoryID  string
	ProviderBranch        string
	ProviderRootDirectory string
	ProviderSilentMode    bool

	// Revision counts the changes a running instance must see: settings,
	// active deployment, variables. Every UpdateFunction and every write of a
	// variable increments it; it is part of the instance key.
	Revision int64
}

// Policy is how a function is run beyond what its settings say. The zero value
// is the default. A store keeps it as one value that it does not look into.
type Policy struct {
	TimeZone string  `json:"timeZone,omitempty"` // of Schedule, a name of the IANA database. Default: UTC
	CatchUp  CatchUp `json:"catchUp,omitempty"`  // Default: CatchUpOnce
	Retry    Retry   `json:"retry,omitzero"`     // Default: a failed execution is not run again
	Priority int     `json:"priority,omitempty"` // of its executions within the project: higher ones are run first. Default: 0

	// Concurrency is how many executions of the function run at once, and
	// LaneConcurrency how many of those with the same Lane: of queued ones over all
	// engines, of synchronous ones on each. Rate and LaneRate are how fast they begin,
	// in the same way. 0: no limit.
	Concurrency     int  `json:"concurrency,omitempty"`
	LaneConcurrency int  `json:"laneConcurrency,omitempty"`
	Rate            Rate `json:"rate,omitzero"`
	LaneRate        Rate `json:"laneRate,omitzero"`

	Network string `json:"network,omitempty"` // what its code can reach: "none" or "host". Default: what the sandbox is configured to allow
}

// Retry says what becomes of queued executions that fail.
type Retry struct {
	// Attempts is how often one is run at most. If the last run fails too it
	// becomes a dead letter, which keeps its request to be replayed. 0: it is run
	// once, and its request is dropped when that fails.
	Attempts int `json:"attempts,omitempty"`
	// Backoff is the time in seconds before the second run; it doubles with every
	// further one up to MaxBackoff. Half of it is random. 0: a default of the engine.
	Backoff    int `json:"backoff,omitempty"`
	MaxBackoff int `json:"maxBackoff,omitempty"`
	// On are the failures after which it is run again, the others are final at
	// once. Empty: all.
	On []Failure `json:"on,omitempty"`
}

// Failure is a way in which a run fails.
type Failure string

const (
	FailureError   Failure = "error"   // the code threw, or answered with a status of 500 or more
	FailureTimeout Failure = "timeout" // it took longer than the function's Timeout
	FailureCrash   Failure = "crash"   // its process ended
)

// CatchUp says what becomes of runs of a schedule that were missed because no
// engine was there.
type CatchUp string

const (
	CatchUpOnce CatchUp = "once" // one run for all of them
	CatchUpSkip CatchUp = "skip" // none
	CatchUpAll  CatchUp = "all"  // each of them, the latest ones if they are many
)

// Key says that something was done under a name, see Keys.
type Key struct {
	Project   string
	Kind      KeyKind
	Name      string // chosen by whoever did it, up to 512 bytes
	Value     string // what came of it
	ExpiresAt time.Time
	Answer    []byte // what was answered in the end, sealed by the engine; nil: nothing yet
}

// KeyKind says what the names of keys are.
type KeyKind string

const (
	EventKey     KeyKind = "event"     // ids of events that were triggered
	ExecutionKey KeyKind = "execution" // idempotency keys of executions
)

// Deployment is one version of a function's code together with its build:
// each deployment is built at most once.
type Deployment struct {
	Project    string
	ID         string
	FunctionID string
	Seq        int64
	CreatedAt  time.Time
	UpdatedAt  time.Time

	Type       string // "manual", "cli" or "vcs"
	Entrypoint string
	Commands   string
	Activate   bool   // becomes the active deployment when its build is ready
	Size       int64  // bytes of the source archive; announced total while parts are missing
	SourceBlob string // key in Blobs; empty while parts are missing

	// ChunksTotal and Chunks describe an upload in parts: how many there are,
	// how many bytes each has but the last, and which (from 0) have arrived.
	ChunksTotal int
	ChunkSize   int64
	Chunks      []int

	Status       DeploymentStatus
	BuildID      string // empty until a worker took the build
	BuildStarted time.Time
	BuildEnded   time.Time
	BuildLogs    string // complete when the build has ended; see Logs for a running one
	BuildSize    int64  // bytes of the artefact
	ArtefactBlob string // key in Blobs; empty until ready

	// Attempt, ReadyAt and Losses belong to the queue, see Queue.
	Attempt int
	ReadyAt time.Time
	Losses  int
}

// DeploymentStatus is the state of a deployment's build:
//
//	uploading → waiting → processing → building → ready | failed
//
// with canceled reachable from all but ready and failed.
type DeploymentStatus string

const (
	DeploymentUploading  DeploymentStatus = "uploading"  // parts are missing; not yet queued
	DeploymentWaiting    DeploymentStatus = "waiting"    // queued
	DeploymentProcessing DeploymentStatus = "processing" // claimed by a worker
	DeploymentBuilding   DeploymentStatus = "building"   // build commands are running
	DeploymentReady      DeploymentStatus = "ready"
	DeploymentFailed     DeploymentStatus = "failed"
	DeploymentCanceled   DeploymentStatus = "canceled"
)

// Final reports whether the status never changes any more.
func (s DeploymentStatus) Final() bool {
	return s == DeploymentReady || s == DeploymentFailed || s == DeploymentCanceled
}

// Variable is one environment variable of a function, as a store may see it:
// the value is sealed.
type Variable struct {
	Project    string
	ID         string
	FunctionID string
	Seq        int64
	CreatedAt  time.Time
	UpdatedAt  time.Time
	Key        string // unique within its function
	Sealed     []byte // the value, encrypted by the engine
}

// Execution is one run of a function.
type Execution struct {
	Project      string
	ID           string
	FunctionID   string
	DeploymentID string
	Seq          int64
	CreatedAt    time.Time
	UpdatedAt    time.Time

	UserID  string // the user who may read it; empty: none
	Trigger Trigger
	Event   string // most specific event name, for TriggerEvent
	Status  ExecutionStatus

	RequestMethod      string
	RequestPath        string
	RequestHeaders     []Header // the allow-listed ones
	ResponseStatusCode int
	ResponseHeaders    []Header // the allow-listed ones
	Logs               string
	Errors             string
	Duration           time.Duration // kept to the microsecond
	ScheduledAt        time.Time     // one-off schedule

	// Lane names what shall not run beside each other, see Room; chosen by the
	// caller, up to 255 characters. Empty: nothing.
	Lane     string
	Tries    int // runs that failed, see Retry
	Priority int // of those of a project that are due, the ones with higher priorities are claimed first

	// Attempt, ReadyAt and Losses belong to the queue, see Queue.
	Attempt int
	ReadyAt time.Time
	Losses  int

	// Payload is what a worker needs to run the execution (request body, all
	// headers), sealed by the engine. It is not part of the row: a store keeps
	// it beside, writes it on insert when it is not nil, hands it out in Claim
	// only, and drops it when the execution becomes final, but for a dead one.
	Payload []byte
}

// ExecutionStatus is the state of an execution:
//
//	scheduled → waiting → processing → completed | failed | dead
//
// with canceled reachable from those that are not final, and waiting again from
// processing, for a retry, and from dead, by a replay. A synchronous execution
// is stored once, when it is final.
type ExecutionStatus string

const (
	ExecutionScheduled  ExecutionStatus = "scheduled" // waits for ScheduledAt
	ExecutionWaiting    ExecutionStatus = "waiting"   // queued
	ExecutionProcessing ExecutionStatus = "processing"
	ExecutionCompleted  ExecutionStatus = "completed"
	ExecutionFailed     ExecutionStatus = "failed"
	ExecutionCanceled   ExecutionStatus = "canceled"
	ExecutionDead       ExecutionStatus = "dead" // failed as often as it may; the request is kept
)

// Final reports whether the status never changes any more.
func (s ExecutionStatus) Final() bool {
	return s == ExecutionCompleted || s == ExecutionFailed || s == ExecutionCanceled || s == ExecutionDead
}

// Trigger is what caused an execution.
type Trigger string

const (
	TriggerHTTP     Trigger = "http"
	TriggerSchedule Trigger = "schedule"
	TriggerEvent    Trigger = "event"
)

// Header is one header field of a request or response.
type Header struct {
	Name  string
	Value string
}
