// Package deb implements the Debian repository format: Release files, the indices
// that they list, and the stanzas in those, as described by the Debian wiki's
// RepositoryFormat page, Debian Policy and apt's source code.
//
// [Format] implements [repo.Format] with it. The rest is pure: bytes in, facts or
// an error out, with no clock, network or disk. Input is hostile until its digest
// is verified, and much of it is after that: a signature says who wrote an index,
// not that its paths stay inside the repository.
package deb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
)

// Format implements repo.Format for Debian repositories. It is stateless.
type Format struct{}

// maxStanza limits a stanza of an index, in bytes. apt's buffer holds little more
// (pkgTagFile::Resize), and apt refuses an index with a larger stanza. The
// largest in Debian has about 300 KB.
const maxStanza = 1 << 20

// SourceArch is the architecture of source records.
const SourceArch = "source"

// Type returns "deb".
func (Format) Type() string { return "deb" }

// SourceArch returns "source".
func (Format) SourceArch() string { return SourceArch }

// Compare orders versions as dpkg does.
func (Format) Compare(a, b string) int { return CompareVersions(a, b) }

// Field returns a field of a package's stanza; the case of the name does not
// matter. The lines of a multi-line field are returned as written.
func (Format) Field(rec *repo.Record, name string) (string, bool) {
	return deb822.StanzaOf(rec.Bytes).Get(name)
}

// Fields returns the fields of a package's stanza. If a name occurs twice, it
// returns only the last field, as apt does.
func (f Format) Fields(rec *repo.Record) (out []repo.Field) {
	stanza := deb822.StanzaOf(rec.Bytes)
	for s := stanza.Scan(); s.Next(); {
		name := string(s.Name())
		if slices.ContainsFunc(out, func(f repo.Field) bool { return strings.EqualFold(f.Name, name) }) {
			continue
		}
		value, _ := stanza.Get(name)
		out = append(out, repo.Field{Name: name, Value: value})
	}
	return out
}

// Suites returns the configured suites.
func (Format) Suites(m config.Mirror) ([]repo.SuiteName, error) {
	if len(m.Suites) == 0 {
		return nil, fmt.Errorf("mirror %s: no suites", m.Name)
	}
	out := make([]repo.SuiteName, len(m.Suites))
	for i, s := range m.Suites {
		out[i] = repo.SuiteName(s)
	}
	return out, nil
}

// Match reports whether a record's name matches the mirror's packages globs.
func (Format) Match(m config.Mirror, rec *repo.Record) bool {
	return len(m.Packages) == 0 ||
		slices.ContainsFunc(m.Packages, func(g string) bool { return matches(g, rec.Name) })
}

// Read decodes a package index and emits its records. It checks size and digest
// at the end: if Read fails, the caller must discard all records.
func (Format) Read(ctx context.Context, root *repo.Root, g repo.Group, variant repo.Listed,
	open func(context.Context, repo.Listed) (io.ReadCloser, error), emit func(*repo.Record) error) (err error) {
	kind := repo.KindBinary
	switch classify(g.Index, isFlat(root.Suite)).kind {
	case udebs:
		kind = repo.KindInstaller
	case sources:
		kind = repo.KindSource
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("read %s of suite %s: %w", variant.Path, root.Suite, err)
		}
	}()
	return readPlain(ctx, g, variant, open, func(r io.Reader) error { return readIndex(ctx, r, kind, emit) })
}

// readPlain calls f with a reader of the plain content of a variant of a group,
// and verifies the content at its end.
func readPlain(ctx context.Context, g repo.Group, variant repo.Listed, open func(context.Context, repo.Listed) (io.ReadCloser, error), f func(io.Reader) error) error {
	var plain *repo.Listed
	for i := range g.Variants {
		if g.Variants[i].Path == g.Index {
			plain = &g.Variants[i]
		}
	}
	raw, err := open(ctx, variant)
	if err != nil {
		return err
	}
	defer raw.Close()
	r, err := openPlain(ctx, variant, plain, raw)
	if err != nil {
		return err
	}
	defer r.Close()
	return f(r)
}

// CheckIndex parses a Translation file like apt, which refuses all indices if it
// cannot read one of them.
func (Format) CheckIndex(ctx context.Context, root *repo.Root, g repo.Group, variant repo.Listed,
	open func(context.Context, repo.Listed) (io.ReadCloser, error)) ([]string, error) {
	if classify(g.Index, isFlat(root.Suite)).kind != translation {
		return nil, nil
	}
	err := readPlain(ctx, g, variant, open, func(r io.Reader) error {
		p := newParser(repo.KindBinary)
		for pr := deb822.NewReader(r, maxStanza); ; {
			stanza, err := pr.Next()
			if err == io.EOF {
				return ctx.Err()
			}
			if err == nil {
				err = p.translation(stanza)
			} else if errors.Is(err, deb822.ErrMalformed) || errors.Is(err, deb822.ErrTooLarge) {
				err = fmt.Errorf("%w: %w", repo.ErrMalformed, err)
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read %s of suite %s: %w", variant.Path, root.Suite, err)
	}
	return nil, nil
}

// readIndex emits the records of a plain index. It fails if no stanza is usable.
func readIndex(ctx context.Context, r io.Reader, kind repo.Kind, emit func(*repo.Record) error) error {
	p := newParser(kind)
	var rec repo.Record
	var first error // why the first unusable stanza is unusable
	usable := false
	for pr := deb822.NewReader(r, maxStanza); ; {
		stanza, err := pr.Next()
		if err == io.EOF {
			if first != nil && !usable {
				return fmt.Errorf("no stanza can be used: %w", first)
			}
			return ctx.Err()
		}
		if errors.Is(err, deb822.ErrMalformed) || errors.Is(err, deb822.ErrTooLarge) {
			return fmt.Errorf("%w: %w", repo.ErrMalformed, err)
		}
		if err != nil {
			return err
		}
		why, err := p.parse(stanza, &rec)
		if err != nil {
			return err
		}
		if why == nil {
			usable = true
		} else if first == nil {
			first = fmt.Errorf("%s: %w", stanza, why)
		}
		if err := emit(&rec); err != nil {
			return err
		}
	}
}

var _ repo.Format = Format{}
