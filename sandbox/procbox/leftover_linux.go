package procbox

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startTime tells apart processes that have the same number one after the other.
func startTime(pid int) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	p, ok := readStat(pid)
	if !ok {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + p.start
}

// stat is what /proc knows of a process.
type stat struct {
	state string
	group int
	start string
}

func readStat(pid int) (stat, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	// The name, in parentheses, may hold anything.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 20 {
		return stat{}, false
	}
	group, err := strconv.Atoi(f[2])
	return stat{f[0], group, f[19]}, err == nil
}

// killLeftovers kills what a dead owner left, and waits a little for it to be
// gone: the recorded process groups whose leader is still the one that was
// recorded, and the groups of all processes that were started with a scratch
// directory of run in their environment, also those that the owner had no time
// to record.
func killLeftovers(run string, records []record) {
	for range 100 {
		groups := groupsIn(run)
		for _, r := range records {
			if r.leads() {
				groups[r.Group] = true
			}
		}
		if len(groups) == 0 {
			return
		}
		for g := range groups {
			syscall.Kill(-g, syscall.SIGKILL)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leads reports whether the process that was recorded lives.
func (r record) leads() bool {
	p, ok := readStat(r.Group)
	return ok && p.state != "Z" && r.Start != "" && startTime(r.Group) == r.Start
}

// groupsIn are the process groups of those that have a directory in run in
// their environment, and are not of this process's own group.
func groupsIn(run string) map[int]bool {
	groups := map[int]bool{}
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		env, err := os.ReadFile(name + "/environ")
		if err != nil || !bytes.Contains(env, []byte(run+"/")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if p, ok := readStat(pid); ok && p.state != "Z" && p.group > 1 && p.group != syscall.Getpgrp() {
			groups[p.group] = true
		}
	}
	return groups
}
