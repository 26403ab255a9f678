package buildlist

import (
	"errors"
	"io"
	"strings"
)

const (
	signedHead    = "-----BEGIN PGP SIGNED MESSAGE-----"
	signatureHead = "-----BEGIN PGP SIGNATURE-----"
	signatureTail = "-----END PGP SIGNATURE-----"
)

// A clearSigned returns the lines of a document without the armor of a clear signature
// (RFC 9580 section 7), if it has one. The signature is not verified; content after it
// is an error.
type clearSigned struct {
	p     *parser
	state armorState
}

type armorState int

const (
	atStart armorState = iota
	inHeaders
	inBody
	inSignature
	atEnd
	unsigned
)

// next returns the next line of the document; io.EOF after the last.
func (c *clearSigned) next() (string, error) {
	for {
		line, err := c.p.nextLine()
		if errors.Is(err, io.EOF) && (c.state == inHeaders || c.state == inBody || c.state == inSignature) {
			return "", c.p.malformed(c.p.line, "the end of the signature", "")
		}
		if err != nil {
			return "", err
		}
		text, ok, err := c.take(line)
		if ok || err != nil {
			return text, err
		}
	}
}

// take processes a line; ok reports whether it belongs to the document.
func (c *clearSigned) take(line string) (text string, ok bool, err error) {
	trimmed := strings.TrimRight(line, " \t")
	switch c.state {
	case atStart:
		switch trimmed {
		case "":
			return "", false, nil
		case signedHead:
			c.state = inHeaders
			c.p.note(c.p.line, "clear-signed: the signature is not verified")
			return "", false, nil
		}
		c.state = unsigned
		return line, true, nil
	case inHeaders:
		if trimmed == "" {
			c.state = inBody
		} else if !strings.HasPrefix(line, "Hash: ") {
			return "", false, c.p.malformed(c.p.line, "a Hash header or a blank line", line)
		}
		return "", false, nil
	case inBody:
		if trimmed == signatureHead {
			c.state = inSignature
			return "", false, nil
		}
		if text, escaped := strings.CutPrefix(line, "- "); escaped {
			return text, true, nil
		}
		if strings.HasPrefix(line, "-") {
			return "", false, c.p.malformed(c.p.line, "the signature", line)
		}
		return line, true, nil
	case inSignature:
		if trimmed == signatureTail {
			c.state = atEnd
		}
		return "", false, nil
	case atEnd:
		if trimmed != "" {
			return "", false, c.p.malformed(c.p.line, "the end of the file after the signature", line)
		}
		return "", false, nil
	}
	return line, true, nil
}

// buildinfoFields are the fields read from a .buildinfo.
func buildinfoFields(name string) bool {
	switch name {
	case "format", "source", "version", "build-architecture", "installed-build-depends":
		return true
	}
	return false
}

// buildinfo parses deb-buildinfo(5): the packages that were installed for the build,
// and not those that were built.
func (p *parser) buildinfo() error {
	done := false
	return p.eachStanza((&clearSigned{p: p}).next, buildinfoFields, func(f stanza) error {
		if done {
			return p.malformed(p.line, "one stanza", "another")
		}
		done = true
		if format, ok := f.get("format"); !ok || !strings.HasPrefix(format.value, "1.") {
			return p.malformed(max(format.line, 1), "Format 1.0 or its successor 1.x", format.value)
		}
		deps, ok := f.get("installed-build-depends")
		if !ok {
			return p.malformed(1, "the field Installed-Build-Depends", "")
		}
		if arch, ok := f.get("build-architecture"); ok {
			if !archName(arch.value) {
				return p.malformed(arch.line, "an architecture", arch.value)
			}
			p.m.Arch = arch.value
		}
		if src, ok := f.get("source"); ok {
			p.note(src.line, "source package %s %s was built: skipped", clip(src.value), clip(f.value("version")))
		}
		for i, line := range strings.Split(deps.value, "\n") {
			for item := range strings.SplitSeq(line, ",") {
				item = strings.TrimSpace(item)
				if item == "" {
					continue
				}
				e := Entry{Ecosystem: Deb, Size: -1, Line: deps.line + i, Raw: clip(item)}
				left, rest, ok := strings.Cut(item, "(")
				version, okEnd := strings.CutSuffix(rest, ")")
				version, okRel := strings.CutPrefix(strings.TrimSpace(version), "=")
				e.Version = strings.TrimSpace(version)
				var okArch bool
				e.Name, e.Arch, okArch = splitArch(strings.TrimSpace(left))
				if !ok || !okEnd || !okRel || !okArch || !debName(e.Name) || !debVersion(e.Version) {
					return p.malformed(e.Line, "name (= version) or name:arch (= version)", item)
				}
				if err := p.add(e); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
