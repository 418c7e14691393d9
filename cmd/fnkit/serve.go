package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
	o, err := parseServe(args, log)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	// The sandbox comes first: it locks its directory, so a second server on
	// the same data ends here.
	box, err := procbox.New(procbox.Config{Dir: filepath.Join(o.data, "sandbox"), Path: os.Getenv("PATH"), Logger: logger.With("part", "sandbox")})
	if err != nil {
		return err
	}
	defer closing(&err, box)
	db, err := sqlite.Open(ctx, filepath.Join(o.data, "fnkit.db"))
	if err != nil {
		return err
	}
	defer closing(&err, db)
	secret, err := secretFile(filepath.Join(o.data, "secret"))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	url := "http://" + listener.Addr().String()
	if o.endpoint == "" {
		o.endpoint = url + "/v1"
	}
	eng, err := engine.New(o.config(db, dirblobs.New(filepath.Join(o.data, "blobs")), box, engine.Key("k1", secret), logger))
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
	o.greet(ctx, out, eng, url)
	return serveUntil(ctx, listener, api, eng, o.drain)
}

// serveUntil serves until ctx ends, then lets requests and work end, for as
// long as drain.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler, eng *engine.Engine, drain time.Duration) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
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
			UserToken: func(_ context.Context, _ string, user engine.Actor, _ time.Duration) (string, error) {
				return o.token(user.UserID), nil
			},
		},
	}
}

// token is the token of a user, which a function that the user called gets to
// act for the user.
func (o options) token(id string) string {
	for _, u := range o.users {
		if u.ID == id {
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
			project := outcome.Project
			if project == "" {
				project = "-"
			}
			fmt.Fprintf(out, "%s  %d  %-6s %s  %s  project %s\n", time.Now().Format(time.TimeOnly), outcome.Status, r.Method, r.URL.Path, outcome.Duration.Round(10*time.Microsecond), project)
		},
	}
}

// greet says what was started and how to use it.
func (o options) greet(ctx context.Context, out io.Writer, eng *engine.Engine, url string) {
	caps, _ := eng.Capabilities(ctx)
	var runtimes []string
	for _, r := range caps.Runtimes {
		runtimes = append(runtimes, r.ID)
	}
	fmt.Fprintf(out, "fnkit listening on %s\n", url)
	fmt.Fprintf(out, "  projects   %s\n", o.projects.String())
	fmt.Fprintf(out, "  runtimes   %s\n", orNone(runtimes))
	fmt.Fprintf(out, "  isolation  %s\n", isolationText(caps.Isolation))
	fmt.Fprintf(out, "  data       %s\n", o.data)
	fmt.Fprintf(out, "Try:  curl -H 'X-Appwrite-Project: %s' -H 'X-Appwrite-Key: <key>' %s/v1/functions\n", o.projects[0], url)
}

// secretFile returns the secret in a file that only its owner can read; the
// first time it makes one.
func secretFile(name string) ([]byte, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	temp := name + ".new"
	if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(temp, secret, 0o600); err != nil {
			return nil, err
		}
		if err := os.Rename(temp, name); err != nil {
			return nil, err
		}
	}
	secret, err := os.ReadFile(name)
	if err == nil && len(secret) < 16 {
		err = fmt.Errorf("%s is too short to be a secret: restore it, or the variables it sealed are lost", name)
	}
	return secret, err
}

// closing closes c and adds its error to err.
func closing(err *error, c io.Closer) { *err = errors.Join(*err, c.Close()) }
