package engine_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/clock"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/sandbox"
	"github.com/fnkit/fnkit/sandbox/fnbox"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/dirblobs"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// asEngine in the environment makes the test binary a process with an engine,
// made as the memberConfig in it says.
const asEngine = "FNKIT_TEST_AS_ENGINE"

// memberConfig is what a process with an engine is told.
type memberConfig struct {
	SQLite   string // file, or
	Postgres string // DSN
	Dir      string // what the engines share: blobs and the ledger
	Epoch    time.Time
	Speed    int
	Lease    time.Duration // in the machine's time; 0: leaseOfMembers
	// Held has work of this one that takes time go on until its lease is lost, and
	// keeps its results from being written until a file of this name exists. Empty:
	// nothing does.
	Held string
	// Front makes it one that runs nothing, and has synchronous calls go through the queue.
	Front bool
}

func (c memberConfig) ledger() string { return filepath.Join(c.Dir, "ledger") }

// leaseOfMembers must not end by itself on a slow machine: what runs would be run again, there
// more than once.
const leaseOfMembers = 3 * time.Second

func (c memberConfig) clock() fastClock { return fastClock{clock.New(), c.Epoch, c.Speed} }

func (c memberConfig) store(ctx context.Context) (store.Store, error) {
	if c.SQLite != "" {
		return sqlite.Open(ctx, c.SQLite)
	}
	return postgres.Open(ctx, c.Postgres)
}

// fastClock is the machine's clock at a multiple of its speed, so that a test
// of seconds sees many a minute's tick. It is the same in all processes.
type fastClock struct {
	clock.Clock
	epoch time.Time
	speed int
}

func (c fastClock) at(t time.Time) time.Time {
	return c.epoch.Add(t.Sub(c.epoch) * time.Duration(c.speed))
}
func (c fastClock) Now() time.Time                         { return c.at(time.Now()) }
func (c fastClock) real(d time.Duration) time.Duration     { return d / time.Duration(c.speed) }
func (c fastClock) Since(t time.Time) time.Duration        { return c.Now().Sub(t) }
func (c fastClock) Until(t time.Time) time.Duration        { return t.Sub(c.Now()) }
func (c fastClock) Timer(d time.Duration) *clock.Timer     { return c.Clock.Timer(c.real(d)) }
func (c fastClock) Ticker(d time.Duration) *clock.Ticker   { return c.Clock.Ticker(c.real(d)) }
func (c fastClock) After(d time.Duration) <-chan time.Time { return c.Clock.After(c.real(d)) }
func (c fastClock) AfterFunc(d time.Duration, f func()) *clock.Timer {
	return c.Clock.AfterFunc(c.real(d), f)
}

// memberMain is the process: an engine, and a port to ask it. It ends when its
// parent does.
func memberMain() {
	var cfg memberConfig
	err := json.Unmarshal([]byte(os.Getenv(asEngine)), &cfg)
	if err == nil {
		err = serveMember(cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveMember(cfg memberConfig) error {
	ctx, end := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		end()
	}()
	s, err := cfg.store(ctx)
	if err != nil {
		return err
	}
	n := &member{cfg: cfg}
	if cfg.Held != "" {
		s = heldResults{s, n}
	}
	speed := time.Duration(cfg.Speed)
	n.eng, err = engine.New(engine.Config{
		Store: s, Blobs: dirblobs.New(filepath.Join(cfg.Dir, "blobs")), Sandbox: slowBuilds{fnbox.New(n.funcs())},
		Keys: engine.Key("k1", bytes.Repeat([]byte("secret"), 4)), MinIsolation: "none", Clock: cfg.clock(), SyncViaQueue: cfg.Front,
		Dir:    filepath.Join(cfg.Dir, "engine"+strconv.Itoa(os.Getpid())), // goes with the test, if this is killed
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Work:   engine.Work{Runs: 16, Builds: 2, Losses: 1000, Lease: cmp.Or(cfg.Lease, leaseOfMembers) * speed, Poll: 50 * time.Millisecond * speed},
	})
	if err != nil {
		return err
	}
	if !cfg.Front {
		if err := n.eng.Start(ctx); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	web := &http.Server{Handler: http.HandlerFunc(n.answer)}
	go web.Serve(l)
	<-ctx.Done()
	return errors.Join(web.Close(), n.eng.Stop(context.Background()), s.Close())
}

// member is the engine of this process.
type member struct {
	cfg memberConfig
	eng *engine.Engine
}

// funcs have a side effect before they return: a line in the ledger with the
// execution's id. "ms" in the query is how long they take.
func (n *member) funcs() fnbox.Funcs {
	work := func(ctx context.Context, c *fnbox.Context) error {
		ms, _ := strconv.Atoi(c.Req.Query["ms"])
		over := time.After(time.Duration(ms) * time.Millisecond)
		if ms > 0 && n.cfg.Held != "" {
			over = nil
		}
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := n.note("ran", c.Req.Headers["x-appwrite-execution-id"]); err != nil {
			return err
		}
		c.Log(os.Getpid())
		return c.Text(http.StatusOK, "done")
	}
	return fnbox.Funcs{"work": work}
}

// note adds a line to the ledger.
func (n *member) note(what, id string) error {
	f, err := os.OpenFile(n.cfg.ledger(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %d %s\n", what, os.Getpid(), id)
	return errors.Join(err, f.Close())
}

// slowBuilds is a driver whose builds take a moment.
type slowBuilds struct{ *fnbox.Box }

func (b slowBuilds) Build(ctx context.Context, spec sandbox.BuildSpec, logs io.Writer) (sandbox.BuildResult, error) {
	fmt.Fprintln(logs, "building")
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
	}
	return b.Box.Build(ctx, spec, logs)
}

// heldResults is a store in front of which results wait.
type heldResults struct {
	store.Store
	n *member
}

func (h heldResults) Runs() store.Queue[engine.Execution] { return heldQueue{h.Store.Runs(), h.n} }

type heldQueue struct {
	store.Queue[engine.Execution]
	n *member
}

func (q heldQueue) Settle(ctx context.Context, rows []store.Settlement[engine.Execution]) ([]store.Lease, error) {
	for _, r := range rows {
		q.n.note("settles", r.Lease.ID)
	}
	for open := false; !open; {
		_, err := os.Stat(q.n.cfg.Held)
		if open = err == nil; !open {
			<-time.After(time.Millisecond)
		}
	}
	lost, err := q.Queue.Settle(ctx, rows)
	for _, l := range lost {
		q.n.note("refused", l.ID)
	}
	return lost, err
}

func (q heldQueue) Renew(ctx context.Context, leases []store.Lease, until time.Time) ([]store.Lease, error) {
	lost, err := q.Queue.Renew(ctx, leases, until)
	for _, l := range lost {
		q.n.note("lost", l.ID)
	}
	return lost, err
}

// request is what a member is asked.
type request struct {
	Do       string // "create", "deploy", "execute", "trigger", "disable", "executions", "deployments", "function"
	Function engine.FunctionParams
	Execute  engine.ExecuteParams
	Trigger  engine.TriggerParams
	Query    engine.Query
	Source   []byte // of a deployment
}

// response is what it answers.
type response struct {
	Executions  []engine.Execution
	Deployments []engine.Deployment
	Function    engine.Function
	Error       string
}

func (n *member) answer(w http.ResponseWriter, r *http.Request) {
	var q request
	a, err := response{}, json.NewDecoder(r.Body).Decode(&q)
	if err == nil {
		a, err = n.do(r.Context(), q)
	}
	if err != nil {
		a.Error = err.Error()
	}
	json.NewEncoder(w).Encode(a)
}

func (n *member) do(ctx context.Context, q request) (a response, err error) {
	p, id := n.eng.Project("shop"), q.Function.ID
	switch q.Do {
	case "create":
		a.Function, err = p.CreateFunction(ctx, engine.System, q.Function)
	case "disable":
		a.Function, err = p.UpdateFunction(ctx, engine.System, id, q.Function)
	case "function":
		a.Function, err = p.GetFunction(ctx, engine.System, id)
	case "deploy":
		var d engine.Deployment
		d, err = p.Deploy(ctx, engine.System, id, engine.DeployParams{Source: bytes.NewReader(q.Source), Size: -1, Activate: true})
		a.Deployments = []engine.Deployment{d}
	case "execute":
		var x engine.ExecuteResult
		x, err = p.Execute(ctx, engine.System, id, q.Execute)
		a.Executions = []engine.Execution{x.Execution}
	case "trigger":
		a.Executions, err = p.Trigger(ctx, engine.System, q.Trigger)
	case "executions":
		var l engine.List[engine.Execution]
		l, err = p.ListExecutions(ctx, engine.System, id, q.Query)
		a.Executions = l.Items
	case "deployments":
		var l engine.List[engine.Deployment]
		l, err = p.ListDeployments(ctx, engine.System, id, q.Query)
		a.Deployments = l.Items
	}
	return a, err
}

// remote is such a process, seen from the test.
type remote struct {
	cmd  *exec.Cmd
	url  string
	log  bytes.Buffer
	http *http.Client
	done chan struct{} // closed when it has ended
}

// launch starts a process, which may be killed before it serves.
func launch(t *testing.T, cfg memberConfig) (r *remote, addr *bufio.Reader) {
	t.Helper()
	env, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r = &remote{cmd: exec.Command(os.Args[0]), done: make(chan struct{}), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	r.cmd.Env = append(os.Environ(), asEngine+"="+string(env))
	r.cmd.Stderr = &r.log
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		_, err = r.cmd.StdinPipe() // ends with this process
	}
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return r, bufio.NewReader(out)
}

// serves waits until the process can be asked; false: it ended before.
func (r *remote) serves(addr *bufio.Reader) bool {
	line, err := addr.ReadString('\n')
	r.url = "http://" + strings.TrimSpace(line)
	return err == nil
}

// kill ends the process as the kernel does when memory runs out.
func (r *remote) kill() {
	select {
	case <-r.done:
		return
	default:
	}
	r.cmd.Process.Kill()
	r.cmd.Wait()
	close(r.done)
	r.http.CloseIdleConnections()
}

// startMember starts a process that ends with the test.
func startMember(t *testing.T, cfg memberConfig) *remote {
	t.Helper()
	r, addr := launch(t, cfg)
	t.Cleanup(r.kill)
	if !r.serves(addr) {
		r.kill()
		t.Fatalf("the process ended: %s", r.log.String())
	}
	return r
}

// ask asks a process. An error of the engine is an answer.
func (r *remote) ask(ctx context.Context, q request) (a response, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", r.url, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	res, err := r.http.Do(req)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	return a, json.NewDecoder(res.Body).Decode(&a)
}

// must asks for what has to succeed.
func (r *remote) must(t *testing.T, q request) response {
	t.Helper()
	a, err := r.ask(t.Context(), q)
	if err != nil || a.Error != "" {
		t.Fatalf("%s %s: %v %s", q.Do, q.Function.ID, err, a.Error)
	}
	return a
}

// create makes a function that can be executed.
func (r *remote) create(t *testing.T, f engine.FunctionParams) {
	t.Helper()
	f.Name, f.Runtime, f.Entrypoint, f.Execute, f.Timeout = f.ID, fnbox.RuntimeID, "work", []string{"any"}, 900
	r.must(t, request{Do: "create", Function: f})
	r.must(t, request{Do: "deploy", Function: f, Source: archived(t, map[string]string{"README": ""})})
	eventually(t, func() (string, bool) {
		d := r.must(t, request{Do: "deployments", Function: f}).Deployments[0]
		return d.BuildLogs, d.Status == store.DeploymentReady
	})
}

// all returns every execution of a function, the oldest first.
func (r *remote) all(t *testing.T, function string) (rows []engine.Execution) {
	t.Helper()
	q := request{Do: "executions", Function: engine.FunctionParams{ID: function}, Query: engine.Query{Limit: 1000}}
	for {
		page := r.must(t, q).Executions
		rows = append(rows, page...)
		if len(page) < q.Query.Limit {
			return rows
		}
		q.Query.After = page[len(page)-1].ID
	}
}
