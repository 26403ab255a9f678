package mirror_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// small is a mirror of one suite with one component and no side indices.
func small(m *config.Mirror) {
	m.Languages, m.Sources, m.Download = nil, false, config.OnDemand
}

// newSmall returns a World of it.
func newSmall(t *testing.T) *mirrortest.World {
	w := mirrortest.New(t, small)
	w.Archive.Default().Languages = nil
	return w
}

// aptFor returns an apt that uses the World's upstream.
func aptFor(t *testing.T, w *mirrortest.World) *debtest.Apt {
	return debtest.NewApt(t, fmt.Sprintf("deb [signed-by=%s] %s stable main\n", w.Archive.KeyringFile(), w.Server.URL))
}

// A Date only informs: in a form that apt cannot read, or absent, the time of the
// signature takes its place, with a warning as apt's. Where apt refuses the date,
// so does the sync.
func TestDateAsApt(t *testing.T) {
	if testing.Short() {
		t.Skip("asks apt, one case after the other")
	}
	signed := mirrortest.Start
	hour := signed.Add(-time.Hour)
	for i, c := range []struct {
		date string
		want time.Time // zero: refused
	}{
		{"Sat, 10 Jan 2026 11:00:00 UTC", hour},
		{"Sat, 10\tJan  2026 11:00:00 GMT", hour},
		{"Sat, 10 Jan 2026 11:00:00 +0000", hour},
		{"Sat, 10 Jan 2026 11:00:00 -0000", hour},
		{"Sat, 10 Jan 2026 11:00:00 -0", hour},
		{"sat, 010 JAN 2026 11:00:00 0000", hour},
		{"Fri, +10 January 2026 11:0:00.5 Z", hour},
		{"Sat Jan 10 11:00:00 2026", hour},
		{"Wed, 31 Dec 2025 11:00:60 UTC", time.Date(2025, 12, 31, 11, 1, 0, 0, time.UTC)},
		{"Sun, 31 Nov 2025 11:00:00 UTC", time.Date(2025, 12, 1, 11, 0, 0, 0, time.UTC)},
		{"Saturday, 10-Jan-26 11:00:00 UTC", signed}, // apt reads 1926
		{"Saturday, 10-Jan-2026 11:00:00 UTC", time.Time{}},
		{"Sat, 10 Jan 26 11:00:00 UTC", signed},
		{"", signed},
		{"absent", signed},
		{"Sat, 10 Jan 2026 11:00:00 +0800", signed},
		{"Sat, 10 Jan 2026 11:00:00 CET", signed},
		{"Sat, 10 Jan 2026 11:00:00 z", signed},
		{"Sat, 10 Jan 2026 11:00:00 --0000", signed},
		{"Sat, 10 Jan 2026 11:00:00", signed},
		{"10 Jan 2026 11:00:00 UTC", signed},
		{"Xyz, 10 Jan 2026 11:00:00 UTC", signed},
		{"2026-01-10T11:00:00Z", signed},
		{"Sat, 10 Jan 2026 11:00 UTC", signed},
		{"Sat, 10 Jan 2026 25:00:00 UTC", signed},
		{"Sat, 32 Jan 2026 11:00:00 UTC", signed},
		{"Sat, 10 Jan 12026 11:00:00 UTC", signed},
		{"Sat, 10 Jan 2026 11:00:00 UTC (x)", signed},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) { // apt takes no path with a comma
			t.Parallel()
			t.Log(c.date)
			w := newSmall(t)
			w.Archive.Default().EditRelease = func(s string) string {
				name := "Date: "
				if c.date == "absent" {
					name = "X-Date: "
				}
				return strings.Replace(s, "Date: "+signed.Format(time.RFC1123), name+c.date, 1)
			}
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(signed)
			out, err := aptFor(t, w).Try("apt-get", "update")
			if refused := err != nil; refused != c.want.IsZero() {
				t.Fatalf("apt refuses it: %t\n%s", refused, out)
			}
			res, err := w.TrySync()
			if c.want.IsZero() {
				if !errors.Is(err, repo.ErrFuture) {
					t.Errorf("error %v, expected %v", err, repo.ErrFuture)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := res.Snapshot.Suites[0].Date; !got.Equal(c.want) {
				t.Errorf("date %s, expected %s", got, c.want)
			}
			warned := len(res.Warnings) > 0
			if usable := c.want != signed; usable == warned || strings.Contains(out, "Invalid 'Date'") && !warned {
				t.Errorf("warnings %q; apt said\n%s", res.Warnings, out)
			}
		})
	}
}

// A Valid-Until that cannot be read is refused, as apt does it.
func TestValidUntilAsApt(t *testing.T) {
	for i, c := range []struct {
		until string
		is    error
	}{
		{"Sat, 10 Jan 2026 11:00:00 +0800", repo.ErrMalformed},
		{"tomorrow", repo.ErrMalformed},
		{"Sat, 10 Jan 2026 11:00:00 UTC", repo.ErrExpired},
		{"Sat, 10 Jan 2099 11:00:00 -0000", nil},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Log(c.until)
			w := newSmall(t)
			w.Archive.Default().Fields = map[string]string{"Valid-Until": c.until}
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			if out, err := aptFor(t, w).Try("apt-get", "update"); (err == nil) != (c.is == nil) {
				t.Fatalf("apt: %v\n%s", err, out)
			}
			if _, err := w.TrySync(); !errors.Is(err, c.is) {
				t.Errorf("error %v, expected %v", err, c.is)
			}
		})
	}
}

// Of a Release only what the configuration wants is judged; the rest can be as it
// is, if apt reads past it. Each oddity is a warning. Long because of its table
// of cases.
func TestReleaseAsApt(t *testing.T) {
	if testing.Short() {
		t.Skip("asks apt, one case after the other")
	}
	line := func(s, field string) string { // the line of a field
		i := strings.Index(s, "\n"+field+":") + 1
		return s[i : i+strings.Index(s[i:], "\n")+1]
	}
	insert := func(before, text string) func(string) string {
		return func(s string) string { return strings.Replace(s, "\n"+before+":", "\n"+text+before+":", 1) }
	}
	// behind puts entries behind those of the SHA256 field, which is the last.
	behind := func(entries string) func(string) string {
		return func(s string) string { return s + entries }
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	sum := func(c string) string { return strings.Repeat(c, 64) }
	// twice lists the plain package index again with another digest, before or
	// after its own entry.
	twice := func(first bool) func(string) string {
		return func(s string) string {
			i := strings.Index(s, "\nSHA256:\n") + len("\nSHA256:\n")
			other := " " + sum("1") + " 1234 main/binary-amd64/Packages\n " + sum("2") + " 123 main/binary-amd64/Packages.xz\n " + sum("3") + " 12 main/binary-amd64/Packages.gz\n"
			if first {
				return s[:i] + other + s[i:]
			}
			return s + other
		}
	}
	// entry replaces the entry of a variant of the package index.
	entry := func(variant, with string) func(string) string {
		re := regexp.MustCompile(`(?m)^ [0-9a-f]{64} +(\d+) (main/binary-amd64/Packages` + regexp.QuoteMeta(variant) + `)$\n`)
		return func(s string) string { return re.ReplaceAllString(s, with) }
	}
	const index = "main/binary-amd64/Packages"
	// weak lists a variant of the package index by MD5 alone.
	weak := func(variant string) func(string) string {
		return func(s string) string {
			return entry(variant, "")(s) + "MD5Sum:\n " + sum("0")[:32] + " 12 " + index + variant + "\n"
		}
	}
	first := func(e string) func(string) string { return replace("\nSHA256:\n", "\nSHA256:\n"+e) }
	both := func(a, b func(string) string) func(string) string { return func(s string) string { return b(a(s)) } }
	const refuse = "refuse"
	for _, c := range []struct {
		name string
		edit func(string) string
		says string // in the warning; empty: none; refuse: refused
	}{
		{"short digest of the variant that apt requests", entry(".xz", " xyz $1 $2\n"), refuse},
		{"odd digest of it", entry(".xz", " "+sum("z")+" $1 $2\n"), refuse},
		{"bad size of it", entry(".xz", " "+sum("a")+" x $2\n"), refuse},
		{"short digest of it before a good one", first(" xyz 12 " + index + ".xz\n"), refuse},
		{"bad size of it before a good one", first(" " + sum("a") + " x " + index + ".xz\n"), refuse},
		{"short digest of it after a good one", behind(" xyz 12 " + index + ".xz\n"), "Packages.xz is listed twice"},
		{"bad size of it after a good one", behind(" " + sum("a") + " x " + index + ".xz\n"), "Packages.xz is listed twice"},
		{"it is listed by MD5 alone", weak(".xz"), refuse},
		{"it is bz2, listed by MD5 alone", both(entry(".xz", ""), weak(".bz2")), refuse},
		{"short digest of another variant", entry(".gz", " xyz $1 $2\n"), ""},
		{"bad size of another variant", entry(".gz", " "+sum("a")+" x $2\n"), ""},
		{"short digest of another variant before a good one", first(" xyz 12 " + index + ".gz\n"), "Packages.gz is listed twice"},
		{"bad MD5Sum of another variant", func(s string) string { return s + "MD5Sum:\n x 12 " + index + ".gz\n" }, ""},
		{"another variant is listed by MD5 alone", weak(".gz"), ""},
		{"zst is listed by MD5 alone beside gz", both(entry(".xz", ""), weak(".zst")), ""},
		{"short digest of the plain file", entry("", " xyz $1 $2\n"), refuse},
		{"bad MD5Sum of the plain file", func(s string) string { return s + "MD5Sum:\n x 12 " + index + "\n" }, refuse},
		{"byte order mark", func(s string) string { return "\xef\xbb\xbf" + s }, `field "\ufefforigin"`},
		{"comment without a colon", insert("Label", "# comment\n"), `line "# comment" is not a field`},
		{"comment with a colon", insert("Label", "# a: comment\n"), `field "# a"`},
		{"stray line", func(s string) string {
			return strings.Replace(s, line(s, "Architectures"), line(s, "Architectures")+"arm64\n", 1)
		}, `line "arm64" is not a field`},
		{"field twice", insert("Suite", "Suite: other\n"), "field suite is repeated"},
		{"component with a slash at its end", replace("Components: main", "Components: main/"), ""},
		{"component that is a dot", replace("Components: main", "Components: main ."), ""},
		{"component that leaves its directory", replace("Components: main", "Components: main ../x"), ""},
		{"architecture of odd bytes", replace("Architectures: amd64", "Architectures: amd64 ../x \x01"), ""},
		{"name with a blank", insert("Label", "X Y : z\n"), `field "x y"`},
		{"bad digest of an unwanted file", behind(" xyz 12 contrib/binary-amd64/Packages\n"), ""},
		{"bad size of an unwanted file", behind(" " + sum("a") + " x contrib/binary-amd64/Packages\n"), ""},
		{"huge size of an unwanted file", behind(" " + sum("a") + " 99999999999999999999 contrib/binary-amd64/Packages\n"), ""},
		{"hostile path of an unwanted file", behind(" " + sum("a") + " 12 ../../etc/passwd\n"), `SHA256 lists "../../etc/passwd"`},
		{"one unwanted file twice", behind(" " + sum("a") + " 12 x\n " + sum("b") + " 12 x\n"), "x is listed twice"},
		{"the wanted file again", twice(false), "listed twice"},
		{"the wanted file before", twice(true), refuse},
		{"entry of two words at the end", behind(" " + sum("a") + " 12\n"), refuse},
		{"entry of one word at the end", behind(" " + sum("a") + "\n"), refuse},
		{"bad digest of the wanted file", func(s string) string {
			for _, f := range []string{"", ".xz", ".gz"} {
				re := regexp.MustCompile(`(?m)^ [0-9a-f]{64}( +\d+ main/binary-amd64/Packages` + regexp.QuoteMeta(f) + `)$`)
				s = re.ReplaceAllString(s, " xyz$1")
			}
			return s
		}, refuse},
		{"upper-case digest of the wanted file", func(s string) string {
			return regexp.MustCompile(`(?m)^ [0-9a-f]{64} `).ReplaceAllStringFunc(s, strings.ToUpper)
		}, refuse},
		{"size as strtoull reads it", func(s string) string {
			return regexp.MustCompile(`(?m)^( [0-9a-f]{64} +)(\d+) `).ReplaceAllString(s, "${1}+0${2}x ")
		}, ""},
		{"wrong SHA1 beside", func(s string) string {
			return s + "SHA1:\n " + sum("0")[:40] + " 12 main/binary-amd64/Packages.xz\n"
		}, refuse},
		{"wrong MD5Sum of the plain file beside", func(s string) string {
			return s + "MD5Sum:\n " + sum("0")[:32] + " 12 main/binary-amd64/Packages\n"
		}, refuse},
		{"bad MD5Sum beside", func(s string) string { return s + "MD5Sum:\n x 12 main/binary-amd64/Packages.xz\n" }, refuse},
		{"SHA1 of one word", func(s string) string { return s + "SHA1: x\n" }, refuse},
		{"wrong MD5Sum of an unwanted file", func(s string) string {
			return s + "MD5Sum:\n " + sum("0")[:32] + " 12 contrib/binary-amd64/Packages\n"
		}, ""},
		{"empty Valid-Until", insert("Label", "Valid-Until:\n"), ""},
		{"stray line at the end", func(s string) string { return s + "stray\n" }, refuse},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newSmall(t)
			w.Archive.Default().Digests = []string{"SHA256"}
			w.Archive.Default().EditRelease = c.edit
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			apt := aptFor(t, w)
			out, err := apt.Try("apt-get", "update")
			if refused := err != nil; refused != (c.says == refuse) {
				t.Fatalf("apt refuses it: %t\n%s", refused, out)
			}
			if c.says != refuse {
				if out := apt.Run("apt-cache", "policy", "a"); !strings.Contains(out, "Candidate: 1") {
					t.Fatalf("apt does not know the package:\n%s", out)
				}
			}
			res, err := w.TrySync()
			if c.says == refuse {
				if err == nil {
					t.Error("apt refuses it, the sync accepted it")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(res.Warnings, "\n"); (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
				t.Errorf("warnings %q, expected %q", got, c.says)
			}
			if again := w.MustSync(); again.New || !slices.Equal(again.Warnings, res.Warnings) {
				t.Errorf("a sync of nothing new: %t, warnings %q", again.New, again.Warnings)
			}
		})
	}
}

// A Release that lists indices only compressed makes apt find no package, without
// a word: the sync says so.
func TestOnlyCompressedListed(t *testing.T) {
	w := newSmall(t)
	w.Archive.Default().ListPlain = false
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	apt := aptFor(t, w)
	apt.Run("apt-get", "update")
	if out, err := apt.Try("apt-get", "install", "--download-only", "a"); err == nil {
		t.Fatalf("apt found the package:\n%s", out)
	}
	const want = "suite stable: main/binary-amd64/Packages is only listed compressed, so apt does not request it and finds none of its packages"
	if res := w.MustSync(); !slices.Equal(res.Warnings, []string{want}) {
		t.Errorf("warnings %q, expected %q", res.Warnings, want)
	}
}

// An index that is listed by weak digests alone is skipped with a warning, as apt
// skips it; a suite that has no other is refused.
func TestWeakIndices(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) {
		small(m)
		m.Components = []string{"main", "contrib"}
	})
	s := w.Archive.Default()
	s.Components, s.Languages = []string{"main", "contrib"}, nil
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1", Component: "contrib"})
	weak := regexp.MustCompile(`(?m)^ [0-9a-f]{64} +\d+ contrib/.*\n`)
	s.EditRelease = func(s string) string { return weak.ReplaceAllString(s, "") }
	w.Archive.Publish(mirrortest.Start)
	apt := debtest.NewApt(t, fmt.Sprintf("deb [signed-by=%s] %s stable main contrib\n", w.Archive.KeyringFile(), w.Server.URL))
	if out, err := apt.Try("apt-get", "update"); err != nil || !strings.Contains(out, "W: Skipping acquire of configured file 'contrib/binary-amd64/Packages'") {
		t.Fatalf("apt does not skip it: %v\n%s", err, out)
	}
	const want = "suite stable: contrib/binary-amd64/Packages is listed by SHA-1 or MD5 alone, so apt does not request it"
	res := w.MustSync()
	if !slices.Equal(res.Warnings, []string{want}) {
		t.Errorf("warnings %q, expected %q", res.Warnings, want)
	}
	var got []string
	err := w.EachPackage(t.Context(), res.Snapshot, func(en meta.Entry) error {
		got = append(got, en.Name)
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"a"}) {
		t.Errorf("packages %q, %v, expected a", got, err)
	}
	w.Config.Mirrors[0].Components = []string{"contrib"}
	w.CloseAll()
	w.Open()
	if _, err := w.TrySync(); !errors.Is(err, repo.ErrWeak) {
		t.Errorf("error %v, expected %v", err, repo.ErrWeak)
	}
}
