package deb

import (
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
)

// relationFields are the fields that Broken checks, with Provides and Multi-Arch.
type relationFields struct {
	preDepends, depends, conflicts, breaks, provides, multi string
}

func readRelationFields(b []byte) relationFields {
	var f relationFields
	s := deb822.StanzaOf(b).Scan()
	for s.Next() {
		name := s.Name()
		for _, t := range []struct {
			name string
			dst  *string
		}{
			{"Pre-Depends", &f.preDepends}, {"Depends", &f.depends}, {"Conflicts", &f.conflicts},
			{"Breaks", &f.breaks}, {"Provides", &f.provides}, {"Multi-Arch", &f.multi},
		} {
			if len(name) == len(t.name) && strings.EqualFold(string(name), t.name) {
				*t.dst = string(s.Value())
			}
		}
	}
	return f
}

// Broken returns the unsatisfied dependencies in the set of binary packages that
// records emits, sorted: Depends and Pre-Depends that no package of the set
// satisfies, and Breaks and versioned Conflicts that exclude every version of a
// package in the set. Unversioned Conflicts between packages of a set are
// alternatives, not problems. An unreadable field is also a problem. records is
// called twice.
//
// A dependency of an "Architecture: all" package is satisfied if a package of any
// architecture satisfies it.
func (Format) Broken(ctx context.Context, records func(emit func(repo.Record) error) error) ([]repo.Problem, error) {
	u := universe{by: make(map[string][]candidate)}
	add := func(name string, c candidate) {
		if !slices.Contains(u.by[name], c) {
			u.by[name] = append(u.by[name], c)
		}
	}
	var out []repo.Problem
	err := records(func(r repo.Record) error {
		if r.Kind == repo.KindSource {
			return ctx.Err()
		}
		f := readRelationFields(r.Bytes)
		add(r.Name, candidate{arch: r.Arch, multi: f.multi, version: r.Version, pkg: r.Name})
		provides, err := ParseRelations(f.provides)
		if err != nil {
			out = append(out, unreadable(&r, "Provides", f.provides, err))
		}
		for _, alts := range provides {
			for _, p := range alts {
				add(p.Name, candidate{arch: r.Arch, multi: f.multi, version: p.Version, pkg: r.Name, provided: true})
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}

	err = records(func(r repo.Record) error {
		if r.Kind == repo.KindSource {
			return ctx.Err()
		}
		f := readRelationFields(r.Bytes)
		for _, d := range []struct{ name, value string }{{"Pre-Depends", f.preDepends}, {"Depends", f.depends}} {
			groups, err := ParseRelations(d.value)
			if err != nil {
				out = append(out, unreadable(&r, d.name, d.value, err))
			}
			for _, alts := range groups {
				if !slices.ContainsFunc(alts, func(a Relation) bool { return u.satisfied(r.Arch, a) }) {
					out = append(out, repo.Problem{Package: recordName(&r), Relation: d.name + ": " + alts.String(), Reason: u.why(alts)})
				}
			}
		}
		for _, d := range []struct{ name, value string }{{"Breaks", f.breaks}, {"Conflicts", f.conflicts}} {
			groups, err := ParseRelations(d.value)
			if err != nil {
				out = append(out, unreadable(&r, d.name, d.value, err))
			}
			for _, alts := range groups {
				for _, a := range alts {
					if hit := u.ruledOut(r.Name, r.Arch, a); hit != "" {
						out = append(out, repo.Problem{Package: recordName(&r), Relation: d.name + ": " + a.String(), Reason: "only " + hit})
					}
				}
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b repo.Problem) int {
		if c := strings.Compare(a.Package, b.Package); c != 0 {
			return c
		}
		return strings.Compare(a.Relation+a.Reason, b.Relation+b.Reason)
	})
	return slices.Compact(out), nil
}

// ruledOut returns the packages called r.Name if the versioned Breaks or
// Conflicts r of package pkg excludes the versions of all of them, and ""
// otherwise.
func (u *universe) ruledOut(pkg, arch string, r Relation) string {
	if r.Op == Any {
		return ""
	}
	var hit []string
	for _, c := range u.by[r.Name] {
		if c.provided || c.pkg == pkg || (r.Arch != "" && r.Arch != "any" && c.arch != r.Arch) {
			continue
		}
		if !r.Allows(c.version) {
			return "" // pkg can be installed together with this version
		}
		hit = append(hit, c.pkg+":"+c.arch+"="+c.version)
	}
	slices.Sort(hit)
	return strings.Join(slices.Compact(hit), ", ")
}

// unreadable returns the problem for a field that is not a list of relations.
func unreadable(r *repo.Record, field, value string, err error) repo.Problem {
	return repo.Problem{Package: recordName(r), Relation: field + ": " + excerpt.Of(value), Reason: err.Error()}
}

func recordName(r *repo.Record) string { return r.Name + ":" + r.Arch + "=" + r.Version }
