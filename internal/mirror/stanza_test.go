package mirror_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// editStanza changes the stanza of package b in a suite's Packages.
func editStanza(s *debtest.Suite, edit func(string) string) {
	s.EditIndex = func(path string, plain []byte) []byte {
		if !strings.Contains(path, "Packages") {
			return plain
		}
		stanzas := strings.SplitAfter(string(plain), "\n\n")
		for i, text := range stanzas {
			if strings.HasPrefix(text, "Package: b\n") {
				stanzas[i] = edit(strings.TrimSuffix(text, "\n")) + "\n"
			}
		}
		return []byte(strings.Join(stanzas, ""))
	}
}

// setField replaces a field's line, which is not the first.
func setField(field, line string) func(string) string {
	return func(s string) string {
		i := strings.Index(s, "\n"+field+":") + 1
		j := i + strings.Index(s[i:], "\n") + 1
		return s[:i] + line + s[j:]
	}
}

// addBefore puts a line before a field.
func addBefore(field, line string) func(string) string {
	return func(s string) string { return strings.Replace(s, "\n"+field+":", "\n"+line+field+":", 1) }
}

func addBehind(line string) func(string) string { return func(s string) string { return s + line } }

// One odd stanza does not make its index unusable. Each one that apt can install
// is kept, with the fields as apt reads them; the others are left out, counted
// and named. The index as a whole is refused where apt refuses it, or a path is
// hostile. Long because of its table of cases.
func TestStanzaAsApt(t *testing.T) {
	if testing.Short() {
		t.Skip("asks apt, one case after the other")
	}
	sum := strings.Repeat("1", 64)
	const all = "a b c"
	for _, c := range []struct {
		name string
		edit func(string) string
		apt  string // what apt can download; empty: it refuses the index
		want string // what is kept; empty: as apt; "hostile": refused
		says string // why the stanza is left out
	}{
		{name: "as it is", edit: addBehind(""), apt: all},
		{name: "no Architecture", edit: setField("Architecture", ""), apt: all, want: "a c", says: "b 1: no Architecture"},
		{name: "two architectures", edit: setField("Architecture", "Architecture: amd64 arm64\n"), apt: "a c", says: `b 1 "amd64 arm64": Architecture "amd64 arm64": not an architecture`},
		{name: "no digest", edit: setField("SHA256", ""), apt: "a c", says: "b 1 amd64: no SHA256 or SHA512"},
		{name: "empty digest", edit: setField("SHA256", "SHA256:\n"), apt: "a c", says: "no SHA256 or SHA512"},
		{name: "short digest", edit: setField("SHA256", "SHA256: abcd\n"), apt: "a c", says: `SHA256 "abcd": 4 characters, expected 64`},
		{name: "no Size", edit: setField("Size", ""), apt: "a c", says: "no Size"},
		{name: "Size of letters", edit: setField("Size", "Size: abc\n"), apt: "a c", says: `Size "abc"`},
		{name: "negative Size", edit: setField("Size", "Size: -5\n"), apt: "a c", says: `Size "-5"`},
		{name: "Size 0", edit: setField("Size", "Size: 0\n"), apt: "a c", says: `Size "0": apt ignores it`},
		{name: "Size with a plus sign", edit: func(s string) string { return strings.Replace(s, "Size: ", "Size: +", 1) }, apt: all},
		{name: "Size with text behind", edit: func(s string) string { return regexp.MustCompile(`(?m)^Size: .*`).ReplaceAllString(s, "$0 bytes") }, apt: all},
		{name: "upper-case SHA256", edit: func(s string) string {
			i := strings.Index(s, "SHA256: ") + len("SHA256: ")
			return s[:i] + strings.ToUpper(s[i:i+64]) + s[i+64:]
		}, apt: "a c", says: "expected lower-case hexadecimal digits"},
		{name: "bad SHA512 beside SHA256", edit: addBehind("SHA512: 0000\n"), apt: "a c", says: `SHA512 "0000": expected 128 lower-case`},
		{name: "bad SHA1 beside SHA256", edit: addBehind("SHA1: x\n"), apt: "a c", says: `SHA1 "x": expected 40 lower-case`},
		{name: "bad MD5sum beside SHA256", edit: addBehind("MD5sum: x\n"), apt: "a c", says: `MD5sum "x": expected 32 lower-case`},
		{name: "Depends without closing parenthesis", edit: addBefore("Version", "Depends: c (>= 1\n")},
		{name: "Conflicts of two words", edit: addBefore("Version", "Conflicts: x y\n")},
		{name: "Provides that begins with a comma", edit: addBefore("Version", "Provides: , x\n")},
		{name: "Recommends for an architecture", edit: addBefore("Version", "Recommends: c [amd64]\n")},
		{name: "field of 1.1 MB", edit: addBefore("Version", "X: "+strings.Repeat("x", 1_100_000)+"\n")},
		{name: "field of 1 MB", edit: addBefore("Version", "X: "+strings.Repeat("x", 1_000_000)+"\n"), apt: all},
		{name: "short Description-md5", edit: addBehind("Description-md5: x\n")},
		{name: "Suggests with an unknown operator", edit: addBefore("Version", "Suggests: c (~ 1)\n"), apt: all},
		{name: "Built-Using of anything", edit: addBefore("Version", "Built-Using: ((\n"), apt: all},
		{name: "no Filename", edit: setField("Filename", ""), apt: "a c", says: "no Filename"},
		{name: "no Version", edit: setField("Version", ""), apt: "a c", says: "no Version"},
		{name: "Version of two words", edit: setField("Version", "Version: 1 2\n"), apt: all, want: "a c", says: `Version "1 2"`}, // dpkg refuses it
		{name: "Package of two words", edit: func(s string) string { return strings.Replace(s, "Package: b", "Package: b x", 1) }, apt: "a c", says: `"b x" 1 amd64: Package "b x"`},
		{name: "no Package", edit: func(s string) string { return strings.Replace(s, "Package: b\n", "", 1) }},
		{name: "empty Package", edit: func(s string) string { return strings.Replace(s, "Package: b", "Package:", 1) }},
		{name: "stray line first", edit: func(s string) string { return "stray\n" + s }},
		{name: "hostile Filename", edit: setField("Filename", "Filename: ../x\n"), apt: "a c", want: "hostile"},

		{name: "Size twice", edit: func(s string) string { return s + s[strings.Index(s, "Size:"):] }, apt: all},
		{name: "Size twice and the first wrong", edit: addBefore("Size", "Size: 12\n"), apt: all},
		{name: "SHA256 twice and the first wrong", edit: addBefore("SHA256", "SHA256: "+sum+"\n"), apt: all},
		{name: "Version twice and the first another", edit: addBefore("Version", "Version: 0.5\n"), apt: all},
		{name: "Package twice and the first another", edit: func(s string) string { return "Package: x\n" + s }, apt: all},
		{name: "free text as Source", edit: addBefore("Version", "Source: Acme Tools Inc.\n"), apt: all},
		{name: "Source without closing parenthesis", edit: addBefore("Version", "Source: acme (1\n"), apt: all},
		{name: "empty Source", edit: addBefore("Version", "Source:\n"), apt: all},
		{name: "CRLF", edit: func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") + "\r" }, apt: all},
		{name: "comment with a colon", edit: addBefore("Version", "# x: y\n"), apt: all},
		{name: "NUL in a field", edit: addBefore("Version", "X: \x00\n"), apt: all},
		{name: "not UTF-8", edit: addBefore("Version", "X: \xff\xfe\n"), apt: all},
		{name: "value on the next line", edit: func(s string) string { return strings.Replace(s, "Package: b", "Package:\n b", 1) }, apt: all},
		{name: "blank before the colon", edit: func(s string) string { return strings.Replace(s, "Package: b", "Package : b", 1) }, apt: all},
		{name: "field without a name", edit: addBefore("Version", ":x\n"), apt: all},
		{name: "stray line before Description", edit: addBefore("Description", "stray\n"), apt: all},
		{name: "stray line before Version", edit: addBefore("Version", "stray\n"), apt: "a c", says: "b amd64: no Version"},
		{name: "stray line at the end", edit: addBehind("stray\n"), apt: "a b", want: "a b"},
		{name: "Filename with a dot", edit: func(s string) string { return strings.Replace(s, "Filename: pool", "Filename: ./pool", 1) }, apt: all},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newSmall(t)
			editStanza(w.Archive.Default(), c.edit)
			for _, n := range []string{"a", "b", "c"} {
				w.Archive.Add(debtest.Package{Name: n, Version: "1"})
			}
			w.Archive.Publish(mirrortest.Start)
			apt := aptFor(t, w)
			var got []string
			if out, err := apt.Try("apt-get", "update"); err == nil {
				for _, n := range []string{"a", "b", "c"} {
					if _, err := apt.Try("apt-get", "install", "--download-only", n); err == nil {
						got = append(got, n)
					}
				}
			} else if c.apt != "" {
				t.Fatalf("apt refuses the index:\n%s", out)
			}
			if s := strings.Join(got, " "); s != c.apt {
				t.Fatalf("apt can download %q, expected %q", s, c.apt)
			}
			res, err := w.TrySync()
			if c.apt == "" || c.want == "hostile" {
				if is := map[bool]error{true: repo.ErrHostile, false: repo.ErrMalformed}[c.want == "hostile"]; !errors.Is(err, is) {
					t.Errorf("error %v, expected %v", err, is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := c.want
			if want == "" {
				want = c.apt
			}
			checkKept(t, w, res.Snapshot, want, c.says, res.Warnings)
		})
	}
}

// checkKept checks which packages of a snapshot can be had, and the warning of the
// stanza that is left out.
func checkKept(t *testing.T, w *mirrortest.World, snap *meta.Snapshot, want, says string, warnings []string) {
	t.Helper()
	var got []string
	err := w.EachPackage(t.Context(), snap, func(en meta.Entry) error {
		got = append(got, en.Name)
		_ = read(t, w, snap, en.Files[0].Path, false)
		return nil
	})
	if s := strings.Join(got, " "); err != nil || s != want {
		t.Errorf("packages %q, %v, expected %q", s, err, want)
	}
	if text := strings.Join(warnings, "\n"); (says == "") != (text == "") || says != "" && !strings.Contains(text, "main/binary-amd64/Packages: 1 stanza that no client can install is left out (") || !strings.Contains(text, says) {
		t.Errorf("warnings %q, expected %q", text, says)
	}
	if says != "" && !strings.Contains(read(t, w, snap, binaryIndex, false), "\nFilename: pool/main/c/c/c_1_amd64.deb\n") {
		t.Error("the index is not upstream's")
	}
}

// An index without any usable stanza is refused.
func TestNoUsableStanza(t *testing.T) {
	w := newSmall(t)
	editStanza(w.Archive.Default(), setField("SHA256", ""))
	w.Archive.Add(debtest.Package{Name: "b", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	_, err := w.TrySync()
	const want = "index dists/stable/main/binary-amd64/Packages.xz: read main/binary-amd64/Packages.xz of suite stable: no stanza can be used: stanza 1 (b) at byte 0: no SHA256 or SHA512: weak digest"
	if !errors.Is(err, repo.ErrWeak) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v, expected %s", err, want)
	}
}

// A source package is left out of Sources if it has MD5 alone, if one of its files
// has, or if it has no name: apt can download none of them. Those with SHA-512 alone
// are kept, and fetched.
func TestSourceStanzas(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Download = config.OnDemand })
	s := w.Archive.Default()
	s.Languages, s.SHA512 = nil, true
	s.EditIndex = func(path string, plain []byte) []byte {
		if !strings.Contains(path, "Sources") {
			return plain
		}
		return []byte(eachStanza(string(plain), func(name, text string) string {
			switch name {
			case "weak":
				text = text[:strings.Index(text, "Checksums-Sha")]
			case "partial":
				text = regexp.MustCompile(`(?m)^ [0-9a-f]{128} .*\.dsc\n`).ReplaceAllString(text, "")
			case "nameless":
				text = strings.Replace(text, "Package: nameless\nBinary: nameless\n", "", 1)
			}
			return text
		}))
	}
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "nameless"}, debtest.Source{Name: "partial"}, debtest.Source{Name: "weak"}, debtest.Source{Name: "strong"})
	w.Archive.Publish(mirrortest.Start)
	res := w.MustSync()
	apt := debtest.NewApt(t, fmt.Sprintf("deb-src [signed-by=%s] %s stable main\n", w.Archive.KeyringFile(), w.Server.URL))
	apt.Run("apt-get", "update")
	for name, want := range map[string]bool{"nameless": false, "partial": false, "weak": false, "strong": true} {
		out, err := apt.Try("apt-get", "source", "--download-only", name)
		if got := err == nil && !strings.Contains(out, "Skipping download of file"); got != want {
			t.Fatalf("apt downloads all of %s: %t, %v\n%s", name, got, err, out)
		}
	}
	const want = "suite stable: main/source/Sources: 3 stanzas that no client can install are left out (the first: (unnamed) 1.0-1 source: no Package)"
	if !slices.Equal(res.Warnings, []string{want}) {
		t.Errorf("warnings %q, expected %q", res.Warnings, want)
	}
	var got []string
	err := w.EachPackage(t.Context(), res.Snapshot, func(en meta.Entry) error {
		got = append(got, en.Name)
		return nil
	})
	if err != nil || strings.Join(got, " ") != "a strong" {
		t.Errorf("packages %q, %v", got, err)
	}
	for _, p := range []string{"pool/main/s/strong/strong_1.0-1.dsc", "pool/main/s/strong/strong_1.0-1.tar.gz"} {
		if read(t, w, res.Snapshot, p, false) != string(w.Archive.Get(p)) {
			t.Errorf("%s is not upstream's", p)
		}
	}
}

// eachStanza changes each stanza of an index.
func eachStanza(index string, edit func(name, text string) string) string {
	stanzas := strings.SplitAfter(index, "\n\n")
	for i, text := range stanzas {
		if name, _, ok := strings.Cut(strings.TrimPrefix(text, "Package: "), "\n"); ok {
			stanzas[i] = edit(name, strings.TrimSuffix(text, "\n")) + "\n"
		}
	}
	return strings.Join(stanzas, "")
}
