// Package storetest is the suite every store.Store and every store.Blobs passes.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
		"queue leases":            (*suite).leases,
		"queue takes turns":       (*suite).turns,
		"payloads":                (*suite).payloads,
		"schedules":               (*suite).schedules,
		"listeners":               (*suite).listeners,
		"keys":                    (*suite).keys,
		"queue of builds":         (*suite).builds,
		"cancel":                  (*suite).cancel,
		"claims never meet":       (*suite).claims,
		"odd texts":               (*suite).oddTexts,
		"ping":                    (*suite).ping,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&suite{T: t, Store: open(t), ctx: t.Context(), project: strings.ReplaceAll(t.Name(), "/", "-")})
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

// oddTexts are texts that some databases refuse; one must not fail a batch.
func (s *suite) oddTexts() {
	x := s.execution("x", "f")
	x.Logs, x.RequestPath = "nul \x00, bad \xff, quote ' \" ; ? ?0 :a --", "/ü?☃"
	s.append(x, s.execution("y", "f"))
	got, err := s.GetExecution(s.ctx, s.project, "f", "x")
	s.must(err)
	if !strings.Contains(got.Logs, "quote ' \" ; ? ?0 :a --") || strings.Contains(got.Logs, "\x00") || got.RequestPath != x.RequestPath {
		s.Errorf("logs %q, path %q", got.Logs, got.RequestPath)
	}
	f := s.function("f")
	f.Name = "it's ?0 \\ %s"
	s.create(f)
	if got, err := s.GetFunction(s.ctx, s.project, "f"); err != nil || got.Name != f.Name {
		s.Errorf("name %q, %v", got.Name, err)
	}
}

func (s *suite) ping() { s.must(s.Ping(s.ctx)) }
