package engine_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fnkit/fnkit/engine"
	"github.com/fnkit/fnkit/engine/enginetest"
)

func TestCheckRoles(t *testing.T) {
	t.Parallel()
	for role, fault := range map[string]string{
		"any": "", "guests": "", "users": "", "users/verified": "", "user:u1": "", "user:u1/unverified": "", "team:t": "",
		"team:t/owner": "", "member:m": "", "label:vip": "",
		"*":                                  `Wildcard role "*" has been replaced`,
		"role:all":                           `Roles using the "role:" prefix`,
		"root":                               `Role "root" is not allowed. Must be one of: any, guests, users, user, team, member, label.`,
		"any:x":                              `Role "any" can not have an ID value.`,
		"any/verified":                       `Role "any" can not have a dimension value.`,
		"user":                               `Role "user" must have an ID value.`,
		"users/x":                            `dimension value is invalid. Must be one of: verified, unverified.`,
		"users/":                             `Dimension must not be empty`,
		"team:t/a/b":                         `Only one dimension can be provided`,
		"user:_x":                            `identifier value is invalid: UID must contain`,
		"label:a-b":                          `identifier value is invalid`,
		"member:m/x":                         `can not have a dimension value.`,
		"team:t/" + strings.Repeat("x", 130): "no longer than 128 chars",
	} {
		err := engine.CheckRoles([]string{role})
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%q: %v, want %q", role, err, fault)
		}
	}
	if err := engine.CheckRoles(slices.Repeat([]string{"any"}, 100)); err != nil {
		t.Errorf("100 roles: %v", err)
	}
	if err := engine.CheckRoles(slices.Repeat([]string{"any"}, 101)); err == nil || err.Error() != "You can only provide up to 100 roles." {
		t.Errorf("101 roles: %v", err)
	}
}

func TestCheckEvents(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t, nil)
	for name, ok := range map[string]bool{
		"users.*.create": true, "users.u1": true, "users.create": true, "users.*.update.email": true, "users.*.sessions.*.create": true,
		"databases.*.collections.*.documents.*.update": true, "buckets.b.files.f": true, "teams.*.memberships.*.update.status": true,
		"": false, "users": false, "users..create": false, "users.*.explode": false, "users.*.update.age": false,
		"users.*.sessions": false, "users.*.sessions.*.update": false, "planets.*.create": false, "functions.*.create": false,
		"databases.*.collections.*.documents.*.update.x": false,
	} {
		if err := e.CheckEvents([]string{name}); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := e.CheckEvents([]string{"functions.*.create"}); !strings.Contains(err.Error(), "Triggering a function on a function event is not allowed.") {
		t.Error(err)
	}
}

func TestCheckIDs(t *testing.T) {
	t.Parallel()
	for id, ok := range map[string]bool{
		"a": true, "A.b-c_9": true, strings.Repeat("a", 36): true, engine.UniqueID: true,
		"": false, "-a": false, ".a": false, "_a": false, "a b": false, "a/b": false, strings.Repeat("a", 37): false, "ü": false,
		"runtimes": false, "specifications": false, "usage": false, "templates": false,
	} {
		if err := engine.CheckNewID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestCheckTextRangeAndHeaders(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{"a": true, strings.Repeat("é", 128): true, "": false, strings.Repeat("a", 129): false, "a\x00b": false, "\xff": false} {
		if err := engine.CheckText(text, 1, 128); (err == nil) != ok {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if err := engine.CheckRange(1001, 1, 1000); err.Error() != "Value must be a valid range between 1 and 1,000" {
		t.Error(err)
	}
	header := func(n, v string) []engine.Header { return []engine.Header{{Name: n, Value: v}} }
	for name, c := range map[string]struct {
		h  []engine.Header
		ok bool
	}{
		"plain":        {header("X-A", "b"), true},
		"key":          {header("X-Appwrite-Key", "b"), false},
		"digits":       {header("123", "b"), false},
		"dash":         {header("-a", "b"), false},
		"line break":   {header("a", "b\r\nc: d"), false},
		"just too big": {header("a", strings.Repeat("v", 16383)), false},
		"big":          {header("a", strings.Repeat("v", 16382)), true},
		"100":          {slices.Repeat(header("a", "b"), 100), true},
		"101":          {slices.Repeat(header("a", "b"), 101), false},
	} {
		if err := engine.CheckHeaders(c.h); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestZeroActorGetsTheLeast(t *testing.T) {
	t.Parallel()
	var guest engine.Actor
	for _, scope := range []string{engine.ScopeFunctionsRead, engine.ScopeFunctionsWrite, engine.ScopeExecutionRead} {
		if guest.Can(scope) {
			t.Errorf("a guest can %s", scope)
		}
	}
	if guest.Trusted() || !slices.Equal(guest.AllRoles(), []string{"any", "guests"}) {
		t.Errorf("a guest has roles %v", guest.AllRoles())
	}
	user := engine.Actor{Kind: engine.ActorUser, UserID: "u", Verified: true, Roles: []string{"label:vip"}}
	if want := []string{"any", "users", "user:u", "users/verified", "user:u/verified", "label:vip"}; !slices.Equal(user.AllRoles(), want) {
		t.Errorf("a user has roles %v", user.AllRoles())
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := engine.New(engine.Config{MinIsolation: "lots", Keys: engine.Key("k", []byte("short"))})
	for _, part := range []string{"Store is missing", "Blobs is missing", "Sandbox is missing", "at least 16 bytes", `"lots"`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not mention %q", err, part)
		}
	}
}

func TestEveryTypeHasAMessage(t *testing.T) {
	t.Parallel()
	for typ := range engine.ErrorTypes() {
		if e := engine.Errorf(typ, ""); e.Message == "" || e.Type != typ {
			t.Errorf("%+v", e)
		}
	}
}
