package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// idle measures what functions cost that were deployed, built, called and then left
// alone: in processes, and in memory of the engine.
func idle(ctx context.Context, o options, dir string) error {
	dir = filepath.Join(dir, "idle")
	h, err := newHost(ctx, dir, func(c *engine.Config) { c.Instances.Idle = time.Second })
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.leaveAlone(ctx, 0, 10); err != nil { // what the first ones need is needed once
		return err
	}
	before, err := footprintOf()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := h.leaveAlone(ctx, 10, 10+o.functions); err != nil {
		return err
	}
	fmt.Printf("\n%d functions were deployed, built, called and reclaimed in %s.\n", o.functions, time.Since(began).Round(time.Second))
	after, err := footprintOf()
	if err != nil {
		return err
	}
	fmt.Printf("\n| | heap MB | resident MB | processes |\n|---|---|---|---|\n| with none | %.1f | %.1f | %d |\n| with %d idle functions | %.1f | %.1f | %d |\n\n",
		before.heap/1024, before.resident/1024, before.processes, o.functions, after.heap/1024, after.resident/1024, after.processes)
	each := func(after, before float64) float64 { return (after - before) / float64(o.functions) }
	bar{"heap of an idle function, KiB", "–", each(after.heap, before.heap), 20, true, ""}.print()
	bar{"resident memory of an idle function, KiB", "–", each(after.resident, before.resident), 20, true, ""}.print()
	bar{"processes of idle functions", "–", float64(after.processes), 0, true, ""}.print()
	return nil
}

// leaveAlone makes functions, calls each once, and waits until the engine has ended
// their instances. Spares belong to nobody, and are ended too.
func (h *host) leaveAlone(ctx context.Context, from, to int) error {
	for n := from; n < to; n++ {
		if err := h.deploy(ctx, fmt.Sprintf("f%d", n), hello); err != nil {
			return err
		}
	}
	err := until(ctx, "instances to be idle", func() bool {
		all, err := h.box.List(ctx)
		return err == nil && len(all) == 0
	})
	if err == nil {
		err = h.box.Warm(ctx, h.runtime, 0)
	}
	if err != nil {
		return err
	}
	return until(ctx, "processes to end", func() bool { return len(descendants(os.Getpid())) == 0 })
}

// footprint is what this process has; memory in KiB.
type footprint struct {
	heap, resident float64
	processes      int
}

func footprintOf() (footprint, error) {
	resident, err := resident() // collects
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{float64(m.HeapAlloc) / 1024, resident * 1024, len(descendants(os.Getpid()))}, err
}
