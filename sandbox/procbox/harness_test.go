//go:build unix

package procbox_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// source is a function written for one test: its files by path.
type source map[string]string

// reply is a sink that keeps a response.
type reply struct {
	status int
	body   bytes.Buffer
	result sandbox.Result

	mu   sync.Mutex
	logs [3]bytes.Buffer
}

func (r *reply) Head(status int, _ []sandbox.Header) error { r.status = status; return nil }
func (r *reply) Write(p []byte) (int, error)               { return r.body.Write(p) }

func (r *reply) Log(stream sandbox.Stream, lines []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs[stream].Write(lines)
}

// deployed is an instance of a source.
type deployed struct {
	t   *testing.T
	box *procbox.Box
}

// deploy builds the source and starts an instance of it.
func deploy(t *testing.T, key, entrypoint, commands string, files source) deployed {
	t.Helper()
	return deployTo(t, open(t, key), key, entrypoint, commands, files)
}

// deployTo builds the source and starts an instance of it in a Box.
func deployTo(t *testing.T, box *procbox.Box, key, entrypoint, commands string, files source) deployed {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id := runtimeOf(t, box, key)
	var logs bytes.Buffer
	b := sandbox.BuildSpec{ID: "b", Runtime: id, Dir: dir, Entrypoint: entrypoint, Commands: commands}
	if r, err := box.Build(t.Context(), b, &logs); err != nil || r.Failure != "" {
		t.Fatalf("build: %+v, %v\n%s", r, err, &logs)
	}
	if _, err := box.Start(t.Context(), sandbox.Spec{ID: "i", Runtime: id, Dir: dir, Entrypoint: entrypoint}); err != nil {
		t.Fatal(err)
	}
	return deployed{t, box}
}

func (d deployed) get(path string) *reply { return d.within(path, time.Minute) }

// within makes a call with a soft timeout.
func (d deployed) within(path string, timeout time.Duration) *reply {
	d.t.Helper()
	var r reply
	var err error
	req := sandbox.Request{Method: "GET", Path: path, Logging: true, Timeout: timeout}
	if r.result, err = d.box.Invoke(d.t.Context(), "i", req, &r); err != nil {
		d.t.Error(err)
	}
	return &r
}

// begun makes calls that do not end, each with more time, until one had begun before
// its time was up, and returns that.
func begun(had func(*reply) bool, call func(timeout time.Duration) *reply) (r *reply) {
	for timeout := 200 * time.Millisecond; timeout < patience; timeout *= 2 {
		if r = call(timeout); had(r) {
			break
		}
	}
	return r
}

// logged says that a call has begun by its first line.
func logged(r *reply) bool { return r.logs[sandbox.Stdout].Len() > 0 }

// retired says so by its instance, which it has spoilt.
func retired(r *reply) bool { return r.result.Retire }

// text fails the test if the reply is not 200 with this text.
func (r *reply) text(t *testing.T, want string) {
	t.Helper()
	if r.status != 200 || r.body.String() != want {
		t.Errorf("status %d, body %q, want %q; errors %q", r.status, &r.body, want, &r.logs[sandbox.Stderr])
	}
}

func TestNodeModules(t *testing.T) {
	t.Parallel()
	const esm = "import { word } from './word.mjs';\nexport default async ({ res }) => res.text(await word());\n"
	const word = "export const word = async () => 'module';\n"
	for name, tc := range map[string]struct {
		entrypoint string
		files      source
	}{
		"by extension":    {"index.mjs", source{"index.mjs": esm, "word.mjs": word}},
		"by package.json": {"src/index.js", source{"package.json": `{"type":"module"}`, "src/index.js": esm, "src/word.mjs": word}},
		"transpiled":      {"index.js", source{"index.js": "exports.default = (c) => c.res.text('module');\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deploy(t, "node", tc.entrypoint, "", tc.files).get("/").text(t, "module")
		})
	}
}

func TestNodeStreams(t *testing.T) {
	t.Parallel()
	f := deploy(t, "node", "index.js", "", source{"index.js": `
const { Readable } = require('stream');
const kinds = {
  '/readable': () => Readable.from(['a', Buffer.from('b'), 'c']),
  '/web': () => new ReadableStream({ start(c) { c.enqueue(new TextEncoder().encode('abc')); c.close(); } }),
  '/generator': function* () { yield 'a'; yield 'bc'; },
  '/blob': () => new Blob(['a', 'bc']),
};
module.exports = ({ req, res }) => res.send(kinds[req.path]());
`})
	for _, path := range []string{"/readable", "/web", "/generator", "/blob"} {
		f.get(path).text(t, "abc")
	}
}

// Records are plain, so that code may change them before it returns them.
func TestNodeRecords(t *testing.T) {
	t.Parallel()
	f := deploy(t, "node", "index.js", "", source{"index.js": `
module.exports = ({ res }) => {
  const { json } = res;
  const fields = new Headers({ 'Content-Type': 'text/html' });
  fields.append('set-cookie', 'a=1');
  fields.append('set-cookie', 'b=2');
  const record = json({}, 200, fields);
  record.headers['x-more'] = 'yes';
  return res.text(JSON.stringify(record.headers), record.statusCode, record.headers);
};
`})
	f.get("/").text(t, `{"set-cookie":["a=1","b=2"],"content-type":"application/json","x-more":"yes"}`)
}

func TestPythonImports(t *testing.T) {
	t.Parallel()
	f := deploy(t, "python", "src/main.py", "", source{
		"src/main.py":   "from .near import a\nfrom ..far import b\nimport near\nimport far\n\ndef main(context):\n    return context.res.text(a + b + near.a + far.b)\n",
		"src/near.py":   "a = 'near '\n",
		"far.py":        "b = 'far '\n",
		"src/string.py": "",
	})
	f.get("/").text(t, "near far near far ")
}

func TestPythonPackagesOfTheBuild(t *testing.T) {
	t.Parallel()
	commands := `mkdir -p "$PIP_TARGET" && echo "name = 'installed'" > "$PIP_TARGET/dependency.py"`
	f := deploy(t, "python", "main.py", commands, source{
		"main.py": "import dependency\n\ndef main(context):\n    return context.res.text(dependency.name)\n",
	})
	f.get("/").text(t, "installed")
}

func TestPythonMissingModule(t *testing.T) {
	t.Parallel()
	r := deploy(t, "python", "main.py", "", source{"main.py": "import no_such_module\n"}).get("/")
	if got := r.logs[sandbox.Stderr].String(); r.status != 503 || got != "Module not found: no_such_module\n" {
		t.Errorf("status %d, errors %q", r.status, got)
	}
}

func TestPythonAsync(t *testing.T) {
	t.Parallel()
	f := deploy(t, "python", "main.py", "", source{"main.py": `
import asyncio

async def pieces():
    for piece in ("a", b"b", "c"):
        await asyncio.sleep(0)
        yield piece

def plain():
    yield "abc"

def many():
    for i in range(64):
        yield b"x" * 65536

async def main(context):
    print(context.req.path)
    if context.req.path == "/throw":
        raise ValueError("on purpose")
    if context.req.path == "/shield":
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                pass
    bodies = {"/text": lambda: "abc", "/async": pieces, "/plain": plain, "/many": many}
    return context.res.send(bodies[context.req.path]())
`})
	for _, path := range []string{"/text", "/async", "/plain"} {
		r := f.get(path)
		r.text(t, "abc")
		if got := r.logs[sandbox.Stdout].String(); !strings.HasSuffix(got, "\n"+path+"\n") {
			t.Errorf("logs %q", got)
		}
	}
	if r := f.get("/many"); r.body.Len() != 4<<20 {
		t.Errorf("%d bytes of 4 MiB", r.body.Len())
	}
	if r := f.get("/throw"); r.status != 500 || !strings.Contains(r.logs[sandbox.Stderr].String(), `main.py", line `) {
		t.Errorf("status %d, errors %q", r.status, &r.logs[sandbox.Stderr])
	}
	if r := begun(retired, func(timeout time.Duration) *reply { return f.within("/shield", timeout) }); r.status != 500 || !r.result.TimedOut || !r.result.Retire {
		t.Errorf("code that cannot be cancelled: status %d, %+v", r.status, r.result)
	}
}
