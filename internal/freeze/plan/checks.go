package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// CheckPaths refuses packages with different bytes and the same path before anything is
// downloaded. freeze.ErrAmbiguous.
func (pl *Plan) CheckPaths() error {
	for _, m := range pl.Mirrors {
		at := map[string]cas.Digest{}
		for _, p := range m.Picks {
			for _, f := range p.Files {
				if other, ok := at[f.Path]; ok && other != f.SHA256 {
					return freeze.TwoContents(string(m.Name)+"/"+f.Path, other, f.SHA256)
				}
				at[f.Path] = f.SHA256
			}
		}
	}
	return nil
}

// checkMissing refuses a plan with missing entries, unless they are allowed.
func (pl *Plan) checkMissing() error {
	if len(pl.Missing) == 0 || pl.Request.AllowMissing {
		return nil
	}
	var names []string
	for _, m := range pl.Missing {
		if slices.Contains(pl.lacking, m) {
			continue // the base was frozen without it
		}
		name := m.Text()
		if why := pl.why[m]; why != "" {
			name += " (" + why + ")"
		} else if id := pl.kept[m]; id != "" {
			name += " (" + id + " has it)"
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	names = slices.Compact(names)
	where := "not in the chosen snapshots"
	if pl.ofWholeMirrors() {
		where = "unusable in the chosen snapshots"
	}
	return &freeze.ReportError{Report: pl.Report, Hint: pl.keptHint(), Err: fmt.Errorf("%w: %s %s:\n  %s",
		freeze.ErrMissing, freeze.Count(len(names), "entry is", "entries are"), where, strings.Join(clip(names, 50), "\n  "))}
}

// ofWholeMirrors reports whether the request names only mirrors.
func (pl *Plan) ofWholeMirrors() bool {
	r := pl.Request
	return len(r.Manifests)+len(r.Packages)+len(r.Query) == 0 && r.Recording == "" && r.Base == ""
}

// checkEmpty refuses a freeze without packages, or with a part without packages, unless
// the request allows it: the request is probably a mistake. refused says why.
func (p *Planner) checkEmpty(ctx context.Context, pl *Plan) (refused, err error) {
	switch {
	case pl.Request.AllowEmpty, len(pl.Missing) > 0: // packages may be missing, and they are recorded
		return nil, nil
	case len(pl.unlisted) > 0:
		return fmt.Errorf("%w: build manifest %s lists no packages", freeze.ErrEmpty, strings.Join(pl.unlisted, ", ")), nil
	case len(pl.unmatched) > 0:
		return fmt.Errorf("%w: the package globs of mirror %s match no packages", freeze.ErrEmpty, strings.Join(pl.unmatched, ", ")), nil
	}
	if pl.unasked {
		return fmt.Errorf("%w: the query %q asks for no package of the chosen snapshots", freeze.ErrEmpty, pl.Request.Query), nil
	}
	var names []string
	for _, m := range pl.Mirrors {
		if len(m.Picks) > 0 {
			return nil, nil
		}
		names = append(names, string(m.Name))
		if !m.Whole {
			continue
		}
		for _, snap := range m.States {
			gens, err := p.meta.Generations(ctx, snap)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(gens, func(g *meta.Generation) bool { return g.Packages+g.Sources > 0 }) {
				return nil, nil
			}
		}
	}
	if r := pl.Request.Recording; r != "" {
		return &freeze.ReportError{
			Report: pl.Report, Err: fmt.Errorf("%w: recording %s has no packages", freeze.ErrEmpty, r),
			Hint: "remove it with snapctl record rm " + r + ", start it again and let the build download through its URLs or proxy (snapctl record show " + r + "); or freeze it anyway with --allow-empty",
		}, nil
	}
	return fmt.Errorf("%w: %s would have no packages from %s", freeze.ErrEmpty, pl.Request.Name, strings.Join(names, ", ")), nil
}
