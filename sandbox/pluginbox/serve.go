package pluginbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/fnkit/fnkit/sandbox"
	pb "github.com/fnkit/fnkit/sandbox/pluginbox/internal/driverpb"
)

// Serve serves a driver to the host that started this process, and closes it
// when the host closes its Box or dies. Then it returns; the process is to end. It is
// an error if no host started the process.
//
// It takes the process over: standard input and output are the host's, what is printed
// becomes lines of its log, and interrupts and SIGTERM do nothing, for they mean the
// host, which ends its plugin when it has no more use for it.
func Serve(d sandbox.Driver) error {
	if os.Getenv(handshake.MagicCookieKey) != handshake.MagicCookieValue {
		return errors.Join(errors.New("pluginbox: this program is a plugin: it is started by the program that uses it"), d.Close())
	}
	// Not ignored, since what a driver starts would ignore them too. A dead
	// host's pipes must not kill us before our instances are gone.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGPIPE)
	side := &pluginSide{driver: d}
	stdout, stderr := os.Stdout, os.Stderr
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: handshake, Plugins: plugin.PluginSet{service: side}, GRPCServer: side.server,
		Logger: newBridge(Logger(slog.LevelWarn)),
	})
	os.Stdout, os.Stderr = stdout, stderr
	err := closeInTime(d)
	if dir := os.Getenv(plugin.EnvUnixSocketDir); dir != "" {
		os.Remove(dir) // the host does, if it lives
	}
	if !side.served {
		err = errors.Join(err, errors.New("pluginbox: the plugin could not listen"))
	}
	return err
}

// closeInTime closes a driver, but does not wait for ever: the process is to end.
func closeInTime(d sandbox.Driver) error {
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		return fmt.Errorf("pluginbox: the driver was not closed within %s", closeTimeout)
	}
}

// pluginSide registers the driver.
type pluginSide struct {
	plugin.NetRPCUnsupportedPlugin
	driver sandbox.Driver
	served bool
}

func (s *pluginSide) server(opts []grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append(opts,
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connectionWindow))...)
	s.served = true
	go func() {
		io.Copy(io.Discard, os.Stdin) // until the host closes it or dies
		server.Stop()
	}()
	return server
}

func (s *pluginSide) GRPCServer(_ *plugin.GRPCBroker, to *grpc.Server) error {
	pb.RegisterDriverServer(to, &server{driver: s.driver})
	return nil
}

func (s *pluginSide) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("pluginbox: not a host")
}
