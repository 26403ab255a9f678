package buildlist

import (
	"net/url"
	"strconv"
	"strings"

	"example.org/snapd/internal/fetch/remote"
)

// aptListLine parses a line of `apt list`. It skips packages that are not installed.
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
		p.note(p.line, "%s=%s is %s: skipped", e.Name, e.Version, state)
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
		// The columns describe the candidate, the status the installed version.
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

// instPrefix is the start of the line for a package that apt would install.
const instPrefix = "Inst "

// aptNoise reports whether a line is a message that apt-get or mmdebstrap prints
// beside its list: no package name contains a capital letter, a colon followed by
// a space, or "...".
func aptNoise(line string) bool {
	for _, prefix := range []string{"I: ", "W: ", "N: ", "NOTE: "} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return strings.HasSuffix(line, "...") && strings.Contains(line, " ")
}

// parseInst parses "Inst name[:arch] [[old]] (version suite[, suite…] [arch])" and
// ignores further words.
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

// printURIsLine parses "'uri' file size [algorithm:digest]" and ignores the other
// lines that apt-get prints.
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
		p.note(p.line, "%s is not a package file: skipped", clip(file))
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
	// The file has the name that apt gives it in its cache, with the epoch as %3a.
	name, err := url.PathUnescape(file)
	if err != nil {
		return "", false
	}
	f, ok := parseFileName(name)
	if !ok || f.Ecosystem != Deb {
		return file, true
	}
	e.Ecosystem, e.Name, e.Version, e.Arch, e.Source = Deb, f.Name, f.Version, f.Arch, f.Source
	// A source file has the same name as in the archive, without an epoch.
	e.EpochUnknown = f.Source && f.EpochUnknown
	e.Size, e.Path, e.URL = size, file, remote.Scrub(uri)
	return file, true
}
