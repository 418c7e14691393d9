// A harness that does not keep to the protocol. What it does is in the variable
// ATTACK; it answers calls of "/" as it should until the attack begins.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	call = iota + 1
	head
	data
	window
	reset
	logs
	ready
	bind
	bound
)

const end = 1

var channel = os.NewFile(3, "channel")

func frame(id uint32, kind, flags byte, payload string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(6+len(payload)))
	b = binary.LittleEndian.AppendUint32(b, id)
	return append(append(b, kind, flags), payload...)
}

func send(id uint32, kind, flags byte, payload string) {
	if _, err := channel.Write(frame(id, kind, flags, payload)); err != nil {
		os.Exit(0)
	}
}

func headed(json, body string) string {
	return string(binary.LittleEndian.AppendUint16(nil, uint16(len(json)))) + json + body
}

func answer(id uint32, body string) { send(id, head, end, headed(`{"s":200,"h":[]}`, body)) }

// next reads a frame.
func next() (id uint32, kind byte, payload []byte) {
	var h [10]byte
	if _, err := io.ReadFull(channel, h[:]); err != nil {
		os.Exit(0)
	}
	payload = make([]byte, binary.LittleEndian.Uint32(h[:])-6)
	if _, err := io.ReadFull(channel, payload); err != nil {
		os.Exit(0)
	}
	return binary.LittleEndian.Uint32(h[4:]), h[8], payload
}

// calls returns the next call of the attack; those of "/" are answered.
func calls() uint32 {
	for {
		id, kind, payload := next()
		if kind != call {
			continue
		}
		var c struct{ P string }
		json.NewDecoder(bytes.NewReader(payload[2:])).Decode(&c)
		if c.P == "/" {
			answer(id, "fine")
			continue
		}
		return id
	}
}

func stall() { time.Sleep(time.Hour) }

func main() {
	attack := os.Getenv("ATTACK")
	if strings.HasPrefix(attack, "http ") {
		serve(strings.TrimPrefix(attack, "http "))
		return
	}
	switch attack {
	case "no ready":
		stall()
	case "huge ready":
		send(0, ready, 0, `{"protocol":1,"version":"`+strings.Repeat("x", 1<<20-100)+`"}`)
	case "other protocol":
		send(0, ready, 0, `{"protocol":2}`)
	default:
		send(0, ready, 0, `{"protocol":1,"version":"1"}`)
	}
	for {
		if _, kind, _ := next(); kind == bind {
			break
		}
	}
	if attack == "no bound" {
		stall()
	}
	send(0, bound, 0, `{"error":""}`)
	if attack == "reply before the request" {
		for id := range uint32(100) {
			answer(id, "early")
		}
	}
	id := calls()
	if act, ok := attacks[attack]; ok {
		act(id)
	}
	answer(id, "fine") // where the attack has not ended the channel
	for {
		answer(calls(), "fine")
	}
}

var attacks = map[string]func(id uint32){
	"length of 4 GiB":  func(id uint32) { channel.Write([]byte("\xff\xff\xff\xff\x01\x00\x00\x00\x02\x01")) },
	"length of 2 MiB":  func(id uint32) { send(id, head, 0, strings.Repeat("x", 2<<20)) },
	"short length":     func(id uint32) { channel.Write(make([]byte, 10)) },
	"garbage":          func(id uint32) { channel.Write(bytes.Repeat([]byte{0xff}, 4096)) },
	"text":             func(id uint32) { io.WriteString(channel, "HTTP/1.1 200 OK\r\n\r\n") },
	"unknown type":     func(id uint32) { send(id, 200, 0, "") },
	"type of the host": func(id uint32) { send(id, call, 0, headed("{}", "")) },
	"unknown flags":    func(id uint32) { send(id, head, 0xfe, headed("{}", "")) },
	"second ready":     func(id uint32) { send(0, ready, 0, `{"protocol":1}`) },
	"second bound":     func(id uint32) { send(0, bound, 0, `{"error":""}`) },
	"second head": func(id uint32) {
		send(id, head, 0, headed(`{"s":200}`, ""))
		send(id, head, 0, headed(`{"s":200}`, ""))
	},
	"flood of hints":     func(id uint32) { hints(id) },
	"head is no JSON":    func(id uint32) { send(id, head, end, headed(`{"s":`, "")) },
	"head of an array":   func(id uint32) { send(id, head, end, headed(`[]`, "")) },
	"field of one part":  func(id uint32) { send(id, head, end, headed(`{"s":200,"h":[["x"]]}`, "")) },
	"status of text":     func(id uint32) { send(id, head, end, headed(`{"s":"200"}`, "")) },
	"status of a googol": func(id uint32) { send(id, head, end, headed(`{"s":1`+strings.Repeat("0", 100)+`}`, "")) },
	"window overrun": func(id uint32) {
		send(id, head, 0, headed(`{"s":200}`, ""))
		for {
			send(id, data, 0, strings.Repeat("x", 64<<10))
		}
	},
	"data before head": func(id uint32) { send(id, data, 0, "x") },
	"credit of 4 GiB":  func(id uint32) { send(id, window, 0, "\xff\xff\xff\xff") },
	"log of stream 9":  func(id uint32) { send(id, logs, 0, "\x09line\n") },
	"wrong id":         func(id uint32) { answer(id+1000, "wrong") },
	"duplicate":        func(id uint32) { answer(id, "fine"); answer(id, "again") },
	"foreign ids":      foreign,
	"reset of others": func(id uint32) {
		for n := range uint32(100000) {
			send(id+1+n, reset, end, "why")
		}
	},
	"partial frame":      func(id uint32) { channel.Write(frame(id, head, end, headed(`{"s":200}`, "body"))[:14]); stall() },
	"partial length":     func(id uint32) { channel.Write([]byte{20}); stall() },
	"a byte at a time":   slowly,
	"does not read":      func(id uint32) { stall() },
	"closes the channel": func(id uint32) { syscall.Close(3); stall() },
	"ends half of it":    func(id uint32) { syscall.Shutdown(3, syscall.SHUT_WR); stall() },
	"status 0":           func(id uint32) { send(id, head, end, headed(`{"s":0,"h":[]}`, "fine")) },
	"status 99":          func(id uint32) { send(id, head, end, headed(`{"s":99,"h":[]}`, "fine")) },
	"status 1000":        func(id uint32) { send(id, head, end, headed(`{"s":1000,"h":[]}`, "fine")) },
	"status -1":          func(id uint32) { send(id, head, end, headed(`{"s":-1,"h":[]}`, "fine")) },
	"header injection": func(id uint32) {
		send(id, head, end, headed(`{"s":200,"h":[["x\r\ny","a\r\nset-cookie: b\u0000"],["content-length","9"],["transfer-encoding","chunked"]]}`, "fine"))
	},
	"huge header block": func(id uint32) {
		send(id, head, end, headed(`{"s":200,"h":[`+strings.Repeat(`["a","b"],`, 6000)+`["x","y"]]}`, "fine"))
	},
	"rights":          rights,
	"flood of output": output,
	"line without an end": func(id uint32) {
		for range 64 {
			os.Stdout.WriteString(strings.Repeat("x", 1<<20))
		}
	},
	"flood of logs": func(id uint32) {
		for range 300 {
			send(id, logs, 0, "\x01"+strings.Repeat("x", 1<<20-100)+"\n")
		}
	},
	"log of bytes": func(id uint32) { send(id, logs, 0, "\x01\x1b[2J\xff\x00\r no end") },
	"log after the answer": func(id uint32) {
		answer(id, "fine")
		send(id, logs, 0, "\x01late\n")
	},
	"flood of empty frames": func(id uint32) {
		for range 100000 {
			send(id, window, 0, "\x00\x00\x00\x00")
		}
	},
}

func hints(id uint32) {
	for range 1000 {
		send(id, head, 0, headed(`{"s":103,"h":[]}`, ""))
	}
}

// foreign answers calls that others make.
func foreign(id uint32) {
	for n := range uint32(2000) {
		if n != id {
			answer(n, "foreign")
			send(n, logs, 0, "\x01foreign\n")
		}
	}
}

func slowly(id uint32) {
	for _, b := range frame(id, head, end, headed(`{"s":200,"h":[]}`, "fine")) {
		channel.Write([]byte{b})
		time.Sleep(time.Millisecond)
	}
}

// rights sends descriptors, as many as the kernel takes.
func rights(id uint32) {
	all := make([]int, 200)
	for i, fd := 0, marker(); i < len(all); i++ {
		all[i] = fd
	}
	for range 50 {
		if err := syscall.Sendmsg(3, frame(id, window, 0, "\x00\x00\x00\x00"), syscall.UnixRights(all...), nil, 0); err != nil {
			break // enough are under way
		}
	}
}

// marker opens a file that can be recognized.
func marker() int {
	fd, err := syscall.Open(os.TempDir()+"/fnkit-attack-rights", syscall.O_CREAT|syscall.O_RDWR, 0o600)
	if err != nil {
		os.Exit(1)
	}
	return fd
}

// output prints 1 GiB.
func output(uint32) {
	piece := []byte(strings.Repeat("flood of output\n", 16<<10))
	for range 1 << 30 / len(piece) {
		os.Stdout.Write(piece)
	}
}

// serve attacks as a program that serves HTTP.
func serve(attack string) {
	l, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		os.Exit(1)
	}
	const fine = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		first := make([]byte, 4096)
		n, _ := c.Read(first)
		if bytes.HasPrefix(first[:n], []byte("GET / ")) {
			io.WriteString(c, fine)
			c.Close()
			continue
		}
		switch attack {
		case "partial head":
			io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-")
			stall()
		case "partial body":
			io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfine")
			stall()
		case "does not read":
			stall()
		case "endless head":
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for err == nil {
				_, err = io.WriteString(c, "x-more: and more\r\n")
			}
		case "endless chunk size":
			io.WriteString(c, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
			for err == nil {
				_, err = io.WriteString(c, "0000000000000000")
			}
		case "rights":
			raw, _ := c.(*net.UnixConn).File()
			fd := marker()
			for range 50 {
				syscall.Sendmsg(int(raw.Fd()), []byte("H"), syscall.UnixRights(fd, fd), nil, 0)
			}
			raw.Close()
		case "flood of output":
			output(0)
			io.WriteString(c, fine)
		case "line without an end":
			for range 64 {
				os.Stdout.WriteString(strings.Repeat("x", 1<<20))
			}
			io.WriteString(c, fine)
		}
		c.Close()
	}
}
