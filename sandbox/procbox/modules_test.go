//go:build unix

package procbox_test

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// goBuild builds a Go function that answers dep.Value of a module that its own folder
// serves, unless that is nil, and returns its folder.
func goBuild(t *testing.T, box *procbox.Box, tier string, module source, spec sandbox.BuildSpec) (dir, failure, logs string) {
	t.Helper()
	dir = t.TempDir()
	proxy := "off"
	if module != nil {
		writeModule(t, filepath.Join(dir, "proxy"), "example.com/dep", "v1.0.0", module)
		proxy = "file:///fn/code/proxy"
		if tier != "full" {
			proxy = "file://" + dir + "/proxy"
		}
	}
	files := source{
		"main.go": "package handler\n\nimport (\n\t\"example.com/dep\"\n\t\"github.com/open-runtimes/types-for-go/v4/openruntimes\"\n)\n\n" +
			"func Main(c openruntimes.Context) openruntimes.Response { return c.Res.Text(dep.Value) }\n",
		"go.mod": "module openruntimes/handler\n\ngo 1.23.0\n\nrequire (\n\texample.com/dep v1.0.0\n\tgithub.com/open-runtimes/types-for-go/v4 v4.0.8\n)\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec.Runtime, spec.Dir, spec.Entrypoint = runtimeOf(t, box, "go"), dir, "main.go"
	spec.Env = map[string]string{"GOPROXY": proxy, "GONOSUMDB": "*", "GODEBUG": "goindex=1"}
	var out bytes.Buffer
	r, err := box.Build(t.Context(), spec, &out)
	if err != nil {
		t.Fatal(err)
	}
	return dir, r.Failure, out.String()
}

const depValue = "package dep\n\nvar Value = \"unchecked\"\n"

// TestGoModulesOfOthers has two functions bring a module of the same name and version,
// which lies at the same path in each build: what the compiler remembers of one of
// them must not tell in the other, though the one comes first and says of its own
// module what it likes.
func TestGoModulesOfOthers(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"full", "restricted", "none"} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			box := openTier(t, t.TempDir(), tier, "go")
			check := "package dep\n\nfunc init() { Value = \"checked\" }\n"
			modules := map[string]source{"unchecked": {"value.go": depValue}, "checked": {"value.go": depValue, "check.go": check}}
			for _, want := range []string{"unchecked", "checked"} {
				dir, failure, logs := goBuild(t, box, tier, modules[want], sandbox.BuildSpec{ID: want})
				if failure != "" {
					t.Fatalf("%s: %s\n%s", want, failure, logs)
				}
				start(t, box, sandbox.Spec{ID: want, Runtime: runtimeOf(t, box, "go"), Dir: dir, Entrypoint: "main.go"})
				if got := call(t, box, want, "/"); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			}
		})
	}
}

// TestGoModulesAreKept has builds find the modules of earlier ones with the same cache,
// which the function's commands cannot change, and no others.
func TestGoModulesAreKept(t *testing.T) {
	t.Parallel()
	for _, tier := range []string{"full", "restricted"} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			box := openTier(t, t.TempDir(), tier, "go")
			cache := t.TempDir()
			const change = `d="$(dirname "$XDG_CACHE_HOME")/modules"; ls "$d" || echo hidden; echo x > "$d/x" || echo refused`
			for i, c := range []struct {
				module          source
				cache, commands string
				fails           bool
			}{
				{source{"value.go": depValue}, cache, "", false}, {nil, cache, change, false}, {nil, t.TempDir(), "", true}, {nil, "", "", true}, {nil, cache, "", false},
			} {
				_, failure, logs := goBuild(t, box, tier, c.module, sandbox.BuildSpec{ID: "b", Cache: c.cache, Commands: c.commands})
				if (failure != "") != c.fails || c.commands != "" && (!strings.Contains(logs, "hidden\n") || !strings.Contains(logs, "refused\n")) {
					t.Errorf("build %d: %q\n%s", i+1, failure, logs)
				}
			}
		})
	}
}

// writeModule writes a module as a proxy in the file system serves it.
func writeModule(t *testing.T, proxy, module, version string, files source) {
	t.Helper()
	mod := "module " + module + "\n\ngo 1.23.0\n"
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	for name, text := range files {
		f, err := w.Create(module + "@" + version + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(proxy, module, "@v")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"list": version + "\n", version + ".info": `{"Version":"` + version + `"}`, version + ".mod": mod, version + ".zip": packed.String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
