package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// doctor says what this machine can run, what to install for more, and what a server
// does that runs on it.
func doctor(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("fnkit doctor", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object, for programs")
	data := flags.String("data", "", "also say what the server on this `directory`, its -data, does now")
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
	if *data != "" {
		found.Server = findServer(ctx, *data)
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
	Server    *foundServer   `json:"server,omitempty"` // with -data
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

// foundServer is the server on a data directory.
type foundServer struct {
	Data    string `json:"data"`
	Answers bool   `json:"answers"`
	Problem string `json:"problem,omitempty"` // why it does not
	*status        // if it does
}

func findServer(ctx context.Context, data string) *foundServer {
	s, err := askStatus(ctx, data)
	switch {
	case errors.Is(err, errNoServer):
		return &foundServer{Data: data, Problem: "no server runs on " + data}
	case err != nil:
		return &foundServer{Data: data, Problem: fmt.Sprintf("the server on %s cannot be asked: %v", data, err)}
	}
	return &foundServer{Data: data, Answers: true, status: &s}
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
	if d.Server != nil {
		d.Server.report(out, time.Now())
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

// report is for people, at a time.
func (f *foundServer) report(out io.Writer, now time.Time) {
	if !f.Answers {
		fmt.Fprintf(out, "\nServer     %s\n", f.Problem)
		return
	}
	s := f.status
	fmt.Fprintf(out, "\nServer     process %d on %s, for %s, isolation %s\n", s.PID, f.Data, max(0, now.Sub(s.Started)).Round(time.Second), printable(s.Isolation))
	fmt.Fprintf(out, "Instances  %d of %d, at most %d of a deployment; running: %s; waiting for an instance: %s\n",
		s.Instances, s.MaxInstances, s.PerDeployment, calls(s.Calls), calls(s.Waiting))
	if len(s.Deployments) > 0 {
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "  function\tdeployment\tstarting\tidle\tbusy\tdraining\tcalls\twaiting")
		for _, p := range s.Deployments {
			fmt.Fprintf(table, "  %s/%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", printable(p.Project), printable(p.Function), printable(p.Deployment),
				p.Starting, p.Idle, p.Busy, p.Draining, p.Calls, p.Waiting)
		}
		table.Flush()
	}
	if s.Omitted > 0 {
		fmt.Fprintf(out, "  and %d deployments more\n", s.Omitted)
	}
	fmt.Fprintln(out, "Ready      spares, of as many as are wanted now for each network policy in use")
	for _, r := range s.Spares {
		fmt.Fprintf(out, "  %-12s %d of %d\n", printable(r.Runtime), r.Ready, r.Wanted)
	}
	if len(s.Spares) == 0 {
		fmt.Fprintln(out, "  no runtime has any")
	}
}

// printable is a text of a server's without what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
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
