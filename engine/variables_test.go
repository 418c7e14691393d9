package engine_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// TestVariablesFitAnInstance: as many as may be set can be handed over.
func TestVariablesFitAnInstance(t *testing.T) {
	t.Parallel()
	h := start(t, node(t))
	h.function(t, "f", h.runtime(t, "node"), "i.js")
	commands := "test ${#V0} -gt 0"
	value := strings.Repeat("<", 8192) // six bytes each in JSON
	var last engine.Variable
	for n := 0; ; n++ {
		v, err := h.p.CreateVariable(t.Context(), engine.System, "f", fmt.Sprint("V", n), value)
		if err != nil {
			fails(t, err, engine.TypeArgument)
			break
		}
		if last = v; n > 16 {
			t.Fatal("more than 768 KiB were taken")
		}
	}
	small, err := h.p.CreateVariable(t.Context(), engine.System, "f", "SMALL", "x")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.p.UpdateVariable(t.Context(), engine.System, "f", small.ID, "SMALL", &value)
	fails(t, err, engine.TypeArgument)
	if _, err := h.p.UpdateVariable(t.Context(), engine.System, "f", last.ID, "RENAMED", nil); err != nil {
		t.Errorf("one that stays as large: %v", err)
	}
	d := h.upload(t, "f", commands, true)
	if d = h.built(t, d); d.Status != "ready" {
		t.Errorf("%s: %s", d.Status, d.BuildLogs)
	}
	h.deploy(t, "f", map[string]string{"i.js": "module.exports = async ({res}) => res.text(process.env.RENAMED.length + process.env.SMALL)"})
	if x := h.execute(t, "f", engine.ExecuteParams{}); string(x.ResponseBody) != "8192x" {
		t.Errorf("%s, %+v", x.ResponseBody, x.Execution)
	}
}

// Subscribers hear that a variable was changed, and not what it is.
func TestVariableEvents(t *testing.T) {
	t.Parallel()
	h := open(t, funcs(ok), func(c *engine.Config) {
		c.Hooks.Payload = func(record any) (json.RawMessage, error) { return json.Marshal(record) }
	})
	h.function(t, "f", fnbox.RuntimeID, "f")
	heard, err := h.Subscribe(t.Context(), engine.Pattern{Project: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.p.CreateVariable(t.Context(), engine.System, "f", "KEY", "a secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.p.UpdateVariable(t.Context(), engine.System, "f", v.ID, "KEY", new("another secret")); err != nil {
		t.Fatal(err)
	}
	if err := h.p.DeleteVariable(t.Context(), engine.System, "f", v.ID); err != nil {
		t.Fatal(err)
	}
	for _, act := range []string{"create", "update", "delete"} {
		if e := <-heard; e.Names[0] != "functions.f.variables."+v.ID+"."+act || string(e.Payload) != "{}" {
			t.Errorf("%s: heard %q with %s", act, e.Names, e.Payload)
		}
	}
}
