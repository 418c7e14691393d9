package clienttest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
)

// Who may use the servers of the tests.
const (
	project = "demo"
	key     = "key-of-the-tests"

	ann, annToken = "ann", "token-of-ann" // a member of the team crew
	bob, bobToken = "bob", "token-of-bob"
)

// start runs "fnkit serve" until the test ends and returns the endpoint of its
// API. The server sees the interpreters of these languages alone, so it need not
// ask others for their versions.
func start(t *testing.T, languages ...string) (endpoint string) {
	t.Helper()
	dir := t.TempDir()
	bin := path(t, dir, languages)
	cmd := exec.Command(fnkit(t), "serve", "-addr", "127.0.0.1:0", "-project", project,
		"-data", filepath.Join(dir, "data"),
		"-key-file", write(t, dir, "keys", key+"\n"),
		"-user-file", write(t, dir, "users", ann+"="+annToken+"=team:crew\n"+bob+"="+bobToken+"\n"))
	cmd.Env = []string{"PATH=" + bin, "HOME=" + dir, "TMPDIR=" + dir}
	out := &output{address: make(chan string, 1)}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 10 * time.Second // longer only if the server leaves a process with its output
	check(t, cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() { stop(t, cmd, exited, out) })
	select {
	case url := <-out.address:
		return url + "/v1"
	case err := <-exited:
		exited <- err
		t.Fatalf("the server did not start: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the server took over a minute to start")
	}
	return ""
}

// stop asks the server to end, which it must do in order; nor may it have failed
// in any request.
func stop(t *testing.T, cmd *exec.Cmd, exited <-chan error, out *output) {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal the server: %v", err)
	}
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("the server ended with %v", err)
		}
	case <-time.After(45 * time.Second):
		t.Error("the server took over 45 s to end")
		cmd.Process.Kill()
		<-exited
	}
	for _, line := range out.failures() {
		t.Errorf("the server says %s", line)
	}
	if t.Failed() {
		t.Logf("the server's output:\n%s", out.tail(16<<10))
	}
}

// output keeps what a server says and finds its address in it.
type output struct {
	address chan string

	mu    sync.Mutex
	text  bytes.Buffer
	found bool
}

var listening = regexp.MustCompile(`(?m)^fnkit listening on (http://\S+)\n`)

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if o.found {
		return len(p), nil
	}
	if m := listening.FindSubmatch(o.text.Bytes()); m != nil {
		o.found = true
		o.address <- string(m[1])
	}
	return len(p), nil
}

var failure = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d +5\d\d .*|.*level=ERROR.*|^panic: .*`)

func (o *output) failures() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return failure.FindAllString(o.text.String(), -1)
}

func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.text.Bytes()
	return string(text[max(0, len(text)-n):])
}

// interpreters are the commands of languages, and how to ask them where they
// really are: what is on the PATH may be a wrapper that looks for it each time.
var interpreters = map[string][]string{
	"node":   {"node", "-p", "process.execPath"},
	"python": {"python3", "-c", "import sys; print(sys.executable)"},
}

// path makes a directory with what builds use and the interpreters of languages.
func path(t *testing.T, dir string, languages []string) string {
	t.Helper()
	bin := filepath.Join(dir, "bin")
	check(t, os.Mkdir(bin, 0o700))
	for _, name := range []string{"sh", "sleep"} {
		check(t, os.Symlink(require.Command(t, name), filepath.Join(bin, name)))
	}
	for _, l := range languages {
		ask := interpreters[l]
		real, err := exec.CommandContext(t.Context(), require.Command(t, ask[0]), ask[1:]...).Output()
		check(t, err)
		check(t, os.Symlink(strings.TrimSpace(string(real)), filepath.Join(bin, ask[0])))
	}
	return bin
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	check(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}
