package bolt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/meta"
)

// objectBucket contains the index of objects: which keys of a bucket in an object store
// hold blobs. It is part of the metadata's file, so that the checksums, the backup and
// the lock of the metadata cover it. Its keys are
//
//	p digest        present: number, size, times
//	r digest number removed: at, why, size, times
//	g digest number garbage since
const objectBucket = "object"

const (
	objectPresent = 'p'
	objectRemoved = 'r'
	objectGarbage = 'g'
)

// Objects returns the index of objects in this metadata.
func (s *Store) Objects() objects.Index { return objectIndex{s} }

type objectIndex struct{ s *Store }

func presentKey(d cas.Digest) key { return key(nil).one(objectPresent).raw(d[:]) }

func objectKey(state byte, k objects.Key) key {
	return key(nil).one(state).raw(k.Digest[:]).u64(k.N)
}

// keyOf reads a key that objectKey wrote.
func keyOf(k []byte) (objects.Key, error) {
	if len(k) != 1+len(cas.Digest{})+8 {
		return objects.Key{}, fmt.Errorf("%w: key %q of bucket %s", meta.ErrCorrupt, k, objectBucket)
	}
	return objects.Key{Digest: cas.Digest(k[1:33]), N: be64(k[33:])}, nil
}

// putTime stores a time in seconds; the zero time as 0.
func putTime(e *enc, t time.Time) {
	if t.IsZero() {
		e.Uint(0)
		return
	}
	e.Uint(uint64(t.Unix()))
}

func getTime(d *dec) time.Time {
	n := d.Uint()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0).UTC()
}

func encodeObject(e *enc, o objects.Object) {
	e.Uint(o.N)
	e.Uint(uint64(o.Size))
	putTime(e, o.ModTime)
	putTime(e, o.Stored)
}

func decodeObject(d *dec, digest cas.Digest) objects.Object {
	o := objects.Object{Key: objects.Key{Digest: digest, N: d.Uint()}}
	o.Size = int64(d.Uint())
	o.ModTime = getTime(d)
	o.Stored = getTime(d)
	return o
}

func (t *txn) presentObject(d cas.Digest) (objects.Object, error) {
	v := t.b(objectBucket).Get(presentKey(d))
	if v == nil {
		return objects.Object{}, fmt.Errorf("%w: %s", cas.ErrNotFound, d)
	}
	return readObject(v, d)
}

func readObject(v []byte, digest cas.Digest) (objects.Object, error) {
	d := &dec{B: v}
	o := decodeObject(d, digest)
	if d.Bad {
		return o, fmt.Errorf("%w: object of %s", meta.ErrCorrupt, digest)
	}
	return o, nil
}

// setPresent makes an object the present one of its digest, and turns the one it replaces
// into garbage.
func (t *txn) setPresent(o objects.Object, at time.Time) error {
	b := t.b(objectBucket)
	if v := b.Get(presentKey(o.Digest)); v != nil {
		old, err := readObject(v, o.Digest)
		if err != nil {
			return err
		}
		if old.N != o.N {
			if err := t.putGarbage(old.Key, at); err != nil {
				return err
			}
		}
	}
	var e enc
	encodeObject(&e, o)
	return b.Put(presentKey(o.Digest), e)
}

func (t *txn) putGarbage(k objects.Key, since time.Time) error {
	var e enc
	putTime(&e, since)
	return t.b(objectBucket).Put(objectKey(objectGarbage, k), e)
}

// Reserve implements objects.Index. Numbers grow with time, so that metadata that was
// restored from an older copy does not assign numbers again that were assigned since.
func (x objectIndex) Reserve(ctx context.Context, digests []cas.Digest, at time.Time) (keys []objects.Key, err error) {
	err = x.s.update(ctx, "reserve objects", func(t *txn) error {
		keys = nil
		b := t.b(objectBucket)
		if floor := uint64(max(at.UnixMilli(), 0)); b.b.Sequence() < floor {
			if err := b.b.SetSequence(floor); err != nil {
				return err
			}
		}
		for _, d := range digests {
			n, err := b.NextSequence()
			if err != nil {
				return err
			}
			k := objects.Key{Digest: d, N: n}
			if err := t.putGarbage(k, at); err != nil {
				return err
			}
			keys = append(keys, k)
		}
		return nil
	})
	return keys, err
}

// Add implements objects.Index.
func (x objectIndex) Add(ctx context.Context, list []objects.Object, at time.Time) error {
	return x.s.update(ctx, "add objects", func(t *txn) error {
		b := t.b(objectBucket)
		for _, o := range list {
			k := objectKey(objectGarbage, o.Key)
			v := b.Get(k)
			if v == nil || getTime(&dec{B: v}).IsZero() { // none, or condemned
				if have, err := t.presentObject(o.Digest); err == nil && have.Key == o.Key {
					continue // added by an earlier call
				}
				return fmt.Errorf("%w: the upload of %s took too long and was abandoned", cas.ErrUnavailable, o.Digest)
			}
			if err := b.Delete(k); err != nil {
				return err
			}
			if err := t.setPresent(o, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// Present implements objects.Index.
func (x objectIndex) Present(ctx context.Context, d cas.Digest) (o objects.Object, err error) {
	err = x.s.view(ctx, func(t *txn) (err error) {
		o, err = t.presentObject(d)
		return err
	})
	return o, err
}

// Which implements objects.Index.
func (x objectIndex) Which(ctx context.Context, all []cas.Digest) (found map[cas.Digest]bool, err error) {
	err = x.s.view(ctx, func(t *txn) error {
		found = map[cas.Digest]bool{}
		for _, d := range all {
			if t.b(objectBucket).Get(presentKey(d)) != nil {
				found[d] = true
			}
		}
		return nil
	})
	return found, err
}

// List implements objects.Index.
func (x objectIndex) List(ctx context.Context, after cas.Digest, n int) (out []objects.Object, err error) {
	err = x.s.view(ctx, func(t *txn) error {
		out = nil
		c := t.b(objectBucket).Cursor()
		k, v := c.Seek(presentKey(after))
		if !after.IsZero() && bytes.Equal(k, presentKey(after)) {
			k, v = c.Next()
		}
		for ; len(k) == 33 && k[0] == objectPresent && len(out) < n; k, v = c.Next() {
			o, err := readObject(v, cas.Digest(k[1:]))
			if err != nil {
				return err
			}
			out = append(out, o)
		}
		return nil
	})
	return out, err
}

// Remove implements objects.Index.
func (x objectIndex) Remove(ctx context.Context, k objects.Key, why string, at time.Time) (removed bool, err error) {
	err = x.s.update(ctx, "remove object", func(t *txn) error {
		removed = false
		b := t.b(objectBucket)
		v := b.Get(presentKey(k.Digest))
		if v == nil {
			return nil
		}
		o, err := readObject(v, k.Digest)
		if err != nil || o.Key != k {
			return err
		}
		var e enc
		putTime(&e, at)
		e.Str(why)
		encodeObject(&e, o)
		if err := b.Put(objectKey(objectRemoved, k), e); err != nil {
			return err
		}
		removed = true
		return b.Delete(presentKey(k.Digest))
	})
	return removed, err
}

func readRemoved(v []byte, digest cas.Digest) (objects.Removed, error) {
	d := &dec{B: v}
	r := objects.Removed{At: getTime(d), Why: d.Str()}
	r.Object = decodeObject(d, digest)
	if d.Bad {
		return r, fmt.Errorf("%w: removed object of %s", meta.ErrCorrupt, digest)
	}
	return r, nil
}

func (t *txn) removedObjects() (out []objects.Removed, err error) {
	c := t.b(objectBucket).Cursor()
	for k, v := c.Seek([]byte{objectRemoved}); len(k) > 0 && k[0] == objectRemoved; k, v = c.Next() {
		key, err := keyOf(k)
		if err != nil {
			return nil, err
		}
		r, err := readRemoved(v, key.Digest)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b objects.Removed) int {
		return cmp.Or(a.At.Compare(b.At), bytes.Compare(a.Digest[:], b.Digest[:]), cmp.Compare(a.N, b.N))
	})
	return out, nil
}

// Quarantine implements objects.Index.
func (x objectIndex) Quarantine(ctx context.Context) (out []objects.Removed, err error) {
	err = x.s.view(ctx, func(t *txn) (err error) {
		out, err = t.removedObjects()
		return err
	})
	return out, err
}

// Restore implements objects.Index.
func (x objectIndex) Restore(ctx context.Context, k objects.Key, at time.Time) error {
	return x.s.update(ctx, "restore object", func(t *txn) error {
		b := t.b(objectBucket)
		v := b.Get(objectKey(objectRemoved, k))
		if v == nil {
			return fmt.Errorf("%w: %s in the quarantine", cas.ErrNotFound, k.Digest)
		}
		r, err := readRemoved(v, k.Digest)
		if err != nil {
			return err
		}
		if err := b.Delete(objectKey(objectRemoved, k)); err != nil {
			return err
		}
		return t.setPresent(r.Object, at)
	})
}

// Condemn implements objects.Index.
func (x objectIndex) Condemn(ctx context.Context, before time.Time, n int) (out []objects.Removed, err error) {
	all, err := x.Quarantine(ctx)
	if err != nil || len(all) == 0 || !all[0].At.Before(before) {
		return nil, err
	}
	err = x.s.update(ctx, "condemn objects", func(t *txn) error {
		out = nil
		all, err := t.removedObjects()
		if err != nil {
			return err
		}
		for _, r := range all[:min(n, len(all))] {
			if !r.At.Before(before) {
				break
			}
			if err := t.b(objectBucket).Delete(objectKey(objectRemoved, r.Key)); err != nil {
				return err
			}
			if err := t.putGarbage(r.Key, time.Time{}); err != nil {
				return err
			}
			out = append(out, r)
		}
		return nil
	})
	return out, err
}

// Garbage implements objects.Index.
func (x objectIndex) Garbage(ctx context.Context, before time.Time, n int, busy func(objects.Key) bool) (out []objects.Key, err error) {
	err = x.s.update(ctx, "condemn garbage", func(t *txn) error {
		out = nil
		fresh := 0
		c := t.b(objectBucket).Cursor()
		for k, v := c.Seek([]byte{objectGarbage}); len(k) > 0 && k[0] == objectGarbage && len(out) < n; k, v = c.Next() {
			key, err := keyOf(k)
			if err != nil {
				return err
			}
			d := &dec{B: v}
			since := getTime(d)
			if d.Bad {
				return fmt.Errorf("%w: garbage %s", meta.ErrCorrupt, key.Digest)
			}
			if !since.IsZero() && !since.Before(before) || busy != nil && busy(key) {
				continue
			}
			if out = append(out, key); !since.IsZero() {
				fresh++
			}
		}
		if fresh == 0 {
			return errUnchanged
		}
		for _, k := range out {
			if err := t.putGarbage(k, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		err = nil
	}
	return out, err
}

// Forget implements objects.Index.
func (x objectIndex) Forget(ctx context.Context, keys []objects.Key) error {
	if len(keys) == 0 {
		return nil
	}
	return x.s.update(ctx, "forget objects", func(t *txn) error {
		for _, k := range keys {
			if err := t.b(objectBucket).Delete(objectKey(objectGarbage, k)); err != nil {
				return err
			}
		}
		return nil
	})
}
