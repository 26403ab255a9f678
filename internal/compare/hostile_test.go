package compare

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
)

func fileOf(t *testing.T, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFormats(t *testing.T) {
	a, b := tarOf(t, tar.Header{Name: "a"}), fileOf(t, "b.txt", []byte("text"))
	_, err := Compare(t.Context(), a, b, Options{})
	if !errors.Is(err, ErrFormats) || !strings.Contains(err.Error(), a+" is a tar archive") || !strings.Contains(err.Error(), b+" is a file") {
		t.Errorf("%v", err)
	}
	if _, err := Compare(t.Context(), filepath.Join(t.TempDir(), "absent"), b, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A truncated archive is an error that names the archive.
func TestTruncated(t *testing.T) {
	whole := tarOf(t, tar.Header{Name: strings.Repeat("a", 90)}, tar.Header{Name: "b"})
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{512 + 10, 512 + 512 + 100} {
		cut := fileOf(t, "cut.tar", data[:n])
		if _, err := Compare(t.Context(), whole, cut, Options{}); err == nil || !strings.Contains(err.Error(), cut) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func gz(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// Archives that nest deeper than the limit are reported as contents without
// explanation.
func TestNesting(t *testing.T) {
	x, y := []byte("a"), []byte("b")
	for range maxDepth + 4 {
		x, y = gz(t, x), gz(t, y)
	}
	a, b := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(a, "f"), x, 0o644)
	os.WriteFile(filepath.Join(b, "f"), y, 0o644)
	for _, d := range []string{a, b} {
		settle(t, d, day)
	}
	r := compare(t, a, b, Options{Explain: "/f"})
	if k := r.Differences[0].Causes; len(k) != 1 || k[0].Code != codeContents || !strings.Contains(k[0].Detail, "nest deeper") {
		t.Errorf("%+v", k)
	}
	if !strings.Contains(r.Explained.Text, "nest deeper") {
		t.Errorf("%s", r.Explained.Text)
	}
}

// An explainable change does not explain another change in the same file.
func TestNoFalseClaim(t *testing.T) {
	head := func(mtime byte, body string) []byte {
		g := gz(t, []byte(body))
		g[4] = mtime
		return g
	}
	pyc := func(mtime byte, code string) []byte {
		return append([]byte{0xa7, 0x0d, '\r', '\n', 0, 0, 0, 0, mtime, 0, 0, 0, 1, 0, 0, 0}, code...)
	}
	hashed := append([]byte{0xa7, 0x0d, '\r', '\n', 1, 0, 0, 0, 1}, make([]byte, 20)...)
	hashed2 := bytes.Clone(hashed)
	hashed2[8] = 2
	for _, c := range []struct {
		what, name string
		a, b       []byte
		want       string
	}{
		{"gzip: the time alone", "f.gz", head(1, "x"), head(2, "x"), codeGzipTime},
		{"gzip: the time and the content", "f.gz", head(1, "xa\x00"), head(2, "yb\x00"), codeContents + " " + codeGzipTime},
		{"pyc: the time alone", "m.pyc", pyc(1, "code"), pyc(2, "code"), codePycTime},
		{"pyc: the time and the code", "m.pyc", pyc(1, "code"), pyc(2, "edoc"), codeContents},
		{"pyc: a hash of the source", "m.pyc", hashed, hashed2, codeContents},
		{"lines in another order, one changed", "f", []byte("a\nb\nc\n"), []byte("c\nb\nx\n"), codeContents},
		{"a date and a word", "f", []byte("2026-11-22 good\n"), []byte("2026-11-23 evil\n"), codeContents},
		{"a time and an address", "f", []byte("ff:10:20:30:ff\n"), []byte("ff:10:20:31:ff\n"), codeContents},
	} {
		a, b := t.TempDir(), t.TempDir()
		os.WriteFile(filepath.Join(a, c.name), c.a, 0o644)
		os.WriteFile(filepath.Join(b, c.name), c.b, 0o644)
		settle(t, a, day)
		settle(t, b, day)
		if got := codes(compare(t, a, b, Options{}))["/"+c.name]; got != c.want {
			t.Errorf("%s: %q, expected %q", c.what, got, c.want)
		}
	}
}

// Files that are mostly holes are compared without reading the holes.
func TestSparse(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for d, last := range map[string]string{a: "x", b: "y"} {
		f, err := os.Create(filepath.Join(d, "huge"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte(last), 1<<42)
		f.Close()
		if err != nil {
			t.Skipf("no sparse file here: %v", err)
		}
		settle(t, d, day)
	}
	r := compare(t, a, b, Options{})
	if got := codes(r)["/huge"]; got != codeContents || !strings.Contains(r.Differences[0].Causes[0].Detail, "4398046511104") {
		t.Errorf("%+v", r.Differences)
	}
}

func TestExpected(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for d, s := range map[string]string{a: "1", b: "2"} {
		put(t, d, "etc/machine-id", strings.Repeat(s, 32)+"\n")
		put(t, d, "var/log/x/y", s)
		settle(t, d, day)
	}
	const rules = "# both\n/etc/machine-id random-id # new each time\n/var/log/** *\n*.pyc pyc-time\n"
	e, err := ReadExpected(strings.NewReader(rules), "expected")
	if err != nil {
		t.Fatal(err)
	}
	r := compare(t, a, b, Options{Expected: e})
	if r.Exit != 0 || r.Expected != 2 || len(r.Unused) != 1 || r.Unused[0] != (api.CompareUnused{Line: 4, Text: "*.pyc pyc-time"}) {
		t.Errorf("%+v", r)
	}
	put(t, b, "new", "")
	e, _ = ReadExpected(strings.NewReader(rules), "expected")
	if r := compare(t, a, b, Options{Expected: e}); r.Exit != api.ExitVerify || r.Expected != 2 {
		t.Errorf("a new difference: %+v", r)
	}
	for _, bad := range []string{"/x\n", "/x mtime more\n", "/x nonsense\n", "[ mtime\n"} {
		if _, err := ReadExpected(strings.NewReader(bad), "expected"); !errors.Is(err, ErrExpected) || !strings.HasPrefix(err.Error(), "expected:1: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestMatchPath(t *testing.T) {
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"/a/*", "/a/b", true}, {"/a/*", "/a/b/c", false}, {"/a/**", "/a/b/c", true}, {"/a/**/d", "/a/d", true}, {"/a/**/d", "/a/b/c/d", true},
		{"**", "/x", true}, {"*.pyc", "/usr/lib/x.pyc", true}, {"*.pyc", "/usr/x.pyc/y", false}, {".", ".", true}, {"/a", "/ab", false},
	} {
		if got := matchPath(c.glob, c.name); got != c.want {
			t.Errorf("%s, %s: %v", c.glob, c.name, got)
		}
	}
}

func TestExplain(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	put(t, a, "f", "one\ntwo\nthree\n")
	put(t, b, "f", "one\n2\nthree\n")
	put(t, a, "bin", "\x00\x01\x02")
	put(t, b, "bin", "\x00\x01\x03")
	put(t, a, "t.gz", string(gz(t, []byte("left\n"))))
	put(t, b, "t.gz", string(gz(t, []byte("right\n"))))
	out := filepath.Join(t.TempDir(), "out")
	for _, c := range []struct{ path, want string }{
		{"/f", "-two\n+2\n"}, {"f", "-two\n+2\n"}, {"/bin", "00 01 03"}, {"/t.gz", "-left\n  +right\n"},
	} {
		if r := compare(t, a, b, Options{Explain: c.path}); !strings.Contains(r.Explained.Text, c.want) {
			t.Errorf("%s: %s", c.path, r.Explained.Text)
		}
	}
	r := compare(t, a, b, Options{Explain: "/f", Export: out})
	if len(r.Explained.Files) != 2 {
		t.Fatalf("%+v", r.Explained)
	}
	if data, _ := os.ReadFile(filepath.Join(out, "b/f")); string(data) != "one\n2\nthree\n" {
		t.Errorf("exported %q", data)
	}
	if _, err := Compare(t.Context(), a, b, Options{Explain: "/f", Export: out}); !errors.Is(err, os.ErrExist) {
		t.Errorf("exporting over files: %v", err)
	}
	if _, err := Compare(t.Context(), a, b, Options{Explain: "/absent"}); !errors.Is(err, ErrNoPath) {
		t.Errorf("%v", err)
	}
}

func FuzzContents(f *testing.F) {
	f.Add("f.gz", []byte("\x1f\x8b\x08\x00\x01\x00\x00\x00\x00\xff"), []byte("\x1f\x8b\x08\x00\x02\x00\x00\x00\x00\xff"))
	f.Add("m.pyc", []byte("\xa7\x0d\r\n\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00x"), []byte("\xa7\x0d\r\n\x00\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00x"))
	f.Add("x.a", []byte("!<arch>\n/               0           0     0     0       4         `\nabcd"), []byte("!<arch>\n#1/4            0           0     0     0       8         `\nabcd1234"))
	f.Add("x.zip", []byte("PK\x03\x04PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00\x2e\x00\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("PK\x03\x04"))
	f.Add("x.cpio", []byte(newc(day, "a", "b")), []byte(newc(day.Add(1e9), "a", "b")))
	f.Add("x", []byte("\x7fELF\x02\x01\x01"), []byte("\x7fELF\x02\x01\x02"))
	f.Add("x.deb", []byte("!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n"), []byte("!<arch>\ndebian-binary   1           0     0     100644  4         `\n2.0\n"))
	f.Add("x.rpm", []byte("\xed\xab\xee\xdb\x03\x00"), []byte("\xed\xab\xee\xdb\x03\x01"))
	f.Fuzz(func(t *testing.T, name string, x, y []byte) {
		if bytes.Equal(x, y) {
			return
		}
		c := &comparer{ctx: context.Background(), names: [2]string{"A", "B"}, budget: 1 << 20}
		defer func() { c.release(0) }()
		p := &pairing{path: "/f", name: "/" + name, a: memBlob(x), b: memBlob(y), nx: &node{}, ny: &node{}}
		list := c.explainContent(p)
		if len(list) == 0 {
			t.Error("contents that differ have no cause")
		}
		for _, k := range list {
			if classes[k.Code] == 0 {
				t.Errorf("unknown code %q", k.Code)
			}
		}
		w := &page{}
		if err := c.explainBlobs(w, 0, p); err == nil && w.b.Len() == 0 {
			t.Error("nothing is explained")
		}
		if w.b.Len() > maxExplained+1000 {
			t.Errorf("%d bytes are explained", w.b.Len())
		}
	})
}

// FuzzScan reads archives.
func FuzzScan(f *testing.F) {
	f.Add([]byte(newc(day, "a", "b")))
	f.Add([]byte("!<arch>\n//              0           0     0     0       4         `\nab/\n/0              0           0     0     0       0         `\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &comparer{ctx: context.Background(), budget: 1 << 20}
		for _, scan := range []scanner{scanTar, scanAr, scanDeb, scanCpio(c.nextPart)} {
			_, err := scan(io.LimitReader(bytes.NewReader(data), 1<<20), func(n *node, body io.Reader) error {
				if n.name == "" || n.name[0] != '/' || n.size < 0 {
					t.Errorf("a node %+v", n)
				}
				return nil
			})
			_ = err
		}
	})
}
