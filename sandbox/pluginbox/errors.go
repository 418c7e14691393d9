package pluginbox

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fnkit/fnkit/sandbox"
	pb "github.com/fnkit/fnkit/sandbox/pluginbox/internal/driverpb"
)

var (
	errClosed = errors.New("pluginbox: closed")
	// errBody: the host could not read the body of the request.
	errBody = errors.New("pluginbox: the host cannot read the request's body")
	// errAbandoned: the host's Sink failed.
	errAbandoned = errors.New("pluginbox: the response is not wanted any more")
)

// maxText is how much of a text that a driver made crosses, in bytes.
const maxText = 64 << 10

// kinds are the errors whose identity crosses. A *sandbox.LoadError does, too.
var kinds = []struct {
	kind pb.Error_Kind
	err  error
}{
	{pb.Error_GONE, sandbox.ErrGone},
	{pb.Error_RUNTIME, sandbox.ErrRuntime},
	{pb.Error_TOO_LARGE, sandbox.ErrTooLarge},
	{pb.Error_CANCELED, context.Canceled},
	{pb.Error_DEADLINE, context.DeadlineExceeded},
	{pb.Error_BODY, errBody},
	{pb.Error_NETWORK, sandbox.ErrNetwork},
}

func toError(err error) *pb.Error {
	if err == nil {
		return nil
	}
	e := &pb.Error{Text: cut(err.Error())}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			e.Kinds = append(e.Kinds, k.kind)
		}
	}
	var load *sandbox.LoadError
	if errors.As(err, &load) {
		e.Kinds, e.Reason = append(e.Kinds, pb.Error_LOAD), cut(load.Reason)
	}
	return e
}

// remoteError is an error of the plugin's driver.
type remoteError struct {
	text string
	is   []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.is }

func fromError(e *pb.Error) error {
	if e == nil {
		return nil
	}
	err := &remoteError{text: e.Text}
	for _, k := range kinds {
		for _, kind := range e.Kinds {
			if kind == k.kind {
				err.is = append(err.is, k.err)
			}
		}
	}
	for _, kind := range e.Kinds {
		if kind == pb.Error_LOAD {
			err.is = append(err.is, &sandbox.LoadError{Reason: e.Reason})
		}
	}
	return err
}

func cut(text string) string {
	if len(text) > maxText {
		return text[:maxText] + " …"
	}
	return text
}

// lost reports whether an error of the channel says that the other side is gone,
// and not that it refused something.
func lost(err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.Canceled
}
