package pluginbox

import (
	"github.com/fnkit/fnkit/sandbox"
	pb "github.com/fnkit/fnkit/sandbox/pluginbox/internal/driverpb"
)

func toCapabilities(c sandbox.Capabilities, err error) *pb.CapabilitiesResponse {
	r := &pb.CapabilitiesResponse{
		Error: toError(err), Driver: c.Driver, Isolation: int32(c.Isolation), Limits: c.Limits, Notes: c.Notes,
	}
	for _, n := range c.Networks {
		r.Networks = append(r.Networks, string(n))
	}
	for _, t := range c.Runtimes {
		r.Runtimes = append(r.Runtimes, &pb.Runtime{
			Id: t.ID, Key: t.Key, Name: t.Name, Version: t.Version, Base: t.Base, Image: t.Image, Logo: t.Logo, Supports: t.Supports,
			Entrypoint: t.Entrypoint, Commands: t.Commands, Concurrency: int32(t.Concurrency), NativeLogs: string(t.NativeLogs), Spares: t.Spares,
		})
	}
	return r
}

func fromCapabilities(r *pb.CapabilitiesResponse) sandbox.Capabilities {
	c := sandbox.Capabilities{Driver: r.Driver, Isolation: sandbox.Isolation(r.Isolation), Limits: r.Limits, Notes: r.Notes}
	for _, n := range r.Networks {
		c.Networks = append(c.Networks, sandbox.Network(n))
	}
	for _, t := range r.Runtimes {
		c.Runtimes = append(c.Runtimes, sandbox.Runtime{
			ID: t.Id, Key: t.Key, Name: t.Name, Version: t.Version, Base: t.Base, Image: t.Image, Logo: t.Logo, Supports: t.Supports,
			Entrypoint: t.Entrypoint, Commands: t.Commands, Concurrency: int(t.Concurrency), NativeLogs: sandbox.NativeLogs(t.NativeLogs), Spares: t.Spares,
		})
	}
	return c
}

func toBuildSpec(s sandbox.BuildSpec) *pb.BuildSpec {
	return &pb.BuildSpec{
		Id: s.ID, Runtime: s.Runtime, Dir: s.Dir, Entrypoint: s.Entrypoint, Commands: s.Commands, Env: s.Env, Cpus: s.CPUs, Memory: s.Memory, Network: string(s.Network),
		Cache: s.Cache,
	}
}

func fromBuildSpec(s *pb.BuildSpec) sandbox.BuildSpec {
	return sandbox.BuildSpec{
		ID: s.GetId(), Runtime: s.GetRuntime(), Dir: s.GetDir(), Entrypoint: s.GetEntrypoint(), Commands: s.GetCommands(), Env: s.GetEnv(),
		CPUs: s.GetCpus(), Memory: s.GetMemory(), Network: sandbox.Network(s.GetNetwork()), Cache: s.GetCache(),
	}
}

func toSpec(s sandbox.Spec) *pb.Spec {
	return &pb.Spec{
		Id: s.ID, Project: s.Project, Function: s.Function, Deployment: s.Deployment, Runtime: s.Runtime, Dir: s.Dir,
		Entrypoint: s.Entrypoint, Env: s.Env, Cpus: s.CPUs, Memory: s.Memory, Concurrency: int32(s.Concurrency), Network: string(s.Network),
	}
}

func fromSpec(s *pb.Spec) sandbox.Spec {
	return sandbox.Spec{
		ID: s.GetId(), Project: s.GetProject(), Function: s.GetFunction(), Deployment: s.GetDeployment(), Runtime: s.GetRuntime(), Dir: s.GetDir(),
		Entrypoint: s.GetEntrypoint(), Env: s.GetEnv(), CPUs: s.GetCpus(), Memory: s.GetMemory(), Concurrency: int(s.GetConcurrency()), Network: sandbox.Network(s.GetNetwork()),
	}
}

func toInstance(i sandbox.Instance) *pb.Instance {
	return &pb.Instance{Id: i.ID, Project: i.Project, Function: i.Function, Deployment: i.Deployment, Concurrency: int32(i.Concurrency)}
}

func fromInstance(i *pb.Instance) sandbox.Instance {
	return sandbox.Instance{
		ID: i.GetId(), Project: i.GetProject(), Function: i.GetFunction(), Deployment: i.GetDeployment(), Concurrency: int(i.GetConcurrency()),
	}
}

func toHeaders(headers []sandbox.Header) []*pb.Header {
	if len(headers) == 0 {
		return nil
	}
	fields := make([]pb.Header, len(headers))
	out := make([]*pb.Header, len(headers))
	for i, h := range headers {
		fields[i].Name, fields[i].Value = h.Name, h.Value
		out[i] = &fields[i]
	}
	return out
}

func fromHeaders(headers []*pb.Header) []sandbox.Header {
	if len(headers) == 0 {
		return nil
	}
	out := make([]sandbox.Header, len(headers))
	for i, h := range headers {
		out[i] = sandbox.Header{Name: h.Name, Value: h.Value}
	}
	return out
}

func toResult(r sandbox.Result, err error) *pb.InvokeEnd {
	return &pb.InvokeEnd{
		Error: toError(err), Crash: cut(r.Crash), Aborted: cut(r.Aborted), TimedOut: r.TimedOut, Unsent: r.Unsent, Retire: r.Retire,
	}
}

func fromResult(e *pb.InvokeEnd) sandbox.Result {
	return sandbox.Result{Crash: e.Crash, Aborted: e.Aborted, TimedOut: e.TimedOut, Unsent: e.Unsent, Retire: e.Retire}
}
