package iuk

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/squashfs"
)

// progress counts steps towards a total that grows as it becomes known.
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

// readPiece is how many bytes of compressed blocks are compared at once.
const readPiece = 256 << 10

// comparison is one file of the new image and its candidates in old ones.
type comparison struct {
	newRef squashfs.Ref
	cands  []candRef
}

// candRef names a candidate: s.candidates[i].
type candRef struct {
	s *oldState
	i int
}

func (c candRef) get() *candidate { return &c.s.candidates[c.i] }

// tailPair is a tail of an old image that must equal one of the new.
type tailPair struct {
	cand     candRef
	old, new squashfs.Tail
}

// wholePair is a file that is laid out in another way in each image, so that
// only its decoded content can be compared.
type wholePair struct {
	cand candRef
}

// compareContent decides for each candidate of each old image whether content
// differs. Compressed blocks that are equal are not decoded.
func (d *differ) compareContent(ctx context.Context) error {
	d.progress = &progress{fn: d.o.Progress}
	// One pass through the new image's files, whichever old image asks.
	at := make([]int, len(d.olds))
	produce := func(emit func(comparison) error) error {
		for {
			ord, found := uint32(0), false
			for i, s := range d.olds {
				if at[i] < len(s.candidates) {
					if o := s.candidates[at[i]].ord; !found || o < ord {
						ord, found = o, true
					}
				}
			}
			if !found {
				return nil
			}
			var c comparison
			for i, s := range d.olds {
				if at[i] < len(s.candidates) && s.candidates[at[i]].ord == ord {
					c.newRef = s.candidates[at[i]].newRef
					c.cands = append(c.cands, candRef{s, at[i]})
					at[i]++
				}
			}
			if err := emit(c); err != nil {
				return err
			}
		}
	}
	var total int64
	for _, s := range d.olds {
		total += int64(len(s.candidates))
	}
	d.progress.add(0, total)

	var mu sync.Mutex
	tails := make(map[*oldState][]tailPair)
	wholes := make(map[*oldState][]wholePair)
	g, gctx := errgroup.WithContext(ctx)
	jobs := make(chan []comparison)
	g.Go(func() error {
		defer close(jobs)
		var batch []comparison
		send := func() error {
			select {
			case jobs <- batch:
				batch = nil
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		err := produce(func(c comparison) error {
			if batch = append(batch, c); len(batch) < 64 {
				return nil
			}
			return send()
		})
		if err == nil && len(batch) > 0 {
			err = send()
		}
		return err
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
			for _, p := range w.wholes {
				wholes[p.cand.s] = append(wholes[p.cand.s], p)
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

// blockComparer compares data blocks; it belongs to one goroutine.
type blockComparer struct {
	d                *differ
	newBuf, oldBuf   []byte
	newData, oldData []byte
	tails            []tailPair
	wholes           []wholePair
}

func newBlockComparer(d *differ) *blockComparer {
	return &blockComparer{d: d, newBuf: make([]byte, readPiece), oldBuf: make([]byte, readPiece)}
}

// oldFile is a candidate that is still equal.
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
			w.wholes = append(w.wholes, wholePair{cand})
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

// decoded compares block by block, and decodes those whose compressed forms
// differ.
func (w *blockComparer) decoded(nf *squashfs.File, o oldFile) (bool, error) {
	r := o.cand.s.r
	nsb, osb := w.d.new.Superblock(), r.Superblock()
	if w.newData == nil {
		w.newData, w.oldData = make([]byte, squashfs.MaxBlockSize), make([]byte, squashfs.MaxBlockSize)
	}
	// Where sizes differ a difference is likely: look there first.
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

// digest is the SHA-256 of content.
type digest [sha256.Size]byte

// compareTails decides for tails. Fragment blocks of equal bytes are not
// decoded, others once for each image.
func (d *differ) compareTails(ctx context.Context, pairs map[*oldState][]tailPair) error {
	var need []squashfs.Tail // of the new image, to hash
	for _, s := range d.olds {
		left, err := d.sameFragments(ctx, s, pairs[s])
		if err != nil {
			return err
		}
		pairs[s] = left
		for _, p := range left {
			need = append(need, p.new)
		}
	}
	need = sortTails(need)
	var memo *fragMemo
	if len(d.olds) > 1 {
		memo = &fragMemo{known: make(map[digest][]tailSum)}
	}
	want, err := d.hashTails(ctx, d.new, need, nil, memo)
	if err != nil {
		return err
	}
	for _, s := range d.olds {
		list := pairs[s]
		tails := make([]squashfs.Tail, len(list))
		for i, p := range list {
			tails[i] = p.old
		}
		tails = sortTails(tails)
		have, err := d.hashTails(ctx, s.r, tails, s, memo)
		if err != nil {
			return fmt.Errorf("old image: %w", err)
		}
		for _, p := range list {
			i, _ := slices.BinarySearchFunc(need, p.new, compareTails)
			j, _ := slices.BinarySearchFunc(tails, p.old, compareTails)
			if want[i] != have[j] {
				p.cand.get().differ = true
			}
		}
		pairs[s] = nil
		if len(d.olds) > 2 {
			runtime.GC() // lets go of the idle decoders of the images before
		}
	}
	return nil
}

// sameFragments takes out the pairs that lie at one place of fragment blocks
// that are equal byte by byte.
func (d *differ) sameFragments(ctx context.Context, s *oldState, pairs []tailPair) ([]tailPair, error) {
	if d.new.Superblock().Compressor != s.r.Superblock().Compressor {
		return pairs, nil
	}
	sort.Slice(pairs, func(i, j int) bool { return compareTails(pairs[i].new, pairs[j].new) < 0 })
	type key struct{ new, old uint32 }
	known := make(map[key]bool)
	var a, b []byte
	same := func(k key) (bool, error) {
		if eq, ok := known[k]; ok {
			return eq, nil
		}
		nb, err := d.new.Fragment(k.new)
		if err != nil {
			return false, err
		}
		ob, err := s.r.Fragment(k.old)
		if err != nil {
			return false, fmt.Errorf("old image: %w", err)
		}
		eq := nb.Size == ob.Size
		if eq {
			if a, err = d.new.ReadRaw(nb, a); err != nil {
				return false, err
			}
			if b, err = s.r.ReadRaw(ob, b); err != nil {
				return false, fmt.Errorf("old image: %w", err)
			}
			eq = bytes.Equal(a, b)
		}
		known[k] = eq
		return eq, nil
	}
	left := pairs[:0]
	for i, p := range pairs {
		if i%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		eq := false
		if p.new.Offset == p.old.Offset {
			var err error
			if eq, err = same(key{p.new.Fragment, p.old.Fragment}); err != nil {
				return nil, err
			}
		}
		if !eq {
			left = append(left, p)
		}
	}
	return left, nil
}

// hashTails gives the digest of each tail; they are sorted. Each fragment block
// is decoded once; one that memo knows from another image, by its compressed
// bytes, not at all.
func (d *differ) hashTails(ctx context.Context, r *squashfs.Reader, tails []squashfs.Tail, s *oldState, memo *fragMemo) ([]digest, error) {
	out := make([]digest, len(tails))
	if len(tails) == 0 {
		return out, nil
	}
	type span struct{ from, to int }
	var spans []span
	for i := 0; i < len(tails); {
		j := i
		for j < len(tails) && tails[j].Fragment == tails[i].Fragment {
			j++
		}
		spans = append(spans, span{i, j})
		i = j
	}
	d.progress.add(0, int64(len(tails)))
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range d.o.Workers {
		g.Go(func() error {
			buf := make([]byte, r.BlockSize())
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				k := int(next.Add(1) - 1)
				if k >= len(spans) {
					return nil
				}
				sp := spans[k]
				d.progress.add(int64(sp.to-sp.from), 0)
				key, done, err := memo.recall(r, tails[sp.from:sp.to], out[sp.from:sp.to], buf)
				if err != nil {
					return err
				}
				if done {
					continue
				}
				data, err := decodeFragment(r, tails[sp.from].Fragment, buf)
				if err != nil {
					return err
				}
				if s != nil {
					atomic.AddInt64(&s.stats.DecodedBlocks, 1)
				}
				for i := sp.from; i < sp.to; i++ {
					b, err := cutTail(data, tails[i])
					if err != nil {
						return err
					}
					out[i] = sha256.Sum256(b)
				}
				memo.note(key, tails[sp.from:sp.to], out[sp.from:sp.to])
			}
		})
	}
	return out, g.Wait()
}

// fragMemo remembers the digests of tails in fragment blocks by the digest of
// the block's compressed bytes: images of versions close to each other have many
// fragment blocks in common. A nil memo remembers nothing.
type fragMemo struct {
	mu    sync.Mutex
	known map[digest][]tailSum
}

// tailSum is the digest of size bytes at offset of a block. Lists of them are
// sorted by both.
type tailSum struct {
	offset, size uint32
	sum          digest
}

// recall fills in the digests of tails of one fragment block if it knows all of
// them. key is what note wants.
func (m *fragMemo) recall(r *squashfs.Reader, tails []squashfs.Tail, out []digest, buf []byte) (key digest, ok bool, err error) {
	if m == nil {
		return key, false, nil
	}
	b, err := r.Fragment(tails[0].Fragment)
	if err != nil {
		return key, false, err
	}
	raw, err := r.ReadRaw(b, buf)
	if err != nil {
		return key, false, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%v %d\n", r.Superblock().Compressor, b.Size)
	h.Write(raw)
	h.Sum(key[:0])
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.known[key]
	if known == nil {
		return key, false, nil
	}
	for i, t := range tails {
		j, ok := slices.BinarySearchFunc(known, t, func(s tailSum, t squashfs.Tail) int {
			return cmp.Or(cmp.Compare(s.offset, t.Offset), cmp.Compare(s.size, t.Size))
		})
		if !ok {
			return key, false, nil
		}
		out[i] = known[j].sum
	}
	return key, true, nil
}

// note remembers digests of tails of one fragment block.
func (m *fragMemo) note(key digest, tails []squashfs.Tail, sums []digest) {
	if m == nil {
		return
	}
	list := make([]tailSum, len(tails))
	for i, t := range tails {
		list[i] = tailSum{t.Offset, t.Size, sums[i]}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(list) > len(m.known[key]) {
		m.known[key] = list
	}
}

func decodeFragment(r *squashfs.Reader, i uint32, buf []byte) ([]byte, error) {
	b, err := r.Fragment(i)
	if err != nil {
		return nil, err
	}
	n, err := r.Decode(b, buf[:r.BlockSize()])
	if err != nil {
		return nil, fmt.Errorf("fragment %d: %w", i, err)
	}
	return buf[:n], nil
}

func cutTail(data []byte, t squashfs.Tail) ([]byte, error) {
	if int(t.Offset)+int(t.Size) > len(data) {
		return nil, fmt.Errorf("%w: tail of %d bytes at %d in fragment %d, which has %d bytes", squashfs.ErrCorrupt, t.Size, t.Offset, t.Fragment, len(data))
	}
	return data[t.Offset:][:t.Size], nil
}

// wholeItem is one file to hash.
type wholeItem struct {
	ref  squashfs.Ref
	frag uint32 // sort key: files that share a fragment block follow each other
	sum  digest
}

// compareWholes decides for files that are cut in another way in each image, by
// the digest of their decoded content.
func (d *differ) compareWholes(ctx context.Context, pairs map[*oldState][]wholePair) error {
	var refs []squashfs.Ref
	for _, s := range d.olds {
		for _, p := range pairs[s] {
			refs = append(refs, p.cand.get().newRef)
		}
	}
	want, err := d.hashWholes(ctx, d.new, refs, nil)
	if err != nil {
		return err
	}
	for _, s := range d.olds {
		refs = refs[:0]
		for _, p := range pairs[s] {
			refs = append(refs, p.cand.get().oldRef)
		}
		have, err := d.hashWholes(ctx, s.r, refs, s)
		if err != nil {
			return fmt.Errorf("old image: %w", err)
		}
		for _, p := range pairs[s] {
			c := p.cand.get()
			if want[c.newRef] != have[c.oldRef] {
				c.differ = true
			}
		}
	}
	return nil
}

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
			h := sha256.New()
			buf := make([]byte, squashfs.MaxBlockSize)
			frag := make([]byte, squashfs.MaxBlockSize)
			var data []byte
			at := int64(-1)
			for {
				from := int(next.Add(batch) - batch)
				if from >= len(items) {
					return nil
				}
				for i := from; i < min(from+batch, len(items)); i++ {
					if err := gctx.Err(); err != nil {
						return err
					}
					n, err := r.Inode(items[i].ref)
					if err != nil {
						return err
					}
					f, err := r.File(n)
					if err != nil {
						return err
					}
					h.Reset()
					for k := range f.Blocks() {
						b, err := f.DecodeBlock(k, buf)
						if err != nil {
							return err
						}
						h.Write(b)
					}
					if t := f.Tail(); t.Size > 0 {
						if at != int64(t.Fragment) {
							if data, err = decodeFragment(r, t.Fragment, frag); err != nil {
								return err
							}
							at = int64(t.Fragment)
						}
						b, err := cutTail(data, t)
						if err != nil {
							return err
						}
						h.Write(b)
					}
					if s != nil {
						atomic.AddInt64(&s.stats.DecodedBlocks, int64(f.Blocks())+1)
					}
					h.Sum(items[i].sum[:0])
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
