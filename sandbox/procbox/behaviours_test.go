//go:build unix

package procbox_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/sandbox/procbox/testdata/left"
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

// fixture is a language with its two functions: the one of package sandboxtest, in
// folder, and the one of the behaviours below, in testdata/behaviours.
type fixture struct {
	key        string
	folder     string // in testdata; empty: it is made, see execProgram
	entrypoint string
	behaviours string            // the file; empty: that of folder
	lacks      map[string]string // what sandboxtest asks for and the language has not, and why
	// notAt are tiers at which it cannot run, and why.
	notAt map[string]string
}

const (
	noContext = "the program serves HTTP itself: there is no context"
	oneCall   = "one call at a time"
	worker    = "calls have processes of their own"
	noStream  = "its answers are values of a fixed type"
)

var fixtures = []fixture{
	{"node", "node", "index.js", "main.mjs", nil, nil},
	{"python", "python", "main.py", "main.py", nil, nil},
	{"bun", "typescript", "index.ts", "main.mjs", nil, map[string]string{"restricted": "it needs /proc"}},
	{"deno", "typescript", "index.ts", "main.mjs", nil, map[string]string{"restricted": "it needs /proc"}},
	{"php", "php", "index.php", "main.php", map[string]string{"closed": worker, "given": worker}, nil},
	{"ruby", "ruby", "index.rb", "main.rb", map[string]string{"closed": worker, "given": worker, "pids": "it waits until a process can be started"}, nil},
	{"go", "go", "main.go", "main.go", map[string]string{
		"load": "code that cannot be loaded fails its build", "native": "the notice has the language's spelling: TestGoPrints",
		"cookies": "a header is one string", "body-json-charset": "the language's library knows no parameters of the type",
		"body-json-bad": "the language's library gives an error value",
		"stream":        noStream, "breaks": noStream, "endless": noStream, "closed": noStream, "waits": noStream,
	}, nil},
	{"exec", "", "server", "", map[string]string{
		"load": "what cannot be run does not start: TestWebStartFails", "native": noContext, "noreturn": noContext, "record": noContext,
		"type": noContext, "crlf": noContext, "throw": noContext,
		"cancel": oneCall, "cancel-loop": oneCall, "concurrency": oneCall, "slow-reader": oneCall, "given": oneCall, "calls-at-once": oneCall,
	}, nil},
}

// behaviour is a row of the table: what a function of every language does, unless
// its cell says why it cannot.
type behaviour struct {
	name   string
	cannot map[string]string
	check  func(t *testing.T, c cell)
}

// cell is a behaviour in a language, with a Box and the function as it was built.
type cell struct {
	deployed
	key, dir, entrypoint string
}

var behaviours = []behaviour{
	{"headers of the runtime", nil, func(t *testing.T, c cell) {
		var r headed
		req := sandbox.Request{Method: "GET", Path: "/enforced", Headers: []sandbox.Header{{Name: "x-own", Value: "caller's"}, {Name: "x-open-runtimes-secret", Value: "s"}}}
		if _, err := c.box.Invoke(t.Context(), "i", req, &r); err != nil {
			t.Fatal(err)
		}
		r.text(t, "248 kept none")
		same := func(name string) func(sandbox.Header) bool {
			return func(h sandbox.Header) bool { return h.Name == name && h.Value == "yes" }
		}
		if !slices.ContainsFunc(r.headers, same("x-yes")) || slices.ContainsFunc(r.headers, func(h sandbox.Header) bool { return strings.HasPrefix(h.Name, "x-open-") }) {
			t.Errorf("headers %v", r.headers)
		}
	}},
	{"values in logs", map[string]string{"exec": noContext}, func(t *testing.T, c cell) {
		want := map[string]string{
			"php": `text 1 1 {"a":[1,"é"]} [1,2] `, "ruby": `text 1 true {"a":[1,"é"]} [1,2] `, "python": `text 1 True {"a":[1,"é"]} [1,2] None`,
			"go": `text 1 true map[string]interface {}{"a":[]interface {}{1, "é"}} []int{1, 2} <nil>`,
		}[c.key]
		if want == "" {
			want = `text 1 true {"a":[1,"é"]} [1,2] null`
		}
		if got := c.get("/values").logs[sandbox.Stdout].String(); got != want+"\n" {
			t.Errorf("logs %q, want %q", got, want)
		}
	}},
	{"bytes in logs", nil, func(t *testing.T, c cell) {
		path, want := "/binary", 2
		if c.key == "exec" { // which prints alone
			path, want = "/printed", 1
		}
		r := c.get(path)
		out := r.logs[sandbox.Stdout].String()
		if strings.Count(out, "\x1b[31mred\x00") != want || !strings.HasSuffix(out, "\n") || r.status != 204 {
			t.Errorf("status %d, logs %q, errors %q", r.status, out, &r.logs[sandbox.Stderr])
		}
	}},
	{"logs after the answer", map[string]string{
		"php": "nothing runs after it", "ruby": "nothing runs after it", "exec": "its output is the instance's: what comes late is the next call's",
	}, func(t *testing.T, c cell) {
		early, waited := c.get("/late"), c.get("/waits")
		early.text(t, "early")
		waited.text(t, "waited")
		if got := early.logs[sandbox.Stdout].String(); got != "" {
			t.Errorf("logs of the call that was over: %q", got)
		}
		if got := waited.logs[sandbox.Stdout].String(); got != "mine\n" {
			t.Errorf("logs of the next call: %q", got)
		}
	}},
	{"stray errors", map[string]string{"php": "it has no other threads", "exec": "they are the program's own"}, func(t *testing.T, c cell) {
		r := c.get("/stray")
		if c.key == "go" { // nothing can recover it
			if !strings.HasPrefix(r.result.Crash, "exit status 2: panic: stray") {
				t.Errorf("%+v", r.result)
			}
			return
		}
		r.text(t, "lives")
		if c.key == "python" { // a thread does not know which call has started it
			return
		}
		if all := r.logs[sandbox.Stdout].String() + r.logs[sandbox.Stderr].String(); !strings.Contains(all, "stray") {
			t.Errorf("logs %q", all)
		}
		if again := c.get("/stray"); again.status != 200 {
			t.Errorf("status %d of the next call", again.status)
		}
	}},
	{"asynchronous errors", map[string]string{
		"php": "its functions are synchronous", "ruby": "its functions are synchronous", "go": "its functions are synchronous", "exec": noContext,
	}, func(t *testing.T, c cell) {
		r := c.get("/reject")
		if errs := r.logs[sandbox.Stderr].String(); r.status != 500 || r.body.Len() > 0 || !strings.Contains(errs, "on purpose") || !strings.Contains(errs, c.entrypoint) {
			t.Errorf("status %d, errors %q", r.status, errs)
		}
	}},
	{"console of many calls", map[string]string{"go": "the catalogue says: of the instance", "exec": "the catalogue says: of the instance"}, consoles},
	{"large bodies", map[string]string{"exec": "bodies are streams, as large as the caller lets them be"}, func(t *testing.T, c cell) {
		const limit = 20 << 20
		post := func(size int) *reply {
			var r reply
			var err error
			req := sandbox.Request{Method: "POST", Path: "/size", Body: bytes.NewReader(make([]byte, size)), Logging: true}
			if r.result, err = c.box.Invoke(t.Context(), "i", req, &r); err != nil {
				t.Error(err)
			}
			return &r
		}
		if r := post(limit + 1); r.status != 0 || !strings.Contains(r.result.Aborted, "too large") || r.result.Retire {
			t.Errorf("%d bytes: status %d, %+v", limit+1, r.status, r.result)
		}
		post(limit).text(t, "20971520")
	}},
	{"forks", map[string]string{
		"node": "it cannot fork", "bun": "it cannot fork", "deno": "it cannot fork", "go": "it cannot fork", "exec": noContext,
	}, func(t *testing.T, c cell) {
		for _, end := range []string{"return", "exit", "throw"} { // a child does not answer a second time
			r := c.get("/fork?end=" + end)
			r.text(t, "parent")
			if out, errs := r.logs[sandbox.Stdout].String(), r.logs[sandbox.Stderr].String(); out+errs != "" {
				t.Errorf("%s: logs %q, errors %q", end, out, errs)
			}
		}
	}},
	{"exits while it is loaded", map[string]string{"exec": "it loads nothing: its first call ends with it"}, exitsAtLoad},
	{"entrypoints outside", map[string]string{
		"go": "they fail the build: TestLinksInABuildStep", "exec": "they do not start: TestWebStartFails",
	}, outside},
}

// headed is a reply with its headers.
type headed struct {
	reply
	headers []sandbox.Header
}

func (h *headed) Head(status int, headers []sandbox.Header) error {
	h.status, h.headers = status, headers
	return nil
}

// consoles makes many calls, as many at once as the catalogue says, each of which
// prints past the context's methods: every line is its own call's. Package engine tries
// that with a thousand.
func consoles(t *testing.T, c cell) {
	r, ok := runtimeNamed(t, c.box, c.key)
	if !ok || r.NativeLogs != sandbox.PerCall {
		t.Fatalf("the catalogue says %+v", r)
	}
	const calls = 200
	var running sync.WaitGroup
	slots := make(chan struct{}, r.Concurrency)
	for n := range calls {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			word := strconv.Itoa(1000 + n)
			r := c.get("/print?n=" + word)
			_, lines, _ := strings.Cut(r.logs[sandbox.Stdout].String(), "\n") // the first is the notice
			if want := strings.Repeat(word+"\n", 3); lines != want || r.logs[sandbox.Stderr].Len() > 0 {
				t.Errorf("logs of %s: %q, %q", word, lines, &r.logs[sandbox.Stderr])
			}
		})
	}
	running.Wait()
}

// outside starts instances whose entrypoint is no file of the deployment, whatever it
// holds.
func outside(t *testing.T, c cell) {
	file := filepath.Join(t.TempDir(), "main")
	text, err := os.ReadFile(filepath.Join(c.dir, c.entrypoint))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, err := range []error{os.WriteFile(file, text, 0o600), os.Symlink(file, filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "sub"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, entrypoint := range map[string]string{
		"absolute": file, "above": strings.Repeat("../", 20) + file[1:], "link": "link", "directory": "sub", "empty": "", "root": ".",
	} {
		if _, err := c.box.Start(t.Context(), sandbox.Spec{ID: name, Runtime: runtimeOf(t, c.box, c.key), Dir: dir, Entrypoint: entrypoint}); err != nil {
			t.Fatal(err)
		}
		var r reply
		if _, err := c.box.Invoke(t.Context(), name, sandbox.Request{Method: "GET", Path: "/", Logging: true}, &r); err != nil {
			t.Fatal(err)
		}
		want := "Failed to load entrypoint, file " + entrypoint + " does not exist.\n"
		if got := r.logs[sandbox.Stderr].String(); r.status != 503 || got != want {
			t.Errorf("%s: status %d, errors %q, want %q", name, r.status, got, want)
		}
	}
}

// exitsAtLoad starts code that ends its process the polite way as it is loaded, with
// words and without.
func exitsAtLoad(t *testing.T, c cell) {
	codes := map[string][2]string{ // with status 3, and with 0
		"node": {`console.error("the end"); process.exit(3)`, `process.exit()`},
		"bun":  {`console.error("the end"); process.exit(3)`, `process.exit()`},
		"deno": {`console.error("the end"); Deno.exit(3)`, `Deno.exit()`}, "python": {"import sys\nprint('the end', file=sys.__stderr__)\nsys.exit(3)", "exit()"},
		"php": {`<?php fwrite(STDERR, "the end"); exit(3);`, `<?php die;`}, "ruby": {`warn "the end"; exit 3`, `exit`},
		"go": {goExits + `println("the end"); os.Exit(3) }`, goExits + `os.Exit(0) }`},
	}
	for n, want := range []string{"exit status 3: the end", "exit status 0"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, c.entrypoint), []byte(codes[c.key][n]), 0o600); err != nil {
			t.Fatal(err)
		}
		id := runtimeOf(t, c.box, c.key)
		build := sandbox.BuildSpec{ID: "b", Runtime: id, Dir: dir, Entrypoint: c.entrypoint}
		if r, err := c.box.Build(t.Context(), build, t.Output()); err != nil || r.Failure != "" {
			t.Fatalf("build: %+v, %v", r, err)
		}
		_, err := c.box.Start(t.Context(), sandbox.Spec{ID: "exits", Runtime: id, Dir: dir, Entrypoint: c.entrypoint})
		var load *sandbox.LoadError
		if !errors.As(err, &load) || load.Reason != want {
			t.Errorf("%v, want a LoadError with %q", err, want)
		}
	}
}

const goExits = `package handler

import (
	"os"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

func Main(c openruntimes.Context) openruntimes.Response { return c.Res.Empty() }

func init() { `

// TestBehaviours is the table: what package sandboxtest asks of every driver, and the
// behaviours above, in every language, at the best tier.
func TestBehaviours(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures {
		t.Run(f.key, func(t *testing.T) {
			t.Parallel()
			box := open(t, f.key)
			t.Run("contract", func(t *testing.T) {
				t.Parallel()
				suite(t, "full", f)
			})
			id, dir, entrypoint := runtimeOf(t, box, f.key), f.built(t, box), f.behaviours
			if entrypoint == "" {
				entrypoint = f.entrypoint
			}
			for _, b := range behaviours {
				t.Run(b.name, func(t *testing.T) {
					if why, ok := b.cannot[f.key]; ok {
						t.Skip(why)
					}
					t.Parallel()
					box := open(t, f.key)
					spec := sandbox.Spec{ID: "i", Runtime: id, Dir: dir, Entrypoint: entrypoint, Memory: 512 << 20, Env: map[string]string{
						"OPEN_RUNTIMES_HEADERS": `{"X-Own":248,"x-open-runtimes-kept":"kept"}`,
					}}
					start(t, box, spec)
					b.check(t, cell{deployed{t, box}, f.key, dir, entrypoint})
				})
			}
		})
	}
}

// suite runs the suite of package sandboxtest on a driver of a tier, prepared by the
// last functions.
func suite(t *testing.T, tier string, f fixture, prepare ...func(*procbox.Box)) {
	t.Helper()
	another := func(t testing.TB) sandboxtest.Other {
		dir := t.TempDir()
		return sandboxtest.Other{
			Driver: openBox(t, procbox.Config{Dir: dir, Languages: []string{f.key}, Isolation: tier}),
			Left:   func(testing.TB) []string { return left.Of(dir) },
		}
	}
	if tier != "full" { // that is the best there is
		requireTier(t, tier)
	}
	box := openBox(t, procbox.Config{Dir: t.TempDir(), Languages: []string{f.key}, Isolation: tier})
	for _, p := range prepare {
		p(box)
	}
	missing := func(t testing.TB, limit, why string) {
		if tier != "none" && (limit != "disk" || tier != "restricted") {
			require.Missing(t, limit, why)
		}
	}
	sandboxtest.Run(t, sandboxtest.Target{
		Open: another, Missing: missing,
		Driver: box, Runtime: runtimeOf(t, box, f.key), Source: f.source(t), Entrypoint: f.entrypoint, Lacks: slices.Collect(maps.Keys(f.lacks)),
	})
}

// built builds the function of the behaviours and returns its folder.
func (f fixture) built(t *testing.T, box *procbox.Box) string {
	t.Helper()
	dir, entrypoint := t.TempDir(), f.behaviours
	if entrypoint == "" {
		entrypoint = f.entrypoint
		if err := os.CopyFS(dir, os.DirFS(f.source(t))); err != nil {
			t.Fatal(err)
		}
	} else {
		text, err := os.ReadFile(filepath.Join("testdata", "behaviours", entrypoint))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, entrypoint), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var logs bytes.Buffer
	spec := sandbox.BuildSpec{ID: "b", Runtime: runtimeOf(t, box, f.key), Dir: dir, Entrypoint: entrypoint}
	if r, err := box.Build(t.Context(), spec, &logs); err != nil || r.Failure != "" {
		t.Fatalf("build: %+v, %v\n%s", r, err, &logs)
	}
	return dir
}

// TestDriver runs the suite at each other tier in one language; TestTiers tries the
// rest.
func TestDriver(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"userns", "restricted", "none"} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			suite(t, tier, fixtureOf(t, "python"))
		})
	}
}

// TestSparesOfLanguages binds a spare of each language that can have some.
func TestSparesOfLanguages(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures {
		t.Run(f.key, func(t *testing.T) {
			t.Parallel()
			box := open(t, f.key)
			id := runtimeOf(t, box, f.key)
			if r, _ := runtimeNamed(t, box, f.key); !r.Spares {
				t.Skip("it has none")
			}
			warm(t, box, id, 1)
			start(t, box, sandbox.Spec{ID: "i", Runtime: id, Dir: f.built(t, box), Entrypoint: f.behaviours, Memory: 256 << 20, CPUs: 1})
			deployed{t, box}.get("/none").missing(t)
		})
	}
}

// missing fails the test if the function has not answered that there is no such path.
func (r *reply) missing(t *testing.T) {
	t.Helper()
	if r.status != 404 || r.body.String() != "not found" {
		t.Errorf("status %d, body %q, errors %q", r.status, &r.body, &r.logs[sandbox.Stderr])
	}
}
