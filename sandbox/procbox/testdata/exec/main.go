// The function of package sandboxtest as a program that serves HTTP itself. It shows
// what such a program needs: to take over descriptor 3, and nothing else.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	listener, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(handle)))
}

var count, closed atomic.Int64

const textType = "text/plain; charset=utf-8"

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("content-type", textType)
	w.WriteHeader(status)
	io.WriteString(w, body)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("content-type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(v)
}

func handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	q := r.URL.Query()
	n, _ := strconv.Atoi(q.Get("n"))
	switch r.URL.Path {
	case "/hello":
		answer(w, map[string]any{"hello": "world"})
	case "/echo":
		w.Header().Set("content-type", r.Header.Get("content-type"))
		w.Write(body)
	case "/request":
		answer(w, request(r, string(body)))
	case "/body", "/bodyjson":
		parsed(w, r, body)
	case "/text":
		w.Header().Set("X-Custom", "Value")
		text(w, 201, "téxt")
	case "/printed":
		fmt.Println("\x1b[31mred\x00\xff")
		w.WriteHeader(204)
	case "/binary":
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		w.Write(all)
	case "/json":
		answer(w, map[string]any{"a": 1, "b": "é", "c": map[string]any{"d": true}})
	case "/empty":
		w.WriteHeader(204)
	case "/redirect":
		w.Header().Set("location", "https://example.org/a")
		w.WriteHeader(301)
	case "/found":
		w.Header().Set("location", "https://example.org/b")
		w.Header().Set("x-why", "moved")
		w.WriteHeader(302)
	case "/send":
		text(w, 202, "sent")
	case "/status":
		raw(w, fmt.Sprintf("HTTP/1.1 %03d Any\r\ncontent-length: 6\r\n\r\nstatus", n))
	case "/cookies":
		w.Header().Add("set-cookie", "a=1")
		w.Header().Add("set-cookie", "b=2")
		text(w, 200, "cookies")
	case "/env":
		var value any
		if v, ok := os.LookupEnv(q.Get("name")); ok {
			value = v
		}
		answer(w, map[string]any{"value": value})
	case "/environ":
		all := map[string]string{}
		for _, kv := range os.Environ() {
			k, v, _ := strings.Cut(kv, "=")
			all[k] = v
		}
		answer(w, all)
	case "/log":
		fmt.Println("one two")
		fmt.Fprintln(os.Stderr, "three")
		text(w, 200, "logged")
	case "/logs":
		for i := range n {
			fmt.Println("line", i)
		}
		text(w, 200, "logged")
	case "/longlog":
		fmt.Println(strings.Repeat("x", 9000))
		text(w, 200, "logged")
	case "/sleep":
		ms, _ := strconv.Atoi(q.Get("ms"))
		fmt.Println("sleep start")
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Println("sleep end")
		text(w, 200, "slept")
	case "/hang":
		fmt.Println("hanging")
		time.Sleep(time.Hour)
	case "/spin":
		fmt.Println("spinning")
		for {
		}
	case "/exit":
		fmt.Println("exiting")
		os.Exit(3)
	case "/count":
		text(w, 200, fmt.Sprint(count.Add(1)))
	case "/big":
		mib, _ := strconv.Atoi(q.Get("mib"))
		text(w, 200, strings.Repeat("x", mib<<20))
	case "/stream":
		w.Header().Set("content-type", textType)
		for i := range n {
			fmt.Fprintf(w, "piece %d\n", i)
			w.(http.Flusher).Flush()
		}
	case "/waits":
		io.WriteString(w, "piece\n")
		w.(http.Flusher).Flush()
		time.Sleep(time.Hour)
	case "/alloc":
		mib, _ := strconv.Atoi(q.Get("mib"))
		if held := strings.Repeat("x", mib<<20); held != "" {
			text(w, 200, "allocated")
		}
	case "/endless":
		piece := []byte(strings.Repeat("x", 64<<10))
		for err == nil {
			_, err = w.Write(piece)
		}
		closed.Add(1)
	case "/closed":
		text(w, 200, fmt.Sprint(closed.Load()))
	case "/breaks":
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "/cwd":
		dir, _ := os.Getwd()
		text(w, 200, dir)
	case "/tmp":
		file := filepath.Join(os.TempDir(), "written")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			panic(err)
		}
		text(w, 200, file)
	case "/child":
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		text(w, 200, fmt.Sprint(cmd.Process.Pid))
	case "/children":
		done(w, "started", children(n))
	case "/burn":
		ms, _ := strconv.Atoi(q.Get("ms"))
		done(w, "burned", burn(ms))
	case "/fill":
		mib, _ := strconv.Atoi(q.Get("mib"))
		done(w, "written", fill(mib))
	case "/garbage":
		if _, err := syscall.Write(3, []byte(strings.Repeat("\xff", 64))); err != nil {
			text(w, 200, "no")
			return
		}
		time.Sleep(time.Hour)
	case "/enforced":
		secret := r.Header.Get("x-open-runtimes-secret")
		if secret == "" {
			secret = "none"
		}
		w.Header().Set("X-Open-Runtimes-Log-Id", "x")
		w.Header().Set("X-Yes", "yes")
		text(w, 200, r.Header.Get("x-own")+" "+r.Header.Get("x-open-runtimes-kept")+" "+secret)
	case "/output": // what was sent, past all buffers
		if q.Has("err") {
			os.Stderr.Write(body)
		} else {
			os.Stdout.Write(body)
		}
		w.WriteHeader(204)
	case "/raw": // an answer that is in the body, and what may follow it
		raw(w, string(body))
	default:
		text(w, 404, "not found")
	}
}

// raw answers with bytes as they are, and closes the connection.
func raw(w http.ResponseWriter, all string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	io.WriteString(conn, all)
}

// request is what a request object of other languages gives.
func request(r *http.Request, body string) map[string]any {
	headers := map[string]string{"host": r.Host}
	for name, values := range maps.All(r.Header) {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	delete(headers, "connection")
	delete(headers, "content-length")
	scheme, standard := "http", 80
	if r.Header.Get("x-forwarded-proto") == "https" {
		scheme, standard = "https", 443
	}
	host, digits, given := strings.Cut(r.Host, ":")
	port, url := standard, scheme+"://"+host
	if given {
		port, _ = strconv.Atoi(digits)
	}
	if port != standard {
		url += ":" + digits
	}
	query := map[string]string{}
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if k, v, _ := strings.Cut(part, "="); k != "" {
			query[k] = v
		}
	}
	url += r.URL.Path
	if r.URL.RawQuery != "" {
		url += "?" + r.URL.RawQuery
	}
	return map[string]any{
		"method": r.Method, "scheme": scheme, "host": host, "port": port, "path": r.URL.Path, "queryString": r.URL.RawQuery,
		"query": query, "url": url, "headers": headers, "bodyText": body,
	}
}

// parsed answers with the body as JSON, if it is that.
func parsed(w http.ResponseWriter, r *http.Request, body []byte) {
	kind := strings.ToLower(r.Header.Get("content-type"))
	if r.URL.Path == "/body" && !strings.HasPrefix(kind, "application/json") {
		answer(w, map[string]any{"body": string(body)})
		return
	}
	if len(body) == 0 {
		answer(w, map[string]any{"body": map[string]any{}})
		return
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		fmt.Fprintln(os.Stderr, err)
		w.WriteHeader(500)
		return
	}
	answer(w, map[string]any{"body": v})
}

func done(w http.ResponseWriter, body string, err error) {
	if err == nil {
		text(w, 200, body)
		return
	}
	fmt.Fprintln(os.Stderr, err)
	w.WriteHeader(500)
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
