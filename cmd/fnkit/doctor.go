package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// doctor says what this machine can run, and what to install for more.
func doctor(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("fnkit doctor", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object, for programs")
	timed := flags.Bool("measure", false, "also measure first calls in each runtime, with a spare and without; it takes seconds")
	if err := parse(flags, args, out); err != nil {
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
	found := examine(caps, box.Commands())
	if *timed {
		for i, r := range caps.Runtimes {
			if r.Spares {
				took := measure(ctx, box, r, dir)
				found.Runtimes[i].FirstCall = &took
			}
		}
	}
	if *asJSON {
		text := json.NewEncoder(out)
		text.SetIndent("", "  ")
		return text.Encode(found)
	}
	found.report(out)
	return nil
}

// diagnosis is what doctor found.
type diagnosis struct {
	Machine struct {
		OS   string `json:"os"`
		Arch string `json:"arch"`
		CPUs int    `json:"cpus"`
	} `json:"machine"`
	Runtimes  []foundRuntime `json:"runtimes"`
	Isolation string         `json:"isolation"` // "full", "userns", "restricted" or "none"
	Limits    []limitState   `json:"limits"`
	Missing   []lack         `json:"missing"`
	tier      sandbox.Isolation
}

type foundRuntime struct {
	ID          string             `json:"id"`
	Name        string             `json:"name"`
	Version     string             `json:"version,omitempty"` // of the command
	Command     string             `json:"command,omitempty"`
	Concurrency int                `json:"concurrency"`
	NativeLogs  sandbox.NativeLogs `json:"nativeLogs"`
	Spares      int                `json:"spares"`              // that a server keeps at most
	FirstCall   *firstCall         `json:"firstCall,omitempty"` // with -measure, if there can be spares
}

type limitState struct {
	Name     string `json:"name"`
	Enforced bool   `json:"enforced"`
}

// lack is something that is not here, or not all of it, and what to do about it.
type lack struct {
	Of  string `json:"of"` // "isolation", a limit, or a language
	Why string `json:"why"`
}

func examine(caps sandbox.Capabilities, commands []procbox.Command) diagnosis {
	d := diagnosis{Isolation: caps.Isolation.String(), tier: caps.Isolation, Runtimes: []foundRuntime{}, Missing: []lack{}}
	d.Machine.OS, d.Machine.Arch, d.Machine.CPUs = runtime.GOOS, runtime.GOARCH, runtime.NumCPU()
	for _, r := range caps.Runtimes {
		f := foundRuntime{ID: r.ID, Name: r.Name, Concurrency: r.Concurrency, NativeLogs: r.NativeLogs}
		if r.Spares {
			f.Spares = engine.DefaultSpares
		}
		if i := slices.IndexFunc(commands, func(c procbox.Command) bool { return c.Runtime == r.ID }); i >= 0 {
			f.Version, f.Command = commands[i].Version, commands[i].Path
		}
		d.Runtimes = append(d.Runtimes, f)
	}
	for _, name := range []string{"memory", "cpu", "pids", "disk", "wall"} {
		d.Limits = append(d.Limits, limitState{name, slices.Contains(caps.Limits, name)})
	}
	for _, note := range caps.Notes {
		of, why, _ := strings.Cut(note, ": ")
		d.Missing = append(d.Missing, lack{of, why})
	}
	return d
}

// report is for people.
func (d diagnosis) report(out io.Writer) {
	fmt.Fprintf(out, "Machine    %s/%s, %d CPUs\n\n", d.Machine.OS, d.Machine.Arch, d.Machine.CPUs)
	fmt.Fprintln(out, "Runtimes")
	languages := 0
	for _, r := range d.Runtimes {
		what := r.Name + " " + r.Version
		if r.Command == "" {
			what = "any program that serves HTTP on a socket it is given"
		} else {
			languages++
			what += ", " + r.Command
		}
		fmt.Fprintf(out, "  %-12s %s\n  %-12s %s at once, console output per %s\n", r.ID, what, "", calls(r.Concurrency), r.NativeLogs)
	}
	if languages == 0 {
		fmt.Fprintln(out, "  no language: install Node.js, Bun, Deno, Python 3, PHP, Ruby or Go")
	}
	fmt.Fprintf(out, "\nIsolation  %s\n", isolationText(d.tier))
	fmt.Fprintf(out, "Limits     %s\n", orNone(d.limits(true)))
	if open := d.limits(false); len(open) > 0 {
		fmt.Fprintf(out, "           not enforced: %s\n", strings.Join(open, ", "))
	}
	d.reportSpares(out)
	if len(d.Missing) > 0 {
		fmt.Fprintln(out, "\nFor more")
		for _, m := range d.Missing {
			fmt.Fprintf(out, "  - %s: %s\n", m.Of, m.Why)
		}
	}
}

// reportSpares says how many processes are kept ready, and what that is worth.
func (d diagnosis) reportSpares(out io.Writer) {
	fmt.Fprintf(out, "\nSpares     processes that a server keeps ready, as many as were needed lately\n")
	for _, r := range d.Runtimes {
		switch first := r.FirstCall; {
		case r.Spares == 0:
			fmt.Fprintf(out, "  %-12s none\n", r.ID)
		case first == nil:
			fmt.Fprintf(out, "  %-12s up to %d\n", r.ID, r.Spares)
		case first.Error != "":
			fmt.Fprintf(out, "  %-12s up to %d; a first call fails: %s\n", r.ID, r.Spares, first.Error)
		default:
			fmt.Fprintf(out, "  %-12s up to %d; a first call takes %.1f ms with a spare, %.1f ms without\n", r.ID, r.Spares, first.Spare, first.Fresh)
		}
	}
}

func (d diagnosis) limits(enforced bool) (names []string) {
	for _, l := range d.Limits {
		if l.Enforced == enforced {
			names = append(names, l.Name)
		}
	}
	return names
}

func calls(n int) string {
	if n == 1 {
		return "1 call"
	}
	return fmt.Sprintf("%d calls", n)
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
