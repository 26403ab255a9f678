package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"example.org/snapd/internal/durable"
)

var (
	// ErrNotFound means that nothing is stored under that name.
	ErrNotFound = errors.New("not found")
	// ErrExists means that something else is stored under that name already.
	ErrExists = errors.New("already exists with other contents")
	// ErrLocked means that another process has the database open.
	ErrLocked = errors.New("in use by another process")
	// ErrGone means that a snapshot was there and was removed.
	ErrGone = errors.New("removed")
	// ErrCorrupt means that the database contradicts itself.
	ErrCorrupt = errors.New("metadata corrupt")
	// ErrVersion means that a newer snapd wrote the database.
	ErrVersion = errors.New("metadata of a newer version")
)

const schemaVersion = 1

var buckets = []string{
	"meta", "ids", "names", "snapshot", "gone", "gen", "genref", "fact", "para", "live", "span", "began", "ended",
	"name", "path", "ref", "suspect", "listed", "lended", "lpath", "alias", "dirty", "frozen", "ftree", "recording", "rentry",
	"rotten", "check", "image", "kit",
}

// Store is the metadata of one data directory.
type Store struct {
	db      *bolt.DB
	fault   FaultFunc
	unknown atomic.Pointer[error] // set by a commit that failed halfway
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
}

// initialMap is the address space reserved for the database file: a read
// transaction held while bbolt enlarges its map would stop every writer.
const initialMap = 16 << 30

// Open opens or creates the database file at path. ErrLocked, ErrVersion.
func Open(path string, o Options) (*Store, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         o.Timeout,
		InitialMmapSize: initialMap,
		FreelistType:    bolt.FreelistMapType,
		NoFreelistSync:  true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("metadata %s: %w", path, ErrLocked)
	} else if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	zr, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		db.Close()
		return nil, err
	}
	s := &Store{db: db, fault: o.Fault, zr: zr}
	err = s.init()
	if err == nil {
		// bbolt makes the file's pages durable, not its name.
		err = durable.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	return s, nil
}

func (s *Store) init() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		meta := tx.Bucket([]byte("meta"))
		if v := meta.Get([]byte("version")); v == nil {
			return meta.Put([]byte("version"), key(nil).u32(schemaVersion))
		} else if len(v) != 4 || be32(v) > schemaVersion {
			return fmt.Errorf("%w: schema %x, this program knows %d", ErrVersion, v, schemaVersion)
		}
		return nil
	})
}

// Close waits for open transactions and releases the file.
func (s *Store) Close() error { return s.db.Close() }

// Tx is one transaction. Values it returns are copies and stay valid.
type Tx struct {
	tx *bolt.Tx
	s  *Store
}

func (t *Tx) b(name string) *bolt.Bucket { return t.tx.Bucket([]byte(name)) }

// View runs f in a read transaction. It must be short: no network, no blobs.
func (s *Store) View(ctx context.Context, f func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.View(func(tx *bolt.Tx) error { return f(&Tx{tx, s}) })
}

// Update runs f in a write transaction and commits it durably. It must be short.
// A commit that failed halfway wraps durable.ErrUnknown: what is mapped may be
// newer than what the disk has, so nothing more is written.
func (s *Store) Update(ctx context.Context, op string, f func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var fail error
	ran := false
	err := s.db.Update(func(tx *bolt.Tx) error {
		if err := s.unknown.Load(); err != nil {
			return *err
		}
		if err := f(&Tx{tx, s}); err != nil {
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
	if err != nil && ran && !full(err) {
		err = fmt.Errorf("%w: commit %s: %w", durable.ErrUnknown, op, err)
		s.unknown.Store(&err)
	}
	if err != nil {
		return err
	}
	return fail
}

// full reports whether a commit failed because there was no space for its
// pages: bbolt writes them before the page that names them, so that nothing
// has changed.
func full(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && (p.Op == "write" || p.Op == "truncate") && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// Bytes that bbolt spends on a page, and on each element of a leaf.
const (
	pageHeader    = 16
	elementHeader = 16
)

// Usage is the size of the database.
type Usage struct {
	File int64 // bytes of the file
	Used int64 // bytes of pages in use
	Data int64 // bytes of keys and values
}

// Usage measures the database, walking every page.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	err := s.db.View(func(tx *bolt.Tx) error {
		u.File = tx.Size()
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			st := b.Stats()
			// Without the header of each page and of each element on it.
			u.Data += int64(st.LeafInuse + st.InlineBucketInuse - pageHeader*(st.LeafPageN+st.InlineBucketN) - elementHeader*st.KeyN)
			u.Used += int64((st.BranchPageN + st.BranchOverflowN + st.LeafPageN + st.LeafOverflowN) * tx.DB().Info().PageSize)
			return ctx.Err()
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

// CheckPages lets bbolt check its own pages. Writers wait meanwhile: it compares
// with the list of free pages, which a commit beside it would change, and then
// find faults that are none.
func (s *Store) CheckPages(ctx context.Context) (first error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		return err
	}
	defer func() { first = errors.Join(first, tx.Rollback()) }()
	for err := range tx.Check() {
		if first == nil {
			first = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return first
}

func getJSON(b *bolt.Bucket, k []byte, v any) error {
	data := b.Get(k)
	if data == nil {
		return ErrNotFound
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: key %q: %w", ErrCorrupt, k, err)
	}
	return nil
}

func putJSON(b *bolt.Bucket, k []byte, v any) error {
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
