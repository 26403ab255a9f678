package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
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
// a bound. Bounds are relative, so that they apply on any machine: share is a fraction of
// the other program's time, memory one of b.size. 0 means no bound.
func (b *bench) timed(work string, other *cost, ours cost, share, memory float64) {
	r := row{work: work, ours: seconds(ours.wall), note: ours.detail()}
	if other != nil {
		r.other = seconds(other.wall)
		r.ratio = ratio(ours.wall, other.wall)
		r.note = "ours " + r.note + "; beside " + other.detail()
	}
	if share > 0 {
		r.bound = fmt.Sprintf("<= %g of it", share)
		if other != nil {
			r.ok = judge(ours.wall.Seconds() <= share*other.wall.Seconds())
		}
	}
	b.add(r)
	if memory > 0 {
		q := float64(ours.anon) / float64(b.size)
		m := row{
			work: work + ", memory", other: mega(b.size) + " of " + b.what, ours: mega(ours.anon),
			ratio: fmt.Sprintf("%.3f", q), bound: fmt.Sprintf("<= %g of it", memory), ok: judge(q <= memory),
		}
		if other != nil {
			m.note = "the other program: " + mega(other.anon)
		}
		b.add(m)
	}
}

// against sets the size with which memory is compared: that of the plain data of the
// work.
func (b *bench) against(size int64, what string) { b.size, b.what = size, what }

// hashed measures the minimum work of any program that reads compressed files: to
// decompress and hash them. It returns the cost and the plain size in bytes.
func (b *bench) hashed(ctx context.Context, program string, files ...string) (*cost, int64, error) {
	var best cost
	for range 3 {
		cmd := exec.CommandContext(ctx, "sh", "-c", `p=$1; shift; for f; do "$p" -dc "$f"; done | sha256sum`, "sh", program)
		cmd.Args = append(cmd.Args, files...)
		c, err := b.measure(ctx, cmd)
		if err != nil {
			return nil, 0, err
		}
		if best.wall == 0 || c.wall < best.wall {
			best = c
		}
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", `p=$1; shift; for f; do "$p" -dc "$f"; done | wc -c`, "sh", program)
	cmd.Args = append(cmd.Args, files...)
	out, err := cmd.Output()
	if err != nil {
		return nil, 0, err
	}
	size, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return &best, size, err
}
