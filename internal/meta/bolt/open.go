package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"

	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
)

// initialMap is the address space reserved for the database file: a read
// transaction held while bbolt enlarges its map would stop every writer.
const initialMap = 16 << 30

// Open opens the database file at path, or creates it. It reads every page
// before bbolt does: damage that bbolt could not live with is ErrCorrupt, other
// damage is told by Damage. A file of schema 1 is converted. ErrLocked,
// ErrVersion, ErrLost.
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
	if st.version < schemaVersion {
		if err := convert(f, path); err != nil {
			return nil, fmt.Errorf("convert schema %d: %w", st.version, err)
		}
		return open(path, o)
	}
	s := &Store{fault: o.Fault}
	if s.zr, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(64<<20)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.file = f
	if s.db, err = openBolt(f, false); err != nil {
		return nil, err
	}
	if err := joinFaults(st.faults); err != nil {
		s.damaged.Store(&err)
	}
	if st.torn != nil {
		// bbolt falls back to the state before the last commit. The next commit
		// overwrites the evidence, so it is noted first.
		text := fmt.Sprintf("%v: the last change before it was damaged may be lost", st.torn)
		if err := s.Update(context.Background(), "torn", func(tx *Tx) error { return tx.SetMeta(tornKey, text) }); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// tornKey is the note that a meta page was damaged, until ClearTorn.
const tornKey = "torn"

// Torn describes a lost commit that Open noticed; "" where there was none.
func (t *Tx) Torn() string { return t.Meta(tornKey) }

// ClearTorn forgets it.
func (t *Tx) ClearTorn() error { return t.SetMeta(tornKey, "") }

// create makes an empty database where there is none. It gets its name when it
// is whole, so that a file that was cut is never taken for one just begun.
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

// build makes a database with every bucket, lets fill add to it, and makes it
// durable.
func build(path string, fill func(*bbolt.DB) error) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoGrowSync: true, InitialMmapSize: initialMap, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(sumsBucket)); err != nil {
			return err
		}
		t := &Tx{tx: tx}
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
	return &state{c.version, c.result(), torn}, nil
}

// lock opens a database file and takes the lock that bbolt takes, so that
// nothing else writes to it: LOCK_EX, or LOCK_SH for reading alone. ErrLocked.
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

// openBolt hands a locked database whose pages are sound to bbolt, which closes
// the file.
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

// Bounds of one transaction of a conversion.
const (
	convertEntries = 50_000
	convertBytes   = 32 << 20
)

// convert writes a database of schema 1 anew, with checksums and sums. The old
// file, which it closes, stays until the new one is whole and durable.
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
			t := &Tx{tx: tx}
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

// rename gives a finished database its name, durably.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}
