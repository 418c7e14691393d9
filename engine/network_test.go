package engine_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/internal/require"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
)

// A function has the network that its policy says, within what the sandbox
// gives; a change of it holds for the next call.
func TestNetworkOfFunctions(t *testing.T) {
	t.Parallel()
	require.Command(t, "node")
	box, err := procbox.New(procbox.Config{Dir: filepath.Join(t.TempDir(), "box"), Path: os.Getenv("PATH"), Languages: []string{"node"}, Network: "host"})
	if err != nil {
		t.Fatal(err)
	}
	h := start(t, box)
	caps, err := h.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if caps.Isolation == sandbox.IsolationNone {
		require.Missing(t, "isolation", "processes have the host's network")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			c.Close()
		}
	}()
	h.function(t, "f", h.runtime(t, "node"), "i.js")
	h.deploy(t, "f", map[string]string{"i.js": `
		const net = require("net");
		module.exports = ({req, res}) => new Promise(done => {
			const s = net.connect(Number(req.bodyText), "127.0.0.1");
			s.on("connect", () => done(res.text("connected"))).on("error", e => done(res.text(e.code)));
		});`})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, c := range []struct {
		network   string
		connected bool
	}{{"", true}, {"none", false}, {"host", true}, {"none", false}, {"", true}} {
		if _, err := h.p.UpdateFunction(t.Context(), engine.System, "f", engine.FunctionParams{Name: "f", Policy: engine.PolicyParams{Network: &c.network}}); err != nil {
			t.Fatal(err)
		}
		x := h.execute(t, "f", engine.ExecuteParams{Body: []byte(port)})
		if got := string(x.ResponseBody); (got == "connected") != c.connected || x.Status != "completed" {
			t.Errorf("network %q: %q, %s", c.network, got, x.Errors)
		}
	}
}
