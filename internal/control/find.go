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
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
)

// maxFound is how many stanzas one request finds.
const maxFound = 10_000

// Find returns the packages that match a query, or the versions of one package, with the
// mirrors, snapshots and freezes that contain each.
func (c *Control) Find(ctx context.Context, req *api.FindRequest) (*api.FindResult, error) {
	return c.find(ctx, &finding{req: req, left: maxFound})
}

// FindPage lists the matches of a query in pages of at most limit stanzas. from is the
// Next of another page, or empty for the first. A page ends after about read stanzas have
// been read, even if none of them matched.
func (c *Control) FindPage(ctx context.Context, text, from string, limit, read int) (*api.FindResult, error) {
	f := &finding{req: &api.FindRequest{Query: text}, left: limit, paged: true, read: read}
	name, after, ok := strings.Cut(from, "/")
	if from != "" && !ok {
		return nil, fmt.Errorf("%w: position %q, expected a position from a link of this server", errclass.Usage, from)
	}
	f.mirror, f.after = config.MirrorName(name), after
	return c.find(ctx, f)
}

func (c *Control) find(ctx context.Context, f *finding) (*api.FindResult, error) {
	f.c, f.out = c, &api.FindResult{Matches: []api.Match{}}
	req := f.req
	var err error
	switch {
	case (req.Name == "") == (req.Query == ""):
		return nil, fmt.Errorf("%w: find needs a query, or a package's name", errclass.Usage)
	case req.Query != "" && req.Version != "":
		return nil, fmt.Errorf("%w: find takes a version with a name, not with a query", errclass.Usage)
	case req.Query != "":
		if f.q, err = query.Parse(req.Query); err != nil {
			return nil, err
		}
	}
	mirrors, err := c.st.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	if f.frozen, err = c.st.Freezes(ctx); err != nil {
		return nil, err
	}
	for _, m := range mirrors {
		if m < f.mirror { // mirrors are in order
			continue
		} else if m > f.mirror {
			f.after = ""
		}
		if f.paged && (f.left <= 0 || f.read <= 0) {
			f.out.Next, f.out.More = string(m)+"/", true
			break
		}
		found, err := f.in(ctx, m)
		if err != nil {
			return nil, err
		}
		if f.out.Matches = append(f.out.Matches, found...); f.out.Next != "" {
			break
		}
	}
	return f.out, nil
}

// finding is a request in progress.
type finding struct {
	c      *Control
	req    *api.FindRequest
	q      *query.Query // nil: by name
	frozen []*meta.Frozen
	left   int // how many stanzas may still be found
	out    *api.FindResult

	paged  bool
	read   int // for a page: how many stanzas may still be read
	mirror meta.MirrorName
	after  string // for a page: it begins in this mirror, after this name
}

// versions returns the stanzas that a mirror has or had and that match the request.
func (f *finding) versions(ctx context.Context, mirror meta.MirrorName) ([]meta.Version, error) {
	if f.q == nil {
		lists, err := f.c.st.Versions(ctx, mirror, []string{f.req.Name})
		if err != nil {
			return nil, err
		}
		return f.take(slices.DeleteFunc(lists[0], func(v meta.Version) bool { return f.req.Version != "" && v.Fact.Version != f.req.Version })), nil
	}
	m, err := f.c.newMatcher(ctx, mirror, f.q, f.frozen)
	if err != nil || m == nil {
		return nil, err
	}
	if f.paged {
		return f.page(ctx, m)
	}
	var out []meta.Version
	add := func(names []string) error {
		some, err := f.matched(ctx, m, names)
		out = append(out, some...)
		return err
	}
	if names, ok := f.q.Names(); ok {
		err := add(names)
		return out, err
	}
	if source, ok := f.q.Source(); ok {
		names, err := freeze.NamesOfSource(ctx, f.c.st, mirror, source)
		if err != nil {
			return nil, err
		}
		for some := range slices.Chunk(names, matchPage) {
			if err := add(some); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	for after := ""; !f.out.More; {
		names, err := f.c.st.PackageNames(ctx, mirror, f.q.Prefix(), after, matchPage)
		if err != nil {
			return nil, err
		}
		if err := add(names); err != nil {
			return nil, err
		}
		if len(names) < matchPage {
			break
		}
		after = names[len(names)-1]
	}
	return out, nil
}

// matched returns the matching stanzas with one of the names, up to the number that may
// still be found.
func (f *finding) matched(ctx context.Context, m *matcher, names []string) (out []meta.Version, err error) {
	matched, _, err := m.matching(ctx, names)
	if err != nil {
		return nil, err
	}
	var wanted []string
	for _, name := range names {
		if len(matched[name]) > 0 {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) > f.left { // each has at least one stanza
		wanted, f.out.More = wanted[:f.left], true
	}
	lists, err := f.c.st.Versions(ctx, m.mirror, wanted)
	if err != nil {
		return nil, err
	}
	for i, name := range wanted {
		out = append(out, f.take(slices.DeleteFunc(lists[i], func(v meta.Version) bool { return !matched[name][v.PID] }))...)
	}
	return out, nil
}

// take cuts a list to the number of stanzas that may still be found.
func (f *finding) take(list []meta.Version) []meta.Version {
	if len(list) > f.left {
		list, f.out.More = list[:f.left], true
	}
	f.left -= len(list)
	return list
}

// page returns the stanzas of a mirror for one page, and records where the next page
// begins. All stanzas of a name are on one page; if they do not fit, the rest is left
// out.
func (f *finding) page(ctx context.Context, m *matcher) (out []meta.Version, err error) {
	after, limit := f.after, f.left
	for {
		names, more, err := f.names(ctx, m.mirror, after)
		if err != nil || len(names) == 0 {
			return out, err
		}
		matched, read, err := m.matching(ctx, names)
		if err != nil {
			return nil, err
		}
		f.read -= read
		var wanted []string
		full := false
		for _, name := range names {
			n := len(matched[name])
			if full = n > f.left && f.left < limit; full {
				break
			}
			if n > 0 {
				wanted = append(wanted, name)
				f.left -= min(n, f.left)
			}
			after = name
		}
		lists, err := f.c.st.Versions(ctx, m.mirror, wanted)
		if err != nil {
			return nil, err
		}
		for i, name := range wanted {
			list := slices.DeleteFunc(lists[i], func(v meta.Version) bool { return !matched[name][v.PID] })
			out = append(out, list[:min(len(list), limit)]...)
		}
		if !more && !full {
			return out, nil
		}
		if full || f.read <= 0 || f.left == 0 {
			f.out.Next, f.out.More = string(m.mirror)+"/"+after, true
			return out, nil
		}
	}
}

// findPage is how many names a page matches at once.
const findPage = 200

// names returns some of the names that may match, after a name, and whether there are
// more.
func (f *finding) names(ctx context.Context, mirror meta.MirrorName, after string) (names []string, more bool, err error) {
	listed, ok := f.q.Names()
	if source, of := f.q.Source(); !ok && of {
		if listed, err = freeze.NamesOfSource(ctx, f.c.st, mirror, source); err != nil {
			return nil, false, err
		}
		ok = true
	}
	if ok {
		at, found := slices.BinarySearch(listed, after)
		if found {
			at++
		}
		names = listed[at:min(at+findPage, len(listed))]
		return names, at+findPage < len(listed), nil
	}
	names, err = f.c.st.PackageNames(ctx, mirror, f.q.Prefix(), after, findPage)
	return names, len(names) == findPage, err
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

// in finds packages in one mirror.
func (f *finding) in(ctx context.Context, name config.MirrorName) ([]api.Match, error) {
	c := f.c
	versions, err := f.versions(ctx, name)
	if err != nil {
		return nil, err
	}
	s := search{states: map[meta.Place]*meta.Snapshot{}}
	for _, v := range versions {
		s.versions = append(s.versions, &history{Version: v, frozen: v.Frozen})
	}
	if len(s.versions) == 0 {
		return nil, nil
	}
	err = c.cfg.Freezer.History.EachRange(ctx, name, versions, func(i int, in meta.Place, first, last *meta.Snapshot) {
		h := s.versions[i]
		if h.first == nil || first.Timestamp.Before(h.first.Timestamp) {
			h.first = first
		}
		if h.last == nil || last.Timestamp.After(h.last.Timestamp) {
			h.last = last
		}
		if s.states[in] == nil {
			s.states[in] = last
		}
	})
	if err != nil {
		return nil, err
	}
	for _, fr := range f.frozen {
		i := fr.MirrorIndex(name)
		if i < 0 || !fr.Mirrors[i].Whole {
			continue
		}
		for _, state := range fr.Mirrors[i].States() {
			for _, h := range s.versions {
				if s.has(state, h) {
					h.frozen = append(h.frozen, string(fr.Name))
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
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(b.Last[strings.IndexByte(b.Last, '@')+1:], a.Last[strings.IndexByte(a.Last, '@')+1:]), strings.Compare(a.Arch, b.Arch), strings.Compare(a.Version, b.Version))
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

func (c *Control) match(ctx context.Context, mirror meta.MirrorName, h *history, components catalog.Components) (*api.Match, error) {
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
