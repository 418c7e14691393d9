// Command bench measures what a call of a function costs, on the machine it
// runs on, against the same work without an engine. It needs Linux and Node.js,
// and prints tables for BENCHMARKS.md.
//
//	go run .                    # all but the list of a million rows
//	go run . -run calls         # one part: calls, memory, list, first, idle, livelog
//	go run . -run list -rows 1000000
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"
)

// options say what to measure and for how long.
type options struct {
	parts  string
	slice  time.Duration
	rounds int
	calls  int
	rows   int
	only   string
	flight string

	starts    int
	functions int
	lines     int

	postgres string
	queued   int
	slots    int
}

// durable are the parts about queue, schedules and events.
const durable = "throughput,storing,accepting,starting,engines,schedules,events,rows"

func main() {
	var o options
	flag.StringVar(&o.parts, "run", "calls,memory", "parts to run: calls, memory, list, first, idle, livelog; durable is throughput, accepting, starting, engines, schedules, events, rows")
	flag.DurationVar(&o.slice, "slice", time.Second, "length of one measured stretch")
	flag.IntVar(&o.rounds, "rounds", 5, "stretches of each kind; medians are printed")
	flag.IntVar(&o.calls, "calls", 100_000, "calls of the memory part")
	flag.StringVar(&o.flight, "inflight", "1,8,64", "how many calls are in flight in the calls part")
	flag.StringVar(&o.only, "only", "", "beside the bare server, only ways of the calls part whose name has this in it")
	flag.IntVar(&o.starts, "starts", 60, "first calls of the first part")
	flag.IntVar(&o.functions, "functions", 1000, "functions of the idle part")
	flag.IntVar(&o.lines, "lines", 500, "lines that each call of the livelog part logs")
	flag.IntVar(&o.rows, "rows", 1_000_000, "rows of the list part")
	flag.StringVar(&o.postgres, "postgres", os.Getenv("FNKIT_TEST_POSTGRES"), "URL of a Postgres server to compare on; empty: only SQLite")
	flag.IntVar(&o.queued, "queued", 20_000, "executions of each stretch of the throughput part")
	flag.IntVar(&o.slots, "slots", 512, "executions that run at once in the throughput part")
	profile := flag.String("cpuprofile", "", "file for a CPU profile")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			log.Fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	o.parts = strings.ReplaceAll(o.parts, "durable", durable)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "fnkit-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	machine(ctx)
	parts := map[string]func(context.Context, options, string) error{"calls": calls, "memory": memory, "list": list, "first": first, "idle": idle, "livelog": livelog,
		"throughput": throughput, "storing": storing, "accepting": accepting, "starting": starting, "engines": growing, "schedules": schedules, "events": listening, "rows": rows}
	for name := range strings.SplitSeq(o.parts, ",") {
		part, ok := parts[name]
		if !ok {
			return fmt.Errorf("there is no part %q", name)
		}
		if err := part(ctx, o, dir); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// machine prints what the numbers were taken on.
func machine(ctx context.Context) {
	node, _ := exec.CommandContext(ctx, "node", "--version").Output()
	model := "unknown CPU"
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	fmt.Printf("%s × %d, %s/%s, %s, Node.js %s\n\n", model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), strings.TrimSpace(string(node)))
}
