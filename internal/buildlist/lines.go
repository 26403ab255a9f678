package buildlist

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// nextLine returns the next line without its end; io.EOF after the last.
func (p *parser) nextLine() (string, error) {
	p.buf = p.buf[:0]
	for {
		part, err := p.in.ReadSlice('\n')
		p.buf = append(p.buf, part...)
		if len(p.buf) > MaxLine {
			return "", fmt.Errorf("%s:%d: a line of more than %d bytes: %w", p.file, p.line+1, MaxLine, ErrTooLarge)
		}
		switch {
		case err == nil:
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			if len(p.buf) == 0 {
				return "", io.EOF
			}
		default:
			return "", readError(p.file, err)
		}
		if p.line == 0 {
			p.buf = bytes.TrimPrefix(p.buf, utf8BOM)
		}
		p.line++
		p.long = len(p.buf) > 4096
		line := strings.TrimSuffix(string(p.buf), "\n")
		return strings.TrimSuffix(line, "\r"), nil
	}
}

var utf8BOM = []byte("\xef\xbb\xbf")

// eachRawLine calls f for every line that is neither blank nor a comment, with
// surrounding space removed.
func (p *parser) eachRawLine(f func(string) error) error {
	for {
		line, err := p.nextLine()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f(line); err != nil {
			return err
		}
	}
}

// eachLine is like eachRawLine, for formats in which a comment can follow an entry.
func (p *parser) eachLine(f func(string) error) error {
	return p.eachRawLine(func(line string) error { return f(stripComment(line)) })
}

// stripComment removes a comment that follows an entry: "hello # why".
func stripComment(line string) string {
	for i := 1; i < len(line); i++ {
		if line[i] == '#' && (line[i-1] == ' ' || line[i-1] == '\t') {
			return strings.TrimRight(line[:i], " \t")
		}
	}
	return line
}

// entry starts an entry at the current line.
func (p *parser) entry(raw string) Entry { return Entry{Size: -1, Line: p.line, Raw: clip(raw)} }

// listLine parses "name=version", "name:arch=version", or either without its
// version. The list does not say which ecosystem its packages belong to.
func (p *parser) listLine(line string) error {
	e := p.entry(line)
	if !parseList(line, &e) {
		return p.malformed(p.line, "name=version, name:arch=version, or a package name", line)
	}
	return p.add(e)
}

func parseList(line string, e *Entry) bool {
	left, version, has := strings.Cut(line, "=")
	var ok bool
	if e.Name, e.Arch, ok = splitArch(left); !ok || !rpmName(e.Name) {
		return false
	}
	e.Source = e.Arch == "source" || e.Arch == "src"
	if !has {
		return bareName(e.Name)
	}
	e.Version = version
	return versionish(version)
}

// bareName reports whether a word can be only the name of a package: it is not a
// version, a digest, or the name, version and architecture of an rpm.
func bareName(w string) bool {
	if !rpmName(w) || w[0] == '_' || !plainDeb(w) || new(Entry).digestAny(w) {
		return false
	}
	if isDigit(w[0]) {
		return !strings.ContainsAny(w, ".+") && strings.ContainsAny(w, "abcdefghijklmnopqrstuvwxyz")
	}
	e, ok := parseNEVRA(w)
	return !ok || !distTag(e.Version)
}

// columns splits a row at tabs, bars, commas or semicolons, whichever it has
// first in this order; at blanks if it has none of them.
func columns(line string) []string {
	for _, sep := range []string{"\t", "|", ",", ";"} {
		if !strings.Contains(line, sep) {
			continue
		}
		cols := strings.Split(line, sep)
		for i := range cols {
			cols[i] = strings.TrimSpace(cols[i])
		}
		if sep == "\t" { // several tabs may align a column
			cols = removeEmpty(cols)
		}
		if n := len(cols); cols[n-1] == "" {
			cols = cols[:n-1]
		}
		return cols
	}
	return strings.Fields(line)
}

func removeEmpty(cols []string) []string {
	out := cols[:0]
	for _, c := range cols {
		if c != "" {
			out = append(out, c)
		}
	}
	return out
}

// columnTitles reports whether a row contains only titles of columns.
func columnTitles(cols []string) bool {
	for _, c := range cols {
		switch strings.ToLower(c) {
		case "package", "name", "epoch", "version", "release", "arch", "architecture":
		default:
			return false
		}
	}
	return len(cols) > 1
}

// snapLine reports whether a row of an Ubuntu image's manifest names a snap.
func snapLine(line string) bool { return strings.HasPrefix(line, "snap:") }

func (p *parser) noteSnap(line string) error {
	p.note(p.line, "%s is a snap: skipped", clip(columns(line)[0]))
	return nil
}
