package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// pageSize is how many stanzas are read at a time.
const pageSize = 1000

// fetchPackages downloads every package of the new generations that is not stored.
func (a *attempt) fetchPackages(ctx context.Context) error {
	staged := a.staged()
	wanted, err := a.lookUp(ctx, staged)
	if err != nil {
		return err
	}
	a.p.SetPhase("fetching packages")
	for _, s := range a.suites {
		if s.root == nil {
			continue
		}
		var gone missingFiles
		if err := s.fetchPackages(ctx, staged, wanted, &gone); err != nil {
			return s.incompleteOr(err)
		}
		s.gen.Complete = gone.n == 0
		if gone.n > 0 {
			s.gen.Missing = gone.n
			s.gen.Warnings = append(s.gen.Warnings, gone.warning())
		}
	}
	return nil
}

// lookUp finds the packages of all suites that are not stored. They become the totals of
// the progress before the first download.
func (a *attempt) lookUp(ctx context.Context, staged *meta.Snapshot) (wanted map[cas.Digest]bool, err error) {
	a.p.SetPhase("counting packages")
	var bytes int64
	wanted = map[cas.Digest]bool{}
	seen := map[cas.Digest]int64{} // not looked up yet, with their sizes
	have := map[cas.Digest]bool{}
	find := func() error {
		found, err := a.e.acquirer.Has(ctx, slices.Collect(maps.Keys(seen)))
		if err != nil {
			return fmt.Errorf("look for stored packages: %w", err)
		}
		for d, size := range seen {
			if found[d] {
				have[d] = true
			} else {
				wanted[d], bytes = true, bytes+size
			}
		}
		clear(seen)
		return nil
	}
	for _, s := range a.suites {
		if s.root == nil {
			continue
		}
		err := s.eachFile(ctx, staged, func(_ *repo.Record, f repo.File) error {
			if !have[f.SHA256] && !wanted[f.SHA256] {
				seen[f.SHA256] = f.Size
			}
			if len(seen) < pageSize {
				return nil
			}
			return find()
		})
		if err != nil {
			return nil, err
		}
	}
	if err := find(); err != nil {
		return nil, err
	}
	a.p.FilesTotal.Store(a.p.Files.Load() + int64(len(wanted)))
	a.p.BytesTotal.Store(a.p.Bytes.Load() + bytes)
	return wanted, nil
}

// missingFiles counts the package files that upstream lists but does not have.
type missingFiles struct {
	mu      sync.Mutex
	n       int
	first   string // in order
	digests []cas.Digest
}

func (m *missingFiles) add(f repo.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n++; m.n == 1 || f.Path < m.first {
		m.first = f.Path
	}
	m.digests = append(m.digests, f.SHA256)
}

func (m *missingFiles) warning() string {
	if m.n == 1 {
		return "1 file that upstream lists is missing (" + m.first + ")"
	}
	return fmt.Sprintf("%d files that upstream lists are missing (the first: %s)", m.n, m.first)
}

// fetchPackages downloads the wanted packages of a suite that match the configured globs,
// each with its source package (whatever its name), and removes them from wanted. If the
// configuration allows it, packages that upstream does not have are only counted, and
// stay in wanted.
func (s *suiteSync) fetchPackages(ctx context.Context, staged *meta.Snapshot, wanted map[cas.Digest]bool, gone *missingFiles) error {
	files, bytes, err := s.e.acquirer.FetchPackages(ctx, acquire.FetchOptions{
		Mirror: s.m, URLs: append(slices.Clone(s.urls), acquire.Foreign(s.gen.AlternateBases)...), Progress: s.p, IgnorePauses: s.ignorePauses,
		Lost: func(r *repo.Record, f repo.File, err error) error {
			missing := errors.Is(err, fetch.ErrNotFound)
			err = fmt.Errorf("package %s %s: %s: %w", r.Name, r.Version, f.Path, err)
			if missing || errors.Is(err, fetch.ErrMismatch) {
				err = s.tornOr(ctx, err)
			}
			if missing && s.m.Missing == config.RecordMissing && !errors.Is(err, repo.ErrTorn) {
				gone.add(f)
				return nil
			}
			return err
		},
	}, func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error {
		return s.eachFile(ctx, staged, func(r *repo.Record, f repo.File) error {
			if !wanted[f.SHA256] {
				return nil
			}
			delete(wanted, f.SHA256)
			return fetch(r, f)
		})
	})
	for _, d := range gone.digests {
		wanted[d] = true
	}
	s.upstream.Count(files, bytes)
	return err
}

// eachFile calls f for each file that fetchPackages needs, stored or not.
func (s *suiteSync) eachFile(ctx context.Context, staged *meta.Snapshot, f func(*repo.Record, repo.File) error) error {
	return s.eachToFetch(ctx, func(page []*meta.Fact) error {
		selected, err := s.selected(ctx, staged, page)
		if err != nil {
			return err
		}
		for _, fact := range selected {
			for _, file := range fact.Files {
				if err := f(&fact.Record, file); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// selected returns the packages that match the configured globs, followed by
// their sources.
func (s *suiteSync) selected(ctx context.Context, staged *meta.Snapshot, page []*meta.Fact) ([]*meta.Fact, error) {
	var out []*meta.Fact
	var refs []repo.Ref
	for _, f := range page {
		if !s.f.Match(s.m, &f.Record) {
			continue
		}
		out = append(out, f)
		if len(s.m.Packages) > 0 && s.m.Sources && f.Kind != repo.KindSource {
			refs = append(refs, f.Sources...)
		}
	}
	if len(refs) == 0 {
		return out, nil
	}
	sources, err := s.e.cfg.Meta.SourcesAt(ctx, staged, refs)
	return append(out, sources...), err
}

// eachToFetch calls f for the stanzas of the staged generation, in pages. If all files of
// the previous generation are stored, it calls f only for new stanzas.
func (s *suiteSync) eachToFetch(ctx context.Context, f func([]*meta.Fact) error) error {
	base, begun, err := s.e.cfg.Meta.Begun(ctx, &s.gen)
	if err != nil {
		return err
	}
	if base != nil && base.Complete && base.Selection == s.gen.Selection {
		return s.e.eachFact(ctx, begun, f)
	}
	return s.e.eachOf(ctx, &s.gen, f)
}

// eachBegun calls f for the stanzas that are new in the staged generation, in
// pages.
func (s *suiteSync) eachBegun(ctx context.Context, f func([]*meta.Fact) error) error {
	base, begun, err := s.e.cfg.Meta.Begun(ctx, &s.gen)
	if err != nil {
		return err
	}
	if base != nil {
		return s.e.eachFact(ctx, begun, f)
	}
	return s.e.eachOf(ctx, &s.gen, f)
}

// eachFact calls f for stanzas, in pages.
func (e *Engine) eachFact(ctx context.Context, pids []meta.PID, f func([]*meta.Fact) error) error {
	for page := range slices.Chunk(pids, pageSize) {
		facts, err := e.cfg.Meta.Facts(ctx, page)
		if err != nil {
			return err
		}
		if err := f(facts); err != nil {
			return err
		}
	}
	return nil
}

// eachOf calls f for the stanzas of a staged generation, in pages.
func (e *Engine) eachOf(ctx context.Context, g *meta.Generation, f func([]*meta.Fact) error) error {
	// A snapshot of one suite, which nothing else can see.
	snap := &meta.Snapshot{Mirror: g.Mirror, Suites: []meta.SnapshotSuite{{Suite: g.Suite, Gen: g.Gen}}}
	return e.eachPage(ctx, snap, func(page []meta.Entry) error {
		facts := make([]*meta.Fact, len(page))
		for i := range page {
			facts[i] = page[i].Fact
		}
		return f(facts)
	})
}

// eachPackage calls f for each stanza of a snapshot, by name.
func (e *Engine) eachPackage(ctx context.Context, snap *meta.Snapshot, f func(meta.Entry) error) error {
	return e.eachPage(ctx, snap, func(page []meta.Entry) error {
		for _, en := range page {
			if err := f(en); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *Engine) eachPage(ctx context.Context, snap *meta.Snapshot, f func([]meta.Entry) error) error {
	for after := []byte(nil); ; {
		page, next, err := e.cfg.Meta.Packages(ctx, snap, after, pageSize)
		if err != nil {
			return err
		}
		if err := f(page); err != nil {
			return err
		}
		if after = next; after == nil {
			return nil
		}
	}
}
