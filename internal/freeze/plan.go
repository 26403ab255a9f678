package freeze

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
)

// plan works out what a freeze takes: the manifests given, else the recording
// of its name, else whole mirrors.
func (z *Freezer) plan(ctx context.Context, req *api.FreezeRequest) (*plan, error) {
	pl := &plan{
		req: req, sources: map[string][]*source{}, whole: map[string]bool{}, all: map[string]bool{}, picks: map[string][]*pick{}, proof: map[string][]carried{},
	}
	kinds := 0
	for _, set := range []bool{len(req.Manifests) > 0, req.Recording != "", len(req.Packages) > 0, req.Base != ""} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds > 1 && !(len(req.Manifests) > 0 && len(req.Packages) > 0 && kinds == 2):
		return nil, fmt.Errorf("%w: manifests or packages, a recording, and a base exclude each other", ErrUsage)
	case req.Base == "" && (len(req.Replace) > 0 || len(req.Remove) > 0):
		return nil, fmt.Errorf("%w: replace and remove need a base", ErrUsage)
	case req.WithDeps && len(req.Packages)+len(req.Manifests) == 0:
		return nil, fmt.Errorf("%w: dependencies are resolved for packages that are named, or listed in a manifest", ErrUsage)
	case req.Recording != "" && len(req.Mirrors) > 0:
		return nil, fmt.Errorf("%w: a recording says itself which mirrors it shows", ErrUsage)
	}
	recording := req.Recording
	if kinds == 0 && !req.NoRecording && !req.All {
		err := z.st.View(ctx, func(tx *bolt.Tx) error {
			_, err := tx.Recording(req.Name)
			return err
		})
		if err == nil {
			recording = req.Name
			req.Recording = recording
		} else if !errors.Is(err, meta.ErrNotFound) {
			return nil, err
		}
	}
	var err error
	switch {
	case recording != "":
		err = z.planRecording(ctx, pl, recording)
	case req.Base != "":
		err = z.planBase(ctx, pl)
	default:
		if err = z.chooseMirrors(ctx, pl); err != nil {
			return nil, err
		}
		if kinds == 0 {
			err = z.planWhole(ctx, pl)
		} else {
			err = z.planEntries(ctx, pl)
		}
	}
	if err != nil {
		return nil, err
	}
	if !req.NoSources && !pl.noSources {
		if err := z.addSources(ctx, pl); err != nil {
			return nil, err
		}
	}
	if err := pl.refuse(checkMissing(pl)); err != nil {
		return nil, err
	}
	empty, err := z.checkEmpty(ctx, pl)
	if err != nil {
		return nil, err
	}
	return pl, pl.refuse(empty)
}

// refuse returns why the freeze cannot be made. A dry run keeps the first reason
// and goes on, so that it reports everything before it ends like the real run.
func (pl *plan) refuse(err error) error {
	if err == nil || !pl.req.DryRun {
		return err
	}
	if pl.refused == nil {
		pl.refused = err
	}
	return nil
}

// checkEmpty returns as refused why nobody can want this freeze: it, or what one
// of its parts asks for, has no package.
func (z *Freezer) checkEmpty(ctx context.Context, pl *plan) (refused, err error) {
	switch {
	case pl.req.AllowEmpty, len(pl.missing) > 0: // what is missing was allowed to be, and is recorded
		return nil, nil
	case len(pl.unlisted) > 0:
		return fmt.Errorf("%w: build manifest %s lists no package", ErrEmpty, strings.Join(pl.unlisted, ", ")), nil
	case len(pl.unmatched) > 0:
		return fmt.Errorf("%w: the configured globs (packages) of mirror %s match no package", ErrEmpty, strings.Join(pl.unmatched, ", ")), nil
	}
	for _, name := range pl.mirrors {
		if len(pl.picks[name]) > 0 {
			return nil, nil
		}
		if !pl.whole[name] {
			continue
		}
		for _, src := range pl.sources[name] {
			gens, err := z.generations(ctx, src)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(gens, func(g *meta.Generation) bool { return g.Packages+g.Sources > 0 }) {
				return nil, nil
			}
		}
	}
	if pl.req.Recording != "" {
		return fmt.Errorf("%w: recording %s noted no package", ErrEmpty, pl.req.Recording), nil
	}
	return fmt.Errorf("%w: %s would hold no package of %s", ErrEmpty, pl.req.Name, strings.Join(pl.mirrors, ", ")), nil
}

// generations reads the generations of a source's suites.
func (z *Freezer) generations(ctx context.Context, src *source) (out []*meta.Generation, err error) {
	err = z.st.View(ctx, func(tx *bolt.Tx) error {
		out = nil
		for _, e := range src.snap.Suites {
			g, err := tx.Generation(src.mirror, e.Suite, e.Gen)
			if err != nil {
				return err
			}
			out = append(out, g)
		}
		return nil
	})
	return out, err
}

// hasSources reports whether a source has indices of source packages.
func (z *Freezer) hasSources(ctx context.Context, src *source) (bool, error) {
	format, err := z.e.Format(src.typ)
	if err != nil {
		return false, err
	}
	gens, err := z.generations(ctx, src)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(gens, func(g *meta.Generation) bool {
		return g.Sources > 0 || slices.ContainsFunc(g.Groups, func(gr meta.Group) bool { return gr.Packages && gr.Arch == format.SourceArch() })
	}), nil
}

func checkMissing(pl *plan) error {
	if len(pl.missing) == 0 || pl.req.AllowMissing {
		return nil
	}
	var names []string
	for _, m := range pl.missing {
		if slices.Contains(pl.lacking, m) {
			continue // the base was frozen without it
		}
		name := m.text()
		if why := pl.why[m]; why != "" {
			name += " (" + why + ")"
		} else if id := pl.kept[m]; id != "" {
			name += " (" + id + " has it)"
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	names = slices.Compact(names)
	where := "in none of the chosen snapshots"
	if len(pl.req.Manifests)+len(pl.req.Packages) == 0 && pl.req.Recording == "" && pl.req.Base == "" {
		where = "of no use in the chosen snapshots" // of whole mirrors
	}
	return &ReportError{Report: pl.report, Hint: pl.keptHint(), Err: fmt.Errorf("%w: %s %s:\n  %s", ErrMissing, countOf(len(names), "entry is", "entries are"), where, strings.Join(clipList(names, 50), "\n  "))}
}

// countOf is a number with the words for one and for many.
func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func clipList(l []string, max int) []string {
	if len(l) <= max {
		return l
	}
	return append(slices.Clone(l[:max]), fmt.Sprintf("… and %d more", len(l)-max))
}

// chooseMirrors picks the snapshots asked for, of which several may be of one
// mirror, or else the newest of every configured mirror. mirror.ErrNoSnapshot.
func (z *Freezer) chooseMirrors(ctx context.Context, pl *plan) error {
	if len(pl.req.Mirrors) == 0 {
		snaps, err := z.e.LatestOfAll(ctx)
		for _, snap := range snaps {
			pl.use(snap)
		}
		return err
	}
	for _, ref := range pl.req.Mirrors {
		name, at, dated := strings.Cut(ref, "@")
		if _, err := z.e.Mirror(name); err != nil {
			return err
		}
		if !dated {
			at = "latest"
		}
		r, err := z.resolve(ctx, pl, name+"@"+at)
		if err != nil {
			return err
		}
		snap := r.Snapshot
		if slices.ContainsFunc(pl.sources[name], func(s *source) bool { return s.snap.Timestamp.Equal(snap.Timestamp) }) {
			return fmt.Errorf("%w: snapshot %s is named twice", ErrUsage, snap.ID())
		}
		pl.use(snap)
	}
	return nil
}

// resolve finds what a reference in the request names, and passes the notice on.
func (z *Freezer) resolve(ctx context.Context, pl *plan, ref string) (mirror.Ref, error) {
	r, notice, err := z.e.ResolvePast(ctx, ref)
	if notice != "" && !slices.Contains(pl.warnings, notice) {
		pl.warnings = append(pl.warnings, notice)
	}
	return r, err
}

// snapshot resolves a reference that must be a mirror's snapshot.
func (z *Freezer) snapshot(ctx context.Context, ref string) (*meta.Snapshot, error) {
	r, err := z.e.ResolveRef(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Snapshot == nil {
		return nil, fmt.Errorf("%w: %s is not a snapshot of a mirror", ErrUsage, ref)
	}
	return r.Snapshot, nil
}

func (pl *plan) use(snap *meta.Snapshot) *source {
	src := &source{mirror: snap.Mirror, typ: snap.Type, snap: snap}
	if !slices.Contains(pl.mirrors, snap.Mirror) {
		pl.mirrors = append(pl.mirrors, snap.Mirror)
	}
	pl.sources[snap.Mirror] = append(pl.sources[snap.Mirror], src)
	if pl.picks[snap.Mirror] == nil {
		pl.picks[snap.Mirror] = []*pick{}
	}
	return src
}

// planWhole takes whole mirrors. One with package globs, with several snapshots,
// or whose sources are to be left out, is taken exactly, since none of its indices
// names just the packages that the freeze shall have; likewise one whose indices
// send clients to another server.
func (z *Freezer) planWhole(ctx context.Context, pl *plan) error {
	for _, name := range pl.mirrors {
		m, err := z.e.Mirror(name)
		if err != nil {
			return err
		}
		exact := len(m.Packages) > 0 || len(pl.sources[name]) > 1
		for _, src := range pl.sources[name] {
			if !exact && pl.req.NoSources {
				if exact, err = z.hasSources(ctx, src); err != nil {
					return err
				}
			}
			if !exact {
				bases, err := z.e.AlternateBases(ctx, src.snap)
				if err != nil {
					return err
				}
				exact = len(bases) > 0
			}
		}
		f, err := z.e.Format(m.Type)
		if err != nil {
			return err
		}
		err = z.eachUnusable(ctx, pl, name, func(r *repo.Record) {
			e := missingStanza(f, r)
			if exact && (!f.Match(m, r) || e.Source && pl.req.NoSources) {
				return
			}
			pl.missing = append(pl.missing, e)
			pl.because(e, "no client can install it")
		})
		if err != nil {
			return err
		}
		if !exact {
			pl.whole[name] = true
			continue
		}
		pl.all[name] = len(m.Packages) == 0
		for _, src := range pl.sources[name] {
			err := z.e.EachPackage(ctx, src.snap, func(en meta.Entry) error {
				if f.Match(m, &en.Record) && (en.Kind != repo.KindSource || !pl.req.NoSources) {
					pl.add(&pick{mirror: name, fact: en.Fact, places: en.Places, src: src})
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if len(pl.picks[name]) == 0 {
			pl.unmatched = append(pl.unmatched, name)
		}
	}
	return nil
}

// eachUnusable calls f for each stanza of a mirror's part of the plan that no client
// can install.
func (z *Freezer) eachUnusable(ctx context.Context, pl *plan, name string, f func(*repo.Record)) error {
	for _, src := range pl.sources[name] {
		for after := []byte(nil); ; {
			var page []meta.Entry
			err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
				page, after, err = tx.Unusable(src.snap, after, 1000)
				return err
			})
			if err != nil {
				return err
			}
			for _, en := range page {
				f(&en.Record)
			}
			if after == nil {
				break
			}
		}
	}
	return nil
}

// missingStanza is the entry for a stanza that no client can install.
func missingStanza(f repo.Format, r *repo.Record) Missing {
	m := Missing{Name: r.Name, Version: r.Version, Arch: r.Arch}
	if m.Source = r.Arch == f.SourceArch(); m.Source {
		m.Arch = ""
	}
	return m
}

// because notes why an entry is missing.
func (pl *plan) because(m Missing, why string) {
	if pl.why == nil {
		pl.why = map[Missing]string{}
	}
	pl.why[m] = why
}

// add takes a stanza, once.
func (pl *plan) add(p *pick) {
	if pl.taken == nil {
		pl.taken = map[pickKey]*pick{}
		for _, picks := range pl.picks {
			for _, o := range picks {
				pl.taken[pickKey{o.mirror, o.fact.Digest}] = o
			}
		}
	}
	k := pickKey{p.mirror, p.fact.Digest}
	o := pl.taken[k]
	if o == nil {
		pl.taken[k] = p
		pl.picks[p.mirror] = append(pl.picks[p.mirror], p)
		return
	}
	for _, place := range p.places {
		if !slices.Contains(o.places, place) {
			o.places = append(o.places, place)
		}
	}
}

// drop takes out what f matches and tells how many that were.
func (pl *plan) drop(f func(*pick) bool) (n int) {
	for mir, picks := range pl.picks {
		pl.picks[mir] = slices.DeleteFunc(picks, func(p *pick) bool {
			if f(p) {
				n++
				return true
			}
			return false
		})
	}
	pl.taken = nil
	return n
}

// planRecording takes what a recording's build fetched.
func (z *Freezer) planRecording(ctx context.Context, pl *plan, name string) error {
	var rec *meta.Recording
	var entries []meta.RecordEntry
	err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
		if rec, err = tx.Recording(name); err != nil {
			return err
		}
		entries, err = tx.RecordEntries(name)
		return err
	})
	if err != nil {
		return err
	}
	if rec.Stopped.IsZero() {
		return fmt.Errorf("recording %s %w", name, ErrRunning)
	}
	for _, pin := range rec.Pins {
		snap, err := z.snapshot(ctx, pin.Mirror+"@"+meta.FormatTimestamp(pin.Timestamp))
		if err != nil {
			return err
		}
		pl.use(snap)
	}
	pl.report = &api.Report{}
	for _, e := range entries {
		src := pl.sources[e.Mirror]
		if len(src) == 0 {
			continue
		}
		var hit *pick
		err := z.st.View(ctx, func(tx *bolt.Tx) error {
			h, err := tx.PathAt(src[0].snap, e.Path)
			if err != nil {
				return err
			}
			if h.File.SHA256 != e.SHA256 {
				return fmt.Errorf("%w: %s was fetched with SHA-256 %s, the pinned snapshot has %s", ErrAmbiguous, e.Path, e.SHA256, h.File.SHA256)
			}
			places, err := tx.PlacesAt(src[0].snap, h.Fact.PID)
			hit = &pick{mirror: e.Mirror, fact: h.Fact, places: places, src: src[0]}
			return err
		})
		entry := api.ReportEntry{Manifest: "recording " + name, Entry: e.Path, State: "resolved", By: "hash"}
		if errors.Is(err, meta.ErrNotFound) {
			entry.State = "missing"
			pl.report.Missing++
			pl.missing = append(pl.missing, Missing{Name: e.Path})
		} else if err != nil {
			return err
		} else {
			pl.add(hit)
			entry.Places = []api.Package{apiPackage(hit)}
			pl.report.Resolved++
		}
		pl.report.Entries = append(pl.report.Entries, entry)
	}
	return nil
}

func apiPackage(p *pick) api.Package {
	out := api.Package{Mirror: p.mirror, Name: p.fact.Name, Version: p.fact.Version, Arch: p.fact.Arch}
	for _, pl := range p.places {
		if !slices.Contains(out.Suites, string(pl.Suite)) {
			out.Suites = append(out.Suites, string(pl.Suite))
		}
	}
	if p.fact.Kind != repo.KindSource && len(p.fact.Files) > 0 {
		f := p.fact.Files[0]
		out.Path, out.Size, out.SHA256 = f.Path, f.Size, f.SHA256.String()
	} else {
		for _, f := range p.fact.Files {
			out.Files = append(out.Files, api.File{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String()})
			out.Size += f.Size
		}
	}
	if len(p.fact.Sources) > 0 && p.fact.Kind != repo.KindSource {
		out.Source, out.SourceVersion = p.fact.Sources[0].Name, p.fact.Sources[0].Version
	}
	return out
}

// planEntries resolves manifests and packages that are named.
func (z *Freezer) planEntries(ctx context.Context, pl *plan) error {
	var entries []namedEntry
	for _, m := range pl.req.Manifests {
		parsed, err := buildlist.Parse(m.Name, bytes.NewReader(m.Data), buildlist.Format(pl.req.Format))
		if errors.Is(err, buildlist.ErrEmpty) {
			pl.unlisted = append(pl.unlisted, m.Name)
			continue
		} else if err != nil {
			return fmt.Errorf("%w: %w", ErrUsage, err)
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
	if pl.req.WithDeps {
		// What the manifests list are the packages to resolve for.
		roots := slices.Clone(pl.req.Packages)
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
		found, err := z.withDeps(ctx, pl, roots)
		if err != nil {
			return err
		}
		// Those that name bytes are held against what is there.
		entries = slices.DeleteFunc(entries, func(e namedEntry) bool { return !claims(e.entry) })
		for i := range found {
			entries = append(entries, namedEntry{file: "--with-deps", entry: &found[i]})
		}
		return z.resolveEntries(ctx, pl, entries)
	}
	named, err := z.namedPackages(ctx, pl)
	if err != nil {
		return err
	}
	return z.resolveEntries(ctx, pl, append(entries, named...))
}

type namedEntry struct {
	file   string
	entry  *buildlist.Entry
	newest bool   // --package without a version: entry has the one that was chosen
	reason string // how it was chosen
}

// namedPackages turns --package into entries: the newest version in the chosen
// snapshots where none is given, with what it depends on where that is asked.
func (z *Freezer) namedPackages(ctx context.Context, pl *plan) ([]namedEntry, error) {
	var out []namedEntry
	for _, arg := range pl.req.Packages {
		name, arch, version := splitPackage(arg)
		reason := ""
		if version == "" {
			var err error
			if version, reason, err = z.newest(ctx, pl, name, arch); err != nil {
				return nil, err
			}
		}
		e := &buildlist.Entry{Name: name, Arch: arch, Version: version, Size: -1, Raw: arg}
		out = append(out, namedEntry{file: "--package", entry: e, newest: !strings.Contains(arg, "="), reason: reason})
	}
	return out, nil
}

// splitPackage takes NAME[:ARCH][=VERSION] apart.
func splitPackage(s string) (name, arch, version string) {
	name, version, _ = strings.Cut(s, "=")
	name, arch, _ = strings.Cut(name, ":")
	return name, arch, version
}

// newest returns the version of a package that its package manager would choose
// from all chosen snapshots, and how it was chosen.
func (z *Freezer) newest(ctx context.Context, pl *plan, name, arch string) (version, reason string, err error) {
	var all []*pick
	for _, mir := range pl.mirrors {
		for _, src := range pl.sources[mir] {
			picks, err := z.byName(ctx, src, name)
			if err != nil {
				return "", "", err
			}
			f, err := z.e.Format(src.typ)
			if err != nil {
				return "", "", err
			}
			for _, p := range picks {
				if matches(f, &buildlist.Entry{Arch: arch}, p.fact) {
					all = append(all, p)
				}
			}
		}
	}
	best, reason, err := z.candidates(ctx, pl, all, true)
	if err != nil {
		return "", "", err
	}
	if len(best) == 0 {
		return "", "", fmt.Errorf("%w: no package %s in the chosen snapshots", ErrMissing, name)
	}
	f, err := z.e.Format(best[0].src.typ)
	if err != nil {
		return "", "", err
	}
	newest := slices.MaxFunc(best, func(a, b *pick) int { return f.Compare(a.fact.Version, b.fact.Version) })
	return newest.fact.Version, reason, nil
}

// byName lists what a source has under a package name.
func (z *Freezer) byName(ctx context.Context, src *source, name string) (out []*pick, err error) {
	err = z.st.View(ctx, func(tx *bolt.Tx) error {
		out, err = byNameTx(tx, src, name)
		return err
	})
	return out, err
}

func byNameTx(tx *bolt.Tx, src *source, name string) (out []*pick, err error) {
	facts, err := tx.ByName(src.mirror, name)
	if err != nil {
		return nil, err
	}
	for _, f := range facts {
		places, err := tx.PlacesAt(src.snap, f.PID)
		if err != nil {
			return nil, err
		}
		if len(places) > 0 {
			out = append(out, &pick{mirror: src.mirror, fact: f, places: places, src: src})
		}
	}
	return out, nil
}

// resolveEntries finds each entry in the chosen snapshots: by hash, else by exact name,
// version and architecture.
func (z *Freezer) resolveEntries(ctx context.Context, pl *plan, entries []namedEntry) error {
	if pl.report == nil {
		pl.report = &api.Report{}
	}
	r := pl.report
	r.Entries = []api.ReportEntry{}
	type found struct {
		picks []*pick
		by    string
	}
	for page := range slices.Chunk(entries, 250) {
		hits := make([]found, len(page))
		err := z.st.View(ctx, func(tx *bolt.Tx) error {
			for i, e := range page {
				picks, by, err := z.find(tx, pl, e.entry)
				if err != nil {
					return err
				}
				hits[i] = found{picks, by}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i, e := range page {
			picks, by := hits[i].picks, hits[i].by
			rep := api.ReportEntry{Manifest: e.file, Line: e.entry.Line, Entry: e.entry.Raw}
			if by != "hash" {
				if picks, rep.Reason, err = z.holdAgainst(ctx, pl, e, picks); err != nil {
					return err
				}
			}
			chosen := e.reason
			if unversioned(e.entry) {
				by = "name"
				if picks, chosen, err = z.candidates(ctx, pl, picks, false); err != nil {
					return err
				}
			}
			contents := map[string]bool{}
			for _, p := range picks {
				contents[contentsOf(p)] = true
			}
			switch {
			case len(picks) == 0:
				rep.State = "missing"
				r.Missing++
				m := Missing{Name: cmp.Or(e.entry.Name, path.Base(e.entry.Path), e.entry.SHA256), Version: e.entry.Version, Arch: e.entry.Arch, Source: e.entry.Source}
				pl.missing = append(pl.missing, m)
				if rep.Snapshot, err = z.noteKept(ctx, pl, e.entry, m); err != nil {
					return err
				}
				if rep.Reason != "" {
					pl.because(m, rep.Reason)
				}
			case len(contents) > 1:
				rep.State = "ambiguous"
				r.Ambiguous++
				for _, p := range picks {
					rep.Candidates = append(rep.Candidates, apiPackage(p))
				}
			default:
				rep.State, rep.By, rep.Reason = "resolved", by, chosen
				r.Resolved++
				if by == "name" || e.newest {
					r.Newest++
				}
				n := 0
				for _, p := range picks {
					pl.add(p)
					n += len(p.places)
					rep.Places = append(rep.Places, apiPackage(p))
				}
				if len(picks) > 1 || n > 1 && severalSuites(picks) {
					r.Several++
				}
			}
			r.Entries = append(r.Entries, rep)
		}
	}
	if r.Ambiguous > 0 {
		var first *api.ReportEntry
		for i := range r.Entries {
			if r.Entries[i].State == "ambiguous" {
				first = &r.Entries[i]
				break
			}
		}
		var c []string
		for _, p := range first.Candidates {
			c = append(c, candidateText(p))
		}
		return pl.refuse(&ReportError{Report: r, Err: fmt.Errorf("%w: %s for several contents; %s is one of:\n  %s", ErrAmbiguous, countOf(r.Ambiguous, "entry stands", "entries stand"), first.Entry, strings.Join(c, "\n  "))})
	}
	return nil
}

// holdAgainst leaves of what has an entry's name and version what has its size
// and digests, too, and says what differs in the others. What is not here yet
// is held against them when it is.
func (z *Freezer) holdAgainst(ctx context.Context, pl *plan, e namedEntry, picks []*pick) (out []*pick, reason string, err error) {
	if !claims(e.entry) && e.entry.Size <= 0 {
		return picks, "", nil
	}
	for _, p := range picks {
		why, known, err := z.contradicts(ctx, e.entry, p)
		if err != nil {
			return nil, "", err
		}
		if why != "" {
			reason = why
			continue
		}
		if !known {
			pl.claims = append(pl.claims, claim{e, p})
		}
		out = append(out, p)
	}
	return out, reason, nil
}

func severalSuites(picks []*pick) bool {
	seen := map[string]bool{}
	for _, p := range picks {
		for _, pl := range p.places {
			seen[p.mirror+"\x00"+string(pl.Suite)] = true
		}
	}
	return len(seen) > 1
}

// find lists the stanzas that an entry means.
func (z *Freezer) find(tx *bolt.Tx, pl *plan, e *buildlist.Entry) (out []*pick, by string, err error) {
	if e.SHA256 != "" {
		d, err := cas.ParseDigest(e.SHA256)
		if err != nil {
			return nil, "", err
		}
		out, err := z.findHash(tx, pl, d)
		return out, "hash", err
	}
	for algo, h := range map[byte]string{meta.AliasSHA1: e.SHA1, meta.AliasSHA512: e.SHA512} {
		if h == "" || len(out) > 0 {
			continue
		}
		raw, err := hex.DecodeString(h)
		if err != nil {
			continue
		}
		if algo == meta.AliasSHA512 {
			raw = []byte(h)
		}
		if d, err := tx.Alias(algo, raw); err == nil {
			if out, err = z.findHash(tx, pl, d); err != nil || len(out) > 0 {
				return out, "hash", err
			}
		}
	}
	for _, mir := range pl.mirrors {
		for _, src := range pl.sources[mir] {
			f, err := z.e.Format(src.typ)
			if err != nil {
				return nil, "", err
			}
			if e.Ecosystem != "" && string(e.Ecosystem) != src.typ {
				continue
			}
			picks, err := byNameTx(tx, src, e.Name)
			if err != nil {
				return nil, "", err
			}
			for _, p := range picks {
				if matches(f, e, p.fact) {
					out = addPick(out, p)
				}
			}
		}
	}
	// An entry of architecture amd64 does not mean arch:all as well when both are there.
	if e.Arch != "" && slices.ContainsFunc(out, func(p *pick) bool { return p.fact.Arch == e.Arch }) {
		out = slices.DeleteFunc(out, func(p *pick) bool { return p.fact.Arch != e.Arch && !e.Source })
	}
	return out, "version", nil
}

// matches reports whether a package is what an entry names.
func matches(f repo.Format, e *buildlist.Entry, fact *meta.Fact) bool {
	if (fact.Kind == repo.KindSource) != e.Source {
		return false
	}
	if e.Arch != "" && !e.Source && fact.Arch != e.Arch && fact.Arch != f.AnyArch() {
		return false
	}
	v := fact.Version
	if e.EpochUnknown {
		_, v, _ = cutEpoch(v)
	}
	return e.Version == "" || v == e.Version || f.Compare(v, e.Version) == 0
}

// addPick appends a pick, or its places to those of the same stanza that another
// snapshot of the mirror has.
func addPick(list []*pick, p *pick) []*pick {
	for _, o := range list {
		if o.mirror != p.mirror || o.fact.PID != p.fact.PID {
			continue
		}
		for _, place := range p.places {
			if !slices.Contains(o.places, place) {
				o.places = append(o.places, place)
			}
		}
		return list
	}
	return append(list, p)
}

func cutEpoch(v string) (epoch, rest string, ok bool) {
	if epoch, rest, ok = strings.Cut(v, ":"); ok {
		return epoch, rest, true
	}
	return "", v, false
}

func (z *Freezer) findHash(tx *bolt.Tx, pl *plan, d cas.Digest) (out []*pick, err error) {
	facts, err := tx.ByDigest(d)
	if err != nil {
		return nil, err
	}
	for _, f := range facts {
		for _, mir := range pl.mirrors {
			for _, src := range pl.sources[mir] {
				places, err := tx.PlacesAt(src.snap, f.PID)
				if err != nil {
					return nil, err
				}
				if len(places) > 0 {
					out = addPick(out, &pick{mirror: mir, fact: f, places: places, src: src})
				}
			}
		}
	}
	return out, nil
}

// addSources takes the sources of every binary, those that it was built using
// included. A mirror without source indices has none to give.
func (z *Freezer) addSources(ctx context.Context, pl *plan) error {
	type want struct {
		ref repo.Ref
		mir string
	}
	var wants []want
	seen := map[want]bool{}
	hasSources := map[string]bool{}
	for _, mir := range pl.mirrors {
		for _, src := range pl.sources[mir] {
			has, err := z.hasSources(ctx, src)
			if err != nil {
				return err
			}
			hasSources[mir] = hasSources[mir] || has
		}
		for _, p := range pl.picks[mir] {
			if p.fact.Kind == repo.KindSource {
				continue
			}
			for _, r := range p.fact.Sources {
				if w := (want{r, mir}); !seen[w] {
					seen[w] = true
					wants = append(wants, w)
				}
			}
		}
	}
	for page := range slices.Chunk(wants, 250) {
		err := z.st.View(ctx, func(tx *bolt.Tx) error {
			for _, w := range page {
				if !hasSources[w.mir] {
					continue
				}
				found := false
				// The binary's own mirror first; a source may be published in another one.
				for _, mir := range append([]string{w.mir}, pl.mirrors...) {
					if found {
						break
					}
					for _, src := range pl.sources[mir] {
						f, err := z.e.Format(src.typ)
						if err != nil {
							return err
						}
						picks, err := byNameTx(tx, src, w.ref.Name)
						if err != nil {
							return err
						}
						for _, p := range picks {
							if p.fact.Kind != repo.KindSource || !f.SameSource(p.fact.Version, w.ref.Version) {
								continue
							}
							pl.add(p)
							found = true
						}
					}
				}
				if !found {
					pl.missing = append(pl.missing, Missing{Name: w.ref.Name, Version: w.ref.Version, Source: true})
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sourceOf makes a source from the generations that a frozen mirror rests on:
// they stay even when their snapshot is removed.
func sourceOf(fm *meta.FrozenMirror) []*source {
	var out []*source
	for _, s := range fm.Suites {
		if s.Gen == 0 {
			continue
		}
		placed := false
		for _, src := range out {
			if _, ok := src.snap.Gen(s.Suite); !ok {
				src.snap.Suites = append(src.snap.Suites, meta.SnapshotSuite{Suite: s.Suite, Gen: s.Gen})
				placed = true
				break
			}
		}
		if !placed {
			out = append(out, &source{mirror: fm.Mirror, typ: fm.Type, snap: &meta.Snapshot{
				Mirror: fm.Mirror, Type: fm.Type, Timestamp: fm.Timestamp, Suites: []meta.SnapshotSuite{{Suite: s.Suite, Gen: s.Gen}},
			}})
		}
	}
	return out
}

// frozen reads a frozen snapshot's record and manifest.
func (z *Freezer) frozen(ctx context.Context, name string) (*meta.Frozen, *Document, []byte, error) {
	var f *meta.Frozen
	err := z.st.View(ctx, func(tx *bolt.Tx) (err error) {
		f, err = tx.Frozen(name)
		return err
	})
	if err != nil {
		return nil, nil, nil, err
	}
	data, err := cas.ReadAll(ctx, z.blobs, f.Manifest.SHA256, maxManifest)
	if err != nil {
		return f, nil, nil, fmt.Errorf("manifest of %s: %w", name, err)
	}
	doc, err := ParseDocument(data)
	return f, doc, data, err
}

// planBase starts from a frozen snapshot, replaces and removes.
func (z *Freezer) planBase(ctx context.Context, pl *plan) error {
	f, doc, _, err := z.frozen(ctx, pl.req.Base)
	if err != nil {
		return err
	}
	if len(pl.req.Mirrors) > 0 {
		return fmt.Errorf("%w: a base says itself which mirrors it holds; name snapshots in --replace", ErrUsage)
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		var fm *meta.FrozenMirror
		for j := range f.Mirrors {
			if f.Mirrors[j].Mirror == d.Name {
				fm = &f.Mirrors[j]
			}
		}
		if fm == nil {
			return fmt.Errorf("%w: frozen snapshot %s has no record of mirror %s", meta.ErrCorrupt, f.Name, d.Name)
		}
		if !slices.Contains(pl.mirrors, d.Name) {
			pl.mirrors = append(pl.mirrors, d.Name)
		}
		pl.sources[d.Name] = append(pl.sources[d.Name], sourceOf(fm)...)
		if pl.picks[d.Name] == nil {
			pl.picks[d.Name] = []*pick{}
		}
		if d.Kind == Whole {
			for _, src := range pl.sources[d.Name] {
				err := z.e.EachPackage(ctx, src.snap, func(en meta.Entry) error {
					pl.picks[d.Name] = append(pl.picks[d.Name], &pick{mirror: d.Name, fact: en.Fact, places: en.Places, src: src})
					return nil
				})
				if err != nil {
					return err
				}
			}
			continue
		}
		if err := z.basePicks(ctx, pl, f, fm, d); err != nil {
			return err
		}
	}
	isSource := func(p *pick) bool { return p.fact.Kind == repo.KindSource }
	if pl.req.NoSources {
		pl.drop(isSource)
	} else {
		// A base without source packages was frozen so: none are added to it.
		pl.noSources = true
		for _, picks := range pl.picks {
			pl.noSources = pl.noSources && !slices.ContainsFunc(picks, isSource)
		}
	}
	for _, r := range pl.req.Remove {
		if err := pl.remove(r); err != nil {
			return err
		}
	}
	for _, r := range pl.req.Replace {
		if err := z.replace(ctx, pl, r); err != nil {
			return err
		}
	}
	// Sources that no binary needs any more go; those needed come with addSources.
	if !pl.req.NoSources {
		formats := map[string]repo.Format{} // of the base's mirrors
		for i := range doc.Mirrors {
			if formats[doc.Mirrors[i].Name], err = z.e.Format(doc.Mirrors[i].Type); err != nil {
				return err
			}
		}
		named := map[string][]string{} // versions of sources, by name
		for _, picks := range pl.picks {
			for _, p := range picks {
				if p.fact.Kind != repo.KindSource {
					for _, r := range p.fact.Sources {
						named[r.Name] = append(named[r.Name], r.Version)
					}
				}
			}
		}
		pl.drop(func(p *pick) bool {
			if p.fact.Kind != repo.KindSource {
				return false
			}
			f := formats[p.mirror]
			return f != nil && !slices.ContainsFunc(named[p.fact.Name], func(v string) bool { return f.SameSource(p.fact.Version, v) })
		})
	}
	pl.missing = append(pl.missing, doc.Missing...)
	pl.lacking = doc.Missing
	return nil
}

// basePicks takes an exact base's packages: from the facts that its
// generations keep, or from its own indices where it was imported.
func (z *Freezer) basePicks(ctx context.Context, pl *plan, f *meta.Frozen, fm *meta.FrozenMirror, d *DocMirror) error {
	type paraKey struct {
		name, para string
	}
	wanted := map[paraKey][]meta.Place{}
	digests := map[string]cas.Digest{} // of files that upstream knows by SHA-512 alone
	for _, s := range d.Sources {
		for _, f := range s.Files {
			if f.SHA512 != "" {
				digests[f.SHA512] = f.SHA256
			}
		}
	}
	for _, p := range d.Packages {
		if p.SHA512 != "" {
			digests[p.SHA512] = p.SHA256
		}
		k := paraKey{p.Name, p.Paragraph}
		wanted[k] = append(wanted[k], meta.Place{Suite: p.Suite, Index: p.Index})
	}
	for _, s := range d.Sources {
		k := paraKey{s.Name, s.Paragraph}
		wanted[k] = append(wanted[k], meta.Place{Suite: s.Suite, Index: s.Index})
	}
	err := z.st.View(ctx, func(tx *bolt.Tx) error {
		done := map[string]bool{}
		for k := range wanted {
			if done[k.name] {
				continue
			}
			done[k.name] = true
			facts, err := tx.ByName(d.Name, k.name)
			if err != nil {
				return err
			}
			for _, fact := range facts {
				k := paraKey{k.name, hex.EncodeToString(fact.Digest[:])}
				places, ok := wanted[k]
				if !ok {
					continue
				}
				src := &source{mirror: d.Name, typ: d.Type} // of an imported base, which has no generations
				if s := pl.sources[d.Name]; len(s) > 0 {
					src = s[0]
				}
				pl.picks[d.Name] = append(pl.picks[d.Name], &pick{mirror: d.Name, fact: fact, places: places, src: src})
				delete(wanted, k)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(pl.sources[d.Name]) == 0 || len(wanted) > 0 {
		for _, s := range d.Suites {
			pl.proof[d.Name] = append(pl.proof[d.Name], carried{s, fm.Certificates})
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return z.eachDerived(ctx, f, fm, func(suite repo.SuiteName, g repo.Group, r *repo.Record) error {
		sum := cas.Sum(r.Bytes)
		k := paraKey{r.Name, hex.EncodeToString(sum[:16])}
		places, ok := wanted[k]
		if !ok {
			return nil
		}
		delete(wanted, k)
		fact := &meta.Fact{Record: *r, Digest: [16]byte(sum[:16])}
		fact.Bytes = bytes.Clone(r.Bytes)
		fact.Files = slices.Clone(r.Files)
		for i := range fact.Files {
			if f := &fact.Files[i]; f.SHA256.IsZero() {
				f.SHA256 = digests[f.SHA512]
			}
		}
		fact.Record.Sources = slices.Clone(r.Sources)
		pl.picks[d.Name] = append(pl.picks[d.Name], &pick{mirror: d.Name, fact: fact, places: places, src: &source{mirror: d.Name, typ: d.Type}})
		return nil
	})
}

// remove takes a package out of the plan: NAME[:ARCH][=VERSION].
func (pl *plan) remove(arg string) error {
	name, arch, version := splitPackage(arg)
	n := pl.drop(func(p *pick) bool {
		return p.fact.Kind != repo.KindSource && p.fact.Name == name && (arch == "" || p.fact.Arch == arch) && (version == "" || p.fact.Version == version)
	})
	if n == 0 {
		return fmt.Errorf("%w: the base has no package %s to remove", ErrMissing, arg)
	}
	return nil
}

// replace takes P[=V]@REF: the package in that snapshot instead of the base's,
// or beside them where the base has none of the name.
func (z *Freezer) replace(ctx context.Context, pl *plan, arg string) error {
	i := strings.Index(arg, "@")
	if i < 0 {
		return fmt.Errorf("%w: --replace %s: expected PACKAGE[=VERSION]@REF", ErrUsage, arg)
	}
	name, arch, version := splitPackage(arg[:i])
	r, err := z.resolve(ctx, pl, arg[i+1:])
	if err != nil {
		return err
	}
	var sources []*source
	if r.Snapshot != nil {
		sources = []*source{{mirror: r.Snapshot.Mirror, typ: r.Snapshot.Type, snap: r.Snapshot}}
	} else {
		for j := range r.Frozen.Mirrors {
			sources = append(sources, sourceOf(&r.Frozen.Mirrors[j])...)
		}
	}
	var found []*pick
	for _, src := range sources {
		f, err := z.e.Format(src.typ)
		if err != nil {
			return err
		}
		picks, err := z.byName(ctx, src, name)
		if err != nil {
			return err
		}
		for _, p := range picks {
			if p.fact.Kind == repo.KindSource || arch != "" && p.fact.Arch != arch || version != "" && f.Compare(p.fact.Version, version) != 0 {
				continue
			}
			if version == "" && len(found) > 0 {
				if c := f.Compare(p.fact.Version, found[0].fact.Version); c < 0 {
					continue
				} else if c > 0 {
					found = nil
				}
			}
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%w: no package %s in %s", ErrMissing, arg[:i], arg[i+1:])
	}
	f, err := z.e.Format(found[0].src.typ)
	if err != nil {
		return err
	}
	anyArch := f.AnyArch()
	archs := map[string]bool{}
	for _, p := range found {
		archs[p.fact.Arch] = true
	}
	pl.drop(func(p *pick) bool {
		return p.fact.Kind != repo.KindSource && p.fact.Name == name && (archs[p.fact.Arch] || p.fact.Arch == anyArch || archs[anyArch])
	})
	for _, p := range found {
		if !slices.Contains(pl.mirrors, p.mirror) {
			pl.mirrors = append(pl.mirrors, p.mirror)
		}
		if !slices.ContainsFunc(pl.sources[p.mirror], func(s *source) bool { return sameSuitesGen(s.snap, p.src.snap) }) {
			pl.sources[p.mirror] = append(pl.sources[p.mirror], p.src)
		}
		pl.add(p)
	}
	return nil
}

func sameSuitesGen(a, b *meta.Snapshot) bool {
	return slices.EqualFunc(a.Suites, b.Suites, func(x, y meta.SnapshotSuite) bool { return x.Suite == y.Suite && x.Gen == y.Gen })
}

// eachDerived reads the package indices of a frozen tree.
func (z *Freezer) eachDerived(ctx context.Context, f *meta.Frozen, fm *meta.FrozenMirror, emit func(repo.SuiteName, repo.Group, *repo.Record) error) error {
	return z.readTree(ctx, &ownTree{z: z, f: f}, f, fm, emit)
}
