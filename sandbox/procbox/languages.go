package procbox

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox/harness"
)

// language says how functions of a language are run. Adding a language is one
// entry here and its harness.
type language struct {
	key      string   // of the runtime catalogue
	commands []string // patterns of the interpreter's or compiler's file names
	// probe makes the command print its version, and on a second line, if it
	// knows, the path of the real executable, or of its installation.
	probe []string
	argv  []string // options before the harness file
	file  string   // of the harness; empty: the build makes the program
	// web: the entrypoint is a program that serves HTTP on a socket it inherits.
	web bool
	// killsCall: on RESET the harness ends the call's process alone, and
	// confirms with RESET.
	killsCall bool
	// build turns the source into a program, after the build commands.
	build func(ctx context.Context, b harness.Build) (failure string, err error)
	// settings are the variables of a function that build may see.
	settings []string
	// caches is the command, after the build's, that keeps with the code in dir what
	// loading it would otherwise compute each time. That it fails does not matter.
	caches func(tool, dir string) []string
	// env is added to the environment of build commands in dir.
	env func(dir string) map[string]string
	// starts is added to the environment that it starts in, for code in dir.
	starts func(dir string) map[string]string
	// reserves is how much memory a version reserves without using it.
	reserves func(version string) int64
	// proc: it needs /proc. Without, Bun does not start, and Deno's parser, which asks
	// there for the size of its stack, ends the process in longer programs.
	proc    bool
	install string // what to install where it is missing
}

var languages = []language{
	{
		key: "node", commands: []string{"node", "nodejs", "node[0-9]*"},
		probe: []string{"-p", "process.versions.node+'\\n'+process.execPath"},
		argv:  []string{"--no-warnings"}, file: "node.cjs",
		install: "install Node.js 16 or newer (command node)",
	},
	{
		key: "bun", commands: []string{"bun"}, probe: []string{"--version"},
		argv: []string{"--no-install"}, file: "node.cjs", proc: true,
		reserves: func(version string) int64 {
			if slices.Contains([]string{"1.0", "1.1", "1.2"}, version) {
				return 16 << 30
			}
			return 0
		},
		install: "install Bun 1.0 or newer (command bun)",
	},
	{
		key: "deno", commands: []string{"deno"}, probe: []string{"--version"},
		argv: []string{"run", "--quiet", "--no-prompt", "--allow-all"}, file: "node.cjs", proc: true,
		reserves: func(string) int64 { return 512 << 20 },
		env:      denoCache, starts: denoCache,
		install: "install Deno 2.0 or newer (command deno)",
	},
	{
		key: "python", commands: []string{"python3", "python3.[0-9]*"},
		// The imports are what the harness needs and a minimal Python lacks.
		probe: []string{"-I", "-S", "-c", "import sys,platform,asyncio,inspect,json,queue,socket,urllib.parse;print(platform.python_version());print(sys.executable)"},
		argv:  []string{"-u"}, file: "python.py", caches: compileAll,
		env: func(dir string) map[string]string {
			return map[string]string{
				"PIP_TARGET": filepath.Join(dir, ".fnkit", "site-packages"), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore",
			}
		},
		install: "install Python 3.8 or newer with its whole standard library (command python3)",
	},
	{
		key: "php", commands: []string{"php", "php[0-9]*"},
		probe: []string{"-n", "-r", `echo PHP_VERSION,"\n",PHP_BINARY;`},
		file:  "php.php", killsCall: true,
		install: "install PHP 8.0 or newer (command php)",
	},
	{
		key: "ruby", commands: []string{"ruby", "ruby[0-9]*"},
		probe: []string{"--disable=gems", "-e", "require 'rbconfig'; puts RUBY_VERSION, RbConfig.ruby"},
		argv:  []string{"--disable=gems"}, file: "ruby.rb", killsCall: true,
		env: func(dir string) map[string]string {
			return map[string]string{"BUNDLE_PATH": filepath.Join(dir, "vendor", "bundle")}
		},
		install: "install Ruby 3.0 or newer (command ruby)",
	},
	{
		key: "go", commands: []string{"go"},
		probe:    []string{"env", "GOVERSION", "GOROOT"},
		build:    harness.BuildGo,
		settings: harness.GoSettings,
		install:  "install Go 1.23 or newer (command go)",
	},
	{key: sandbox.Exec, web: true, build: buildExecutable},
}

// denoCache has Deno keep what a build downloads in the deployment, and find it there.
func denoCache(dir string) map[string]string {
	return map[string]string{"DENO_DIR": filepath.Join(dir, ".fnkit", "deno"), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}
}

// compileAll keeps bytecode beside each file, whatever is there already. It is of one
// version of Python: others let it alone. It is not compared with the file's
// time: an artefact has none, and what it holds does not change.
func compileAll(python, dir string) []string {
	return []string{python, "-I", "-m", "compileall", "-q", "-q", "-f", "--invalidation-mode", "unchecked-hash", dir}
}

// program is where a compiled language's build leaves what Start runs.
func program(dir string) string { return filepath.Join(dir, ".fnkit", "server") }
