package history

import (
	"context"
	"slices"
	"sort"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// timeline is the series of a mirror's snapshots.
type timeline struct {
	epoch  uint64
	newest time.Time
	typ    string
	snaps  []*meta.Snapshot // oldest first
	suites map[repo.SuiteName]*suiteLine
}

// suiteLine is the series of generations of a suite in the snapshots of a timeline.
type suiteLine struct {
	runs []run // in order of time
	// sorted means that generations follow each other in the order of their numbers. They
	// do not if an older state was added to the history later.
	sorted bool
}

// run is an uninterrupted series of snapshots with one generation of a suite.
type run struct {
	gen         uint32
	first, last int // positions in timeline.snaps
	// end is the position in suiteLine.runs of the last run that follows this one
	// without a gap.
	end int
}

// snapshotPage is the number of snapshots that are read at once.
const snapshotPage = 500

// timeline returns the timeline of a mirror. It is read again after an object was
// published or removed.
func (h *History) timeline(ctx context.Context, mirror meta.MirrorName) (*timeline, error) {
	epoch := h.cat.Epoch()
	newest, err := h.meta.Latest(ctx, mirror)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	line := h.timelines[mirror]
	h.mu.Unlock()
	if line != nil && line.epoch == epoch && line.newest.Equal(newest.Timestamp) {
		return line, nil
	}
	line = &timeline{epoch: epoch, newest: newest.Timestamp, typ: newest.Type}
	var before time.Time
	for {
		page, err := h.meta.SnapshotsBefore(ctx, mirror, before, snapshotPage)
		if err != nil {
			return nil, err
		}
		line.snaps = append(line.snaps, page...)
		if len(page) < snapshotPage {
			break
		}
		before = page[len(page)-1].Timestamp
	}
	slices.Reverse(line.snaps)
	line.build()
	h.mu.Lock()
	h.timelines[mirror] = line
	h.mu.Unlock()
	return line, nil
}

// Times is Timestamps, answered from the timeline in memory.
func (h *History) Times(ctx context.Context, mirror meta.MirrorName, after, before time.Time) ([]time.Time, error) {
	line, err := h.timeline(ctx, mirror)
	if err != nil {
		return nil, err
	}
	snaps := line.snaps
	from := sort.Search(len(snaps), func(i int) bool { return !snaps[i].Timestamp.Before(after) })
	to := len(snaps)
	if !before.IsZero() {
		to = sort.Search(len(snaps), func(i int) bool { return snaps[i].Timestamp.After(before) })
	}
	out := make([]time.Time, 0, max(0, to-from))
	for i := from; i < to; i++ {
		out = append(out, snaps[i].Timestamp)
	}
	return out, nil
}

// EachRange calls f for each uninterrupted series of snapshots in which an index contains
// one of the stanzas, with the stanza's number and the ends of the series. It does not
// call f for a mirror without snapshots.
func (h *History) EachRange(ctx context.Context, mirror meta.MirrorName, all []meta.Version, f func(i int, in meta.Place, first, last *meta.Snapshot)) error {
	line, err := h.timeline(ctx, mirror)
	if isNotFound(err) {
		return nil
	} else if err != nil {
		return err
	}
	for i := range all {
		for _, p := range all[i].Presences {
			for _, r := range line.ranges(p) {
				f(i, p.Place, line.snaps[r.first], line.snaps[r.last])
			}
		}
	}
	return nil
}

// build makes the series of each suite out of the snapshots.
func (l *timeline) build() {
	l.suites = map[repo.SuiteName]*suiteLine{}
	for i, s := range l.snaps {
		for _, e := range s.Suites {
			sl := l.suites[e.Suite]
			if sl == nil {
				sl = &suiteLine{sorted: true}
				l.suites[e.Suite] = sl
			}
			n := len(sl.runs)
			switch {
			case n == 0:
			case sl.runs[n-1].gen == e.Gen && sl.runs[n-1].last == i-1:
				sl.runs[n-1].last = i
				continue
			case sl.runs[n-1].gen > e.Gen:
				sl.sorted = false
			}
			sl.runs = append(sl.runs, run{gen: e.Gen, first: i, last: i})
		}
	}
	for _, sl := range l.suites {
		for i := len(sl.runs) - 1; i >= 0; i-- {
			sl.runs[i].end = i
			if i+1 < len(sl.runs) && sl.runs[i].last+1 == sl.runs[i+1].first {
				sl.runs[i].end = sl.runs[i+1].end
			}
		}
	}
}

// ranges returns the uninterrupted series of snapshots in which a stanza is present
// in an index, oldest first.
func (l *timeline) ranges(p meta.Presence) []Range {
	sl := l.suites[p.Suite]
	if sl == nil {
		return nil
	}
	var out []Range
	add := func(first, last int) {
		if n := len(out); n > 0 && out[n-1].last+1 == first {
			out[n-1].last, out[n-1].Last = last, l.snaps[last].Timestamp
			return
		}
		out = append(out, Range{First: l.snaps[first].Timestamp, Last: l.snaps[last].Timestamp, first: first, last: last})
	}
	if !sl.sorted {
		for _, r := range sl.runs {
			if slices.ContainsFunc(p.Intervals, func(iv meta.Interval) bool { return iv.From <= r.gen && r.gen < iv.To }) {
				add(r.first, r.last)
			}
		}
		return out
	}
	for _, iv := range p.Intervals {
		from := sort.Search(len(sl.runs), func(i int) bool { return sl.runs[i].gen >= iv.From })
		to := sort.Search(len(sl.runs), func(i int) bool { return sl.runs[i].gen >= iv.To })
		for i := from; i < to; {
			end := min(sl.runs[i].end, to-1)
			add(sl.runs[i].first, sl.runs[end].last)
			i = end + 1
		}
	}
	return out
}
