package sqlstore_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// TestQueueModel does random things to a queue and to a plain list beside it:
// both say the same at every step.
func TestQueueModel(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
		modelQueue(t, s, err)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		s, err := postgres.Open(t.Context(), postgrestest.DSN(t))
		modelQueue(t, s, err)
	})
}

func modelQueue(t *testing.T, s store.Store, err error) {
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rapid.Check(t, func(r *rapid.T) {
		for _, p := range modelProjects {
			if err := s.DeleteProject(t.Context(), p); err != nil {
				r.Fatal(err)
			}
		}
		m := &queueModel{T: r, s: s, test: t, now: 1000, rows: map[string]*modelRow{}, cursor: ""}
		r.Repeat(map[string]func(*rapid.T){
			"": m.same, "append": m.append, "pass time": m.pass, "claim": m.claim, "claim more": m.claim, "renew": m.renew, "settle": m.settle, "settle more": m.settle, "cancel": m.cancel,
		})
	})
}

var modelProjects = []string{"a", "b", "c", "d"}

// queueModel is a queue as one would describe it.
type queueModel struct {
	*rapid.T
	s      store.Store
	test   *testing.T
	now    int // seconds
	rows   map[string]*modelRow
	leases []store.Lease // ever given
	cursor string
}

type modelRow struct {
	project, id string
	seq         int
	status      store.ExecutionStatus
	attempt     int
	losses      int
	priority    int
	ready       int  // 0: final
	marked      bool // as due
}

func (m *queueModel) at(s int) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0).UTC()
}

func (m *queueModel) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// sorted are the rows in the order in which they came.
func (m *queueModel) sorted() []*modelRow {
	return slices.SortedFunc(maps.Values(m.rows), func(a, b *modelRow) int { return cmp.Compare(a.seq, b.seq) })
}

func (m *queueModel) append(r *rapid.T) {
	var rows []store.Execution
	for range rapid.IntRange(1, 5).Draw(r, "rows") {
		row := &modelRow{
			project: rapid.SampledFrom(modelProjects).Draw(r, "project"), id: fmt.Sprint("x", len(m.rows)), seq: len(m.rows), status: store.ExecutionWaiting,
			ready: m.now + rapid.IntRange(-3, 5).Draw(r, "due in"), priority: rapid.IntRange(-1, 1).Draw(r, "priority"),
		}
		row.marked = row.ready <= m.now
		m.rows[row.id] = row
		rows = append(rows, store.Execution{
			Project: row.project, ID: row.id, FunctionID: "f", Status: row.status, ReadyAt: m.at(row.ready), UpdatedAt: m.at(m.now), Priority: row.priority, Payload: []byte(row.id),
		})
	}
	m.must(m.s.AppendExecutions(m.test.Context(), rows))
}

// pass lets time pass, or sets the clock back.
func (m *queueModel) pass(r *rapid.T) { m.now += rapid.IntRange(-3, 8).Draw(r, "seconds") }

// expected are the rows that a claim takes, by project. Of what is marked as due
// projects have equal shares, those behind the cursor first, and of each the most
// urgent are taken. What has become due is marked if there is nothing else, or for
// the next claim.
func (m *queueModel) expected(limit int, after string) map[string][]*modelRow {
	mark := func() (any bool) {
		for _, row := range m.rows {
			if row.ready != 0 && row.ready <= m.now && !row.marked {
				row.marked, any = true, true
			}
		}
		return any
	}
	want := m.share(limit, after)
	if len(want) > 0 {
		mark()
	} else if mark() || after != "" {
		want = m.share(limit, "")
	}
	for _, rows := range want {
		for _, row := range rows {
			row.marked = false
		}
	}
	return want
}

func (m *queueModel) share(limit int, after string) map[string][]*modelRow {
	due, behind := map[string][]*modelRow{}, false
	for _, row := range m.sorted() {
		if row.ready == 0 || !row.marked {
			continue
		}
		behind = behind || row.project > after
		if row.ready <= m.now {
			due[row.project] = append(due[row.project], row)
		}
	}
	served := slices.DeleteFunc(slices.Sorted(maps.Keys(due)), func(p string) bool { return behind && p <= after })
	served = served[:min(limit, len(served))]
	want := map[string][]*modelRow{}
	for _, p := range served {
		slices.SortStableFunc(due[p], func(a, b *modelRow) int {
			return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.ready, b.ready))
		})
		want[p] = due[p][:min(len(due[p]), limit/len(served))]
	}
	return want
}

func (m *queueModel) claim(r *rapid.T) {
	limit, lease := rapid.IntRange(1, 7).Draw(r, "limit"), rapid.IntRange(1, 6).Draw(r, "lease")
	want := m.expected(limit, m.cursor)
	got, err := m.s.Runs().Claim(m.test.Context(), store.ClaimParams{Now: m.at(m.now), LeaseUntil: m.at(m.now + lease), Limit: limit, After: m.cursor})
	m.must(err)
	m.cursor = ""
	n := 0
	for p, rows := range want {
		for _, row := range rows {
			n++
			i := slices.IndexFunc(got, func(c store.Claimed[store.Execution]) bool { return c.Lease.ID == row.id && c.Lease.Project == p })
			if i < 0 {
				r.Fatalf("%s of %s was not claimed: %+v", row.id, p, got)
			}
			if row.status == store.ExecutionProcessing {
				row.losses++
			}
			row.status, row.ready = store.ExecutionProcessing, m.now+lease
			row.attempt++
			x := got[i].Row
			if x.Attempt != row.attempt || got[i].Lease.Attempt != row.attempt || x.Losses != row.losses || x.Status != row.status || !x.ReadyAt.Equal(m.at(row.ready)) || string(x.Payload) != row.id {
				r.Fatalf("claimed %+v, want %+v", got[i], row)
			}
			m.leases = append(m.leases, got[i].Lease)
			m.cursor = max(m.cursor, p)
		}
	}
	if len(got) != n {
		r.Fatalf("%d rows were claimed, want %d: %+v", len(got), n, got)
	}
}

// holds says whether a lease holds its row.
func (m *queueModel) holds(l store.Lease) bool {
	row := m.rows[l.ID]
	return row.status == store.ExecutionProcessing && row.attempt == l.Attempt
}

// some are leases, each of another row.
func (m *queueModel) some(r *rapid.T) (some []store.Lease) {
	if len(m.leases) == 0 {
		r.Skip("none was given")
	}
	return rapid.SliceOfNDistinct(rapid.SampledFrom(m.leases), 1, 4, func(l store.Lease) string { return l.ID }).Draw(r, "leases")
}

func (m *queueModel) lost(r *rapid.T, leases, lost []store.Lease) {
	for _, l := range leases {
		if slices.Contains(lost, l) == m.holds(l) {
			r.Fatalf("%+v is lost: %t; the row is %+v", l, !m.holds(l), m.rows[l.ID])
		}
	}
}

func (m *queueModel) renew(r *rapid.T) {
	leases, until := m.some(r), m.now+rapid.IntRange(1, 6).Draw(r, "lease")
	lost, err := m.s.Runs().Renew(m.test.Context(), leases, m.at(until))
	m.must(err)
	m.lost(r, leases, lost)
	for _, l := range leases {
		if m.holds(l) {
			m.rows[l.ID].ready = until
		}
	}
}

func (m *queueModel) settle(r *rapid.T) {
	leases := m.some(r)
	settled := make([]store.Settlement[store.Execution], len(leases))
	ready := make([]int, len(leases))
	for i, l := range leases {
		row := m.rows[l.ID]
		x := store.Execution{Project: l.Project, ID: l.ID, FunctionID: "f", Status: store.ExecutionCompleted, UpdatedAt: m.at(m.now), Priority: row.priority}
		if rapid.Bool().Draw(r, "put back") {
			ready[i] = m.now + rapid.IntRange(-1, 4).Draw(r, "due in")
			x.Status, x.ReadyAt = store.ExecutionWaiting, m.at(ready[i])
		}
		settled[i] = store.Settlement[store.Execution]{Lease: l, Row: x}
	}
	lost, err := m.s.Runs().Settle(m.test.Context(), settled)
	m.must(err)
	m.lost(r, leases, lost)
	for i, l := range leases {
		if row := m.rows[l.ID]; m.holds(l) {
			row.status, row.ready, row.marked = settled[i].Row.Status, ready[i], ready[i] != 0 && ready[i] <= m.now
		}
	}
}

func (m *queueModel) cancel(r *rapid.T) {
	if len(m.rows) == 0 {
		r.Skip("there is none")
	}
	row := rapid.SampledFrom(m.sorted()).Draw(r, "row")
	_, err := m.s.CancelExecution(m.test.Context(), row.project, "f", row.id, "", m.at(m.now))
	if row.ready == 0 {
		if !errors.Is(err, store.ErrConflict) {
			r.Fatalf("canceled what is %s: %v", row.status, err)
		}
		return
	}
	m.must(err)
	row.status, row.ready, row.marked = store.ExecutionCanceled, 0, false
}

// same compares all rows, and when the first is due: of those that are marked as
// due one stands for all.
func (m *queueModel) same(r *rapid.T) {
	first, marked := 0, map[int]bool{}
	for _, row := range m.rows {
		if row.marked {
			marked[row.ready] = true
		} else if row.ready != 0 && (first == 0 || row.ready < first) {
			first = row.ready
		}
	}
	at, ok, err := m.s.Runs().NextDue(m.test.Context())
	m.must(err)
	if ok != (first != 0 || len(marked) > 0) || ok && !at.Equal(m.at(first)) && !marked[int(at.Unix())] || ok && first != 0 && at.After(m.at(first)) {
		r.Fatalf("due next at %s, %t, want %s or one of %v", at, ok, m.at(first), marked)
	}
	n := 0
	for _, p := range modelProjects {
		all, err := m.s.ListExecutions(m.test.Context(), p, "f", "", store.Query{Limit: 5000})
		m.must(err)
		n += len(all)
		for _, x := range all {
			row := m.rows[x.ID]
			if row == nil || x.Project != row.project || x.Status != row.status || x.Attempt != row.attempt || !x.ReadyAt.Equal(m.at(row.ready)) {
				r.Fatalf("%+v, want %+v", x, row)
			}
		}
	}
	if n != len(m.rows) {
		r.Fatalf("%d rows, want %d", n, len(m.rows))
	}
}
