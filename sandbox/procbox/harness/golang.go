package harness

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// typesForGo is the module that Go functions and their harness share. Both are
// built with the copy of version 4.0.8 that is carried here, so that a build
// needs no network unless the function has other dependencies.
const typesForGo, typesForGoVersion = "github.com/open-runtimes/types-for-go/v4", "v4.0.8"

//go:embed golang/*.txt types-for-go/*
var goSources embed.FS

// BuildGo compiles a Go function with the harness into Dir/.fnkit/server. The
// function is the package handler of the module openruntimes/handler (or
// whatever its go.mod says), at the root or, if no Go files are there, in the
// entrypoint's directory; without a go.mod it gets one. The host user's own
// caches and settings of the go command are used, so that a build downloads
// and compiles only what is new.
func BuildGo(ctx context.Context, b Build) (failure string, err error) {
	dir, failure := goDirectory(b)
	if failure != "" {
		return failure, nil
	}
	env, err := goEnv(ctx, b)
	if err != nil {
		return "", err
	}
	if err := writeGoModules(b, dir); err != nil {
		return "", err
	}
	out := filepath.Join(b.Dir, ".fnkit", "server")
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	return b.Run(ctx, Command{
		Dir: b.Scratch, Env: env,
		Args: []string{b.Tool, "build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "."},
	})
}

// goDirectory returns the directory of the function's package, with slashes.
func goDirectory(b Build) (dir, failure string) {
	entry := path.Clean(filepath.ToSlash(b.Entrypoint))
	if !filepath.IsLocal(filepath.FromSlash(entry)) || path.Ext(entry) != ".go" {
		return "", fmt.Sprintf("the entrypoint %q is not a Go file of the deployment", b.Entrypoint)
	}
	if info, err := os.Stat(filepath.Join(b.Dir, filepath.FromSlash(entry))); err != nil || info.IsDir() {
		return "", fmt.Sprintf("the entrypoint %q does not exist", b.Entrypoint)
	}
	files, _ := filepath.Glob(filepath.Join(b.Dir, "*.go"))
	if slices.ContainsFunc(files, func(f string) bool { return !strings.HasSuffix(f, "_test.go") }) {
		return ".", ""
	}
	return path.Dir(entry), ""
}

// writeGoModules writes the main module, which links the function with the
// harness, the shared module, and a go.mod for a function that has none.
func writeGoModules(b Build, dir string) error {
	own, err := ownGoModule(b.Dir)
	if err != nil {
		return err
	}
	module := "openruntimes/handler"
	if m := moduleDirective.FindSubmatch(own); m != nil {
		module = string(m[1])
	}
	mod := fmt.Sprintf("module fnkit/server\n\ngo %s\n\nrequire (\n\t%s v0.0.0\n\t%s %s\n)\n\nreplace %s => %q\n\nreplace %s => ./types-for-go\n",
		goVersion(own), module, typesForGo, typesForGoVersion, module, filepath.ToSlash(b.Dir), typesForGo)
	files := map[string][]byte{
		"go.mod":              []byte(mod),
		"types-for-go/go.mod": []byte("module " + typesForGo + "\n\ngo " + leastGo + "\n"),
	}
	if sum, err := os.ReadFile(filepath.Join(b.Dir, "go.sum")); err == nil {
		files["go.sum"] = sum
	}
	for from, to := range map[string]string{"golang": ".", "types-for-go": "types-for-go/openruntimes"} {
		names, err := fs.Glob(goSources, from+"/*.txt")
		if err != nil {
			return err
		}
		for _, name := range names {
			text, err := goSources.ReadFile(name)
			if err != nil {
				return err
			}
			imported := strconv.Quote(path.Join(module, dir))
			files[path.Join(to, strings.TrimSuffix(path.Base(name), ".txt"))] = bytes.Replace(text, []byte(`"openruntimes/handler"`), []byte(imported), 1)
		}
	}
	return writeAll(b.Scratch, files)
}

// ownGoModule returns the function's go.mod, which is written if it is missing.
func ownGoModule(dir string) ([]byte, error) {
	file := filepath.Join(dir, "go.mod")
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		text = fmt.Appendf(nil, "module openruntimes/handler\n\ngo %s\n\nrequire %s %s\n", leastGo, typesForGo, typesForGoVersion)
		err = os.WriteFile(file, text, 0o644)
	}
	return text, err
}

func writeAll(dir string, files map[string][]byte) error {
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// leastGo is the language version that the harness and the shared module need.
const leastGo = "1.23.0"

var (
	goDirective     = regexp.MustCompile(`(?m)^go\s+([0-9][0-9a-z.]*)`)
	moduleDirective = regexp.MustCompile(`(?m)^module\s+"?([A-Za-z0-9._~/-]+)"?\s*(?://.*)?$`)
)

// goVersion is the language version a go.mod asks for, and at least leastGo.
func goVersion(mod []byte) string {
	if m := goDirective.FindSubmatch(mod); m != nil && olderGo(leastGo, string(m[1])) {
		return string(m[1])
	}
	return leastGo
}

// olderGo reports whether version a is older than b, by their first two numbers.
func olderGo(a, b string) bool {
	var a1, a2, b1, b2 int
	fmt.Sscanf(a, "%d.%d", &a1, &a2)
	fmt.Sscanf(b, "%d.%d", &b1, &b2)
	return a1 < b1 || a1 == b1 && a2 < b2
}

// goSettings are where the go command gets modules from and keeps what it made.
var goSettings = []string{
	"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOINSECURE", "GOVCS", "GOAUTH",
}

// goEnv is what the go command gets beside the environment of builds: the
// settings it has where the host runs, as it tells them itself. HOME is the host
// user's, for the settings of git.
func goEnv(ctx context.Context, b Build) ([]string, error) {
	env := []string{"CGO_ENABLED=0", "GOWORK=off", "GOTOOLCHAIN=local", "GOFLAGS=", "GOENV=off", "GOOS=", "GOARCH=", "GOTMPDIR=" + b.Scratch}
	if u, err := user.Current(); err == nil {
		env = append(env, "HOME="+u.HomeDir)
	}
	cmd := exec.CommandContext(ctx, b.Tool, append([]string{"env", "-json"}, goSettings...)...)
	cmd.Dir = b.Scratch
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("settings of the go command: %w", err)
	}
	var settings map[string]string
	if err := json.Unmarshal(out, &settings); err != nil {
		return nil, fmt.Errorf("settings of the go command: %w", err)
	}
	for _, name := range goSettings {
		if value := settings[name]; value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env, nil
}
