package deb

import (
	"encoding/hex"
	"fmt"
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
type Release struct {
	Origin, Label, Suite, Codename, Version, Description string

	Changelogs   string // URL template
	Snapshots    string // URL template of a snapshot service, or "no"
	ReleaseNotes string
	SignedBy     string // fingerprints of the keys that future Releases will be signed by

	NotAutomatic         string // "yes": priority 1
	ButAutomaticUpgrades string // "yes": priority 100 instead
	// NoSupportForArchAll names the targets ("Packages") whose architecture
	// "all" stands in each other architecture's index.
	NoSupportForArchAll string
	AcquireByHash       bool

	Architectures []string
	// Components as written; "updates/main" lists its files below "main".
	Components []string

	Date       time.Time
	ValidUntil time.Time // zero: no expiry

	// Files are the files listed by SHA-256 or SHA-512, in the Release's order,
	// with paths relative to its directory. Both digests are set where both are
	// listed, and by-hash names where AcquireByHash promises them.
	Files []repo.Listed
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
	for len(text) > 0 && text[0] == '\n' {
		text = text[1:]
	}
	body, rest, _ := strings.Cut(string(text), "\n\n")
	if strings.Trim(rest, "\n") != "" {
		return nil, fmt.Errorf("text after the first stanza: %w", repo.ErrMalformed)
	}
	if i := strings.IndexByte(body, 0); i >= 0 {
		return nil, fmt.Errorf("NUL at byte %d: %w", i, repo.ErrMalformed)
	}
	if strings.Contains(body, "\r") {
		return nil, fmt.Errorf("carriage return at byte %d: %w", strings.IndexByte(body, '\r'), repo.ErrMalformed)
	}

	r := &Release{}
	var date, validUntil, byHash, archs, comps, sha256, sha512 string
	var weak bool
	dst := map[string]*string{
		"origin": &r.Origin, "label": &r.Label, "suite": &r.Suite, "codename": &r.Codename,
		"version": &r.Version, "description": &r.Description, "changelogs": &r.Changelogs,
		"snapshots": &r.Snapshots, "release-notes": &r.ReleaseNotes, "signed-by": &r.SignedBy,
		"notautomatic": &r.NotAutomatic, "butautomaticupgrades": &r.ButAutomaticUpgrades,
		"no-support-for-architecture-all": &r.NoSupportForArchAll,
		"acquire-by-hash":                 &byHash, "date": &date, "valid-until": &validUntil,
		"architectures": &archs, "components": &comps, "sha256": &sha256, "sha512": &sha512,
	}
	seen := make(map[string]bool, 32)
	s := deb822.ParagraphOf([]byte(body)).Scan()
	for s.Next() {
		name := strings.ToLower(string(s.Name()))
		if seen[name] {
			return nil, fmt.Errorf("field %s twice: %w", clip(name), repo.ErrMalformed)
		}
		seen[name] = true
		if name == "md5sum" || name == "sha1" {
			weak = true
		}
		if p := dst[name]; p != nil {
			*p = string(s.Value())
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", repo.ErrMalformed, err)
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("empty: %w", repo.ErrMalformed)
	}
	r.AcquireByHash = isYes(byHash)
	r.Architectures = strings.Fields(archs)
	r.Components = strings.Fields(comps)
	for _, list := range [][]string{r.Architectures, r.Components} {
		for _, w := range list {
			if _, err := cleanPath(w); err != nil {
				return nil, fmt.Errorf("Architectures and Components: %w", err)
			}
		}
	}
	var err error
	if date == "" {
		return nil, fmt.Errorf("no Date: %w", repo.ErrMalformed)
	}
	if r.Date, err = parseDate(date); err != nil {
		return nil, fmt.Errorf("Date: %w", err)
	}
	if validUntil != "" {
		if r.ValidUntil, err = parseDate(validUntil); err != nil {
			return nil, fmt.Errorf("Valid-Until: %w", err)
		}
	}
	if !seen["sha256"] && !seen["sha512"] {
		if weak {
			return nil, fmt.Errorf("lists files by MD5 or SHA-1 alone, expected SHA256 or SHA512: %w", repo.ErrWeak)
		}
		return nil, fmt.Errorf("neither SHA256 nor SHA512: %w", repo.ErrMalformed)
	}
	return r, r.parseFiles(sha256, sha512)
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

func (r *Release) parseFiles(sha256, sha512 string) error {
	n := strings.Count(sha256, "\n") + 1
	at := make(map[string]int, n)
	r.Files = make([]repo.Listed, 0, n)
	err := eachDigest("SHA256", sha256, func(sum, p string, size int64) error {
		d, err := parseSHA256([]byte(sum))
		if err != nil {
			return err
		}
		if i, ok := at[p]; ok {
			if r.Files[i].SHA256 != d || r.Files[i].Size != size {
				return fmt.Errorf("%s listed twice with different digests or sizes: %w", p, repo.ErrMalformed)
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
	err = eachDigest("SHA512", sha512, func(sum, p string, size int64) error {
		sum = strings.ToLower(sum)
		if _, err := hex.DecodeString(sum); err != nil || len(sum) != 128 {
			return fmt.Errorf("SHA512 %q: expected 128 hexadecimal digits: %w", clip(sum), repo.ErrMalformed)
		}
		i, ok := at[p]
		if !ok {
			at[p] = len(r.Files)
			r.Files = append(r.Files, repo.Listed{Path: p, Size: size, SHA512: sum})
			return nil
		}
		l := &r.Files[i]
		if l.Size != size || (l.SHA512 != "" && l.SHA512 != sum) {
			return fmt.Errorf("%s listed twice with different digests or sizes: %w", p, repo.ErrMalformed)
		}
		l.SHA512 = sum
		return nil
	})
	if err != nil {
		return err
	}
	if r.AcquireByHash {
		for i := range r.Files {
			r.Files[i].Alternates = byHashNames(r.Files[i])
		}
	}
	return nil
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

// eachDigest reads the lines "digest size path" of a Release's field.
func eachDigest(field, value string, f func(sum, path string, size int64) error) error {
	for line := range strings.Lines(value) {
		sum, rest := word(line)
		if sum == "" {
			continue
		}
		sz, rest := word(rest)
		name, rest := word(rest)
		if extra, _ := word(rest); name == "" || extra != "" {
			return fmt.Errorf("%s: line %q: expected digest, size and path: %w", field, clip(strings.TrimSpace(line)), repo.ErrMalformed)
		}
		size, err := parseUint([]byte(sz))
		if err != nil || size > maxIndexSize {
			return fmt.Errorf("%s: %s: size %q: expected a number of bytes up to %d: %w", field, clip(name), clip(sz), int64(maxIndexSize), repo.ErrMalformed)
		}
		p, err := cleanPath(name)
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		if isRootName(p) {
			continue
		}
		if err := f(sum, p, size); err != nil {
			return fmt.Errorf("%s: %s: %w", field, clip(p), err)
		}
	}
	return nil
}

// word cuts the first word off s.
func word(s string) (w, rest string) {
	s = strings.TrimLeft(s, " \t\n")
	if i := strings.IndexAny(s, " \t\n"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// parseDate reads an RFC 1123 date in UTC, the only zone that apt accepts.
func parseDate(s string) (time.Time, error) {
	w := strings.Fields(s)
	if len(w) == 6 {
		switch w[5] {
		case "UTC", "GMT", "Z", "+0000":
			if t, err := time.Parse("Mon, 2 Jan 2006 15:04:05", strings.Join(w[:5], " ")); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("date %q: expected a form like %q: %w", clip(s), "Sat, 11 Jul 2026 10:16:37 UTC", repo.ErrMalformed)
}

// formatDate writes what parseDate reads.
func formatDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05") + " UTC" }
