package cron

import "time"

// everyHour is the set of all hours: such an expression runs by real hours.
const everyHour = 1<<24 - 1

// firstAfter returns the first run on a day that is after t.
func (e *Expr) firstAfter(y int, m time.Month, d int, t time.Time) (best time.Time, ok bool) {
	for h := range 24 {
		if ok && h > best.Hour()+1 && best.Day() == d {
			break // later ones cannot come earlier: clocks are turned by less than two hours
		}
		e.inHour(y, m, d, h, t.Location(), func(at time.Time) {
			if at.After(t) && (!ok || at.Before(best)) {
				best, ok = at, true
			}
		})
	}
	return best, ok
}

// lastBefore returns the last run on a day that is before t.
func (e *Expr) lastBefore(y int, m time.Month, d int, t time.Time) (best time.Time, ok bool) {
	for h := 23; h >= 0; h-- {
		if ok && h < best.Hour()-2 && best.Day() == d {
			break
		}
		e.inHour(y, m, d, h, t.Location(), func(at time.Time) {
			if at.Before(t) && (!ok || at.After(best)) {
				best, ok = at, true
			}
		})
	}
	return best, ok
}

// inHour yields the runs of one hour of a day, as instants.
func (e *Expr) inHour(y int, m time.Month, d, h int, loc *time.Location, yield func(time.Time)) {
	if e.hours&(1<<h) == 0 {
		return
	}
	for mi := range 60 {
		if e.minutes&(1<<mi) != 0 {
			e.instants(time.Date(y, m, d, h, mi, 0, 0, loc), h, mi, yield)
		}
	}
}

// instants yields when a time of day happens: not, once or twice. at is what
// time.Date made of it.
func (e *Expr) instants(at time.Time, h, mi int, yield func(time.Time)) {
	same := func(t time.Time) bool { return t.Hour() == h && t.Minute() == mi }
	start, end := at.ZoneBounds()
	if !same(at) { // the clock skips it
		if e.hours == everyHour {
			return
		}
		if at.Hour()*60+at.Minute() > h*60+mi {
			yield(start.In(at.Location()))
		} else {
			yield(end.In(at.Location()))
		}
		return
	}
	twin, twice := at, false
	_, offset := at.Zone()
	if !end.IsZero() { // at may be the first of two
		_, after := end.Zone()
		twin = at.Add(time.Duration(offset-after) * time.Second)
		twice = after < offset && !twin.Before(end) && same(twin)
	}
	if !twice && !start.IsZero() { // or the second
		_, before := start.Add(-1).Zone()
		twin = at.Add(time.Duration(offset-before) * time.Second)
		twice = before > offset && twin.Before(start) && same(twin)
	}
	if !twice {
		yield(at)
		return
	}
	first, second := at, twin
	if twin.Before(at) {
		first, second = twin, at
	}
	yield(first)
	if e.hours == everyHour {
		yield(second)
	}
}
