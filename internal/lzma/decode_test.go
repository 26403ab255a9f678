package lzma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	uxz "github.com/ulikunitz/xz"

	"example.org/snapd/internal/needs"
)

// runXZ runs xz and returns its output, even if it fails.
func runXZ(t testing.TB, in []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(t.Context(), needs.Program(t, "xz"), args...)
	cmd.Stdin = bytes.NewReader(in)
	return cmd.Output()
}

// branchy returns n bytes that exercise all branches of the branch filters.
func branchy(n int) []byte {
	b := sample("random", n)
	for i := 0; i+16 <= n; i += 16 {
		switch i / 16 % 9 {
		case 0: // x86
			b[i], b[i+4] = 0xE8|b[i]&1, -(b[i+4] & 1)
			b[i+6], b[i+10] = 0xE8|b[i+6]&1, -(b[i+10] & 1)
			b[i+7] = 0xE8
		case 1:
			binary.BigEndian.PutUint32(b[i+4:], binary.BigEndian.Uint32(b[i+4:])&0x03FFFFFC|0x48000001)
		case 2:
			b[i+3], b[i+11] = 0xEB, 0xEB
		case 3:
			b[i+1], b[i+3] = 0xF0|b[i+1]&7, 0xF8|b[i+3]&7
			b[i+5], b[i+7], b[i+9] = 0xF0|b[i+5]&7, 0xF8|b[i+7]&7, 0xF8
		case 4:
			b[i+3] = 0x94 | b[i+3]&3
			b[i+7] = 0x90 | b[i+7]&0x60
			b[i+6] &= 1
		case 5:
			b[i], b[i+1] = 0x40, b[i+1]&0x3F
			b[i+8], b[i+9] = 0x7F, b[i+9]|0xC0
		case 6:
			b[i] = b[i]&0xE0 | 0x16
			for slot := range 3 {
				shift := 5 + 41*slot
				lo, hi := shiftLeft(^uint64(0x0FFFFF<<13|1<<36)&(1<<41-1), shift)
				l, h := shiftLeft(5<<37, shift)
				binary.LittleEndian.PutUint64(b[i:], binary.LittleEndian.Uint64(b[i:])&^lo|l)
				binary.LittleEndian.PutUint64(b[i+8:], binary.LittleEndian.Uint64(b[i+8:])&^hi|h)
			}
			b[i] = b[i]&0xE0 | 0x16
		}
	}
	return b
}

// TestFilters decodes the output of xz with each filter, as a stream and with Decode.
func TestFilters(t *testing.T) {
	data := branchy(1<<16 + 7)
	for _, args := range [][]string{
		{}, {"--x86"}, {"--powerpc"}, {"--ia64"}, {"--arm"}, {"--armthumb"}, {"--arm64"}, {"--sparc"},
		{"--delta=dist=4"}, {"--delta=dist=256"}, {"--x86=start=4096"}, {"--ia64=start=65536"},
		{"--delta=dist=3", "--x86", "--arm"}, {"--x86", "--delta"},
	} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			for _, n := range []int{len(data), 3, 16, 33} {
				in, err := runXZ(t, data[:n], append(slices.Clone(args), "--lzma2=preset=1", "-zc", "-T1")...)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(NewReader(iotest.OneByteReader(bytes.NewReader(in)), defaultDict))
				if err != nil || !bytes.Equal(got, data[:n]) {
					t.Errorf("stream of %d bytes: decoded to %d other bytes, %v", n, len(got), err)
				}
				dst := make([]byte, n)
				if m, err := NewReader(nil, defaultDict).Decode(dst, in); err != nil || !bytes.Equal(dst[:m], data[:n]) {
					t.Errorf("block of %d bytes: decoded to %d other bytes, %v", n, m, err)
				}
				if _, err := NewReader(nil, defaultDict).Decode(dst[:n-1], in); !errors.Is(err, ErrTooLong) {
					t.Errorf("into one byte less: expected %v, found %v", ErrTooLong, err)
				}
			}
		})
	}
}

// TestParameters decodes the output of xz with various LZMA parameters, checks, numbers of
// blocks, and sizes in headers.
func TestParameters(t *testing.T) {
	data := slices.Concat(sample("text", 100000), sample("random", 70000), sample("code", 100000), sample("zero", 3<<20))
	for _, args := range [][]string{
		{"--lzma2=preset=0"}, {"--lzma2=preset=6,lc=0,lp=4,pb=4"}, {"--lzma2=preset=1,lc=4,lp=0,pb=0"}, {"--lzma2=preset=1,lc=1,lp=3,pb=1"},
		{"--lzma2=preset=1,dict=4KiB"}, {"--lzma2=preset=1,dict=1537KiB"},
		{"--check=none"}, {"--check=crc32"}, {"--check=crc64"}, {"--check=sha256"},
		{"--block-size=100KiB"}, {"--block-size=64KiB", "-T2"}, {"-0", "--flush-timeout=1"},
	} {
		in, err := runXZ(t, data, append([]string{"-1", "-zc", "-T1"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(NewReader(bytes.NewReader(in), defaultDict))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%v: decoded to %d other bytes, %v", args, len(got), err)
		}
		dst := make([]byte, len(data)+1)
		if m, err := NewReader(nil, defaultDict).Decode(dst, in); err != nil || !bytes.Equal(dst[:m], data) {
			t.Errorf("%v at once: decoded to %d other bytes, %v", args, m, err)
		}
	}
}

// TestStreams decodes several streams with padding, and checks that the Reader refuses the
// same input as xz.
func TestStreams(t *testing.T) {
	one := must(NewEncoder().EncodeXZ(nil, []byte("one"), Options{}))
	two := must(NewEncoder().EncodeXZ(nil, []byte("two"), Options{}))
	none := must(NewEncoder().EncodeXZ(nil, nil, Options{}))
	pad := make([]byte, 8)
	changed := func(i int) []byte {
		b := slices.Clone(one)
		b[(i+len(b))%len(b)] ^= 1
		return b
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want string
		err  error
	}{
		{"one", one, "one", nil},
		{"no block", none, "", nil},
		{"two", slices.Concat(one, two), "onetwo", nil},
		{"padded", slices.Concat(one, pad, two, pad[:4]), "onetwo", nil},
		{"empty", nil, "", io.ErrUnexpectedEOF},
		{"padded first", slices.Concat(pad, one), "", ErrCorrupt},
		{"uneven padding", slices.Concat(one, pad[:3]), "one", io.ErrUnexpectedEOF},
		{"garbage", slices.Concat(one, []byte("garbage and more")), "one", ErrCorrupt},
		{"cut", one[:len(one)-1], "one", io.ErrUnexpectedEOF},
		{"magic", changed(0), "", ErrCorrupt},
		{"check of the data", changed(-33), "", ErrCorrupt},
		{"footer", changed(-1), "one", ErrCorrupt},
		{"flags in the footer", changed(-3), "one", ErrCorrupt},
	} {
		got, err := io.ReadAll(NewReader(bytes.NewReader(tt.in), defaultDict))
		if !errors.Is(err, tt.err) || string(got) != tt.want && tt.err == nil {
			t.Errorf("%s: expected %q and %v, found %q and %v", tt.name, tt.want, tt.err, got, err)
		}
		_, xzErr := runXZ(t, tt.in, "-dc", "-T1")
		if (xzErr == nil) != (tt.err == nil) {
			t.Errorf("%s: xz ends with %v", tt.name, xzErr)
		}
	}
	// The Reader detects a change of any byte, and truncation at any byte.
	for i := range one {
		for _, bad := range [][]byte{changed(i), one[:i]} {
			if got, err := io.ReadAll(NewReader(bytes.NewReader(bad), defaultDict)); err == nil {
				t.Errorf("byte %d of %d changed or missing: decoded to %q without an error", i, len(one), got)
			}
		}
	}
	// Decode decodes only the first stream and ignores the rest.
	dst := make([]byte, 10)
	if n, err := NewReader(nil, defaultDict).Decode(dst, slices.Concat(one, []byte("garbage"))); err != nil || string(dst[:n]) != "one" {
		t.Errorf("first stream: %q, %v", dst[:n], err)
	}
}

// TestMemory checks that the Reader uses no more memory than documented, and refuses data
// that needs a larger dictionary.
func TestMemory(t *testing.T) {
	data := bytes.Repeat(sample("text", 1<<20), 20)
	in, err := runXZ(t, data, "-zc", "-T1", "--lzma2=preset=0,dict=8MiB")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, NewReader(bytes.NewReader(in), 8<<20-1)); !errors.Is(err, ErrMemory) {
		t.Errorf("dictionary of 8 MiB: expected %v, found %v", ErrMemory, err)
	}
	r := NewReader(nil, 8<<20)
	for range 2 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r.Reset(bytes.NewReader(in))
		n, err := io.Copy(io.Discard, struct{ io.Reader }{r})
		if err != nil || n != int64(len(data)) {
			t.Fatal(n, err)
		}
		runtime.ReadMemStats(&after)
		if len(r.chunks.buf) > 8<<20+slack(8<<20) {
			t.Errorf("a window of %d bytes", len(r.chunks.buf))
		}
		// The window grows by doubling, and is used again after Reset.
		if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(3*(8<<20+slack(8<<20))); got > limit {
			t.Errorf("%d bytes allocated, expected at most %d", got, limit)
		}
	}
	// For a small stream, the Reader does not allocate the large dictionary that it declares.
	small, err := runXZ(t, []byte("small"), "-zc", "-T1", "-9")
	if err != nil {
		t.Fatal(err)
	}
	r = NewReader(bytes.NewReader(small), 64<<20)
	if _, err := io.Copy(io.Discard, r); err != nil || len(r.chunks.buf) > 1<<20 {
		t.Errorf("small stream: a window of %d bytes, %v", len(r.chunks.buf), err)
	}
}

// Matches of all small distances and of many lengths, also at the very end, are decoded.
func TestNearMatches(t *testing.T) {
	var all []byte
	for dist := 1; dist <= 40; dist++ {
		period := sample("random", 100+dist)[100:]
		for _, n := range []int{1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 272, 273, 274, 1000} {
			for range n {
				all = append(all, period[len(all)%dist])
			}
			all = append(all, byte(n), byte(dist))
		}
		for cut := range 40 {
			data := all[:len(all)-cut*7]
			in, err := NewEncoder().EncodeXZ(nil, data, Options{})
			if err != nil {
				t.Fatal(err)
			}
			dst := make([]byte, len(data))
			if n, err := NewReader(nil, 1<<26).Decode(dst, in); err != nil || !bytes.Equal(dst[:n], data) {
				t.Fatalf("distance %d, cut %d: %d bytes, %v", dist, cut, n, err)
			}
			if got := decode(t, in); !bytes.Equal(got, data) {
				t.Fatalf("distance %d, cut %d, as a stream: %d bytes", dist, cut, len(got))
			}
		}
	}
}

// Our CRC64 is that of the standard library, however the data is cut.
func TestCRC64(t *testing.T) {
	data := sample("random", 20*crcLane)
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		ours, want := newCRC64(), crc64.New(crcTable)
		for rest := data[:random.IntN(len(data))]; len(rest) > 0; {
			n := 1 + random.IntN(len(rest))
			_, _ = ours.Write(rest[:n])
			_, _ = want.Write(rest[:n])
			rest = rest[n:]
		}
		if got := ours.Sum(nil); !bytes.Equal(got, want.Sum(nil)) {
			t.Fatalf("%x, expected %x", got, want.Sum(nil))
		}
	}
}

// fixed corrects the CRCs of the first stream header and block header, so that fuzzing
// gets past them.
func fixed(in []byte) []byte {
	b := slices.Clone(in)
	if len(b) > 12 {
		copy(b, headerMagic)
		binary.LittleEndian.PutUint32(b[8:], crc32.ChecksumIEEE(b[6:8]))
		if n := 12 + int(b[12])*4; b[12] != 0 && n+4 <= len(b) {
			binary.LittleEndian.PutUint32(b[n:], crc32.ChecksumIEEE(b[12:n]))
		}
	}
	return b
}

// FuzzReader compares the Reader with xz and with another decoder in Go. They must accept
// the same input and decode it to the same bytes.
func FuzzReader(f *testing.F) {
	for i, o := range []Options{{}, {BCJX86: true}, {DictSize: 4096, Level: 1}} {
		f.Add(must(NewEncoder().EncodeXZ(nil, sample(kinds[i+2], 300), o)))
	}
	if _, err := exec.LookPath("xz"); err == nil {
		for _, args := range [][]string{{"--arm", "--lzma2"}, {"--check=sha256"}, {"--check=none", "--block-size=100"}, {"--delta", "--ia64", "--lzma2=lc=0,lp=2"}, {"-T2"}, {"--sparc", "--lzma2"}, {"--powerpc", "--lzma2"}, {"--armthumb", "--lzma2"}, {"--arm64", "--lzma2"}} {
			if in, err := runXZ(f, branchy(300), append(args, "-zc")...); err == nil {
				f.Add(in)
			}
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<16 {
			return
		}
		in = fixed(in)
		got, err := io.ReadAll(io.LimitReader(NewReader(bytes.NewReader(in), 1<<26), 1<<22))
		if len(got) == 1<<22 {
			return
		}
		dst := make([]byte, len(got)+64)
		n, err2 := NewReader(nil, 1<<26).Decode(dst, in)
		if err == nil && (err2 != nil || !bytes.HasPrefix(got, dst[:n])) {
			t.Fatalf("at once: %d bytes, %v; as a stream %d bytes", n, err2, len(got))
		}
		want, xzErr := runXZ(t, in, "-dc", "-T1", "-q", "-Q")
		if errors.Is(err, ErrUnsupported) || errors.Is(err, ErrMemory) {
			return // xz only warns about an unknown check, and may use more memory
		}
		if (err == nil) != (xzErr == nil) {
			t.Fatalf("%d bytes, %v; xz: %d bytes, %v", len(got), err, len(want), xzErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("decoded to other bytes than xz: %d and %d", len(got), len(want))
		}
		if r, uerr := uxz.NewReader(bytes.NewReader(in)); err == nil && uerr == nil {
			if other, uerr := io.ReadAll(r); uerr == nil && !bytes.Equal(got, other) {
				t.Fatalf("decoded to other bytes than the second decoder: %d and %d", len(got), len(other))
			}
		}
	})
}

// FuzzChunks compares decoding of raw LZMA2 data with xz. Raw data has no container, and
// so no CRC that would refuse most changes.
func FuzzChunks(f *testing.F) {
	var e Encoder
	for _, kind := range kinds {
		buf := append(sample(kind, 2000), make([]byte, padding)...)
		_, eff, _ := Options{}.check()
		f.Add(e.c.encode(nil, buf, 2000, 4096, eff))
	}
	f.Add([]byte("\x01\x00\x02abc\x02\x00\x00d\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<16 {
			return
		}
		var src source
		src.reset(bytes.NewReader(in))
		c := new(chunks)
		c.start(1 << 20)
		var got []byte
		var err error
		for err == nil && len(got) < 1<<22 {
			var out []byte
			out, err = c.next(&src)
			got = append(got, out...)
		}
		if err == nil {
			return
		}
		want, xzErr := runXZ(t, in[:src.n], "-dc", "-T1", "-F", "raw", "--lzma2=dict=1MiB", "-q", "-Q")
		if (err == io.EOF) != (xzErr == nil) {
			t.Fatalf("%d bytes, %v; xz: %d bytes, %v", len(got), err, len(want), xzErr)
		}
		if err == io.EOF && !bytes.Equal(got, want) {
			t.Fatalf("decoded to other bytes than xz: %d and %d", len(got), len(want))
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, kind := range []string{"text", "code", "table"} {
		data := sample(kind, 1<<20)
		in := must(NewEncoder().EncodeXZ(nil, data, Options{DictSize: 1 << 20}))
		b.Run(kind, func(b *testing.B) {
			r := NewReader(nil, 1<<20)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := r.Decode(data, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
