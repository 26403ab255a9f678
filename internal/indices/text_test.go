package indices

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"example.org/snapd/internal/cas"
)

// putText stores the order of an index without stanzas, as a difference to those of chain,
// and returns the new chain.
func putText(t interface{ Fatal(...any) }, blobs blobTable, chain []cas.Digest, index string) []cas.Digest {
	var old *text
	var base cas.Digest
	if len(chain) > 0 {
		var err error
		if old, err = loadText(context.Background(), blobs, chain); err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		base = chain[0]
	}
	var b bytes.Buffer
	if err := writeText(&b, base, old, iotest.HalfReader(strings.NewReader(index))); err != nil {
		t.Fatal(err)
	}
	return append([]cas.Digest{blobs.put(b.Bytes())}, chain...)
}

// readText restores an index.
func readText(blobs cas.Reader, chain []cas.Digest) (string, error) {
	x, err := loadText(context.Background(), blobs, chain)
	if err != nil {
		return "", err
	}
	defer x.Close()
	var b strings.Builder
	err = x.writeTo(context.Background(), &b)
	return b.String(), err
}

func contentsLines(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("usr/share/doc/package%d/copyright\tdoc/package%d\n", i*i, i))
	}
	return lines
}

// An index without stanzas is restored from its difference to any other, and a changed
// line costs little more than the line.
func TestTextOrders(t *testing.T) {
	lines := contentsLines(5000)
	all := strings.Join(lines, "")
	inserted := strings.Join(slices.Insert(slices.Clone(lines), 2500, "usr/bin/new\tutils/new\n"), "")
	removed := strings.Join(slices.Delete(slices.Clone(lines), 100, 103), "")
	noise := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(noise)
	noise = bytes.ReplaceAll(noise, []byte{0}, []byte("\n"))
	for _, test := range []struct {
		name     string
		old, new string
		most     int // bytes of the difference
	}{
		{name: "empty"},
		{name: "only line ends", old: all, new: "\r\n\r\n", most: 200},
		{name: "no line end", old: all, new: "no line end", most: 200},
		{name: "the same", old: all, new: all, most: 120},
		{name: "a line inserted", old: all, new: inserted, most: 160},
		{name: "a line removed", old: inserted, new: all, most: 120},
		{name: "three lines removed", old: all, new: removed, most: 120},
		{name: "the beginning", old: all, new: all[:1000], most: 200},
		{name: "the end", old: all, new: all[len(all)-100_001:], most: 200},
		{name: "twice", old: all, new: all + all, most: 160},
		{name: "halves exchanged", old: all, new: all[len(all)/2:] + all[:len(all)/2], most: 300},
		{name: "equal lines", old: strings.Repeat("x\n", 300_000), new: strings.Repeat("x\n", 300_001), most: 300},
		{name: "long lines", old: strings.Repeat("x", 300_000) + "\ny", new: strings.Repeat("x", 300_000) + "\nz", most: 300},
		{name: "other", old: all, new: string(noise), most: len(noise) + 1000},
		{name: "after other", old: string(noise), new: "first\n" + string(noise), most: 200},
		{name: "from nothing", new: all, most: 40_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			blobs := blobTable{}
			chain := putText(t, blobs, putText(t, blobs, nil, test.old), test.new)
			got, err := readText(blobs, chain)
			if err != nil || got != test.new {
				t.Errorf("%d bytes came back as %d: %v", len(test.new), len(got), err)
			}
			if n := len(blobs[chain[0]]); test.most > 0 && n > test.most {
				t.Errorf("the difference takes %d bytes, expected at most %d", n, test.most)
			}
		})
	}
	if err := writeText(io.Discard, cas.Digest{}, nil, strings.NewReader("a\n\x00b\n")); !errors.Is(err, errKeep) {
		t.Errorf("binary data: %v", err)
	}
}

// The same two indices always make the same order.
func TestTextOrderIsDeterministic(t *testing.T) {
	lines := contentsLines(20_000)
	old := strings.Join(lines, "")
	for i := 0; i < len(lines); i += 37 {
		lines[i] = strings.ToUpper(lines[i])
	}
	blobs := blobTable{}
	chain := putText(t, blobs, nil, old)
	first := putText(t, blobs, chain, strings.Join(lines, ""))
	if second := putText(t, blobs, chain, strings.Join(lines, "")); first[0] != second[0] {
		t.Errorf("%s, then %s", first[0], second[0])
	}
}

// Random histories of an index are restored from their differences, even from a
// difference to an order of the first format.
func TestTextHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blobs := blobTable{}
		var chain []cas.Digest
		lines := contentsLines(rapid.IntRange(0, 300).Draw(t, "lines"))
		if rapid.Bool().Draw(t, "first format") {
			text := strings.Join(lines, "")
			blob, err := writeOrder(cas.Digest{}, nil, []piece{{text: text[:len(text)/2]}, {text: text[len(text)/2:]}})
			if err != nil {
				t.Fatal(err)
			}
			chain = []cas.Digest{blobs.put(blob)}
		}
		for i := range rapid.IntRange(1, 6).Draw(t, "generations") {
			for range rapid.IntRange(0, 8).Draw(t, "changes") {
				at := rapid.IntRange(0, len(lines)).Draw(t, "at")
				n := rapid.IntRange(0, len(lines)-at).Draw(t, "removed")
				lines = slices.Replace(lines, at, at+min(n, 40), fmt.Sprintf("new in %d at %d\n", i, at))
			}
			index := strings.Join(lines, "")
			chain = putText(t, blobs, chain, index)
			if got, err := readText(blobs, chain); err != nil || got != index {
				t.Fatalf("got %d bytes, %v, expected %d", len(got), err, len(index))
			}
		}
	})
}

// contents writes lines like those of Contents, sorted. The files of some packages have
// changed.
type contents struct {
	packages, files int
	changed         map[int]int // packages, and how often they changed

	pkg, file int
	line      []byte
}

func (c *contents) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(c.line) == 0 {
			if c.file == c.files {
				return n, io.EOF
			}
			// One file of each package after the other, as sorting by path has it.
			hash := uint32(c.pkg*2654435761) ^ uint32(c.file*40503)
			c.line = fmt.Appendf(c.line[:0], "usr/share/%03d/package%d/%08x/part-%x", c.file, c.pkg, hash, hash*hash)
			if v := c.changed[c.pkg]; v > 0 && c.file%7 == v%7 {
				c.line = fmt.Appendf(c.line, ".%d", v)
			}
			c.line = fmt.Appendf(c.line, "%*ssection/package%d\n", 90-len(c.line), " ", c.pkg)
			if c.pkg++; c.pkg == c.packages {
				c.pkg, c.file = 0, c.file+1
			}
		}
		m := copy(p[n:], c.line)
		c.line = c.line[m:]
		n += m
	}
	return n, nil
}

// peakWriter records the largest size of the heap during the writes.
type peakWriter struct {
	io.Writer
	next, n, peak int64
}

func (w *peakWriter) Write(p []byte) (int, error) {
	if w.n += int64(len(p)); w.n >= w.next {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.peak = max(w.peak, int64(m.HeapInuse))
		w.next = w.n + 4<<20
	}
	return w.Writer.Write(p)
}

// The lists of files of a large distribution take little memory, and a sync that changed
// the files of 63 packages costs little.
func TestLargeText(t *testing.T) {
	packages, memory := 30_000, int64(60<<20)
	if testing.Short() {
		packages = 3000
	}
	dir := fileBlobs{t.TempDir()}
	var chain []cas.Digest
	changed := map[int]int{}
	for gen := range 3 {
		if gen > 0 {
			for i := range 63 {
				changed[(i*i*97+gen*31)%packages] += gen
			}
		}
		state := func() io.Reader { return &contents{packages: packages, files: 50, changed: changed} }
		var old *text
		var base cas.Digest
		if gen > 0 {
			var err error
			if old, err = loadText(t.Context(), dir, chain); err != nil {
				t.Fatal(err)
			}
			base = chain[0]
		}
		runtime.GC()
		var plain, size int64
		measured := &peakWriter{Writer: io.Discard}
		d := dir.put(t, func(w io.Writer) error {
			counted := io.TeeReader(state(), measured)
			return writeText(io.MultiWriter(w, countWriter{&size}), base, old, counted)
		})
		if old != nil {
			old.Close()
		}
		chain = append([]cas.Digest{d}, chain...)
		again, err := loadText(t.Context(), dir, chain)
		if err != nil {
			t.Fatal(err)
		}
		compared := &peakWriter{Writer: &compareWriter{want: state()}}
		if err := again.writeTo(t.Context(), io.MultiWriter(compared, countWriter{&plain})); err != nil {
			t.Fatal(err)
		}
		again.Close()
		t.Logf("generation %d: %d bytes, order %d, heap %d when written and %d when read", gen, plain, size, measured.peak, compared.peak)
		if peak := max(measured.peak, compared.peak); peak > memory {
			t.Errorf("the heap had %d bytes, expected at most %d", peak, memory)
		}
		if gen > 0 && size > 30_000 {
			t.Errorf("the files of 63 packages take %d bytes", size)
		}
	}
}

type countWriter struct{ n *int64 }

func (c countWriter) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return len(p), nil
}

// compareWriter fails if other bytes than expected are written.
type compareWriter struct {
	want io.Reader
	buf  []byte
}

func (c *compareWriter) Write(p []byte) (int, error) {
	c.buf = slices.Grow(c.buf[:0], len(p))[:len(p)]
	if _, err := io.ReadFull(c.want, c.buf); err != nil {
		return 0, err
	}
	if !bytes.Equal(c.buf, p) {
		return 0, errors.New("other bytes")
	}
	return len(p), nil
}

// order describes an order of an index without stanzas, which is written with faults.
type order struct {
	base   cas.Digest
	frames []string
	list   func(list []byte) []byte // changes the list
	ops    []int64                  // pairs: n<<1|kind and, of a copy, the relative start
	sum    func(i int, sum *[halfSum]byte)
	blob   func(blob []byte) []byte
}

func (o order) write(t *testing.T) []byte {
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	blob := append([]byte(textMagic), o.base[:]...)
	list := binary.AppendUvarint(nil, uint64(len(o.frames)))
	for i, f := range o.frames {
		packed := zw.EncodeAll([]byte(f), nil)
		sum := half([]byte(f))
		if o.sum != nil {
			o.sum(i, &sum)
		}
		list = binary.AppendUvarint(list, uint64(len(packed)))
		list = binary.AppendUvarint(list, uint64(len(f)))
		list = append(list, sum[:]...)
		blob = append(blob, packed...)
	}
	for i := 0; i < len(o.ops); i++ {
		list = binary.AppendUvarint(list, uint64(o.ops[i]))
		if o.ops[i]&1 == opTextCopy {
			i++
			list = binary.AppendVarint(list, o.ops[i])
		}
	}
	if o.list != nil {
		list = o.list(list)
	}
	packed := zw.EncodeAll(list, nil)
	sum := half(packed)
	blob = append(append(blob, packed...), sum[:]...)
	blob = binary.BigEndian.AppendUint32(blob, uint32(len(packed)))
	if o.blob != nil {
		blob = o.blob(blob)
	}
	return blob
}

// Damaged and forged orders are refused, and their text is not used.
func TestTextOrderRefuses(t *testing.T) {
	blobs := blobTable{}
	root := blobs.put(order{frames: []string{"0123456789"}, ops: []int64{10<<1 + opTextFresh}}.write(t))
	first, err := writeOrder(cas.Digest{}, nil, []piece{{pid: 1, blank: true}})
	if err != nil {
		t.Fatal(err)
	}
	stanzas := blobs.put(first)
	fresh := func(n int64) []int64 { return []int64{n<<1 + opTextFresh} }
	long := strings.Repeat("x", frameText+1)
	for _, test := range []struct {
		name  string
		order order
		below []cas.Digest
		want  error // nil: it is right
		says  string
	}{
		{name: "right", order: order{frames: []string{"abc"}, ops: fresh(3)}},
		{name: "right difference", order: order{base: root, frames: []string{"abc"}, ops: []int64{4<<1 + opTextCopy, 6, 3<<1 + opTextFresh}}, below: []cas.Digest{root}},
		{name: "fingerprint of the text", order: order{frames: []string{"abc"}, ops: fresh(3), sum: func(_ int, s *[halfSum]byte) { s[15] ^= 1 }}, want: cas.ErrCorrupt, says: "frame 0 of 1"},
		{name: "fingerprint of the list", order: order{frames: []string{"abc"}, ops: fresh(3), blob: func(b []byte) []byte { b[len(b)-5] ^= 1; return b }}, want: cas.ErrCorrupt, says: "list is damaged"},
		{name: "frame damaged", order: order{frames: []string{"abc"}, ops: fresh(3), blob: func(b []byte) []byte { b[textHead+8] ^= 1; return b }}, want: cas.ErrCorrupt, says: "frame 0 of 1"},
		{name: "list damaged", order: order{frames: []string{"abc"}, ops: fresh(3), blob: func(b []byte) []byte { b[len(b)-textFoot-2] ^= 1; return b }}, want: cas.ErrCorrupt, says: "list is damaged"},
		{name: "truncated by a byte", order: order{frames: []string{"abc"}, ops: fresh(3), blob: func(b []byte) []byte { return b[:len(b)-1] }}, want: ErrOrder, says: "a list of"},
		{name: "truncated in its text", order: order{frames: []string{"abc"}, ops: fresh(3), blob: func(b []byte) []byte { return b[:textHead+2] }}, want: ErrOrder, says: "it has"},
		{name: "truncated in its head", order: order{blob: func(b []byte) []byte { return b[:textHead-1] }}, want: ErrOrder, says: "ends at byte"},
		{name: "truncated in its magic", order: order{blob: func(b []byte) []byte { return b[:5] }}, want: ErrOrder, says: "ends at byte"},
		{name: "bytes after its end", order: order{blob: func(b []byte) []byte { return append(b, 0, 0, 0, 0) }}, want: cas.ErrCorrupt, says: "list is damaged"},
		{name: "list larger than the blob", order: order{blob: func(b []byte) []byte { b[len(b)-3] = 1; return b }}, want: ErrOrder, says: "a list of"},
		{name: "another format", order: order{blob: func(b []byte) []byte { b[len(textMagic)-2] = '3'; return b }}, want: ErrOrder, says: "does not begin"},
		{name: "another base", order: order{base: cas.Sum([]byte("x"))}, below: []cas.Digest{root}, want: ErrOrder, says: "it is a difference to"},
		{name: "its base is left out", order: order{base: root}, want: ErrOrder, says: "it is a difference to"},
		{name: "its base is missing", order: order{base: cas.Sum(nil)}, below: []cas.Digest{cas.Sum(nil)}, want: cas.ErrNotFound},
		{name: "its base has stanzas", order: order{base: stanzas}, below: []cas.Digest{stanzas}, want: ErrOrder, says: "only text"},
		{name: "more text used than there is", order: order{frames: []string{"abc"}, ops: fresh(4)}, want: ErrOrder, says: "wants 4 bytes of the 3"},
		{name: "less text used than there is", order: order{frames: []string{"abc"}, ops: fresh(2)}, want: ErrOrder, says: "2 of 3 bytes are used"},
		{name: "text without an operation", order: order{frames: []string{"abc"}}, want: ErrOrder, says: "0 of 3 bytes are used"},
		{name: "copy of nothing", order: order{ops: []int64{1<<1 + opTextCopy, 0}}, want: ErrOrder, says: "copies 1 bytes at 0 of 0"},
		{name: "copy beyond the end", order: order{base: root, ops: []int64{4<<1 + opTextCopy, 7}}, below: []cas.Digest{root}, want: ErrOrder, says: "copies 4 bytes at 7 of 10"},
		{name: "copy before the start", order: order{base: root, ops: []int64{4<<1 + opTextCopy, -1}}, below: []cas.Digest{root}, want: ErrOrder, says: "copies 4 bytes at -1"},
		{name: "copy of 0 bytes", order: order{base: root, ops: []int64{opTextCopy, 0}}, below: []cas.Digest{root}, want: ErrOrder, says: "on 0 bytes"},
		{name: "huge copy", order: order{base: root, ops: []int64{1 << 62, 1}}, below: []cas.Digest{root}, want: ErrOrder, says: "operation 1 on"},
		{name: "too much text in a frame", order: order{frames: []string{long}, ops: fresh(int64(len(long)))}, want: ErrOrder, says: "frame 0"},
		{name: "too many frames", order: order{list: func([]byte) []byte { return binary.AppendUvarint(nil, 1<<40) }}, want: ErrOrder, says: "frames"},
		{name: "frames without their text", order: order{list: func([]byte) []byte { return append(binary.AppendUvarint(nil, 2), make([]byte, 40)...) }}, want: ErrOrder, says: "frame 0"},
		{name: "an operation that ends in the middle", order: order{frames: []string{"abc"}, ops: fresh(3), list: func(l []byte) []byte { return append(l, 0x80) }}, want: ErrOrder, says: "operation 2"},
		{name: "a list that unpacks to too much", order: order{list: func([]byte) []byte { return make([]byte, maxList+1) }}, want: ErrOrder, says: "exceed"},
		{name: "too many parts", order: order{base: root, ops: append([]int64{1<<1 + opTextCopy, 4}, slices.Repeat([]int64{1<<1 + opTextCopy, 2, 1<<1 + opTextCopy, -4}, maxExtents/2+1)...)}, below: []cas.Digest{root}, want: ErrOrder, says: "more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			chain := append([]cas.Digest{blobs.put(test.order.write(t))}, test.below...)
			if _, err := readText(blobs, chain); !errors.Is(err, test.want) || err != nil && (test.want == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("%v, expected %v: %s", err, test.want, test.says)
			}
		})
	}
	if _, err := loadText(t.Context(), blobs, nil); !errors.Is(err, ErrOrder) {
		t.Errorf("no order: %v", err)
	}
	if _, err := loadText(t.Context(), blobs, make([]cas.Digest, maxChain+1)); !errors.Is(err, ErrOrder) {
		t.Errorf("too many: %v", err)
	}
	lying := blobTable{root: order{frames: []string{"0123456780"}, ops: fresh(10)}.write(t)}
	if _, err := readText(lying, []cas.Digest{root}); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("another order under the same digest: %v", err)
	}
}

// An index with too many parts is not written as a difference.
func TestTextTooFine(t *testing.T) {
	blobs := blobTable{}
	chain := putText(t, blobs, nil, "0123456789")
	ops := append([]int64{1<<1 + opTextCopy, 4}, slices.Repeat([]int64{1<<1 + opTextCopy, 2, 1<<1 + opTextCopy, -4}, maxExtents/4)...)
	chain = append([]cas.Digest{blobs.put(order{base: chain[0], ops: ops}.write(t))}, chain...)
	index, err := readText(blobs, chain)
	if err != nil {
		t.Fatal(err)
	}
	old, err := loadText(t.Context(), blobs, chain)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := writeText(io.Discard, chain[0], old, strings.NewReader(index+"x")); err != nil {
		t.Errorf("once: %v", err)
	}
	if err := writeText(io.Discard, chain[0], old, strings.NewReader(index+"x"+index+"x"+index)); !errors.Is(err, errTooFine) {
		t.Errorf("three times: %v, expected %v", err, errTooFine)
	}
}

// A forged order does not make the reader fail in an unexpected way, or use memory
// without bounds.
func FuzzReadText(f *testing.F) {
	blobs := blobTable{}
	chain := putText(f, blobs, nil, strings.Join(contentsLines(50), ""))
	f.Add(blobs[chain[0]])
	f.Add(blobs[putText(f, blobs, chain, strings.Join(contentsLines(60), "")+"x\n")[0]])
	f.Fuzz(func(t *testing.T, blob []byte) {
		mine := blobTable{chain[0]: blobs[chain[0]]}
		d := mine.put(blob)
		for _, c := range [][]cas.Digest{{d}, {d, chain[0]}} {
			x, err := loadText(t.Context(), mine, c)
			if err == nil {
				if len(x.extents) > maxExtents+1 || x.size() > maxIndex {
					t.Fatal(len(x.extents), x.size())
				}
				_, err = x.at(x.size() / 2)
				x.Close()
			}
			if err != nil && !errors.Is(err, ErrOrder) && !errors.Is(err, cas.ErrCorrupt) {
				t.Fatal(err)
			}
		}
	})
}
