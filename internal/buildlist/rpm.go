package buildlist

import (
	"strings"
)

// rpmArch reports whether s is an architecture of rpm's.
func rpmArch(s string) bool {
	switch s {
	case "noarch", "src", "nosrc", "x86_64", "amd64", "ia32e", "i386", "i486", "i586", "i686", "athlon", "geode",
		"aarch64", "ppc", "ppc64", "ppc64le", "ppc64p7", "s390", "s390x", "riscv64", "loongarch64",
		"ia64", "alpha", "sparc", "sparcv9", "sparc64", "mips", "mipsel", "mips64", "mips64el", "mips64r6el", "m68k", "sh4":
		return true
	}
	return strings.HasPrefix(s, "armv") && archName(s) || strings.HasPrefix(s, "x86_64_v") && archName(s)
}

// parseNEVRA reads "name-[epoch:]version-release[.arch]", and the epoch in
// front of the name as yum wrote it. What is no architecture of rpm's belongs to
// the release.
func parseNEVRA(s string) (e Entry, ok bool) {
	e = Entry{Ecosystem: RPM, Size: -1}
	if i := strings.LastIndexByte(s, '.'); i >= 0 && (rpmArch(s[i+1:]) || s[i+1:] == "(none)") {
		if e.Arch = s[i+1:]; e.Arch == "(none)" {
			e.Arch = ""
		}
		s = s[:i]
	}
	e.Source = e.Arch == "src" || e.Arch == "nosrc"
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
	var known bool
	e.Version, known, ok = rpmEVR(evr)
	e.EpochUnknown = !known
	return e, ok && rpmName(name)
}

// rpmqaLine reads a line of rpm -qa in its usual forms, or a row of `dnf list`.
func (p *parser) rpmqaLine(line string) error {
	if dnfNoise(line) {
		return nil
	}
	e, ok := parseRPMQA(line)
	if !ok {
		return p.malformed(p.line, "name-[epoch:]version-release.arch, or name.arch [epoch:]version-release", line)
	}
	if e.Name == "gpg-pubkey" {
		p.note(p.line, "%s is a public key: not taken", clip(line))
		return nil
	}
	e.Line, e.Raw = p.line, clip(line)
	return p.add(e)
}

func dnfNoise(line string) bool {
	return line == "Installed Packages" || line == "Installed packages" || strings.HasPrefix(line, "Last metadata expiration check:")
}

func parseRPMQA(line string) (e Entry, ok bool) {
	cols := strings.Fields(line)
	if len(cols) == 1 {
		return parseNEVRA(strings.TrimSuffix(line, ".rpm"))
	}
	e = Entry{Ecosystem: RPM, Size: -1}
	i := strings.LastIndexByte(cols[0], '.')
	if len(cols) > 3 || i <= 0 || !rpmArch(cols[0][i+1:]) && cols[0][i+1:] != "(none)" || !rpmName(cols[0][:i]) {
		return e, false
	}
	e.Name, e.Arch = cols[0][:i], cols[0][i+1:]
	if e.Arch == "(none)" {
		e.Arch = ""
	}
	e.Source = e.Arch == "src" || e.Arch == "nosrc"
	if len(cols) == 3 {
		// dnf list: the repository it came from. dnf prints an epoch that is
		// not 0, rpm's own columns do not.
		if e.Origin = strings.TrimPrefix(cols[2], "@"); len(e.Origin) == 0 {
			return e, false
		}
	}
	var known bool
	e.Version, known, ok = rpmEVR(cols[1])
	e.EpochUnknown = !known && len(cols) == 2
	return e, ok
}
