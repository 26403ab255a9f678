package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// pageSize is how many stanzas are read at once.
const pageSize = 1000

// fetchPackages fetches every package of the new generations that is not stored.
func (a *attempt) fetchPackages(ctx context.Context) error {
	a.p.SetPhase("fetching packages")
	staged := a.staged()
	for _, s := range a.suites {
		if s.root == nil {
			continue
		}
		var gone missingFiles
		if err := s.fetchPackages(ctx, staged, &gone); err != nil {
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

// missingFiles counts the package files that upstream lists and does not have.
type missingFiles struct {
	mu    sync.Mutex
	n     int
	first string // in order
}

func (m *missingFiles) add(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n++; m.n == 1 || name < m.first {
		m.first = name
	}
}

func (m *missingFiles) warning() string {
	if m.n == 1 {
		return "1 file that upstream lists is not there (" + m.first + ")"
	}
	return fmt.Sprintf("%d files that upstream lists are not there (the first: %s)", m.n, m.first)
}

// fetchPackages fetches the packages of a suite that the configuration's globs
// select, and with each its source, whatever that is called. Those that upstream does
// not have are counted where the configuration allows it.
func (s *suiteSync) fetchPackages(ctx context.Context, staged *meta.Snapshot, gone *missingFiles) error {
	files, bytes, err := s.e.FetchPackages(ctx, acquire.FetchOptions{
		Mirror: s.m, URLs: append(slices.Clone(s.urls), acquire.Foreign(s.gen.AlternateBases)...), Progress: s.p, IgnorePauses: s.ignorePauses,
		Lost: func(r *repo.Record, f repo.File, err error) error {
			missing := errors.Is(err, fetch.ErrNotFound)
			err = fmt.Errorf("package %s %s: %s: %w", r.Name, r.Version, f.Path, err)
			if missing || errors.Is(err, fetch.ErrMismatch) {
				err = s.tornOr(ctx, err)
			}
			if missing && s.m.Missing == config.RecordMissing && !errors.Is(err, repo.ErrTorn) {
				gone.add(f.Path)
				return nil
			}
			return err
		},
	}, func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error {
		return s.eachToFetch(ctx, func(page []*meta.Fact) error {
			selected, err := s.selected(ctx, staged, page)
			if err != nil {
				return err
			}
			for _, f := range selected {
				for _, file := range f.Files {
					if err := fetch(&f.Record, file); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	s.upstream.Count(files, bytes)
	return err
}

// selected are the packages that the configuration's globs select, followed by
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
	sources, err := s.e.cfg.Store.SourcesAt(ctx, staged, refs)
	return append(out, sources...), err
}

// eachToFetch calls f for the stanzas of the staged generation, a page at a time:
// only for those that began with it when all of the generation before is stored.
func (s *suiteSync) eachToFetch(ctx context.Context, f func([]*meta.Fact) error) error {
	base, begun, err := s.e.cfg.Store.Begun(ctx, &s.gen)
	if err != nil {
		return err
	}
	if base != nil && base.Complete && base.Selection == s.gen.Selection {
		return s.e.eachFact(ctx, begun, f)
	}
	return s.e.eachOf(ctx, &s.gen, f)
}

// eachBegun calls f for the stanzas that began with the staged generation, a page at
// a time.
func (s *suiteSync) eachBegun(ctx context.Context, f func([]*meta.Fact) error) error {
	base, begun, err := s.e.cfg.Store.Begun(ctx, &s.gen)
	if err != nil {
		return err
	}
	if base != nil {
		return s.e.eachFact(ctx, begun, f)
	}
	return s.e.eachOf(ctx, &s.gen, f)
}

// eachFact calls f for stanzas, a page at a time.
func (e *Engine) eachFact(ctx context.Context, pids []meta.PID, f func([]*meta.Fact) error) error {
	for page := range slices.Chunk(pids, pageSize) {
		facts, err := e.cfg.Store.Facts(ctx, page)
		if err != nil {
			return err
		}
		if err := f(facts); err != nil {
			return err
		}
	}
	return nil
}

// eachOf calls f for the stanzas of a staged generation, a page at a time.
func (e *Engine) eachOf(ctx context.Context, g *meta.Generation, f func([]*meta.Fact) error) error {
	// A snapshot of one suite, which nobody else sees.
	snap := &meta.Snapshot{Mirror: g.Mirror, Suites: []meta.SnapshotSuite{{Suite: g.Suite, Gen: g.Gen}}}
	return e.eachPage(ctx, snap, func(page []meta.Entry) error {
		facts := make([]*meta.Fact, len(page))
		for i := range page {
			facts[i] = page[i].Fact
		}
		return f(facts)
	})
}

// EachPackage calls f for each stanza of a snapshot, by name.
func (e *Engine) EachPackage(ctx context.Context, snap *meta.Snapshot, f func(meta.Entry) error) error {
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
	var after []byte
	for {
		page, next, err := e.cfg.Store.Packages(ctx, snap, after, pageSize)
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
