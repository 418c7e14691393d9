package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// call is what is measured.
type call func(ctx context.Context) error

// stretch is what one measured stretch of calls gave.
type stretch struct {
	calls    int
	took     time.Duration
	cpu      time.Duration // of this process and its children
	p50, p99 time.Duration
}

func (s stretch) rate() float64    { return float64(s.calls) / s.took.Seconds() }
func (s stretch) perCall() float64 { return float64(s.cpu.Microseconds()) / float64(s.calls) }

// load makes calls, inflight at a time, each next one when one has ended, for a
// length of time or up to a number of calls, whichever is given.
func load(ctx context.Context, inflight int, d time.Duration, max int, c call) (stretch, error) {
	var left atomic.Int64
	left.Store(int64(max))
	var failed sync.Once
	var failure error
	latencies := make([][]time.Duration, inflight)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	children := childTime()
	own, err := ownTime()
	if err != nil {
		return stretch{}, err
	}
	began := time.Now()
	var wg sync.WaitGroup
	for i := range inflight {
		wg.Go(func() {
			for at := time.Now(); ctx.Err() == nil && (d == 0 || at.Sub(began) < d) && (max == 0 || left.Add(-1) >= 0); {
				if err := c(ctx); err != nil {
					failed.Do(func() { failure = err; cancel() })
					return
				}
				now := time.Now()
				latencies[i] = append(latencies[i], now.Sub(at))
				at = now
			}
		})
	}
	wg.Wait()
	s := stretch{took: time.Since(began)}
	after, err := ownTime()
	if err := errors.Join(failure, err); err != nil {
		return s, err
	}
	s.cpu = after - own + childTime() - children
	all := slices.Concat(latencies...)
	slices.Sort(all)
	s.calls = len(all)
	if s.calls == 0 {
		return s, errors.New("no call ended in time")
	}
	s.p50, s.p99 = all[len(all)/2], all[len(all)*99/100]
	return s, nil
}

// median returns the middle one of some values of stretches.
func median(all []stretch, value func(stretch) float64) float64 {
	var vs []float64
	for _, s := range all {
		vs = append(vs, value(s))
	}
	slices.Sort(vs)
	return vs[len(vs)/2]
}
