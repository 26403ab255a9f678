// Package nevra names rpm packages and orders their versions by rpm's own
// rules.
//
// A package is named by name, epoch, version, release and architecture. The
// order of versions is the one that rpm itself uses (rpm's manual, "Version
// comparison"): segments of digits and letters, "~" before everything and
// "^" after the end but before any continuation.
package nevra

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrSyntax says that a string does not name a package.
var ErrSyntax = errors.New("not an rpm package name")

// EVR is epoch, version and release. The zero epoch and an absent one are the
// same to rpm.
type EVR struct {
	Epoch   uint32
	Version string
	Release string
}

// String writes [epoch:]version[-release], without an epoch of zero.
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

// Compare orders two EVRs: negative when e is older than o, zero when rpm
// takes them for equal, positive when e is newer. An empty release stands
// for any, as it does in a dependency.
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

// ParseEVR reads [epoch:]version[-release].
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

// parseEpoch reads an epoch; rpm's queries write "(none)" for an absent one.
func parseEpoch(s string) (uint32, error) {
	if s == "" || s == "(none)" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// NEVRA names one package. Arch is empty if the writer left it out.
type NEVRA struct {
	Name string
	EVR
	Arch string
}

// String writes name-[epoch:]version-release[.arch], as dnf does.
func (n NEVRA) String() string {
	s := n.Name + "-" + n.EVR.String()
	if n.Arch != "" {
		s += "." + n.Arch
	}
	return s
}

// NVRA writes name-version-release.arch, the default of rpm -qa and the usual
// base name of the package file.
func (n NEVRA) NVRA() string {
	n.Epoch = 0
	return n.String()
}

// arches are the architectures that rpm knows how to install or build for.
// They are needed to distinguish the last dot of "bash-5.2-1.x86_64" from that of
// "bash-5.2-1.fc42".
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

// Parse reads a package name in the forms that rpm, dnf and yum print:
//
//	name-version-release.arch          rpm -qa, package files
//	name-epoch:version-release.arch    %{NEVRA}, dnf repoquery
//	epoch:name-version-release.arch    yum, old rpms
//	name-version-release               %{NVR}, older rpms
//
// each with ".rpm" behind it or a directory before it. The epoch may be
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

// ParseLine reads one line of a list of installed packages: what Parse
// reads, and the tables "name.arch evr repository" of dnf list and
// "name evr arch" or "name epoch version release arch" of rpm's query
// formats. Skip is true for lines that name no package: blank lines,
// comments, headings and the gpg-pubkey entries in which rpm keeps its keys.
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
		// A table has a version in its second column; otherwise the first is
		// a whole name and the second a repository.
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

// validName follows rpm's build-time check of names, a little wider since
// package sets older than that check are mirrored too.
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

// validPart is the same for a version or a release: no separator that would
// make the name ambiguous, nothing unprintable.
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
