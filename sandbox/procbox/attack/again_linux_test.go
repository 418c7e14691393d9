//go:build amd64 || arm64

package attack_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// runAs says, in a process that these tests have started to run again, as whom.
const runAs = "FNKIT_TEST_RUN_AS"

// where says as whom the tests run.
func where() string {
	if os.Geteuid() == 0 {
		return cmp.Or(os.Getenv(runAs), "root")
	}
	return cmp.Or(os.Getenv(runAs), "user")
}

// nobody is a user without privileges.
const nobody = 65534

// runAgain are the tests that run again elsewhere. A tier is to be appended.
const runAgain = "-test.run=^(TestAttacks|TestSeenProcesses|TestHostNetwork|TestBombs|TestStopIsQuick|TestLinksInTheCode|TestHostileBuilds|TestProtocol)$/^"

// What pack compiles: nobody waits for a compiler whose cache is empty.
const (
	packedServer  = ".fnkit/server"
	packedHarness = "testdata/harness/harness"
)

// pack puts into dir what the tests need to run elsewhere, themselves as a static
// program, and lets all read it.
func pack(t *testing.T, dir string) {
	t.Helper()
	data := filepath.Join(dir, "testdata")
	if err := os.CopyFS(data, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	box, err := procbox.New(procbox.Config{Dir: t.TempDir(), Isolation: "none", Path: os.Getenv("PATH"), GoCache: goCache(), Languages: []string{"go"}})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	s := &scene{t: t, box: box}
	var logs bytes.Buffer
	spec := sandbox.BuildSpec{ID: "go", Runtime: s.runtime("go"), Dir: filepath.Join(data, "go"), Entrypoint: entrypoints["go"]}
	if r, err := box.Build(t.Context(), spec, &logs); err != nil || r.Failure != "" {
		t.Fatalf("%+v, %v\n%s", r, err, &logs)
	}
	harness, err := hostileHarness()
	if err != nil {
		t.Fatal(err)
	}
	command(t, "cp", harness, filepath.Join(dir, packedHarness))
	command(t, "go", "test", "-c", "-o", filepath.Join(dir, "attack"), ".")
	command(t, "chmod", "-R", "a+rX", dir)
}

// command runs a command that must succeed, without cgo.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return strings.TrimSpace(string(out))
}

// required are those of the parts that this process must have.
func required(parts ...string) string {
	all := strings.Split(os.Getenv(require.Env), ",")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return !slices.Contains(all, p) }), ",")
}

// TestUnprivileged runs these tests again as a user without privileges.
func TestUnprivileged(t *testing.T) {
	if os.Getenv(runAs) != "" {
		t.Skip("these run again")
	}
	if os.Geteuid() != 0 {
		t.Skip("the tests run as a user already")
	}
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "fnkit-unprivileged-") // others may not look into where tests have their files
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	pack(t, dir)
	command(t, "mkdir", filepath.Join(dir, "tmp"))
	command(t, "chown", "-R", fmt.Sprint(nobody), dir)
	command(t, "chmod", "755", dir)
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "attack"), runAgain+"(userns|restricted)", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{
		runAs + "=user", require.Env + "=" + required("isolation", "python", "node", "bun", "deno", "go"), // a user has no resource groups
		"PATH=" + os.Getenv("PATH") + ":" + procbox.DefaultPath, "HOME=" + dir, "TMPDIR=" + filepath.Join(dir, "tmp"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
		return
	}
	t.Logf("%s", out)
}
