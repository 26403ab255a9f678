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

	"go.etcd.io/bbolt"

	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
)

// schemaVersion is the version of the database's contents. Version 2 added checksums and
// sums; version 3 tombstones, the log and objects; version 4 the look-ups by source
// package and by other digests; version 5 tokens, the audit list and channels. Open
// converts earlier versions.
const schemaVersion = 5

var buckets = []string{
	"meta", "ids", "names", "snapshot", "gone", "gen", "genref", "fact", "para", "live", "span", "began", "ended",
	"name", "path", "ref", "suspect", "listed", "lended", "lpath", "alias", "dirty", "frozen", "ftree", "recording", "rentry",
	"rotten", "check", "image", "kit", "tombstone", logBucket, objectBucket, "source", "other",
	tokenBucket, auditBucket, channelBucket, movesBucket, eventBucket, deliveryBucket,
}

// addedBuckets are the buckets that versions 3 to 5 added, and those of laterBuckets.
var addedBuckets = []string{"tombstone", logBucket, objectBucket, "source", "other", tokenBucket, auditBucket, channelBucket, movesBucket, eventBucket, deliveryBucket}

// laterBuckets are the buckets that were added to version 5 later. Open creates them if
// they are missing, and earlier programs ignore them.
var laterBuckets = []string{eventBucket, deliveryBucket}

// Store is the metadata of one data directory.
type Store struct {
	db      *bbolt.DB
	file    *os.File // the database, for reads that bypass bbolt's map; bbolt closes it
	fault   FaultFunc
	unknown atomic.Pointer[error] // set by a commit that failed halfway
	damaged atomic.Pointer[error] // set when damage is found, cleared by a Verify that finds none
	stuck   atomic.Bool           // bbolt's write lock was lost in a panic
	indices sync.Map              // IndexID -> indexInfo, which never changes
	leases  leases
	twice   bool
	page    int // Options.Page
	latency *latency.Metadata
	zr      *compact.Decoder
}

// FaultFunc is called before each commit, for tests. An error makes the commit fail,
// after it has taken effect if apply is true.
type FaultFunc func(op string) (apply bool, err error)

// Options adjust a Store.
type Options struct {
	Fault   FaultFunc
	Timeout time.Duration // how long Open waits for another process; default 1 s
	// MustExist makes Open return ErrLost for a missing or empty file, because there are
	// signs that the directory contained metadata.
	MustExist bool
	// Twice makes each function that runs in a transaction run twice, for tests. The
	// first run has no effect.
	Twice bool
	// Page limits the entries that one transaction of a collection deletes; 0: 2000.
	Page int
	// Latency counts transactions; nil: not counted.
	Latency *latency.Metadata
}

// view runs f in a read transaction. f must be short: no network, no blobs. It returns
// ErrCorrupt if f meets damage.
func (s *Store) view(ctx context.Context, f func(*txn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.latency.Read.Since(latency.Start())
	return s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			if s.twice {
				if err := f(&txn{tx: tx, s: s}); err != nil {
					return err
				}
			}
			return f(&txn{tx: tx, s: s})
		})
	})
}

// update runs f in a write transaction and commits it durably. f must be short. It
// returns ErrCorrupt and changes nothing if f finds damage: damaged metadata is
// read-only, because a lost entry would be mistaken for one that never existed. If a
// commit fails halfway, the error wraps durable.ErrUnknown: the mapped pages may be newer
// than those on disk, so nothing more is written.
func (s *Store) update(ctx context.Context, op string, f func(*txn) error) error {
	if err := s.Damage(); err != nil {
		return fmt.Errorf("%s: damaged metadata is read-only: %w", op, err)
	}
	return s.updateDamaged(ctx, op, f)
}

// updateDamaged is update for writes that must work on damaged metadata: repairs, and
// notes that do not depend on other entries.
func (s *Store) updateDamaged(ctx context.Context, op string, f func(*txn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.latency.Write.Since(latency.Start())
	if err := s.unknown.Load(); err != nil {
		return *err // the write lock may be lost
	}
	if !sameFile(s.file, s.file.Name()) {
		return fmt.Errorf("%s: %w: the file was removed or replaced while it was in use, so writes to it would be lost", op, meta.ErrLost)
	}
	if s.twice {
		if err := s.guard(func() error { return s.rolledBack(f) }); err != nil {
			return err
		}
	}
	under := meta.LeasesOf(ctx)
	done := func() {}
	defer func() { done() }()
	var fail error
	ran := false
	err := s.guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			if err := s.unknown.Load(); err != nil {
				return *err
			}
			if err := s.leases.check(under); err != nil {
				return fmt.Errorf("%s: %w", op, err)
			}
			t := &txn{tx: tx, s: s}
			if err := f(t); err != nil {
				return err
			}
			if err := t.flushSums(); err != nil {
				return err
			}
			// A takeover of the lease waits for this commit, so that it precedes the
			// commits of the next holder. Neither a takeover nor a renewal waits for the
			// work before the commit.
			var err error
			if done, err = s.leases.fence(under); err != nil {
				return fmt.Errorf("%s: %w", op, err)
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

// rolledBack runs f in a write transaction without committing it.
func (s *Store) rolledBack(f func(*txn) error) error {
	back := errors.New("rolled back")
	err := s.db.Update(func(tx *bbolt.Tx) error {
		if err := f(&txn{tx: tx, s: s}); err != nil {
			return err
		}
		return back
	})
	if errors.Is(err, back) {
		s.indices.Clear() // of numbers that were assigned
		return nil
	}
	return err
}

// guard runs a transaction and turns what database damage causes into ErrCorrupt: entries
// with a wrong checksum, bbolt's own assertions, and faults on pages that the file no
// longer has. Other panics continue.
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
			// A fault outside f may have left bbolt's locks held.
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
	if err := s.hasMetas(); errors.Is(err, fs.ErrClosed) {
		return err // Close was called
	} else if err != nil {
		return fmt.Errorf("%w: %w", meta.ErrCorrupt, err)
	}
	return f()
}

// hasMetas reports whether the file has its two meta pages, at least one of them valid.
// bbolt reads both while it holds a lock, which it would never release after a fault
// there.
func (s *Store) hasMetas() error {
	m, _, err := readMetas(s.file)
	if err != nil {
		return err
	}
	fi, err := s.file.Stat()
	if size := 2 * int64(m.pageSize); err == nil && fi.Size() < size {
		err = fmt.Errorf("file has %d bytes, expected at least %d: it was cut", fi.Size(), size)
	}
	return err
}

// Damage returns the damage that was found since the last Verify without faults, or nil.
// An entry that is missing from damaged metadata may have been lost.
func (s *Store) Damage() error {
	if err := s.damaged.Load(); err != nil {
		return *err
	}
	return nil
}

// Verify reads every page of the committed database and compares it with its checksums
// and sums. It runs concurrently with readers and writers.
func (s *Store) Verify(ctx context.Context) (faults []meta.Fault, err error) {
	for {
		err = s.guard(func() error {
			// The transaction prevents the pages of its state from being reused.
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

// scanFile reads a database with pread(2). pages describes pages that bbolt could not
// read; the census covers the others.
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

// errOvertaken means that two commits came between the start of a transaction and the
// reading of its meta page.
var errOvertaken = errors.New("overtaken by other transactions")

// Close waits for open transactions and releases the file.
func (s *Store) Close() error {
	if s.stuck.Load() {
		return nil // bbolt's locks are lost, and its Close would wait for them
	}
	return s.db.Close()
}

// txn is one transaction. Values that it returns are copies and stay valid.
type txn struct {
	tx   *bbolt.Tx
	s    *Store
	hash hasher
	sums map[string]*bucketSum // of changed buckets
	// buckets are those that a read transaction opened.
	buckets map[string]*bbolt.Bucket
	// cursors are where bucket.find has looked, by the name of the bucket.
	cursors map[string]*bbolt.Cursor
	// overlays has the changes of a simulation; nil in an ordinary transaction.
	overlays map[string]*overlay
}

// full reports whether a commit failed because there was no space for its pages. bbolt
// writes them before the page that refers to them, so nothing has changed.
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

// id returns the number of a name, and makes one if create is set.
func (t *txn) id(name string, create bool) (uint32, bool, error) {
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
