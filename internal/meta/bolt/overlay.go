package bolt

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"go.etcd.io/bbolt"
)

// An overlay lets a transaction make changes that only it sees. A collection is simulated
// in a read transaction, concurrently with writers, without writing anything.

// overlay holds the changes to one bucket.
type overlay struct {
	changed map[string][]byte // nil: deleted
	sorted  []string          // keys of changed, in order; nil when out of date
}

func (o *overlay) put(k, v []byte) {
	if _, known := o.changed[string(k)]; !known {
		o.sorted = nil
	}
	o.changed[string(k)] = append([]byte{}, v...)
}

func (o *overlay) delete(k []byte) {
	if _, known := o.changed[string(k)]; !known {
		o.sorted = nil
	}
	o.changed[string(k)] = nil
}

// keys are the changed keys in order.
func (o *overlay) keys() []string {
	if o.sorted == nil {
		o.sorted = slices.Sorted(maps.Keys(o.changed))
	}
	return o.sorted
}

// rehearse runs f in a read transaction whose changes only f sees.
func (s *Store) rehearse(ctx context.Context, f func(*txn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			return f(&txn{tx: tx, s: s, overlays: map[string]*overlay{}})
		})
	})
}

// overlay returns the changes to a bucket; nil in an ordinary transaction.
func (b bucket) overlay() *overlay {
	if b.t.overlays == nil {
		return nil
	}
	o := b.t.overlays[b.name]
	if o == nil {
		o = &overlay{changed: map[string][]byte{}}
		b.t.overlays[b.name] = o
	}
	return o
}

// cursor moves over the entries of a bucket in the order of keys.
type cursor interface {
	Seek(k []byte) (key, value []byte)
	First() (key, value []byte)
	Last() (key, value []byte)
	Next() (key, value []byte)
	Prev() (key, value []byte)
}

// overlayCursor merges the entries of a bucket with its overlay. It seeks again at each
// step, since the overlay may have changed.
type overlayCursor struct {
	base cursor
	o    *overlay
	at   []byte // the key of the last step; nil: none
	done bool
}

func (c *overlayCursor) found(k, v []byte) ([]byte, []byte) {
	c.at, c.done = bytes.Clone(k), k == nil
	return k, v
}

// forward returns the first entry at k or after it, or only after it if skip is set.
func (c *overlayCursor) forward(k []byte, skip bool) ([]byte, []byte) {
	bk, bv := c.base.Seek(k)
	if skip && bytes.Equal(bk, k) {
		bk, bv = c.base.Next()
	}
	for bk != nil {
		if _, hidden := c.o.changed[string(bk)]; !hidden {
			break
		}
		bk, bv = c.base.Next()
	}
	keys := c.o.keys()
	i, ok := slices.BinarySearch(keys, string(k))
	if ok && skip {
		i++
	}
	for ; i < len(keys); i++ {
		if v := c.o.changed[keys[i]]; v != nil {
			if bk == nil || keys[i] < string(bk) {
				return c.found([]byte(keys[i]), v)
			}
			break
		}
	}
	return c.found(bk, bv)
}

// backward returns the last entry before k, or the last of all if k is nil.
func (c *overlayCursor) backward(k []byte) ([]byte, []byte) {
	var bk, bv []byte
	if k == nil {
		bk, bv = c.base.Last()
	} else if bk, _ = c.base.Seek(k); bk == nil {
		bk, bv = c.base.Last()
	} else {
		bk, bv = c.base.Prev()
	}
	for bk != nil {
		if _, hidden := c.o.changed[string(bk)]; !hidden {
			break
		}
		bk, bv = c.base.Prev()
	}
	keys := c.o.keys()
	i := len(keys)
	if k != nil {
		i, _ = slices.BinarySearch(keys, string(k))
	}
	for i--; i >= 0; i-- {
		if v := c.o.changed[keys[i]]; v != nil {
			if bk == nil || keys[i] > string(bk) {
				return c.found([]byte(keys[i]), v)
			}
			break
		}
	}
	return c.found(bk, bv)
}

func (c *overlayCursor) Seek(k []byte) ([]byte, []byte) { return c.forward(k, false) }
func (c *overlayCursor) First() ([]byte, []byte)        { return c.forward(nil, false) }
func (c *overlayCursor) Last() ([]byte, []byte)         { return c.backward(nil) }

func (c *overlayCursor) Next() ([]byte, []byte) {
	if c.done || c.at == nil {
		return nil, nil
	}
	return c.forward(c.at, true)
}

func (c *overlayCursor) Prev() ([]byte, []byte) {
	if c.done || c.at == nil {
		return nil, nil
	}
	return c.backward(c.at)
}
