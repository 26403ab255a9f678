package main

import (
	"fmt"
	"io"
)

// The size of the list of files: 520 MB, like Debian's for the architecture all.
const (
	contentsPackages = 30_000
	contentsFiles    = 170
)

// contents is a list of the files of packages, sorted by path. Changed packages have
// other files.
type contents struct {
	packages, files int         // files of each package
	changed         map[int]int // packages, and their version

	pkg, file int
	line      []byte
}

func (c *contents) rewind() { c.pkg, c.file, c.line = 0, 0, nil }

// Read implements io.Reader.
func (c *contents) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(c.line) == 0 {
			if c.pkg == c.packages {
				return n, io.EOF
			}
			x := uint32(c.pkg*c.files+c.file) * 2654435761
			c.line = fmt.Appendf(c.line[:0], "usr/share/doc/package%05d/html/class%03d-%04x", c.pkg, c.file, x>>16)
			if v := c.changed[c.pkg]; v > 0 && c.file%7 == v%7 {
				c.line = fmt.Appendf(c.line, ".%d", v)
			}
			c.line = append(c.line, ".html"...)
			c.line = fmt.Appendf(c.line, "%*sdoc/package%05d-doc\n", max(80-len(c.line), 1), " ", c.pkg)
			if c.file++; c.file == c.files {
				c.pkg, c.file = c.pkg+1, 0
			}
		}
		m := copy(p[n:], c.line)
		c.line = c.line[m:]
		n += m
	}
	return n, nil
}
