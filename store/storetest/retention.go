package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/fnkit/fnkit/store"
)

// ended are the statuses of executions that have ended.
var ended = []store.ExecutionStatus{store.ExecutionCompleted, store.ExecutionFailed, store.ExecutionCanceled}

func (s *suite) retention() {
	add := func(id, function string, change func(*store.Execution)) {
		x := s.execution(id, function)
		x.CreatedAt, x.UpdatedAt = past(1), past(2)
		change(&x)
		s.append(x)
	}
	add("old", "f", func(*store.Execution) {})
	add("failed", "f", func(x *store.Execution) { x.Status = store.ExecutionFailed })
	add("canceled", "f", func(x *store.Execution) { x.Status = store.ExecutionCanceled })
	add("waiting", "f", func(x *store.Execution) { x.Status, x.ReadyAt, x.Payload = store.ExecutionWaiting, at(1), []byte("p") })
	add("working", "f", func(x *store.Execution) { x.Status, x.ReadyAt = store.ExecutionProcessing, at(1) })
	add("ran-late", "f", func(x *store.Execution) { x.UpdatedAt = past(10) })
	add("young", "f", func(x *store.Execution) { x.CreatedAt, x.UpdatedAt = past(10), past(10) })
	add("of-another", "g", func(*store.Execution) {})
	other := s.execution("old", "f")
	other.Project, other.CreatedAt, other.UpdatedAt = s.project+"-other", past(1), past(2)
	s.append(other)
	log := store.LogRef{Project: s.project, Kind: store.ExecutionLog, ID: "old"}
	s.must(s.AppendLogs(s.ctx, log, []store.LogChunk{{At: at(1), Data: []byte("x")}}))

	remove := func(limit int, statuses ...store.ExecutionStatus) int {
		s.Helper()
		n, err := s.DeleteExecutions(s.ctx, s.project, "f", past(10), limit, statuses...)
		s.must(err)
		return n
	}
	if n := remove(10, store.ExecutionCanceled); n != 1 {
		s.Errorf("%d canceled ones removed", n)
	}
	for i, want := range []int{1, 1, 0} {
		if n := remove(1, ended...); n != want {
			s.Errorf("batch %d removed %d, want %d", i, n, want)
		}
	}
	left, err := s.ListExecutions(s.ctx, s.project, "f", "", store.Query{})
	s.must(err)
	var ids []string
	for _, x := range left {
		ids = append(ids, x.ID)
	}
	slices.Sort(ids)
	s.same("left", ids, []string{"ran-late", "waiting", "working", "young"})
	s.must(second(s.GetExecution(s.ctx, s.project, "g", "of-another")))
	s.must(second(s.GetExecution(s.ctx, other.Project, "f", "old")))
	if chunks, err := s.ReadLogs(s.ctx, log, 0, 10); err != nil || len(chunks) > 0 {
		s.Errorf("%d chunks are left, %v", len(chunks), err)
	}
	s.nextFunctions()
}

// nextFunctions pages through the functions of all projects.
func (s *suite) nextFunctions() {
	for i := range 5 {
		f := s.function(fmt.Sprint("f", i))
		f.Project = fmt.Sprint(s.project, "-", i%2)
		s.create(f)
		far := *s
		far.project = f.Project
		for n := range i {
			x := far.execution(fmt.Sprint(f.ID, "x", n), f.ID)
			x.CreatedAt, x.UpdatedAt = past(50-n), past(60)
			far.append(x)
			d := far.deployment(fmt.Sprint(f.ID, "d", n), f.ID)
			far.createDeployment(d)
		}
	}
	var seen []string
	after := int64(0)
	for {
		page, err := s.NextFunctions(s.ctx, after, 2)
		if s.must(err); len(page) > 2 {
			s.Fatalf("%d functions", len(page))
		}
		for _, f := range page {
			if f.Seq <= after {
				s.Fatalf("seq %d after %d", f.Seq, after)
			}
			if after = f.Seq; f.Project == s.project+"-0" || f.Project == s.project+"-1" {
				stock := fmt.Sprint(f.Deployments)
				if !f.Oldest.IsZero() {
					stock += " since " + f.Oldest.Sub(past(0)).String()
				}
				seen = append(seen, f.Project[len(s.project):]+"/"+f.ID+" "+stock)
			}
		}
		if len(page) == 0 {
			break
		}
	}
	s.same("functions", seen, []string{"-0/f0 0", "-1/f1 1 since 50s", "-0/f2 2 since 49s", "-1/f3 3 since 48s", "-0/f4 4 since 47s"})
}

func (s *suite) oldDeployments() {
	f := s.function("f")
	f.Deployment = "d1"
	s.create(f)
	s.create(s.function("g"))
	for i, status := range []store.DeploymentStatus{
		store.DeploymentFailed, store.DeploymentReady, store.DeploymentReady, store.DeploymentUploading, store.DeploymentBuilding,
		store.DeploymentCanceled, store.DeploymentReady, store.DeploymentFailed, store.DeploymentReady, store.DeploymentFailed,
	} {
		d := s.deployment(fmt.Sprint("d", i), "f")
		d.CreatedAt, d.Status = past(i), status
		s.createDeployment(d)
		d.ID, d.FunctionID = fmt.Sprint("g", i), "g"
		s.createDeployment(d)
	}
	old := func(keep, limit int) []string {
		s.Helper()
		ids, err := s.OldDeployments(s.ctx, s.project, "f", keep, limit)
		s.must(err)
		return ids
	}
	s.same("older than the newest", old(1, 10), []string{"d0", "d2", "d5", "d6", "d7"})
	s.same("older than two", old(2, 10), []string{"d0", "d2", "d5"})
	s.same("of those one", old(2, 1), []string{"d0"})
	s.same("older than four", old(4, 10), []string{"d0"})
	s.same("older than more than there are", old(5, 10), []string(nil))
	if ids, err := s.OldDeployments(s.ctx, s.project+"-other", "f", 1, 10); err != nil || len(ids) > 0 {
		s.Errorf("of another project %v, %v", ids, err)
	}
}

func (s *suite) oldLogs() {
	long := epoch.AddDate(-10, 0, 0) // other tests write nothing so old
	ref := func(kind store.LogKind) store.LogRef {
		return store.LogRef{Project: s.project, Kind: kind, ID: "x"}
	}
	for i := range 6 {
		chunk := []store.LogChunk{{At: long.Add(time.Duration(i) * time.Second), Data: []byte{byte(i)}}}
		s.must(s.AppendLogs(s.ctx, ref(store.ExecutionLog), chunk))
		s.must(s.AppendLogs(s.ctx, ref(store.BuildLog), chunk))
	}
	for i, want := range []int{5, 3, 0} {
		n, err := s.TrimLogs(s.ctx, long.Add(4*time.Second), 5)
		if s.must(err); n != want {
			s.Errorf("batch %d removed %d, want %d", i, n, want)
		}
	}
	for _, kind := range []store.LogKind{store.ExecutionLog, store.BuildLog} {
		if left, err := s.ReadLogs(s.ctx, ref(kind), 0, 10); err != nil || len(left) != 2 || left[0].Data[0] != 4 {
			s.Errorf("%s: %v, %v", kind, left, err)
		}
	}
}
