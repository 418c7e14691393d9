package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

const (
	project = "bench"
	body    = "Hello, world!"
)

// The functions that are measured: one answers, the other logs a line, too.
const (
	hello  = `module.exports = async ({ res }) => res.text("` + body + `");`
	logger = `module.exports = async ({ res, log }) => { log("a line"); return res.text("` + body + `"); };`
)

// host is an engine with a SQLite file and local processes.
type host struct {
	eng *engine.Engine
	p   *engine.Project
	db  *sqlstore.Store
	box *procbox.Box

	runtime string // the id of Node.js
}

// newHost starts one. change may adjust its configuration.
func newHost(ctx context.Context, dir string, change ...func(*engine.Config)) (_ *host, err error) {
	h := &host{}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if h.db, err = sqlite.Open(ctx, filepath.Join(dir, "fnkit.db")); err != nil {
		return nil, err
	}
	h.box, err = procbox.New(procbox.Config{Dir: filepath.Join(dir, "box"), Path: os.Getenv("PATH"), Languages: []string{"node"}})
	if err != nil {
		return nil, err
	}
	cfg := engine.Config{
		Store: h.db, Blobs: dirblobs.New(filepath.Join(dir, "blobs")), Sandbox: h.box, Keys: engine.Key("k1", []byte("a secret of at least 16 bytes")),
		MinIsolation: "none",
	}
	for _, c := range change {
		c(&cfg)
	}
	if h.eng, err = engine.New(cfg); err != nil {
		return nil, err
	}
	h.p = h.eng.Project(project)
	all, err := h.p.Runtimes(ctx, engine.System)
	if err != nil || len(all) == 0 {
		return nil, errors.Join(err, errors.New("Node.js was not found"))
	}
	h.runtime = all[0].ID
	return h, h.eng.Start(ctx)
}

func (h *host) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var errs []error
	if h.eng != nil {
		errs = append(errs, h.eng.Stop(ctx))
	}
	if h.box != nil {
		errs = append(errs, h.box.Close())
	}
	if h.db != nil {
		errs = append(errs, h.db.Close())
	}
	return errors.Join(errs...)
}

// deploy makes a function of a source and calls it once, so that it is warm.
func (h *host) deploy(ctx context.Context, id, source string) error {
	if err := h.build(ctx, id, source); err != nil {
		return err
	}
	return h.execute(id)(ctx)
}

// build makes a function of a source, ready to be called.
func (h *host) build(ctx context.Context, id, source string) error {
	_, err := h.p.CreateFunction(ctx, engine.System, engine.FunctionParams{
		ID: id, Name: id, Runtime: h.runtime, Entrypoint: "index.js", Execute: []string{"any"}, Timeout: 60,
	})
	if err != nil {
		return err
	}
	d, err := h.p.Deploy(ctx, engine.System, id, engine.DeployParams{Source: archive("index.js", source), Size: -1, Activate: true})
	for err == nil && !d.Status.Final() {
		time.Sleep(5 * time.Millisecond)
		d, err = h.p.GetDeployment(ctx, engine.System, id, d.ID)
	}
	if err == nil && d.Status != store.DeploymentReady {
		err = fmt.Errorf("the build %s: %s", d.Status, d.BuildLogs)
	}
	return err
}

// until waits for what happens in the background.
func until(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("waited for a minute for %s", what))
	defer cancel()
	for !done() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// execute returns a call of a function without HTTP.
func (h *host) execute(id string) call {
	return func(ctx context.Context) error {
		x, err := h.p.Execute(ctx, engine.System, id, engine.ExecuteParams{})
		if err == nil && (x.ResponseStatusCode != 200 || string(x.ResponseBody) != body) {
			err = fmt.Errorf("answered %d %q: %s", x.ResponseStatusCode, x.ResponseBody, x.Errors)
		}
		return err
	}
}

func archive(name, text string) *bytes.Buffer {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
	if err == nil {
		_, err = tw.Write([]byte(text))
	}
	if err := errors.Join(err, tw.Close(), zw.Close()); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return &b
}
