package history

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// BuildinfoAnswer answers POST /mr/buildinfo, an addition of fepitre's server.
type BuildinfoAnswer struct {
	Comment string `json:"_comment"`
	// Results are the places that contain packages of the .buildinfo file, those with the
	// most packages first. A place is left out if another contains all of its packages.
	Results []BuildinfoPlace `json:"results"`
}

// BuildinfoPlace is a component of a suite, with the fewest timestamps at which all of its
// packages can be found: each at one in its newest range.
type BuildinfoPlace struct {
	Archive    string   `json:"archive_name"`
	Suite      string   `json:"suite_name"`
	Component  string   `json:"component_name"`
	Arch       string   `json:"architecture"`
	Timestamps []string `json:"timestamps"` // timestamps of snapshots, oldest first
}

// buildinfoKey identifies a place.
type buildinfoKey struct {
	mirror    meta.MirrorName
	component string
	suite     repo.SuiteName
}

// Buildinfo finds where and when the packages of a .buildinfo file were, in a suite
// or, if suite is empty, in all. missing are those that were nowhere.
func (h *History) Buildinfo(ctx context.Context, m *buildlist.Manifest, suite string) (out *BuildinfoAnswer, missing []string, err error) {
	mirrors, err := h.mirrors(ctx)
	if err != nil {
		return nil, nil, err
	}
	wanted := make([]Wanted, len(m.Entries))
	for i, e := range m.Entries {
		wanted[i] = Wanted{Name: e.Name, Arch: e.Arch, Version: e.Version}
		if e.Arch == "" || e.Arch == "all" {
			wanted[i].Arch = m.Arch // in whose index it is
		}
	}
	places := map[buildinfoKey]map[int]Range{} // the newest range of each package
	found := make([]bool, len(wanted))
	for _, mirror := range mirrors {
		all, err := h.Where(ctx, mirror, wanted)
		if err != nil {
			return nil, nil, err
		}
		for i, list := range all {
			for _, at := range list {
				if suite != "" && string(at.Suite) != suite {
					continue
				}
				found[i] = true
				k := buildinfoKey{mirror, at.Component, at.Suite}
				if places[k] == nil {
					places[k] = map[int]Range{}
				}
				if have, ok := places[k][i]; !ok || have.Last.Before(at.Last) {
					places[k][i] = at.Range
				}
			}
		}
	}
	for i, ok := range found {
		if !ok {
			missing = append(missing, m.Entries[i].String())
		}
	}
	return &BuildinfoAnswer{Comment: Comment, Results: h.buildinfoPlaces(places, m.Arch)}, missing, nil
}

// buildinfoPlaces sorts places and finds the timestamps of each.
func (h *History) buildinfoPlaces(places map[buildinfoKey]map[int]Range, arch string) []BuildinfoPlace {
	var keys []buildinfoKey
	for k := range places {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b buildinfoKey) int {
		return cmp.Or(cmp.Compare(len(places[b]), len(places[a])), strings.Compare(string(a.mirror), string(b.mirror)), cmp.Compare(a.suite, b.suite), strings.Compare(a.component, b.component))
	})
	within := func(a, b map[int]Range) bool {
		for i := range a {
			if _, ok := b[i]; !ok {
				return false
			}
		}
		return true
	}
	out := []BuildinfoPlace{}
	var kept []buildinfoKey
	for _, k := range keys {
		if slices.ContainsFunc(kept, func(o buildinfoKey) bool { return within(places[k], places[o]) && len(places[k]) < len(places[o]) }) {
			continue
		}
		kept = append(kept, k)
		out = append(out, BuildinfoPlace{Archive: h.cat.ArchiveOf(k.mirror), Suite: string(k.suite), Component: k.component, Arch: arch, Timestamps: pierce(places[k])})
	}
	return out
}

// pierce returns the fewest timestamps of which each range has one: the ends of
// ranges that begin after the one before.
func pierce(ranges map[int]Range) []string {
	list := make([]Range, 0, len(ranges))
	for _, r := range ranges {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Range) int { return cmp.Or(a.Last.Compare(b.Last), a.First.Compare(b.First)) })
	out := []string{}
	last := time.Time{}
	for _, r := range list {
		if !last.Before(r.First) {
			continue
		}
		last = r.Last
		out = append(out, meta.FormatTimestamp(last))
	}
	return out
}
