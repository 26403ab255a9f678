package meta

// States returns, as snapshots, the states of upstream that a mirror of a freeze depends
// on: several if it depends on several states of one suite, none if it was imported.
// Their generations are kept even if their snapshots are removed.
func (m *FrozenMirror) States() []*Snapshot {
	var out []*Snapshot
	for _, s := range m.Suites {
		if s.Gen == 0 {
			continue
		}
		suite := SnapshotSuite{Suite: s.Suite, Gen: s.Gen}
		placed := false
		for _, snap := range out {
			if _, ok := snap.Gen(s.Suite); !ok {
				snap.Suites = append(snap.Suites, suite)
				placed = true
				break
			}
		}
		if !placed {
			out = append(out, &Snapshot{Mirror: m.Mirror, Type: m.Type, Timestamp: m.Timestamp, Suites: []SnapshotSuite{suite}})
		}
	}
	return out
}
