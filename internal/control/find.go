package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// Find returns the versions of a package, and where each is and was.
func (c *Control) Find(ctx context.Context, req *api.FindRequest) (*api.FindResult, error) {
	out := &api.FindResult{Matches: []api.Match{}}
	if req.Name == "" {
		return nil, fmt.Errorf("%w: find needs a package's name", errclass.Usage)
	}
	mirrors, err := c.st.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	frozen, err := c.st.Freezes(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range mirrors {
		found, err := c.findIn(ctx, m, req, frozen)
		if err != nil {
			return nil, err
		}
		out.Matches = append(out.Matches, found...)
	}
	return out, nil
}

// history is one stanza, and the snapshots and freezes that contain it.
type history struct {
	meta.Version
	frozen      []string
	first, last *meta.Snapshot
}

// search looks for the versions of a package in one mirror.
type search struct {
	versions []*history
	// states has one state of upstream for each index that contains one of the versions.
	// Its Release file names the component of the index.
	states map[meta.Place]*meta.Snapshot
}

// has reports whether a state of upstream contains a version.
func (s *search) has(state *meta.Snapshot, h *history) (has bool) {
	for i := range h.Presences {
		if p := &h.Presences[i]; p.In(state) {
			has = true
			if s.states[p.Place] == nil {
				s.states[p.Place] = state
			}
		}
	}
	return has
}

func (c *Control) findIn(ctx context.Context, name string, req *api.FindRequest, frozen []*meta.Frozen) ([]api.Match, error) {
	versions, err := c.st.Versions(ctx, name, req.Name)
	if err != nil {
		return nil, err
	}
	s := search{states: map[meta.Place]*meta.Snapshot{}}
	for _, v := range versions {
		if req.Version == "" || v.Fact.Version == req.Version {
			s.versions = append(s.versions, &history{Version: v, frozen: v.Frozen})
		}
	}
	if len(s.versions) == 0 {
		return nil, nil
	}
	if err := c.eachSnapshot(ctx, name, func(snap *meta.Snapshot) bool {
		for _, h := range s.versions {
			if s.has(snap, h) {
				h.first = snap
				if h.last == nil {
					h.last = snap
				}
			}
		}
		return true
	}); err != nil {
		return nil, err
	}
	for _, fr := range frozen {
		i := fr.MirrorIndex(name)
		if i < 0 || !fr.Mirrors[i].Whole {
			continue
		}
		for _, state := range fr.Mirrors[i].States() {
			for _, h := range s.versions {
				if s.has(state, h) {
					h.frozen = append(h.frozen, fr.Name)
				}
			}
		}
	}
	components, err := c.componentsIn(ctx, slices.Collect(maps.Values(s.states)))
	if err != nil {
		return nil, err
	}
	var out []api.Match
	for _, h := range s.versions {
		if h.first == nil && len(h.frozen) == 0 {
			continue // only in snapshots that were removed
		}
		m, err := c.match(ctx, name, h, components)
		if err != nil {
			return nil, err
		}
		out = append(out, *m)
	}
	slices.SortStableFunc(out, func(a, b api.Match) int {
		return cmp.Or(strings.Compare(b.Last[strings.IndexByte(b.Last, '@')+1:], a.Last[strings.IndexByte(a.Last, '@')+1:]), strings.Compare(a.Arch, b.Arch), strings.Compare(a.Version, b.Version))
	})
	return out, nil
}

// componentsIn returns the components of the indices of states of upstream.
func (c *Control) componentsIn(ctx context.Context, states []*meta.Snapshot) (catalog.Components, error) {
	out := catalog.Components{}
	seen := map[*meta.Snapshot]bool{}
	for _, state := range states {
		if seen[state] {
			continue
		}
		seen[state] = true
		some, err := c.catalog.Components(ctx, state)
		if err != nil && !errors.Is(err, meta.ErrNotFound) { // removed in the meantime
			return nil, err
		}
		maps.Copy(out, some)
	}
	return out, nil
}

func (c *Control) match(ctx context.Context, mirror string, h *history, components catalog.Components) (*api.Match, error) {
	en := meta.Entry{Fact: h.Fact}
	for _, p := range h.Presences {
		en.Places = append(en.Places, p.Place)
	}
	m := &api.Match{Package: components.Package(mirror, en), Here: true, Frozen: append([]string{}, sortedSet(h.frozen)...)}
	if h.first != nil {
		m.First, m.Last = h.first.ID(), h.last.ID()
	}
	for _, file := range h.Files {
		if _, err := c.blobs().Stat(ctx, file.SHA256); errors.Is(err, cas.ErrNotFound) {
			m.Here = false
		} else if err != nil {
			return nil, err
		}
	}
	return m, nil
}

func sortedSet(in []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(in)))
}
