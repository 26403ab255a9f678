// Package console draws progress bars, and makes sizes and foreign text fit for a
// terminal.
package console

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"example.org/snapd/internal/api"
)

// Bars are progress bars on a terminal, one per task. They must be used by one
// goroutine at a time.
type Bars struct {
	w     io.Writer
	color bool
	now   func() time.Time
	p     *mpb.Progress // nil: no bars are drawn
	tasks map[string]*task
}

// NewBars returns bars that are drawn on w. It returns nil if w is not a terminal, or if
// the terminal can only show text.
func NewBars(w io.Writer, getenv func(string) string) *Bars {
	if !IsTerminal(w) || getenv("TERM") == "dumb" {
		return nil
	}
	return &Bars{w: w, color: getenv("NO_COLOR") == "", now: time.Now}
}

// Colors reports whether to use colours.
func (b *Bars) Colors() bool { return b != nil && b.color }

// task is one bar and its state.
type task struct {
	bar *mpb.Bar

	mu   sync.Mutex
	last api.Progress
	rate rate
}

// Update shows the newest state of a task.
func (b *Bars) Update(p api.Progress) {
	if b.p == nil {
		b.p = mpb.New(mpb.WithOutput(b.w), mpb.WithAutoRefresh(), mpb.WithWidth(24), mpb.WithRefreshRate(150*time.Millisecond))
		b.tasks = map[string]*task{}
	}
	t := b.tasks[p.Task]
	if t == nil {
		t = &task{}
		fill := mpb.BarStyle()
		if b.color {
			fill = fill.FillerMeta(func(s string) string { return "\x1b[32m" + s + "\x1b[0m" })
		}
		t.bar = b.p.New(0, fill,
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return t.head() }, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return t.tail() })))
		b.tasks[p.Task] = t
	}
	t.mu.Lock()
	if p.Phase != t.last.Phase {
		t.rate = rate{}
	}
	t.last = p
	t.rate.add(b.now(), p.Bytes)
	t.mu.Unlock()
	done, total := p.Bytes, p.BytesTotal
	if total <= 0 {
		done, total = p.Files, p.FilesTotal
	}
	// A bar at its total counts as finished, but phases continue.
	t.bar.SetTotal(max(total, done)+1, false)
	t.bar.SetCurrent(done)
}

// End removes all bars.
func (b *Bars) End() {
	if b == nil || b.p == nil {
		return
	}
	for _, t := range b.tasks {
		t.bar.Abort(true)
	}
	b.p.Wait()
	b.p, b.tasks = nil, nil
}

func (t *task) head() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.Task == "" {
		return Clean(t.last.Phase)
	}
	return Clean(t.last.Task + " " + t.last.Phase)
}

func (t *task) tail() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return progressText(t.last, t.rate.perSecond())
}

// progressText returns the text behind a bar: bytes, files, rate, time left.
func progressText(p api.Progress, perSecond float64) string {
	var s string
	if p.BytesTotal > 0 {
		s = fmt.Sprintf(" %s / %s", Bytes(p.Bytes), Bytes(p.BytesTotal))
	} else if p.Bytes > 0 {
		s = " " + Bytes(p.Bytes)
	}
	if p.FilesTotal > 0 {
		s += fmt.Sprintf("  %d/%d files", p.Files, p.FilesTotal)
	} else if p.Files > 0 {
		s += fmt.Sprintf("  %d files", p.Files)
	}
	if perSecond >= 1 {
		s += "  " + Bytes(int64(perSecond)) + "/s"
		if left := p.BytesTotal - p.Bytes; left > 0 {
			s += "  " + leftText(time.Duration(float64(left)/perSecond*float64(time.Second))) + " left"
		}
	}
	return s
}

// leftText formats a waiting time.
func leftText(d time.Duration) string {
	switch {
	case d > 99*time.Hour:
		return ">99h"
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Round(time.Second).Seconds()))
}

// rate measures bytes per second over the last seconds.
type rate struct {
	samples []sample // oldest first
}

type sample struct {
	at    time.Time
	bytes int64
}

// rateWindow is the time over which a rate is measured.
const rateWindow = 5 * time.Second

func (r *rate) add(at time.Time, bytes int64) {
	if n := len(r.samples); n > 0 && bytes < r.samples[n-1].bytes {
		r.samples = nil // a new phase starts from zero
	}
	if n := len(r.samples); n > 1 && at.Sub(r.samples[n-2].at) < rateWindow/50 {
		r.samples[n-1] = sample{at, bytes} // replace the last sample: enough samples are this close together
	} else {
		r.samples = append(r.samples, sample{at, bytes})
	}
	for len(r.samples) > 2 && at.Sub(r.samples[0].at) > rateWindow {
		r.samples = r.samples[1:]
	}
}

func (r *rate) perSecond() float64 {
	if len(r.samples) < 2 {
		return 0
	}
	a, b := r.samples[0], r.samples[len(r.samples)-1]
	d := b.at.Sub(a.at).Seconds()
	if d <= 0 {
		return 0
	}
	return float64(b.bytes-a.bytes) / d
}
