package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fnkit/fnkit/sandbox/fnbox"
)

const runtimeID = fnbox.RuntimeID

// everyByte is a body that is no text.
var everyByte = func() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}()

// functions are the code that the tests deploy, by entrypoint.
var functions = fnbox.Funcs{
	"echo": func(_ context.Context, c *fnbox.Context) error {
		path := c.Req.Path
		if c.Req.QueryString != "" {
			path += "?" + c.Req.QueryString
		}
		return c.JSON(200, map[string]string{"method": c.Req.Method, "path": path, "body": c.Req.Text()})
	},
	"hello": func(_ context.Context, c *fnbox.Context) error {
		c.Log("a line")
		c.SetHeader("x-more", "1")
		return c.Text(200, "hello")
	},
	"mirror": func(_ context.Context, c *fnbox.Context) error { return c.Binary(200, c.Req.Body) },
	"request": func(_ context.Context, c *fnbox.Context) error {
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s?%s %s\n", c.Req.Method, c.Req.Path, c.Req.QueryString, c.Req.Text())
		for _, name := range slices.Sorted(maps.Keys(c.Req.Headers)) {
			fmt.Fprintf(&b, "%s: %s\n", name, c.Req.Headers[name])
		}
		return c.Text(200, b.String())
	},
	"cookies": func(_ context.Context, c *fnbox.Context) error {
		c.AddHeader("set-cookie", "a=1")
		c.AddHeader("set-cookie", "b=2")
		return c.Text(http.StatusTeapot, "tea")
	},
	"stream": func(ctx context.Context, c *fnbox.Context) error {
		if err := c.Head(200); err != nil {
			return err
		}
		if _, err := c.Write([]byte("first\n")); err != nil {
			return err
		}
		passGate(ctx, c.Req.Text())
		_, err := c.Write([]byte("second\n"))
		return err
	},
	"slowbody": func(ctx context.Context, c *fnbox.Context) error {
		if err := c.Head(200); err != nil {
			return err
		}
		passGate(ctx, c.Req.Text())
		_, err := c.Write([]byte("late"))
		return err
	},
	"endless": func(_ context.Context, c *fnbox.Context) error {
		if err := c.Head(200); err != nil {
			return err
		}
		for {
			if _, err := c.Write(everyByte); err != nil {
				gate, _ := gates.Load(c.Req.Text())
				close(gate.(chan struct{}))
				return err
			}
		}
	},
	"bodiless": func(_ context.Context, c *fnbox.Context) error {
		status, err := strconv.Atoi(c.Req.Query["status"])
		if err != nil {
			return err
		}
		return c.Text(status, "more than HTTP can carry")
	},
	"gate": func(ctx context.Context, c *fnbox.Context) error {
		passGate(ctx, c.Req.Text())
		return c.Text(200, "")
	},
	"talk": func(ctx context.Context, c *fnbox.Context) error {
		c.Log("one")
		passGate(ctx, c.Req.Text())
		c.Error("tw\xff\no")
		return c.Text(200, "")
	},
	"breakoff": func(_ context.Context, c *fnbox.Context) error {
		if err := c.Head(200); err != nil {
			return err
		}
		if _, err := c.Write([]byte("half")); err != nil {
			return err
		}
		return errors.New("no more")
	},
	"block":    func(ctx context.Context, _ *fnbox.Context) error { <-ctx.Done(); return ctx.Err() },
	"fail":     func(context.Context, *fnbox.Context) error { return errors.New("on purpose") },
	"notfound": func(_ context.Context, c *fnbox.Context) error { return c.Text(404, "") },
	"status42": func(_ context.Context, c *fnbox.Context) error { return c.Text(42, "") },
	"crlf": func(_ context.Context, c *fnbox.Context) error {
		c.SetHeader("x-bad", "a\r\nx-evil: 1")
		return c.Text(200, "")
	},
	"big":    func(_ context.Context, c *fnbox.Context) error { return c.Text(200, strings.Repeat("x", 1001)) },
	"binary": func(_ context.Context, c *fnbox.Context) error { return c.Binary(200, everyByte) },
	"key":    func(_ context.Context, c *fnbox.Context) error { return c.Text(200, c.Req.Headers["x-appwrite-key"]) },
	"address": func(_ context.Context, c *fnbox.Context) error {
		return c.Text(200, c.Req.Headers["x-appwrite-client-ip"])
	},
}

// gates hold functions up until a test opens them.
var gates sync.Map

// newGate returns the name of a gate that is shut, and what opens it; it opens
// at the end of the test at the latest.
func newGate(t *testing.T) (name string, open func()) {
	t.Helper()
	g := &gate{open: make(chan struct{}), reached: make(chan struct{})}
	open = sync.OnceFunc(func() { close(g.open) })
	gates.Store(t.Name(), g)
	t.Cleanup(open)
	return t.Name(), open
}

// gate holds calls up until it is opened.
type gate struct {
	open    chan struct{}
	reached chan struct{} // closed when a call is there
	first   sync.Once
}

// reached waits until a call is at the gate.
func reached(name string) {
	g, _ := gates.Load(name)
	<-g.(*gate).reached
}

func passGate(ctx context.Context, name string) {
	v, _ := gates.Load(name)
	g := v.(*gate)
	g.first.Do(func() { close(g.reached) })
	select {
	case <-g.open:
	case <-ctx.Done():
	}
}
