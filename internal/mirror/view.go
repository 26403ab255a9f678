package mirror

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// Found is what stands under a path of a snapshot.
type Found struct {
	Want     Want
	Size     int64 // -1: not known before it is fetched
	Digest   cas.Digest
	Modified time.Time // upstream's, or the suite's Date; for `latest` since when it has this content
	// Plain is set where the file is the plain form of one that is held
	// compressed: it is made from that.
	Plain *Form
	// Package is the stanza of a package's file.
	Package *meta.Fact
	// Delta: the file makes a package out of an older one.
	Delta bool
}

// Form is a compressed form that is held.
type Form struct {
	Type   string // of the format
	Path   string
	Digest cas.Digest
}

// Lookup finds what stands under path in a snapshot. latest adds what an
// archive's newest state also answers: names by hash of every generation, and
// package paths that left. store.ErrNotFound.
func (e *Engine) Lookup(ctx context.Context, snap *meta.Snapshot, p string, latest bool) (*Found, error) {
	f, err := e.Format(snap.Type)
	if err != nil {
		return nil, err
	}
	notFound := fmt.Errorf("%s in %s: %w", p, snap.ID(), meta.ErrNotFound)
	if p == "" || p != path.Clean(p) || strings.HasPrefix(p, "../") || strings.HasPrefix(p, "/") {
		return nil, notFound
	}
	var suites []repo.SuiteName
	for _, s := range snap.Suites {
		suites = append(suites, s.Suite)
	}
	if suite, rel, ok := f.SuiteOf(p, suites); ok {
		found, err := e.listed(ctx, snap, f, suite, p, rel, latest)
		if !errors.Is(err, meta.ErrNotFound) {
			return found, err
		}
	}
	var hit meta.PathHit
	var modified time.Time
	err = e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		var err error
		if latest {
			var since *meta.Generation
			hit, since, err = tx.PathNewest(snap.Mirror, p)
			if err == nil {
				modified = since.Timestamp
			}
			return err
		}
		if hit, err = tx.PathAt(snap, p); err != nil {
			return err
		}
		places, err := tx.PlacesAt(snap, hit.Fact.PID)
		for _, pl := range places {
			for _, s := range snap.Suites {
				if s.Suite == pl.Suite {
					modified = s.Date
				}
			}
		}
		return err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil, notFound
	} else if err != nil {
		return nil, err
	}
	found := &Found{Size: hit.File.Size, Digest: hit.File.SHA256, Modified: modified, Package: hit.Fact}
	found.Want = Want{
		Mirror: snap.Mirror, From: remote.NewURL(snap.FromURL), Record: &hit.Fact.Record,
		Listed: repo.Listed{Path: p, Size: hit.File.Size, SHA256: hit.File.SHA256},
	}
	if !latest {
		e.upstreamTime(ctx, found)
	}
	return found, nil
}

// upstreamTime prefers the Last-Modified that upstream sent with a file.
func (e *Engine) upstreamTime(ctx context.Context, f *Found) {
	if info, err := e.cfg.Blobs.Stat(ctx, f.Digest); err == nil && !info.ModTime.IsZero() {
		f.Modified = info.ModTime.UTC().Truncate(time.Second)
	}
}

// listed finds a root's documents, the files that it lists, and names by hash.
func (e *Engine) listed(ctx context.Context, snap *meta.Snapshot, f repo.Format, suite repo.SuiteName, p, rel string, latest bool) (*Found, error) {
	gen, _ := snap.Gen(suite)
	notFound := fmt.Errorf("%s in %s: %w", p, snap.ID(), meta.ErrNotFound)
	if algo, hx, ok := f.ByHash(p); ok {
		found, err := e.byHash(ctx, snap, f, suite, gen, p, algo, hx, latest)
		if !errors.Is(err, meta.ErrNotFound) {
			return found, err
		}
		// Some formats have digests in the names that they list.
	}
	root, g, byPath, err := e.Root(ctx, snap.Mirror, snap.Type, suite, gen)
	if err != nil {
		return nil, err
	}
	for _, d := range g.Docs {
		if d.Path != p {
			continue
		}
		modified := d.LastModified
		if latest || modified.IsZero() {
			modified = g.Timestamp
		}
		return &Found{
			Size: d.Size, Digest: d.SHA256, Modified: modified,
			Want: Want{Mirror: snap.Mirror, Listed: repo.Listed{Path: p, Size: d.Size, SHA256: d.SHA256}, From: remote.NewURL(snap.FromURL)},
		}, nil
	}
	l, ok := byPath[rel]
	if !ok {
		l, ok, err = e.expanded(ctx, snap, f, g, root, byPath, rel)
		if err != nil {
			return nil, err
		}
	}
	delta := false
	if !ok {
		if l, ok, err = e.delta(ctx, f, g, rel); err != nil {
			return nil, err
		}
		delta = ok
	}
	if !ok {
		return nil, notFound
	}
	found, err := e.listedFile(ctx, snap, f, suite, g, root, l, p, latest)
	if err == nil {
		found.Delta = delta
	}
	return found, err
}

// delta finds a file that makes a package out of an older one, by the indices
// of such files that the sync took.
func (e *Engine) delta(ctx context.Context, f repo.Format, g *meta.Generation, rel string) (repo.Listed, bool, error) {
	x, ok := f.(repo.DeltaLister)
	if !ok {
		return repo.Listed{}, false, nil
	}
	indices := x.DeltaIndices(rel)
	for _, gr := range g.Groups {
		if !slices.Contains(indices, gr.Index) {
			continue
		}
		raw, err := e.cfg.Blobs.Open(ctx, gr.Form.SHA256)
		if err != nil {
			return repo.Listed{}, false, err
		}
		defer raw.Close()
		r, err := f.Decode(gr.Form.Path, raw)
		if err != nil {
			return repo.Listed{}, false, err
		}
		defer r.Close()
		files, err := x.Deltas(gr.Index, r)
		if err != nil {
			return repo.Listed{}, false, fmt.Errorf("%s: %w", gr.Form.Path, err)
		}
		for _, l := range files {
			if l.Path == rel {
				return l, true, nil
			}
		}
	}
	return repo.Listed{}, false, nil
}

// expanded finds a file that a listed file lists in its turn, fetching that one
// where it is not here.
func (e *Engine) expanded(ctx context.Context, snap *meta.Snapshot, f repo.Format, g *meta.Generation, root *repo.Root, byPath map[string]repo.Listed, rel string) (repo.Listed, bool, error) {
	for _, gr := range g.Groups {
		if gr.Form.Path == rel {
			return gr.Form, true, nil // taken by the sync
		}
	}
	x, ok := f.(repo.Expander)
	if !ok {
		return repo.Listed{}, false, nil
	}
	// The listing stands in a directory above the file.
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		for _, name := range []string{"SHA256SUMS", "Index"} {
			list, ok := byPath[path.Join(dir, name)]
			if !ok || !x.Expands(list.Path) {
				continue
			}
			found, err := e.listedFile(ctx, snap, f, g.Suite, g, root, list, f.SuiteDir(g.Suite)+list.Path, false)
			if err != nil {
				return repo.Listed{}, false, err
			}
			r, _, err := e.OpenFound(ctx, found)
			if err != nil {
				return repo.Listed{}, false, err
			}
			files, err := x.Expand(list.Path, io.LimitReader(r, maxDoc))
			r.Close()
			if err != nil {
				return repo.Listed{}, false, err
			}
			for _, l := range files {
				if l.Path == rel {
					return l, true, nil
				}
			}
		}
	}
	return repo.Listed{}, false, nil
}

func (e *Engine) listedFile(ctx context.Context, snap *meta.Snapshot, f repo.Format, suite repo.SuiteName, g *meta.Generation, root *repo.Root, l repo.Listed, p string, latest bool) (*Found, error) {
	dir := f.SuiteDir(suite)
	found := &Found{Size: l.Size, Digest: l.SHA256, Modified: root.Date}
	var names []string // by hash, the strongest first; the root's are relative to the suite
	if root.ByHash {
		for _, a := range l.Alternates {
			names = append(names, dir+a)
		}
		if name := f.HashName(dir+l.Path, l.SHA256); !l.SHA256.IsZero() && name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	l.Path, l.Alternates = dir+l.Path, names
	found.Want = Want{Mirror: snap.Mirror, Listed: l, From: remote.NewURL(snap.FromURL)}
	if l.SHA256.IsZero() {
		err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
			found.Digest, err = tx.Alias(meta.AliasSHA512, []byte(l.SHA512))
			return err
		})
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return nil, err
		}
		found.Want.Listed.SHA256 = found.Digest
	}
	if latest {
		found.Modified = g.Timestamp
		err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
			if t, ok := tx.ListedSince(snap.Mirror, suite, l.Path, l.SHA256); ok {
				found.Modified = t
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	} else {
		e.upstreamTime(ctx, found)
	}
	for _, gr := range g.Groups {
		if dir+gr.Index == l.Path && dir+gr.Form.Path != l.Path {
			found.Plain = &Form{snap.Type, gr.Form.Path, gr.Form.SHA256}
		}
	}
	if found.Plain != nil && found.Digest.IsZero() {
		// Only when it is made is it known by what it is kept.
		if err := e.makePlain(ctx, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// byHash finds a file by its digest among all that the suite's roots listed.
func (e *Engine) byHash(ctx context.Context, snap *meta.Snapshot, f repo.Format, suite repo.SuiteName, gen uint32, p, algo, hx string, latest bool) (*Found, error) {
	notFound := fmt.Errorf("%s in %s: %w", p, snap.ID(), meta.ErrNotFound)
	raw, err := hex.DecodeString(hx)
	if err != nil {
		return nil, notFound
	}
	root, g, byPath, err := e.Root(ctx, snap.Mirror, snap.Type, suite, gen)
	if err != nil {
		return nil, err
	}
	dir := path.Dir(path.Dir(path.Dir(p))) // of the files that have by-hash beside them
	prefix := f.SuiteDir(suite)
	switch algo {
	case "SHA256":
		d := cas.Digest(raw)
		var l meta.Listing
		err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
			l, err = tx.Listed(snap.Mirror, suite, d)
			return err
		})
		if err != nil {
			return nil, notFound
		}
		rel := strings.TrimPrefix(l.Path, prefix)
		found, err := e.listedFile(ctx, snap, f, suite, g, root, repo.Listed{Path: rel, Size: l.Size, SHA256: d}, p, latest)
		if err != nil {
			return nil, err
		}
		// The name is the content: it has not changed since it was first seen.
		found.Modified = root.Date
		return found, nil
	case "SHA512":
		for rel, l := range byPath {
			if l.SHA512 == hx && path.Join(prefix, path.Dir(rel)) == dir {
				return e.listedFile(ctx, snap, f, suite, g, root, l, p, latest)
			}
		}
		// Another generation's: known where it was listed by SHA-256, too, or taken.
		var d cas.Digest
		err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
			d, err = tx.Alias(meta.AliasSHA512, []byte(hx))
			return err
		})
		if err != nil {
			return nil, notFound
		}
		return e.byHash(ctx, snap, f, suite, gen, p, "SHA256", d.String(), latest)
	}
	return nil, notFound
}

// OpenFound opens what Lookup found, fetching or making it where it is not here.
func (e *Engine) OpenFound(ctx context.Context, f *Found) (io.ReadSeekCloser, int64, error) {
	if f.Plain != nil {
		if _, err := e.cfg.Blobs.Stat(ctx, f.Digest); errors.Is(err, cas.ErrNotFound) {
			if err := e.makePlain(ctx, f); err != nil {
				return nil, 0, err
			}
		}
	}
	return e.Open(ctx, f.Want)
}

// makePlain makes the plain form of an index from the compressed one that is
// held, against its listed digest. gc takes it away again.
func (e *Engine) makePlain(ctx context.Context, f *Found) error {
	if err := e.CheckSpace(); err != nil {
		return err
	}
	format, err := e.Format(f.Plain.Type)
	if err != nil {
		return err
	}
	src, err := e.cfg.Blobs.Open(ctx, f.Plain.Digest)
	if err != nil {
		return err
	}
	defer src.Close()
	r, err := format.Decode(f.Plain.Path, src)
	if err != nil {
		return err
	}
	defer r.Close()
	batch := e.cfg.Blobs.NewBatch()
	defer batch.Discard()
	w, err := batch.Create(ctx)
	if err != nil {
		return err
	}
	defer w.Abort()
	want := f.Want.Listed
	h := sha512.New()
	var dest io.Writer = w
	if f.Digest.IsZero() {
		dest = io.MultiWriter(w, h)
	}
	if _, err := io.Copy(dest, io.LimitReader(r, f.Size+1)); err != nil {
		return fmt.Errorf("decompress %s: %w", f.Plain.Path, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); f.Digest.IsZero() && sum != want.SHA512 {
		return fmt.Errorf("decompress %s: %w: SHA512 %s, %s listed", f.Plain.Path, repo.ErrMismatch, sum, want.SHA512)
	}
	info, err := w.Commit(f.Digest, f.Size, f.Modified)
	if err != nil {
		return fmt.Errorf("decompress %s: %w", f.Plain.Path, err)
	}
	if f.Digest.IsZero() {
		f.Digest, f.Want.Listed.SHA256 = info.Digest, info.Digest
		err := e.cfg.Store.Update(ctx, "alias", func(tx *bolt.Tx) error {
			return tx.PutAlias(meta.Alias{Algo: meta.AliasSHA512, Other: []byte(want.SHA512), SHA256: info.Digest})
		})
		if err != nil {
			return err
		}
	}
	return e.Flush(ctx, batch)
}

// Dir lists the names directly below a directory of a snapshot: those of its
// roots' documents, of the files that they list, and of packages. Directories
// end in a slash. store.ErrNotFound when there is none.
func (e *Engine) Dir(ctx context.Context, snap *meta.Snapshot, dir string, limit int) (names []string, more bool, err error) {
	f, err := e.Format(snap.Type)
	if err != nil {
		return nil, false, err
	}
	if dir != "" && !strings.HasSuffix(dir, "/") {
		dir += "/"
	}
	set := map[string]bool{}
	add := func(p string) {
		if rest, ok := strings.CutPrefix(p, dir); ok && rest != "" {
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				rest = rest[:i+1]
			}
			set[rest] = true
		}
	}
	for _, s := range snap.Suites {
		sd := f.SuiteDir(s.Suite)
		if !strings.HasPrefix(sd, dir) && !strings.HasPrefix(dir, sd) {
			continue
		}
		_, g, byPath, err := e.Root(ctx, snap.Mirror, snap.Type, s.Suite, s.Gen)
		if err != nil {
			return nil, false, err
		}
		for _, d := range g.Docs {
			add(d.Path)
		}
		for rel := range byPath {
			add(sd + rel)
		}
	}
	err = e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		pool, m, err := tx.PathDir(snap, dir, limit)
		more = m
		for _, n := range pool {
			set[n] = true
		}
		return err
	})
	if err != nil {
		return nil, false, err
	}
	for n := range set {
		names = append(names, n)
	}
	if len(names) == 0 {
		return nil, false, fmt.Errorf("%s in %s: %w", dir, snap.ID(), meta.ErrNotFound)
	}
	slices.Sort(names)
	return names, more, nil
}
