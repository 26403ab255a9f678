// Package manpage writes manual pages in the macros of man(7).
package manpage

import (
	"bufio"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Page is a manual page that is being written. It carries no date, since a page
// must not depend on when it was made.
type Page struct {
	strings.Builder
}

// New starts a page: its name in capitals, the section of the manual (1, 5, 8)
// and the title of that section.
func New(name string, section int, manual string) *Page {
	p := &Page{}
	fmt.Fprintf(p, ".TH %s %d \"\" \"frozen-snapd\" \"%s\"\n", Escape(strings.ToUpper(name)), section, manual)
	return p
}

// Section starts a section.
func (p *Page) Section(title string) { fmt.Fprintf(p, ".SH %s\n", Escape(title)) }

// Subsection starts a part of a section.
func (p *Page) Subsection(title string) { fmt.Fprintf(p, ".SS %s\n", Escape(title)) }

// Item writes terms in bold, one a line, and what they mean.
func (p *Page) Item(text string, terms ...string) {
	for i, t := range terms {
		macro := ".TP"
		if i > 0 {
			macro = ".TQ"
		}
		// The macro would take quotes for its own.
		fmt.Fprintf(p, "%s\n.B %s\n", macro, strings.ReplaceAll(Escape(t), `"`, `\(dq`))
	}
	for _, l := range strings.Split(text, "\n") {
		p.Line(l)
	}
}

// Line writes a line of text as it is.
func (p *Page) Line(text string) { p.WriteString(Escape(text) + "\n") }

// Text writes paragraphs, which empty lines separate. Lines that are indented by
// four blanks are shown as they are.
func (p *Page) Text(text string) {
	if text == "" {
		return
	}
	for i, para := range strings.Split(text, "\n\n") {
		if i > 0 {
			p.WriteString(".PP\n")
		}
		verbatim := false
		for _, l := range strings.Split(strings.Trim(para, "\n"), "\n") {
			if is := strings.HasPrefix(l, "    "); is != verbatim {
				p.WriteString(map[bool]string{true: ".RS\n.nf\n", false: ".fi\n.RE\n"}[is])
				verbatim = is
			}
			p.Line(strings.TrimPrefix(strings.TrimRight(l, " "), "    "))
		}
		if verbatim {
			p.WriteString(".fi\n.RE\n")
		}
	}
}

// Examples writes command lines.
func (p *Page) Examples(lines []string) {
	for _, e := range lines {
		fmt.Fprintf(p, ".PP\n.RS\n.nf\n%s\n.fi\n.RE\n", Escape(e))
	}
}

// Escape makes text of a line none of whose characters is a request.
func Escape(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	s = strings.ReplaceAll(s, "-", `\-`)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}

// Config writes a documented TOML file: a section for each table, an item for
// each key or for the keys that one comment describes, and the comments that are
// followed by an empty line as paragraphs.
func (p *Page) Config(toml string) {
	var comment, terms []string
	flush := func() {
		switch {
		case len(terms) > 0:
			p.Item(strings.Join(comment, "\n"), terms...)
		case len(comment) > 0:
			p.WriteString(".PP\n")
			p.Text(strings.Join(comment, "\n"))
		}
		comment, terms = nil, nil
	}
	in := bufio.NewScanner(strings.NewReader(toml))
	for in.Scan() {
		l := in.Text()
		switch {
		case l == "":
			flush()
		case l[0] == '#':
			if len(terms) > 0 {
				flush()
			}
			text := strings.TrimPrefix(strings.TrimPrefix(l, "#"), " ")
			if strings.HasPrefix(text, "  ") {
				text = "    " + strings.TrimLeft(text, " ")
			}
			comment = append(comment, text)
		case l[0] == '[':
			flush()
			p.Section(l)
		default:
			key, about, ok := strings.Cut(l, "  # ")
			if ok {
				if len(terms) > 0 {
					flush()
				} else if len(comment) > 0 {
					text := comment
					comment = nil
					p.WriteString(".PP\n")
					p.Text(strings.Join(text, "\n"))
				}
				p.Item(strings.TrimSpace(about), strings.TrimSpace(key))
				continue
			}
			terms = append(terms, l)
		}
	}
	flush()
}
