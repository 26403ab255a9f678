package buildlist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Recognise finds the format of a manifest from its first bytes: all of a short
// one, 128 KiB of a long one. A list of lines must fit a format in all of them;
// where it fits none in all, but one in most, that one is meant and will say
// where the mistake is.
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
		err := fmt.Errorf("recognise %s: expected a manifest, found %s: %w", name, describe(head), ErrUnrecognised)
		if whole && describe(head) == "nothing" {
			err = &emptyError{err}
		}
		return "", err
	}
	return "", &AmbiguousError{File: name, Candidates: found}
}

// describe says what a manifest of no known format starts with.
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
	var found []Format
	recognisers := lineRecognisers()
	if slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, instPrefix) }) {
		recognisers = []lineRecogniser{{Mmdebstrap, func(line string) (bool, bool) {
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
			switch fits, counts := r.fits(strings.TrimSpace(line)); {
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
		// Most lines fit one format: reading it names the line that does not.
		found = append(found, best)
	}
	return found
}

// jsonCandidates judges by the keys at the top, as far as the head shows them.
func jsonCandidates(head []byte) []Format {
	words := map[string]Format{
		"spdxVersion": SPDX, "SPDXID": SPDX, "documentNamespace": SPDX, "dataLicense": SPDX, "creationInfo": SPDX,
		"bomFormat": CycloneDX, "specVersion": CycloneDX, "components": CycloneDX, "serialNumber": CycloneDX,
		"lockfileVersion": RPMsLock, "lockfileVendor": RPMsLock, "arches": RPMsLock,
	}
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
				if f, ok := words[t]; ok && !slices.Contains(found, f) {
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

// documentCandidates knows the formats that are documents and not lists of
// lines, by their first field or the keys at their left margin.
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
	pkg, version := false, false
	for _, line := range lines {
		if line[0] == ' ' || line[0] == '\t' || line[0] == '\'' {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		if !ok || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		switch {
		case buildinfoField(line):
			take(Buildinfo)
		case name == "Package":
			pkg = true
		case name == "Version":
			version = true
		case name == "origin_references" && rest == "", name == "packages" && rest == "":
			take(Tails)
		case name == "lockfileVersion", name == "lockfileVendor", name == "arches":
			take(RPMsLock)
		}
	}
	if pkg && version {
		take(DpkgStatus)
	}
	return found
}

// buildinfoField reports whether a line is a field that of Debian's control
// files only a .buildinfo has.
func buildinfoField(line string) bool {
	return strings.HasPrefix(line, "Installed-Build-Depends:") || strings.HasPrefix(line, "Build-Architecture:")
}

type lineRecogniser struct {
	format Format
	// fits reports whether the format can have the line, and whether it counts
	// for it: what is passed over does not.
	fits func(line string) (fits, counts bool)
}

func both(ok bool) (bool, bool) { return ok, ok }

// plainDeb reports whether a name is a Debian package's and not name.arch of an
// rpm, which Debian's rules would allow.
func plainDeb(name string) bool {
	name, _, _ = strings.Cut(name, ":")
	i := strings.LastIndexByte(name, '.')
	return i < 0 || !rpmArch(name[i+1:])
}

func lineRecognisers() []lineRecogniser {
	return []lineRecogniser{
		{List, func(line string) (bool, bool) { return both(parseList(line, new(Entry))) }},
		{DpkgQuery, func(line string) (bool, bool) {
			if dpkgTableHead(line) {
				return true, false
			}
			if strings.Contains(line, "\t") {
				name, _, _ := strings.Cut(line, "\t")
				return both(parseDpkgQuery(line, new(Entry)) && plainDeb(name))
			}
			_, ok := parseDpkgRow(line, new(Entry))
			return both(ok)
		}},
		{AptList, func(line string) (bool, bool) {
			if aptListNoise(line) {
				return true, false
			}
			_, ok := parseAptList(line, new(Entry))
			return both(ok)
		}},
		{Mmdebstrap, func(line string) (bool, bool) {
			if aptNoise(line) {
				return true, false
			}
			if strings.Contains(line, "\t") { // dpkg-query's
				return false, false
			}
			name, _, _ := strings.Cut(line, " ")
			return both(parseNameVersion(line, new(Entry)) && plainDeb(name))
		}},
		{Debootstrap, func(line string) (bool, bool) {
			if aptNoise(line) {
				return true, false
			}
			cols := strings.Fields(line)
			if len(cols) == 3 && strings.Contains(cols[2], "://") {
				return both(parseDebURI(cols, new(Entry)))
			}
			return both(!slices.ContainsFunc(cols, func(w string) bool { return !bareName(w) }))
		}},
		{PrintURIs, func(line string) (bool, bool) {
			if line[0] != '\'' {
				return true, false
			}
			_, ok := parsePrintURI(line, new(Entry))
			return both(ok)
		}},
		{SHA256Sums, func(line string) (bool, bool) { return both(parseSum(line, new(Entry))) }},
		{RPMQA, func(line string) (bool, bool) {
			if dnfNoise(line) {
				return true, false
			}
			e, ok := parseRPMQA(line)
			if e.Name == "gpg-pubkey" {
				return true, false
			}
			return both(ok && e.Arch != "")
		}},
	}
}

// bareName reports whether a word can stand for a package alone: a Debian name
// that is no version, no digest and no rpm.
func bareName(w string) bool {
	if !policyName(w) || !plainDeb(w) || new(Entry).digestAny(w) {
		return false
	}
	if isDigit(w[0]) {
		return !strings.ContainsAny(w, ".+") && strings.ContainsAny(w, "abcdefghijklmnopqrstuvwxyz")
	}
	return true
}
