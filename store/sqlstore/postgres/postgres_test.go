package postgres_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/fnkit/fnkit/store"
	"github.com/fnkit/fnkit/store/sqlstore"
	"github.com/fnkit/fnkit/store/sqlstore/postgres"
	"github.com/fnkit/fnkit/store/sqlstore/postgres/postgrestest"
	"github.com/fnkit/fnkit/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgrestest.Main(m)) }

func open(t testing.TB, dsn string) *sqlstore.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, postgrestest.DSN(t)) })
}

func TestShared(t *testing.T) {
	t.Parallel()
	storetest.RunShared(t, func(t *testing.T, n int) []store.Store {
		dsn := postgrestest.DSN(t)
		all := make([]store.Store, n)
		for i := range all {
			all[i] = open(t, dsn)
		}
		return all
	})
}
