//go:build amd64 || arm64

package attack_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

const patience = 30 * time.Second

// scene is a host with something to lose: files, a process, sockets, and a
// Box in which a victim and an attacker run.
type scene struct {
	t        *testing.T
	tier     string
	key      string // the attacker's language
	box      *procbox.Box
	dir      string // of the Box
	secret   string // a file of the host
	database string
	code     string // the attacker's, on the host
	process  *exec.Cmd
	port     int
	socket   string
	id       string // the attacker's
	// The victim's, as it sees them itself.
	victimCode, victimFile string
	started                int
	memory                 int64
}

const (
	hostSecret   = "the host's secret"
	victimSecret = "the victim's secret"
)

var entrypoints = map[string]string{"python": "main.py", "node": "index.mjs", "bun": "index.mjs", "deno": "index.mjs", "go": "main.go"}

// folder has the hostile function of a language.
func folder(key string) string {
	if key == "bun" || key == "deno" {
		key = "node"
	}
	return "testdata/" + key
}

// open makes a scene at a tier, or skips the test.
func open(t *testing.T, tier, key string, change ...func(*procbox.Config)) *scene {
	t.Helper()
	home := t.TempDir()
	s := &scene{t: t, tier: tier, key: key, dir: filepath.Join(home, "box"), secret: filepath.Join(home, "secret"), database: filepath.Join(home, "app.db")}
	cfg := procbox.Config{Dir: s.dir, Isolation: tier, Path: cmp.Or(os.Getenv("PATH"), procbox.DefaultPath), GoCache: goCache(), Languages: []string{"python", key}}
	for _, c := range change {
		c(&cfg)
	}
	box, err := procbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.box = box
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	caps, err := box.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if caps.Isolation.String() != tier {
		require.Missing(t, "isolation", strings.Join(caps.Notes, "; "))
	}
	s.furnish()
	s.code = s.deploy(key)
	s.start()
	victim := s.deploy("python")
	s.startOf("victim", "python", victim, map[string]string{"SECRET": victimSecret})
	s.victimCode, s.victimFile = victim, filepath.Join(s.tempAt("victim"), "victim")
	s.do("victim", "write", s.victimFile, victimSecret)
	return s
}

var goCache = sync.OnceValue(func() string {
	out, _ := exec.Command("go", "env", "GOCACHE").Output()
	return strings.TrimSpace(string(out))
})

// furnish puts into the host what can be stolen or harmed.
func (s *scene) furnish() {
	t := s.t
	for _, file := range []string{s.secret, s.database} {
		if err := os.WriteFile(file, []byte(hostSecret), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.process = exec.Command("sleep", "1000")
	s.process.Env = []string{"SECRET=" + hostSecret}
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port, s.socket = tcp.Addr().(*net.TCPAddr).Port, filepath.Join(filepath.Dir(s.secret), "socket")
	named, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.socket, 0o777); err != nil {
		t.Fatal(err)
	}
	abstract, err := net.Listen("unix", "@"+s.abstract())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.process.Process.Kill()
		s.process.Wait()
		tcp.Close()
		named.Close()
		abstract.Close()
	})
}

func (s *scene) abstract() string { return "fnkit-attack-" + strconv.Itoa(s.port) }

// deploy builds the hostile function of a language.
func (s *scene) deploy(key string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder(key))); err != nil {
		s.t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, packedServer)); err == nil {
		return dir
	}
	var logs bytes.Buffer
	r, err := s.box.Build(s.t.Context(), sandbox.BuildSpec{ID: key, Runtime: s.runtime(key), Dir: dir, Entrypoint: entrypoints[key]}, &logs)
	if err != nil || r.Failure != "" {
		s.t.Fatalf("%+v, %v\n%s", r, err, &logs)
	}
	return dir
}

func (s *scene) runtime(key string) string {
	s.t.Helper()
	caps, err := s.box.Capabilities(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range caps.Runtimes {
		if r.Key == key {
			return r.ID
		}
	}
	require.Missing(s.t, key, "no such runtime was found")
	return ""
}

// start starts an attacker.
func (s *scene) start() {
	s.t.Helper()
	s.started++
	s.id = "attacker-" + strconv.Itoa(s.started)
	s.startOf(s.id, s.key, s.code, nil)
}

func (s *scene) startOf(id, key, dir string, env map[string]string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	spec := sandbox.Spec{ID: id, Runtime: s.runtime(key), Dir: dir, Entrypoint: entrypoints[key], Env: env, Memory: cmp.Or(s.memory, 256<<20), CPUs: 1}
	if _, err := s.box.Start(ctx, spec); err != nil {
		s.t.Fatal(err)
	}
}

// reply is a sink that keeps the body.
type reply struct{ bytes.Buffer }

func (*reply) Head(int, []sandbox.Header) error { return nil }
func (*reply) Log(sandbox.Stream, []byte)       {}

// ask has an instance do something and returns what came of it.
func (s *scene) ask(id, op string, args ...any) (string, sandbox.Result, error) {
	s.t.Helper()
	return s.askWithin(patience, id, op, args...)
}

// spoiled is how long a call may take whose harness the function has spoiled.
const spoiled = time.Second

// askWithin is ask with a deadline.
func (s *scene) askWithin(d time.Duration, id, op string, args ...any) (string, sandbox.Result, error) {
	s.t.Helper()
	if args == nil {
		args = []any{}
	}
	body, err := json.Marshal(map[string]any{"op": op, "args": args})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	var r reply
	res, err := s.box.Invoke(ctx, id, sandbox.Request{
		Method: "POST", Path: "/", Body: bytes.NewReader(body), Headers: []sandbox.Header{{Name: "content-type", Value: "text/plain"}},
	}, &r)
	return r.String(), res, err
}

// do is an ask that must be answered by an operation that worked.
func (s *scene) do(id, op string, args ...any) string {
	s.t.Helper()
	got, res, err := s.ask(id, op, args...)
	did, ok := strings.CutPrefix(got, "did ")
	if err != nil || !ok {
		s.t.Fatalf("%s %s %v: %q, %+v, %v", id, op, args, got, res, err)
	}
	return did
}

// unharmed checks the host and the victim.
func (s *scene) unharmed(after string) {
	s.t.Helper()
	for _, file := range []string{s.secret, s.database} {
		text, err := os.ReadFile(file)
		st, _ := os.Stat(file)
		if err != nil || string(text) != hostSecret || st.Mode() != 0o644 || time.Since(st.ModTime()) > time.Hour {
			s.t.Errorf("after %s: %s is %q, %v, %v", after, file, text, st, err)
		}
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(s.process.Process.Pid) + "/stat")
	if err != nil || !strings.Contains(string(stat), ") S ") {
		s.t.Errorf("after %s: the host's process is %q, %v", after, stat, err)
	}
	if got := s.do("victim", "read", s.victimFile); got != victimSecret {
		s.t.Errorf("after %s: the victim's file is %q", after, got)
	}
}

// nextCall checks that the attacker's function can still be called: in the same
// instance, or, if the attack ended that, in another.
func (s *scene) nextCall() {
	s.t.Helper()
	if got, _, err := s.ask(s.id, "true"); err != nil || got != "did true" {
		if err := s.box.Stop(s.t.Context(), s.id); err != nil {
			s.t.Error(err)
		}
		s.start()
		s.do(s.id, "true")
	}
}

// tempAt is where an instance may write, as it sees it.
func (s *scene) tempAt(id string) string {
	s.t.Helper()
	if s.tier != "restricted" {
		return "/tmp"
	}
	dir := regexp.MustCompile(`/[^" ]*/box-[0-9]+/tmp`).FindString(s.do(id, "environ"))
	if dir == "" {
		s.t.Fatalf("%s has no directory for temporary files", id)
	}
	return dir
}
