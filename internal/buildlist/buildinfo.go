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

// unwrap returns a reader of lines that passes over the armor of a clear-signed
// document (RFC 9580 section 7). What follows the signature is an error; the
// signature is not judged.
func (p *parser) unwrap() func() (string, error) {
	const (
		start = iota
		headers
		body
		signature
		end
		plain
	)
	state := start
	return func() (string, error) {
		for {
			line, err := p.nextLine()
			if err != nil {
				if errors.Is(err, io.EOF) && (state == headers || state == body || state == signature) {
					return "", p.malformed(p.line, "the end of the signature", "")
				}
				return "", err
			}
			blank := strings.TrimSpace(line) == ""
			trimmed := strings.TrimRight(line, " \t")
			switch state {
			case start:
				if blank {
					continue
				}
				if trimmed != signedHead {
					state = plain
					return line, nil
				}
				state = headers
				p.note(p.line, "clear-signed: the signature is not judged")
			case headers:
				if blank {
					state = body
				} else if !strings.HasPrefix(line, "Hash: ") {
					return "", p.malformed(p.line, "a Hash header or a blank line", line)
				}
			case body:
				if trimmed == signatureHead {
					state = signature
					continue
				}
				if text, ok := strings.CutPrefix(line, "- "); ok {
					return text, nil
				}
				if strings.HasPrefix(line, "-") {
					return "", p.malformed(p.line, "the signature", line)
				}
				return line, nil
			case signature:
				if trimmed == signatureTail {
					state = end
				}
			case end:
				if !blank {
					return "", p.malformed(p.line, "the end of the file after the signature", line)
				}
			case plain:
				return line, nil
			}
		}
	}
}

// buildinfoFields are the fields read of a .buildinfo.
func buildinfoFields(name string) bool {
	switch name {
	case "format", "source", "version", "build-architecture", "installed-build-depends":
		return true
	}
	return false
}

// buildinfo parses deb-buildinfo(5): the packages that were installed for the
// build. What was built, and its source, are not among them.
func (p *parser) buildinfo() error {
	done := false
	return p.eachStanza(p.unwrap(), buildinfoFields, func(f stanza) error {
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
