package fnbox_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
)

// answer collects what a sink gets.
type answer struct {
	status  int
	headers []sandbox.Header
	body    bytes.Buffer
	fail    error // what Write returns

	mu   sync.Mutex
	logs [3]strings.Builder
}

func (a *answer) Head(status int, h []sandbox.Header) error {
	a.status, a.headers = status, h
	return nil
}

func (a *answer) Write(p []byte) (int, error) {
	if a.fail != nil {
		return 0, a.fail
	}
	return a.body.Write(p)
}

func (a *answer) Log(stream sandbox.Stream, lines []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.logs[stream].Write(lines)
}

func (a *answer) header(name string) string {
	for _, h := range a.headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// start runs f as the only function of a box.
func start(t *testing.T, f fnbox.Func) *fnbox.Box {
	t.Helper()
	box := fnbox.New(fnbox.Funcs{"f": f})
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	spec := sandbox.Spec{ID: "i", Runtime: fnbox.RuntimeID, Entrypoint: "f", Env: map[string]string{"NAME": "value"}}
	if _, err := box.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return box
}

func request(path, body string) sandbox.Request {
	return sandbox.Request{
		Method: "POST", Path: path, Logging: true, Body: strings.NewReader(body),
		Headers: []sandbox.Header{
			{Name: "host", Value: "example.org:8080"}, {Name: "x-forwarded-proto", Value: "https"},
			{Name: "cookie", Value: "a=1"}, {Name: "cookie", Value: "b=2"}, {Name: "x-open-runtimes-secret", Value: "s"},
		},
	}
}

func TestRequestAndResponse(t *testing.T) {
	t.Parallel()
	box := start(t, func(_ context.Context, c *fnbox.Context) error {
		c.Log("one", 2)
		c.Error("three")
		c.AddHeader("Set-Cookie", "a=1")
		c.AddHeader("Set-Cookie", "b=2")
		if _, ok := c.Req.Headers["x-open-runtimes-secret"]; ok {
			t.Error("a reserved header reached the function")
		}
		return c.JSON(201, []string{
			c.Req.Method, c.Req.URL(), c.Req.Query["a"], c.Req.Query["c"], c.Req.Headers["cookie"], c.Req.Text(), c.Env("NAME"),
		})
	})
	var a answer
	r, err := box.Invoke(t.Context(), "i", request("/p?a=b&c==d&&e", "text"), &a)
	if err != nil || r != (sandbox.Result{}) {
		t.Fatalf("got %+v, %v", r, err)
	}
	want := `["POST","https://example.org:8080/p?a=b\u0026c==d\u0026\u0026e","b","=d","a=1; b=2","text","value"]`
	if a.status != 201 || a.body.String() != want {
		t.Errorf("got %d %s, want %s", a.status, &a.body, want)
	}
	if ct := a.header("content-type"); ct != "application/json; charset=utf-8" || len(a.headers) != 3 {
		t.Errorf("headers %v", a.headers)
	}
	if a.logs[sandbox.Stdout].String() != "one 2\n" || a.logs[sandbox.Stderr].String() != "three\n" {
		t.Errorf("logs %q, %q", a.logs[1].String(), a.logs[2].String())
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		f    fnbox.Func
		want string // in the errors
	}{
		"panic":   {func(context.Context, *fnbox.Context) error { panic("on purpose") }, "fnbox_test.go"},
		"error":   {func(context.Context, *fnbox.Context) error { return errors.New("on purpose") }, "on purpose\n"},
		"nothing": {func(context.Context, *fnbox.Context) error { return nil }, "Return statement missing."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var a answer
			if _, err := start(t, tc.f).Invoke(t.Context(), "i", request("/", ""), &a); err != nil {
				t.Fatal(err)
			}
			if got := a.logs[sandbox.Stderr].String(); a.status != 500 || !strings.Contains(got, tc.want) {
				t.Errorf("got %d, %q", a.status, got)
			}
		})
	}
}

func TestUnknownFunctionAnswers503(t *testing.T) {
	t.Parallel()
	var a answer
	if _, err := start(t, nil).Invoke(t.Context(), "i", request("/", ""), &a); err != nil || a.status != 503 {
		t.Errorf("got %d, %v", a.status, err)
	}
}

func TestStreamIsHeldUpAndAborted(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	box := start(t, func(_ context.Context, c *fnbox.Context) error {
		if err := c.Head(200); err != nil {
			return err
		}
		for {
			if _, err := io.WriteString(c, "piece"); err != nil {
				ended <- err
				return err
			}
		}
	})
	broken := errors.New("client went away")
	r, err := box.Invoke(t.Context(), "i", request("/", ""), &answer{fail: broken})
	if !errors.Is(err, broken) || !r.Retire {
		t.Errorf("got %+v, %v", r, err)
	}
	if err := <-ended; !errors.Is(err, broken) {
		t.Errorf("Write returned %v", err)
	}
}

func TestFailureAfterHeadAborts(t *testing.T) {
	t.Parallel()
	box := start(t, func(_ context.Context, c *fnbox.Context) error {
		if err := c.Head(200); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "half"); err != nil {
			return err
		}
		return errors.New("on purpose")
	})
	var a answer
	r, err := box.Invoke(t.Context(), "i", request("/", ""), &a)
	if err != nil || r.Aborted == "" || a.body.String() != "half" {
		t.Errorf("got %+v, %v, %q", r, err, &a.body)
	}
}

func TestSoftTimeout(t *testing.T) {
	t.Parallel()
	box := start(t, func(ctx context.Context, c *fnbox.Context) error {
		<-ctx.Done()
		c.Log("too late")
		return c.Text(200, "late")
	})
	r := request("/", "")
	r.Timeout = time.Millisecond
	var a answer
	res, err := box.Invoke(t.Context(), "i", r, &a)
	if err != nil || !res.TimedOut || !res.Retire || a.status != 500 {
		t.Errorf("got %+v, %v, %d", res, err, a.status)
	}
	if got := a.logs[sandbox.Stderr].String(); got != "Execution timed out.\n" {
		t.Errorf("logged %q", got)
	}
}

func TestCancelEndsTheCallAlone(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	box := start(t, func(_ context.Context, c *fnbox.Context) error {
		if c.Req.Path == "/deaf" {
			close(entered)
			<-release
		}
		return c.Text(200, "ok")
	})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	r, err := box.Invoke(ctx, "i", request("/deaf", ""), &answer{})
	if !errors.Is(err, context.Canceled) || !r.Retire {
		t.Errorf("got %+v, %v", r, err)
	}
	var a answer
	if _, err := box.Invoke(t.Context(), "i", request("/", ""), &a); err != nil || a.body.String() != "ok" {
		t.Errorf("the next call got %q, %v", &a.body, err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	box := start(t, func(ctx context.Context, _ *fnbox.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	ended := make(chan error, 1)
	go func() {
		_, err := box.Invoke(t.Context(), "i", request("/", ""), &answer{})
		ended <- err
	}()
	<-entered
	if err := box.Stop(t.Context(), "i"); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, sandbox.ErrGone) {
		t.Errorf("the running call got %v", err)
	}
	r, err := box.Invoke(t.Context(), "i", request("/", ""), &answer{})
	if !errors.Is(err, sandbox.ErrGone) || !r.Unsent {
		t.Errorf("the next call got %+v, %v", r, err)
	}
	if list, err := box.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left are %v, %v", list, err)
	}
}
