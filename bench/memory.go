package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// memory compares the engine's memory after many calls with that after few.
func memory(ctx context.Context, o options, dir string) error {
	h, err := newHost(ctx, filepath.Join(dir, "memory"))
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.deploy(ctx, "logger", logger); err != nil {
		return err
	}
	web, stopWeb, err := h.serve(filepath.Join(dir, "memory.sock"))
	if err != nil {
		return err
	}
	defer stopWeb()
	fmt.Print("\n| calls | memory of the engine, MB |\n|---|---|\n")
	const few, inflight = 1000, 8
	var first, last float64
	done := 0
	for _, n := range []int{few, o.calls / 10, o.calls} {
		if _, err := load(ctx, inflight, 0, n-done, post(web, "/v1/functions/logger/executions")); err != nil {
			return err
		}
		done = n
		if last, err = resident(); err != nil {
			return err
		}
		if n == few {
			first = last
		}
		fmt.Printf("| %d | %.1f |\n", n, last)
	}
	fmt.Printf("\nGrowth: %+.1f %%.\n", 100*(last/first-1))
	return nil
}
