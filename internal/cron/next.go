package cron

import (
	"math/bits"
	"time"
)

// horizon is how many years ahead or back a run is looked for: the rarest,
// such as a fifth Monday in February, come every 28 years, or 40 around a
// century that is not a leap year.
const horizon = 41

// everyHour is the set of all hours: such an expression runs by real hours.
const everyHour = 1<<24 - 1

// Next returns the first time after t at which the expression is due, in t's
// location; ok is false if there is none, as for February 30.
func (e *Expr) Next(t time.Time) (next time.Time, ok bool) {
	limit := t.AddDate(horizon, 0, 0)
	from := wall(t).Truncate(time.Minute).Add(time.Minute)
	for s := spanOf(t); ; s = spanOf(s.end) {
		until := wall(limit)
		if !s.end.IsZero() {
			until = s.wallEnd
		}
		if w, ok := e.seek(e.notTwice(from, s), until); ok {
			return s.instant(w, t.Location()), true
		}
		if s.end.IsZero() || s.end.After(limit) {
			return time.Time{}, false
		}
		from = ceilMinute(wall(s.end))
		if e.hours != everyHour {
			if _, ok := e.seek(ceilMinute(s.wallEnd), wall(s.end)); ok { // skipped
				return s.end, true
			}
		}
	}
}

// Prev returns the last time before t at which the expression was due, in t's
// location.
func (e *Expr) Prev(t time.Time) (prev time.Time, ok bool) {
	limit := t.AddDate(-horizon, 0, 0)
	from := t.Add(-1)
	for s := spanOf(from); ; s = spanOf(from) {
		first := wall(limit)
		if !s.start.IsZero() {
			first = wall(s.start)
		}
		if w, ok := e.seekBack(wall(from), e.notTwice(first, s)); ok {
			return s.instant(w, t.Location()), true
		}
		if s.start.IsZero() || s.start.Before(limit) {
			return time.Time{}, false
		}
		if e.hours != everyHour {
			if _, ok := e.seek(ceilMinute(s.wallBefore), first); ok { // skipped
				return s.start, true
			}
		}
		from = s.start.Add(-1)
	}
}

// wall returns what the clock on the wall shows at t, as a time in UTC.
func wall(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

func ceilMinute(t time.Time) time.Time { return t.Add(time.Minute - 1).Truncate(time.Minute) }

// span is a stretch of time in which the clock is not changed.
type span struct {
	start, end time.Time     // zero: open
	offset     time.Duration // of the wall from UTC
	wallBefore time.Time     // what the wall would show at start without the change
	wallEnd    time.Time     // and at end
}

// spanOf returns the stretch that holds t.
func spanOf(t time.Time) span {
	s := span{}
	s.start, s.end = t.ZoneBounds()
	// At the end of leap years ZoneBounds can return bounds that do not hold t.
	if !s.end.IsZero() && !s.end.After(t) {
		s.end = t.Add(24 * time.Hour)
	}
	if s.start.After(t) {
		s.start = t.Add(-24 * time.Hour)
	}
	_, offset := t.Zone()
	s.offset = time.Duration(offset) * time.Second
	if !s.start.IsZero() {
		s.wallBefore = wall(s.start.Add(-time.Second)).Add(time.Second)
	}
	if !s.end.IsZero() {
		s.wallEnd = s.end.UTC().Add(s.offset)
	}
	return s
}

// instant returns when the wall shows w in the stretch.
func (s span) instant(w time.Time, loc *time.Location) time.Time {
	return w.Add(-s.offset).In(loc)
}

// notTwice returns the first time on the wall, from w on, that counts in the
// stretch: one that the wall showed before the change does not count again.
func (e *Expr) notTwice(w time.Time, s span) time.Time {
	if e.hours == everyHour || !w.Before(s.wallBefore) {
		return w
	}
	return ceilMinute(s.wallBefore)
}

// seek returns the first time on the wall that matches, from a whole minute on
// and before until.
func (e *Expr) seek(from, until time.Time) (time.Time, bool) {
	if e.minutes == 0 || e.hours == 0 || !from.Before(until) {
		return time.Time{}, false
	}
	y, m, d := from.Date()
	h, mi, ok := e.timeFrom(from.Hour(), from.Minute())
	if !ok {
		d++
		h, mi, _ = e.timeFrom(0, 0)
	}
	for lastYear, lastMonth, _ := until.Date(); y < lastYear || y == lastYear && m <= lastMonth; m, d = m+1, 1 {
		if m > time.December {
			y, m = y+1, time.January
		}
		rest := e.days(y, m) &^ (1<<d - 1)
		if rest == 0 {
			h, mi, _ = e.timeFrom(0, 0)
			continue
		}
		first := bits.TrailingZeros64(rest)
		if first != d {
			h, mi, _ = e.timeFrom(0, 0)
		}
		at := time.Date(y, m, first, h, mi, 0, 0, time.UTC)
		return at, at.Before(until)
	}
	return time.Time{}, false
}

// seekBack returns the last time on the wall that matches, up to from and not
// before first.
func (e *Expr) seekBack(from, first time.Time) (time.Time, bool) {
	if e.minutes == 0 || e.hours == 0 || from.Before(first) {
		return time.Time{}, false
	}
	y, m, d := from.Date()
	h, mi, ok := e.timeTo(from.Hour(), from.Minute())
	if !ok {
		d--
		h, mi, _ = e.timeTo(23, 59)
	}
	for firstYear, firstMonth, _ := first.Date(); y > firstYear || y == firstYear && m >= firstMonth; m, d = m-1, 31 {
		if m < time.January {
			y, m = y-1, time.December
		}
		rest := e.days(y, m) & (1<<(d+1) - 1)
		if rest == 0 {
			h, mi, _ = e.timeTo(23, 59)
			continue
		}
		last := 63 - bits.LeadingZeros64(rest)
		if last != d {
			h, mi, _ = e.timeTo(23, 59)
		}
		at := time.Date(y, m, last, h, mi, 0, 0, time.UTC)
		return at, !at.Before(first)
	}
	return time.Time{}, false
}

// timeFrom returns the first time of day that matches, from a time on.
func (e *Expr) timeFrom(h, mi int) (hour, minute int, ok bool) {
	if e.hours&(1<<h) != 0 {
		if rest := e.minutes &^ (1<<mi - 1); rest != 0 {
			return h, bits.TrailingZeros64(rest), true
		}
	}
	rest := e.hours &^ (1<<(h+1) - 1)
	return bits.TrailingZeros64(rest), bits.TrailingZeros64(e.minutes), rest != 0
}

// timeTo returns the last time of day that matches, up to a time.
func (e *Expr) timeTo(h, mi int) (hour, minute int, ok bool) {
	if e.hours&(1<<h) != 0 {
		if rest := e.minutes & (1<<(mi+1) - 1); rest != 0 {
			return h, 63 - bits.LeadingZeros64(rest), true
		}
	}
	rest := e.hours & (1<<h - 1)
	return 63 - bits.LeadingZeros64(rest), 63 - bits.LeadingZeros64(e.minutes), rest != 0
}
