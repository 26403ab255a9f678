package plan

import (
	"context"
	"fmt"
	"slices"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// withDeps resolves packages and their dependencies: the package manager of the
// mirrors' format runs in an empty root with the chosen states as sources.
func (p *Planner) withDeps(ctx context.Context, pl *Plan, packages []string) ([]buildlist.Entry, error) {
	var typ string
	var repos []repo.SourceParams
	var archs []string
	for _, m := range pl.Mirrors {
		if typ != "" && m.Type != typ {
			typ = ""
			break
		}
		typ = m.Type
		params, err := p.resolverParams(ctx, m)
		if err != nil {
			return nil, err
		}
		repos = append(repos, params...)
		for _, a := range params[0].Mirror.Architectures {
			if !slices.Contains(archs, a) {
				archs = append(archs, a)
			}
		}
	}
	if typ == "" {
		return nil, fmt.Errorf("%w: dependencies can only be resolved within mirrors of one type: choose them with --mirror", freeze.ErrUsage)
	}
	f, err := p.cfg.Formats.Of(typ)
	if err != nil {
		return nil, err
	}
	r, ok := f.(repo.Resolver)
	if !ok {
		return nil, fmt.Errorf("%w: dependencies cannot be resolved for mirrors of type %s", freeze.ErrUsage, typ)
	}
	if len(archs) == 0 {
		return nil, fmt.Errorf("%w: the mirrors have no architecture to resolve dependencies for", freeze.ErrUsage)
	}
	found, err := r.Resolve(ctx, repos, archs, packages)
	if err != nil {
		return nil, err
	}
	out := make([]buildlist.Entry, len(found))
	for i, o := range found {
		out[i] = resolvedEntry(o)
	}
	return out, nil
}

// resolvedEntry returns an entry for a package that a resolver chose.
func resolvedEntry(o repo.Resolved) buildlist.Entry {
	if o.SHA256.IsZero() {
		return buildlist.Entry{Name: o.Name, Version: o.Version, Arch: o.Arch, SHA512: o.SHA512, Size: -1, Path: o.URL, Raw: o.SHA512 + "  " + o.URL}
	}
	return buildlist.Entry{SHA256: o.SHA256.String(), Size: -1, Path: o.URL, Raw: o.SHA256.String() + "  " + o.URL}
}

// resolverParams describes the states of a mirror to a resolver.
func (p *Planner) resolverParams(ctx context.Context, m *Mirror) (out []repo.SourceParams, err error) {
	c, err := p.cat.Mirror(m.Name)
	if err != nil {
		return nil, err
	}
	f, err := p.cfg.Formats.Of(m.Type)
	if err != nil {
		return nil, err
	}
	keys, err := p.cfg.Keyrings.Keyring(m.Name)
	if err != nil {
		return nil, err
	}
	for i, snap := range m.States {
		params := repo.SourceParams{
			Mirror: c, Name: resolverName(m.Name, i), Components: map[repo.SuiteName][]string{},
			URL: p.cfg.LocalURL + "/archive/" + string(m.Name) + "/" + meta.FormatTimestamp(snap.Timestamp),
		}
		if keys != nil {
			params.KeyArmored = string(keys.ExportArmored())
		}
		gens, err := p.meta.Generations(ctx, snap)
		if err != nil {
			return nil, err
		}
		if c.Local {
			// Use the keys of that time: this server's key may have changed since.
			var certs []cas.Digest
			for _, g := range gens {
				certs = append(certs, g.Certificates)
			}
			then, err := freeze.Certificates(ctx, p.blobs, certs...)
			if err != nil {
				return nil, err
			}
			params.KeyArmored = string(then.ExportArmored())
		}
		for _, g := range gens {
			suite := freeze.ClientSuite(g, f.SourceArch())
			params.Suites = append(params.Suites, suite.Suite)
			params.Components[suite.Suite] = suite.Components
			for _, a := range suite.Archs {
				if !slices.Contains(params.Archs, a) {
					params.Archs = append(params.Archs, a)
				}
			}
		}
		out = append(out, params)
	}
	return out, nil
}

// resolverName returns the resolver's name for the i-th state of a mirror.
func resolverName(mirror meta.MirrorName, i int) string {
	if i == 0 {
		return "snapd-" + string(mirror)
	}
	return fmt.Sprintf("snapd-%s-%d", mirror, i)
}
