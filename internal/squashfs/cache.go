package squashfs

import (
	"container/list"
	"sync"
)

// cache keeps the most recently used decoded blocks, up to a number of bytes. The key
// is the block's offset in the image. Blocks are immutable, so a caller can continue to
// use one that was evicted.
type cache struct {
	mu    sync.Mutex
	limit int // bytes
	used  int // bytes
	order *list.List
	items map[uint64]*list.Element
}

type cacheItem struct {
	key  uint64
	data []byte
	next uint64 // offset of the next metadata block
}

func newCache(limit int) *cache {
	return &cache{limit: limit, order: list.New(), items: make(map[uint64]*list.Element)}
}

func (c *cache) get(key uint64) (cacheItem, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return cacheItem{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(cacheItem), true
}

func (c *cache) put(it cacheItem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[it.key]; ok {
		return
	}
	c.items[it.key] = c.order.PushFront(it)
	c.used += cap(it.data)
	for c.used > c.limit && c.order.Len() > 1 {
		e := c.order.Back()
		old := c.order.Remove(e).(cacheItem)
		delete(c.items, old.key)
		c.used -= cap(old.data)
	}
}
