package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// Find returns where a package is and was, in which versions.
func (c *Control) Find(ctx context.Context, req *api.FindRequest) (*api.FindResult, error) {
	out := &api.FindResult{Matches: []api.Match{}}
	if req.Name == "" {
		return nil, fmt.Errorf("%w: find needs a package's name", errclass.Usage)
	}
	var mirrors []string
	if err := c.view(ctx, func(tx *bolt.Tx) error { mirrors = tx.Mirrors(); return nil }); err != nil {
		return nil, err
	}
	frozen, _, err := c.users(ctx)
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

// history is one stanza with where it is and was.
type history struct {
	fact        *meta.Fact
	spans       map[repo.SuiteName][]meta.Span
	components  []string
	suites      []string
	frozen      []string
	first, last *meta.Snapshot
}

func (h *history) at(snap *meta.Snapshot) bool {
	for _, e := range snap.Suites {
		for _, sp := range h.spans[e.Suite] {
			if sp.Has(e.Gen) {
				return true
			}
		}
	}
	return false
}

func (c *Control) findIn(ctx context.Context, name string, req *api.FindRequest, frozen []*meta.Frozen) ([]api.Match, error) {
	var all []*history
	err := c.view(ctx, func(tx *bolt.Tx) error {
		facts, err := tx.ByName(name, req.Name)
		if err != nil {
			return err
		}
		for _, f := range facts {
			if req.Version != "" && f.Version != req.Version {
				continue
			}
			h := &history{fact: f, spans: map[repo.SuiteName][]meta.Span{}}
			for _, sp := range tx.Spans(f.PID) {
				_, suite, index, err := tx.IndexName(sp.Index)
				if err != nil {
					return err
				}
				h.spans[suite] = append(h.spans[suite], sp)
				h.suites = append(h.suites, string(suite))
				if c, _, ok := strings.Cut(index, "/"); ok && c != "repodata" {
					h.components = append(h.components, c)
				}
			}
			for _, file := range f.Files {
				for _, r := range tx.Refs(file.SHA256, 0) {
					if r.Kind == meta.OwnerFrozen {
						h.frozen = append(h.frozen, r.Owner)
					}
				}
			}
			for _, fr := range frozen {
				if i := fr.MirrorIndex(name); i >= 0 && fr.Mirrors[i].Whole {
					if v := fr.View(i); v != nil && h.at(v) {
						h.frozen = append(h.frozen, fr.Name)
					}
				}
			}
			all = append(all, h)
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if err := c.eachSnapshot(ctx, name, func(snap *meta.Snapshot) bool {
		for _, h := range all {
			if h.at(snap) {
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
	var out []api.Match
	for _, h := range all {
		m := api.Match{Package: catalog.Components(nil).Package(name, meta.Entry{Fact: h.fact}), Here: true, Frozen: []string{}}
		m.Suites, m.Components, m.Frozen = sortedSet(h.suites), sortedSet(h.components), append(m.Frozen, sortedSet(h.frozen)...)
		if h.first == nil && len(m.Frozen) == 0 {
			continue // only in snapshots that were removed
		}
		if h.first != nil {
			m.First, m.Last = h.first.ID(), h.last.ID()
		}
		for _, file := range h.fact.Files {
			if _, err := c.blobs().Stat(ctx, file.SHA256); err != nil {
				m.Here = false
			}
		}
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b api.Match) int {
		return cmp.Or(strings.Compare(b.Last[strings.IndexByte(b.Last, '@')+1:], a.Last[strings.IndexByte(a.Last, '@')+1:]), strings.Compare(a.Arch, b.Arch), strings.Compare(a.Version, b.Version))
	})
	return out, nil
}

func sortedSet(in []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(in)))
}
