package lzma

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	uxz "github.com/ulikunitz/xz"
	"pgregory.net/rapid"

	"example.org/snapd/internal/needs"
)

var update = flag.Bool("update", false, "write the golden digests")

// decode reads an .xz stream.
func decode(t testing.TB, b []byte) []byte {
	t.Helper()
	got, err := io.ReadAll(NewReader(bytes.NewReader(b), defaultDict))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// sample returns n bytes of a kind of data, generated from a fixed seed.
func sample(kind string, n int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(n), 7))
	b := make([]byte, 0, n+64)
	words := make([]string, 300)
	for i := range words {
		w := make([]byte, 2+rnd.IntN(9))
		for j := range w {
			w[j] = byte('a' + rnd.IntN(26)*rnd.IntN(26)/26)
		}
		words[i] = string(w)
	}
	for len(b) < n {
		switch kind {
		case "zero":
			b = append(b, 0)
		case "random":
			b = append(b, byte(rnd.Uint32()))
		case "text":
			b = append(b, words[rnd.IntN(300)*rnd.IntN(300)/300]...)
			b = append(b, " \n.,"[min(rnd.IntN(12), 3)])
		case "table": // records that differ in a few bytes
			b = fmt.Appendf(b, "%08d%04x....%c|", len(b), rnd.IntN(50), 'a'+rnd.IntN(3))
		case "code": // calls of few functions from many places
			target := int32(rnd.IntN(20)*1000) - int32(len(b)) - 5
			b = append(b, 0xE8|byte(rnd.IntN(2)), byte(target), byte(target>>8), byte(target>>16), byte(target>>24))
			for range rnd.IntN(6) {
				b = append(b, "\x48\x89\xe8\x00\xff\x8b\x45"[rnd.IntN(7)])
			}
		case "mixed": // incompressible data between compressible data
			for range 40000 {
				b = append(b, byte(rnd.Uint32()))
			}
			b = append(b, bytes.Repeat(b[max(0, len(b)-70000):], 2)...)
			b = append(b, make([]byte, 30000)...)
		}
	}
	return b[:n]
}

var kinds = []string{"zero", "random", "text", "table", "code", "mixed"}

func TestRoundTrip(t *testing.T) {
	e := NewEncoder()
	for _, kind := range kinds {
		for _, n := range []int{0, 1, 2, 3, 4, 5, 9, 100, 4095, 4096, 65537, 300000} {
			data := sample(kind, n)
			for _, o := range []Options{{}, {DictSize: 4096}, {BCJX86: true, DictSize: 1 << 20}, {Level: 1}, {Level: 9}} {
				if o.Level == 9 && n > 100000 {
					continue
				}
				got, err := e.EncodeXZ(nil, data, o)
				if err != nil {
					t.Fatal(err)
				}
				if back := decode(t, got); !bytes.Equal(back, data) {
					t.Fatalf("%s, %d bytes, %+v: decoded to %d other bytes", kind, n, o, len(back))
				}
				if limit := n + n/1000 + 128; len(got) > limit {
					t.Errorf("%s, %d bytes, %+v: %d bytes, expected at most %d", kind, n, o, len(got), limit)
				}
				// An encoder that was used before gives the same output.
				fresh, err := NewEncoder().EncodeXZ([]byte("before"), data, o)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(fresh, append([]byte("before"), got...)) {
					t.Fatalf("%s, %d bytes, %+v: the output of an encoder that was used before differs", kind, n, o)
				}
			}
		}
	}
}

// TestChunks tests data around the limits of LZMA2's chunks.
func TestChunks(t *testing.T) {
	e := NewEncoder()
	for name, data := range map[string][]byte{
		"long and cheap":      sample("zero", 5<<20),
		"mixed":               sample("mixed", 1<<20),
		"stored first":        append(sample("random", 200000), sample("text", 400000)...),
		"stored last":         append(sample("text", 400000), sample("random", 200000)...),
		"hardly compressible": hardly(1 << 20),
	} {
		got, err := e.EncodeXZ(nil, data, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(decode(t, got), data) {
			t.Errorf("%s: decoded to other bytes", name)
		}
		if limit := len(data) + len(data)/10000 + 128; len(got) > limit {
			t.Errorf("%s: %d bytes became %d", name, len(data), len(got))
		}
		r, err := uxz.NewReader(bytes.NewReader(got))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, data) {
			t.Errorf("%s: second decoder: %v", name, err)
		}
	}
}

// hardly returns bytes with an entropy of a little less than 8 bits.
func hardly(n int) []byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.IntN(250))
	}
	return b
}

func TestProperty(t *testing.T) {
	e := NewEncoder()
	rapid.Check(t, func(t *rapid.T) {
		// Copy pieces of earlier data, with various distances and lengths, and change
		// one byte in some of them.
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		size := 1 << rapid.IntRange(0, 17).Draw(t, "size")
		var data []byte
		for len(data) < size {
			n := 1 + rnd.IntN(1<<rnd.IntN(11))
			switch k := rnd.IntN(8); {
			case len(data) == 0 || k == 0:
				for range n {
					data = append(data, byte(rnd.Uint32()))
				}
			case k == 1:
				data = append(data, bytes.Repeat([]byte{byte(rnd.Uint32())}, n)...)
			default:
				from := len(data) - 1 - rnd.IntN(min(len(data), 1<<rnd.IntN(18)))
				for i := range n {
					data = append(data, data[from+i])
				}
				if k > 4 {
					data[len(data)-1-rnd.IntN(n)] ^= byte(rnd.Uint32())
				}
			}
		}
		o := Options{
			DictSize: rapid.IntRange(4096, 1<<20).Draw(t, "dict"),
			BCJX86:   rapid.Bool().Draw(t, "bcj"),
			Level:    rapid.IntRange(0, 9).Draw(t, "level"),
		}
		got, err := e.EncodeXZ(nil, data, o)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(bytes.NewReader(got), o.DictSize)
		if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, data) {
			t.Fatalf("%+v: %d bytes decoded to %d other bytes, %v", o, len(data), len(back), err)
		}
	})
}

// TestXZ decodes the output with xz, the reference implementation, and compares its size
// with that of xz's output.
func TestXZ(t *testing.T) {
	xz := needs.Program(t, "xz")
	pipe := func(in []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), xz, args...)
		cmd.Stdin = bytes.NewReader(in)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("xz %v: %v\n%s", args, err, stderr.Bytes())
		}
		return out
	}
	samples := map[string][]byte{}
	for _, k := range kinds {
		samples[k] = sample(k, 1<<19)
	}
	if exe, err := os.ReadFile(os.Args[0]); err == nil {
		samples["executable"] = exe[:min(len(exe), 1<<19)]
	}
	for name, data := range samples {
		for _, bcj := range []bool{false, true} {
			got, err := NewEncoder().EncodeXZ(nil, data, Options{DictSize: 1 << 20, BCJX86: bcj})
			if err != nil {
				t.Fatal(err)
			}
			if back := pipe(got, "-dc"); !bytes.Equal(back, data) {
				t.Errorf("%s, bcj %v: xz decodes other bytes", name, bcj)
			}
			args := []string{"-zc", "--check=crc32", "--lzma2=preset=6,dict=1MiB"}
			if bcj {
				args = append([]string{"--x86"}, args...)
			}
			ref := pipe(data, append(args, "-T1")...)
			t.Logf("%s, bcj %v: %d bytes, xz %d", name, bcj, len(got), len(ref))
			if len(got) > len(ref)+len(ref)/50+64 {
				t.Errorf("%s, bcj %v: %d bytes, more than 2 %% above xz's %d", name, bcj, len(got), len(ref))
			}
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestDictionary checks that a stream does not declare a larger dictionary than the
// options allow, and that no distance exceeds it.
func TestDictionary(t *testing.T) {
	for _, tt := range []struct{ dict, n, want int }{
		{4096, 1, 4096}, {4097, 1 << 20, 4096}, {6144, 1 << 20, 6144}, {8191, 1 << 20, 6144},
		{1 << 20, 1 << 20, 1 << 20}, {1 << 20, 1000, 4096}, {1 << 20, 700000, 786432},
		{1<<20 - 1, 1 << 20, 786432}, {8 << 20, 1<<20 + 1, 1<<20 + 1<<19},
	} {
		code, size := dictCode(tt.dict, tt.n)
		if real := (2 | int(code)&1) << (code/2 + 11); size != tt.want || real != size {
			t.Errorf("dictCode(%d, %d) = %d, %d; expected %d", tt.dict, tt.n, code, size, tt.want)
		}
	}
	// Random data and a copy further away than the dictionary: no match.
	half := sample("random", 100000)
	got := must(NewEncoder().EncodeXZ(nil, append(half[:len(half):len(half)], half...), Options{DictSize: 65536}))
	if len(got) < 200000 {
		t.Errorf("a match exceeds the dictionary: %d bytes", len(got))
	}
	r := NewReader(bytes.NewReader(must(NewEncoder().EncodeXZ(nil, sample("text", 300000), Options{DictSize: 5000}))), 4096)
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("decoder with 4 KiB: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{DictSize: 4095}, "dictionary: expected 4096 to 1073741824 bytes, found 4095: bad options of the xz encoder"},
		{Options{Level: 10}, "level: expected 1 to 9, found 10: bad options of the xz encoder"},
	} {
		for _, data := range [][]byte{nil, {1}} {
			_, err := NewEncoder().EncodeXZ(nil, data, tt.o)
			if !errors.Is(err, ErrOptions) || err.Error() != tt.want {
				t.Errorf("%+v: expected %q, found %v", tt.o, tt.want, err)
			}
		}
	}
}

// TestGolden pins the encoder's output. A change here changes all images and kits made
// from now on: increment WriterFormat in package iuk, and then run with -update.
func TestGolden(t *testing.T) {
	var got strings.Builder
	for _, kind := range kinds {
		for _, o := range []Options{{DictSize: 1 << 20}, {DictSize: 1 << 20, BCJX86: true}, {Level: 1}, {Level: 9}} {
			data := sample(kind, 200000)
			out := must(NewEncoder().EncodeXZ(nil, data, o))
			fmt.Fprintf(&got, "%s dict=%d bcj=%v level=%d: %d %x\n", kind, o.DictSize, o.BCJX86, o.Level, len(out), sha256.Sum256(out))
		}
	}
	name := filepath.Join("testdata", "golden.txt")
	if *update {
		if err := os.WriteFile(name, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("golden digests (-want +got):\n%s", d)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("abcabcabcabd"), uint8(0))
	f.Add(sample("code", 300), uint8(1))
	f.Add(sample("table", 500), uint8(9))
	f.Add(sample("text", 2000), uint8(2))
	e := NewEncoder()
	f.Fuzz(func(t *testing.T, data []byte, mode uint8) {
		o := Options{DictSize: 4096 << (mode >> 4 & 3), BCJX86: mode&1 != 0, Level: int(mode>>1) % 10}
		if mode&0x80 != 0 { // repeat it, so that long distances occur
			data = bytes.Repeat(data, 1+20000/(len(data)+1))
		}
		got, err := e.EncodeXZ(nil, data, o)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(decode(t, got), data) {
			t.Fatalf("%+v: decoded to other bytes", o)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, kind := range []string{"text", "code", "table"} {
		data := sample(kind, 1<<20)
		b.Run(kind, func(b *testing.B) {
			e := NewEncoder()
			var out []byte
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				out = must(e.EncodeXZ(out[:0], data, Options{DictSize: 1 << 20}))
			}
			b.ReportMetric(float64(len(out)), "bytes")
		})
	}
}
