package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	fnkit "github.com/fnkit/fnkit/cmd/fnkit"
)

func TestStartUp(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, pathWith(t, "node"), data, "-project", "blog", "-confine", "full")
	p.must(t, 200, "GET", "/v1/health/version", nil, "X-Appwrite-Key", "", "X-Appwrite-Project", "console")
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := p.must(t, 200, "GET", path, nil, "X-Appwrite-Key", "").text("status"); got != "ok" {
			t.Errorf("%s: %s", path, got)
		}
	}
	want := regexp.MustCompile(`^fnkit listening on http://127\.0\.0\.1:[0-9]+
  projects   shop, blog
  runtimes   node-[0-9.]+, exec-1
  isolation  (none|restricted|userns|full): functions (are|have) .*
  data       ` + regexp.QuoteMeta(data) + `
Try:  curl -H 'X-Appwrite-Project: shop' -H 'X-Appwrite-Key: <key>' ` + p.url + `/v1/functions
`)
	if !want.MatchString(p.out.String()) || strings.Contains(p.out.String(), key) || p.log.String() != "" {
		t.Errorf("says\n%s%s", p.out.String(), p.log.String())
	}
}

// TestOnlyTheRuntimesAskedFor: the others are neither said nor offered.
func TestOnlyTheRuntimesAskedFor(t *testing.T) {
	t.Parallel()
	path := pathWith(t, "node", "go")
	all := serve(t, path, filepath.Join(t.TempDir(), "data")).must(t, 200, "GET", "/v1/functions/runtimes", nil).items("runtimes")
	if len(all) != 3 {
		t.Fatalf("found %v", all)
	}
	id, other := all[1]["$id"].(string), all[0]["$id"].(string)
	p := serve(t, path, filepath.Join(t.TempDir(), "data"), "-runtime", id)
	if got := p.runtimeOf(t); got != id || !strings.Contains(p.out.String(), "runtimes   "+id+"\n") {
		t.Errorf("has %s, and says\n%s", got, p.out.String())
	}
	p.must(t, 404, "POST", "/v1/functions", map[string]any{"functionId": "f", "name": "f", "runtime": other})
}

// TestAddressForAll: what listens everywhere is named by an address that works.
func TestAddressForAll(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{":0", "0.0.0.0:0"} {
		p := serve(t, pathWith(t), filepath.Join(t.TempDir(), "data"), "-addr", addr)
		if p.must(t, 200, "GET", "/v1/functions", nil); !strings.HasPrefix(p.url, "http://127.0.0.1:") {
			t.Errorf("%s: listens on %s", addr, p.url)
		}
	}
}

// TestRequestLog: one line for each request, whatever is in it, and no secret.
func TestRequestLog(t *testing.T) {
	t.Parallel()
	p := serve(t, pathWith(t), filepath.Join(t.TempDir(), "data"), "-user", "alice=alice-token")
	greeting := len(p.out.lines())
	line := func(status int, rest string) string {
		return fmt.Sprintf(`^[0-9]{2}:[0-9]{2}:[0-9]{2}  %d  %s$`, status, strings.Replace(rest, "TIME", `[0-9.]+[µm]?s`, 1))
	}
	var want []string
	for _, c := range []struct {
		status       int
		method, path string
		headers      []string
		line         string
	}{
		{200, "GET", "/v1/functions", nil, `GET     /v1/functions  TIME  project shop`},
		{404, "GET", "/v1/functions/none?key=" + key, nil, `GET     /v1/functions/none  TIME  project shop  function_not_found`},
		{401, "GET", "/v1/functions", []string{"X-Appwrite-Key", "wr0ng"}, `GET     /v1/functions  TIME  project -  user_unauthorized`},
		{401, "GET", "/v1/functions", []string{"X-Appwrite-Key", "", "X-Appwrite-JWT", "wr0ng"}, `GET     /v1/functions  TIME  project -  user_jwt_invalid`},
		{401, "GET", "/v1/functions", []string{"X-Appwrite-Key", "", "X-Appwrite-Session", "alice-token"}, `GET     /v1/functions  TIME  project shop  general_unauthorized_scope`},
		{204, "OPTIONS", "/v1/functions", nil, `OPTIONS /v1/functions  TIME  project -`},
		{404, "GET", "/v1/a%0A00:00:00%20%20200%1B%5B31m%00%C3%A9", nil, `GET     /v1/a%0A00:00:00%20%20200%1B%5B31m%00%C3%A9  TIME  project -  general_route_not_found`},
		{404, "GET", "/v1/" + strings.Repeat("long", 1000), nil, `GET     /v1/(long)*l?o?n?g?\.\.\.  TIME  project -  general_route_not_found`},
		{404, "GET", "/v1/functions?project=%0Aevil%1B", []string{"X-Appwrite-Project", ""}, `GET     /v1/functions  TIME  project -  project_not_found`},
		{404, "GET", "/v1/functions?project=" + strings.Repeat("x", 5000), []string{"X-Appwrite-Project", ""}, `GET     /v1/functions  TIME  project -  project_not_found`},
	} {
		r, err := p.ask(t.Context(), c.method, c.path, nil, c.headers...)
		if err != nil || r.status != c.status {
			t.Errorf("%s %.60s: status %d, want %d: %s %v", c.method, c.path, r.status, c.status, r.raw, err)
		}
		want = append(want, line(c.status, c.line))
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exits(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	got := p.out.lines()[greeting:]
	if stopping := got[len(got)-1]; stopping != "fnkit stopping: what runs has 30s to end" {
		t.Errorf("the last line is %q", stopping)
	}
	if got = got[:len(got)-1]; len(got) != len(want) {
		t.Fatalf("%d lines for %d requests:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, regexp.MustCompile(w).MatchString) {
			t.Errorf("%q is not in\n%s", w, strings.Join(got, "\n"))
		}
	}
	told := p.out.String() + p.log.String()
	for _, secret := range []string{key, "wr0ng", "alice-token"} {
		if strings.Contains(told, secret) {
			t.Errorf("%s is told", secret)
		}
	}
}

// TestUserTokens: a function gets the token of the user who called it in that
// project, not of one who has the same id in another.
func TestUserTokens(t *testing.T) {
	t.Parallel()
	p := serve(t, pathWith(t, "node"), filepath.Join(t.TempDir(), "data"), "-project", "blog",
		"-user", "blog:alice=blog-token", "-user", "shop:alice=shop-token=team:red", "-user", "bob=bob-token")
	runtime := p.runtimeOf(t)
	for _, in := range []string{"shop", "blog"} {
		p.deploy(t, []string{"X-Appwrite-Project", in}, "whose", runtime, "index.js",
			`module.exports = ({req, res}) => res.text(req.headers['x-appwrite-user-id'] + ' ' + req.headers['x-appwrite-user-jwt']);`, "users")
		p.deploy(t, []string{"X-Appwrite-Project", in}, "red", runtime, "index.js", `module.exports = ({res}) => res.text('red');`, "team:red")
	}
	for _, c := range []struct {
		project, token string
		status         int // of a call of "red"
		want           string
	}{
		{"shop", "shop-token", 201, "alice shop-token"},
		{"blog", "blog-token", 401, "alice blog-token"},
		{"shop", "bob-token", 401, "bob bob-token"},
		{"blog", "bob-token", 401, "bob bob-token"},
	} {
		as := []string{"X-Appwrite-Key", "", "X-Appwrite-Session", c.token, "X-Appwrite-Project", c.project}
		if got := p.must(t, 201, "POST", "/v1/functions/whose/executions", map[string]any{}, as...).text("responseBody"); got != c.want {
			t.Errorf("in %s with %s the function is told %q, want %q", c.project, c.token, got, c.want)
		}
		p.must(t, c.status, "POST", "/v1/functions/red/executions", map[string]any{}, as...)
	}
	as := []string{"X-Appwrite-Key", "", "X-Appwrite-Session", "shop-token", "X-Appwrite-Project", "blog"}
	p.must(t, 401, "POST", "/v1/functions/whose/executions", map[string]any{}, as...)
}

// slow begins by writing its name to a file, and ends after a while: a longer
// one the first time.
const slow = `const fs = require('fs');
module.exports = async ({req, res}) => {
  const {n, first, then} = req.query;
  const again = fs.existsSync(process.env.LEDGER) && fs.readFileSync(process.env.LEDGER, 'utf8').includes('begin ' + n + '\n');
  fs.appendFileSync(process.env.LEDGER, 'begin ' + n + '\n');
  await new Promise((done) => setTimeout(done, Number(again ? then : first)));
  fs.appendFileSync(process.env.LEDGER, 'end ' + n + '\n');
  return res.text('ended ' + n);
};
`

// busy is a server in the middle of a synchronous call, a queued one and a
// build.
type busy struct {
	*process
	path, data, ledger string
	answer             chan reply // to the synchronous call; closed without one if it broke off
	execution, build   string     // paths of the records
}

func startWork(t *testing.T, first time.Duration, args ...string) *busy {
	t.Helper()
	dir := t.TempDir()
	b := &busy{path: pathWith(t, "node"), data: filepath.Join(dir, "data"), ledger: filepath.Join(dir, "ledger"), answer: make(chan reply, 1)}
	b.process = serve(t, b.path, b.data, args...)
	b.deploy(t, nil, "slow", b.runtimeOf(t), "index.js", slow)
	b.variable(t, "slow", "LEDGER", b.ledger)
	call := func(n string) string { return fmt.Sprintf("/?n=%s&first=%d&then=0", n, first.Milliseconds()) }
	go func() {
		defer close(b.answer)
		r, err := b.ask(context.WithoutCancel(t.Context()), "POST", "/v1/functions/slow/executions", map[string]any{"path": call("sync")})
		if err == nil {
			b.answer <- r
		}
	}()
	r := b.must(t, 202, "POST", "/v1/functions/slow/executions", map[string]any{"path": call("async"), "async": true})
	b.execution = "/v1/functions/slow/executions/" + r.text("$id")
	began := filepath.Join(dir, "building")
	commands := fmt.Sprintf("if [ -f %[1]s ]; then sleep 0; else : > %[1]s; sleep %.1[2]f; fi", began, first.Seconds())
	r, err := b.upload(t.Context(), "slow", commands, archive(t, map[string]string{"index.js": slow}))
	if err != nil || r.status != 202 {
		t.Fatalf("%d %s, %v", r.status, r.raw, err)
	}
	b.build = "/v1/functions/slow/deployments/" + r.text("$id")
	eventually(t, "the work", func() bool {
		text, _ := os.ReadFile(b.ledger)
		_, err := os.Stat(began)
		return err == nil && bytes.Contains(text, []byte("begin sync\n")) && bytes.Contains(text, []byte("begin async\n"))
	})
	return b
}

// ended checks that a server ended well, and left nothing that the next one
// has to care for.
func (b *busy) ended(t *testing.T) {
	t.Helper()
	if code := b.exits(t); code != 0 || b.log.String() != "" && strings.Contains(b.log.String(), "level=ERROR") {
		t.Errorf("exit code %d: %s", code, b.log.String())
	}
	for _, dir := range []string{"sandbox/run", "engine", "blobs/#tmp"} {
		if left, err := os.ReadDir(filepath.Join(b.data, dir)); err != nil && !errors.Is(err, os.ErrNotExist) || slices.ContainsFunc(left, directory) {
			t.Errorf("%s holds %v, %v", dir, left, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(b.data, "*.new")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// directory reports whether e is one that should have been removed: packages are kept for later builds.
func directory(e os.DirEntry) bool { return e.IsDir() && e.Name() != "packages" }

// TestShutdownLetsWorkEnd: what runs when the signal comes is done, and told.
func TestShutdownLetsWorkEnd(t *testing.T) {
	t.Parallel()
	b := startWork(t, time.Second)
	b.cmd.Process.Signal(syscall.SIGTERM)
	if r := <-b.answer; r.status != 201 || r.text("responseBody") != "ended sync" {
		t.Errorf("the caller got %d %s", r.status, r.raw)
	}
	b.ended(t)
	next := serve(t, b.path, b.data)
	if x := next.must(t, 200, "GET", b.execution, nil); x.text("status") != "completed" || x.body["responseStatusCode"] != 200.0 {
		t.Errorf("the queued execution: %s", x.raw)
	}
	if d := next.must(t, 200, "GET", b.build, nil); d.text("status") != "ready" {
		t.Errorf("the build: %s", d.raw)
	}
	if text, err := os.ReadFile(b.ledger); strings.Count(string(text), "\n") != 4 {
		t.Errorf("the function wrote %q, %v", text, err)
	}
}

// TestShutdownDoesNotWaitForEver: work that takes too long is cut off, and what
// was accepted for later is done by the next server.
func TestShutdownDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	b := startWork(t, 50*time.Second, "-drain", "100ms")
	began := time.Now()
	b.cmd.Process.Signal(syscall.SIGTERM)
	b.ended(t)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	if r, answered := <-b.answer; answered && r.status < 500 && r.text("status") != "failed" {
		t.Errorf("the caller got %d %s", r.status, r.raw)
	}
	next := serve(t, b.path, b.data)
	eventually(t, "the work that was cut off", func() bool {
		return next.must(t, 200, "GET", b.execution, nil).text("status") == "completed" && next.must(t, 200, "GET", b.build, nil).text("status") == "ready"
	})
	text, err := os.ReadFile(b.ledger)
	if want := []string{"begin async", "begin async", "begin sync", "end async"}; err != nil || !slices.Equal(sorted(string(text)), want) {
		t.Errorf("the function wrote %q, %v", text, err)
	}
}

func sorted(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return lines
}

// TestSignalBeforeTheStart is no failure.
func TestSignalBeforeTheStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, log bytes.Buffer
	args := []string{"serve", "-addr", "127.0.0.1:0", "-key", key, "-data", filepath.Join(t.TempDir(), "data")}
	if err := fnkit.Run(ctx, args, &out, &log); err != nil {
		t.Errorf("%v\n%s%s", err, out.String(), log.String())
	}
}

// TestSecondServer: data have one server, and a second one says so.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	path, data := pathWith(t), filepath.Join(t.TempDir(), "data")
	first := serve(t, path, data)
	second := launch(t, path, data)
	if code := second.exits(t); code != 1 || !strings.Contains(second.log.String(), data) || !strings.Contains(second.log.String(), "in use") || second.out.String() != "" {
		t.Errorf("the second ended with %d: %s%s", code, second.out.String(), second.log.String())
	}
	first.must(t, 200, "GET", "/v1/functions", nil)
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := launch(t, pathWith(t), filepath.Join(t.TempDir(), "data"), "-addr", l.Addr().String())
	if code := p.exits(t); code != 1 || !strings.Contains(p.log.String(), l.Addr().String()) || !strings.Contains(p.log.String(), "in use") {
		t.Errorf("ended with %d: %s", code, p.log.String())
	}
}

// TestSecret: variables stay readable over a restart, by the server alone, and
// a server without the secret they were sealed with does not start.
func TestSecret(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("has other rights")
	}
	path, data := pathWith(t, "node"), filepath.Join(t.TempDir(), "data")
	p := serve(t, path, data)
	p.must(t, 201, "POST", "/v1/functions", map[string]any{"functionId": "f", "name": "f", "runtime": p.runtimeOf(t)})
	p.variable(t, "f", "NAME", "plain-value")
	for name, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, "secret": 0o600, "fnkit.db": 0o600, "sandbox": os.ModeDir | 0o700, "engine": os.ModeDir | 0o700} {
		if info, err := os.Stat(filepath.Join(data, name)); err != nil || info.Mode() != want {
			t.Errorf("%q has mode %v, %v", name, info.Mode(), err)
		}
	}
	stop(t, p)
	for _, name := range []string{"fnkit.db", "fnkit.db-wal"} {
		if text, _ := os.ReadFile(filepath.Join(data, name)); bytes.Contains(text, []byte("plain-value")) {
			t.Errorf("%s holds the variable", name)
		}
	}
	p = serve(t, path, data)
	if v := p.must(t, 200, "GET", "/v1/functions/f/variables", nil).items("variables"); len(v) != 1 || v[0]["value"] != "plain-value" {
		t.Errorf("after a restart: %v", v)
	}
	stop(t, p)
	name := filepath.Join(data, "secret")
	for _, c := range []struct {
		spoil func() error
		want  string
	}{
		{func() error { return os.Chmod(name, 0o640) }, "others can read " + name},
		{func() error { return os.Chmod(name, 0o604) }, "chmod 600"},
		{func() error { return errors.Join(os.Chmod(name, 0o600), os.Truncate(name, 3)) }, "too short"},
		{func() error { return os.Remove(name) }, name + " is missing"},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		p := launch(t, path, data)
		if code := p.exits(t); code != 1 || !strings.Contains(p.log.String(), c.want) {
			t.Errorf("ended with %d: %s, want %q", code, p.log.String(), c.want)
		}
	}
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("made a new secret for old variables: %v", err)
	}
}

// stop ends a server and checks that it ended well.
func stop(t testing.TB, p *process) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exits(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.log.String())
	}
}
