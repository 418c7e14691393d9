// Package cron parses five-field cron expressions and computes when they are
// due: minute, hour, day of month, month, day of week.
//
// All fields take "*", numbers, ranges, lists, and steps on "*" or a range.
// The day fields also take "?"; the day of month takes "L" (last day), "L-3"
// (three days before), "15W" (nearest weekday to the 15th) and "LW" (last
// weekday), each alone; the day of week takes "5L" (last Friday) and "1#2"
// (second Monday), 0 and 7 being Sunday. Months and days have three-letter
// English names. If both day fields are restricted a day matches either. Of
// the macros @yearly, @annually, @monthly, @weekly, @daily, @midnight and
// @hourly any case is taken.
//
// # Daylight saving
//
// A time that the clock skips in spring runs once, right when it has skipped;
// a time that comes twice in autumn runs the first time. An expression that
// runs in every hour runs by the real hours: not in the skipped one, and in
// both of the repeated ones.
package cron

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrSyntax: the expression is not one that the package describes.
var ErrSyntax = errors.New("cron: invalid expression")

// Expr is a parsed expression. It is immutable.
type Expr struct {
	minutes, hours, months uint64 // bit n: value n matches
	dom                    []day
	dow                    []day
	anyDom, anyDow         bool // the field does not restrict
}

// day is one alternative of a day field.
type day struct {
	kind dayKind
	set  uint64 // inSet
	n    int    // nearestWeekday: the day; lastMinus: days before the last; others: the weekday
	k    int    // nthWeekday: which one
}

type dayKind int

const (
	inSet dayKind = iota
	lastMinus
	lastWeekday // the last working day of the month
	nearestWeekday
	lastOfWeekday
	nthWeekday
)

var macros = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// field is the range of a field's values and the names some of them have.
type field struct {
	min, max int
	names    []string // of min, min+1, …
}

var (
	minuteField = field{0, 59, nil}
	hourField   = field{0, 23, nil}
	domField    = field{1, 31, nil}
	monthField  = field{1, 12, strings.Fields("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")}
	dowField    = field{0, 7, strings.Fields("SUN MON TUE WED THU FRI SAT")}
)

// Parse returns the expression, or ErrSyntax.
func Parse(s string) (*Expr, error) {
	if m, ok := macros[strings.ToLower(strings.TrimSpace(s))]; ok {
		s = m
	}
	f := strings.Fields(s)
	if len(f) != 5 || f[2] == "?" && f[4] == "?" {
		return nil, fmt.Errorf("%w: five fields are needed", ErrSyntax)
	}
	e := &Expr{anyDom: f[2] == "*" || f[2] == "?", anyDow: f[4] == "*" || f[4] == "?"}
	var ok [5]bool
	e.minutes, ok[0] = minuteField.list(f[0])
	e.hours, ok[1] = hourField.list(f[1])
	e.dom, ok[2] = parseDom(f[2])
	e.months, ok[3] = monthField.list(f[3])
	e.dow, ok[4] = parseDow(f[4])
	for i := range ok {
		if !ok[i] {
			return nil, fmt.Errorf("%w: field %d", ErrSyntax, i+1)
		}
	}
	return e, nil
}

// list parses a comma-separated list into a set.
func (f field) list(s string) (set uint64, ok bool) {
	for item := range strings.SplitSeq(s, ",") {
		one, ok := f.item(item)
		if !ok {
			return 0, false
		}
		set |= one
	}
	return set, true
}

// item parses "*", a value, a range, or one of the former with a step. A range
// that runs backwards is empty.
func (f field) item(s string) (set uint64, ok bool) {
	base, stepText, stepped := strings.Cut(s, "/")
	step := 1
	if stepped {
		if step, ok = number(stepText); !ok || step == 0 {
			return 0, false
		}
	}
	from, to := f.min, f.max
	if base != "*" {
		low, high, ranged := strings.Cut(base, "-")
		if stepped && !ranged {
			return 0, false
		}
		if from, ok = f.value(low); !ok {
			return 0, false
		}
		to = from
		if ranged {
			if to, ok = f.value(high); !ok {
				return 0, false
			}
		}
	}
	for v := from; v <= to; v += step {
		set |= 1 << v
	}
	return set, true
}

func (f field) value(s string) (int, bool) {
	for i, name := range f.names {
		if strings.EqualFold(s, name) {
			return f.min + i, true
		}
	}
	n, ok := number(s)
	return n, ok && n >= f.min && n <= f.max
}

// number parses digits without a leading zero.
func number(s string) (int, bool) {
	if s == "" || len(s) > 4 || s[0] == '0' && s != "0" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

func parseDom(s string) ([]day, bool) {
	upper := strings.ToUpper(s)
	switch {
	case s == "?":
		s = "*"
	case upper == "L":
		return []day{{kind: lastMinus}}, true
	case upper == "LW":
		return []day{{kind: lastWeekday}}, true
	case strings.HasPrefix(upper, "L-"):
		n, ok := number(upper[2:])
		return []day{{kind: lastMinus, n: n}}, ok && n <= 30
	case strings.HasSuffix(upper, "W"):
		n, ok := domField.value(upper[:len(upper)-1])
		return []day{{kind: nearestWeekday, n: n}}, ok
	}
	set, ok := domField.list(s)
	return []day{{set: set}}, ok
}

func parseDow(s string) ([]day, bool) {
	if s == "?" {
		s = "*"
	}
	var days []day
	for item := range strings.SplitSeq(strings.ToUpper(s), ",") {
		d, ok := parseWeekday(item)
		if !ok {
			return nil, false
		}
		days = append(days, d)
	}
	return days, true
}

func parseWeekday(s string) (day, bool) {
	if name, nth, ok := strings.Cut(s, "#"); ok {
		n, ok := dowField.value(name)
		k, isNumber := number(nth)
		return day{kind: nthWeekday, n: n % 7, k: k}, ok && isNumber && k >= 1 && k <= 5
	}
	if name, ok := strings.CutSuffix(s, "L"); ok {
		n, ok := dowField.value(name)
		return day{kind: lastOfWeekday, n: n % 7}, ok
	}
	set, ok := dowField.item(s)
	set |= set >> 7 // 7 is Sunday too
	return day{set: set & 0x7f}, ok
}
