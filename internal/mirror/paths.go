package mirror

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// A signed index determines the paths of packages, and may use the path of
// another file: a signed document, an index, or a package with different bytes.
// Only one of the two could be served. Such a path is refused before metadata
// refers to it.

// ownFile is a file of a suite other than a package.
type ownFile struct {
	what   string     // "a signed document of suite stable"
	sha256 cas.Digest // zero: unknown, or not stored yet
	size   int64      // -1: unknown
	listed bool       // its digest in a root, if that lists only SHA-512
	fresh  bool       // its suite is part of this sync
}

// ownPaths are the paths of a snapshot that packages must not have.
type ownPaths struct {
	f      repo.Paths
	suites []repo.SuiteName
	files  map[string]ownFile
	below  map[string]string // one file below each directory
}

// add adds a file. Two suites may list the same file, with the same bytes.
func (o *ownPaths) add(p string, f ownFile) error {
	have, ok := o.files[p]
	if ok && !have.sha256.IsZero() && !f.sha256.IsZero() && have.sha256 != f.sha256 {
		return clash("%s and %s are both at %s, with SHA-256 %s and %s", have.what, f.what, p, have.sha256, f.sha256)
	}
	if !ok || have.sha256.IsZero() && !f.sha256.IsZero() {
		o.files[p] = f
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if _, ok := o.below[dir]; ok {
			break
		}
		o.below[dir] = p
	}
	return nil
}

// check checks the path of a package file.
func (o *ownPaths) check(who string, f repo.File) error {
	if own, ok := o.files[f.Path]; ok {
		same := own.sha256 == f.SHA256 || own.sha256.IsZero() && own.listed && own.size == f.Size
		if !same {
			return clash("%s is at %s, which is the path of %s", who, f.Path, own.what)
		}
		return nil
	}
	if p, ok := o.below[f.Path]; ok {
		return clash("%s is at %s, the directory of %s, %s", who, f.Path, p, o.files[p].what)
	}
	for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
		if own, ok := o.files[dir]; ok {
			return clash("%s is at %s, below %s, which is %s", who, f.Path, dir, own.what)
		}
	}
	if _, _, ok := o.f.ByHash(f.Path); ok && o.f.HashName(f.Path, f.SHA256) != "" {
		suite, _, in := o.f.SuiteOf(f.Path, o.suites)
		if in && path.Base(f.Path) != f.SHA256.String() {
			return clash("%s is at %s, a name by hash of suite %s, and has SHA-256 %s", who, f.Path, suite, f.SHA256)
		}
	}
	return nil
}

func clash(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{repo.ErrHostile}, args...)...)
}

// ownPathsOf collects the paths of the new snapshot.
func (a *attempt) ownPathsOf(ctx context.Context) (*ownPaths, error) {
	o := &ownPaths{f: a.f, files: map[string]ownFile{}, below: map[string]string{}}
	for _, s := range a.suites {
		o.suites = append(o.suites, s.suite)
		root := s.root
		if root == nil {
			var err error
			if root, _, _, err = s.e.catalog.Root(ctx, s.m.Name, s.m.Type, s.suite, s.gen.Gen); err != nil {
				return nil, err
			}
		}
		dir := s.f.SuiteDir(s.suite)
		fresh := s.root != nil
		for _, d := range s.gen.Docs {
			if err := o.add(d.Path, ownFile{what: fmt.Sprintf("a signed document of suite %s", s.suite), sha256: d.SHA256, size: d.Size, fresh: fresh}); err != nil {
				return nil, err
			}
		}
		for _, l := range root.Files {
			if err := o.add(dir+l.Path, ownFile{what: fmt.Sprintf("a file that suite %s lists", s.suite), sha256: l.SHA256, size: l.Size, listed: true, fresh: fresh}); err != nil {
				return nil, err
			}
		}
		held := map[string]bool{}
		for _, g := range s.gen.Groups {
			held[dir+g.Variant.Path] = true
		}
		for _, g := range s.gen.Groups {
			p := dir + g.Variant.Path
			for up := path.Dir(p); up != "."; up = path.Dir(up) {
				if held[up] {
					return nil, clash("%s is below %s, and both are files of suite %s", p, up, s.suite)
				}
			}
			if err := o.add(p, ownFile{what: fmt.Sprintf("a file of suite %s", s.suite), sha256: g.Variant.SHA256, size: g.Variant.Size, fresh: fresh}); err != nil {
				return nil, err
			}
		}
		for _, p := range s.f.OwnPaths(root) {
			if err := o.add(p, ownFile{what: fmt.Sprintf("the place of a file of suite %s", s.suite), size: -1, fresh: fresh}); err != nil {
				return nil, err
			}
			if hashed := s.f.HashName(p, cas.Digest{}); hashed != "" {
				for dir := path.Dir(hashed); dir != "."; dir = path.Dir(dir) {
					if _, ok := o.below[dir]; !ok {
						o.below[dir] = p
					}
				}
			}
		}
	}
	return o, nil
}

// checkPaths refuses packages at the path of another file, and other files at the path of
// a package. It does not check pairs again that an earlier snapshot contains.
func (a *attempt) checkPaths(ctx context.Context) error {
	own, err := a.ownPathsOf(ctx)
	if err != nil {
		return err
	}
	staged := a.staged()
	for _, s := range a.suites {
		if s.root == nil {
			continue
		}
		err := s.eachBegun(ctx, func(page []*meta.Fact) error { return a.checkPackages(ctx, own, staged, page) })
		if err != nil {
			return fmt.Errorf("suite %s: %w", s.suite, err)
		}
	}
	return a.checkFresh(ctx, own, staged)
}

// checkFresh refuses new files of suites at the paths of existing packages.
func (a *attempt) checkFresh(ctx context.Context, own *ownPaths, all *meta.Snapshot) error {
	var fresh []meta.PathDigest
	for p, f := range own.files {
		if f.fresh {
			fresh = append(fresh, meta.PathDigest{Path: p, SHA256: f.sha256})
		}
	}
	slices.SortFunc(fresh, func(a, b meta.PathDigest) int { return strings.Compare(a.Path, b.Path) })
	for page := range slices.Chunk(fresh, pageSize) {
		hits, err := a.e.cfg.Meta.PathClashes(ctx, all, page)
		if err != nil {
			return err
		}
		for _, hit := range hits {
			if hit == nil {
				continue
			}
			if err := own.check(named(hit.Fact), hit.File); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// checkPackages checks the paths of package files against each other.
func (a *attempt) checkPackages(ctx context.Context, own *ownPaths, all *meta.Snapshot, page []*meta.Fact) error {
	var files []meta.PathDigest
	for _, f := range page {
		if err := own.checkPackage(f); err != nil {
			return err
		}
		for _, file := range f.Files {
			files = append(files, meta.PathDigest{Path: file.Path, SHA256: file.SHA256, Of: f.PID})
		}
	}
	hits, err := a.e.cfg.Meta.PathClashes(ctx, all, files)
	if err != nil {
		return err
	}
	for _, f := range page {
		for i, file := range f.Files {
			if hit := hits[i]; hit != nil {
				return clash("%s is at %s with SHA-256 %s, and %s is at %s with SHA-256 %s", named(f), file.Path, file.SHA256,
					named(hit.Fact), hit.File.Path, hit.File.SHA256)
			}
		}
		hits = hits[len(f.Files):]
	}
	return nil
}

// checkPackage checks the paths of one package's files.
func (o *ownPaths) checkPackage(f *meta.Fact) error {
	seen := make(map[string]cas.Digest, len(f.Files))
	for _, file := range f.Files {
		if d, ok := seen[file.Path]; ok && d != file.SHA256 {
			return clash("%s has %s twice, with SHA-256 %s and %s", named(f), file.Path, d, file.SHA256)
		}
		seen[file.Path] = file.SHA256
	}
	for _, file := range f.Files {
		if err := o.check(named(f), file); err != nil {
			return err
		}
	}
	return nil
}

func named(f *meta.Fact) string { return fmt.Sprintf("package %s %s %s", f.Name, f.Version, f.Arch) }
