package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	fnkit "github.com/fnkit/fnkit/cmd/fnkit"
	"github.com/fnkit/fnkit/internal/require"
)

// asCommand in the environment makes the test binary the command itself.
const asCommand = "FNKIT_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		fnkit.Main()
		return
	}
	goleak.VerifyTestMain(m)
}

// Credentials of servers that tests start.
const (
	project = "shop"
	key     = "key-of-the-tests"
)

// patience bounds the wait for anything; nothing takes so long by design.
const patience = 60 * time.Second

// process is the command, run in a process of its own.
type process struct {
	client
	cmd  *exec.Cmd
	out  output // what it says
	log  output // what it logs
	done chan struct{}
}

// command runs the command with a PATH of its own and does not wait for anything.
func command(t testing.TB, path string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asCommand+"=1", "PATH="+path)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.WaitDelay = &p.out, &p.log, time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { // gently, so that nothing is left that writes to the test's directories
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			t.Error("the command does not end")
		}
		p.kill()
	})
	return p
}

// kill ends the process as the kernel does when memory runs out.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
	if p.http != nil {
		p.http.CloseIdleConnections()
	}
}

// exits waits until the process has ended, and returns its exit code.
func (p *process) exits(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the command does not end:\n%s%s", p.out.String(), p.log.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// serve starts a server and waits until it listens.
func serve(t testing.TB, path, data string, args ...string) *process {
	t.Helper()
	p := launch(t, path, data, args...)
	if !p.listens(t) {
		t.Fatalf("the server ended with %d:\n%s", p.cmd.ProcessState.ExitCode(), p.log.String())
	}
	return p
}

func launch(t testing.TB, path, data string, args ...string) *process {
	t.Helper()
	args = append([]string{
		"serve", "-addr", "127.0.0.1:0", "-data", data, "-project", project, "-key", key,
		"-confine", "none", // functions of these tests note what they do in files of the host
	}, args...)
	return command(t, path, args...)
}

// listens waits until the server can be asked; false: it ended before.
func (p *process) listens(t testing.TB) bool {
	t.Helper()
	if _, ok := p.out.await(p.done, "Try:  "); !ok {
		return false
	}
	line, _ := p.out.await(p.done, "fnkit listening on ")
	p.client = client{url: strings.TrimPrefix(line, "fnkit listening on "), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	return true
}

// output collects lines.
type output struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// lines are the lines that are complete.
func (o *output) lines() []string {
	all := strings.Split(o.String(), "\n")
	return all[:len(all)-1]
}

// await waits for a line with a prefix; false: done came before.
func (o *output) await(done <-chan struct{}, prefix string) (string, bool) {
	limit := time.After(patience)
	for ended := false; ; {
		o.mu.Lock()
		if o.changed == nil {
			o.changed = make(chan struct{})
		}
		changed := o.changed
		o.mu.Unlock()
		for _, line := range o.lines() {
			if strings.HasPrefix(line, prefix) {
				return line, true
			}
		}
		if ended {
			return "", false
		}
		select {
		case <-changed:
		case <-done:
			ended = true
		case <-limit:
			return "", false
		}
	}
}

// client asks a server.
type client struct {
	url  string
	http *http.Client
}

// reply is what a server answered.
type reply struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any // of an answer in JSON
}

func (r reply) text(name string) string { s, _ := r.body[name].(string); return s }

// items are the records of a list.
func (r reply) items(name string) (all []map[string]any) {
	list, _ := r.body[name].([]any)
	for _, i := range list {
		all = append(all, i.(map[string]any))
	}
	return all
}

// ask sends a request with the key and a body in JSON. headers are name, value, …;
// an empty value removes one. The error is that of the connection.
func (c client) ask(ctx context.Context, method, path string, body any, headers ...string) (reply, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return reply{}, err
	}
	return c.send(ctx, method, path, raw, append([]string{"Content-Type", "application/json"}, headers...)...)
}

func (c client) send(ctx context.Context, method, path string, body []byte, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	headers = append([]string{"X-Appwrite-Project", project, "X-Appwrite-Key", key}, headers...)
	for i := 0; i < len(headers); i += 2 {
		if req.Header.Del(headers[i]); headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, header: resp.Header}
	if r.raw, err = io.ReadAll(resp.Body); err != nil {
		return reply{}, err
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		err = json.Unmarshal(r.raw, &r.body)
	}
	return r, err
}

// must asks for what has to succeed.
func (c client) must(t testing.TB, status int, method, path string, body any, headers ...string) reply {
	t.Helper()
	r, err := c.ask(t.Context(), method, path, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if r.status != status {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, r.status, status, r.raw)
	}
	return r
}

// upload sends source code, or a part of it: headers say which.
func (c client) upload(ctx context.Context, function, commands string, code []byte, headers ...string) (reply, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile("code", "code.tar.gz")
	if err == nil {
		_, err = part.Write(code)
	}
	if commands != "" {
		err = errors.Join(err, w.WriteField("commands", commands))
	}
	if err := errors.Join(err, w.WriteField("activate", "true"), w.Close()); err != nil {
		return reply{}, err
	}
	return c.send(ctx, "POST", "/v1/functions/"+function+"/deployments", b.Bytes(), append([]string{"Content-Type", w.FormDataContentType()}, headers...)...)
}

// deploy creates a function that anybody may execute, or those who have a
// role, and waits until its code is built.
func (c client) deploy(t testing.TB, headers []string, function, runtime, entrypoint, code string, execute ...string) {
	t.Helper()
	if len(execute) == 0 {
		execute = []string{"any"}
	}
	c.must(t, 201, "POST", "/v1/functions", map[string]any{
		"functionId": function, "name": function, "runtime": runtime, "entrypoint": entrypoint, "execute": execute, "timeout": 60,
	}, headers...)
	r, err := c.upload(t.Context(), function, "", archive(t, map[string]string{entrypoint: code}), headers...)
	if err != nil || r.status != 202 {
		t.Fatalf("deploy: %d %s, %v", r.status, r.raw, err)
	}
	eventually(t, "the build", func() bool {
		d := c.must(t, 200, "GET", "/v1/functions/"+function+"/deployments/"+r.text("$id"), nil, headers...)
		if d.text("status") == "failed" {
			t.Fatalf("the build failed: %s", d.text("buildLogs"))
		}
		return d.text("status") == "ready"
	})
}

// variable sets a variable of a function.
func (c client) variable(t testing.TB, function, name, value string) {
	t.Helper()
	c.must(t, 201, "POST", "/v1/functions/"+function+"/variables", map[string]any{"key": name, "value": value})
}

// eventually asks until the answer is yes: records have no other way to tell
// that a background job has ended.
func eventually(t testing.TB, what string, ask func() bool) {
	t.Helper()
	within(t, patience, what, ask)
}

func within(t testing.TB, bound time.Duration, what string, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(bound)
	for !ask() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: waited %s in vain", what, bound)
		}
	}
}

// query encodes queries of a list.
func query(queries ...string) string {
	v := url.Values{"queries[]": queries}
	return "?" + v.Encode()
}

func limit(n int) string { return fmt.Sprintf(`{"method":"limit","values":[%d]}`, n) }

func archive(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for name, text := range files {
		err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
		if err == nil {
			_, err = io.WriteString(tw, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pathWith returns a PATH that has the commands and a shell, and nothing else:
// what a server looks for at its start is found sooner.
func pathWith(t testing.TB, commands ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(commands, "sh", "sleep", "mkdir", "chmod") {
		if err := os.Symlink(require.Command(t, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runtimeOf is the id of the only runtime that a server has, besides executables.
func (c client) runtimeOf(t testing.TB) string {
	t.Helper()
	r := c.must(t, 200, "GET", "/v1/functions/runtimes", nil)
	all := slices.DeleteFunc(r.items("runtimes"), func(r map[string]any) bool { return r["$id"] == "exec-1" })
	if len(all) != 1 {
		t.Fatalf("runtimes: %s", r.raw)
	}
	return all[0]["$id"].(string)
}
