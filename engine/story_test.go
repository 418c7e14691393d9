package engine_test

import (
	"strings"
	"testing"

	"github.com/fnkit/fnkit/engine"
)

func TestNodeFunctionFromSourceToAnswer(t *testing.T) {
	t.Parallel()
	h := start(t, node(t))
	h.function(t, "hello", h.runtime(t, "node"), "index.js")
	d := h.deploy(t, "hello", map[string]string{"index.js": `module.exports = async ({req, res, log, error}) => {
		log("called", req.path); error("oops"); console.log("native");
		return res.json({hello: req.bodyText, trigger: req.headers["x-appwrite-trigger"], secret: process.env.SECRET ?? null});
	}`})
	if d.Status != "ready" {
		t.Fatalf("build %s:\n%s", d.Status, d.BuildLogs)
	}
	x := h.execute(t, "hello", engine.ExecuteParams{Body: []byte("world"), Path: "/a?b=c"})
	if x.ResponseStatusCode != 200 || string(x.ResponseBody) != `{"hello":"world","trigger":"http","secret":null}` || x.Status != "completed" {
		t.Fatalf("%+v %s", x.Execution, x.ResponseBody)
	}
	if !strings.HasPrefix(x.Logs, "called /a\n") || !strings.Contains(x.Logs, "native\n") || x.Errors != "oops\n" {
		t.Fatalf("logs %q, errors %q", x.Logs, x.Errors)
	}
	stored, err := h.p.GetExecution(t.Context(), engine.System, "hello", x.ID)
	if err != nil || stored.Logs != x.Logs || stored.Duration <= 0 || stored.ResponseStatusCode != 200 {
		t.Fatalf("%+v, %v", stored, err)
	}

	// A variable reaches the very next call, without a build.
	if _, err := h.p.CreateVariable(t.Context(), engine.System, "hello", "SECRET", "s3cret"); err != nil {
		t.Fatal(err)
	}
	if x := h.execute(t, "hello", engine.ExecuteParams{}); !strings.Contains(string(x.ResponseBody), `"secret":"s3cret"`) {
		t.Fatalf("after the change: %s", x.ResponseBody)
	}

	queued := h.execute(t, "hello", engine.ExecuteParams{Async: true, Body: []byte("later")})
	if queued.Status != "waiting" {
		t.Fatalf("%+v", queued.Execution)
	}
	if done := h.ended(t, queued.Execution); done.Status != "completed" || !strings.HasPrefix(done.Logs, "called /") || done.ResponseStatusCode != 200 {
		t.Fatalf("%+v", done)
	}
}
