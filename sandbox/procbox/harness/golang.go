package harness

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// typesForGo is the module that Go functions and their harness share, and its
// version.
const typesForGo, typesForGoVersion = "github.com/open-runtimes/types-for-go/v4", "v4.0.8"

//go:embed go_main.go.txt
var goMain string

// BuildGo compiles a Go function with the harness into Dir/.fnkit/server. The
// function is the package handler of the module openruntimes/handler, at the
// root or in the entrypoint's directory; without a go.mod it gets one. The
// user's own caches and settings of the go command are used, so that a build
// downloads and compiles only what is new.
func BuildGo(ctx context.Context, b Build) (failure string, err error) {
	pkg, failure := goPackage(b)
	if failure != "" {
		return failure, nil
	}
	if err := writeGoModules(b, pkg); err != nil {
		return "", err
	}
	env, err := goEnv(b)
	if err != nil {
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

// goPackage returns the import path of the function's package.
func goPackage(b Build) (pkg, failure string) {
	entry := path.Clean(filepath.ToSlash(b.Entrypoint))
	if !filepath.IsLocal(filepath.FromSlash(entry)) || path.Ext(entry) != ".go" {
		return "", fmt.Sprintf("the entrypoint %q is not a Go file of the deployment", b.Entrypoint)
	}
	if info, err := os.Stat(filepath.Join(b.Dir, filepath.FromSlash(entry))); err != nil || info.IsDir() {
		return "", fmt.Sprintf("the entrypoint %q does not exist", b.Entrypoint)
	}
	return path.Join("openruntimes/handler", path.Dir(entry)), ""
}

// writeGoModules writes the main module, which links the function with the
// harness, and a go.mod for a function that has none.
func writeGoModules(b Build, pkg string) error {
	own := filepath.Join(b.Dir, "go.mod")
	text, err := os.ReadFile(own)
	if os.IsNotExist(err) {
		text = []byte(fmt.Sprintf("module openruntimes/handler\n\ngo 1.23.0\n\nrequire %s %s\n", typesForGo, typesForGoVersion))
		err = os.WriteFile(own, text, 0o644)
	}
	if err != nil {
		return err
	}
	mod := fmt.Sprintf("module server\n\ngo %s\n\nrequire (\n\topenruntimes/handler v0.0.0\n\t%s %s\n)\n\nreplace openruntimes/handler => %s\n",
		goVersion(text), typesForGo, typesForGoVersion, quoteModPath(b.Dir))
	if err := os.WriteFile(filepath.Join(b.Scratch, "go.mod"), []byte(mod), 0o644); err != nil {
		return err
	}
	if sum, err := os.ReadFile(filepath.Join(b.Dir, "go.sum")); err == nil {
		if err := os.WriteFile(filepath.Join(b.Scratch, "go.sum"), sum, 0o644); err != nil {
			return err
		}
	}
	main := strings.Replace(goMain, `"openruntimes/handler"`, fmt.Sprintf("%q", pkg), 1)
	return os.WriteFile(filepath.Join(b.Scratch, "main.go"), []byte(main), 0o644)
}

var goDirective = regexp.MustCompile(`(?m)^go\s+([0-9][0-9a-z.]*)`)

// goVersion is the language version a go.mod asks for, and at least the one
// the shared module needs.
func goVersion(mod []byte) string {
	least := "1.23.0"
	if m := goDirective.FindSubmatch(mod); m != nil && olderGo(least, string(m[1])) {
		return string(m[1])
	}
	return least
}

// olderGo reports whether version a is older than b, by their first two numbers.
func olderGo(a, b string) bool {
	var a1, a2, b1, b2 int
	fmt.Sscanf(a, "%d.%d", &a1, &a2)
	fmt.Sscanf(b, "%d.%d", &b1, &b2)
	return a1 < b1 || a1 == b1 && a2 < b2
}

func quoteModPath(dir string) string { return fmt.Sprintf("%q", filepath.ToSlash(dir)) }

// goEnv is what the go command gets beside the environment of builds. HOME is
// the host user's, where the command keeps its caches and settings.
func goEnv(b Build) ([]string, error) {
	u, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("home of the go command: %w", err)
	}
	return []string{"HOME=" + u.HomeDir, "CGO_ENABLED=0", "GOWORK=off", "GOTOOLCHAIN=local", "GOFLAGS=", "GOTMPDIR=" + b.Scratch}, nil
}
