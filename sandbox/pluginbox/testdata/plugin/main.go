// Plugin is what the tests of pluginbox start.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/fnbox/testdata/fixture"
	"github.com/fnkit/fnkit/sandbox/pluginbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

func main() {
	log.SetFlags(0)
	var cfg procbox.Config
	flag.StringVar(&cfg.Dir, "dir", "", "serve procbox on this directory; default: fnbox")
	flag.StringVar(&cfg.Path, "path", "", "")
	flag.StringVar(&cfg.Isolation, "isolation", "", "")
	flag.StringVar(&cfg.GoCache, "gocache", "", "")
	languages := flag.String("languages", "", "")
	fail := flag.String("fail", "", "print this and fail instead")
	hang := flag.Bool("hang", false, "do nothing instead")
	flag.Parse()
	switch {
	case *fail != "":
		log.Fatal(*fail)
	case *hang:
		select {}
	}
	d, err := driver(cfg, *languages)
	if err == nil {
		err = pluginbox.Serve(d)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func driver(cfg procbox.Config, languages string) (sandbox.Driver, error) {
	if cfg.Dir == "" {
		return probe{fnbox.New(fnbox.Funcs{"fixture": fixture.Funcs["fixture"], "faults": faults})}, nil
	}
	cfg.Languages = strings.Split(languages, ",")
	cfg.Logger = pluginbox.Logger(slog.LevelDebug)
	return procbox.New(cfg)
}

// faults is a function that does to its process what the path says.
func faults(_ context.Context, c *fnbox.Context) error {
	switch c.Req.Path {
	case "/die":
		go panic("died on purpose")
		select {}
	case "/exit":
		os.Exit(7)
	case "/pid":
		return c.JSON(200, os.Getpid())
	case "/environ":
		return c.JSON(200, os.Environ())
	case "/print":
		fmt.Println("printed on stdout")
		fmt.Fprintln(os.Stderr, "printed on stderr")
	case "/log":
		pluginbox.Logger(slog.LevelInfo).Warn("logged", "answer", 42, slog.Group("of", "what", "all"))
	case "/flood":
		err := c.Head(200)
		for piece := bytes.Repeat([]byte("x"), 64<<10); err == nil; {
			if _, err = c.Write(piece); err == nil {
				flooded.Add(1)
			}
		}
		return err
	case "/flooded":
		return c.JSON(200, flooded.Load())
	case "/headers":
		for _, h := range c.Req.Headers {
			c.AddHeader("x-given", h)
		}
	}
	return c.Empty()
}

// flooded counts pieces that were taken.
var flooded atomic.Int64

// probe is fnbox with runtimes whose names are errors: Start, Build and Invoke give
// them.
type probe struct{ *fnbox.Box }

var failures = map[string]error{
	"gone":      sandbox.ErrGone,
	"runtime":   sandbox.ErrRuntime,
	"too-large": sandbox.ErrTooLarge,
	"network":   sandbox.ErrNetwork,
	"load":      &sandbox.LoadError{Reason: "exit status 9: bad \xff"},
	"canceled":  context.Canceled,
	"deadline":  context.DeadlineExceeded,
	"both":      errors.Join(sandbox.ErrGone, sandbox.ErrTooLarge),
	"other":     errors.New("of no kind"),
}

func (p probe) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if err := failures[spec.Runtime]; err != nil {
		return sandbox.Instance{}, fmt.Errorf("probe: %w", err)
	}
	return p.Box.Start(ctx, spec)
}

func (p probe) Invoke(ctx context.Context, id string, r sandbox.Request, s sandbox.Sink) (sandbox.Result, error) {
	if err := failures[id]; err != nil {
		return sandbox.Result{Unsent: true, Retire: true, TimedOut: true, Crash: "crash", Aborted: "aborted"}, fmt.Errorf("probe: %w", err)
	}
	switch id {
	case "unread": // leaves the body alone
		s.Log(sandbox.Stdout, []byte("hanging\n"))
		<-ctx.Done()
		return sandbox.Result{}, ctx.Err()
	case "deaf": // does not notice that the sink fails
		err := errors.Join(s.Head(200, nil), s.(sandbox.Flusher).Flush())
		<-ctx.Done()
		return sandbox.Result{}, errors.Join(err, ctx.Err())
	case "stubborn": // does not end
		s.Log(sandbox.Stdout, []byte("hanging\n"))
		select {}
	}
	return p.Box.Invoke(ctx, id, r, s)
}
