package plan

import (
	"context"
	"slices"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// planWhole takes whole mirrors.
func (p *Planner) planWhole(ctx context.Context, pl *Plan) error {
	if err := p.chooseStates(ctx, pl); err != nil {
		return err
	}
	for _, m := range pl.Mirrors {
		c, err := p.cat.Mirror(m.Name)
		if err != nil {
			return err
		}
		exact, err := p.takenExactly(ctx, pl, m, c)
		if err != nil {
			return err
		}
		if err := p.missUnusable(ctx, pl, m, c, exact); err != nil {
			return err
		}
		if !exact {
			m.Whole = true
			continue
		}
		m.All = len(c.Packages) == 0
		if err := p.takeAll(ctx, pl, m, c); err != nil {
			return err
		}
		if len(m.Picks) == 0 {
			pl.unmatched = append(pl.unmatched, string(m.Name))
		}
	}
	return nil
}

// takenExactly reports whether to take the packages of a mirror one by one. With package
// globs, with several states or without sources, none of its indices lists exactly the
// packages of the freeze. And if the indices refer to another server, clients would not
// download from this one.
func (p *Planner) takenExactly(ctx context.Context, pl *Plan, m *Mirror, c config.Mirror) (bool, error) {
	if len(c.Packages) > 0 || len(m.States) > 1 {
		return true, nil
	}
	if pl.Request.NoSources {
		if has, err := p.hasSources(ctx, m); err != nil || has {
			return has, err
		}
	}
	for _, snap := range m.States {
		gens, err := p.meta.Generations(ctx, snap)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(gens, func(g *meta.Generation) bool { return len(g.AlternateBases) > 0 }) {
			return true, nil
		}
	}
	return false, nil
}

// takeAll takes the packages of a mirror that match its configured globs.
func (p *Planner) takeAll(ctx context.Context, pl *Plan, m *Mirror, c config.Mirror) error {
	f, err := p.cfg.Formats.Of(m.Type)
	if err != nil {
		return err
	}
	for _, snap := range m.States {
		err := freeze.EachPackage(ctx, p.meta, snap, func(e meta.Entry) error {
			if f.Match(c, &e.Record) && (e.Kind != repo.KindSource || !pl.Request.NoSources) {
				pl.add(&Pick{Entry: e, From: snap})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// missUnusable records the stanzas of a mirror that no client can install as missing. For
// a mirror that is taken exactly, it records only those that would be taken.
func (p *Planner) missUnusable(ctx context.Context, pl *Plan, m *Mirror, c config.Mirror, exact bool) error {
	f, err := p.cfg.Formats.Of(m.Type)
	if err != nil {
		return err
	}
	for _, snap := range m.States {
		err := freeze.EachUnusable(ctx, p.meta, snap, func(e meta.Entry) error {
			miss := freeze.MissingStanza(&e.Record, f.SourceArch())
			if !exact || f.Match(c, &e.Record) && !(miss.Source && pl.Request.NoSources) {
				pl.miss(miss, "no client can install it")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hasSources reports whether any state of a mirror has indices of source
// packages.
func (p *Planner) hasSources(ctx context.Context, m *Mirror) (bool, error) {
	f, err := p.cfg.Formats.Of(m.Type)
	if err != nil {
		return false, err
	}
	for _, snap := range m.States {
		gens, err := p.meta.Generations(ctx, snap)
		if err != nil {
			return false, err
		}
		for _, g := range gens {
			if g.Sources > 0 || slices.ContainsFunc(g.Groups, func(gr meta.Group) bool { return gr.Packages && gr.Arch == f.SourceArch() }) {
				return true, nil
			}
		}
	}
	return false, nil
}
