package procbox

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/harness"
)

// tool is an interpreter or compiler of this machine.
type tool struct {
	lang    *language
	path    string
	runtime sandbox.Runtime
	version string // as it says itself
}

// probeTimeout is how long a command may take to say its version.
const probeTimeout = 20 * time.Second

// findTools looks for the commands of all languages that have a harness. What
// does not answer with a version is left out; of one version the first counts.
func findTools(ctx context.Context, cfg Config) []tool {
	found := make([][]tool, len(languages))
	var probes sync.WaitGroup
	for i := range languages {
		if l := &languages[i]; cfg.wants(l.key) && l.available() {
			probes.Go(func() { found[i] = l.find(ctx, cfg.Path) })
		}
	}
	probes.Wait()
	var all []tool
	seen := map[string]bool{}
	for _, tools := range found {
		for _, t := range tools {
			if !seen[t.runtime.ID] {
				seen[t.runtime.ID] = true
				all = append(all, t)
			}
		}
	}
	return all
}

func (l *language) available() bool {
	if l.file == "" {
		return l.build != nil
	}
	_, err := fs.Stat(harness.Files, l.file)
	return err == nil
}

// find asks each command of the language once, whatever its names. A version
// manager has one script under many names: once it has answered under one, it
// is not asked again, since it takes seconds to say which versions it is not.
func (l *language) find(ctx context.Context, path string) []tool {
	if l.web {
		return []tool{{lang: l, runtime: sandbox.RuntimeFor(l.key, execVersion, arch())}}
	}
	var tools []tool
	seen := map[string]bool{}
	for _, name := range l.candidates(path) {
		file, err := filepath.EvalSymlinks(name)
		if err != nil || seen[file] {
			continue
		}
		seen[file] = true
		text := scriptText(file)
		if text != "" && seen[text] {
			continue
		}
		if t, ok := l.ask(ctx, name, path); ok {
			tools = append(tools, t)
			seen[text] = true
		}
	}
	return tools
}

// maxScript is how long a version manager's script may be.
const maxScript = 4096

// scriptText is what a small script says; empty: the file is something else.
func scriptText(file string) string {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxScript {
		return ""
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), "#!") {
		return ""
	}
	return string(text)
}

// candidates lists the files that are named like a command of the language.
func (l *language) candidates(path string) (files []string) {
	for _, dir := range filepath.SplitList(path) {
		for _, pattern := range l.commands {
			names, _ := filepath.Glob(filepath.Join(dir, pattern)) // the patterns are good
			for _, name := range names {
				if commandName.MatchString(filepath.Base(name)) {
					files = append(files, name)
				}
			}
		}
	}
	return files
}

// commandName is what a command with a version in its name may look like;
// "python3-config" is none.
var commandName = regexp.MustCompile(`^[a-z]+[0-9.]*$`)

var version = regexp.MustCompile(`[0-9]+\.[0-9]+(\.[0-9]+)?`)

// ask has a command say its version and where it really is.
func (l *language) ask(ctx context.Context, command, path string) (tool, bool) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, l.probe...)
	cmd.Env = []string{"PATH=" + path, "HOME=/", "LANG=C.UTF-8"}
	out, err := cmd.Output()
	if err != nil {
		return tool{}, false
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	number := version.FindString(lines[0])
	if number == "" {
		return tool{}, false
	}
	if len(lines) > 1 && filepath.IsAbs(lines[1]) {
		real := lines[1]
		if st, err := os.Stat(real); err == nil && st.IsDir() {
			real = filepath.Join(real, "bin", l.key)
		}
		if st, err := os.Stat(real); err == nil && st.Mode().IsRegular() {
			command = real
		}
	}
	return tool{l, command, sandbox.RuntimeFor(l.key, number, arch()), number}, true
}

// arch is the machine's architecture as runtimes name it.
func arch() string {
	if runtime.GOARCH == "amd64" {
		return "x86"
	}
	return runtime.GOARCH
}

// lookPath finds a command in a list of directories.
func lookPath(name, path string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}
