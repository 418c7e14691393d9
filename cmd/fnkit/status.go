package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
)

const (
	// statusSocket is where a server answers, in its data directory.
	statusSocket = "status.sock"
	// statusTimeout bounds each question to a server.
	statusTimeout = 5 * time.Second
	// maxPools bounds the deployments that an answer names, and with that its size.
	maxPools = 1000
	// maxStatus is how many bytes of an answer are read: several times that size.
	maxStatus = 2 << 20
)

// status is what a server tells whoever owns its data directory.
type status struct {
	PID           int           `json:"pid"`
	Started       time.Time     `json:"startedAt"`
	Isolation     string        `json:"isolation"`
	Instances     int           `json:"instances"` // those that start or drain included
	MaxInstances  int           `json:"maxInstances"`
	PerDeployment int           `json:"maxInstancesPerDeployment"`
	Calls         int           `json:"calls"`   // that run
	Waiting       int           `json:"waiting"` // callers who wait for an instance
	Deployments   []poolStatus  `json:"deployments"`
	Omitted       int           `json:"deploymentsOmitted"` // beyond the first thousand
	Spares        []spareStatus `json:"spares"`
}

// poolStatus is an engine.DeploymentPool.
type poolStatus struct {
	Project     string `json:"project"`
	Function    string `json:"functionId"`
	Deployment  string `json:"deploymentId"`
	Starting    int    `json:"starting"`
	Idle        int    `json:"idle"`
	Busy        int    `json:"busy"`
	Draining    int    `json:"draining"`
	Calls       int    `json:"calls"`
	Waiting     int    `json:"waiting"`
	Concurrency int    `json:"concurrency"`
	PerProject  int    `json:"maxInstancesPerProject"`
}

// spareStatus is about a runtime that can have spares. Wanted holds for each network
// policy that functions ask for, so that more may be ready.
type spareStatus struct {
	Runtime string `json:"runtime"`
	Ready   int    `json:"ready"`
	Wanted  int    `json:"wanted"`
}

// statusOf puts together what a server's engine and sandbox do; ready is how many spares
// of a runtime there are.
func statusOf(started time.Time, caps sandbox.Capabilities, p engine.Pools, ready func(runtime string) int) status {
	s := status{
		PID: os.Getpid(), Started: started.UTC().Truncate(time.Second), Isolation: caps.Isolation.String(),
		Instances: p.Instances, MaxInstances: p.Limits.Max, PerDeployment: p.Limits.PerDeployment, Calls: p.Calls, Waiting: p.Waiting,
		Deployments: []poolStatus{}, Omitted: max(0, len(p.Deployments)-maxPools), Spares: []spareStatus{},
	}
	for _, d := range p.Deployments[:len(p.Deployments)-s.Omitted] {
		s.Deployments = append(s.Deployments, poolStatus(d))
	}
	for _, r := range caps.Runtimes {
		if r.Spares {
			s.Spares = append(s.Spares, spareStatus{r.ID, ready(r.ID), p.Spares[r.ID]})
		}
	}
	return s
}

// statusServer answers on a socket in a data directory.
type statusServer struct {
	path string
	http *http.Server
	done chan struct{} // closed when nothing listens any more
}

// newStatusServer answers whoever can read the secret of a data directory with what now
// returns. The server that has the directory's lock calls it.
func newStatusServer(dir string, secret []byte, now func() status, logger *slog.Logger) (*statusServer, error) {
	path := filepath.Join(dir, statusSocket)
	l, err := listenAlone(path)
	if err != nil {
		return nil, tooLong(path, err)
	}
	s := &statusServer{path: path, done: make(chan struct{}), http: &http.Server{
		Handler: statusHandler(statusToken(secret), now), MaxHeaderBytes: 4 << 10,
		ReadTimeout: statusTimeout, WriteTimeout: statusTimeout, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			logger.Warn("answer fnkit doctor", "error", err)
		}
	}()
	return s, nil
}

// Close removes the socket and ends the server.
func (s *statusServer) Close() error {
	err := os.Remove(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if shutdown := s.http.Shutdown(ctx); shutdown != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

// listenAlone listens on a socket that only this user can reach, in the place of one
// that a server left that was killed.
func listenAlone(path string) (net.Listener, error) {
	// The data directory may be open to others, so that the socket must not appear there
	// before it has its mode. The name is as long as the final one.
	dir := filepath.Join(filepath.Dir(path), ".status")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	first := filepath.Join(dir, "new")
	l, err := net.Listen("unix", first)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(first, 0o600)
	if err == nil {
		err = os.Rename(first, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// tooLong says so if that is why a socket's path was refused.
func tooLong(path string, err error) error {
	if errors.Is(err, syscall.EINVAL) && len(path) > 100 {
		return fmt.Errorf("%s: %d bytes are too long for the path of a socket", path, len(path))
	}
	return err
}

// statusToken is what the owner of a data directory shows: functions at isolation
// "restricted" can reach the socket with the host's network, but not read the secret.
func statusToken(secret []byte) string {
	h := hmac.New(sha256.New, secret)
	io.WriteString(h, "fnkit status")
	return "Bearer " + hex.EncodeToString(h.Sum(nil))
}

func statusHandler(token string, now func() status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hmac.Equal([]byte(r.Header.Get("Authorization")), []byte(token)) {
			http.Error(w, "the secret of the data directory is another one", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(now())
	})
}

// errNoServer: none runs on a data directory.
var errNoServer = errors.New("no server runs there")

// askStatus asks the server on a data directory. Error: errNoServer, or why it could not
// be asked.
func askStatus(ctx context.Context, dir string) (s status, err error) {
	secret, err := os.ReadFile(filepath.Join(dir, "secret"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, errNoServer // nor has one run
	}
	if err != nil {
		return s, err
	}
	path := filepath.Join(dir, statusSocket)
	client := &http.Client{Timeout: statusTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://fnkit/", nil)
	if err != nil {
		return s, err
	}
	req.Header.Set("Authorization", statusToken(secret))
	resp, err := client.Do(req)
	switch about := new(url.Error); {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return s, errNoServer
	case errors.As(err, &about):
		return s, tooLong(path, about.Err)
	case err != nil:
		return s, err
	}
	defer resp.Body.Close()
	return readStatus(resp)
}

func readStatus(resp *http.Response) (s status, err error) {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus+1))
	switch {
	case err != nil:
		return s, err
	case resp.StatusCode != http.StatusOK:
		return s, fmt.Errorf("%s: %s", resp.Status, printable(string(text[:min(len(text), 200)])))
	case len(text) > maxStatus:
		return s, fmt.Errorf("the answer has more than %d bytes", maxStatus)
	}
	return s, json.Unmarshal(text, &s)
}
