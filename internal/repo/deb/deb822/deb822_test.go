package deb822

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func readAll(r io.Reader, max int) (stanzas []string, err error) {
	for pr := NewReader(r, max); ; {
		p, err := pr.Next()
		if err == io.EOF {
			return stanzas, nil
		}
		if err != nil {
			return stanzas, err
		}
		stanzas = append(stanzas, string(p.Bytes()))
	}
}

func TestReader(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"empty", "", nil},
		{"only newlines", "\n\n\n", nil},
		{"one", "Package: a\n", []string{"Package: a"}},
		{"no last newline", "Package: a\n\nPackage: b", []string{"Package: a", "Package: b"}},
		{"blank lines between", "\n\nPackage: a\n\n\n\nPackage: b\n\n", []string{"Package: a", "Package: b"}},
		{"a line of blanks continues", "Package: a\nDescription: x\n \n y\n\nPackage: b\n", []string{"Package: a\nDescription: x\n \n y", "Package: b"}},
		{"empty lines of carriage returns", "\r\n\nPackage: a\r\n\r\nPackage: b\n\r\r\n\rPackage: c\r\n", []string{"Package: a\r", "Package: b", "Package: c"}},
		{"NUL", "Package: a\nX: \x00\n", []string{"Package: a\nX: \x00"}},
		{"last line without a colon", "Package: a\nstray\n\nPackage: b\nX: y\n\nPackage: c\n", []string{"Package: a\nstray\n\nPackage: b\nX: y", "Package: c"}},
		{"colon in a line that continues", "Package: a\nstray\n x:\n\nPackage: b\n", []string{"Package: a\nstray\n x:", "Package: b"}},
		{"carriage return at a line's end", "Package: a\nDescription: x\r\n y\n", []string{"Package: a\nDescription: x\r\n y"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole":   func(r io.Reader) io.Reader { return r },
				"byte":    iotest.OneByteReader,
				"dataerr": iotest.DataErrReader,
			} {
				got, err := readAll(wrap(strings.NewReader(tt.in)), 0)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("%s: -want +got\n%s", name, d)
				}
			}
		})
	}
}

// TestReaderWindow reads stanzas of every size around that of the window.
func TestReaderWindow(t *testing.T) {
	var in bytes.Buffer
	var want []string
	for i := range 400 {
		p := fmt.Sprintf("Package: p%d\nDescription: %s", i, strings.Repeat("x", i*13%5000*(1+i%7*20)))
		want = append(want, p)
		in.WriteString(p + "\n\n")
	}
	got, err := readAll(iotest.HalfReader(&in), 0)
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(want, got) {
		t.Errorf("read %d stanzas, expected %d, or other bytes", len(got), len(want))
	}
}

func TestReaderRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
		is             error
	}{
		{"stray line at the end", "Package: a\n\nPackage: b\nstray\nother\n", `stanza 2 at byte 12: line "stray" is not a field: malformed control data`, ErrMalformed},
		{"large field", "Package: a\n\nPackage: b\nDescription: " + strings.Repeat("x", 2000) + "\n", `stanza 2 (b) at byte 12: field "Description": more than 1000 bytes: too large`, ErrTooLarge},
		{"large stanza at once", "Package: b\nDescription: " + strings.Repeat("x", 1100) + "\n\n", `stanza 1 (b) at byte 0: field "Description": more than 1000 bytes: too large`, ErrTooLarge},
		{"many fields", "Package: b\n" + strings.Repeat("Xyz: abc\n", 300) + "\n\n", `stanza 1 (b) at byte 0: field "Xyz": more than 1000 bytes: too large`, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readAll(strings.NewReader(tt.in), 1000)
			if !errors.Is(err, tt.is) || err.Error() != tt.want {
				t.Errorf("error %v, expected %s", err, tt.want)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := readAll(io.MultiReader(strings.NewReader("Package: a\nX:"), iotest.ErrReader(broken)), 0); err != broken {
		t.Errorf("error %v, expected the stream's own", err)
	}
}

// endless is a field that never ends.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	if e.n == 0 {
		copy(p, "Package: bomb\nDepends: ")
	}
	e.n += int64(len(p))
	return len(p), nil
}

func TestReaderHundredMegabyteField(t *testing.T) {
	e := &endless{}
	_, err := NewReader(e, 0).Next()
	const want = `stanza 1 (bomb) at byte 0: field "Depends": more than 4194304 bytes: too large`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, expected %s", err, want)
	}
	if e.n > 8<<20 {
		t.Errorf("read %d bytes before the error", e.n)
	}
}

func TestStanza(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
	}{
		{"Depends:  b,\n c \nEmpty:\nDescription: d\n .\n\te", []string{`Depends="b,\n c"`, `Empty=""`, `Description="d\n .\n\te"`}},
		{"Package:a\nDEPENDS : b\n: c\n#x: y\n-z:\n", []string{`Package="a"`, `DEPENDS="b"`, `="c"`, `#x="y"`, `-z=""`}},
		{" x\n y:\nA: b", []string{`A="b"`}},
		{"A: b\nstray\nB: c\n d", []string{`A="b"`, "stray\nB=\"c\\n d\""}},
		{"A:\n b\r\n\r c\r\n\rB: d\r", []string{`A="\n b\r\n\r c"`, `B="d"`}},
		{"A: b\n\fc\n\vd", []string{`A="b\n\fc\n\vd"`}},
	} {
		var got []string
		s := StanzaOf([]byte(tt.in)).Scan()
		for s.Next() {
			got = append(got, fmt.Sprintf("%s=%q", s.Name(), s.Value()))
		}
		if d := cmp.Diff(tt.want, got); d != "" || s.Err() != nil {
			t.Errorf("%q: %v, -want +got\n%s", tt.in, s.Err(), d)
		}
	}
	if v, ok := StanzaOf([]byte("A: b\na: c\nB: d")).Get("A"); v != "c" || !ok {
		t.Errorf("of two fields: %q %t, expected the last", v, ok)
	}
	for _, tt := range []struct{ in, want string }{
		{"A: b\na: c", `stanza 1 at byte 0: field "a" twice: malformed control data`},
		{"no colon", `stanza 1 at byte 0: line "no colon" is not a field: malformed control data`},
		{"A: b\nstray\nB: c", `stanza 1 at byte 0: line "stray" is not a field: malformed control data`},
	} {
		if err := StanzaOf([]byte(tt.in)).Check(); !errors.Is(err, ErrMalformed) || err.Error() != tt.want {
			t.Errorf("%q: error %v, expected %s", tt.in, err, tt.want)
		}
	}
}

func TestParseFile(t *testing.T) {
	stanzas, err := ParseFile([]byte("# a comment\r\nTypes: deb\r\n# inside\r\nURIs: http://mirror.example.org/\r\n\r\nTypes: deb-src"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range stanzas {
		got = append(got, string(p.Bytes()))
	}
	if d := cmp.Diff([]string{"Types: deb\nURIs: http://mirror.example.org/", "Types: deb-src"}, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestReaderAllocations(t *testing.T) {
	in := strings.Repeat("Package: a\nVersion: 1\nDescription: x\n y\n\n", 10_000)
	n := testing.AllocsPerRun(3, func() {
		for r := NewReader(strings.NewReader(in), 0); ; {
			p, err := r.Next()
			if err != nil {
				break
			}
			for s := p.Scan(); s.Next(); {
				_ = s.Value()
			}
		}
	})
	if n > 10 {
		t.Errorf("%v allocations for 10,000 stanzas", n)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("Package: a\nVersion: 1\n\nPackage: b\nDescription: x\n .\n y"), 64)
	f.Add([]byte("\n\nA:\n\r\nB: c\n\n\n"), 1)
	f.Add([]byte("A: b\x00\n\n#x\n"), 300)
	f.Fuzz(func(t *testing.T, data []byte, max int) {
		if max > 1<<20 {
			max = 1 << 20
		}
		whole, err := readAll(bytes.NewReader(data), max)
		split, err2 := readAll(iotest.OneByteReader(bytes.NewReader(data)), max)
		if !cmp.Equal(whole, split) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("reads differ: %q %v, %q %v", whole, err, split, err2)
		}
		if err == nil { // nothing but line breaks is lost
			if got, want := len(strings.Join(whole, "")), len(bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\n"), nil), []byte("\r"), nil)); got < want {
				t.Fatalf("%d bytes in, %d out", want, got)
			}
		}
		for _, p := range whole {
			st := StanzaOf([]byte(p))
			n := 0
			s := st.Scan()
			for s.Next() {
				n += len(s.Name())
			}
			_ = st.Check()
			_ = Lines(p)
		}
		_, _ = ParseFile(data)
	})
}
