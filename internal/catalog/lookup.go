package catalog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Undated is the Last-Modified of a file that another one has replaced at its path, but
// that is still served by its hash to clients that read the Release file before the
// change. apt gives a partial download the Last-Modified of the response, or the present
// time if the response has none. It resumes the download if the file that is now at the
// path has the same time. No file at its path has this one. The file at a path changes in
// `latest`, in a channel, and if a redirection leads to one snapshot after the other.
var Undated = time.Unix(0, 0).UTC()

// Found is the file at a path of a snapshot.
type Found struct {
	Want     acquire.File
	Size     int64 // -1: unknown until it is downloaded
	Digest   cas.Digest
	Modified time.Time // Undated, upstream's, or the suite's Date; for `latest` the time since when it has this content
	// Plain is set if the file is the plain variant of an index that is stored
	// compressed. Its Digest is zero if the root lists no SHA-256 for it and it
	// has not been decompressed yet.
	Plain *acquire.Variant
	// Package is the stanza of a package file.
	Package *meta.Fact
	// Delta means that the file turns an older package into a newer one.
	Delta bool
}

// Known reports whether size and digest are known before the file is downloaded.
func (f *Found) Known() bool { return f.Size >= 0 && !f.Digest.IsZero() }

// finder looks for files of one snapshot.
type finder struct {
	*Catalog
	snap   *meta.Snapshot
	format Format
	latest bool
}

func (f *finder) notFound(p string) error {
	return fmt.Errorf("%s in %s: %w", p, f.snap.ID(), meta.ErrNotFound)
}

// want returns the file to acquire from the snapshot's mirror.
func (f *finder) want(l repo.Listed) acquire.File {
	return acquire.File{Mirror: f.snap.Mirror, Listed: l, From: remote.NewURL(f.snap.FromURL)}
}

// Lookup finds the file at a path of a snapshot, or at a by-hash name of another
// snapshot. latest also finds packages that only earlier snapshots contain.
// meta.ErrNotFound.
func (c *Catalog) Lookup(ctx context.Context, snap *meta.Snapshot, p string, latest bool) (*Found, error) {
	format, err := c.cfg.Formats.Of(snap.Type)
	if err != nil {
		return nil, err
	}
	f := &finder{c, snap, format, latest}
	if p == "" || p != path.Clean(p) || strings.HasPrefix(p, "../") || strings.HasPrefix(p, "/") {
		return nil, f.notFound(p)
	}
	var suites []repo.SuiteName
	for _, s := range snap.Suites {
		suites = append(suites, s.Suite)
	}
	if suite, rel, ok := format.SuiteOf(p, suites); ok {
		found, err := f.inSuite(ctx, suite, p, rel)
		if !errors.Is(err, meta.ErrNotFound) {
			return found, err
		}
	}
	return f.pkg(ctx, p)
}

// pkg finds a package file.
func (f *finder) pkg(ctx context.Context, p string) (*Found, error) {
	var hit meta.PathHit
	var modified time.Time
	var err error
	if f.latest {
		var since *meta.Generation
		if hit, since, err = f.cfg.Meta.PackageNewest(ctx, f.snap.Mirror, p); err == nil {
			modified = since.Timestamp
		}
	} else {
		var places []meta.Place
		hit, places, err = f.cfg.Meta.PackageAt(ctx, f.snap, p)
		for _, pl := range places {
			for _, s := range f.snap.Suites {
				if s.Suite == pl.Suite {
					modified = s.Date
				}
			}
		}
	}
	if errors.Is(err, meta.ErrNotFound) {
		return nil, f.notFound(p)
	} else if err != nil {
		return nil, err
	}
	found := &Found{Size: hit.File.Size, Digest: hit.File.SHA256, Modified: modified, Package: hit.Fact}
	found.Want = f.want(repo.Listed{Path: p, Size: hit.File.Size, SHA256: hit.File.SHA256})
	found.Want.Record = &hit.Fact.Record
	if !f.latest {
		err = f.upstreamTime(ctx, found)
	}
	return found, err
}

// upstreamTime sets the Last-Modified that upstream sent with a file, if it is known. An
// index that was made for an Undated answer has none.
func (f *finder) upstreamTime(ctx context.Context, found *Found) error {
	info, err := f.cfg.Blobs.Stat(ctx, found.Digest)
	if errors.Is(err, cas.ErrNotFound) {
		return nil
	}
	if err == nil && info.ModTime.After(Undated) {
		found.Modified = info.ModTime.UTC().Truncate(time.Second)
	}
	return err
}

// suiteFinder looks for files of one suite of a snapshot.
type suiteFinder struct {
	*finder
	suite  repo.SuiteName
	root   *repo.Root
	gen    *meta.Generation
	byPath map[string]repo.Listed // relative to the suite
}

// inSuite finds a document of a root, a file that it lists, or a by-hash name. p
// is relative to the mirror, rel to the suite.
func (f *finder) inSuite(ctx context.Context, suite repo.SuiteName, p, rel string) (*Found, error) {
	gen, _ := f.snap.Gen(suite)
	root, g, byPath, err := f.Root(ctx, f.snap.Mirror, f.snap.Type, suite, gen)
	if err != nil {
		return nil, err
	}
	s := &suiteFinder{f, suite, root, g, byPath}
	if algo, hx, ok := f.format.ByHash(p); ok {
		found, err := s.byHash(ctx, p, algo, hx)
		if !errors.Is(err, meta.ErrNotFound) {
			return found, err
		}
		// In some formats the listed names contain digests.
	}
	if found := s.document(p); found != nil {
		return found, nil
	}
	if l, ok := byPath[rel]; ok {
		return s.listed(ctx, l)
	}
	if l, ok, err := s.expanded(ctx, rel); ok || err != nil {
		if err != nil {
			return nil, err
		}
		return s.listed(ctx, l)
	}
	l, ok, err := s.delta(ctx, rel)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, f.notFound(p)
	}
	found, err := s.listed(ctx, l)
	if err == nil {
		found.Delta = true
	}
	return found, err
}

// document finds a signed document of the root, or returns nil if p is not one.
func (s *suiteFinder) document(p string) *Found {
	for _, d := range slices.Concat(s.gen.Docs, s.gen.Companions) {
		if d.Path != p {
			continue
		}
		modified := s.gen.DocDate(&d)
		if s.latest {
			modified = s.gen.Timestamp
		}
		return &Found{Size: d.Size, Digest: d.SHA256, Modified: modified, Want: s.want(repo.Listed{Path: p, Size: d.Size, SHA256: d.SHA256})}
	}
	return nil
}

// delta finds a file that turns an older package into a newer one, in the delta
// indices that the sync stored.
func (s *suiteFinder) delta(ctx context.Context, rel string) (repo.Listed, bool, error) {
	x, ok := s.format.(repo.DeltaLister)
	if !ok {
		return repo.Listed{}, false, nil
	}
	indices := x.DeltaIndices(rel)
	for _, gr := range s.gen.Groups {
		if !slices.Contains(indices, gr.Index) {
			continue
		}
		files, err := s.readDeltas(ctx, x, gr)
		if err != nil {
			return repo.Listed{}, false, err
		}
		if l, ok := withPath(files, rel); ok {
			return l, true, nil
		}
	}
	return repo.Listed{}, false, nil
}

func (s *suiteFinder) readDeltas(ctx context.Context, x repo.DeltaLister, gr meta.Group) ([]repo.Listed, error) {
	raw, err := s.cfg.Blobs.Open(ctx, gr.Variant.SHA256)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	r, err := s.format.Decode(gr.Variant.Path, raw)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	files, err := x.Deltas(gr.Index, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", gr.Variant.Path, err)
	}
	return files, nil
}

func withPath(files []repo.Listed, p string) (repo.Listed, bool) {
	for _, l := range files {
		if l.Path == p {
			return l, true
		}
	}
	return repo.Listed{}, false
}

// expanded finds a file that is listed by a listed file. It downloads the listed file if
// it is not stored.
func (s *suiteFinder) expanded(ctx context.Context, rel string) (repo.Listed, bool, error) {
	for _, gr := range s.gen.Groups {
		if gr.Variant.Path == rel {
			return gr.Variant, true, nil // stored by the sync
		}
	}
	x, ok := s.format.(repo.Expander)
	if !ok {
		return repo.Listed{}, false, nil
	}
	// The listing is in a parent directory of the file.
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		for _, name := range []string{"SHA256SUMS", "Index"} {
			list, ok := s.byPath[path.Join(dir, name)]
			if !ok || !x.Expands(list.Path) {
				continue
			}
			files, err := s.expand(ctx, x, list)
			if err != nil {
				return repo.Listed{}, false, err
			}
			if l, ok := withPath(files, rel); ok {
				return l, true, nil
			}
		}
	}
	return repo.Listed{}, false, nil
}

func (s *suiteFinder) expand(ctx context.Context, x repo.Expander, list repo.Listed) ([]repo.Listed, error) {
	exact := *s
	exact.finder = &finder{s.Catalog, s.snap, s.format, false}
	found, err := exact.listed(ctx, list)
	if err != nil {
		return nil, err
	}
	r, _, err := s.OpenFound(ctx, found)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return x.Expand(list.Path, io.LimitReader(r, MaxDocument))
}

// listed describes a file of the root. The path of l is relative to the suite.
func (s *suiteFinder) listed(ctx context.Context, l repo.Listed) (*Found, error) {
	dir := s.format.SuiteDir(s.suite)
	found := &Found{Size: l.Size, Digest: l.SHA256, Modified: s.root.Date}
	var names []string // by-hash names, strongest first; the root's paths are relative to the suite
	if s.root.ByHash {
		for _, a := range l.Alternates {
			names = append(names, dir+a)
		}
		if name := s.format.HashName(dir+l.Path, l.SHA256); !l.SHA256.IsZero() && name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	l.Path, l.Alternates = dir+l.Path, names
	found.Want = s.want(l)
	if l.SHA256.IsZero() {
		var err error
		found.Digest, err = s.cfg.Meta.Alias(ctx, meta.AliasSHA512, []byte(l.SHA512))
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return nil, err
		}
		found.Want.Listed.SHA256 = found.Digest
	}
	if s.latest {
		found.Modified = s.gen.Timestamp
		since, err := s.cfg.Meta.ListedSince(meta.Detour(ctx), s.snap.Mirror, s.suite, l.Path, l.SHA256)
		if err == nil {
			found.Modified = since
		} else if !errors.Is(err, meta.ErrNotFound) {
			return nil, err
		}
	} else if err := s.upstreamTime(ctx, found); err != nil {
		return nil, err
	}
	found.Plain = s.variant(s.gen, l.Path)
	return found, nil
}

// byHash finds a file by its digest among all files that roots of the suite have
// listed.
func (s *suiteFinder) byHash(ctx context.Context, p, algo, hx string) (*Found, error) {
	raw, err := hex.DecodeString(hx)
	if err != nil {
		return nil, s.notFound(p)
	}
	switch algo {
	case "SHA256":
		if len(raw) != len(cas.Digest{}) {
			return nil, s.notFound(p)
		}
		d := cas.Digest(raw)
		if l, ok := s.present(p, func(l repo.Listed) bool { return l.SHA256 == d }); ok {
			found, err := s.listed(ctx, l)
			if err == nil && !s.latest {
				// The name identifies the content, so it has not changed since it was
				// first seen.
				found.Modified = s.root.Date
			}
			return found, err
		}
		return s.earlier(ctx, p, d)
	case "SHA512":
		if l, ok := s.present(p, func(l repo.Listed) bool { return l.SHA512 == hx }); ok {
			return s.listed(ctx, l)
		}
		// It is a file of another generation. Its SHA-256 is known if that was also
		// listed, or if the file is stored.
		d, err := s.cfg.Meta.Alias(ctx, meta.AliasSHA512, []byte(hx))
		if errors.Is(err, meta.ErrNotFound) {
			return nil, s.notFound(p)
		} else if err != nil {
			return nil, err
		}
		return s.earlier(ctx, p, d)
	}
	return nil, s.notFound(p)
}

// present finds the first of the root's files that a by-hash name p identifies: it is in
// the same directory and has the digest.
func (s *suiteFinder) present(p string, same func(repo.Listed) bool) (first repo.Listed, ok bool) {
	dir, prefix := path.Dir(path.Dir(path.Dir(p))), s.format.SuiteDir(s.suite)
	for rel, l := range s.byPath {
		if same(l) && path.Join(prefix, path.Dir(rel)) == dir && (!ok || l.Path < first.Path) {
			first, ok = l, true
		}
	}
	return first, ok
}

// earlier finds a file by its SHA-256 among all files that roots of the suite have
// listed, for a client that read its Release file before a sync. In an exact snapshot it
// may also be a later one.
func (s *suiteFinder) earlier(ctx context.Context, p string, d cas.Digest) (*Found, error) {
	l, err := s.cfg.Meta.Listed(ctx, s.snap.Mirror, s.suite, d)
	if errors.Is(err, meta.ErrNotFound) {
		return nil, s.notFound(p)
	} else if err != nil {
		return nil, err
	}
	rel := strings.TrimPrefix(l.Path, s.format.SuiteDir(s.suite))
	found, err := s.listed(ctx, repo.Listed{Path: rel, Size: l.Size, SHA256: d})
	if err != nil {
		return nil, err
	}
	found.Modified = Undated
	if found.Plain != nil {
		// The index is made from the variant that this generation keeps.
		g, err := s.lastWith(ctx, l)
		switch {
		case err == nil:
			found.Plain = s.variant(g, l.Path)
		case errors.Is(err, meta.ErrNotFound):
			found.Plain = nil
		default:
			return nil, err
		}
	}
	return found, nil
}

// lastWith returns the newest generation that lists a file.
func (s *suiteFinder) lastWith(ctx context.Context, l meta.Listing) (*meta.Generation, error) {
	gen := l.Last
	if gen == meta.Unended {
		newest, err := s.cfg.Meta.Latest(ctx, s.snap.Mirror)
		if err != nil {
			return nil, err
		}
		gen, _ = newest.Gen(s.suite)
	}
	return s.cfg.Meta.Generation(ctx, s.snap.Mirror, s.suite, gen)
}

// variant returns the stored variant of an index that a generation keeps only compressed;
// nil for other files. p is relative to the mirror.
func (s *suiteFinder) variant(g *meta.Generation, p string) *acquire.Variant {
	dir := s.format.SuiteDir(s.suite)
	for _, gr := range g.Groups {
		if dir+gr.Index == p && dir+gr.Variant.Path != p {
			return &acquire.Variant{Type: s.snap.Type, Path: gr.Variant.Path, Digest: gr.Variant.SHA256}
		}
	}
	return nil
}
