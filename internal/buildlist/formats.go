package buildlist

import (
	"bytes"
	"net/url"
	"path"
	"strconv"
	"strings"

	"example.org/snapd/internal/fetch/remote"
)

// dpkgQuery reads `dpkg-query -W` ("name\tversion", "name:arch\tversion", with a
// third column its architecture; packages that were removed but not purged stand
// there too, and nothing tells them apart) and the table of `dpkg -l`, of which rows of
// packages that are not in place are left out.
func (p *parser) dpkgQuery() error {
	table := false
	return p.eachLine(func(line string) error {
		if len(p.m.Entries) == 0 && dpkgTableHead(line) {
			table = true
			return nil
		}
		e := p.entry(line)
		e.Ecosystem = Deb
		if !strings.Contains(line, "\t") {
			state, ok := parseDpkgRow(line, &e)
			if !ok {
				if table {
					return p.malformed(p.line, "a row of dpkg -l", line)
				}
				return p.malformed(p.line, "name, tab and version, or a row of dpkg -l", line)
			}
			if state != "" {
				p.note(p.line, "%s is %s: not taken", e.Name, state)
				return nil
			}
			return p.add(e)
		}
		if !parseDpkgQuery(line, &e) {
			return p.malformed(p.line, "name, tab and version", line)
		}
		return p.add(e)
	})
}

// dpkgTableHead reports whether a line heads the table of dpkg -l, in any
// language: its legend has bars, and a ruler of plus and equals signs.
func dpkgTableHead(line string) bool {
	return strings.HasPrefix(line, "+++-=") || strings.HasPrefix(line, "||/ ") ||
		strings.HasPrefix(line, "|/ ") || strings.HasPrefix(line, "| ") ||
		strings.Contains(line, "=") && strings.Count(line, "/") >= 4 && !strings.Contains(line, "\t")
}

func parseDpkgQuery(line string, e *Entry) bool {
	cols := strings.Split(line, "\t")
	if len(cols) < 2 || len(cols) > 3 {
		return false
	}
	for i := range cols {
		cols[i] = strings.TrimSpace(cols[i])
	}
	var ok bool
	if e.Name, e.Arch, ok = splitArch(cols[0]); !ok || !debName(e.Name) || !debVersion(cols[1]) {
		return false
	}
	e.Version = cols[1]
	if len(cols) == 3 {
		if !archName(cols[2]) || e.Arch != "" && e.Arch != cols[2] {
			return false
		}
		e.Arch = cols[2]
	}
	return true
}

// parseDpkgRow reads a row of dpkg -l. state says why the package is not in
// place; "" for one that is.
func parseDpkgRow(line string, e *Entry) (state string, ok bool) {
	cols := strings.Fields(line)
	if len(cols) < 4 {
		// A package that is not installed may have no version: "un  name  <none>".
		if len(cols) < 2 || len(cols[0]) != 2 || cols[0][1] != 'n' {
			return "", false
		}
	}
	flags := cols[0]
	if cols[1] == "R" && len(cols) > 4 { // "iHR": reinstall required, as a third letter or column
		cols = append(cols[:1], cols[2:]...)
	}
	if len(flags) < 2 || len(flags) > 3 || strings.IndexByte("uirph", flags[0]) < 0 || len(flags) == 3 && flags[2] != 'R' {
		return "", false
	}
	var good bool
	if e.Name, e.Arch, good = splitArch(cols[1]); !good || !debName(e.Name) {
		return "", false
	}
	switch flags[1] {
	case 'i', 'U', 'F', 'W', 't':
	case 'n':
		return "not-installed", true
	case 'c':
		return "config-files", true
	case 'H':
		return "half-installed", true
	default:
		return "", false
	}
	if !debVersion(cols[2]) || !archName(cols[3]) || e.Arch != "" && e.Arch != cols[3] {
		return "", false
	}
	e.Version, e.Arch = cols[2], cols[3]
	return "", true
}

// aptListLine reads a line of `apt list`. Taken is what is installed.
func (p *parser) aptListLine(line string) error {
	if aptListNoise(line) {
		return nil
	}
	e := p.entry(line)
	state, ok := parseAptList(line, &e)
	if !ok {
		return p.malformed(p.line, "name/suite version architecture [installed] (LC_ALL=C apt list --installed)", line)
	}
	if state != "" {
		p.note(p.line, "%s=%s is %s: not taken", e.Name, e.Version, state)
		return nil
	}
	return p.add(e)
}

func aptListNoise(line string) bool {
	return line == "Listing..." || line == "Listing... Done" || strings.HasPrefix(line, "WARNING: apt does not have a stable CLI") ||
		strings.HasPrefix(line, "N: ")
}

func parseAptList(line string, e *Entry) (state string, ok bool) {
	line, status, has := strings.Cut(line, " [")
	cols := strings.Split(line, " ")
	if len(cols) != 3 {
		return "", false
	}
	name, suites, ok := strings.Cut(cols[0], "/")
	if !ok || !debName(name) || !debVersion(cols[1]) || !archName(cols[2]) {
		return "", false
	}
	e.Ecosystem, e.Name, e.Version, e.Arch = Deb, name, cols[1], cols[2]
	var origin []string
	for s := range strings.SplitSeq(suites, ",") {
		if s != "now" {
			origin = append(origin, s)
		}
	}
	e.Origin = strings.Join(origin, ",")
	if !has {
		return "not installed", true
	}
	status, ok = strings.CutSuffix(status, "]")
	if !ok {
		return "", false
	}
	if old, is := strings.CutPrefix(status, "upgradable from: "); is {
		// The columns tell of the candidate; the one in place stands here.
		if !debVersion(old) {
			return "", false
		}
		e.Version, e.Origin = old, ""
		return "", true
	}
	switch first, _, _ := strings.Cut(status, ","); first {
	case "installed":
		return "", true
	case "residual-config":
		return "residual-config", true
	}
	return "", false
}

// mmdebstrap reads "name version", "name:arch version" and what the list format
// reads; or apt's simulation (mmdebstrap --simulate, apt-get -s), of which
// "Inst name (version suite [arch])" counts and all else is passed over.
func (p *parser) mmdebstrap() error {
	simulated := bytes.HasPrefix(p.head, []byte(instPrefix)) || bytes.Contains(p.head, []byte("\n"+instPrefix))
	return p.eachLine(func(line string) error {
		e := p.entry(line)
		e.Ecosystem = Deb
		if simulated {
			switch {
			case strings.HasPrefix(line, "Remv "):
				p.note(p.line, "%s is removed: not taken", clip(strings.TrimPrefix(line, "Remv ")))
				return nil
			case !strings.HasPrefix(line, instPrefix):
				return nil
			case !parseInst(line, &e):
				return p.malformed(p.line, "Inst name (version suite [architecture])", line)
			}
			return p.add(e)
		}
		if aptNoise(line) {
			return nil
		}
		if !parseNameVersion(line, &e) && !(parseList(line, &e) && debName(e.Name) && debVersion(e.Version)) {
			return p.malformed(p.line, "name version", line)
		}
		return p.add(e)
	})
}

// instPrefix starts the line of a package that apt would install.
const instPrefix = "Inst "

// aptNoise reports whether a line is what apt-get or mmdebstrap says beside its
// list: no package name has a capital, a colon followed by a space, or "...".
func aptNoise(line string) bool {
	for _, prefix := range []string{"I: ", "W: ", "N: ", "NOTE: "} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return strings.HasSuffix(line, "...") && strings.Contains(line, " ")
}

func parseNameVersion(line string, e *Entry) bool {
	cols := strings.Fields(line)
	if len(cols) != 2 {
		return false
	}
	var ok bool
	if e.Name, e.Arch, ok = splitArch(cols[0]); !ok || !policyName(e.Name) || !debVersion(cols[1]) {
		return false
	}
	e.Version = cols[1]
	return true
}

// parseInst reads "Inst name[:arch] [[old]] (version suite[, suite…] [arch])",
// with words after that which do not matter.
func parseInst(line string, e *Entry) bool {
	name, rest, ok := strings.Cut(strings.TrimPrefix(line, instPrefix), " ")
	if !ok {
		return false
	}
	if e.Name, _, ok = splitArch(name); !ok || !debName(e.Name) {
		return false
	}
	if strings.HasPrefix(rest, "[") {
		if _, rest, ok = strings.Cut(rest, "] "); !ok {
			return false
		}
	}
	rest, ok = strings.CutPrefix(rest, "(")
	if !ok {
		return false
	}
	rest, _, ok = strings.Cut(rest, ")")
	if !ok {
		return false
	}
	version, rest, ok := strings.Cut(rest, " ")
	suite, arch, ok2 := strings.Cut(strings.TrimSuffix(rest, "]"), "[")
	if !ok || !ok2 || !debVersion(version) || !archName(arch) {
		return false
	}
	e.Version, e.Arch, e.Origin = version, arch, strings.TrimSpace(suite)
	return true
}

// debootstrapLine reads a line of debootstrap's deburis ("name version url"), of
// debpaths ("name path"), or bare names, the one format without versions.
func (p *parser) debootstrapLine(line string) error {
	if aptNoise(line) {
		return nil
	}
	cols := strings.Fields(line)
	if len(cols) == 3 && strings.Contains(cols[2], "://") {
		e := p.entry(line)
		if !parseDebURI(cols, &e) {
			return p.malformed(p.line, "name version url", line)
		}
		return p.add(e)
	}
	for _, name := range cols {
		if !policyName(name) {
			return p.malformed(p.line, "package names, or name version url", line)
		}
		e := p.entry(name)
		e.Ecosystem, e.Name = Deb, name
		if err := p.add(e); err != nil {
			return err
		}
	}
	return nil
}

func parseDebURI(cols []string, e *Entry) bool {
	if !policyName(cols[0]) || !debVersion(cols[1]) {
		return false
	}
	e.Ecosystem, e.Name, e.Version = Deb, cols[0], cols[1]
	e.URL = remote.Scrub(cols[2])
	if f, ok := parseFileName(urlBase(cols[2])); ok && f.Ecosystem == Deb && f.Name == e.Name {
		e.Arch = f.Arch
	}
	return true
}

// urlBase returns the decoded last segment of a URL's path.
func urlBase(s string) string {
	s, _, _ = strings.Cut(s, "?")
	s = s[strings.LastIndexByte(s, '/')+1:]
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

// printURIsLine reads "'uri' file size [algorithm:digest]" and passes over what
// apt-get says around it.
func (p *parser) printURIsLine(line string) error {
	if line[0] != '\'' {
		return nil
	}
	e := p.entry(line)
	file, ok := parsePrintURI(line, &e)
	if !ok {
		return p.malformed(p.line, "'uri' file size digest", line)
	}
	if e.Name == "" {
		p.note(p.line, "%s is no package file: not taken", clip(file))
		return nil
	}
	return p.add(e)
}

func parsePrintURI(line string, e *Entry) (file string, ok bool) {
	uri, rest, ok := strings.Cut(strings.TrimPrefix(line, "'"), "' ")
	if !ok || !strings.Contains(uri, ":/") {
		return "", false
	}
	cols := strings.Split(rest, " ")
	for len(cols) > 0 && cols[len(cols)-1] == "" {
		cols = cols[:len(cols)-1]
	}
	if len(cols) < 2 || len(cols) > 3 {
		return "", false
	}
	size, err := strconv.ParseInt(cols[1], 10, 64)
	if err != nil || size < 0 {
		return "", false
	}
	file = cols[0]
	if len(cols) == 3 {
		algo, sum, _ := strings.Cut(cols[2], ":")
		if !e.digest(algo, sum) {
			return "", false
		}
	}
	// The file is named as apt keeps it, its version with the epoch, coded %3a.
	name, err := url.PathUnescape(file)
	if err != nil {
		return "", false
	}
	f, ok := parseFileName(name)
	if !ok || f.Ecosystem != Deb {
		return file, true
	}
	e.Ecosystem, e.Name, e.Version, e.Arch, e.Source = Deb, f.Name, f.Version, f.Arch, f.Source
	// A source file's name is the archive's own, which has no epoch; a
	// binary's is apt's, which has.
	e.EpochUnknown = f.Source && f.EpochUnknown
	e.Size, e.Path, e.URL = size, file, remote.Scrub(uri)
	return file, true
}

// sha256sumsLine reads what sha256sum(1) and its kin print, in both of their
// forms. Files that are no package's are left out.
func (p *parser) sha256sumsLine(line string) error {
	e := p.entry(line)
	if !parseSum(line, &e) {
		return p.malformed(p.line, "digest and path", line)
	}
	f, ok := parseFileName(path.Base(e.Path))
	if !ok {
		p.note(p.line, "%s is no package file: not taken", clip(e.Path))
		return nil
	}
	e.Ecosystem, e.Name, e.Version, e.EpochUnknown, e.Arch, e.Source =
		f.Ecosystem, f.Name, f.Version, f.EpochUnknown, f.Arch, f.Source
	return p.add(e)
}

// parseSum reads "hex  path", "hex *path", either with names escaped after a
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

// parseFileName reads the name, version and architecture out of the name of a
// package file. EpochUnknown is set where the version has no epoch.
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
	// Of the other files of a source package the name tells the upstream
	// version, or nothing: they are found by digest.
	rest = strings.TrimSuffix(strings.TrimSuffix(rest, ".asc"), ".sig")
	for _, ext := range []string{".gz", ".xz", ".bz2", ".lzma", ".zst"} {
		if stem, is := strings.CutSuffix(rest, ext); is &&
			(strings.Contains(stem, ".tar") || strings.HasSuffix(stem, ".diff")) {
			return e, debVersion(rest)
		}
	}
	return e, false
}

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
