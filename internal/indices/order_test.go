package indices

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// stanzaTable has stanzas by number, as the metadata does.
type stanzaTable map[meta.PID][]byte

func (s stanzaTable) Stanzas(_ context.Context, pids []meta.PID) (out [][]byte, err error) {
	for _, pid := range pids {
		b, ok := s[pid]
		if !ok {
			return nil, fmt.Errorf("stanza %d: %w", pid, meta.ErrNotFound)
		}
		out = append(out, b)
	}
	return out, nil
}

// known returns the stanzas by digest.
func (s stanzaTable) known() map[[16]byte]meta.PID {
	out := map[[16]byte]meta.PID{}
	for pid, b := range s {
		sum := sha256.Sum256(b)
		out[[16]byte(sum[:16])] = pid
	}
	return out
}

// cutString cuts an index that arrives in pieces of odd sizes.
func cutString(t interface{ Fatal(...any) }, index string, known map[[16]byte]meta.PID) (pieces []piece) {
	c := &cutter{r: iotest.HalfReader(strings.NewReader(index)), known: known, emit: func(p piece) error { pieces = append(pieces, p); return nil }}
	if err := c.run(); err != nil {
		t.Fatal(err)
	}
	return pieces
}

func plainOf(t interface{ Fatal(...any) }, s Stanzas, pieces []piece) string {
	var b bytes.Buffer
	if err := writePlain(context.Background(), &b, s, pieces); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The pieces of any index add up to its bytes.
func TestCut(t *testing.T) {
	table := stanzaTable{1: []byte("Package: a\nVersion: 1"), 2: []byte("Package: b\nVersion: 1"), 3: []byte("Package: b\r\nVersion: 1\r")}
	const a, b = "Package: a\nVersion: 1", "Package: b\nVersion: 1"
	for _, test := range []struct {
		name, index string
		stanzas     int // pieces that are stanzas
	}{
		{name: "empty", index: ""},
		{name: "one line end", index: "\n"},
		{name: "usual", index: a + "\n\n" + b + "\n\n", stanzas: 2},
		{name: "no final blank line", index: a + "\n\n" + b + "\n", stanzas: 2},
		{name: "no final newline", index: a + "\n\n" + b, stanzas: 2},
		{name: "blank lines before and between", index: "\n\n" + a + "\n\n\n\n" + b + "\n\n\n", stanzas: 2},
		{name: "twice", index: a + "\n\n" + a + "\n\n", stanzas: 2},
		{name: "out of order", index: b + "\n\n" + a + "\n\n", stanzas: 2},
		{name: "lines of carriage returns", index: a + "\n\r\r\n" + b + "\n\r\n", stanzas: 2},
		{name: "CRLF", index: "Package: b\r\nVersion: 1\r\n\r\n" + a + "\n\n", stanzas: 2},
		{name: "comment", index: "# a comment\n\n" + a + "\n\n", stanzas: 1},
		{name: "unknown stanza", index: "Package: c\n\n" + a + "\n\n", stanzas: 1},
		{name: "a line of blanks", index: a + "\n \n" + b + "\n\n"},
		{name: "very long", index: a + "\n\n" + strings.Repeat("Description: x\n", 200_000) + "\n" + b + "\n\n", stanzas: 2},
		{name: "one very long line", index: strings.Repeat("x", 3<<20) + "\n\n" + b, stanzas: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			pieces := cutString(t, test.index, table.known())
			if got := plainOf(t, table, pieces); got != test.index {
				t.Errorf("%d bytes became %d", len(test.index), len(got))
			}
			n := 0
			for _, p := range pieces {
				if p.pid != 0 {
					n++
				}
			}
			if n != test.stanzas {
				t.Errorf("%d stanzas in %d pieces, expected %d", n, len(pieces), test.stanzas)
			}
		})
	}
}

// Random histories of an index are restored from their differences.
func TestOrderHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blobs := blobTable{}
		table := stanzaTable{}
		for i := range 40 {
			table[meta.PID(i+1)] = fmt.Appendf(nil, "Package: p%d", i)
		}
		var chain []cas.Digest
		var old []piece
		for range rapid.IntRange(1, 6).Draw(t, "generations") {
			var index strings.Builder
			for _, pid := range rapid.SliceOfN(rapid.IntRange(1, 45), 0, 60).Draw(t, "stanzas") {
				fmt.Fprintf(&index, "Package: p%d%s", pid-1, rapid.SampledFrom([]string{"\n\n", "\n\n", "\n\n", "\n\n\n", "\n\r\n"}).Draw(t, "gap"))
			}
			pieces := cutString(t, index.String(), table.known())
			var base cas.Digest
			if len(chain) > 0 {
				base = chain[0]
			}
			blob, err := writeOrder(base, old, pieces)
			if err != nil {
				t.Fatal(err)
			}
			chain = append([]cas.Digest{blobs.put(blob)}, chain...)
			if old, err = loadOrder(context.Background(), blobs, chain); err != nil {
				t.Fatal(err)
			}
			if got := plainOf(t, table, old); got != index.String() {
				t.Fatalf("got %q, expected %q", got, index.String())
			}
		}
	})
}

// The size of a difference depends on the change.
func TestOrderSize(t *testing.T) {
	var old, pieces []piece
	for i := range 63_000 {
		p := piece{pid: meta.PID(i + 1), blank: true}
		old = append(old, p)
		if i%1000 == 0 {
			p.pid = meta.PID(70_000 + i/1000)
		}
		pieces = append(pieces, p)
	}
	whole, err := writeOrder(cas.Digest{}, nil, old)
	if err != nil || len(whole) > 100 {
		t.Errorf("first order: %d bytes, %v", len(whole), err)
	}
	blob, err := writeOrder(cas.Sum(whole), old, pieces)
	if err != nil || len(blob) > 500 {
		t.Errorf("63 changes in 63,000: %d bytes, %v", len(blob), err)
	}
}

// blobTable is a store of blobs.
type blobTable map[cas.Digest][]byte

func (b blobTable) put(data []byte) cas.Digest {
	d := cas.Sum(data)
	b[d] = data
	return d
}

type openBlob struct {
	*bytes.Reader
	info cas.Info
}

func (o openBlob) Close() error   { return nil }
func (o openBlob) Info() cas.Info { return o.info }

func (b blobTable) Open(_ context.Context, d cas.Digest) (cas.Blob, error) {
	data, ok := b[d]
	if !ok {
		return nil, cas.ErrNotFound
	}
	return openBlob{bytes.NewReader(data), cas.Info{Digest: d, Size: int64(len(data))}}, nil
}

func (b blobTable) ReadInto(_ context.Context, d cas.Digest, buf []byte) (int, error) {
	return copy(buf, b[d]), nil
}

func (b blobTable) Stat(_ context.Context, d cas.Digest) (cas.Info, error) {
	data, ok := b[d]
	if !ok {
		return cas.Info{}, cas.ErrNotFound
	}
	return cas.Info{Digest: d, Size: int64(len(data))}, nil
}

func TestLoadOrderRefuses(t *testing.T) {
	blobs := blobTable{}
	order := func(base cas.Digest, pieces ...piece) cas.Digest {
		blob, err := writeOrder(base, nil, pieces)
		if err != nil {
			t.Fatal(err)
		}
		return blobs.put(blob)
	}
	root := order(cas.Digest{}, piece{pid: 1, blank: true})
	for _, test := range []struct {
		name  string
		chain []cas.Digest
		want  error
	}{
		{name: "none", want: ErrOrder},
		{name: "missing", chain: []cas.Digest{cas.Sum(nil)}, want: cas.ErrNotFound},
		{name: "not an order", chain: []cas.Digest{blobs.put([]byte("Package: a\n"))}, want: ErrOrder},
		{name: "its base is left out", chain: []cas.Digest{order(root)}, want: ErrOrder},
		{name: "another base", chain: []cas.Digest{order(cas.Sum([]byte("x"))), root}, want: ErrOrder},
		{name: "too long", chain: make([]cas.Digest, maxChain+1), want: ErrOrder},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := loadOrder(t.Context(), blobs, test.chain); !errors.Is(err, test.want) {
				t.Errorf("%v, expected %v", err, test.want)
			}
		})
	}
}

// A forged order only makes the reader fail with ErrOrder, and does not make it use
// memory without bounds.
func FuzzReadOrder(f *testing.F) {
	old := []piece{{pid: 1, blank: true}, {text: "x"}, {pid: 3}}
	for _, pieces := range [][]piece{nil, old, {{pid: 9, blank: true}, {pid: 10, blank: true}, {text: "abc"}, {pid: 1, blank: true}}} {
		blob, err := writeOrder(cas.Digest{}, old, pieces)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		pieces, err := readOrder(blob, old)
		if err != nil && !errors.Is(err, ErrOrder) {
			t.Fatal(err)
		}
		if len(pieces) > maxPieces {
			t.Fatal(len(pieces))
		}
	})
}
