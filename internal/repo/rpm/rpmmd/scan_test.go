package rpmmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.org/snapd/internal/repo/rpm/nevra"
)

const primaryHead = `<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="%d">
`

// samplePrimary returns the element of a package, as createrepo_c writes it.
func samplePrimary(i, deps int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<package type="rpm">
  <name>pkg%d</name>
  <arch>x86_64</arch>
  <version epoch="1" ver="1.%d" rel="3.fc42"/>
  <checksum type="sha256" pkgid="YES">%064x</checksum>
  <summary>A &lt;package&gt; &amp; more</summary>
  <description>Some text that describes what the package
does, in several lines.</description>
  <packager>Fedora Project</packager>
  <url>https://pkg.example.org/</url>
  <time file="1737000000" build="1736900000"/>
  <size package="12345" installed="54321" archive="55000"/>
  <location href="Packages/p/pkg%d-1.%d-3.fc42.x86_64.rpm"/>
  <format>
    <rpm:license>MIT</rpm:license>
    <rpm:vendor>Fedora Project</rpm:vendor>
    <rpm:group>Unspecified</rpm:group>
    <rpm:buildhost>build.example.org</rpm:buildhost>
    <rpm:sourcerpm>pkg-1.%d-3.fc42.src.rpm</rpm:sourcerpm>
    <rpm:header-range start="4504" end="9000"/>
    <rpm:provides>
      <rpm:entry name="pkg%d" flags="EQ" epoch="1" ver="1.%d" rel="3.fc42"/>
    </rpm:provides>
    <rpm:requires>
`, i, i, i+1, i, i, i, i, i)
	for d := range deps {
		fmt.Fprintf(&b, `      <rpm:entry name="libdep%d.so.1(GLIBC_2.34)(64bit)" flags="GE" epoch="0" ver="%d" rel="1"/>`+"\n", d, d)
	}
	b.WriteString(`    </rpm:requires>
    <file>/usr/bin/pkg</file>
  </format>
</package>`)
	return b.String()
}

func sampleFilelists(i, files int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<package pkgid="%064x" name="pkg%d" arch="x86_64">
  <version epoch="1" ver="1.%d" rel="3.fc42"/>
`, i+1, i, i)
	for f := range files {
		fmt.Fprintf(&b, "  <file>/usr/share/doc/pkg%d/a/rather/long/path/file-%d.html</file>\n", i, f)
	}
	b.WriteString("</package>")
	return b.String()
}

func primaryDoc(n, deps int) string {
	var b strings.Builder
	fmt.Fprintf(&b, primaryHead, n)
	for i := range n {
		b.WriteString(samplePrimary(i, deps))
		b.WriteString("\n")
	}
	b.WriteString("</metadata>\n")
	return b.String()
}

func filelistsDoc(n, files int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<filelists xmlns=\"http://linux.duke.edu/metadata/filelists\" packages=\"%d\">\n", n)
	for i := range n {
		b.WriteString(sampleFilelists(i, files))
		b.WriteString("\n")
	}
	b.WriteString("</filelists>\n")
	return b.String()
}

func scanAll(src io.Reader, k Kind) (pkgs []Package, err error) {
	s := NewScanner(src, k)
	for {
		p, err := s.Next()
		if err == io.EOF {
			return pkgs, nil
		}
		if err != nil {
			return pkgs, err
		}
		c := *p
		c.Raw = bytes.Clone(c.Raw)
		pkgs = append(pkgs, c)
	}
}

func TestScanPrimary(t *testing.T) {
	doc := primaryDoc(3, 2)
	for name, src := range map[string]io.Reader{
		"whole": strings.NewReader(doc),
		"bytes": iotest.OneByteReader(strings.NewReader(doc)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := scanAll(src, Primary)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 3 {
				t.Fatalf("%d packages, want 3", len(got))
			}
			want := Package{
				PkgID: fmt.Sprintf("%064x", 2),
				NEVRA: nevra.NEVRA{Name: "pkg1", EVR: nevra.EVR{Epoch: 1, Version: "1.1", Release: "3.fc42"}, Arch: "x86_64"},
				Href:  "Packages/p/pkg1-1.1-3.fc42.x86_64.rpm", Size: 12345, Installed: 54321,
				Checksum:  Checksum{"sha256", fmt.Sprintf("%064x", 2)},
				BuildTime: 1736900000, FileTime: 1737000000, SourceRPM: "pkg-1.1-3.fc42.src.rpm",
				HeaderStart: 4504, HeaderEnd: 9000,
			}
			if d := cmp.Diff(want, got[1], cmpopts.IgnoreFields(Package{}, "Raw", "Offset")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			for i, p := range got {
				if string(p.Raw) != samplePrimary(i, 2) {
					t.Errorf("package %d: bytes differ:\n%s", i, p.Raw)
				}
				if doc[p.Offset:p.Offset+int64(len(p.Raw))] != string(p.Raw) {
					t.Errorf("package %d is not at offset %d", i, p.Offset)
				}
			}
		})
	}
}

func TestScanFilelists(t *testing.T) {
	// The document is so large that the buffer moves many times.
	doc := filelistsDoc(200, 300)
	got, err := scanAll(strings.NewReader(doc), Filelists)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 200 {
		t.Fatalf("%d packages, want 200", len(got))
	}
	for i, p := range got {
		if string(p.Raw) != sampleFilelists(i, 300) {
			t.Fatalf("package %d: bytes differ", i)
		}
		if p.PkgID != fmt.Sprintf("%064x", i+1) || p.Epoch != 1 {
			t.Fatalf("package %d: %+v", i, p)
		}
	}
}

// Unusual documents that are valid are accepted.
func TestScanOddities(t *testing.T) {
	pkg := samplePrimary(0, 0)
	for name, doc := range map[string]string{
		"no declaration":       `<metadata packages="1">` + pkg + `</metadata>`,
		"BOM":                  "\xef\xbb\xbf<?xml version='1.0'?><metadata>" + pkg + "</metadata>",
		"comments":             "<!-- a --><metadata><!-- <package> -->" + pkg + "<!-- > --></metadata><!-- b -->\n",
		"not UTF-8":            `<metadata>` + strings.Replace(pkg, "Some text", "Caf\xe9", 1) + `</metadata>`,
		"latin-1":              `<?xml version="1.0" encoding="ISO-8859-1"?><metadata>` + strings.Replace(pkg, "Some text", "Caf\xe9", 1) + `</metadata>`,
		"CDATA":                `<metadata>` + strings.Replace(pkg, "Some text", "<![CDATA[</package> & ]>]]>", 1) + `</metadata>`,
		"comment inside":       `<metadata>` + strings.Replace(pkg, "<format>", "<!-- </package> --><format>", 1) + `</metadata>`,
		"greater in attribute": `<metadata>` + strings.Replace(pkg, `href="Packages`, `x="a>b" y='>">' href="Packages`, 1) + `</metadata>`,
		"unknown sibling":      `<metadata><extra><package/></extra>` + pkg + `</metadata>`,
		"processing":           `<?xml version="1.0"?><?xml-stylesheet a?b>c?><metadata>` + pkg + `</metadata>`,
		"self-closed version":  `<metadata>` + strings.Replace(pkg, `rel="3.fc42"/>`, `rel="3.fc42"></version>`, 1) + `</metadata>`,
		"single quotes":        `<metadata>` + strings.Replace(pkg, `epoch="1" ver="1.0"`, `epoch = '1'  ver='1.0'`, 1) + `</metadata>`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, src := range []io.Reader{strings.NewReader(doc), iotest.OneByteReader(strings.NewReader(doc))} {
				got, err := scanAll(src, Primary)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != 1 || got[0].Name != "pkg0" || got[0].Version != "1.0" || got[0].HeaderEnd != 9000 {
					t.Fatalf("%+v", got)
				}
				if !strings.HasPrefix(string(got[0].Raw), "<package") || !strings.HasSuffix(string(got[0].Raw), "</package>") {
					t.Fatalf("%q", got[0].Raw)
				}
			}
		})
	}
}

// The scanner reads elements without children by a shortcut if the buffer contains them
// completely, which never happens if bytes arrive one by one. Both ways give the same
// result for each of these documents.
func TestScanLeaves(t *testing.T) {
	head := `<filelists><package pkgid="1" name="a" arch="x86_64"><version ver="1" rel="1"/>`
	for _, c := range []struct{ leaves, want string }{
		{leaves: `<file>/a</file> <file type="dir">/b</file>`},
		{leaves: `<changelog author="A &lt;a@example.org>" date='1'>- x &amp; y</changelog>`},
		{leaves: `<file></file><file/><file a="1" b='"'/>`},
		{leaves: `<file>/a</file >`},
		{leaves: `<file>/a<b>c</b></file>`},
		{leaves: `<file><![CDATA[</file>]]></file>`},
		{leaves: `<a:b._-1>x</a:b._-1><_/>`},
		{leaves: `<file a=">">/a</file>`},
		{leaves: `<file a=">"/>`},
		{leaves: `<file>/a</file> text <file>/b</file>`},
		{leaves: `<file>/a]]></file>`},
		{`<file>/a</file></file>`, `</file> where </package> is due`},
		{`<file>/a</fil>`, `</fil> where </file> is due`},
		{`<file>/a</file2>`, `</file2> where </file> is due`},
		{`<file>/a< /file>`, `a tag without a name`},
		{`<1>x</1>`, `a tag without a name`},
		{`<-a/>`, `a tag without a name`},
		{`<.a>x</.a>`, `a tag without a name`},
		{`<file>a & b</file>`, `"&" without an entity`},
		{`<file>&nbsp;</file>`, `entity "&nbsp;" is not defined`},
		{`<file a="&nbsp;"/>`, `entity "&nbsp;" is not defined`},
		{`<file a="<"/>`, `"<" in the value of attribute a`},
		{`<file a="1" a="2">x</file>`, `attribute a occurs twice`},
		{`<file a="1"b="2">x</file>`, `"b" inside of the tag`},
		{`<file a>x</file>`, `attribute a has no value`},
		{`<file / >x</file>`, `"/" inside of the tag`},
		{`<version ver="2" rel="2"/>`, `<version> occurs twice`},
		{`<version ver="2" rel="2">x</version>`, `<version> occurs twice`},
		{`<!ENTITY a "b">`, `document types and entities are not accepted`},
	} {
		doc := head + c.leaves + "</package></filelists>"
		whole, err := scanAll(strings.NewReader(doc), Filelists)
		bytewise, berr := scanAll(iotest.OneByteReader(strings.NewReader(doc)), Filelists)
		if d := cmp.Diff(bytewise, whole); d != "" || fmt.Sprint(err) != fmt.Sprint(berr) {
			t.Errorf("%s: (-byte by byte +at once) %v, %v:\n%s", c.leaves, berr, err, d)
		}
		switch {
		case c.want == "" && (err != nil || len(whole) != 1):
			t.Errorf("%s: %d packages, %v", c.leaves, len(whole), err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.leaves, err, c.want)
		}
	}
}

// A buffer that has grown for an earlier element can contain a text that is too long.
// The shortcut refuses it, too.
func TestScanLeavesTooLong(t *testing.T) {
	head := `<filelists><package pkgid="1" name="a" arch="x86_64"><version ver="1" rel="1"/>`
	tail := `</package></filelists>`
	for _, c := range []struct{ before, text, after string }{
		{"", " ", "<file/>"}, {"<file/>", "\n", "<file>/a</file>"}, {"<file>", "a", "</file>"},
	} {
		for n, tooLong := range map[int]bool{maxText: false, maxText + 1: true} {
			r := newReader(strings.NewReader(head + c.before + strings.Repeat(c.text, n) + c.after + tail))
			r.buf = make([]byte, 2*maxText)
			s := &Scanner{r: r, kind: Filelists}
			if _, err := s.Next(); errors.Is(err, ErrTooLarge) != tooLong || !tooLong && err != nil {
				t.Errorf("%d times %q: %v", n, c.text, err)
			}
		}
	}
}

func TestScanRefuses(t *testing.T) {
	pkg := samplePrimary(0, 0)
	rep := func(old, new string) string {
		if !strings.Contains(pkg, old) {
			panic(old)
		}
		return `<metadata>` + strings.Replace(pkg, old, new, 1) + `</metadata>`
	}
	for name, c := range map[string]struct{ doc, want string }{
		"empty":             {"", `primary: malformed XML at byte 0: the document is empty`},
		"HTML":              {"<!DOCTYPE html><html></html>", `primary: malformed XML at byte 0: a declaration, "<!DOCTYPE"; document types and entities are not accepted`},
		"HTML5":             {"<html><body/></html>", `primary: malformed XML at byte 6: root element <html>, expected <metadata>`},
		"bomb":              {`<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">]><metadata>&lol;</metadata>`, `primary: malformed XML at byte 21: a declaration, "<!DOCTYPE"; document types and entities are not accepted`},
		"entity":            {rep("Some text", "&xxe;"), `primary: package pkg0 (number 1): malformed XML at byte 298: entity "&xxe;" is not defined`},
		"ampersand":         {rep("Some text", "a & b"), `primary: package pkg0 (number 1): malformed XML at byte 298: "&" without an entity`},
		"truncated":         {`<metadata>` + pkg, `primary: malformed XML at byte 1113: the document ends inside <metadata>`},
		"torn":              {`<metadata>` + pkg[:200], `primary: package pkg0 (number 1): malformed XML at byte 210: the document ends inside <checksum>`},
		"trailer":           {`<metadata></metadata><metadata/>`, `primary: malformed XML at byte 21: <metadata> after the root element`},
		"text":              {`<metadata>hello</metadata>`, `primary: malformed XML at byte 15: text "hello" between packages`},
		"no name":           {rep("<name>pkg0</name>", ""), `primary: package number 1: malformed XML at byte 1096: no name`},
		"two names":         {rep("<name>pkg0</name>", "<name>a</name><name>b</name>"), `primary: package a (number 1): malformed XML at byte 61: <name> occurs twice`},
		"two versions":      {rep("<summary>", `<version epoch="0" ver="2" rel="1"/><summary>`), `primary: package pkg0 (number 1): malformed XML at byte 271: <version> occurs twice`},
		"version in format": {rep("</format>", `<version epoch="0" ver="2" rel="1"/></format>`), `primary: package pkg0 (number 1): malformed XML at byte 1129: <version> in <format>, where clients take it for that of the package`},
		"arch in format":    {rep("</format>", `<arch>s390x</arch></format>`), `primary: package pkg0 (number 1): malformed XML at byte 1099: <arch> in <format>, where clients take it for that of the package`},
		"size in format":    {rep("</format>", `<size package="1"/></format>`), `primary: package pkg0 (number 1): malformed XML at byte 1112: <size> in <format>, where clients take it for that of the package`},
		"no version":        {rep(`<version epoch="1" ver="1.0" rel="3.fc42"/>`, ""), `primary: package pkg0 (number 1): malformed XML at byte 1070: no version`},
		"no digest":         {rep(`pkgid="YES"`, `pkgid="NO"`), `primary: package pkg0 (number 1): malformed XML at byte 1112: no checksum`},
		"short digest": {rep(`0001</checksum>`, `</checksum>`),
			`primary: package pkg0 (number 1): sha256 checksum "000000000000000000000000000000000000000000000000000000000000": malformed XML: 60 characters, expected 64`},
		"digest type":  {rep(`type="sha256"`, `type="crc32"`), `primary: package pkg0 (number 1): checksum type "crc32": malformed XML: expected sha224 to sha512, sha1 or md5`},
		"no location":  {rep(`<location href="Packages/p/pkg0-1.0-3.fc42.x86_64.rpm"/>`, ""), `primary: package pkg0 (number 1): malformed XML at byte 1057: no location`},
		"crossed tags": {rep("</format>\n</package>", "</package></format>"), `primary: package pkg0 (number 1): malformed XML at byte 1093: </package> where </format> is due`},
		"size":         {rep(`package="12345"`, `package="-1"`), `primary: package pkg0 (number 1): malformed XML at byte 557: package="-1" is not a number`},
		"epoch":        {rep(`epoch="1"`, `epoch="x"`), `primary: package pkg0 (number 1): malformed XML at byte 118: epoch "x"`},
		"unquoted":     {rep(`epoch="1"`, `epoch=1`), `primary: package pkg0 (number 1): malformed XML at byte 75: <version>: the value of attribute epoch is not quoted`},
		"twice":        {rep(`epoch="1"`, `epoch="1" epoch="2"`), `primary: package pkg0 (number 1): malformed XML at byte 75: <version>: attribute epoch occurs twice`},
		"UTF-16":       {`<?xml version="1.0" encoding="UTF-16"?><metadata/>`, `primary: malformed XML at byte 0: unsupported encoding "UTF-16"`},
		"type":         {rep(`type="rpm"`, `type="deb"`), `primary: package number 1: malformed XML at byte 30: package of type "deb", expected rpm`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, src := range []io.Reader{strings.NewReader(c.doc), iotest.OneByteReader(strings.NewReader(c.doc))} {
				_, err := scanAll(src, Primary)
				if err == nil || err.Error() != c.want {
					t.Fatalf("got  %v\nwant %s", err, c.want)
				}
			}
		})
	}
}

// endless repeats a pattern forever.
type endless struct {
	pattern string
	at      int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.pattern[e.at%len(e.pattern)]
		e.at++
	}
	return len(p), nil
}

func TestScanBounds(t *testing.T) {
	head := `<metadata><package type="rpm">`
	for name, c := range map[string]struct{ head, pattern string }{
		"attribute":   {head + `<location href="`, "aaaaaaaa"},
		"angles":      {head + `<location href="`, ">>>>>>>>"},
		"attributes":  {head + `<location `, ` a="b" `},
		"name":        {head + "<", "aaaaaaaa"},
		"text":        {head + "<name>", "aaaaaaaa"},
		"depth":       {head, "<a>"},
		"comment":     {head + "<!--", "- - - - "},
		"CDATA":       {head + "<name><![CDATA[", "]] ]] ]]"},
		"instruction": {head + "<?a ", "> > > > "},
		"element":     {head, "<a/><b></b>"},
		"end tag":     {head + "<a></a", "        "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := scanAll(io.MultiReader(strings.NewReader(c.head), &endless{pattern: c.pattern}), Primary)
			if !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrSyntax) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func BenchmarkPrimary(b *testing.B) {
	doc := primaryDoc(2000, 20)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		s := NewScanner(strings.NewReader(doc), Primary)
		for {
			if _, err := s.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkFilelists(b *testing.B) {
	doc := filelistsDoc(1000, 120)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		s := NewScanner(strings.NewReader(doc), Filelists)
		for {
			if _, err := s.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func FuzzScanner(f *testing.F) {
	f.Add([]byte(primaryDoc(2, 1)), byte(0))
	f.Add([]byte(filelistsDoc(2, 1)), byte(1))
	f.Add([]byte(`<otherdata packages="1"><package pkgid="a" name="b" arch="c"><version epoch="0" ver="1" rel="2"/><changelog author="x" date="1">t</changelog></package></otherdata>`), byte(2))
	f.Add([]byte("\xef\xbb\xbf<?xml version='1.0' encoding='ISO-8859-1'?><metadata><!-- x --><package a='>'><![CDATA[x]]></package></metadata>"), byte(0))
	f.Add([]byte(`<filelists><package pkgid="1" name="a" arch="b"><version ver="1" rel="1"/><file>/a</file><file type="dir">/b&amp;</file ><x:y z='>'/>`+
		`<1/><a a="1" a="1">x</a></package></filelists>`), byte(1))
	f.Fuzz(func(t *testing.T, doc []byte, k byte) {
		kind := []Kind{Primary, Filelists, Other}[k%3]
		a, errA := scanAll(bytes.NewReader(doc), kind)
		b, errB := scanAll(iotest.OneByteReader(bytes.NewReader(doc)), kind)
		if (errA == nil) != (errB == nil) || errA != nil && errA.Error() != errB.Error() {
			t.Fatalf("read at once: %v; by bytes: %v", errA, errB)
		}
		if d := cmp.Diff(a, b); d != "" {
			t.Fatal(d)
		}
		for _, p := range a {
			if !bytes.Equal(doc[p.Offset:p.Offset+int64(len(p.Raw))], p.Raw) {
				t.Fatalf("bytes of %s are not those of the document", p.Name)
			}
			// ParsePrimary must not panic. It may return an error.
			_, _ = ParsePrimary(p.Raw)
			_, _ = ParseRelations(p.Raw)
		}
	})
}
