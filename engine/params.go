package engine

import (
	"io"
	"time"

	"github.com/fnkit/fnkit/events"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/store"
)

// Records, as the store defines them.
type (
	Function         = store.Function
	Deployment       = store.Deployment
	DeploymentStatus = store.DeploymentStatus
	Execution        = store.Execution
	Tx               = store.Tx
	ExecutionStatus  = store.ExecutionStatus
	Header           = store.Header
	Runtime          = sandbox.Runtime
	Event            = events.Event
	Pattern          = events.Pattern
	BlobInfo         = store.BlobInfo
	Policy           = store.Policy
	CatchUp          = store.CatchUp
	Retry            = store.Retry
	Failure          = store.Failure
	Rate             = store.Rate
)

// What becomes of runs of a schedule that were missed.
const (
	CatchUpOnce = store.CatchUpOnce
	CatchUpSkip = store.CatchUpSkip
	CatchUpAll  = store.CatchUpAll
)

// UniqueID, given as the id of a new record, asks for a generated one. So does
// an empty id.
const UniqueID = "unique()"

// MaxTotal is where the totals of lists stop counting.
const MaxTotal = 5000

// List is a page of records. Total counts all that match, up to MaxTotal.
type List[T any] struct {
	Total int
	Items []T
}

// FunctionParams are the settings of a function. The zero value of every
// optional field is its default.
type FunctionParams struct {
	ID            string // on create; empty or UniqueID: generated
	Name          string // 1 to 128 characters
	Runtime       string // id of a runtime; on update, empty keeps it
	Execute       []string
	Events        []string
	Schedule      string // five-field cron; empty: none. It runs while the function is enabled and has an active deployment
	Timeout       int    // seconds. Default: 15
	Disabled      bool
	NoLogging     bool
	Entrypoint    string // on update, empty keeps it
	Commands      string
	Scopes        []string
	Specification string // slug. Default: DefaultSpecification

	InstallationID        string
	ProviderRepositoryID  string
	ProviderBranch        string
	ProviderSilentMode    bool
	ProviderRootDirectory string
	// Policy says how the function is run beyond that.
	Policy PolicyParams
	// Template deploys a template at create.
	Template Template
}

// DefaultTimeout is the timeout of a function that asks for none, in seconds.
const DefaultTimeout = 15

// Template names the code a function starts with.
type Template struct{ Repository, Owner, RootDirectory, Version string }

// DeployParams describe a source archive to deploy.
type DeployParams struct {
	// Source is a gzipped tar with the code at its root. Size is its length in
	// bytes, or -1 if unknown.
	Source io.Reader
	Size   int64
	// Activate makes the deployment the active one when its build is ready,
	// unless a newer one is active by then.
	Activate   bool
	Entrypoint string  // Default: the function's
	Commands   *string // Default (nil): the function's
	Type       string  // "manual" (default), "cli"
}

// Chunk is one part of a source archive that comes in parts. Source holds the bytes
// Start to End (inclusive) of Total.
type Chunk struct {
	DeployParams
	DeploymentID      string // empty in the first part that arrives, unless the caller chose it
	Start, End, Total int64
}

// Source is an open source archive; the caller closes it.
type Source struct {
	io.ReadSeekCloser
	Size     int64 // bytes
	Modified time.Time
}

// ExecuteParams describe a request to a function.
type ExecuteParams struct {
	Method  string // Default: "GET" without a body, else "POST"
	Path    string // with the query. Default: "/"
	Headers []Header
	Body    []byte
	// Async queues the execution and returns at once. ScheduledAt, in the
	// future, queues it for then; it needs Async.
	Async       bool
	ScheduledAt time.Time
	// IdempotencyKey, of up to 255 characters, makes repeating the call safe: within
	// Limits.IdempotencyWindow, calls of one caller with one key execute the
	// function once and get the same answer, also after a crash. Empty: each call
	// is one of its own.
	IdempotencyKey string
	// Lane, of up to 255 characters, names what shall not run beside each other,
	// such as a customer: as many executions of the function with the same lane run
	// at once as its Policy.LaneConcurrency says, and begin as fast as LaneRate says.
	// Empty: none.
	Lane string
	// Priority of a queued execution within the project: those with higher ones are run
	// first. Users and guests can ask for less than the function's. Default (nil): the
	// function's.
	Priority *int
	ClientIP string
}

// TriggerParams describe an event of the host's.
type TriggerParams struct {
	// ID names the event: the same one within a day is accepted once. Default:
	// each call is an event of its own.
	ID string
	// Name says what happened, with ids and the action, such as
	// "users.U.sessions.S.create" or "users.U.update.email".
	Name string
	// Payload is the record it happened to, as JSON: the body of the executions.
	// Default: [].
	Payload []byte
}

// ExecuteResult is an execution and, if it was synchronous, its whole answer.
type ExecuteResult struct {
	Execution
	ResponseHeaders []Header // all of them
	ResponseBody    []byte
	// Repeated: the answer is that of an earlier call with the same IdempotencyKey.
	Repeated bool
}

// StreamRequest is a request to a function whose answer is passed on as it is produced.
type StreamRequest struct {
	Method   string
	Path     string // with the query
	Headers  []Header
	Body     io.Reader // at most Limits.RequestBody bytes are read
	ClientIP string
}

// ResponseWriter takes an answer while the function produces it: the head
// once, then the body. It may hold back what it was given until Flush, which is
// called when more is to come and is not there yet.
type ResponseWriter interface {
	Head(status int, headers []Header) error
	Write(p []byte) (int, error)
	Flush() error
}

// Variable is one environment variable of a function.
type Variable struct {
	Project    string
	ID         string
	FunctionID string
	CreatedAt  time.Time
	UpdatedAt  time.Time
	Key        string
	Value      string
}
