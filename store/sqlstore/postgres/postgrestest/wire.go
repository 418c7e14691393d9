package postgrestest

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Wire is a proxy in front of the server that can be cut.
type Wire struct {
	listener net.Listener

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

// Through returns a DSN that leads through a wire.
func Through(t testing.TB, dsn string) (*Wire, string) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{listener: listener, conns: map[net.Conn]bool{}}
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	w.done.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			w.done.Go(func() { w.carry(c, network, address) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		w.Cut(true)
		w.done.Wait()
	})
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return w, With(With(dsn, "host", host), "port", port)
}

func (w *Wire) carry(c net.Conn, network, address string) {
	defer c.Close()
	s, err := net.Dial(network, address)
	if err != nil {
		return
	}
	defer s.Close()
	if !w.hold(c, s) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { io.Copy(s, c); s.Close(); c.Close() })
	both.Go(func() { io.Copy(c, s); s.Close(); c.Close() })
	both.Wait()
	w.mu.Lock()
	delete(w.conns, c)
	delete(w.conns, s)
	w.mu.Unlock()
}

func (w *Wire) hold(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.conns[c] = true
	}
	return !w.cut
}

// Cut cuts the wire, with all connections through it, or mends it.
func (w *Wire) Cut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	if cut {
		for c := range w.conns {
			c.Close()
		}
	}
}
