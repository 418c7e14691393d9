package pluginbox

import (
	"context"
	"sync"

	"github.com/fnkit/fnkit/sandbox"
	pb "github.com/fnkit/fnkit/sandbox/pluginbox/internal/driverpb"
)

// server is the plugin's side: it makes the host's calls to the driver.
type server struct {
	pb.UnimplementedDriverServer
	driver sandbox.Driver
}

func (s *server) Capabilities(ctx context.Context, _ *pb.CapabilitiesRequest) (*pb.CapabilitiesResponse, error) {
	return toCapabilities(s.driver.Capabilities(ctx)), nil
}

func (s *server) Start(stream pb.Driver_StartServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := cancelled(stream)
	defer cancel()
	in, err := s.driver.Start(ctx, fromSpec(first.Spec))
	if err == nil && stream.Context().Err() != nil { // nobody waits for it
		s.driver.Stop(context.WithoutCancel(ctx), in.ID)
		return stream.Context().Err()
	}
	return stream.SendAndClose(&pb.StartResponse{Instance: toInstance(in), Error: toError(err)})
}

// cancelled returns a context that ends when the host says so, or is gone. All that
// it says after the first message is that.
func cancelled[M any](stream interface {
	Context() context.Context
	Recv() (M, error)
}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(stream.Context())
	go func() { // ends with the stream
		defer cancel()
		stream.Recv()
	}()
	return ctx, cancel
}

func (s *server) Build(stream pb.Driver_BuildServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := cancelled(stream)
	defer cancel()
	r, err := s.driver.Build(ctx, fromBuildSpec(first.Spec), &buildLogs{stream: stream})
	return stream.Send(&pb.BuildResponse{End: &pb.BuildEnd{Failure: cut(r.Failure), Error: toError(err)}})
}

// buildLogs sends what a build prints. It blocks while the host takes no more.
type buildLogs struct {
	mu     sync.Mutex
	stream pb.Driver_BuildServer
}

func (l *buildLogs) Write(p []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < len(p) {
		piece := p[n:min(len(p), n+maxData)]
		if err := l.stream.Send(&pb.BuildResponse{Logs: piece}); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

func (s *server) Warm(ctx context.Context, r *pb.WarmRequest) (*pb.WarmResponse, error) {
	return &pb.WarmResponse{Error: toError(s.driver.Warm(ctx, r.Runtime, int(r.N)))}, nil
}

func (s *server) Stop(ctx context.Context, r *pb.StopRequest) (*pb.StopResponse, error) {
	return &pb.StopResponse{Error: toError(s.driver.Stop(ctx, r.Id))}, nil
}

func (s *server) List(ctx context.Context, _ *pb.ListRequest) (*pb.ListResponse, error) {
	all, err := s.driver.List(ctx)
	r := &pb.ListResponse{Error: toError(err)}
	for _, in := range all {
		r.Instances = append(r.Instances, toInstance(in))
	}
	return r, nil
}

func (s *server) Close(context.Context, *pb.CloseRequest) (*pb.CloseResponse, error) {
	return &pb.CloseResponse{Error: toError(s.driver.Close())}, nil
}

func (s *server) Invoke(stream pb.Driver_InvokeServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	k := newServed(stream)
	defer k.cancel()
	r, err := k.request(first)
	if err != nil {
		return err
	}
	go k.read() // ends with the stream
	res, err := s.driver.Invoke(k.ctx, first.Call.Instance, r, k)
	return k.finish(res, err)
}
