package harness

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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
// entrypoint's directory; without a go.mod it gets one. Without caches of the
// build's own, the host user's and his settings of the go command are used, so
// that a build downloads and compiles only what is new.
func BuildGo(ctx context.Context, b Build) (failure string, err error) {
	source, err := os.OpenRoot(b.Dir)
	if err != nil {
		return "", err
	}
	defer source.Close()
	dir, failure := goDirectory(source, b.Entrypoint)
	if failure != "" {
		return failure, nil
	}
	env, err := goEnv(ctx, b)
	if err != nil {
		return "", err
	}
	if failure, err = writeGoModules(b, source, dir); failure != "" || err != nil {
		return failure, err
	}
	if err := source.MkdirAll(".fnkit", 0o755); err != nil {
		return "the folder .fnkit cannot be made", nil
	}
	if b.Fetch != nil {
		if failure, err = fetchGo(ctx, b, env); failure != "" || err != nil {
			return failure, err
		}
		env = append(env, "GOPROXY=off")
	}
	return b.Run(ctx, Command{
		Dir: b.Work, Env: env,
		Args: []string{b.Tool, "build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path.Join(b.Root, ".fnkit", "server"), "."},
	})
}

// fetchGo downloads the modules that the build needs. It has a cache of its own, as no program
// that the go command runs for it, such as git, may write to the one that builds share.
func fetchGo(ctx context.Context, b Build, env []string) (failure string, err error) {
	return b.Fetch(ctx, Command{
		Dir: b.Work, Env: slices.Concat(env, []string{"GOCACHE=" + path.Join(b.Work, "fetched")}),
		Args: []string{b.Tool, "list", "-mod=mod", "-deps", "-f", `{{""}}`, "."},
	})
}

// goDirectory returns the directory of the function's package, with slashes.
func goDirectory(source *os.Root, entrypoint string) (dir, failure string) {
	entry := path.Clean(filepath.ToSlash(entrypoint))
	if !filepath.IsLocal(filepath.FromSlash(entry)) || path.Ext(entry) != ".go" {
		return "", fmt.Sprintf("the entrypoint %q is not a Go file of the deployment", entrypoint)
	}
	if info, err := source.Stat(filepath.FromSlash(entry)); err != nil || info.IsDir() {
		return "", fmt.Sprintf("the entrypoint %q does not exist", entrypoint)
	}
	files, _ := fs.Glob(source.FS(), "*.go")
	if slices.ContainsFunc(files, func(f string) bool { return !strings.HasSuffix(f, "_test.go") }) {
		return ".", ""
	}
	return path.Dir(entry), ""
}

// writeGoModules writes the main module, which links the function with the
// harness, the shared module, and a go.mod for a function that has none.
func writeGoModules(b Build, source *os.Root, dir string) (failure string, err error) {
	own, failure := ownGoModule(source)
	if failure != "" {
		return failure, nil
	}
	module := "openruntimes/handler"
	if m := moduleDirective.FindSubmatch(own); m != nil {
		module = string(m[1])
	}
	mod := fmt.Sprintf("module fnkit/server\n\ngo %s\n\nrequire (\n\t%s v0.0.0\n\t%s %s\n)\n\nreplace %s => %q\n\nreplace %s => ./types-for-go\n",
		goVersion(own), module, typesForGo, typesForGoVersion, module, filepath.ToSlash(b.Root), typesForGo)
	files := map[string][]byte{
		"go.mod":              []byte(mod),
		"types-for-go/go.mod": []byte("module " + typesForGo + "\n\ngo " + leastGo + "\n"),
	}
	sum, err := readSource(source, "go.sum")
	if err == nil {
		files["go.sum"] = sum
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "go.sum cannot be read: " + err.Error(), nil
	}
	for from, to := range map[string]string{"golang": ".", "types-for-go": "types-for-go/openruntimes"} {
		names, err := fs.Glob(goSources, from+"/*.txt")
		if err != nil {
			return "", err
		}
		for _, name := range names {
			text, err := goSources.ReadFile(name)
			if err != nil {
				return "", err
			}
			imported := strconv.Quote(path.Join(module, dir))
			files[path.Join(to, strings.TrimSuffix(path.Base(name), ".txt"))] = bytes.Replace(text, []byte(`"openruntimes/handler"`), []byte(imported), 1)
		}
	}
	return "", writeAll(b.Scratch, files)
}

// ownGoModule returns the function's go.mod, which is written if it is missing.
func ownGoModule(source *os.Root) (text []byte, failure string) {
	text, err := readSource(source, "go.mod")
	if errors.Is(err, fs.ErrNotExist) {
		text = fmt.Appendf(nil, "module openruntimes/handler\n\ngo %s\n\nrequire %s %s\n", leastGo, typesForGo, typesForGoVersion)
		var f *os.File
		if f, err = source.OpenFile("go.mod", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err == nil {
			_, err = f.Write(text)
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return nil, "go.mod cannot be used: " + err.Error()
	}
	return text, ""
}

// maxSource is how large a file may be that a build step reads itself.
const maxSource = 16 << 20

// readSource reads a file of the source. It may be anything.
func readSource(source *os.Root, name string) ([]byte, error) {
	info, err := source.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSource {
		return nil, errors.New("it is not a file, or too large")
	}
	f, err := source.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSource))
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

// GoSettings are the variables of a function that the go command may see: where
// modules come from, and what is made of them. None makes it run a program.
var GoSettings = []string{
	"GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOINSECURE", "GOAMD64", "GOARM64", "GOEXPERIMENT",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

var (
	// goOrigins are the host's settings of where modules come from.
	goOrigins = []string{"GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOINSECURE", "GOVCS"}
	// goOwn are those that lead to files and programs of the host's user.
	goOwn = []string{"GOCACHE", "GOMODCACHE", "GOAUTH"}
)

// goEnv is what the go command gets beside the environment of builds: the
// settings it has where the host runs, as it tells them itself, and over them what the
// function says. Where it has no cache of its own, HOME is the host user's, for the
// settings of git.
func goEnv(ctx context.Context, b Build) ([]string, error) {
	env := []string{"CGO_ENABLED=0", "GOWORK=off", "GOTOOLCHAIN=local", "GOFLAGS=", "GOENV=off", "GOOS=", "GOARCH=", "GOTMPDIR=" + b.Work}
	names := goOrigins
	if b.Cache != "" {
		env = append(env, "GOCACHE="+b.Cache)
	} else {
		names = slices.Concat(goOrigins, goOwn)
		if u, err := user.Current(); err == nil {
			env = append(env, "HOME="+u.HomeDir)
		}
	}
	if b.Cache != "" || b.Modules != "" {
		// Of what lies in a module the build cache would remember by its path alone, which other
		// functions' modules have as well, with other content if they come from elsewhere.
		env = append(env, "GODEBUG=goindex=0")
	}
	settings, err := hostSettings(ctx, b, names)
	if err != nil {
		return nil, err
	}
	if b.Modules != "" {
		settings["GOMODCACHE"] = b.Modules
	}
	maps.Copy(settings, b.Settings)
	for name, value := range settings {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env, nil
}

// hostSettings asks the go command for what it is set to.
func hostSettings(ctx context.Context, b Build, names []string) (settings map[string]string, err error) {
	cmd := exec.CommandContext(ctx, b.Tool, append([]string{"env", "-json"}, names...)...)
	cmd.Dir = b.Scratch
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &settings)
	}
	if err != nil {
		return nil, fmt.Errorf("settings of the go command: %w", err)
	}
	return settings, nil
}
