package storetest

import (
	"errors"

	"github.com/fnkit/fnkit/store"
)

// projectsApart makes the same records in two projects and sees that nothing
// of one is reached from the other.
func (s *suite) projectsApart() {
	other := *s
	other.project += "-other"
	for _, p := range []*suite{s, &other} {
		p.create(p.function("f"))
		p.createDeployment(p.deployment("d", "f"))
		_, err := p.CreateVariable(p.ctx, p.variable("v", "f", "KEY"))
		p.must(err)
		p.append(p.execution("x", "f"))
		p.must(p.AppendLogs(p.ctx, store.LogRef{Project: p.project, Kind: store.BuildLog, ID: "d"}, []store.LogChunk{{At: at(1), Data: []byte(p.project)}}))
	}
	other.create(other.function("only"))
	other.append(other.execution("only", "f"))
	_, err := s.GetFunction(s.ctx, s.project, "only")
	s.is(err, store.ErrNotFound)
	_, err = s.GetExecution(s.ctx, s.project, "f", "only")
	s.is(err, store.ErrNotFound)
	list, err := s.ListFunctions(s.ctx, s.project, store.Query{})
	if s.must(err); len(list) != 1 || list[0].Project != s.project {
		s.Errorf("listed %+v", list)
	}
	for what, count := range map[string]func() (int, error){
		"functions":   func() (int, error) { return s.CountFunctions(s.ctx, s.project, store.Query{}, 10) },
		"deployments": func() (int, error) { return s.CountDeployments(s.ctx, s.project, "f", store.Query{}, 10) },
		"executions":  func() (int, error) { return s.CountExecutions(s.ctx, s.project, "f", "", store.Query{}, 10) },
	} {
		if n, err := count(); err != nil || n != 1 {
			s.Errorf("%d %s, %v", n, what, err)
		}
	}
	_, err = s.ListExecutions(s.ctx, s.project, "f", "", store.Query{After: "only"})
	s.is(err, store.ErrCursor)
	chunks, err := s.ReadLogs(s.ctx, store.LogRef{Project: s.project, Kind: store.BuildLog, ID: "d"}, 0, 10)
	if s.must(err); len(chunks) != 1 || string(chunks[0].Data) != s.project {
		s.Errorf("logs %+v", chunks)
	}
	s.must(s.ClearActivate(s.ctx, s.project, "f", "none"))
	_, err = s.Store.DeleteFunction(s.ctx, s.project, "f")
	s.must(err)
	if d, err := s.GetDeployment(s.ctx, other.project, "f", "d"); err != nil || !d.Activate {
		s.Errorf("the other project's deployment: %+v, %v", d, err)
	}
	for _, err := range []error{
		second(s.GetFunction(s.ctx, other.project, "f")), second(s.GetVariable(s.ctx, other.project, "f", "v")),
		second(s.GetExecution(s.ctx, other.project, "f", "x")),
	} {
		s.must(err)
	}
}

// reach calls every method that changes something in a project that has
// nothing, with the names of another's records.
func (s *suite) reach() {
	s.create(s.function("f"))
	d := s.createDeployment(s.deployment("d", "f"))
	_, err := s.CreateVariable(s.ctx, s.variable("v", "f", "KEY"))
	s.must(err)
	s.append(s.waiting("x", past(1)))
	claimed := s.claim(past(1), past(10), 1)
	if len(claimed) != 1 {
		s.Fatal("nothing claimed")
	}
	log := store.LogRef{Project: s.project, Kind: store.BuildLog, ID: "d"}
	s.must(s.AppendLogs(s.ctx, log, []store.LogChunk{{At: at(1), Data: []byte("x")}}))
	before, err := s.GetFunction(s.ctx, s.project, "f")
	s.must(err)

	s.reachFrom(s.project+"-other", claimed[0])
	after, err := s.GetFunction(s.ctx, s.project, "f")
	s.must(err)
	s.same("function", after, before)
	kept, err := s.GetDeployment(s.ctx, s.project, "f", "d")
	s.must(err)
	s.same("deployment", kept, d)
	if v, err := s.GetVariable(s.ctx, s.project, "f", "v"); err != nil || v.Key != "KEY" {
		s.Errorf("variable %+v, %v", v, err)
	}
	if x, err := s.GetExecution(s.ctx, s.project, "f", "x"); err != nil || x.Status != store.ExecutionProcessing || !x.ReadyAt.Equal(past(10)) {
		s.Errorf("execution %+v, %v", x, err)
	}
	if chunks, err := s.ReadLogs(s.ctx, log, 0, 10); err != nil || len(chunks) != 1 {
		s.Errorf("%d chunks of logs, %v", len(chunks), err)
	}
}

func (s *suite) reachFrom(other string, claimed store.Claimed[store.Execution]) {
	s.Helper()
	variable := s.variable("v", "f", "NEW")
	variable.Project = other
	for what, err := range map[string]error{
		"get function":      second(s.GetFunction(s.ctx, other, "f")),
		"revision":          second(s.FunctionRevision(s.ctx, other, "f")),
		"update function":   second(s.UpdateFunction(s.ctx, other, "f", func(*store.Function) error { return nil })),
		"delete function":   second(s.Store.DeleteFunction(s.ctx, other, "f")),
		"get deployment":    second(s.GetDeployment(s.ctx, other, "f", "d")),
		"update deployment": second(s.UpdateDeployment(s.ctx, other, "f", "d", func(*store.Deployment) error { return nil })),
		"delete deployment": s.DeleteDeployment(s.ctx, other, "f", "d"),
		"get variable":      second(s.GetVariable(s.ctx, other, "f", "v")),
		"update variable":   s.UpdateVariable(s.ctx, variable),
		"delete variable":   s.DeleteVariable(s.ctx, other, "f", "v"),
		"get execution":     second(s.GetExecution(s.ctx, other, "f", "x")),
		"delete execution":  s.DeleteExecution(s.ctx, other, "f", "x", store.ExecutionProcessing),
	} {
		if !errors.Is(err, store.ErrNotFound) {
			s.Errorf("%s of another project: %v", what, err)
		}
	}
	s.must(s.ClearActivate(s.ctx, other, "f", "none"))
	s.must(s.DeleteLogs(s.ctx, store.LogRef{Project: other, Kind: store.BuildLog, ID: "d"}))
	s.must(s.DeleteProject(s.ctx, other))
	if rows, err := s.ListVariables(s.ctx, other, []string{"f"}, 10); err != nil || len(rows) != 0 {
		s.Errorf("%d variables of another project, %v", len(rows), err)
	}
	claimed.Lease.Project = other
	if lost, err := s.Runs().Renew(s.ctx, []store.Lease{claimed.Lease}, past(99)); err != nil || len(lost) != 1 {
		s.Errorf("renewed another project's lease: %v, %v", lost, err)
	}
	claimed.Row.Status = store.ExecutionFailed
	if lost, err := s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{{Lease: claimed.Lease, Row: claimed.Row}}); err != nil || len(lost) != 1 {
		s.Errorf("settled another project's execution: %v, %v", lost, err)
	}
}
