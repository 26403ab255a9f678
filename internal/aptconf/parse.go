// Package aptconf reads apt's lists of sources (sources.list(5)), one-line and deb822,
// and converts them to mirrors, which `snapctl init --from-apt` writes.
//
// It neither changes nor runs anything on the machine. An entry that cannot be mirrored
// is returned with the reason and does not affect the others.
package aptconf

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo/deb/deb822"
)

// Entry is one source: a line, or one URI of a stanza.
type Entry struct {
	File string
	Line int // of the entry, or the first of the stanza

	Deb, Src   bool // binary packages, source packages
	URI        string
	Suites     []string
	Components []string // empty for flat suites, which end in a slash

	Architectures Words // arch, Architectures
	Languages     Words // lang, Languages
	Targets       Words // target, Targets
	// SignedBy lists key files (absolute paths) and fingerprints, each with or without a
	// final "!". Key is one armored key block.
	SignedBy []string
	Key      string

	Trusted         string   // "yes", "no" or empty
	ByHash          string   // "yes", "no", "force" or empty
	Filters         []string // "Include" and "Exclude", where they are set
	CheckValidUntil string   // "yes", "no" or empty
	InReleasePath   string
}

// Words is an option with several values, which replace the default, are added to it,
// or are removed from it.
type Words struct {
	Set, Add, Remove []string
}

// Apply returns the values that result from the default.
func (w Words) Apply(def []string) []string {
	out := def
	if w.Set != nil {
		out = w.Set
	}
	out = slices.Concat(out, w.Add)
	out = slices.DeleteFunc(out, func(s string) bool { return slices.Contains(w.Remove, s) })
	return unique(out)
}

// Skipped is an entry that cannot be mirrored.
type Skipped struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Text   string `json:"text"` // the line, or the stanza's URIs and suites
	Reason string `json:"reason"`
	// Disabled means that apt does not use the entry either.
	Disabled bool `json:"disabled,omitempty"`
}

// disabled is the reason of entries that apt does not use either.
const disabled = "disabled"

// String returns the entry and the reason on one line.
func (s Skipped) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", s.File, s.Line, s.Text, s.Reason)
}

// Parse reads one source file. A name in .sources means deb822, one in .list the
// one-line format; for any other name, the content determines the format.
func Parse(name string, data []byte) ([]Entry, []Skipped) {
	switch path.Ext(name) {
	case ".sources":
		return parseSources(name, data)
	case ".list":
		return parseList(name, data)
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if field, _, ok := strings.Cut(line, ":"); ok && !strings.ContainsAny(field, " \t") {
			return parseSources(name, data)
		}
		break
	}
	return parseList(name, data)
}

// maxWords bounds the values of one field and the entries of one stanza.
const maxWords = 1000

func parseList(name string, data []byte) (entries []Entry, skipped []Skipped) {
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		skip := func(reason string) {
			skipped = append(skipped, Skipped{File: name, Line: n, Text: clip(line), Reason: reason, Disabled: reason == disabled})
		}
		if c, ok := strings.CutPrefix(line, "#"); ok {
			// Only a comment that would be an entry is a disabled entry; others are
			// prose.
			c = strings.TrimSpace(c)
			if !strings.HasPrefix(c, "deb ") && !strings.HasPrefix(c, "deb-src ") {
				continue
			}
			if e, err := parseLine(c); err == nil && strings.Contains(e.URI, ":") {
				line = c
				skip(disabled)
			}
			continue
		}
		line = stripComment(line)
		if line == "" {
			continue
		}
		e, err := parseLine(line)
		if err != nil {
			skip(err.Error())
			continue
		}
		e.File, e.Line = name, n
		if reason := e.unfit(); reason != "" {
			skip(reason)
			continue
		}
		entries = append(entries, e)
	}
	return entries, skipped
}

// stripComment cuts a line at the first '#' that is not in brackets.
func stripComment(line string) string {
	depth := 0
	for i := range len(line) {
		switch line[i] {
		case '[':
			depth++
		case ']':
			depth--
		case '#':
			if depth <= 0 {
				return strings.TrimSpace(line[:i])
			}
		}
	}
	return line
}

// fields splits a line into words. Quotes and brackets keep blanks together, as in the
// names of discs.
func fields(line string) []string {
	var out []string
	var b strings.Builder
	quoted, depth, open := false, 0, false
	for i := range len(line) {
		switch c := line[i]; {
		case c == '"':
			quoted, open = !quoted, true
			continue
		case c == '[' && !quoted:
			depth++
		case c == ']' && !quoted && depth > 0:
			depth--
		case (c == ' ' || c == '\t') && !quoted && depth == 0:
			if open {
				out = append(out, b.String())
				b.Reset()
				open = false
			}
			continue
		}
		open = true
		b.WriteByte(line[i])
	}
	if open {
		out = append(out, b.String())
	}
	return out
}

func parseLine(line string) (Entry, error) {
	var e Entry
	w := fields(line)
	switch {
	case len(w) == 0:
		return e, fmt.Errorf("empty")
	case len(w) > maxWords:
		return e, fmt.Errorf("more than %d words", maxWords)
	}
	switch w[0] {
	case "deb":
		e.Deb = true
	case "deb-src":
		e.Src = true
	default:
		return e, fmt.Errorf("type %q: expected deb or deb-src", clip(w[0]))
	}
	w = w[1:]
	if len(w) > 0 && strings.HasPrefix(w[0], "[") {
		if !strings.HasSuffix(w[0], "]") {
			return e, fmt.Errorf("no closing bracket after the options")
		}
		for _, opt := range fields(w[0][1 : len(w[0])-1]) {
			name, value, ok := strings.Cut(opt, "=")
			if !ok {
				return e, fmt.Errorf("option %q has no value", clip(opt))
			}
			mode := byte('=')
			if n := len(name); n > 0 && (name[n-1] == '+' || name[n-1] == '-') {
				mode, name = name[n-1], name[:n-1]
			}
			e.option(name, mode, strings.FieldsFunc(value, func(r rune) bool { return r == ',' }), value)
		}
		w = w[1:]
	}
	if len(w) < 2 {
		return e, fmt.Errorf("expected a URI and a suite")
	}
	e.URI, e.Suites, e.Components = w[0], w[1:2], unique(w[2:])
	return e, nil
}

// option sets one option by its one-line or deb822 name, in any case. mode is '=', '+' or
// '-'. Options that do not affect what to mirror are skipped.
func (e *Entry) option(name string, mode byte, words []string, value string) {
	set := func(w *Words) {
		switch mode {
		case '+':
			w.Add = append(w.Add, words...)
		case '-':
			w.Remove = append(w.Remove, words...)
		default:
			w.Set = append([]string{}, words...)
		}
	}
	switch strings.ToLower(name) {
	case "arch", "architectures":
		set(&e.Architectures)
	case "lang", "languages":
		set(&e.Languages)
	case "target", "targets":
		set(&e.Targets)
	case "signed-by":
		if mode != '-' {
			e.SignedBy = append(e.SignedBy, words...)
		}
	case "trusted":
		e.Trusted = yesNo(value)
	case "by-hash":
		if e.ByHash = yesNo(value); strings.EqualFold(value, "force") {
			e.ByHash = "force"
		}
	case "check-valid-until":
		e.CheckValidUntil = yesNo(value)
	case "include", "exclude":
		e.Filters = append(e.Filters, strings.ToUpper(name[:1])+strings.ToLower(name[1:]))
	case "inrelease-path":
		e.InReleasePath = value
	}
}

func yesNo(s string) string {
	switch strings.ToLower(s) {
	case "yes", "true", "with", "on", "enable", "1":
		return "yes"
	case "no", "false", "without", "off", "disable", "0":
		return "no"
	}
	return ""
}

func parseSources(name string, data []byte) (entries []Entry, skipped []Skipped) {
	pars, err := deb822.ParseFile(data)
	if err != nil {
		return nil, []Skipped{{File: name, Line: 1, Text: path.Base(name), Reason: err.Error()}}
	}
	lines := stanzaLines(data)
	for i, p := range pars {
		line := 1
		if i < len(lines) {
			line = lines[i]
		}
		get := func(field string) []string {
			v, _ := p.Get(field)
			return strings.Fields(v)
		}
		e := Entry{File: name, Line: line, Suites: unique(get("Suites")), Components: unique(get("Components"))}
		uris := unique(get("URIs"))
		text := clip(strings.TrimSpace(strings.Join(uris, " ") + " " + strings.Join(e.Suites, " ")))
		skip := func(reason string) {
			skipped = append(skipped, Skipped{File: name, Line: line, Text: text, Reason: reason, Disabled: reason == disabled})
		}

		bad := ""
		for _, t := range get("Types") {
			switch t {
			case "deb":
				e.Deb = true
			case "deb-src":
				e.Src = true
			default:
				bad = fmt.Sprintf("type %q: expected deb or deb-src", clip(t))
			}
		}
		if enabled, ok := p.Get("Enabled"); ok && yesNo(enabled) == "no" {
			skip(disabled)
			continue
		}
		switch {
		case bad != "":
		case !e.Deb && !e.Src:
			bad = "no Types"
		case len(uris) == 0:
			bad = "no URIs"
		case len(e.Suites) == 0:
			bad = "no Suites"
		case len(uris)*len(e.Suites) > maxWords || len(e.Components) > maxWords:
			bad = fmt.Sprintf("more than %d URIs, suites or components", maxWords)
		}
		if bad != "" {
			skip(bad)
			continue
		}
		s := p.Scan()
		for s.Next() {
			field, value := string(s.Name()), string(s.Value())
			mode := byte('=')
			if f, ok := cutSuffixFold(field, "-Add"); ok {
				field, mode = f, '+'
			} else if f, ok := cutSuffixFold(field, "-Remove"); ok {
				field, mode = f, '-'
			}
			if strings.EqualFold(field, "Signed-By") && strings.Contains(value, "-----BEGIN") {
				e.Key = inlineKey(value)
				continue
			}
			e.option(field, mode, strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }), value)
		}
		for _, uri := range uris {
			one := e
			one.URI = uri
			text = clip(uri + " " + strings.Join(e.Suites, " "))
			if reason := one.unfit(); reason != "" {
				skip(reason)
				continue
			}
			entries = append(entries, one)
		}
	}
	return entries, skipped
}

func cutSuffixFold(s, suffix string) (string, bool) {
	if n := len(s) - len(suffix); n > 0 && strings.EqualFold(s[n:], suffix) {
		return s[:n], true
	}
	return s, false
}

// stanzaLines returns the line at which each stanza of a file begins.
func stanzaLines(data []byte) []int {
	var out []int
	n, in := 0, false
	for line := range strings.Lines(string(data)) {
		n++
		switch line = strings.TrimRight(line, "\r\n"); {
		case strings.HasPrefix(line, "#"):
		case line == "":
			in = false
		case !in:
			in = true
			out = append(out, n)
		}
	}
	return out
}

// inlineKey undoes the encoding of a key in a field: a blank before each line, "." for an
// empty one.
func inlineKey(value string) string {
	var b strings.Builder
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); line == "." {
			line = ""
		}
		b.WriteString(line + "\n")
	}
	return strings.TrimLeft(b.String(), "\n")
}

// unfit returns the reason why an entry cannot be mirrored, regardless of keys, or "".
func (e *Entry) unfit() string {
	for _, s := range e.Suites {
		flat := strings.HasSuffix(s, "/")
		switch {
		case !wellFormed(strings.TrimPrefix(s, "/")) && s != "/":
			return fmt.Sprintf("suite %q is not a suite's name", clip(s))
		case flat && len(e.Components) > 0:
			return fmt.Sprintf("suite %q is a directory and has no components", clip(s))
		case !flat && len(e.Components) == 0:
			return fmt.Sprintf("suite %q has no components", clip(s))
		}
	}
	for _, c := range e.Components {
		if !wellFormed(c) || strings.HasSuffix(c, "/") {
			return fmt.Sprintf("component %q is not a component's name", clip(c))
		}
	}
	if e.InReleasePath != "" {
		return "InRelease-Path is not supported"
	}
	if _, ok := listURI(e.URI); ok {
		return ""
	}
	_, _, reason := normalURI(e.URI)
	return reason
}

// wellFormed reports whether s can name a suite or component: printable, without blanks,
// and not a path that leaves its directory.
func wellFormed(s string) bool {
	if s == "" || len(s) > 255 || strings.HasPrefix(s, "/") || strings.ContainsAny(s, "%?#\\\"'") || strings.Contains("/"+s+"/", "/../") {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// clip shortens a piece of a file for a message, without passwords.
func clip(s string) string {
	return excerpt.Of(remote.Scrub(s))
}
