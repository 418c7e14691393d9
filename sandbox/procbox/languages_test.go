//go:build unix

package procbox_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
)

// What a Go function prints belongs to the one call that runs.
func TestGoPrints(t *testing.T) {
	t.Parallel()
	f := deploy(t, "go", "main.go", "", source{"main.go": `package handler

import (
	"fmt"
	"log"
	"runtime"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

func Main(c openruntimes.Context) openruntimes.Response {
	switch c.Req.Path {
	case "/print":
		fmt.Print("out\nno newline")
		log.SetFlags(0)
		log.Print("err")
	case "/goexit":
		runtime.Goexit()
	}
	return c.Res.Text(c.Req.Path + " " + c.Req.Query["a b"] + " " + c.Req.Headers["x-enforced"])
}
`})
	r := f.get("/print?a%20b=c+d&a%20b=e")
	r.text(t, "/print c d ")
	out, errs := r.logs[sandbox.Stdout].String(), r.logs[sandbox.Stderr].String()
	if !strings.HasSuffix(out, "out\nno newline\n") || !strings.HasSuffix(errs, "err\n") || strings.Count(out+errs, "Native logs detected.") != 1 {
		t.Errorf("logs %q, errors %q", out, errs)
	}
	if r := f.get("/goexit"); r.status != 500 {
		t.Errorf("a function that ends its goroutine: status %d", r.status)
	}
}

// The processes that die in a call do not take the instance with them.
func TestLostWorkers(t *testing.T) {
	t.Parallel()
	for key, code := range map[string]source{
		"php": {"main": `<?php
return function ($context) {
    $context->log('before');
    switch ($context->req->path) {
        case '/exit': echo "half a line"; exit(4);
        case '/fatal': ini_set('memory_limit', '32M'); $s = str_repeat('x', 1 << 30); break;
        case '/kill': posix_kill(getmypid(), 9); sleep(1000);
        case '/orphan': shell_exec('sleep 1000 >/dev/null 2>&1 &'); exit(5);
        case '/stream':
            return $context->res->send((function () { yield 'half'; exit(6); })());
        case '/slow': sleep(1000);
    }
    return $context->res->text('fine');
};
`},
		"ruby": {"main": `
def main(context)
  context.log("before")
  case context.req.path
  when "/exit"
    $stderr.print "half a line"
    exit!(4)
  when "/fatal" then abort("exhausted")
  when "/kill" then Process.kill(:KILL, $$) && sleep
  when "/orphan"
    spawn("sleep 1000", out: File::NULL, err: File::NULL)
    exit!(5)
  when "/stream"
    return context.res.send(Enumerator.new { |y| y << "half"; exit!(6) })
  when "/slow" then sleep
  end
  context.res.text("fine")
end
`},
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			f := deploy(t, key, "main", "", code)
			for path, want := range map[string]string{"/exit": "exit status 4", "/fatal": "exhausted", "/kill": "signal 9", "/orphan": "exit status 5"} {
				r := f.get(path)
				if errs := r.logs[sandbox.Stderr].String(); r.status != 500 || !strings.Contains(errs, want) || !strings.HasPrefix(r.logs[sandbox.Stdout].String(), "before\n") {
					t.Errorf("%s: status %d, logs %q, errors %q, want %s", path, r.status, &r.logs[sandbox.Stdout], errs, want)
				}
			}
			if r := f.get("/stream"); r.result.Aborted == "" || r.body.String() != "half" {
				t.Errorf("%+v, body %q, want Aborted after half", r.result, &r.body)
			}
			f.get("/").text(t, "fine") // by a new process, which is ready for the next call
			r := begun(logged, func(timeout time.Duration) *reply { return f.within("/slow", timeout) })
			if r.status != 500 || !r.result.TimedOut || r.result.Retire || r.logs[sandbox.Stdout].String() != "before\n" {
				t.Errorf("timeout: status %d, %+v, logs %q", r.status, r.result, &r.logs[sandbox.Stdout])
			}
			f.get("/").text(t, "fine")
		})
	}
}

// A worker that takes another's place loads the code again: if that ends it, its call
// says so, and the instance lives.
func TestLaterWorkerExitsWhileLoading(t *testing.T) {
	t.Parallel()
	for key, code := range map[string]string{
		"php": `<?php
if (file_exists(getenv('TMPDIR') . '/again')) exit(3);
return function ($context) {
    if ($context->req->path !== '/exit') return $context->res->text('lives');
    touch(getenv('TMPDIR') . '/again');
    exit(1);
};
`,
		"ruby": `
exit(3) if File.exist?(ENV["TMPDIR"] + "/again")
def main(context)
  return context.res.text("lives") if context.req.path != "/exit"
  File.write(ENV["TMPDIR"] + "/again", "")
  exit!(1)
end
`,
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			f := deploy(t, key, "main", "", source{"main": code})
			f.get("/").text(t, "lives")
			if r := f.get("/exit"); r.status != 500 {
				t.Errorf("status %d", r.status)
			}
			const want = "Failed to load module: its process ended with exit status 3."
			for range 2 {
				if r := f.get("/"); r.status != 503 || !strings.Contains(r.logs[sandbox.Stderr].String(), want) {
					t.Errorf("status %d, errors %q, want %q", r.status, &r.logs[sandbox.Stderr], want)
				}
			}
		})
	}
}

// The channel is the master's alone: a worker has one socket, which leads there.
func TestWorkersHaveOneSocket(t *testing.T) {
	t.Parallel()
	for key, code := range map[string]string{
		"php": `<?php
return function ($context) {
    if ($context->req->path === '/exit') exit(1);
    $links = array_map(fn ($fd) => @readlink("/proc/self/fd/$fd"), scandir('/proc/self/fd'));
    $sockets = array_unique(array_filter($links, fn ($l) => str_starts_with((string) $l, 'socket:')));
    return $context->res->text((string) count($sockets));
};
`,
		"ruby": `
def main(context)
  exit!(1) if context.req.path == "/exit"
  links = Dir.children("/proc/self/fd").map { |fd| File.readlink("/proc/self/fd/#{fd}") rescue "" }
  context.res.text(links.grep(/^socket:/).uniq.size.to_s)
end
`,
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat("/proc/self/fd"); err != nil {
				t.Skip("no /proc to look into")
			}
			f := deploy(t, key, "main", "", source{"main": code})
			f.get("/").text(t, "1")
			if r := f.get("/exit"); r.status != 500 {
				t.Errorf("status %d", r.status)
			}
			f.get("/").text(t, "1") // by another process
		})
	}
}

// Text that is not UTF-8 is logged with replacements.
func TestRubyBrokenText(t *testing.T) {
	t.Parallel()
	r := deploy(t, "ruby", "main.rb", "", source{"main.rb": `
def main(context)
  context.log("\xff".b, "é", "\xe9".dup.force_encoding("ISO-8859-1"))
  $stdout.write("\xff\n".b, "é")
  context.res.empty
end
`}).get("/")
	if out := r.logs[sandbox.Stdout].String(); r.status != 204 || !strings.HasPrefix(out, "\ufffd é é\n") || !strings.HasSuffix(out, "\n\ufffd\né\n") {
		t.Errorf("status %d, logs %q, errors %q", r.status, out, &r.logs[sandbox.Stderr])
	}
}

// With a Gemfile, functions see its gems alone.
func TestRubyGemfile(t *testing.T) {
	t.Parallel()
	files := source{
		"src/main.rb":     "require_relative 'lib/word'\nrequire 'own'\ndef main(context) = context.res.text(WORD + OWN)\n",
		"src/lib/word.rb": "WORD = 'a word and '\n",
		"own/lib/own.rb":  "OWN = 'a gem'\n",
		"own/own.gemspec": "Gem::Specification.new { |s| s.name, s.version, s.summary, s.authors, s.files = 'own', '1.0', 'own', ['own'], ['lib/own.rb'] }\n",
		"Gemfile":         "gem 'own', path: 'own'\n",
	}
	deploy(t, "ruby", "src/main.rb", "", files).get("/").text(t, "a word and a gem")
}

func TestPHPStateAndIncludes(t *testing.T) {
	t.Parallel()
	f := deploy(t, "php", "src/main.php", "", source{
		"src/main.php": `<?php
require 'lib/word.php';
return function ($context) {
    if ($context->req->path === '/list') {
        return $context->res->json([1, [], 'x']);
    }
    for ($i = 0; $i < 3; $i++) @ob_end_clean();
    echo 'printed';
    return $context->res->text(WORD . ' ' . getcwd() . ' ' . (isset($context->req->bodyText) ? 'set' : 'unset'));
};
`,
		"src/lib/word.php": "<?php\nconst WORD = 'included';\n",
	})
	r := f.get("/")
	if body := r.body.String(); !strings.HasPrefix(body, "included /") || !strings.HasSuffix(body, " set") {
		t.Errorf("body %q, errors %q", body, &r.logs[sandbox.Stderr])
	}
	if out := r.logs[sandbox.Stdout].String(); !strings.HasSuffix(out, "\nprinted\n") {
		t.Errorf("logs %q", out)
	}
	f.get("/list").text(t, `{"0":1,"1":{},"2":"x"}`)
}

// What the build put into a virtual environment is found, and files of the
// function do not take the place of the standard library's.
func TestPythonPath(t *testing.T) {
	t.Parallel()
	f := deploy(t, "python", "main.py", "mkdir -p runtime-env/lib/python3.99/site-packages/more && echo more > runtime-env/lib/python3.99/site-packages/more.pth", source{
		"main.py": "import wave, statistics, dependency, helper\n\ndef main(context):\n    return context.res.text(f'{dependency.name} {helper.name} {statistics.mean([1, 3])}')\n",
		"wave.py": "", "statistics.py": "raise ImportError('shadows the standard library')\n",
		"helper.py": "name = 'sibling'\n",
		"runtime-env/lib/python3.99/site-packages/more/dependency.py": "name = 'installed'\n",
	})
	f.get("/").text(t, "installed sibling 2")
}

// What many threads log at once is bounded by waiting: no memory fills and no
// line is lost.
func TestPythonFlood(t *testing.T) {
	t.Parallel()
	f := deploy(t, "python", "main.py", "", source{"main.py": `
import resource, threading

def main(context):
    if context.req.path == "/":
        return context.res.text("quiet")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = "x" * 1000
    def flood():
        for _ in range(3000):
            context.log(line)
    threads = [threading.Thread(target=flood) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return context.res.text("bounded" if grown < 16 << 10 else "grew by %d KiB" % grown)
`})
	r := f.get("/flood")
	r.text(t, "bounded")
	if got := r.logs[sandbox.Stdout].Len(); got != 8*3000*1001 {
		t.Errorf("%d bytes of logs", got)
	}
	f.get("/").text(t, "quiet")
}

// What gives pieces of text or bytes is a stream, and what holds values is not.
func TestPythonIterables(t *testing.T) {
	t.Parallel()
	f := deploy(t, "python", "main.py", "", source{"main.py": `
import sys

sys.stdout.reconfigure(line_buffering=True)

class Pieces:
    def __iter__(self):
        return iter(["a", b"b", bytearray(b"c")])

def main(context):
    return context.res.send(Pieces() if context.req.path == "/" else ["a", "b"])
`})
	f.get("/").text(t, "abc")
	if r := f.get("/list"); r.status != 500 || !strings.Contains(r.logs[sandbox.Stderr].String(), "not list") {
		t.Errorf("status %d, errors %q", r.status, &r.logs[sandbox.Stderr])
	}
}
