package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// first measures the first call of a deployment that nobody has called, through
// the HTTP API, in turns with a container that is started for the same code.
func first(ctx context.Context, o options, dir string) error {
	dir = filepath.Join(dir, "first")
	h, web, end, err := served(ctx, dir)
	if err != nil {
		return err
	}
	defer end()
	image, missing := newImage(ctx)
	defer image.remove()
	var calls, warm, containers []time.Duration
	for n := range o.starts + ramp {
		id := fmt.Sprintf("f%d", n)
		call := post(web, "/v1/functions/"+id+"/executions")
		if err := h.fresh(ctx, id, n); err != nil {
			return err
		}
		took, err := timeOf(ctx, call)
		if err != nil {
			return err
		}
		again, err := timeOf(ctx, call)
		if err == nil {
			err = h.p.DeleteFunction(ctx, engine.System, id)
		}
		if err != nil {
			return err
		}
		if n < ramp {
			continue
		}
		calls, warm = append(calls, took), append(warm, again)
		if missing == "" {
			took, err := image.run(ctx)
			if err != nil {
				return err
			}
			containers = append(containers, took)
		}
	}
	fmt.Print("\n| what | p50 ms | p90 ms | least ms |\n|---|---|---|---|\n")
	row := func(what string, all []time.Duration) {
		fmt.Printf("| %s | %.1f | %.1f | %.1f |\n", what, quantile(all, 0.5), quantile(all, 0.9), quantile(all, 0))
	}
	row("first call of a deployment, HTTP API, spares ready", calls)
	row("second call of it", warm)
	if missing != "" {
		fmt.Printf("\nWithout docker run: %s.\n", missing)
		return nil
	}
	row("docker run of the same code", containers)
	ratio := quantile(calls, 0.5) / quantile(containers, 0.5)
	fmt.Println()
	bar{"first call of a deployment, ms", "–", quantile(calls, 0.5), 6, true, ""}.print()
	bar{"first call of a deployment", "docker run", ratio, 0.1, true, ""}.print()
	return nil
}

// ramp is how many first calls it takes until as many spares are kept as there can be.
const ramp = 2 * engine.DefaultSpares

// fresh deploys a function and waits until spares are ready and nothing else is going on.
func (h *host) fresh(ctx context.Context, id string, n int) error {
	if err := h.build(ctx, id, logger); err != nil {
		return err
	}
	spares := min(max(n, 1), engine.DefaultSpares)
	return until(ctx, "spares", func() bool {
		all, err := h.box.List(ctx)
		return err == nil && len(all) == 0 && h.box.Spares(h.runtime) >= spares
	})
}

func timeOf(ctx context.Context, c call) (time.Duration, error) {
	began := time.Now()
	err := c(ctx)
	return time.Since(began), err
}

// quantile returns one of some times, in milliseconds.
func quantile(all []time.Duration, q float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return float64(all[min(len(all)-1, int(q*float64(len(all))))].Microseconds()) / 1000
}

// image is one of Docker's with Node.js, its libraries and a function.
type image string

// once calls the function of the image as a server would, and prints its answer.
const once = `require("/code/index.js")({ log: console.error, res: { text: (body) => ({ body }) } }).then((r) => console.log(r.body));`

// newImage makes an image out of the machine's own Node.js. missing says why it could not.
func newImage(ctx context.Context) (i image, missing string) {
	if err := exec.CommandContext(ctx, "docker", "info").Run(); err != nil {
		return "", "no Docker answers"
	}
	content, err := imageContent(ctx)
	if err != nil {
		return "", err.Error()
	}
	i = image(fmt.Sprintf("fnkit-bench-%d", os.Getpid()))
	cmd := exec.CommandContext(ctx, "docker", "import", "-", string(i))
	cmd.Stdin = content
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Sprintf("docker import: %s %s", err, out)
	}
	return i, ""
}

func imageContent(ctx context.Context) (*bytes.Buffer, error) {
	node, err := exec.LookPath("node")
	if err == nil {
		node, err = filepath.EvalSymlinks(node)
	}
	if err != nil {
		return nil, err
	}
	libraries, err := exec.CommandContext(ctx, "ldd", node).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd: %w", err)
	}
	var all bytes.Buffer
	w := tar.NewWriter(&all)
	add := func(name string, content []byte) error {
		err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: 0o755, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write(content)
		}
		return err
	}
	errs := []error{add("code/index.js", []byte(logger)), add("code/once.js", []byte(once))}
	files := map[string]string{"/node": node}
	for field := range strings.FieldsSeq(string(libraries)) {
		if filepath.IsAbs(field) {
			files[field] = field
		}
	}
	for name, file := range files {
		content, err := os.ReadFile(file)
		if err == nil {
			err = add(name, content)
		}
		errs = append(errs, err)
	}
	return &all, errors.Join(append(errs, w.Close())...)
}

// run starts a container and returns how long it took to answer. It is gone afterwards.
func (i image) run(ctx context.Context) (took time.Duration, err error) {
	cmd := exec.CommandContext(ctx, "docker", "run", "--rm", "--network", "none", string(i), "/node", "/code/once.js")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	answer := make([]byte, len(body))
	_, err = io.ReadFull(out, answer)
	took = time.Since(began)
	if err == nil && string(answer) != body {
		err = fmt.Errorf("the container answered %q", answer)
	}
	return took, errors.Join(err, cmd.Wait())
}

func (i image) remove() {
	if i != "" {
		_ = exec.Command("docker", "rmi", "-f", string(i)).Run()
	}
}
