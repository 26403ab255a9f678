package deb

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
)

// Op is the operator of a version restriction.
type Op string

// The operators of deb-control(5); the obsolete "<" and ">" are read as LE and GE.
const (
	Any Op = "" // no restriction
	LT  Op = "<<"
	LE  Op = "<="
	EQ  Op = "="
	GE  Op = ">="
	GT  Op = ">>"
)

// Relation is a package name in a relationship field, with its restrictions.
type Relation struct {
	Name    string
	Arch    string // after a colon: "any", "native", an architecture; otherwise empty
	Op      Op
	Version string // empty if Op is Any
	// Archs and Profiles are the words in [] and <> of a source package's fields,
	// as written ("!amd64").
	Archs    []string
	Profiles []string
}

// String returns the relation as in control files.
func (r Relation) String() string {
	var b strings.Builder
	b.WriteString(r.Name)
	if r.Arch != "" {
		b.WriteString(":" + r.Arch)
	}
	if r.Op != Any {
		fmt.Fprintf(&b, " (%s %s)", r.Op, r.Version)
	}
	if len(r.Archs) > 0 {
		b.WriteString(" [" + strings.Join(r.Archs, " ") + "]")
	}
	for _, p := range r.Profiles {
		b.WriteString(" <" + p + ">")
	}
	return b.String()
}

// Allows reports whether version v satisfies the restriction.
func (r Relation) Allows(v string) bool {
	if r.Op == Any {
		return true
	}
	c := CompareVersions(v, r.Version)
	switch r.Op {
	case LT:
		return c < 0
	case LE:
		return c <= 0
	case EQ:
		return c == 0
	case GE:
		return c >= 0
	case GT:
		return c > 0
	}
	return false
}

// Alternatives are relations of which one must be satisfied ("a | b").
type Alternatives []Relation

// String returns the alternatives as in control files.
func (a Alternatives) String() string {
	s := make([]string, len(a))
	for i, r := range a {
		s[i] = r.String()
	}
	return strings.Join(s, " | ")
}

// maxRelations bounds the relations in one field. The largest fields in Debian
// have about 3,000.
const maxRelations = 100_000

// ParseRelations parses a relationship field (Depends, Provides, Built-Using,
// Build-Depends …; Debian Policy 7.1). It skips empty groups, such as after a
// trailing comma.
func ParseRelations(field string) ([]Alternatives, error) {
	var out []Alternatives
	n := 0
	for group := range strings.SplitSeq(field, ",") {
		if strings.TrimSpace(group) == "" {
			continue
		}
		var alts Alternatives
		for alt := range strings.SplitSeq(group, "|") {
			r, err := parseRelation(alt)
			if err != nil {
				return nil, err
			}
			if n++; n > maxRelations {
				return nil, fmt.Errorf("relations: more than %d: %w", maxRelations, repo.ErrMalformed)
			}
			alts = append(alts, r)
		}
		out = append(out, alts)
	}
	return out, nil
}

func parseRelation(s string) (Relation, error) {
	var r Relation
	bad := func(why string) (Relation, error) {
		return Relation{}, fmt.Errorf("relation %q: %s: %w", excerpt.Of(strings.TrimSpace(s)), why, repo.ErrMalformed)
	}
	rest := strings.TrimSpace(s)
	i := strings.IndexAny(rest, " \t\n\r([<")
	name := rest
	if i >= 0 {
		name, rest = rest[:i], strings.TrimSpace(rest[i:])
	} else {
		rest = ""
	}
	r.Name, r.Arch, _ = strings.Cut(name, ":")
	if !isToken(r.Name) || (r.Arch != "" && !isToken(r.Arch)) || strings.HasSuffix(name, ":") {
		return bad("no package name")
	}
	if strings.HasPrefix(rest, "(") {
		in, after, ok := strings.Cut(rest[1:], ")")
		if !ok {
			return bad("no closing parenthesis")
		}
		in = strings.TrimSpace(in)
		n := len(in) - len(strings.TrimLeft(in, "<=>"))
		switch op := in[:n]; op {
		case "<<", "<=", "=", ">=", ">>":
			r.Op = Op(op)
		case "<":
			r.Op = LE
		case ">":
			r.Op = GE
		case "==": // dpkg never wrote it, but apt reads it
			r.Op = EQ
		default:
			return bad(fmt.Sprintf("unknown operator %q", op))
		}
		r.Version = strings.TrimSpace(in[n:])
		if !isToken(r.Version) {
			return bad("no version")
		}
		rest = strings.TrimSpace(after)
	}
	if strings.HasPrefix(rest, "[") {
		in, after, ok := strings.Cut(rest[1:], "]")
		if !ok {
			return bad("no closing bracket")
		}
		r.Archs = strings.Fields(in)
		rest = strings.TrimSpace(after)
	}
	for strings.HasPrefix(rest, "<") {
		in, after, ok := strings.Cut(rest[1:], ">")
		if !ok {
			return bad("no closing angle bracket")
		}
		r.Profiles = append(r.Profiles, strings.Join(strings.Fields(in), " "))
		rest = strings.TrimSpace(after)
	}
	if rest != "" {
		return bad(fmt.Sprintf("unexpected %q", excerpt.Of(rest)))
	}
	return r, nil
}

// unreadableRelation returns the first relation of a field that apt cannot parse,
// so that it refuses the index (debListParser::ParseDepends): without a name,
// with an empty or unclosed parenthesis, or with trailing text. Nothing else
// matters to apt; a name or version can have any bytes.
func unreadableRelation(field []byte) []byte {
	for rest := field; len(rest) > 0; {
		relation := rest
		i := bytes.IndexFunc(rest, func(c rune) bool { return isBlank(c) || strings.ContainsRune("()[]<>,|", c) })
		if i < 0 {
			return nil
		}
		if i == 0 {
			return relation
		}
		rest = bytes.TrimLeftFunc(rest[i:], isBlank)
		if bytes.HasPrefix(rest, []byte("(")) {
			rest = bytes.TrimLeftFunc(rest[1:], isBlank)
			if len(rest) <= 3 {
				return relation
			}
			rest = bytes.TrimLeftFunc(rest[operatorLen(rest):], isBlank)
			j := bytes.IndexByte(rest, ')')
			if j <= 0 {
				return relation
			}
			rest = bytes.TrimLeftFunc(rest[j+1:], isBlank)
		}
		if len(rest) == 0 {
			return nil
		}
		if rest[0] != ',' && rest[0] != '|' {
			return relation
		}
		rest = bytes.TrimLeftFunc(rest[1:], isBlank)
	}
	return nil
}

// operatorLen returns the length of the operator at the start of a version
// restriction, or 0.
func operatorLen(b []byte) int {
	switch b[0] {
	case '=':
		return 1
	case '<', '>':
		if b[1] == '=' || b[1] == b[0] {
			return 2
		}
		return 1
	}
	return 0
}

func isBlank(c rune) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// isToken reports whether s is a word of printable ASCII without the characters
// that separate relations, refs and paths.
func isToken[S ~string | ~[]byte](s S) bool {
	if len(s) == 0 || len(s) > maxToken {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c > '~':
			return false
		case c == ',' || c == '|' || c == '(' || c == ')' || c == '[' || c == ']' || c == '<' || c == '>' || c == '/':
			return false
		}
	}
	return true
}

// maxToken bounds names, versions and architectures, in bytes, so that they fit
// into a file name.
const maxToken = 255

// candidate is a package that can satisfy relations to a name.
type candidate struct {
	arch, multi string
	version     string // empty: an unversioned Provides
	pkg         string // name of the real package
	provided    bool
}

// universe is a set of packages by the names that they provide.
type universe struct {
	by map[string][]candidate
}

// satisfied reports whether the set satisfies relation r of a package of architecture arch.
func (u *universe) satisfied(arch string, r Relation) bool {
	for _, c := range u.by[r.Name] {
		if c.matches(arch, r) {
			return true
		}
	}
	return false
}

func (c candidate) matches(arch string, r Relation) bool {
	switch r.Arch {
	case "":
		if arch != "all" && c.arch != arch && c.arch != "all" && c.multi != "foreign" {
			return false
		}
	case "any":
		if c.multi != "allowed" && c.multi != "foreign" && c.arch != arch && c.arch != "all" {
			return false
		}
	case "native":
	default:
		if c.arch != r.Arch && c.arch != "all" {
			return false
		}
	}
	if r.Op == Any {
		return true
	}
	return c.version != "" && r.Allows(c.version)
}

// why describes the packages of the set that alts name, none of which satisfies alts.
func (u *universe) why(alts Alternatives) string {
	var reasons []string
	for _, r := range alts {
		var have []string
		for _, c := range u.by[r.Name] {
			s := c.pkg + ":" + c.arch
			if c.version != "" && !c.provided {
				s += "=" + c.version
			}
			if c.provided {
				s += " provides " + r.Name
				if c.version != "" {
					s += " (= " + c.version + ")"
				}
			}
			have = append(have, s)
		}
		slices.Sort(have)
		have = slices.Compact(have)
		if len(have) > 3 {
			have = append(have[:3], fmt.Sprintf("%d more", len(have)-3))
		}
		if len(have) == 0 {
			reasons = append(reasons, "no "+r.Name)
		} else {
			reasons = append(reasons, "only "+strings.Join(have, ", "))
		}
	}
	return strings.Join(reasons, "; ")
}
