package clienttest_test

import (
	"context"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
)

// work is where the run keeps the server's program and the installed clients.
var work string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if work, err = os.MkdirTemp("", "fnkit-clienttest-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(work)
	defer forget()
	return m.Run()
}

// forget keeps the go command from caching the result: what it depends on, the
// server's sources, are in another module, where their changes go unnoticed. A
// result without its log of used files is not kept.
func forget() {
	if log := flag.Lookup("test.testlogfile"); log != nil && log.Value.String() != "" {
		os.Remove(log.Value.String())
	}
}

// fnkit builds the server once and returns its file.
func fnkit(t *testing.T) string {
	t.Helper()
	require.Command(t, "go")
	file, err := buildFnkit()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

var buildFnkit = sync.OnceValues(func() (string, error) {
	file := filepath.Join(work, "fnkit")
	cmd := exec.Command("go", "build", "-o", file, "./cmd/fnkit")
	cmd.Dir = ".." // the module of the server, not of the clients
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fnkit: %w\n%s", err, out)
	}
	return file, nil
})

//go:embed functions/node/index.js functions/python/main.py js/*.mjs js/package.json js/package-lock.json js/.npmrc
var files embed.FS

// clients installs the JavaScript clients once and returns their directory. The
// checkout is left alone.
func clients(t *testing.T) string {
	t.Helper()
	require.Command(t, "npm")
	needNode(t, 20)
	dir, err := installClients()
	if err != nil {
		require.Missing(t, "npm", err.Error())
	}
	return dir
}

var installClients = sync.OnceValues(func() (string, error) {
	if err := os.CopyFS(work, files); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	dir := filepath.Join(work, "js")
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir, cmd.WaitDelay = dir, time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return dir, nil
})

// needNode skips the test if node is older than the clients want.
func needNode(t *testing.T, major int) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), require.Command(t, "node"), "-p", "parseInt(process.versions.node)").Output()
	if err != nil {
		t.Fatalf("ask node for its version: %v", err)
	}
	if got, _ := strconv.Atoi(strings.TrimSpace(string(out))); got < major {
		require.Missing(t, "node", fmt.Sprintf("it is version %d, the clients want %d", got, major))
	}
}

// sources returns the files of the function in a language.
func sources(t *testing.T, language string) fs.FS {
	t.Helper()
	dir, err := fs.Sub(files, "functions/"+language)
	check(t, err)
	return dir
}

// check ends the test on an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until asks again and again until the answer is right, in bounded time.
func until[T any](t *testing.T, what string, ask func() (T, error), right func(T) bool) T {
	t.Helper()
	late := time.After(time.Minute)
	for {
		got, err := ask()
		check(t, err)
		if right(got) {
			return got
		}
		select {
		case <-late:
			last, _ := json.Marshal(got)
			t.Fatalf("%s took over a minute; the last answer was %s", what, last)
		case <-t.Context().Done():
			t.Fatal(context.Cause(t.Context()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
