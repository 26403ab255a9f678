package buildlist

import (
	"bytes"
	"strings"

	"example.org/snapd/internal/fetch/remote"
)

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
