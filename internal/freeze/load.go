package freeze

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Records looks up the records of freezes.
type Records interface {
	// Freeze returns the record of a freeze. meta.ErrNotFound.
	Freeze(ctx context.Context, name meta.FreezeName) (*meta.Frozen, error)
}

// Load reads the record and the manifest of a freeze. meta.ErrNotFound. If the manifest
// is lost or damaged, Load returns the record with the error.
func Load(ctx context.Context, records Records, blobs cas.Reader, name meta.FreezeName) (*meta.Frozen, *Document, error) {
	f, err := records.Freeze(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	data, err := cas.ReadAll(ctx, blobs, f.Manifest.SHA256, MaxManifest)
	if err != nil {
		return f, nil, fmt.Errorf("manifest of %s: %w", name, err)
	}
	doc, err := ParseDocument(data)
	return f, doc, err
}

// Certificates reads the certificates in blobs as one keyring. It ignores zero digests,
// and returns nil if there are no others.
func Certificates(ctx context.Context, blobs cas.Reader, digests ...cas.Digest) (*sign.Keyring, error) {
	var rings []*sign.Keyring
	for _, d := range digests {
		if d.IsZero() {
			continue
		}
		data, err := cas.ReadAll(ctx, blobs, d, MaxCertificates)
		if err != nil {
			return nil, err
		}
		k, err := sign.ParseKeyring(data)
		if err != nil {
			return nil, err
		}
		rings = append(rings, k)
	}
	if len(rings) == 0 {
		return nil, nil
	}
	return sign.Merge(rings...), nil
}

// RootParser parses the signed documents of suites, as repo.Format does.
type RootParser interface {
	ParseRoot(m config.Mirror, suite repo.SuiteName, docs []repo.Doc, p repo.VerifyParams) (*repo.Root, error)
}

// ReadRoot reads an upstream root of a mirror of a freeze from documents that the freeze
// keeps. It verifies the documents with the certificates of the freeze.
func ReadRoot(ctx context.Context, blobs cas.Reader, f RootParser, d *DocMirror, s *DocSuite, certificates cas.Digest) (*repo.Root, error) {
	var docs []repo.Doc
	for _, file := range s.Documents {
		data, err := cas.ReadAll(ctx, blobs, file.SHA256, MaxDocument)
		if err != nil {
			return nil, err
		}
		docs = append(docs, repo.Doc{Path: file.Path, Data: data})
	}
	var p repo.VerifyParams
	var err error
	if p.Keyring, err = Certificates(ctx, blobs, certificates); err != nil {
		return nil, err
	}
	if s.Metalink != nil {
		if p.Metalink, err = cas.ReadAll(ctx, blobs, s.Metalink.SHA256, MaxMetalink); err != nil {
			return nil, err
		}
	}
	return f.ParseRoot(repo.Recorded(d.Name, d.Type, s.Trust), s.Suite, docs, p)
}

// ParseKeys parses the armored keys of a request as one keyring, or returns nil for no
// keys. ErrUsage.
func ParseKeys(armored []string) (*sign.Keyring, error) {
	var rings []*sign.Keyring
	for _, a := range armored {
		k, err := sign.ParseKeyring([]byte(a))
		if err != nil {
			return nil, fmt.Errorf("%w: key: %w", ErrUsage, err)
		}
		rings = append(rings, k)
	}
	if len(rings) == 0 {
		return nil, nil
	}
	return sign.Merge(rings...), nil
}

// Packages returns packages in pages, like meta.Store.
type Packages interface {
	Packages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error)
}

// EachPackage calls f for each package of a snapshot, by name.
func EachPackage(ctx context.Context, all Packages, snap *meta.Snapshot, f func(meta.Entry) error) error {
	return eachPage(ctx, all.Packages, snap, f)
}

// Stanzas returns the packages of snapshots, and their stanzas, like meta.Store.
type Stanzas interface {
	Packages
	PackagesByName(ctx context.Context, snap *meta.Snapshot, names []string) ([][]meta.Entry, error)
	PackagesNamed(ctx context.Context, snap *meta.Snapshot, prefix, from string, limit int) (found []meta.Entry, next string, err error)
	Stanzas(ctx context.Context, pids []meta.PID) ([][]byte, error)
	Sourced
}

// Sourced finds the packages of sources, like meta.Store.
type Sourced interface {
	FactsBySource(ctx context.Context, mirror meta.MirrorName, names []string) ([][]*meta.Fact, error)
}

// NamesOfSource returns, in order, the names of the packages that a mirror has or had of
// a source package, and the name of the source itself, since a package that names no
// source is built from the source of the same name.
func NamesOfSource(ctx context.Context, all Sourced, mirror meta.MirrorName, source string) ([]string, error) {
	facts, err := all.FactsBySource(ctx, mirror, []string{source})
	if err != nil {
		return nil, err
	}
	names := []string{source}
	for _, f := range facts[0] {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// pageSize is how many packages are read at once.
const pageSize = 1000

// EachAsked calls f for each package of a snapshot that q (nil: all) may match, by name
// from the name from on. The entries have stanzas if the query reads fields.
func EachAsked(ctx context.Context, all Stanzas, snap *meta.Snapshot, q *query.Query, from string, f func(meta.Entry) error) error {
	each := func(page []meta.Entry) error {
		if q != nil && q.Fields() {
			if err := addStanzas(ctx, all, page); err != nil {
				return err
			}
		}
		for _, e := range page {
			if err := f(e); err != nil {
				return err
			}
		}
		return nil
	}
	prefix := ""
	if q != nil {
		names, ok := q.Names()
		if source, of := q.Source(); !ok && of {
			var err error
			if names, err = NamesOfSource(ctx, all, snap.Mirror, source); err != nil {
				return err
			}
			ok = true
		}
		if ok {
			names = names[sort.SearchStrings(names, from):]
			for some := range slices.Chunk(names, pageSize) {
				found, err := all.PackagesByName(ctx, snap, some)
				if err != nil {
					return err
				}
				if err := each(slices.Concat(found...)); err != nil {
					return err
				}
			}
			return nil
		}
		prefix = q.Prefix()
	}
	if prefix == "" && from == "" {
		return eachPageOf(ctx, all.Packages, snap, each)
	}
	for next := max(prefix, from); ; {
		page, after, err := all.PackagesNamed(ctx, snap, prefix, next, pageSize)
		if err != nil {
			return err
		}
		if err := each(page); err != nil {
			return err
		}
		if after == "" {
			return nil
		}
		next = after
	}
}

// addStanzas adds their stanzas to the entries of a page. It replaces their facts by
// copies, because others may use the facts.
func addStanzas(ctx context.Context, all Stanzas, page []meta.Entry) error {
	pids := make([]meta.PID, len(page))
	for i, e := range page {
		pids[i] = e.PID
	}
	stanzas, err := all.Stanzas(ctx, pids)
	if err != nil {
		return err
	}
	for i := range page {
		fact := *page[i].Fact
		fact.Bytes = stanzas[i]
		page[i].Fact = &fact
	}
	return nil
}

// Unusables returns stanzas that no client can install in pages, like meta.Store.
type Unusables interface {
	UnusablePackages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error)
}

// EachUnusable calls f for each stanza of a snapshot that no client can install.
func EachUnusable(ctx context.Context, all Unusables, snap *meta.Snapshot, f func(meta.Entry) error) error {
	return eachPage(ctx, all.UnusablePackages, snap, f)
}

type pager func(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) ([]meta.Entry, []byte, error)

func eachPage(ctx context.Context, pages pager, snap *meta.Snapshot, f func(meta.Entry) error) error {
	return eachPageOf(ctx, pages, snap, func(page []meta.Entry) error {
		for _, e := range page {
			if err := f(e); err != nil {
				return err
			}
		}
		return nil
	})
}

func eachPageOf(ctx context.Context, pages pager, snap *meta.Snapshot, f func([]meta.Entry) error) error {
	for after := []byte(nil); ; {
		page, next, err := pages(ctx, snap, after, pageSize)
		if err != nil {
			return err
		}
		if err := f(page); err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		after = next
	}
}
