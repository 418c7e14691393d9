package fnkit_test

import (
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fnkit/fnkit/"

// arrows say which packages a room may import besides the standard library and
// internal packages. A room is the first of these whose path a package has.
var arrows = []struct {
	room string
	may  []string
}{
	{"engine/enginetest", []string{"engine", "sandbox/fnbox", "store/dirblobs", "store/sqlstore/sqlite/sqlitetest", "github.com/benbjohnson/clock"}},
	{"engine", []string{"store", "sandbox", "events", "github.com/benbjohnson/clock", "go.opentelemetry.io/otel", "github.com/golang-jwt/jwt/v5"}},
	{"httpapi", []string{"engine"}},
	{"store/sqlstore/sqlite/sqlitetest", []string{"store/sqlstore", "store/sqlstore/sqlite"}},
	{"store/sqlstore/sqlite", []string{"store", "store/sqlstore", "github.com/uptrace/bun", "modernc.org/sqlite"}},
	{"store/sqlstore/postgres/postgrestest", []string{"github.com/jackc/pgx/v5", "github.com/ory/dockertest/v3"}},
	{"store/sqlstore/postgres", []string{"store", "store/sqlstore", "github.com/uptrace/bun", "github.com/jackc/pgx/v5"}},
	{"store/sqlstore", []string{"store", "github.com/uptrace/bun"}},
	{"store/dirblobs", []string{"store"}},
	{"store/storetest", []string{"store"}},
	{"store", nil},
	{"sandbox/procbox", []string{"sandbox", "golang.org/x/sys"}},
	{"sandbox/pluginbox", []string{"sandbox", "github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog", "google.golang.org/grpc", "google.golang.org/protobuf"}},
	{"sandbox/fnbox", []string{"sandbox"}},
	{"sandbox/sandboxtest", []string{"sandbox"}},
	{"sandbox", nil},
	{"events/eventstest", []string{"events"}},
	{"events", nil},
	{"internal", []string{"golang.org/x/sys"}},
}

// contracts import nothing but the standard library, not even internal packages.
var contracts = []string{"store", "sandbox", "events"}

// TestImports fails on an import that the house has no door for.
func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	rooms := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		i := slices.IndexFunc(arrows, func(a struct {
			room string
			may  []string
		}) bool {
			return within(name, a.room)
		})
		if i < 0 {
			if !within(name, "cmd") && !within(name, "examples") && name != strings.TrimSuffix(module, "/") {
				t.Errorf("package %s is in no room", name)
			}
			continue
		}
		rooms[arrows[i].room] = true
		for _, imported := range p.Imports {
			if !allowed(name, arrows[i].room, arrows[i].may, imported) {
				t.Errorf("%s must not import %s", name, imported)
			}
		}
	}
	for _, a := range arrows {
		if !rooms[a.room] {
			t.Errorf("there is no package in room %s", a.room)
		}
	}
}

func allowed(name, room string, may []string, imported string) bool {
	own, ours := strings.CutPrefix(imported, module)
	switch {
	case !ours && !strings.Contains(strings.Split(imported, "/")[0], "."):
		return true // standard library
	case ours && within(own, "internal"):
		return !slices.Contains(contracts, name)
	case ours && within(own, room) && room != own && !slices.Contains(contracts, room):
		return true // a package of the same room
	}
	for _, m := range may {
		if imported == m || within(imported, m) && !ours || ours && own == m {
			return true
		}
	}
	return false
}

// within reports whether a path is a room or below it.
func within(name, room string) bool {
	return name == room || strings.HasPrefix(name, room+"/") && path.Clean(name) == name
}
