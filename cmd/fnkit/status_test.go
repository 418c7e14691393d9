package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	fnkit "github.com/fnkit/fnkit/cmd/fnkit"
	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
)

// server is what doctor -json says of one.
type server struct {
	Data                          string
	Answers                       bool
	Problem, Isolation, StartedAt string
	PID                           int
	Instances, MaxInstances       int
	Calls, Waiting                int
	Deployments                   []pooled
	Spares                        []struct {
		Runtime       string
		Ready, Wanted int
	}
}

type pooled struct {
	Project, FunctionID, DeploymentID   string
	Starting, Idle, Busy, Draining      int
	Calls, Waiting                      int
	Concurrency, MaxInstancesPerProject int
}

// asks has doctor ask the server on a data directory.
func asks(t *testing.T, data string) server {
	t.Helper()
	p := command(t, t.TempDir(), "doctor", "-json", "-data", data)
	code := p.exits(t)
	var d struct{ Server *server }
	if err := json.Unmarshal([]byte(p.out.String()), &d); code != 0 || err != nil || d.Server == nil || d.Server.Data != data {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, p.out.String(), p.log.String())
	}
	return *d.Server
}

// says is what doctor says of the server on a data directory.
func says(t *testing.T, data string) string {
	t.Helper()
	p := command(t, t.TempDir(), "doctor", "-data", data)
	code := p.exits(t)
	_, text, found := strings.Cut(p.out.String(), "\nServer     ")
	if code != 0 || !found {
		t.Fatalf("exit code %d\n%s%s", code, p.out.String(), p.log.String())
	}
	return text
}

// patient says that it began, and ends when it may.
const patient = `const fs = require('fs');
module.exports = async ({res}) => {
  fs.writeFileSync(process.env.PLACE + '/began', '');
  while (!fs.existsSync(process.env.PLACE + '/go')) await new Promise((done) => setTimeout(done, 5));
  return res.text('done');
};
`

func TestDoctorShowsAServer(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	data := filepath.Join(place, "data")
	p := serve(t, pathWith(t, "node"), data, "-instances", "7", "-idle", "1h")
	rt := p.runtimeOf(t)
	if info, err := os.Lstat(filepath.Join(data, "status.sock")); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	if s := asks(t, data); !s.Answers || s.PID != p.cmd.Process.Pid || s.Isolation != "none" || s.Instances != 0 || s.MaxInstances != 7 || s.Deployments == nil || len(s.Deployments) != 0 {
		t.Errorf("a server that was just started: %+v", s)
	}
	p.deploy(t, nil, "held", rt, "index.js", patient)
	p.variable(t, "held", "PLACE", place)
	deployment := p.must(t, 200, "GET", "/v1/functions/held", nil).text("deployment")
	answer := make(chan error, 1)
	go func() {
		_, err := p.ask(t.Context(), "POST", "/v1/functions/held/executions", map[string]any{})
		answer <- err
	}()
	eventually(t, "the call", func() bool { _, err := os.Stat(filepath.Join(place, "began")); return err == nil })
	want := pooled{Project: project, FunctionID: "held", DeploymentID: deployment, Busy: 1, Calls: 1, Concurrency: 100, MaxInstancesPerProject: 7}
	if s := asks(t, data); s.Instances != 1 || s.Calls != 1 || s.Waiting != 0 || len(s.Deployments) != 1 || s.Deployments[0] != want {
		t.Errorf("during a call: %+v", s)
	}
	if err := os.WriteFile(filepath.Join(place, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	want.Busy, want.Calls, want.Idle = 0, 0, 1
	eventually(t, "spares", func() bool {
		s := asks(t, data)
		if s.Instances != 1 || s.Calls != 0 || len(s.Deployments) != 1 || s.Deployments[0] != want {
			t.Fatalf("after the call: %+v", s)
		}
		return len(s.Spares) == 1 && s.Spares[0].Runtime == rt && s.Spares[0].Wanted > 0 && s.Spares[0].Ready == s.Spares[0].Wanted
	})
	text := regexp.MustCompile(`^process [0-9]+ on ` + regexp.QuoteMeta(data) + `, for [0-9hms]+, isolation none
Instances  1 of 7, at most 4 of a deployment; running: 0 calls; waiting for an instance: 0 calls
  function   deployment +starting  idle  busy  draining  calls  waiting
  shop/held  ` + deployment + `  0         1     0     0         0      0
Ready      spares, .*
  ` + rt + ` +[1-9] of [1-9]
$`)
	if got := says(t, data); !text.MatchString(got) {
		t.Errorf("says %s, want %s", got, text)
	}
	stop(t, p)
	for _, name := range []string{"status.sock", ".status"} {
		if _, err := os.Lstat(filepath.Join(data, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the server left %s, %v", name, err)
		}
	}
}

// TestDoctorWithoutAServer: before one, after it was killed, and beside a second one.
func TestDoctorWithoutAServer(t *testing.T) {
	t.Parallel()
	path, data := pathWith(t), filepath.Join(t.TempDir(), "data")
	none := func(when string) {
		t.Helper()
		if got, want := says(t, data), "no server runs on "+data+"\n"; got != want {
			t.Errorf("%s: says %q, want %q", when, got, want)
		}
	}
	none("without a directory")
	first := serve(t, path, data)
	first.kill()
	if _, err := os.Lstat(filepath.Join(data, "status.sock")); err != nil {
		t.Fatal(err)
	}
	none("after a kill")
	if s := asks(t, data); s.Answers || s.Problem != "no server runs on "+data || s.Deployments != nil {
		t.Errorf("%+v", s)
	}
	if err := os.Mkdir(filepath.Join(data, ".status"), 0o700); err != nil { // as one that was killed a moment earlier
		t.Fatal(err)
	}
	next := serve(t, path, data)
	if s := asks(t, data); s.PID != next.cmd.Process.Pid {
		t.Errorf("in the place of one that was killed: %+v", s)
	}
	if second := launch(t, path, data); second.exits(t) != 1 {
		t.Error("a second server runs")
	}
	if s := asks(t, data); s.PID != next.cmd.Process.Pid {
		t.Errorf("beside a second server: %+v", s)
	}
	stop(t, next)
	none("after the end")
}

// TestOnlyTheOwnerIsTold: who reaches the socket and cannot read the secret learns nothing.
func TestOnlyTheOwnerIsTold(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, pathWith(t), data)
	for _, token := range []string{"", "Bearer ", "Bearer " + key} {
		c, err := net.Dial("unix", filepath.Join(data, "status.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		one := client{url: "http://fnkit", http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}}
		if r, err := one.ask(t.Context(), "GET", "/", nil, "Authorization", token); err != nil || r.status != 403 || strings.Contains(string(r.raw), "instances") {
			t.Errorf("%q: %d %s, %v", token, r.status, r.raw, err)
		}
	}
	name := filepath.Join(data, "secret")
	secret, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, []byte("another secret, as long as it has to be"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := says(t, data); !strings.HasPrefix(got, "the server on "+data+" cannot be asked: 403 Forbidden: the secret ") {
		t.Errorf("says %q", got)
	}
	if err := os.WriteFile(name, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	stop(t, p)
}

// TestServerWithoutASocket: one whose directory has too long a path serves all the same.
func TestServerWithoutASocket(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	p := serve(t, pathWith(t), data)
	p.must(t, 200, "GET", "/v1/functions", nil)
	if log := p.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "fnkit doctor cannot ask this server") || !strings.Contains(log, "too long for the path of a socket") {
		t.Errorf("logs %s", log)
	}
	if got := says(t, data); !strings.HasPrefix(got, "the server on "+data+" cannot be asked: ") || !strings.Contains(got, "too long for the path of a socket") {
		t.Errorf("says %q", got)
	}
}

// TestDoctorTrustsNoAnswer: what answers in a directory may be no server of ours.
func TestDoctorTrustsNoAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ answer, want string }{
		"endless": {strings.Repeat(" ", fnkit.MaxStatus+1), "cannot be asked: the answer has more than "},
		"garbage": {"no JSON", "cannot be asked: invalid character "},
		"escapes": {`{"isolation":"\u001b[2J","deployments":[{"project":"p","functionId":"a\u001b[2Jb\n"}]}`, "isolation ?[2J\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "fnkit-") // t's own may be too long
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("of nobody"), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("unix", filepath.Join(dir, "status.sock"))
			if err != nil {
				t.Fatal(err)
			}
			impostor := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(c.answer)) })}
			t.Cleanup(func() { impostor.Close() })
			go impostor.Serve(l)
			if got := says(t, dir); !strings.Contains(got, c.want) || strings.Contains(got, "\x1b") {
				t.Errorf("says %q, want %q", got, c.want)
			}
		})
	}
}

// TestStatusIsBounded whatever the pools hold.
func TestStatusIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64)
	p := engine.Pools{Instances: 1003}
	for range 1003 {
		p.Deployments = append(p.Deployments, engine.DeploymentPool{
			Project: long, Function: long, Deployment: long,
			Starting: 1e9, Idle: 1e9, Busy: 1e9, Draining: 1e9, Calls: 1e9, Waiting: 1e9, Concurrency: 1e9, PerProject: 1e9,
		})
	}
	s := fnkit.StatusOf(time.Now(), sandbox.Capabilities{}, p, func(string) int { return 0 })
	if len(s.Deployments) != 1000 || s.Omitted != 3 || s.Instances != 1003 {
		t.Errorf("%d deployments and %d more", len(s.Deployments), s.Omitted)
	}
	if text, err := json.Marshal(s); err != nil || len(text) > fnkit.MaxStatus/2 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}
