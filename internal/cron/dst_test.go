package cron_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fnkit/fnkit/internal/cron"
)

// TestAgainstRealMinutes walks days around clock changes minute by minute, in
// zones that change it in unusual ways, and takes the runs that the rules of
// the package give at each.
func TestAgainstRealMinutes(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct{ zone, day string }{
		{"Europe/Berlin", "2026-03-29"}, {"Europe/Berlin", "2026-10-25"},
		{"America/New_York", "2026-03-08"}, {"America/New_York", "2026-11-01"},
		{"Australia/Lord_Howe", "2026-04-05"}, {"Australia/Lord_Howe", "2026-10-04"}, // half an hour
		{"America/Sao_Paulo", "2018-11-04"}, {"America/Sao_Paulo", "2018-02-18"}, // at midnight
		{"Asia/Beirut", "2025-03-30"}, {"America/Havana", "2025-11-02"},
		{"Pacific/Apia", "2011-12-30"},                                         // a day that does not exist
		{"Antarctica/Troll", "2026-03-29"}, {"Antarctica/Troll", "2026-10-25"}, // two hours
		{"Asia/Kolkata", "2026-05-05"},
	} {
		t.Run(c.zone+" "+c.day, func(t *testing.T) {
			loc, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			noon, _ := time.ParseInLocation("2006-01-02 15", c.day+" 12", loc)
			from := noon.Add(-48 * time.Hour)
			minutes := wallMinutes(from, 96*60)
			for range 40 {
				expr := dstExpr(rnd)
				checkRuns(t, expr, from, minutes)
				if t.Failed() {
					return
				}
			}
		})
	}
}

func dstExpr(rnd *rand.Rand) string {
	hours := randomField(rnd, 0, 23)
	if rnd.IntN(2) == 0 {
		hours = []string{"0", "1", "2", "3", "1-3", "23", "0-2"}[rnd.IntN(7)]
	}
	dom, dow := "*", "*"
	switch rnd.IntN(3) {
	case 1:
		dom = randomField(rnd, 1, 31)
	case 2:
		dow = randomField(rnd, 0, 7)
	}
	return fmt.Sprintf("%s %s %s * %s", randomField(rnd, 0, 59), hours, dom, dow)
}

// minute is what the clock on the wall did at an instant.
type minute struct {
	at      time.Time
	again   bool        // it showed this time before
	skipped []time.Time // the times it jumped over to get here, as UTC
}

func wallMinutes(from time.Time, n int) []minute {
	var out []minute
	seen := map[time.Time]bool{}
	var last time.Time
	for i := range n {
		m := minute{at: from.Add(time.Duration(i) * time.Minute)}
		wall := time.Date(m.at.Year(), m.at.Month(), m.at.Day(), m.at.Hour(), m.at.Minute(), 0, 0, time.UTC)
		if !last.IsZero() {
			for s := last.Add(time.Minute); s.Before(wall); s = s.Add(time.Minute) {
				m.skipped = append(m.skipped, s)
			}
		}
		m.again = seen[wall]
		seen[wall] = true
		last = wall
		out = append(out, m)
	}
	return out
}

func checkRuns(t *testing.T, expr string, from time.Time, minutes []minute) {
	t.Helper()
	e, err := cron.Parse(expr)
	if err != nil {
		t.Fatal(err)
	}
	var want []time.Time
	b := newBrute(expr)
	hourly := !slices.Contains(b.hours[:24], false)
	for _, m := range minutes[1:] {
		wall := time.Date(m.at.Year(), m.at.Month(), m.at.Day(), m.at.Hour(), m.at.Minute(), 0, 0, time.UTC)
		due := b.match(wall) && (hourly || !m.again)
		for _, s := range m.skipped {
			due = due || !hourly && b.match(s)
		}
		if due {
			want = append(want, m.at)
		}
	}
	end := minutes[len(minutes)-1].at
	at, i := from, 0
	for {
		next, ok := e.Next(at)
		if !ok || next.After(end) {
			break
		}
		if i >= len(want) || !next.Equal(want[i]) {
			t.Errorf("%q: after %s comes %s, want %v", expr, at, next, want[min(i, len(want)-1):min(i+1, len(want))])
			return
		}
		if i > 0 {
			if back, ok := e.Prev(next); !ok || !back.Equal(want[i-1]) {
				t.Errorf("%q: before %s came %s, want %s", expr, next, back, want[i-1])
				return
			}
		}
		at, i = next, i+1
	}
	if i != len(want) {
		t.Errorf("%q: no run after %s, want %s", expr, at, want[i])
	}
}
