package httpd

import (
	"container/list"
	"encoding/binary"
	"sync"

	"example.org/snapd/internal/cas"
)

// maxCached is the size of the largest body that is cached, in bytes.
const maxCached = 256 << 10

// entryCost is the approximate memory of a cache entry besides its bytes.
const entryCost = 256

// cache keeps small blobs and evicts the least recently used. Their digests were
// checked when they were read.
type cache struct {
	mu    sync.Mutex
	max   int64 // bytes
	size  int64
	order list.List // of *cached, newest first
	byDig map[cas.Digest]*list.Element
}

type cached struct {
	digest cas.Digest
	data   []byte
}

func newCache(max int64) *cache {
	return &cache{max: max, byDig: map[cas.Digest]*list.Element{}}
}

func (c *cache) get(d cas.Digest) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byDig[d]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(el)
	return el.Value.(*cached).data, true
}

func (c *cache) put(d cas.Digest, data []byte) {
	cost := int64(len(data)) + entryCost
	if len(data) > maxCached || cost > c.max {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byDig[d]; ok {
		return
	}
	c.byDig[d] = c.order.PushFront(&cached{d, data})
	c.size += cost
	for c.size > c.max {
		el := c.order.Back()
		old := el.Value.(*cached)
		c.order.Remove(el)
		delete(c.byDig, old.digest)
		c.size -= int64(len(old.data)) + entryCost
	}
}

// drop removes a blob that is corrupt on disk.
func (c *cache) drop(d cas.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byDig[d]; ok {
		c.size -= int64(len(el.Value.(*cached).data)) + entryCost
		c.order.Remove(el)
		delete(c.byDig, d)
	}
}

// maxLookups bounds each of the two halves of lookups.
const maxLookups = 16 << 10

// lookups remembers, for one epoch, the entities of request targets. It has two
// halves, so that it forgets targets that were not requested recently.
type lookups struct {
	mu       sync.RWMutex
	epoch    uint64
	hot, old map[string]*entity
}

func newLookups() *lookups { return &lookups{hot: map[string]*entity{}} }

// get takes the path as bytes, so that the compiler makes no string for the
// lookup.
func (l *lookups) get(epoch uint64, path []byte) *entity {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.epoch != epoch {
		return nil
	}
	if e := l.hot[string(path)]; e != nil {
		return e
	}
	return l.old[string(path)]
}

// put remembers the result of a lookup that began after epoch was read.
func (l *lookups) put(epoch uint64, path string, e *entity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch < l.epoch {
		return
	}
	if epoch > l.epoch {
		l.epoch, l.hot, l.old = epoch, map[string]*entity{}, nil
	}
	if len(l.hot) >= maxLookups {
		l.hot, l.old = map[string]*entity{}, l.hot
	}
	l.hot[path] = e
}

// maxChecked bounds the set of verified blobs; beyond it, the older half is
// verified again.
const maxChecked = 1 << 20

// checkedSet is the set of blobs that were read whole and had the right digest
// since the start, by the first eight bytes of the digest.
type checkedSet struct {
	mu       sync.RWMutex
	hot, old map[uint64]struct{}
}

func newCheckedSet() *checkedSet { return &checkedSet{hot: map[uint64]struct{}{}} }

func (c *checkedSet) has(d cas.Digest) bool {
	k := binary.BigEndian.Uint64(d[:])
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.hot[k]
	if !ok {
		_, ok = c.old[k]
	}
	return ok
}

func (c *checkedSet) add(d cas.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.hot) >= maxChecked {
		c.hot, c.old = map[uint64]struct{}{}, c.hot
	}
	c.hot[binary.BigEndian.Uint64(d[:])] = struct{}{}
}
