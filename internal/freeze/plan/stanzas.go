package plan

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// stanzaPage is the number of stanzas that are read at a time.
const stanzaPage = 500

// eachStanza calls emit for each pick with the bytes of its stanza.
func (p *Planner) eachStanza(ctx context.Context, picks []*Pick, emit func(repo.Record) error) error {
	for page := range slices.Chunk(picks, stanzaPage) {
		var pids []meta.PID
		for _, o := range page {
			if o.PID != 0 {
				pids = append(pids, o.PID)
			}
		}
		stanzas, err := p.meta.Stanzas(ctx, pids)
		if err != nil {
			return err
		}
		for _, o := range page {
			r := o.Record
			if o.PID != 0 {
				r.Bytes, stanzas = stanzas[0], stanzas[1:]
			}
			if err := emit(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Records calls emit for each package taken from one index, with the bytes of its stanza.
// The order depends only on content.
func (p *Planner) Records(ctx context.Context, m *Mirror, place meta.Place, emit func(repo.Record) error) error {
	var picks []*Pick
	for _, o := range m.Picks {
		if slices.Contains(o.Places, place) {
			picks = append(picks, o)
		}
	}
	slices.SortFunc(picks, func(a, b *Pick) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch),
			cmp.Compare(a.Version, b.Version), slices.Compare(a.Digest[:], b.Digest[:]))
	})
	return p.eachStanza(ctx, picks, emit)
}

// Broken returns the dependencies that are unsatisfied in the plan but not in its
// base.
func (p *Planner) Broken(ctx context.Context, pl *Plan) ([]api.Problem, error) {
	after, err := p.problems(ctx, pl)
	if err != nil || len(after) == 0 {
		return nil, err
	}
	base := pl.Request.Base
	was := &Plan{Request: &api.FreezeRequest{Name: base, Base: base, NoSources: true}}
	if err := p.planBase(ctx, was); err != nil {
		return nil, err
	}
	before, err := p.problems(ctx, was)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(after, func(x api.Problem, _ bool) bool { return before[x] })
	return slices.SortedFunc(maps.Keys(after), func(a, b api.Problem) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Relation, b.Relation), cmp.Compare(a.Reason, b.Reason))
	}), nil
}

// problems returns the unsatisfied dependencies of a plan. All packages of one repository
// type can satisfy each other's dependencies.
func (p *Planner) problems(ctx context.Context, pl *Plan) (map[api.Problem]bool, error) {
	byType := map[string][]*Pick{}
	for _, m := range pl.Mirrors {
		for _, o := range m.Picks {
			if !o.isSource() {
				byType[m.Type] = append(byType[m.Type], o)
			}
		}
	}
	out := map[api.Problem]bool{}
	for typ, picks := range byType {
		f, err := p.cfg.Formats.Of(typ)
		if err != nil {
			return nil, err
		}
		found, err := f.Broken(ctx, func(emit func(repo.Record) error) error { return p.eachStanza(ctx, picks, emit) })
		if err != nil {
			return nil, err
		}
		for _, x := range found {
			out[api.Problem{Package: x.Package, Relation: x.Relation, Reason: x.Reason}] = true
		}
	}
	return out, nil
}
