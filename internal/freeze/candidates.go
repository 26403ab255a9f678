package freeze

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// prioritizer is a format whose suites say how readily their packages are
// installed, as apt's NotAutomatic does.
type prioritizer interface {
	// Priority is that of the packages of a suite with this root.
	Priority(root *repo.Root) int
}

// defaultPriority is that of suites that say nothing about it.
const defaultPriority = 500

// unversioned reports whether an entry leaves its version to us.
func unversioned(e *buildlist.Entry) bool {
	return e.Version == "" && e.Name != "" && e.Path == "" && !claims(e)
}

// candidates returns those of the packages of one name that the package manager
// would install: of each architecture the newest version in the suites of the
// highest priority. It chooses in each mirror, or across all of one type. reason
// says between which versions, if there was a choice.
func (z *Freezer) candidates(ctx context.Context, pl *plan, picks []*pick, across bool) (best []*pick, reason string, err error) {
	groups := map[string][]*pick{}
	var order []string
	for _, p := range picks {
		k := p.mirror
		if across {
			k = p.src.typ
		}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], p)
	}
	var reasons []string
	for _, k := range order {
		f, err := z.e.Format(groups[k][0].src.typ)
		if err != nil {
			return nil, "", err
		}
		ranked := make([]rankedPick, 0, len(groups[k]))
		for _, p := range groups[k] {
			prio, err := z.priority(ctx, f, p)
			if err != nil {
				return nil, "", err
			}
			ranked = append(ranked, rankedPick{p, prio})
		}
		kept, why := newestOf(f, ranked)
		best = append(best, kept...)
		if why != "" {
			reasons = append(reasons, why)
		}
	}
	return best, strings.Join(reasons, "; "), nil
}

type rankedPick struct {
	*pick
	priority int
}

// newestOf chooses within one group. Packages that fit every architecture compete
// with those of each.
func newestOf(f repo.Format, picks []rankedPick) (best []*pick, reason string) {
	var archs []string
	for _, p := range picks {
		if p.fact.Arch != f.AnyArch() && !slices.Contains(archs, p.fact.Arch) {
			archs = append(archs, p.fact.Arch)
		}
	}
	if len(archs) == 0 {
		archs = []string{f.AnyArch()}
	}
	for _, arch := range archs {
		top := -1
		for i, p := range picks {
			if p.fact.Arch != arch && p.fact.Arch != f.AnyArch() {
				continue
			}
			if top < 0 || p.priority > picks[top].priority ||
				p.priority == picks[top].priority && f.Compare(p.fact.Version, picks[top].fact.Version) > 0 {
				top = i
			}
		}
		for _, p := range picks {
			if (p.fact.Arch == arch || p.fact.Arch == f.AnyArch()) &&
				f.Compare(p.fact.Version, picks[top].fact.Version) == 0 && !slices.Contains(best, p.pick) {
				best = append(best, p.pick)
			}
		}
	}
	return best, versionsText(f, picks, best)
}

// versionsText says between which versions a choice was made; nothing if there is
// one version.
func versionsText(f repo.Format, picks []rankedPick, best []*pick) string {
	var versions []string
	low := false
	for _, p := range picks {
		if !slices.Contains(versions, p.fact.Version) {
			versions = append(versions, p.fact.Version)
		}
		low = low || f.Compare(p.fact.Version, best[0].fact.Version) > 0
	}
	if len(versions) < 2 {
		return ""
	}
	slices.SortFunc(versions, func(a, b string) int { return f.Compare(b, a) })
	word := "the newest of "
	if low {
		word = "the newest by the priority of its suite of "
	}
	return best[0].fact.Version + " is " + word + strings.Join(clipList(versions, 10), ", ")
}

// priority is the highest of a package's places.
func (z *Freezer) priority(ctx context.Context, f repo.Format, p *pick) (int, error) {
	rank, ok := f.(prioritizer)
	if !ok {
		return defaultPriority, nil
	}
	best := 0
	for _, place := range p.places {
		gen, ok := p.src.snap.Gen(place.Suite)
		if !ok {
			continue
		}
		root, _, _, err := z.e.Root(ctx, p.mirror, p.src.typ, place.Suite, gen)
		if err != nil {
			return 0, err
		}
		best = max(best, rank.Priority(root))
	}
	return best, nil
}

// contentsOf stands for the bytes of a package: all files of a source package.
func contentsOf(p *pick) string {
	var sums []string
	for _, f := range p.fact.Files {
		sums = append(sums, f.SHA256.String())
	}
	slices.Sort(sums)
	return strings.Join(sums, " ")
}

// candidateText describes a package of an ambiguous entry so that it can be told
// from the others: a source package by its description and all its files.
func candidateText(p api.Package) string {
	name := fmt.Sprintf("%s %s %s %s", p.Mirror, p.Name, p.Version, p.Arch)
	if len(p.Files) == 0 {
		return fmt.Sprintf("%s: %s (%s)", name, p.Path, p.SHA256)
	}
	files := make([]string, 0, len(p.Files))
	for _, f := range p.Files {
		files = append(files, fmt.Sprintf("%s (%s)", f.Path, f.SHA256))
	}
	return name + ": " + strings.Join(files, ", ")
}

// maxKeptLooks bounds the missing entries that are looked up in other snapshots:
// as many as an error lists.
const maxKeptLooks = 50

// noteKept looks for a snapshot that was not chosen and has a missing entry, and
// returns its id.
func (z *Freezer) noteKept(ctx context.Context, pl *plan, e *buildlist.Entry, m Missing) (string, error) {
	if pl.kept == nil {
		pl.kept = map[Missing]string{}
	}
	if id, ok := pl.kept[m]; ok || len(pl.kept) >= maxKeptLooks {
		return id, nil
	}
	id, err := z.keptWith(ctx, pl, e)
	pl.kept[m] = id
	return id, err
}

// keptWith returns the newest kept snapshot of the plan's mirrors that has what an
// entry names; nothing if none has.
func (z *Freezer) keptWith(ctx context.Context, pl *plan, e *buildlist.Entry) (string, error) {
	for _, mir := range pl.mirrors {
		typ := pl.sources[mir][0].typ
		if e.Ecosystem != "" && string(e.Ecosystem) != typ {
			continue
		}
		f, err := z.e.Format(typ)
		if err != nil {
			return "", err
		}
		if id, err := z.keptIn(ctx, f, mir, e); id != "" || err != nil {
			return id, err
		}
	}
	return "", nil
}

func (z *Freezer) keptIn(ctx context.Context, f repo.Format, mir string, e *buildlist.Entry) (id string, err error) {
	err = z.st.View(ctx, func(tx *bolt.Tx) error {
		id = ""
		facts, err := factsOf(tx, f, mir, e)
		if err != nil || len(facts) == 0 {
			return err
		}
		var before time.Time
		for {
			const page = 200
			snaps, err := tx.Snapshots(mir, before, page)
			if err != nil {
				return err
			}
			for _, snap := range snaps {
				for _, fact := range facts {
					places, err := tx.PlacesAt(snap, fact.PID)
					if err != nil {
						return err
					}
					if len(places) > 0 {
						id = snap.ID()
						return nil
					}
				}
			}
			if len(snaps) < page {
				return nil
			}
			before = snaps[len(snaps)-1].Timestamp
		}
	})
	return id, err
}

// factsOf lists what a mirror had under the digest or the name and version of an
// entry.
func factsOf(tx *bolt.Tx, f repo.Format, mir string, e *buildlist.Entry) ([]*meta.Fact, error) {
	if e.SHA256 != "" {
		d, err := cas.ParseDigest(e.SHA256)
		if err != nil {
			return nil, err
		}
		return tx.ByDigest(d)
	}
	facts, err := tx.ByName(mir, e.Name)
	return slices.DeleteFunc(facts, func(fact *meta.Fact) bool { return !matches(f, e, fact) }), err
}

// keptHint says how to freeze from the snapshots that have what is missing, too.
func (pl *plan) keptHint() string {
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
	args := pl.req.Mirrors
	if len(args) == 0 {
		args = pl.mirrors
	}
	args = append(slices.Clone(args), ids...)
	return "freeze from the snapshots that have what is missing, too: --mirror " + strings.Join(args, " --mirror ") + more
}

// noteManifest keeps what was skipped in a build manifest, for the report.
func (pl *plan) noteManifest(name string, m *buildlist.Manifest) {
	if m.NoteCount == 0 {
		return
	}
	if pl.report == nil {
		pl.report = &api.Report{}
	}
	pl.report.NoteCount += m.NoteCount
	for _, n := range m.Notes {
		if len(pl.report.Notes) >= buildlist.MaxNotes {
			return
		}
		where := name
		if n.Line > 0 {
			where = fmt.Sprintf("%s:%d", name, n.Line)
		}
		pl.report.Notes = append(pl.report.Notes, where+": "+n.Text)
	}
}

// hintOf returns the hint of a refused freeze.
func hintOf(err error) string {
	var r *ReportError
	if errors.As(err, &r) {
		return r.Hint
	}
	return ""
}
