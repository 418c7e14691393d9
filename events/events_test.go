package events_test

import (
	"slices"
	"testing"

	"github.com/fnkit/fnkit/events"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"functions.F.executions.E.create": {
			"functions.F.executions.E.create", "functions.*.executions.*.create",
			"functions.F.executions.*.create", "functions.*.executions.E.create",
			"functions.F.executions.E", "functions.*.executions.*", "functions.F.executions.*", "functions.*.executions.E",
			"functions.F", "functions.*",
		},
		"users.U.update":       {"users.U.update", "users.*.update", "users.U", "users.*"},
		"users.U.update.email": {"users.U.update.email", "users.*.update.email", "users.U.update", "users.*.update", "users.U", "users.*"},
	} {
		if got := events.Expand(name); !slices.Equal(got, want) {
			t.Errorf("Expand(%q)\n got %q\nwant %q", name, got, want)
		}
	}
}
