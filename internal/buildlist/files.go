package buildlist

import (
	"net/url"
	"path"
	"strings"
)

// urlBase returns the last segment of a URL's path, decoded.
func urlBase(s string) string {
	s, _, _ = strings.Cut(s, "?")
	s = s[strings.LastIndexByte(s, '/')+1:]
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

// sha256sumsLine parses a line of sha256sum(1) and similar programs, in either of their
// formats. It skips files that are not packages.
func (p *parser) sha256sumsLine(line string) error {
	e := p.entry(line)
	if !parseSum(line, &e) {
		return p.malformed(p.line, "digest and path", line)
	}
	f, ok := parseFileName(path.Base(e.Path))
	if !ok {
		p.note(p.line, "%s is not a package file: skipped", clip(e.Path))
		return nil
	}
	e.Ecosystem, e.Name, e.Version, e.EpochUnknown, e.Arch, e.Source =
		f.Ecosystem, f.Name, f.Version, f.EpochUnknown, f.Arch, f.Source
	return p.add(e)
}

// parseSum parses "hex  path", "hex *path", either with names escaped after a
// leading backslash, and "SHA256 (path) = hex".
func parseSum(line string, e *Entry) bool {
	escaped := false
	if strings.HasPrefix(line, `\`) {
		escaped, line = true, line[1:]
	}
	if sum, rest, ok := strings.Cut(line, " "); ok && len(rest) > 1 && (rest[0] == ' ' || rest[0] == '*') {
		algo := map[int]string{32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}[len(sum)]
		e.Path = rest[1:]
		if escaped {
			e.Path = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(e.Path)
		}
		return algo != "" && e.digest(algo, sum)
	}
	algo, rest, ok := strings.Cut(line, " (")
	i := strings.LastIndex(rest, ") = ")
	if !ok || i < 1 {
		return false
	}
	e.Path = rest[:i]
	return e.digest(algo, rest[i+len(") = "):])
}

// parseFileName parses name, version and architecture from the name of a package
// file. EpochUnknown is set if the version has no epoch.
func parseFileName(base string) (e Entry, ok bool) {
	if stem, is := strings.CutSuffix(base, ".rpm"); is {
		if e, ok = parseNEVRA(strings.TrimSuffix(stem, ".drpm")); !ok || e.Arch == "" {
			return e, false
		}
		return e, true
	}
	e.Ecosystem = Deb
	for _, ext := range []string{".deb", ".udeb", ".ddeb"} {
		stem, is := strings.CutSuffix(base, ext)
		if !is {
			continue
		}
		part := strings.Split(stem, "_")
		if len(part) != 3 || !debName(part[0]) || !debVersion(part[1]) || !archName(part[2]) {
			return e, false
		}
		e.Name, e.Version, e.Arch = part[0], part[1], part[2]
		e.EpochUnknown = !strings.Contains(e.Version, ":")
		return e, true
	}
	name, rest, is := strings.Cut(base, "_")
	if !is || !debName(name) {
		return e, false
	}
	e.Name, e.Arch, e.Source = name, "source", true
	if version, is := strings.CutSuffix(rest, ".dsc"); is && debVersion(version) {
		e.Version = version
		e.EpochUnknown = !strings.Contains(version, ":")
		return e, true
	}
	// The names of the other files of a source package have the upstream version or
	// none: they are found by digest.
	rest = strings.TrimSuffix(strings.TrimSuffix(rest, ".asc"), ".sig")
	for _, ext := range []string{".gz", ".xz", ".bz2", ".lzma", ".zst"} {
		if stem, is := strings.CutSuffix(rest, ext); is &&
			(strings.Contains(stem, ".tar") || strings.HasSuffix(stem, ".diff")) {
			return e, debVersion(rest)
		}
	}
	return e, false
}
