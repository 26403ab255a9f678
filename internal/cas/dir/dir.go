// Package dir stores blobs as files below one directory.
package dir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/spool"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/latency"
)

// Store is a blob store in a directory:
//
//	blobs/ab/abcdef…        one file a blob, mode 0444 unless Options say otherwise
//	incoming/<n>            blobs being written; emptied by Open
//	quarantine/<hex>.<unix> removed or corrupt blobs, kept for a while
//
// It implements cas.Store and cas.Locator.
type Store struct {
	root   *os.Root
	path   string
	fd     *os.File // kept open for syncfs
	spool  *spool.Dir
	holds  spool.Holds // orders the two renames that a hold separates: of a new blob to its name, and of a blob to the quarantine
	fan    [256]fanRoot
	fault  spool.Fault
	reads  spool.Fault
	now    func() time.Time
	stored func() // Options.Stored, or a function that does nothing
	times  *latency.Blobs
	trash  sync.Mutex // serializes Remove and Restore

	naming sync.Mutex
	waits  map[cas.Digest]*naming // names that are not durable yet
	busy   atomic.Int64           // len(waits), to read it without the lock
}

// naming is in progress until done is closed. If it ended with an error, it is unknown
// whether the names are durable until the directory is opened again.
type naming struct {
	done chan struct{}
	err  error
}

// fanRoot is one of the 256 directories of blobs. It is opened when it is first needed,
// so that a look-up costs one system call and not one for each element of the path. If
// opening fails, the next caller tries again.
type fanRoot struct {
	mu     sync.Mutex
	opened atomic.Pointer[fan]
	closed bool
}

type fan struct {
	root *os.Root
	dir  *os.File // the same, for ReadInto
	conn syscall.RawConn
}

func (f *fanRoot) open(in *os.Root, name string) (*fan, error) {
	if o := f.opened.Load(); o != nil {
		return o, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fs.ErrClosed
	}
	if o := f.opened.Load(); o != nil {
		return o, nil
	}
	o := &fan{}
	var err error
	if o.root, err = in.OpenRoot(name); err != nil {
		return nil, err
	}
	if o.dir, err = o.root.Open("."); err == nil {
		o.conn, err = o.dir.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	f.opened.Store(o)
	return o, nil
}

func (f *fanRoot) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if o := f.opened.Load(); o != nil {
		return o.close()
	}
	return nil
}

func (o *fan) close() error {
	if o.dir != nil {
		return errors.Join(o.dir.Close(), o.root.Close())
	}
	return o.root.Close()
}

// fanOf returns the directory that contains a blob, and the blob's name in it.
func (d *Store) fanOf(dg cas.Digest) (*fan, string, error) {
	h := dg.String()
	f, err := d.fan[dg[0]].open(d.root, blobsDir+"/"+h[:2])
	return f, h, err
}

// sub is fanOf for access through os.Root.
func (d *Store) sub(dg cas.Digest) (*os.Root, string, error) {
	f, name, err := d.fanOf(dg)
	if err != nil {
		return nil, name, err
	}
	return f.root, name, nil
}

// Options adjust a Store.
type Options struct {
	Fault     spool.Fault      // of writes, for tests
	ReadFault spool.Fault      // of reads, for tests
	Now       func() time.Time // the clock for the dates of quarantined blobs; nil: time.Now
	Mode      fs.FileMode      // of blobs; default 0444
	Stored    func()           // called after blobs have got their names; may be nil
	Latency   *latency.Blobs   // counts operations; nil: not counted
}

const (
	blobsDir      = "blobs"
	incomingDir   = "incoming"
	quarantineDir = "quarantine"
)

// Open opens or creates the blob store below path. It deletes unfinished files of an
// earlier process, because their blobs were not promised to anybody.
func Open(path string, o Options) (*Store, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	// The name of the directory may not be durable yet. Its parent may belong to another
	// user and not be readable.
	if err := durable.SyncDir(filepath.Dir(filepath.Clean(path))); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Store{root: root, path: path, fault: o.Fault, reads: o.ReadFault, now: o.Now, stored: o.Stored, times: cmp.Or(o.Latency, new(latency.Blobs))}
	if d.now == nil {
		d.now = time.Now
	}
	if d.stored == nil {
		d.stored = func() {}
	}
	if err := d.init(spool.Options{Fault: o.Fault, Mode: cmp.Or(o.Mode, 0o444)}); err != nil {
		root.Close()
		return nil, fmt.Errorf("open blob store %s: %w", path, err)
	}
	return d, nil
}

func (d *Store) init(o spool.Options) error {
	made := false
	mkdir := func(name string) error {
		err := d.root.Mkdir(name, 0o700)
		made = made || err == nil
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		return err
	}
	for _, name := range []string{blobsDir, incomingDir, quarantineDir} {
		if err := mkdir(name); err != nil {
			return err
		}
	}
	// A power cut may have undone any of the directories, so check each.
	for i := range 256 {
		if err := mkdir(fmt.Sprintf("%s/%02x", blobsDir, i)); err != nil {
			return err
		}
	}
	if made {
		for _, dir := range []string{filepath.Join(d.path, blobsDir), d.path} {
			if err := durable.SyncDir(dir); err != nil {
				return err
			}
		}
	}
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	d.fd = f
	d.spool, err = spool.Open(filepath.Join(d.path, incomingDir), o)
	return err
}

// Close releases the directory.
func (d *Store) Close() error {
	var err error
	for i := range d.fan {
		err = errors.Join(err, d.fan[i].close())
	}
	return errors.Join(err, d.fd.Close(), d.spool.Close(), d.root.Close())
}

// Name returns the file name of a blob relative to the directory of the store, for
// servers that send files by path.
func Name(dg cas.Digest) string {
	h := dg.String()
	return blobsDir + "/" + h[:2] + "/" + h
}

// Locate implements cas.Locator: the path of a blob's file.
func (d *Store) Locate(_ context.Context, dg cas.Digest, _ cas.Wanted) (cas.Place, error) {
	return cas.Place{Path: filepath.Join(d.path, Name(dg))}, nil
}

// Free implements cas.Keeper.
func (d *Store) Free(context.Context) (n int64, err error) {
	err = d.reads.Step("free", "", func() (err error) {
		n, err = d.spool.Free()
		return err
	})
	return n, err
}
