package fnbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// target is the suite's function in Go.
func target(t testing.TB) sandboxtest.Target {
	box := fnbox.New(fnbox.Funcs{"fixture": serve})
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	return sandboxtest.Target{
		Driver: box, Runtime: fnbox.RuntimeID, Entrypoint: "fixture",
		Lacks: []string{
			"record", "native", "environ", "count", "closed", // all instances are one process; no records in Go
			"spin", "exit", "child", "garbage", "cwd", "tmp", "load", "throw-logs", // no process of its own
			"commands", "command-fails", "build-canceled", // no build
			"large-head", // no channel
		},
	}
}

func TestDriver(t *testing.T) {
	t.Parallel()
	sandboxtest.Run(t, target(t))
}

func BenchmarkInvoke(b *testing.B) { sandboxtest.Benchmark(b, target(b)) }

func serve(ctx context.Context, c *fnbox.Context) error {
	if answer := answers[c.Req.Path]; answer != nil {
		return answer(ctx, c)
	}
	return c.Text(404, "not found")
}

var answers = map[string]fnbox.Func{
	"/hello": func(_ context.Context, c *fnbox.Context) error {
		return c.JSON(200, map[string]string{"hello": "world"})
	},
	"/echo": func(_ context.Context, c *fnbox.Context) error {
		c.SetHeader("content-type", c.Req.Headers["content-type"])
		return c.Binary(200, c.Req.Body)
	},
	"/request": func(_ context.Context, c *fnbox.Context) error {
		r := &c.Req
		return c.JSON(200, map[string]any{
			"method": r.Method, "scheme": r.Scheme, "host": r.Host, "port": r.Port, "path": r.Path, "queryString": r.QueryString,
			"query": r.Query, "url": r.URL(), "headers": r.Headers, "bodyText": r.Text(),
		})
	},
	"/body":     body,
	"/bodyjson": bodyJSON,
	"/text": func(_ context.Context, c *fnbox.Context) error {
		c.SetHeader("X-Custom", "Value")
		return c.Text(201, "téxt")
	},
	"/binary": func(_ context.Context, c *fnbox.Context) error {
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		return c.Binary(200, all)
	},
	"/json": func(_ context.Context, c *fnbox.Context) error {
		return c.JSON(200, map[string]any{"a": 1, "b": "é", "c": map[string]bool{"d": true}})
	},
	"/empty":    func(_ context.Context, c *fnbox.Context) error { return c.Empty() },
	"/redirect": func(_ context.Context, c *fnbox.Context) error { return c.Redirect(301, "https://example.org/a") },
	"/found": func(_ context.Context, c *fnbox.Context) error {
		c.SetHeader("x-why", "moved")
		return c.Redirect(302, "https://example.org/b")
	},
	"/send":     func(_ context.Context, c *fnbox.Context) error { return c.Text(202, "sent") },
	"/noreturn": func(context.Context, *fnbox.Context) error { return nil },
	"/status": func(_ context.Context, c *fnbox.Context) error {
		n, err := strconv.Atoi(c.Req.Query["n"])
		return errors.Join(err, c.Text(n, "status"))
	},
	"/type": func(_ context.Context, c *fnbox.Context) error {
		c.SetHeader("Content-Type", c.Req.Text())
		return c.Text(200, "typed")
	},
	"/cookies": func(_ context.Context, c *fnbox.Context) error {
		c.AddHeader("set-cookie", "a=1")
		c.AddHeader("set-cookie", "b=2")
		return c.Text(200, "cookies")
	},
	"/crlf": func(_ context.Context, c *fnbox.Context) error {
		c.SetHeader("x-bad", "a\r\nx-evil: 1")
		return c.Text(200, "crlf")
	},
	"/throw": func(_ context.Context, c *fnbox.Context) error {
		c.Log("before throw")
		panic("thrown on purpose")
	},
	"/env": func(_ context.Context, c *fnbox.Context) error {
		if value, ok := c.LookupEnv(c.Req.Query["name"]); ok {
			return c.JSON(200, map[string]any{"value": value})
		}
		return c.JSON(200, map[string]any{"value": nil})
	},
	"/log": func(_ context.Context, c *fnbox.Context) error {
		c.Log("one", "two")
		c.Error("three")
		return c.Text(200, "logged")
	},
	"/logs": func(_ context.Context, c *fnbox.Context) error {
		n, err := strconv.Atoi(c.Req.Query["n"])
		for i := range n {
			c.Log("line " + strconv.Itoa(i))
		}
		return errors.Join(err, c.Text(200, "logged"))
	},
	"/longlog": func(_ context.Context, c *fnbox.Context) error {
		c.Log(strings.Repeat("x", 9000))
		return c.Text(200, "logged")
	},
	"/sleep":   sleep,
	"/hang":    hang,
	"/big":     big,
	"/stream":  stream,
	"/endless": endless,
	"/breaks": func(_ context.Context, c *fnbox.Context) error {
		_, err := io.WriteString(begun(c), "half")
		return errors.Join(err, errors.New("broken on purpose"))
	},
}

func body(ctx context.Context, c *fnbox.Context) error {
	if !strings.HasPrefix(strings.ToLower(c.Req.Headers["content-type"]), "application/json") {
		return c.JSON(200, map[string]any{"body": c.Req.Text()})
	}
	if len(c.Req.Body) == 0 {
		return c.JSON(200, map[string]any{"body": map[string]any{}})
	}
	return bodyJSON(ctx, c)
}

func bodyJSON(_ context.Context, c *fnbox.Context) error {
	var v any
	if err := c.Req.JSON(&v); err != nil {
		return err
	}
	return c.JSON(200, map[string]any{"body": v})
}

func sleep(ctx context.Context, c *fnbox.Context) error {
	ms, err := strconv.Atoi(c.Req.Query["ms"])
	if err != nil {
		return err
	}
	c.Log("sleep start")
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	c.Log("sleep end")
	return c.Text(200, "slept")
}

func hang(ctx context.Context, c *fnbox.Context) error {
	c.Log("hanging")
	<-ctx.Done()
	return ctx.Err()
}

func big(_ context.Context, c *fnbox.Context) error {
	mib, err := strconv.Atoi(c.Req.Query["mib"])
	return errors.Join(err, c.Binary(200, bytes.Repeat([]byte("x"), mib<<20)))
}

func endless(_ context.Context, c *fnbox.Context) error {
	err := c.Head(200)
	for piece := bytes.Repeat([]byte("x"), 64<<10); err == nil; {
		_, err = c.Write(piece)
	}
	return err
}

func stream(_ context.Context, c *fnbox.Context) error {
	n, err := strconv.Atoi(c.Req.Query["n"])
	w := begun(c)
	for i := 0; i < n && err == nil; i++ {
		_, err = fmt.Fprintf(w, "piece %d\n", i)
	}
	return err
}

// begun begins a response; if that fails so will Write.
func begun(c *fnbox.Context) io.Writer {
	c.Head(200)
	return c
}
