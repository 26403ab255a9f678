package buildlist

import (
	"errors"
	"io"
	"strings"
)

// infoBlock is the output of `rpm -qi` or `dnf info` about a package.
type infoBlock struct {
	line                                            int
	name, epoch, version, release, arch, srpm, repo string
	text                                            bool // its description has begun
}

// rpmqi parses the output of `rpm -qi` and of `dnf info --installed`: blocks of
// "key : value" that begin with the name and end with a description. Packages
// below dnf's heading "Available Packages" are skipped.
func (p *parser) rpmqi() error {
	var (
		cur       *infoBlock
		name      string // of a block that may have begun on the line before
		dnf       bool   // that is dnf's
		available bool
	)
	flush := func() error {
		if cur == nil {
			return nil
		}
		b := cur
		cur = nil
		if available {
			p.note(b.line, "%s is available, not installed: skipped", clip(b.name))
			return nil
		}
		return p.addInfo(b)
	}
	for {
		line, err := p.nextLine()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
		key, value, ok := infoField(line)
		// Descriptions are free text: a block begins where a version follows a name.
		if name != "" && ok && (key == "Epoch" || key == "Version") {
			if err := flush(); err != nil {
				return err
			}
			cur = &infoBlock{line: p.line - 1, name: name}
		}
		name = ""
		switch {
		case ok && key == "Name":
			name, dnf = value, strings.HasPrefix(line, "Name         :") // rpm has one blank less
		case (cur == nil || dnf) && (line == "Installed Packages" || line == "Available Packages"):
			if err := flush(); err != nil {
				return err
			}
			available = line == "Available Packages"
		case ok && cur != nil && !cur.text:
			cur.set(key, value)
		case cur == nil && !ok && strings.TrimSpace(line) != "" && !dnfNoise(line):
			return p.malformed(p.line, "Name : package", line)
		}
	}
}

// infoField parses "Key         : value".
func infoField(line string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(line, ":")
	if !ok || key == "" || !isUpper(key[0]) || !strings.HasSuffix(key, " ") && key != "Architecture" && key != "Install Date" {
		return "", "", false
	}
	return strings.TrimRight(key, " "), strings.TrimSpace(value), true
}

func (b *infoBlock) set(key, value string) {
	switch key {
	case "Epoch":
		b.epoch = value
	case "Version":
		b.version = value
	case "Release":
		b.release = value
	case "Architecture":
		b.arch = value
	case "Source RPM", "Source":
		b.srpm = value
	case "From repo":
		b.repo = value
	case "Description":
		b.text = true
	}
}

func (p *parser) addInfo(b *infoBlock) error {
	if b.name == "gpg-pubkey" {
		p.note(b.line, "%s-%s-%s is a public key: skipped", b.name, clip(b.version), clip(b.release))
		return nil
	}
	e := Entry{Ecosystem: RPM, Name: b.name, Size: -1, Line: b.line, Raw: clip("Name: " + b.name), Origin: b.repo}
	if !rpmName(b.name) {
		return p.malformed(b.line, "the name of an rpm", b.name)
	}
	if !e.evr(rpmEpoch(b.epoch) + ":" + b.version + "-" + b.release) {
		return p.malformed(b.line, "the version and release of "+clip(b.name), b.version+"-"+b.release)
	}
	if !e.rpmArch(b.arch) {
		return p.malformed(b.line, "the architecture of "+clip(b.name), b.arch)
	}
	switch b.srpm {
	case "":
	case "(none)": // the package is a source package
		e.Source, e.Arch = true, "src"
	default:
		s, ok := parseFileName(b.srpm)
		if !ok || !s.Source {
			return p.malformed(b.line, "the file name of a source rpm", b.srpm)
		}
		e.SourceName, e.SourceVersion = s.Name, s.Version
	}
	return p.add(e)
}
