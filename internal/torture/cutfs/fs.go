package cutfs

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// FS is a mounted file system in memory that records a trace.
//
// The kernel's page cache is used, so that a mapping of a file is consistent with
// write(2), as bbolt requires. Each write(2) reaches FS immediately. The kernel does not
// send syncfs(2) to a FUSE server; see durable.SyncFS.
type FS struct {
	fuse.RawFileSystem
	srv *fuse.Server
	dir string

	mu    sync.Mutex
	nodes map[uint64]*live
	next  uint64
	trace Trace
	// fault, if not nil, is called before each operation ("read", "write", "fsync",
	// "create", "rename", "unlink"). If the result is not 0, the operation fails with it.
	fault func(op string) syscall.Errno
}

type live struct {
	node
	ino   uint64
	links int
	mtime time.Time
}

// Mount mounts a new, empty file system on an empty directory.
func Mount(dir string) (*FS, error) {
	f := &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), dir: dir, nodes: map[uint64]*live{}, next: rootIno}
	f.nodes[rootIno] = &live{node: node{isDir: true, mode: 0o700, children: map[string]uint64{}}, ino: rootIno, links: 1, mtime: time.Now()}
	f.Start()
	srv, err := fuse.NewServer(f, dir, &fuse.MountOptions{
		FsName: "cutfs", Name: "cutfs", DirectMount: true, MaxWrite: 1 << 20, DisableXAttrs: true,
		// All changes are made through this kernel, so its cache is never stale. If it
		// dropped mapped pages while they are written, bbolt would see old bytes.
		ExplicitDataCacheControl: true,
	})
	if err != nil {
		return nil, err
	}
	f.srv = srv
	go srv.Serve()
	return f, srv.WaitMount()
}

// Unmount unmounts the file system. The trace remains available.
func (f *FS) Unmount() error {
	err := f.srv.Unmount()
	if err != nil {
		err = syscall.Unmount(f.dir, syscall.MNT_DETACH)
	}
	return err
}

// Start starts a new trace. The current state counts as durable.
func (f *FS) Start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	base := map[uint64]*node{}
	for ino, n := range f.nodes {
		if n.links > 0 {
			base[ino] = &node{isDir: n.isDir, mode: n.mode, data: append([]byte(nil), n.data...), children: maps.Clone(n.children)}
		}
	}
	f.trace = Trace{base: base}
}

// Trace returns the steps since Start.
func (f *FS) Trace() *Trace {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &Trace{base: f.trace.base, steps: f.trace.steps[:len(f.trace.steps):len(f.trace.steps)]}
}

// Mark adds a mark to the trace: at this point a client was told that an operation was
// complete.
func (f *FS) Mark(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(step{kind: kMark, name: what})
}

// SetFault sets a function that decides which operations fail, or nil.
func (f *FS) SetFault(fault func(op string) syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *FS) add(s step) { f.trace.steps = append(f.trace.steps, s) }

// begin locks the file system, calls fault and returns a node. The caller must unlock f.mu,
// even after an error.
func (f *FS) begin(op string, ino uint64) (*live, fuse.Status) {
	f.mu.Lock()
	if f.fault != nil && op != "" {
		if e := f.fault(op); e != 0 {
			return nil, fuse.Status(e)
		}
	}
	n := f.nodes[ino]
	if n == nil {
		return nil, fuse.ENOENT
	}
	return n, fuse.OK
}

func (n *live) attr(out *fuse.Attr) {
	out.Ino, out.Nlink, out.Size = n.ino, 1, uint64(len(n.data))
	out.Mode = n.mode | syscall.S_IFREG
	if n.isDir {
		out.Mode = n.mode | syscall.S_IFDIR
	}
	out.Blksize = 4096
	out.Blocks = (out.Size + 511) / 512
	out.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

func (n *live) entry(out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.ino, 1
	n.attr(&out.Attr)
	out.SetEntryTimeout(0)
	out.SetAttrTimeout(0)
}

// Lookup implements fuse.RawFileSystem, as do the methods below.
func (f *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	d, st := f.begin("", h.NodeId)
	defer f.mu.Unlock()
	if st != fuse.OK {
		return st
	}
	ino, ok := d.children[name]
	if !ok {
		return fuse.ENOENT
	}
	f.nodes[ino].entry(out)
	return fuse.OK
}

func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, st := f.begin("", in.NodeId)
	defer f.mu.Unlock()
	if st == fuse.OK {
		n.attr(&out.Attr)
	}
	return st
}

func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, st := f.begin("", in.NodeId)
	defer f.mu.Unlock()
	if st != fuse.OK {
		return st
	}
	if mode, ok := in.GetMode(); ok {
		n.mode = mode & 0o7777
	}
	if t, ok := in.GetMTime(); ok {
		n.mtime = t
	}
	if size, ok := in.GetSize(); ok && !n.isDir {
		n.data = resize(n.data, int64(size), true)
		f.add(step{kind: kTruncate, ino: n.ino, off: int64(size)})
	}
	n.attr(&out.Attr)
	return fuse.OK
}

func (f *FS) create(dir uint64, name string, isDir bool, mode uint32) (*live, fuse.Status) {
	d, st := f.begin("create", dir)
	if st != fuse.OK {
		return nil, st
	}
	if d.children[name] != 0 {
		return nil, fuse.Status(syscall.EEXIST)
	}
	f.next++
	n := &live{node: node{isDir: isDir, mode: mode & 0o777}, ino: f.next, links: 1, mtime: time.Now()}
	if isDir {
		n.children = map[string]uint64{}
	}
	f.nodes[n.ino] = n
	d.children[name] = n.ino
	f.add(step{kind: kCreate, ino: n.ino, dir: dir, name: name, isDir: isDir, mode: n.mode})
	return n, fuse.OK
}

func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	n, st := f.create(in.NodeId, name, true, in.Mode)
	defer f.mu.Unlock()
	if st == fuse.OK {
		n.entry(out)
	}
	return st
}

func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	n, st := f.create(in.NodeId, name, false, in.Mode)
	defer f.mu.Unlock()
	if st == fuse.OK {
		n.entry(&out.EntryOut)
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	return st
}

func (f *FS) remove(dir uint64, name string, isDir bool) fuse.Status {
	d, st := f.begin("unlink", dir)
	defer f.mu.Unlock()
	if st != fuse.OK {
		return st
	}
	n := f.nodes[d.children[name]]
	switch {
	case n == nil:
		return fuse.ENOENT
	case n.isDir != isDir:
		return fuse.ENOTDIR
	case len(n.children) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	delete(d.children, name)
	n.links--
	f.add(step{kind: kUnlink, ino: n.ino, dir: dir, name: name})
	return fuse.OK
}

func (f *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h.NodeId, name, false)
}

func (f *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h.NodeId, name, true)
}

func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	d, st := f.begin("rename", in.NodeId)
	defer f.mu.Unlock()
	if st != fuse.OK {
		return st
	}
	d2 := f.nodes[in.Newdir]
	n := f.nodes[d.children[from]]
	if d2 == nil || n == nil {
		return fuse.ENOENT
	}
	if in.Flags != 0 {
		return fuse.EINVAL
	}
	if old := f.nodes[d2.children[to]]; old != nil && old != n {
		if len(old.children) > 0 {
			return fuse.Status(syscall.ENOTEMPTY)
		}
		old.links--
	}
	delete(d.children, from)
	d2.children[to] = n.ino
	f.add(step{kind: kRename, ino: n.ino, dir: in.NodeId, dir2: in.Newdir, name: from, name2: to})
	return fuse.OK
}

func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	_, st := f.begin("", in.NodeId)
	f.mu.Unlock()
	out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	return st
}

func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, st := f.begin("read", in.NodeId)
	defer f.mu.Unlock()
	if st != fuse.OK {
		return nil, st
	}
	off := min(in.Offset, uint64(len(n.data)))
	return fuse.ReadResultData(buf[:copy(buf, n.data[off:])]), fuse.OK
}

func (f *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, st := f.begin("write", in.NodeId)
	defer f.mu.Unlock()
	if st != fuse.OK {
		return 0, st
	}
	off := int64(in.Offset)
	if end := off + int64(len(data)); end > int64(len(n.data)) {
		n.data = resize(n.data, end, true)
	}
	copy(n.data[off:], data)
	n.mtime = time.Now()
	f.add(step{kind: kWrite, ino: n.ino, off: off, data: append([]byte(nil), data...)})
	return uint32(len(data)), fuse.OK
}

func (f *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, st := f.begin("fsync", in.NodeId)
	defer f.mu.Unlock()
	if st == fuse.OK {
		f.add(step{kind: kFsync, ino: n.ino})
	}
	return st
}

func (f *FS) FsyncDir(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status { return f.Fsync(c, in) }

func (f *FS) OpenDir(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return f.Open(c, in, out)
}

func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, l *fuse.DirEntryList) fuse.Status {
	return f.readDir(in, func(e fuse.DirEntry, _ *live) bool { return l.AddDirEntry(e) })
}

func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, l *fuse.DirEntryList) fuse.Status {
	return f.readDir(in, func(e fuse.DirEntry, n *live) bool {
		out := l.AddDirLookupEntry(e)
		if out != nil {
			n.entry(out)
		}
		return out != nil
	})
}

func (f *FS) readDir(in *fuse.ReadIn, emit func(fuse.DirEntry, *live) bool) fuse.Status {
	d, st := f.begin("", in.NodeId)
	defer f.mu.Unlock()
	if st != fuse.OK {
		return st
	}
	// List entries by inode number, so that a directory that changes while it is read is
	// listed as POSIX requires.
	for _, e := range d.byNumber() {
		if e.ino <= in.Offset {
			continue
		}
		mode := uint32(syscall.S_IFREG)
		if f.nodes[e.ino].isDir {
			mode = syscall.S_IFDIR
		}
		if !emit(fuse.DirEntry{Name: e.name, Ino: e.ino, Mode: mode, Off: e.ino}, f.nodes[e.ino]) {
			break
		}
	}
	return fuse.OK
}

type dirEntry struct {
	name string
	ino  uint64
}

func (n *live) byNumber() []dirEntry {
	out := make([]dirEntry, 0, len(n.children))
	for name, ino := range n.children {
		out = append(out, dirEntry{name, ino})
	}
	slices.SortFunc(out, func(a, b dirEntry) int { return cmp.Compare(a.ino, b.ino) })
	return out
}

func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail = 1<<28, 1<<27, 1<<27
	out.Files, out.Ffree = 1<<30, 1<<29
	return fuse.OK
}

func (f *FS) Access(_ <-chan struct{}, _ *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }
