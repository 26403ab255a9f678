package follow

import (
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/meta"
)

// Limits of the memory: the weight of one answer, and of each of its two halves. An
// answer weighs one for each of its items.
const (
	maxAnswer = 2_000
	maxHalf   = 24_000
)

// kind is what an answer is about.
type kind int

const (
	fixed    kind = iota // never changes
	exact                // the snapshot with an id, or what is in it
	upTo                 // the newest snapshot of a mirror at or before a time
	ofMirror             // any snapshot of a mirror
	mirrors              // all mirrors
	ofFreeze             // a freeze and its tree
	freezes              // all freezes
	ofKit                // a kit
	kits                 // all kits
	ofTheLog             // the transparency log
	indices              // generations of a mirror, and the snapshot that has them
)

// about says what an answer is about: a change of it makes the answer stale.
type about struct {
	kind kind
	name string
	id   string // of a snapshot; "": none
	at   time.Time
}

// stale reports whether a change affects an answer.
func (a about) stale(c meta.FeedChange) bool {
	snapshot := c.What == meta.ChangeSnapshot || c.What == meta.ChangePin
	switch a.kind {
	case exact:
		return snapshot && c.Name == a.name
	case ofMirror, upTo:
		if !snapshot {
			return false
		}
		mirror, at, ok := snapshotOf(c)
		return mirror == a.name && (a.kind == ofMirror || !ok || !at.After(a.at))
	case mirrors:
		return snapshot
	case ofFreeze:
		return c.What == meta.ChangeFreeze && c.Name == a.name
	case freezes:
		return c.What == meta.ChangeFreeze
	case ofKit:
		return c.What == meta.ChangeKit && c.Name == a.name
	case kits:
		return c.What == meta.ChangeKit
	case ofTheLog:
		return c.What == meta.ChangeLog
	case indices:
		return c.What == meta.ChangeIndices && c.Name == a.name || snapshot && c.Name == a.id
	}
	return false
}

type kept struct {
	value  any
	about  about
	weight int
}

// memory remembers answers. It has two halves, so that it can forget what was not
// requested recently.
type memory struct {
	mu       sync.Mutex
	n        uint64              // number of calls of forget
	recent   [][]meta.FeedChange // the changes of the last calls
	weight   int                 // of hot
	hot, old map[string]kept
}

func newMemory() *memory { return &memory{hot: map[string]kept{}, old: map[string]kept{}} }

func (m *memory) get(k string) (any, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.hot[k]
	if !ok {
		if e, ok = m.old[k]; ok {
			delete(m.old, k)
			m.insert(k, e)
		}
	}
	return e.value, ok
}

// changes returns the argument of put for an answer that is requested from now on.
func (m *memory) changes() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

// maxRecent is how many calls of forget an answer that was requested before them can be
// checked against.
const maxRecent = 64

// put remembers an answer, unless something that it is about has changed since changes
// was called.
func (m *memory) put(k string, v any, a about, before uint64) {
	w := 1
	if l, ok := v.(interface{ weight() int }); ok {
		w = l.weight()
	}
	if w > maxAnswer {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	missed := m.n - before
	if missed > uint64(len(m.recent)) {
		return
	}
	for _, changes := range m.recent[uint64(len(m.recent))-missed:] {
		if slices.ContainsFunc(changes, a.stale) {
			return
		}
	}
	m.remove(k)
	m.insert(k, kept{v, a, w})
}

func (m *memory) insert(k string, e kept) {
	if m.weight+e.weight > maxHalf {
		m.hot, m.old, m.weight = map[string]kept{}, m.hot, 0
	}
	m.hot[k] = e
	m.weight += e.weight
}

func (m *memory) remove(k string) {
	if e, ok := m.hot[k]; ok {
		m.weight -= e.weight
		delete(m.hot, k)
	}
	delete(m.old, k)
}

func (m *memory) drop(k string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(k)
}

// forget forgets the answers that changes affect.
func (m *memory) forget(changes []meta.FeedChange) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	m.recent = append(m.recent[max(len(m.recent)-maxRecent+1, 0):], slices.Clone(changes))
	for _, half := range []map[string]kept{m.hot, m.old} {
		for k, e := range half {
			for _, c := range changes {
				if e.about.stale(c) {
					m.remove(k)
					break
				}
			}
		}
	}
}

func (m *memory) forgetAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	m.recent = nil
	m.hot, m.old, m.weight = map[string]kept{}, map[string]kept{}, 0
}

// question returns the key of a question.
func question(parts ...string) string { return strings.Join(parts, "\x00") }

// list is an answer that weighs one for each item.
type list[T any] []T

func (l list[T]) weight() int { return len(l) + 1 }
