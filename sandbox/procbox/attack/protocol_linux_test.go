//go:build amd64 || arm64

package attack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// How an attack on the channel may end.
const (
	fails    = "fails"    // the instance is ended for what it did; the start fails if that was at its start
	fine     = "fine"     // it did no harm, and the call was answered
	deadline = "deadline" // the call's context ended it
)

// protocolAttacks are what the harness in testdata tries, with how its call may end.
var protocolAttacks = map[string]string{
	"no ready": deadline, "huge ready": fine, "other protocol": fails, "no bound": deadline, "reply before the request": fine,
	"length of 4 GiB": fails, "length of 2 MiB": fails, "short length": fails, "garbage": fails, "text": fails, "unknown type": fails,
	"type of the host": fails, "unknown flags": fails, "second ready": fails, "second bound": fails, "second head": fails,
	"flood of hints": fails, "head is no JSON": fails, "head of an array": fails, "field of one part": fails, "status of text": fails,
	"status of a googol": fails, "window overrun": fails, "data before head": fails, "credit of 4 GiB": fails, "log of stream 9": fails,
	"closes the channel": fails, "ends half of it": fails,
	"wrong id": fine, "duplicate": fine, "foreign ids": fine, "reset of others": fine, "a byte at a time": fine,
	"status 0": fine, "status 99": fine, "status 1000": fine, "status -1": fine, "header injection": fine, "huge header block": fine,
	"rights": fine, "flood of output": fine, "line without an end": fine, "flood of logs": fine, "log of bytes": fine,
	"log after the answer": fine, "flood of empty frames": fine,
	"partial frame": deadline, "partial length": deadline, "does not read": deadline,

	"http partial head": deadline, "http partial body": deadline, "http does not read": deadline, "http endless head": fails,
	"http endless chunk size": fails, "http rights": fails, "http flood of output": fine, "http line without an end": fine,
}

// hostileHarness compiles the harness once; TestMain removes it.
var hostileHarness = sync.OnceValues(func() (file string, err error) {
	if _, err := os.Stat(packedHarness); err == nil {
		return packedHarness, nil
	}
	if compiled, err = os.MkdirTemp("", "fnkit-attack-"); err != nil {
		return "", err
	}
	file = filepath.Join(compiled, "harness")
	cmd := exec.Command("go", "build", "-o", file, "./testdata/harness/main.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// TestProtocol has a harness break the rules of the channel in every way, at each
// tier. Whatever it does, its call ends, others go on, and the host is unharmed.
func TestProtocol(t *testing.T) {
	t.Parallel()
	require.Command(t, "go")
	file, err := hostileHarness()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tier := range tiers {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			s := open(t, tier, "python", func(c *procbox.Config) { c.Languages = append(c.Languages, "go", sandbox.Exec) })
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, ".fnkit"), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"main", ".fnkit/server"} {
				if err := os.WriteFile(filepath.Join(dir, name), program, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s.code = dir
			for attack, want := range protocolAttacks {
				got := s.onChannel(t, attack, want)
				record(t, "channel: "+attack, tier, "channel", want+": "+got)
				s.unharmed(attack)
			}
		})
	}
}

// taken is a sink that counts, and keeps the beginning.
type taken struct {
	status, heads, bytes, logged int
	body, lines                  []byte
	fields                       []sandbox.Header
	mu                           sync.Mutex
}

func (s *taken) Head(status int, h []sandbox.Header) error {
	s.status, s.fields = status, h
	s.heads++
	return nil
}

func (s *taken) Write(p []byte) (int, error) {
	s.bytes += len(p)
	s.body = append(s.body, p[:min(len(p), 4096-len(s.body))]...)
	return len(p), nil
}

func (s *taken) Log(_ sandbox.Stream, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logged += len(p)
	s.lines = append(s.lines, p[:min(len(p), 4096-len(s.lines))]...)
}

// onChannel starts an instance that attacks its channel in a call, while the victim
// is called.
func (s *scene) onChannel(t *testing.T, attack, want string) string {
	t.Helper()
	s.started++
	id, key := fmt.Sprintf("channel-%d", s.started), "go"
	if strings.HasPrefix(attack, "http ") {
		key = sandbox.Exec
	}
	limit := patience
	if attack == "no ready" || attack == "no bound" {
		limit = time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	spec := sandbox.Spec{ID: id, Runtime: s.runtime(key), Dir: s.code, Entrypoint: "main", Env: map[string]string{"ATTACK": attack}, Memory: 256 << 20, CPUs: 1}
	if _, err := s.box.Start(ctx, spec); err != nil {
		if want == fine || limit == patience && want == deadline || (want == deadline) != errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: start: %v, want %s", attack, err, want)
		}
		return err.Error()
	}
	over := make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() {
		for range 50 {
			s.do("victim", "true")
		}
		<-over
		s.do("victim", "true")
	})
	limit = 4 * patience // some print a GiB
	if want == deadline {
		limit = time.Second
	}
	res, r, err := s.attackCall(id, limit)
	close(over)
	calls.Wait()
	s.noRights(t, attack)
	if err := s.box.Stop(t.Context(), id); err != nil {
		t.Error(err)
	}
	switch {
	case want == deadline && !errors.Is(err, context.DeadlineExceeded),
		want == fails && (err != nil || res.Crash == "" || !res.Retire),
		want == fine && (err != nil || res.Crash != "" || res.Aborted != "" || r.heads != 1):
		t.Errorf("%s: %v, %+v, status %d, body %q; want %s", attack, err, res, r.status, r.body, want)
	case want == fine && string(r.body) != "fine" && string(r.body) != "early":
		t.Errorf("%s: body %q", attack, r.body)
	case bytes.Contains(r.lines, []byte("late")) || bytes.Contains(r.lines, []byte("foreign")):
		t.Errorf("%s: logs %q", attack, r.lines)
	case attack == "http line without an end" && (r.logged < 8000 || r.logged > 8100), attack == "line without an end" && r.logged > 0:
		t.Errorf("%s: %d bytes of logs", attack, r.logged)
	case attack == "header injection" && len(r.fields) != 3:
		t.Errorf("%s: headers %v", attack, r.fields)
	}
	if res.Crash != "" {
		return res.Crash
	}
	return fmt.Sprintf("%v, status %d", err, r.status)
}

// attackCall makes a good call, and then the one in which the attack begins, with a body
// that the channel does not hold.
func (s *scene) attackCall(id string, limit time.Duration) (sandbox.Result, *taken, error) {
	var first, r taken
	if res, err := s.box.Invoke(s.t.Context(), id, sandbox.Request{Method: "GET", Path: "/"}, &first); err != nil || res.Crash != "" || first.status != 200 {
		return res, &first, err
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	body := io.LimitReader(zeros{}, 8<<20)
	res, err := s.box.Invoke(ctx, id, sandbox.Request{Method: "POST", Path: "/attack", Body: body, Logging: true}, &r)
	return res, &r, err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// noRights checks that this process has got no descriptor of a function's.
func (s *scene) noRights(t *testing.T, attack string) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.Contains(to, "fnkit-attack-rights") {
			t.Errorf("%s: the host has %s", attack, to)
		}
	}
}
