package control

import (
	"context"
	"errors"
	"slices"

	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/repo"
)

// matchPage is how many names are matched at once.
const matchPage = 1000

// matcher finds the stanzas of a mirror's history that match a query.
type matcher struct {
	c          *Control
	mirror     meta.MirrorName
	q          *query.Query
	format     Format
	components catalog.Components
}

// newMatcher returns a matcher, or nil if the mirror has no snapshot and is in no freeze.
func (c *Control) newMatcher(ctx context.Context, mirror meta.MirrorName, q *query.Query, frozen []*meta.Frozen) (*matcher, error) {
	m := &matcher{c: c, mirror: mirror, q: q, components: catalog.Components{}}
	latest, err := c.st.Latest(ctx, mirror)
	var typ string
	switch {
	case err == nil:
		typ = latest.Type
	case !errors.Is(err, meta.ErrNotFound):
		return nil, err
	default:
		if typ = frozenType(mirror, frozen); typ == "" {
			return nil, nil
		}
	}
	if m.format, err = c.cfg.Formats.Of(typ); err != nil {
		return nil, err
	}
	if q.Places() && latest != nil {
		m.components, err = c.catalog.Components(ctx, latest)
	}
	return m, err
}

// frozenType returns the type that freezes record for a mirror, or "".
func frozenType(mirror meta.MirrorName, frozen []*meta.Frozen) string {
	for _, f := range frozen {
		for _, m := range f.Mirrors {
			if m.Mirror == mirror {
				return m.Type
			}
		}
	}
	return ""
}

// matching returns, by name, the stanzas of the mirror, past or present, that have one of
// the names and match the query. read is the number of stanzas that were read.
func (m *matcher) matching(ctx context.Context, names []string) (found map[string]map[meta.PID]bool, read int, err error) {
	lists, err := m.c.st.FactsByName(ctx, m.mirror, names)
	if err != nil {
		return nil, 0, err
	}
	facts := slices.Concat(lists...)
	pids := make([]meta.PID, len(facts))
	for i, f := range facts {
		pids[i] = f.PID
	}
	var stanzas [][]byte
	if m.q.Fields() {
		if stanzas, err = m.c.st.Stanzas(ctx, pids); err != nil {
			return nil, 0, err
		}
	}
	var places [][]meta.Presence
	if m.q.Places() {
		if places, err = m.c.st.Presences(ctx, pids); err != nil {
			return nil, 0, err
		}
	}
	out := map[string]map[meta.PID]bool{}
	for i, f := range facts {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		rec := f.Record
		if stanzas != nil {
			rec.Bytes = stanzas[i]
		}
		p := repo.Describe(m.mirror, &rec)
		if places != nil {
			for _, at := range places[i] {
				component, err := m.component(ctx, at)
				if err != nil {
					return nil, 0, err
				}
				repo.AddPlace(&p, at.Suite, component)
			}
		}
		if !m.q.Match(asked(m.format, &p, &rec)) {
			continue
		}
		if out[f.Name] == nil {
			out[f.Name] = map[meta.PID]bool{}
		}
		out[f.Name][f.PID] = true
	}
	return out, len(facts), nil
}

// component returns the component of an index, which the newest snapshot need not have.
func (m *matcher) component(ctx context.Context, at meta.Presence) (string, error) {
	if c, ok := m.components[at.Place]; ok || len(at.Intervals) == 0 {
		return c, nil
	}
	g, err := m.c.st.Generation(ctx, m.mirror, at.Suite, at.Intervals[len(at.Intervals)-1].From)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return "", err
	}
	m.components[at.Place] = "" // where the generation was collected
	if err == nil {
		for _, gr := range g.Groups {
			m.components[meta.Place{Suite: at.Suite, Index: gr.Index}] = gr.Component
		}
	}
	return m.components[at.Place], nil
}
