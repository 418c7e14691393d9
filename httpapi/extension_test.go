package httpapi_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/benbjohnson/clock"
)

// What the reference does not have lies under one object: absent keeps, null
// goes back to the default.
func TestFunctionExtension(t *testing.T) {
	t.Parallel()
	mock := clock.NewMock()
	mock.Set(time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC))
	s := newServer(t, func(u *setup) { u.idle, u.cfg.Clock = true, mock })
	policy := func(a answer) string {
		t.Helper()
		ext, _ := a.ok(a.status).body["fnkit"].(map[string]any)
		if ext["nextRunAt"] != "" || ext["lastRunAt"] != "" {
			t.Errorf("it is due without a deployment: %s", a.raw)
		}
		return ext["timeZone"].(string) + " " + ext["catchUp"].(string)
	}
	fn := s.create(t, "echo", "schedule", "0 3 * * *", "fnkit", map[string]any{"timeZone": "Asia/Tokyo"})
	put := func(settings ...any) answer {
		t.Helper()
		body := map[string]any{"name": "n"}
		for i := 0; i < len(settings); i += 2 {
			body[settings[i].(string)] = settings[i+1]
		}
		return s.do(t, "PUT", "/functions/"+fn, body)
	}
	for _, c := range []struct {
		settings []any
		want     string
	}{
		{nil, "Asia/Tokyo once"},
		{[]any{"fnkit", map[string]any{"catchUp": "all"}}, "Asia/Tokyo all"},
		{[]any{"fnkit", map[string]any{}}, "Asia/Tokyo all"},
		{[]any{"fnkit", map[string]any{"timeZone": nil}}, "UTC all"},
		{[]any{"fnkit", map[string]any{"timeZone": "America/Lima", "catchUp": "skip"}}, "America/Lima skip"},
		{[]any{"fnkit", nil}, "UTC once"},
	} {
		if got := policy(put(c.settings...).ok(200)); got != c.want {
			t.Errorf("after %v: %s, want %s", c.settings, got, c.want)
		}
	}
	// A retry policy is replaced as a whole; a client that does not know of it keeps it.
	retry := func(a answer) string {
		ext, _ := a.ok(200).body["fnkit"].(map[string]any)
		return fmt.Sprint(ext["retry"], ext["priority"])
	}
	for _, c := range []struct {
		settings []any
		want     string
	}{
		{[]any{"fnkit", map[string]any{"retry": map[string]any{"attempts": 3, "on": []string{"timeout"}}, "priority": -7}}, "map[attempts:3 backoff:1 maxBackoff:3600 on:[timeout]] -7"},
		{nil, "map[attempts:3 backoff:1 maxBackoff:3600 on:[timeout]] -7"},
		{[]any{"fnkit", map[string]any{"retry": map[string]any{"attempts": 2, "backoff": 7200}}}, "map[attempts:2 backoff:7200 maxBackoff:7200 on:[error timeout crash]] -7"},
		{[]any{"fnkit", map[string]any{"retry": nil, "priority": nil}}, "map[attempts:0 backoff:1 maxBackoff:3600 on:[error timeout crash]] 0"},
	} {
		if got := retry(put(c.settings...)); got != c.want {
			t.Errorf("after %v: %s, want %s", c.settings, got, c.want)
		}
	}
	for _, bad := range []any{[]any{}, map[string]any{"attempts": 101}, map[string]any{"backoff": -1}, map[string]any{"on": []string{"luck"}}, map[string]any{"on": []string{"crash", "crash"}}} {
		put("fnkit", map[string]any{"retry": bad}).fails("general_argument_invalid")
	}
	put("fnkit", map[string]any{"retry": map[string]any{"attempts": 101}}).fails("general_argument_invalid", "Invalid `fnkit.retry.attempts` param: Value must be a valid range between 0 and 100")

	limits := func(a answer) string {
		ext, _ := a.ok(200).body["fnkit"].(map[string]any)
		return fmt.Sprintf("%v %v %v %v %v", ext["concurrency"], ext["laneConcurrency"], ext["rate"], ext["laneRate"], ext["network"])
	}
	for _, c := range []struct {
		settings []any
		want     string
	}{
		{[]any{"fnkit", map[string]any{"concurrency": 3, "laneConcurrency": 1, "rate": map[string]any{"limit": 5, "period": 60}, "laneRate": map[string]any{"limit": 1, "period": 2}, "network": "host"}}, "3 1 map[limit:5 period:60] map[limit:1 period:2] host"},
		{nil, "3 1 map[limit:5 period:60] map[limit:1 period:2] host"},
		{[]any{"fnkit", map[string]any{"rate": nil}}, "3 1 <nil> map[limit:1 period:2] host"},
		{[]any{"fnkit", map[string]any{"laneRate": nil}}, "3 1 <nil> <nil> host"},
		{[]any{"fnkit", nil}, "0 0 <nil> <nil> "},
	} {
		if got := limits(put(c.settings...)); got != c.want {
			t.Errorf("after %v: %s, want %s", c.settings, got, c.want)
		}
	}
	for _, bad := range []any{map[string]any{"priority": 1.5}, map[string]any{"priority": true}, map[string]any{"network": "carrier pigeon"}, map[string]any{"network": "none"}, map[string]any{"concurrency": -1}, map[string]any{"laneConcurrency": 1.5}, map[string]any{"rate": 5}, map[string]any{"rate": map[string]any{"limit": 5}}, map[string]any{"rate": map[string]any{"limit": 0, "period": 1}}, map[string]any{"laneRate": map[string]any{"limit": 1, "period": 0}}} {
		put("fnkit", bad).fails("general_argument_invalid")
	}

	for _, bad := range []any{"text", 1, true, []any{}, map[string]any{"timeZone": 1}, map[string]any{"timeZone": "Nowhere"}, map[string]any{"timeZone": "Local"}, map[string]any{"catchUp": "never"}, map[string]any{"catchUp": []any{}}} {
		put("fnkit", bad).ok(400).fails("general_argument_invalid")
	}
	put("fnkit", map[string]any{"catchUp": "never"}).fails("general_argument_invalid", "Invalid `fnkit.catchUp` param: Value must be one of (once, skip, all)")

	put("schedule", "30 3 * * *", "fnkit", map[string]any{"timeZone": "Asia/Tokyo"}).ok(200)
	old := s.with("X-Appwrite-Response-Format", "1.3.0").get(t, "/functions/"+fn).ok(200)
	if old.text("scheduleNext") != "2026-07-01T18:30:00.000+00:00" || old.text("schedulePrevious") != "2026-06-30T18:30:00.000+00:00" {
		t.Errorf("got %s", old.raw)
	}
}
