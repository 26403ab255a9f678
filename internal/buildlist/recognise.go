package buildlist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Recognise returns the format of a build manifest from its first bytes: the whole of a
// short one, 128 KiB of a long one. A line-based format must accept all lines. If no
// format does, Recognise returns the one that accepts most of them, whose parser then
// reports the wrong line. Errors wrap ErrUnrecognised or ErrAmbiguous.
func Recognise(name string, head []byte) (Format, error) {
	if len(head) > headSize {
		head = head[:headSize]
	}
	whole := len(head) < headSize
	found := candidates(bytes.TrimPrefix(head, utf8BOM), whole)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		err := fmt.Errorf("recognise %s: expected a build manifest, found %s: %w", name, describe(head), ErrUnrecognised)
		if whole && describe(head) == "nothing" {
			err = &emptyError{err}
		}
		return "", err
	}
	return "", &AmbiguousError{File: name, Candidates: found}
}

// describe quotes the first line of a build manifest.
func describe(head []byte) string {
	for line := range strings.Lines(string(head)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return fmt.Sprintf("%q", clip(line))
		}
	}
	return "nothing"
}

func candidates(head []byte, whole bool) []Format {
	if t := bytes.TrimLeft(head, " \t\r\n"); len(t) > 0 && t[0] == '{' {
		return jsonCandidates(t)
	}
	var lines []string
	for line := range strings.Lines(string(head)) {
		if !strings.HasSuffix(line, "\n") && !whole {
			break // cut off in its middle
		}
		line = strings.TrimRight(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil
	}
	if f := documentCandidates(lines); f != nil {
		return f
	}
	return lineCandidates(lines)
}

// lineCandidates finds the formats that accept all lines, or else the one that
// accepts most of them.
func lineCandidates(lines []string) (found []Format) {
	recognisers := lineRecognisers()
	if slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, instPrefix) }) {
		recognisers = []lineRecogniser{{format: Mmdebstrap, fits: func(line string) (bool, bool) {
			if !strings.HasPrefix(line, instPrefix) {
				return true, false
			}
			return both(parseInst(line, new(Entry)))
		}}}
	}
	best, bestCount := Format(""), len(lines)/2
	for _, r := range recognisers {
		count, misfits := 0, 0
		for _, line := range lines {
			line = strings.TrimSpace(line)
			if !r.raw {
				line = stripComment(line)
			}
			switch fits, counts := r.fits(line); {
			case !fits:
				misfits++
			case counts:
				count++
			}
		}
		if count > 0 && misfits == 0 {
			found = append(found, r.format)
		}
		if count > bestCount {
			best, bestCount = r.format, count
		}
	}
	if len(found) == 0 && best != "" {
		found = append(found, best)
	}
	return found
}

// jsonKeys are keys of a document's top level by which its format is recognised.
func jsonKeys() map[string]Format {
	return map[string]Format{
		"spdxVersion": SPDX, "SPDXID": SPDX, "documentNamespace": SPDX, "dataLicense": SPDX, "creationInfo": SPDX,
		"bomFormat": CycloneDX, "specVersion": CycloneDX, "components": CycloneDX, "serialNumber": CycloneDX,
		"lockfileVersion": RPMsLock, "lockfileVendor": RPMsLock, "arches": RPMsLock,
		"artifacts": Syft, "artifactRelationships": Syft,
		"manifest_version": Mkosi, "dependency_sets": RulesDistroless,
	}
}

// jsonCandidates finds formats by the top-level keys in head.
func jsonCandidates(head []byte) []Format {
	words := jsonKeys()
	var found []Format
	dec := json.NewDecoder(bytes.NewReader(head))
	for depth, key := 0, false; ; {
		tok, err := dec.Token()
		if err != nil {
			break
		}
		switch t := tok.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				if depth++; depth == 1 {
					key = true
					continue
				}
			} else {
				depth--
			}
		case string:
			if depth == 1 && key {
				f, ok := words[t]
				if _, value, _ := bytes.Cut(head[dec.InputOffset():], []byte(":")); t == "packages" && distrolessPackages(value) {
					f, ok = RulesDistroless, true
				}
				if ok && !slices.Contains(found, f) {
					found = append(found, f)
				}
				key = false
				continue
			}
		}
		if depth == 0 {
			break
		}
		key = depth == 1
	}
	return found
}

// documentCandidates finds the formats that are documents and not lists of lines,
// by the keys at their left margin.
func documentCandidates(lines []string) []Format {
	if lines[0] == "-----BEGIN PGP SIGNED MESSAGE-----" {
		for _, line := range lines {
			if buildinfoField(line) {
				return []Format{Buildinfo}
			}
		}
		return nil
	}
	var found []Format
	take := func(f Format) {
		if !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	pkg, info, version := false, false, false
	for _, line := range lines {
		if line[0] == ' ' || line[0] == '\t' || line[0] == '\'' {
			continue
		}
		if packageTable(line) {
			take(ReproEnv)
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		if !ok || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		name = strings.TrimRight(name, " ")
		switch {
		case buildinfoField(line):
			take(Buildinfo)
		case name == "Package":
			pkg = true
		case name == "Name":
			info = true
		case name == "Version":
			version = true
		case name == "Start-Date":
			take(AptHistory)
		case name == "SPDXVersion":
			take(SPDX)
		case name == "Transaction ID":
			take(DNFHistory)
		case name == "origin_references" && rest == "", name == "packages" && rest == "":
			take(Tails)
		case name == "lockfileVersion", name == "lockfileVendor", name == "arches":
			take(RPMsLock)
		}
	}
	if pkg && version {
		take(DpkgStatus)
	}
	if info && version {
		take(RPMQI)
	}
	return found
}

// buildinfoField reports whether a line is a field that only .buildinfo files
// have.
func buildinfoField(line string) bool {
	return strings.HasPrefix(line, "Installed-Build-Depends:") || strings.HasPrefix(line, "Build-Architecture:")
}

type lineRecogniser struct {
	format Format
	// fits reports whether the format can contain the line, and whether the line is
	// evidence for it: a line that its parser ignores is not.
	fits func(line string) (fits, counts bool)
	raw  bool // no comment can follow an entry
}

func both(ok bool) (bool, bool) { return ok, ok }

// plainDeb reports whether a name that is valid in Debian is not name.arch of an rpm.
func plainDeb(name string) bool {
	name, _, _ = strings.Cut(name, ":")
	i := strings.LastIndexByte(name, '.')
	return i < 0 || !rpmArch(name[i+1:])
}

func lineRecognisers() []lineRecogniser {
	return []lineRecogniser{
		{format: List, fits: func(line string) (bool, bool) { return both(parseList(line, new(Entry))) }},
		{format: DpkgQuery, fits: fitsDpkgQuery},
		{format: DpkgSelections, fits: func(line string) (bool, bool) {
			_, ok := parseSelection(line, new(Entry))
			return both(ok)
		}},
		{format: AptList, fits: func(line string) (bool, bool) {
			if aptListNoise(line) {
				return true, false
			}
			_, ok := parseAptList(line, new(Entry))
			return both(ok)
		}},
		{format: Mmdebstrap, fits: fitsMmdebstrap},
		{format: Debootstrap, fits: fitsDebootstrap},
		{format: PrintURIs, raw: true, fits: func(line string) (bool, bool) {
			if line[0] != '\'' {
				return true, false
			}
			_, ok := parsePrintURI(line, new(Entry))
			return both(ok)
		}},
		{format: SHA256Sums, raw: true, fits: func(line string) (bool, bool) { return both(parseSum(line, new(Entry))) }},
		{format: RPMQA, fits: fitsRPMQA},
	}
}

func fitsDpkgQuery(line string) (fits, counts bool) {
	if dpkgTableHead(line) || snapLine(line) || hasSeparator(line) && columnTitles(columns(line)) {
		return true, false
	}
	if _, ok := parseDpkgRow(line, new(Entry)); ok {
		return true, true
	}
	_, ok := parseDpkgQuery(line, new(Entry))
	return both(ok && (hasSeparator(line) || statusAtEnd(line)) && plainDeb(columns(line)[0]))
}

func fitsMmdebstrap(line string) (fits, counts bool) {
	if aptNoise(line) || snapLine(line) || !hasSeparator(line) && columnTitles(columns(line)) {
		return true, false
	}
	name, _, _ := strings.Cut(line, " ")
	return both(parseNameVersion(line, new(Entry)) && plainDeb(name))
}

// fitsDebootstrap accepts bare names, but only several names on a line are evidence for
// debootstrap: one name per line is a list.
func fitsDebootstrap(line string) (fits, counts bool) {
	if aptNoise(line) {
		return true, false
	}
	words := strings.Fields(line)
	if len(words) == 3 && strings.Contains(words[2], "://") {
		return both(parseDebURI(words, new(Entry)))
	}
	if _, ok := parseSelection(line, new(Entry)); ok {
		return false, false
	}
	for _, w := range words {
		if !bareName(w) || !policyName(w) {
			return false, false
		}
	}
	return true, len(words) > 1
}

// fitsRPMQA accepts all lines that rpm can print, but only lines that no Debian tool
// prints are evidence for rpm: those with an architecture of rpm, or with a release
// that names an rpm distribution.
func fitsRPMQA(line string) (fits, counts bool) {
	if dnfNoise(line) || columnTitles(columns(line)) {
		return true, false
	}
	e, ok := parseRPMQA(line)
	if e.Name == "gpg-pubkey" {
		return true, false
	}
	if !ok {
		return false, false
	}
	cols := columns(line)
	if len(cols) == 1 {
		// A name of a package may end like a version and a release.
		i := strings.LastIndexByte(e.Version, '-')
		return e.Arch != "" || distTag(e.Version) || isDigit(e.Version[0]) && isDigit(e.Version[i+1]), true
	}
	switch e.Arch {
	case "amd64", "ia32e": // rpm knows them, and packages nothing for them
		return false, false
	case "":
		return true, distTag(e.Version) || strings.Contains(line, "(none)")
	}
	return true, true
}
