//go:build unix

package procbox_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// webExamples are the short programs of testdata/exec, with what builds them.
var webExamples = map[string]struct{ entrypoint, commands, body, line string }{
	"python": {"hello.py", "", "hello from Python", "asked for /path?q=1\n"},
	"c":      {"hello", "gcc -static -o hello hello.c", "hello from C", "asked for GET /path?q=1 HTTP/1.1\n"},
}

// TestWebExamples has a script and a program in C serve HTTP, at each tier.
func TestWebExamples(t *testing.T) {
	t.Parallel()
	for name, e := range webExamples {
		for _, tier := range append([]string{"none"}, confined...) {
			t.Run(name+"/"+tier, func(t *testing.T) {
				t.Parallel()
				if name == "c" {
					require.Command(t, "gcc")
				} else if _, err := os.Stat("/usr/bin/python3"); err != nil {
					require.Missing(t, "python3", "there is no /usr/bin/python3")
				}
				box := openTier(t, t.TempDir(), tier, "exec")
				f := deployFolder(t, box, "testdata/exec", e.entrypoint, e.commands)
				for range 2 {
					r := f.get("/path?q=1")
					r.text(t, e.body)
					if out := r.logs[sandbox.Stdout].String(); out != e.line {
						t.Errorf("logs %q, want %q", out, e.line)
					}
				}
			})
		}
	}
}

// deployFolder builds a copy of a folder, and starts an instance of it.
func deployFolder(t *testing.T, box *procbox.Box, folder, entrypoint, commands string) deployed {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	var logs bytes.Buffer
	b := sandbox.BuildSpec{ID: "b", Runtime: "exec-1", Dir: dir, Entrypoint: entrypoint, Commands: commands}
	if r, err := box.Build(t.Context(), b, &logs); err != nil || r.Failure != "" {
		t.Fatalf("build: %+v, %v\n%s", r, err, &logs)
	}
	if _, err := box.Start(t.Context(), sandbox.Spec{ID: "i", Runtime: "exec-1", Dir: dir, Entrypoint: entrypoint}); err != nil {
		t.Fatal(err)
	}
	return deployed{t, box}
}

// rawly has the program answer with bytes as they are.
func (d deployed) rawly(ctx context.Context, method, answer string) (*reply, error) {
	d.t.Helper()
	var r reply
	var err error
	r.result, err = d.box.Invoke(ctx, "i", sandbox.Request{Method: method, Path: "/raw", Body: strings.NewReader(answer), Logging: true}, &r)
	return &r, err
}

// TestWebAnswers is about answers that are none, and what of them reaches the caller.
func TestWebAnswers(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
	for name, tc := range map[string]struct {
		method, answer string
		status         int
		body           string
		crash, aborted string // what they begin with
		errors         string
		gone           bool // the instance is ended
	}{
		"good":               {"POST", ok, 200, "fine", "", "", "", false},
		"without a length":   {"POST", "HTTP/1.0 200 OK\r\n\r\nfine", 200, "fine", "", "", "", false},
		"chunked":            {"POST", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", 200, "fine", "", "", "", false},
		"early hints":        {"POST", "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + ok, 200, "fine", "", "", "", false},
		"any status":         {"POST", "HTTP/1.1 042 Odd\r\ncontent-length: 0\r\n\r\n", 42, "", "", "", "", false},
		"nothing":            {"POST", "", 500, "", "", "", "The function closed the connection without an answer.\n", false},
		"noise":              {"POST", strings.Repeat("\xff", 64), 0, "", "protocol error: answer: ", "", "", true},
		"half a head":        {"POST", "HTTP/1.1 200 OK\r\ncontent-le", 0, "", "protocol error: answer: ", "", "", true},
		"another protocol":   {"POST", "HTTP/2.0 200 OK\r\n\r\n", 0, "", "protocol error: answer: HTTP/2.0", "", "", true},
		"switch":             {"POST", "HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", 0, "", "protocol error: answer: HTTP/1.1 101", "", "", true},
		"status of letters":  {"POST", "HTTP/1.1 abc OK\r\n\r\n", 0, "", "protocol error: answer: ", "", "", true},
		"status of 4 digits": {"POST", "HTTP/1.1 1000 OK\r\n\r\n", 0, "", "protocol error: answer: ", "", "", true},
		"two lengths":        {"POST", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nfine", 0, "", "protocol error: answer: ", "", "", true},
		"huge head":          {"POST", "HTTP/1.1 200 OK\r\nx: " + strings.Repeat("x", 70000) + "\r\n\r\n", 0, "", "protocol error: answer: its head is longer than 65535 bytes", "", "", true},
		"flood of hints":     {"POST", strings.Repeat("HTTP/1.1 103 Early\r\n\r\n", 4000) + ok, 0, "", "protocol error: answer: its head is longer than 65535 bytes", "", "", true},
		"too little":         {"POST", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfine", 200, "fine", "", "the function closed the connection", "", false},
		"broken chunk":       {"POST", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\nzz\r\n", 200, "fine", "protocol error: body: ", "", "", true},
		"too much":           {"POST", ok + ok, 200, "fine", "", "", "", true},
		"body after 204":     {"POST", "HTTP/1.1 204 None\r\n\r\nbody", 204, "", "", "", "", true},
		"body after HEAD":    {"HEAD", ok, 200, "", "", "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := deployFolder(t, open(t, "exec"), fixtureOf(t, "exec").source(t), "server", "")
			r, err := f.rawly(t.Context(), tc.method, tc.answer)
			if err != nil || r.status != tc.status || r.body.String() != tc.body || r.logs[sandbox.Stderr].String() != tc.errors {
				t.Errorf("%v, status %d, body %q, errors %q", err, r.status, &r.body, &r.logs[sandbox.Stderr])
			}
			if !strings.HasPrefix(r.result.Crash, tc.crash) || (tc.crash == "") != (r.result.Crash == "") ||
				!strings.HasPrefix(r.result.Aborted, tc.aborted) || (tc.aborted == "") != (r.result.Aborted == "") || r.result.Retire != tc.gone {
				t.Errorf("%+v, want %q, %q", r.result, tc.crash, tc.aborted)
			}
			r, err = f.rawly(t.Context(), "POST", ok)
			if tc.gone != errors.Is(err, sandbox.ErrGone) || tc.gone != r.result.Unsent || !tc.gone && r.body.String() != "fine" {
				t.Errorf("the next call: %v, %+v, body %q", err, r.result, &r.body)
			}
		})
	}
}

// fixtureOf returns the fixture of a language.
func fixtureOf(t testing.TB, key string) fixture {
	t.Helper()
	for _, f := range fixtures {
		if f.key == key {
			return f
		}
	}
	t.Fatalf("there is no fixture of %s", key)
	return fixture{}
}

// TestWebLines has the program print: whole lines come, of bounded length, as text.
func TestWebLines(t *testing.T) {
	t.Parallel()
	f := deployFolder(t, open(t, "exec"), fixtureOf(t, "exec").source(t), "server", "")
	long, cut := strings.Repeat("x", 8000), "... Log truncated due to size limit (8000 characters)\n"
	for _, tc := range []struct{ printed, want string }{
		{"", ""}, {"plain\n", "plain\n"}, {"no end", "no end\n"}, {"a\n\nb", "a\n\nb\n"}, {long + "\n", long + "\n"}, {long + "x\n", long + cut},
		{long + long + long, long + cut}, {long + long + "\nnext\n", long + cut + "next\n"}, {"\xff\n\x1b[1m\x00", "\ufffd\n\x1b[1m\x00\n"},
		{strings.Repeat("é line\n", 200000), strings.Repeat("é line\n", 200000)},
	} {
		for path, stream := range map[string]sandbox.Stream{"/output": sandbox.Stdout, "/output?err": sandbox.Stderr} {
			var r reply
			req := sandbox.Request{Method: "POST", Path: path, Body: strings.NewReader(tc.printed), Logging: true}
			if _, err := f.box.Invoke(t.Context(), "i", req, &r); err != nil || r.status != 204 {
				t.Fatalf("%v, status %d", err, r.status)
			}
			if got, other := r.logs[stream].String(), r.logs[sandbox.Stdout+sandbox.Stderr-stream].String(); got != tc.want || other != "" {
				t.Errorf("printed %.20q…, %d bytes: got %d bytes, %.20q…, and elsewhere %.20q", tc.printed, len(tc.printed), len(got), got, other)
			}
		}
	}
}

// TestWebRequests is about what reaches the program.
func TestWebRequests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := "#!/bin/sh\nexec python3 -c '\nimport socket\ns = socket.socket(fileno=3)\nwhile True:\n c = s.accept()[0]\n r = b\"\"\n while b\"END\" not in r: r += c.recv(65536)\n c.sendall(b\"HTTP/1.1 200 OK\\r\\n\\r\\n\" + r); c.close()'\n"
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	box := openBox(t, procbox.Config{Dir: t.TempDir(), Languages: []string{"exec"}, Isolation: "none"})
	env := map[string]string{"OPEN_RUNTIMES_HEADERS": `{"X-Own":248,"x-open-runtimes-y":"kept"}`}
	if _, err := box.Start(t.Context(), sandbox.Spec{ID: "i", Runtime: "exec-1", Dir: dir, Entrypoint: "run", Env: env}); err != nil {
		t.Fatal(err)
	}
	r := sandbox.Request{
		Method: "PUT", Path: "/a b/é?c=\r\n", Body: strings.NewReader("END"),
		Headers: []sandbox.Header{
			{Name: "x-a", Value: "1\r\nx-evil: 1"}, {Name: "x-a", Value: "2"}, {Name: "cookie", Value: "a=b"}, {Name: "cookie", Value: "c=d"},
			{Name: "x-open-runtimes-secret", Value: "s"}, {Name: "x-own", Value: "caller's"}, {Name: "content-length", Value: "99"},
			{Name: "transfer-encoding", Value: "chunked"}, {Name: "connection", Value: "keep-alive"}, {Name: "upgrade", Value: "h2c"}, {Name: "bad name", Value: "x"},
		},
	}
	waiting, more := io.Pipe() // a body that has not ended when it is answered
	defer more.Close()
	for want, body := range map[string]io.Reader{
		"content-length: 3\r\n\r\nEND":                     strings.NewReader("END"),
		"transfer-encoding: chunked\r\n\r\n3\r\nEND":       io.MultiReader(strings.NewReader("END"), waiting),
		"content-length: 300003\r\n\r\n" + "zeros" + "END": bytes.NewReader(append(make([]byte, 300000), "END"...)),
	} {
		r.Body = body
		var got reply
		if _, err := box.Invoke(t.Context(), "i", r, &got); err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(got.body.String(), strings.Repeat("\x00", 300000), "zeros", 1)
		all := "PUT /a%20b/%C3%A9?c=%0D%0A HTTP/1.1\r\nhost: localhost\r\nx-a: 1  x-evil: 1, 2\r\ncookie: a=b; c=d\r\n" +
			"x-open-runtimes-y: kept\r\nx-own: 248\r\nconnection: close\r\n" + want
		if strings.TrimSuffix(text, "\r\n") != all {
			t.Errorf("the program got %q, want %q", text, all)
		}
	}
}

// TestWebStartFails is about entrypoints that cannot be run.
func TestWebStartFails(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"none", "full"} {
		box := openTier(t, t.TempDir(), tier, "exec")
		for name, tc := range map[string]struct {
			text string
			mode os.FileMode
			want string
		}{
			"not executable": {"#!/bin/sh\n", 0o644, "Failed to load entrypoint, file main is not executable."},
			"no program":     {"nonsense", 0o755, "exec format error"},
			"no interpreter": {"#!/none\n", 0o755, "no such file or directory"},
			"exits":          {"#!/bin/sh\necho last words >&2; exit 7\n", 0o755, "exit status 7: last words"},
		} {
			t.Run(tier+"/"+name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "main"), []byte(tc.text), tc.mode); err != nil {
					t.Fatal(err)
				}
				id := tier + name
				_, err := box.Start(t.Context(), sandbox.Spec{ID: id, Runtime: "exec-1", Dir: dir, Entrypoint: "main"})
				var load *sandbox.LoadError
				if errors.As(err, &load) && strings.Contains(load.Reason, tc.want) {
					return
				}
				var r reply
				res, err2 := box.Invoke(t.Context(), id, sandbox.Request{Method: "GET", Path: "/", Logging: true}, &r)
				if err != nil || err2 != nil || !strings.Contains(res.Crash, tc.want) {
					t.Errorf("start: %v; call: %v, %+v, want %q", err, err2, res, tc.want)
				}
				if name == "exits" && !strings.Contains(r.logs[sandbox.Stderr].String(), "last words\n") {
					t.Errorf("errors %q", &r.logs[sandbox.Stderr])
				}
			})
		}
		t.Run(tier+"/missing", func(t *testing.T) {
			t.Parallel()
			for _, entrypoint := range []string{"none", "../../../../../../../bin/sh", "/bin/sh", "", "."} {
				_, err := box.Start(t.Context(), sandbox.Spec{ID: "m", Runtime: "exec-1", Dir: t.TempDir(), Entrypoint: entrypoint})
				var load *sandbox.LoadError
				if !errors.As(err, &load) || !strings.Contains(load.Reason, "does not exist") {
					t.Errorf("%q: %v", entrypoint, err)
				}
			}
		})
	}
}

// TestWebSocketIsClosed has a program let go of its socket: nothing can reach it.
func TestWebSocketIsClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main"), []byte("#!/bin/sh\nexec 3<&-; exec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	box := open(t, "exec")
	if _, err := box.Start(t.Context(), sandbox.Spec{ID: "i", Runtime: "exec-1", Dir: dir, Entrypoint: "main"}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; { // the first call may come before it is closed
		var r reply
		res, err := box.Invoke(t.Context(), "i", sandbox.Request{Method: "GET", Path: "/", Logging: true}, &r)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v, %+v", err, res)
		}
		if res.Crash == "it closed its socket" {
			return
		}
		if r.status != 500 {
			t.Fatalf("status %d, %+v", r.status, res)
		}
	}
}

// TestWebEnds cancels a call that does not end, and lets another run into its
// timeout.
func TestWebEnds(t *testing.T) {
	t.Parallel()
	var f deployed
	r := begun(logged, func(timeout time.Duration) *reply { // which retires the instance
		f = deployFolder(t, open(t, "exec"), fixtureOf(t, "exec").source(t), "server", "")
		return f.within("/sleep?ms=60000", timeout)
	})
	if out, errs := r.logs[sandbox.Stdout].String(), r.logs[sandbox.Stderr].String(); r.status != 500 || !r.result.TimedOut || !r.result.Retire || out != "sleep start\n" || errs != "Execution timed out.\n" {
		t.Errorf("status %d, %+v, logs %q, errors %q", r.status, r.result, out, errs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hanging := printed{line: "spinning\n", then: cancel}
	if _, err := f.box.Invoke(ctx, "i", sandbox.Request{Method: "GET", Path: "/spin", Logging: true}, &hanging); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	if _, err := f.box.Invoke(t.Context(), "i", sandbox.Request{Method: "GET", Path: "/"}, &reply{}); !errors.Is(err, sandbox.ErrGone) {
		t.Errorf("%v, want a call of an instance that was killed", err)
	}
}

// printed is a sink that does something when a line is logged.
type printed struct {
	reply
	line string
	then func()
}

func (p *printed) Log(stream sandbox.Stream, lines []byte) {
	if string(lines) == p.line {
		p.then()
	}
}
