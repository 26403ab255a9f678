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

// eachLine calls f with every line that is neither blank nor a comment, without
// the space around it.
func (p *parser) eachLine(f func(string) error) error {
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

// entry starts an entry at the present line.
func (p *parser) entry(raw string) Entry { return Entry{Size: -1, Line: p.line, Raw: clip(raw)} }

// listLine reads "name=version" or "name:arch=version", of either ecosystem.
func (p *parser) listLine(line string) error {
	e := p.entry(line)
	if !parseList(line, &e) {
		return p.malformed(p.line, "name=version or name:arch=version", line)
	}
	return p.add(e)
}

func parseList(line string, e *Entry) bool {
	left, version, ok := strings.Cut(line, "=")
	if !ok {
		return false
	}
	if e.Name, e.Arch, ok = splitArch(left); !ok || !rpmName(e.Name) || !versionish(version) {
		return false
	}
	e.Version = version
	e.Source = e.Arch == "source" || e.Arch == "src"
	return true
}
