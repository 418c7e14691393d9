//go:build unix

package procbox_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// series are the times of one kind of act.
type series []time.Duration

func (s *series) add(began time.Time) { *s = append(*s, time.Since(began)) }

// at returns a quantile in milliseconds.
func (s series) at(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	s = slices.Sorted(slices.Values(s))
	return float64(s[min(len(s)-1, int(q*float64(len(s))))].Microseconds()) / 1000
}

// BenchmarkColdStart measures from the wish for an instance of code that was never
// seen to its first answer: bare, shut in, and from a spare; beside a warm call, and
// the stop. All take turns, so that they meet the same noise: take the ratios.
func BenchmarkColdStart(b *testing.B) {
	for _, f := range fixtures[:2] {
		b.Run(f.key, func(b *testing.B) {
			bare, full := openTier(b, b.TempDir(), "none", f.key), openTier(b, b.TempDir(), "full", f.key)
			pooled := openTier(b, b.TempDir(), "full", f.key)
			id := runtimeOf(b, full, f.key)
			var cold [3]series
			var call, stop series
			dir := small(b)
			n := 0
			for b.Loop() {
				warm(b, pooled, id, 1)
				for i, box := range []*procbox.Box{bare, full, pooled} {
					n++
					spec := sandbox.Spec{ID: strconv.Itoa(n), Runtime: id, Dir: dir, Entrypoint: f.entrypoint, Memory: 256 << 20, CPUs: 2}
					began := time.Now()
					if _, err := box.Start(context.Background(), spec); err != nil {
						b.Fatal(err)
					}
					hello(b, box, spec.ID)
					cold[i].add(began)
					if box == pooled && !box.FromSpare(spec.ID) {
						b.Fatal("there was no spare")
					}
					until(b, "new spare", func() bool { return box != pooled || box.Spares(id) == 1 })
					if box != bare {
						began = time.Now()
						hello(b, box, spec.ID)
						call.add(began)
					}
					began = time.Now()
					if err := box.Stop(context.Background(), spec.ID); err != nil {
						b.Fatal(err)
					}
					if box != bare {
						stop.add(began)
					}
				}
			}
			for i, name := range []string{"bare", "full", "spare"} {
				b.ReportMetric(cold[i].at(0), name+"-min-ms")
				b.ReportMetric(cold[i].at(0.5), name+"-p50-ms")
				b.ReportMetric(cold[i].at(0.9), name+"-p90-ms")
			}
			b.ReportMetric(call.at(0), "call-min-ms")
			b.ReportMetric(call.at(0.5), "call-p50-ms")
			b.ReportMetric(stop.at(0.5), "stop-p50-ms")
			b.ReportMetric(cold[1].at(0.5)/cold[0].at(0.5), "full/bare")
			b.ReportMetric(cold[2].at(0.5)/cold[0].at(0.5), "spare/bare")
			b.ReportMetric(cold[2].at(0.5)/call.at(0.5), "spare/call")
		})
	}
}

// small writes a function for each language that does next to nothing, so that what
// is measured is not the user's code.
func small(b *testing.B) string {
	dir := b.TempDir()
	for name, text := range map[string]string{
		"index.js": "module.exports = async ({ res }) => res.json({ hello: 'world' });\n",
		"main.py":  "def main(context):\n    return context.res.json({'hello': 'world'})\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func hello(b *testing.B, box *procbox.Box, id string) {
	var a answer
	res, err := box.Invoke(context.Background(), id, sandbox.Request{Method: "GET", Path: "/hello", Logging: true}, &a)
	if err != nil || a.status != 200 || (res != sandbox.Result{}) {
		b.Error(err, res, a.status)
	}
}

// BenchmarkBurst makes first calls of many deployments at once, with spares for
// half of them and with none. It reports when the half of them was answered, and when all.
func BenchmarkBurst(b *testing.B) {
	const deployments = 16
	for _, f := range fixtures[:2] {
		b.Run(f.key, func(b *testing.B) {
			box := openTier(b, b.TempDir(), "full", f.key)
			id := runtimeOf(b, box, f.key)
			dir := small(b)
			var half, all [2]series
			n := 0
			for b.Loop() {
				for i, spares := range []int{0, deployments / 2} {
					warm(b, box, id, spares)
					var one series
					var mu sync.Mutex
					var calls sync.WaitGroup
					began := time.Now()
					for range deployments {
						n++
						spec := sandbox.Spec{ID: strconv.Itoa(n), Runtime: id, Dir: dir, Entrypoint: f.entrypoint, Memory: 256 << 20, CPUs: 2}
						calls.Go(func() {
							if _, err := box.Start(context.Background(), spec); err != nil {
								b.Error(err)
								return
							}
							hello(b, box, spec.ID)
							mu.Lock()
							defer mu.Unlock()
							one.add(began)
						})
					}
					calls.Wait()
					half[i], all[i] = append(half[i], time.Duration(one.at(0.5)*1e6)), append(all[i], time.Duration(one.at(1)*1e6))
					for k := range deployments {
						if err := box.Stop(context.Background(), strconv.Itoa(n-k)); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			for i, name := range []string{"none", "spares"} {
				b.ReportMetric(half[i].at(0.5), name+"-half-ms")
				b.ReportMetric(all[i].at(0.5), name+"-all-ms")
			}
		})
	}
}

// BenchmarkWarmCall makes warm calls of a bare and of a confined instance, a stretch
// each in turn, and reports the confined one's share of the bare one's calls per second.
func BenchmarkWarmCall(b *testing.B) {
	const stretch = 200 * time.Millisecond
	for _, f := range fixtures[:2] {
		for _, c := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("%s/c=%d", f.key, c), func(b *testing.B) {
				var boxes [2]*procbox.Box
				var rates [2][]float64
				dir := small(b)
				for i, tier := range []string{"none", "full"} {
					boxes[i] = openTier(b, b.TempDir(), tier, f.key)
					spec := sandbox.Spec{ID: "i", Runtime: runtimeOf(b, boxes[i], f.key), Dir: dir, Entrypoint: f.entrypoint, Memory: 256 << 20, CPUs: 2}
					if _, err := boxes[i].Start(context.Background(), spec); err != nil {
						b.Fatal(err)
					}
					hello(b, boxes[i], "i")
				}
				for b.Loop() {
					for i, box := range boxes {
						rates[i] = append(rates[i], rate(b, box, c, stretch))
					}
				}
				for i := range rates {
					slices.Sort(rates[i])
				}
				bare, full := rates[0][len(rates[0])/2], rates[1][len(rates[1])/2]
				b.ReportMetric(bare, "bare-calls/s")
				b.ReportMetric(full, "full-calls/s")
				b.ReportMetric(full/bare, "full/bare")
			})
		}
	}
}

// rate calls an instance from c goroutines for a while, and returns calls per second.
func rate(b *testing.B, box *procbox.Box, c int, d time.Duration) float64 {
	began := time.Now()
	counts := make(chan int, c)
	for range c {
		go func() {
			n := 0
			for time.Since(began) < d {
				hello(b, box, "i")
				n++
			}
			counts <- n
		}()
	}
	total := 0
	for range c {
		total += <-counts
	}
	return float64(total) / time.Since(began).Seconds()
}
