package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one line of the table.
type row struct {
	work  string
	other string // the other program's figure
	ours  string
	ratio string
	bound string
	ok    verdict
	note  string
}

type verdict int

const (
	informative verdict = iota
	reached
	missed
)

func (v verdict) String() string { return [...]string{"", "yes", "NO"}[v] }

func judge(ok bool) verdict {
	if ok {
		return reached
	}
	return missed
}

// add appends a row and prints it at once, because a whole run takes minutes.
func (b *bench) add(r row) {
	b.rows = append(b.rows, r)
	fmt.Printf("  … %s: %s\n", r.work, strings.TrimSpace(r.ours+" "+r.ok.String()))
}

func (b *bench) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "work\tbeside\tours\tratio\tbound\treached\t")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t\n", r.work, r.other, r.ours, r.ratio, r.bound, r.ok)
	}
	w.Flush()
	for _, r := range b.rows {
		if r.note != "" {
			fmt.Printf("  %s: %s\n", r.work, r.note)
		}
	}
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.3f s", d.Seconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func mega(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func ratio(a, b time.Duration) string { return fmt.Sprintf("%.3f", a.Seconds()/b.Seconds()) }

// timed adds a row with the time of a piece of work, and one with its memory if that has
// a bound. It compares both with the other program unless other is nil. The bounds are
// share, a fraction of the other program's time; limit, a time; and memory, in bytes. 0
// means no bound.
func (b *bench) timed(work string, other *cost, ours cost, share float64, limit time.Duration, memory int64) {
	r := row{work: work, ours: seconds(ours.wall), note: ours.detail()}
	ok := true
	var bounds []string
	if other != nil {
		r.other = seconds(other.wall)
		r.ratio = ratio(ours.wall, other.wall)
		r.note = "ours " + r.note + "; beside " + other.detail()
	}
	if share > 0 {
		bounds = append(bounds, fmt.Sprintf("<= %.2f of it", share))
		if other != nil {
			ok = ok && ours.wall.Seconds() <= share*other.wall.Seconds()
		} else {
			ok = false
		}
	}
	if limit > 0 {
		bounds = append(bounds, "<= "+seconds(limit))
		ok = ok && ours.wall <= limit
	}
	r.bound = strings.Join(bounds, ", ")
	if len(bounds) > 0 && (other != nil || share == 0) {
		r.ok = judge(ok)
	}
	b.add(r)
	if memory > 0 {
		m := row{work: work + ", memory", ours: mega(ours.anon), bound: "<= " + mega(memory), ok: judge(ours.anon <= memory)}
		if other != nil {
			m.other = mega(other.anon)
			m.ratio = fmt.Sprintf("%.3f", float64(ours.anon)/float64(other.anon))
		}
		b.add(m)
	}
}
