package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
	"github.com/fnkit/fnkit/store/sqlstore/sqlite"
)

// TestALoudTenant: however many executions of one project wait, the first one of
// another comes with the next claim or the one after.
func TestALoudTenant(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
		loudTenant(t, s, err)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		s, err := postgres.Open(t.Context(), postgrestest.DSN(t))
		loudTenant(t, s, err)
	})
}

func loudTenant(t *testing.T, s store.Store, err error) {
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const room = 16
	backlog := 100_000
	if testing.Short() {
		backlog = 5_000
	}
	at := time.Unix(1000, 0).UTC()
	row := func(project string, i int) store.Execution {
		return store.Execution{Project: project, ID: fmt.Sprint(project, i), FunctionID: "f", Status: store.ExecutionWaiting, ReadyAt: at, UpdatedAt: at}
	}
	for i := 0; i < backlog; {
		var rows []store.Execution
		for ; len(rows) < 5000; i++ {
			rows = append(rows, row("m-loud", i))
		}
		if err := s.AppendExecutions(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
	}
	after, claimed := "", map[string]int{}
	claim := func() {
		t.Helper()
		rows, err := s.Runs().Claim(t.Context(), store.ClaimParams{Now: at, LeaseUntil: at.Add(time.Hour), Limit: room, After: after})
		if err != nil || len(rows) == 0 || len(rows) > room {
			t.Fatalf("claimed %d rows, %v", len(rows), err)
		}
		after = ""
		for _, c := range rows {
			claimed[c.Lease.Project]++
			after = max(after, c.Lease.Project)
		}
	}
	for range 5 {
		claim()
	}
	if claimed["m-loud"] != 5*room {
		t.Errorf("alone it got %d", claimed["m-loud"])
	}
	for i, quiet := range []string{"a-quiet", "z-quiet", "n-quiet"} {
		if err := s.AppendExecutions(t.Context(), []store.Execution{row(quiet, 0)}); err != nil {
			t.Fatal(err)
		}
		before := claimed["m-loud"]
		for claimed[quiet] == 0 {
			claim()
		}
		calls := claimed["m-loud"] - before
		t.Logf("%d calls of the loud one came before the first of %s", calls, quiet)
		if calls > room {
			t.Errorf("number %d waited for %d calls of the loud one", i, calls)
		}
	}
}
