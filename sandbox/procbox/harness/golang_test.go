package harness_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox/procbox/harness"
)

const goFunction = `package handler

import "github.com/open-runtimes/types-for-go/v4/openruntimes"

func Main(c openruntimes.Context) openruntimes.Response { return c.Res.Text("hello") }
`

// buildGo builds a Go function without network and without any module that
// was downloaded before.
func buildGo(t *testing.T, entrypoint string, files map[string]string) (dir, failure, logs string) {
	t.Helper()
	tool := require.Command(t, "go")
	dir = t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	modules, scratch := t.TempDir(), t.TempDir()
	failure, err := harness.BuildGo(t.Context(), harness.Build{
		Dir: dir, Root: dir, Entrypoint: entrypoint, Scratch: scratch, Work: scratch, Tool: tool,
		Run: func(ctx context.Context, c harness.Command) (string, error) {
			cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
			cmd.Dir, cmd.Stdout, cmd.Stderr = c.Dir, &out, &out
			cmd.Env = append(cmd.Environ(), append(c.Env, "GOPROXY=off", "GOMODCACHE="+modules)...)
			if err := cmd.Run(); err != nil {
				return err.Error(), nil
			}
			return "", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir, failure, out.String()
}

func TestBuildGoWithoutNetwork(t *testing.T) {
	t.Parallel()
	const required = "\n\nrequire github.com/open-runtimes/types-for-go/v4 "
	for name, tc := range map[string]struct {
		entrypoint string
		files      map[string]string
	}{
		"no go.mod":      {"main.go", map[string]string{"main.go": goFunction}},
		"requires types": {"main.go", map[string]string{"main.go": goFunction, "go.mod": "module openruntimes/handler\n\ngo 1.23" + required + "v4.0.7\n"}},
		"newer types":    {"main.go", map[string]string{"main.go": goFunction, "go.mod": "module openruntimes/handler\n\ngo 1.23" + required + "v4.0.99\n"}},
		"requires none":  {"main.go", map[string]string{"main.go": goFunction, "go.mod": "module openruntimes/handler\n\ngo 1.23\n"}},
		"subdirectory":   {"src/main.go", map[string]string{"src/main.go": goFunction, "go.mod": "module openruntimes/handler\n"}},
		"packages": {"main.go", map[string]string{
			"go.mod":   "module example.org/shop // mine\n\ngo 1.22\n",
			"main.go":  strings.Replace(goFunction, "package handler\n", "package handler\n\nimport _ \"example.org/shop/sub\"\n", 1),
			"sub/a.go": "package sub\n",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, failure, logs := buildGo(t, tc.entrypoint, tc.files)
			if failure != "" {
				t.Fatalf("%s\n%s", failure, logs)
			}
			if st, err := os.Stat(filepath.Join(dir, ".fnkit", "server")); err != nil || st.Mode()&0o111 == 0 {
				t.Errorf("%v, %v", st, err)
			}
		})
	}
}

func TestBuildGoFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ entrypoint, code, failure, logs string }{
		"syntax":       {"main.go", "package handler\n\nfunc {", "exit status 1", "main.go:3:6: syntax error"},
		"no main":      {"main.go", "package handler\n", "exit status 1", "undefined: handler.Main"},
		"dependency":   {"main.go", "package handler\n\nimport _ \"example.org/none\"\n", "exit status 1", "example.org/none"},
		"missing":      {"other.go", goFunction, `the entrypoint "other.go" does not exist`, ""},
		"outside":      {"../main.go", goFunction, `the entrypoint "../main.go" is not a Go file of the deployment`, ""},
		"not go":       {"main.txt", goFunction, `the entrypoint "main.txt" is not a Go file of the deployment`, ""},
		"a directory":  {"sub.go", goFunction, `the entrypoint "sub.go" does not exist`, ""},
		"main package": {"main.go", "package main\n\nfunc main() {}\n", "exit status 1", "is a program, not an importable package"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, failure, logs := buildGo(t, tc.entrypoint, map[string]string{"main.go": tc.code, "sub.go/a.go": "package sub\n"})
			if failure != tc.failure || !strings.Contains(logs, tc.logs) {
				t.Errorf("failure %q, logs %q", failure, logs)
			}
		})
	}
}

// TestGoFetchesApart: what downloads has no cache that builds share, and what has that
// downloads nothing.
func TestGoFetchesApart(t *testing.T) {
	t.Parallel()
	dir, work := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(goFunction), 0o600); err != nil {
		t.Fatal(err)
	}
	var ran []string
	note := func(name string) func(context.Context, harness.Command) (string, error) {
		return func(_ context.Context, c harness.Command) (string, error) {
			env := map[string]string{}
			for _, kv := range c.Env {
				k, v, _ := strings.Cut(kv, "=")
				env[k] = v
			}
			ran = append(ran, fmt.Sprintf("%s %s, cache %t, proxy %s", name, c.Args[1], env["GOCACHE"] == "/shared", env["GOPROXY"]))
			return "", nil
		}
	}
	failure, err := harness.BuildGo(t.Context(), harness.Build{
		Dir: dir, Root: dir, Entrypoint: "main.go", Scratch: work, Work: work, Tool: require.Command(t, "go"), Cache: "/shared",
		Settings: map[string]string{"GOPROXY": "https://proxy.example"}, Fetch: note("fetch"), Run: note("run"),
	})
	want := []string{"fetch list, cache false, proxy https://proxy.example", "run build, cache true, proxy off"}
	if err != nil || failure != "" || !slices.Equal(ran, want) {
		t.Errorf("%v, %q, %q, want %q", err, failure, ran, want)
	}
}
