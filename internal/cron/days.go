package cron

import "time"

// days returns the days of a month on which the expression runs: bit n for the
// n-th.
func (e *Expr) days(y int, m time.Month) uint64 {
	if m < time.January || m > time.December || e.months&(1<<m) == 0 {
		return 0
	}
	c := calendar{last: daysIn(y, m), first: time.Date(y, m, 1, 0, 0, 0, 0, time.UTC).Weekday()}
	switch {
	case e.anyDom && e.anyDow:
		return c.all()
	case e.anyDom:
		return c.union(e.dow, c.weekdays)
	case e.anyDow:
		return c.union(e.dom, c.numbers)
	}
	return c.union(e.dom, c.numbers) | c.union(e.dow, c.weekdays)
}

// calendar is one month.
type calendar struct {
	last  int          // its last day
	first time.Weekday // of its first day
}

func daysIn(y int, m time.Month) int { return time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day() }

func (c calendar) all() uint64 { return 1<<(c.last+1) - 2 }

func (c calendar) numbers(set uint64) uint64 { return set & c.all() }

// weekdays returns the days of the month that fall on the weekdays of a set.
func (c calendar) weekdays(set uint64) (days uint64) {
	for d := 1; d <= c.last; d++ {
		days |= set >> c.weekday(d) & 1 << d
	}
	return days
}

func (c calendar) weekday(d int) int { return (int(c.first) + d - 1) % 7 }

// union returns the days that one of the alternatives names; set says what a
// plain set of the field means.
func (c calendar) union(alternatives []day, set func(uint64) uint64) (days uint64) {
	for _, a := range alternatives {
		if a.kind == inSet {
			days |= set(a.set)
		} else if d := c.special(a); d >= 1 && d <= c.last {
			days |= 1 << d
		}
	}
	return days
}

// special returns the one day that an alternative names, if the month has it.
func (c calendar) special(a day) int {
	switch a.kind {
	case lastMinus:
		return c.last - a.n
	case lastWeekday:
		return c.nearest(c.last)
	case nearestWeekday:
		if a.n > c.last {
			return 0
		}
		return c.nearest(a.n)
	case lastOfWeekday:
		return c.last - (c.weekday(c.last)-a.n+7)%7
	}
	return 1 + (a.n-int(c.first)+7)%7 + 7*(a.k-1) // nthWeekday
}

// nearest returns the working day nearest to d within the month.
func (c calendar) nearest(d int) int {
	switch time.Weekday(c.weekday(d)) {
	case time.Saturday:
		if d == 1 {
			return 3
		}
		return d - 1
	case time.Sunday:
		if d == c.last {
			return d - 2
		}
		return d + 1
	}
	return d
}
