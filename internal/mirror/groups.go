package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// parallelGroups is how many listed files are downloaded at a time.
const parallelGroups = 4

// fetchGroups makes sure that one compression variant of each group is durably stored.
func (s *suiteSync) fetchGroups(ctx context.Context) error {
	s.p.SetPhase("fetching indices of " + string(s.suite))
	known, err := s.knownBySHA512(ctx)
	if err != nil {
		return err
	}
	s.stored = make([]*repo.Listed, len(s.groups))
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(min(parallelGroups, s.e.acquirer.Parallel()))
	for i, g := range s.groups {
		eg.Go(func() (err error) {
			if s.stored[i] = s.holdVariant(egctx, g, known); s.stored[i] == nil {
				s.stored[i], err = s.fetchVariant(egctx, g)
			}
			s.p.Files.Add(1)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	s.gen.Warnings = append(s.gen.Warnings, s.absentWarnings()...)
	return s.e.acquirer.Flush(ctx, s.batch)
}

// absentWarnings returns a warning for each kind of optional group that upstream lacks,
// with their number and the first one.
func (s *suiteSync) absentWarnings() (out []string) {
	absent := map[string][]string{}
	for i, g := range s.groups {
		if s.stored[i] == nil && g.WarnAbsent != "" {
			absent[g.WarnAbsent] = append(absent[g.WarnAbsent], g.Index)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(absent)) {
		names := slices.Sorted(slices.Values(absent[what]))
		out = append(out, fmt.Sprintf("%s: %d (the first: %s)", what, len(names), names[0]))
	}
	return out
}

// knownBySHA512 finds the variants that are listed only by SHA-512 and were
// stored before.
func (s *suiteSync) knownBySHA512(ctx context.Context) (map[string]cas.Digest, error) {
	var others [][]byte
	for _, g := range s.groups {
		for _, v := range g.Variants {
			if v.SHA256.IsZero() {
				others = append(others, []byte(v.SHA512))
			}
		}
	}
	if len(others) == 0 {
		return nil, nil
	}
	digests, err := s.e.cfg.Meta.Aliases(ctx, meta.AliasSHA512, others)
	if err != nil {
		return nil, err
	}
	known := map[string]cas.Digest{}
	for i, d := range digests {
		if !d.IsZero() {
			known[string(others[i])] = d
		}
	}
	return known, nil
}

// holdVariant makes the batch hold the first stored variant of a group. It returns nil if
// none is stored.
func (s *suiteSync) holdVariant(ctx context.Context, g repo.Group, known map[string]cas.Digest) *repo.Listed {
	for _, v := range g.Variants {
		if v.SHA256.IsZero() {
			v.SHA256 = known[v.SHA512]
		}
		if v.SHA256.IsZero() {
			continue
		}
		if _, err := s.batch.Hold(ctx, v.SHA256); err == nil && s.e.acquirer.Corrupt(v.SHA256) == nil {
			v.Alternates = nil
			return &v
		}
	}
	return nil
}

// fetchVariant downloads the first available variant of a group. It returns nil
// if upstream has none of an optional group.
func (s *suiteSync) fetchVariant(ctx context.Context, g repo.Group) (*repo.Listed, error) {
	var failed []error
	gone := true // all variants are missing
	for _, v := range g.Variants {
		if v.Size == 0 && v.Path == g.Index && len(g.Variants) > 1 {
			continue // upstreams rarely have an empty uncompressed variant beside compressed ones
		}
		info, err := s.fetchListed(ctx, v)
		if err == nil {
			for _, err := range failed {
				s.e.cfg.Log.Warn("used another variant of an index", "repo", s.m.Name, "suite", string(s.suite), "variant", v.Path, "err", err)
			}
			v.SHA256, v.Size, v.Alternates = info.Digest, info.Size, nil
			return &v, nil
		}
		if ctx.Err() != nil || !fetch.IsUpstream(err) && !errors.Is(err, fetch.ErrNotFound) {
			return nil, err
		}
		err = fmt.Errorf("%s%s: %w", s.dir, v.Path, err)
		if errors.Is(err, fetch.ErrMismatch) {
			return nil, s.tornOr(ctx, err) // apt tries no other variant either
		}
		gone = gone && errors.Is(err, fetch.ErrNotFound)
		failed = append(failed, err)
	}
	switch {
	case gone && g.Optional:
		return nil, nil
	case !gone && len(failed) == 1:
		return nil, failed[0]
	case !gone:
		return nil, fmt.Errorf("%s%s: no variant of the index can be downloaded: %w", s.dir, g.Index, errors.Join(failed...))
	}
	var missing []string
	for _, v := range g.Variants {
		missing = append(missing, v.Path)
	}
	err := fmt.Errorf("%s%s: %w: upstream lists it but does not have any variant of it (%s)", s.dir, g.Index, repo.ErrMissing, strings.Join(missing, ", "))
	return nil, s.tornOr(ctx, err)
}

// fetchExpanded downloads the files that listed files list in turn, such as an
// installer's images in SHA256SUMS.
func (s *suiteSync) fetchExpanded(ctx context.Context) error {
	x, ok := s.f.(repo.Expander)
	if !ok || !s.m.Installer {
		return nil
	}
	torn := false // whether upstream was checked for a change
	for _, g := range s.gen.Groups {
		if !x.Expands(g.Index) {
			continue
		}
		data, err := cas.ReadAll(ctx, s.e.cfg.Blobs, g.Variant.SHA256, catalog.MaxDocument)
		if err != nil {
			return err
		}
		files, err := x.Expand(g.Index, bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("%s%s: %w", s.dir, g.Index, err)
		}
		s.p.FilesTotal.Add(int64(len(files)))
		for _, l := range files {
			info, err := s.expandedFile(ctx, l, &torn)
			switch {
			case errors.Is(err, fetch.ErrNotFound):
				s.warn(fmt.Sprintf("%s%s is listed in %s but upstream does not have it", s.dir, l.Path, g.Index))
				continue
			case err != nil:
				return fmt.Errorf("%s%s: %w", s.dir, l.Path, err)
			}
			s.p.Files.Add(1)
			s.gen.Groups = append(s.gen.Groups, meta.Group{
				Index: l.Path, Component: g.Component, Arch: g.Arch, Variant: repo.Listed{Path: l.Path, Size: info.Size, SHA256: info.Digest},
			})
		}
	}
	return nil
}

// expandedFile makes sure that a file in a listed file is stored.
func (s *suiteSync) expandedFile(ctx context.Context, l repo.Listed, torn *bool) (cas.Info, error) {
	if info, err := s.batch.Hold(ctx, l.SHA256); err == nil {
		return info, nil
	}
	info, err := s.fetchListed(ctx, l)
	if !*torn && (errors.Is(err, fetch.ErrNotFound) || errors.Is(err, fetch.ErrMismatch)) {
		*torn = true
		if terr := s.tornOr(ctx, err); errors.Is(terr, repo.ErrTorn) {
			// Upstream has changed: its "not found" must not be wrapped any more.
			return info, fmt.Errorf("%w: %v", repo.ErrTorn, err)
		}
	}
	return info, err
}

// fetchListed downloads a listed file into the batch, first from the URL of the root.
func (s *suiteSync) fetchListed(ctx context.Context, l repo.Listed) (cas.Info, error) {
	bases := []remote.URL{s.url}
	for _, u := range s.urls {
		if u != s.url {
			bases = append(bases, u)
		}
	}
	got, err := s.upstream.FetchListed(ctx, s.batch, bases, s.dir, l)
	return got.Info, err
}

// tornOr distinguishes a change of upstream during the sync from a fault. If the root has
// changed, the error says so and the sync starts again.
func (s *suiteSync) tornOr(ctx context.Context, cause error) error {
	g := s.upstream.Documents(s.url)
	for _, d := range s.root.Docs {
		now, err := g.Get(ctx, d.Path, catalog.MaxDocument, nil)
		if err == nil && !bytes.Equal(now.Data, d.Data) {
			return fmt.Errorf("%w: %w", repo.ErrTorn, cause)
		}
	}
	return cause
}
