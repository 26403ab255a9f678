// Package query parses and matches queries for packages:
//
//	bash                          the package of that name; * ? [a-z] as in shells
//	bash=5.2*                     this version of it
//	source:linux*                 by its source package
//	arch:amd64 suite:*-security component:main mirror:debian
//	section:web                   the same as $Section (web)
//	$Section (web)                by a field of its control data, a glob again
//	$Version (>= 2)               by order: << <= = != >= >>; versions as the package
//	                              manager orders them, numbers and text as such
//	$Homepage                     that has the field
//	a | b   a & b   !a   (a)      or, and, not; ! binds most, | least
//
// Words with other characters, such as blanks and parentheses, are quoted: "a b". Names
// of fields and of the words before a colon are the same in any case. The operators are
// those of the package relations of Debian; aptly's query language looks much like it.
package query

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
)

// ErrSyntax means that a query is malformed.
var ErrSyntax = errclass.New(errclass.Usage, "the query cannot be read")

const (
	maxText   = 64 << 10 // bytes of a query
	maxDepth  = 100      // parentheses and negations within each other
	maxFields = 20       // fields of control data, each of which reads the stanza again
)

// Package is a package to match with a query.
type Package struct {
	*api.Package
	// Field returns a field of the control data. Names are as upstream writes them, in
	// any case.
	Field func(name string) (string, bool)
	// Compare orders versions by the rules of the format.
	Compare func(a, b string) int
}

// Query is a parsed query. It is safe for concurrent use.
type Query struct {
	text   string
	root   node
	fields bool
	bound  bound
}

// String returns the query as written.
func (q *Query) String() string { return q.text }

// Fields reports whether the query uses fields of control data that the API does not
// return for a package.
func (q *Query) Fields() bool { return q.fields }

// Match reports whether the query matches a package.
func (q *Query) Match(p Package) bool { return q.root.match(p) }

type node interface{ match(p Package) bool }

type (
	or  struct{ a, b node }
	and struct{ a, b node }
	not struct{ a node }
	// attribute is a word before a colon, or "" for the name.
	attribute struct{ of, glob string }
	field     struct{ name, op, value string } // op "": the field exists; "%": a glob
)

func (n or) match(p Package) bool  { return n.a.match(p) || n.b.match(p) }
func (n and) match(p Package) bool { return n.a.match(p) && n.b.match(p) }
func (n not) match(p Package) bool { return !n.a.match(p) }

// attributes are the words that can precede a colon.
var attributes = map[string]func(p Package) []string{
	"":          func(p Package) []string { return []string{p.Name} },
	"source":    func(p Package) []string { return []string{source(p)} },
	"arch":      func(p Package) []string { return []string{p.Arch} },
	"suite":     func(p Package) []string { return p.Suites },
	"component": func(p Package) []string { return p.Components },
	"mirror":    func(p Package) []string { return []string{p.Mirror} },
}

// source returns the name of the source package, which is the package's own name if it
// has no other.
func source(p Package) string {
	if p.Source != "" {
		return p.Source
	}
	return p.Name
}

func (n attribute) match(p Package) bool {
	return slices.ContainsFunc(attributes[n.of](p), func(v string) bool { return globs(n.glob, v) })
}

// globs is like path.Match, but a star also matches slashes. The pattern must be valid.
func globs(pattern, s string) bool {
	const slash = "\x00"
	ok, _ := path.Match(strings.ReplaceAll(pattern, "/", slash), strings.ReplaceAll(s, "/", slash))
	return ok
}

func (n field) match(p Package) bool {
	value, ok := n.of(p)
	switch {
	case !ok || n.op == "":
		return ok
	case n.op == "%":
		return globs(n.value, value)
	}
	c := 0
	a, aerr := strconv.ParseInt(value, 10, 64)
	b, berr := strconv.ParseInt(n.value, 10, 64)
	switch {
	case n.version():
		c = p.Compare(value, n.value)
	case aerr == nil && berr == nil:
		c = cmp.Compare(a, b)
	default:
		c = strings.Compare(value, n.value)
	}
	switch n.op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case ">=":
		return c >= 0
	case ">>":
		return c > 0
	case "!=":
		return c != 0
	}
	return c == 0
}

func (n field) version() bool { return strings.EqualFold(n.name, "Version") }

// of returns the value of the field. The fields that the API returns for a package
// exist in every format.
func (n field) of(p Package) (string, bool) {
	switch strings.ToLower(n.name) {
	case "package", "name":
		return p.Name, true
	case "version":
		return p.Version, true
	case "architecture":
		return p.Arch, true
	case "source":
		return source(p), true
	}
	if p.Field == nil {
		return "", false
	}
	return p.Field(n.name)
}

// shown reports whether the API shows the field of a package.
func (n field) shown() bool {
	return slices.Contains([]string{"package", "name", "version", "architecture", "source"}, strings.ToLower(n.name))
}

// Names returns, sorted, the only names that matching packages can have. ok is false if
// the query does not restrict names to a list. If the list is empty, no package
// matches.
func (q *Query) Names() (names []string, ok bool) {
	return q.bound.names, q.bound.listed
}

// Only reports whether the whole query is name, which is NAME or NAME=VERSION.
func (q *Query) Only(name string) bool {
	name, version, versioned := strings.Cut(name, "=")
	want := node(attribute{"", name})
	if versioned {
		want = and{want, field{"Version", "%", version}}
	}
	return q.root == want && !strings.ContainsAny(name+version, `*?[\`)
}

// Prefix returns a prefix of the names of all matching packages.
func (q *Query) Prefix() string { return q.bound.prefix }

// Source returns the name of the source package of all matching packages, if the query
// has one.
func (q *Query) Source() (name string, ok bool) { return sourceOf(q.root) }

func sourceOf(n node) (name string, ok bool) {
	switch n := n.(type) {
	case and:
		if name, ok = sourceOf(n.a); !ok {
			name, ok = sourceOf(n.b)
		}
	case or:
		a, both := sourceOf(n.a)
		b, bothOf := sourceOf(n.b)
		return a, both && bothOf && a == b
	case attribute:
		return n.glob, n.of == "source" && !strings.ContainsAny(n.glob, `*?[\`)
	}
	return name, ok
}

// Places reports whether the query uses suites or components.
func (q *Query) Places() bool { return places(q.root) }

// bound is a bound on the names of packages that may match a query.
type bound struct {
	listed bool     // one of names
	names  []string // in order
	prefix string
}

func boundOf(n node) bound {
	switch n := n.(type) {
	case or:
		a, b := boundOf(n.a), boundOf(n.b)
		if a.listed && b.listed {
			return oneOf(slices.Compact(slices.Sorted(slices.Values(slices.Concat(a.names, b.names)))))
		}
		return bound{prefix: common(a.prefix, b.prefix)}
	case and:
		a, b := boundOf(n.a), boundOf(n.b)
		switch {
		case a.listed && b.listed:
			return oneOf(slices.DeleteFunc(a.names, func(name string) bool { return !slices.Contains(b.names, name) }))
		case b.listed || !a.listed && len(b.prefix) > len(a.prefix):
			return b
		}
		return a
	case attribute:
		if n.of != "" {
			break
		}
		i := strings.IndexAny(n.glob, `*?[\`)
		if i < 0 {
			return oneOf([]string{n.glob})
		}
		return bound{prefix: n.glob[:i]}
	}
	return bound{}
}

// oneOf is the bound of a query for names, in order.
func oneOf(names []string) bound {
	b := bound{listed: true, names: names}
	if len(names) > 0 {
		b.prefix = common(names[0], names[len(names)-1]) // they are in order
	}
	return b
}

// common returns the longest common prefix.
func common(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	return a[:i]
}

func places(n node) bool {
	switch n := n.(type) {
	case or:
		return places(n.a) || places(n.b)
	case and:
		return places(n.a) || places(n.b)
	case not:
		return places(n.a)
	case attribute:
		return n.of == "suite" || n.of == "component"
	}
	return false
}

// Parse parses a query. Errors wrap ErrSyntax.
func Parse(text string) (*Query, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: it has %d bytes, expected at most %d", ErrSyntax, len(text), maxText)
	}
	p := &parser{text: text}
	root, err := p.or(0)
	if err == nil {
		if p.blank(); p.at < len(p.text) {
			err = p.expected("&, | or the end")
		}
	}
	if err != nil {
		return nil, err
	}
	return &Query{text, root, p.fields > 0, boundOf(root)}, nil
}

type parser struct {
	text   string
	at     int
	fields int // of control data
}

func (p *parser) blank() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// takes skips blanks and then s, and reports whether s was there.
func (p *parser) takes(s string) bool {
	p.blank()
	if !strings.HasPrefix(p.text[p.at:], s) {
		return false
	}
	p.at += len(s)
	return true
}

func (p *parser) expected(what string) error {
	p.blank()
	found := "the end"
	if rest := p.text[p.at:]; rest != "" {
		if len(rest) > 20 {
			rest = rest[:20] + "..."
		}
		found = strconv.Quote(rest)
	}
	return fmt.Errorf("%w: at character %d: expected %s, found %s", ErrSyntax, p.at+1, what, found)
}

func (p *parser) or(depth int) (node, error) {
	n, err := p.and(depth)
	for err == nil && p.takes("|") {
		var b node
		b, err = p.and(depth)
		n = or{n, b}
	}
	return n, err
}

func (p *parser) and(depth int) (node, error) {
	n, err := p.term(depth)
	for err == nil && p.takes("&") {
		var b node
		b, err = p.term(depth)
		n = and{n, b}
	}
	return n, err
}

func (p *parser) term(depth int) (node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: at character %d: more than %d parentheses and ! within each other", ErrSyntax, p.at+1, maxDepth)
	}
	switch {
	case p.takes("!"):
		n, err := p.term(depth + 1)
		return not{n}, err
	case p.takes("("):
		n, err := p.or(depth + 1)
		if err == nil && !p.takes(")") {
			err = p.expected(")")
		}
		return n, err
	case p.takes("$"):
		return p.field()
	}
	return p.attribute()
}

// word reads a word or a quoted string, and reports which.
func (p *parser) word(what string) (w string, quoted bool, err error) {
	p.blank()
	rest := p.text[p.at:]
	if strings.HasPrefix(rest, `"`) {
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			return "", true, fmt.Errorf("%w: at character %d: a quotation mark without an end", ErrSyntax, p.at+1)
		}
		p.at += end + 2
		return rest[1 : end+1], true, nil
	}
	end := strings.IndexAny(rest, " \t\r\n&|!()\"$")
	if end < 0 {
		end = len(rest)
	}
	if end == 0 {
		return "", false, p.expected(what)
	}
	p.at += end
	return rest[:end], false, nil
}

func (p *parser) attribute() (node, error) {
	start := p.at
	w, quoted, err := p.word("a package")
	if err != nil {
		return nil, err
	}
	n := attribute{"", w}
	if name, version, ok := strings.Cut(w, "="); ok && !quoted && !strings.Contains(name, ":") {
		if err := p.glob(name); err != nil {
			return nil, err
		}
		return and{attribute{"", name}, field{"Version", "%", version}}, p.glob(version)
	}
	if of, glob, ok := strings.Cut(w, ":"); ok && !quoted {
		n = attribute{strings.ToLower(of), glob}
		if n.of == "" || attributes[n.of] == nil && n.of != section {
			return nil, fmt.Errorf("%w: at character %d: %q before a colon: expected source, arch, section, suite, component or mirror", ErrSyntax, start+1, of)
		}
		if glob == "" {
			if n.glob, _, err = p.word("what " + n.of + ": is to be"); err != nil {
				return nil, err
			}
		}
	}
	if err := p.glob(n.glob); err != nil || n.of != section {
		return n, err
	}
	return field{section, "%", n.glob}, p.count()
}

// section is a field that can also precede a colon.
const section = "section"

// count counts a field of the control data.
func (p *parser) count() error {
	if p.fields++; p.fields > maxFields {
		return fmt.Errorf("%w: at character %d: more than %d fields", ErrSyntax, p.at+1, maxFields)
	}
	return nil
}

// glob returns an error for a pattern that path.Match refuses.
func (p *parser) glob(g string) error {
	if _, err := path.Match(g, ""); err != nil || g == "" {
		return fmt.Errorf("%w: at character %d: malformed pattern %q", ErrSyntax, p.at+1, g)
	}
	return nil
}

// field reads a field after the dollar: a name, optionally followed by (OP VALUE).
func (p *parser) field() (node, error) {
	name, quoted, err := p.word("the name of a field")
	if err != nil {
		return nil, err
	}
	if quoted || strings.Contains(name, ":") {
		return nil, fmt.Errorf("%w: at character %d: %q is not the name of a field", ErrSyntax, p.at+1, name)
	}
	n := field{name: name}
	if p.takes("(") {
		n.op = "%"
		for _, op := range []string{"<<", "<=", ">=", ">>", "!=", "=", "%"} {
			if p.takes(op) {
				n.op = op
				break
			}
		}
		if p.blank(); p.at < len(p.text) && strings.IndexByte("<>", p.text[p.at]) >= 0 {
			return nil, p.expected("<<, <=, =, !=, >=, >> or a value")
		}
		if n.value, err = p.value(); err != nil {
			return nil, err
		}
		if n.op == "%" {
			if err := p.glob(n.value); err != nil {
				return nil, err
			}
		}
	}
	if !n.shown() {
		return n, p.count()
	}
	return n, nil
}

// value reads a value up to the closing parenthesis: a quoted string, or all characters
// before it.
func (p *parser) value() (string, error) {
	p.blank()
	if strings.HasPrefix(p.text[p.at:], `"`) {
		v, _, err := p.word("")
		if err == nil && !p.takes(")") {
			err = p.expected(")")
		}
		return v, err
	}
	v, _, ok := strings.Cut(p.text[p.at:], ")")
	if !ok {
		p.at = len(p.text)
		return "", p.expected(")")
	}
	if strings.TrimSpace(v) == "" {
		return "", p.expected("a value")
	}
	p.at += len(v) + 1
	return strings.TrimSpace(v), nil
}
