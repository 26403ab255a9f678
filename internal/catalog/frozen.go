package catalog

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Names of files that every freeze has.
const (
	ManifestName            = "manifest.json"
	manifestSignatureName   = ManifestName + ".asc"
	ProvenanceName          = "provenance.json"
	provenanceSignatureName = ProvenanceName + ".asc"
	KeyName                 = "key.asc"
)

// ClientConfig is a file below a freeze that configures clients.
type ClientConfig struct {
	Path, Kind, Title string
}

// ClientConfigs returns the files that configure clients of a freeze, for the
// formats of its mirrors.
func (c *Catalog) ClientConfigs(fr *meta.Frozen) []ClientConfig {
	var out []ClientConfig
	for _, cc := range []ClientConfig{{"sources", "deb822", "apt sources"}, {"repo", "repo", "dnf repo"}} {
		if slices.ContainsFunc(fr.Mirrors, func(m meta.FrozenMirror) bool {
			f, err := c.cfg.Formats.Of(m.Type)
			return err == nil && slices.Contains(f.ClientKinds(), cc.Kind)
		}) {
			out = append(out, cc)
		}
	}
	return out
}

// ListFreezes returns the freezes as a directory.
func (c *Catalog) ListFreezes(ctx context.Context) (Entry, error) {
	all, err := c.cfg.Meta.Freezes(ctx)
	if err != nil {
		return Entry{}, err
	}
	d := &Dir{}
	for _, f := range all {
		d.Names = append(d.Names, string(f.Name)+"/")
	}
	return Entry{Dir: d}, nil
}

// FrozenEntry finds a stored file of a freeze, or a directory. The files of ClientConfigs
// are not stored. meta.ErrNotFound.
func (c *Catalog) FrozenEntry(ctx context.Context, fr *meta.Frozen, p string) (Entry, error) {
	if p == "" {
		return c.frozenTop(fr), nil
	}
	if e, ok, err := c.frozenDocument(ctx, fr, p); ok {
		return e, err
	}
	name, rest, slash := strings.Cut(p, "/")
	i := fr.MirrorIndex(meta.MirrorName(name))
	if i < 0 {
		return Entry{}, fmt.Errorf("%s in freeze %s: %w", name, fr.Name, meta.ErrNotFound)
	}
	m := &frozenMirror{Catalog: c, fr: fr, part: &fr.Mirrors[i]}
	if m.part.Whole {
		m.upstream = fr.View(i)
	}
	if slash && rest != "" && !strings.HasSuffix(rest, "/") {
		f, err := m.lookup(ctx, rest)
		if err == nil {
			return Entry{File: f, Name: rest, Immutable: true, Frozen: true}, nil
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return Entry{Frozen: true}, err
		}
	}
	return m.dir(ctx, strings.TrimSuffix(rest, "/"))
}

func (c *Catalog) frozenTop(fr *meta.Frozen) Entry {
	d := &Dir{Names: []string{ManifestName, manifestSignatureName, ProvenanceName, KeyName}}
	for _, cc := range c.ClientConfigs(fr) {
		d.Names = append(d.Names, cc.Path)
	}
	if !fr.ProvSignature.SHA256.IsZero() {
		d.Names = append(d.Names, provenanceSignatureName)
	}
	for _, m := range fr.Mirrors {
		d.Names = append(d.Names, string(m.Mirror)+"/")
	}
	return Entry{Dir: d, Immutable: true}
}

// frozenDocument finds the documents beside the mirrors of a freeze. ok is false if p is
// another file.
func (c *Catalog) frozenDocument(ctx context.Context, fr *meta.Frozen, p string) (e Entry, ok bool, err error) {
	stored := func(f repo.File, immutable bool) (Entry, bool, error) {
		return Entry{File: blob(f.SHA256, f.Size, fr.Date, p), Name: p, Immutable: immutable, Frozen: true}, true, nil
	}
	switch p {
	case ManifestName:
		return stored(fr.Manifest, true)
	case manifestSignatureName:
		return stored(fr.Signature, true)
	case ProvenanceName:
		return stored(fr.Prov, false)
	case provenanceSignatureName:
		if !fr.ProvSignature.SHA256.IsZero() {
			return stored(fr.ProvSignature, false)
		}
	case KeyName:
		return c.certificates(ctx, fr.KeyBlob)
	}
	for _, m := range fr.Mirrors {
		if p == certificatesPath(m.Mirror) && !m.Certificates.IsZero() {
			return c.certificates(ctx, m.Certificates)
		}
	}
	for _, st := range fr.Statements {
		if st.Path == p {
			return stored(st, true)
		}
	}
	return Entry{}, false, nil
}

// certificatesPath is the file with the keys of the distribution of a mirror.
func certificatesPath(mirror meta.MirrorName) string { return "_proof/" + string(mirror) + "/keys.asc" }

func (c *Catalog) certificates(ctx context.Context, d cas.Digest) (Entry, bool, error) {
	e, err := c.blobEntry(ctx, d)
	e.Frozen, e.Certificates = true, true
	return e, true, err
}

// frozenMirror finds files of one mirror of a freeze.
type frozenMirror struct {
	*Catalog
	fr       *meta.Frozen
	part     *meta.FrozenMirror
	upstream *meta.Snapshot // for a whole mirror that was not imported
}

// lookup finds a file in the derived tree or, for a whole mirror, among the files that
// its generations list, except upstream's signed documents. meta.ErrNotFound.
func (m *frozenMirror) lookup(ctx context.Context, p string) (*Found, error) {
	tree := ctx
	if m.upstream != nil {
		tree = meta.Detour(ctx)
	}
	node, err := m.cfg.Meta.TreeFile(tree, m.fr.Name, string(m.part.Mirror)+"/"+p)
	if err == nil {
		f := blob(node.Digest, node.Size, node.ModTime, p)
		f.Want.Mirror = m.part.Mirror
		return f, nil
	}
	if !errors.Is(err, meta.ErrNotFound) || m.upstream == nil {
		return nil, err
	}
	f, lerr := m.Lookup(ctx, m.upstream, p, false)
	if lerr != nil {
		return nil, lerr
	}
	if document, derr := m.isDocument(ctx, p); derr != nil {
		return nil, derr
	} else if document {
		return nil, err
	}
	if f.Package == nil {
		if f.Plain == nil || f.Modified.Equal(Undated) {
			// The frozen Release does not list it, so it is not served.
			return nil, err
		}
		// This is the plain variant of an index that is stored compressed.
		f.Modified = m.fr.Date
	}
	return f, nil
}

// isDocument reports whether p is one of upstream's signed documents.
func (m *frozenMirror) isDocument(ctx context.Context, p string) (bool, error) {
	gens, err := m.cfg.Meta.Generations(ctx, m.upstream)
	return slices.ContainsFunc(gens, func(g *meta.Generation) bool {
		return slices.ContainsFunc(slices.Concat(g.Docs, g.Companions), func(d meta.Doc) bool { return d.Path == p })
	}), err
}

// dir returns the names in a directory.
func (m *frozenMirror) dir(ctx context.Context, dir string) (Entry, error) {
	prefix := string(m.part.Mirror) + "/"
	if dir != "" {
		prefix += dir + "/"
	}
	d := &Dir{}
	for after := ""; len(d.Names) < MaxNames; {
		const pageSize = 500
		page, err := m.cfg.Meta.TreeDir(ctx, m.fr.Name, prefix, after, pageSize)
		if err != nil {
			return Entry{}, err
		}
		d.Names = append(d.Names, page...)
		if len(page) < pageSize {
			break
		}
		after = page[len(page)-1]
		d.More = len(d.Names) >= MaxNames
	}
	if m.upstream != nil {
		if err := m.addUpstream(ctx, dir, d); err != nil {
			return Entry{}, err
		}
	}
	if len(d.Names) == 0 {
		return Entry{}, fmt.Errorf("%s in freeze %s: %w", prefix, m.fr.Name, meta.ErrNotFound)
	}
	return Entry{Dir: d, Immutable: true}, nil
}

// addUpstream adds the names in a directory that are served from upstream's
// generations.
func (m *frozenMirror) addUpstream(ctx context.Context, dir string, d *Dir) error {
	names, more, err := m.Dir(ctx, m.upstream, dir, MaxNames)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	d.More = d.More || more
	seen := map[string]bool{}
	for _, n := range d.Names {
		seen[n] = true
	}
	for _, n := range names {
		if seen[n] {
			continue
		}
		if served, err := m.serves(ctx, path.Join(dir, n), strings.HasSuffix(n, "/")); err != nil {
			return err
		} else if served {
			d.Names = append(d.Names, n)
		}
	}
	return nil
}

// serves reports whether a whole mirror serves a file that upstream lists, or a file
// below a directory. It serves all packages, and those files of its suites that the
// frozen root lists.
func (m *frozenMirror) serves(ctx context.Context, p string, dir bool) (bool, error) {
	if !dir {
		f, err := m.cfg.Formats.Of(m.part.Type)
		if err != nil {
			return false, err
		}
		var suites []repo.SuiteName
		for _, su := range m.part.Suites {
			suites = append(suites, su.Suite)
		}
		if _, _, ok := f.SuiteOf(p, suites); !ok {
			return true, nil // a package
		}
		_, err = m.lookup(ctx, p)
		if errors.Is(err, meta.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	inTree, err := m.cfg.Meta.TreeDir(ctx, m.fr.Name, string(m.part.Mirror)+"/"+p+"/", "", 1)
	if err != nil || len(inTree) > 0 {
		return err == nil, err
	}
	names, _, err := m.Dir(ctx, m.upstream, p, MaxNames)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return false, err
	}
	for _, n := range names {
		if served, err := m.serves(ctx, path.Join(p, n), strings.HasSuffix(n, "/")); served || err != nil {
			return served, err
		}
	}
	return false, nil
}

// Replay finds a file among upstream's indices and signatures of the i-th mirror of a
// freeze, or a package of the freeze. ErrNoUpstreamIndices, meta.ErrNotFound.
func (c *Catalog) Replay(ctx context.Context, fr *meta.Frozen, i int, p string) (*Found, error) {
	m := &fr.Mirrors[i]
	notFound := fmt.Errorf("%s in freeze %s: %w", p, fr.Name, meta.ErrNotFound)
	upstream := fr.View(i)
	if upstream == nil {
		return nil, fmt.Errorf("freeze %s: %w", fr.Name, ErrNoUpstreamIndices)
	}
	f, err := c.Lookup(ctx, upstream, p, false)
	if err != nil {
		return nil, err
	}
	if f.Delta {
		return nil, notFound // clients fetch the package itself
	}
	if f.Package != nil && !m.Whole {
		node, err := c.cfg.Meta.TreeFile(ctx, fr.Name, string(m.Mirror)+"/"+p)
		if err != nil {
			return nil, err
		}
		if node.Digest != f.Digest {
			return nil, notFound
		}
	}
	return f, nil
}
