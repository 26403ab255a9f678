package buildlist

import (
	"errors"
	"io"
	"strings"
)

// field is one field of a stanza in Debian's control syntax (deb822(5)).
type field struct {
	name  string // lower case
	value string // continuation lines joined by "\n"
	line  int
}

type stanza []field

func (f stanza) get(name string) (field, bool) {
	for _, x := range f {
		if x.name == name {
			return x, true
		}
	}
	return field{}, false
}

func (f stanza) value(name string) string {
	x, _ := f.get(name)
	return x.value
}

// maxStanza bounds the bytes of a stanza.
const maxStanza = 16 << 20

// eachStanza calls f for each stanza in the lines that next returns. keep chooses
// the fields to keep, by lower-case name.
func (p *parser) eachStanza(next func() (string, error), keep func(string) bool, f func(stanza) error) error {
	var (
		cur  stanza
		some bool   // the stanza has fields, kept or not
		held bool   // the last field is kept
		text []byte // its value so far
		size int
	)
	finish := func() {
		if held {
			cur[len(cur)-1].value = string(text)
		}
		held, text = false, text[:0]
	}
	flush := func() error {
		finish()
		if !some {
			return nil
		}
		err := f(cur)
		cur, some, size = nil, false, 0
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
		if size += len(line) + 1; size > maxStanza {
			return p.malformed(p.line, "a stanza of at most 16 MiB", line)
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
			if _, dup := cur.get(name); dup {
				return p.malformed(p.line, "each field once", line)
			}
			cur = append(cur, field{name: name, line: p.line})
			held, text = true, append(text, strings.TrimSpace(value)...)
		}
	}
}

func fieldName(s string) bool {
	return s != "" && s[0] != '-' && all(s, func(c byte) bool { return c > ' ' && c < 0x7f && c != ':' })
}

// sourceField parses "name" or "name (version)".
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
