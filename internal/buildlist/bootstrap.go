package buildlist

import (
	"bytes"
	"strings"

	"example.org/snapd/internal/fetch/remote"
)

// mmdebstrap parses lines "name version" and "name version architecture", lines of
// the list format, or a simulation (mmdebstrap --simulate, apt-get -s), of which
// only the lines "Inst name (version suite [arch])" count.
func (p *parser) mmdebstrap() error {
	simulated := bytes.HasPrefix(p.head, []byte(instPrefix)) || bytes.Contains(p.head, []byte("\n"+instPrefix))
	if simulated {
		return p.eachLine(p.simulateLine)
	}
	return p.eachLine(func(line string) error {
		switch {
		case aptNoise(line), len(p.m.Entries) == 0 && columnTitles(strings.Fields(line)):
			return nil
		case snapLine(line):
			return p.noteSnap(line)
		}
		e := p.entry(line)
		e.Ecosystem = Deb
		if !parseNameVersion(line, &e) && !(parseList(line, &e) && debName(e.Name) && debVersion(e.Version)) {
			return p.malformed(p.line, "name version, or name version architecture", line)
		}
		return p.add(e)
	})
}

// simulateLine parses a line of apt's simulation.
func (p *parser) simulateLine(line string) error {
	if removed, ok := strings.CutPrefix(line, "Remv "); ok {
		p.note(p.line, "%s is removed: skipped", clip(removed))
		return nil
	}
	if !strings.HasPrefix(line, instPrefix) {
		return nil
	}
	e := p.entry(line)
	e.Ecosystem = Deb
	if !parseInst(line, &e) {
		return p.malformed(p.line, "Inst name (version suite [architecture])", line)
	}
	return p.add(e)
}

// parseNameVersion parses "name[:arch] version [arch]".
func parseNameVersion(line string, e *Entry) bool {
	cols := strings.Fields(line)
	if len(cols) < 2 || len(cols) > 3 || hasSeparator(line) {
		return false
	}
	if name, _, _ := strings.Cut(cols[0], ":"); !policyName(name) {
		return false
	}
	state, ok := parseDpkgQuery(line, e)
	return ok && state == ""
}

// debootstrapLine parses a line of debootstrap's deburis file ("name version
// url"), or bare names.
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
	_, selection := parseSelection(line, new(Entry))
	for _, name := range cols {
		if !policyName(name) || selection {
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
