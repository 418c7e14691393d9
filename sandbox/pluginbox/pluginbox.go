package pluginbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	pb "github.com/fnkit/fnkit/sandbox/pluginbox/internal/driverpb"
)

// Config configures a Box. Only Command is required.
type Config struct {
	// Command is the plugin's program and its arguments. A name without a slash is
	// looked for in the host's PATH.
	Command []string
	// Env is the whole environment of the plugin, as "NAME=value", besides what the
	// handshake needs. Nothing of the host's is added. Default: empty.
	Env []string
	// Dir is the plugin's working directory. Default: the host's.
	Dir string
	// Logger gets what the plugin logs with Logger or hclog, and line by line what it prints,
	// beside starts and ends of it. Default: none.
	Logger *slog.Logger
	// StartTimeout is how long the plugin may take until it serves. Default: 30 s.
	StartTimeout time.Duration
	// Ping is how often the plugin is asked for a sign of life, and how long it may
	// take to give one before it is killed. Default: 10 s.
	Ping time.Duration
}

// Box is a sandbox.Driver whose work is done by that of a plugin. Its methods
// are safe for concurrent use. Their errors are those of the plugin's driver, with
// the text and what errors.Is and errors.As find of package sandbox, and an error that
// is ErrGone when the plugin ended before it answered.
type Box struct {
	cfg   Config
	log   *slog.Logger
	close func() error
	group sync.WaitGroup  // of all goroutines but those that read a request's body
	ctx   context.Context // ends with Close
	end   context.CancelFunc

	mu       sync.Mutex
	closed   bool
	live     *process // nil: none, or it has ended
	starting *attempt // nil: nobody asked for one
	ends     int      // ended one after the other, soon after its start
	ended    time.Time
	spares   map[string]int // by runtime, as Warm was told
}

var _ sandbox.Driver = (*Box)(nil)

// Open starts the plugin and returns when it serves, or with why it does not.
// Close ends it.
func Open(ctx context.Context, cfg Config) (*Box, error) {
	if len(cfg.Command) == 0 || cfg.Command[0] == "" {
		return nil, errors.New("pluginbox: Config.Command is required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = 30 * time.Second
	}
	if cfg.Ping <= 0 {
		cfg.Ping = 10 * time.Second
	}
	b := &Box{cfg: cfg, spares: map[string]int{}, log: cfg.Logger.With("plugin", filepath.Base(cfg.Command[0]))}
	b.ctx, b.end = context.WithCancel(context.Background())
	b.close = sync.OnceValue(b.shut)
	if _, err := b.connect(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Capabilities implements sandbox.Driver. The plugin is asked once after each of
// its starts.
func (b *Box) Capabilities(ctx context.Context) (c sandbox.Capabilities, err error) {
	err = b.ask(ctx, "capabilities", func(ctx context.Context, p *process) error {
		r, err := p.capable(ctx)
		if err == nil {
			c, err = fromCapabilities(r), fromError(r.Error)
		}
		return err
	})
	return c, err
}

func (p *process) capable(ctx context.Context) (*pb.CapabilitiesResponse, error) {
	p.capabilities.Lock()
	defer p.capabilities.Unlock()
	if p.known != nil {
		return p.known, nil
	}
	r, err := p.driver.Capabilities(ctx, &pb.CapabilitiesRequest{})
	if err == nil && r.Error == nil {
		p.known = r
	}
	return r, err
}

// List implements sandbox.Driver.
func (b *Box) List(ctx context.Context) (all []sandbox.Instance, err error) {
	err = b.ask(ctx, "list", func(ctx context.Context, p *process) error {
		r, err := p.driver.List(ctx, &pb.ListRequest{})
		if err != nil {
			return err
		}
		all = make([]sandbox.Instance, len(r.Instances))
		for i, in := range r.Instances {
			all[i] = fromInstance(in)
		}
		return fromError(r.Error)
	})
	return all, err
}

// Warm implements sandbox.Driver. A plugin that is started again is told the same.
func (b *Box) Warm(ctx context.Context, runtime string, n int) error {
	err := b.ask(ctx, "warm", func(ctx context.Context, p *process) error { return p.warm(ctx, runtime, n) })
	if err == nil {
		b.mu.Lock()
		b.spares[runtime] = n
		b.mu.Unlock()
	}
	return err
}

func (p *process) warm(ctx context.Context, runtime string, n int) error {
	r, err := p.driver.Warm(ctx, &pb.WarmRequest{Runtime: runtime, N: int32(min(n, math.MaxInt32))})
	if err != nil {
		return err
	}
	return fromError(r.Error)
}

// Stop implements sandbox.Driver. If the plugin ended, the next one is started: it
// ends what the last left.
func (b *Box) Stop(ctx context.Context, id string) error {
	return b.ask(ctx, "stop", func(ctx context.Context, p *process) error {
		r, err := p.driver.Stop(ctx, &pb.StopRequest{Id: id})
		if err != nil {
			return err
		}
		return fromError(r.Error)
	})
}

// ask asks the plugin, and once more its successor if it ends meanwhile.
func (b *Box) ask(ctx context.Context, act string, question func(context.Context, *process) error) error {
	for again := true; ; again = false {
		p, err := b.connect(ctx)
		if err != nil {
			return err
		}
		within, cancel := p.within(ctx)
		err = question(within, p)
		cancel()
		if err != nil && again && lost(err) && p.gone(ctx) {
			continue
		}
		return p.failed(ctx, act, err)
	}
}

// failed gives an error of the channel the meaning it has for callers. Whoever
// learns from it that the plugin ended finds another with the next call.
func (p *process) failed(ctx context.Context, act string, err error) error {
	var own *remoteError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &own):
		return err
	case lost(err):
		p.gone(ctx)
		return fmt.Errorf("pluginbox: %s: the plugin ended: %w", act, sandbox.ErrGone)
	}
	return fmt.Errorf("pluginbox: %s: %w", act, err)
}

// endGrace is how long a plugin has to confirm that a Start or a Build whose
// context ended left nothing.
const endGrace = 2 * time.Second

// Start implements sandbox.Driver.
func (b *Box) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Instance{}, err
	}
	p, err := b.connect(ctx)
	if err != nil {
		return sandbox.Instance{}, err
	}
	var stream pb.Driver_StartClient
	s := newSession(ctx, p, endGrace, func() { stream.Send(&pb.StartRequest{Cancel: true}) })
	defer s.close()
	err = s.open(func(ctx context.Context) (err error) {
		if stream, err = p.driver.Start(ctx); err == nil {
			err = ignoreEOF(stream.Send(&pb.StartRequest{Spec: toSpec(spec)}))
		}
		return err
	})
	r := &pb.StartResponse{}
	if err == nil {
		err = stream.RecvMsg(r)
	}
	if err == nil {
		err = fromError(r.Error)
	} else {
		b.abandon(p, spec.ID)
	}
	return fromInstance(r.Instance), p.failed(ctx, "start", err)
}

// abandon stops an instance of which nobody knows whether it was started.
func (b *Box) abandon(p *process, id string) {
	b.spawn(func() {
		ctx, cancel := context.WithTimeout(p.run.ctx, closeTimeout)
		defer cancel()
		p.driver.Stop(ctx, &pb.StopRequest{Id: id})
	})
}

// Build implements sandbox.Driver.
func (b *Box) Build(ctx context.Context, spec sandbox.BuildSpec, logs io.Writer) (sandbox.BuildResult, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.BuildResult{}, err
	}
	p, err := b.connect(ctx)
	if err != nil {
		return sandbox.BuildResult{}, err
	}
	var stream pb.Driver_BuildClient
	s := newSession(ctx, p, endGrace, func() { stream.Send(&pb.BuildRequest{Cancel: true}) })
	defer s.close()
	err = s.open(func(ctx context.Context) (err error) {
		if stream, err = p.driver.Build(ctx); err == nil {
			err = ignoreEOF(stream.Send(&pb.BuildRequest{Spec: toBuildSpec(spec)}))
		}
		return err
	})
	if err != nil {
		return sandbox.BuildResult{}, p.failed(ctx, "build", err)
	}
	end, writing := s.follow(stream, logs)
	if writing != nil {
		return sandbox.BuildResult{}, writing
	}
	return sandbox.BuildResult{Failure: end.failure}, p.failed(ctx, "build", end.err)
}

type buildEnd struct {
	failure string
	err     error
}

// follow passes on a build's output until its end. If that cannot be written the
// build is cancelled.
func (s *session) follow(stream pb.Driver_BuildClient, logs io.Writer) (end buildEnd, writing error) {
	for {
		r, err := stream.Recv()
		if err != nil {
			return buildEnd{err: err}, writing
		}
		if len(r.Logs) > 0 && writing == nil {
			if _, writing = logs.Write(r.Logs); writing != nil {
				s.cancel()
			}
		}
		if r.End != nil {
			return buildEnd{r.End.Failure, fromError(r.End.Error)}, writing
		}
	}
}

// Close implements sandbox.Driver: the plugin's driver is closed and the plugin
// ends, which is waited for half a minute at most before it is killed.
func (b *Box) Close() error { return b.close() }

func (b *Box) shut() error {
	b.mu.Lock()
	b.notice()
	b.closed = true
	p := b.live
	b.mu.Unlock()
	var err error
	if p != nil {
		if err = p.close(); lost(err) {
			err = fmt.Errorf("pluginbox: close: the plugin ended: %s", p.run.reason())
		}
	}
	b.end()
	b.group.Wait()
	return err
}
