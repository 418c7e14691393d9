package pluginbox

import (
	"context"
	"io"
	"sync"
	"time"
)

// session is a stream to the plugin that outlives its caller's context: when
// that ends the plugin is told, and has a grace to say how things ended.
type session struct {
	ctx    context.Context // of the stream
	end    context.CancelFunc
	stop   func() bool
	grace  time.Duration
	tell   func() // the plugin to cancel; called once, and not beside another Send
	once   sync.Once
	sendMu sync.Mutex
	opened bool
}

func newSession(ctx context.Context, p *process, grace time.Duration, tell func()) *session {
	s := &session{grace: grace, tell: tell}
	s.ctx, s.end = context.WithCancel(p.run.ctx)
	s.stop = context.AfterFunc(ctx, s.cancel)
	return s
}

// open opens the stream and sends what comes first.
func (s *session) open(f func(ctx context.Context) error) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	err := f(s.ctx)
	s.opened = err == nil
	return err
}

// cancel tells the plugin to cancel. If it does not end the stream in time that is
// broken off.
func (s *session) cancel() {
	s.once.Do(func() {
		time.AfterFunc(s.grace, s.end) // also if sending blocks
		s.sendMu.Lock()
		defer s.sendMu.Unlock()
		if !s.opened {
			s.end()
			return
		}
		s.tell()
	})
}

func (s *session) close() {
	s.stop()
	s.end()
}

// ignoreEOF: a stream that ended tells why when it is read.
func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
