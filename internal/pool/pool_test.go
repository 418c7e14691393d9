package pool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnkit/fnkit/internal/pool"
)

var errStart = errors.New("cannot start")

// world counts instances and calls itself, without asking the pool.
type world struct {
	t      *testing.T
	p      *pool.Pool
	cfg    pool.Config
	mu     sync.Mutex
	next   int
	alive  map[string]pool.Key
	calls  map[string]int
	starts int
	most   int // instances alive at once
	fail   func(pool.Key) bool
}

func newWorld(t *testing.T, c pool.Config) *world {
	w := &world{t: t, cfg: c, alive: map[string]pool.Key{}, calls: map[string]int{}, fail: func(pool.Key) bool { return false }}
	c.Now = time.Now
	c.Stop = w.stop
	w.p = pool.New(c)
	return w
}

func (w *world) target(k pool.Key, capacity int) pool.Target {
	return pool.Target{Key: k, PerProject: w.cfg.Max, Capacity: capacity, Start: func(ctx context.Context) (string, error) { return w.start(k) }}
}

func (w *world) start(k pool.Key) (string, error) {
	time.Sleep(20 * time.Millisecond) // of the bubble
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starts++
	if w.fail(k) {
		return "", errStart
	}
	w.next++
	id := fmt.Sprint("i", w.next)
	w.alive[id] = k
	w.most = max(w.most, len(w.alive))
	if len(w.alive) > w.cfg.Max {
		w.t.Errorf("%d instances alive, at most %d are allowed", len(w.alive), w.cfg.Max)
	}
	return id, nil
}

func (w *world) stop(id string) {
	w.mu.Lock()
	if w.calls[id] > 0 {
		w.t.Errorf("instance %s was stopped during %d calls", id, w.calls[id])
	}
	if _, ok := w.alive[id]; !ok {
		w.t.Errorf("instance %s was stopped twice", id)
	}
	w.mu.Unlock()
	time.Sleep(5 * time.Millisecond)
	w.mu.Lock()
	delete(w.alive, id)
	w.mu.Unlock()
}

// call makes a call that lasts d.
func (w *world) call(ctx context.Context, t pool.Target, d time.Duration, keep bool) error {
	in, err := w.p.Acquire(ctx, t)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.calls[in.ID]++
	if w.calls[in.ID] > t.Capacity {
		w.t.Errorf("%d calls at once on %s, capacity is %d", w.calls[in.ID], in.ID, t.Capacity)
	}
	if w.alive[in.ID] != t.Key {
		w.t.Errorf("%s serves %v, the caller wanted %v", in.ID, w.alive[in.ID], t.Key)
	}
	w.mu.Unlock()
	time.Sleep(d)
	w.mu.Lock()
	w.calls[in.ID]--
	w.mu.Unlock()
	w.p.Release(in, keep)
	return nil
}

func (w *world) close() {
	<-w.p.Close()
	synctest.Wait()
	if len(w.alive) > 0 {
		w.t.Errorf("%d instances live after Close", len(w.alive))
	}
	if u := w.p.Usage(); len(u) > 0 {
		w.t.Errorf("after Close there is %+v", u)
	}
}

// agree compares what the pool says of itself with what the world has counted.
// Nothing may run meanwhile.
func (w *world) agree() {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[pool.Key]bool{}
	all, instances, live, calls := 0, map[pool.Key]int{}, map[pool.Key]int{}, map[pool.Key]int{}
	for id, k := range w.alive {
		instances[k]++
		calls[k] += w.calls[id]
		if w.calls[id] > 0 {
			live[k]++
		}
	}
	for _, u := range w.p.Usage() {
		held := u.Idle + u.Busy + u.Draining
		all += u.Starting + held
		if seen[u.Key] || held != instances[u.Key] || u.Calls != calls[u.Key] || u.Busy > live[u.Key] || live[u.Key] > u.Busy+u.Draining || u.Starting+held+u.Waiting == 0 {
			w.t.Errorf("%+v, with %d instances, %d of them busy, and %d calls", u, instances[u.Key], live[u.Key], calls[u.Key])
		}
		seen[u.Key] = true
	}
	for k := range instances {
		if !seen[k] {
			w.t.Errorf("%v has instances and no usage", k)
		}
	}
	if n := w.p.Len(); all != n {
		w.t.Errorf("%d instances in all, the pool has %d", all, n)
	}
}

func key(project, name string) pool.Key { return pool.Key{Project: project, Name: name} }

func TestManyCallersShareOneStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 10, PerKey: 5, Waiting: 2000})
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if err := w.call(t.Context(), w.target(key("p", "f"), 1000), time.Millisecond, true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if w.starts != 1 {
			t.Errorf("%d starts, want 1", w.starts)
		}
		w.close()
	})
}

func TestTryTakesAFreeSlotOrNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 1, PerKey: 1, Waiting: 10})
		target := w.target(key("p", "f"), 2)
		if w.p.Try(target) != nil || w.starts != 0 {
			t.Error("it started an instance")
		}
		first, err := w.p.Acquire(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		second := w.p.Try(target)
		if second != first || w.p.Try(target) != nil {
			t.Fatalf("of two slots it gave %v, and then another", second)
		}
		w.p.Release(first, true)
		w.p.Release(second, false) // no more calls
		if w.p.Try(target) != nil {
			t.Error("it gave a slot of an instance that stops")
		}
		w.close()
		if w.p.Try(target) != nil {
			t.Error("it gave a slot after Close")
		}
	})
}

func TestGrowsWithWaitersUpToTheCaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 10, PerKey: 3, Waiting: 100})
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() { w.call(t.Context(), w.target(key("p", "f"), 2), time.Second, true) })
		}
		wg.Wait()
		if w.starts != 3 {
			t.Errorf("%d starts for 12 calls of capacity 2 with a cap of 3, want 3", w.starts)
		}
		capped := w.target(key("q", "f"), 1)
		capped.PerProject = 2
		for range 8 {
			wg.Go(func() { w.call(t.Context(), capped, time.Second, true) })
		}
		wg.Wait()
		if w.starts != 5 {
			t.Errorf("%d starts, want 2 more for a project capped at 2", w.starts-3)
		}
		w.close()
	})
}

func TestFullQueueIsBusyAndWaitersMayLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 1, PerKey: 1, Waiting: 2})
		target := w.target(key("p", "f"), 1)
		go w.call(t.Context(), target, time.Second, true)
		time.Sleep(100 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		left := make(chan error, 2)
		for range 2 {
			go func() { left <- w.call(ctx, target, 0, true) }()
		}
		synctest.Wait()
		if err := w.call(t.Context(), target, 0, true); !errors.Is(err, pool.ErrBusy) {
			t.Errorf("a third waiter got %v", err)
		}
		for range 2 {
			if err := <-left; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a waiter that left got %v", err)
			}
		}
		if err := w.call(t.Context(), target, 0, true); err != nil {
			t.Errorf("after they left: %v", err)
		}
		w.close()
	})
}

func TestAFailedStartFailsWhoWaitedAndTheNextTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 2, PerKey: 2, Waiting: 100})
		broken := true
		w.fail = func(pool.Key) bool { return broken }
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := w.call(t.Context(), w.target(key("p", "f"), 10), 0, true); !errors.Is(err, errStart) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		broken = false
		if err := w.call(t.Context(), w.target(key("p", "f"), 10), 0, true); err != nil || w.starts != 2 {
			t.Errorf("%v after %d starts", err, w.starts)
		}
		w.close()
	})
}

func TestIdleInstancesAreEvictedAndBusyOnesAreNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 5, PerKey: 5, Waiting: 100})
		w.call(t.Context(), w.target(key("p", "idle"), 1), 0, true)
		go w.call(t.Context(), w.target(key("p", "busy"), 1), time.Hour, true)
		time.Sleep(time.Minute)
		w.p.EvictIdle(time.Now())
		time.Sleep(time.Second)
		w.mu.Lock()
		if len(w.alive) != 1 {
			t.Errorf("%d instances alive, want the busy one", len(w.alive))
		}
		w.mu.Unlock()
		time.Sleep(time.Hour)
		w.close()
	})
}

func TestRetiredInstancesFinishTheirCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 5, PerKey: 5, Waiting: 100})
		old := w.target(key("p", "f@1"), 10)
		ended := make(chan error)
		go func() { ended <- w.call(t.Context(), old, time.Minute, true) }()
		time.Sleep(time.Second)
		w.p.Retire(func(k pool.Key) bool { return k.Name == "f@1" })
		w.call(t.Context(), w.target(key("p", "f@2"), 10), 0, true)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if n := w.p.Len(); n != 1 {
			t.Errorf("%d instances, want the new one", n)
		}
		w.close()
	})
}

func TestQuietProjectsAreNotStarved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 4, PerKey: 4, Waiting: 1000, Residency: 50 * time.Millisecond})
		var loud sync.WaitGroup
		for range 100 {
			loud.Go(func() { w.call(t.Context(), w.target(key("loud", "f"), 1), 100*time.Millisecond, true) })
		}
		time.Sleep(200 * time.Millisecond)
		for i := range 6 {
			began := time.Now()
			if err := w.call(t.Context(), w.target(key(fmt.Sprint("quiet", i), "f"), 1), 0, true); err != nil {
				t.Error(err)
			}
			if waited := time.Since(began); waited > 300*time.Millisecond {
				t.Errorf("quiet project %d waited %s", i, waited)
			}
		}
		loud.Wait()
		w.close()
	})
}

// TestAnIdleInstanceGoesWhileABusyOneIsOnItsWayOut: room that comes only when a
// long call ends is no reason to wait for it.
func TestAnIdleInstanceGoesWhileABusyOneIsOnItsWayOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 2, PerKey: 2, Waiting: 10})
		long := make(chan error, 1)
		go func() { long <- w.call(t.Context(), w.target(key("p", "long"), 1), time.Hour, true) }()
		w.call(t.Context(), w.target(key("p", "idle"), 1), 0, true)
		w.p.Retire(func(k pool.Key) bool { return k.Name == "long" })
		began := time.Now()
		if err := w.call(t.Context(), w.target(key("p", "new"), 1), 0, true); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("waited %s beside an idle instance", waited)
		}
		if err := <-long; err != nil {
			t.Error(err)
		}
		w.close()
	})
}

func TestWhoWaitsIsServedInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 1, PerKey: 1, Waiting: 100})
		target := w.target(key("p", "f"), 1)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				ctx := t.Context()
				if i%3 == 1 { // some leave
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 10*time.Millisecond)
					defer cancel()
				}
				in, err := w.p.Acquire(ctx, target)
				if err != nil {
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(100 * time.Millisecond)
				w.p.Release(in, i%4 != 0) // some break what they used
			})
			synctest.Wait()
		}
		wg.Wait()
		if !slices.IsSorted(order) || len(order) != 13 {
			t.Errorf("served in the order %v", order)
		}
		w.close()
	})
}

func TestCloseRefusesFailsWaitersAndWaitsForCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 1, PerKey: 1, Waiting: 10})
		target := w.target(key("p", "f"), 1)
		running, waiting := make(chan error, 1), make(chan error, 1)
		go func() { running <- w.call(t.Context(), target, time.Minute, true) }()
		time.Sleep(time.Second)
		go func() { waiting <- w.call(t.Context(), target, 0, true) }()
		synctest.Wait()
		gone := w.p.Close()
		if err := <-waiting; !errors.Is(err, pool.ErrStopped) {
			t.Errorf("who waited got %v", err)
		}
		if _, err := w.p.Acquire(t.Context(), target); !errors.Is(err, pool.ErrStopped) {
			t.Errorf("who came late got %v", err)
		}
		<-gone
		if err := <-running; err != nil {
			t.Errorf("the running call got %v", err)
		}
		w.close()
	})
}

// TestUsage follows two keys through all that their instances do.
func TestUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pool.Config{Max: 4, PerKey: 2, Waiting: 10})
		f, g := w.target(key("p", "f"), 1), w.target(key("q", "g"), 3)
		step := func(what string, want ...pool.Usage) {
			t.Helper()
			synctest.Wait()
			got := w.p.Usage()
			slices.SortFunc(got, func(a, b pool.Usage) int { return strings.Compare(a.Key.Name, b.Key.Name) })
			if !slices.Equal(got, want) {
				t.Errorf("%s:\n%+v, want\n%+v", what, got, want)
			}
		}
		usage := func(t pool.Target, u pool.Usage) pool.Usage {
			u.Key, u.PerProject, u.Capacity = t.Key, t.PerProject, t.Capacity
			return u
		}
		step("new")
		for range 3 { // one more than may run
			go w.call(t.Context(), f, time.Minute, true)
		}
		step("starting", usage(f, pool.Usage{Starting: 2, Waiting: 3}))
		time.Sleep(time.Second)
		step("busy", usage(f, pool.Usage{Busy: 2, Calls: 2, Waiting: 1}))
		for range 2 {
			go w.call(t.Context(), g, time.Second, true)
		}
		time.Sleep(100 * time.Millisecond)
		step("beside another", usage(f, pool.Usage{Busy: 2, Calls: 2, Waiting: 1}), usage(g, pool.Usage{Busy: 1, Calls: 2}))
		time.Sleep(time.Minute)
		step("idle", usage(f, pool.Usage{Idle: 1, Busy: 1, Calls: 1}), usage(g, pool.Usage{Idle: 1}))
		w.p.Retire(func(k pool.Key) bool { return k == f.Key })
		step("draining", usage(f, pool.Usage{Draining: 2, Calls: 1}), usage(g, pool.Usage{Idle: 1}))
		time.Sleep(time.Second)
		step("stopped", usage(f, pool.Usage{Draining: 1, Calls: 1}), usage(g, pool.Usage{Idle: 1}))
		time.Sleep(time.Hour)
		step("gone", usage(g, pool.Usage{Idle: 1}))
		w.close()
	})
}

// TestRandom drives the pool with callers that come, leave, fail and retire at
// random, while the world checks every cap on its own count.
func TestRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 7))
				w := newWorld(t, pool.Config{Max: 1 + rnd.IntN(6), PerKey: 1 + rnd.IntN(3), Waiting: 20, Residency: 10 * time.Millisecond})
				fails := rand.New(rand.NewPCG(seed, 8))
				w.fail = func(pool.Key) bool { return fails.IntN(10) == 0 }
				var wg sync.WaitGroup
				for range 1500 {
					k := key(fmt.Sprint("p", rnd.IntN(3)), fmt.Sprint("f", rnd.IntN(3)))
					patience, lasts, keep := time.Duration(rnd.IntN(400))*time.Millisecond, time.Duration(rnd.IntN(60))*time.Millisecond, rnd.IntN(10) > 0
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						err := w.call(ctx, w.target(k, 2), lasts, keep)
						if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, pool.ErrBusy) && !errors.Is(err, errStart) {
							t.Error(err)
						}
					})
					time.Sleep(time.Duration(rnd.IntN(8)) * time.Millisecond)
					switch rnd.IntN(50) {
					case 2, 3, 4:
						w.agree()
					case 0:
						w.p.EvictIdle(time.Now().Add(-20 * time.Millisecond))
					case 1:
						w.p.Retire(func(other pool.Key) bool { return other == k })
					}
				}
				wg.Wait()
				// Nothing is stuck: every key still gets a call through.
				w.mu.Lock()
				w.fail = func(pool.Key) bool { return false }
				w.mu.Unlock()
				for i := range 9 {
					if err := w.call(t.Context(), w.target(key(fmt.Sprint("p", i/3), fmt.Sprint("f", i%3)), 2), 0, true); err != nil {
						t.Error(err)
					}
				}
				w.close()
			})
		})
	}
}

func BenchmarkAcquireRelease(b *testing.B) {
	p := pool.New(pool.Config{Max: 1, PerKey: 1, Waiting: 100, Now: time.Now, Stop: func(string) {}})
	t := pool.Target{Key: key("p", "f"), PerProject: 1, Capacity: 1 << 20, Start: func(context.Context) (string, error) { return "i", nil }}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			in, err := p.Acquire(context.Background(), t)
			if err != nil {
				b.Fatal(err)
			}
			p.Release(in, true)
		}
	})
	<-p.Close()
}
