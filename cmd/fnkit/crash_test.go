package main_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/require"
)

var crashSeed = flag.Uint64("seed", 0, "seed of TestCrashes, to try the points of an earlier run again; 0: a new one")

// TestCrashes kills a server at random points while clients upload, deploy and
// execute, and starts it again. After each restart all that was accepted is
// there and comes to its end, and no process of the dead server is left.
func TestCrashes(t *testing.T) {
	t.Parallel()
	c := newCrashes(t)
	for i, p := range c.points() {
		t.Logf("point %d: %s", i+1, p)
		c.crash(p)
		c.recover(p)
		if i == 0 {
			c.deploy()
		}
	}
	c.finish()
}

// point is where a server is killed.
type point struct {
	phase   string
	request int           // that has begun
	delay   time.Duration // after that
}

// The phases of a server's life.
const (
	starting   = "while it starts"
	recovering = "while it recovers from a crash"
	loaded     = "under load"
	spinning   = "while a function computes"
	stopping   = "while it stops"
)

func (p point) String() string {
	return fmt.Sprintf("%s, at request %d and %s", p.phase, p.request, p.delay.Round(10*time.Microsecond))
}

// points are where the server is killed. The first is before it ever ran.
func (c *crashes) points() []point {
	phases := slices.Concat(slices.Repeat([]string{loaded}, 10), slices.Repeat([]string{spinning, recovering}, 3), []string{starting, stopping, stopping})
	if testing.Short() {
		phases = []string{loaded, spinning, recovering, stopping}
	}
	c.rng.Shuffle(len(phases), func(i, j int) { phases[i], phases[j] = phases[j], phases[i] })
	delays := map[string]time.Duration{
		starting: 200 * time.Millisecond, recovering: 300 * time.Millisecond, stopping: 200 * time.Millisecond,
		loaded: 30 * time.Millisecond, spinning: 30 * time.Millisecond,
	}
	all := []point{{starting, 0, time.Duration(c.rng.Int64N(int64(delays[starting])))}}
	for _, phase := range phases {
		all = append(all, point{phase, 1 + c.rng.IntN(requestsOfLoad), time.Duration(c.rng.Int64N(int64(delays[phase])))})
	}
	return all
}

// What clients do under load.
const (
	queuedOfLoad   = 36 // executions
	syncOfLoad     = 6
	wholeOfLoad    = 2 // deployments
	uploadsOfLoad  = 2 // new ones, beside those that are not complete
	partSize       = 10_000
	requestsOfLoad = queuedOfLoad + syncOfLoad + wholeOfLoad + 6*uploadsOfLoad
)

// crashes is a server that is killed again and again, and what its clients know.
type crashes struct {
	t        *testing.T
	language language
	rng      *rand.Rand
	path     string // PATH of the server
	data     string
	ledger   string // the functions write to it
	server   *process

	mu      sync.Mutex
	runs    map[string]*run // by name
	whole   []string        // ids of deployments that were accepted at once
	uploads []*upload
	sent    int           // requests of this load
	killAt  int           // the request at which the server is killed
	reached chan struct{} // closed at that request
	clients *sync.WaitGroup

	found, orphans, reruns int
	slowest                time.Duration
	started                time.Duration // what the last start took
}

// run is a call of a function.
type run struct {
	function string
	queued   bool
	id       string // empty: it was not answered
}

// upload is an archive on its way in parts.
type upload struct {
	id    string // empty: not known yet
	parts [][]byte
	size  int
	order []int // in which they are sent
	done  map[int]bool
}

func (u *upload) complete() bool { return len(u.done) == len(u.parts) }

// language is what the functions are written in.
type language struct {
	command, entrypoint, code string
	// deaf: a function that computes does not notice that its server is gone.
	deaf bool
	// recovers is how long a server may take for what it finds, with a lease of
	// one second and all builds; ten times its start, which tells how busy the machine
	// is, are granted besides.
	recovers time.Duration
}

// languagesOfCrashes are tried in this order. The functions write the name they
// are called with to the ledger; one that is told to spin computes for a while,
// the first time.
var languagesOfCrashes = []language{
	{"node", "index.js", `const fs = require('fs');
module.exports = async ({req, res}) => {
  const {n, ms, spin} = req.query, ledger = process.env.LEDGER;
  if (spin && !fs.existsSync(ledger + '.' + n)) {
    fs.writeFileSync(ledger + '.' + n, '');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(spin)); // as a loop does, and uses no CPU
  }
  await new Promise((done) => setTimeout(done, Number(ms)));
  fs.appendFileSync(ledger, n + '\n');
  return res.text(n);
};
`, true, 20 * time.Second},
	{"go", "main.go", `package handler

import (
	"os"
	"strconv"
	"time"

	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

func Main(Context openruntimes.Context) openruntimes.Response {
	n, ledger := Context.Req.Query["n"], os.Getenv("LEDGER")
	if mark, err := os.OpenFile(ledger+"."+n, os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		mark.Close()
		spin, _ := strconv.Atoi(Context.Req.Query["spin"])
		time.Sleep(time.Duration(spin) * time.Millisecond)
	}
	ms, _ := strconv.Atoi(Context.Req.Query["ms"])
	time.Sleep(time.Duration(ms) * time.Millisecond)
	f, err := os.OpenFile(ledger, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(n + "\n")
		f.Close()
	}
	if err != nil {
		panic(err)
	}
	return Context.Res.Text(n)
}
`, false, time.Minute},
}

func newCrashes(t *testing.T) *crashes {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	dir := t.TempDir()
	c := &crashes{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), runs: map[string]*run{},
		data: filepath.Join(dir, "data"), ledger: filepath.Join(dir, "ledger"),
	}
	if err := os.WriteFile(c.ledger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range languagesOfCrashes {
		if _, err := exec.LookPath(l.command); err == nil {
			c.language, c.path = l, pathWith(t, l.command)
			return c
		}
	}
	require.Missing(t, "node", "nor is Go there")
	return nil
}

// deploy makes the functions: one that is called, one that is called to spin,
// and one whose code is deployed again and again.
func (c *crashes) deploy() {
	runtime := c.server.runtimeOf(c.t)
	for _, name := range []string{"work", "spin", "code"} {
		c.server.deploy(c.t, nil, name, runtime, c.language.entrypoint, c.language.code)
		c.server.variable(c.t, name, "LEDGER", c.ledger)
	}
}

func (c *crashes) launch() { c.server = launch(c.t, c.path, c.data, "-lease", "1s") }

// killAfter kills the server a little later.
func (c *crashes) killAfter(d time.Duration) {
	c.t.Helper()
	select {
	case <-time.After(d):
	case <-c.server.done:
		if code := c.server.cmd.ProcessState.ExitCode(); code != 0 {
			c.t.Errorf("the server ended with %d: %s", code, c.server.log.String())
		}
	}
	c.server.kill()
	if log := c.server.log.String(); strings.Contains(log, "panic") {
		c.t.Errorf("the server logged:\n%s", log)
	}
}

// crash kills the server at a point. A server has to crash before it can
// recover, and before it starts again.
func (c *crashes) crash(p point) {
	c.t.Helper()
	switch p.phase {
	case spinning:
		c.spin()
	case loaded:
		c.load(p.request)
	case stopping:
		c.load(p.request)
		c.server.cmd.Process.Signal(syscall.SIGTERM)
	case starting, recovering:
		if c.server != nil {
			c.load(p.request)
			c.killAfter(0)
			c.stopLoad()
		}
		if c.launch(); p.phase == recovering && !c.server.listens(c.t) {
			c.t.Fatalf("the server does not start: %s", c.server.log.String())
		}
	}
	c.killAfter(p.delay)
	c.stopLoad()
}

// load starts the clients and returns when a request has begun, or all are
// answered.
func (c *crashes) load(request int) {
	c.sent, c.killAt, c.reached = 0, request, make(chan struct{})
	all, clients := make(chan struct{}), new(sync.WaitGroup)
	c.clients = clients
	for range uploadsOfLoad {
		c.uploads = append(c.uploads, c.newUpload())
	}
	to := c.server.client
	for _, u := range c.uploads {
		if !u.complete() {
			clients.Go(func() { c.send(to, u) })
		}
	}
	clients.Go(func() { c.execute(to, queuedOfLoad, true) })
	clients.Go(func() { c.execute(to, syncOfLoad, false) })
	clients.Go(func() { c.deployWhole(to) })
	go func() {
		clients.Wait()
		close(all)
	}()
	select {
	case <-c.reached:
	case <-all:
		c.t.Logf("all %d requests were answered", c.sent)
	}
}

// stopLoad waits for the clients, whose server is gone.
func (c *crashes) stopLoad() {
	if c.clients != nil {
		c.clients.Wait()
	}
}

// count says that a request begins.
func (c *crashes) count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent++; c.sent == c.killAt {
		close(c.reached)
	}
}

// begin gives a call its name.
func (c *crashes) begin(function string, queued bool) (name string, r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name, r = fmt.Sprintf("n%04d", len(c.runs)), &run{function: function, queued: queued}
	c.runs[name] = r
	return name, r
}

// execute calls the function, until the server is gone.
func (c *crashes) execute(to client, n int, queued bool) {
	for i := range n {
		name, r := c.begin("work", queued)
		path := fmt.Sprintf("/?n=%s&ms=%d", name, i%4*20)
		if !c.call(to, r, path) {
			return
		}
	}
}

// call makes a call and keeps what was answered; false: nothing was.
func (c *crashes) call(to client, r *run, path string) bool {
	c.count()
	a, err := to.ask(c.t.Context(), "POST", "/v1/functions/"+r.function+"/executions", map[string]any{"path": path, "async": r.queued})
	if err != nil {
		return false
	}
	want := map[bool]string{true: "202 waiting", false: "201 completed"}[r.queued]
	if got := fmt.Sprint(a.status, " ", a.text("status")); got != want {
		c.t.Errorf("execution %s: %s, want %s: %s", path, got, want, a.raw)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.id = a.text("$id")
	return true
}

// spin has a function compute, and returns when it does.
func (c *crashes) spin() {
	name, r := c.begin("spin", true)
	if !c.call(c.server.client, r, "/?n="+name+"&spin=60000") {
		c.t.Fatal("the server is gone")
	}
	eventually(c.t, "the function that computes", func() bool {
		_, err := os.Stat(c.ledger + "." + name)
		return err == nil
	})
}

// deployWhole deploys code whose build takes a moment, and leaves a directory
// from which nothing can be removed.
func (c *crashes) deployWhole(to client) {
	for range wholeOfLoad {
		c.count()
		a, err := to.upload(c.t.Context(), "code", "mkdir a && : >a/b && chmod 500 a && sleep 0.1", archive(c.t, map[string]string{c.language.entrypoint: c.language.code}))
		if err != nil {
			return
		}
		c.accepted(a)
		c.mu.Lock()
		c.whole = append(c.whole, a.text("$id"))
		c.mu.Unlock()
	}
}

func (c *crashes) accepted(a reply) {
	if a.status != 202 {
		c.t.Errorf("an upload was answered with %d %s", a.status, a.raw)
	}
}

// newUpload is an archive to be sent in parts. The client chooses the id of
// every other one.
func (c *crashes) newUpload() *upload {
	padding := make([]byte, 5*partSize)
	for i := range padding {
		padding[i] = byte(c.rng.Uint32())
	}
	code := archive(c.t, map[string]string{c.language.entrypoint: c.language.code, "padding": string(padding)})
	u := &upload{size: len(code), parts: slices.Collect(slices.Chunk(code, partSize)), done: map[int]bool{}}
	if len(c.uploads)%2 == 0 {
		u.id = fmt.Sprintf("upload%d", len(c.uploads))
	}
	u.order = c.rng.Perm(len(u.parts))
	first := slices.Index(u.order, 0)
	u.order[0], u.order[first] = 0, u.order[0]
	return u
}

// send sends the parts of an upload that were not accepted yet: the first one
// alone, then two at once.
func (c *crashes) send(to client, u *upload) {
	if u.id == "" || len(u.done) == 0 {
		u.done = map[int]bool{}
		if !c.sendPart(to, u, 0) {
			return
		}
	}
	left := make(chan int, len(u.parts))
	for _, i := range u.order {
		if !u.done[i] {
			left <- i
		}
	}
	close(left)
	var lanes sync.WaitGroup
	for range 2 {
		lanes.Go(func() {
			for i := range left {
				if !c.sendPart(to, u, i) {
					return
				}
			}
		})
	}
	lanes.Wait()
}

func (c *crashes) sendPart(to client, u *upload, i int) bool {
	c.count()
	start := i * partSize
	headers := []string{"Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start+len(u.parts[i])-1, u.size)}
	c.mu.Lock()
	if u.id != "" {
		headers = append(headers, "X-Appwrite-ID", u.id)
	}
	c.mu.Unlock()
	a, err := to.upload(c.t.Context(), "code", "", u.parts[i], headers...)
	if err != nil {
		return false
	}
	c.accepted(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	u.id = a.text("$id")
	u.done[i] = true
	return true
}

// recover starts the server again and checks what it makes of what it finds.
func (c *crashes) recover(p point) {
	c.t.Helper()
	left := processesOf(c.data)
	c.orphans += len(left)
	if p.phase == spinning && c.language.deaf && len(left) == 0 && processesAreKnown {
		c.t.Error("the function did not outlive its server: nothing is tried")
	}
	began := time.Now()
	c.launch()
	if !c.server.listens(c.t) {
		c.t.Fatalf("the server does not start again: %s", c.server.log.String())
	}
	c.started = time.Since(began)
	now := processesOf(c.data)
	for _, process := range left {
		if slices.Contains(now, process) {
			c.t.Errorf("process %s of the dead server is left", process)
		}
	}
	c.settle()
	c.check()
}

// settle waits until the server has nothing to do any more.
func (c *crashes) settle() {
	c.t.Helper()
	if len(c.runs) == 0 {
		return
	}
	began := time.Now()
	count := func(list string, statuses string) int {
		q := query(`{"method":"equal","attribute":"status","values":[`+statuses+`]}`, limit(1))
		return int(c.server.must(c.t, 200, "GET", "/v1/functions/"+list+q, nil).body["total"].(float64))
	}
	first := true
	within(c.t, c.language.recovers+10*c.started, "all that was accepted", func() bool {
		runs := count("work/executions", `"waiting","processing"`) + count("spin/executions", `"waiting","processing"`)
		builds := count("code/deployments", `"waiting","processing","building"`)
		if first {
			c.t.Logf("  found %d executions and %d builds to be done", runs, builds)
			c.found, first = c.found+runs+builds, false
		}
		return runs+builds == 0
	})
	c.slowest = max(c.slowest, time.Since(began))
}

// check compares what the server has with what it had accepted.
func (c *crashes) check() {
	c.t.Helper()
	if len(c.runs) == 0 {
		return
	}
	c.checkRuns()
	c.checkDeployments()
}

func (c *crashes) checkRuns() {
	c.t.Helper()
	records := map[string][]map[string]any{} // by name
	for _, function := range []string{"work", "spin"} {
		for _, x := range c.server.must(c.t, 200, "GET", "/v1/functions/"+function+"/executions"+query(limit(5000)), nil).items("executions") {
			where, err := url.Parse(x["requestPath"].(string))
			if err != nil {
				c.t.Fatal(err)
			}
			records[where.Query().Get("n")] = append(records[where.Query().Get("n")], x)
		}
	}
	text, err := os.ReadFile(c.ledger)
	if err != nil {
		c.t.Fatal(err)
	}
	ran := map[string]int{}
	for line := range strings.Lines(string(text)) {
		ran[strings.TrimSpace(line)]++
	}
	c.reruns = 0
	for name, r := range c.runs {
		c.checkRun(name, r, records[name], ran[name])
		delete(records, name)
	}
	for name, x := range records {
		c.t.Errorf("nobody asked for %q: %v", name, x)
	}
}

// checkRun checks one call: what was accepted is complete, once, and has run;
// what was not answered is complete or not there.
func (c *crashes) checkRun(name string, r *run, records []map[string]any, ran int) {
	c.t.Helper()
	if len(records) > 1 || r.id != "" && len(records) == 0 {
		c.t.Errorf("%s %+v has %d records", name, *r, len(records))
	}
	for _, x := range records {
		if x["status"] != "completed" || r.id != "" && x["$id"] != r.id || ran == 0 {
			c.t.Errorf("%s %+v ran %d times, and is recorded as %v", name, *r, ran, x)
		}
	}
	if !r.queued && ran > 1 {
		c.t.Errorf("%s %+v, a synchronous call, ran %d times", name, *r, ran)
	}
	c.reruns += max(0, ran-1)
}

func (c *crashes) checkDeployments() {
	c.t.Helper()
	list := c.server.must(c.t, 200, "GET", "/v1/functions/code/deployments"+query(limit(5000)), nil).items("deployments")
	byID := map[string]map[string]any{}
	for _, d := range list {
		byID[d["$id"].(string)] = d
		if d["status"] != "ready" && d["status"] != "" { // which is: not complete
			c.t.Errorf("deployment %v", d)
		}
	}
	for _, id := range c.whole {
		if d := byID[id]; d["status"] != "ready" {
			c.t.Errorf("deployment %s was accepted and is %v", id, d)
		}
	}
	for _, u := range c.uploads {
		d := byID[u.id]
		switch {
		case u.complete() && d["status"] != "ready":
			c.t.Errorf("upload %s was complete and is %v", u.id, d)
		case d == nil && len(u.done) > 0:
			c.t.Errorf("upload %s is gone", u.id)
		case d != nil && d["chunksUploaded"].(float64) < float64(len(u.done)):
			c.t.Errorf("upload %s: %d parts were accepted: %v", u.id, len(u.done), d)
		}
	}
	active := c.server.must(c.t, 200, "GET", "/v1/functions/code", nil).text("deployment")
	if d := byID[active]; d["status"] != "ready" {
		c.t.Errorf("the active deployment %q is %v", active, d)
	}
}

// finish completes what is not, and ends the server as one should.
func (c *crashes) finish() {
	for _, u := range c.uploads {
		if !u.complete() {
			c.send(c.server.client, u)
		}
		if !u.complete() {
			c.t.Errorf("upload %s cannot be completed", u.id)
		}
	}
	c.settle()
	c.check()
	stop(c.t, c.server)
	if left := processesOf(c.data); len(left) > 0 {
		c.t.Errorf("processes %v are left", left)
	}
	if left, err := os.ReadDir(filepath.Join(c.data, "sandbox", "run")); err != nil || len(left) > 0 {
		c.t.Errorf("the sandbox holds %v, %v", left, err)
	}
	c.t.Logf("%d calls, %d of them run again; %d deployments at once, %d in parts; %d were found in the middle; %d processes outlived their server; all was done %s after a restart, at the latest",
		len(c.runs), c.reruns, len(c.whole), len(c.uploads), c.found, c.orphans, c.slowest.Round(time.Millisecond))
}

// processesAreKnown: the system tells which processes there are.
var processesAreKnown = func() bool { _, err := os.Stat("/proc/self/environ"); return err == nil }()

// processesOf are the processes that a sandbox in a directory started, as
// number and time of their start. They have it in their environment.
func processesOf(data string) (all []string) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		env, _ := os.ReadFile(filepath.Join(name, "environ"))
		stat, _ := os.ReadFile(filepath.Join(name, "stat"))
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if strings.Contains(string(env), data+"/") && len(fields) > 19 {
			all = append(all, filepath.Base(name)+" since "+fields[19])
		}
	}
	return all
}
