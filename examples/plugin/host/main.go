// Host is an engine whose functions are run by a plugin, the program beside it. It
// deploys one, calls it, and ends.
//
//	go build -o /tmp/plugin ./examples/plugin/plugin
//	go run ./examples/plugin/host /tmp/plugin
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox/pluginbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: host PLUGIN")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, plugin string) (err error) {
	dir, err := os.MkdirTemp("", "fnkit-host-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	// The sandbox of the engine is the plugin. It sees of the environment what is given.
	box, err := pluginbox.Open(ctx, pluginbox.Config{
		Command: []string{plugin, filepath.Join(dir, "sandbox")},
		Env:     []string{"PATH=" + os.Getenv("PATH")},
		Logger:  slog.Default(),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()

	// All else is as without it.
	db, err := sqlite.Open(ctx, filepath.Join(dir, "fnkit.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	eng, err := engine.New(engine.Config{
		Store: db, Blobs: dirblobs.New(filepath.Join(dir, "blobs")), Sandbox: box,
		Keys: engine.Key("k1", []byte(rand.Text())), MinIsolation: "none",
	})
	if err != nil {
		return err
	}
	if err := eng.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, eng.Stop(context.WithoutCancel(ctx))) }()
	return hello(ctx, eng.Project("shop"))
}

// hello deploys a function and calls it.
func hello(ctx context.Context, shop *engine.Project) error {
	runtimes, err := shop.Runtimes(ctx, engine.System)
	if err != nil {
		return err
	}
	for _, r := range runtimes {
		code, ok := sources[r.Key]
		if !ok {
			continue
		}
		_, err := shop.CreateFunction(ctx, engine.System, engine.FunctionParams{ID: "hello", Name: "Hello", Runtime: r.ID, Entrypoint: r.Entrypoint})
		if err != nil {
			return err
		}
		d, err := shop.Deploy(ctx, engine.System, "hello", engine.DeployParams{Source: archive(r.Entrypoint, code), Size: -1, Activate: true})
		for err == nil && !d.Status.Final() {
			time.Sleep(10 * time.Millisecond)
			d, err = shop.GetDeployment(ctx, engine.System, "hello", d.ID)
		}
		if err != nil {
			return err
		}
		x, err := shop.Execute(ctx, engine.System, "hello", engine.ExecuteParams{})
		if err != nil {
			return fmt.Errorf("%w; the build said: %s", err, d.BuildLogs)
		}
		fmt.Printf("%s in a plugin answers %d %q\n", r.ID, x.ResponseStatusCode, x.ResponseBody)
		return nil
	}
	return errors.New("install Node.js, Python 3, PHP or Ruby")
}

// sources are the same function in several languages.
var sources = map[string]string{
	"node":   `module.exports = async ({ res }) => res.text("Hello!");`,
	"python": "def main(context):\n    return context.res.text('Hello!')\n",
	"php":    `<?php return fn($context) => $context->res->text("Hello!");`,
	"ruby":   `def main(context) = context.res.text("Hello!")`,
}

// archive packs a file as people upload it: a gzipped tar.
func archive(name, code string) *bytes.Buffer {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(code))})
	if err == nil {
		_, err = tw.Write([]byte(code))
	}
	if err := errors.Join(err, tw.Close(), zw.Close()); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return &b
}
