package plan

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// wantedSource is a source package that a binary package of a mirror names.
type wantedSource struct {
	ref    repo.Ref
	mirror *Mirror
}

// addSources takes the source packages of every binary package, including those in
// Built-Using. It takes none for a mirror without source indices.
func (p *Planner) addSources(ctx context.Context, pl *Plan) error {
	wants, err := p.wantedSources(ctx, pl)
	if err != nil {
		return err
	}
	formats := map[meta.MirrorName]Format{}
	without := map[string][]string{} // sources that local mirrors do not have
	for _, m := range pl.Mirrors {
		if formats[m.Name], err = p.cfg.Formats.Of(m.Type); err != nil {
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
			fitting := slices.DeleteFunc(found[i], func(o *Pick) bool {
				return !o.isSource() || !formats[o.From.Mirror].SameSource(o.Version, w.ref.Version)
			})
			if c, err := p.cat.Mirror(w.mirror.Name); err == nil && c.Local && len(fitting) == 0 {
				// Local mirrors may lack source packages.
				without[string(c.Name)] = append(without[string(c.Name)], w.ref.Name+" "+w.ref.Version)
				continue
			}
			pl.addSource(w, fitting)
		}
	}
	for _, m := range slices.Sorted(maps.Keys(without)) {
		pl.Warnings = append(pl.Warnings, fmt.Sprintf("local mirror %s has no source package %s", m, strings.Join(clip(without[m], maxNamed), ", ")))
	}
	return nil
}

// maxNamed limits the source packages that a warning names.
const maxNamed = 10

// addSource takes a wanted source package: from the mirror of the binary package or, if
// that lacks it, from the first mirror that has it, since a source may be published in
// another repository.
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

// wantedSources returns the sources that binary packages of mirrors with source
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
