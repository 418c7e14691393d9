package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// firstCall is how long a first call of code that was never seen takes here, start
// and answer, in milliseconds: the best of a few.
type firstCall struct {
	Fresh float64 `json:"withoutSpareMs"`
	Spare float64 `json:"withSpareMs"`
	Error string  `json:"error,omitempty"` // why it could not be measured
}

// smallest are functions that answer with nothing, by the key of their runtime.
var smallest = map[string]struct{ file, code string }{
	"node":   {"main.mjs", "export default ({ res }) => res.text('');\n"},
	"bun":    {"main.mjs", "export default ({ res }) => res.text('');\n"},
	"deno":   {"main.mjs", "export default ({ res }) => res.text('');\n"},
	"python": {"main.py", "def main(context):\n    return context.res.text('')\n"},
	"php":    {"main.php", "<?php\nreturn fn ($context) => $context->res->text('');\n"},
	"ruby":   {"main.rb", "def main(context) = context.res.text('')\n"},
}

const (
	// measures is how often a call is made.
	measures = 3
	// spareAge is how old a spare is that is measured.
	spareAge = 300 * time.Millisecond
	// measureTimeout bounds what is measured of one runtime.
	measureTimeout = 30 * time.Second
)

// measure makes first calls of a runtime that can have spares, below dir.
func measure(ctx context.Context, box *procbox.Box, r sandbox.Runtime, dir string) (f firstCall) {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	fn, ok := smallest[r.Key]
	if !ok {
		return firstCall{Error: "there is no function to measure it with"}
	}
	spec := sandbox.Spec{Runtime: r.ID, Dir: filepath.Join(dir, r.ID), Entrypoint: fn.file, CPUs: 1, Memory: 512 << 20}
	err := os.Mkdir(spec.Dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(spec.Dir, fn.file), []byte(fn.code), 0o600)
	}
	if err == nil {
		f.Fresh, err = best(ctx, box, spec, false)
	}
	if err == nil {
		f.Spare, err = best(ctx, box, spec, true)
	}
	if err != nil {
		return firstCall{Error: err.Error()}
	}
	return f
}

// best is the shortest of a few first calls, with a spare or without.
func best(ctx context.Context, box *procbox.Box, spec sandbox.Spec, spare bool) (ms float64, err error) {
	for n := range measures {
		if spare {
			if err := spareOf(ctx, box, spec.Runtime); err != nil {
				return 0, err
			}
		}
		spec.ID = fmt.Sprintf("%s-%v-%d", spec.Runtime, spare, n)
		took, err := callFirst(ctx, box, spec)
		if err != nil {
			return 0, err
		}
		if now := float64(took.Microseconds()) / 1000; n == 0 || now < ms {
			ms = now
		}
	}
	return ms, box.Warm(ctx, spec.Runtime, 0)
}

// spareOf waits until there is a spare that has waited for a while, as most have: some
// languages prepare more after they are ready.
func spareOf(ctx context.Context, box *procbox.Box, runtime string) error {
	if err := box.Warm(ctx, runtime, 1); err != nil {
		return err
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for box.Spares(runtime) == 0 {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("no spare got ready: %w", ctx.Err())
		}
	}
	look.Reset(spareAge)
	select {
	case <-look.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// callFirst starts an instance, calls it once and stops it.
func callFirst(ctx context.Context, box *procbox.Box, spec sandbox.Spec) (time.Duration, error) {
	began := time.Now()
	if _, err := box.Start(ctx, spec); err != nil {
		return 0, err
	}
	defer box.Stop(context.WithoutCancel(ctx), spec.ID)
	var to verdict
	res, err := box.Invoke(ctx, spec.ID, sandbox.Request{Method: "GET", Path: "/", Logging: true}, &to)
	took := time.Since(began)
	if err == nil && to.status != 200 {
		err = fmt.Errorf("status %d %s%s", to.status, res.Crash, to.logs)
	}
	return took, err
}

// verdict is a sandbox.Sink that keeps the status and, for the case that it is a bad one, a log line.
type verdict struct {
	status int
	mu     sync.Mutex // for what comes below
	logs   string
}

func (v *verdict) Head(status int, _ []sandbox.Header) error { v.status = status; return nil }
func (v *verdict) Write(p []byte) (int, error)               { return len(p), nil }
func (v *verdict) Log(_ sandbox.Stream, lines []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.logs = string(lines[:min(len(lines), 1000)])
}
