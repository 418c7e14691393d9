// Package left tells tests what a Box has on the machine.
package left

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Of lists what lives in the directory of a Box, or because of it: scratch
// directories, processes and mounts, by number.
func Of(dir string) (list []string) {
	run := filepath.Join(dir, "run")
	scratch, _ := os.ReadDir(run)
	list = append(list, numbered("scratch file", len(scratch))...)
	processes := 0
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range environs {
		if env, err := os.ReadFile(name); err == nil && bytes.Contains(env, []byte(run+"/")) {
			processes++
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	list = append(list, numbered("process", processes)...)
	return append(list, numbered("mount", strings.Count(string(mounts), dir+"/"))...)
}

// Descriptors lists the open files of a process, by number.
func Descriptors(pid int) []string {
	open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return numbered("descriptor", len(open))
}

func numbered(what string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(what, " ", i+1))
	}
	return list
}
