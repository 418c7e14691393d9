// Package postgrestest gives tests a Postgres database.
package postgrestest

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"

	"github.com/fnkit/fnkit/internal/require"
)

// Variables of the environment.
const (
	// Env names a server to use: a DSN of somebody who may make schemas.
	Env = "FNKIT_TEST_POSTGRES"
	// EnvImage names the image of a server to run where Docker answers and Env
	// is empty: one with Postgres, sh and a user postgres. Default: "postgres:17".
	EnvImage = "FNKIT_TEST_POSTGRES_IMAGE"
)

// DSN makes a schema for a test on the server of Env, or else on one in a
// container, and returns the DSN that leads there. The schema goes when the
// test ends. Where there is neither, the test is skipped.
func DSN(t testing.TB) string {
	t.Helper()
	dsn := server(t)
	return With(dsn, "search_path", create(t, dsn, "CREATE SCHEMA %s", "DROP SCHEMA %s CASCADE"))
}

// Database is as DSN with a database of its own: the transactions of other tests
// do not keep its dead rows.
func Database(t testing.TB) string {
	t.Helper()
	dsn := server(t)
	return With(dsn, "dbname", create(t, dsn, "CREATE DATABASE %s", "DROP DATABASE %s WITH (FORCE)"))
}

// server returns the DSN of the server, or skips the test.
func server(t testing.TB) string {
	t.Helper()
	if dsn := os.Getenv(Env); dsn != "" {
		return dsn
	}
	dsn, err := shared.start()
	if err != nil {
		require.Missing(t, "postgres", fmt.Sprintf("%s is empty and Docker has none: %v", Env, err))
	}
	return dsn
}

// create makes something with a name of its own, until the test ends.
func create(t testing.TB, dsn, make, drop string) (name string) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	name = "fnkit_test_" + strings.ToLower(rand.Text())
	if _, err := db.ExecContext(t.Context(), fmt.Sprintf(make, name)); err != nil {
		t.Fatal(errors.Join(err, db.Close()))
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := db.ExecContext(ctx, fmt.Sprintf(drop, name)); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return name
}

// With returns a DSN with one more setting.
func With(dsn, name, value string) string {
	if !strings.Contains(dsn, "://") {
		return dsn + " " + name + "=" + value
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return dsn // fails where it is used
	}
	if name == "dbname" {
		u.Path = "/" + value
		return u.String()
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// Main returns tests that stop the container, if one was started, when they
// have run. Call it in TestMain.
func Main(m interface{ Run() int }) interface{ Run() int } { return stopping{m} }

type stopping struct{ m interface{ Run() int } }

func (s stopping) Run() int {
	code := s.m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "postgrestest: stop the container:", err)
		return max(code, 1)
	}
	return code
}

// container is the one that all tests of a process share.
type container struct {
	once sync.Once
	dsn  string
	err  error
	pool *dockertest.Pool
	run  *dockertest.Resource
}

var shared container

// script runs a server that ends by itself, should the tests be killed.
const script = `PATH="$PATH:$(echo /usr/lib/postgresql/*/bin)"
initdb -D /tmp/data -A trust -U postgres -E UTF8 >/dev/null && echo 'host all all all trust' >>/tmp/data/pg_hba.conf &&
exec timeout 1800 postgres -D /tmp/data -c listen_addresses='*' -c fsync=off -c max_connections=300 -c unix_socket_directories=/tmp`

func (c *container) start() (string, error) {
	c.once.Do(func() { c.dsn, c.err = c.up() })
	return c.dsn, c.err
}

func (c *container) up() (string, error) {
	pool, err := dockertest.NewPool("")
	if err == nil {
		err = pool.Client.Ping()
	}
	if err != nil {
		return "", err
	}
	pool.MaxWait = time.Minute
	repository, tag, _ := strings.Cut(cmp.Or(os.Getenv(EnvImage), "postgres:17"), ":")
	c.pool = pool
	c.run, err = pool.RunWithOptions(&dockertest.RunOptions{
		Repository: repository, Tag: cmp.Or(tag, "latest"), User: "postgres", Entrypoint: []string{"sh", "-c", script},
		ExposedPorts: []string{"5432/tcp"}, PortBindings: map[docker.Port][]docker.PortBinding{"5432/tcp": {{HostIP: "127.0.0.1"}}},
	}, func(h *docker.HostConfig) { h.AutoRemove = true })
	if err != nil {
		return "", err
	}
	dsn := "postgres://postgres@" + net.JoinHostPort("127.0.0.1", c.run.GetPort("5432/tcp")) + "/postgres?sslmode=disable"
	return dsn, pool.Retry(func() error {
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			return err
		}
		return errors.Join(db.Ping(), db.Close())
	})
}

func (c *container) stop() error {
	if c.run == nil {
		return nil
	}
	err := c.pool.Purge(c.run)
	c.pool.Client.HTTPClient.CloseIdleConnections()
	return err
}
