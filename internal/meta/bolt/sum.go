package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/meta"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/bbolt"
)

// Every value ends in a checksum of its bucket, key and bytes, so that damage to an entry
// is found when it is read. A checksum cannot show that an entry is missing: a lost
// reference would look like "unreferenced", and a collection would delete the blob.
// Therefore the bucket "sums" contains, for each other bucket, the number of its entries,
// the sum of their hashes, and bbolt's sequence number. Every transaction that changes a
// bucket updates them, and Verify compares them.

// sumsBucket contains the sums of the other buckets. Its own values have checksums, and
// Verify expects an entry for each bucket.
const sumsBucket = "sums"

// checksumLen is the length of the checksum after each value, in bytes.
const checksumLen = 4

// bucketSum describes the contents of a bucket.
type bucketSum struct {
	Count    uint64 // entries
	Hash     uint64 // sum of the entries' hashes, modulo 2^64
	Sequence uint64 // bbolt's sequence number of the bucket
}

func (s bucketSum) encode() []byte {
	return key(nil).u64(s.Count).u64(s.Hash).u64(s.Sequence)
}

func decodeSum(v []byte) (bucketSum, bool) {
	if len(v) != 24 {
		return bucketSum{}, false
	}
	return bucketSum{be64(v), be64(v[8:]), be64(v[16:])}, true
}

func (s *bucketSum) add(hash uint64)    { s.Count, s.Hash = s.Count+1, s.Hash+hash }
func (s *bucketSum) remove(hash uint64) { s.Count, s.Hash = s.Count-1, s.Hash-hash }

// hasher computes hashes of entries. It is used by one goroutine.
type hasher struct{ buf []byte }

// entry hashes one entry of a bucket: its name, key and value without checksum.
func (h *hasher) entry(bucket string, k, v []byte) uint64 {
	b := append(h.buf[:0], bucket...)
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(len(k)))
	b = append(b, k...)
	b = append(b, v...)
	h.buf = b
	return xxhash.Sum64(b)
}

// split separates a stored value from its checksum. ok is false if the checksum is wrong.
func (h *hasher) split(bucket string, k, stored []byte) (v []byte, hash uint64, ok bool) {
	n := len(stored) - checksumLen
	if n < 0 {
		return nil, 0, false
	}
	v = stored[:n:n]
	hash = h.entry(bucket, k, v)
	return v, hash, binary.BigEndian.Uint32(stored[n:]) == uint32(hash)
}

// damage is the panic that view and update turn into an error. The functions below are
// called from deep inside queries, and an entry that cannot be trusted ends the whole
// transaction.
type damage struct{ err error }

func corruptEntry(bucket string, k []byte) error {
	return fmt.Errorf("%w: entry %q of bucket %s has a wrong checksum", meta.ErrCorrupt, k, bucket)
}

// bucket is a bbolt bucket with checksums, within a transaction.
type bucket struct {
	b    *bbolt.Bucket
	t    *txn
	name string
}

// b opens a bucket.
func (t *txn) b(name string) bucket {
	if b := t.buckets[name]; b != nil {
		return bucket{b, t, name}
	}
	b := t.tx.Bucket([]byte(name))
	if b == nil {
		panic(damage{fmt.Errorf("%w: bucket %s is missing", meta.ErrCorrupt, name)})
	}
	if !t.tx.Writable() { // then bbolt opens it again each time
		if t.buckets == nil {
			t.buckets = map[string]*bbolt.Bucket{}
		}
		t.buckets[name] = b
	}
	return bucket{b, t, name}
}

// value checks a stored value and returns it without its checksum.
func (b bucket) value(k, stored []byte) []byte {
	v, _, ok := b.t.hash.split(b.name, k, stored)
	if !ok {
		panic(damage{corruptEntry(b.name, k)})
	}
	return v
}

// Get returns the value of a key, or nil. It is valid until the transaction ends.
func (b bucket) Get(k []byte) []byte {
	if o := b.overlay(); o != nil {
		if v, changed := o.changed[string(k)]; changed {
			return v
		}
	}
	stored := b.find(k)
	if stored == nil {
		return nil
	}
	return b.value(k, stored)
}

// find returns the stored value of a key, or nil. It is bbolt's Get without a new cursor
// for each key.
func (b bucket) find(k []byte) []byte {
	c := b.t.cursors[b.name]
	if c == nil {
		if b.t.cursors == nil {
			b.t.cursors = map[string]*bbolt.Cursor{}
		}
		c = b.b.Cursor()
		b.t.cursors[b.name] = c
	}
	if found, stored := c.Seek(k); bytes.Equal(found, k) {
		return stored
	}
	return nil
}

// Put sets the value of a key.
func (b bucket) Put(k, v []byte) error {
	if o := b.overlay(); o != nil {
		o.put(k, v)
		return nil
	}
	hash := b.t.hash.entry(b.name, k, v)
	sum := b.t.sum(b)
	if old := b.find(k); old != nil {
		_, was, ok := b.t.hash.split(b.name, k, old)
		if !ok {
			panic(damage{corruptEntry(b.name, k)})
		}
		if was == hash {
			return nil
		}
		sum.remove(was)
	}
	sum.add(hash)
	return b.b.Put(k, withChecksum(v, hash))
}

// withChecksum returns a value as it is stored, with its checksum.
func withChecksum(v []byte, hash uint64) []byte {
	stored := make([]byte, len(v)+checksumLen)
	copy(stored, v)
	binary.BigEndian.PutUint32(stored[len(v):], uint32(hash))
	return stored
}

// Delete removes a key. Deleting an absent key succeeds.
func (b bucket) Delete(k []byte) error {
	if o := b.overlay(); o != nil {
		o.delete(k)
		return nil
	}
	old := b.find(k)
	if old == nil {
		return nil
	}
	_, was, ok := b.t.hash.split(b.name, k, old)
	if !ok {
		panic(damage{corruptEntry(b.name, k)})
	}
	b.t.sum(b).remove(was)
	return b.b.Delete(k)
}

// NextSequence returns the next number of the bucket, from 1 on.
func (b bucket) NextSequence() (uint64, error) {
	n, err := b.b.NextSequence()
	if err == nil {
		b.t.sum(b).Sequence = n
	}
	return n, err
}

// ForEach calls f for each entry in the order of keys.
func (b bucket) ForEach(f func(k, v []byte) error) error {
	if b.overlay() != nil {
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if err := f(k, v); err != nil {
				return err
			}
		}
		return nil
	}
	return b.b.ForEach(func(k, stored []byte) error { return f(k, b.value(k, stored)) })
}

// Cursor moves over the entries of the bucket.
func (b bucket) Cursor() cursor {
	c := &checkedCursor{b, b.b.Cursor()}
	if o := b.overlay(); o != nil {
		return &overlayCursor{base: c, o: o}
	}
	return c
}

// checkedCursor is a bbolt cursor whose values are checked.
type checkedCursor struct {
	b bucket
	c *bbolt.Cursor
}

func (c *checkedCursor) check(k, stored []byte) ([]byte, []byte) {
	if k == nil {
		return nil, nil
	}
	return k, c.b.value(k, stored)
}

func (c *checkedCursor) Seek(k []byte) ([]byte, []byte) { return c.check(c.c.Seek(k)) }
func (c *checkedCursor) First() ([]byte, []byte)        { return c.check(c.c.First()) }
func (c *checkedCursor) Last() ([]byte, []byte)         { return c.check(c.c.Last()) }
func (c *checkedCursor) Next() ([]byte, []byte)         { return c.check(c.c.Next()) }
func (c *checkedCursor) Prev() ([]byte, []byte)         { return c.check(c.c.Prev()) }

// sum returns the bucket's sum as this transaction leaves it.
func (t *txn) sum(b bucket) *bucketSum {
	if s := t.sums[b.name]; s != nil {
		return s
	}
	s := new(bucketSum)
	if stored := t.tx.Bucket([]byte(sumsBucket)).Get([]byte(b.name)); stored != nil {
		v, _, ok := t.hash.split(sumsBucket, []byte(b.name), stored)
		if ok {
			*s, ok = decodeSum(v)
		}
		if !ok {
			panic(damage{corruptEntry(sumsBucket, []byte(b.name))})
		}
	} else {
		s.Sequence = b.b.Sequence()
	}
	if t.sums == nil {
		t.sums = map[string]*bucketSum{}
	}
	t.sums[b.name] = s
	return s
}

// flushSums writes the sums of the buckets that the transaction changed.
func (t *txn) flushSums() error {
	for _, name := range slices.Sorted(maps.Keys(t.sums)) {
		if err := t.putSum(name, *t.sums[name]); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) putSum(name string, s bucketSum) error {
	v := s.encode()
	hash := t.hash.entry(sumsBucket, []byte(name), v)
	return t.tx.Bucket([]byte(sumsBucket)).Put([]byte(name), withChecksum(v, hash))
}

// census counts and checks the contents of a database, entry by entry.
type census struct {
	hash    hasher
	sums    map[string]*bucketSum
	want    map[string]bucketSum
	version uint32
	faults  []meta.Fault
}

// maxFaults limits how many faults are reported individually.
const maxFaults = 1000

func newCensus() *census {
	return &census{sums: map[string]*bucketSum{}, want: map[string]bucketSum{}}
}

func (c *census) fault(bucket string, k []byte, format string, args ...any) {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, meta.Fault{Bucket: bucket, Key: bytes.Clone(k), Err: fmt.Errorf("%w: "+format, append([]any{meta.ErrCorrupt}, args...)...)})
	}
}

// open records that a bucket exists.
func (c *census) open(bucket string, sequence uint64) {
	c.sums[bucket] = &bucketSum{Sequence: sequence}
}

// entry counts one entry.
func (c *census) entry(bucket string, k, stored []byte) {
	v, hash, ok := c.hash.split(bucket, k, stored)
	if bucket == "meta" && string(k) == "version" {
		switch {
		case ok && len(v) == 4:
			c.version = be32(v)
		case len(stored) == 4: // schema 1 had no checksums
			c.version = be32(stored)
		}
	}
	if !ok {
		c.fault(bucket, k, "entry %q of bucket %s has a wrong checksum", k, bucket)
	}
	if bucket == sumsBucket {
		if s, good := decodeSum(v); ok && good {
			c.want[string(k)] = s
		}
		return
	}
	c.sums[bucket].add(hash)
}

// lacks reports whether a bucket of laterBuckets was never made.
func (c *census) lacks(name string) bool {
	got := c.sums[name]
	_, ok := c.want[name]
	return !ok && (got == nil || got.Count == 0)
}

// result compares the counts with the sums, and lists the faults.
func (c *census) result() []meta.Fault {
	for _, name := range buckets {
		if slices.Contains(laterBuckets, name) && c.lacks(name) {
			continue
		}
		got := c.sums[name]
		if got == nil {
			c.fault(name, nil, "bucket %s is missing", name)
			continue
		}
		want, ok := c.want[name]
		switch {
		case !ok:
			c.fault(name, nil, "bucket %s has no sum", name)
		case got.Count != want.Count:
			c.fault(name, nil, "bucket %s has %d entries, expected %d", name, got.Count, want.Count)
		case got.Hash != want.Hash:
			c.fault(name, nil, "bucket %s has other contents than those that were written", name)
		case got.Sequence != want.Sequence:
			c.fault(name, nil, "bucket %s has sequence number %d, expected %d", name, got.Sequence, want.Sequence)
		}
	}
	return c.faults
}

// joinFaults joins faults into one error: the first few, and the number of the others.
func joinFaults(faults []meta.Fault) error {
	const named = 3
	switch n := len(faults); {
	case n == 0:
		return nil
	case n == 1:
		return faults[0].Err
	default:
		var text []string
		for _, f := range faults[:min(named, n)] {
			text = append(text, strings.TrimPrefix(f.Error(), meta.ErrCorrupt.Error()+": "))
		}
		if n > named {
			text = append(text, fmt.Sprintf("and %d more faults", n-named))
		}
		return fmt.Errorf("%w: %s", meta.ErrCorrupt, strings.Join(text, "; "))
	}
}
