package httpd

import (
	"fmt"
	"net/url"
	"time"

	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
)

const monthLayout = "2006-01"

// calendar shows on which days a mirror has snapshots: one month by day, and all
// years by month.
type calendar struct {
	Month      string // 2006-01
	Title      string
	Prev, Next string // nearest months with snapshots, or empty
	Weeks      [][]calendarDay
	Years      []calendarYear
}

// calendarDay is a cell of the month. Day is 0 for cells of the first and last week that
// are outside the month.
type calendarDay struct {
	Day   int
	Count int
	Date  string // 2006-01-02
}

type calendarYear struct {
	Year   int
	Months []calendarMonth
}

type calendarMonth struct {
	Month string // 2006-01
	Count int
}

// Class is the colour of the day.
func (d calendarDay) Class() string {
	if d.Day == 0 {
		return "none"
	}
	return heat(d.Count)
}

// newCalendar makes the calendar of the month that begins at month, from the times of
// all snapshots, oldest first.
func newCalendar(times []time.Time, month time.Time) *calendar {
	c := &calendar{Month: month.Format(monthLayout), Title: month.Format("January 2006")}
	byDay, byMonth := map[string]int{}, map[string]int{}
	for _, t := range times {
		m := t.UTC().Format(monthLayout)
		byMonth[m]++
		switch {
		case m < c.Month:
			c.Prev = m
		case m > c.Month && c.Next == "":
			c.Next = m
		case m == c.Month:
			byDay[t.UTC().Format(time.DateOnly)]++
		}
	}
	week := make([]calendarDay, (int(month.Weekday())+6)%7, 7) // weeks begin on Monday
	for d := month; d.Month() == month.Month(); d = d.AddDate(0, 0, 1) {
		date := d.Format(time.DateOnly)
		if week = append(week, calendarDay{d.Day(), byDay[date], date}); len(week) == 7 {
			c.Weeks, week = append(c.Weeks, week), nil
		}
	}
	if len(week) > 0 {
		c.Weeks = append(c.Weeks, append(week, make([]calendarDay, 7-len(week))...))
	}
	if len(times) == 0 {
		return c
	}
	for y := times[len(times)-1].UTC().Year(); y >= times[0].UTC().Year(); y-- {
		year := calendarYear{Year: y}
		for m := time.January; m <= time.December; m++ {
			name := time.Date(y, m, 1, 0, 0, 0, 0, time.UTC).Format(monthLayout)
			year.Months = append(year.Months, calendarMonth{name, byMonth[name]})
		}
		c.Years = append(c.Years, year)
	}
	return c
}

// span is the part of a mirror's history that a page lists.
type span struct {
	from, to time.Time // from is included, to is not; zero: unbounded
	query    string    // the parameters that chose it, for links to its further pages
}

// parseSpan reads day=2006-01-02 or month=2006-01, and before=TIMESTAMP.
func parseSpan(q url.Values) (s span, err error) {
	switch day, month := q.Get("day"), q.Get("month"); {
	case day != "":
		if s.from, err = time.Parse(time.DateOnly, day); err != nil {
			return s, fmt.Errorf("%w: day %s, expected a date such as 2026-11-22", errclass.Usage, clipText(day))
		}
		s.to, s.query = s.from.AddDate(0, 0, 1), "day="+day+"&"
	case month != "":
		if s.from, err = time.Parse(monthLayout, month); err != nil {
			return s, fmt.Errorf("%w: month %s, expected a month such as 2026-11", errclass.Usage, clipText(month))
		}
		s.to, s.query = s.from.AddDate(0, 1, 0), "month="+month+"&"
	}
	if v := q.Get("before"); v != "" {
		before, err := catalog.ParseTimestamp(v)
		if err != nil {
			return s, err
		}
		if s.to.IsZero() || before.Before(s.to) {
			s.to = before
		}
	}
	return s, nil
}
