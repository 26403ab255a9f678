// Package nevra parses the names of rpm packages and compares their versions
// as rpm does.
//
// A package is identified by its name, epoch, version, release and
// architecture (NEVRA). The order of versions is described in rpm's manual
// ("Version comparison"): segments of digits and of letters are compared in
// turn, "~" sorts before everything, and "^" after the end of a version but
// before any continuation.
package nevra

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrSyntax means that a string is not a valid package name or version.
var ErrSyntax = errors.New("not an rpm package name")

// EVR is the epoch, version and release of a package. rpm does not distinguish
// an absent epoch from 0.
type EVR struct {
	Epoch   uint32
	Version string
	Release string
}

// String returns [epoch:]version[-release], without an epoch of 0.
func (e EVR) String() string {
	s := e.Version
	if e.Release != "" {
		s += "-" + e.Release
	}
	if e.Epoch != 0 {
		s = strconv.FormatUint(uint64(e.Epoch), 10) + ":" + s
	}
	return s
}

// Compare returns a negative number if e is older than o, 0 if rpm considers
// them equal, and a positive number if e is newer. An empty release equals any
// release, as in a dependency.
func (e EVR) Compare(o EVR) int {
	switch {
	case e.Epoch < o.Epoch:
		return -1
	case e.Epoch > o.Epoch:
		return 1
	}
	if c := Vercmp(e.Version, o.Version); c != 0 {
		return c
	}
	if e.Release == "" || o.Release == "" {
		return 0
	}
	return Vercmp(e.Release, o.Release)
}

// ParseEVR parses [epoch:]version[-release]. Errors wrap ErrSyntax.
func ParseEVR(s string) (EVR, error) {
	var e EVR
	rest := s
	if before, after, ok := strings.Cut(s, ":"); ok {
		n, err := parseEpoch(before)
		if err != nil {
			return EVR{}, fmt.Errorf("version %q: %w: epoch %q", s, ErrSyntax, before)
		}
		e.Epoch, rest = n, after
	}
	e.Version, e.Release = rest, ""
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		e.Version, e.Release = rest[:i], rest[i+1:]
		if !validPart(e.Release) {
			return EVR{}, fmt.Errorf("version %q: %w: release %q", s, ErrSyntax, e.Release)
		}
	}
	if !validPart(e.Version) {
		return EVR{}, fmt.Errorf("version %q: %w: version %q", s, ErrSyntax, e.Version)
	}
	return e, nil
}

// parseEpoch parses an epoch. rpm's queries print "(none)" for a package without an epoch.
func parseEpoch(s string) (uint32, error) {
	if s == "" || s == "(none)" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// NEVRA identifies a package. Arch is empty if it was omitted.
type NEVRA struct {
	Name string
	EVR
	Arch string
}

// String returns name-[epoch:]version-release[.arch], as dnf prints it.
func (n NEVRA) String() string {
	s := n.Name + "-" + n.EVR.String()
	if n.Arch != "" {
		s += "." + n.Arch
	}
	return s
}

// NVRA returns name-version-release.arch, which rpm -qa prints by default, and
// which is usually the base name of the package file.
func (n NEVRA) NVRA() string {
	n.Epoch = 0
	return n.String()
}

// arches are the architectures that rpm can install or build for. They
// distinguish an architecture, as in "bash-5.2-1.x86_64", from a part of the
// release, as in "bash-5.2-1.fc42".
var arches = knownArches()

func knownArches() map[string]bool {
	m := map[string]bool{}
	for _, a := range strings.Fields(`
		noarch src nosrc
		i386 i486 i586 i686 athlon geode pentium3 pentium4
		x86_64 x86_64_v2 x86_64_v3 x86_64_v4 amd64 ia32e
		aarch64 armv3l armv4b armv4l armv4tl armv5tl armv5tel armv5tejl
		armv6l armv6hl armv7l armv7hl armv7hnl armv8l armv8hl
		ppc ppc8260 ppc8560 ppc32dy4 ppciseries ppcpseries
		ppc64 ppc64p7 ppc64iseries ppc64pseries ppc64le
		s390 s390x riscv32 riscv64 riscv128 loongarch64
		alpha alphaev5 alphaev56 alphaev6 alphaev67 alphapca56
		ia64 sh sh3 sh4 sh4a m68k e2k e2kv4 e2kv5 e2kv6
		mips mipsel mips64 mips64el mipsr6 mipsr6el mips64r6 mips64r6el
		sparc sparcv8 sparcv9 sparcv9v sparcv9v2 sparc64 sparc64v sparc64v2`) {
		m[a] = true
	}
	return m
}

// KnownArch reports whether rpm has an architecture of that name.
func KnownArch(s string) bool { return arches[s] }

// Parse parses a package name in the formats that rpm, dnf and yum print:
//
//	name-version-release.arch          rpm -qa, package files
//	name-epoch:version-release.arch    %{NEVRA}, dnf repoquery
//	epoch:name-version-release.arch    yum, old rpms
//	name-version-release               %{NVR}, older rpms
//
// A suffix ".rpm" and a directory before the name are allowed. The epoch may be
// "(none)". Errors wrap ErrSyntax and quote s.
func Parse(s string) (NEVRA, error) {
	fail := func(what string) (NEVRA, error) {
		return NEVRA{}, fmt.Errorf("package %q: %w: %s", s, ErrSyntax, what)
	}
	rest := s
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		rest = rest[i+1:]
	}
	rest = strings.TrimSuffix(rest, ".rpm")
	var n NEVRA
	if i := strings.LastIndexByte(rest, '.'); i >= 0 && (arches[rest[i+1:]] || rest[i+1:] == "(none)") {
		if rest[i+1:] != "(none)" {
			n.Arch = rest[i+1:]
		}
		rest = rest[:i]
	}
	i := strings.LastIndexByte(rest, '-')
	if i < 0 {
		return fail("no release")
	}
	n.Release, rest = rest[i+1:], rest[:i]
	if i = strings.LastIndexByte(rest, '-'); i < 0 {
		return fail("no version")
	}
	n.Version, n.Name = rest[i+1:], rest[:i]
	before, after, inVersion := strings.Cut(n.Version, ":")
	if inVersion {
		e, err := parseEpoch(before)
		if err != nil {
			return fail(fmt.Sprintf("epoch %q", before))
		}
		n.Epoch, n.Version = e, after
	}
	if before, after, ok := strings.Cut(n.Name, ":"); ok {
		e, err := parseEpoch(before)
		if err != nil || inVersion {
			return fail(fmt.Sprintf("epoch %q", before))
		}
		n.Epoch, n.Name = e, after
	}
	switch {
	case !validName(n.Name):
		return fail(fmt.Sprintf("name %q", n.Name))
	case !validPart(n.Version):
		return fail(fmt.Sprintf("version %q", n.Version))
	case !validPart(n.Release):
		return fail(fmt.Sprintf("release %q", n.Release))
	}
	return n, nil
}

// ParseLine parses one line of a list of installed packages. It accepts the
// formats of Parse, the table "name.arch evr repository" of dnf list, and the
// tables "name evr arch" and "name epoch version release arch" of rpm's query
// formats. skip is true for lines that contain no package: blank lines,
// comments, headings and the gpg-pubkey entries in which rpm stores keys.
func ParseLine(line string) (n NEVRA, skip bool, err error) {
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return NEVRA{}, true, nil
	}
	f := strings.Fields(line)
	switch {
	case strings.HasPrefix(f[0], "gpg-pubkey-") || f[0] == "gpg-pubkey" || strings.HasPrefix(f[0], "gpg-pubkey."):
		return NEVRA{}, true, nil
	case len(f) == 1:
		n, err = Parse(f[0])
		return n, false, err
	case len(f) == 2 && (strings.EqualFold(line, "Installed Packages") || strings.EqualFold(line, "Available Packages")):
		return NEVRA{}, true, nil
	case len(f) == 5 && KnownArch(f[4]):
		n = NEVRA{Name: f[0], EVR: EVR{Version: f[2], Release: f[3]}, Arch: f[4]}
		if n.Epoch, err = parseEpoch(f[1]); err != nil {
			return NEVRA{}, false, fmt.Errorf("package %q: %w: epoch %q", line, ErrSyntax, f[1])
		}
	case len(f) == 3 && KnownArch(f[2]):
		n = NEVRA{Name: f[0], Arch: f[2]}
		n.EVR, err = ParseEVR(f[1])
	case len(f) == 2 || len(f) == 3:
		// If the second column is not a version, the first is a complete name
		// and the second a repository.
		full, perr := Parse(f[0])
		if perr == nil && isDigit(full.Release[0]) && !isDigit(f[1][0]) {
			return full, false, nil
		}
		n.Name = f[0]
		if i := strings.LastIndexByte(f[0], '.'); i >= 0 && KnownArch(f[0][i+1:]) {
			n.Name, n.Arch = f[0][:i], f[0][i+1:]
		}
		n.EVR, err = ParseEVR(f[1])
	default:
		return NEVRA{}, false, fmt.Errorf("package %q: %w", line, ErrSyntax)
	}
	if err != nil {
		return NEVRA{}, false, err
	}
	if !validName(n.Name) || !validPart(n.Version) || !validPart(n.Release) {
		return NEVRA{}, false, fmt.Errorf("package %q: %w", line, ErrSyntax)
	}
	return n, false, nil
}

// validName follows rpm's build-time check of names, but accepts a little more,
// because mirrored packages may be older than that check.
func validName(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isAlnum(c) || c >= 0x80:
		case i > 0 && strings.IndexByte("-._+%{}()~^@", c) >= 0:
		case i == 0 && c == '_':
		default:
			return false
		}
	}
	return true
}

// validPart is the same for a version or a release: it must have no separator that
// would make the name ambiguous, and no unprintable characters.
func validPart(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !isAlnum(c) && c < 0x80 && strings.IndexByte("._+%{}~^", c) < 0 {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isAlnum(c byte) bool { return isDigit(c) || isAlpha(c) }
