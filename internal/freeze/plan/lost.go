package plan

import (
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/repo"
)

// Lost is a package file that upstream lists and no longer has.
type Lost struct {
	Mirror string
	Record repo.Record
	File   repo.File
}

// DropLost drops the packages of files that upstream no longer has from a plan, and
// names them among what is missing.
func (p *Planner) DropLost(pl *Plan, lost []Lost) error {
	gone := map[*Pick]bool{}
	for _, l := range lost {
		m := pl.Mirror(l.Mirror)
		f, err := p.cat.Format(m.Type)
		if err != nil {
			return err
		}
		pl.reportLost(l)
		pl.Missing = append(pl.Missing, freeze.MissingStanza(&l.Record, f.SourceArch()))
		for _, o := range m.Picks {
			if slices.Contains(o.Files, l.File) {
				gone[o] = true
			}
		}
	}
	pl.drop(func(o *Pick) bool { return gone[o] })
	pl.claims = slices.DeleteFunc(pl.claims, func(c claim) bool { return gone[c.pick] })
	return nil
}

// reportLost says in the report of the entries which of them upstream no longer has.
func (pl *Plan) reportLost(l Lost) {
	if pl.Report == nil {
		return
	}
	here := func(p api.Package) bool {
		return p.Mirror == l.Mirror &&
			(p.Path == l.File.Path || slices.ContainsFunc(p.Files, func(f api.File) bool { return f.Path == l.File.Path }))
	}
	for i := range pl.Report.Entries {
		e := &pl.Report.Entries[i]
		if e.State != "resolved" || !slices.ContainsFunc(e.Places, here) {
			continue
		}
		e.State, e.Reason = "missing", "upstream no longer has it"
		pl.Report.Resolved--
		pl.Report.Missing++
	}
}
