package bolt

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"example.org/snapd/internal/meta"
)

// These functions read and write single buckets for the steps of Rebuild.

// contents is what a bucket should contain.
type contents map[string][]byte

func (c contents) put(k key, v []byte) { c[string(k)] = v }

// readable calls f for each entry of a bucket whose checksum is correct, and returns the
// keys of the others.
func (t *txn) readable(name string, f func(k, v []byte) error) (bad [][]byte, err error) {
	b := t.b(name)
	err = b.b.ForEach(func(k, stored []byte) error {
		v, _, ok := t.hash.split(name, k, stored)
		if !ok {
			bad = append(bad, bytes.Clone(k))
			return nil
		}
		if f == nil {
			return nil
		}
		return f(k, v)
	})
	return bad, err
}

// replace makes a bucket contain exactly want, and returns how many entries differed.
func (t *txn) replace(name string, want contents) (int, error) {
	b := t.b(name)
	changed := 0
	var drop [][]byte
	have := make(map[string]bool, len(want))
	err := b.b.ForEach(func(k, stored []byte) error {
		v, _, ok := t.hash.split(name, k, stored)
		w, wanted := want[string(k)]
		if ok && wanted && bytes.Equal(v, w) {
			have[string(k)] = true
		} else {
			drop = append(drop, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, k := range drop {
		if err := b.b.Delete(k); err != nil {
			return 0, err
		}
		changed++
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if have[k] {
			continue
		}
		hash := t.hash.entry(name, []byte(k), want[k])
		if err := b.b.Put([]byte(k), withChecksum(want[k], hash)); err != nil {
			return 0, err
		}
		changed++
	}
	return changed, t.recount(name)
}

// recount sets the sum of a bucket to that of its contents. It leaves out damaged
// entries, so that they remain faults.
func (t *txn) recount(name string) error {
	b := t.b(name)
	sum := bucketSum{Sequence: b.b.Sequence()}
	err := b.b.ForEach(func(k, stored []byte) error {
		if _, hash, ok := t.hash.split(name, k, stored); ok {
			sum.add(hash)
		}
		return nil
	})
	if err != nil {
		return err
	}
	delete(t.sums, name)
	return t.putSum(name, sum)
}

// keepReadable removes damaged entries from a bucket whose entries can be lost without
// harm.
func (t *txn) keepReadable(name string) (int, error) {
	want := contents{}
	bad, err := t.readable(name, func(k, v []byte) error { want.put(k, bytes.Clone(v)); return nil })
	if err != nil {
		return 0, err
	}
	ok, err := t.counts(name)
	if err != nil || ok && len(bad) == 0 {
		return 0, err
	}
	n, err := t.replace(name, want)
	return max(n, 1), err
}

// counts reports whether a bucket's contents match its sum.
func (t *txn) counts(name string) (bool, error) {
	b := t.b(name)
	got := bucketSum{Sequence: b.b.Sequence()}
	bad, err := t.readable(name, func(k, v []byte) error { got.add(t.hash.entry(name, k, v)); return nil })
	if err != nil || len(bad) > 0 {
		return false, err
	}
	stored := t.tx.Bucket([]byte(sumsBucket)).Get([]byte(name))
	v, _, ok := t.hash.split(sumsBucket, []byte(name), stored)
	if !ok {
		return false, nil
	}
	want, ok := decodeSum(v)
	return ok && want == got, nil
}

// complete returns ErrCorrupt if a bucket has lost entries: a bucket that is rebuilt from
// it would be incomplete, and a missing reference looks like an unreferenced blob.
func (t *txn) complete(names ...string) error {
	for _, name := range names {
		ok, err := t.counts(name)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: bucket %s", meta.ErrCorrupt, name)
		}
	}
	return nil
}

// wantedSum returns the sum that a bucket should have.
func (t *txn) wantedSum(name string) (bucketSum, bool) {
	v, _, ok := t.hash.split(sumsBucket, []byte(name), t.tx.Bucket([]byte(sumsBucket)).Get([]byte(name)))
	if !ok {
		return bucketSum{}, false
	}
	return decodeSum(v)
}
