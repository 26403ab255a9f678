package buildlist

import (
	"slices"
	"strconv"
	"strings"
)

// dpkgQuery parses three formats: the output of `dpkg-query -W` (name, version and
// possibly architecture in columns), which also lists packages that were removed but
// not purged, without a difference; the manifests of Ubuntu's images, which have the
// same format and also list snaps; and the table of `dpkg -l`, in which it skips rows
// of packages that are not installed.
func (p *parser) dpkgQuery() error {
	table := false
	return p.eachLine(func(line string) error {
		if len(p.m.Entries) == 0 && dpkgTableHead(line) {
			table = true
			return nil
		}
		if snapLine(line) {
			return p.noteSnap(line)
		}
		e := p.entry(line)
		e.Ecosystem = Deb
		state, ok := parseDpkgRow(line, &e)
		switch {
		case ok && state != "":
			p.note(p.line, "%s is %s: skipped", e.Name, state)
			return nil
		case ok:
			return p.add(e)
		case table:
			return p.malformed(p.line, "a row of dpkg -l", line)
		case len(p.m.Entries) == 0 && hasSeparator(line) && columnTitles(columns(line)):
			return nil
		case !hasSeparator(line) && !statusAtEnd(line):
			return p.malformed(p.line, "name and version in columns, or a row of dpkg -l", line)
		}
		if state, ok = parseDpkgQuery(line, &e); !ok {
			return p.malformed(p.line, "name and version in columns, or a row of dpkg -l", line)
		}
		if state != "" {
			p.note(p.line, "%s is %s: skipped", e.Name, state)
			return nil
		}
		return p.add(e)
	})
}

// hasSeparator reports whether a row separates its columns by more than blanks.
func hasSeparator(line string) bool { return strings.ContainsAny(line, "\t|,;") }

// statusAtEnd reports whether a row whose columns are separated by blanks ends in the
// three words of a Status field.
func statusAtEnd(line string) bool {
	words := strings.Fields(line)
	if len(words) < 5 || len(words) > 6 || hasSeparator(line) {
		return false
	}
	words = words[len(words)-3:]
	_, known := dpkgState(words[2:])
	return known && slices.Contains([]string{"unknown", "install", "hold", "deinstall", "purge"}, words[0]) && (words[1] == "ok" || words[1] == "reinstreq")
}

// dpkgTableHead reports whether a line heads the table of dpkg -l, in any
// language: its legend has bars, and a ruler of plus and equals signs.
func dpkgTableHead(line string) bool {
	return strings.HasPrefix(line, "+++-=") || strings.HasPrefix(line, "||/ ") ||
		strings.HasPrefix(line, "|/ ") || strings.HasPrefix(line, "| ") ||
		strings.Contains(line, "=") && strings.Count(line, "/") >= 4 && !strings.Contains(line, "\t")
}

// parseDpkgQuery parses "name version [architecture] [status]", in columns; the name
// may also contain the architecture. state is the reason why the package is not
// installed; it is empty for an installed package or without a status.
func parseDpkgQuery(line string, e *Entry) (state string, ok bool) {
	cols := columns(line)
	if statusAtEnd(line) {
		cols = append(cols[:len(cols)-3], cols[len(cols)-1])
	}
	if n := len(cols); n > 2 {
		// Status is "install ok installed", or the last of these words.
		words := strings.Fields(cols[n-1])
		if st, known := dpkgState(words[max(len(words)-1, 0):]); known {
			cols, state = cols[:n-1], st
		}
	}
	if len(cols) < 2 || len(cols) > 3 {
		return "", false
	}
	if e.Name, e.Arch, ok = splitArch(cols[0]); !ok || !debName(e.Name) || !debVersion(cols[1]) {
		return "", false
	}
	e.Version = cols[1]
	if len(cols) == 3 {
		if !debArch(cols[2]) || e.Arch != "" && e.Arch != cols[2] {
			return "", false
		}
		e.Arch = cols[2]
	}
	e.Source = e.Arch == "source"
	return state, true
}

// dpkgState returns the state in the last word of a Status field: it is empty if the
// package's files are unpacked.
func dpkgState(words []string) (state string, known bool) {
	if len(words) != 1 {
		return "", false
	}
	switch words[0] {
	case "installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending":
		return "", true
	case "not-installed", "config-files", "half-installed":
		return words[0], true
	}
	return "", false
}

// parseDpkgRow parses a row of dpkg -l. state is the reason why the package is not
// installed; it is empty for an installed package.
func parseDpkgRow(line string, e *Entry) (state string, ok bool) {
	if strings.Contains(line, "\t") {
		return "", false
	}
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

// statusFields are the fields read from a package's stanza. Size, Filename and
// the digests occur in stanzas that come from a Packages index.
func statusFields(name string) bool {
	switch name {
	case "package", "version", "architecture", "status", "source",
		"filename", "size", "sha256", "sha512", "sha1", "md5sum":
		return true
	}
	return false
}

// dpkgStatus parses dpkg's status database, or stanzas without a Status field (status.d
// of distroless images, a Packages index). A package counts if its files are unpacked:
// installed, unpacked, half-configured, or waiting for triggers.
func (p *parser) dpkgStatus() error {
	return p.eachStanza(p.nextLine, statusFields, func(f stanza) error {
		name, ok := f.get("package")
		if !ok {
			return p.malformed(p.line, "a stanza with a Package field", "")
		}
		if !debName(name.value) {
			return p.malformed(name.line, "a package name", name.value)
		}
		if st, ok := f.get("status"); ok {
			words := strings.Fields(st.value)
			if len(words) != 3 {
				return p.malformed(st.line, "want, flag and status", st.value)
			}
			state, known := dpkgState(words[2:])
			if !known {
				return p.malformed(st.line, "a status of dpkg", st.value)
			}
			if state != "" {
				p.note(name.line, "%s is %s: skipped", name.value, state)
				return nil
			}
		}
		e := Entry{Ecosystem: Deb, Name: name.value, Size: -1, Line: name.line, Raw: clip("Package: " + name.value)}
		if version, _ := f.get("version"); debVersion(version.value) {
			e.Version = version.value
		} else {
			return p.malformed(max(version.line, name.line), "the version of "+name.value, version.value)
		}
		if arch, _ := f.get("architecture"); archName(arch.value) {
			e.Arch = arch.value
		} else {
			return p.malformed(max(arch.line, name.line), "the architecture of "+name.value, arch.value)
		}
		if src, ok := f.get("source"); ok {
			if e.SourceName, e.SourceVersion, ok = sourceField(src.value); !ok {
				return p.malformed(src.line, "a source package", src.value)
			}
		}
		e.Path = f.value("filename")
		for _, algo := range []string{"sha256", "sha512", "sha1", "md5sum"} {
			if sum, ok := f.get(algo); ok && !e.digest(algo, sum.value) {
				return p.malformed(sum.line, "a digest", sum.value)
			}
		}
		if size, ok := f.get("size"); ok {
			n, err := strconv.ParseInt(size.value, 10, 64)
			if err != nil || n < 0 {
				return p.malformed(size.line, "a size in bytes", size.value)
			}
			e.Size = n
		}
		return p.add(e)
	})
}

// dpkgSelectionsLine parses a line of `dpkg --get-selections`: a package and its
// selected state. The format has no versions.
func (p *parser) dpkgSelectionsLine(line string) error {
	e := p.entry(strings.Join(strings.Fields(line), " "))
	state, ok := parseSelection(line, &e)
	if !ok {
		return p.malformed(p.line, "a package and one of install, hold, deinstall, purge", line)
	}
	if state == "deinstall" || state == "purge" {
		p.note(p.line, "%s is selected for %s: skipped", e.Name, state)
		return nil
	}
	return p.add(e)
}

func parseSelection(line string, e *Entry) (state string, ok bool) {
	cols := strings.Fields(line)
	if len(cols) != 2 {
		return "", false
	}
	switch cols[1] {
	case "install", "hold", "deinstall", "purge":
	default:
		return "", false
	}
	e.Ecosystem = Deb
	e.Name, e.Arch, ok = splitArch(cols[0])
	return cols[1], ok && debName(e.Name)
}
