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

// killLeftover kills a recorded process group if it is still the one that was
// recorded: its leader is the same process, or a member was started with the
// scratch directory in its environment. It waits a little for them to be gone.
func killLeftover(r record, scratch string) {
	for range 100 {
		if !r.lives(scratch) {
			return
		}
		syscall.Kill(-r.Group, syscall.SIGKILL)
		time.Sleep(5 * time.Millisecond)
	}
}

func (r record) lives(scratch string) bool {
	if p, ok := readStat(r.Group); ok && p.state != "Z" && r.Start != "" && startTime(r.Group) == r.Start {
		return true
	}
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		if r.holds(name, scratch) {
			return true
		}
	}
	return false
}

// holds reports whether a process, by its directory in /proc, is of the group.
func (r record) holds(proc, scratch string) bool {
	pid, err := strconv.Atoi(filepath.Base(proc))
	if err != nil {
		return false
	}
	if p, ok := readStat(pid); !ok || p.group != r.Group || p.state == "Z" {
		return false
	}
	env, err := os.ReadFile(proc + "/environ")
	return err == nil && bytes.Contains(env, []byte(scratch+"/"))
}
