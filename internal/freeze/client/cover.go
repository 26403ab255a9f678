package client

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// cover formats the sources for the fewest snapshots and suites that together contain the
// packages of a build manifest.
func (c *Client) cover(ctx context.Context, req *api.SourcesRequest) (*api.SourcesResult, error) {
	if req.Ref != "" {
		return nil, fmt.Errorf("%w: sources needs a reference or a build manifest, not both", freeze.ErrUsage)
	}
	m, err := buildlist.Parse(req.For.Name, bytes.NewReader(req.For.Data), "")
	if err != nil {
		return nil, err
	}
	found, err := c.cfg.History.Cover(ctx, m, meta.MirrorName(req.Mirror))
	if err != nil {
		return nil, err
	}
	w := &sourcesWriter{c: c, req: req, res: &api.SourcesResult{Cover: &api.Cover{Snapshots: []api.CoverSnapshot{}, Missing: []string{}, Minimal: found.Minimal}}}
	for _, e := range found.Missing {
		w.res.Cover.Missing = append(w.res.Cover.Missing, e.String())
	}
	if len(found.Points) == 0 {
		return nil, fmt.Errorf("no snapshot has a package of %s: %w", req.For.Name, meta.ErrNotFound)
	}
	for _, p := range found.Points {
		part := api.CoverSnapshot{Ref: p.Snapshot.ID(), Packages: p.Packages}
		gens, err := c.meta.Generations(ctx, p.Snapshot)
		if err != nil {
			return nil, err
		}
		gens = slices.DeleteFunc(slices.Clone(gens), func(g *meta.Generation) bool { return !slices.Contains(p.Suites, g.Suite) })
		for _, g := range gens {
			part.Suites = append(part.Suites, string(g.Suite))
		}
		r, err := w.upstream(ctx, p.Snapshot, gens)
		if err != nil {
			return nil, err
		}
		if err := w.archived(r, p.Snapshot, gens, meta.FormatTimestamp(p.Snapshot.Timestamp)); err != nil {
			return nil, err
		}
		w.res.Cover.Snapshots = append(w.res.Cover.Snapshots, part)
	}
	if !found.Minimal {
		w.note("the search for fewer snapshots was cut short: there may be a smaller answer")
	}
	w.req = &api.SourcesRequest{Ref: req.For.Name, Format: req.Format, Mirror: req.Mirror}
	return w.result()
}
