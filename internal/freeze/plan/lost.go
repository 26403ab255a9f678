package plan

import (
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Lost is a package file that upstream lists but no longer has.
type Lost struct {
	Mirror meta.MirrorName
	Record repo.Record
	File   repo.File
}

// DropLost removes packages whose files upstream no longer has from a plan, and
// records them as missing.
func (p *Planner) DropLost(pl *Plan, lost []Lost) error {
	gone := map[*Pick]bool{}
	for _, l := range lost {
		m := pl.Mirror(l.Mirror)
		f, err := p.cfg.Formats.Of(m.Type)
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

// reportLost marks the report entries whose files upstream no longer has.
func (pl *Plan) reportLost(l Lost) {
	if pl.Report == nil {
		return
	}
	here := func(p api.Package) bool {
		return meta.MirrorName(p.Mirror) == l.Mirror &&
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
