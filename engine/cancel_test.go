//go:build unix

package engine_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// A running execution is ended with its process; those beside it in the
// process run again, without an attempt that counts.
func TestCancelRunning(t *testing.T) {
	t.Parallel()
	h := start(t, node(t), func(c *engine.Config) { c.Instances.PerDeployment = 1 })
	h.function(t, "f", h.runtime(t, "node"), "i.js")
	h.deploy(t, "f", map[string]string{"i.js": `
		let calls = 0;
		module.exports = async ({req, res, log}) => {
			if (req.path === "/calls") return res.text(String(calls));
			calls++;
			log("pid", process.pid);
			if (req.path === "/beside") { const until = Date.now() + 2000; while (calls < 2 && Date.now() < until) await new Promise(r => setTimeout(r, 5)); await new Promise(r => setTimeout(r, calls > 1 ? 1e6 : 0)); }
			if (req.path === "/wait") await new Promise(() => setTimeout(() => {}, 1e6));
			return res.text("done");
		}`})
	beside := h.execute(t, "f", engine.ExecuteParams{Path: "/beside", Async: true})
	running := h.execute(t, "f", engine.ExecuteParams{Path: "/wait", Async: true})
	eventually(t, func() (string, bool) {
		x := h.execute(t, "f", engine.ExecuteParams{Path: "/calls"})
		return string(x.ResponseBody), string(x.ResponseBody) == "2"
	})
	x, err := h.p.CancelExecution(t.Context(), engine.System, "f", running.ID)
	if err != nil || x.Status != "canceled" || !strings.Contains(x.Errors, "The execution was canceled.") {
		t.Fatalf("%+v, %v", x, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(x.Logs, "pid ")))
	if err != nil {
		t.Fatalf("logs %q", x.Logs)
	}
	eventually(t, func() (int, bool) { return pid, syscall.Kill(pid, 0) != nil }) // it is killed, and reaped soon
	if x := h.ended(t, beside.Execution); x.Status != "completed" || string(x.Logs) == "" {
		t.Errorf("the one beside: %+v", x)
	}
	_, err = h.p.CancelExecution(t.Context(), engine.System, "f", running.ID)
	fails(t, err, engine.TypeExecutionEnded)
}

func TestCancelWaiting(t *testing.T) {
	t.Parallel()
	k := enginetest.New(t, fnbox.Funcs{"f": quiet})
	k.Deploy("shop", engine.FunctionParams{ID: "f"})
	shop, ann, bob := k.Project("shop"), engine.Actor{Kind: engine.ActorUser, UserID: "ann"}, engine.Actor{Kind: engine.ActorUser, UserID: "bob"}
	queue := func(at time.Time) engine.Execution {
		t.Helper()
		x, err := shop.Execute(t.Context(), ann, "f", engine.ExecuteParams{Async: true, ScheduledAt: at})
		if err != nil {
			t.Fatal(err)
		}
		return x.Execution
	}
	for _, x := range []engine.Execution{queue(time.Time{}), queue(enginetest.Epoch.Add(time.Hour))} {
		_, err := shop.CancelExecution(t.Context(), bob, "f", x.ID)
		fails(t, err, engine.TypeExecution)
		_, err = shop.CancelExecution(t.Context(), engine.Actor{}, "f", x.ID)
		fails(t, err, engine.TypeExecution)
		_, err = k.Project("elsewhere").CancelExecution(t.Context(), engine.System, "f", x.ID)
		fails(t, err, engine.TypeFunction)
		got, err := shop.CancelExecution(t.Context(), ann, "f", x.ID)
		if err != nil || got.Status != "canceled" || got.Errors != "" {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	k.Advance(2 * time.Hour)
	for _, x := range k.Executions("shop", "f") {
		if x.Status != "canceled" || x.Attempt != 0 {
			t.Errorf("it ran: %+v", x)
		}
	}
}
