package sandbox

import "strings"

// Runtime describes one language version. It is data: adding a version to the
// catalogue is one line.
type Runtime struct {
	ID       string // "node-20.0"
	Key      string // "node"
	Name     string // "Node.js"
	Version  string // "20.0"
	Base     string // image the reference builds on
	Image    string // image of the reference
	Logo     string
	Supports []string // CPU architectures

	Entrypoint string // default entry file
	Commands   string // default build commands
	// Concurrency is how many calls one instance serves at once by default.
	Concurrency int
	// NativeLogs says what the language's own console is attributed to: each
	// call, or only the instance.
	NativeLogs NativeLogs
	// Spares: the driver can keep processes of it ready, see Driver.Warm. Compiled
	// functions are programs of their own, of which there is nothing to keep ready. The
	// catalogue leaves it to the driver.
	Spares bool
}

// NativeLogs says how exactly native console output can be attributed.
type NativeLogs string

const (
	PerCall     NativeLogs = "call"
	PerInstance NativeLogs = "instance"
)

// Exec is the key of the runtime for programs and scripts that serve HTTP themselves, in
// whatever language.
//
// The entrypoint is an executable file; build commands may make it. It is started in the
// root of the code, once for each instance, with the function's variables as its
// environment and a listening stream socket as descriptor 3, blocking; LISTEN_FDS is 1
// and FNKIT_SOCKET is /dev/fd/3. It accepts connections from it for as long as it
// lives. It need not say when it is ready: what is sent meanwhile waits.
//
//   - Each call is one connection with one HTTP/1.1 request, which has "connection: close". Method,
//     path, query and headers are the caller's, less x-open-runtimes-* and those of the
//     connection; several of one name are joined. What a request line cannot hold is
//     percent-encoded. A body has a content-length or is chunked.
//   - The program sends one HTTP/1.1 or 1.0 response and closes the connection. Informational
//     responses are skipped; all heads together have at most 65535 bytes. A body ends by its
//     content-length, by its last chunk, or else with the connection, in which case an
//     early end cannot be told. It is passed on as it comes, and read as fast as it is taken.
//   - A connection that is closed without a response is answered 500. What is no
//     response, or more than one, ends the instance.
//   - A call that must end, by a deadline or because it is canceled, ends the instance.
//   - Lines on standard output and standard error are the logs of the one call that runs. If none
//     does, or several, they are shown only if the program dies. Lines that a program prints
//     before it answers are in that call's logs, if it does not buffer them.
//
// One call is made at a time unless the instance's specification says more.
const Exec = "exec"

// Catalogue returns the runtimes a client of the reference knows, in its
// order. A driver's Capabilities say which of them, and which others, can run.
func Catalogue() []Runtime {
	var all []Runtime
	for line := range strings.Lines(catalogue) {
		f := strings.Fields(line)
		l := languages[f[0]]
		r := Runtime{
			ID: f[0] + "-" + f[1], Key: f[0], Name: l.name, Version: f[1], Base: f[2],
			Image: "openruntimes/" + f[0] + ":v4-" + f[1], Logo: f[0] + ".png",
			Supports:   strings.Split(f[3], ","),
			Entrypoint: l.entrypoint, Commands: l.commands, Concurrency: l.concurrency, NativeLogs: l.nativeLogs,
		}
		if r.ID == "dart-2.18" {
			r.Image = "openruntimes/dart:v4-2.19" // registered so in the reference
		}
		all = append(all, r)
	}
	return all
}

// LookupRuntime returns the catalogue's entry for an id such as "node-20.0".
func LookupRuntime(id string) (Runtime, bool) {
	for _, r := range Catalogue() {
		if r.ID == id {
			return r, true
		}
	}
	return Runtime{}, false
}

// RuntimeFor returns the runtime of a language's version found on a machine:
// the catalogue's entry if there is one, else a new one of the same form.
// version is as the interpreter prints it, such as "20.20.2".
func RuntimeFor(key, version, arch string) Runtime {
	part := strings.SplitN(version, ".", 3)
	short := strings.Join(part[:min(2, len(part))], ".")
	for _, v := range []string{short, part[0] + ".0", part[0]} {
		if r, ok := LookupRuntime(key + "-" + v); ok && majorOnly(key, v, short) {
			return r
		}
	}
	if languages[key].majors {
		short = part[0]
	}
	l := languages[key]
	return Runtime{
		ID: key + "-" + short, Key: key, Name: l.name, Version: short, Logo: key + ".png", Supports: []string{arch},
		Entrypoint: l.entrypoint, Commands: l.commands, Concurrency: l.concurrency, NativeLogs: l.nativeLogs,
	}
}

// majorOnly reports whether catalogue version v stands for the found version:
// it is that version, or the language is versioned by its major number alone.
func majorOnly(key, v, found string) bool {
	return v == found || languages[key].majors
}

type language struct {
	name        string
	entrypoint  string
	commands    string
	majors      bool // a catalogue version stands for its whole major line
	concurrency int
	nativeLogs  NativeLogs
}

var languages = map[string]language{
	"node":      {"Node.js", "index.js", "npm install", true, 100, PerCall},
	"python":    {"Python", "main.py", "pip install -r requirements.txt", false, 32, PerCall},
	"python-ml": {"Python (ML)", "main.py", "pip install -r requirements.txt", false, 32, PerCall},
	"php":       {"PHP", "index.php", "composer install", false, 8, PerCall},
	"ruby":      {"Ruby", "index.rb", "bundle install", false, 8, PerCall},
	"go":        {"Go", "main.go", "", false, 100, PerInstance},
	"exec":      {"Executable", "", "", true, 1, PerInstance},
	"deno":      {"Deno", "mod.ts", "", false, 100, PerCall},
	"bun":       {"Bun", "index.ts", "bun install", false, 100, PerCall},
	"dart":      {"Dart", "lib/main.dart", "dart pub get", false, 1, PerInstance},
	"dotnet":    {".NET", "Index.cs", "", false, 1, PerInstance},
	"java":      {"Java", "Index.java", "", false, 1, PerInstance},
	"kotlin":    {"Kotlin", "Index.kt", "", false, 1, PerInstance},
	"swift":     {"Swift", "", "", false, 1, PerInstance},
	"cpp":       {"C++", "index.cc", "", true, 1, PerInstance},
	"static":    {"Static", "", "", true, 1, PerInstance},
	"flutter":   {"Flutter", "", "flutter build web", false, 1, PerInstance},
}

// catalogue: key, version, base image, architectures.
const catalogue = `node 14.5 node:14.5.0-alpine3.12 x86,arm64,armv7,armv8
node 16.0 node:16.20.2-alpine3.18 x86,arm64,armv7,armv8
node 18.0 node:18.20.4-alpine3.20 x86,arm64,armv7,armv8
node 19.0 node:19.9.0-alpine3.18 x86,arm64
node 20.0 node:20.17.0-alpine3.20 x86,arm64
node 21.0 node:21.7.3-alpine3.20 x86,arm64
node 22 node:22.9.0-alpine3.20 x86,arm64
php 8.0 php:8.0.30-cli-alpine3.16 x86,arm64,armv7,armv8
php 8.1 php:8.1.30-cli-alpine3.20 x86,arm64,armv7,armv8
php 8.2 php:8.2.24-cli-alpine3.20 x86,arm64,armv7,armv8
php 8.3 php:8.3.12-cli-alpine3.20 x86,arm64,armv7,armv8
ruby 3.0 ruby:3.0.7-alpine3.16 x86,arm64,armv7,armv8
ruby 3.1 ruby:3.1.6-alpine3.20 x86,arm64,armv7,armv8
ruby 3.2 ruby:3.2.5-alpine3.20 x86,arm64,armv7,armv8
ruby 3.3 ruby:3.3.5-alpine3.20 x86,arm64,armv7,armv8
python 3.8 python:3.8.20-alpine3.20 x86,arm64,armv7,armv8
python 3.9 python:3.9.20-alpine3.20 x86,arm64,armv7,armv8
python 3.10 python:3.10.15-alpine3.20 x86,arm64,armv7,armv8
python 3.11 python:3.11.10-alpine3.20 x86,arm64,armv7,armv8
python 3.12 python:3.12.6-alpine3.20 x86,arm64,armv7,armv8
python-ml 3.11 python:3.11.10-bookworm x86,arm64
deno 1.21 denoland/deno:alpine-1.21.3 x86
deno 1.24 denoland/deno:alpine-1.24.3 x86
deno 1.35 denoland/deno:alpine-1.35.3 x86
deno 1.40 denoland/deno:alpine-1.40.5 x86,arm64
deno 1.46 denoland/deno:alpine-1.46.3 x86,arm64
deno 2.0 denoland/deno:alpine-2.0.0-rc.5 x86,arm64
dart 2.15 dart:2.15.1 x86,arm64,armv7,armv8
dart 2.16 dart:2.16.2 x86,arm64,armv7,armv8
dart 2.17 dart:2.17.7 x86,arm64,armv7,armv8
dart 2.18 dart:2.19.6 x86,arm64,armv7,armv8
dart 3.0 dart:3.0.7 x86,arm64,armv7,armv8
dart 3.1 dart:3.1.5 x86,arm64,armv7,armv8
dart 3.3 dart:3.3.4 x86,arm64,armv7,armv8
dart 3.5 dart:3.5.2 x86,arm64,armv7,armv8
dotnet 6.0 mcr.microsoft.com/dotnet/sdk:6.0.425-alpine3.19 x86,arm64,armv7,armv8
dotnet 7.0 mcr.microsoft.com/dotnet/sdk:7.0.410-alpine3.19 x86,arm64,armv7,armv8
dotnet 8.0 mcr.microsoft.com/dotnet/sdk:8.0.402-alpine3.19 x86,arm64,armv7,armv8
java 8.0 eclipse-temurin:8-jdk-jammy x86,arm64,armv7,armv8
java 11.0 eclipse-temurin:11-jdk-jammy x86,arm64,armv7,armv8
java 17.0 eclipse-temurin:17-jdk-jammy x86,arm64,armv7,armv8
java 18.0 eclipse-temurin:18-jdk-jammy x86,arm64,armv7,armv8
java 21.0 eclipse-temurin:21-jdk-jammy x86,arm64,armv7,armv8
java 22 eclipse-temurin:22-jdk-jammy x86,arm64,armv7,armv8
swift 5.5 swiftarm/swift:5.5.3-ubuntu-jammy x86,arm64,armv7,armv8
swift 5.8 swiftarm/swift:5.8.1-ubuntu-22.04 x86,arm64,armv7,armv8
swift 5.9 swiftarm/swift:5.9.2-ubuntu-22.04 x86,arm64,armv7,armv8
swift 5.10 swiftarm/swift:5.10-ubuntu-22.04 x86,arm64,armv7,armv8
kotlin 1.6 eclipse-temurin:18-jdk-alpine x86,arm64,armv7,armv8
kotlin 1.8 eclipse-temurin:19-jdk-alpine x86,arm64,armv7,armv8
kotlin 1.9 eclipse-temurin:19-jdk-alpine x86,arm64,armv7,armv8
kotlin 2.0 eclipse-temurin:22-jdk-alpine x86,arm64,armv7,armv8
cpp 17 alpine:3.20.2 x86,arm64,armv7,armv8
cpp 20 alpine:3.20.2 x86,arm64,armv7,armv8
bun 1.0 oven/bun:1.0.36-alpine x86,arm64
bun 1.1 oven/bun:1.1.29-alpine x86,arm64
go 1.23 golang:1.23.1-alpine3.20 x86,arm64
static 1 joseluisq/static-web-server:2.33-alpine x86,arm64
flutter 3.24 dart:3.5.2 x86,arm64`
