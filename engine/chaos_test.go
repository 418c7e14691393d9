package engine_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
)

var chaosKills = flag.Int("kills", 5, "how many kills a chaos test makes; fewer with -short")

var chaosLease = flag.Duration("lease", leaseOfMembers, "the lease of engines that are killed; shorter ones need a machine that has nothing else to do")

var chaosSeed = flag.Uint64("seed", 0, "seed of the chaos tests, to plan the same kills and requests again; 0: a new one")

const (
	// speedOfChaos is how much faster than the machine's the clock of the
	// engines runs: a minute's tick comes every three seconds.
	speedOfChaos = 20
	// slack is how long a row may be overdue while an engine lives. On a machine
	// with other work it is slackRequests times the slowest request longer.
	slack         = 2 * time.Second
	slackRequests = 4
	// enough is how many rows may wait or run when clients ask for more: on a slow
	// machine those before would keep the next waiting.
	enough = 60
)

// TestChaosKills kills engines at random points under load. What was accepted
// comes to one end, no tick of a schedule is missed or fires twice, and nobody
// has to wait for a dead engine longer than its lease.
func TestChaosKills(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		newChaos(t, memberConfig{SQLite: filepath.Join(t.TempDir(), "fnkit.db")}, 1).run()
	})
	for _, engines := range []int{1, 3} {
		t.Run(fmt.Sprintf("postgres/engines=%d", engines), func(t *testing.T) {
			t.Parallel()
			newChaos(t, memberConfig{Postgres: postgrestest.DSN(t)}, engines).run()
		})
	}
}

// chaos is a group of engines on one store that are killed again and again,
// and what their clients know.
type chaos struct {
	*testing.T
	cfg   memberConfig
	rng   *rand.Rand
	kills int
	db    *sql.DB            // nil: SQLite, see open
	stop  context.CancelFunc // of the clients
	ctx   context.Context

	mu       sync.Mutex
	nodes    []*remote                   // nil: it does not serve
	since    time.Time                   // an engine lives
	accepted map[string]string           // executions by name
	asked    int                         // requests for executions
	answered int                         // requests of any kind
	slowest  time.Duration               // of those
	crowded  bool                        // there is enough to do
	begun    map[string]time.Time        // of those scheduled: not before
	events   []string                    // accepted
	builds   []string                    // accepted deployments
	ended    map[string]engine.Execution // as they were first seen to have
	overdue  time.Duration               // the most that a row was, while an engine lived
	held     time.Duration               // the same of rows that an engine had
}

func newChaos(t *testing.T, cfg memberConfig, engines int) *chaos {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	cfg.Dir, cfg.Epoch, cfg.Speed, cfg.Lease = t.TempDir(), time.Now(), speedOfChaos, *chaosLease
	c := &chaos{
		T: t, cfg: cfg, rng: rand.New(rand.NewPCG(seed, 0)), kills: *chaosKills, nodes: make([]*remote, engines),
		accepted: map[string]string{}, begun: map[string]time.Time{}, ended: map[string]engine.Execution{},
	}
	if testing.Short() {
		c.kills = min(c.kills, 2)
	}
	if cfg.Postgres != "" {
		var err error
		if c.db, err = sql.Open("pgx", cfg.Postgres); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.db.Close() })
	}
	c.ctx, c.stop = context.WithCancel(t.Context())
	return c
}

func (c *chaos) run() {
	for i := range c.nodes {
		c.start(i, 0)
	}
	c.Cleanup(func() {
		for _, n := range c.nodes {
			n.kill()
		}
	})
	first := c.nodes[0]
	for _, id := range []string{"work", "code", "heard1", "heard2", "tick1", "tick2"} {
		f := engine.FunctionParams{ID: id}
		switch {
		case strings.HasPrefix(id, "tick"):
			all := engine.CatchUpAll
			f.Schedule, f.Policy.CatchUp = "* * * * *", &all
		case strings.HasPrefix(id, "heard"):
			f.Events = []string{"users.*.create"}
		}
		first.create(c.T, f)
	}
	var clients sync.WaitGroup
	for i, client := range []func(int, *rand.Rand) error{c.execute, c.execute, c.schedule, c.trigger, c.deploy, c.look, c.measure} {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), uint64(i)))
		clients.Go(func() { c.repeat(client, rng) })
	}
	for range c.kills {
		c.crash()
	}
	c.stop()
	clients.Wait()
	c.check()
}

// repeat has a client go on until all kills are done; the number tells its
// turns apart from those of the others.
func (c *chaos) repeat(client func(int, *rand.Rand) error, rng *rand.Rand) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		if err := client(n, rng); err != nil {
			c.Error(err)
			return
		}
	}
}

// crash kills an engine, or all of them, and starts them again: at once, or
// after the others had time to take over.
func (c *chaos) crash() {
	victims := []int{c.rng.IntN(len(c.nodes))}
	if c.rng.IntN(8) == 0 {
		victims = c.rng.Perm(len(c.nodes))
	}
	pause := []time.Duration{0, 0, 300 * time.Millisecond}[c.rng.IntN(3)]
	c.await(c.rng.IntN(60))
	c.wait(time.Duration(c.rng.Int64N(int64(50 * time.Millisecond))))
	for _, i := range victims {
		c.mu.Lock()
		n := c.nodes[i]
		c.nodes[i] = nil
		c.mu.Unlock()
		n.kill()
	}
	if len(victims) < len(c.nodes) {
		c.wait(pause)
	}
	for _, i := range victims {
		early := time.Duration(0)
		if c.rng.IntN(5) == 0 {
			early = time.Duration(1 + c.rng.Int64N(int64(100*time.Millisecond)))
		}
		c.start(i, early)
	}
}

// start starts an engine. If early is set it is killed that soon first.
func (c *chaos) start(i int, early time.Duration) {
	c.Helper()
	if early > 0 {
		n, _ := launch(c.T, c.cfg)
		c.wait(early)
		n.kill()
	}
	n, addr := launch(c.T, c.cfg)
	if !n.serves(addr) {
		n.kill()
		c.Fatalf("the engine does not start: %s", n.log.String())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.living()) == 0 {
		c.since = time.Now()
	}
	c.nodes[i] = n
}

// await waits until so many more requests were answered.
func (c *chaos) await(n int) {
	count := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.answered
	}
	for until := count() + n; count() < until && c.ctx.Err() == nil; {
		c.wait(time.Millisecond)
	}
}

func (c *chaos) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.ctx.Done():
	}
}

// living are the engines that serve.
func (c *chaos) living() []*remote {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *remote) bool { return n == nil })
}

// ask asks one of the engines that serve; false: it did not answer.
func (c *chaos) ask(rng *rand.Rand, q request) (response, bool) {
	c.mu.Lock()
	all := c.living()
	c.mu.Unlock()
	if len(all) == 0 {
		return response{}, false
	}
	began := time.Now()
	a, err := all[rng.IntN(len(all))].ask(c.Context(), q)
	if a.Error != "" {
		c.Logf("%s: %s", q.Do, a.Error)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.answered++
		c.slowest = max(c.slowest, time.Since(began))
	}
	return a, err == nil && a.Error == ""
}

// busy reports whether clients must not ask for more.
func (c *chaos) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crowded
}

// execute queues an execution that takes a moment.
func (c *chaos) execute(_ int, rng *rand.Rand) error {
	return c.queue(rng, time.Time{})
}

// schedule queues one for a time to come.
func (c *chaos) schedule(_ int, rng *rand.Rand) error {
	if rng.IntN(5) > 0 {
		return nil
	}
	return c.queue(rng, c.cfg.clock().Now().Add(speedOfChaos*(time.Second/2+time.Duration(rng.Int64N(int64(2*time.Second))))))
}

func (c *chaos) queue(rng *rand.Rand, at time.Time) error {
	c.mu.Lock()
	if c.crowded || len(c.living()) == 0 {
		c.mu.Unlock()
		return nil
	}
	c.asked++
	name := fmt.Sprint("n", c.asked)
	c.mu.Unlock()
	q := request{Do: "execute", Function: engine.FunctionParams{ID: "work"}}
	q.Execute = engine.ExecuteParams{Async: true, ScheduledAt: at, Path: fmt.Sprintf("/?n=%s&ms=%d", name, rng.IntN(200)*rng.IntN(2))}
	a, ok := c.ask(rng, q)
	if !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accepted[name] = a.Executions[0].ID
	if !at.IsZero() {
		c.begun[name] = at.Truncate(time.Millisecond)
	}
	return nil
}

// trigger causes an event, again until it is accepted.
func (c *chaos) trigger(n int, rng *rand.Rand) error {
	if rng.IntN(5) > 0 || c.busy() {
		return nil
	}
	id := fmt.Sprint("e", n)
	for c.ctx.Err() == nil {
		if _, ok := c.ask(rng, request{Do: "trigger", Trigger: engine.TriggerParams{ID: id, Name: "users." + id + ".create"}}); ok {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.events = append(c.events, id)
			return nil
		}
		c.wait(10 * time.Millisecond)
	}
	return nil
}

// deploy uploads code.
func (c *chaos) deploy(_ int, rng *rand.Rand) error {
	if rng.IntN(20) > 0 || c.busy() {
		return nil
	}
	a, ok := c.ask(rng, request{Do: "deploy", Function: engine.FunctionParams{ID: "code"}, Source: archived(c.T, map[string]string{"README": ""})})
	if ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.builds = append(c.builds, a.Deployments[0].ID)
	}
	return nil
}

// look notes which executions have ended. None changes after that.
func (c *chaos) look(_ int, rng *rand.Rand) error {
	if rng.IntN(20) > 0 {
		return nil
	}
	a, _ := c.ask(rng, request{Do: "executions", Function: engine.FunctionParams{ID: "work"}, Query: engine.Query{Limit: 200, Orders: []store.Order{{Desc: true}}}})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range a.Executions {
		if x.Status.Final() && c.ended[x.ID].ID == "" {
			c.ended[x.ID] = x
		}
	}
	return nil
}

// measure looks how long rows are overdue, in the database itself, while an
// engine lives: those that wait, and those whose lease has ended.
func (c *chaos) measure(n int, _ *rand.Rand) error {
	if n%5 > 0 {
		return nil
	}
	c.mu.Lock()
	up, since := len(c.living()) > 0, c.since
	c.mu.Unlock()
	if !up {
		return nil // looking at a SQLite file would repair it
	}
	db, done, err := c.open()
	if err != nil {
		return err
	}
	defer done()
	all := 0
	for _, table := range []string{"runs", "deployments"} {
		now := c.cfg.clock().Now()
		rows, err := db.QueryContext(c.Context(), "SELECT status, min(ready_at), count(*) FROM fnkit_"+table+" WHERE ready_at IS NOT NULL GROUP BY status")
		if err != nil {
			return err
		}
		for rows.Next() {
			var status string
			var at int64
			var n int
			if err := rows.Scan(&status, &at, &n); err != nil {
				return err
			}
			all += n
			late := min(now.Sub(time.UnixMilli(at)), now.Sub(c.cfg.clock().at(since))) / speedOfChaos
			c.mu.Lock()
			if c.overdue = max(c.overdue, late); status == "processing" || status == "building" {
				c.held = max(c.held, late)
			}
			c.mu.Unlock()
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crowded = all >= enough
	return nil
}

// open returns a handle on the database. Of a SQLite file none stays open, or
// the next engine would not have to repair it.
func (c *chaos) open() (db *sql.DB, done func() error, err error) {
	if c.db != nil {
		return c.db, func() error { return nil }, nil
	}
	db, err = sql.Open("sqlite", "file:"+c.cfg.SQLite+"?mode=ro&_pragma=busy_timeout(10000)")
	return db, db.Close, err
}

// check waits for the end of all that was accepted and compares.
func (c *chaos) check() {
	r := c.nodes[0]
	ticks := c.endTicks(r)
	for left := c.pending(); len(left) > 0; { // as long as it goes on
		left = eventually(c.T, func() ([]string, bool) {
			now := c.pending()
			return now, len(now) < len(left)
		})
	}
	ran := c.ran()
	var lost, doubled, reruns, missed int
	rows := map[string][]engine.Execution{}
	total := 0
	for _, f := range []string{"work", "heard1", "heard2", "tick1", "tick2"} {
		rows[f] = r.all(c.T, f)
		total += len(rows[f])
		for _, x := range rows[f] {
			if x.Status != store.ExecutionCompleted || x.ResponseStatusCode != 200 {
				c.Errorf("%s ended as %+v", f, x)
			}
			if ran[x.ID] == 0 {
				c.Errorf("%s is %s, and did not run", x.ID, x.Status)
				lost++
			}
			reruns += max(0, ran[x.ID]-1)
			if was, ok := c.ended[x.ID]; ok && !reflect.DeepEqual(was, x) {
				c.Errorf("it ended as %+v, and again as %+v", was, x)
				doubled++
			}
		}
	}
	byName := map[string][]engine.Execution{}
	for _, x := range rows["work"] {
		name := named(x)
		byName[name] = append(byName[name], x)
	}
	for name, all := range byName {
		if len(all) > 1 {
			c.Errorf("%s is there %d times", name, len(all))
			doubled++
		}
		if at := c.begun[name]; all[0].UpdatedAt.Before(at) {
			c.Errorf("%s ended at %s, before %s", name, all[0].UpdatedAt, at)
		}
	}
	for name, id := range c.accepted {
		if all := byName[name]; len(all) == 0 || all[0].ID != id {
			c.Errorf("%s was accepted as %s, there is %v", name, id, all)
			lost++
		}
	}
	for _, f := range []string{"heard1", "heard2"} {
		heard := map[string]int{}
		for _, x := range rows[f] {
			heard[strings.Split(x.Event, ".")[1]]++
		}
		for _, e := range c.events {
			switch n := heard[e]; {
			case n == 0:
				c.Errorf("%s did not hear %s", f, e)
				lost++
			case n > 1:
				c.Errorf("%s heard %s %d times", f, e, n)
				doubled++
			}
		}
	}
	for _, f := range []string{"tick1", "tick2"} {
		m, d := ticks[f].compare(rows[f])
		missed, doubled = missed+m, doubled+d
		if m+d > 0 {
			c.Errorf("%s missed %d ticks and made %d twice", f, m, d)
		}
	}
	lost += c.checkBuilds(r)
	stuck := 0
	if limit := slack + slackRequests*c.slowest; c.overdue > limit {
		c.Errorf("a row was overdue for %s, more than %s", c.overdue, limit)
		stuck++
	}
	c.Logf("%d kills; %d executions (%d of %d requests were answered with an id), %d of them events', %d ticks'; %d builds; %d ran again; "+
		"lost %d, doubled %d, ticks missed %d, stuck %d; longest beyond the end of a lease %s, beyond due %s; slowest request %s",
		c.kills, total, len(c.accepted), c.asked, len(rows["heard1"])+len(rows["heard2"]), len(rows["tick1"])+len(rows["tick2"]), len(c.builds), reruns,
		lost, doubled, missed, stuck, c.held.Round(time.Millisecond), c.overdue.Round(time.Millisecond), c.slowest.Round(time.Millisecond))
}

// named is the name in an execution's path.
func named(x engine.Execution) string {
	u, err := url.Parse(x.RequestPath)
	if err != nil {
		return x.RequestPath
	}
	return u.Query().Get("n")
}

// pending are the rows that have not come to an end.
func (c *chaos) pending() (left []string) {
	db, done, err := c.open()
	if err != nil {
		c.Fatal(err)
	}
	defer done()
	for _, table := range []string{"runs", "deployments"} {
		rows, err := db.QueryContext(c.Context(), "SELECT seq, status, attempt FROM fnkit_"+table+" WHERE ready_at IS NOT NULL")
		if err != nil {
			c.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id, status string
			var attempt int
			if err := rows.Scan(&id, &status, &attempt); err != nil {
				c.Fatal(err)
			}
			left = append(left, fmt.Sprint(table, " ", id, " ", status, " ", attempt))
		}
	}
	return left
}

// ran counts how often each execution had its effect.
func (c *chaos) ran() map[string]int {
	text, err := os.ReadFile(c.cfg.ledger())
	if err != nil {
		c.Fatal(err)
	}
	ran := map[string]int{}
	for line := range strings.Lines(string(text)) {
		ran[strings.Fields(line)[2]]++
	}
	return ran
}

// span is when a schedule was followed: certainly from first to last, and up to
// limit perhaps.
type span struct{ first, last, limit time.Time }

// endTicks disables the functions with a schedule, and returns when each was
// followed.
func (c *chaos) endTicks(r *remote) map[string]span {
	spans := map[string]span{}
	for _, id := range []string{"tick1", "tick2"} {
		f := r.must(c.T, request{Do: "function", Function: engine.FunctionParams{ID: id}}).Function
		active := r.must(c.T, request{Do: "deployments", Function: engine.FunctionParams{ID: id}}).Deployments[0]
		s := span{first: active.UpdatedAt.Truncate(time.Minute).Add(time.Minute)}
		s.last = f.LastRunAt
		r.must(c.T, request{Do: "disable", Function: engine.FunctionParams{ID: id, Name: id, Execute: []string{"any"}, Schedule: f.Schedule, Disabled: true}})
		s.limit = c.cfg.clock().Now()
		spans[id] = s
	}
	return spans
}

// compare counts the minutes that have no execution, and those that have two.
func (s span) compare(rows []engine.Execution) (missed, doubled int) {
	made := map[int64]int{}
	for _, x := range rows {
		made[x.ScheduledAt.UnixMilli()]++
	}
	for at := s.first; !at.After(s.limit); at = at.Add(time.Minute) {
		n := made[at.UnixMilli()]
		if delete(made, at.UnixMilli()); n == 0 && !at.After(s.last) {
			missed++
		} else if n > 1 {
			doubled++
		}
	}
	return missed, doubled + len(made) // what is left is no tick
}

// checkBuilds returns how many deployments that were accepted are not ready.
func (c *chaos) checkBuilds(r *remote) (lost int) {
	all := r.must(c.T, request{Do: "deployments", Function: engine.FunctionParams{ID: "code"}, Query: engine.Query{Limit: 5000}}).Deployments
	ready := map[string]bool{}
	for _, d := range all {
		if ready[d.ID] = d.Status == store.DeploymentReady; !ready[d.ID] {
			c.Errorf("a deployment is %s: %s", d.Status, d.BuildLogs)
		}
	}
	for _, id := range c.builds {
		if !ready[id] {
			lost++
		}
	}
	f := r.must(c.T, request{Do: "function", Function: engine.FunctionParams{ID: "code"}}).Function
	if newest := all[len(all)-1].ID; f.Deployment != newest {
		c.Errorf("the active deployment is %s, the newest %s", f.Deployment, newest)
	}
	return lost
}
