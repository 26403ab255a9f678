package deb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/repo"
)

const (
	sumA = "0ed6d4c8891eb86358b94bb35d9e4da4a0ed6d4c8891eb86358b94bb35d9e4da"
	sumB = "1ed6d4c8891eb86358b94bb35d9e4da4a0ed6d4c8891eb86358b94bb35d9e4da"
)

func TestParseRelease(t *testing.T) {
	sha512 := sumA + sumB
	r, err := ParseRelease([]byte(`Origin: Example
Label: Example-Security
Suite: stable-security
codename: bookworm-security
Version: 12
Changelogs: https://mirror.example.org/@CHANGEPATH@_changelog
Snapshots: https://snapshots.example.org/@SNAPSHOTID@/
NotAutomatic: yes
ButAutomaticUpgrades: yes
Date: Sat, 11 Jul 2026 10:16:37 UTC
Valid-Until: Sat,  8 Aug 2026 09:16:37 +0000
Acquire-By-Hash: yes
No-Support-for-Architecture-all: Packages
Signed-By: 0123456789ABCDEF0123456789ABCDEF01234567
Architectures: all amd64
Components: updates/main updates/contrib
MD5Sum:
 d41d8cd98f00b204e9800998ecf8427e 0 main/binary-amd64/OnlyMD5
 d41d8cd98f00b204e9800998ecf8427e 7 main/binary-amd64/Packages.xz
SHA256:
 ` + sumA + `     1234 main/binary-amd64/Packages
 ` + sumB + ` 7 ./main/binary-amd64/Packages.xz
 ` + sumB + ` 7 main/binary-amd64/Packages.xz
 ` + sumB + ` 7 Release
SHA512:
 ` + sha512 + ` 1234 main/binary-amd64/Packages
 ` + sha512 + ` 9 only512
Description: Debian 12 - Security Updates
`))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := parseSHA256([]byte(sumA))
	b, _ := parseSHA256([]byte(sumB))
	want := &Release{
		Origin: "Example", Label: "Example-Security", Suite: "stable-security", Codename: "bookworm-security",
		Version: "12", Description: "Debian 12 - Security Updates",
		Changelogs: "https://mirror.example.org/@CHANGEPATH@_changelog", Snapshots: "https://snapshots.example.org/@SNAPSHOTID@/",
		SignedBy: "0123456789ABCDEF0123456789ABCDEF01234567", NotAutomatic: "yes", ButAutomaticUpgrades: "yes",
		NoSupportForArchAll: "Packages", AcquireByHash: true,
		Architectures: []string{"all", "amd64"}, Components: []string{"updates/main", "updates/contrib"},
		Date:       time.Date(2026, 7, 11, 10, 16, 37, 0, time.UTC),
		DateText:   "Sat, 11 Jul 2026 10:16:37 UTC",
		ValidUntil: time.Date(2026, 8, 8, 9, 16, 37, 0, time.UTC),
		Files: []repo.Listed{
			{Path: "main/binary-amd64/Packages", Size: 1234, SHA256: a, SHA512: sha512, Alternates: []string{
				"main/binary-amd64/by-hash/SHA512/" + sha512, "main/binary-amd64/by-hash/SHA256/" + sumA}},
			{Path: "main/binary-amd64/Packages.xz", Size: 7, SHA256: b, MD5: "d41d8cd98f00b204e9800998ecf8427e", Alternates: []string{"main/binary-amd64/by-hash/SHA256/" + sumB}},
			{Path: "only512", Size: 9, SHA512: sha512, Alternates: []string{"by-hash/SHA512/" + sha512}},
		},
		Weak: map[string]bool{"main/binary-amd64/OnlyMD5": true},
	}
	if d := cmp.Diff(want, r); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if got := formatDate(r.Date); got != "Sat, 11 Jul 2026 10:16:37 UTC" {
		t.Errorf("date %s", got)
	}
}

func TestParseReleaseRefuses(t *testing.T) {
	const date = "Date: Sat, 11 Jul 2026 10:16:37 UTC\n"
	for _, tt := range []struct {
		name, in, want string
		is             error
	}{
		{"empty", "", `empty: malformed`, repo.ErrMalformed},
		{"HTML", "<html><body>Please log in</body></html>\n", `malformed: stanza 1 at byte 0: line "<html><body>Please log in</body></html>" is not a field: malformed control data`, repo.ErrMalformed},
		{"valid-until", date + "Valid-Until: tomorrow\nSHA256:\n", `Valid-Until: date "tomorrow": expected a form like "Sat, 11 Jul 2026 10:16:37 UTC": malformed`, repo.ErrMalformed},
		{"weak", date + "MD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 Packages\n", `lists files by MD5 or SHA-1 alone, expected SHA256 or SHA512: weak digest`, repo.ErrWeak},
		{"none", date, `neither SHA256 nor SHA512: malformed`, repo.ErrMalformed},
		{"stray line at the end", date + "SHA256:\nstray\n", `malformed: stanza 1 at byte 0: line "stray" is not a field: malformed control data`, repo.ErrMalformed},
		{"one word", date + "SHA256:\x00\n", `SHA256: "\x00": expected digest, size and path: malformed`, repo.ErrMalformed},
		{"two words", date + "SHA256:\n " + sumA + " 1\n", `SHA256: "0ed6d4c8891eb86358b94bb35d9e4da4a0ed6d4c8891eb86358b94bb35d9e4da": expected digest, size and path: malformed`, repo.ErrMalformed},
		{"one word as SHA1", date + "SHA256:\n " + sumA + " 1 a\nSHA1: abcd\n", `SHA1: "abcd": expected digest, size and path: malformed`, repo.ErrMalformed},
		{"one word as MD5Sum", date + "SHA256:\n " + sumA + " 1 a\nMD5Sum:\n abcd\n", `MD5Sum: "abcd": expected digest, size and path: malformed`, repo.ErrMalformed},
		{"four words", date + "SHA256:\n " + sumA + " 1 Packages x\n", `SHA256: "x": expected digest, size and path: malformed`, repo.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseRelease([]byte(tt.in))
			if !errors.Is(err, tt.is) || err.Error() != "parse Release: "+tt.want {
				t.Errorf("error %v\nexpected %s", err, tt.want)
			}
		})
	}
}

// Faults in entries that no configuration can select do not make a Release unreadable.
func TestParseReleaseReadsPast(t *testing.T) {
	const date = "Date: Sat, 11 Jul 2026 10:16:37 UTC\n"
	files := func(r *Release) string {
		var out []string
		for _, l := range r.Files {
			out = append(out, fmt.Sprintf("%s %d %.2s%.2s", l.Path, l.Size, l.SHA256, l.SHA512))
		}
		return strings.Join(out, ", ")
	}
	for _, tt := range []struct{ name, in, files, bad, odd string }{
		{"no date", "Suite: x\nSHA256:\n", "", "", ""},
		{"two stanzas", date + "SHA256:\n\nSuite: other\n", "", "", "text after the first stanza"},
		{"twice", date + "Suite: a\nSHA256:\nsuite: b\n", "", "", "field suite is repeated; the last one counts"},
		{"CR", date + "SHA256:\r\n " + sumA + " 1 Packages\r\n", "Packages 1 0e", "", ""},
		{"short digest", date + "SHA256:\n abcd 1 a\n " + sumA + " 1 b\n", "b 1 0e", `SHA256: a: SHA256 "abcd": 4 characters, expected 64: malformed`, ""},
		{"bad SHA512", date + "SHA512:\n abcd 1 a\nSHA256:\n " + sumA + " 1 a\n", "", `SHA512: a: SHA512 "abcd": expected 128 lower-case hexadecimal digits: malformed`, ""},
		{"upper-case SHA256", date + "SHA256:\n " + strings.ToUpper(sumA) + " 1 a\n", "", `SHA256: a: SHA256 "` + strings.ToUpper(sumA) + `": expected lower-case hexadecimal digits: malformed`, ""},
		{"bad SHA1", date + "SHA1:\n abcd 1 a\nSHA256:\n " + sumA + " 1 a\n", "", `SHA1: a: "abcd": expected 40 lower-case hexadecimal digits: malformed`, ""},
		{"size as strtoull reads it", date + "SHA256:\n " + sumA + " +07x a\n", "a 7 0e", "", ""},
		{"negative", date + "SHA256:\n " + sumA + " -1 a\n", "", `SHA256: a: size "-1": expected a number of bytes up to 68719476736: malformed`, ""},
		{"huge", date + "SHA256:\n " + sumA + " 99999999999 a\n", "", `SHA256: a: size "99999999999": expected a number of bytes up to 68719476736: malformed`, ""},
		{"two digests", date + "SHA256:\n " + sumA + " 1 a\n " + sumB + " 2 a\n", "a 1 0e", "", "a is listed twice; the first one counts"},
		{"two digests, the second bad", date + "SHA256:\n " + sumA + " 1 a\n xyz 2 a\n", "a 1 0e", "", "a is listed twice; the first one counts"},
		{"two digests, the first bad", date + "SHA256:\n xyz 1 a\n " + sumA + " 2 a\n", "", `SHA256: a: SHA256 "xyz": 3 characters, expected 64: malformed`, "a is listed twice; the first one counts"},
		{"one entry twice", date + "SHA256:\n " + sumA + " 1 a\n " + sumA + " 1 a\n", "a 1 0e", "", ""},
		{"two sizes", date + "SHA256:\n " + sumA + " 1 a\nSHA512:\n " + sumA + sumB + " 2 a\n", "a 2 0e0e", "", "a is listed with two sizes; the one with SHA512 counts"},
		{"escape", date + "SHA256:\n " + sumA + " 1 ../../etc/passwd\n", "", "", `SHA256 lists "../../etc/passwd"`},
		{"absolute", date + "SHA256:\n " + sumA + " 1 /etc/passwd\n", "", "", `SHA256 lists "/etc/passwd"`},
		{"component", date + "Components: main ../x\nSHA256:\n", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := ParseRelease([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			bad := ""
			if r.Bad["a"] != nil {
				bad = r.Bad["a"].Error()
			}
			if files(r) != tt.files || bad != tt.bad || strings.Join(r.Oddities, "\n") != tt.odd {
				t.Errorf("files %q, bad %q, odd %q", files(r), bad, r.Oddities)
			}
		})
	}
}

// realReleases returns the texts of this machine's Release files.
func realReleases(tb testing.TB) map[string][]byte {
	files, _ := filepath.Glob("/var/lib/apt/lists/*_InRelease")
	out := make(map[string][]byte)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		_, body, ok := strings.Cut(string(b), "\n\n")
		body, _, ok2 := strings.Cut(body, "\n-----BEGIN PGP SIGNATURE-----")
		if ok && ok2 {
			out[f] = []byte(body)
		}
	}
	return out
}

func TestParseRealReleases(t *testing.T) {
	all := realReleases(t)
	if len(all) == 0 {
		t.Skip("no Release files in /var/lib/apt/lists")
	}
	for f, text := range all {
		r, err := ParseRelease(text)
		if err != nil {
			t.Errorf("%s: %v", f, err)
		} else if len(r.Files) < 10 || r.Codename == "" || r.Date.IsZero() {
			t.Errorf("%s: %d files, codename %q, date %s", f, len(r.Files), r.Codename, r.Date)
		}
	}
}

func BenchmarkParseRelease(b *testing.B) {
	var text []byte
	for _, t := range realReleases(b) {
		if len(t) > len(text) {
			text = t
		}
	}
	if text == nil {
		b.Skip("no Release files in /var/lib/apt/lists")
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRelease(text); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add([]byte("Origin: x\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nComponents: updates/main\nSHA256:\n " + sumA + " 12 main/binary-amd64/Packages.xz\nSHA512:\n " + sumA + sumB + " 12 main/binary-amd64/Packages.xz\n"))
	f.Add([]byte("Date: Sat, 11 Jul 2026 10:16:37 UTC\nMD5Sum:\n x 0 ../x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRelease(data)
		if err != nil {
			return
		}
		for _, l := range r.Files {
			if c, err := cleanPath(l.Path); err != nil || c != l.Path {
				t.Fatalf("path %q: %q %v", l.Path, c, err)
			}
			if l.Size < 0 || l.SHA256.IsZero() && l.SHA512 == "" {
				t.Fatalf("entry %+v", l)
			}
		}
		for _, g := range groupFiles(r.Files) {
			classify(g.index, true)
			classify(g.index, false)
		}
	})
}
