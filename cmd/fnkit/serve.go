package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// serve runs a server until ctx ends.
func serve(ctx context.Context, args []string, out, log io.Writer) (err error) {
	o, err := parseServe(args, out)
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // it was told to end before it had begun
		}
	}()
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	// The sandbox comes first: it locks its directory, so a second server on
	// the same data ends here.
	box, err := procbox.New(procbox.Config{
		Dir: filepath.Join(o.data, "sandbox"), Path: os.Getenv("PATH"), Logger: logger.With("part", "sandbox"),
		Isolation: o.confine, Network: "host", BuildNetwork: "host", // functions call this server, and builds install packages
	})
	if err != nil {
		return err
	}
	defer closing(&err, box)
	secret, err := o.secret()
	if err != nil {
		return err
	}
	db, err := sqlite.Open(ctx, o.database())
	if err != nil {
		return err
	}
	defer closing(&err, db)
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	url := address(listener)
	if o.endpoint == "" {
		o.endpoint = url + "/v1"
	}
	eng, err := engine.New(o.config(db, dirblobs.New(filepath.Join(o.data, "blobs")), box, engine.Key("k1", secret), logger))
	if err != nil {
		return err
	}
	runtimes, err := o.allowed(ctx, eng)
	if err != nil {
		return err
	}
	api, err := httpapi.New(eng, o.api(eng, out))
	if err != nil {
		return err
	}
	if err := eng.Start(ctx); err != nil {
		return err
	}
	if s := o.serveStatus(ctx, secret, eng, box, logger.With("part", "status")); s != nil {
		defer closing(&err, s)
	}
	o.greet(ctx, out, eng, runtimes, url)
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.Handle("GET /healthz", httpapi.LiveHandler(eng))
	mux.Handle("GET /readyz", httpapi.ReadyHandler(eng))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(logger.With("part", "http").Handler(), slog.LevelWarn),
	}
	server.RegisterOnShutdown(api.EndStreams)
	return o.serveUntil(ctx, out, server, listener, eng)
}

// serveStatus lets fnkit doctor ask this server. Where that cannot be, it serves all the same.
func (o options) serveStatus(ctx context.Context, secret []byte, eng *engine.Engine, box *procbox.Box, logger *slog.Logger) io.Closer {
	caps, err := eng.Capabilities(ctx)
	var s *statusServer
	if err == nil {
		started := time.Now()
		s, err = newStatusServer(o.data, secret, func() status { return statusOf(started, caps, eng.Pools(), box.Spares) }, logger)
	}
	if err != nil {
		logger.Warn("fnkit doctor cannot ask this server", "error", err)
		return nil
	}
	return s
}

func (o options) database() string { return filepath.Join(o.data, "fnkit.db") }

// address is the URL at which this machine reaches a listener.
func address(l net.Listener) string {
	a := l.Addr().(*net.TCPAddr)
	host := a.IP.String()
	if a.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// allowed returns the ids of the runtimes that functions may use; those asked
// for must be there.
func (o options) allowed(ctx context.Context, eng *engine.Engine) ([]string, error) {
	caps, err := eng.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, r := range caps.Runtimes {
		found = append(found, r.ID)
	}
	for _, id := range o.runtimes {
		if !slices.Contains(found, id) {
			return nil, fmt.Errorf("-runtime %s: this machine has %s", id, orNone(found))
		}
	}
	if len(o.runtimes) > 0 {
		return o.runtimes, nil
	}
	return found, nil
}

// serveUntil serves until ctx ends, then lets requests and work end, for as
// long as -drain says.
func (o options) serveUntil(ctx context.Context, out io.Writer, server *http.Server, l net.Listener, eng *engine.Engine) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		fmt.Fprintf(out, "fnkit stopping: what runs has %s to end\n", o.drain)
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.drain)
	defer cancel()
	shutdown := server.Shutdown(bounded)
	if shutdown != nil {
		shutdown = errors.Join(shutdown, server.Close())
	}
	if stop := eng.Stop(bounded); stop != nil && !errors.Is(stop, context.DeadlineExceeded) {
		err = errors.Join(err, stop)
	}
	if errors.Is(shutdown, context.DeadlineExceeded) {
		shutdown = nil
	}
	return errors.Join(err, shutdown)
}

// config is the engine that the options describe.
func (o options) config(db store.Store, blobs store.Blobs, box sandbox.Driver, keys engine.Keys, logger *slog.Logger) engine.Config {
	return engine.Config{
		Store: db, Blobs: blobs, Sandbox: box, Keys: keys, Logger: logger.With("part", "engine"),
		Dir: filepath.Join(o.data, "engine"), MinIsolation: o.isolation,
		Limits:    engine.Limits{SyncTimeout: o.sync},
		Instances: engine.Instances{Max: o.instances, Idle: o.idle},
		Work:      engine.Work{Lease: o.lease},
		Identity:  engine.Identity{Endpoint: o.endpoint},
		Hooks: engine.Hooks{
			Payload:  httpapi.EncodeRecord,
			Runtimes: o.runtimes,
			Projects: func(_ context.Context, id string) (engine.ProjectLimits, error) {
				if !slices.Contains(o.projects, id) {
					return engine.ProjectLimits{}, engine.Errorf(engine.TypeProject, "")
				}
				return engine.ProjectLimits{}, nil
			},
			UserToken: func(_ context.Context, project string, user engine.Actor, _ time.Duration) (string, error) {
				return o.token(project, user.UserID), nil
			},
		},
	}
}

// token is the token of a user of a project, which a function that the user
// called gets to act for the user; empty: there is no such user.
func (o options) token(project, id string) string {
	for _, u := range o.users {
		if u.ID == id && overlap(u.Project, project) {
			return u.Token
		}
	}
	return ""
}

// api configures the wire, with one line in the log for each request.
func (o options) api(eng *engine.Engine, out io.Writer) httpapi.Options {
	identity := &httpapi.Keys{Engine: eng, Keys: o.keys, Users: o.users}
	return httpapi.Options{
		Identify:   identity.Identify,
		TrustProxy: o.proxy,
		OnResponse: func(r *http.Request, outcome httpapi.Outcome) {
			io.WriteString(out, logLine(time.Now(), r, outcome))
		},
	}
}

// greet says what was started and how to use it.
func (o options) greet(ctx context.Context, out io.Writer, eng *engine.Engine, runtimes []string, url string) {
	caps, _ := eng.Capabilities(ctx)
	fmt.Fprintf(out, "fnkit listening on %s\n", url)
	fmt.Fprintf(out, "  projects   %s\n", strings.Join(o.projects, ", "))
	fmt.Fprintf(out, "  runtimes   %s\n", orNone(runtimes))
	fmt.Fprintf(out, "  isolation  %s\n", isolationText(caps.Isolation))
	fmt.Fprintf(out, "  data       %s\n", o.data)
	fmt.Fprintf(out, "Try:  curl -H 'X-Appwrite-Project: %s' -H 'X-Appwrite-Key: <key>' %s/v1/functions\n", o.projects[0], url)
}

// closing closes c and adds its error to err.
func closing(err *error, c io.Closer) { *err = errors.Join(*err, c.Close()) }
