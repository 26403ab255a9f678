package purl

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Long because of its table of cases.
func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in        string
		want      PURL
		canonical string // "": in
		version   string // FullVersion
	}{
		{
			in:      "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie",
			want:    PURL{Type: "deb", Namespace: "debian", Name: "curl", Version: "7.50.3-1", Qualifiers: map[string]string{"arch": "i386", "distro": "jessie"}},
			version: "7.50.3-1",
		},
		{
			in:        "pkg:deb/debian/libstdc++6@1:12.2.0-14+deb12u1~1?distro=debian-12&arch=amd64",
			want:      PURL{Type: "deb", Namespace: "debian", Name: "libstdc++6", Version: "1:12.2.0-14+deb12u1~1", Qualifiers: map[string]string{"arch": "amd64", "distro": "debian-12"}},
			canonical: "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1~1?arch=amd64&distro=debian-12",
			version:   "1:12.2.0-14+deb12u1~1",
		},
		{
			in:        "PKG://DEB/Debian/Attr@1%3A2?Arch=source&empty=",
			want:      PURL{Type: "deb", Namespace: "debian", Name: "attr", Version: "1:2", Qualifiers: map[string]string{"arch": "source"}},
			canonical: "pkg:deb/debian/attr@1:2?arch=source",
			version:   "1:2",
		},
		{
			in:      "pkg:rpm/fedora/NetworkManager@1.46.0-1.fc40?arch=x86_64&epoch=1",
			want:    PURL{Type: "rpm", Namespace: "fedora", Name: "NetworkManager", Version: "1.46.0-1.fc40", Qualifiers: map[string]string{"arch": "x86_64", "epoch": "1"}},
			version: "1:1.46.0-1.fc40",
		},
		{
			in:      "pkg:deb/debian/login@4.13%2Bdfsg1-1%2Bb1?arch=amd64&distro=debian-12.5&epoch=1",
			want:    PURL{Type: "deb", Namespace: "debian", Name: "login", Version: "4.13+dfsg1-1+b1", Qualifiers: map[string]string{"arch": "amd64", "distro": "debian-12.5", "epoch": "1"}},
			version: "1:4.13+dfsg1-1+b1",
		},
		{
			in:      "pkg:deb/debian/login@1:4.13-1?epoch=1",
			want:    PURL{Type: "deb", Namespace: "debian", Name: "login", Version: "1:4.13-1", Qualifiers: map[string]string{"epoch": "1"}},
			version: "1:4.13-1",
		},
		{
			in:      "pkg:rpm/bash@5.2-1?epoch=0",
			want:    PURL{Type: "rpm", Name: "bash", Version: "5.2-1", Qualifiers: map[string]string{"epoch": "0"}},
			version: "5.2-1",
		},
		{
			in:        "pkg:deb/a@1?repository_url=https://mirror.example.org/debian&checksum=sha1:ab,SHA256:CD",
			want:      PURL{Type: "deb", Name: "a", Version: "1", Qualifiers: map[string]string{"repository_url": "https://mirror.example.org/debian", "checksum": "sha1:ab,SHA256:CD"}},
			canonical: "pkg:deb/a@1?checksum=sha1:ab%2CSHA256:CD&repository_url=https:%2F%2Fmirror.example.org%2Fdebian",
			version:   "1",
		},
		{
			in:      "pkg:npm/%40angular/animation@12.3.1",
			want:    PURL{Type: "npm", Namespace: "@angular", Name: "animation", Version: "12.3.1"},
			version: "12.3.1",
		},
		{
			in:        "pkg:npm/@angular/animation",
			want:      PURL{Type: "npm", Namespace: "@angular", Name: "animation"},
			canonical: "pkg:npm/%40angular/animation",
		},
		{
			in:        "pkg:golang/google.golang.org/genproto@v1#/googleapis/api/annotations/",
			want:      PURL{Type: "golang", Namespace: "google.golang.org", Name: "genproto", Version: "v1", Subpath: "googleapis/api/annotations"},
			canonical: "pkg:golang/google.golang.org/genproto@v1#googleapis/api/annotations",
			version:   "v1",
		},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("Parse (-want +got):\n%s", d)
			}
			want := tt.canonical
			if want == "" {
				want = tt.in
			}
			if s := got.String(); s != want {
				t.Errorf("String: got %s, want %s", s, want)
			}
			if v, err := got.FullVersion(); err != nil || v != tt.version {
				t.Errorf("FullVersion: got %q, %v, want %q", v, err, tt.version)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", `parse package URL "": `},
		{"deb/a@1", `parse package URL "deb/a@1": `},
		{"pkg:deb", `parse package URL "pkg:deb": `},
		{"pkg:deb/@1", `parse package URL "pkg:deb/@1": `},
		{"pkg:d_b/a", `invalid type "d_b"`},
		{"pkg:deb/a@%zz", `invalid URL escape "%zz"`},
		{"pkg:deb/a%ff", `expected UTF-8 text, found "pkg:deb/a\xff"`},
		{"pkg:deb/a%00", `expected UTF-8 text, found "pkg:deb/a\x00"`},
		{"pkg:deb/x%2fy/a", `without a slash`},
		{"pkg:deb/a?1=2", `invalid qualifier key: '1'`},
		{"pkg:deb/a?arch=x&ARCH=y", `duplicate qualifier key: "arch"`},
		{"pkg:golang/a/b@v1#/c/../d", `invalid Package URL subpath`},
		{"pkg:deb/" + strings.Repeat("a", maxLen), `parse package URL "pkg:deb/` + strings.Repeat("a", 192) + `…": expected at most 65536 bytes, found 65544: malformed package URL`},
	} {
		_, err := Parse(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse(%.40q): got %v, want %s", tt.in, err, tt.want)
		}
	}
}

func TestFullVersionErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"pkg:rpm/a@1-1?epoch=x", `package URL of a: expected a number as epoch, found "x": malformed package URL`},
		{"pkg:deb/a@2:1-1?epoch=1", `package URL of a: expected one epoch, found "1" and "2:1-1": malformed package URL`},
		{"pkg:rpm/a@2:1-1?epoch=1", `package URL of a: expected one epoch, found "1" and "2:1-1": malformed package URL`},
	} {
		p, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.FullVersion(); err == nil || err.Error() != tt.want {
			t.Errorf("FullVersion of %s: got %v, want %s", tt.in, err, tt.want)
		}
	}
}

func TestMake(t *testing.T) {
	for _, tt := range []struct {
		p      PURL
		want   string
		source bool
	}{
		{Deb("debian", "g++", "4:12.2.0-3", "amd64", map[string]string{"distro_name": "bookworm"}), "pkg:deb/debian/g%2B%2B@4:12.2.0-3?arch=amd64&distro_name=bookworm", false},
		{Deb("debian", "gcc-12", "12.2.0-14", "source", nil), "pkg:deb/debian/gcc-12@12.2.0-14?arch=source", true},
		{RPM("fedora", "bind", "32:9.18.26-1.fc40", "x86_64", nil), "pkg:rpm/fedora/bind@9.18.26-1.fc40?arch=x86_64&epoch=32", false},
		{RPM("", "bash", "0:5.2-1^git~rc1", "src", map[string]string{Distro: ""}), "pkg:rpm/bash@5.2-1%5Egit~rc1?arch=src", true},
	} {
		if got := tt.p.String(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
		back, err := Parse(tt.want)
		if err != nil || back.String() != tt.want || back.IsSource() != tt.source {
			t.Errorf("%s: read back as %s (source %v), %v", tt.want, back, back.IsSource(), err)
		}
	}
}

func TestChecksums(t *testing.T) {
	p := Deb("debian", "a", "1", "all", map[string]string{Checksum: "sha1:AB,SHA256:cd,odd"})
	want := map[string]string{"sha1": "ab", "sha256": "cd"}
	if d := cmp.Diff(want, p.Checksums()); d != "" {
		t.Errorf("Checksums (-want +got):\n%s", d)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"pkg:deb/debian/libstdc++6@1:12.2.0-14+deb12u1~1?distro=debian-12&arch=amd64",
		"PKG://DEB/Debian/Attr@1%3A2?Arch=source&empty=",
		"pkg:rpm/fedora/NetworkManager@1.46.0-1.fc40?arch=x86_64&epoch=1",
		"pkg:npm/@angular/animation@12.3.1#/a/../b/",
		"pkg:generic/%20/a%2Fb@%40?checksum=sha1:ab,sha256:cd&repository_url=https://mirror.example.org/x%3Fy",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("Parse(%q): %v", s, err)
			}
			return
		}
		out := p.String()
		back, err := Parse(out)
		if err != nil {
			t.Fatalf("Parse(%q) of %q: %v", out, s, err)
		}
		if d := cmp.Diff(p, back); d != "" {
			t.Fatalf("%q changes when written as %q (-read +again):\n%s", s, out, d)
		}
		if again := back.String(); again != out {
			t.Fatalf("%q, then %q", out, again)
		}
	})
}
