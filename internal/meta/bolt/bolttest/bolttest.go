// Package bolttest damages the metadata in a bbolt file as a faulty disk would, for tests
// of detection. The file must not be open.
package bolttest

import (
	"errors"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// BucketsInUse lists the buckets that have entries, except those that contain only
// checksums and values of the program.
func BucketsInUse(t testing.TB, file string) (names []string) {
	t.Helper()
	edit(t, file, func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			k, _ := b.Cursor().First()
			if s := string(name); k != nil && s != "meta" && s != "sums" {
				names = append(names, s)
			}
			return nil
		})
	})
	return names
}

// LoseEntry removes the first entry of a bucket.
func LoseEntry(t testing.TB, file, bucket string) {
	t.Helper()
	edit(t, file, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		k, _ := b.Cursor().First()
		return b.Delete(k)
	})
}

// FlipBit changes one bit of the first entry of a bucket, but not its checksum.
func FlipBit(t testing.TB, file, bucket string) {
	t.Helper()
	edit(t, file, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		k, v := b.Cursor().First()
		v = slices.Clone(v)
		v[len(v)/2] ^= 4
		return b.Put(slices.Clone(k), v)
	})
}

func edit(t testing.TB, file string, f func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}
