package pluginbox_test

import (
	"context"
	"errors"
	"net/rpc"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/fnkit/fnkit/sandbox/pluginbox"
)

// foreign makes the test's program a plugin that is not made for this package, or is so
// for another version.
const foreign = "FNKIT_TEST_FOREIGN"

type foreignPlugin struct{}

func (foreignPlugin) Server(*plugin.MuxBroker) (any, error) { return nil, errors.ErrUnsupported }
func (foreignPlugin) Client(*plugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.ErrUnsupported
}
func (foreignPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return nil }
func (foreignPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.ErrUnsupported
}

func serveForeign(how string) {
	cfg := plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "FNKIT_SANDBOX_PLUGIN", MagicCookieValue: "driver"},
		Plugins:         plugin.PluginSet{"driver": foreignPlugin{}}, GRPCServer: plugin.DefaultGRPCServer,
	}
	switch how {
	case "version":
		cfg.ProtocolVersion = 99
	case "cookie":
		cfg.MagicCookieKey = "ANOTHER_KIND_OF_PLUGIN"
	case "net/rpc":
		cfg.GRPCServer = nil
	}
	plugin.Serve(&cfg)
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	self := []string{os.Args[0]}
	for name, c := range map[string]struct {
		cfg  pluginbox.Config
		want []string
	}{
		"no command":      {pluginbox.Config{}, []string{"Config.Command is required"}},
		"no such program": {pluginbox.Config{Command: []string{"/nowhere/plugin"}}, []string{"/nowhere/plugin", "no such file"}},
		"fails":           {pluginbox.Config{Command: []string{program(t), "-fail", "the directory is in use"}}, []string{"ended before it served", "exit status 1: the directory is in use"}},
		"not a plugin":    {pluginbox.Config{Command: []string{"sh", "-c", "echo hello; cat"}}, []string{"hello"}},
		"another version": {pluginbox.Config{Command: self, Env: []string{foreign + "=version"}}, []string{"versions of fnkit that do not fit", "99", "1"}},
		"another kind":    {pluginbox.Config{Command: self, Env: []string{foreign + "=cookie"}}, []string{"ended before it served", "This binary is a plugin"}},
		"net/rpc":         {pluginbox.Config{Command: self, Env: []string{foreign + "=net/rpc"}}, []string{"unsupported plugin protocol"}},
		"silent":          {pluginbox.Config{Command: []string{program(t), "-hang"}, StartTimeout: 300 * time.Millisecond}, []string{"did not serve within 300ms"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box, err := pluginbox.Open(t.Context(), c.cfg)
			if err == nil {
				box.Close()
				t.Fatal("it opens")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := pluginbox.Open(ctx, pluginbox.Config{Command: []string{program(t), "-hang"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
}

// TestPluginAlone: a plugin says what it is when somebody runs it.
func TestPluginAlone(t *testing.T) {
	t.Parallel()
	out, err := command(t, program(t)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "this program is a plugin") {
		t.Errorf("%v, %s", err, out)
	}
}

func TestHostsEnvironmentStays(t *testing.T) {
	t.Parallel()
	if os.Getenv("FNKIT_TEST_SECRET") == "" {
		t.Fatal("the host has no secret")
	}
	box, _ := open(t, pluginbox.Config{Env: []string{"GIVEN=to the plugin"}})
	start(t, box, "i1", "faults")
	env := decode[[]string](t, call(t, box, "i1", "/environ"))
	if !slices.Contains(env, "GIVEN=to the plugin") {
		t.Errorf("%q lacks what was given", env)
	}
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if name != "GIVEN" && name != "FNKIT_SANDBOX_PLUGIN" && !strings.HasPrefix(name, "PLUGIN_") {
			t.Errorf("the plugin sees %q", v)
		}
	}
}

// TestLogs: what a plugin logs or prints comes to the host's logger, and its last
// words when it panics.
func TestLogs(t *testing.T) {
	t.Parallel()
	box, j := open(t, pluginbox.Config{})
	start(t, box, "i1", "faults")
	call(t, box, "i1", "/print")
	call(t, box, "i1", "/log")
	j.wait(t, `msg="plugin started" plugin=plugin`,
		`level=INFO msg="printed on stdout" plugin=plugin stream=stdout`, `level=INFO msg="printed on stderr" plugin=plugin stream=stderr`,
		`level=WARN msg=logged plugin=plugin answer=42 of=map[what:all]`)
	box.Invoke(t.Context(), "i1", get("/die"), newAnswer())
	j.wait(t, `level=ERROR msg="panic: died on purpose`, `level=ERROR msg="plugin ended"`)
}
