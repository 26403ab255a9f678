package meta

import "slices"

// Index is the place of a mirror in Mirrors; -1 where the freeze has nothing of it.
func (f *Frozen) Index(mirror string) int {
	return slices.IndexFunc(f.Mirrors, func(m FrozenMirror) bool { return m.Mirror == mirror })
}

// Upstream is the view, like a snapshot, of the upstream generations that the i-th
// mirror of a freeze rests on; nil where it was imported without them.
func (f *Frozen) Upstream(i int) *Snapshot {
	m := &f.Mirrors[i]
	snap := &Snapshot{Mirror: m.Mirror, Type: m.Type, Timestamp: m.Timestamp}
	for _, su := range m.Suites {
		if su.Gen != 0 {
			snap.Suites = append(snap.Suites, SnapshotSuite{Suite: su.Suite, Gen: su.Gen, Date: f.Date})
		}
	}
	if len(snap.Suites) == 0 {
		return nil
	}
	return snap
}

// Pin is the place of a mirror in Pins; -1 where the recording does not show it.
func (r *Recording) Pin(mirror string) int {
	return slices.IndexFunc(r.Pins, func(p RecordingPin) bool { return p.Mirror == mirror })
}
