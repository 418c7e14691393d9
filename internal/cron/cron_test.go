package cron_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/cron"
)

func parse(t testing.TB, s string) *cron.Expr {
	t.Helper()
	e, err := cron.Parse(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return e
}

func TestAcceptance(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/acceptance.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for s := bufio.NewScanner(f); s.Scan(); lines++ {
		var row struct {
			Expr  string
			Valid bool
		}
		if err := json.Unmarshal(s.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		if _, err := cron.Parse(row.Expr); (err == nil) != row.Valid || err != nil && !errors.Is(err, cron.ErrSyntax) {
			t.Errorf("%q: %v, want valid %v", row.Expr, err, row.Valid)
		}
	}
	if lines < 400 {
		t.Fatalf("only %d lines of data", lines)
	}
	for _, s := range []string{"", "* * * *", "* * * * * *", "*/0 * * * *", "@reboot", "@every 5m", "0 0 ? * ?", "0 0 L-31 * *", "0 0 * * L", "0 0 * * 1#6", "0 0 32W * *"} {
		if _, err := cron.Parse(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ expr, zone, after, want string }{
		{"0 3 * * MON", "UTC", "2026-01-01 00:00", "2026-01-05 03:00"},
		{"* 5,3 * * *", "UTC", "2026-01-01 00:00", "2026-01-01 03:00"}, // unsorted lists
		{"4,7,21-35 * * * *", "UTC", "2026-01-01 00:00", "2026-01-01 00:04"},
		{"0 0 LW * *", "UTC", "2026-01-01 00:00", "2026-01-30 00:00"},
		{"0 0 L-3 * *", "UTC", "2026-02-01 00:00", "2026-02-25 00:00"},
		{"0 0 15W * *", "UTC", "2026-02-01 00:00", "2026-02-16 00:00"},
		{"0 0 1W * *", "UTC", "2026-07-31 00:00", "2026-08-03 00:00"},
		{"0 0 * * 5L", "UTC", "2026-01-01 00:00", "2026-01-30 00:00"},
		{"0 0 * * 1#2", "UTC", "2026-01-01 00:00", "2026-01-12 00:00"},
		{"0 0 13 * FRI", "UTC", "2026-01-01 00:00", "2026-01-02 00:00"}, // either day field
		{"0 0 29 2 *", "UTC", "2026-01-01 00:00", "2028-02-29 00:00"},
		{"0 0 * 2 1#5", "UTC", "2026-01-01 00:00", "2044-02-29 00:00"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 03:00"}, // skipped
		{"30 * * * *", "Europe/Berlin", "2026-03-29 01:30", "2026-03-29 03:30"},
		{"*/61 * * * *", "UTC", "2026-01-01 00:00", "2026-01-01 01:00"},
	} {
		loc, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		after, _ := time.ParseInLocation("2006-01-02 15:04", c.after, loc)
		got, ok := parse(t, c.expr).Next(after)
		if !ok || got.Format("2006-01-02 15:04") != c.want {
			t.Errorf("%q after %s %s: %s, %v; want %s", c.expr, c.after, c.zone, got, ok, c.want)
		}
	}
}

func TestImpossibleIsNeverDue(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"0 0 30 2 *", "50-10 * * * *", "0 0 * * FRI-MON"} {
		if at, ok := parse(t, s).Next(time.Unix(0, 0).UTC()); ok {
			t.Errorf("%q is due at %s", s, at)
		}
		if at, ok := parse(t, s).Prev(time.Unix(0, 0).UTC()); ok {
			t.Errorf("%q was due at %s", s, at)
		}
	}
}

func TestAutumnRunsFixedTimesOnce(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 10, 25, 0, 0, 0, 0, berlin)
	for expr, want := range map[string]int{"30 2 * * *": 1, "30 * * * *": 25, "0 2-3 * * *": 2} {
		n := 0
		for at, ok := parse(t, expr).Next(day.Add(-time.Minute)); ok && at.Before(day.AddDate(0, 0, 1)); at, ok = parse(t, expr).Next(at) {
			n++
		}
		if n != want {
			t.Errorf("%q ran %d times on the day, want %d", expr, n, want)
		}
	}
}

// TestAgainstBruteForce steps through random stretches of time minute by
// minute with a matcher of its own.
func TestAgainstBruteForce(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		expr := fmt.Sprintf("%s %s %s %s %s", randomField(rnd, 0, 59), randomField(rnd, 0, 23), randomField(rnd, 1, 31), randomField(rnd, 1, 12), randomField(rnd, 0, 7))
		e, b := parse(t, expr), newBrute(expr)
		start := time.Date(2020+rnd.IntN(10), time.Month(1+rnd.IntN(12)), 1+rnd.IntN(28), rnd.IntN(24), rnd.IntN(60), rnd.IntN(60), 0, time.UTC)
		want, found := start.Truncate(time.Minute).Add(time.Minute), false
		for range 60 * 24 * 40 {
			if found = b.match(want); found {
				break
			}
			want = want.Add(time.Minute)
		}
		got, ok := e.Next(start)
		if found && (!ok || !got.Equal(want)) || !found && ok && got.Before(want) {
			t.Fatalf("%q after %s: %s, %v; want %s", expr, start, got, ok, want)
		}
		if found {
			if back, ok := e.Prev(want.Add(time.Second)); !ok || !back.Equal(want) {
				t.Fatalf("%q before %s: %s, %v; want %s", expr, want.Add(time.Second), back, ok, want)
			}
			if back, ok := e.Prev(want); ok && back.After(start) {
				t.Fatalf("%q before %s: %s, though none lies after %s", expr, want, back, start)
			}
		}
	}
}

func randomField(r *rand.Rand, low, high int) string {
	one := func() string {
		a := low + r.IntN(high-low+1)
		b := a + r.IntN(high-a+1)
		switch r.IntN(5) {
		case 0:
			return "*"
		case 1:
			return fmt.Sprintf("*/%d", 1+r.IntN(high))
		case 2:
			return fmt.Sprintf("%d-%d", a, b)
		case 3:
			return fmt.Sprintf("%d-%d/%d", a, b, 1+r.IntN(5))
		}
		return fmt.Sprint(a)
	}
	s := one()
	for s != "*" && r.IntN(3) == 0 {
		s += "," + one()
	}
	return s
}

// brute is an expression as tables of the values that match.
type brute struct {
	minutes, hours, dom, months, dow [61]bool
	either                           bool // one of the day fields is enough
}

func newBrute(expr string) *brute {
	f := strings.Fields(expr)
	b := &brute{either: f[2] != "*" && f[4] != "*"}
	for v := range 61 {
		b.minutes[v], b.hours[v] = bruteField(f[0], v, 0), bruteField(f[1], v, 0)
		b.dom[v], b.months[v] = bruteField(f[2], v, 1), bruteField(f[3], v, 1)
		b.dow[v] = bruteField(f[4], v, 0)
	}
	b.dow[0] = b.dow[0] || b.dow[7]
	return b
}

func (b *brute) match(t time.Time) bool {
	dom, dow := b.dom[t.Day()], b.dow[t.Weekday()]
	day := dom && dow || b.either && (dom || dow)
	return day && b.minutes[t.Minute()] && b.hours[t.Hour()] && b.months[t.Month()]
}

func bruteField(field string, v, low int) bool {
	for item := range strings.SplitSeq(field, ",") {
		from, to, step := low, 1000, 1
		base, rest, stepped := strings.Cut(item, "/")
		if stepped {
			fmt.Sscan(rest, &step)
		}
		if base != "*" {
			if n, _ := fmt.Sscanf(base, "%d-%d", &from, &to); n == 1 {
				to = from
			}
		}
		if v >= from && v <= to && (v-from)%step == 0 {
			return true
		}
	}
	return false
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"* * * * *", "0 0 LW * 5L", "@daily", "*/5 1-3/2 ? JAN 1#2"} {
		f.Add(s)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		e, err := cron.Parse(s)
		if err != nil {
			return
		}
		next, ok := e.Next(at)
		if !ok {
			return
		}
		if !next.After(at) {
			t.Fatalf("%q: %s is not after %s", s, next, at)
		}
		if back, ok := e.Prev(next.Add(time.Nanosecond)); !ok || !back.Equal(next) {
			t.Fatalf("%q: Next %s, Prev %s", s, next, back)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range []string{"0 3 * * MON", "* * * * *", "0 0 29 2 1#5", "0 0 30 2 *", "50-10 * * * *"} {
		e := parse(b, s)
		for _, loc := range []*time.Location{time.UTC, berlin} {
			at := time.Date(2026, 1, 1, 0, 0, 0, 0, loc)
			b.Run(s+" "+loc.String(), func(b *testing.B) {
				for b.Loop() {
					e.Next(at)
				}
			})
		}
	}
}
