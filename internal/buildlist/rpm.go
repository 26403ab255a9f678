package buildlist

import (
	"strings"
)

// rpmArch reports whether s is an architecture of rpm.
func rpmArch(s string) bool {
	switch s {
	case "noarch", "src", "nosrc", "x86_64", "amd64", "ia32e", "i386", "i486", "i586", "i686", "athlon", "geode",
		"aarch64", "ppc", "ppc64", "ppc64le", "ppc64p7", "s390", "s390x", "riscv64", "loongarch64",
		"ia64", "alpha", "sparc", "sparcv9", "sparc64", "mips", "mipsel", "mips64", "mips64el", "mips64r6el", "m68k", "sh4":
		return true
	}
	return strings.HasPrefix(s, "armv") && archName(s) || strings.HasPrefix(s, "x86_64_v") && archName(s)
}

// debArch reports whether s can be an architecture of Debian, and is not one that only
// rpm has.
func debArch(s string) bool {
	if !archName(s) || !isLower(s[0]) {
		return false
	}
	switch s {
	case "amd64", "i386", "s390x", "riscv64", "ia64", "alpha", "sparc", "sparc64", "mips", "mipsel", "mips64el", "m68k", "sh4", "loongarch64":
		return true // rpm has them, too
	}
	return !rpmArch(s)
}

// distTag reports whether a version's release names a distribution of rpms:
// "3.fc40", "1.el9_4", "2.module+el8".
func distTag(version string) bool {
	for _, tag := range []string{".fc", ".el", ".amzn", ".mga", ".suse", ".oe", ".azl", ".cm", "+el", "+fc"} {
		if _, after, ok := strings.Cut(version, tag); ok && after != "" && isDigit(after[0]) {
			return true
		}
	}
	return false
}

// parseNEVRA parses "name-[epoch:]version-release[.arch]", and yum's format with the
// epoch before the name. A suffix that is not an architecture of rpm belongs to the
// release.
func parseNEVRA(s string) (e Entry, ok bool) {
	e = Entry{Ecosystem: RPM, Size: -1}
	if i := strings.LastIndexByte(s, '.'); i >= 0 && e.rpmArch(s[i+1:]) {
		s = s[:i]
	}
	r := strings.LastIndexByte(s, '-')
	if r <= 0 {
		return e, false
	}
	v := strings.LastIndexByte(s[:r], '-')
	if v <= 0 {
		return e, false
	}
	name, evr := s[:v], s[v+1:]
	if epoch, rest, has := strings.Cut(name, ":"); has {
		name, evr = rest, epoch+":"+evr
	}
	e.Name = name
	return e, e.evr(evr) && rpmName(name)
}

// rpmArch sets the architecture of an rpm: "(none)" is that of a public key.
func (e *Entry) rpmArch(s string) bool {
	if s != "(none)" && !rpmArch(s) {
		return false
	}
	if e.Arch = s; s == "(none)" {
		e.Arch = ""
	}
	e.Source = e.Arch == "src" || e.Arch == "nosrc"
	return true
}

// evr sets the version of an rpm from "[epoch:]version-release".
func (e *Entry) evr(s string) bool {
	var known, ok bool
	e.Version, known, ok = rpmEVR(s)
	e.EpochUnknown = !known
	return ok
}

// rpmqa parses `rpm -qa` in its usual formats, `dnf list`, in which it skips available
// packages, and `dnf history userinstalled`.
func (p *parser) rpmqa() error {
	available := false
	return p.eachLine(func(line string) error {
		if dnfNoise(line) {
			available = strings.EqualFold(line, "Available Packages")
			return nil
		}
		if available {
			p.note(p.line, "%s is available, not installed: skipped", clip(strings.Fields(line)[0]))
			return nil
		}
		return p.rpmqaLine(line)
	})
}

func (p *parser) rpmqaLine(line string) error {
	if len(p.m.Entries) == 0 && columnTitles(columns(line)) {
		return nil
	}
	e, ok := parseRPMQA(line)
	if !ok {
		return p.malformed(p.line, "name-[epoch:]version-release.arch, name.arch [epoch:]version-release, or name, epoch, version, release and arch in columns", line)
	}
	if e.Name == "gpg-pubkey" {
		p.note(p.line, "%s is a public key: skipped", clip(line))
		return nil
	}
	e.Line, e.Raw = p.line, clip(strings.Join(strings.Fields(line), " "))
	return p.add(e)
}

// dnfNoise reports whether a line is a heading that dnf prints.
func dnfNoise(line string) bool {
	return strings.EqualFold(line, "Installed Packages") || strings.EqualFold(line, "Available Packages") || line == "Packages installed by user" ||
		strings.HasPrefix(line, "Last metadata expiration check:")
}

func parseRPMQA(line string) (e Entry, ok bool) {
	cols := columns(line)
	if len(cols) == 1 {
		return parseNEVRA(strings.TrimSuffix(cols[0], ".rpm"))
	}
	if e, ok = parseDNFList(cols); ok {
		return e, true
	}
	if e, ok = parseNEVRA(cols[0]); ok && e.Arch != "" && rpmDate(cols[1:]) {
		return e, true
	}
	return parseRPMColumns(cols)
}

// parseDNFList parses "name.arch [epoch:]version-release" and the repository, in
// which dnf, unlike rpm, writes an epoch that is not 0.
func parseDNFList(cols []string) (e Entry, ok bool) {
	e = Entry{Ecosystem: RPM, Size: -1}
	i := strings.LastIndexByte(cols[0], '.')
	if len(cols) > 3 || i <= 0 || !e.rpmArch(cols[0][i+1:]) || !rpmName(cols[0][:i]) || !e.evr(cols[1]) {
		return e, false
	}
	e.Name = cols[0][:i]
	if len(cols) == 3 {
		e.EpochUnknown = false
		e.Origin = strings.TrimPrefix(cols[2], "@")
	}
	return e, len(cols) == 2 || e.Origin != ""
}

// rpmDate reports whether words are the date that rpm -qa --last prints after a
// package, in any language: several of them, a year and a time of day among them.
func rpmDate(words []string) bool {
	year, clock := false, false
	for _, w := range words {
		year = year || len(w) == 4 && all(w, isDigit)
		clock = clock || strings.Count(w, ":") == 2 && all(strings.ReplaceAll(w, ":", ""), isDigit)
	}
	return year && clock && len(words) >= 4
}

// parseRPMColumns parses a row of columns as in common formats of `rpm -qa --qf`: name,
// then epoch, version and release, together or in separate columns, then possibly the
// architecture. A missing epoch is written "(none)".
func parseRPMColumns(cols []string) (e Entry, ok bool) {
	e = Entry{Ecosystem: RPM, Size: -1}
	if n := len(cols); n >= 3 && e.rpmArch(cols[n-1]) {
		cols = cols[:n-1]
	}
	if len(cols) < 2 || !rpmName(cols[0]) {
		return e, false
	}
	e.Name = cols[0]
	switch rest := cols[1:]; len(rest) {
	case 1: // version-release
		return e, e.evr(rest[0])
	case 2:
		if strings.Contains(rest[1], "-") { // epoch, version-release
			return e, e.evr(rpmEpoch(rest[0]) + ":" + rest[1])
		}
		return e, e.evr(rest[0] + "-" + rest[1])
	case 3:
		return e, e.evr(rpmEpoch(rest[0]) + ":" + rest[1] + "-" + rest[2])
	}
	return e, false
}

// rpmEpoch is the epoch of a column, which is empty where a package has none.
func rpmEpoch(s string) string {
	if s == "" {
		return "0"
	}
	return s
}
