package history

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Ranges agree with a look at each snapshot, even if generations do not follow each other
// in time, a suite was left out for a while, or snapshots were removed.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &timeline{}
		gen := uint32(1)
		for i := range rapid.IntRange(1, 12).Draw(t, "snapshots") {
			s := &meta.Snapshot{Mirror: "debian", Timestamp: time.Unix(int64(i)*3600, 0).UTC()}
			gen += rapid.Uint32Range(0, 2).Draw(t, "step")
			g := gen
			if rapid.IntRange(0, 9).Draw(t, "history") == 0 {
				g = rapid.Uint32Range(1, 20).Draw(t, "generation")
			}
			if rapid.IntRange(0, 9).Draw(t, "without") > 0 {
				s.Suites = []meta.SnapshotSuite{{Suite: "stable", Gen: g}}
			}
			l.snaps = append(l.snaps, s)
		}
		l.build()
		p := meta.Presence{Place: meta.Place{Suite: "stable"}}
		from := uint32(1)
		for range rapid.IntRange(0, 3).Draw(t, "intervals") {
			from += rapid.Uint32Range(0, 4).Draw(t, "gap")
			to := from + rapid.Uint32Range(1, 5).Draw(t, "length")
			p.Intervals = append(p.Intervals, meta.Interval{From: from, To: to})
			from = to + 1
		}
		if n := len(p.Intervals); n > 0 && rapid.Bool().Draw(t, "unended") {
			p.Intervals[n-1].To = meta.Unended
		}
		got := make([]bool, len(l.snaps))
		last := -2
		for _, r := range l.ranges(p) {
			if r.first <= last+1 || r.last < r.first {
				t.Fatalf("range from %d to %d after one to %d", r.first, r.last, last)
			}
			if !r.First.Equal(l.snaps[r.first].Timestamp) || !r.Last.Equal(l.snaps[r.last].Timestamp) {
				t.Fatalf("timestamps of %+v", r)
			}
			for i := r.first; i <= r.last; i++ {
				got[i] = true
			}
			last = r.last
		}
		var want []bool
		for _, s := range l.snaps {
			want = append(want, p.In(s))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("present in %v, expected %v", got, want)
		}
	})
	if r := (&timeline{suites: map[repo.SuiteName]*suiteLine{}}).ranges(meta.Presence{}); r != nil {
		t.Errorf("of an unknown suite: %v", r)
	}
}
