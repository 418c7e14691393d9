//go:build amd64 || arm64

package confine_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/confine"
	"golang.org/x/sys/unix"
)

var tiers = []sandbox.Isolation{sandbox.IsolationFull, sandbox.IsolationUserNS, sandbox.IsolationRestricted}

// openAt opens a Host of a tier, or skips the test.
func openAt(t testing.TB, dir string, tier sandbox.Isolation) *confine.Host {
	t.Helper()
	h, err := confine.Open(t.Context(), confine.Config{Dir: dir, Most: tier})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	if h.Isolation() != tier {
		require.Missing(t, "isolation", strings.Join(h.Notes(), "; "))
	}
	return h
}

// atTiers runs a test at each tier.
func atTiers(t *testing.T, test func(t *testing.T, h *confine.Host)) {
	t.Helper()
	for _, tier := range tiers {
		t.Run(tier.String(), func(t *testing.T) {
			t.Parallel()
			test(t, openAt(t, t.TempDir(), tier))
		})
	}
}

// plan is a plan to run a shell script.
func plan(t testing.TB, script string, args ...string) confine.Plan {
	t.Helper()
	temp := t.TempDir()
	for _, name := range []string{"tmp", "home"} {
		if err := os.Mkdir(filepath.Join(temp, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return confine.Plan{
		Args: append([]string{"/bin/sh", "-c", script}, args...), Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/usr", Temp: temp, Processes: 200,
	}
}

// result is how a program ended.
type result struct {
	out, failure string
	err          error
	hits         confine.Hits
}

func confined(t testing.TB, h *confine.Host, p confine.Plan) (r result) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "")
	cmd.Stdout, cmd.Stderr = &out, &out
	c, err := h.Confine(cmd, p)
	if err != nil {
		t.Fatal(err)
	}
	if r.err = c.Start(); r.err == nil {
		r.err = cmd.Wait()
	}
	r.out, r.failure, r.hits = out.String(), c.Failure(), c.Hits()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return r
}

// TestInitIsWhatIsBuilt compares the binaries with the sums that the build noted.
func TestInitIsWhatIsBuilt(t *testing.T) {
	t.Parallel()
	built, err := os.ReadFile("init/BUILT")
	if err != nil {
		t.Fatal(err)
	}
	sums := 0
	for line := range strings.Lines(string(built)) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			continue
		}
		sums++
		text, err := os.ReadFile(filepath.Join("init", name))
		if got := sha256.Sum256(text); err != nil || hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s is not the binary that was built: %v", name, err)
		}
	}
	if sum := sha256.Sum256(confine.Init()); sums != 2 || !strings.Contains(string(built), hex.EncodeToString(sum[:])) {
		t.Errorf("%d sums; the program that is carried is none of them", sums)
	}
}

// TestInitIsItsSource builds it again, where the compilers are that built it.
func TestInitIsItsSource(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bash", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"} {
		if _, err := exec.LookPath(name); err != nil {
			require.Missing(t, "init-compilers", err.Error())
		}
	}
	out, err := exec.CommandContext(t.Context(), "bash", "init/build", "--check").CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 {
		require.Missing(t, "init-compilers", string(out))
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestInitCannotBeChanged(t *testing.T) {
	t.Parallel()
	h := openAt(t, t.TempDir(), sandbox.IsolationRestricted)
	image := fmt.Sprintf("/proc/self/fd/%d", h.Image().Fd())
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		_, err = f.Write([]byte("x"))
	}
	if err == nil {
		t.Error("init can be written")
	}
	if err := os.Truncate(image, 0); err == nil {
		t.Error("init can be truncated")
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	atTiers(t, func(t *testing.T, h *confine.Host) {
		for script, want := range map[string]string{
			"exit 0": "", "exit 7": "exit status 7", "kill -KILL $$": "signal: killed", "kill -SEGV $$": "signal: segmentation fault",
			"(sleep 1000 &) ; exit 3": "exit status 3",
		} {
			r := confined(t, h, plan(t, script))
			if got := fmt.Sprint(r.err); got != want && (want != "" || r.err != nil) || r.failure != "" {
				t.Errorf("%s: %v, failure %q, want %q; output %q", script, r.err, r.failure, want, r.out)
			}
		}
	})
}

// TestWhatCannotBeStarted tells what fails before the program runs from what the
// program does.
func TestWhatCannotBeStarted(t *testing.T) {
	t.Parallel()
	atTiers(t, func(t *testing.T, h *confine.Host) {
		p := plan(t, "")
		p.Args[0] = "/usr/no such program"
		if r := confined(t, h, p); r.failure != "run /usr/no such program: no such file or directory" || r.err == nil {
			t.Errorf("%+v", r)
		}
		p = plan(t, "")
		p.Dir = "/usr/none"
		if r := confined(t, h, p); r.failure != "enter /usr/none: no such file or directory" {
			t.Errorf("%+v", r)
		}
		if !h.Namespaces() {
			return
		}
		p = plan(t, "")
		p.Binds = []confine.Bind{{Source: "/no such directory", Target: "/fn/code"}}
		if r := confined(t, h, p); r.failure != "show /no such directory: no such file or directory" {
			t.Errorf("%+v", r)
		}
	})
}

// TestWhatAProgramGets is all that it has of the host: arguments, environment,
// descriptors.
func TestWhatAProgramGets(t *testing.T) {
	t.Parallel()
	leak, err := os.CreateTemp(t.TempDir(), "leak")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil { // inherited by what is executed
		t.Fatal(err)
	}
	atTiers(t, func(t *testing.T, h *confine.Host) {
		p := plan(t, `echo "$0 $1"; env; for fd in 0 1 2 3 4 5 6 7 8 9 10; do if (: <&$fd) 2>/dev/null; then echo "open $fd"; fi; done; true`, "zero", "one two")
		p.Env = append(p.Env, "A=b\nc")
		r := confined(t, h, p)
		want := "zero one two\nA=b\nc\nPATH=/usr/bin:/bin\nPWD=/usr\nopen 0\nopen 1\nopen 2\n"
		got := strings.Split(r.out, "\n")
		slices.Sort(got)
		wanted := strings.Split(want, "\n")
		slices.Sort(wanted)
		if r.err != nil || !slices.Equal(got, wanted) {
			t.Errorf("%v, %q, want %q", r.err, r.out, want)
		}
	})
}

// TestStatus reads what the kernel says of a program.
func TestStatus(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers[:2] {
		t.Run(tier.String(), func(t *testing.T) {
			t.Parallel()
			h := openAt(t, t.TempDir(), tier)
			r := confined(t, h, plan(t, `while read -r line; do echo "$line"; done < /proc/self/status`))
			for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Pid:\t2", "NSpid:\t2"} {
				if !strings.Contains(r.out, want+"\n") {
					t.Errorf("no %q in\n%s", want, r.out)
				}
			}
			if tier == sandbox.IsolationFull && (strings.Contains(r.out, "Uid:\t0") || strings.Contains(r.out, "Gid:\t0")) {
				t.Errorf("it runs as the host's user\n%s", r.out)
			}
		})
	}
}

// TestKillEndsAll has a program leave its session twice over and then be killed.
func TestKillEndsAll(t *testing.T) {
	t.Parallel()
	require.Command(t, "setsid")
	atTiers(t, func(t *testing.T, h *confine.Host) {
		mark := "100" + strconv.FormatInt(time.Now().UnixNano(), 10)
		cmd := exec.CommandContext(t.Context(), "")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.Confine(cmd, plan(t, "setsid setsid sleep "+mark+" & trap '' TERM HUP INT; (setsid sleep "+mark+" &); echo started; sleep "+mark))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 8)); err != nil {
			t.Fatal(err, c.Failure())
		}
		for deadline := time.Now().Add(20 * time.Second); len(running(t, mark)) < 3; {
			if time.Now().After(deadline) {
				t.Fatal("there is nothing to kill")
			}
		}
		began := time.Now()
		c.Kill()
		c.Kill()
		err = cmd.Wait()
		took := time.Since(began)
		if left := running(t, mark); len(left) > 0 || fmt.Sprint(err) != "signal: killed" {
			t.Errorf("%v; left %v", err, left)
		}
		t.Logf("all ended after %v", took)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// running are the processes that have a word among their arguments.
func running(t *testing.T, word string) (pids []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, _ := os.ReadFile(name)
		if args := strings.Split(string(text), "\x00"); slices.Contains(args, word) && !slices.Contains(args, "/bin/sh") && !slices.Contains(args, "setsid") {
			pids = append(pids, filepath.Base(filepath.Dir(name)))
		}
	}
	return pids
}

// TestInitIsKilled has somebody kill init: the program does not outlive it.
func TestInitIsKilled(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers {
		t.Run(tier.String(), func(t *testing.T) {
			t.Parallel()
			h := openAt(t, t.TempDir(), tier)
			mark := "200" + strconv.FormatInt(time.Now().UnixNano(), 10)
			cmd := exec.CommandContext(t.Context(), "")
			c, err := h.Confine(cmd, plan(t, "exec sleep "+mark))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			wait := func(n int) {
				for deadline := time.Now().Add(20 * time.Second); len(running(t, mark)) != n; {
					if time.Now().After(deadline) {
						t.Fatalf("%d processes run, want %d", len(running(t, mark)), n)
					}
				}
			}
			wait(1)
			cmd.Process.Kill()
			cmd.Wait()
			wait(0)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOrphansAreReaped starts many processes whose parents are gone.
func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	atTiers(t, func(t *testing.T, h *confine.Host) {
		p := plan(t, `i=0; while [ $i -lt 150 ]; do (true &); i=$((i+1)); done; echo done`)
		p.Processes = 100 // zombies count
		if r := confined(t, h, p); r.err != nil || r.out != "done\n" {
			t.Errorf("%v, %q", r.err, r.out)
		}
	})
}

// TestEachWallAlone takes away those that would hide another's faults.
func TestEachWallAlone(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tier := range tiers {
		for name, without := range map[string][2]bool{"all": {}, "no filter": {true, false}, "no landlock": {false, true}, "file tree and privileges alone": {true, true}} {
			if tier == sandbox.IsolationRestricted && without[1] {
				continue // there is no other wall around files
			}
			t.Run(tier.String()+"/"+name, func(t *testing.T) {
				t.Parallel()
				h := openAt(t, t.TempDir(), tier)
				h.Without(without[0], without[1])
				var all strings.Builder
				for attack, script := range map[string]string{
					"read a file of the host":  "cat " + secret,
					"read the host's root":     "cat /etc/shadow",
					"list the host's root":     "ls /root",
					"write to the system":      "touch /usr/touched",
					"write to the root":        "touch /touched",
					"mount":                    "mount -t tmpfs none /tmp",
					"make a namespace":         "unshare -m true",
					"change the host name":     "hostname evil",
					"become the superuser":     `python3 -I -S -c "import os; os.setuid(0); os.setgid(0)"`,
					"make a device":            "mknod /tmp/device c 1 1 || mknod /tmp/tmp/device c 1 1",
					"read another's memory":    "cat /proc/1/mem",
					"read another's variables": "cat /proc/1/environ | grep .",
				} {
					if strings.Contains(attack, "superuser") && tier == sandbox.IsolationRestricted && os.Geteuid() == 0 {
						continue // it is that user, without the privileges
					}
					fmt.Fprintf(&all, "(%s) && echo 'could %s'\n", script, attack)
				}
				r := confined(t, h, plan(t, all.String()+"echo tried"))
				if r.err != nil || strings.Contains(r.out, "could ") || !strings.HasSuffix(r.out, "\ntried\n") {
					t.Errorf("%v\n%s", r.err, r.out)
				}
			})
		}
	}
	if _, err := os.Stat("/usr/touched"); err == nil {
		t.Error("the system was written to")
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	require.Command(t, "python3")
	atTiers(t, func(t *testing.T, h *confine.Host) {
		if !slices.Contains(h.Limits(), "memory") {
			require.Missing(t, "memory", strings.Join(h.Notes(), "; "))
		}
		bomb := plan(t, `/usr/bin/python3 -I -S -c "import os
for i in range(4):
    if os.fork() == 0: break
x = [bytearray(1 << 20) for i in range(60)]
os.wait()"; echo lives`)
		bomb.Memory = 100 << 20 // each process has less
		r := confined(t, h, bomb)
		if r.hits.Memory == 0 {
			t.Errorf("%+v", r)
		}
		small := plan(t, `echo lives`)
		small.Memory = 100 << 20
		if r := confined(t, h, small); r.hits.Memory > 0 || r.out != "lives\n" {
			t.Errorf("%+v", r)
		}
	})
}

func TestProcessLimit(t *testing.T) {
	t.Parallel()
	atTiers(t, func(t *testing.T, h *confine.Host) {
		if !slices.Contains(h.Limits(), "pids") {
			require.Missing(t, "pids", strings.Join(h.Notes(), "; "))
		}
		p := plan(t, `i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; echo all`)
		p.Processes = 20
		r := confined(t, h, p)
		if strings.Contains(r.out, "all") || !strings.Contains(r.out, "fork") || len(h.Groups()) > 0 && r.hits.Processes == 0 {
			t.Errorf("%+v", r)
		}
	})
}

// TestCPULimit compares the time that a busy program gets with the time that
// passes.
func TestCPULimit(t *testing.T) {
	t.Parallel()
	atTiers(t, func(t *testing.T, h *confine.Host) {
		if !slices.Contains(h.Limits(), "cpu") {
			require.Missing(t, "cpu", strings.Join(h.Notes(), "; "))
		}
		p := plan(t, `(sleep 2; kill $$) & while :; do :; done`)
		p.CPUs = 0.2
		began := time.Now()
		cmd := exec.CommandContext(t.Context(), "")
		c, err := h.Confine(cmd, p)
		if err != nil {
			t.Fatal(err)
		}
		if err = c.Start(); err == nil {
			err = cmd.Wait()
		}
		took := time.Since(began)
		used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() // of its children too: they were waited for
		if fmt.Sprint(err) != "signal: terminated" || used.Seconds() > 0.3*took.Seconds()+0.15 {
			t.Errorf("%v; used %v of %v", err, used, took)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFileLimits(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers[:2] {
		t.Run(tier.String(), func(t *testing.T) {
			t.Parallel()
			h := openAt(t, t.TempDir(), tier)
			for name, script := range map[string]string{
				"bytes": "head -c 3000000 /dev/zero > /tmp/a",
				"shm":   "head -c 3000000 /dev/zero > /dev/shm/a",
				"home":  "head -c 1500000 /dev/zero > /home/fn/a && head -c 1500000 /dev/zero > /tmp/a",
				"files": "cd /tmp && touch $(seq 21000)",
			} {
				p := plan(t, script)
				p.Temp, p.TempSize = "", 2<<20
				if r := confined(t, h, p); r.err == nil {
					t.Errorf("%s: no limit: %q", name, r.out)
				}
			}
			p := plan(t, "head -c 3000000 /dev/zero > /tmp/a")
			p.FileSize = 1 << 20
			if r := confined(t, h, p); r.err == nil {
				t.Errorf("no limit of one file: %q", r.out)
			}
		})
	}
}

// TestOwned shows the host user's files as the program's own, and leaves what the
// program writes to the host's user.
func TestOwned(t *testing.T) {
	t.Parallel()
	for _, tier := range tiers[:2] {
		t.Run(tier.String(), func(t *testing.T) {
			t.Parallel()
			h := openAt(t, t.TempDir(), tier)
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "private"), []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
			p := plan(t, "cat private && [ -O private ] && echo new > made && mkdir sub && echo ok")
			p.Binds, p.Dir, p.Build = []confine.Bind{{Source: dir, Target: "/fn/code", Writable: true, Owned: true}}, "/fn/code", true
			if r := confined(t, h, p); r.err != nil || r.out != "textok\n" {
				t.Fatalf("%+v", r)
			}
			for _, name := range []string{"made", "sub"} {
				st, err := os.Stat(filepath.Join(dir, name))
				if err != nil || int(st.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
					t.Errorf("%s: %v, %+v", name, err, st)
				}
			}
			p.Binds[0].Writable = false
			p.Args[2] = "touch made 2>/dev/null || rm made 2>/dev/null || echo read-only"
			if r := confined(t, h, p); r.out != "read-only\n" {
				t.Errorf("%+v", r)
			}
			p.Binds[0].Writable = true
			p.Args[2] = "cp /bin/true tool; chmod u+s tool; chmod g+s tool; chmod 755 tool && echo usable"
			if r := confined(t, h, p); !strings.HasSuffix(r.out, "usable\n") {
				t.Errorf("%+v", r)
			}
			if st, err := os.Stat(filepath.Join(dir, "tool")); err != nil || st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
				t.Errorf("%v, %v: runs as the host's user for everybody", st.Mode(), err)
			}
		})
	}
}

// TestLeftGroupsAreRemoved has a Host find what one that died has left.
func TestLeftGroupsAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := confine.Open(t.Context(), confine.Config{Dir: dir, Most: sandbox.IsolationFull})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if len(first.Groups()) == 0 {
		require.Missing(t, "cgroup", strings.Join(first.Notes(), "; "))
	}
	left := exec.Command("sleep", "1000")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- left.Wait() }()
	for _, group := range first.Groups() {
		sub := filepath.Join(group, "left")
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "cgroup.procs"), []byte(strconv.Itoa(left.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	second := openAt(t, dir, first.Isolation())
	if err := <-over; fmt.Sprint(err) != "signal: killed" {
		t.Errorf("what was left: %v", err)
	}
	for _, group := range second.Groups() {
		if _, err := os.Stat(filepath.Join(group, "left")); err == nil {
			t.Errorf("%s is left", group)
		}
	}
	if !slices.Equal(first.Groups(), second.Groups()) {
		t.Errorf("groups %v, then %v", first.Groups(), second.Groups())
	}
}

// TestNoGroupIsLeft looks at what remains of a Host that is closed.
func TestNoGroupIsLeft(t *testing.T) {
	t.Parallel()
	h, err := confine.Open(t.Context(), confine.Config{Dir: t.TempDir(), Most: sandbox.IsolationFull})
	if err != nil {
		t.Fatal(err)
	}
	groups := h.Groups()
	if h.Isolation() > sandbox.IsolationNone {
		confined(t, h, plan(t, "true"))
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	for _, group := range groups {
		if _, err := os.Stat(group); err == nil {
			t.Errorf("%s is left", group)
		}
	}
}

// TestUsersDiffer runs programs beside each other, and one after them.
func TestUsersDiffer(t *testing.T) {
	t.Parallel()
	h := openAt(t, t.TempDir(), sandbox.IsolationFull)
	seen := map[string]bool{}
	begin := func() (uid string, end func()) {
		cmd := exec.CommandContext(t.Context(), "")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		p := plan(t, "id -u; cat private; read -r line")
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "private"), []byte("own\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Binds, p.Dir = []confine.Bind{{Source: dir, Target: "/fn/code", Owned: true}}, "/fn/code"
		c, err := h.Confine(cmd, p)
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "own" {
			uid = lines.Text()
		}
		return uid, func() {
			in.Close()
			cmd.Wait()
			if err := c.Close(); err != nil || c.Failure() != "" {
				t.Error(err, c.Failure())
			}
		}
	}
	for round := range 2 {
		var ends []func()
		beside := map[string]bool{}
		for range 3 {
			uid, end := begin()
			if uid == "" || uid == "0" || beside[uid] || round == 1 && !seen[uid] {
				t.Errorf("round %d: user %q; beside %v, before %v", round, uid, beside, seen)
			}
			beside[uid], seen[uid] = true, true
			ends = append(ends, end)
		}
		for _, end := range ends {
			end()
		}
	}
}

// nested has TestNested say what it reaches, and nestedGroup where it may make groups.
const nested, nestedGroup = "FNKIT_TEST_NESTED", "FNKIT_TEST_NESTED_GROUP"

func TestNested(t *testing.T) {
	dir := os.Getenv(nested)
	if dir == "" {
		t.Skip("is run by TestFallback and TestDelegatedGroup")
	}
	h, err := confine.Open(t.Context(), confine.Config{Dir: dir, Most: sandbox.IsolationFull, Cgroup: os.Getenv(nestedGroup)})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	fmt.Printf("reached %s, limits %v\n", h.Isolation(), h.Limits())
	for _, n := range h.Notes() {
		fmt.Println(n)
	}
	if r := confined(t, h, plan(t, "echo it runs; cat /etc/hosts || echo as it should")); r.err != nil {
		t.Errorf("%+v", r)
	} else {
		fmt.Print(r.out)
	}
	if slices.Contains(h.Limits(), "memory") {
		p := plan(t, "head -c 100000000 /dev/zero | tail -n 1 >/dev/null")
		p.Memory = 64 << 20
		fmt.Println("killed for its memory:", confined(t, h, p).hits.Memory > 0)
	}
}

// TestDelegatedGroup opens a Host as a user to whom a part of the hierarchy of
// version 2 was given, as systemd does.
func TestDelegatedGroup(t *testing.T) {
	t.Parallel()
	groups := openAt(t, t.TempDir(), sandbox.IsolationFull).Groups()
	i := slices.IndexFunc(groups, func(dir string) bool {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		return err == nil && strings.Contains(string(text), "memory")
	})
	if i < 0 {
		require.Missing(t, "cgroup2", "the hierarchy of version 2 has no controllers")
	}
	const user = 65534
	temp, err := os.MkdirTemp("/tmp", "fnkit-delegated-") // others may not look into where tests have their files
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	part := filepath.Join(filepath.Dir(groups[i]), "fnkit-test-"+rand.Text())
	own := filepath.Join(part, "host") // where it is itself: a group has processes or groups
	binary, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = errors.Join(os.Mkdir(part, 0o755), os.Mkdir(own, 0o755), os.WriteFile(filepath.Join(temp, "tests"), binary, 0o755))
	}
	t.Cleanup(func() {
		// The dead leave a group some time after they are gone: who waits must not
		// take the processor from them.
		tick, limit := time.NewTicker(10*time.Millisecond), time.After(2*time.Minute)
		defer tick.Stop()
		for _, dir := range []string{own, part} {
			err := os.Remove(dir)
			for waits := true; waits && errors.Is(err, unix.EBUSY); err = os.Remove(dir) {
				select {
				case <-tick.C:
				case <-limit:
					waits = false
				}
			}
			if err != nil {
				left, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
				t.Errorf("%v; in it are %q", err, left)
			}
		}
	})
	for _, path := range []string{temp, part, filepath.Join(part, "cgroup.procs"), filepath.Join(part, "cgroup.subtree_control"), own, filepath.Join(own, "cgroup.procs")} {
		err = errors.Join(err, os.Chown(path, user, user))
	}
	if err != nil {
		t.Fatal(err)
	}
	group, err := os.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(temp, "tests"), "-test.run=^TestNested$", "-test.v")
	cmd.Env = []string{nested + "=" + filepath.Join(temp, "state"), nestedGroup + "=" + part, "TMPDIR=" + temp, "PATH=/usr/bin:/bin"}
	cmd.Dir = temp
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	out, err := cmd.CombinedOutput()
	for _, want := range []string{"reached userns, limits [memory cpu pids disk]\n", "it runs\n", "killed for its memory: true\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s%v", want, out, err)
		}
	}
}

// TestFallback opens a Host where namespaces are forbidden, as in a container:
// inside of another. It says what is missing, and confines with what there is.
func TestFallback(t *testing.T) {
	t.Parallel()
	h := openAt(t, t.TempDir(), sandbox.IsolationFull)
	if h.Landlock() < 6 {
		require.Missing(t, "isolation", "needs Linux 6.12 with Landlock")
	}
	binary, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	p := plan(t, "")
	p.Args = []string{"/fn/tests", "-test.run=^TestNested$", "-test.v"}
	p.Env = append(p.Env, nested+"=/home/fn/state", "TMPDIR=/tmp")
	p.Binds = []confine.Bind{{Source: binary, Target: "/fn/tests", Lent: true}}
	p.Build = true
	r := confined(t, h, p)
	for _, want := range []string{
		"reached restricted, limits []\n", "isolation: full is not reached: make a user namespace: operation not permitted\n",
		"isolation: userns is not reached: make namespaces: operation not permitted\n", "memory: limited for each process", "it runs\n",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s%v", want, r.out, r.err)
		}
	}
}

// TestAnyDescriptor starts programs with a channel of every number around a hundred:
// what the child makes of it must not come to lie where init is.
func TestAnyDescriptor(t *testing.T) {
	t.Parallel()
	h := openAt(t, t.TempDir(), sandbox.IsolationFull)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for n := 95; n < 120; n++ {
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, n)
		if err != nil {
			t.Fatal(err)
		}
		p := plan(t, "set -- /proc/self/fd/*; echo $#")
		p.Channel = os.NewFile(uintptr(fd), "channel")
		if r := confined(t, h, p); r.err != nil || r.out != "5\n" {
			t.Errorf("with descriptor %d: %+v", fd, r)
		}
		p.Channel.Close()
	}
}
