package plan

import (
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
)

// maxKeptLooks limits the missing entries that are looked up in other snapshots. It is
// the number of entries that an error lists.
const maxKeptLooks = 50

// noteKept looks up the missing entries of a page in snapshots that were not
// chosen, and adds the results to the reports of the entries.
func (p *Planner) noteKept(ctx context.Context, pl *Plan, page []namedEntry, reports []api.ReportEntry) error {
	if pl.kept == nil {
		pl.kept = map[freeze.Missing]string{}
	}
	var looks []namedEntry
	for i, e := range page {
		m := missingOf(e.entry)
		if _, ok := pl.kept[m]; reports[i].State != "missing" || ok || len(pl.kept) >= maxKeptLooks {
			continue
		}
		pl.kept[m] = ""
		looks = append(looks, e)
	}
	for _, m := range pl.Mirrors {
		ids, err := p.keptIn(ctx, m, looks)
		if err != nil {
			return err
		}
		for i, e := range looks {
			if k := missingOf(e.entry); pl.kept[k] == "" {
				pl.kept[k] = ids[i]
			}
		}
	}
	for i, e := range page {
		if reports[i].State == "missing" {
			reports[i].Snapshot = pl.kept[missingOf(e.entry)]
		}
	}
	return nil
}

// keptIn returns, for each entry, the ID of the newest kept snapshot of a mirror that
// contains it, or "".
func (p *Planner) keptIn(ctx context.Context, m *Mirror, looks []namedEntry) ([]string, error) {
	ids := make([]string, len(looks))
	if len(looks) == 0 {
		return ids, nil
	}
	stanzas, err := p.stanzasOf(ctx, m, looks)
	if err != nil {
		return nil, err
	}
	snaps, err := p.meta.NewestWith(ctx, m.Name, stanzas)
	if err != nil {
		return nil, err
	}
	for i, snap := range snaps {
		if snap != nil {
			ids[i] = snap.ID()
		}
	}
	return ids, nil
}

// stanzasOf returns, for each entry, the stanzas that a mirror has or had with its
// SHA-256 or, without one, with its name and version.
func (p *Planner) stanzasOf(ctx context.Context, m *Mirror, looks []namedEntry) ([][]meta.PID, error) {
	f, err := p.cfg.Formats.Of(m.Type)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(looks))
	digests := make([]cas.Digest, len(looks))
	for i, e := range looks {
		if e.entry.SHA256 == "" {
			names[i] = e.entry.Name
		} else if digests[i], err = cas.ParseDigest(e.entry.SHA256); err != nil {
			return nil, err
		}
	}
	named, err := p.meta.FactsByName(ctx, m.Name, names)
	if err != nil {
		return nil, err
	}
	owned, err := p.meta.OwnersOf(ctx, digests)
	if err != nil {
		return nil, err
	}
	out := make([][]meta.PID, len(looks))
	for i, e := range looks {
		if e.entry.Ecosystem != "" && string(e.entry.Ecosystem) != m.Type {
			continue
		}
		for _, fact := range named[i] {
			if history.Fits(f, e.entry, &fact.Record) {
				out[i] = append(out[i], fact.PID)
			}
		}
		for _, o := range owned[i] {
			if o.Mirror == m.Name {
				out[i] = append(out[i], o.PID)
			}
		}
	}
	return out, nil
}

// keptHint returns the hint to also freeze from the snapshots that contain the missing
// packages.
func (pl *Plan) keptHint() string {
	var ids []string
	for _, id := range pl.kept {
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	slices.Sort(ids)
	more := ""
	if len(ids) > 5 {
		ids, more = ids[:5], " …"
	}
	args := slices.Clone(pl.Request.Mirrors)
	if len(args) == 0 {
		for _, m := range pl.Mirrors {
			args = append(args, string(m.Name))
		}
	}
	args = append(args, ids...)
	return "also freeze from the snapshots that have the missing packages: --mirror " + strings.Join(args, " --mirror ") + more
}
