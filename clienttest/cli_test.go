package clienttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/appwrite/sdk-for-go/functions"
	"github.com/appwrite/sdk-for-go/models"

	"github.com/fnkit/fnkit/internal/require"
)

// TestCLI pushes a function with the command line tool, calls it and pulls it
// back. "push" ends with 0 whatever happens, so its words are read.
func TestCLI(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.run(0, "client", "--endpoint", c.endpoint, "--project-id", project, "--key", key)
	c.configure("")
	c.push("small")
	c.execute("small", 0)
	code := c.blob(big)
	c.configure("echo \"built with $SECRET\"")
	c.push("big")
	c.execute("big", big)
	c.pushed()
	c.list()
	c.pull(code)
	c.pushFailing()
	c.refusals()
	c.remove()
}

const (
	cliID   = "pushed"
	cliName = "Pushed by the tool"
)

// cli is the tool with a home and a project directory of its own.
type cli struct {
	t                            *testing.T
	tool, home, project, runtime string
	endpoint                     string
	fns                          *functions.Functions
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	c := &cli{t: t, tool: filepath.Join(clients(t), "node_modules", "appwrite-cli", "index.js"), home: t.TempDir(), project: t.TempDir()}
	c.endpoint = start(t, "node")
	c.fns = serverSDK(c.endpoint)
	c.runtime = runtimeOf(t, c.fns, "node")
	check(t, os.MkdirAll(c.code(), 0o700))
	src, err := fs.ReadFile(sources(t, "node"), "index.js")
	check(t, err)
	write(t, c.code(), "index.js", string(src))
	return c
}

// code is where the function's code is.
func (c *cli) code() string { return filepath.Join(c.project, "functions", "pushed") }

// run runs the tool, which must end with a code, and returns what it prints.
func (c *cli) run(code int, args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, require.Command(c.t, "node"), append([]string{c.tool}, args...)...)
	cmd.Dir, cmd.WaitDelay = c.project, time.Second
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.home, "USERPROFILE=" + c.home, "TMPDIR=" + c.home, "NO_COLOR=1"}
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		c.t.Fatalf("appwrite %s ends with %d, not %d:\n%s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

// json runs the tool and reads the object that it prints.
func (c *cli) json(to any, args ...string) {
	c.t.Helper()
	out := c.run(0, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), to); err != nil {
		c.t.Fatalf("appwrite %s: %v:\n%s", strings.Join(args, " "), err, out)
	}
}

// configure writes what the tool knows of the project.
func (c *cli) configure(commands string) {
	c.t.Helper()
	text, err := json.Marshal(map[string]any{
		"projectId": project,
		"functions": []any{map[string]any{
			"$id": cliID, "name": cliName, "runtime": c.runtime, "path": "functions/pushed", "entrypoint": "index.js", "commands": commands,
			"execute": []string{"any"}, "events": []string{}, "scopes": []string{"functions.read"}, "schedule": "", "timeout": 20,
			"enabled": true, "logging": true, "specification": "s-1vcpu-512mb", "ignore": []string{"ignored.txt"},
			"vars": []any{map[string]string{"key": "SECRET", "value": "of the tool"}},
		}},
	})
	check(c.t, err)
	write(c.t, c.project, "appwrite.json", string(text))
}

// blob adds a file that does not compress.
func (c *cli) blob(size int) []byte {
	c.t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	write(c.t, c.code(), "blob.bin", string(data))
	return data
}

// trouble is what the tool prints when something went wrong.
var trouble = regexp.MustCompile(`(?i)✗|error|fail|not found|timed out|⚠|warning`)

func (c *cli) push(version string) {
	c.t.Helper()
	write(c.t, c.code(), "version.txt", version)
	write(c.t, c.code(), "ignored.txt", "not for the server")
	out := c.run(0, "push", "function", "--function-id", cliID, "--with-variables", "--force")
	if !strings.Contains(out, "Successfully pushed 1 functions.") || !strings.Contains(out, "Deployed") || trouble.MatchString(out) {
		c.t.Fatalf("push says:\n%s", out)
	}
}

func (c *cli) execute(version string, blob int) {
	c.t.Helper()
	var x execution
	c.json(&x.Execution, "functions", "create-execution", "--function-id", cliID, "--body", "typed in", "--xpath", "/a?b=c", "--method", "PATCH", "--headers", `{"x-custom":"h"}`)
	got := x.answer(c.t)
	if got.Method != "PATCH" || got.Path != "/a" || got.Query["b"] != "c" || got.Body != "typed in" || got.Header != "h" ||
		got.Secret != "of the tool" || got.Version != version || got.Blob != blob || x.Logs != "trigger http\n" {
		c.t.Errorf("answered %+v, logs %q", got, x.Logs)
	}
	c.json(&x.Execution, "functions", "create-execution", "--function-id", cliID, "--async", "true")
	if x.Status != "waiting" {
		c.t.Errorf("accepted %+v", x.Execution)
	}
	until(c.t, "the execution", func() (*models.Execution, error) { return c.fns.GetExecution(cliID, x.Id) }, func(x *models.Execution) bool {
		return x.Status == "completed"
	})
}

// pushed looks at what two pushes have left on the server.
func (c *cli) pushed() {
	c.t.Helper()
	f, err := c.fns.Get(cliID)
	check(c.t, err)
	list, err := c.fns.ListDeployments(cliID)
	check(c.t, err)
	if list.Total != 2 || f.Name != cliName || f.Runtime != c.runtime || f.Entrypoint != "index.js" || f.Timeout != 20 || len(f.Vars) != 1 || f.Deployment != list.Deployments[1].Id {
		c.t.Errorf("pushed %+v with %+v", f, list)
	}
	d, err := c.fns.GetDeployment(cliID, f.Deployment)
	check(c.t, err)
	var of struct{ Type string }
	check(c.t, d.Decode(&of))
	if of.Type != "cli" || d.Size < big || !strings.Contains(d.BuildLogs, "built with of the tool") {
		c.t.Errorf("deployed by %q: %+v", of.Type, d)
	}
}

func (c *cli) list() {
	c.t.Helper()
	var list models.FunctionList
	for want, id := range []string{"nothing", cliID} {
		c.json(&list, "functions", "list", "--queries", `{"method":"equal","attribute":"$id","values":["`+id+`"]}`, `{"method":"limit","values":[5]}`)
		if list.Total != want {
			c.t.Errorf("listed %+v", list)
		}
	}
	var executions models.ExecutionList
	c.json(&executions, "functions", "list-executions", "--function-id", cliID, "--queries", `{"method":"equal","attribute":"requestMethod","values":["PATCH"]}`)
	if executions.Total != 2 {
		c.t.Errorf("listed %+v", executions)
	}
	var variables models.VariableList
	c.json(&variables, "functions", "list-variables", "--function-id", cliID)
	if variables.Total != 1 || variables.Variables[0].Value != "of the tool" {
		c.t.Errorf("listed %+v", variables)
	}
}

func (c *cli) pull(blob []byte) {
	c.t.Helper()
	check(c.t, os.RemoveAll(c.code()))
	out := c.run(0, "pull", "function", "--all", "--force")
	if !strings.Contains(out, "Successfully pulled 1 functions.") || trouble.MatchString(out) {
		c.t.Fatalf("pull says:\n%s", out)
	}
	version, err := os.ReadFile(filepath.Join(c.code(), "version.txt"))
	check(c.t, err)
	back, err := os.ReadFile(filepath.Join(c.code(), "blob.bin"))
	check(c.t, err)
	if string(version) != "big" || !bytes.Equal(back, blob) {
		c.t.Errorf("version %q with %d bytes came back", version, len(back))
	}
	if _, err := os.Stat(filepath.Join(c.code(), "ignored.txt")); !errors.Is(err, fs.ErrNotExist) {
		c.t.Errorf("what was ignored came back: %v", err)
	}
}

// pushFailing has the tool notice that a build failed.
func (c *cli) pushFailing() {
	c.t.Helper()
	check(c.t, os.Remove(filepath.Join(c.code(), "blob.bin")))
	c.configure("exit 3")
	out := c.run(0, "push", "function", "--function-id", cliID, "--force")
	if !strings.Contains(out, "Failed to deploy") || !strings.Contains(out, "Successfully pushed 0 of 1 functions") {
		c.t.Errorf("push says:\n%s", out)
	}
}

func (c *cli) refusals() {
	c.t.Helper()
	for message, args := range map[string][]string{
		"Function with the requested ID could not be found.": {"get", "--function-id", "nothing"},
		"Attribute not found in schema: nothing":             {"list", "--queries", `{"method":"equal","attribute":"nothing","values":[1]}`},
		"Invalid `method` param":                             {"create-execution", "--function-id", cliID, "--method", "BREW"},
	} {
		if out := c.run(1, append([]string{"functions"}, args...)...); !strings.Contains(out, message) {
			c.t.Errorf("functions %s says:\n%s", strings.Join(args, " "), out)
		}
	}
	out := c.run(1, "client", "--endpoint", strings.TrimSuffix(c.endpoint, "/v1")+"/v2")
	if !strings.Contains(out, "Invalid endpoint") {
		c.t.Errorf("client says:\n%s", out)
	}
}

func (c *cli) remove() {
	c.t.Helper()
	c.run(0, "functions", "delete", "--function-id", cliID)
	list, err := c.fns.List()
	check(c.t, err)
	if list.Total != 0 {
		c.t.Errorf("left %+v", list)
	}
}
