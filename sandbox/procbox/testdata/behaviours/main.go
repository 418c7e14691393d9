package handler

import (
	"fmt"
	"strconv"
	"time"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

var late = make(chan struct{})

func Main(c openruntimes.Context) openruntimes.Response {
	switch c.Req.Path {
	case "/enforced":
		h := c.Req.Headers
		secret := h["x-open-runtimes-secret"]
		if secret == "" {
			secret = "none"
		}
		return c.Res.Text(h["x-own"]+" "+h["x-open-runtimes-kept"]+" "+secret, c.Res.WithHeaders(map[string]string{"X-Open-Runtimes-Log-Id": "x", "X-Yes": "yes"}))
	case "/values":
		c.Log("text", 1, true, map[string]any{"a": []any{1, "é"}}, []int{1, 2}, nil)
		return c.Res.Empty()
	case "/binary":
		c.Log("\x1b[31mred\x00", "\xff")
		fmt.Println("\x1b[31mred\x00\xff")
		return c.Res.Empty()
	case "/late":
		go func() {
			time.Sleep(20 * time.Millisecond)
			c.Log("late")
			close(late)
		}()
		return c.Res.Text("early")
	case "/waits":
		<-late
		c.Log("mine")
		return c.Res.Text("waited")
	case "/stray":
		go panic("stray")
		time.Sleep(time.Minute)
	case "/size":
		return c.Res.Text(strconv.Itoa(len(c.Req.BodyBinary())))
	}
	return c.Res.Text("not found", c.Res.WithStatusCode(404))
}
