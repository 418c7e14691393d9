//go:build amd64 || arm64

package attack_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"

	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// TestContainer runs these tests again inside of a container that has all of Docker's
// defaults and no network, and there also the tests of confine, doctor and the
// quickstart: as root, and as a user without privileges.
func TestContainer(t *testing.T) {
	if os.Getenv(runAs) != "" {
		t.Skip("these run again")
	}
	t.Parallel()
	i := newImage(t)
	for user, uid := range map[string]int{"container root": 0, "container user": nobody} {
		c := container{i, t, uid, user}
		out := c.run("./fnkit", "doctor")
		t.Logf("as %s:\n%s", user, out)
		if !strings.Contains(out, "Isolation  restricted") {
			require.Missing(t, "isolation", "in a container it is less than restricted")
		}
		pids := "pids: limited for all processes of the user together"
		if uid == 0 {
			pids = "pids: not limited"
		}
		for _, missing := range []string{"isolation: full is not reached", "isolation: userns is not reached", "memory: limited for each process", "cpu: not limited", pids} {
			if !strings.Contains(out, missing) {
				t.Errorf("doctor does not say %q", missing)
			}
		}
		t.Logf("as %s:\n%s", user, c.run("./quickstart", "-once"))
		t.Logf("as %s:\n%s", user, c.run("env", "PATH=/tests/python", "./quickstart", "-once"))
		// Most of these need more than this tier, and two the source.
		t.Logf("as %s:\n%s", user, c.run("env", require.Env+"=", "./confine", "-test.v", "-test.timeout=10m", "-test.skip=^TestInitIs"))
		t.Logf("as %s:\n%s", user, c.run("./attack", runAgain+"restricted", "-test.v", "-test.timeout=10m"))
	}
}

// image is one with almost nothing in it. The system's programs are shown to it as
// they are, read-only.
type image struct {
	client *docker.Client
	name   string
	binds  []string
	path   []string // of commands
}

func newImage(t *testing.T) *image {
	t.Helper()
	pool, err := dockertest.NewPool("")
	if err == nil {
		err = pool.Client.Ping()
	}
	if err != nil {
		require.Missing(t, "docker", err.Error())
	}
	i := &image{client: pool.Client, name: "fnkit-attack-" + strings.ToLower(rand.Text())}
	t.Cleanup(i.client.HTTPClient.CloseIdleConnections)
	content := i.content(t)
	i.showRuntimes(t)
	i.showTests(t)
	err = i.client.ImportImage(docker.ImportImageOptions{Repository: i.name, Source: "-", InputStream: content, OutputStream: t.Output(), Context: t.Context()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.client.RemoveImage(i.name); err != nil {
			t.Error(err)
		}
	})
	return i
}

// content is what an image has that can be attacked, and where the rest is shown.
func (i *image) content(t *testing.T) *bytes.Buffer {
	t.Helper()
	var all bytes.Buffer
	w := tar.NewWriter(&all)
	add := func(h tar.Header, text string) {
		h.Size = int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, "")
	add(tar.Header{Typeflag: tar.TypeDir, Name: "root/", Mode: 0o755}, "")
	for _, file := range []string{"root/.bashrc", "etc/shadow"} {
		add(tar.Header{Name: file, Mode: 0o600}, hostSecret)
	}
	add(tar.Header{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0::/root:/bin/sh\n")
	add(tar.Header{Name: "etc/group", Mode: 0o644}, "root:x:0:\n")
	for _, path := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache"} {
		if to, err := os.Readlink(path); err == nil {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: path[1:], Linkname: to}, "")
		} else if _, err := os.Stat(path); err == nil {
			i.show(path, path)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &all
}

func (i *image) show(source, target string) { i.binds = append(i.binds, source+":"+target+":ro") }

// showRuntimes shows those that do not lie where the system's programs do.
func (i *image) showRuntimes(t *testing.T) {
	t.Helper()
	for name, args := range map[string][]string{
		"node":    {"-p", "path.dirname(process.execPath)"},
		"python3": {"-c", "import sys; print(sys.base_prefix + '/bin')"},
		"go":      {"env", "GOROOT"},
	} {
		require.Command(t, name)
		dir := command(t, name, args...)
		if name == "go" {
			i.path = append(i.path, filepath.Join(dir, "bin"))
		} else {
			i.path = append(i.path, dir)
		}
		if name == "python3" {
			dir = filepath.Dir(dir)
		}
		if !strings.HasPrefix(dir+"/", "/usr/") {
			i.show(dir, dir)
		}
	}
}

// showTests shows the programs that are run, all of them static.
func (i *image) showTests(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	pack(t, dir)
	const module = "github.com/fnkit/fnkit/"
	command(t, "go", "build", "-o", dir, module+"cmd/fnkit", module+"examples/quickstart")
	command(t, "go", "test", "-c", "-o", filepath.Join(dir, "confine"), module+"sandbox/procbox/confine")
	python := filepath.Join(dir, "python") // and no other language
	command(t, "mkdir", python)
	command(t, "ln", "-s", command(t, "python3", "-c", "import sys; print(sys.executable)"), python)
	command(t, "chmod", "-R", "a+rX", dir)
	i.show(dir, "/tests")
}

// container runs programs as one user, each in a container of its own.
type container struct {
	*image
	t    *testing.T
	uid  int
	user string
}

// run returns what a program printed that must succeed.
func (c container) run(args ...string) string {
	c.t.Helper()
	made, err := c.client.CreateContainer(docker.CreateContainerOptions{
		Config: &docker.Config{
			Image: c.name, Cmd: args, User: fmt.Sprint(c.uid, ":", c.uid), WorkingDir: "/tests", Env: []string{
				runAs + "=" + c.user, require.Env + "=" + required("isolation", "python", "node", "go"),
				"PATH=" + strings.Join(append(slices.Clone(c.path), procbox.DefaultPath), ":"), "HOME=/tmp",
			},
		},
		HostConfig: &docker.HostConfig{NetworkMode: "none", Binds: c.binds}, Context: c.t.Context(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		remove := docker.RemoveContainerOptions{ID: made.ID, Force: true, RemoveVolumes: true, Context: context.WithoutCancel(c.t.Context())}
		if err := c.client.RemoveContainer(remove); err != nil {
			c.t.Error(err)
		}
	}()
	if err := c.client.StartContainerWithContext(made.ID, nil, c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	status, err := c.client.WaitContainerWithContext(made.ID, c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.client.Logs(docker.LogsOptions{Container: made.ID, OutputStream: &out, ErrorStream: &out, Stdout: true, Stderr: true, Context: c.t.Context()}); err != nil {
		c.t.Fatal(err)
	}
	if status != 0 {
		c.t.Errorf("as %s: %v: status %d\n%s", c.user, args, status, &out)
	}
	return out.String()
}
