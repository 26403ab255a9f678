package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
)

// bbolt maps its file into memory and trusts what it finds there. A damaged or truncated
// page ends the process with a panic, partly in goroutines where it cannot be recovered.
// pageReader reads the same pages with pread(2) and checks everything that bbolt assumes,
// so that bbolt only opens a database, and a collection only deletes, if the pages are
// sound. The layout is that of bbolt's file format, version 2.

const (
	pageHeaderLen  = 16
	elementLen     = 16
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	metaLen        = 64 // with its checksum
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagFreelist   = 0x10
	longFreelist   = 0xffff // number of elements in the header if the count is in the body
	elementBucket  = 0x01
	noFreelist     = ^uint64(0)
	maxDepth       = 64
	maxPageFaults  = 100
	maxPageSize    = 64 << 10
	minPageSize    = 512
	bucketHeadLen  = 16
	firstDataPage  = 2
	maxOverflowLen = 1 << 30
)

// visitor receives what a pageReader finds.
type visitor interface {
	open(bucket string, sequence uint64)
	entry(bucket string, k, stored []byte)
}

// boltMeta is one of the two meta pages.
type boltMeta struct {
	pageSize uint32
	root     uint64
	freelist uint64
	pages    uint64 // high-water mark: pages from here on are unused
	txid     uint64
}

// readMeta reads meta page 0 or 1 of a file whose page size is known.
func readMeta(r io.ReaderAt, n int, pageSize uint32) (*boltMeta, error) {
	b := make([]byte, pageHeaderLen+metaLen)
	if _, err := r.ReadAt(b, int64(n)*int64(pageSize)); err != nil {
		return nil, fmt.Errorf("meta page %d: %w", n, err)
	}
	m := b[pageHeaderLen:]
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(m[off:]) }
	u64 := func(off int) uint64 { return binary.NativeEndian.Uint64(m[off:]) }
	sum := fnv.New64a()
	sum.Write(m[:metaLen-8])
	switch {
	case u32(0) != boltMagic:
		return nil, fmt.Errorf("meta page %d: not a bbolt database", n)
	case u32(4) != boltVersion:
		return nil, fmt.Errorf("meta page %d: bbolt file format %d, expected %d", n, u32(4), boltVersion)
	case u64(metaLen-8) != sum.Sum64():
		return nil, fmt.Errorf("meta page %d: wrong checksum", n)
	}
	return &boltMeta{pageSize: u32(8), root: u64(16), freelist: u64(32), pages: u64(40), txid: u64(48)}, nil
}

// readMetas finds the newest valid meta page. torn is set if the other one is damaged, in
// which case the last commit may have been lost.
func readMetas(r io.ReaderAt) (newest *boltMeta, torn error, err error) {
	first, err0 := readMeta(r, 0, 0)
	if err0 == nil {
		var second *boltMeta
		if second, torn = readMeta(r, 1, first.pageSize); torn == nil && second.txid > first.txid {
			return second, nil, nil
		}
		return first, torn, nil
	}
	for size := uint32(minPageSize); size <= maxPageSize; size *= 2 {
		if m, err := readMeta(r, 1, size); err == nil && m.pageSize == size {
			return m, err0, nil
		}
	}
	return nil, nil, err0
}

// pageReader walks the pages of one committed state of a database.
type pageReader struct {
	ctx    context.Context // of one walk
	r      io.ReaderAt
	size   int64 // bytes of the file
	meta   *boltMeta
	seen   []bool // pages with a reference
	faults []error
	more   int // faults that are only counted
}

func newPageReader(ctx context.Context, r io.ReaderAt, size int64, m *boltMeta) (*pageReader, error) {
	if m.pageSize < minPageSize || m.pageSize > maxPageSize || m.pageSize&(m.pageSize-1) != 0 {
		return nil, fmt.Errorf("page size %d", m.pageSize)
	}
	if end := int64(m.pages) * int64(m.pageSize); m.pages > 1<<40 || end > size {
		return nil, fmt.Errorf("file has %d bytes, expected at least %d: it was cut", size, end)
	}
	return &pageReader{ctx: ctx, r: r, size: size, meta: m, seen: make([]bool, m.pages)}, nil
}

func (p *pageReader) fault(format string, args ...any) {
	if len(p.faults) == maxPageFaults {
		p.more++
		return
	}
	p.faults = append(p.faults, fmt.Errorf(format, args...))
}

// err joins the faults.
func (p *pageReader) err() error {
	if len(p.faults) == 0 {
		return nil
	}
	var text []string
	for _, f := range p.faults[:min(3, len(p.faults))] {
		text = append(text, f.Error())
	}
	if more := len(p.faults) + p.more - len(text); more > 0 {
		text = append(text, fmt.Sprintf("and %d more faults", more))
	}
	return errors.New(strings.Join(text, "; "))
}

// walk visits every entry that can be read. Damaged pages are reported as faults and
// skipped.
func (p *pageReader) walk(v visitor) {
	p.page(p.meta.root, nil, nil, 0, func(k, value []byte, flags uint32) {
		switch {
		case flags != elementBucket:
			p.fault("entry %q beside the buckets", k)
			return
		case len(value) < bucketHeadLen:
			p.fault("bucket %q: %d bytes, expected at least %d", k, len(value), bucketHeadLen)
			return
		}
		name := string(k)
		root, sequence := binary.NativeEndian.Uint64(value), binary.NativeEndian.Uint64(value[8:])
		v.open(name, sequence)
		entry := func(k, value []byte, flags uint32) {
			if flags != 0 {
				p.fault("bucket %s: entry %q has flags %x", name, k, flags)
				return
			}
			v.entry(name, k, value)
		}
		if root != 0 {
			p.page(root, nil, nil, 0, entry)
			return
		}
		inline := value[bucketHeadLen:]
		if len(inline) < pageHeaderLen || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
			p.fault("bucket %s: malformed inline page", name)
			return
		}
		p.leaf(inline, "inline page of bucket "+name, nil, nil, entry)
	})
}

// free reads the list of free pages, after walk. A later commit would overwrite a page
// that is both in use and in the list.
func (p *pageReader) free() {
	if p.meta.freelist == noFreelist || p.ctx.Err() != nil {
		return
	}
	used := slices.Clone(p.seen)
	buf, ok := p.load(p.meta.freelist)
	if !ok {
		return
	}
	n, body := int(binary.NativeEndian.Uint16(buf[10:])), buf[pageHeaderLen:]
	if binary.NativeEndian.Uint16(buf[8:]) != flagFreelist {
		p.fault("page %d: not a list of free pages", p.meta.freelist)
		return
	}
	if n == longFreelist {
		n, body = int(min(binary.NativeEndian.Uint64(body), p.meta.pages)), body[8:]
	}
	if n*8 > len(body) {
		p.fault("page %d: a list of %d free pages does not fit", p.meta.freelist, n)
		return
	}
	listed := map[uint64]bool{}
	for i := range n {
		id := binary.NativeEndian.Uint64(body[i*8:])
		switch {
		case id < firstDataPage || id >= p.meta.pages:
			p.fault("page %d: the free page %d is out of bounds", p.meta.freelist, id)
		case used[id] || p.seen[id] && id == p.meta.freelist:
			p.fault("page %d is in use and in the list of free pages", id)
		case listed[id]:
			p.fault("page %d is twice in the list of free pages", id)
		}
		listed[id] = true
	}
}

// page reads the page id and the pages below it, whose keys must be from minKey on and
// below maxKey.
func (p *pageReader) page(id uint64, minKey, maxKey []byte, depth int, f func(k, v []byte, flags uint32)) {
	if p.ctx.Err() != nil {
		return
	}
	buf, ok := p.load(id)
	if !ok {
		return
	}
	where := fmt.Sprintf("page %d", id)
	switch flags := binary.NativeEndian.Uint16(buf[8:]); {
	case flags == flagLeaf:
		p.leaf(buf, where, minKey, maxKey, f)
	case flags == flagBranch && depth < maxDepth:
		p.branch(buf, where, minKey, maxKey, depth, f)
	case flags == flagBranch:
		p.fault("%s: the tree is deeper than %d pages", where, maxDepth)
	default:
		p.fault("%s: unexpected type %x", where, flags)
	}
}

// load reads a page with its overflow.
func (p *pageReader) load(id uint64) ([]byte, bool) {
	size := int64(p.meta.pageSize)
	if id < firstDataPage || id >= p.meta.pages {
		p.fault("page %d: out of bounds, expected %d to %d", id, firstDataPage, p.meta.pages-1)
		return nil, false
	}
	if p.seen[id] {
		p.fault("page %d: referred to twice", id)
		return nil, false
	}
	p.seen[id] = true
	head := make([]byte, size)
	if _, err := p.r.ReadAt(head, int64(id)*size); err != nil {
		p.fault("page %d: %w", id, err)
		return nil, false
	}
	if got := binary.NativeEndian.Uint64(head); got != id {
		p.fault("page %d: calls itself page %d", id, got)
		return nil, false
	}
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if overflow == 0 {
		return head, true
	}
	if id+overflow >= p.meta.pages || int64(overflow)*size > maxOverflowLen {
		p.fault("page %d: %d pages of overflow are beyond page %d", id, overflow, p.meta.pages-1)
		return nil, false
	}
	for i := id + 1; i <= id+overflow; i++ {
		if p.seen[i] {
			p.fault("page %d: referred to twice", i)
			return nil, false
		}
		p.seen[i] = true
	}
	buf := make([]byte, int64(1+overflow)*size)
	if _, err := p.r.ReadAt(buf, int64(id)*size); err != nil {
		p.fault("page %d: %w", id, err)
		return nil, false
	}
	return buf, true
}

// elements returns how many elements a page has; ok is false if they do not fit.
func (p *pageReader) elements(buf []byte, where string) (n int, ok bool) {
	n = int(binary.NativeEndian.Uint16(buf[10:]))
	if pageHeaderLen+n*elementLen > len(buf) {
		p.fault("%s: %d elements do not fit", where, n)
		return 0, false
	}
	return n, true
}

// slice returns the bytes that element i of a page refers to.
func slice(buf []byte, i int, pos, length uint32) ([]byte, bool) {
	start := int64(pageHeaderLen+i*elementLen) + int64(pos)
	end := start + int64(length)
	if end > int64(len(buf)) {
		return nil, false
	}
	return buf[start:end:end], true
}

// ordered checks that a key follows the previous one and is within its bounds.
func (p *pageReader) ordered(where string, i int, k, previous, minKey, maxKey []byte) bool {
	switch {
	case len(k) == 0:
		p.fault("%s: element %d has an empty key", where, i)
	case i > 0 && bytes.Compare(previous, k) >= 0:
		p.fault("%s: element %d is out of order", where, i)
	case minKey != nil && bytes.Compare(k, minKey) < 0, maxKey != nil && bytes.Compare(k, maxKey) >= 0:
		p.fault("%s: element %d is outside the bounds of its branch", where, i)
	default:
		return true
	}
	return false
}

func (p *pageReader) leaf(buf []byte, where string, minKey, maxKey []byte, f func(k, v []byte, flags uint32)) {
	n, ok := p.elements(buf, where)
	if !ok {
		return
	}
	var previous []byte
	for i := range n {
		e := buf[pageHeaderLen+i*elementLen:]
		flags, pos := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:])
		ksize, vsize := binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
		both, ok := slice(buf, i, pos, ksize+vsize)
		if !ok || ksize > ksize+vsize {
			p.fault("%s: element %d is outside the page", where, i)
			continue
		}
		k := both[:ksize:ksize]
		if !p.ordered(where, i, k, previous, minKey, maxKey) {
			continue
		}
		previous = k
		f(k, both[ksize:], flags)
	}
}

func (p *pageReader) branch(buf []byte, where string, minKey, maxKey []byte, depth int, f func(k, v []byte, flags uint32)) {
	n, ok := p.elements(buf, where)
	if !ok {
		return
	}
	if n == 0 {
		p.fault("%s: a branch without elements", where)
	}
	type child struct {
		key  []byte
		page uint64
	}
	children := make([]child, 0, n)
	for i := range n {
		e := buf[pageHeaderLen+i*elementLen:]
		k, ok := slice(buf, i, binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]))
		if !ok {
			p.fault("%s: element %d is outside the page", where, i)
			continue
		}
		var previous []byte
		if i > 0 && len(children) > 0 {
			previous = children[len(children)-1].key
		}
		if !p.ordered(where, i, k, previous, minKey, maxKey) {
			continue
		}
		children = append(children, child{k, binary.NativeEndian.Uint64(e[8:])})
	}
	for i, c := range children {
		end := maxKey
		if i+1 < len(children) {
			end = children[i+1].key
		}
		p.page(c.page, c.key, end, depth+1, f)
	}
}
