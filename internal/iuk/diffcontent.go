package iuk

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/squashfs"
)

// progress counts steps. The total grows as more work becomes known.
type progress struct {
	mu          sync.Mutex
	done, total int64
	fn          func(done, total int64)
}

func (p *progress) add(done, total int64) {
	if p == nil || p.fn == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += done
	p.total += total
	p.fn(p.done, p.total)
}

// readPiece is the number of bytes of compressed blocks that are compared at once.
const readPiece = 256 << 10

// comparison is one file of the new image and its candidates in old images.
type comparison struct {
	newRef squashfs.Ref
	cands  []candRef
}

// candRef refers to the candidate s.candidates[i].
type candRef struct {
	s *oldState
	i int
}

func (c candRef) get() *candidate { return &c.s.candidates[c.i] }

// tailPair is a tail of an old image to be compared with one of the new image.
type tailPair struct {
	cand     candRef
	old, new squashfs.Tail
}

// compareContent determines for each candidate of each old image whether its
// content differs. Compressed blocks that are equal are not decoded.
func (d *differ) compareContent(ctx context.Context) error {
	d.progress = &progress{fn: d.o.Progress}
	var total int64
	for _, s := range d.olds {
		total += int64(len(s.candidates))
	}
	d.progress.add(0, total)

	var mu sync.Mutex
	tails := make(map[*oldState][]tailPair)
	wholes := make(map[*oldState][]candRef)
	g, gctx := errgroup.WithContext(ctx)
	jobs := make(chan []comparison)
	g.Go(func() error {
		defer close(jobs)
		return d.batchComparisons(gctx, jobs)
	})
	for range d.o.Workers {
		g.Go(func() error {
			w := newBlockComparer(d)
			for batch := range jobs {
				for _, c := range batch {
					if err := w.compare(c); err != nil {
						return err
					}
				}
				d.progress.add(int64(len(batch)), 0)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, t := range w.tails {
				tails[t.cand.s] = append(tails[t.cand.s], t)
			}
			for _, c := range w.wholes {
				wholes[c.s] = append(wholes[c.s], c)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := d.compareTails(ctx, tails); err != nil {
		return err
	}
	return d.compareWholes(ctx, wholes)
}

// batchComparisons sends all comparisons in batches, in the order of the new image:
// it is read once, whichever old images have candidates.
func (d *differ) batchComparisons(ctx context.Context, jobs chan<- []comparison) error {
	next := make([]int, len(d.olds)) // of the candidates of each old image
	for {
		var batch []comparison
		for len(batch) < 64 {
			c, ok := d.nextComparison(next)
			if !ok {
				break
			}
			batch = append(batch, c)
		}
		if len(batch) == 0 {
			return nil
		}
		select {
		case jobs <- batch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nextComparison returns the comparison of the next file of the new image that has
// candidates, and advances next beyond them.
func (d *differ) nextComparison(next []int) (comparison, bool) {
	ord, found := uint32(0), false
	for i, s := range d.olds {
		if next[i] < len(s.candidates) {
			if o := s.candidates[next[i]].ord; !found || o < ord {
				ord, found = o, true
			}
		}
	}
	var c comparison
	for i, s := range d.olds {
		if found && next[i] < len(s.candidates) && s.candidates[next[i]].ord == ord {
			c.newRef = s.candidates[next[i]].newRef
			c.cands = append(c.cands, candRef{s, next[i]})
			next[i]++
		}
	}
	return c, found
}

// blockComparer compares data blocks. Each goroutine has one.
type blockComparer struct {
	d                *differ
	newBuf, oldBuf   []byte
	newData, oldData []byte
	tails            []tailPair
	wholes           []candRef // files whose blocks differ in layout: only decoded content is comparable
}

func newBlockComparer(d *differ) *blockComparer {
	return &blockComparer{d: d, newBuf: make([]byte, readPiece), oldBuf: make([]byte, readPiece)}
}

// oldFile is a candidate without a known difference.
type oldFile struct {
	cand candRef
	f    *squashfs.File
}

func (w *blockComparer) compare(c comparison) error {
	n, err := w.d.new.Inode(c.newRef)
	if err != nil {
		return err
	}
	nf, err := w.d.new.File(n)
	if err != nil {
		return err
	}
	var byBytes, byBlock []oldFile
	for _, cand := range c.cands {
		r := cand.s.r
		on, err := r.Inode(cand.get().oldRef)
		if err != nil {
			return fmt.Errorf("old image: %w", err)
		}
		of, err := r.File(on)
		if err != nil {
			return fmt.Errorf("old image: %w", err)
		}
		nsb, osb := w.d.new.Superblock(), r.Superblock()
		if nsb.BlockSize != osb.BlockSize || nf.Blocks() != of.Blocks() || nf.Tail().Size != of.Tail().Size {
			w.wholes = append(w.wholes, cand)
			continue
		}
		if nsb.Compressor == osb.Compressor && slices.Equal(nf.SizeWords(), of.SizeWords()) {
			byBytes = append(byBytes, oldFile{cand, of})
		} else {
			byBlock = append(byBlock, oldFile{cand, of})
		}
	}
	equal, unequal, err := w.compressed(nf, byBytes)
	if err != nil {
		return err
	}
	for _, o := range append(byBlock, unequal...) {
		same, err := w.decoded(nf, o)
		if err != nil {
			return err
		}
		if same {
			equal = append(equal, o)
		} else {
			o.cand.get().differ = true
		}
	}
	for _, o := range equal {
		if t := nf.Tail(); t.Size > 0 {
			w.tails = append(w.tails, tailPair{o.cand, o.f.Tail(), t})
		}
	}
	return nil
}

// compressed compares the compressed blocks of files with equal size words.
func (w *blockComparer) compressed(nf *squashfs.File, olds []oldFile) (equal, unequal []oldFile, err error) {
	start, end := nf.Extent()
	for at := start; at < end && len(olds) > 0; {
		n := min(end-at, readPiece)
		if err := w.d.new.ReadData(w.newBuf[:n], at); err != nil {
			return nil, nil, err
		}
		alive := olds[:0]
		for _, o := range olds {
			os, _ := o.f.Extent()
			if err := o.cand.s.r.ReadData(w.oldBuf[:n], os+(at-start)); err != nil {
				return nil, nil, fmt.Errorf("old image: %w", err)
			}
			if bytes.Equal(w.newBuf[:n], w.oldBuf[:n]) {
				alive = append(alive, o)
			} else {
				unequal = append(unequal, o)
			}
		}
		olds = alive
		at += n
	}
	return olds, unequal, nil
}

// decoded compares block by block, and decodes blocks that differ when compressed.
func (w *blockComparer) decoded(nf *squashfs.File, o oldFile) (bool, error) {
	r := o.cand.s.r
	nsb, osb := w.d.new.Superblock(), r.Superblock()
	if w.newData == nil {
		w.newData, w.oldData = make([]byte, squashfs.MaxBlockSize), make([]byte, squashfs.MaxBlockSize)
	}
	// Blocks whose compressed sizes differ are likely to differ, so they are first.
	words, oldWords := nf.SizeWords(), o.f.SizeWords()
	check := func(i int) (bool, error) {
		a, err := nf.DecodeBlock(i, w.newData)
		if err != nil {
			return false, err
		}
		b, err := o.f.DecodeBlock(i, w.oldData)
		if err != nil {
			return false, fmt.Errorf("old image: %w", err)
		}
		atomic.AddInt64(&o.cand.s.stats.DecodedBlocks, 2)
		return bytes.Equal(a, b), nil
	}
	for pass := range 2 {
		for i := range words {
			if (words[i] != oldWords[i]) != (pass == 0) || words[i] == 0 && oldWords[i] == 0 {
				continue
			}
			if pass == 1 && nsb.Compressor == osb.Compressor {
				a, err := w.d.new.ReadRaw(nf.Block(i), w.newData)
				if err != nil {
					return false, err
				}
				b, err := r.ReadRaw(o.f.Block(i), w.oldData)
				if err != nil {
					return false, fmt.Errorf("old image: %w", err)
				}
				if bytes.Equal(a, b) {
					continue
				}
			}
			if same, err := check(i); !same || err != nil {
				return same, err
			}
		}
	}
	return true, nil
}

// wholeItem is one file to hash.
type wholeItem struct {
	ref  squashfs.Ref
	frag uint32 // sort key, so that files with one fragment block follow each other
	sum  digest
}

// compareWholes compares files whose blocks differ in layout by the digest of their
// decoded content.
func (d *differ) compareWholes(ctx context.Context, cands map[*oldState][]candRef) error {
	var refs []squashfs.Ref
	for _, s := range d.olds {
		for _, c := range cands[s] {
			refs = append(refs, c.get().newRef)
		}
	}
	want, err := d.hashWholes(ctx, d.new, refs, nil)
	if err != nil {
		return err
	}
	for _, s := range d.olds {
		refs = refs[:0]
		for _, c := range cands[s] {
			refs = append(refs, c.get().oldRef)
		}
		have, err := d.hashWholes(ctx, s.r, refs, s)
		if err != nil {
			return fmt.Errorf("old image: %w", err)
		}
		for _, cand := range cands[s] {
			c := cand.get()
			if want[c.newRef] != have[c.oldRef] {
				c.differ = true
			}
		}
	}
	return nil
}

// hashWholes returns the digests of files. s counts decoded blocks, unless it is nil.
func (d *differ) hashWholes(ctx context.Context, r *squashfs.Reader, refs []squashfs.Ref, s *oldState) (map[squashfs.Ref]digest, error) {
	refs = slices.Clone(refs)
	slices.Sort(refs)
	refs = slices.Compact(refs)
	if len(refs) == 0 {
		return nil, nil
	}
	items := make([]wholeItem, len(refs))
	for i, ref := range refs {
		n, err := r.Inode(ref)
		if err != nil {
			return nil, err
		}
		items[i] = wholeItem{ref: ref, frag: r.Tail(n).Fragment}
	}
	slices.SortStableFunc(items, func(a, b wholeItem) int { return cmp.Compare(a.frag, b.frag) })
	d.progress.add(0, int64(len(items)))
	var next atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	const batch = 16
	for range d.o.Workers {
		g.Go(func() error {
			h := newWholeHasher(r, s)
			for {
				from := int(next.Add(batch) - batch)
				if from >= len(items) {
					return nil
				}
				for i := from; i < min(from+batch, len(items)); i++ {
					if err := gctx.Err(); err != nil {
						return err
					}
					if err := h.hash(&items[i]); err != nil {
						return err
					}
				}
				d.progress.add(batch, 0)
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make(map[squashfs.Ref]digest, len(items))
	for _, it := range items {
		out[it.ref] = it.sum
	}
	return out, nil
}

// wholeHasher hashes decoded files. Each goroutine has one.
type wholeHasher struct {
	r    *squashfs.Reader
	s    *oldState
	h    hash.Hash
	buf  []byte
	frag []byte // memory for tails
	// tails is the decoded fragment block with number fragment; -1 means none.
	tails    []byte
	fragment int64
}

func newWholeHasher(r *squashfs.Reader, s *oldState) *wholeHasher {
	return &wholeHasher{
		r: r, s: s, h: sha256.New(),
		buf: make([]byte, squashfs.MaxBlockSize), frag: make([]byte, squashfs.MaxBlockSize), fragment: -1,
	}
}

func (w *wholeHasher) hash(it *wholeItem) error {
	n, err := w.r.Inode(it.ref)
	if err != nil {
		return err
	}
	f, err := w.r.File(n)
	if err != nil {
		return err
	}
	w.h.Reset()
	for k := range f.Blocks() {
		b, err := f.DecodeBlock(k, w.buf)
		if err != nil {
			return err
		}
		w.h.Write(b)
	}
	if t := f.Tail(); t.Size > 0 {
		b, err := w.tail(t)
		if err != nil {
			return err
		}
		w.h.Write(b)
	}
	if w.s != nil {
		atomic.AddInt64(&w.s.stats.DecodedBlocks, int64(f.Blocks())+1)
	}
	w.h.Sum(it.sum[:0])
	return nil
}

// tail decodes a tail. Often its fragment block is the last one decoded.
func (w *wholeHasher) tail(t squashfs.Tail) ([]byte, error) {
	if w.fragment != int64(t.Fragment) {
		w.fragment = -1
		var err error
		if w.tails, err = decodeFragment(w.r, t.Fragment, w.frag); err != nil {
			return nil, err
		}
		w.fragment = int64(t.Fragment)
	}
	return cutTail(w.tails, t)
}
