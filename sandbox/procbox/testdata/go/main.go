// Package handler is the function the driver's tests call.
package handler

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

type (
	object  = map[string]any
	fields  = map[string]string
	context = openruntimes.Context
	answer  = openruntimes.Response
)

var count atomic.Int64

var paths = map[string]func(c *context) answer{
	"/hello":    func(c *context) answer { return c.Res.Json(object{"hello": "world"}) },
	"/echo":     echo,
	"/request":  request,
	"/body":     func(c *context) answer { return c.Res.Json(object{"body": c.Req.Body()}) },
	"/bodyjson": bodyJSON,
	"/text":     func(c *context) answer { return with(c, "téxt", 201, fields{"X-Custom": "Value"}) },
	"/binary":   binary,
	"/json":     func(c *context) answer { return c.Res.Json(object{"a": 1, "b": "é", "c": object{"d": true}}) },
	"/empty":    func(c *context) answer { return c.Res.Empty() },
	"/redirect": func(c *context) answer { return c.Res.Redirect("https://example.org/a") },
	"/found": func(c *context) answer {
		return c.Res.Redirect("https://example.org/b", c.Res.WithStatusCode(302), c.Res.WithHeaders(fields{"x-why": "moved"}))
	},
	"/send":     func(c *context) answer { return c.Res.Send("sent", c.Res.WithStatusCode(202)) },
	"/noreturn": func(*context) answer { return answer{} },
	"/record":   func(*context) answer { return answer{Body: []byte("own")} },
	"/status":   func(c *context) answer { return with(c, "status", number(c, "n"), nil) },
	"/type":     func(c *context) answer { return with(c, "typed", 200, fields{"Content-Type": c.Req.BodyText()}) },
	"/crlf":     func(c *context) answer { return with(c, "crlf", 200, fields{"x-bad": "a\r\nx-evil: 1"}) },
	"/throw":    throw,
	"/env":      env,
	"/environ":  environ,
	"/log":      log,
	"/logs":     logs,
	"/longlog": func(c *context) answer {
		c.Log(strings.Repeat("x", 9000))
		return c.Res.Text("logged")
	},
	"/native": func(c *context) answer {
		fmt.Println("native out")
		return c.Res.Text("native")
	},
	"/sleep": sleep,
	"/hang": func(c *context) answer {
		c.Log("hanging")
		select {}
	},
	"/spin": func(c *context) answer {
		c.Log("spinning")
		for {
		}
	},
	"/exit": func(c *context) answer {
		c.Log("exiting")
		time.Sleep(50 * time.Millisecond)
		os.Exit(3)
		return answer{}
	},
	"/count": func(c *context) answer { return c.Res.Text(strconv.FormatInt(count.Add(1), 10)) },
	"/big":   func(c *context) answer { return c.Res.Text(strings.Repeat("x", number(c, "mib")<<20)) },
	"/alloc": func(c *context) answer {
		if held := strings.Repeat("x", number(c, "mib")<<20); held == "" {
			return c.Res.Text("")
		}
		return c.Res.Text("allocated")
	},
	"/cwd":      cwd,
	"/tmp":      tmp,
	"/child":    child,
	"/children": func(c *context) answer { return done(c, "started", children(number(c, "n"))) },
	"/burn":     func(c *context) answer { return done(c, "burned", burn(number(c, "ms"))) },
	"/fill":     func(c *context) answer { return done(c, "written", fill(number(c, "mib"))) },
	"/garbage":  garbage,
}

// Main is the function.
func Main(Context openruntimes.Context) openruntimes.Response {
	if path := paths[Context.Req.Path]; path != nil {
		return path(&Context)
	}
	return with(&Context, "not found", 404, nil)
}

func with(c *context, text string, status int, headers fields) answer {
	return c.Res.Text(text, c.Res.WithStatusCode(status), c.Res.WithHeaders(headers))
}

func number(c *context, name string) int { return must(strconv.Atoi(c.Req.Query[name])) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func echo(c *context) answer {
	headers := fields{}
	if t, ok := c.Req.Headers["content-type"]; ok {
		headers["content-type"] = t
	}
	return c.Res.Binary(c.Req.BodyBinary(), c.Res.WithHeaders(headers))
}

func request(c *context) answer {
	r := c.Req
	return c.Res.Json(object{
		"method": r.Method, "scheme": r.Scheme, "host": r.Host, "port": r.Port, "path": r.Path, "queryString": r.QueryString,
		"query": r.Query, "url": r.Url, "headers": r.Headers, "bodyText": r.BodyText(),
	})
}

func bodyJSON(c *context) answer {
	var body any
	if err := c.Req.BodyJson(&body); err != nil {
		panic(err)
	}
	return c.Res.Json(object{"body": body})
}

func binary(c *context) answer {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return c.Res.Binary(all)
}

func throw(c *context) answer {
	c.Log("before throw")
	panic(errors.New("thrown on purpose"))
}

func env(c *context) answer {
	if value, ok := os.LookupEnv(c.Req.Query["name"]); ok {
		return c.Res.Json(object{"value": value})
	}
	return c.Res.Json(object{"value": nil})
}

func environ(c *context) answer {
	all := fields{}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		all[name] = value
	}
	return c.Res.Json(all)
}

func log(c *context) answer {
	c.Log("one", "two")
	c.Error("three")
	return c.Res.Text("logged")
}

func logs(c *context) answer {
	for i := range number(c, "n") {
		c.Log("line " + strconv.Itoa(i))
	}
	return c.Res.Text("logged")
}

func sleep(c *context) answer {
	c.Log("sleep start")
	time.Sleep(time.Duration(number(c, "ms")) * time.Millisecond)
	c.Log("sleep end")
	return c.Res.Text("slept")
}

func cwd(c *context) answer { return c.Res.Text(must(os.Getwd())) }

func tmp(c *context) answer {
	file := filepath.Join(os.TempDir(), "written")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		panic(err)
	}
	return c.Res.Text(file)
}

func child(c *context) answer {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	return c.Res.Text(strconv.Itoa(cmd.Process.Pid))
}

func done(c *context, text string, err error) answer {
	if err != nil {
		panic(err)
	}
	return c.Res.Text(text)
}

// children starts processes and ends them all.
func children(n int) (err error) {
	var all []*exec.Cmd
	for err == nil && len(all) < n {
		cmd := exec.Command("sleep", "1000")
		if err = cmd.Start(); err == nil {
			all = append(all, cmd)
		}
	}
	for _, cmd := range all {
		cmd.Process.Kill()
	}
	for _, cmd := range all {
		cmd.Wait()
	}
	return err
}

// burn uses milliseconds of the process's CPU time.
func burn(ms int) error {
	for end := used() + time.Duration(ms)*time.Millisecond; used() < end; {
	}
	return nil
}

func used() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fill writes mebibytes to a file, and removes it.
func fill(mib int) error {
	f, err := os.Create(filepath.Join(os.TempDir(), "filled"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for range mib {
		if _, err := f.WriteString(strings.Repeat("x", 1<<20)); err != nil {
			return err
		}
	}
	return nil
}

func garbage(c *context) answer {
	if _, err := syscall.Write(3, []byte(strings.Repeat("\xff", 64))); err != nil {
		return c.Res.Text("no")
	}
	select {}
}
