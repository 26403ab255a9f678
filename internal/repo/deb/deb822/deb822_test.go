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

func readAll(r io.Reader, max int) (pars []string, err error) {
	for pr := NewReader(r, max); ; {
		p, err := pr.Next()
		if err == io.EOF {
			return pars, nil
		}
		if err != nil {
			return pars, err
		}
		pars = append(pars, string(p.Bytes()))
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

// TestReaderWindow reads stanzas of every size around the window's.
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
		{"NUL", "Package: a\n\nPackage: b\nX: \x00\n", `stanza 2 (b) at byte 12: NUL at byte 26: malformed control data`, ErrMalformed},
		{"CR line", "Package: a\n\r\nPackage: b\n", `stanza 1 (a) at byte 0: a line of only a carriage return: malformed control data`, ErrMalformed},
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

func TestParagraph(t *testing.T) {
	p := ParagraphOf([]byte("Package:a\nDEPENDS : b\nDepends:  b,\n c \nEmpty:\nDescription: d\n .\n\te\n"))
	if v, ok := p.Get("package"); v != "a" || !ok {
		t.Errorf("package: %q %v", v, ok)
	}
	if _, ok := p.Get("Depends"); ok {
		t.Error("a field after a malformed line was found")
	}
	const want = `stanza 1 at byte 0: line "DEPENDS : b" is no field: malformed control data`
	if err := p.Check(); err == nil || err.Error() != want {
		t.Errorf("error %v, expected %s", err, want)
	}
	p = ParagraphOf([]byte("Depends:  b,\n c \nEmpty:\nDescription: d\n .\n\te"))
	var got []string
	s := p.Scan()
	for s.Next() {
		got = append(got, fmt.Sprintf("%s=%q", s.Name(), s.Value()))
	}
	if d := cmp.Diff([]string{`Depends="b,\n c"`, `Empty=""`, `Description="d\n .\n\te"`}, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if err := ParagraphOf([]byte("A: b\na: c")).Check(); err == nil || err.Error() != `stanza 1 at byte 0: field "a" twice: malformed control data` {
		t.Errorf("error %v", err)
	}
	for _, in := range []string{" a: b", ":b", "no colon", "#a: b", "-a: b"} {
		if err := ParagraphOf([]byte(in)).Check(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: error %v", in, err)
		}
	}
}

func TestParseFile(t *testing.T) {
	pars, err := ParseFile([]byte("# a comment\r\nTypes: deb\r\n# inside\r\nURIs: http://mirror.example.org/\r\n\r\nTypes: deb-src"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pars {
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
		if err == nil { // nothing but newlines is lost
			if got, want := len(strings.Join(whole, "")), len(bytes.ReplaceAll(data, []byte("\n"), nil)); got < want {
				t.Fatalf("%d bytes in, %d out", want, got)
			}
		}
		for _, p := range whole {
			par := ParagraphOf([]byte(p))
			n := 0
			s := par.Scan()
			for s.Next() {
				n += len(s.Name())
			}
			_ = par.Check()
			_ = Lines(p)
		}
		_, _ = ParseFile(data)
	})
}
