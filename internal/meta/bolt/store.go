package bolt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"go.etcd.io/bbolt"

	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
)

// schemaVersion is the version of the database's contents. Version 2 brought
// checksums and sums; Open converts version 1.
const schemaVersion = 2

var buckets = []string{
	"meta", "ids", "names", "snapshot", "gone", "gen", "genref", "fact", "para", "live", "span", "began", "ended",
	"name", "path", "ref", "suspect", "listed", "lended", "lpath", "alias", "dirty", "frozen", "ftree", "recording", "rentry",
	"rotten", "check", "image", "kit",
}

// Store is the metadata of one data directory.
type Store struct {
	db      *bbolt.DB
	file    *os.File // the database, for reads beside bbolt's map; bbolt closes it
	fault   FaultFunc
	unknown atomic.Pointer[error] // set by a commit that failed halfway
	damaged atomic.Pointer[error] // set when damage is found, cleared by a Verify that finds none
	stuck   atomic.Bool           // bbolt's write lock was lost in a panic
	indices sync.Map              // IndexID -> indexInfo, which never changes
	zr      *zstd.Decoder
}

// FaultFunc is consulted before each commit, for tests: an error makes the
// commit fail, after it took effect when apply is true.
type FaultFunc func(op string) (apply bool, err error)

// Options adjust a Store.
type Options struct {
	Fault   FaultFunc
	Timeout time.Duration // how long Open waits for another process; default 1 s
	// MustExist makes Open refuse a missing or empty file with ErrLost: there
	// are signs that the directory had metadata before.
	MustExist bool
}

// View runs f in a read transaction. It must be short: no network, no blobs.
// Damage that f meets is ErrCorrupt.
func (s *Store) View(ctx context.Context, f func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return f(&Tx{tx: tx, s: s}) })
	})
}

// Update runs f in a write transaction and commits it durably. It must be short.
// A commit that failed halfway wraps durable.ErrUnknown: what is mapped may be
// newer than what the disk has, so nothing more is written. Damage that f meets
// is ErrCorrupt, and nothing is changed. Damaged metadata is read-only: what is
// missing from it would be taken for absent.
func (s *Store) Update(ctx context.Context, op string, f func(*Tx) error) error {
	if err := s.Damage(); err != nil {
		return fmt.Errorf("%s: damaged metadata is read-only (snapctl fsck --repair): %w", op, err)
	}
	return s.UpdateDamaged(ctx, op, f)
}

// UpdateDamaged is Update for what has to work on damaged metadata: repairs, and
// notes that do not depend on anything else in it.
func (s *Store) UpdateDamaged(ctx context.Context, op string, f func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.unknown.Load(); err != nil {
		return *err // the write lock may be lost
	}
	var fail error
	ran := false
	err := s.guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			if err := s.unknown.Load(); err != nil {
				return *err
			}
			t := &Tx{tx: tx, s: s}
			if err := f(t); err != nil {
				return err
			}
			if err := t.flushSums(); err != nil {
				return err
			}
			if s.fault != nil {
				apply, err := s.fault(op)
				if err != nil && !apply {
					return err
				}
				fail = err
			}
			ran = true
			return nil
		})
	})
	if err != nil && (ran && !full(err) || s.stuck.Load()) {
		err = fmt.Errorf("%w: commit %s: %w", durable.ErrUnknown, op, err)
		s.unknown.Store(&err)
	}
	if err != nil {
		return err
	}
	return fail
}

// guard runs a transaction and turns what damage to the database causes into
// ErrCorrupt: entries without their checksum, bbolt's own assertions, and faults
// of pages that the file no longer has. Other panics go on.
func (s *Store) guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		switch r := recover().(type) {
		case nil:
		case damage:
			// bbolt has rolled the transaction back.
			err = r.err
		default:
			// A fault outside f may have kept bbolt's locks.
			s.stuck.Store(true)
			if s.sound() {
				panic(r) // a bug
			}
			err = fmt.Errorf("%w: %v", meta.ErrCorrupt, r)
		}
		if errors.Is(err, meta.ErrCorrupt) {
			s.damaged.CompareAndSwap(nil, &err)
		}
	}()
	return f()
}

// Damage is the damage that was found since the last Verify that found none;
// nil where there is none. What is not found in damaged metadata may have been lost.
func (s *Store) Damage() error {
	if err := s.damaged.Load(); err != nil {
		return *err
	}
	return nil
}

// Verify reads every page of the database with what is committed now, and
// compares it with its checksums and sums. It runs beside readers and writers.
func (s *Store) Verify(ctx context.Context) (faults []meta.Fault, err error) {
	for {
		err = s.guard(func() error {
			// The transaction keeps the pages of its state from being used again.
			return s.db.View(func(tx *bbolt.Tx) (err error) {
				m, err := s.metaOf(uint64(tx.ID()))
				if err == nil {
					faults, err = s.scan(ctx, m)
				}
				return err
			})
		})
		if !errors.Is(err, errOvertaken) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if err := joinFaults(faults); err != nil {
		s.damaged.Store(&err)
	} else {
		s.damaged.Store(nil)
	}
	return faults, nil
}

// scan walks the pages of a committed state.
func (s *Store) scan(ctx context.Context, m *boltMeta) ([]meta.Fault, error) {
	c, pages, err := scanFile(ctx, s.file, m)
	if err != nil {
		return nil, err
	}
	if pages != nil {
		return append([]meta.Fault{{Err: fmt.Errorf("%w: %w", meta.ErrCorrupt, pages)}}, c.faults...), nil
	}
	return c.result(), nil
}

// scanFile reads a database with pread(2). pages describes pages that bbolt
// could not read; the census is of the others.
func scanFile(ctx context.Context, f *os.File, m *boltMeta) (c *census, pages, err error) {
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	c = newCensus()
	r, pages := newPageReader(ctx, f, st.Size(), m)
	if pages != nil {
		return c, pages, nil
	}
	r.walk(c)
	r.free()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	return c, r.err(), nil
}

// sound reports whether the newest state of the database has no faults.
func (s *Store) sound() bool {
	m, _, err := readMetas(s.file)
	if err != nil {
		return false
	}
	faults, err := s.scan(context.Background(), m)
	return err == nil && len(faults) == 0
}

// metaOf reads the meta page of a transaction that is open.
func (s *Store) metaOf(txid uint64) (*boltMeta, error) {
	newest, _, err := readMetas(s.file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", meta.ErrCorrupt, err)
	}
	if newest.txid == txid {
		return newest, nil
	}
	other, err := readMeta(s.file, int(txid%2), newest.pageSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", meta.ErrCorrupt, err)
	}
	if other.txid != txid {
		return nil, errOvertaken
	}
	return other, nil
}

// errOvertaken means that two commits came between the beginning of a
// transaction and the reading of its meta page.
var errOvertaken = errors.New("overtaken by other transactions")

// Close waits for open transactions and releases the file.
func (s *Store) Close() error {
	if s.stuck.Load() {
		return nil // bbolt's locks are lost, and its Close would wait for them
	}
	return s.db.Close()
}

// Tx is one transaction. Values it returns are copies and stay valid.
type Tx struct {
	tx   *bbolt.Tx
	s    *Store
	hash hasher
	sums map[string]*bucketSum // of the buckets that it changed
	// overlays hold the changes of a rehearsal; nil in an ordinary transaction.
	overlays map[string]*overlay
}

// full reports whether a commit failed because there was no space for its
// pages: bbolt writes them before the page that names them, so that nothing
// has changed.
func full(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && (p.Op == "write" || p.Op == "truncate") && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// Usage measures the database, walking every page.
func (s *Store) Usage(ctx context.Context) (meta.Usage, error) {
	var u meta.Usage
	err := s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			u.File = tx.Size()
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				st := b.Stats()
				// Without the header of each page, and the header and checksum of each element.
				u.Data += int64(st.LeafInuse + st.InlineBucketInuse - pageHeaderLen*(st.LeafPageN+st.InlineBucketN) - (elementLen+checksumLen)*st.KeyN)
				u.Used += int64((st.BranchPageN + st.BranchOverflowN + st.LeafPageN + st.LeafOverflowN) * tx.DB().Info().PageSize)
				return ctx.Err()
			})
		})
	})
	return u, err
}

// Lookups tells how many look-ups and scans there have been since Open: a
// measure of work that does not depend on the machine.
func (s *Store) Lookups() int64 {
	st := s.db.Stats()
	return st.TxStats.GetCursorCount()
}

func getJSON(b bucket, k []byte, v any) error {
	data := b.Get(k)
	if data == nil {
		return meta.ErrNotFound
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: key %q: %w", meta.ErrCorrupt, k, err)
	}
	return nil
}

func putJSON(b bucket, k []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(k, data)
}

// id gives the number of a name, making one when create is set.
func (t *Tx) id(name string, create bool) (uint32, bool, error) {
	ids := t.b("ids")
	if v := ids.Get([]byte(name)); v != nil {
		return be32(v), true, nil
	}
	if !create {
		return 0, false, nil
	}
	n, err := ids.NextSequence()
	if err != nil {
		return 0, false, err
	}
	if err := ids.Put([]byte(name), key(nil).u32(uint32(n))); err != nil {
		return 0, false, err
	}
	return uint32(n), true, t.b("names").Put(key(nil).u32(uint32(n)), []byte(name))
}
