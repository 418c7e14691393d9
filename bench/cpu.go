package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

// tick is the unit of times in /proc, the same on every Linux.
const tick = 10 * time.Millisecond

// cpuTime is the CPU time that this process and all that descend from it and
// live have used.
func cpuTime() (time.Duration, error) {
	own, err := ownTime()
	return own + childTime(), err
}

// ownTime is that of this process alone.
func ownTime() (time.Duration, error) {
	var own syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	return time.Duration(own.Utime.Nano() + own.Stime.Nano()), err
}

// childTime is that of its descendants. To find them costs some of its own.
func childTime() (total time.Duration) {
	for _, p := range descendants(os.Getpid()) {
		total += p.cpu
	}
	return total
}

// spent is cpuTime with that of the database's server, if that is a process of
// this machine.
func (db *database) spent(ctx context.Context) (time.Duration, error) {
	total, err := cpuTime()
	if err != nil || db.dsn == "" {
		return total, err
	}
	var backend int
	if err := db.raw.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", backend))
	if err != nil {
		return total, nil
	}
	server := parseStat(text).parent
	if text, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", server)); err != nil {
		return 0, err
	}
	total += parseStat(text).ended
	for _, p := range descendants(server) {
		total += p.cpu
	}
	return total, nil
}

// process is a line of /proc.
type process struct {
	pid, parent int
	cpu         time.Duration
	ended       time.Duration // CPU time of children that have ended
}

// descendants returns the living children of a process, and theirs.
func descendants(of int) (found []process) {
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	all := make([]process, 0, len(names))
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil {
			all = append(all, parseStat(text))
		}
	}
	family := map[int]bool{of: true}
	for grew := true; grew; {
		grew = false
		for _, p := range all {
			if family[p.parent] && !family[p.pid] {
				family[p.pid], grew = true, true
				found = append(found, p)
			}
		}
	}
	return found
}

// parseStat reads /proc/PID/stat; the name in it, in parentheses, may hold anything.
func parseStat(text []byte) (p process) {
	p.pid, _ = strconv.Atoi(string(bytes.Fields(text)[0]))
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	p.parent, _ = strconv.Atoi(string(f[1]))
	for i, field := range f[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.Atoi(string(field))
		*[]*time.Duration{&p.cpu, &p.ended}[i/2] += time.Duration(n) * tick
	}
	return p
}

// resident returns the memory of this process that is in RAM, in MB, after all
// that is free was given back.
func resident() (float64, error) {
	runtime.GC()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, pages int
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0, err
	}
	return float64(pages*os.Getpagesize()) / (1 << 20), nil
}
