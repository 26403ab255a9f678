package httpd

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"example.org/snapd/internal/api"
)

// Charts are inline SVG: they need no script, and no style sheet but style.css. Their
// words are HTML beside them, in the normal text size.

const chartWidth, chartHeight = 600.0, 90.0

// svg wraps shapes. Screen readers read label aloud.
func svg(class, label string, width, height float64, shapes string) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg class="%s" role="img" aria-label="%s" viewBox="0 0 %g %g" preserveAspectRatio="none">%s</svg>`,
		class, template.HTMLEscapeString(label), width, height, shapes))
}

// growthChart draws how the stored bytes grew from day to day.
func growthChart(days []api.StoredDay) template.HTML {
	if len(days) == 0 {
		return ""
	}
	at := func(i int) float64 {
		t, _ := time.Parse(time.DateOnly, days[i].Day)
		return float64(t.Unix())
	}
	last := len(days) - 1
	start := at(0)
	if last == 0 {
		start -= 24 * 60 * 60 // the curve begins at zero on the day before
	}
	most := float64(max(days[last].Bytes, 1))
	var b strings.Builder
	fmt.Fprintf(&b, `<path class="area" d="M0 %g`, chartHeight)
	for i := range days {
		fmt.Fprintf(&b, " L%.1f %.1f", (at(i)-start)/(at(last)-start)*chartWidth, chartHeight-float64(days[i].Bytes)/most*(chartHeight-4))
	}
	fmt.Fprintf(&b, ` L%g %g Z"/>`, chartWidth, chartHeight)
	return svg("chart", fmt.Sprintf("Stored bytes by day, from %s to %s", days[0].Day, days[last].Day), chartWidth, chartHeight, b.String())
}

// share is one segment of a bar.
type share struct {
	Class, Name string
	Bytes       int64
}

// shares returns what uses the disk of the store, as far as it is known.
func shares(d *api.Disk) []share {
	return []share{
		{"s1", "packages and documents", max(0, d.BlobBytes-d.IndexBytes-d.ImageBytes-d.KitBytes)}, {"s2", "indices", d.IndexBytes},
		{"s5", "images and kits", d.ImageBytes + d.KitBytes},
		{"s3", "metadata", d.MetaBytes}, {"s4", "free", d.Free},
	}
}

// shareBar draws the segments of a bar side by side.
func shareBar(parts []share) template.HTML {
	var all int64
	var names []string
	for _, p := range parts {
		all += p.Bytes
		names = append(names, p.Name)
	}
	var b strings.Builder
	x := 0.0
	for _, p := range parts {
		w := float64(p.Bytes) / float64(max(all, 1)) * chartWidth
		fmt.Fprintf(&b, `<rect class="%s" x="%.1f" width="%.1f" height="12"/>`, p.Class, x, w)
		x += w
	}
	return svg("bar", "Disk use: "+strings.Join(names, ", "), chartWidth, 12, b.String())
}

// dayStrip draws a cell for each day, darker where there were more snapshots.
func dayStrip(days []int) template.HTML {
	var b strings.Builder
	sum := 0
	for i, n := range days {
		sum += n
		fmt.Fprintf(&b, `<rect class="%s" x="%d" width="8" height="14"/>`, heat(n), 10*i)
	}
	return svg("strip", fmt.Sprintf("%d snapshots in the last %d days", sum, len(days)), float64(10*len(days)), 14, b.String())
}

// timeLine draws when a version was available, on a line from first to last.
func timeLine(v api.VersionLine, first, last time.Time) template.HTML {
	all := max(last.Sub(first).Seconds(), 1)
	var b strings.Builder
	fmt.Fprintf(&b, `<rect class="h0" y="6" width="%g" height="2"/>`, chartWidth)
	var words []string
	for _, s := range v.Seen {
		x := s.First.Sub(first).Seconds() / all * chartWidth
		w := s.Last.Sub(s.First).Seconds() / all * chartWidth
		x, w = min(x, chartWidth-8), max(w, 8) // keep a single snapshot visible
		fmt.Fprintf(&b, `<rect class="h4" x="%.1f" width="%.1f" height="14"/>`, x, w)
		words = append(words, when(s.First)+" to "+when(s.Last))
	}
	return svg("line", "In snapshots from "+strings.Join(words, ", "), chartWidth, 14, b.String())
}

// heat is the CSS class of a cell for n snapshots.
func heat(n int) string { return fmt.Sprintf("h%d", min(n, 4)) }
