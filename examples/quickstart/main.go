// Quickstart deploys a small function to an engine of its own, calls it twice,
// and then serves the API, so that you can go on with curl. It uses the first
// language it finds on this machine; Go itself will do.
//
//	go run ./examples/quickstart         # serve until interrupted
//	go run ./examples/quickstart -once   # end after the calls
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/httpapi"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/procbox"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

func main() {
	once := flag.Bool("once", false, "end after the two calls")
	addr := flag.String("addr", "127.0.0.1:8080", "host:port to serve on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *once); err != nil && ctx.Err() == nil {
		log.SetFlags(0)
		log.Fatal("quickstart: ", err)
	}
}

// run puts an engine together, uses it, and takes it apart.
func run(ctx context.Context, addr string, once bool) (err error) {
	dir, err := os.MkdirTemp("", "fnkit-quickstart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	// An engine is made of a store, blobs, a sandbox and a key.
	db, err := sqlite.Open(ctx, filepath.Join(dir, "fnkit.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	box, err := procbox.New(procbox.Config{Dir: filepath.Join(dir, "sandbox"), Path: os.Getenv("PATH")})
	if err != nil {
		return err
	}
	defer box.Close()
	eng, err := engine.New(engine.Config{
		Store: db, Blobs: dirblobs.New(filepath.Join(dir, "blobs")), Sandbox: box,
		Keys:         engine.Key("k1", []byte(rand.Text())),
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		MinIsolation: "none", // asked for by name: this function is our own
	})
	if err != nil {
		return err
	}
	if err := eng.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, eng.Stop(context.WithoutCancel(ctx))) }()

	if err := tour(ctx, eng); err != nil || once {
		return err
	}
	return serve(ctx, eng, addr)
}

// tour creates a function, deploys code to it and calls it twice.
func tour(ctx context.Context, eng *engine.Engine) error {
	shop, me := eng.Project("shop"), engine.System
	runtime, src, err := pick(ctx, shop)
	if err != nil {
		return err
	}
	caps, err := eng.Capabilities(ctx)
	if err != nil {
		return err
	}
	say("runtime", "%s", runtime)
	say("isolation", "%s: %s", caps.Isolation, meaning(caps.Isolation))

	_, err = shop.CreateFunction(ctx, me, engine.FunctionParams{
		ID: "hello", Name: "Hello", Runtime: runtime, Entrypoint: src.name, Execute: []string{"any"},
	})
	if err != nil {
		return err
	}
	began := time.Now()
	dep, err := shop.Deploy(ctx, me, "hello", engine.DeployParams{Source: archive(src), Size: -1, Activate: true})
	waiting := time.AfterFunc(2*time.Second, func() { say("build", "goes on; the first one of Go compiles its standard library, too") })
	defer waiting.Stop()
	for err == nil && !dep.Status.Final() {
		time.Sleep(10 * time.Millisecond)
		dep, err = shop.GetDeployment(ctx, me, "hello", dep.ID)
	}
	if err != nil {
		return err
	}
	if dep.Status != "ready" {
		return fmt.Errorf("the build %s:\n%s", dep.Status, dep.BuildLogs)
	}
	waiting.Stop()
	say("build", "%s after %s", dep.Status, round(time.Since(began)))

	for _, call := range []string{"first call", "second call"} {
		began := time.Now()
		x, err := shop.Execute(ctx, me, "hello", engine.ExecuteParams{Path: "/?name=world"})
		if err != nil {
			return err
		}
		say(call, "%d %q after %s", x.ResponseStatusCode, x.ResponseBody, round(time.Since(began)))
		say("  its log", "%s", strings.TrimSpace(x.Logs+x.Errors))
		if x.ResponseStatusCode != http.StatusOK {
			return fmt.Errorf("the function did not answer as it should: status %d", x.ResponseStatusCode)
		}
	}
	return nil
}

// say prints a line under a title.
func say(title, format string, args ...any) {
	fmt.Printf("%-12s "+format+"\n", append([]any{title}, args...)...)
}

// meaning says what a level of isolation is worth.
func meaning(i sandbox.Isolation) string {
	if i == sandbox.IsolationNone {
		return "the function is a process of this user; run only code you trust"
	}
	return "the function is shut in"
}

// serve mounts the API, and the function itself, on a web server.
func serve(ctx context.Context, eng *engine.Engine, addr string) error {
	keys := &httpapi.Keys{Engine: eng, Keys: []httpapi.Key{{Secret: "quickstart"}}}
	api, err := httpapi.New(eng, httpapi.Options{Identify: keys.Identify})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/", api)
	mux.Handle("/hello/", httpapi.FunctionHandler(eng, "shop", "hello"))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w (another address is chosen with -addr)", err)
	}
	fmt.Printf(`
Serving on http://%[1]s until interrupted. Try in another terminal:

  # call the function as anybody would
  curl 'http://%[1]s/hello/?name=you'

  # call it over the API, and look at what it did and logged
  curl -H 'X-Appwrite-Project: shop' -H 'X-Appwrite-Key: quickstart' -d path='/?name=me' http://%[1]s/v1/functions/hello/executions
  curl -H 'X-Appwrite-Project: shop' -H 'X-Appwrite-Key: quickstart' http://%[1]s/v1/functions/hello/executions

`, l.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type source struct{ name, code string }

// sources are the same function in several languages.
var sources = map[string]source{
	"node": {"index.js", `module.exports = async ({ req, res, log }) => {
  log("hello from Node.js", process.version);
  return res.text("Hello, " + (req.query.name ?? "nobody") + "!");
};
`},
	"python": {"main.py", `import sys

def main(context):
    context.log("hello from Python", sys.version.split()[0])
    return context.res.text("Hello, " + context.req.query.get("name", "nobody") + "!")
`},
	"php": {"index.php", `<?php
return function ($context) {
    $context->log('hello from PHP ' . PHP_VERSION);
    return $context->res->text('Hello, ' . ($context->req->query['name'] ?? 'nobody') . '!');
};
`},
	"ruby": {"index.rb", `def main(context)
  context.log("hello from Ruby #{RUBY_VERSION}")
  context.res.text("Hello, #{context.req.query['name'] || 'nobody'}!")
end
`},
	"go": {"main.go", `package handler

import (
	"runtime"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

func Main(Context openruntimes.Context) openruntimes.Response {
	Context.Log("hello from", runtime.Version())
	return Context.Res.Text("Hello, " + Context.Req.Query["name"] + "!")
}
`},
}

// pick returns the first runtime of this machine that there is a source for.
func pick(ctx context.Context, p *engine.Project) (string, source, error) {
	all, err := p.Runtimes(ctx, engine.System)
	if err != nil {
		return "", source{}, err
	}
	for _, language := range []string{"node", "python", "php", "ruby", "go"} {
		if i := slices.IndexFunc(all, func(r engine.Runtime) bool { return r.Key == language }); i >= 0 {
			return all[i].ID, sources[language], nil
		}
	}
	return "", source{}, errors.New("no language was found on this machine: install Node.js, Python 3, PHP, Ruby or Go")
}

// archive packs a source as people upload it: a gzipped tar.
func archive(s source) *bytes.Buffer {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	err := tw.WriteHeader(&tar.Header{Name: s.name, Mode: 0o644, Size: int64(len(s.code))})
	if err == nil {
		_, err = tw.Write([]byte(s.code))
	}
	if err := errors.Join(err, tw.Close(), zw.Close()); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return &b
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
