package follow

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/meta"
)

// Limits of the cache: the weight of one answer, and of each of its two halves. The
// weight of a list is the number of its items plus 1; that of any other answer is 1.
const (
	maxAnswer = 2_000
	maxHalf   = 24_000
)

// kind says which changes affect an answer.
type kind int

const (
	fixed    kind = iota // none: the answer never changes
	exact                // the snapshot with an id, or its contents
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

// about identifies what an answer is about. A change of that object makes the answer
// stale.
type about struct {
	kind kind
	name string
	id   string // of a snapshot, or ""
	at   time.Time
}

// single reports whether an answer is about one object, which rarely changes.
func (a about) single() bool {
	return a.kind == exact || a.kind == upTo || a.kind == ofFreeze || a.kind == ofKit || a.kind == indices
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
		return mirror == meta.MirrorName(a.name) && (a.kind == ofMirror || !ok || !at.After(a.at))
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
	again  func(context.Context) // queries the database again; nil: only at the next request
}

// memory is a cache of answers. It has two halves: when hot is full, it replaces old, so
// that answers that were not requested recently are dropped.
type memory struct {
	mu       sync.Mutex
	n        uint64              // number of calls of forget
	recent   [][]meta.FeedChange // the changes in the last calls of forget
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

// changes returns a value to pass to put. Call it before requesting the answer.
func (m *memory) changes() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

// maxRecent is the number of calls of forget whose changes are kept to check answers that
// were requested before them.
const maxRecent = 64

// put caches an answer. before is the result of changes before the answer was requested. If
// a change that was passed to forget since then affects the answer, or that is no longer
// known, put does not cache it.
func (m *memory) put(k string, v any, a about, before uint64, again func(context.Context)) {
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
	m.insert(k, kept{v, a, w, again})
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

// maxAgain limits how many answers are requested again after changes.
const maxAgain = 256

// forget drops the answers that changes affect. It returns functions that repeat the
// queries about single objects, the recently used ones first, so that their answers are
// cached again before the database becomes unreachable.
func (m *memory) forget(changes []meta.FeedChange) (again []func(context.Context)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	m.recent = append(m.recent[max(len(m.recent)-maxRecent+1, 0):], slices.Clone(changes))
	for _, half := range []map[string]kept{m.hot, m.old} {
		for k, e := range half {
			for _, c := range changes {
				if e.about.stale(c) {
					m.remove(k)
					if e.about.single() && e.again != nil && len(again) < maxAgain {
						again = append(again, e.again)
					}
					break
				}
			}
		}
	}
	return again
}

func (m *memory) forgetAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	m.recent = nil
	m.hot, m.old, m.weight = map[string]kept{}, map[string]kept{}, 0
}

// question returns the key of a query.
func question(parts ...string) string { return strings.Join(parts, "\x00") }

// list is an answer that is a list.
type list[T any] []T

func (l list[T]) weight() int { return len(l) + 1 }
