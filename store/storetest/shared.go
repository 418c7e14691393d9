package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/store"
)

// RunShared runs the suite of several engines on one database. open returns n
// stores on an empty one, and closes them when the test ends; tests run in
// parallel.
func RunShared(t *testing.T, open func(t *testing.T, n int) []store.Store) {
	for name, test := range map[string]func(*suite, []store.Store){
		"claims of many engines":      (*suite).engines,
		"updates of many engines":     (*suite).updatesAtOnce,
		"transactions as one by one":  (*suite).serial,
		"transactions in each's way":  (*suite).crossing,
		"leases across engines":       (*suite).takeover,
		"a log of two writers":        (*suite).twoWriters,
		"what one writes others read": (*suite).readOthers,
		"wakes":                       (*suite).wakes,
		"admissions of many engines":  (*suite).admissions,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stores := open(t, 3)
			test(newSuite(t, stores[0]), stores)
		})
	}
}

// on is the same test through another store.
func (s *suite) on(other store.Store) *suite {
	o := *s
	o.Store = other
	return &o
}

// engines: workers of several engines claim rows of many projects, settle
// some, and let the leases of others end, as if they had died. Each row is
// settled once, whoever claimed it before.
func (s *suite) engines(stores []store.Store) {
	const projects, each = 20, 30
	var rows []store.Execution
	for i := range projects {
		p := *s
		p.project += fmt.Sprintf("-%02d", i)
		for j := range each {
			rows = append(rows, p.waiting(fmt.Sprintf("x%03d", j), past(j%5)))
		}
	}
	s.append(rows...)
	var mu sync.Mutex
	claims, settled := map[store.Lease]int{}, map[string]int{}
	now := 10
	var wg sync.WaitGroup
	for i := range 3 * len(stores) {
		q := stores[i%len(stores)].Runs()
		wg.Go(func() {
			for after := ""; ; {
				mu.Lock()
				now++
				at, done := past(now), len(settled) == len(rows)
				mu.Unlock()
				if done {
					return
				}
				claimed, err := q.Claim(s.ctx, store.ClaimParams{Now: at, LeaseUntil: at.Add(20 * time.Second), Limit: 7, After: after})
				if err != nil {
					s.Error(err)
					return
				}
				var finished []store.Settlement[store.Execution]
				mu.Lock()
				for j, c := range claimed {
					claims[c.Lease]++
					after = c.Lease.Project
					if string(c.Row.Payload) != "sealed "+c.Row.ID {
						s.Errorf("claimed %s with payload %q", c.Row.ID, c.Row.Payload)
					}
					if (i+j+c.Lease.Attempt)%4 != 0 { // the others are lost with their worker
						c.Row.Status, c.Row.ReadyAt = store.ExecutionCompleted, time.Time{}
						finished = append(finished, store.Settlement[store.Execution](c))
					}
				}
				mu.Unlock()
				lost, err := q.Settle(s.ctx, finished)
				if err != nil {
					s.Error(err)
					return
				}
				mu.Lock()
				for _, d := range finished {
					settled[d.Lease.Project+"/"+d.Lease.ID]++
				}
				for _, l := range lost {
					settled[l.Project+"/"+l.ID]--
				}
				for id, n := range settled {
					if n == 0 {
						delete(settled, id)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for l, n := range claims {
		if n != 1 {
			s.Errorf("%+v was handed out %d times", l, n)
		}
	}
	for id, n := range settled {
		if n != 1 {
			s.Errorf("%s was settled %d times", id, n)
		}
	}
	if _, ok, err := s.Runs().NextDue(s.ctx); err != nil || ok {
		s.Errorf("rows are left in the queue: %v, %v", ok, err)
	}
}

// updatesAtOnce: of updates at once none is lost.
func (s *suite) updatesAtOnce(stores []store.Store) {
	s.create(s.function("f"))
	s.createDeployment(s.deployment("d", "f"))
	var wg sync.WaitGroup
	for i := range 24 {
		o := s.on(stores[i%len(stores)])
		wg.Go(func() {
			_, err1 := o.UpdateFunction(o.ctx, o.project, "f", func(f *store.Function) error { f.Timeout++; return nil })
			_, err2 := o.UpdateDeployment(o.ctx, o.project, "f", "d", func(d *store.Deployment) error { d.Chunks = append(d.Chunks, i); return nil })
			_, err3 := o.CreateVariable(o.ctx, o.variable(fmt.Sprint("v", i), "f", fmt.Sprint("K", i)))
			if err := errors.Join(err1, err2, err3); err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	f, err := s.GetFunction(s.ctx, s.project, "f")
	if s.must(err); f.Timeout != 15+24 || f.Revision != 1+2*24 {
		s.Errorf("timeout %d after 24 increments of 15, revision %d", f.Timeout, f.Revision)
	}
	d, err := s.GetDeployment(s.ctx, s.project, "f", "d")
	if s.must(err); len(d.Chunks) != 2+24 {
		s.Errorf("chunks %v", d.Chunks)
	}
}

// serial: a transaction that looks before it writes sees what others wrote, or
// is run again. A limit that each checks for itself holds.
func (s *suite) serial(stores []store.Store) {
	const limit = 25
	full := errors.New("full")
	var wg sync.WaitGroup
	for i := range 4 * len(stores) {
		o := s.on(stores[i%len(stores)])
		wg.Go(func() {
			var err error
			for j := 0; err == nil; j++ {
				err = o.InTx(o.ctx, func(ctx context.Context, tx store.Tx) error {
					n, err := tx.CountFunctions(ctx, o.project, store.Query{}, 100)
					if err == nil && n >= limit {
						err = full
					}
					if err != nil {
						return err
					}
					_, err = tx.CreateFunction(ctx, o.function(fmt.Sprintf("f%d-%d", i, j)))
					return err
				})
			}
			if err != full {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	if n, err := s.CountFunctions(s.ctx, s.project, store.Query{}, 100); err != nil || n != limit {
		s.Errorf("%d functions where %d are the limit, %v", n, limit, err)
	}
}

// crossing: transactions that want the same rows in another order all get
// through, and what they are told to do after the commit is done once.
func (s *suite) crossing(stores []store.Store) {
	for _, id := range []string{"a", "b", "c"} {
		s.create(s.function(id))
	}
	order := [][]string{{"a", "b", "c"}, {"c", "b", "a"}}
	const n = 6
	var mu sync.Mutex
	committed := 0
	var wg sync.WaitGroup
	for i := range n {
		o := s.on(stores[i%len(stores)])
		wg.Go(func() {
			err := o.InTx(o.ctx, func(ctx context.Context, tx store.Tx) error {
				tx.AfterCommit(func() { mu.Lock(); committed++; mu.Unlock() })
				for _, id := range order[i%len(order)] {
					if _, err := tx.UpdateFunction(ctx, o.project, id, func(f *store.Function) error { f.Timeout++; return nil }); err != nil {
						return fmt.Errorf("as a caller may wrap it: %w", err)
					}
				}
				return nil
			})
			if err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range []string{"a", "b", "c"} {
		if f, err := s.GetFunction(s.ctx, s.project, id); err != nil || f.Timeout != 15+n {
			s.Errorf("%s has timeout %d after %d increments of 15, %v", id, f.Timeout, n, err)
		}
	}
	if committed != n {
		s.Errorf("%d of %d were told of their commit", committed, n)
	}
}

// takeover: an engine that slept through its lease cannot overwrite the one
// that took over, one settlement lost does not fail the others, and the same
// row twice in one batch is settled once.
func (s *suite) takeover(stores []store.Store) {
	s.append(s.waiting("slow", past(1)), s.waiting("fine", past(1)))
	slept := s.claim(past(1), past(10), 2)
	awake := s.on(stores[1])
	if taken := awake.claim(past(10), past(20), 1); len(taken) != 1 || taken[0].Lease.Attempt != 2 {
		s.Fatalf("took over %+v", taken)
	}
	var late []store.Settlement[store.Execution]
	for _, c := range slept {
		c.Row.Status, c.Row.ReadyAt, c.Row.Logs = store.ExecutionCompleted, time.Time{}, "first"
		late = append(late, store.Settlement[store.Execution](c))
	}
	for _, c := range slept {
		c.Row.Status, c.Row.ReadyAt, c.Row.Logs = store.ExecutionFailed, time.Time{}, "second"
		late = append(late, store.Settlement[store.Execution](c))
	}
	lost, err := s.Runs().Settle(s.ctx, late)
	if s.must(err); len(lost) != 3 {
		s.Errorf("lost %v, want one of two rows, and both the second time", lost)
	}
	done := 0
	for _, id := range []string{"slow", "fine"} {
		x, err := awake.GetExecution(s.ctx, s.project, "f", id)
		if s.must(err); x.Status == store.ExecutionCompleted && x.Logs == "first" {
			done++
		} else if x.Status != store.ExecutionProcessing || x.Logs != "" || x.Attempt != 2 {
			s.Errorf("%+v", x)
		}
	}
	if done != 1 {
		s.Errorf("%d of the late settlements counted", done)
	}
}

// twoWriters: who follows a log while two append to it misses nothing.
func (s *suite) twoWriters(stores []store.Store) {
	ref := store.LogRef{Project: s.project, Kind: store.ExecutionLog, ID: "x"}
	const each = 100
	var wg sync.WaitGroup
	for i := range 2 {
		o := s.on(stores[i])
		wg.Go(func() {
			for j := range each {
				if err := o.AppendLogs(o.ctx, ref, []store.LogChunk{{At: at(j), Data: []byte{byte(i)}}, {At: at(j), Data: []byte{byte(i)}}}); err != nil {
					s.Error(err)
					return
				}
			}
		})
	}
	seen, after := 0, int64(0)
	reader := s.on(stores[len(stores)-1])
	for seen < 2*2*each && s.ctx.Err() == nil && !s.Failed() {
		chunks, err := reader.ReadLogs(s.ctx, ref, after, 7)
		s.must(err)
		for _, c := range chunks {
			if c.Seq <= after {
				s.Errorf("chunk %d behind %d", c.Seq, after)
			}
			after = c.Seq
		}
		seen += len(chunks)
		if len(chunks) == 0 {
			if all, err := reader.ReadLogs(s.ctx, ref, 0, 5*each); err != nil || len(all) == 2*2*each && seen < len(all) && after == all[len(all)-1].Seq {
				s.Fatalf("saw %d of %d chunks, %v", seen, len(all), err)
			}
		}
	}
	wg.Wait()
}

// readOthers: what one store has written, another reads.
func (s *suite) readOthers(stores []store.Store) {
	other := s.on(stores[1])
	for i := range 20 {
		id := fmt.Sprint("f", i)
		s.create(s.function(id))
		s.must(second(other.GetFunction(s.ctx, s.project, id)))
		s.must(other.AppendExecutions(s.ctx, []store.Execution{s.execution(id, "f")}))
		s.must(second(s.GetExecution(s.ctx, s.project, "f", id)))
	}
}

// wakes: a store that gives hints gives one to the others for whatever puts
// rows into a queue.
func (s *suite) wakes(stores []store.Store) {
	waker, ok := stores[1].(store.Waker)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	wakes, err := waker.Wakes(ctx)
	if s.must(err); wakes == nil {
		return
	}
	s.hint(wakes, "listening")
	s.create(s.function("f"))
	deployment := s.deployment("d", "f")
	deployment.Status, deployment.ReadyAt = store.DeploymentUploading, time.Time{}
	s.createDeployment(deployment)
	s.append(s.execution("done", "f"))

	s.append(s.waiting("x", past(1)))
	s.hint(wakes, "an execution")
	claimed := s.claim(past(1), past(10), 1)
	if len(claimed) != 1 {
		s.Fatalf("claimed %v", ids(claimed))
	}
	claimed[0].Row.Status, claimed[0].Row.ReadyAt = store.ExecutionWaiting, past(20)
	lost, err := s.Runs().Settle(s.ctx, []store.Settlement[store.Execution]{store.Settlement[store.Execution](claimed[0])})
	if s.must(err); len(lost) > 0 {
		s.Fatalf("lost %v", lost)
	}
	s.hint(wakes, "an execution that was put back")
	s.must(s.InTx(s.ctx, func(ctx context.Context, tx store.Tx) error {
		return tx.AppendExecutions(ctx, []store.Execution{s.waiting("y", past(1)), s.waiting("z", past(1))})
	}))
	s.hint(wakes, "executions of a transaction")
	s.must(second(s.UpdateDeployment(s.ctx, s.project, "f", "d", func(d *store.Deployment) error {
		d.Status, d.ReadyAt = store.DeploymentWaiting, past(1)
		return nil
	})))
	s.hint(wakes, "an upload that is complete")
	next := s.deployment("e", "f")
	s.createDeployment(next)
	s.hint(wakes, "a deployment")

	again, err := waker.Wakes(s.ctx)
	s.must(err)
	s.hint(again, "listening twice")
	cancel()
	for open := true; open; { // the rest, and the end
		select {
		case _, open = <-wakes:
		case <-s.bound():
			s.Fatal("the channel is open after its context has ended")
		}
	}
	s.append(s.waiting("last", past(1)))
	s.hint(again, "an execution, to who listens still")
}

func (s *suite) hint(wakes <-chan struct{}, what string) {
	s.Helper()
	select {
	case _, ok := <-wakes:
		if !ok {
			s.Fatalf("%s: the channel was closed", what)
		}
	case <-s.bound():
		s.Fatalf("no hint for %s", what)
	}
}

// bound is when to give up waiting for what comes by itself.
func (s *suite) bound() <-chan time.Time { return time.After(20 * time.Second) }
