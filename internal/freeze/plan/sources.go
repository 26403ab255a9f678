package plan

import (
	"context"
	"slices"

	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/repo"
)

// wantedSource is a source package that a binary package of a mirror names.
type wantedSource struct {
	ref    repo.Ref
	mirror *Mirror
}

// addSources takes the sources of every binary package, those that it was built
// using included. A mirror without source indices has none to give.
func (p *Planner) addSources(ctx context.Context, pl *Plan) error {
	wants, err := p.wantedSources(ctx, pl)
	if err != nil {
		return err
	}
	formats := map[string]repo.Format{}
	for _, m := range pl.Mirrors {
		if formats[m.Name], err = p.cat.Format(m.Type); err != nil {
			return err
		}
	}
	for page := range slices.Chunk(wants, pageSize) {
		names := make([]string, len(page))
		for i, w := range page {
			names[i] = w.ref.Name
		}
		found, err := p.picksByName(ctx, pl.states(), names)
		if err != nil {
			return err
		}
		for i, w := range page {
			pl.addSource(w, slices.DeleteFunc(found[i], func(o *Pick) bool {
				return !o.isSource() || !formats[o.From.Mirror].SameSource(o.Version, w.ref.Version)
			}))
		}
	}
	return nil
}

// addSource takes a wanted source from those that fit: of the binary's own mirror,
// or else of the first that has one, since a source may be published in another one.
func (pl *Plan) addSource(w wantedSource, fitting []*Pick) {
	if len(fitting) == 0 {
		pl.Missing = append(pl.Missing, freeze.Missing{Name: w.ref.Name, Version: w.ref.Version, Source: true})
		return
	}
	from := fitting[0].From.Mirror
	for _, o := range fitting {
		if o.From.Mirror == w.mirror.Name {
			from = w.mirror.Name
		}
	}
	for _, o := range fitting {
		if o.From.Mirror == from {
			pl.add(o)
		}
	}
}

// wantedSources lists the sources that binary packages of mirrors with source
// indices name, each once.
func (p *Planner) wantedSources(ctx context.Context, pl *Plan) (wants []wantedSource, err error) {
	seen := map[wantedSource]bool{}
	for _, m := range pl.Mirrors {
		has, err := p.hasSources(ctx, m)
		if err != nil {
			return nil, err
		}
		if !has {
			continue
		}
		for _, pick := range m.Picks {
			if pick.isSource() {
				continue
			}
			for _, r := range pick.Sources {
				if w := (wantedSource{r, m}); !seen[w] {
					seen[w] = true
					wants = append(wants, w)
				}
			}
		}
	}
	return wants, nil
}
