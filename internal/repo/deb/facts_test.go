package deb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
)

// clone copies a record out of the parser's memory.
func clone(r *repo.Record) repo.Record {
	c := *r
	c.Sources = append([]repo.Ref(nil), r.Sources...)
	c.Files = append([]repo.File(nil), r.Files...)
	c.Bytes = bytes.Clone(r.Bytes)
	return c
}

func records(t testing.TB, kind repo.Kind, index string) ([]repo.Record, error) {
	t.Helper()
	var out []repo.Record
	err := readIndex(t.Context(), strings.NewReader(index), kind, func(r *repo.Record) error {
		out = append(out, clone(r))
		return nil
	})
	return out, err
}

func digest(t testing.TB, s string) cas.Digest {
	t.Helper()
	d, err := cas.ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const helloPar = `Package: hello
Source: hello-src (2:1.0-1)
Version: 2:1.0-1+b1
Architecture: amd64
Built-Using: golang-1.22 (= 1.22.1-1), gcc-12 (= 12.2.0-14), unversioned, newer (>= 1), nonsense (
Static-Built-Using: rustc (= 1.70.0+dfsg1-1)
Depends: libc6 (>= 2.36)
Description: says hello
 in many words
Filename: pool/main/h/hello/hello_1.0-1+b1_amd64.deb
Size: 1234
SHA256: ` + sumA

func TestBinaryFacts(t *testing.T) {
	const second = "package: b\nVERSION: 1\nArchitecture: all\nSource: other\nFilename: ./b.deb\nSize: 5\nSHA256: " + sumB
	got, err := records(t, repo.KindBinary, helloPar+"\n\n"+second)
	if err != nil {
		t.Fatal(err)
	}
	want := []repo.Record{
		{
			Kind: repo.KindBinary, Name: "hello", Version: "2:1.0-1+b1", Arch: "amd64",
			Sources: []repo.Ref{{Name: "hello-src", Version: "2:1.0-1"}, {Name: "golang-1.22", Version: "1.22.1-1"},
				{Name: "gcc-12", Version: "12.2.0-14"}, {Name: "rustc", Version: "1.70.0+dfsg1-1"}},
			Files: []repo.File{{Path: "pool/main/h/hello/hello_1.0-1+b1_amd64.deb", Size: 1234, SHA256: digest(t, sumA)}},
			Bytes: []byte(helloPar),
		},
		{
			Kind: repo.KindBinary, Name: "b", Version: "1", Arch: "all",
			Sources: []repo.Ref{{Name: "other", Version: "1"}},
			Files:   []repo.File{{Path: "b.deb", Size: 5, SHA256: digest(t, sumB)}},
			Bytes:   []byte(second),
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestSourceFacts(t *testing.T) {
	par := "Package: hello\nBinary: hello, hello-doc\nVersion: 1.0-1\nArchitecture: any\nDirectory: pool/main/h/hello\n" +
		"Files:\n d41d8cd98f00b204e9800998ecf8427e 10 hello_1.0-1.dsc\n" +
		"Checksums-Sha256:\n " + sumA + " 10 hello_1.0-1.dsc\n " + sumB + " 20 hello_1.0.orig.tar.xz"
	got, err := records(t, repo.KindSource, par+"\n\n"+strings.Replace(par, "pool/main/h/hello", ".", 1))
	if err != nil {
		t.Fatal(err)
	}
	want := repo.Record{
		Kind: repo.KindSource, Name: "hello", Version: "1.0-1", Arch: "source",
		Sources: []repo.Ref{{Name: "hello", Version: "1.0-1"}},
		Files: []repo.File{
			{Path: "pool/main/h/hello/hello_1.0-1.dsc", Size: 10, SHA256: digest(t, sumA)},
			{Path: "pool/main/h/hello/hello_1.0.orig.tar.xz", Size: 20, SHA256: digest(t, sumB)},
		},
		Bytes: []byte(par),
	}
	if d := cmp.Diff(want, got[0]); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if got := got[1].Files[1].Path; got != "hello_1.0.orig.tar.xz" {
		t.Errorf("path in a flat repository: %s", got)
	}
}

func TestFactsRefuse(t *testing.T) {
	with := func(field, value string) string { // the stanza with one field changed or left out
		var out []string
		for _, l := range strings.Split(helloPar, "\n") {
			if strings.HasPrefix(l, field+":") {
				if value == "" {
					continue
				}
				l = field + ": " + value
			}
			out = append(out, l)
		}
		return strings.Join(out, "\n")
	}
	for _, tt := range []struct {
		name, stanza, want string
		is                 error
	}{
		{"no Package", with("Package", ""), "stanza 1 at byte 0: no Package: malformed", repo.ErrMalformed},
		{"escape", with("Filename", "../../etc/x"), `stanza 1 (hello) at byte 0: Filename: path "../../etc/x": leaves its directory: hostile path`, repo.ErrHostile},
		{"escape inside", with("Filename", "pool/../../x"), `stanza 1 (hello) at byte 0: Filename: path "pool/../../x": leaves its directory: hostile path`, repo.ErrHostile},
		{"absolute", with("Filename", "/etc/x"), `stanza 1 (hello) at byte 0: Filename: path "/etc/x": absolute: hostile path`, repo.ErrHostile},
		{"carriage return", with("Filename", "pool/a\rb.deb"), `stanza 1 (hello) at byte 0: Filename: path "pool/a\rb.deb": control character: hostile path`, repo.ErrHostile},
		{"escape code", with("Filename", "pool/\x1b[2J.deb"), `stanza 1 (hello) at byte 0: Filename: path "pool/\x1b[2J.deb": control character: hostile path`, repo.ErrHostile},
		{"NUL", with("Filename", "pool/a\x00.deb"), `stanza 1 (hello) at byte 0: Filename: path "pool/a\x00.deb": control character: hostile path`, repo.ErrHostile},
		{"backslash", with("Filename", `..\x`), `stanza 1 (hello) at byte 0: Filename: path "..\\x": backslash: hostile path`, repo.ErrHostile},
		{"not UTF-8", with("Filename", "pool/\xff.deb"), `stanza 1 (hello) at byte 0: Filename: path "pool/\xff.deb": not UTF-8: hostile path`, repo.ErrHostile},
		{"directory", with("Filename", "pool/"), `stanza 1 (hello) at byte 0: Filename: path "pool/": a directory: hostile path`, repo.ErrHostile},
		{"dot", with("Filename", "./."), `stanza 1 (hello) at byte 0: Filename: path "./.": a directory: hostile path`, repo.ErrHostile},
		{"large", helloPar + "\nTag: " + strings.Repeat("x", 100<<20), `malformed: stanza 1 (hello) at byte 0: field "Tag": more than 1048576 bytes: too large`, repo.ErrMalformed},
		{"no field", "Package: a\nnonsense", `malformed: stanza 1 at byte 0: line "nonsense" is not a field: malformed control data`, repo.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := records(t, repo.KindBinary, tt.stanza)
			if !errors.Is(err, tt.is) || err.Error() != tt.want {
				t.Errorf("error %v\nexpected %s", err, tt.want)
			}
		})
	}
	const src = "Package: a\nVersion: 1\nDirectory: pool\n"
	for _, tt := range []struct{ name, stanza, want string }{
		{"slash", src + "Checksums-Sha256:\n " + sumA + " 1 x/a.dsc", `stanza 1 (a) at byte 0: Checksums-Sha256: "x/a.dsc" is not a file in the Directory: hostile path`},
		{"directory", strings.Replace(src, "pool", "../pool", 1) + "Checksums-Sha256:\n " + sumA + " 1 a.dsc", `stanza 1 (a) at byte 0: Directory and Checksums-Sha256: path "../pool/a.dsc": leaves its directory: hostile path`},
	} {
		t.Run("source "+tt.name, func(t *testing.T) {
			if _, err := records(t, repo.KindSource, tt.stanza); err == nil || err.Error() != tt.want {
				t.Errorf("error %v\nexpected %s", err, tt.want)
			}
		})
	}
}

// A stanza that no client can install is reported with its reason if the index has a
// usable one; otherwise the index is refused.
func TestUnusableFacts(t *testing.T) {
	const good = "Package: good\nVersion: 1\nArchitecture: all\nFilename: b.deb\nSize: 1\nSHA256: " + sumB
	const src = "Package: a\nVersion: 1\nDirectory: pool\n"
	const goodSource = src + "Checksums-Sha256:\n " + sumA + " 10 a.dsc"
	with := func(field, value string) string {
		s := strings.Replace(helloPar, "\n"+field+": ", "\nX-"+field+": ", 1)
		if value != "" {
			s += "\n" + field + ": " + value
		}
		return s
	}
	for _, tt := range []struct {
		stanza, name, version, arch, reason string
		is                                  error
	}{
		{with("Version", ""), "hello", "", "amd64", "no Version", repo.ErrMalformed},
		{with("Version", "1 2"), "hello", `"1 2"`, "amd64", `Version "1 2": not a word of printable ASCII`, repo.ErrMalformed},
		{"Package: ../é" + strings.TrimPrefix(helloPar, "Package: hello"), `"../\u00e9"`, "2:1.0-1+b1", "amd64", `Package "../é": not a word of printable ASCII`, repo.ErrMalformed},
		{with("SHA256", ""), "hello", "2:1.0-1+b1", "amd64", "no SHA256 or SHA512", repo.ErrWeak},
		{with("SHA256", "abcd"), "hello", "2:1.0-1+b1", "amd64", `SHA256 "abcd": 4 characters, expected 64`, repo.ErrMalformed},
		{with("SHA256", "") + "\nSHA512: abcd", "hello", "2:1.0-1+b1", "amd64", `SHA512 "abcd": expected 128 lower-case hexadecimal digits`, repo.ErrMalformed},
		{with("SHA256", strings.ToUpper(sumA)), "hello", "2:1.0-1+b1", "amd64", `SHA256 "` + strings.ToUpper(sumA) + `": expected lower-case hexadecimal digits`, repo.ErrMalformed},
		{helloPar + "\nSHA512: abcd", "hello", "2:1.0-1+b1", "amd64", `SHA512 "abcd": expected 128 lower-case hexadecimal digits`, repo.ErrMalformed},
		{helloPar + "\nSHA1: x", "hello", "2:1.0-1+b1", "amd64", `SHA1 "x": expected 40 lower-case hexadecimal digits`, repo.ErrMalformed},
		{with("MD5sum", strings.Repeat("A", 32)), "hello", "2:1.0-1+b1", "amd64", `MD5sum "` + strings.Repeat("A", 32) + `": expected 32 lower-case hexadecimal digits`, repo.ErrMalformed},
		{with("Size", "0"), "hello", "2:1.0-1+b1", "amd64", `Size "0": apt ignores it`, repo.ErrMalformed},
		{with("Size", ""), "hello", "2:1.0-1+b1", "amd64", "no Size", repo.ErrMalformed},
		{with("Size", "-1"), "hello", "2:1.0-1+b1", "amd64", `Size "-1": expected a number of bytes up to 1099511627776`, repo.ErrMalformed},
		{with("Size", "18446744073709551616"), "hello", "2:1.0-1+b1", "amd64", `Size "18446744073709551616": expected a number of bytes up to 1099511627776`, repo.ErrMalformed},
		{with("Filename", ""), "hello", "2:1.0-1+b1", "amd64", "no Filename", repo.ErrMalformed},
		{with("Architecture", ""), "hello", "2:1.0-1+b1", "", "no Architecture", repo.ErrMalformed},
		{src + "Files:\n d41d8cd98f00b204e9800998ecf8427e 1 a.dsc", "a", "1", "source", "no Checksums-Sha256 or Checksums-Sha512", repo.ErrWeak},
		{src + "Checksums-Sha256:", "a", "1", "source", "no Checksums-Sha256 or Checksums-Sha512", repo.ErrWeak},
		{src + "Checksums-Sha256:\n " + sumA[:4] + " 1", "a", "1", "source", `Checksums-Sha256: line "0ed6 1": 2 words, expected digest, size and name`, repo.ErrMalformed},
		{goodSource + "\nFiles:\n d41d8cd98f00b204e9800998ecf8427e 1 a.tar.gz", "a", "1", "source", `Files lists "a.tar.gz", which has no SHA256 or SHA512`, repo.ErrWeak},
		{goodSource + "\nChecksums-Sha1:\n " + sumA[:40] + " 1 a.tar.gz", "a", "1", "source", `Checksums-Sha1 lists "a.tar.gz", which has no SHA256 or SHA512`, repo.ErrWeak},
		{goodSource + "\nFiles:\n x 10 a.dsc", "a", "1", "source", `Files: "x": expected 32 lower-case hexadecimal digits`, repo.ErrMalformed},
		{goodSource + "\nFiles:\n x a.dsc", "a", "1", "source", `Files: line "x a.dsc": 2 words, expected digest, size and name`, repo.ErrMalformed},
		{goodSource + "\nChecksums-Sha512:\n " + sumA + " 10 a.dsc", "a", "1", "source", `Checksums-Sha512: "` + excerpt.Of(sumA) + `": expected 128 lower-case hexadecimal digits`, repo.ErrMalformed},
		{goodSource + "\nChecksums-Sha512:\n " + sumA + " 10 a.tar.gz", "a", "1", "source", `Checksums-Sha512: SHA512 "` + excerpt.Of(sumA) + `": expected 128 lower-case hexadecimal digits`, repo.ErrMalformed},
		{"Version: 1\nChecksums-Sha256:\n " + sumA + " 10 a.dsc", "(unnamed)", "1", "source", "no Package", repo.ErrMalformed},
		{src + "Checksums-Sha256:\n " + sumA + " x a.dsc", "a", "1", "source", `Checksums-Sha256: Size "x": expected a number of bytes up to 1099511627776`, repo.ErrMalformed},
	} {
		kind, other := repo.KindBinary, good
		if tt.arch == "source" {
			kind, other = repo.KindSource, goodSource
		}
		got, err := records(t, kind, tt.stanza+"\n\n"+other)
		if err != nil || len(got) != 2 || got[1].Kind != kind {
			t.Errorf("%s: %v, %+v", tt.reason, err, got)
			continue
		}
		want := repo.Record{Kind: repo.KindUnusable, Name: tt.name, Version: tt.version, Arch: tt.arch, Reason: tt.reason, Bytes: []byte(tt.stanza)}
		if d := cmp.Diff(want, got[0]); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.reason, d)
		}
		_, err = records(t, kind, tt.stanza)
		if says := "no stanza can be used: stanza 1 "; !errors.Is(err, tt.is) || !strings.HasPrefix(err.Error(), says) || !strings.HasSuffix(err.Error(), tt.reason+": "+tt.is.Error()) {
			t.Errorf("alone: error %v, expected %s…%s", err, says, tt.reason)
		}
	}
}

// The parser ignores the same oddities as apt, and reads the same values.
func TestOddFacts(t *testing.T) {
	sum512 := sumA + sumB
	for _, tt := range []struct {
		name, stanza string
		change       func(*repo.Record)
	}{
		{"twice", helloPar + "\nfilename: pool/other.deb\nSize: 5", func(r *repo.Record) { r.Files[0].Path, r.Files[0].Size = "pool/other.deb", 5 }},
		{"source of free text", helloPar + "\nSource: Acme Tools Inc.", func(r *repo.Record) { r.Sources[0] = repo.Ref{} }},
		{"source without closing parenthesis", helloPar + "\nSource: a (1", func(r *repo.Record) { r.Sources[0] = repo.Ref{} }},
		{"SHA512 beside SHA256", helloPar + "\nSHA512: " + sum512, func(*repo.Record) {}},
		{"size as strtoull reads it", helloPar + "\nSize: \v+0" + strings.Repeat("0", 50) + "5x 6", func(r *repo.Record) { r.Files[0].Size = 5 }},
		{"SHA512 alone", strings.Replace(helloPar, "SHA256: "+sumA, "SHA512: "+sum512, 1), func(r *repo.Record) { r.Files[0].SHA256, r.Files[0].SHA512 = cas.Digest{}, sum512 }},
		{"value on the next line", strings.Replace(helloPar, "Package: hello", "Package:\n hello", 1), func(*repo.Record) {}},
		{"many Built-Using", helloPar + "\nBuilt-Using: " + strings.Repeat("gcc (= 1),", 20_001) + "\nStatic-Built-Using:", func(r *repo.Record) {
			r.Sources = r.Sources[:1]
			for len(r.Sources) < maxBuiltUsing {
				r.Sources = append(r.Sources, repo.Ref{Name: "gcc", Version: "1"})
			}
		}},
	} {
		base, err := records(t, repo.KindBinary, helloPar)
		if err != nil {
			t.Fatal(err)
		}
		want := base[0]
		want.Bytes = []byte(tt.stanza)
		tt.change(&want)
		got, err := records(t, repo.KindBinary, tt.stanza)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if d := cmp.Diff(want, got[0]); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, d)
		}
	}
	const src = "Package: a\nVersion: 1\nDirectory: pool\n"
	got, err := records(t, repo.KindSource, src+"Checksums-Sha512:\n "+sum512+" 10 a.dsc\n "+sum512+" 10 a.dsc")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]repo.File{{Path: "pool/a.dsc", Size: 10, SHA512: sum512}}, got[0].Files); d != "" {
		t.Errorf("files of a source listed by SHA-512: -want +got\n%s", d)
	}
}

// TestRealPackages reads the largest index of this machine.
func TestRealPackages(t *testing.T) {
	data := realPackages(t)
	n, size := 0, 0
	err := readIndex(t.Context(), bytes.NewReader(data), repo.KindBinary, func(r *repo.Record) error {
		n++
		size += len(r.Bytes) + 2
		if len(r.Files) != 1 || len(r.Sources) == 0 {
			return fmt.Errorf("%s: %d files, %d sources", r.Name, len(r.Files), len(r.Sources))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if size != len(data) {
		t.Errorf("stanzas have %d bytes with the lines between them, the index %d", size, len(data))
	}
}

func TestParseRelations(t *testing.T) {
	got, err := ParseRelations("libc6 (>= 2.36), default-mta | mail-transport-agent,\n python3:any (>>3.9),a( << 1 )[amd64 !i386] <!nocheck> <cross>, b (< 2),")
	if err != nil {
		t.Fatal(err)
	}
	want := []Alternatives{
		{{Name: "libc6", Op: GE, Version: "2.36"}},
		{{Name: "default-mta"}, {Name: "mail-transport-agent"}},
		{{Name: "python3", Arch: "any", Op: GT, Version: "3.9"}},
		{{Name: "a", Op: LT, Version: "1", Archs: []string{"amd64", "!i386"}, Profiles: []string{"!nocheck", "cross"}}},
		{{Name: "b", Op: LE, Version: "2"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if s := got[3].String(); s != "a (<< 1) [amd64 !i386] <!nocheck> <cross>" {
		t.Errorf("written as %q", s)
	}
	for in, want := range map[string]string{
		"a (1)":       `relation "a (1)": unknown operator "": malformed`,
		"a (>= )":     `relation "a (>= )": no version: malformed`,
		"a (>= 1":     `relation "a (>= 1": no closing parenthesis: malformed`,
		"a b":         `relation "a b": unexpected "b": malformed`,
		"a | ":        `relation "": no package name: malformed`,
		"a:":          `relation "a:": no package name: malformed`,
		"a [amd64":    `relation "a [amd64": no closing bracket: malformed`,
		"a <!x":       `relation "a <!x": no closing angle bracket: malformed`,
		"a (~ 1)":     `relation "a (~ 1)": unknown operator "": malformed`,
		"a (=> 1)":    `relation "a (=> 1)": unknown operator "=>": malformed`,
		"\u00e4 (=1)": "relation \"\u00e4 (=1)\": no package name: malformed",
	} {
		if _, err := ParseRelations(in); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, expected %s", in, err, want)
		}
	}
}

func TestBroken(t *testing.T) {
	par := func(s string) string {
		return s + "Filename: x.deb\nSize: 1\nSHA256: " + sumA + "\n\n"
	}
	index := par("Package: app\nVersion: 2\nArchitecture: amd64\nPre-Depends: base\nDepends: lib (>= 2), missing | also-missing, mta, tool:any, foreign, lib:i386 (= 1)\nBreaks: plugin (<< 3), kept (<< 2)\nConflicts: other\n") +
		par("Package: lib\nVersion: 1\nArchitecture: amd64\n") +
		par("Package: lib\nVersion: 1\nArchitecture: i386\n") +
		par("Package: base\nVersion: 1\nArchitecture: all\nDepends: lib\n") +
		par("Package: postfix\nVersion: 1\nArchitecture: amd64\nProvides: mta, versioned (= 5)\nConflicts: mta\n") +
		par("Package: tool\nVersion: 1\nArchitecture: i386\nMulti-Arch: allowed\n") +
		par("Package: foreign\nVersion: 1\nArchitecture: i386\nMulti-Arch: foreign\n") +
		par("Package: plugin\nVersion: 2\nArchitecture: amd64\nDepends: versioned (>= 5), mta (>= 1), native-only\n") +
		par("Package: kept\nVersion: 1\nArchitecture: amd64\n") +
		par("Package: kept\nVersion: 2\nArchitecture: amd64\n") +
		par("Package: native-only\nVersion: 1\nArchitecture: i386\n") +
		par("Package: other\nVersion: 1\nArchitecture: amd64\nDepends: lib (1), base\nProvides: p (>= (1)\n")
	recs, err := records(t, repo.KindBinary, index)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Format{}.Broken(t.Context(), func(emit func(repo.Record) error) error {
		for _, r := range recs {
			if err := emit(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []repo.Problem{
		{Package: "app:amd64=2", Relation: "Breaks: plugin (<< 3)", Reason: "only plugin:amd64=2"},
		{Package: "app:amd64=2", Relation: "Depends: lib (>= 2)", Reason: "only lib:amd64=1, lib:i386=1"},
		{Package: "app:amd64=2", Relation: "Depends: missing | also-missing", Reason: "no missing; no also-missing"},
		{Package: "other:amd64=1", Relation: "Depends: lib (1), base", Reason: `relation "lib (1)": unknown operator "": malformed`},
		{Package: "other:amd64=1", Relation: "Provides: p (>= (1)", Reason: `relation "p (>= (1)": no version: malformed`},
		{Package: "plugin:amd64=2", Relation: "Depends: mta (>= 1)", Reason: "only postfix:amd64 provides mta"},
		{Package: "plugin:amd64=2", Relation: "Depends: native-only", Reason: "only native-only:i386=1"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// TestBrokenRealIndex checks that Debian's main has no dependencies outside itself,
// except for a few packages that need other architectures.
func TestBrokenRealIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("63,000 stanzas")
	}
	data := realPackages(t)
	got, err := Format{}.Broken(t.Context(), func(emit func(repo.Record) error) error {
		return readIndex(t.Context(), bytes.NewReader(data), repo.KindBinary, func(r *repo.Record) error { return emit(*r) })
	})
	if err != nil {
		t.Fatal(err)
	}
	depends := 0
	for _, p := range got {
		if strings.HasPrefix(p.Relation, "Depends") || strings.HasPrefix(p.Relation, "Pre-Depends") {
			depends++
			t.Log(p)
		}
	}
	if depends > 50 {
		t.Errorf("%d unsatisfied dependencies in a whole component", depends)
	}
}

// TestFactsAsAwk compares names, versions and file names with those that another reader
// of the format finds.
func TestFactsAsAwk(t *testing.T) {
	data := realPackages(t)
	awk, err := exec.LookPath("awk")
	if err != nil {
		t.Skip(err)
	}
	if len(data) > 2<<20 {
		data = data[:bytes.LastIndex(data[:2<<20], []byte("\n\n"))+1]
	}
	cmd := exec.Command(awk, "-F", ": ", `/^(Package|Version|Filename|Size|SHA256): /{print $2}`)
	cmd.Stdin = bytes.NewReader(data)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := readIndex(t.Context(), bytes.NewReader(data), repo.KindBinary, func(r *repo.Record) error {
		f := r.Files[0]
		fmt.Fprintf(&got, "%s\n%s\n%s\n%d\n%s\n", r.Name, r.Version, f.Path, f.Size, f.SHA256)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got.String() != string(out) {
		t.Error("facts differ from the lines of the index")
	}
}

func FuzzFacts(f *testing.F) {
	f.Add([]byte(helloPar), false)
	f.Add([]byte("Package: a\nVersion: 1\nDirectory: p\nChecksums-Sha256:\n "+sumA+" 1 a.dsc\n"), true)
	f.Add([]byte("Package: a\nVersion: 1\nArchitecture: all\nSource: b\nFilename: .//x/./y.deb\nSize: 1\nSHA256: "+sumA+"\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, source bool) {
		kind := repo.KindBinary
		if source {
			kind = repo.KindSource
		}
		err := readIndex(t.Context(), bytes.NewReader(data), kind, func(r *repo.Record) error {
			if r.Kind == repo.KindUnusable {
				if r.Name == "" || r.Reason == "" || len(r.Files)+len(r.Sources) > 0 {
					t.Fatalf("record %+v", r)
				}
				return nil
			}
			if !isToken(r.Name) || !isToken(r.Version) || !isToken(r.Arch) || len(r.Files) == 0 {
				t.Fatalf("record %+v", r)
			}
			for _, f := range r.Files {
				if c, err := cleanPath(f.Path); err != nil || c != f.Path || strings.HasPrefix(f.Path, "/") || strings.Contains("/"+f.Path+"/", "/../") {
					t.Fatalf("path %q", f.Path)
				}
				if f.Size < 0 || f.SHA256.IsZero() {
					t.Fatalf("file %+v", f)
				}
			}
			if _, err := ParseRelations(string(r.Bytes)); err != nil && !errors.Is(err, repo.ErrMalformed) {
				t.Fatal(err)
			}
			return nil
		})
		if err != nil && !errors.Is(err, repo.ErrMalformed) && !errors.Is(err, repo.ErrHostile) && !errors.Is(err, repo.ErrWeak) && err != io.EOF {
			t.Fatalf("error of no class: %v", err)
		}
	})
}

func FuzzParseRelations(f *testing.F) {
	f.Add("libc6 (>= 2.36), a:any | b (<< 1) [amd64] <!x>, ")
	f.Fuzz(func(t *testing.T, s string) {
		groups, err := ParseRelations(s)
		if err != nil {
			return
		}
		for _, g := range groups {
			again, err := ParseRelations(g.String())
			if err != nil {
				t.Fatalf("%q written as %q: %v", s, g, err)
			}
			if again[0].String() != g.String() {
				t.Fatalf("%q then %q", g, again[0])
			}
			for _, r := range g {
				r.Allows("1.0-1")
			}
		}
	})
}
