package pluginbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/fnkit/fnkit/sandbox/pluginbox/internal/driverpb"
)

// handshake is what host and plugin must agree on before they speak. The version
// changes when driver.proto does so that an older side cannot follow.
var handshake = plugin.HandshakeConfig{
	ProtocolVersion: 1, MagicCookieKey: "FNKIT_SANDBOX_PLUGIN", MagicCookieValue: "driver",
}

// service is the name of the only plugin of a process.
const service = "driver"

const (
	// exitGrace is how long a plugin has to end by itself before it is killed.
	exitGrace = 100 * time.Millisecond
	// outputGrace is how long output is read after the plugin has ended, from what it
	// left running.
	outputGrace = 500 * time.Millisecond
	// closeTimeout bounds the end of all instances when the Box is closed.
	closeTimeout = 30 * time.Second

	maxMessage       = 8 << 20 // bytes; a Spec with its environment is the largest
	streamWindow     = 1 << 20 // more than window, so that it never matters
	connectionWindow = 4 << 20
)

// process is a plugin that runs.
type process struct {
	client *plugin.Client
	run    *program
	driver pb.DriverClient
	health healthpb.HealthClient
	began  time.Time

	capabilities sync.Mutex // held while they are asked for
	known        *pb.CapabilitiesResponse
}

// launch starts the plugin and waits until it serves. ctx ends it.
func (b *Box) launch(ctx context.Context) (_ *process, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.StartTimeout)
	defer cancel()
	p := &process{began: time.Now(), run: newProgram(b.cfg, &output{log: b.log, stream: "stderr"})}
	p.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: handshake, Plugins: plugin.PluginSet{service: hostSide{}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, AutoMTLS: true, SkipHostEnv: true,
		RunnerFunc:   p.run.prepare,
		StartTimeout: b.cfg.StartTimeout, Logger: newBridge(b.log),
		Stderr: p.run.errors, SyncStdout: &output{log: b.log, stream: "stdout"}, SyncStderr: &output{log: b.log, stream: "stderr"},
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		},
	})
	stop := context.AfterFunc(ctx, p.run.kill)
	err = p.connect(ctx)
	stop()
	switch ctx.Err() {
	case context.DeadlineExceeded:
		err = fmt.Errorf("it did not serve within %s", b.cfg.StartTimeout)
	case context.Canceled:
		err = errClosed
	}
	if err != nil {
		p.bury()
		return nil, p.run.explain(err)
	}
	return p, nil
}

func (p *process) connect(ctx context.Context) error {
	protocol, err := p.client.Client()
	if err != nil {
		return err
	}
	conn, err := protocol.Dispense(service)
	if err != nil {
		return err
	}
	p.driver = pb.NewDriverClient(conn.(*grpc.ClientConn))
	p.health = healthpb.NewHealthClient(conn.(*grpc.ClientConn))
	return p.ping(ctx)
}

// ping asks whether the plugin answers.
func (p *process) ping(ctx context.Context) error {
	_, err := p.health.Check(ctx, &healthpb.HealthCheckRequest{Service: plugin.GRPCServiceName})
	return err
}

// within returns a context that ends with ctx or the process. It has no deadline,
// which would cross.
func (p *process) within(ctx context.Context) (context.Context, context.CancelFunc) {
	within, cancel := context.WithCancel(p.run.ctx)
	stop := context.AfterFunc(ctx, cancel)
	return within, func() { stop(); cancel() }
}

// gone waits a moment for the end of a process whose channel broke, and reports it.
func (p *process) gone(ctx context.Context) bool {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-p.run.ctx.Done():
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// close closes the driver and ends the process.
func (p *process) close() error {
	ctx, cancel := context.WithTimeout(p.run.ctx, closeTimeout)
	defer cancel()
	r, err := p.driver.Close(ctx, &pb.CloseRequest{})
	if err == nil {
		err = fromError(r.Error)
	}
	p.run.stop(closeTimeout)
	return err
}

// bury ends the process, if it lives, and frees what was its.
func (p *process) bury() {
	p.run.kill()
	p.client.Kill()
	p.run.over()
	if p.run.sockets != "" {
		os.RemoveAll(p.run.sockets)
	}
}

// hostSide gives out the connection.
type hostSide struct{ plugin.NetRPCUnsupportedPlugin }

func (hostSide) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("pluginbox: not a plugin")
}

func (hostSide) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

// program is the operating system's side of a plugin. Its standard input is
// the sign that the host lives: it ends with the host, and then the plugin does.
type program struct {
	cfg    Config
	errors *output         // what it writes to standard error itself
	ctx    context.Context // ends with the process
	over   context.CancelFunc

	mu      sync.Mutex
	cmd     *exec.Cmd
	sockets string   // a directory of its own
	life    *os.File // the plugin's standard input
	stdout  *os.File
	stderr  *os.File
	started bool
	refused bool  // it must not be started any more
	err     error // how it ended; set before ctx ends
}

var _ runner.Runner = (*program)(nil)

func newProgram(cfg Config, errors *output) *program {
	r := &program{cfg: cfg, errors: errors}
	r.ctx, r.over = context.WithCancel(context.Background())
	return r
}

func (r *program) prepare(_ hclog.Logger, with *exec.Cmd, sockets string) (runner.Runner, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sockets = sockets
	r.cmd = exec.Command(r.cfg.Command[0], r.cfg.Command[1:]...)
	r.cmd.Dir, r.cmd.Env = r.cfg.Dir, append(slices.Clone(r.cfg.Env), with.Env...)
	return r, nil
}

// Start starts the process. Its pipes are files of our own: what a dead plugin
// left running may hold the other ends for ever.
func (r *program) Start(context.Context) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused {
		return errors.New("it was stopped before it was started")
	}
	var theirs [3]*os.File
	defer func() {
		closeAll(theirs[:]...)
		if err != nil {
			closeAll(r.life, r.stdout, r.stderr)
		}
	}()
	if theirs[0], r.life, err = os.Pipe(); err != nil {
		return err
	}
	if r.stdout, theirs[1], err = os.Pipe(); err != nil {
		return err
	}
	if r.stderr, theirs[2], err = os.Pipe(); err != nil {
		return err
	}
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = theirs[0], theirs[1], theirs[2]
	if err := r.cmd.Start(); err != nil {
		return err
	}
	r.started = true
	go r.await()
	return nil
}

// await waits for the end of the process.
func (r *program) await() {
	r.err = r.cmd.Wait()
	end := time.Now().Add(outputGrace)
	r.stdout.SetReadDeadline(end)
	r.stderr.SetReadDeadline(end)
	r.over()
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// Wait is called when all output was read.
func (r *program) Wait(context.Context) error {
	<-r.ctx.Done()
	closeAll(r.life, r.stdout, r.stderr)
	return r.err
}

func (r *program) Kill(context.Context) error {
	r.kill()
	return nil
}

// kill ends the process.
func (r *program) kill() { r.stop(exitGrace) }

// stop has the process end, and kills it if it has not in time.
func (r *program) stop(grace time.Duration) {
	r.mu.Lock()
	r.refused = true
	started := r.started
	r.mu.Unlock()
	if !started {
		return
	}
	r.life.Close()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-r.ctx.Done():
		return
	case <-timer.C:
	}
	r.cmd.Process.Kill()
	<-r.ctx.Done()
}

// explain says why the plugin did not come up, once it was stopped.
func (r *program) explain(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "incompatible"):
		err = fmt.Errorf("host and plugin are of versions of fnkit that do not fit: %w", err)
	case strings.Contains(text, "Failed to read any lines"):
		err = errors.New("it ended before it served")
	}
	if r.started {
		err = fmt.Errorf("%w (%s)", err, r.reason())
	}
	return fmt.Errorf("pluginbox: start plugin %s: %w", r.cfg.Command[0], err)
}

// reason says how the process ended, with the end of what it printed.
func (r *program) reason() string {
	why := "exit status 0"
	if r.err != nil {
		why = r.err.Error()
	}
	if said := r.errors.last(); said != "" {
		why += ": " + said
	}
	return why
}

func (r *program) pid() int {
	if r.cmd == nil || r.cmd.Process == nil {
		return 0
	}
	return r.cmd.Process.Pid
}

func (r *program) Stdout() io.ReadCloser           { return r.stdout }
func (r *program) Stderr() io.ReadCloser           { return r.stderr }
func (r *program) Name() string                    { return r.cfg.Command[0] }
func (r *program) ID() string                      { return strconv.Itoa(r.pid()) }
func (r *program) Diagnose(context.Context) string { return "" }

func (r *program) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

func (r *program) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
