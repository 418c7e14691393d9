package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// doctor says what this machine can run, and what to install for more.
func doctor(ctx context.Context, args []string, out io.Writer) (err error) {
	if err := parse(flag.NewFlagSet("fnkit doctor", flag.ContinueOnError), args, out); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fnkit-doctor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	box, err := procbox.New(procbox.Config{Dir: dir, Path: os.Getenv("PATH")})
	if err != nil {
		return err
	}
	defer closing(&err, box)
	caps, err := box.Capabilities(ctx)
	if err != nil {
		return err
	}
	report(out, caps)
	return nil
}

func report(out io.Writer, caps sandbox.Capabilities) {
	fmt.Fprintf(out, "Machine    %s/%s, %d CPUs\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Fprintln(out, "Runtimes")
	for _, r := range caps.Runtimes {
		fmt.Fprintf(out, "  %-14s %-10s %3d calls at once, console output per %s\n", r.ID, r.Name, r.Concurrency, r.NativeLogs)
	}
	if !slices.ContainsFunc(caps.Runtimes, func(r sandbox.Runtime) bool { return r.Key != sandbox.Exec }) {
		fmt.Fprintln(out, "  no language: install Node.js, Python 3, PHP, Ruby or Go")
	}
	fmt.Fprintf(out, "\nIsolation  %s\n", isolationText(caps.Isolation))
	fmt.Fprintf(out, "Limits     %s\n", orNone(caps.Limits))
	if len(caps.Notes) > 0 {
		fmt.Fprintln(out, "\nFor more")
		for _, n := range caps.Notes {
			fmt.Fprintf(out, "  - %s\n", n)
		}
	}
}

// isolationText names a level of isolation and what it means.
func isolationText(i sandbox.Isolation) string {
	switch i {
	case sandbox.IsolationNone:
		return "none: functions are processes of this user and see its files; run only code you trust"
	case sandbox.IsolationRestricted:
		return "restricted: functions have filtered system calls and files, and no own namespaces"
	case sandbox.IsolationUserNS:
		return "userns: functions have namespaces of their own, made without privileges"
	}
	return "full: functions have namespaces, a user and resource groups of their own"
}

func orNone(items []string) string {
	if len(items) == 0 {
		return "none"
	}
	return strings.Join(items, ", ")
}
