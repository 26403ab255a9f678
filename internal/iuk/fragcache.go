package iuk

import (
	"sync"

	"example.org/snapd/internal/squashfs"
)

// fragCache keeps a few decoded fragment blocks. Several goroutines that ask
// for one block share one decoding.
type fragCache struct {
	r     *squashfs.Reader
	limit int

	mu    sync.Mutex
	items []*fragItem // the most recently used last
}

type fragItem struct {
	frag uint32
	once sync.Once
	data []byte
	err  error
}

func newFragCache(r *squashfs.Reader, limit int) *fragCache {
	return &fragCache{r: r, limit: limit}
}

func (c *fragCache) get(frag uint32) ([]byte, error) {
	c.mu.Lock()
	var it *fragItem
	for i, x := range c.items {
		if x.frag == frag {
			it = x
			copy(c.items[i:], c.items[i+1:])
			c.items[len(c.items)-1] = it
			break
		}
	}
	if it == nil {
		it = &fragItem{frag: frag}
		if len(c.items) >= c.limit {
			copy(c.items, c.items[1:])
			c.items[len(c.items)-1] = it
		} else {
			c.items = append(c.items, it)
		}
	}
	c.mu.Unlock()
	it.once.Do(func() {
		it.data, it.err = decodeFragment(c.r, frag, make([]byte, c.r.BlockSize()))
	})
	return it.data, it.err
}
