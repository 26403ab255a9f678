package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/console"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/plan"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// needsAll refuses to download most of an archive unless that was requested. It
// returns freeze.ErrNeedsAll.
func (x *freezing) needsAll(ctx context.Context) error {
	if x.req.All {
		return nil
	}
	var n int
	var size int64
	var names []string
	for _, m := range x.pl.Mirrors {
		c, err := x.cat.Mirror(m.Name)
		if err != nil || c.Download != config.OnDemand || !m.Whole && !m.All {
			continue
		}
		before := n
		err = x.eachWanted(ctx, m, x.blobs.Stat, func(_ *meta.Fact, f repo.File) error {
			n++
			size += f.Size
			return nil
		})
		if err != nil {
			return err
		}
		if n > before {
			names = append(names, string(m.Name))
		}
	}
	if n > 0 {
		return fmt.Errorf("%w: freezing the whole of %s would fetch %s of %s", freeze.ErrNeedsAll,
			strings.Join(names, ", "), freeze.Count(n, "file", "files"), console.Bytes(size))
	}
	return nil
}

// statFunc describes a blob like cas.Reader.Stat.
type statFunc func(context.Context, cas.Digest) (cas.Info, error)

// eachWanted calls f for each package file in a mirror's part of the plan that is
// not stored, according to stat.
func (x *freezing) eachWanted(ctx context.Context, m *plan.Mirror, stat statFunc, f func(*meta.Fact, repo.File) error) error {
	seen := map[cas.Digest]bool{}
	look := func(fact *meta.Fact) error {
		for _, file := range fact.Files {
			if _, err := stat(ctx, file.SHA256); err == nil && x.keeper.Corrupt(file.SHA256) == nil || seen[file.SHA256] {
				continue
			}
			seen[file.SHA256] = true
			if err := f(fact, file); err != nil {
				return err
			}
		}
		return nil
	}
	if !m.Whole {
		for _, o := range m.Picks {
			if err := look(o.Fact); err != nil {
				return err
			}
		}
		return nil
	}
	for _, snap := range m.States {
		gens, err := x.meta.Generations(ctx, snap)
		if err != nil {
			return err
		}
		complete := !slices.ContainsFunc(gens, func(g *meta.Generation) bool { return !g.Complete })
		if complete && !x.keeper.AnyCorrupt() {
			continue // every package was stored before the snapshot was sealed, and has been referenced since
		}
		if err := freeze.EachPackage(ctx, x.meta, snap, func(e meta.Entry) error { return look(e.Fact) }); err != nil {
			return err
		}
	}
	return nil
}

// holdProof makes the batch hold the blobs that the freeze takes over from other freezes:
// a base may be removed while a freeze is made from it.
func (x *freezing) holdProof(ctx context.Context) error {
	for i := range x.doc.Mirrors {
		d := &x.doc.Mirrors[i]
		for _, f := range d.ProofFiles() {
			if err := x.keeper.Hold(ctx, x.batch, f.SHA256); err == nil {
				continue
			} else if perr := x.holdPlain(ctx, d, f.SHA256); perr != nil {
				return fmt.Errorf("proof %s of %s: %w", f.Path, d.Name, errors.Join(err, perr))
			}
		}
		for _, c := range x.pl.Mirror(d.Name).Proof {
			if c.Certificates.IsZero() {
				continue
			}
			if err := x.keeper.Hold(ctx, x.batch, c.Certificates); err != nil {
				return fmt.Errorf("certificates of %s: %w", d.Name, err)
			}
		}
	}
	return nil
}

// holdPlain makes the batch hold the plain index that the same signed root lists
// beside a compressed one that is missing.
func (x *freezing) holdPlain(ctx context.Context, d *freeze.DocMirror, gone cas.Digest) error {
	plain, err := x.plainOf(ctx, d, gone)
	if err == nil && plain.SHA256.IsZero() {
		err = cas.ErrNotFound
	}
	if err != nil {
		return err
	}
	if err := x.keeper.Hold(ctx, x.batch, plain.SHA256); err != nil {
		return fmt.Errorf("%s: %w", plain.Path, err)
	}
	if x.plain == nil {
		x.plain = map[cas.Digest]repo.Listed{}
	}
	x.plain[gone] = plain
	return nil
}

// plainOf finds the plain index beside a variant that is named in a mirror's part of the
// manifest: in the states that packages are taken from, or in the roots of imported
// bases.
func (x *freezing) plainOf(ctx context.Context, d *freeze.DocMirror, variant cas.Digest) (repo.Listed, error) {
	m := x.pl.Mirror(d.Name)
	for _, snap := range m.States {
		gens, err := x.meta.Generations(ctx, snap)
		if err != nil {
			return repo.Listed{}, err
		}
		for _, g := range gens {
			for _, gr := range g.Groups {
				if gr.Variant.SHA256 == variant && gr.Made != nil {
					return gr.Plain, nil
				}
			}
		}
	}
	format, err := x.formats.Of(d.Type)
	if err != nil {
		return repo.Listed{}, err
	}
	for i := range m.Proof {
		c := &m.Proof[i]
		for _, ix := range c.Suite.Indices {
			if ix.SHA256 != variant {
				continue
			}
			root, err := freeze.ReadRoot(ctx, x.blobs, format, d, &c.Suite, c.Certificates)
			if err != nil {
				return repo.Listed{}, err
			}
			for _, l := range root.Files {
				if l.Path == ix.Index && l.Path != ix.Path {
					return l, nil
				}
			}
		}
	}
	return repo.Listed{}, cas.ErrNotFound
}

// held returns the variant of an index that the batch holds.
func (x *freezing) held(named repo.Listed) repo.Listed {
	if plain, ok := x.plain[named.SHA256]; ok {
		return plain
	}
	return named
}

// fetchAll downloads every missing file, and lists the packages that are unavailable. If
// allowed, it returns those that upstream no longer has. The batch holds the packages of
// exact mirrors. Those of whole mirrors are referenced through their generations, which
// Publish checks.
func (x *freezing) fetchAll(ctx context.Context) ([]lostFile, error) {
	if err := x.countWanted(ctx); err != nil {
		return nil, err
	}
	x.progress.SetPhase("fetching packages")
	lost := &lostFiles{}
	for _, m := range x.pl.Mirrors {
		if err := x.fetcher.CheckSpace(ctx); err != nil {
			return nil, err
		}
		stat := x.batch.Hold
		if m.Whole {
			stat = x.blobs.Stat
		}
		c, err := x.cat.Mirror(m.Name)
		if err != nil {
			// The mirror was imported and is not configured on this server, so missing
			// files are lost.
			err = x.eachWanted(ctx, m, stat, func(fact *meta.Fact, f repo.File) error {
				lost.refused = true
				lost.add(m.Name, &fact.Record, f, fmt.Sprintf("(%s): mirror %s is not configured", f.Path, m.Name))
				return nil
			})
		} else {
			err = x.fetchFrom(ctx, m, c, stat, lost)
		}
		if err != nil {
			return nil, err
		}
	}
	return lost.result(x.req.AllowMissing)
}

// countWanted sets the totals of the progress for all mirrors, before the first download.
func (x *freezing) countWanted(ctx context.Context) error {
	x.progress.SetPhase("counting packages")
	seen := map[cas.Digest]bool{}
	for _, m := range x.pl.Mirrors {
		err := x.eachWanted(ctx, m, x.blobs.Stat, func(_ *meta.Fact, f repo.File) error {
			if !seen[f.SHA256] {
				seen[f.SHA256] = true
				x.progress.FilesTotal.Add(1)
				x.progress.BytesTotal.Add(f.Size)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fetchFrom downloads the missing files in a mirror's part of the plan.
func (x *freezing) fetchFrom(ctx context.Context, m *plan.Mirror, c config.Mirror, stat statFunc, lost *lostFiles) error {
	var urls []remote.URL
	for _, snap := range m.States {
		if snap.FromURL != "" {
			urls = append(c.BaseURLs(), remote.NewURL(snap.FromURL))
		}
	}
	o := acquire.FetchOptions{
		Mirror: c, URLs: urls, Progress: x.progress,
		Lost: func(rec *repo.Record, f repo.File, err error) error {
			gone := errors.Is(err, fetch.ErrNotFound)
			if !gone && !errors.Is(err, fetch.ErrMismatch) {
				return fmt.Errorf("package %s %s %s: %s of %s: %w", rec.Name, rec.Version, rec.Arch, f.Path, m.Name, err)
			}
			lost.mu.Lock()
			defer lost.mu.Unlock()
			lost.refused = lost.refused || !gone
			lost.add(m.Name, rec, f, fmt.Sprintf("(%s of %s): %v", f.Path, m.Name, err))
			return nil
		},
	}
	files, bytes, err := x.fetcher.FetchPackages(ctx, o, func(ctx context.Context, get func(*repo.Record, repo.File) error) error {
		return x.eachWanted(ctx, m, stat, func(fact *meta.Fact, f repo.File) error { return get(&fact.Record, f) })
	})
	x.res.Fetched += files
	x.res.FetchedBytes += bytes
	return err
}

// lostFile is a file that upstream lists and that is unavailable, with the
// reason.
type lostFile struct {
	plan.Lost
	text string
}

// lostFiles collects lost files.
type lostFiles struct {
	mu      sync.Mutex // held while files are added concurrently
	files   []lostFile
	refused bool // a lost file had wrong bytes
}

func (l *lostFiles) add(mirror meta.MirrorName, rec *repo.Record, f repo.File, why string) {
	l.files = append(l.files, lostFile{
		plan.Lost{Mirror: mirror, Record: *rec, File: f}, fmt.Sprintf("%s %s %s %s", rec.Name, rec.Version, rec.Arch, why),
	})
}

// result returns the lost files in order, or refuses them with freeze.ErrMissing.
func (l *lostFiles) result(allowed bool) ([]lostFile, error) {
	slices.SortFunc(l.files, func(a, b lostFile) int { return cmp.Compare(a.text, b.text) })
	if len(l.files) == 0 || allowed && !l.refused {
		return l.files, nil
	}
	var texts []string
	for _, f := range l.files {
		texts = append(texts, f.text)
	}
	return nil, fmt.Errorf("%w: upstream no longer has %d of the files:\n  %s", freeze.ErrMissing, len(texts), strings.Join(texts, "\n  "))
}
