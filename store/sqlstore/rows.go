package sqlstore

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

// Rows are records as columns: one type and two conversions for each table.

type functionRow struct {
	bun.BaseModel         `bun:"alias:f"`
	Seq                   int64 `bun:",pk,autoincrement"`
	ProjectID             string
	ID                    string
	CreatedAt             int64
	UpdatedAt             int64
	Name                  string
	Runtime               string
	Execute               string
	Events                string
	Scopes                string
	Schedule              string
	Timeout               int
	Enabled               bool
	Live                  bool
	Logging               bool
	Entrypoint            string
	Commands              string
	Specification         string
	Deployment            string
	NextRunAt             int64 `bun:",nullzero"`
	LastRunAt             int64 `bun:",nullzero"`
	Policy                string
	InstallationID        string
	ProviderRepositoryID  string
	ProviderBranch        string
	ProviderRootDirectory string
	ProviderSilentMode    bool
	Revision              int64
	Search                string
}

func newFunctionRow(f store.Function) *functionRow {
	return &functionRow{
		Seq: f.Seq, ProjectID: f.Project, ID: f.ID, CreatedAt: millis(f.CreatedAt), UpdatedAt: millis(f.UpdatedAt),
		Name: clean(f.Name), Runtime: clean(f.Runtime), Execute: list(f.Execute), Events: list(f.Events), Scopes: list(f.Scopes),
		Schedule: clean(f.Schedule), Timeout: f.Timeout, Enabled: f.Enabled, Live: f.Live, Logging: f.Logging,
		Entrypoint: clean(f.Entrypoint), Commands: clean(f.Commands), Specification: clean(f.Specification), Deployment: f.Deployment,
		NextRunAt: millis(f.NextRunAt), LastRunAt: millis(f.LastRunAt), Policy: document(f.Policy),
		InstallationID: clean(f.InstallationID), ProviderRepositoryID: clean(f.ProviderRepositoryID), ProviderBranch: clean(f.ProviderBranch),
		ProviderRootDirectory: clean(f.ProviderRootDirectory), ProviderSilentMode: f.ProviderSilentMode, Revision: f.Revision,
		Search: searchText(f.ID, f.Name, f.Runtime),
	}
}

func (r *functionRow) record() store.Function {
	return store.Function{
		Seq: r.Seq, Project: r.ProjectID, ID: r.ID, CreatedAt: moment(r.CreatedAt), UpdatedAt: moment(r.UpdatedAt),
		Name: r.Name, Runtime: r.Runtime, Execute: items[string](r.Execute), Events: items[string](r.Events), Scopes: items[string](r.Scopes),
		Schedule: r.Schedule, Timeout: r.Timeout, Enabled: r.Enabled, Live: r.Live, Logging: r.Logging,
		Entrypoint: r.Entrypoint, Commands: r.Commands, Specification: r.Specification, Deployment: r.Deployment,
		NextRunAt: moment(r.NextRunAt), LastRunAt: moment(r.LastRunAt), Policy: value[store.Policy](r.Policy),
		InstallationID: r.InstallationID, ProviderRepositoryID: r.ProviderRepositoryID, ProviderBranch: r.ProviderBranch,
		ProviderRootDirectory: r.ProviderRootDirectory, ProviderSilentMode: r.ProviderSilentMode, Revision: r.Revision,
	}
}

type deploymentRow struct {
	bun.BaseModel `bun:"alias:d"`
	Seq           int64 `bun:",pk,autoincrement"`
	ProjectID     string
	ID            string
	FunctionID    string
	CreatedAt     int64
	UpdatedAt     int64
	Type          string
	Entrypoint    string
	Commands      string
	Activate      bool
	Size          int64
	SourceBlob    string
	ChunksTotal   int
	ChunkSize     int64
	Chunks        string
	Status        string
	BuildID       string
	BuildStarted  int64 `bun:",nullzero"`
	BuildEnded    int64 `bun:",nullzero"`
	BuildLogs     string
	BuildSize     int64
	ArtefactBlob  string
	Attempt       int
	ReadyAt       int64 `bun:",nullzero"`
	Due           bool
	Losses        int
	Search        string
}

func newDeploymentRow(d store.Deployment) *deploymentRow {
	return &deploymentRow{
		Seq: d.Seq, ProjectID: d.Project, ID: d.ID, FunctionID: d.FunctionID, CreatedAt: millis(d.CreatedAt), UpdatedAt: millis(d.UpdatedAt),
		Type: d.Type, Entrypoint: clean(d.Entrypoint), Commands: clean(d.Commands), Activate: d.Activate, Size: d.Size, SourceBlob: d.SourceBlob,
		ChunksTotal: d.ChunksTotal, ChunkSize: d.ChunkSize, Chunks: list(d.Chunks), Status: string(d.Status),
		BuildID: d.BuildID, BuildStarted: millis(d.BuildStarted), BuildEnded: millis(d.BuildEnded), BuildLogs: clean(d.BuildLogs),
		BuildSize: d.BuildSize, ArtefactBlob: d.ArtefactBlob, Attempt: d.Attempt, ReadyAt: millis(d.ReadyAt), Due: due(d.ReadyAt, d.UpdatedAt),
		Losses: d.Losses, Search: searchText(d.ID, d.Entrypoint),
	}
}

func (r *deploymentRow) record() store.Deployment {
	return store.Deployment{
		Seq: r.Seq, Project: r.ProjectID, ID: r.ID, FunctionID: r.FunctionID, CreatedAt: moment(r.CreatedAt), UpdatedAt: moment(r.UpdatedAt),
		Type: r.Type, Entrypoint: r.Entrypoint, Commands: r.Commands, Activate: r.Activate, Size: r.Size, SourceBlob: r.SourceBlob,
		ChunksTotal: r.ChunksTotal, ChunkSize: r.ChunkSize, Chunks: items[int](r.Chunks), Status: store.DeploymentStatus(r.Status),
		BuildID: r.BuildID, BuildStarted: moment(r.BuildStarted), BuildEnded: moment(r.BuildEnded), BuildLogs: r.BuildLogs,
		BuildSize: r.BuildSize, ArtefactBlob: r.ArtefactBlob, Attempt: r.Attempt, ReadyAt: moment(r.ReadyAt), Losses: r.Losses,
	}
}

type variableRow struct {
	bun.BaseModel `bun:"alias:v"`
	Seq           int64 `bun:",pk,autoincrement"`
	ProjectID     string
	ID            string
	FunctionID    string
	CreatedAt     int64
	UpdatedAt     int64
	Key           string
	Sealed        []byte
}

func newVariableRow(v store.Variable) *variableRow {
	return &variableRow{
		Seq: v.Seq, ProjectID: v.Project, ID: v.ID, FunctionID: v.FunctionID, CreatedAt: millis(v.CreatedAt), UpdatedAt: millis(v.UpdatedAt),
		Key: clean(v.Key), Sealed: append([]byte{}, v.Sealed...),
	}
}

func (r *variableRow) record() store.Variable {
	return store.Variable{
		Seq: r.Seq, Project: r.ProjectID, ID: r.ID, FunctionID: r.FunctionID, CreatedAt: moment(r.CreatedAt), UpdatedAt: moment(r.UpdatedAt),
		Key: r.Key, Sealed: r.Sealed,
	}
}

// executionRow is a row of "executions"; what is only scanned is that of its row in
// "runs" while it has one.
type executionRow struct {
	bun.BaseModel      `bun:"alias:e"`
	Seq                int64 `bun:",pk,autoincrement"`
	ProjectID          string
	ID                 string
	FunctionID         string
	DeploymentID       string
	CreatedAt          int64
	UpdatedAt          int64
	UserID             string
	TriggerKind        string
	Event              string
	Status             string `bun:",scanonly"`
	RequestMethod      string
	RequestPath        string
	RequestHeaders     string
	ResponseStatusCode int
	ResponseHeaders    string
	Logs               string
	Errors             string
	Duration           int64
	ScheduledAt        int64 `bun:",nullzero"`
	Attempt            int   `bun:",scanonly"`
	ReadyAt            int64 `bun:",scanonly,nullzero"`
	Tries              int
	Losses             int `bun:",scanonly"`
	Rank               int // lower ones are claimed first
	Lane               string
}

func (r *executionRow) record() store.Execution {
	return store.Execution{
		Seq: r.Seq, Project: r.ProjectID, ID: r.ID, FunctionID: r.FunctionID, DeploymentID: r.DeploymentID,
		CreatedAt: moment(r.CreatedAt), UpdatedAt: moment(r.UpdatedAt), UserID: r.UserID, Trigger: store.Trigger(r.TriggerKind), Event: r.Event,
		Status: store.ExecutionStatus(r.Status), RequestMethod: r.RequestMethod, RequestPath: r.RequestPath, RequestHeaders: headers(r.RequestHeaders),
		ResponseStatusCode: r.ResponseStatusCode, ResponseHeaders: headers(r.ResponseHeaders), Logs: r.Logs, Errors: r.Errors,
		Duration: time.Duration(r.Duration) * time.Microsecond, ScheduledAt: moment(r.ScheduledAt), Attempt: r.Attempt, ReadyAt: moment(r.ReadyAt),
		Tries: r.Tries, Losses: r.Losses, Priority: -r.Rank, Lane: r.Lane,
	}
}

// columns are the names of the columns of rows, a pointer to a slice of them.
// Statements name them, because a later version may have added others.
func (s *Store) columns(rows any) string {
	var all []string
	for _, f := range s.db.Table(reflect.TypeOf(rows).Elem().Elem()).Fields {
		all = append(all, f.Name)
	}
	return strings.Join(all, ", ")
}

// due reports whether a row is due when it is written. One that becomes due
// later is marked when a worker comes to claim, see queue.claim.
func due(ready, now time.Time) bool { return !ready.IsZero() && !ready.After(now) }

// millis is a time as a column; the zero time is 0, which is stored as NULL.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// list is a list as a column.
func list[T any](items []T) string {
	if len(items) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(items) // strings and integers always can
	return string(b)
}

func items[T any](s string) []T {
	var out []T
	if s != "" && s != "[]" {
		_ = json.Unmarshal([]byte(s), &out) // written by list
	}
	return out
}

// document is a record or list of plain fields as JSON.
func document[T any](v T) string {
	b, _ := json.Marshal(v) // plain fields always can
	return string(b)
}

func value[T any](s string) (v T) {
	_ = json.Unmarshal([]byte(s), &v) // written by document, perhaps of a newer version
	return v
}

// headerList is a list of header fields as a column: names and values in turn.
func headerList(h []store.Header) string {
	flat := make([]string, 0, 2*len(h))
	for _, f := range h {
		flat = append(flat, clean(f.Name), clean(f.Value))
	}
	return list(flat)
}

func headers(s string) []store.Header {
	flat := items[string](s)
	var out []store.Header
	for i := 0; i+1 < len(flat); i += 2 {
		out = append(out, store.Header{Name: flat[i], Value: flat[i+1]})
	}
	return out
}

// clean makes a text that every database takes: no NUL, valid UTF-8.
func clean(s string) string {
	if strings.ContainsRune(s, 0) {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// searchText is what a search looks through: words between single spaces.
func searchText(parts ...string) string {
	words, _ := store.Words(`"` + strings.Join(parts, " ") + `"`)
	return " " + strings.Join(words, " ") + " "
}
