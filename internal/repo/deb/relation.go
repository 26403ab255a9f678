package deb

import (
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/repo"
)

// Op is a version restriction's operator.
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

// Relation is one package name in a relationship field, with what restricts it.
type Relation struct {
	Name    string
	Arch    string // after a colon: "any", "native", an architecture; empty without one
	Op      Op
	Version string // empty when Op is Any
	// Archs and Profiles are the words in [] and <> of a source package's
	// fields, each as written ("!amd64").
	Archs    []string
	Profiles []string
}

// String writes the relation as control files do.
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

// Allows reports whether version v meets the restriction.
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

// Alternatives are relations of which one suffices ("a | b").
type Alternatives []Relation

// String writes the alternatives as control files do.
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

// ParseRelations reads a relationship field (Depends, Provides, Built-Using,
// Build-Depends …; Debian Policy 7.1). Empty groups, as a comma at the end
// leaves them, are passed over.
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
		return Relation{}, fmt.Errorf("relation %q: %s: %w", clip(strings.TrimSpace(s)), why, repo.ErrMalformed)
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
		case "==": // dpkg never wrote it, apt reads it
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
		return bad(fmt.Sprintf("unexpected %q", clip(rest)))
	}
	return r, nil
}

// isToken reports whether s is a word of printable ASCII without the characters
// that divide relations, refs and paths.
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

// maxToken bounds names, versions and architectures, in bytes: they must fit a
// file name.
const maxToken = 255

// candidate is one package that can satisfy relations to a name.
type candidate struct {
	arch, multi string
	version     string // empty: an unversioned Provides
	pkg         string // the real package's name
	provided    bool
}

// universe is a set of packages by the names that they answer to.
type universe struct {
	by map[string][]candidate
}

// satisfied reports whether a package of architecture arch finds r.
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

// why says what the set has instead.
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
