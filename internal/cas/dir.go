package cas

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/durable"
)

// Dir is a blob store in a directory:
//
//	blobs/ab/abcdef…        one file a blob, mode 0444 unless Options say otherwise
//	incoming/<n>            blobs being written; emptied by OpenDir
//	quarantine/<hex>.<unix> removed or rotten blobs, kept for a while
type Dir struct {
	root  *os.Root
	path  string
	mode  fs.FileMode // of blobs
	fd    *os.File    // kept open for syncfs
	in    *os.Root    // incoming
	fan   [256]fanRoot
	next  atomic.Uint64
	fault FaultFunc
	now   func() time.Time
	trash sync.Mutex // serializes Remove and Restore

	// holding guards held and orders the two renames that a hold keeps apart: of
	// a new blob to its name and of a blob to the quarantine.
	holding sync.Mutex
	held    map[Digest]int // how many holds there are of a blob

	naming sync.Mutex
	waits  map[Digest]*naming // names that are not durable yet
	busy   atomic.Int64       // len(waits), to ask without the lock
}

// naming is under way until done is closed; with an error it never came to a
// good end, and the names stay in doubt until the directory is opened again.
type naming struct {
	done chan struct{}
	err  error
}

// fanRoot is one of the 256 directories of blobs, opened when it is first
// needed: a look-up then costs one system call and not one for each element of
// the path. What fails to open is tried again by whoever asks next.
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

// fanOf is the directory that holds a blob, and the blob's name in it.
func (d *Dir) fanOf(dg Digest) (*fan, string, error) {
	h := dg.String()
	f, err := d.fan[dg[0]].open(d.root, blobsDir+"/"+h[:2])
	return f, h, err
}

// sub is fanOf for what goes through os.Root.
func (d *Dir) sub(dg Digest) (*os.Root, string, error) {
	f, name, err := d.fanOf(dg)
	if err != nil {
		return nil, name, err
	}
	return f.root, name, nil
}

// name notes that digests get names which a power cut may still take back; the
// function it returns says how that ended.
func (d *Dir) name(digests ...Digest) (end func(error)) {
	n := &naming{done: make(chan struct{})}
	d.naming.Lock()
	defer d.naming.Unlock()
	if d.waits == nil {
		d.waits = map[Digest]*naming{}
	}
	for _, dg := range digests {
		if old := d.waits[dg]; old == nil || old.err == nil {
			d.waits[dg] = n
		}
	}
	d.busy.Store(int64(len(d.waits)))
	return func(err error) {
		d.naming.Lock()
		defer d.naming.Unlock()
		if errors.Is(err, durable.ErrUnknown) {
			n.err = err
		}
		for _, dg := range digests {
			if d.waits[dg] == n && n.err == nil {
				delete(d.waits, dg)
			}
		}
		d.busy.Store(int64(len(d.waits)))
		close(n.done)
	}
}

// settle waits until a blob's name is durable: whoever finds a blob here may
// refer to it at once (invariant 1), also while another batch is naming it.
func (d *Dir) settle(ctx context.Context, dg Digest) error {
	if d.busy.Load() == 0 {
		return nil
	}
	d.naming.Lock()
	n := d.waits[dg]
	d.naming.Unlock()
	if n == nil {
		return nil
	}
	select {
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// FaultFunc is consulted before each write to the medium, for tests: an error
// makes the step fail, after it took effect when apply is true.
type FaultFunc func(op, name string) (apply bool, err error)

// Options adjust a Dir.
type Options struct {
	Fault FaultFunc
	Now   func() time.Time // the clock that dates what is quarantined; nil: time.Now
	Mode  fs.FileMode      // of blobs; default 0444
}

const (
	blobsDir      = "blobs"
	incomingDir   = "incoming"
	quarantineDir = "quarantine"
)

// OpenDir opens or creates the blob store below path. What an earlier process
// was still writing is dropped: no blob was promised for it.
func OpenDir(path string, o Options) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	// Whoever made the directory, a moment ago perhaps, may not have made its
	// name durable. One that others made above may not be readable for us.
	if err := durable.SyncDir(filepath.Dir(filepath.Clean(path))); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, path: path, mode: cmp.Or(o.Mode, 0o444), fault: o.Fault, now: o.Now, held: map[Digest]int{}}
	if d.now == nil {
		d.now = time.Now
	}
	if err := d.init(); err != nil {
		root.Close()
		return nil, fmt.Errorf("open blob store %s: %w", path, err)
	}
	return d, nil
}

func (d *Dir) init() error {
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
	// A power cut may have kept any of the directories: each is asked for.
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
	if d.in, err = d.root.OpenRoot(incomingDir); err != nil {
		return err
	}
	in, err := d.in.Open(".")
	if err != nil {
		return err
	}
	defer in.Close()
	names, err := in.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := d.root.Remove(incomingDir + "/" + n); err != nil {
			return err
		}
	}
	return nil
}

// Close releases the directory.
func (d *Dir) Close() error {
	var err error
	for i := range d.fan {
		err = errors.Join(err, d.fan[i].close())
	}
	return errors.Join(err, d.fd.Close(), d.in.Close(), d.root.Close())
}

// Path is the directory of the store, for messages and for servers that
// send files by path.
func (d *Dir) Path() string { return d.path }

// Name is the blob's file name relative to Path.
func Name(dg Digest) string {
	h := dg.String()
	return blobsDir + "/" + h[:2] + "/" + h
}

func (d *Dir) step(op, name string, do func() error) error {
	if d.fault != nil {
		if apply, err := d.fault(op, name); err != nil {
			if apply {
				if derr := do(); derr != nil {
					return derr
				}
			}
			return err
		}
	}
	return do()
}

// Open implements Store.
func (d *Dir) Open(_ context.Context, dg Digest) (Blob, error) {
	sub, name, err := d.sub(dg)
	if err != nil {
		return nil, notFound(dg, err)
	}
	f, err := sub.Open(name)
	if err != nil {
		return nil, notFound(dg, err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{File: f, info: Info{Digest: dg, Size: st.Size(), ModTime: st.ModTime()}}, nil
}

// ReadInto reads the beginning of a blob with one read(2) and returns how many
// bytes that gave: the whole blob where its size is known, smaller than buf, and
// equal to n. It is for small blobs, in three system calls where Open, Read and
// Close take six. ErrNotFound. It does not check the digest.
func (d *Dir) ReadInto(dg Digest, buf []byte) (n int, err error) {
	f, name, err := d.fanOf(dg)
	if err != nil {
		return 0, notFound(dg, err)
	}
	cerr := f.conn.Control(func(dir uintptr) {
		var fd int
		if fd, err = retry(func() (int, error) {
			return unix.Openat(int(dir), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		}); err != nil {
			return
		}
		defer unix.Close(fd)
		n, err = retry(func() (int, error) { return unix.Read(fd, buf) })
	})
	if err = errors.Join(err, cerr); err != nil {
		return n, notFound(dg, err)
	}
	return n, nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

type file struct {
	*os.File
	info Info
}

func (f *file) Info() Info { return f.info }

func notFound(dg Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNotFound, dg)
	}
	return fmt.Errorf("blob %s: %w", dg, err)
}

// Stat implements Store.
func (d *Dir) Stat(ctx context.Context, dg Digest) (Info, error) {
	sub, name, err := d.sub(dg)
	if err != nil {
		return Info{}, notFound(dg, err)
	}
	st, err := sub.Lstat(name)
	if err != nil {
		return Info{}, notFound(dg, err)
	}
	if err := d.settle(ctx, dg); err != nil {
		return Info{}, err
	}
	info := Info{Digest: dg, Size: st.Size(), ModTime: st.ModTime()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		info.Stored = time.Unix(sys.Ctim.Unix()).UTC()
	}
	return info, nil
}

// NewBatch implements Store.
func (d *Dir) NewBatch() Batch { return &batch{dir: d} }

type pending struct {
	tmp  string
	info Info
}

type batch struct {
	dir   *Dir
	mu    sync.Mutex
	done  []pending
	bytes int64
	held  []Digest // each as often as it was held
}

// hold makes the batch hold a blob; b.mu is held.
func (b *batch) hold(dg Digest) {
	b.held = append(b.held, dg)
	b.dir.holding.Lock()
	b.dir.held[dg]++
	b.dir.holding.Unlock()
}

// release ends the holds of a batch.
func (d *Dir) release(held []Digest) {
	d.holding.Lock()
	defer d.holding.Unlock()
	for _, dg := range held {
		if d.held[dg]--; d.held[dg] == 0 {
			delete(d.held, dg)
		}
	}
}

// Hold implements Batch.
func (b *batch) Hold(ctx context.Context, dg Digest) (Info, error) {
	b.mu.Lock()
	b.hold(dg)
	b.mu.Unlock()
	return b.dir.Stat(ctx, dg)
}

func (b *batch) Create(context.Context) (Writer, error) {
	tmp := incomingDir + "/" + strconv.FormatUint(b.dir.next.Add(1), 10)
	w := &writer{batch: b, tmp: tmp}
	err := b.dir.step("create", tmp, func() (err error) {
		w.f, err = b.dir.in.OpenFile(tmp[len(incomingDir)+1:], os.O_CREATE|os.O_EXCL|os.O_RDWR, b.dir.mode)
		return err
	})
	if err != nil {
		if w.f != nil {
			w.f.Close()
			b.dir.root.Remove(tmp)
		}
		return nil, fmt.Errorf("create blob: %w", err)
	}
	w.sum, w.sum1 = sha256.New(), sha1.New()
	return w, nil
}

func (b *batch) Digests() []Digest {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Digest, len(b.done))
	for i, p := range b.done {
		out[i] = p.info.Digest
	}
	return out
}

func (b *batch) Pending() (int, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.done), b.bytes
}

// Flush makes the batch durable: data first, then names.
func (b *batch) Flush(ctx context.Context) error {
	b.mu.Lock()
	done := b.done
	b.done, b.bytes = nil, 0
	b.mu.Unlock()
	if len(done) == 0 {
		return nil
	}
	drop := func(from int) {
		for _, p := range done[from:] {
			b.dir.root.Remove(p.tmp)
		}
	}
	if err := ctx.Err(); err != nil {
		drop(0)
		return err
	}
	// If we stop here, OpenDir removes the temporary files.
	if err := b.dir.step("sync", "batch", func() error { return b.dir.sync(done) }); err != nil {
		drop(0)
		return err
	}
	// If we stop below, some blobs have their names: they are whole and durable,
	// and nothing refers to them yet.
	digests := make([]Digest, len(done))
	for i, p := range done {
		digests[i] = p.info.Digest
	}
	named := b.dir.name(digests...)
	dirs := map[string]bool{}
	var failed error
	for i, p := range done {
		name := Name(p.info.Digest)
		err := b.dir.step("rename", name, func() error { return b.dir.rename(p.tmp, name) })
		dirs[filepath.Dir(name)] = true
		if err != nil {
			drop(i)
			failed = fmt.Errorf("name blob %s: %w", p.info.Digest, err)
			break
		}
	}
	// Names that were given are seen by others, and must last even when a later
	// one failed.
	err := b.dir.step("syncdir", "batch", func() error {
		if len(dirs) > 8 {
			if err := durable.SyncFS(b.dir.fd); !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
		}
		return b.dir.syncDirs(dirs)
	})
	if err != nil && !errors.Is(err, durable.ErrUnknown) {
		err = fmt.Errorf("%w: %w", durable.ErrUnknown, err)
	}
	named(err)
	return errors.Join(failed, err)
}

// rename gives a blob its name. Both names were made here, from a number and a
// digest, so that nothing is gained by looking up each element of their paths
// on its own, as os.Root does.
func (d *Dir) rename(tmp, name string) error {
	d.holding.Lock()
	defer d.holding.Unlock()
	for {
		err := unix.Rename(filepath.Join(d.path, tmp), filepath.Join(d.path, name))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.LinkError{Op: "rename", Old: tmp, New: name, Err: err}
		}
	}
}

func (d *Dir) syncDirs(dirs map[string]bool) error {
	for dir := range dirs {
		if err := durable.SyncDir(filepath.Join(d.path, dir)); err != nil {
			return err
		}
	}
	return nil
}

// sync makes the data of a few files durable one by one, of many by syncfs.
func (d *Dir) sync(files []pending) error {
	if len(files) > 8 {
		if err := durable.SyncFS(d.fd); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	for _, p := range files {
		f, err := d.root.OpenFile(p.tmp, os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return fmt.Errorf("%w: sync blob %s: %w", durable.ErrUnknown, p.info.Digest, err)
		}
	}
	return nil
}

func (b *batch) Discard() {
	b.mu.Lock()
	done, held := b.done, b.held
	b.done, b.bytes, b.held = nil, 0, nil
	b.mu.Unlock()
	for _, p := range done {
		b.dir.root.Remove(p.tmp)
	}
	b.dir.release(held)
}

type writer struct {
	batch *batch
	tmp   string
	f     *os.File
	n     int64
	sum   hash.Hash
	sum1  hash.Hash
	one   [20]byte
	err   error // of a write: what follows is not a blob any more
}

func (w *writer) Write(p []byte) (n int, err error) {
	err = w.batch.dir.step("write", w.tmp, func() (err error) {
		n, err = w.f.Write(p)
		return err
	})
	w.sum.Write(p[:n])
	w.sum1.Write(p[:n])
	w.n += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write blob: %w", err)
		return n, w.err
	}
	return n, nil
}

func (w *writer) Offset() int64 { return w.n }

// ReadAt reads what was written so far: a client that waits for the same
// bytes is served from the file before it has its name.
func (w *writer) ReadAt(p []byte, off int64) (int, error) { return w.f.ReadAt(p, off) }

func (w *writer) Reset() error {
	if err := w.f.Truncate(0); err != nil {
		return err
	}
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.n, w.err = 0, nil
	w.sum.Reset()
	w.sum1.Reset()
	return nil
}

func (w *writer) SHA1() [20]byte { return w.one }

func (w *writer) Commit(want Digest, size int64, modTime time.Time) (Info, error) {
	if w.f == nil {
		return Info{}, errors.New("commit of a closed blob")
	}
	if w.err != nil {
		w.Abort()
		return Info{}, w.err
	}
	var got Digest
	w.sum.Sum(got[:0])
	w.sum1.Sum(w.one[:0])
	info := Info{Digest: got, Size: w.n, ModTime: modTime}
	switch {
	case size >= 0 && w.n != size:
		w.Abort()
		return info, fmt.Errorf("%w: %d bytes, expected %d", ErrMismatch, w.n, size)
	case !want.IsZero() && got != want:
		w.Abort()
		return info, fmt.Errorf("%w: SHA-256 %s, expected %s", ErrMismatch, got, want)
	}
	if !modTime.IsZero() {
		// Informative: a store that cannot keep times is as good.
		_ = w.batch.dir.in.Chtimes(w.tmp[len(incomingDir)+1:], modTime, modTime)
	}
	f := w.f
	w.f = nil
	if err := f.Close(); err != nil {
		w.batch.dir.root.Remove(w.tmp)
		return info, fmt.Errorf("close blob: %w", err)
	}
	w.batch.mu.Lock()
	w.batch.hold(got)
	w.batch.done = append(w.batch.done, pending{w.tmp, info})
	w.batch.bytes += w.n
	w.batch.mu.Unlock()
	return info, nil
}

func (w *writer) Abort() {
	if w.f != nil {
		w.f.Close()
		w.f = nil
		w.batch.dir.root.Remove(w.tmp)
	}
}

// Walk implements Store.
func (d *Dir) Walk(ctx context.Context, after Digest, f func(Info) error) error {
	start := after.String()
	for i := int(after[0]); i < 256; i++ {
		sub := fmt.Sprintf("%s/%02x", blobsDir, i)
		h, err := d.root.Open(sub)
		if err != nil {
			return err
		}
		names, err := h.Readdirnames(-1)
		h.Close()
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, n := range names {
			dg, err := ParseDigest(n)
			if err != nil || n <= start && !after.IsZero() {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := d.Stat(ctx, dg)
			if errors.Is(err, ErrNotFound) {
				continue // removed since the directory was read
			} else if err != nil {
				return err
			}
			if err := f(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove implements Store.
func (d *Dir) Remove(ctx context.Context, dg Digest, why string, unreferenced func(context.Context) (bool, error)) error {
	return d.quarantine(dg, why, func() error {
		free := d.held[dg] == 0
		if free && unreferenced != nil {
			var err error
			if free, err = unreferenced(ctx); err != nil {
				return err
			}
		}
		if !free {
			return fmt.Errorf("%w: %s", ErrInUse, dg)
		}
		return nil
	})
}

// quarantine moves a blob to the quarantine if check agrees, which nothing can
// contradict before the blob has moved.
func (d *Dir) quarantine(dg Digest, why string, check func() error) error {
	d.trash.Lock()
	defer d.trash.Unlock()
	d.holding.Lock()
	defer d.holding.Unlock()
	if err := check(); err != nil {
		return err
	}
	name := fmt.Sprintf("%s/%s.%d.%s", quarantineDir, dg, d.now().Unix(), why)
	err := d.step("remove", Name(dg), func() error { return d.root.Rename(Name(dg), name) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("quarantine blob %s: %w", dg, err)
	}
	return nil
}

// errReplaced means that a blob is not the file that was read.
var errReplaced = errors.New("blob replaced")

// RemoveCorrupt implements Store.
func (d *Dir) RemoveCorrupt(ctx context.Context, dg Digest) (removed bool, err error) {
	for {
		read, err := d.checkFile(ctx, Name(dg), dg)
		if !errors.Is(err, ErrCorrupt) {
			return false, err
		}
		err = d.quarantine(dg, WhyCorrupt, func() error {
			now, err := d.root.Lstat(Name(dg))
			if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(read, now) {
				return errReplaced
			}
			return err
		})
		if !errors.Is(err, errReplaced) {
			return err == nil, err
		}
	}
}

// checkFile compares the bytes of a file with a digest, and tells which file it
// has read. ErrCorrupt, ErrNotFound.
func (d *Dir) checkFile(ctx context.Context, name string, dg Digest) (fs.FileInfo, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, notFound(dg, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return st, checkBytes(ctx, f, dg)
}

// Restore implements Store.
func (d *Dir) Restore(ctx context.Context, dg Digest) error {
	q, err := d.quarantined()
	if err != nil {
		return err
	}
	none := fmt.Errorf("%w: %s", ErrNotFound, dg)
	raced := false
	for i := len(q) - 1; i >= 0; i-- {
		if q[i].digest != dg || q[i].why == WhyCorrupt {
			continue
		}
		copied := quarantineDir + "/" + q[i].name
		// Metadata may name the blob as soon as this returns, and a copy may have
		// been damaged while nobody read it.
		_, err := d.checkFile(ctx, copied, dg)
		if errors.Is(err, ErrCorrupt) {
			none = err
			continue
		}
		if err == nil {
			err = d.restore(copied, dg)
		}
		if errors.Is(err, ErrNotFound) {
			raced = true // purged or restored by another caller
			continue
		}
		return err
	}
	if raced {
		if _, err := d.Stat(ctx, dg); err == nil {
			return nil
		}
	}
	return none
}

// restore gives a quarantined copy the blob's name, durably. ErrNotFound.
func (d *Dir) restore(copied string, dg Digest) error {
	d.trash.Lock()
	defer d.trash.Unlock()
	end := d.name(dg)
	err := d.step("restore", Name(dg), func() error {
		if err := d.root.Rename(copied, Name(dg)); err != nil {
			return notFound(dg, err)
		}
		return durable.SyncDir(filepath.Join(d.path, filepath.Dir(Name(dg))))
	})
	end(err)
	return err
}

// WhyCorrupt is the reason under which fsck and scrub quarantine a corrupt blob:
// Restore never brings such a copy back.
const WhyCorrupt = "rotten"

// Quarantined is one copy in the quarantine.
type Quarantined struct {
	Digest Digest
	At     time.Time
	Why    string
	Size   int64
}

// Quarantine lists what was removed and not yet purged, oldest first.
func (d *Dir) Quarantine() ([]Quarantined, error) {
	q, err := d.quarantined()
	if err != nil {
		return nil, err
	}
	out := make([]Quarantined, 0, len(q))
	for _, e := range q {
		st, err := d.root.Lstat(quarantineDir + "/" + e.name)
		if err != nil {
			continue
		}
		out = append(out, Quarantined{e.digest, e.at, e.why, st.Size()})
	}
	return out, nil
}

type quarantined struct {
	name   string
	digest Digest
	at     time.Time
	why    string
}

// quarantined lists the quarantine, oldest first.
func (d *Dir) quarantined() ([]quarantined, error) {
	h, err := d.root.Open(quarantineDir)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	names, err := h.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []quarantined
	for _, n := range names {
		parts := strings.SplitN(n, ".", 3)
		if len(parts) != 3 {
			continue
		}
		dg, err := ParseDigest(parts[0])
		sec, err2 := strconv.ParseInt(parts[1], 10, 64)
		if err != nil || err2 != nil {
			continue
		}
		out = append(out, quarantined{n, dg, time.Unix(sec, 0), parts[2]})
	}
	slices.SortFunc(out, func(a, b quarantined) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return out, nil
}

// Purge implements Store.
func (d *Dir) Purge(ctx context.Context, t time.Time) (n int, bytes int64, err error) {
	q, err := d.quarantined()
	if err != nil {
		return 0, 0, err
	}
	for _, e := range q {
		if !e.at.Before(t) {
			break
		}
		if err := ctx.Err(); err != nil {
			return n, bytes, err
		}
		name := quarantineDir + "/" + e.name
		st, err := d.root.Lstat(name)
		if err != nil {
			continue
		}
		if err := d.step("purge", name, func() error { return d.root.Remove(name) }); err != nil {
			return n, bytes, err
		}
		n++
		bytes += st.Size()
	}
	return n, bytes, nil
}

// Sums are the digests of a blob's bytes other than its name.
type Sums struct {
	SHA1   [sha1.Size]byte
	SHA512 [sha512.Size]byte
}

// Check reads a whole blob and compares its digest. ErrCorrupt, ErrNotFound.
func Check(ctx context.Context, s Store, dg Digest) error { return check(ctx, s, dg, io.Discard) }

// SumAll is Check, and returns the blob's other digests.
func SumAll(ctx context.Context, s Store, dg Digest) (out Sums, err error) {
	h1, h512 := sha1.New(), sha512.New()
	if err := check(ctx, s, dg, io.MultiWriter(h1, h512)); err != nil {
		return out, err
	}
	h1.Sum(out.SHA1[:0])
	h512.Sum(out.SHA512[:0])
	return out, nil
}

func check(ctx context.Context, s Store, dg Digest, also io.Writer) error {
	b, err := s.Open(ctx, dg)
	if err != nil {
		return err
	}
	defer b.Close()
	return checkBytes(ctx, io.TeeReader(b, also), dg)
}

// checkBytes compares the bytes of r with a digest. ErrCorrupt.
func checkBytes(ctx context.Context, r io.Reader, dg Digest) error {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			break
		} else if err != nil {
			return corrupt(dg, "unreadable: "+err.Error())
		}
	}
	if got := h.Sum(nil); Digest(got) != dg {
		return corrupt(dg, "its bytes now have SHA-256 "+hex.EncodeToString(got))
	}
	return nil
}
