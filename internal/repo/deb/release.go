package deb

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

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

// Release holds what a Release file says about its suite (the Debian wiki's
// RepositoryFormat page; apt's debmetaindex). Texts are as they were written,
// absent fields empty.
//
// Only what is needed is judged, as apt does it: a field that nobody asks for can
// hold anything, and a file that the configuration does not want can be listed in
// any way.
type Release struct {
	Origin, Label, Suite, Codename, Version, Description string

	Changelogs   string // URL template
	Snapshots    string // URL template of a snapshot service, or "no"
	ReleaseNotes string
	SignedBy     string // fingerprints of the keys that future Releases will be signed by

	NotAutomatic         string // "yes": priority 1
	ButAutomaticUpgrades string // "yes": priority 100 instead
	// NoSupportForArchAll names the targets ("Packages") whose architecture
	// "all" is in each other architecture's index.
	NoSupportForArchAll string
	AcquireByHash       bool

	Architectures []string
	// Components as written; "updates/main" lists its files below "main".
	Components []string

	// Date is zero where the field is absent or cannot be read. It informs; apt
	// only warns.
	Date       time.Time
	DateText   string
	ValidUntil time.Time // zero: no expiry

	// Files are the files listed by SHA-256 or SHA-512, in the Release's order,
	// with paths relative to its directory. Both digests are set where both are
	// listed, and by-hash names where AcquireByHash promises them.
	Files []repo.Listed
	// Bad says what is wrong with the lines that list a file, by path. Files has
	// none of these.
	Bad map[string]error
	// Oddities are what was read past: a field twice, a line without a colon.
	Oddities []string
}

// ParseRelease reads the text of a Release file, whose signature the caller has
// checked. A Release that lists files by MD5 or SHA-1 alone is repo.ErrWeak.
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
	return r, r.parseFiles(sha256, sha512)
}

var errWeakRelease = fmt.Errorf("lists files by MD5 or SHA-1 alone, expected SHA256 or SHA512: %w", repo.ErrWeak)

// fields returns the values of a Release's fields by their names in lower case,
// and sets those that are kept as they were written.
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
			r.odd("line %q is no field", clip(line))
		case again:
			r.odd("field %s twice, of which the last counts", clip(name))
		case strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' }):
			r.odd("field %q", clip(name))
		}
		fields[name] = value
		if p := kept[name]; p != nil {
			*p = value
		}
	}
	return fields
}

// maxOddities bounds the notes on one Release.
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

// rootNames are the documents of a suite itself; a Release that lists them
// cannot mean the bytes that carry it.
func isRootName(p string) bool {
	return p == "Release" || p == "InRelease" || p == "Release.gpg"
}

// parseFiles reads the lists of files. Where a path is listed twice under one
// digest, the first counts, and where the sizes differ, that of the SHA-512: apt's
// choice.
func (r *Release) parseFiles(sha256, sha512 string) error {
	n := strings.Count(sha256, "\n") + 1
	at := make(map[string]int, n)
	r.Files = make([]repo.Listed, 0, n)
	err := r.eachDigest("SHA256", sha256, func(sum, p string, size int64) error {
		d, err := parseSHA256([]byte(sum))
		if err != nil {
			return err
		}
		if i, again := at[p]; again {
			if l := &r.Files[i]; l.SHA256 != d || l.Size != size {
				r.odd("%s listed twice, of which the first counts", clip(p))
			}
			return nil
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
		if l.SHA512 != "" {
			if l.SHA512 != sum || l.Size != size {
				r.odd("%s listed twice, of which the first counts", clip(p))
			}
			return nil
		}
		if l.Size != size {
			r.odd("%s listed with two sizes, of which that beside SHA512 counts", clip(p))
		}
		l.SHA512, l.Size = sum, size
		return nil
	})
	if err != nil {
		return err
	}
	if len(r.Bad) > 0 {
		r.Files = slices.DeleteFunc(r.Files, func(l repo.Listed) bool { return r.Bad[l.Path] != nil })
	}
	if r.AcquireByHash {
		for i := range r.Files {
			r.Files[i].Alternates = byHashNames(r.Files[i])
		}
	}
	return nil
}

func parseSHA512(sum string) (string, error) {
	sum = strings.ToLower(sum)
	if _, err := hex.DecodeString(sum); err != nil || len(sum) != 128 {
		return "", fmt.Errorf("SHA512 %q: expected 128 hexadecimal digits: %w", clip(sum), repo.ErrMalformed)
	}
	return sum, nil
}

// byHashNames returns the names by hash of a listed file, that of the strongest
// digest first: the one apt asks for.
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

// eachDigest reads a field's entries of digest, size and path. What is wrong with
// an entry counts against its path; one whose path no configuration can want is an
// oddity. Where the field cannot be taken apart apt refuses the Release.
func (r *Release) eachDigest(field, value string, f func(sum, path string, size int64) error) error {
	for rest := value; ; {
		var e sumEntry
		var ok bool
		if e, rest, ok = cutSum(rest); !ok {
			if e.sum == "" {
				return nil
			}
			return fmt.Errorf("%s: %q: expected digest, size and path: %w", field, clip(e.sum), repo.ErrMalformed)
		}
		p, err := cleanPath(e.path)
		if err != nil {
			r.odd("%s lists %q", field, clip(e.path))
			continue
		}
		if isRootName(p) {
			continue
		}
		size, err := e.bytes()
		if err == nil {
			err = f(e.sum, p, size)
		}
		if err != nil {
			r.bad(p, fmt.Errorf("%s: %s: %w", field, clip(p), err))
		}
	}
}

// sumEntry is one entry of a list of files, as it was written.
type sumEntry struct{ sum, size, path string }

func (e sumEntry) bytes() (int64, error) {
	n, err := parseUint([]byte(e.size))
	if err != nil || n > maxIndexSize {
		return 0, fmt.Errorf("size %q: expected a number of bytes up to %d: %w", clip(e.size), int64(maxIndexSize), repo.ErrMalformed)
	}
	return n, nil
}

// cutSum cuts the first entry off a list of files just as apt does (parseSumData):
// digest and size end at a blank, and only the path at the end of a line. It is not
// ok where words are missing, and at the end, where the digest is empty, too.
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

// bad notes the first thing that is wrong with what a Release says of a file.
func (r *Release) bad(p string, err error) {
	if r.Bad == nil {
		r.Bad = make(map[string]error)
	}
	if r.Bad[p] == nil {
		r.Bad[p] = err
	}
}

// parseDate reads a date in the forms that apt reads (RFC1123StrToTime): those of
// RFC 1123 and RFC 850 in UTC, and that of asctime. As in apt, the weekday is not
// compared with the date, a day that a month does not have is one of the next, and
// what follows the seconds is ignored.
func parseDate(s string) (time.Time, error) {
	bad := fmt.Errorf("date %q: expected a form like %q: %w", clip(s), "Sat, 11 Jul 2026 10:16:37 UTC", repo.ErrMalformed)
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

// dateNumber reads a number of at most so many digits, without leading zeros and a
// plus sign, and at most so large.
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

// monthOf finds a month by its name or the first three letters of it; 0 is none.
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

// formatDate writes what parseDate reads.
func formatDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05") + " UTC" }
