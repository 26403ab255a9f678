package plan

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/repo"
)

// namedEntry is an entry of a build manifest, or a package that an option names.
type namedEntry struct {
	file   string // the build manifest or the option
	entry  *buildlist.Entry
	newest bool   // --package without a version: entry has the chosen version
	reason string // how the version was chosen
}

// planEntries resolves manifests and named packages.
func (p *Planner) planEntries(ctx context.Context, pl *Plan) error {
	if err := p.chooseStates(ctx, pl); err != nil {
		return err
	}
	entries, err := pl.parseManifests()
	if err != nil {
		return err
	}
	asked, err := p.asked(ctx, pl)
	if err != nil {
		return err
	}
	if pl.Request.WithDeps {
		roots := rootsOf(pl.Request.Packages, entries)
		for _, pick := range asked {
			roots = append(roots, fmt.Sprintf("%s:%s=%s", pick.Name, pick.Arch, pick.Version))
		}
		found, err := p.withDeps(ctx, pl, roots)
		if err != nil {
			return err
		}
		// Entries with sizes or digests are compared with the stored files.
		entries = slices.DeleteFunc(entries, func(e namedEntry) bool { return !namesBytes(e.entry) })
		for i := range found {
			entries = append(entries, namedEntry{file: "--with-deps", entry: &found[i]})
		}
		return p.resolveEntries(ctx, pl, entries)
	}
	for _, pick := range asked {
		pl.add(pick)
	}
	named, err := p.namedPackages(ctx, pl)
	if err != nil {
		return err
	}
	return p.resolveEntries(ctx, pl, append(entries, named...))
}

// asked returns the binary packages of the chosen states that the query matches.
func (p *Planner) asked(ctx context.Context, pl *Plan) (picks []*Pick, err error) {
	if pl.Request.Query == "" {
		return nil, nil
	}
	q, err := query.Parse(pl.Request.Query)
	if err != nil {
		return nil, err
	}
	for _, snap := range pl.states() {
		f, err := p.cfg.Formats.Of(snap.Type)
		if err != nil {
			return nil, err
		}
		gens, err := p.meta.Generations(ctx, snap)
		if err != nil {
			return nil, err
		}
		components := catalog.ComponentsOf(gens)
		err = freeze.EachAsked(ctx, p.meta, snap, q, "", func(e meta.Entry) error {
			if e.Kind == repo.KindSource {
				return nil // sources are taken with their binary packages
			}
			described := components.Package(snap.Mirror, e)
			if q.Match(query.Package{Package: &described, Compare: f.Compare, Field: func(name string) (string, bool) { return f.Field(&e.Record, name) }}) {
				picks = append(picks, &Pick{Entry: e, From: snap})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	pl.unasked = len(picks) == 0
	return picks, nil
}

// parseManifests parses the build manifests of the request. freeze.ErrUsage.
func (pl *Plan) parseManifests() (entries []namedEntry, err error) {
	for _, m := range pl.Request.Manifests {
		parsed, err := buildlist.Parse(m.Name, bytes.NewReader(m.Data), buildlist.Format(pl.Request.Format))
		if errors.Is(err, buildlist.ErrEmpty) {
			pl.unlisted = append(pl.unlisted, m.Name)
			continue
		} else if err != nil {
			return nil, fmt.Errorf("%w: %w", freeze.ErrUsage, err)
		}
		pl.noteManifest(m.Name, parsed)
		for i := range parsed.Entries {
			e := &parsed.Entries[i]
			if e.Arch == "" && !e.Source {
				e.Arch = parsed.Arch
			}
			entries = append(entries, namedEntry{file: m.Name, entry: e})
		}
	}
	return entries, nil
}

// noteManifest records the skipped parts of a build manifest for the report.
func (pl *Plan) noteManifest(name string, m *buildlist.Manifest) {
	if m.NoteCount == 0 {
		return
	}
	r := pl.report()
	r.NoteCount += m.NoteCount
	for _, n := range m.Notes {
		if len(r.Notes) >= buildlist.MaxNotes {
			return
		}
		where := name
		if n.Line > 0 {
			where = fmt.Sprintf("%s:%d", name, n.Line)
		}
		r.Notes = append(r.Notes, where+": "+n.Text)
	}
}

// rootsOf returns the packages whose dependencies are resolved: the named ones, and those
// in manifests.
func rootsOf(packages []string, entries []namedEntry) []string {
	roots := slices.Clone(packages)
	for _, e := range entries {
		if e.entry.Source || e.entry.Name == "" {
			continue
		}
		root := e.entry.Name
		if e.entry.Arch != "" {
			root += ":" + e.entry.Arch
		}
		if e.entry.Version != "" {
			root += "=" + e.entry.Version
		}
		roots = append(roots, root)
	}
	return roots
}

// namedPackages converts --package options to entries, with the newest version in
// the chosen states if none is given.
func (p *Planner) namedPackages(ctx context.Context, pl *Plan) ([]namedEntry, error) {
	out := make([]namedEntry, len(pl.Request.Packages))
	var open []int // entries without a version
	var names []string
	for i, arg := range pl.Request.Packages {
		name, arch, version := splitPackage(arg)
		e := &buildlist.Entry{Name: name, Arch: arch, Version: version, Size: -1, Raw: arg}
		out[i] = namedEntry{file: "--package", entry: e, newest: !strings.Contains(arg, "=")}
		if version == "" {
			open, names = append(open, i), append(names, name)
		}
	}
	found, err := p.picksByName(ctx, pl.states(), names)
	if err != nil {
		return nil, err
	}
	for n, i := range open {
		e := out[i].entry
		if e.Version, out[i].reason, err = p.newest(ctx, e, found[n]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// splitPackage splits NAME[:ARCH][=VERSION].
func splitPackage(s string) (name, arch, version string) {
	name, version, _ = strings.Cut(s, "=")
	name, arch, _ = strings.Cut(name, ":")
	return name, arch, version
}

// newest returns the version of a package that its package manager would choose from all
// chosen states, and how it was chosen. all contains the packages of this name in the
// states. freeze.ErrMissing.
func (p *Planner) newest(ctx context.Context, e *buildlist.Entry, all []*Pick) (version, reason string, err error) {
	var fitting []*Pick
	for _, pick := range all {
		f, err := p.cfg.Formats.Of(pick.From.Type)
		if err != nil {
			return "", "", err
		}
		if history.Fits(f, e, &pick.Record) {
			fitting = append(fitting, pick)
		}
	}
	best, reason, err := p.candidates(ctx, fitting, true)
	if err != nil {
		return "", "", err
	}
	if len(best) == 0 {
		return "", "", fmt.Errorf("%w: no package %s in the chosen snapshots", freeze.ErrMissing, e.Name)
	}
	f, err := p.cfg.Formats.Of(best[0].From.Type)
	if err != nil {
		return "", "", err
	}
	newest := slices.MaxFunc(best, func(a, b *Pick) int { return f.Compare(a.Version, b.Version) })
	return newest.Version, reason, nil
}

// resolveEntries finds each entry in the chosen states: by digest, or otherwise by exact
// name, version and architecture.
func (p *Planner) resolveEntries(ctx context.Context, pl *Plan, entries []namedEntry) error {
	r := pl.report()
	for page := range slices.Chunk(entries, pageSize) {
		found, err := p.find(ctx, pl, page)
		if err != nil {
			return err
		}
		for i, e := range page {
			if err := p.resolveEntry(ctx, pl, e, found[i]); err != nil {
				return err
			}
		}
		if err := p.noteKept(ctx, pl, page, r.Entries[len(r.Entries)-len(page):]); err != nil {
			return err
		}
	}
	return pl.Refuse(pl.ambiguous())
}

// resolveEntry resolves an entry to packages and reports it.
func (p *Planner) resolveEntry(ctx context.Context, pl *Plan, e namedEntry, hit found) (err error) {
	r := pl.Report
	rep := api.ReportEntry{Manifest: e.file, Line: e.entry.Line, Entry: e.entry.Raw}
	picks, by := hit.picks, hit.by
	if by != "hash" {
		if picks, rep.Reason, err = p.holdAgainst(ctx, pl, e, picks); err != nil {
			return err
		}
	}
	chosen := e.reason
	if unversioned(e.entry) {
		by = "name"
		if picks, chosen, err = p.candidates(ctx, picks, false); err != nil {
			return err
		}
	}
	switch {
	case len(picks) == 0:
		rep.State = "missing"
		r.Missing++
		pl.miss(missingOf(e.entry), rep.Reason)
	case severalContents(picks):
		rep.State = "ambiguous"
		r.Ambiguous++
		for _, o := range picks {
			rep.Candidates = append(rep.Candidates, o.describe())
		}
	default:
		rep.State, rep.By, rep.Reason = "resolved", by, chosen
		r.Resolved++
		if by == "name" || e.newest {
			r.Newest++
		}
		for _, o := range picks {
			pl.add(o)
			rep.Places = append(rep.Places, o.describe())
		}
		if len(picks) > 1 || severalSuites(picks) {
			r.Several++
		}
	}
	r.Entries = append(r.Entries, rep)
	return nil
}

// missingOf returns the missing entry for an entry of a manifest.
func missingOf(e *buildlist.Entry) freeze.Missing {
	return freeze.Missing{Name: cmp.Or(e.Name, path.Base(e.Path), e.SHA256), Version: e.Version, Arch: e.Arch, Source: e.Source}
}

// miss records that an entry is missing, with the reason if it is known.
func (pl *Plan) miss(m freeze.Missing, why string) {
	pl.Missing = append(pl.Missing, m)
	if why == "" {
		return
	}
	if pl.why == nil {
		pl.why = map[freeze.Missing]string{}
	}
	pl.why[m] = why
}

// ambiguous refuses ambiguous entries. The error names the first.
func (pl *Plan) ambiguous() error {
	r := pl.Report
	i := slices.IndexFunc(r.Entries, func(e api.ReportEntry) bool { return e.State == "ambiguous" })
	if i < 0 {
		return nil
	}
	var texts []string
	for _, c := range r.Entries[i].Candidates {
		texts = append(texts, candidateText(c))
	}
	return &freeze.ReportError{Report: r, Hint: pl.ambiguousHint(r.Entries[i].Candidates), Err: fmt.Errorf("%w: %s for different contents; %s is one of:\n  %s", freeze.ErrAmbiguous,
		freeze.Count(r.Ambiguous, "entry stands", "entries stand"), r.Entries[i].Entry, strings.Join(texts, "\n  "))}
}

// ambiguousHint says how to choose among candidates that are not distinguished by their
// mirrors; "" if the mirrors distinguish them.
func (pl *Plan) ambiguousHint(candidates []api.Package) string {
	mirror := candidates[0].Mirror
	switch m := pl.Mirror(meta.MirrorName(mirror)); {
	case slices.ContainsFunc(candidates, func(c api.Package) bool { return c.Mirror != mirror }):
		return ""
	case m != nil && len(m.States) > 1:
		return "choose one snapshot of the mirror: --mirror " + mirror + "@TIME"
	}
	switch source := candidates[0].Arch == "source"; {
	case source && pl.Request.DryRun:
		return "leave out source packages with --no-sources"
	case source:
		return "list every candidate with --dry-run, or leave out source packages with --no-sources"
	}
	return "choose one by its SHA-256, in a build manifest: --format sha256sums"
}

func severalSuites(picks []*Pick) bool {
	seen := map[string]bool{}
	for _, p := range picks {
		for _, pl := range p.Places {
			seen[string(p.From.Mirror)+"\x00"+string(pl.Suite)] = true
		}
	}
	return len(seen) > 1
}

func severalContents(picks []*Pick) bool {
	return slices.ContainsFunc(picks, func(p *Pick) bool { return contentsOf(p) != contentsOf(picks[0]) })
}

// contentsOf returns a key for the bytes of a package: for a source package, those of all
// its files.
func contentsOf(p *Pick) string {
	var sums []string
	for _, f := range p.Files {
		sums = append(sums, f.SHA256.String())
	}
	slices.Sort(sums)
	return strings.Join(sums, " ")
}

// candidateText describes a package of an ambiguous entry so that it can be distinguished
// from the others. For a source package, it contains all files.
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
