// Package storetest is the suite every store.Store and every store.Blobs passes.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fnkit/fnkit/store"
)

// Run runs the suite. open returns an empty store for one test, and closes it
// when the test ends; tests run in parallel. Stores of two tests may lie in one
// database, but must not share a queue.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*suite){
		"functions":               (*suite).functions,
		"deployments":             (*suite).deployments,
		"variables":               (*suite).variables,
		"executions":              (*suite).executions,
		"append is all or none":   (*suite).appendAll,
		"projects are apart":      (*suite).projectsApart,
		"no method reaches over":  (*suite).reach,
		"deleting leaves nothing": (*suite).deleteFunction,
		"delete project":          (*suite).deleteProject,
		"transactions":            (*suite).transactions,
		"transactions and queues": (*suite).transactionQueues,
		"transactions refused":    (*suite).refusals,
		"queries":                 (*suite).queries,
		"orders and cursors":      (*suite).cursors,
		"search":                  (*suite).search,
		"long lists":              (*suite).longLists,
		"long logs":               (*suite).longLogs,
		"durations":               (*suite).durations,
		"bad queries":             (*suite).badQueries,
		"logs":                    (*suite).logs,
		"queue":                   (*suite).queue,
		"queue is fair":           (*suite).fair,
		"queue of what comes due": (*suite).comingDue,
		"queue leases":            (*suite).leases,
		"queue takes turns":       (*suite).turns,
		"payloads":                (*suite).payloads,
		"schedules":               (*suite).schedules,
		"listeners":               (*suite).listeners,
		"keys":                    (*suite).keys,
		"retention":               (*suite).retention,
		"old deployments":         (*suite).oldDeployments,
		"old logs":                (*suite).oldLogs,
		"queue of builds":         (*suite).builds,
		"queue and lists":         (*suite).statuses,
		"cancel":                  (*suite).cancel,
		"replays":                 (*suite).replays,
		"priorities":              (*suite).priorities,
		"gates":                   (*suite).gates,
		"gates of projects":       (*suite).roomOfProject,
		"gates and rates":         (*suite).rates,
		"rates of lanes":          (*suite).ratesOfLanes,
		"claims never meet":       (*suite).claims,
		"odd texts":               (*suite).oddTexts,
		"odd texts in queries":    (*suite).oddQueries,
		"large numbers":           (*suite).largeNumbers,
		"ping":                    (*suite).ping,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newSuite(t, open(t)))
		})
	}
}

// suite is one test: a store and a project of its own.
type suite struct {
	*testing.T
	store.Store
	ctx     context.Context
	project string
}

func newSuite(t *testing.T, st store.Store) *suite {
	return &suite{T: t, Store: st, ctx: t.Context(), project: strings.ReplaceAll(t.Name(), "/", "-")}
}

// epoch is when everything happens.
var epoch = time.UnixMilli(1_700_000_000_000).UTC()

func at(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }

// must stops the test at an error.
func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) is(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("got error %v, want %v", err, want)
	}
}

func (s *suite) same(what string, got, want any) {
	s.Helper()
	if !reflect.DeepEqual(got, want) {
		s.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func (s *suite) function(id string) store.Function {
	return store.Function{
		Project: s.project, ID: id, CreatedAt: at(1), UpdatedAt: at(2), Name: "Name of " + id, Runtime: "node-20.0",
		Execute: []string{"any", "user:u"}, Events: []string{"users.*.create"}, Scopes: []string{"users.read"}, Schedule: "0 3 * * *", Timeout: 15,
		Enabled: true, Live: true, Logging: true, Entrypoint: "index.js", Commands: "npm install", Specification: "s-1vcpu-512mb",
		NextRunAt: at(100), Policy: store.Policy{TimeZone: "Europe/Berlin", CatchUp: store.CatchUpSkip}, InstallationID: "i", ProviderRepositoryID: "r", ProviderBranch: "b", ProviderRootDirectory: "d", ProviderSilentMode: true, Revision: 1,
	}
}

func (s *suite) create(f store.Function) store.Function {
	s.Helper()
	seq, err := s.CreateFunction(s.ctx, f)
	s.must(err)
	f.Seq = seq
	return f
}

func (s *suite) functions() {
	f := s.create(s.function("f"))
	got, err := s.GetFunction(s.ctx, s.project, "f")
	s.must(err)
	s.same("function", got, f)
	_, err = s.CreateFunction(s.ctx, s.function("f"))
	s.is(err, store.ErrExists)
	if g := s.create(s.function("g")); g.Seq <= f.Seq {
		s.Errorf("seq %d after %d", g.Seq, f.Seq)
	}

	changed, err := s.UpdateFunction(s.ctx, s.project, "f", func(f *store.Function) error {
		f.Name, f.Execute, f.NextRunAt, f.Enabled = "new", nil, time.Time{}, false
		return nil
	})
	s.must(err)
	f.Name, f.Execute, f.NextRunAt, f.Enabled, f.Revision = "new", nil, time.Time{}, false, 2
	s.same("what UpdateFunction returns", changed, f)
	got, err = s.GetFunction(s.ctx, s.project, "f")
	s.must(err)
	s.same("after the update", got, f)

	refusal := errors.New("refused")
	_, err = s.UpdateFunction(s.ctx, s.project, "f", func(f *store.Function) error { f.Name = "lost"; return refusal })
	s.is(err, refusal)
	revision, err := s.FunctionRevision(s.ctx, s.project, "f")
	if s.must(err); revision != 2 {
		s.Errorf("revision %d after a refused update, want 2", revision)
	}
	_, err = s.UpdateFunction(s.ctx, s.project, "none", func(*store.Function) error { return nil })
	s.is(err, store.ErrNotFound)
	_, err = s.GetFunction(s.ctx, s.project, "none")
	s.is(err, store.ErrNotFound)
	_, err = s.FunctionRevision(s.ctx, s.project, "none")
	s.is(err, store.ErrNotFound)
	_, err = s.DeleteFunction(s.ctx, s.project, "none")
	s.is(err, store.ErrNotFound)
}

func (s *suite) deployment(id, function string) store.Deployment {
	return store.Deployment{
		Project: s.project, ID: id, FunctionID: function, CreatedAt: at(1), UpdatedAt: at(2), Type: "manual", Entrypoint: "index.js", Commands: "make",
		Activate: true, Size: 12, SourceBlob: "sources/" + id, ChunksTotal: 3, ChunkSize: 5, Chunks: []int{2, 0}, Status: store.DeploymentWaiting,
		BuildID: "b-" + id, BuildStarted: at(3), BuildEnded: at(4), BuildLogs: "log", BuildSize: 7, ArtefactBlob: "artefacts/" + id, ReadyAt: at(5),
	}
}

func (s *suite) createDeployment(d store.Deployment) store.Deployment {
	s.Helper()
	seq, err := s.CreateDeployment(s.ctx, d)
	s.must(err)
	d.Seq = seq
	return d
}

func (s *suite) deployments() {
	s.create(s.function("f"))
	s.create(s.function("g"))
	d := s.createDeployment(s.deployment("d", "f"))
	got, err := s.GetDeployment(s.ctx, s.project, "f", "d")
	s.must(err)
	s.same("deployment", got, d)
	_, err = s.CreateDeployment(s.ctx, s.deployment("d", "g"))
	s.is(err, store.ErrExists)
	_, err = s.GetDeployment(s.ctx, s.project, "g", "d")
	s.is(err, store.ErrNotFound)

	changed, err := s.UpdateDeployment(s.ctx, s.project, "f", "d", func(d *store.Deployment) error {
		d.Chunks = append(d.Chunks, 1)
		d.Attempt = 99 // is the queue's
		return nil
	})
	s.must(err)
	d.Chunks = []int{2, 0, 1}
	s.same("what UpdateDeployment returns", changed, d)
	_, err = s.UpdateDeployment(s.ctx, s.project, "g", "d", func(*store.Deployment) error { return nil })
	s.is(err, store.ErrNotFound)

	s.createDeployment(s.deployment("e", "f"))
	s.createDeployment(s.deployment("other", "g"))
	s.must(s.ClearActivate(s.ctx, s.project, "f", "e"))
	for id, want := range map[string]bool{"d": false, "e": true} {
		got, err := s.GetDeployment(s.ctx, s.project, "f", id)
		if s.must(err); got.Activate != want {
			s.Errorf("activate of %s is %v", id, got.Activate)
		}
	}
	if other, err := s.GetDeployment(s.ctx, s.project, "g", "other"); err != nil || !other.Activate {
		s.Errorf("another function's deployment: %v, %v", other.Activate, err)
	}
	s.is(s.DeleteDeployment(s.ctx, s.project, "g", "d"), store.ErrNotFound)
	s.must(s.DeleteDeployment(s.ctx, s.project, "f", "d"))
	_, err = s.GetDeployment(s.ctx, s.project, "f", "d")
	s.is(err, store.ErrNotFound)
}

func (s *suite) variable(id, function, key string) store.Variable {
	return store.Variable{Project: s.project, ID: id, FunctionID: function, CreatedAt: at(1), UpdatedAt: at(2), Key: key, Sealed: []byte{0, 1, 255}}
}

func (s *suite) variables() {
	s.create(s.function("f"))
	s.create(s.function("g"))
	revision := func(want int64) {
		s.Helper()
		if got, err := s.FunctionRevision(s.ctx, s.project, "f"); err != nil || got != want {
			s.Errorf("revision %d, %v; want %d", got, err, want)
		}
	}
	v := s.variable("v", "f", "KEY")
	seq, err := s.CreateVariable(s.ctx, v)
	s.must(err)
	v.Seq = seq
	revision(2)
	got, err := s.GetVariable(s.ctx, s.project, "f", "v")
	s.must(err)
	s.same("variable", got, v)
	_, err = s.CreateVariable(s.ctx, s.variable("w", "f", "KEY"))
	s.is(err, store.ErrExists)
	_, err = s.CreateVariable(s.ctx, s.variable("w", "g", "KEY"))
	s.must(err)
	_, err = s.GetVariable(s.ctx, s.project, "f", "w")
	s.is(err, store.ErrNotFound)
	_, err = s.CreateVariable(s.ctx, s.variable("x", "f", "OTHER"))
	s.must(err)
	revision(3)
	s.is(s.UpdateVariable(s.ctx, s.variable("x", "f", "KEY")), store.ErrExists)
	s.is(s.UpdateVariable(s.ctx, s.variable("x", "g", "NEW")), store.ErrNotFound)
	revision(3)
	s.must(s.UpdateVariable(s.ctx, s.variable("x", "f", "NEW")))
	revision(4)
	all, err := s.ListVariables(s.ctx, s.project, []string{"f", "g"}, 10)
	s.must(err)
	var keys []string
	for _, v := range all {
		keys = append(keys, v.FunctionID+"/"+v.Key)
	}
	s.same("variables", keys, []string{"f/KEY", "g/KEY", "f/NEW"})
	if two, err := s.ListVariables(s.ctx, s.project, []string{"f", "g"}, 2); err != nil || len(two) != 2 {
		s.Errorf("at most 2: %d, %v", len(two), err)
	}
	if none, err := s.ListVariables(s.ctx, s.project, nil, 2); err != nil || len(none) != 0 {
		s.Errorf("of no function: %d, %v", len(none), err)
	}
	s.is(s.DeleteVariable(s.ctx, s.project, "g", "x"), store.ErrNotFound)
	s.must(s.DeleteVariable(s.ctx, s.project, "f", "x"))
	revision(5)
}

func (s *suite) execution(id, function string) store.Execution {
	return store.Execution{
		Project: s.project, ID: id, FunctionID: function, DeploymentID: "d", CreatedAt: at(1), UpdatedAt: at(2), UserID: "u",
		Trigger: store.TriggerEvent, Event: "users.u.create", Status: store.ExecutionCompleted, RequestMethod: "POST", RequestPath: "/?a=b",
		RequestHeaders: []store.Header{{Name: "Host", Value: "h"}}, ResponseStatusCode: 200,
		ResponseHeaders: []store.Header{{Name: "content-type", Value: "a"}, {Name: "content-type", Value: "b"}},
		Logs:            "logs\n", Errors: "errors\n", Duration: 1234567 * time.Microsecond, ScheduledAt: at(9),
	}
}

func (s *suite) append(rows ...store.Execution) {
	s.Helper()
	s.must(s.AppendExecutions(s.ctx, rows))
}

func (s *suite) executions() {
	s.create(s.function("f"))
	x := s.execution("x", "f")
	s.append(x)
	got, err := s.GetExecution(s.ctx, s.project, "f", "x")
	s.must(err)
	x.Seq = got.Seq
	s.same("execution", got, x)
	_, err = s.GetExecution(s.ctx, s.project, "g", "x")
	s.is(err, store.ErrNotFound)
	s.is(s.DeleteExecution(s.ctx, s.project, "f", "x", store.ExecutionScheduled), store.ErrConflict)
	s.is(s.DeleteExecution(s.ctx, s.project, "g", "x", store.ExecutionCompleted), store.ErrNotFound)
	s.must(s.DeleteExecution(s.ctx, s.project, "f", "x", store.ExecutionScheduled, store.ExecutionCompleted))
	_, err = s.GetExecution(s.ctx, s.project, "f", "x")
	s.is(err, store.ErrNotFound)
}

func (s *suite) appendAll() {
	s.append(s.execution("a", "f"), s.execution("b", "f"))
	s.is(s.AppendExecutions(s.ctx, []store.Execution{s.execution("c", "f"), s.execution("a", "f"), s.execution("d", "f")}), store.ErrExists)
	n, err := s.CountExecutions(s.ctx, s.project, "f", "", store.Query{}, 100)
	if s.must(err); n != 2 {
		s.Errorf("%d executions after a batch that failed, want 2", n)
	}
	s.must(s.AppendExecutions(s.ctx, nil))
}

func second[T any](_ T, err error) error { return err }

func (s *suite) deleteFunction() {
	s.create(s.function("f"))
	s.create(s.function("g"))
	s.createDeployment(s.deployment("d", "f"))
	pending := s.deployment("pending", "f")
	pending.SourceBlob, pending.ArtefactBlob = "", ""
	s.createDeployment(pending)
	_, err := s.CreateVariable(s.ctx, s.variable("v", "f", "KEY"))
	s.must(err)
	waiting := s.execution("x", "f")
	waiting.Status, waiting.ReadyAt, waiting.Payload = store.ExecutionWaiting, at(1), []byte("sealed")
	s.append(waiting, s.execution("kept", "g"))
	s.append(s.many(2100, "f")...)
	log := store.LogRef{Project: s.project, Kind: store.BuildLog, ID: "d"}
	s.must(s.AppendLogs(s.ctx, log, []store.LogChunk{{At: at(1), Data: []byte("x")}}))

	blobs, err := s.Store.DeleteFunction(s.ctx, s.project, "f")
	s.must(err)
	slices.Sort(blobs)
	s.same("blobs", blobs, []string{"artefacts/d", "sources/d"})
	s.is(second(s.GetDeployment(s.ctx, s.project, "f", "d")), store.ErrNotFound)
	s.is(second(s.GetVariable(s.ctx, s.project, "f", "v")), store.ErrNotFound)
	s.is(second(s.GetExecution(s.ctx, s.project, "f", "x")), store.ErrNotFound)
	if chunks, err := s.ReadLogs(s.ctx, log, 0, 10); err != nil || len(chunks) > 0 {
		s.Errorf("%d chunks of logs are left, %v", len(chunks), err)
	}
	s.must(second(s.GetExecution(s.ctx, s.project, "g", "kept")))
	s.create(s.function("f"))
	if n, err := s.CountExecutions(s.ctx, s.project, "f", "", store.Query{}, 10); err != nil || n != 0 {
		s.Errorf("a new function of the id has %d executions, %v", n, err)
	}
	s.append(waiting) // nothing of the old one is in its way
}

// many are executions with distinct ids.
func (s *suite) many(n int, function string) []store.Execution {
	rows := make([]store.Execution, n)
	for i := range rows {
		rows[i] = s.execution(fmt.Sprintf("many%05d", i), function)
		rows[i].CreatedAt = at(i)
	}
	return rows
}

func (s *suite) deleteProject() {
	s.create(s.function("f"))
	s.append(s.many(2100, "f")...)
	s.createDeployment(s.deployment("d", "f"))
	_, err := s.CreateVariable(s.ctx, s.variable("v", "f", "KEY"))
	s.must(err)
	s.append(s.execution("x", "f"))
	for range 2 {
		s.must(s.DeleteProject(s.ctx, s.project))
	}
	s.is(second(s.GetFunction(s.ctx, s.project, "f")), store.ErrNotFound)
	s.is(second(s.GetDeployment(s.ctx, s.project, "f", "d")), store.ErrNotFound)
	s.is(second(s.GetVariable(s.ctx, s.project, "f", "v")), store.ErrNotFound)
	s.is(second(s.GetExecution(s.ctx, s.project, "f", "x")), store.ErrNotFound)
}

func (s *suite) logs() {
	ref := store.LogRef{Project: s.project, Kind: store.ExecutionLog, ID: "x"}
	s.must(s.AppendLogs(s.ctx, ref, nil))
	for i := range 5 {
		s.must(s.AppendLogs(s.ctx, ref, []store.LogChunk{
			{At: at(i), Stream: "stdout", Data: []byte{byte(i), 0, 255}}, {At: at(i), Stream: "stderr", Data: []byte("e")},
		}))
	}
	s.must(s.AppendLogs(s.ctx, store.LogRef{Project: s.project, Kind: store.BuildLog, ID: "x"}, []store.LogChunk{{At: at(1), Data: []byte("other kind")}}))
	first, err := s.ReadLogs(s.ctx, ref, 0, 3)
	if s.must(err); len(first) != 3 || string(first[2].Data) != "\x01\x00\xff" || first[1].Stream != "stderr" || !first[2].At.Equal(at(1)) {
		s.Fatalf("%+v", first)
	}
	rest, err := s.ReadLogs(s.ctx, ref, first[2].Seq, 100)
	if s.must(err); len(rest) != 7 || rest[0].Seq <= first[2].Seq {
		s.Errorf("%d chunks behind the third", len(rest))
	}
	s.must(s.DeleteLogs(s.ctx, ref))
	s.must(s.DeleteLogs(s.ctx, ref))
	if left, err := s.ReadLogs(s.ctx, ref, 0, 10); err != nil || len(left) != 0 {
		s.Errorf("%d chunks are left, %v", len(left), err)
	}
}

// odd is a text that some databases refuse, and some programs take for
// something else.
const odd = "nul \x00, bad \xff\xc3, quote ' \" ` ; ? ?0 $1 :a -- \\ \\' % _ {} \r\n /ü?☃🚀"

// plain reports whether s is what a store makes of odd: valid, without NUL, and
// otherwise the same.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.Contains(s, "\x00") && strings.HasPrefix(s, "nul ") && strings.HasSuffix(s, odd[strings.Index(odd, ", quote"):])
}

// oddTexts: no text fails a record, or a batch with others.
func (s *suite) oddTexts() {
	f := s.function("f")
	f.Name, f.Entrypoint, f.Commands, f.Runtime, f.Schedule, f.Specification = odd, odd, odd, odd, odd, odd
	f.InstallationID, f.ProviderRepositoryID, f.ProviderBranch, f.ProviderRootDirectory = odd, odd, odd, odd
	f.Execute, f.Events = []string{odd}, []string{"it's ?0 \\ %s", odd}
	s.create(f)
	got, err := s.GetFunction(s.ctx, s.project, "f")
	s.must(err)
	for _, text := range []string{got.Name, got.Entrypoint, got.Commands, got.Runtime, got.Schedule, got.Specification,
		got.InstallationID, got.ProviderRepositoryID, got.ProviderBranch, got.ProviderRootDirectory} {
		if !plain(text) {
			s.Errorf("a text of a function became %q", text)
		}
	}
	if len(got.Execute) != 1 || len(got.Events) != 2 || got.Events[0] != f.Events[0] {
		s.Errorf("lists became %q and %q", got.Execute, got.Events)
	}

	d := s.deployment("d", "f")
	d.Entrypoint, d.Commands, d.BuildLogs = odd, odd, odd
	s.createDeployment(d)
	if got, err := s.GetDeployment(s.ctx, s.project, "f", "d"); err != nil || !plain(got.Entrypoint) || !plain(got.Commands) || !plain(got.BuildLogs) {
		s.Errorf("deployment %+v, %v", got, err)
	}
	v := s.variable("v", "f", odd)
	v.Sealed = []byte(odd)
	s.must(second(s.CreateVariable(s.ctx, v)))
	if got, err := s.GetVariable(s.ctx, s.project, "f", "v"); err != nil || !plain(got.Key) || string(got.Sealed) != odd {
		s.Errorf("variable %+v, %v", got, err)
	}

	x := s.execution("x", "f")
	x.Logs, x.Errors, x.RequestPath, x.RequestMethod, x.Event, x.UserID = odd, odd, odd, odd, odd, odd
	x.RequestHeaders, x.Payload = []store.Header{{Name: odd, Value: odd}}, []byte(odd)
	x.Status, x.ReadyAt = store.ExecutionWaiting, past(1)
	s.append(x, s.execution("y", "f"))
	claimed := s.claim(past(1), past(10), 1)
	if len(claimed) != 1 || string(claimed[0].Row.Payload) != odd || !plain(claimed[0].Row.Logs) || !plain(claimed[0].Row.RequestHeaders[0].Value) {
		s.Fatalf("claimed %+v", claimed)
	}
	c := claimed[0]
	c.Row.Status, c.Row.ReadyAt, c.Row.Logs, c.Row.Errors, c.Row.ResponseHeaders = store.ExecutionFailed, time.Time{}, odd+"!", odd, x.RequestHeaders
	lost, err := s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{store.Settlement[store.Execution](c)})
	if s.must(err); len(lost) > 0 {
		s.Errorf("lost %v", lost)
	}
	done, err := s.GetExecution(s.ctx, s.project, "f", "x")
	s.must(err)
	for _, text := range []string{strings.TrimSuffix(done.Logs, "!"), done.Errors, done.RequestPath, done.RequestMethod, done.Event, done.UserID,
		done.RequestHeaders[0].Name, done.ResponseHeaders[0].Value} {
		if !plain(text) {
			s.Errorf("a text of an execution became %q", text)
		}
	}
}

// oddQueries: no text of a query fails a list, and what a store made of a text
// is found by the text.
func (s *suite) oddQueries() {
	f := s.function("f")
	f.Name, f.Entrypoint = odd, odd
	s.create(f)
	s.create(s.function("g"))
	for _, attr := range []string{"name", "entrypoint"} {
		for _, op := range []store.Op{store.Equal, store.StartsWith, store.EndsWith, store.Contains} {
			q := store.Query{Filters: []store.Filter{{Op: op, Attr: attr, Values: []any{odd}}}}
			if got, err := s.ListFunctions(s.ctx, s.project, q); err != nil || len(got) != 1 {
				s.Errorf("%s by %s: %v, %v", attr, op, functionIDs(got), err)
			}
		}
		for _, part := range []string{"\x00", "\xff", "☃", "'", `\`, `"`, "%", "_", "?0", "{}", "\r\n"} {
			q := store.Query{Filters: []store.Filter{{Op: store.Contains, Attr: attr, Values: []any{part}}}}
			if got, err := s.ListFunctions(s.ctx, s.project, q); err != nil || len(got) != 1 {
				s.Errorf("%s contains %q: %v, %v", attr, part, functionIDs(got), err)
			}
		}
	}
	for _, search := range []string{odd, `"` + odd + `"`, "☃ü", "qqq\x00", "%%%", "___"} {
		if _, err := s.ListFunctions(s.ctx, s.project, store.Query{Search: search}); err != nil {
			s.Errorf("search for %q: %v", search, err)
		}
	}
	s.is(second(s.ListFunctions(s.ctx, s.project, store.Query{After: odd})), store.ErrCursor)
	if n, err := s.CountExecutions(s.ctx, s.project, "f", odd, store.Query{}, 10); err != nil || n != 0 {
		s.Errorf("a reader of an odd name sees %d, %v", n, err)
	}
}

// largeNumbers: numbers and times of any size are kept, and compared with.
func (s *suite) largeNumbers() {
	f := s.function("f")
	f.Timeout, f.NextRunAt = math.MaxInt64, time.UnixMilli(253_402_300_799_999).UTC() // the year 9999
	f.CreatedAt = time.UnixMilli(-1).UTC()
	f = s.create(f)
	got, err := s.GetFunction(s.ctx, s.project, "f")
	s.must(err)
	s.same("function", got, f)
	d := s.deployment("d", "f")
	d.Size, d.BuildSize, d.ChunkSize, d.ChunksTotal = math.MaxInt64, math.MaxInt64-1, 1<<40, 1<<40
	d = s.createDeployment(d)
	kept, err := s.GetDeployment(s.ctx, s.project, "f", "d")
	s.must(err)
	s.same("deployment", kept, d)
	x := s.execution("x", "f")
	x.Duration, x.ResponseStatusCode = 100*365*24*time.Hour, 1<<40
	s.append(x)
	for _, c := range []struct {
		op    store.Op
		value any
		want  int
	}{
		{store.Equal, int64(math.MaxInt64), 0}, {store.GreaterThan, int64(math.MinInt64), 1}, {store.LessThan, int64(math.MaxInt64), 1},
		{store.LessThan, 1e300, 1}, {store.GreaterThan, -1e300, 1}, {store.Equal, math.MaxFloat64, 0}, {store.LessThan, math.Inf(1), 1},
		{store.Equal, math.SmallestNonzeroFloat64, 0}, {store.GreaterThan, 0.1, 1}, {store.Equal, x.Duration.Seconds(), 1},
	} {
		q := store.Query{Filters: []store.Filter{{Op: c.op, Attr: "duration", Values: []any{c.value}}}}
		if n, err := s.CountExecutions(s.ctx, s.project, "f", "", q, 10); err != nil || n != c.want {
			s.Errorf("duration %s %v: %d, %v", c.op, c.value, n, err)
		}
	}
	for value, want := range map[int64]int{math.MaxInt64: 1, math.MinInt64: 0, 1 << 40: 0} {
		q := store.Query{Filters: []store.Filter{{Op: store.Equal, Attr: "timeout", Values: []any{value}}}}
		if n, err := s.CountFunctions(s.ctx, s.project, q, 10); err != nil || n != want {
			s.Errorf("timeout %d: %d, %v", value, n, err)
		}
	}
	_, err = s.CountExecutions(s.ctx, s.project, "f", "", store.Query{Filters: []store.Filter{{Op: store.Equal, Attr: "duration", Values: []any{math.NaN()}}}}, 10)
	s.is(err, store.ErrQuery)
}

func (s *suite) ping() { s.must(s.Ping(s.ctx)) }
