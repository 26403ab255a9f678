// Package history answers questions about the past of packages from metadata alone:
// which versions of a source package there were, in which files, in which suites
// and when. The machine interfaces of snapshot.debian.org and metasnap are such
// questions.
//
// Nothing is downloaded for an answer. Answers are about the snapshots that are
// kept: what only removed snapshots had is not there any more.
package history

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Metadata is the part of meta.Store that a History reads.
type Metadata interface {
	meta.Snapshots
	meta.Files
	meta.History
}

// Format compares packages by the rules of a repository type.
type Format interface {
	Compare(a, b string) int
	AnyArch() string
}

// History answers questions. It is safe for concurrent use.
type History struct {
	cat     *catalog.Catalog
	formats repo.Formats[Format]
	meta    Metadata

	mu        sync.Mutex
	timelines map[meta.MirrorName]*timeline // by mirror
	places    sync.Map                      // mirrorPlace -> Place; an index never changes its component
}

// New returns a History over the snapshots of a catalog.
func New(cat *catalog.Catalog, formats repo.Formats[Format], m Metadata) *History {
	return &History{cat: cat, formats: formats, meta: m, timelines: map[meta.MirrorName]*timeline{}}
}

// Package is a stanza that snapshots contain.
type Package struct {
	*meta.Fact
	Mirror meta.MirrorName
	typ    string  // of the repository
	Ranges []Range // by suite, index and time
}

// Source returns the name and version of the source package of a stanza; the zero Ref if
// the source is unknown.
func (p *Package) Source() repo.Ref {
	switch {
	case p.Kind == repo.KindSource:
		return repo.Ref{Name: p.Name, Version: p.Version}
	case len(p.Sources) > 0:
		return p.Sources[0]
	}
	return repo.Ref{}
}

// FirstSeen returns the timestamp of the oldest snapshot with the stanza.
func (p *Package) FirstSeen() time.Time {
	first := p.Ranges[0].First
	for _, r := range p.Ranges[1:] {
		if r.First.Before(first) {
			first = r.First
		}
	}
	return first
}

// Range is an uninterrupted series of snapshots in which an index contains a stanza.
type Range struct {
	Place
	First, Last time.Time // timestamps of snapshots
	first, last int       // positions among the snapshots of the mirror
}

// Place is an index of a suite, with its component and architecture.
type Place struct {
	Suite     repo.SuiteName
	Index     string
	Component string // empty if the format has none
	Arch      string
}

// mirrors lists the mirrors with snapshots.
func (h *History) mirrors(ctx context.Context) ([]meta.MirrorName, error) { return h.meta.Mirrors(ctx) }

// each combines the results of f for each mirror.
func (h *History) each(ctx context.Context, f func(mirror meta.MirrorName) ([]*meta.Fact, error)) (out []Package, err error) {
	mirrors, err := h.mirrors(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range mirrors {
		facts, err := f(m)
		if err != nil {
			return nil, err
		}
		some, err := h.packages(ctx, m, facts)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// packages returns those of the stanzas of a mirror that snapshots contain.
func (h *History) packages(ctx context.Context, mirror meta.MirrorName, facts []*meta.Fact) ([]Package, error) {
	if len(facts) == 0 {
		return nil, nil
	}
	pids := make([]meta.PID, len(facts))
	for i, f := range facts {
		pids[i] = f.PID
	}
	line, err := h.timeline(ctx, mirror)
	if err != nil {
		return nil, err
	}
	presences, err := h.meta.Presences(ctx, pids)
	if err != nil {
		return nil, err
	}
	var out []Package
	for i, f := range facts {
		p := Package{Fact: f, Mirror: mirror, typ: line.typ}
		for _, pr := range presences[i] {
			for _, r := range line.ranges(pr) {
				if r.Place, err = h.place(ctx, mirror, pr.Place, line.snaps[r.last]); err != nil {
					return nil, err
				}
				p.Ranges = append(p.Ranges, r)
			}
		}
		if len(p.Ranges) > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

type mirrorPlace struct {
	mirror meta.MirrorName
	meta.Place
}

// place describes an index of a generation in a snapshot.
func (h *History) place(ctx context.Context, mirror meta.MirrorName, p meta.Place, snap *meta.Snapshot) (Place, error) {
	key := mirrorPlace{mirror, p}
	if v, ok := h.places.Load(key); ok {
		return v.(Place), nil
	}
	out := Place{Suite: p.Suite, Index: p.Index}
	gen, _ := snap.Gen(p.Suite)
	g, err := h.meta.Generation(ctx, mirror, p.Suite, gen)
	if err != nil {
		return out, err
	}
	for _, gr := range g.Groups {
		if gr.Index == p.Index {
			out.Component, out.Arch = gr.Component, gr.Arch
		}
	}
	h.places.Store(key, out)
	return out, nil
}

// bySource lists the stanzas of a source package and of the packages that were built from
// it, in all mirrors.
func (h *History) bySource(ctx context.Context, source string) ([]Package, error) {
	return h.each(ctx, func(mirror meta.MirrorName) ([]*meta.Fact, error) {
		lists, err := h.meta.FactsBySource(ctx, mirror, []string{source})
		if err != nil {
			return nil, err
		}
		return lists[0], nil
	})
}

// binaries lists the stanzas of binary packages with a name, in all mirrors.
func (h *History) binaries(ctx context.Context, name string) ([]Package, error) {
	all, err := h.each(ctx, func(mirror meta.MirrorName) ([]*meta.Fact, error) {
		lists, err := h.meta.FactsByName(ctx, mirror, []string{name})
		if err != nil {
			return nil, err
		}
		return lists[0], nil
	})
	return slices.DeleteFunc(all, func(p Package) bool { return p.Kind == repo.KindSource }), err
}

// byDigest lists the stanzas, of all mirrors, with a file that has a digest.
func (h *History) byDigest(ctx context.Context, d cas.Digest) ([]Package, error) {
	owners, err := h.meta.OwnersOf(ctx, []cas.Digest{d})
	if err != nil {
		return nil, err
	}
	byMirror := map[meta.MirrorName][]*meta.Fact{}
	for _, o := range owners[0] {
		byMirror[o.Mirror] = append(byMirror[o.Mirror], o.Fact)
	}
	return h.each(ctx, func(mirror meta.MirrorName) ([]*meta.Fact, error) { return byMirror[mirror], nil })
}

// version is a version number with the type of the repository that it is from.
type version struct{ typ, version string }

// newestFirst orders versions by the rules of their formats, newest first.
func (h *History) newestFirst(a, b version) int {
	if a.typ != b.typ {
		return strings.Compare(a.typ, b.typ)
	}
	if f, err := h.formats.Of(a.typ); err == nil {
		if c := f.Compare(b.version, a.version); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.version, b.version)
}
