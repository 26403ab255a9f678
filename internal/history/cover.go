package history

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Cover are snapshots that together have the packages of a build manifest.
type Cover struct {
	Points []Point // newest first
	// Missing are the entries that no snapshot has.
	Missing []buildlist.Entry
	// Minimal: there is no smaller cover. Else the search for one was cut short.
	Minimal bool
}

// Point is a snapshot of a cover.
type Point struct {
	Snapshot *meta.Snapshot
	Suites   []repo.SuiteName // those that are needed, in the order of the snapshot
	Packages int              // how many entries it has in these suites
}

// Fits reports whether a stanza of a format is what an entry of a build manifest
// means, by everything but a digest.
func Fits(f Format, e *buildlist.Entry, r *repo.Record) bool {
	if (r.Kind == repo.KindSource) != e.Source {
		return false
	}
	if e.Arch != "" && !e.Source && r.Arch != e.Arch && r.Arch != f.AnyArch() {
		return false
	}
	v := r.Version
	if e.EpochUnknown {
		if _, rest, ok := strings.Cut(v, ":"); ok {
			v = rest
		}
	}
	return e.Version == "" || v == e.Version || f.Compare(v, e.Version) == 0
}

// coverPage is how many entries are looked up at once.
const coverPage = 500

// Cover finds the fewest snapshots that together have the packages of a build
// manifest, and of those the fewest suites. mirror "" means all.
func (h *History) Cover(ctx context.Context, m *buildlist.Manifest, mirror meta.MirrorName) (*Cover, error) {
	mirrors, err := h.mirrors(ctx)
	if err != nil {
		return nil, err
	}
	if mirror != "" {
		if !slices.Contains(mirrors, mirror) {
			return nil, notFound("mirror %q", mirror)
		}
		mirrors = []meta.MirrorName{mirror}
	}
	c := &covering{h: h, ranges: make([][]spot, len(m.Entries)), lines: map[meta.MirrorName]*timeline{}}
	for _, name := range mirrors {
		if c.lines[name], err = h.timeline(ctx, name); err != nil {
			return nil, err
		}
		for from := 0; from < len(m.Entries); from += coverPage {
			page := m.Entries[from:min(from+coverPage, len(m.Entries))]
			if err := c.look(ctx, name, m.Arch, from, page); err != nil {
				return nil, err
			}
		}
	}
	out := &Cover{}
	var found []int
	for i, e := range m.Entries {
		if len(c.ranges[i]) == 0 {
			out.Missing = append(out.Missing, e)
		} else {
			found = append(found, i)
		}
	}
	if len(found) > 0 {
		out.Points, out.Minimal = c.solve(found)
	}
	return out, nil
}

// spot is where and when a mirror has an entry.
type spot struct {
	mirror meta.MirrorName
	Range
}

// covering is the work of one Cover.
type covering struct {
	h      *History
	ranges [][]spot // of each entry
	lines  map[meta.MirrorName]*timeline
}

// look notes where and when a mirror has a page of entries.
func (c *covering) look(ctx context.Context, mirror meta.MirrorName, arch string, from int, page []buildlist.Entry) error {
	typ := c.lines[mirror].typ
	f, err := c.h.formats.Of(typ)
	if err != nil {
		return err
	}
	names := make([]string, len(page))
	for i, e := range page {
		names[i] = e.Name
	}
	facts, err := c.h.meta.FactsByName(ctx, mirror, names)
	if err != nil {
		return err
	}
	hashed, err := c.byDigest(ctx, mirror, page)
	if err != nil {
		return err
	}
	fits := make([][]*meta.Fact, len(page))
	for i := range page {
		e := page[i]
		if e.Ecosystem != "" && string(e.Ecosystem) != typ {
			continue
		}
		if e.Arch == "" {
			e.Arch = arch
		}
		if fits[i] = hashed[i]; e.SHA256 == "" && len(fits[i]) == 0 {
			fits[i] = fitting(f, &e, facts[i])
		}
	}
	all, err := c.h.packages(ctx, mirror, slices.Concat(fits...))
	if err != nil {
		return err
	}
	ranges := map[meta.PID][]Range{}
	for _, p := range all {
		ranges[p.PID] = p.Ranges
	}
	for i, fit := range fits {
		for _, fact := range fit {
			for _, r := range ranges[fact.PID] {
				c.ranges[from+i] = append(c.ranges[from+i], spot{mirror, r})
			}
		}
	}
	return nil
}

// fitting returns those of the stanzas with an entry's name that the entry means.
func fitting(f Format, e *buildlist.Entry, facts []*meta.Fact) (out []*meta.Fact) {
	for _, r := range facts {
		if Fits(f, e, &r.Record) {
			out = append(out, r)
		}
	}
	if e.Arch != "" && slices.ContainsFunc(out, func(r *meta.Fact) bool { return r.Arch == e.Arch }) {
		// An entry of amd64 does not also mean a package for all.
		out = slices.DeleteFunc(out, func(r *meta.Fact) bool { return r.Arch != e.Arch && !e.Source })
	}
	return out
}

// byDigest finds the stanzas of a mirror by the digests of entries, the strongest
// that an entry has.
func (c *covering) byDigest(ctx context.Context, mirror meta.MirrorName, page []buildlist.Entry) ([][]*meta.Fact, error) {
	digests := make([]cas.Digest, len(page))
	for i, e := range page {
		var err error
		switch {
		case e.SHA256 != "":
			digests[i], err = cas.ParseDigest(e.SHA256)
		case e.SHA512 != "":
			digests[i], err = c.alias(ctx, meta.AliasSHA512, []byte(e.SHA512))
		case e.SHA1 != "":
			other, bad := hex.DecodeString(e.SHA1)
			if bad != nil {
				continue
			}
			digests[i], err = c.alias(ctx, meta.AliasSHA1, other)
		}
		if err != nil {
			return nil, err
		}
	}
	owners, err := c.h.meta.OwnersOf(ctx, digests)
	if err != nil {
		return nil, err
	}
	out := make([][]*meta.Fact, len(page))
	for i := range page {
		for _, o := range owners[i] {
			if o.Mirror == mirror && !digests[i].IsZero() {
				out[i] = append(out[i], o.Fact)
			}
		}
	}
	return out, nil
}

// alias is the SHA-256 of a blob with another digest; zero where that is not known.
func (c *covering) alias(ctx context.Context, algo byte, other []byte) (cas.Digest, error) {
	d, err := c.h.meta.Alias(ctx, algo, other)
	if isNotFound(err) {
		err = nil
	}
	return d, err
}

// solve chooses snapshots and suites for the entries that were found.
func (c *covering) solve(found []int) (points []Point, minimal bool) {
	type moment struct {
		mirror meta.MirrorName
		at     int
	}
	// A smallest cover can be made of snapshots that are the last with something.
	var moments []moment
	seen := map[moment]bool{}
	for _, i := range found {
		for _, s := range c.ranges[i] {
			if m := (moment{s.mirror, s.last}); !seen[m] {
				seen[m] = true
				moments = append(moments, m)
			}
		}
	}
	snap := func(m moment) *meta.Snapshot { return c.lines[m.mirror].snaps[m.at] }
	slices.SortFunc(moments, func(a, b moment) int {
		if d := snap(b).Timestamp.Compare(snap(a).Timestamp); d != 0 {
			return d
		}
		return strings.Compare(string(a.mirror), string(b.mirror))
	})
	sets := make([]bitset, len(moments))
	for k, m := range moments {
		sets[k] = newBitset(len(found))
		for n, i := range found {
			if slices.ContainsFunc(c.ranges[i], func(s spot) bool { return s.mirror == m.mirror && s.first <= m.at && m.at <= s.last }) {
				sets[k].add(n)
			}
		}
	}
	chosen, minimal := smallest(sets, len(found))
	// Then the suites of these snapshots.
	type choice struct {
		k     int
		suite repo.SuiteName
	}
	var choices []choice
	sets = nil
	for _, k := range chosen {
		for _, e := range snap(moments[k]).Suites {
			set := newBitset(len(found))
			for n, i := range found {
				if slices.ContainsFunc(c.ranges[i], func(s spot) bool {
					m := moments[k]
					return s.mirror == m.mirror && s.Suite == e.Suite && s.first <= m.at && m.at <= s.last
				}) {
					set.add(n)
				}
			}
			choices, sets = append(choices, choice{k, e.Suite}), append(sets, set)
		}
	}
	suites, proven := smallest(sets, len(found))
	for _, k := range chosen {
		p := Point{Snapshot: snap(moments[k])}
		all := newBitset(len(found))
		for _, i := range suites {
			if choices[i].k == k {
				p.Suites = append(p.Suites, choices[i].suite)
				all.each2(sets[i], func(x, y uint64) uint64 { return x | y })
			}
		}
		if p.Packages = all.count(); p.Packages > 0 {
			points = append(points, p)
		}
	}
	return points, minimal && proven
}
