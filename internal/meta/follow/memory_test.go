package follow

import (
	"testing"
	"time"

	"example.org/snapd/internal/meta"
)

// An answer that was requested before a change is cached only if the change does not affect
// it.
func TestMemoryPut(t *testing.T) {
	at := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	snapshot := meta.FeedChange{What: meta.ChangeSnapshot, Name: id("debian", at)}
	freeze := meta.FeedChange{What: meta.ChangeFreeze, Name: "4.1"}
	latest := about{kind: ofMirror, name: "debian"}
	for name, c := range map[string]struct {
		changes func(*memory)
		kept    bool
	}{
		"nothing":              {func(*memory) {}, true},
		"another change":       {func(m *memory) { m.forget([]meta.FeedChange{freeze}) }, true},
		"the change":           {func(m *memory) { m.forget([]meta.FeedChange{freeze, snapshot}) }, false},
		"the change, earlier":  {func(m *memory) { m.forget([]meta.FeedChange{snapshot}); m.forget([]meta.FeedChange{freeze}) }, false},
		"everything":           {func(m *memory) { m.forgetAll() }, false},
		"everything, and more": {func(m *memory) { m.forgetAll(); m.forget([]meta.FeedChange{freeze}) }, false},
		"more than is known": {func(m *memory) {
			for range maxRecent + 1 {
				m.forget([]meta.FeedChange{freeze})
			}
		}, false},
	} {
		m := newMemory()
		m.forget([]meta.FeedChange{snapshot}) // before the answer was requested
		before := m.changes()
		c.changes(m)
		m.put("latest", 1, latest, before, nil)
		if _, ok := m.get("latest"); ok != c.kept {
			t.Errorf("%s: remembered %v, expected %v", name, ok, c.kept)
		}
	}
}

// A cached generation becomes stale when indices of its mirror are compacted. The list of a
// snapshot's generations also becomes stale when the snapshot is removed.
func TestMemoryOfIndices(t *testing.T) {
	at := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	one, all := about{kind: indices, name: "debian"}, about{kind: indices, name: "debian", id: id("debian", at)}
	for _, c := range []struct {
		what, name string
		one, all   bool
	}{
		{meta.ChangeIndices, "debian", true, true},
		{meta.ChangeIndices, "other", false, false},
		{meta.ChangeSnapshot, id("debian", at), false, true},
		{meta.ChangeSnapshot, id("debian", at.Add(time.Hour)), false, false},
	} {
		change := meta.FeedChange{What: c.what, Name: c.name}
		if one.stale(change) != c.one || all.stale(change) != c.all {
			t.Errorf("%s %s: stale %v and %v, expected %v and %v", c.what, c.name, one.stale(change), all.stale(change), c.one, c.all)
		}
	}
}
