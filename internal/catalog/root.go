package catalog

import (
	"context"
	"fmt"
	"sync"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// MaxDocument limits a signed document, in bytes.
const MaxDocument = 64 << 20

// maxRoots limits the number of cached roots. One of a Debian suite takes about 1 MB.
const maxRoots = 24

// rootKey identifies a generation.
type rootKey struct {
	mirror meta.MirrorName
	suite  repo.SuiteName
	gen    uint32
}

// rootEntry is a parsed root with its files by path.
type rootEntry struct {
	root   *repo.Root
	gen    *meta.Generation
	byPath map[string]repo.Listed
	once   sync.Once
	err    error
}

// Root returns the root of a generation and the files that it lists, by path. The
// root is parsed again from its documents, which were verified when they were
// stored.
func (c *Catalog) Root(ctx context.Context, mirror meta.MirrorName, typ string, suite repo.SuiteName, gen uint32) (*repo.Root, *meta.Generation, map[string]repo.Listed, error) {
	k := rootKey{mirror, suite, gen}
	c.mu.Lock()
	entry := c.roots[k]
	if entry == nil {
		if len(c.roots) >= maxRoots {
			for old := range c.roots {
				delete(c.roots, old)
				break
			}
		}
		entry = &rootEntry{}
		c.roots[k] = entry
	}
	c.mu.Unlock()
	entry.once.Do(func() { entry.err = c.loadRoot(context.WithoutCancel(ctx), typ, k, entry) })
	if entry.err != nil {
		c.mu.Lock()
		if c.roots[k] == entry {
			delete(c.roots, k)
		}
		c.mu.Unlock()
	}
	return entry.root, entry.gen, entry.byPath, entry.err
}

func (c *Catalog) loadRoot(ctx context.Context, typ string, k rootKey, entry *rootEntry) error {
	f, err := c.cfg.Formats.Of(typ)
	if err != nil {
		return err
	}
	if entry.gen, err = c.cfg.Meta.Generation(ctx, k.mirror, k.suite, k.gen); err != nil {
		return err
	}
	docs, err := c.Documents(ctx, entry.gen)
	if err != nil {
		return err
	}
	p, err := c.verifyParams(ctx, entry.gen)
	if err != nil {
		return err
	}
	m := repo.Recorded(k.mirror, typ, entry.gen.Trust)
	if entry.root, err = f.ParseRoot(m, k.suite, docs, p); err != nil {
		return fmt.Errorf("root of %s %s, generation %d: %w", k.mirror, k.suite, k.gen, err)
	}
	entry.byPath = make(map[string]repo.Listed, len(entry.root.Files))
	for _, l := range entry.root.Files {
		entry.byPath[l.Path] = l
	}
	return nil
}

// verifyParams returns the parameters for verifying a stored generation: the
// certificates and the metalink that were stored with it.
func (c *Catalog) verifyParams(ctx context.Context, g *meta.Generation) (p repo.VerifyParams, err error) {
	if !g.Certificates.IsZero() {
		data, err := cas.ReadAll(ctx, c.cfg.Blobs, g.Certificates, MaxDocument)
		if err != nil {
			return p, err
		}
		if p.Keyring, err = sign.ParseKeyring(data); err != nil {
			return p, err
		}
	}
	if !g.Metalink.IsZero() {
		if p.Metalink, err = cas.ReadAll(ctx, c.cfg.Blobs, g.Metalink, MaxDocument); err != nil {
			return p, err
		}
	}
	return p, nil
}

// Documents returns the signed documents of a generation.
func (c *Catalog) Documents(ctx context.Context, g *meta.Generation) ([]repo.Doc, error) {
	var out []repo.Doc
	for _, d := range g.Docs {
		data, err := cas.ReadAll(ctx, c.cfg.Blobs, d.SHA256, MaxDocument)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", d.Path, g.Mirror, err)
		}
		out = append(out, repo.Doc{Path: d.Path, Data: data, LastModified: d.LastModified, ETag: d.ETag, URL: d.URL})
	}
	return out, nil
}
