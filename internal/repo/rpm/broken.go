package rpm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
)

// Broken lists the requirements of binary packages that no package in records
// provides, sorted by package.
//
// It skips rpm's own features ("rpmlib(…)") and requirements for files that
// primary does not list (it lists only those in /etc and in directories called
// bin or sbin). For a rich dependency it only checks that at least one of the
// packages named in it is present.
func (Format) Broken(ctx context.Context, records func(emit func(repo.Record) error) error) ([]repo.Problem, error) {
	type need struct {
		pkg  string
		rels []rpmmd.Relation
	}
	var needs []need
	provides := map[string][]rpmmd.Relation{}
	files := map[string]bool{}
	n := 0
	err := records(func(r repo.Record) error {
		if n++; n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if r.Kind != repo.KindBinary {
			return nil
		}
		rels, err := rpmmd.ParseRelations(r.Bytes)
		if err != nil {
			return fmt.Errorf("package %s-%s.%s: %w", r.Name, r.Version, r.Arch, malformed(err))
		}
		for _, p := range rels.Provides {
			provides[p.Name] = append(provides[p.Name], p)
		}
		for _, f := range rels.Files {
			files[f] = true
		}
		needs = append(needs, need{fmt.Sprintf("%s:%s=%s", r.Name, r.Arch, r.Version), rels.Requires})
		return nil
	})
	if err != nil {
		return nil, err
	}
	has := func(want rpmmd.Relation) (ok bool, other string) {
		for _, p := range provides[want.Name] {
			if overlaps(want, p) {
				return true, ""
			}
			other = p.String()
		}
		return false, other
	}
	var out []repo.Problem
	for _, x := range needs {
		for _, want := range x.rels {
			switch {
			case strings.HasPrefix(want.Name, "rpmlib("), strings.HasPrefix(want.Name, "config("):
				continue
			case strings.HasPrefix(want.Name, "("):
				if !richPossible(want.Name, func(name string) bool { return len(provides[name]) > 0 || files[name] }) {
					out = append(out, repo.Problem{Package: x.pkg, Relation: want.Name, Reason: "nothing provides any package that it names"})
				}
				continue
			case strings.HasPrefix(want.Name, "/"):
				if !inPrimary(want.Name) || files[want.Name] {
					continue
				}
			}
			if ok, other := has(want); !ok {
				reason := "nothing provides it"
				if other != "" {
					reason = "only " + other + " is provided"
				}
				out = append(out, repo.Problem{Package: x.pkg, Relation: want.String(), Reason: reason})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b repo.Problem) int {
		return strings.Compare(a.Package+"\x00"+a.Relation, b.Package+"\x00"+b.Relation)
	})
	return slices.Compact(out), nil
}

// inPrimary reports whether primary lists the file f, by createrepo's rule.
func inPrimary(f string) bool {
	return strings.HasPrefix(f, "/etc/") || strings.Contains(f, "bin/") || f == "/usr/lib/sendmail"
}

// overlaps reports whether the range of versions provided overlaps with the
// range required. A relation without a version matches any version.
func overlaps(want, have rpmmd.Relation) bool {
	if want.Flags == "" || have.Flags == "" {
		return true
	}
	c := have.EVR.Compare(want.EVR)
	less := strings.HasPrefix(want.Flags, "L")
	greater := strings.HasPrefix(want.Flags, "G")
	equal := strings.HasSuffix(want.Flags, "E") || want.Flags == "EQ"
	haveLess := strings.HasPrefix(have.Flags, "L")
	haveGreater := strings.HasPrefix(have.Flags, "G")
	haveEqual := strings.HasSuffix(have.Flags, "E") || have.Flags == "EQ"
	switch {
	case c < 0:
		return less || haveGreater
	case c > 0:
		return greater || haveLess
	}
	return equal && haveEqual || less && haveLess || greater && haveGreater
}

// richPossible reports whether some operand of a rich dependency is present.
// Conditions such as "A if B" can hold without either, so it accepts them all.
func richPossible(rich string, there func(string) bool) bool {
	words := strings.FieldsFunc(rich, func(c rune) bool { return c == ' ' })
	skip := false
	for _, w := range words {
		switch w {
		case "if", "unless", "else", "without":
			return true
		case "and", "or", "with":
			continue
		case "<", "<=", "=", ">=", ">":
			skip = true
			continue
		}
		if skip {
			skip = false
			continue
		}
		// Names can contain balanced parentheses, as in "libc.so.6()(64bit)";
		// unbalanced ones belong to the expression.
		for strings.HasPrefix(w, "(") {
			w = w[1:]
		}
		for strings.Count(w, ")") > strings.Count(w, "(") {
			w = strings.TrimSuffix(w, ")")
		}
		if there(w) {
			return true
		}
	}
	return false
}
