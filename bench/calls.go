package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fnkit/fnkit/httpapi"
)

// bare is the server that a function is compared with.
const bare = `require("node:http").createServer((req, res) => {
  res.writeHead(200, { "content-type": "text/plain; charset=utf-8" });
  res.end("` + body + `");
}).listen(process.argv[1], () => console.log("ready"));`

// target is one way to get the answer.
type target struct {
	name string
	call call
}

// calls compares the ways to call a warm function with the bare server.
func calls(ctx context.Context, o options, dir string) error {
	dir = filepath.Join(dir, "calls")
	h, err := newHost(ctx, dir)
	if err != nil {
		return err
	}
	defer h.close()
	if err := errors.Join(h.deploy(ctx, "hello", hello), h.deploy(ctx, "logger", logger)); err != nil {
		return err
	}
	node, stopNode, err := startBare(ctx, filepath.Join(dir, "node.sock"))
	if err != nil {
		return err
	}
	defer stopNode()
	web, stopWeb, err := h.serve(filepath.Join(dir, "web.sock"))
	if err != nil {
		return err
	}
	defer stopWeb()
	targets := []target{
		{"bare node:http", get(node, "/")},
		{"Project.Execute", h.execute("hello")},
		{"Project.Execute, one log line", h.execute("logger")},
		{"FunctionHandler", get(web, "/hello/")},
		{"HTTP API, one log line", post(web, "/v1/functions/logger/executions")},
	}
	targets = slices.DeleteFunc(targets, func(t target) bool { return t.name != targets[0].name && !strings.Contains(t.name, o.only) })
	caps, err := h.box.Capabilities(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("Isolation: %s.\n\n", caps.Isolation)
	fmt.Print("| way | in flight | calls/s | to bare | p50 µs | p99 µs | CPU µs per call |\n|---|---|---|---|---|---|---|\n")
	for text := range strings.SplitSeq(o.flight, ",") {
		inflight, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		if err := compare(ctx, o, inflight, targets); err != nil {
			return err
		}
	}
	fmt.Println("\nCPU is of everything: client, engine, database and Node.js. The bare server's client is net/http, as is that of the last two.")
	return nil
}

// compare measures all targets in turns.
func compare(ctx context.Context, o options, inflight int, targets []target) error {
	all := make([][]stretch, len(targets))
	for round := range o.rounds + 1 {
		for i, t := range targets {
			s, err := load(ctx, inflight, o.slice, 0, t.call)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if round > 0 { // the first warms up
				all[i] = append(all[i], s)
			}
		}
	}
	base := median(all[0], stretch.rate)
	for i, t := range targets {
		rate := median(all[i], stretch.rate)
		p50 := median(all[i], func(s stretch) float64 { return float64(s.p50.Microseconds()) })
		p99 := median(all[i], func(s stretch) float64 { return float64(s.p99.Microseconds()) })
		fmt.Printf("| %s | %d | %.0f | %.2f | %.0f | %.0f | %.0f |\n", t.name, inflight, rate, rate/base, p50, p99, median(all[i], stretch.perCall))
	}
	return nil
}

// startBare starts the bare server on a unix socket.
func startBare(ctx context.Context, socket string) (*http.Client, func(), error) {
	cmd := exec.CommandContext(ctx, "node", "-e", bare, socket)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() { cmd.Process.Kill(); cmd.Wait() }
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		stop()
		return nil, nil, fmt.Errorf("start the bare server: %w", err)
	}
	return client(socket), stop, nil
}

// served starts a host and its server, and returns a client of that. end ends both.
func served(ctx context.Context, dir string) (h *host, web *http.Client, end func(), err error) {
	if h, err = newHost(ctx, dir); err != nil {
		return nil, nil, nil, err
	}
	web, stop, err := h.serve(filepath.Join(dir, "web.sock"))
	if err != nil {
		return nil, nil, nil, errors.Join(err, h.close())
	}
	return h, web, func() { stop(); h.close() }, nil
}

// serve mounts the API and a function on a unix socket.
func (h *host) serve(socket string) (*http.Client, func(), error) {
	keys := &httpapi.Keys{Engine: h.eng, Keys: []httpapi.Key{{Secret: "bench"}}}
	api, err := httpapi.New(h.eng, httpapi.Options{Identify: keys.Identify})
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/", api)
	mux.Handle("/hello/", httpapi.FunctionHandler(h.eng, project, "hello"))
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	return client(socket), func() { server.Close(); <-done }, nil
}

func client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

// get returns a call that wants the body as the answer.
func get(c *http.Client, path string) call {
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bench"+path, nil)
		if err != nil {
			return err
		}
		return answered(c, r, http.StatusOK, func(text string) bool { return text == body })
	}
}

// post returns a call that makes an execution.
func post(c *http.Client, path string) call {
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bench"+path, strings.NewReader("{}"))
		if err != nil {
			return err
		}
		r.Header = http.Header{"Content-Type": {"application/json"}, "X-Appwrite-Project": {project}, "X-Appwrite-Key": {"bench"}}
		return answered(c, r, http.StatusCreated, func(text string) bool {
			return strings.Contains(text, body) && strings.Contains(text, `"logs":"a line\n"`)
		})
	}
}

func answered(c *http.Client, r *http.Request, status int, good func(string) bool) error {
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != status || !good(string(text))) {
		err = fmt.Errorf("answered %d %s", resp.StatusCode, text)
	}
	return err
}
