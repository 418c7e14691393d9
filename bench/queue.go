package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
)

// settled counts the results that a store has taken.
type settled struct {
	store.Store
	n atomic.Int64
}

type settledRuns struct {
	store.Queue[engine.Execution]
	s *settled
}

func (s *settled) Runs() store.Queue[engine.Execution] { return settledRuns{s.Store.Runs(), s} }

func (q settledRuns) Settle(ctx context.Context, rows []store.Settlement[engine.Execution]) ([]store.Lease, error) {
	lost, err := q.Queue.Settle(ctx, rows)
	if err == nil {
		q.s.n.Add(int64(len(rows) - len(lost)))
	}
	return lost, err
}

func (s *settled) await(ctx context.Context, n int) error {
	for s.n.Load() < int64(n) && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

// accept queues n executions, so many at once.
func (w *worker) accept(ctx context.Context, n, inflight int) error {
	_, err := load(ctx, inflight, 0, n, w.queue)
	return err
}

// queue queues one execution with a body of 200 bytes.
func (w *worker) queue(ctx context.Context) error {
	_, err := w.p.Execute(ctx, engine.System, "f", engine.ExecuteParams{Async: true, Body: make([]byte, 200)})
	return err
}

// queueMany queues a thousand of them at once.
func (w *worker) queueMany(ctx context.Context) error {
	calls := make([]engine.ExecuteParams, 1000)
	for i := range calls {
		calls[i].Body = make([]byte, 200)
	}
	_, err := w.p.ExecuteMany(ctx, engine.System, "f", calls)
	return err
}

func nothing(context.Context, *fnbox.Context) error { return nil }

// drained is how fast rows were worked off, and the CPU time of each.
type drained struct {
	rate float64
	cpu  time.Duration
}

// timed times what works off n rows.
func timed(ctx context.Context, db *database, n int, work func() error) (drained, error) {
	before, err := db.spent(ctx)
	if err != nil {
		return drained{}, err
	}
	began := time.Now()
	if err := work(); err != nil {
		return drained{}, err
	}
	took := time.Since(began)
	after, err := db.spent(ctx)
	return drained{float64(n) / took.Seconds(), (after - before) / time.Duration(n)}, err
}

func typical(all []drained) drained {
	rates, cpus := make([]float64, len(all)), make([]float64, len(all))
	for i, s := range all {
		rates[i], cpus[i] = s.rate, float64(s.cpu)
	}
	return drained{mid(rates), time.Duration(mid(cpus))}
}

func (s drained) String() string {
	return fmt.Sprintf("%.0f/s %d µs CPU", s.rate, s.cpu.Microseconds())
}

// drain works off n executions that are accepted already, until the last result
// is committed.
func drain(ctx context.Context, db *database, n, engines, slots int, f fnbox.Func) (_ drained, err error) {
	var all []*worker
	s := make([]*settled, engines)
	defer func() {
		for _, w := range all {
			err = errors.Join(err, w.close())
		}
	}()
	for i := range engines {
		w, err := newWorker(ctx, db, fnbox.Funcs{"f": f}, func(c *engine.Config) {
			s[i] = &settled{Store: c.Store}
			c.Store, c.Work.Runs = s[i], slots
		})
		if err != nil {
			return drained{}, err
		}
		all = append(all, w)
	}
	if err := all[0].accept(ctx, n, 200); err != nil {
		return drained{}, err
	}
	return timed(ctx, db, n, func() error {
		for _, w := range all {
			if err := w.eng.Start(ctx); err != nil {
				return err
			}
		}
		for sum := int64(0); sum < int64(n) && ctx.Err() == nil; {
			time.Sleep(time.Millisecond)
			sum = 0
			for _, s := range s {
				sum += s.n.Load()
			}
		}
		return ctx.Err()
	})
}

func mid(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// throughput compares how fast accepted executions are worked off.
func throughput(ctx context.Context, o options, dir string) error {
	return each(ctx, o, dir, func(db *database) error {
		if err := deploy(ctx, db, "f"); err != nil {
			return err
		}
		p, err := newPlain(ctx, db)
		if err != nil {
			return err
		}
		var r *riverPeer
		if db.dsn != "" {
			if r, err = newRiver(ctx, db); err != nil {
				return err
			}
			defer r.pool.Close()
		}
		var own, loop, peer []drained
		for range o.rounds {
			v, err := drain(ctx, db, o.queued, 1, o.slots, nothing)
			if err != nil {
				return err
			}
			own = append(own, v)
			if v, err = p.work(ctx, o.queued); err != nil {
				return err
			}
			loop = append(loop, v)
			if r != nil {
				if v, err = r.work(ctx, o.queued); err != nil {
					return err
				}
				peer = append(peer, v)
			}
		}
		aim := map[string]float64{"SQLite": 0.2, "Postgres": 0.35}[db.name]
		bar{"async throughput, " + db.name, "a plain loop: claim 100, complete 100", typical(own).rate / typical(loop).rate, aim, false, fmt.Sprint(typical(own), ", ", typical(loop))}.print()
		if r != nil {
			bar{"async throughput, " + db.name, "River, 2 ms cooldown, 2000 workers", typical(own).rate / typical(peer).rate, 2, false, fmt.Sprint(typical(own), ", ", typical(peer))}.print()
		}
		return nil
	})
}

// storing compares the store alone, without an engine, with the plain loop.
func storing(ctx context.Context, o options, dir string) error {
	return each(ctx, o, dir, func(db *database) error {
		s, err := db.open(ctx)
		if err != nil {
			return err
		}
		defer s.Close()
		p, err := newPlain(ctx, db)
		if err != nil {
			return err
		}
		var own, loop []drained
		for round := range o.rounds {
			now := time.Now().UTC().Truncate(time.Millisecond)
			for i := 0; i < o.queued; i += 1000 {
				if err := s.AppendExecutions(ctx, waiting(now, fmt.Sprintf("%d-%d", round, i), 1000)); err != nil {
					return err
				}
			}
			alone, err := timed(ctx, db, o.queued, func() error {
				for done := 0; done < o.queued; {
					n, err := take(ctx, s, now, plainBatch)
					if err != nil {
						return err
					}
					done += n
				}
				return nil
			})
			if err != nil {
				return err
			}
			own = append(own, alone)
			p.loops = 1
			v, err := p.work(ctx, o.queued)
			if err != nil {
				return err
			}
			loop = append(loop, v)
		}
		bar{"the store alone: claim 100, settle 100, " + db.name, "a plain loop, one at once", typical(own).rate / typical(loop).rate, 0, false, fmt.Sprint(typical(own), ", ", typical(loop))}.print()
		return nil
	})
}

// accepting compares how fast executions are accepted.
func accepting(ctx context.Context, o options, dir string) error {
	return each(ctx, o, dir, func(db *database) (err error) {
		if err := deploy(ctx, db, "f"); err != nil {
			return err
		}
		p, err := newPlain(ctx, db)
		if err != nil {
			return err
		}
		insert, done, err := p.one(ctx)
		if err != nil {
			return err
		}
		defer done()
		w, err := newWorker(ctx, db, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.close()) }()
		var own, one, batch, thousand []float64
		for range o.rounds {
			for _, m := range []struct {
				into     *[]float64
				call     call
				inflight int
				each     float64
			}{
				{&own, w.queue, 1, 1}, {&one, insert, 1, 1}, {&batch, w.queueMany, 1, 1000},
				{&thousand, func(ctx context.Context) error { return p.insert(ctx, 1000) }, 1, 1000},
			} {
				s, err := load(ctx, m.inflight, o.slice, 0, m.call)
				if err != nil {
					return err
				}
				*m.into = append(*m.into, s.rate()*m.each)
			}
		}
		bar{"accepting one by one, " + db.name, "one insert per transaction", mid(own) / mid(one), 0.7, false, fmt.Sprintf("%.0f/s, %.0f/s", mid(own), mid(one))}.print()
		bar{"accepting 1000 at once, " + db.name, "one insert of 1000 rows", mid(batch) / mid(thousand), 0.5, false, fmt.Sprintf("%.0f/s, %.0f/s", mid(batch), mid(thousand))}.print()
		return nil
	})
}

// starting measures how long an idle engine takes to begin what it accepts.
func starting(ctx context.Context, o options, dir string) error {
	return each(ctx, o, dir, func(db *database) (err error) {
		if err := deploy(ctx, db, "f"); err != nil {
			return err
		}
		began := make(chan time.Time, 1)
		s := &settled{}
		w, err := newWorker(ctx, db, fnbox.Funcs{"f": func(context.Context, *fnbox.Context) error {
			began <- time.Now()
			return nil
		}}, func(c *engine.Config) { s.Store, c.Store = c.Store, s })
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.close()) }()
		if err := w.eng.Start(ctx); err != nil {
			return err
		}
		var all []float64
		for i := range 500 {
			if err := w.queue(ctx); err != nil {
				return err
			}
			accepted := time.Now()
			at := <-began
			if i >= 100 { // the first warm up
				all = append(all, max(at.Sub(accepted), 0).Seconds()*1000)
			}
			if err := s.await(ctx, i+1); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond) // it is idle again
		}
		slices.Sort(all)
		aim := map[string]float64{"SQLite": 1, "Postgres": 5}[db.name]
		bar{"accepted → started, idle, " + db.name, "ms, p50", mid(all), aim, true, fmt.Sprintf("p95 %.2f ms", all[len(all)*95/100])}.print()
		return nil
	})
}

// growing compares the engines on one database.
func growing(ctx context.Context, o options, dir string) error {
	if o.postgres == "" {
		return nil
	}
	db, err := postgresAt(ctx, o.postgres, dir)
	if err != nil {
		return err
	}
	defer db.drop()
	if err := deploy(ctx, db, "f"); err != nil {
		return err
	}
	work := func(ctx context.Context, _ *fnbox.Context) error {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
		return nil
	}
	var one, three []drained
	for range o.rounds {
		for engines, into := range map[int]*[]drained{1: &one, 3: &three} {
			v, err := drain(ctx, db, 1500*engines, engines, 8, work)
			if err != nil {
				return err
			}
			*into = append(*into, v)
		}
	}
	bar{"3 engines with 8 slots, work of 5 ms", "one engine", typical(three).rate / typical(one).rate, 2.4, false, fmt.Sprint(typical(three), ", ", typical(one))}.print()
	return nil
}

// rows compares claiming and accepting in a long table with a short one, in turns.
func rows(ctx context.Context, o options, dir string) error {
	return each(ctx, o, dir, func(long *database) (err error) {
		short, err := sqliteIn(dir)
		if long.name == "Postgres" {
			err = errors.Join(err, short.drop())
			short, err = postgresAt(ctx, o.postgres, dir)
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, short.drop()) }()
		var stores [2]store.Store
		for i, db := range []*database{short, long} {
			s, err := db.open(ctx)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := fill(ctx, s, 0, []int{10_000, o.rows}[i]); err != nil {
				return err
			}
			if db.name == "Postgres" {
				if _, err := db.raw.ExecContext(ctx, "ANALYZE fnkit_executions"); err != nil {
					return err
				}
			}
			stores[i] = s
		}
		var claims, accepts [2][]float64
		for round := range 60 {
			for i, s := range stores {
				a, c, err := turn(ctx, s, fmt.Sprint(round))
				if err != nil {
					return err
				}
				if round >= 10 { // the first warm up
					accepts[i], claims[i] = append(accepts[i], a), append(claims[i], c)
				}
			}
		}
		for what, all := range map[string][2][]float64{"claim 100 and settle": claims, "accept 100": accepts} {
			bar{fmt.Sprintf("%s in a table of %d rows, %s", what, o.rows, long.name), "10000 rows", mid(all[1]) / mid(all[0]), 1.5, true, fmt.Sprintf("%.2f ms, %.2f ms", mid(all[1]), mid(all[0]))}.print()
		}
		return nil
	})
}

// turn accepts a hundred executions, then claims and settles them, and returns
// how many milliseconds that took.
func turn(ctx context.Context, s store.Store, name string) (accept, claim float64, err error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	batch := waiting(now, name, 100)
	began := time.Now()
	if err := s.AppendExecutions(ctx, batch); err != nil {
		return 0, 0, err
	}
	accept = time.Since(began).Seconds() * 1000
	began = time.Now()
	n, err := take(ctx, s, now, len(batch))
	if err == nil && n != len(batch) {
		err = fmt.Errorf("claimed %d", n)
	}
	return accept, time.Since(began).Seconds() * 1000, err
}

// waiting are executions that are due.
func waiting(now time.Time, name string, n int) []store.Execution {
	batch := make([]store.Execution, n)
	for i := range batch {
		batch[i] = store.Execution{
			Project: project, ID: fmt.Sprintf("w%s-%d", name, i), FunctionID: "f", DeploymentID: "d", CreatedAt: now, UpdatedAt: now, ReadyAt: now,
			Trigger: store.TriggerHTTP, Status: store.ExecutionWaiting, RequestMethod: "GET", RequestPath: "/", Payload: make([]byte, 200),
		}
	}
	return batch
}

// take claims executions and settles them.
func take(ctx context.Context, s store.Store, now time.Time, limit int) (int, error) {
	claimed, err := s.Runs().Claim(ctx, store.ClaimParams{Now: now, LeaseUntil: now.Add(time.Minute), Limit: limit})
	if err != nil {
		return 0, err
	}
	done := make([]store.Settlement[store.Execution], len(claimed))
	for i, c := range claimed {
		c.Row.Status, c.Row.ReadyAt = store.ExecutionCompleted, time.Time{}
		done[i] = store.Settlement[store.Execution](c)
	}
	lost, err := s.Runs().Settle(ctx, done)
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("lost %d", len(lost))
	}
	return len(claimed), err
}
