package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fnkit/fnkit/engine"
)

// talker logs the time, in milliseconds, as often as it is asked to.
const talker = `module.exports = async ({ req, res, log }) => {
  for (let n = Number(req.query.lines); n > 0; n--) {
    log(String(Date.now()));
    await new Promise((done) => setTimeout(done, 10));
  }
  return res.text("` + body + `");
};`

// livelog measures how long after it was logged a line of a running call is there for
// whoever follows the log, with eight calls at once.
func livelog(ctx context.Context, o options, dir string) error {
	dir = filepath.Join(dir, "livelog")
	h, web, end, err := served(ctx, dir)
	if err != nil {
		return err
	}
	defer end()
	if err := h.build(ctx, "talker", talker); err != nil {
		return err
	}
	fmt.Printf("\n8 calls at once, each with %d lines, one every 10 ms:\n\n| a line is seen by | lines | p50 ms | p90 ms | p99 ms | last ms |\n|---|---|---|---|---|---|\n", o.lines)
	var bars []bar
	for _, way := range []struct {
		name   string
		follow func(ctx context.Context, id string, seen func(lines []byte)) error
	}{
		{"Project.FollowLogs", h.follow},
		{"server-sent events", sse(web)},
	} {
		all, err := h.listen(ctx, o.lines, way.follow)
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		fmt.Printf("| %s | %d | %.0f | %.0f | %.0f | %.0f |\n", way.name, len(all), quantile(all, 0.5), quantile(all, 0.9), quantile(all, 0.99), quantile(all, 1))
		bars = append(bars, bar{"a line is seen by " + way.name + ", p99 ms", "–", quantile(all, 0.99), 50, true, ""})
	}
	fmt.Println()
	for _, b := range bars {
		b.print()
	}
	return nil
}

// listen makes the calls, follows them all, and returns how old each line was when it was seen.
func (h *host) listen(ctx context.Context, lines int, follow func(context.Context, string, func([]byte)) error) (ages []time.Duration, err error) {
	const calls = 8
	var mu sync.Mutex
	var errs []error
	var running sync.WaitGroup
	for range calls {
		x, err := h.p.Execute(ctx, engine.System, "talker", engine.ExecuteParams{Async: true, Path: "/?lines=" + strconv.Itoa(lines)})
		if err != nil {
			return nil, err
		}
		running.Go(func() {
			own, err := agesOf(ctx, x.ID, follow)
			if err == nil && len(own) != lines {
				err = fmt.Errorf("saw %d lines of %d", len(own), lines)
			}
			mu.Lock()
			defer mu.Unlock()
			ages, errs = append(ages, own...), append(errs, err)
		})
	}
	running.Wait()
	return ages, errors.Join(errs...)
}

func agesOf(ctx context.Context, id string, follow func(context.Context, string, func([]byte)) error) (ages []time.Duration, err error) {
	wrong := error(nil)
	err = follow(ctx, id, func(lines []byte) {
		now := time.Now()
		for line := range bytes.Lines(lines) {
			ms, err := strconv.ParseInt(strings.TrimSuffix(string(line), "\n"), 10, 64)
			wrong = errors.Join(wrong, err)
			ages = append(ages, now.Sub(time.UnixMilli(ms)))
		}
	})
	return ages, errors.Join(err, wrong)
}

func (h *host) follow(ctx context.Context, id string, seen func([]byte)) error {
	f, err := h.p.FollowLogs(ctx, engine.System, "talker", id, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		chunks, err := f.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, c := range chunks {
			seen(c.Data)
		}
	}
}

// sse follows a log by its route.
func sse(c *http.Client) func(context.Context, string, func([]byte)) error {
	return func(ctx context.Context, id string, seen func([]byte)) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bench/v1/functions/talker/executions/"+id+"/logs", nil)
		if err != nil {
			return err
		}
		r.Header = http.Header{"X-Appwrite-Project": {project}, "X-Appwrite-Key": {"bench"}}
		resp, err := c.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var chunk struct{ Data string }
			if err := json.Unmarshal([]byte(data), &chunk); err != nil {
				return err
			}
			seen([]byte(chunk.Data))
		}
		return lines.Err()
	}
}
