package clienttest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/appwrite/sdk-for-go/appwrite"
	"github.com/appwrite/sdk-for-go/client"
	"github.com/appwrite/sdk-for-go/file"
	"github.com/appwrite/sdk-for-go/functions"
	"github.com/appwrite/sdk-for-go/id"
	"github.com/appwrite/sdk-for-go/models"
	"github.com/appwrite/sdk-for-go/query"
)

// TestGoSDK takes a function through its whole life with the SDK for Go.
func TestGoSDK(t *testing.T) {
	t.Parallel()
	for language, entrypoint := range map[string]string{"node": "index.js", "python": "main.py"} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			j := newJourney(t, language, entrypoint)
			j.create()
			variable := j.variables()
			first := j.uploadSmall()
			j.call()
			j.callFailing()
			j.callBack()
			j.background()
			j.plan()
			j.changeVariable(variable)
			second := j.uploadBig()
			j.uploadBroken()
			j.cancel()
			j.activate(first)
			j.rebuild(second)
			j.listDeployments()
			j.listExecutions()
			j.listFunctions()
			j.change()
			j.remove(variable, second)
		})
	}
}

// TestGoSDKParts uploads around the size above which the SDK sends parts.
func TestGoSDKParts(t *testing.T) {
	t.Parallel()
	j := newJourney(t, "node", "index.js")
	j.create()
	for version, size := range map[string]int{"one part": part, "a part and a byte": part + 1, "two parts": 2 * part} {
		code := packSized(t, j.language, version, size)
		j.sameAs(j.ready(j.upload(code)), code)
		if got := j.execute().answer(t); got.Version != version {
			t.Errorf("%d bytes: version %q answers, not %q", size, got.Version, version)
		}
	}
}

// journey is a function on a server of its own.
type journey struct {
	t                    *testing.T
	language, entrypoint string
	runtime, id          string
	fns                  *functions.Functions
}

func newJourney(t *testing.T, language, entrypoint string) *journey {
	t.Helper()
	j := &journey{t: t, language: language, entrypoint: entrypoint, id: id.Unique()}
	j.fns = serverSDK(start(t, language))
	j.runtime = runtimeOf(t, j.fns, language)
	return j
}

// serverSDK is the SDK as a trusted server uses it.
func serverSDK(endpoint string) *functions.Functions {
	return appwrite.NewFunctions(appwrite.NewClient(
		appwrite.WithEndpoint(endpoint), appwrite.WithProject(project), appwrite.WithKey(key), appwrite.WithTimeout(time.Minute)))
}

// runtimeOf returns the id of a language's runtime.
func runtimeOf(t *testing.T, fns *functions.Functions, language string) string {
	t.Helper()
	list, err := fns.ListRuntimes()
	check(t, err)
	for _, r := range list.Runtimes {
		if r.Key == language && r.Name != "" && r.Version != "" {
			return r.Id
		}
	}
	t.Fatalf("the server has no %s: %+v", language, list.Runtimes)
	return ""
}

// refused checks that the server refuses with a status and a message.
func (j *journey) refused(err error, status int, message string) {
	j.t.Helper()
	var e *client.AppwriteError
	if !errors.As(err, &e) {
		j.t.Fatalf("wanted an error of the SDK with %q, got %v", message, err)
	}
	if e.GetStatusCode() != status || !strings.Contains(e.GetMessage(), message) {
		j.t.Errorf("refused with %d %q, not %d %q", e.GetStatusCode(), e.GetMessage(), status, message)
	}
}

var stamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$`)

func (j *journey) create() {
	j.t.Helper()
	specs, err := j.fns.ListSpecifications()
	check(j.t, err)
	if specs.Total == 0 || specs.Total != len(specs.Specifications) {
		j.t.Errorf("specifications: %+v", specs)
	}
	options := []functions.CreateOption{
		j.fns.WithCreateExecute([]string{"any"}), j.fns.WithCreateEntrypoint(j.entrypoint), j.fns.WithCreateTimeout(20),
		j.fns.WithCreateCommands(`echo "built with $SECRET"`), j.fns.WithCreateScopes([]string{"functions.read"}),
	}
	f, err := j.fns.Create(j.id, "Journey & <more>", j.runtime, options...)
	check(j.t, err)
	if f.Id != j.id || f.Name != "Journey & <more>" || f.Runtime != j.runtime || f.Timeout != 20 || !f.Enabled || !f.Logging ||
		!slices.Equal(f.Execute, []string{"any"}) || !slices.Equal(f.Scopes, []string{"functions.read"}) || f.Deployment != "" || !stamp.MatchString(f.CreatedAt) {
		j.t.Errorf("created %+v", f)
	}
	got, err := j.fns.Get(j.id)
	check(j.t, err)
	if got.Name != f.Name || got.UpdatedAt != f.UpdatedAt {
		j.t.Errorf("got %+v, created %+v", got, f)
	}
	_, err = j.fns.Create(j.id, "Again", j.runtime)
	j.refused(err, http.StatusConflict, "already exists")
	_, err = j.fns.Create("unique()", "Bad", "node-1")
	j.refused(err, http.StatusBadRequest, "Invalid `runtime` param")
	_, err = j.fns.Get("nothing")
	j.refused(err, http.StatusNotFound, "could not be found")
	_, err = j.fns.CreateExecution(j.id)
	j.refused(err, http.StatusNotFound, "Deployment not found")
}

func (j *journey) variables() (variable string) {
	v, err := j.fns.CreateVariable(j.id, "SECRET", "first")
	check(j.t, err)
	if v.Key != "SECRET" || v.Value != "first" || v.ResourceId != j.id {
		j.t.Errorf("created %+v", v)
	}
	_, err = j.fns.CreateVariable(j.id, "SECRET", "x")
	j.refused(err, http.StatusConflict, "already exists")
	list, err := j.fns.ListVariables(j.id)
	check(j.t, err)
	if list.Total != 1 || list.Variables[0].Id != v.Id {
		j.t.Errorf("listed %+v", list)
	}
	got, err := j.fns.GetVariable(j.id, v.Id)
	check(j.t, err)
	if got.Value != "first" {
		j.t.Errorf("got %+v", got)
	}
	return v.Id
}

func (j *journey) upload(code []byte, options ...functions.CreateDeploymentOption) *models.Deployment {
	j.t.Helper()
	name := filepath.Join(j.t.TempDir(), "code.tar.gz")
	check(j.t, os.WriteFile(name, code, 0o600))
	d, err := j.fns.CreateDeployment(j.id, file.NewInputFile(name, "code.tar.gz"), true, options...)
	check(j.t, err)
	return d
}

// built waits until the build of a deployment is over.
func (j *journey) built(d *models.Deployment) *models.Deployment {
	j.t.Helper()
	return until(j.t, "the build", j.deployment(d.Id), over)
}

func (j *journey) deployment(id string) func() (*models.Deployment, error) {
	return func() (*models.Deployment, error) { return j.fns.GetDeployment(j.id, id) }
}

func over(d *models.Deployment) bool {
	return slices.Contains([]string{"ready", "failed", "canceled"}, d.Status)
}

func (j *journey) ready(d *models.Deployment) *models.Deployment {
	j.t.Helper()
	d = j.built(d)
	if d.Status != "ready" {
		j.t.Fatalf("the build ended %s: %s", d.Status, d.BuildLogs)
	}
	return d
}

// sameAs checks that a deployment holds the code that was uploaded.
func (j *journey) sameAs(d *models.Deployment, code []byte) {
	j.t.Helper()
	back, err := j.fns.GetDeploymentDownload(j.id, d.Id)
	check(j.t, err)
	if d.Size != len(code) || !bytes.Equal(*back, code) {
		j.t.Errorf("uploaded %d bytes, the deployment has %d, and %d come back", len(code), d.Size, len(*back))
	}
}

func (j *journey) uploadSmall() (deployment string) {
	code := pack(j.t, j.language, "one", 0)
	d := j.ready(j.upload(code))
	j.sameAs(d, code)
	if !strings.Contains(d.BuildLogs, "built with first") || d.BuildSize == 0 || d.Entrypoint != j.entrypoint {
		j.t.Errorf("deployed %+v", d)
	}
	f, err := j.fns.Get(j.id)
	check(j.t, err)
	if f.Deployment != d.Id || len(f.Vars) != 1 {
		j.t.Errorf("got %+v", f)
	}
	return d.Id
}

func (j *journey) uploadBig() (deployment string) {
	code := pack(j.t, j.language, "two", big)
	d := j.ready(j.upload(code))
	j.sameAs(d, code)
	if got := j.execute().answer(j.t); got.Version != "two" || got.Blob != big {
		j.t.Errorf("answered %+v", got)
	}
	return d.Id
}

func (j *journey) uploadBroken() {
	d := j.built(j.upload([]byte("no archive")))
	if d.Status != "failed" || d.BuildLogs == "" {
		j.t.Errorf("the build ended %s: %q", d.Status, d.BuildLogs)
	}
	d = j.built(j.upload(pack(j.t, j.language, "broken", 0), j.fns.WithCreateDeploymentCommands("echo so far; exit 3")))
	if d.Status != "failed" || !strings.Contains(d.BuildLogs, "so far") {
		j.t.Errorf("the build ended %s: %q", d.Status, d.BuildLogs)
	}
	if got := j.execute().answer(j.t); got.Version != "two" {
		j.t.Errorf("answered %+v", got)
	}
}

func (j *journey) cancel() {
	d := j.upload(pack(j.t, j.language, "canceled", 0), j.fns.WithCreateDeploymentCommands("echo begun; exec sleep 600"))
	until(j.t, "the start of the build", j.deployment(d.Id), func(d *models.Deployment) bool {
		return over(d) || strings.Contains(d.BuildLogs, "begun")
	})
	b, err := j.fns.UpdateDeploymentBuild(j.id, d.Id)
	check(j.t, err)
	if b.Status != "canceled" || b.DeploymentId != d.Id {
		j.t.Errorf("canceled %+v", b)
	}
	if d := j.built(d); d.Status != "canceled" {
		j.t.Errorf("the build ended %s", d.Status)
	}
}

// execution is one that was answered.
type execution struct{ *models.Execution }

// answer is what the function answers.
type answer struct {
	Method, Path, Body, Header, User, Secret, Version, Self string
	Query                                                   map[string]string
	Blob                                                    int
}

func (j *journey) execute(options ...functions.CreateExecutionOption) execution {
	j.t.Helper()
	x, err := j.fns.CreateExecution(j.id, options...)
	check(j.t, err)
	return execution{x}
}

func (x execution) answer(t *testing.T) (got answer) {
	t.Helper()
	if x.Status != "completed" || x.ResponseStatusCode != http.StatusOK {
		t.Fatalf("the call ended %s with %d: %s", x.Status, x.ResponseStatusCode, x.Errors)
	}
	check(t, json.Unmarshal([]byte(x.ResponseBody), &got))
	return got
}

func (x execution) header(name string) string {
	for _, h := range x.ResponseHeaders {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func (j *journey) call() {
	x := j.execute(j.fns.WithCreateExecutionBody("päylöad <&> 🙂"), j.fns.WithCreateExecutionPath("/a/b?c=d"), j.fns.WithCreateExecutionMethod("PUT"),
		j.fns.WithCreateExecutionHeaders(map[string]string{"X-Custom": "yes"}))
	got := x.answer(j.t)
	if got.Method != "PUT" || got.Path != "/a/b" || got.Query["c"] != "d" || got.Body != "päylöad <&> 🙂" || got.Header != "yes" ||
		got.User != "" || got.Secret != "first" || got.Version != "one" || got.Blob != 0 {
		j.t.Errorf("answered %+v", got)
	}
	if x.header("x-answer") != "forty-two" || !strings.HasPrefix(x.header("content-type"), "application/json") {
		j.t.Errorf("answered with %v", x.ResponseHeaders)
	}
	if x.Logs != "trigger http\n" || x.Errors != "" || x.Trigger != "http" || x.RequestPath != "/a/b?c=d" || x.RequestMethod != "PUT" || x.Duration <= 0 || x.FunctionId != j.id {
		j.t.Errorf("recorded %+v", x.Execution)
	}
	if again, err := j.fns.GetExecution(j.id, x.Id); err != nil || again.Logs != x.Logs || again.ResponseBody != "" || again.ResponseStatusCode != http.StatusOK {
		j.t.Errorf("got %+v, %v", again, err)
	}
	large := strings.Repeat("0123456789", 200_000)
	if got := j.execute(j.fns.WithCreateExecutionBody(large)).answer(j.t); got.Body != large || got.Method != "POST" {
		j.t.Errorf("of a body of %d bytes %d came back, to %s", len(large), len(got.Body), got.Method)
	}
}

func (j *journey) callFailing() {
	x := j.execute(j.fns.WithCreateExecutionPath("/?fail=1"))
	if x.Status != "failed" || x.ResponseStatusCode != http.StatusInternalServerError || !strings.Contains(x.Errors, "asked to fail") {
		j.t.Errorf("recorded %+v", x.Execution)
	}
	x = j.execute(j.fns.WithCreateExecutionPath("/?complain=1&status=418"))
	if x.Status != "completed" || x.ResponseStatusCode != http.StatusTeapot || x.Errors != "a complaint\n" {
		j.t.Errorf("recorded %+v", x.Execution)
	}
	_, err := j.fns.CreateExecution(j.id, j.fns.WithCreateExecutionMethod("BREW"))
	j.refused(err, http.StatusBadRequest, "Invalid `method` param")
	_, err = j.fns.CreateExecution(j.id, j.fns.WithCreateExecutionHeaders(map[string]string{"x-appwrite-trigger": "forged"}))
	j.refused(err, http.StatusBadRequest, "header")
}

// callBack has the function use the key that it gets with the call.
func (j *journey) callBack() {
	if got := j.execute(j.fns.WithCreateExecutionPath("/?self=1")).answer(j.t); got.Self != "Journey & <more>" {
		j.t.Errorf("the function got %q for its name", got.Self)
	}
}

func (j *journey) background() {
	x := j.execute(j.fns.WithCreateExecutionBody("later"), j.fns.WithCreateExecutionAsync(true))
	if x.Status != "waiting" || x.ResponseBody != "" {
		j.t.Errorf("accepted %+v", x.Execution)
	}
	done := until(j.t, "the execution", func() (*models.Execution, error) { return j.fns.GetExecution(j.id, x.Id) }, func(x *models.Execution) bool {
		return x.Status == "completed" || x.Status == "failed"
	})
	if done.Status != "completed" || done.ResponseStatusCode != http.StatusOK || done.Logs != "trigger http\n" {
		j.t.Errorf("recorded %+v", done)
	}
}

func (j *journey) plan() {
	at := time.Now().Add(3 * time.Minute).UTC().Truncate(time.Minute)
	when := j.fns.WithCreateExecutionScheduledAt(at.Format(time.RFC3339))
	x := j.execute(j.fns.WithCreateExecutionAsync(true), when)
	if got, err := time.Parse(time.RFC3339, x.ScheduledAt); err != nil || !got.Equal(at) || x.Status != "scheduled" {
		j.t.Errorf("planned %+v", x.Execution)
	}
	_, err := j.fns.DeleteExecution(j.id, x.Id)
	check(j.t, err)
	_, err = j.fns.GetExecution(j.id, x.Id)
	j.refused(err, http.StatusNotFound, "could not be found")
	_, err = j.fns.CreateExecution(j.id, when)
	j.refused(err, http.StatusBadRequest, "Scheduled executions must run asynchronously")
}

func (j *journey) changeVariable(variable string) {
	v, err := j.fns.UpdateVariable(j.id, variable, "SECRET", j.fns.WithUpdateVariableValue("second & last"))
	check(j.t, err)
	if v.Value != "second & last" {
		j.t.Errorf("updated %+v", v)
	}
	if got := j.execute().answer(j.t); got.Secret != "second & last" {
		j.t.Errorf("the call sees %q", got.Secret)
	}
}

func (j *journey) activate(deployment string) {
	f, err := j.fns.UpdateDeployment(j.id, deployment)
	check(j.t, err)
	if f.Deployment != deployment {
		j.t.Errorf("activated %+v", f)
	}
	if got := j.execute().answer(j.t); got.Version != "one" {
		j.t.Errorf("answered %+v", got)
	}
	_, err = j.fns.UpdateDeploymentBuild(j.id, deployment)
	j.refused(err, http.StatusBadRequest, "already completed")
	_, err = j.fns.UpdateDeployment(j.id, "nothing")
	j.refused(err, http.StatusNotFound, "could not be found")
}

func (j *journey) rebuild(deployment string) {
	_, err := j.fns.CreateBuild(j.id, deployment)
	check(j.t, err)
	list, err := j.fns.ListDeployments(j.id, j.fns.WithListDeploymentsQueries([]string{query.OrderDesc("$createdAt"), query.Limit(1)}))
	check(j.t, err)
	if list.Total != 6 || len(list.Deployments) != 1 {
		j.t.Fatalf("listed %+v", list)
	}
	if d := j.ready(&list.Deployments[0]); d.Id == deployment || d.Size < big {
		j.t.Errorf("rebuilt %s as %+v", deployment, d)
	}
}
