package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Opener opens the files of a frozen repository: <mirror>/<path>.
type Opener interface {
	Open(ctx context.Context, path string) (io.ReadCloser, error)
}

// Format reads repositories that this server derived and signed.
type Format interface {
	RootDocs(suite repo.SuiteName) [][]string
	ParseRoot(m config.Mirror, suite repo.SuiteName, docs []repo.Doc, p repo.VerifyParams) (*repo.Root, error)
	Plan(m config.Mirror, root *repo.Root) ([]repo.Group, error)
	Read(ctx context.Context, root *repo.Root, g repo.Group, variant repo.Listed, open func(context.Context, repo.Listed) (io.ReadCloser, error), emit func(*repo.Record) error) error
	SuiteDir(suite repo.SuiteName) string
}

// EveryPackageIndex returns a configuration that selects every package index of a suite.
func EveryPackageIndex(name meta.MirrorName, typ string, suite repo.SuiteName) config.Mirror {
	return config.Mirror{Name: name, Type: typ, Suites: []string{string(suite)}, Sources: true, Udebs: true}
}

// ReadFile reads a file of the frozen repository with the given size. It returns a
// *SizeError if the size differs.
func ReadFile(ctx context.Context, t Opener, path string, size int64) ([]byte, error) {
	r, err := t.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(regfile.WithContext(ctx, r), size+1))
	if err == nil && int64(len(data)) != size {
		err = &SizeError{path, size, int64(len(data))}
	}
	return data, err
}

// Repository is the frozen repository of one mirror.
type Repository struct {
	Mirror meta.MirrorName
	Type   string
	Format Format
	Tree   Opener
	Files  map[string]meta.Node // by their path below the mirror
}

// SignedRoot reads the documents of a suite that this server signed, and checks that the
// keys signed them and that they list the same files. freeze.ErrMissing.
func (r *Repository) SignedRoot(ctx context.Context, suite repo.SuiteName, keys *sign.Keyring) (*repo.Root, []repo.Doc, error) {
	var all []repo.Doc
	var root *repo.Root
	for _, set := range r.Format.RootDocs(suite) {
		docs, err := r.documents(ctx, set)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, docs...)
		parsed, err := r.Format.ParseRoot(EveryPackageIndex(r.Mirror, r.Type, suite), suite, docs, repo.VerifyParams{Keyring: keys})
		if err != nil {
			return nil, nil, fmt.Errorf("signature of this server: %w", err)
		}
		if root != nil && !slices.EqualFunc(root.Files, parsed.Files, sameListed) {
			return nil, nil, errors.New("the signed documents list different files")
		}
		root = parsed
	}
	if root == nil {
		return nil, nil, fmt.Errorf("no signed root of suite %s: %w", suite, freeze.ErrMissing)
	}
	return root, all, nil
}

func sameListed(a, b repo.Listed) bool {
	return a.Path == b.Path && a.SHA256 == b.SHA256 && a.Size == b.Size
}

func (r *Repository) documents(ctx context.Context, paths []string) (docs []repo.Doc, err error) {
	for _, p := range paths {
		n, ok := r.Files[p]
		if !ok {
			return nil, fmt.Errorf("signed document %s: %w", p, freeze.ErrMissing)
		}
		if n.Size > freeze.MaxDocument {
			return nil, fmt.Errorf("signed document %s: %d bytes, expected at most %d", p, n.Size, freeze.MaxDocument)
		}
		data, err := ReadFile(ctx, r.Tree, string(r.Mirror)+"/"+p, n.Size)
		if err != nil {
			return nil, err
		}
		docs = append(docs, repo.Doc{Path: p, Data: data})
	}
	return docs, nil
}

// EachPackage reads the stored package indices of a mirror of a freeze, and calls
// emit for each package.
func (t *Stored) EachPackage(ctx context.Context, format Format, fm *meta.FrozenMirror, emit func(repo.SuiteName, repo.Group, *repo.Record) error) error {
	key, err := t.Key(ctx)
	if err != nil {
		return err
	}
	keys, err := sign.ParseKeyring(key)
	if err != nil {
		return err
	}
	r := &Repository{Mirror: fm.Mirror, Type: fm.Type, Format: format, Tree: t, Files: map[string]meta.Node{}}
	if err := t.Each(ctx, fm.Mirror, func(n meta.Node) error {
		r.Files[strings.TrimPrefix(n.Path, string(fm.Mirror)+"/")] = n
		return nil
	}); err != nil {
		return err
	}
	done := map[repo.SuiteName]bool{}
	for _, s := range fm.Suites {
		if done[s.Suite] {
			continue
		}
		done[s.Suite] = true
		if err := r.eachOf(ctx, s.Suite, keys, emit); err != nil {
			return err
		}
	}
	return nil
}

// eachOf reads the package indices of one suite, each in the first variant that
// exists.
func (r *Repository) eachOf(ctx context.Context, suite repo.SuiteName, keys *sign.Keyring, emit func(repo.SuiteName, repo.Group, *repo.Record) error) error {
	root, _, err := r.SignedRoot(ctx, suite, keys)
	if err != nil {
		return err
	}
	groups, err := r.Format.Plan(EveryPackageIndex(r.Mirror, r.Type, suite), root)
	if err != nil {
		return err
	}
	dir := r.Format.SuiteDir(suite)
	open := func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
		return r.Tree.Open(ctx, string(r.Mirror)+"/"+dir+l.Path)
	}
	for _, g := range groups {
		i := slices.IndexFunc(g.Variants, func(l repo.Listed) bool { _, ok := r.Files[dir+l.Path]; return ok })
		if !g.Packages || i < 0 {
			continue
		}
		err := r.Format.Read(ctx, root, g, g.Variants[i], open, func(rec *repo.Record) error {
			if rec.Kind == repo.KindUnusable {
				return nil
			}
			return emit(suite, g, rec)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
