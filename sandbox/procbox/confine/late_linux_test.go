//go:build amd64 || arm64

package confine_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/confine"
)

// latePlan is a plan whose program waits for a line before it runs a script.
func latePlan(t *testing.T, script string) confine.Plan {
	p := plan(t, "echo ready; read -r line; "+script)
	p.Temp, p.TempSize, p.Late = "", 1<<20, "/fn/code"
	return p
}

// completed runs a late plan, completing it in between, and returns what the script printed.
func completed(t *testing.T, h *confine.Host, p confine.Plan, late confine.Late) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Confine(cmd, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("%q, %s", lines.Text(), c.Failure())
	}
	began := time.Now()
	if err = c.Complete(t.Context(), late); err != nil {
		c.Kill()
	}
	t.Logf("complete after %v", time.Since(began))
	fmt.Fprintln(in, "go on")
	for lines.Scan() {
		out += lines.Text() + "\n"
	}
	if werr := cmd.Wait(); err == nil && werr != nil {
		t.Errorf("%v, %s", werr, c.Failure())
	}
	if cerr := c.Close(); cerr != nil {
		t.Error(cerr)
	}
	return out, err
}

func code(t *testing.T) (dir string) {
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("late\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLateDirectory shows a directory to a program that runs: as its own, for it
// to read and execute, and nothing else of the host.
func TestLateDirectory(t *testing.T) {
	t.Parallel()
	h := openAt(t, t.TempDir(), sandbox.IsolationFull)
	p := latePlan(t, `cd /fn/code && cat file && [ -O file ] && echo own; touch made 2>/dev/null || echo read-only
chmod 777 file 2>/dev/null || echo as it was; grep ' /fn/code ' /proc/self/mountinfo | cut -d ' ' -f 6`)
	for range 2 { // the second has the first one's user, whose namespace exists already
		out, err := completed(t, h, p, confine.Late{Dir: code(t), TempSize: 1 << 20})
		if want := "late\nown\nread-only\nas it was\nro,nosuid,nodev"; err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%v, %q, want %q", err, out, want)
		}
	}
}

func TestLateDirectoryThatIsMissing(t *testing.T) {
	t.Parallel()
	h := openAt(t, t.TempDir(), sandbox.IsolationFull)
	_, err := completed(t, h, latePlan(t, "true"), confine.Late{Dir: filepath.Join(t.TempDir(), "none"), TempSize: 1 << 20})
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

// TestLateLimits has programs that were started with none be limited.
func TestLateLimits(t *testing.T) {
	t.Parallel()
	require.Command(t, "python3")
	for _, tier := range tiers[:2] {
		t.Run(tier.String(), func(t *testing.T) {
			t.Parallel()
			h := openAt(t, t.TempDir(), tier)
			fill := "head -c 3000000 /dev/zero > /tmp/a && echo fits"
			if out, err := completed(t, h, latePlan(t, fill+"; true"), confine.Late{TempSize: 1 << 20}); err != nil || out != "" {
				t.Errorf("small /tmp: %v, %q", err, out)
			}
			if out, err := completed(t, h, latePlan(t, fill), confine.Late{TempSize: 8 << 20}); err != nil || out != "fits\n" {
				t.Errorf("large /tmp: %v, %q", err, out)
			}
			if tier == sandbox.IsolationFull {
				return // its program is another user's, whose limits take a privilege that a superuser may lack
			}
			if err := h.WithoutGroups(); err != nil {
				t.Fatal(err)
			}
			bomb := `/usr/bin/python3 -I -S -c "import mmap; x = mmap.mmap(-1, 400 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); print('all')" 2>/dev/null || echo limited`
			for memory, want := range map[int64]string{64 << 20: "limited\n", 2 << 30: "all\n", 0: "all\n"} {
				if out, err := completed(t, h, latePlan(t, bomb), confine.Late{TempSize: 1 << 20, Memory: memory}); err != nil || out != want {
					t.Errorf("memory %d: %v, %q, want %q", memory, err, out, want)
				}
			}
		})
	}
}

// TestLateGroupLimits looks at what is written to the resource groups.
func TestLateGroupLimits(t *testing.T) {
	t.Parallel()
	h := openAt(t, t.TempDir(), sandbox.IsolationFull)
	var memory, shares string // patterns of files of the program's groups
	for _, dir := range h.Groups() {
		for file, to := range map[string]*string{"memory.limit_in_bytes": &memory, "memory.max": &memory, "cpu.shares": &shares, "cpu.weight": &shares} {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
				*to = filepath.Join(dir, "*", file)
			}
		}
	}
	if memory == "" || shares == "" {
		require.Missing(t, "cgroup", strings.Join(h.Notes(), "; "))
	}
	cmd := exec.CommandContext(t.Context(), "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Confine(cmd, latePlan(t, "true"))
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err, c.Failure())
	}
	read := func(pattern string) string {
		groups, err := filepath.Glob(pattern)
		if err != nil || len(groups) != 1 {
			t.Fatalf("%v, %v", groups, err)
		}
		text, err := os.ReadFile(groups[0])
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	if got := read(shares); got != "2" && got != "1" {
		t.Errorf("while it waits it has weight %s", got)
	}
	if err := c.Complete(t.Context(), confine.Late{TempSize: 1 << 20, Memory: 64 << 20, CPUs: 2}); err != nil {
		t.Error(err)
	}
	if got := read(memory); got != fmt.Sprint(64<<20) {
		t.Errorf("memory limit %s", got)
	}
	if got := read(shares); got != "2048" && got != "200" {
		t.Errorf("weight %s", got)
	}
	in.Close()
	cmd.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Complete(t.Context(), confine.Late{}); err == nil {
		t.Error("what has ended was completed")
	}
}
