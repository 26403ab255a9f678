package rpmmd

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	newest = "<repomd>newest</repomd>"
	older  = "<repomd>older</repomd>"
)

func hashes3(doc string) string {
	var b strings.Builder
	for _, t := range []string{"md5", "sha1", "sha256", "sha512"} {
		h := Checksum{Type: t}.New()
		if h == nil {
			fmt.Fprintf(&b, "<hash type=\"md5\">%032x</hash>", 7)
			continue
		}
		h.Write([]byte(doc))
		fmt.Fprintf(&b, "<hash type=\"%s\">%x</hash>\n", t, h.Sum(nil))
	}
	return b.String()
}

func sampleMetalink() string {
	return `<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" pubdate="Sun, 01 Mar 2026 12:00:00 GMT" generator="mirrormanager" xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files>
  <file name="repomd.xml">
   <mm0:timestamp>1772366400</mm0:timestamp>
   <size>` + fmt.Sprint(len(newest)) + `</size>
   <verification>` + hashes3(newest) + `</verification>
   <mm0:alternates>
    <mm0:alternate><mm0:timestamp>1</mm0:timestamp><size>3</size><verification><hash type="sha-256">` + strings.Repeat("1", 64) + `</hash></verification></mm0:alternate>
    <mm0:alternate><mm0:timestamp>1772280000</mm0:timestamp><size>` + fmt.Sprint(len(older)) + `</size><verification>` + hashes3(older) + `</verification></mm0:alternate>
   </mm0:alternates>
   <resources maxconnections="1">
    <url protocol="rsync" type="rsync" location="DE" preference="100">rsync://a.example.org/f/repodata/repomd.xml</url>
    <url protocol="http" type="http" location="US" preference="90">http://b.example.org/f/repodata/repomd.xml</url>
    <url protocol="https" type="https" location="DE" preference="100">https://a.example.org/f%20x/repodata/repomd.xml</url>
    <url protocol="https" type="https" location="DE" preference="80">http://b.example.org/f/repodata/repomd.xml</url>
   </resources>
  </file>
 </files>
</metalink>
`
}

func TestParseMetalink(t *testing.T) {
	m, err := ParseMetalink([]byte(sampleMetalink()))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"https://a.example.org/f%20x", "http://b.example.org/f"}, m.Bases); d != "" {
		t.Error(d)
	}
	if m.Current.Timestamp != 1772366400 || len(m.Current.Hashes) != 4 || len(m.Alternates) != 2 || m.Alternates[0].Timestamp != 1772280000 {
		t.Errorf("%+v", m)
	}
	for doc, want := range map[string]int{newest: 0, older: 1, "other": -1, newest + " ": -1} {
		if got := m.Match([]byte(doc)); got != want {
			t.Errorf("%q is number %d, want %d", doc, got, want)
		}
	}
	if c, err := m.Current.Strongest(); err != nil || c.Type != "sha512" {
		t.Errorf("%v, %v", c, err)
	}
	// A weak hash alone does not match, nor does a strong one together with a wrong weak one.
	weak := RepoMDRef{Size: -1, Hashes: m.Current.Hashes[1:2]}
	if weak.Matches([]byte(newest)) {
		t.Error("a reference with only a SHA-1 matches")
	}
	if _, err := weak.Strongest(); !errors.Is(err, ErrWeak) {
		t.Error(err)
	}
}

func TestParseMetalinkRefuses(t *testing.T) {
	good := sampleMetalink()
	for name, c := range map[string]struct{ old, new, want string }{
		"other file":   {`name="repomd.xml"`, `name="Fedora.iso"`, `metalink: not the address of a repository: it describes the file "Fedora.iso", expected "repomd.xml"`},
		"path":         {`name="repomd.xml"`, `name="../repomd.xml"`, `metalink: not the address of a repository: it describes the file "../repomd.xml", expected "repomd.xml"`},
		"other URL":    {"http://b.example.org/f/repodata/repomd.xml", "http://b.example.org/evil.xml", `metalink: not the address of a repository: address "http://b.example.org/evil.xml", expected one that ends in "/repodata/repomd.xml"`},
		"query":        {"http://b.example.org/f/", "http://b.example.org/?/f/", `metalink: not the address of a repository: address "http://b.example.org/?xxxxx"`},
		"no host":      {"http://b.example.org/f/", "http:///f/", `metalink: not the address of a repository: address "http://xxxxx"`},
		"hash":         {`<hash type="sha256">`, `<hash type="sha256">0`, ""},
		"document":     {"<metalink version", "<!DOCTYPE m><metalink version", `metalink: malformed XML at byte 39: a declaration, "<!DOCTYPE"; document types and entities are not accepted`},
		"no file":      {`<file name="repomd.xml">`, `<other name="repomd.xml">`, ""},
		"preference":   {`preference="90"`, `preference="x"`, `preference "x"`},
		"not metalink": {`<metalink `, `<html `, `root element <html>, expected <metalink>`},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatal(c.old)
		}
		_, err := ParseMetalink([]byte(strings.Replace(good, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, c.want)
		}
	}
	if _, err := ParseMetalink([]byte(`<metalink><files/></metalink>`)); !errors.Is(err, ErrAddress) {
		t.Error(err)
	}
}

func TestParseMirrorlist(t *testing.T) {
	got, err := ParseMirrorlist([]byte("# repo = f country = DE\nhttps://a.example.org/f/\n\nftp://x/\nrsync://x/\n http://b.example.org/f/repodata/repomd.xml\nhttps://a.example.org/f\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"https://a.example.org/f", "http://b.example.org/f"}, got); d != "" {
		t.Error(d)
	}
	if got, err = ParseMirrorlist([]byte(sampleMetalink())); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	for in, want := range map[string]string{
		"":                        "mirror list: not the address of a repository: no address in it",
		"# No mirrors\n":          "mirror list: not the address of a repository: no address in it",
		"<html>404</html>":        "mirror list: metalink: malformed XML at byte 6: root element <html>, expected <metalink>",
		"Not found\n":             `mirror list: line 1: not the address of a repository: "Not found", expected an http or https URL`,
		"http:///x\n":             `mirror list: line 1: not the address of a repository: address "http://xxxxx"`,
		"javascript:alert(1)\n":   `mirror list: line 1: not the address of a repository: "xxxxx", expected an http or https URL`,
		"http://a/?repo=x&arch\n": `mirror list: line 1: not the address of a repository: address "http://a/?repo=x&xxxxx"`,
	} {
		if _, err := ParseMirrorlist([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("%q:\ngot  %v\nwant %s", in, err, want)
		}
	}
}

const sampleTreeinfo = `[checksums]
images/boot.iso = sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
images/pxeboot/vmlinuz = sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
repodata/repomd.xml = sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc

[general]
; WARNING.0 = This section provides compatibility with pre-productmd treeinfos.
arch = x86_64
family = Fedora
version = 42
variant = Everything

[images-x86_64]
boot.iso = images/boot.iso
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img

[stage2]
mainimage = images/install.img

[variant-Everything]
id = Everything
packages = Packages
repository = .

[variant-Server]
packages = ../../../Server/x86_64/os/Packages
repository = ../../../Server/x86_64/os
`

func TestParseTreeinfo(t *testing.T) {
	got, err := ParseTreeinfo([]byte(sampleTreeinfo))
	if err != nil {
		t.Fatal(err)
	}
	sum := func(c string) Checksum { return Checksum{"sha256", strings.Repeat(c, 64)} }
	want := &Treeinfo{Family: "Fedora", Version: "42", Arch: "x86_64",
		Files: []TreeFile{{"images/boot.iso", sum("a")}, {"images/install.img", Checksum{}}, {"images/pxeboot/initrd.img", Checksum{}},
			{"images/pxeboot/vmlinuz", sum("b")}, {"repodata/repomd.xml", sum("c")}},
		Variants: []TreeVariant{{ID: "Everything", Repository: ".", Packages: "Packages"},
			{ID: "Server", Repository: "../../../Server/x86_64/os", Packages: "../../../Server/x86_64/os/Packages"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for in, want := range map[string]string{
		"":                                  "treeinfo: malformed treeinfo: it has none of the known sections",
		"<html>":                            `treeinfo: line 1: malformed treeinfo: "<html>", expected key = value in a section`,
		"[x":                                `treeinfo: line 1: malformed treeinfo: section "[x"`,
		"[checksums]\n../x = sha256:aa":     `treeinfo: line 2: sha256 checksum "aa": malformed XML: 2 characters, expected 64`,
		"[images-x86_64]\nkernel = ../../x": `treeinfo: line 2: hostile location: href "../../x": has the segment ".."`,
		"[stage2]\nmainimage = /etc/passwd": `treeinfo: line 2: hostile location: href "/etc/passwd": is absolute`,
	} {
		if _, err := ParseTreeinfo([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("%q:\ngot  %v\nwant %s", in, err, want)
		}
	}
}

func FuzzMetalink(f *testing.F) {
	f.Add([]byte(sampleMetalink()))
	f.Add([]byte("# x\nhttps://a.example.org/f\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseMetalink(b); err == nil {
			m.Match(b)
			for _, u := range m.Bases {
				if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
					t.Fatalf("base %q", u)
				}
			}
		}
		_, _ = ParseMirrorlist(b)
	})
}

func FuzzTreeinfo(f *testing.F) {
	f.Add([]byte(sampleTreeinfo))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := ParseTreeinfo(b)
		if err != nil {
			return
		}
		for _, file := range tree.Files {
			if strings.HasPrefix(file.Path, "/") || strings.Contains("/"+file.Path+"/", "/../") {
				t.Fatalf("path %q", file.Path)
			}
		}
	})
}
