package buildlist

import (
	"errors"
	"io"
	"strconv"
	"strings"
)

// field is one field of a paragraph in Debian's control syntax (deb822(5)).
type field struct {
	name  string // lower case
	value string // continuation lines joined by "\n"
	line  int
}

type paragraph []field

func (f paragraph) get(name string) (field, bool) {
	for _, x := range f {
		if x.name == name {
			return x, true
		}
	}
	return field{}, false
}

func (f paragraph) value(name string) string {
	x, _ := f.get(name)
	return x.value
}

// maxParagraph bounds one paragraph's bytes.
const maxParagraph = 16 << 20

// eachParagraph reads control paragraphs from next. keep chooses the fields
// that are held, by lower-case name.
func (p *parser) eachParagraph(next func() (string, error), keep func(string) bool, f func(paragraph) error) error {
	var (
		para paragraph
		some bool   // the paragraph has fields, kept or not
		held bool   // the last field is kept
		text []byte // its value so far
		size int
	)
	finish := func() {
		if held {
			para[len(para)-1].value = string(text)
		}
		held, text = false, text[:0]
	}
	flush := func() error {
		finish()
		if !some {
			return nil
		}
		err := f(para)
		para, some, size = nil, false, 0
		return err
	}
	for {
		line, err := next()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
		if size += len(line) + 1; size > maxParagraph {
			return p.malformed(p.line, "a paragraph of at most 16 MiB", line)
		}
		switch {
		case strings.TrimSpace(line) == "":
			if err := flush(); err != nil {
				return err
			}
			size = 0
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if !some {
				return p.malformed(p.line, "a field", line)
			}
			if held {
				text = append(append(text, '\n'), strings.TrimSpace(line)...)
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || !fieldName(name) {
				return p.malformed(p.line, "a field", line)
			}
			finish()
			name = strings.ToLower(name)
			some = true
			if !keep(name) {
				continue
			}
			if _, dup := para.get(name); dup {
				return p.malformed(p.line, "each field once", line)
			}
			para = append(para, field{name: name, line: p.line})
			held, text = true, append(text, strings.TrimSpace(value)...)
		}
	}
}

func fieldName(s string) bool {
	return s != "" && s[0] != '-' && all(s, func(c byte) bool { return c > ' ' && c < 0x7f && c != ':' })
}

// sourceField reads "name" or "name (version)".
func sourceField(s string) (name, version string, ok bool) {
	name, rest, has := strings.Cut(s, " ")
	if !has {
		return name, "", name == "" || debName(name)
	}
	rest = strings.TrimSpace(rest)
	if !strings.HasPrefix(rest, "(") || !strings.HasSuffix(rest, ")") {
		return "", "", false
	}
	version = strings.TrimSpace(rest[1 : len(rest)-1])
	return name, version, debName(name) && debVersion(version)
}

// statusFields are the fields read of a package's paragraph. Size, Filename and
// the digests stand in paragraphs that were taken from a Packages index.
func statusFields(name string) bool {
	switch name {
	case "package", "version", "architecture", "status", "source",
		"filename", "size", "sha256", "sha512", "sha1", "md5sum":
		return true
	}
	return false
}

// dpkgStatus reads dpkg's status database, or paragraphs without a Status field
// (status.d of distroless images, a Packages index). Taken is each package
// whose files are in place: installed, unpacked, half-configured, or waiting
// for triggers.
func (p *parser) dpkgStatus() error {
	return p.eachParagraph(p.nextLine, statusFields, func(f paragraph) error {
		name, ok := f.get("package")
		if !ok {
			return p.malformed(p.line, "a paragraph with a Package field", "")
		}
		if !debName(name.value) {
			return p.malformed(name.line, "a package name", name.value)
		}
		if st, ok := f.get("status"); ok {
			words := strings.Fields(st.value)
			if len(words) != 3 {
				return p.malformed(st.line, "want, flag and status", st.value)
			}
			switch words[2] {
			case "installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending":
			case "not-installed", "config-files", "half-installed":
				p.note(name.line, "%s is %s: not taken", name.value, words[2])
				return nil
			default:
				return p.malformed(st.line, "a status of dpkg", st.value)
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

// buildinfo reads deb-buildinfo(5): the packages that were installed for the
// build. What was built, and its source, are not among them.
func (p *parser) buildinfo() error {
	done := false
	return p.eachParagraph(p.unwrap(), buildinfoFields, func(f paragraph) error {
		if done {
			return p.malformed(p.line, "one paragraph", "another")
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
			p.note(src.line, "source package %s %s was built: not taken", clip(src.value), clip(f.value("version")))
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
