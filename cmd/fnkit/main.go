// Command fnkit is a small functions server on fnkit's public API: enough to
// try it, to develop against, and to see how the parts are put together.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/fnkit/fnkit/engine"
)

const usage = `fnkit runs functions that are deployed to it over the Appwrite Functions API.

  fnkit serve    start a server            (fnkit serve -h for its flags)
  fnkit doctor   say what this machine can run, and what a server does (fnkit doctor -h)
  fnkit version  print the version of the API
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "fnkit:", err)
		}
		os.Exit(exitCode(err))
	}
}

// errUsage is a command line that cannot be understood.
var errUsage = errors.New("see fnkit help")

func exitCode(err error) int {
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	return 1
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	name := "help"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "serve":
		return serve(ctx, args, out, log)
	case "doctor":
		return doctor(ctx, args, out)
	case "version":
		_, err := fmt.Fprintln(out, engine.WireVersion)
		return err
	case "help", "-h", "--help", "-help":
		_, err := io.WriteString(out, usage)
		return err
	}
	return fmt.Errorf("unknown command %q: %w", name, errUsage)
}
