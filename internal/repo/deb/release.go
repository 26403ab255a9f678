package deb

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
)

const (
	// maxRelease bounds a Release file, in bytes. Debian's have 150 KB, those of
	// the largest suites about 1 MB.
	maxRelease = 32 << 20
	// maxIndexSize bounds the listed size of any file in a Release, in bytes.
	maxIndexSize = 1 << 36
)

// Release contains the fields of a Release file (the Debian wiki's
// RepositoryFormat page; apt's debmetaindex). Strings are as written, and empty
// if a field is absent.
//
// Like apt, ParseRelease checks only fields that are used: any other field can
// contain anything, and a file that the configuration does not select can have
// any entry.
type Release struct {
	Origin, Label, Suite, Codename, Version, Description string

	Changelogs   string // URL template
	Snapshots    string // URL template of a snapshot service, or "no"
	ReleaseNotes string
	SignedBy     string // fingerprints of the keys that will sign future Release files

	NotAutomatic         string // "yes": priority 1
	ButAutomaticUpgrades string // "yes": priority 100 instead
	// NoSupportForArchAll names the targets ("Packages") whose architecture "all"
	// is in the index of each other architecture.
	NoSupportForArchAll string
	AcquireByHash       bool

	Architectures []string
	// Components as written; "updates/main" lists its files below "main".
	Components []string

	// Date is zero if the field is absent or unreadable. It is informative; apt
	// only warns.
	Date       time.Time
	DateText   string
	ValidUntil time.Time // zero: no expiry

	// Files are the files listed by SHA-256 or SHA-512, in the order of the
	// Release file, with paths relative to its directory. Both digests are set if
	// both are listed, and by-hash names if AcquireByHash promises them.
	Files []repo.Listed
	// Bad contains the errors in the entries of files, by path. Files contains none
	// of these files.
	Bad map[string]error
	// Weak are the paths that are listed by SHA-1 or MD5 alone, which apt refuses
	// to download.
	Weak map[string]bool
	// Oddities describe ignored faults: a repeated field, a line without a colon.
	Oddities []string
}

// ParseRelease parses the text of a Release file whose signature the caller has
// verified. A Release file that lists files only by MD5 or SHA-1 is repo.ErrWeak.
func ParseRelease(text []byte) (*Release, error) {
	r, err := parseRelease(text)
	if err != nil {
		return nil, fmt.Errorf("parse Release: %w", err)
	}
	return r, nil
}

func parseRelease(text []byte) (*Release, error) {
	if len(text) > maxRelease {
		return nil, fmt.Errorf("%d bytes, expected at most %d: %w", len(text), maxRelease, repo.ErrMalformed)
	}
	reader := deb822.NewReader(bytes.NewReader(text), maxRelease)
	stanza, err := reader.Next()
	if err == io.EOF {
		return nil, fmt.Errorf("empty: %w", repo.ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", repo.ErrMalformed, err)
	}
	r := &Release{}
	fields := r.fields(stanza)
	if _, err := reader.Next(); err != io.EOF {
		r.odd("text after the first stanza")
	}
	r.AcquireByHash = isYes(fields["acquire-by-hash"])
	r.Architectures = strings.Fields(fields["architectures"])
	r.Components = strings.Fields(fields["components"])
	r.DateText = fields["date"]
	if r.Date, err = parseDate(r.DateText); err != nil || r.Date.Unix() <= 0 {
		r.Date = time.Time{}
	}
	if v := fields["valid-until"]; v != "" {
		if r.ValidUntil, err = parseDate(v); err != nil {
			return nil, fmt.Errorf("Valid-Until: %w", err)
		}
	}
	sha256, has256 := fields["sha256"]
	sha512, has512 := fields["sha512"]
	if !has256 && !has512 {
		if _, md5 := fields["md5sum"]; md5 {
			return nil, errWeakRelease
		}
		if _, sha1 := fields["sha1"]; sha1 {
			return nil, errWeakRelease
		}
		return nil, fmt.Errorf("neither SHA256 nor SHA512: %w", repo.ErrMalformed)
	}
	if err := r.parseFiles(sha256, sha512); err != nil {
		return nil, err
	}
	if err := r.addWeak(fields["sha1"], fields["md5sum"]); err != nil {
		return nil, err
	}
	r.finishFiles()
	return r, nil
}

var errWeakRelease = fmt.Errorf("lists files by MD5 or SHA-1 alone, expected SHA256 or SHA512: %w", repo.ErrWeak)

// fields returns the values of the fields of a Release file by their names in
// lower case, and sets those that are kept as written.
func (r *Release) fields(stanza deb822.Stanza) map[string]string {
	kept := map[string]*string{
		"origin": &r.Origin, "label": &r.Label, "suite": &r.Suite, "codename": &r.Codename,
		"version": &r.Version, "description": &r.Description, "changelogs": &r.Changelogs,
		"snapshots": &r.Snapshots, "release-notes": &r.ReleaseNotes, "signed-by": &r.SignedBy,
		"notautomatic": &r.NotAutomatic, "butautomaticupgrades": &r.ButAutomaticUpgrades,
		"no-support-for-architecture-all": &r.NoSupportForArchAll,
	}
	fields := make(map[string]string, 32)
	for s := stanza.Scan(); s.Next(); {
		name := strings.ToLower(string(s.Name()))
		value := string(s.Value())
		line, _, joined := strings.Cut(name, "\n")
		switch _, again := fields[name]; {
		case joined:
			r.odd("line %q is not a field", excerpt.Of(line))
		case again:
			r.odd("field %s is repeated; the last one counts", excerpt.Of(name))
		case strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' }):
			r.odd("field %q", excerpt.Of(name))
		}
		fields[name] = value
		if p := kept[name]; p != nil {
			*p = value
		}
	}
	return fields
}

// maxOddities bounds the oddities of one Release file.
const maxOddities = 100

func (r *Release) odd(format string, args ...any) {
	if len(r.Oddities) < maxOddities {
		r.Oddities = append(r.Oddities, fmt.Sprintf(format, args...))
	}
}

func isYes(s string) bool {
	switch strings.ToLower(s) {
	case "yes", "true", "with", "on", "enable", "1":
		return true
	}
	return false
}

// rootNames are the documents of a suite itself; a Release file that lists them
// cannot mean its own bytes.
func isRootName(p string) bool {
	return p == "Release" || p == "InRelease" || p == "Release.gpg"
}

// parseFiles parses the lists of files. If they give different sizes for a file,
// the size in SHA512 counts, as in apt.
func (r *Release) parseFiles(sha256, sha512 string) error {
	n := strings.Count(sha256, "\n") + 1
	at := make(map[string]int, n)
	r.Files = make([]repo.Listed, 0, n)
	err := r.eachDigest("SHA256", sha256, func(sum, p string, size int64) error {
		d, err := parseSHA256([]byte(sum))
		if err != nil {
			return err
		}
		at[p] = len(r.Files)
		r.Files = append(r.Files, repo.Listed{Path: p, Size: size, SHA256: d})
		return nil
	})
	if err != nil {
		return err
	}
	err = r.eachDigest("SHA512", sha512, func(sum, p string, size int64) error {
		sum, err := parseSHA512(sum)
		if err != nil {
			return err
		}
		i, ok := at[p]
		if !ok {
			at[p] = len(r.Files)
			r.Files = append(r.Files, repo.Listed{Path: p, Size: size, SHA512: sum})
			return nil
		}
		l := &r.Files[i]
		if l.Size != size {
			r.odd("%s is listed with two sizes; the one with SHA512 counts", excerpt.Of(p))
		}
		l.SHA512, l.Size = sum, size
		return nil
	})
	if err != nil {
		return err
	}
	return nil
}

// finishFiles removes the files of bad entries and adds by-hash names.
func (r *Release) finishFiles() {
	if len(r.Bad) > 0 {
		r.Files = slices.DeleteFunc(r.Files, func(l repo.Listed) bool { return r.Bad[l.Path] != nil })
	}
	if r.AcquireByHash {
		for i := range r.Files {
			r.Files[i].Alternates = byHashNames(r.Files[i])
		}
	}
}

// addWeak records the weak digests of the listed files, and the files that have
// only weak digests. As in the lists of strong digests, the first entry of a path
// counts, and an unparsable list is an error.
func (r *Release) addWeak(sha1, md5 string) error {
	sums := make(map[string]string)
	for _, w := range []struct {
		field, value string
		digits       int
		of           func(*repo.Listed) *string
	}{
		{"SHA1", sha1, 40, func(l *repo.Listed) *string { return &l.SHA1 }},
		{"MD5Sum", md5, 32, func(l *repo.Listed) *string { return &l.MD5 }},
	} {
		clear(sums)
		for rest := w.value; ; {
			var e sumEntry
			var ok bool
			if e, rest, ok = cutSum(rest); !ok {
				if e.sum != "" {
					return notEntry(w.field, e)
				}
				break
			}
			if p, err := cleanPath(e.path); err == nil && sums[p] == "" {
				sums[p] = e.sum
			}
		}
		for i := range r.Files {
			l := &r.Files[i]
			sum := sums[l.Path]
			if sum != "" && (len(sum) != w.digits || !isLowerHex(sum)) {
				r.bad(l.Path, fmt.Errorf("%s: %s: %q: expected %d lower-case hexadecimal digits: %w", w.field, excerpt.Of(l.Path), excerpt.Of(sum), w.digits, repo.ErrMalformed))
			}
			*w.of(l) = sum
			delete(sums, l.Path)
		}
		for p := range sums {
			if r.Bad[p] == nil {
				if r.Weak == nil {
					r.Weak = make(map[string]bool)
				}
				r.Weak[p] = true
			}
		}
	}
	return nil
}

func notEntry(field string, e sumEntry) error {
	return fmt.Errorf("%s: %q: expected digest, size and path: %w", field, excerpt.Of(e.sum), repo.ErrMalformed)
}

// parseSHA512 parses a digest in lower case: apt compares digests as text.
func parseSHA512(sum string) (string, error) {
	if len(sum) != 128 || !isLowerHex(sum) {
		return "", fmt.Errorf("SHA512 %q: expected 128 lower-case hexadecimal digits: %w", excerpt.Of(sum), repo.ErrMalformed)
	}
	return sum, nil
}

func isLowerHex[S ~string | ~[]byte](s S) bool {
	for i := range len(s) {
		if c := s[i]; !isDigit(c) && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// byHashNames returns the by-hash names of a listed file. The first has the
// strongest digest, and is the one that apt requests.
func byHashNames(l repo.Listed) []string {
	dir := l.Path[:strings.LastIndexByte(l.Path, '/')+1]
	var out []string
	if l.SHA512 != "" {
		out = append(out, dir+"by-hash/SHA512/"+l.SHA512)
	}
	if !l.SHA256.IsZero() {
		out = append(out, dir+"by-hash/SHA256/"+l.SHA256.String())
	}
	return out
}

// eachDigest parses the entries of digest, size and path in a field. Of several
// entries for one path only the first counts, as in apt. A fault of an entry
// counts against its path; if no configuration can select that path, it is an
// oddity. If the field cannot be split into entries, apt refuses the Release file.
func (r *Release) eachDigest(field, value string, f func(sum, path string, size int64) error) error {
	seen := make(map[string]sumEntry, strings.Count(value, "\n")+1)
	for rest := value; ; {
		var e sumEntry
		var ok bool
		if e, rest, ok = cutSum(rest); !ok {
			if e.sum == "" {
				return nil
			}
			return notEntry(field, e)
		}
		p, err := cleanPath(e.path)
		if err != nil {
			r.odd("%s lists %q", field, excerpt.Of(e.path))
			continue
		}
		if isRootName(p) {
			continue
		}
		if first, again := seen[p]; again {
			if first.sum != e.sum || first.size != e.size {
				r.odd("%s is listed twice; the first one counts", excerpt.Of(p))
			}
			continue
		}
		seen[p] = e
		size, err := e.bytes()
		if err == nil {
			err = f(e.sum, p, size)
		}
		if err != nil {
			r.bad(p, fmt.Errorf("%s: %s: %w", field, excerpt.Of(p), err))
		}
	}
}

// sumEntry is an entry of a list of files, as written.
type sumEntry struct{ sum, size, path string }

func (e sumEntry) bytes() (int64, error) {
	n, err := parseLength([]byte(e.size))
	if err != nil || n > maxIndexSize {
		return 0, fmt.Errorf("size %q: expected a number of bytes up to %d: %w", excerpt.Of(e.size), int64(maxIndexSize), repo.ErrMalformed)
	}
	return n, nil
}

// cutSum cuts the first entry off a list of files exactly as apt does
// (parseSumData): digest and size end at a blank, the path only at the end of a
// line. ok is false if words are missing, or at the end of the list; only there
// e.sum is empty.
func cutSum(s string) (e sumEntry, rest string, ok bool) {
	const blanks = " \t"
	s = strings.TrimLeft(s, blanks+"\r\n")
	words := [3]*string{&e.sum, &e.size, &e.path}
	for n, ends := range [3]string{blanks, blanks, blanks + "\r\n"} {
		i := strings.IndexAny(s, ends)
		switch {
		case i >= 0:
		case n == 2:
			i = len(s)
		default:
			*words[n] = s
			return e, "", false
		}
		*words[n] = s[:i]
		if s = s[i:]; n < 2 {
			if s = strings.TrimLeft(s, blanks); s == "" {
				return e, "", false
			}
		}
	}
	return e, s, true
}

// bad records the first fault in a Release file's entries for a file.
func (r *Release) bad(p string, err error) {
	if r.Bad == nil {
		r.Bad = make(map[string]error)
	}
	if r.Bad[p] == nil {
		r.Bad[p] = err
	}
}

// parseDate parses a date in the forms that apt accepts (RFC1123StrToTime): those
// of RFC 1123 and RFC 850 in UTC, and that of asctime. Like apt, it ignores the
// weekday and any text after the seconds, and it normalizes a day after the end
// of the month.
func parseDate(s string) (time.Time, error) {
	bad := fmt.Errorf("date %q: expected a form like %q: %w", excerpt.Of(s), "Sat, 11 Jul 2026 10:16:37 UTC", repo.ErrMalformed)
	w := strings.Fields(s)
	if len(w) < 4 {
		return time.Time{}, bad
	}
	weekday, comma := strings.CutSuffix(w[0], ",")
	var day, month, year, clock string
	century := 0
	switch {
	case comma && len(w) == 6 && len(weekday) == 3 && isUTC(w[5]):
		day, month, year, clock = w[1], w[2], w[3], w[4]
	case !comma && len(w) == 5:
		month, day, clock, year = w[1], w[2], w[3], w[4]
	case comma && len(w) == 4 && len(weekday) > 3 && isUTC(w[3]):
		parts := strings.Split(w[1], "-")
		if len(parts) != 3 {
			return time.Time{}, bad
		}
		day, month, year, clock = parts[0], parts[1], parts[2], w[2]
		century = 1900
	default:
		return time.Time{}, bad
	}
	d, ok1 := dateNumber(day, 2, 31)
	m := monthOf(month)
	y, ok2 := dateNumber(year, 4, 9999)
	hms := strings.SplitN(clock, ":", 3)
	if !isWeekday(weekday) || m == 0 || !ok1 || d == 0 || !ok2 || len(hms) != 3 {
		return time.Time{}, bad
	}
	if i := strings.IndexFunc(hms[2], func(c rune) bool { return c < '0' || c > '9' }); i >= 0 {
		hms[2] = hms[2][:i]
	}
	hour, ok1 := dateNumber(hms[0], 2, 23)
	minute, ok2 := dateNumber(hms[1], 2, 59)
	second, ok3 := dateNumber(hms[2], 2, 60)
	if !ok1 || !ok2 || !ok3 || strings.Contains(clock, "+") {
		return time.Time{}, bad
	}
	return time.Date(century+y, m, d, hour, minute, second, 0, time.UTC), nil
}

// dateNumber parses a number of at most the given digits and value, without
// leading zeros or a plus sign.
func dateNumber(s string, digits, largest int) (int, bool) {
	s = strings.TrimPrefix(s, "+")
	n, err := parseUint([]byte(s))
	return int(n), err == nil && len(strings.TrimLeft(s, "0")) <= digits && n <= int64(largest)
}

func isWeekday(s string) bool {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if name := d.String(); strings.EqualFold(s, name) || strings.EqualFold(s, name[:3]) {
			return true
		}
	}
	return false
}

// monthOf returns a month by its name or its first three letters; 0: none.
func monthOf(s string) time.Month {
	for m := time.January; m <= time.December; m++ {
		if name := m.String(); strings.EqualFold(s, name) || strings.EqualFold(s, name[:3]) {
			return m
		}
	}
	return 0
}

// isUTC reports whether a zone is UTC by name or as a number: "+0000", "-0000".
func isUTC(zone string) bool {
	switch zone {
	case "UTC", "GMT", "Z":
		return true
	}
	digits := strings.TrimLeft(zone, "+-")
	return len(zone)-len(digits) <= 1 && digits != "" && strings.Trim(digits, "0") == ""
}

// formatDate returns the form that parseDate parses.
func formatDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05") + " UTC" }
