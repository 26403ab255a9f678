package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/repo"
)

// Manifest is the manifest of a freeze for one request. It is read once, when it is first
// needed. It is not safe for concurrent use.
type Manifest struct {
	c    *Client
	name meta.FreezeName
	rec  *meta.Frozen // nil before it is read
	doc  *freeze.Document
}

// Manifest returns the manifest of a freeze.
func (c *Client) Manifest(name meta.FreezeName) *Manifest { return &Manifest{c: c, name: name} }

func (m *Manifest) load(ctx context.Context) (*meta.Frozen, *freeze.Document, error) {
	if m.doc == nil {
		rec, doc, err := m.c.load(ctx, m.name)
		if err != nil {
			return rec, nil, err
		}
		m.rec, m.doc = rec, doc
	}
	return m.rec, m.doc, nil
}

// Position is where a list of packages of a freeze continues.
type Position struct {
	mirror meta.MirrorName
	name   string // name of the first package, if packages are read by name
	at     int    // otherwise the number of packages before it
}

// ParsePosition reads what Position.String returned. The empty string is the start.
func ParsePosition(s string) (p Position, err error) {
	if s == "" {
		return p, nil
	}
	mirror, rest, ok := strings.Cut(s, "/")
	number, numbered := strings.CutPrefix(rest, "#")
	if p = (Position{mirror: meta.MirrorName(mirror), name: rest}); numbered {
		p.name = ""
		p.at, err = strconv.Atoi(number)
	}
	if !ok || err != nil || p.at < 0 {
		return Position{}, fmt.Errorf("%w: position %q, expected a position from a link of this server", errclass.Usage, s)
	}
	return p, nil
}

func (p Position) String() string {
	if p.name == "" {
		return string(p.mirror) + "/#" + strconv.Itoa(p.at)
	}
	return string(p.mirror) + "/" + p.name
}

// Read is a package that was read from a freeze.
type Read struct {
	api.Package
	Asked bool // the query matches it
	Position
}

// Splits reports whether a page of the list may begin with this package. Packages that
// are read by name are not separated from others with the same name.
func (r *Read) Splits(before *Position) bool {
	return r.name == "" || r.Position != *before
}

// EachPackage calls f for each package of a freeze that matches q (nil: all), in the
// order of Packages. If f stops, no more of a whole mirror is read, unless it was
// imported.
func (c *Client) EachPackage(ctx context.Context, name meta.FreezeName, q *query.Query, f func(api.Package) error) error {
	return c.Manifest(name).EachRead(ctx, q, Position{}, func(r *Read) error {
		if !r.Asked {
			return nil
		}
		return f(r.Package)
	})
}

// EachRead calls f for each package that is read to find those that match q, from a
// position on. If f stops, little more is read, except of an imported whole mirror, whose
// indices are read from the start.
func (m *Manifest) EachRead(ctx context.Context, q *query.Query, from Position, f func(*Read) error) error {
	fr, doc, err := m.load(ctx)
	if err != nil {
		return err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		if d.Name < from.mirror {
			continue
		} else if d.Name > from.mirror {
			from = Position{}
		}
		format, err := m.c.cfg.Formats.Of(d.Type)
		if err != nil {
			return err
		}
		if d.Kind == freeze.Whole {
			err = m.c.eachOfWhole(ctx, fr, d, q, from, f)
		} else {
			e := &exact{c: m.c, fr: fr, d: d, format: format, q: q}
			err = e.each(ctx, from, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// exactPage is how many packages of an exact mirror are matched at once.
const exactPage = 500

// exact reads the exact mirror of a freeze.
type exact struct {
	c       *Client
	fr      *meta.Frozen
	d       *freeze.DocMirror
	format  Format
	q       *query.Query
	matches map[exactID]bool // found in the indices; nil while the metadata has the stanzas
}

// exactID identifies a package: one file may be several packages.
type exactID struct{ sha256, name, version, arch string }

func idOf(p *api.Package) exactID { return exactID{p.SHA256, p.Name, p.Version, p.Arch} }

func (e *exact) each(ctx context.Context, from Position, f func(*Read) error) error {
	var page []Read
	var keys []meta.StanzaKey
	flush := func() error {
		if err := e.match(ctx, page, keys); err != nil {
			return err
		}
		for i := range page {
			if err := f(&page[i]); err != nil {
				return err
			}
		}
		page, keys = page[:0], keys[:0]
		return nil
	}
	at := 0
	for p, key := range e.d.EachStanza(e.format.SourceArch()) {
		if at++; at <= from.at {
			continue
		}
		page = append(page, Read{Package: p, Position: Position{mirror: e.d.Name, at: at - 1}})
		if keys = append(keys, key); len(page) < exactPage {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return flush()
}

// match marks the packages that the query matches. Their control data is in the metadata,
// unless the freeze was imported or the metadata no longer has the stanzas. Then it is in
// the indices of the freeze.
func (e *exact) match(ctx context.Context, page []Read, keys []meta.StanzaKey) error {
	switch {
	case e.q == nil:
		for i := range page {
			page[i].Asked = true
		}
		return nil
	case !e.q.Fields():
		for i := range page {
			page[i].Asked = e.q.Match(query.Package{Package: &page[i].Package, Compare: e.format.Compare})
		}
		return nil
	case e.matches == nil:
		ok, err := e.matchStanzas(ctx, page, keys)
		if ok || err != nil {
			return err
		}
		if err := e.matchIndices(ctx); err != nil {
			return err
		}
	}
	for i := range page {
		page[i].Asked = e.matches[idOf(&page[i].Package)]
	}
	return nil
}

// matchStanzas is match with stanzas of the metadata. ok is false if the metadata lacks
// one of them.
func (e *exact) matchStanzas(ctx context.Context, page []Read, keys []meta.StanzaKey) (ok bool, err error) {
	facts, err := e.c.meta.FactsByStanza(ctx, e.d.Name, keys)
	if err != nil {
		return false, err
	}
	pids := make([]meta.PID, len(facts))
	for i, f := range facts {
		if f == nil {
			return false, nil
		}
		pids[i] = f.PID
	}
	stanzas, err := e.c.meta.Stanzas(ctx, pids)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	for i := range page {
		rec := facts[i].Record
		rec.Bytes = stanzas[i]
		page[i].Asked = e.q.Match(matching(e.format, &page[i].Package, &rec))
	}
	return true, nil
}

// matchIndices finds the matching packages in the indices of the freeze.
func (e *exact) matchIndices(ctx context.Context) error {
	fm, err := recordOf(e.fr, e.d.Name)
	if err != nil {
		return err
	}
	listed := map[exactID]*api.Package{}
	for p := range e.d.Each(e.format.SourceArch()) {
		listed[idOf(&p)] = &p
	}
	e.matches = map[exactID]bool{}
	return e.c.eachDerived(ctx, e.fr, fm, func(_ repo.SuiteName, _ repo.Group, rec *repo.Record) error {
		described := repo.Describe(e.d.Name, rec)
		if p := listed[idOf(&described)]; p != nil && e.q.Match(matching(e.format, p, rec)) {
			e.matches[idOf(p)] = true
		}
		return nil
	})
}

// matching converts a package to the form that queries read.
func matching(f Format, p *api.Package, rec *repo.Record) query.Package {
	return query.Package{Package: p, Compare: f.Compare, Field: func(name string) (string, bool) { return f.Field(rec, name) }}
}

// eachOfSnapshot calls f for the packages of a snapshot that q (nil: all) may match, by
// name from the name from on. asked says whether q matches.
func (c *Client) eachOfSnapshot(ctx context.Context, snap *meta.Snapshot, q *query.Query, from string, f func(p api.Package, asked bool) error) error {
	format, err := c.cfg.Formats.Of(snap.Type)
	if err != nil {
		return err
	}
	gens, err := c.meta.Generations(ctx, snap)
	if err != nil {
		return err
	}
	components := catalog.ComponentsOf(gens)
	return freeze.EachAsked(ctx, c.meta, snap, q, from, func(e meta.Entry) error {
		p := components.Package(snap.Mirror, e)
		return f(p, q == nil || q.Match(matching(format, &p, &e.Record)))
	})
}

// eachOfWhole calls f for packages of a whole mirror of a freeze: from its generations, or
// from its tree if it was imported.
func (c *Client) eachOfWhole(ctx context.Context, fr *meta.Frozen, d *freeze.DocMirror, q *query.Query, from Position, f func(*Read) error) error {
	fm, err := recordOf(fr, d.Name)
	if err != nil {
		return err
	}
	states := fm.States()
	for _, snap := range states { // a whole mirror has exactly one state
		err := c.eachOfSnapshot(ctx, snap, q, from.name, func(p api.Package, asked bool) error {
			return f(&Read{p, asked, Position{mirror: d.Name, name: p.Name}})
		})
		if err != nil {
			return err
		}
	}
	if len(states) > 0 {
		return nil
	}
	format, err := c.cfg.Formats.Of(fm.Type)
	if err != nil {
		return err
	}
	at := 0
	return c.eachDerived(ctx, fr, fm, func(suite repo.SuiteName, g repo.Group, rec *repo.Record) error {
		if at++; at <= from.at {
			return nil
		}
		place := meta.Place{Suite: suite, Index: g.Index}
		e := meta.Entry{Fact: &meta.Fact{Record: *rec}, Places: []meta.Place{place}}
		p := catalog.Components{place: g.Component}.Package(d.Name, e)
		return f(&Read{p, q == nil || q.Match(matching(format, &p, rec)), Position{mirror: d.Name, at: at - 1}})
	})
}
