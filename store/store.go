package store

import (
	"context"
	"io"
	"time"
)

// Store keeps all records of the engine. It is made of small interfaces, and
// the engine's parts take the one they need.
type Store interface {
	Records

	// Builds is the queue of deployments to build, Runs the queue of
	// executions to run.
	Builds() Queue[Deployment]
	Runs() Queue[Execution]

	Logs
	Retention

	// InTx runs fn in one transaction: all its writes become visible together
	// or not at all, and transactions behave as if they ran one after the other,
	// so that what fn has read holds until the commit. fn MUST use tx and not
	// the store, and may be run more than once (when two stood in each other's
	// way), so it must not have effects of its own. It returns fn's error, or
	// the commit's.
	InTx(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error

	// DeleteProject removes every record of the project: one call leaves
	// nothing. It may work in batches and MUST be safe to repeat.
	DeleteProject(ctx context.Context, project string) error

	// Ping reports whether the store can serve reads and writes now: it MUST write
	// something. It is called once a second at most.
	Ping(ctx context.Context) error
	Close() error
}

// Records is what can be read and written inside and outside a transaction.
type Records interface {
	Functions
	Schedules
	Keys
	Deployments
	Variables
	Executions
	Gates
}

// Tx is a transaction, see Store.InTx.
type Tx interface {
	Records

	// Builds and Runs are the queues, within the transaction.
	Builds() Queue[Deployment]
	Runs() Queue[Execution]

	// AfterCommit registers f to be called once after the transaction has
	// committed, in order of registration; never if it is rolled back.
	AfterCommit(f func())
}

// Functions keeps functions.
type Functions interface {
	// CreateFunction inserts f and returns its Seq. ErrExists if the id is taken.
	CreateFunction(ctx context.Context, f Function) (seq int64, err error)
	// GetFunction returns one function or ErrNotFound.
	GetFunction(ctx context.Context, project, id string) (Function, error)
	// UpdateFunction reads the function, calls change on it and writes it back
	// with Revision incremented, atomically; it returns what it wrote. An error
	// of change is returned as it is and nothing is written. change may be
	// called more than once.
	UpdateFunction(ctx context.Context, project, id string, change func(*Function) error) (Function, error)
	// DeleteFunction removes the function with its deployments, variables,
	// executions and logs. ErrNotFound if it does not exist. It returns the blob keys
	// that its deployments held, for the caller to delete.
	DeleteFunction(ctx context.Context, project, id string) (blobs []string, err error)
	// ListFunctions returns the functions that match q, see Query.
	ListFunctions(ctx context.Context, project string, q Query) ([]Function, error)
	// CountFunctions counts what q's filters and search match, up to max.
	CountFunctions(ctx context.Context, project string, q Query, max int) (int, error)
	// Listeners returns the functions of the project that have one of the names
	// among their Events, are enabled and have an active deployment, in order
	// of creation.
	Listeners(ctx context.Context, project string, names []string) ([]Function, error)
	// FunctionRevision is a cheap read of Function.Revision. ErrNotFound.
	FunctionRevision(ctx context.Context, project, id string) (int64, error)
}

// Schedules finds functions that are due by Function.NextRunAt.
type Schedules interface {
	// DueSchedules returns up to limit functions, of all projects, whose
	// NextRunAt is not after now, the earliest first.
	DueSchedules(ctx context.Context, now time.Time, limit int) ([]Function, error)
	// AdvanceSchedule sets LastRunAt and NextRunAt (zero: never again) of a
	// function whose NextRunAt is due, and leaves Revision alone. ErrConflict if
	// it is not, or there is no such function: of several engines that want to
	// advance one schedule from the same run, one can.
	AdvanceSchedule(ctx context.Context, project, id string, due, last, next time.Time) error
	// NextSchedule returns the earliest NextRunAt of all functions; ok is false
	// if none has one.
	NextSchedule(ctx context.Context) (at time.Time, ok bool, err error)
}

// Keys remembers for a while that something was done.
type Keys interface {
	// ClaimKey stores k, in place of one of the same Project, Kind and Name that has
	// expired at now. If one has not, it returns that and ErrExists. Within a
	// transaction the key is claimed together with what was done.
	ClaimKey(ctx context.Context, k Key, now time.Time) (held Key, err error)
	// GetKey returns the key of a Project, Kind and Name, also one that has expired,
	// or ErrNotFound.
	GetKey(ctx context.Context, project string, kind KeyKind, name string) (Key, error)
	// AnswerKey sets the Answer of the key of k's Project, Kind, Name and Value.
	// ErrNotFound if there is none.
	AnswerKey(ctx context.Context, k Key) error
	// DeleteKey removes the key of k's Project, Kind, Name and Value. One that does
	// not exist is not an error.
	DeleteKey(ctx context.Context, k Key) error
	// DeleteKeys removes up to limit keys of all projects that have expired at
	// now, and returns how many.
	DeleteKeys(ctx context.Context, now time.Time, limit int) (n int, err error)
}

// Deployments keeps deployments.
type Deployments interface {
	// CreateDeployment inserts d and returns its Seq. ErrExists if the id is taken.
	CreateDeployment(ctx context.Context, d Deployment) (seq int64, err error)
	// GetDeployment returns one deployment of the function or ErrNotFound.
	GetDeployment(ctx context.Context, project, function, id string) (Deployment, error)
	// UpdateDeployment reads the deployment, calls change on it and writes it
	// back, atomically; it returns what it wrote. An error of change is
	// returned as it is and nothing is written. change may be called more than
	// once. A worker that holds the deployment's lease writes through
	// Queue.Settle instead.
	UpdateDeployment(ctx context.Context, project, function, id string, change func(*Deployment) error) (Deployment, error)
	// DeleteDeployment removes one deployment and its logs. ErrNotFound.
	DeleteDeployment(ctx context.Context, project, function, id string) error
	// ClearActivate sets Activate to false on every deployment of the function
	// but the one named.
	ClearActivate(ctx context.Context, project, function, except string) error
	// ListDeployments returns the deployments of the function that match q, with
	// as much of their BuildLogs as PageLogs allows.
	ListDeployments(ctx context.Context, project, function string, q Query) ([]Deployment, error)
	// CountDeployments counts what q's filters and search match, up to max.
	CountDeployments(ctx context.Context, project, function string, q Query, max int) (int, error)
}

// Variables keeps variables, sealed.
type Variables interface {
	// CreateVariable inserts v, increments its function's Revision, and returns
	// v's Seq. ErrExists if the id, or the key within the function, is taken.
	CreateVariable(ctx context.Context, v Variable) (seq int64, err error)
	// GetVariable returns one variable of the function or ErrNotFound.
	GetVariable(ctx context.Context, project, function, id string) (Variable, error)
	// UpdateVariable replaces key, sealed value and UpdatedAt of an existing
	// variable and increments its function's Revision. ErrNotFound, ErrExists.
	UpdateVariable(ctx context.Context, v Variable) error
	// DeleteVariable removes a variable and increments its function's Revision.
	// ErrNotFound.
	DeleteVariable(ctx context.Context, project, function, id string) error
	// ListVariables returns up to max variables of the functions, in order of
	// creation.
	ListVariables(ctx context.Context, project string, functions []string, max int) ([]Variable, error)
}

// Executions keeps executions.
type Executions interface {
	// AppendExecutions inserts all rows or none. Rows may belong to different
	// projects. ErrExists if an id is taken. The rows are the caller's again when it
	// returns. This is the hot path: a backend should use one round trip and
	// prepared statements.
	AppendExecutions(ctx context.Context, rows []Execution) error
	// GetExecution returns one execution of the function or ErrNotFound.
	GetExecution(ctx context.Context, project, function, id string) (Execution, error)
	// DeleteExecution removes one execution, its payload and logs if its status
	// is one of statuses; ErrConflict if it has another, ErrNotFound.
	DeleteExecution(ctx context.Context, project, function, id string, statuses ...ExecutionStatus) error
	// CancelExecution makes an execution canceled, with errors as its Errors, and
	// drops its payload: the worker that holds it, if one does, loses its lease.
	// It returns the execution. ErrConflict if it is final, ErrNotFound.
	CancelExecution(ctx context.Context, project, function, id, errors string, at time.Time) (Execution, error)
	// ReplayExecution puts a dead execution back into the queue, due at at, with no
	// Tries and no Losses, and returns it. ErrConflict if it is not dead, ErrNotFound.
	ReplayExecution(ctx context.Context, project, function, id string, at time.Time) (Execution, error)
	// ListExecutions returns the executions of the function that match q.
	// reader, if not empty, restricts it to those whose UserID is reader, and
	// leaves Logs and Errors out, which no reader may see; see also PageLogs.
	ListExecutions(ctx context.Context, project, function, reader string, q Query) ([]Execution, error)
	// CountExecutions counts what q's filters and search match, up to max.
	CountExecutions(ctx context.Context, project, function, reader string, q Query, max int) (int, error)
}

// Logs keeps output that can be followed while it is produced. The records keep
// it when it has ended; chunks go some time later, see Retention.TrimLogs.
type Logs interface {
	// AppendLogs adds chunks at the end of a log, in order.
	AppendLogs(ctx context.Context, ref LogRef, chunks []LogChunk) error
	// ReadLogs returns up to limit chunks with Seq > after, in order.
	ReadLogs(ctx context.Context, ref LogRef, after int64, limit int) ([]LogChunk, error)
	// DeleteLogs removes a log. Removing one that does not exist is not an error.
	DeleteLogs(ctx context.Context, ref LogRef) error
}

// Retention finds and removes what has become old. Each call is one short
// piece of work, so that others can write in between, and several engines may do the same.
type Retention interface {
	// NextFunctions returns up to limit functions, of all projects, whose Seq is
	// greater than after, in order of Seq, with what they have that may be old. It
	// MUST read no more of that than a few entries of an index for each.
	NextFunctions(ctx context.Context, after int64, limit int) ([]FunctionStock, error)
	// DeleteExecutions removes up to limit executions of the function that have one
	// of statuses and were created and last updated before a time, with their
	// payloads and logs, and returns how many; rows that are locked by others may
	// be left out. It MUST NOT hold up claims.
	DeleteExecutions(ctx context.Context, project, function string, before time.Time, limit int, statuses ...ExecutionStatus) (n int, err error)
	// OldDeployments returns the ids of up to limit final deployments of the
	// function that are older than its keep newest ready ones, but for the active
	// one. keep is at least 1.
	OldDeployments(ctx context.Context, project, function string, keep, limit int) (ids []string, err error)
	// TrimLogs removes up to limit chunks that are from before a time, of all
	// logs of all projects, the first written first, and returns how many.
	TrimLogs(ctx context.Context, before time.Time, limit int) (n int, err error)
	// TrimRates removes up to limit buckets of rates, of all projects, that are full
	// at a time, and returns how many. One that is not there is full.
	TrimRates(ctx context.Context, at time.Time, limit int) (n int, err error)
}

// FunctionStock is what a function has that may be old.
type FunctionStock struct {
	Project, ID string
	Seq         int64     // of the function
	Oldest      time.Time // when the first of its executions was created; zero: it has none
	Deployments int       // how many it has, counted up to MaxStock
}

// MaxStock is how far NextFunctions counts.
const MaxStock = 100

// LogRef names a log.
type LogRef struct {
	Project string
	Kind    LogKind
	ID      string // of the deployment or execution
}

// LogKind says what a log belongs to.
type LogKind string

const (
	BuildLog     LogKind = "build"
	ExecutionLog LogKind = "execution"
)

// LogChunk is a piece of a log. The store assigns Seq, growing within a log.
type LogChunk struct {
	Seq    int64
	At     time.Time
	Stream string // "stdout" or "stderr"
	Data   []byte
}

// Blobs keeps source archives, upload parts and artefacts. Keys are paths of
// one or more segments of [A-Za-z0-9._-] joined by "/"; a segment is never "."
// or "..", and a key is at most 512 bytes long. A backend refuses other keys.
type Blobs interface {
	// Put stores what r yields and returns its size. The blob becomes visible
	// whole or, on any error or crash, not at all; an existing one is replaced.
	Put(ctx context.Context, key string, r io.Reader) (size int64, err error)
	// Open returns the blob and its size, or ErrNotFound. A blob that is deleted or
	// replaced while open stays readable, as long as it is being read. Reads may
	// end with ctx.
	Open(ctx context.Context, key string) (r io.ReadSeekCloser, size int64, err error)
	// Delete removes a blob; one that does not exist is not an error.
	Delete(ctx context.Context, key string) error
	// List calls fn for each blob whose key starts with prefix, in no
	// particular order, until fn returns false. It serves finding orphans.
	List(ctx context.Context, prefix string, fn func(BlobInfo) bool) error
}

// BlobInfo describes a blob.
type BlobInfo struct {
	Key      string
	Size     int64
	Modified time.Time
}
