package bolt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
)

// initialMap is the address space reserved for the database file. A read transaction that
// is open while bbolt enlarges its map would block every writer.
const initialMap = 16 << 30

// Open opens the database file at path, or creates it. It reads every page before bbolt
// does: damage that would crash bbolt is ErrCorrupt, and Damage reports other damage. It
// converts a file with an earlier schema. ErrLocked, ErrVersion, ErrLost.
func Open(path string, o Options) (*Store, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	s, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	return s, nil
}

func open(path string, o Options) (*Store, error) {
	if err := create(path, o.MustExist); err != nil {
		return nil, err
	}
	f, err := lock(path, syscall.LOCK_EX, o.Timeout)
	if err != nil {
		return nil, err
	}
	st, err := inspect(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if st.version == 1 {
		if err := convert(f, path); err != nil {
			return nil, fmt.Errorf("convert schema 1: %w", err)
		}
		return open(path, o)
	}
	s := &Store{fault: o.Fault, twice: o.Twice, page: cmp.Or(o.Page, spanPage), latency: cmp.Or(o.Latency, new(latency.Metadata))}
	if s.zr, err = compact.NewDecoder(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.file = f
	if s.db, err = openBolt(f, false); err != nil {
		return nil, err
	}
	if st.version < schemaVersion {
		err := s.addBuckets(st.torn)
		if err == nil {
			err = s.fillAdded(st.version)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("convert schema %d: %w", st.version, err), s.Close())
		}
		if err := s.Close(); err != nil {
			return nil, err
		}
		return open(path, o)
	}
	if st.later {
		if err := errors.Join(s.addBuckets(st.torn), s.Close()); err != nil {
			return nil, err
		}
		return open(path, o)
	}
	if err := joinFaults(st.faults); err != nil {
		s.damaged.Store(&err)
	}
	if st.torn != nil {
		// bbolt falls back to the state before the last commit. The next commit
		// overwrites the evidence, so record it first.
		if err := s.update(context.Background(), "torn", func(tx *txn) error { return tx.setTorn(st.torn) }); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// tornKey is the note that a meta page was damaged, until ClearTorn.
const tornKey = "torn"

// Torn describes a lost commit that Open noticed; "" if there was none.
func (t *txn) Torn() string { return t.Meta(tornKey) }

func (t *txn) setTorn(torn error) error {
	return t.SetMeta(tornKey, fmt.Sprintf("%v: the last change before it was damaged may be lost", torn))
}

// ClearTorn removes the note.
func (t *txn) ClearTorn() error { return t.SetMeta(tornKey, "") }

// create makes an empty database if there is no file. The file gets its name only when it
// is complete, so that a truncated file is never mistaken for a new one.
func create(path string, mustExist bool) error {
	st, err := os.Stat(path)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return fmt.Errorf("%w: not a regular file", meta.ErrCorrupt)
	case err == nil && st.Size() > 0:
		return nil
	case err == nil && mustExist:
		return fmt.Errorf("%w: the file is empty", meta.ErrLost)
	case errors.Is(err, fs.ErrNotExist) && mustExist:
		return fmt.Errorf("%w: there is no such file", meta.ErrLost)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := build(tmp, func(*bbolt.DB) error { return nil }); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return rename(tmp, path)
}

// build makes a database with every bucket, lets fill add entries, and makes it durable.
func build(path string, fill func(*bbolt.DB) error) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoGrowSync: true, InitialMmapSize: initialMap, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(sumsBucket)); err != nil {
			return err
		}
		t := &txn{tx: tx}
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
			t.sum(t.b(name))
		}
		if err := t.b("meta").Put([]byte("version"), key(nil).u32(schemaVersion)); err != nil {
			return err
		}
		return t.flushSums()
	})
	if err == nil {
		err = fill(db)
	}
	if err == nil {
		err = db.Sync()
	}
	return errors.Join(err, db.Close())
}

// state is what inspect found in a database file.
type state struct {
	version uint32
	faults  []meta.Fault
	torn    error // a meta page is damaged
	later   bool  // it lacks buckets of laterBuckets
}

// inspect reads a locked database file without bbolt.
func inspect(f *os.File) (*state, error) {
	m, torn, err := readMetas(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", meta.ErrCorrupt, err)
	}
	c, pages, err := scanFile(context.Background(), f, m)
	if err != nil {
		return nil, err
	}
	if pages != nil {
		return nil, fmt.Errorf("%w: %w", meta.ErrCorrupt, pages)
	}
	switch {
	case c.version > schemaVersion:
		return nil, fmt.Errorf("%w: schema %d, this program knows %d", meta.ErrVersion, c.version, schemaVersion)
	case c.version == 0:
		return nil, fmt.Errorf("%w: no schema version", meta.ErrCorrupt)
	case c.version < schemaVersion:
		return &state{version: c.version, torn: torn}, nil
	}
	return &state{c.version, c.result(), torn, slices.ContainsFunc(laterBuckets, c.lacks)}, nil
}

// lock opens a database file and takes the lock that bbolt takes, so that nothing else
// writes to it: LOCK_EX, or LOCK_SH for reading. ErrLocked.
func lock(path string, how int, timeout time.Duration) (*os.File, error) {
	end := time.After(timeout)
	for {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil && !sameFile(f, path) {
			err = syscall.EWOULDBLOCK // replaced while we waited
		}
		if err == nil {
			return f, nil
		}
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-end:
			return nil, meta.ErrLocked
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func sameFile(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// openBolt opens with bbolt a locked database whose pages are sound. bbolt closes the
// file.
func openBolt(f *os.File, readOnly bool) (db *bbolt.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%w: %v", meta.ErrCorrupt, r)
		}
	}()
	return bbolt.Open(f.Name(), 0o600, &bbolt.Options{
		ReadOnly: readOnly, InitialMmapSize: initialMap, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
}

// addBuckets starts the conversion of an earlier database, which lacks some buckets.
// Damage in it remains, and a torn commit is recorded.
func (s *Store) addBuckets(torn error) error {
	return s.updateDamaged(context.Background(), "convert", func(t *txn) error {
		for _, name := range addedBuckets {
			if _, err := t.tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
			// A bucket that has a sum was lost, and remains a fault.
			if t.tx.Bucket([]byte(sumsBucket)).Get([]byte(name)) != nil {
				continue
			}
			if err := t.recount(name); err != nil {
				return err
			}
		}
		if torn != nil {
			return t.setTorn(torn)
		}
		return nil
	})
}

// fillAdded fills the look-ups that version 4 added from existing data, in transactions
// of limited size, and completes the conversion. It leaves out damaged entries, whose
// look-ups fsck repairs together with them. An interrupted run is repeated.
func (s *Store) fillAdded(from uint32) error {
	ctx := context.Background()
	err := s.eachReadable(ctx, "fact", func(t *txn, k, v []byte) error {
		f, err := compact.DecodeFact(meta.PID(be64(k)), v)
		if err != nil {
			return err
		}
		spans := t.b("span").b.Cursor()
		sk, _ := spans.Seek(k)
		if sk == nil || !bytes.HasPrefix(sk, k) {
			return nil
		}
		info, err := t.index(meta.IndexID(be32(sk[8:])))
		if err != nil {
			return err
		}
		mid, ok, err := t.mirrorID(info.mirror, false)
		source := sourceKey(mid, &f.Record)
		if err != nil || !ok || source == nil {
			return err
		}
		return t.b("source").Put(source.raw(k), nil)
	})
	if err == nil {
		err = s.eachReadable(ctx, "alias", func(t *txn, k, v []byte) error { return t.b("other").Put(otherKey(k, v), clone(k[1:])) })
	}
	if err != nil {
		return fmt.Errorf("schema %d: %w", from, err)
	}
	return s.updateDamaged(ctx, "convert", func(t *txn) error { return t.b("meta").Put([]byte("version"), key(nil).u32(schemaVersion)) })
}

// eachReadable calls f for each undamaged entry of a bucket, in transactions of limited
// size. It skips entries in which f finds damage.
func (s *Store) eachReadable(ctx context.Context, name string, f func(t *txn, k, v []byte) error) error {
	for after := []byte(nil); ; {
		var last []byte
		err := s.updateDamaged(ctx, "convert "+name, func(t *txn) error {
			last = nil
			c := t.b(name).b.Cursor()
			k, stored := c.First()
			if after != nil {
				if k, stored = c.Seek(after); bytes.Equal(k, after) {
					k, stored = c.Next()
				}
			}
			for n := 0; k != nil && n < convertEntries; n++ {
				if v, _, ok := t.hash.split(name, k, stored); ok {
					if err := undamaged(func() error { return f(t, k, v) }); err != nil {
						return err
					}
				}
				last = clone(k)
				k, stored = c.Next()
			}
			return nil
		})
		if err != nil || last == nil {
			return err
		}
		after = last
	}
}

// undamaged runs f and ignores damage that f finds.
func undamaged(f func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case damage:
			err = nil
		default:
			panic(r)
		}
	}()
	if err = f(); errors.Is(err, meta.ErrCorrupt) {
		err = nil
	}
	return err
}

// Limits of one transaction of a conversion.
const (
	convertEntries = 50_000
	convertBytes   = 32 << 20
)

// convert rewrites a database with schema 1, adding checksums and sums. It closes the old
// file, which is kept until the new one is complete and durable.
func convert(f *os.File, path string) error {
	old, err := openBolt(f, true)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, old.Close())
	}
	err = build(tmp, func(db *bbolt.DB) error {
		return old.View(func(from *bbolt.Tx) error {
			for _, name := range buckets {
				b := from.Bucket([]byte(name))
				if b == nil {
					continue
				}
				if err := convertBucket(db, b, name); err != nil {
					return fmt.Errorf("bucket %s: %w", name, err)
				}
			}
			return nil
		})
	})
	if err = errors.Join(err, old.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return rename(tmp, path)
}

func convertBucket(db *bbolt.DB, from *bbolt.Bucket, name string) error {
	c := from.Cursor()
	k, v := c.First()
	for first := true; first || k != nil; first = false {
		err := db.Update(func(tx *bbolt.Tx) error {
			t := &txn{tx: tx}
			b := t.b(name)
			b.b.FillPercent = 0.9 // keys arrive in order
			if first {
				if err := b.b.SetSequence(from.Sequence()); err != nil {
					return err
				}
				t.sum(b).Sequence = from.Sequence()
			}
			for n, size := 0, 0; k != nil && n < convertEntries && size < convertBytes; k, v = c.Next() {
				if name == "meta" && string(k) == "version" {
					continue
				}
				if err := b.Put(k, v); err != nil {
					return err
				}
				n, size = n+1, size+len(k)+len(v)
			}
			return t.flushSums()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rename gives a complete database its name, durably.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}
