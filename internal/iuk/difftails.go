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

// digest is a SHA-256.
type digest [sha256.Size]byte

// compareTails compares tails. Fragment blocks with equal bytes are not decoded, others
// once for each image.
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
	// Hash the old images first: it is then known which tails of the new image differ,
	// and these are kept for the kit, so that their blocks are decoded only once.
	olds := make([]tailSums, len(d.olds))
	for i, s := range d.olds {
		list := pairs[s]
		tails := make([]squashfs.Tail, len(list))
		for i, p := range list {
			tails[i] = p.old
		}
		tails = sortTails(tails)
		have, err := d.hashTails(ctx, s.r, tails, s, memo, nil)
		if err != nil {
			return fmt.Errorf("old image: %w", err)
		}
		olds[i] = tailSums{tails, have}
		if len(d.olds) > 2 {
			runtime.GC() // frees the idle decoders of the previous images
		}
	}
	expected := make([]digest, len(need)) // of the pairs' old tails
	paired := make([]bool, len(need))
	differs := make([]bool, len(need))
	for i, s := range d.olds {
		for _, p := range pairs[s] {
			k, _ := slices.BinarySearchFunc(need, p.new, compareTails)
			sum := olds[i].of(p.old)
			differs[k] = differs[k] || paired[k] && sum != expected[k]
			expected[k], paired[k] = sum, true
		}
	}
	d.kept = newKeptTails(d.keepLimit())
	want, err := d.hashTails(ctx, d.new, need, nil, memo, func(k int, sum digest, b []byte) {
		if differs[k] || sum != expected[k] {
			d.kept.put(need[k], b)
		}
	})
	if err != nil {
		return err
	}
	for i, s := range d.olds {
		for _, p := range pairs[s] {
			k, _ := slices.BinarySearchFunc(need, p.new, compareTails)
			if want[k] != olds[i].of(p.old) {
				p.cand.get().differ = true
			}
		}
		pairs[s] = nil
	}
	return nil
}

// tailSums are the digests of tails, which are sorted.
type tailSums struct {
	tails []squashfs.Tail
	sums  []digest
}

func (t tailSums) of(tail squashfs.Tail) digest {
	i, _ := slices.BinarySearchFunc(t.tails, tail, compareTails)
	return t.sums[i]
}

// sameFragments removes the pairs with equal offsets in fragment blocks that are equal
// byte by byte.
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

// hashTails returns the digests of tails, which are sorted. Each fragment block is
// decoded once, or not at all if memo has it from another image. keep, if any, is called
// from several goroutines with the index, digest and content of each decoded tail.
func (d *differ) hashTails(ctx context.Context, r *squashfs.Reader, tails []squashfs.Tail, s *oldState, memo *fragMemo, keep func(int, digest, []byte)) ([]digest, error) {
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
				key, done, err := memo.get(r, tails[sp.from:sp.to], out[sp.from:sp.to], buf)
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
					if keep != nil {
						keep(i, out[i], b)
					}
				}
				memo.put(key, tails[sp.from:sp.to], out[sp.from:sp.to])
			}
		})
	}
	return out, g.Wait()
}

// fragMemo caches the digests of tails of fragment blocks. The key is the digest of the
// block's compressed bytes: images of similar versions share many fragment blocks. A
// nil memo caches nothing.
type fragMemo struct {
	mu    sync.Mutex
	known map[digest][]tailSum
}

// tailSum is the digest of size bytes at offset of a block. Lists are sorted by offset
// and size.
type tailSum struct {
	offset, size uint32
	sum          digest
}

// get stores the digests of tails of one fragment block in out, if it has all of them.
// key is the argument for put.
func (m *fragMemo) get(r *squashfs.Reader, tails []squashfs.Tail, out []digest, buf []byte) (key digest, ok bool, err error) {
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

// put caches the digests of tails of one fragment block.
func (m *fragMemo) put(key digest, tails []squashfs.Tail, sums []digest) {
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

// keptTails are the contents of tails of the new image, up to a number of bytes. A nil
// one keeps nothing.
type keptTails struct {
	mu    sync.Mutex
	left  int // bytes
	tails map[squashfs.Tail][]byte
}

func newKeptTails(limit int) *keptTails {
	return &keptTails{left: limit, tails: make(map[squashfs.Tail][]byte)}
}

// keptEntry is about the size of a map entry without the content, in bytes.
const keptEntry = 64

func (k *keptTails) put(t squashfs.Tail, b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(b) + keptEntry; n <= k.left {
		k.left -= n
		k.tails[t] = slices.Clone(b)
	}
}

// all returns the contents of tails, or nil if one of them was not kept.
func (k *keptTails) all(tails []squashfs.Tail) [][]byte {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([][]byte, len(tails))
	for i, t := range tails {
		b, ok := k.tails[t]
		if !ok {
			return nil
		}
		out[i] = b
	}
	return out
}

// keepLimit is how many bytes of tails are kept, so that the whole stays below 150 MB.
// With several old images, no memory is left for them.
func (d *differ) keepLimit() int {
	if len(d.olds) > 2 {
		return 0
	}
	return 24 << 20
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
