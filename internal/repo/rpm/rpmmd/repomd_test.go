package rpmmd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
)

const sampleRepoMD = `<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
  <revision>1737000000</revision>
  <tags>
    <content>binary-x86_64</content>
    <distro cpeid="cpe:/o:fedoraproject:fedora:42">Fedora 42</distro>
  </tags>
  <data type="primary">
    <checksum type="sha256">aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</checksum>
    <open-checksum type="sha256">bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb</open-checksum>
    <location href="repodata/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-primary.xml.zst"/>
    <timestamp>1737000001</timestamp>
    <size>1234</size>
    <open-size>5678</open-size>
  </data>
  <data type="x-unknown">
    <checksum type="sha">cccccccccccccccccccccccccccccccccccccccc</checksum>
    <checksum type="sha512">dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd</checksum>
    <location xml:base="http://elsewhere.example.org/" href="repodata/x%20y.bin"/>
    <timestamp>1737000000.52</timestamp>
    <database_version>10</database_version>
    <novelty a="b"><c/></novelty>
  </data>
</repomd>
`

func TestParseRepoMD(t *testing.T) {
	md, err := ParseRepoMD([]byte(sampleRepoMD))
	if err != nil {
		t.Fatal(err)
	}
	a, d := strings.Repeat("a", 64), strings.Repeat("d", 128)
	want := &RepoMD{
		Revision: "1737000000",
		Tags:     []Tag{{Name: "content", Value: "binary-x86_64"}, {Name: "distro", CPEID: "cpe:/o:fedoraproject:fedora:42", Value: "Fedora 42"}},
		Data: []Data{
			{Type: "primary", Checksum: Checksum{"sha256", a}, OpenChecksum: Checksum{"sha256", strings.Repeat("b", 64)},
				Href: "repodata/" + a + "-primary.xml.zst", Path: "repodata/" + a + "-primary.xml.zst", Timestamp: 1737000001,
				Size: 1234, OpenSize: 5678, HeaderSize: -1},
			{Type: "x-unknown", Checksum: Checksum{"sha512", d}, Href: "repodata/x%20y.bin", Path: "repodata/x y.bin",
				Base: "http://elsewhere.example.org/", Timestamp: 1737000000, Size: -1, OpenSize: -1, HeaderSize: -1, DatabaseVersion: "10"},
		},
	}
	if d := cmp.Diff(want, md); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if md.Time() != 1737000001 || md.HashNamed() {
		t.Errorf("time %d, hash-named %v", md.Time(), md.HashNamed())
	}
	again, err := ParseRepoMD(md.Format())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(md, again); d != "" {
		t.Errorf("after Format (-want +got):\n%s", d)
	}
}

func TestParseRepoMDRefuses(t *testing.T) {
	rep := func(old, new string) string {
		if !strings.Contains(sampleRepoMD, old) {
			t.Fatal(old)
		}
		return strings.Replace(sampleRepoMD, old, new, 1)
	}
	const href = `href="repodata/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-primary.xml.zst"`
	hostile := func(h string) string { return rep(href, `href="`+h+`"`) }
	for name, c := range map[string]struct {
		doc, want string
		is        error
	}{
		"parent":        {hostile("../../etc/passwd"), `repomd.xml: data primary: hostile location: href "../../etc/passwd": has the segment ".."`, ErrHostile},
		"inner parent":  {hostile("repodata/../../x"), `repomd.xml: data primary: hostile location: href "repodata/../../x": has the segment ".."`, ErrHostile},
		"escaped":       {hostile("repodata/%2e%2e/x"), `repomd.xml: data primary: hostile location: href "repodata/%2e%2e/x": has the segment ".."`, ErrHostile},
		"escaped slash": {hostile("%2fetc/passwd"), `repomd.xml: data primary: hostile location: href "%2fetc/passwd": is absolute`, ErrHostile},
		"entity slash":  {hostile("&#47;etc/passwd"), `repomd.xml: data primary: hostile location: href "/etc/passwd": is absolute`, ErrHostile},
		"absolute":      {hostile("/etc/passwd"), `repomd.xml: data primary: hostile location: href "/etc/passwd": is absolute`, ErrHostile},
		"URL":           {hostile("http://evil.example.org/x"), `repomd.xml: data primary: hostile location: href "http://evil.example.org/x": is an absolute URL`, ErrHostile},
		"file URL":      {hostile("file:/etc/passwd"), `repomd.xml: data primary: hostile location: href "file:/etc/passwd": is an absolute URL`, ErrHostile},
		"host":          {hostile("//evil/x"), `repomd.xml: data primary: hostile location: href "//evil/x": is absolute`, ErrHostile},
		"space":         {hostile("repodata/a b"), `repomd.xml: data primary: hostile location: href "repodata/a b": has white space or control characters`, ErrHostile},
		"newline":       {hostile("repodata/a&#10;b"), `repomd.xml: data primary: hostile location: href "repodata/a\nb": has white space or control characters`, ErrHostile},
		"NUL":           {hostile("repodata/a%00b"), `repomd.xml: data primary: hostile location: href "repodata/a%00b": has control characters or backslashes`, ErrHostile},
		"backslash":     {hostile(`..\x`), `repomd.xml: data primary: hostile location: href "..\\x": has control characters or backslashes`, ErrHostile},
		"query":         {hostile("repodata/a?b"), `repomd.xml: data primary: hostile location: href "repodata/a?b": has a query or fragment`, ErrHostile},
		"empty":         {hostile(""), `repomd.xml: data primary: hostile location: href "": is empty`, ErrHostile},
		"double slash":  {hostile("repodata//x"), `repomd.xml: data primary: hostile location: href "repodata//x": has an empty segment`, ErrHostile},
		"twice":         {rep("x-unknown", "primary"), `repomd.xml: malformed XML at byte 1236: data type "primary" is listed twice, with different files`, ErrSyntax},
		"bad digest": {rep(`>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</checksum`, ">zz</checksum"),
			`repomd.xml: data primary: sha256 checksum "zz": malformed XML: 2 characters, expected 64`, ErrSyntax},
		"size":    {rep("<size>1234", "<size>-5"), `repomd.xml: data primary: malformed XML at byte 711: <size> "-5" is not a number of bytes`, ErrSyntax},
		"entity":  {rep("Fedora 42", "&xxe;"), `repomd.xml: malformed XML at byte 270: entity "&xxe;" is not defined`, ErrSyntax},
		"doctype": {rep("<repomd", "<!DOCTYPE repomd SYSTEM \"file:///etc/passwd\"><repomd"), `repomd.xml: malformed XML at byte 39: a declaration, "<!DOCTYPE"; document types and entities are not accepted`, ErrSyntax},
		"html":    {"<html></html>", `repomd.xml: malformed XML at byte 6: root element <html>, expected <repomd>`, ErrSyntax},
		"large":   {strings.Repeat(" ", MaxRepoMD+1), `repomd.xml: size exceeds the limit of 4194304 bytes`, ErrTooLarge},
	} {
		_, err := ParseRepoMD([]byte(c.doc))
		if err == nil || err.Error() != c.want || !errors.Is(err, c.is) {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, c.want)
		}
	}
}

// Like dnf, ParseRepoMD ignores a timestamp that is not a number, and data that is listed
// twice with equal contents.
func TestParseRepoMDReadsPast(t *testing.T) {
	want, err := ParseRepoMD([]byte(sampleRepoMD))
	if err != nil {
		t.Fatal(err)
	}
	from := strings.Index(sampleRepoMD, `<data type="primary"`)
	to := from + strings.Index(sampleRepoMD[from:], "</data>") + len("</data>")
	got, err := ParseRepoMD([]byte(sampleRepoMD[:to] + sampleRepoMD[from:to] + sampleRepoMD[to:]))
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("listed twice: %v (-want +got):\n%s", err, d)
	}
	got, err = ParseRepoMD([]byte(strings.Replace(sampleRepoMD, "<timestamp>1737000001<", "<timestamp>today<", 1)))
	if err != nil || got.Data[0].Timestamp != 0 {
		t.Errorf("no number: %+v, %v", got, err)
	}
}

func TestWeakDigest(t *testing.T) {
	weak := strings.Replace(sampleRepoMD, `<checksum type="sha512">`, `<other>`, 1)
	weak = strings.Replace(weak, strings.Repeat("d", 128)+"</checksum>", "</other>", 1)
	md, err := ParseRepoMD([]byte(weak))
	if err != nil {
		t.Fatal(err)
	}
	err = md.Data[1].Check()
	if want := "repomd.xml: data x-unknown: weak digest: only sha1 is given, expected sha256 or better"; err == nil || err.Error() != want || !errors.Is(err, ErrWeak) {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := md.Data[0].Check(); err != nil {
		t.Error(err)
	}
}

// TestCreaterepo reads the output of createrepo_c with each compression, and both ways of
// naming files.
func TestCreaterepo(t *testing.T) {
	needs.Program(t, "createrepo_c")
	for _, args := range [][]string{{"--compress-type=gz"}, {"--compress-type=bz2", "--simple-md-filenames"}, {"--compress-type=xz"}, {"--checksum=sha512", "--repomd-checksum=sha512"}} {
		dir := t.TempDir()
		run(t, "createrepo_c", append(args, "-q", dir)...)
		doc, err := os.ReadFile(filepath.Join(dir, "repodata/repomd.xml"))
		if err != nil {
			t.Fatal(err)
		}
		md, err := ParseRepoMD(doc)
		if err != nil {
			t.Fatal(err)
		}
		if simple := len(args) == 2 && args[1] == "--simple-md-filenames"; md.HashNamed() == simple {
			t.Errorf("%v: hash-named is %v", args, !simple)
		}
		for _, k := range []Kind{Primary, Filelists, Other} {
			d := md.Find(string(k))
			b, err := os.ReadFile(filepath.Join(dir, d.Path))
			if err != nil {
				t.Fatal(err)
			}
			h := d.Checksum.New()
			h.Write(b)
			if !d.Checksum.Matches(h) || int64(len(b)) != d.Size {
				t.Errorf("%v: %s does not have its checksum", args, k)
			}
			plain, err := decodeAll(d.Path, b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := scanAll(bytes.NewReader(plain), k); err != nil {
				t.Error(err)
			}
		}
	}
}

func FuzzRepoMD(f *testing.F) {
	f.Add([]byte(sampleRepoMD))
	f.Fuzz(func(t *testing.T, doc []byte) {
		md, err := ParseRepoMD(doc)
		if err != nil {
			return
		}
		for i := range md.Data {
			if p := md.Data[i].Path; strings.HasPrefix(p, "/") || strings.Contains("/"+p+"/", "/../") || p == "" {
				t.Fatalf("path %q", p)
			}
			_ = md.Data[i].Check()
		}
		_, _ = md.Time(), md.HashNamed()
	})
}
