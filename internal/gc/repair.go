package gc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// badBlob is a blob that is corrupt or missing.
type badBlob struct {
	missing  bool
	why      string
	repaired bool
	err      error // of the repair; nil: none was tried
}

func (b *badBlob) kind() string {
	if b.missing {
		return kindMissing
	}
	return kindDamaged
}

// sorted returns the digests in ascending order.
func sorted(bad map[cas.Digest]*badBlob) []cas.Digest {
	return slices.SortedFunc(maps.Keys(bad), func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) })
}

// repairBlobs tries to restore each blob that it has not tried before, and returns how
// many it restored.
func (c *Collector) repairBlobs(ctx context.Context, bad map[cas.Digest]*badBlob, src *source, res *api.FsckResult) (n int, err error) {
	if src.roots == nil && len(bad) > 0 {
		if src.roots, err = c.findRoots(ctx); err != nil {
			return 0, err
		}
	}
	src.made = nil // the metadata may have been rebuilt since
	for _, d := range sorted(bad) {
		b := bad[d]
		if b.repaired || b.err != nil {
			continue
		}
		if b.err = c.repair(ctx, d, bad, src); ctx.Err() != nil {
			return n, ctx.Err()
		} else if b.err == nil {
			b.repaired = true
			res.Repaired = append(res.Repaired, d.String())
			n++
		}
	}
	return n, nil
}

// source is the user's source of lost blobs: another snapd, or a directory with blobs.
type source struct {
	name   string
	client *fetch.Client
	url    remote.URL
	dir    *os.Root
	roots  *roots // documents that no index lists; nil: not looked for yet
	made   made   // the indices that are made from lost blobs; nil: not looked for yet
}

// openSource opens the URL of another snapd, or the absolute path of a backup or data
// directory. For "" it returns an empty source. errclass.Usage.
func openSource(from string, client *fetch.Client) (*source, error) {
	s := &source{name: from, client: client}
	switch {
	case from == "":
	case filepath.IsAbs(from):
		var err error
		if s.dir, err = os.OpenRoot(from); err != nil {
			return nil, fmt.Errorf("%w: from: %w", errclass.Usage, err)
		}
		if st, err := s.dir.Stat("blobs"); err != nil || !st.IsDir() {
			s.close()
			return nil, fmt.Errorf("%w: from: %s: expected a backup or a data directory, found no directory blobs in it", errclass.Usage, from)
		}
	default:
		if s.url = remote.NewURL(from); s.url.Host() == "" || s.url.HasUser() {
			return nil, fmt.Errorf("%w: from: %q: expected the absolute path of a backup, or the URL of another snapd without a user name", errclass.Usage, s.url)
		}
	}
	return s, nil
}

func (s *source) close() {
	if s.dir != nil {
		s.dir.Close()
	}
}

// write copies a blob to w. The caller checks the digest.
func (s *source) write(ctx context.Context, d cas.Digest, w cas.BlobWriter) (modified time.Time, err error) {
	if s.dir == nil {
		res, err := s.client.Get(ctx, fetch.Request{
			URLs: []remote.URL{s.url.Join("by-hash/SHA256/" + d.String())}, Size: -1, MaxSize: 64 << 30,
			Want: fetch.Digests{SHA256: d}, Dest: w,
		})
		if err != nil {
			return modified, err
		}
		return res.LastModified, nil
	}
	f, err := regfile.OpenIn(s.dir, casdir.Name(d))
	if err != nil {
		return modified, fmt.Errorf("%s: %w", s.name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return modified, err
	}
	if _, err := io.Copy(w, f); err != nil {
		return modified, fmt.Errorf("%s: copy %s: %w", s.name, casdir.Name(d), err)
	}
	return st.ModTime(), nil
}

// roots are the blobs of the newest generations that no index lists.
type roots struct {
	documents map[cas.Digest][]acquire.File // signed documents, which upstream may still have
	contents  map[cas.Digest][]byte         // contents that need no download, including certificates of the configured keyrings
}

// findRoots finds such blobs of the newest snapshots of the configured mirrors.
func (c *Collector) findRoots(ctx context.Context) (*roots, error) {
	out := &roots{documents: map[cas.Digest][]acquire.File{}, contents: map[cas.Digest][]byte{}}
	know := func(data []byte) { out.contents[cas.Sum(data)] = data }
	know(nil)
	for _, data := range c.cfg.Known {
		know(data)
	}
	for _, m := range c.catalog.Mirrors() {
		head, err := c.st.Head(ctx, m.Name)
		if errors.Is(err, meta.ErrCorrupt) {
			continue // reported as damage
		} else if err != nil {
			return nil, err
		}
		var ring *sign.Keyring
		if len(m.Keyring) > 0 {
			if ring, err = sign.LoadKeyring(m.Keyring...); err == nil {
				know(ring.ExportArmored())
			}
		}
		for _, g := range head.Generations {
			for _, d := range slices.Concat(g.Docs, g.Companions) {
				out.documents[d.SHA256] = append(out.documents[d.SHA256], acquire.File{
					Mirror: m.Name, Listed: repo.Listed{Path: d.Path, Size: d.Size, SHA256: d.SHA256},
				})
			}
			var signers []sign.Fingerprint
			for _, k := range g.Signers {
				signers = append(signers, k.Fingerprint)
			}
			if ring == nil {
				continue
			}
			if some, err := ring.Filter(signers...); err == nil && some.Len() > 0 {
				know(some.ExportArmored())
			}
		}
	}
	return out, nil
}

// repair restores a blob. It first moves a corrupt copy to the quarantine, so that
// nothing serves it in the meantime.
func (c *Collector) repair(ctx context.Context, d cas.Digest, bad map[cas.Digest]*badBlob, src *source) error {
	if !bad[d].missing {
		removed, err := c.blobs.RemoveCorrupt(ctx, d)
		if err == nil && !removed {
			return c.acquirer.ClearCorrupt(ctx, d) // a good copy has been stored since
		} else if err != nil && !errors.Is(err, cas.ErrNotFound) {
			return err
		}
	}
	if needed, err := c.st.Needed(ctx, d); err != nil {
		return err
	} else if !needed {
		return c.acquirer.ClearCorrupt(ctx, d)
	}
	if err := c.bring(ctx, d, src); err != nil {
		kerr := c.keepVariants(ctx, d, bad, src)
		if needed, nerr := c.st.Needed(ctx, d); needed || nerr != nil {
			return errors.Join(err, kerr, nerr)
		}
	}
	return c.acquirer.ClearCorrupt(ctx, d)
}

// bring stores an absent blob again, from the nearest place that has it.
func (c *Collector) bring(ctx context.Context, d cas.Digest, src *source) error {
	if data, ok := src.roots.contents[d]; ok {
		return c.put(ctx, d, func(w cas.BlobWriter) (time.Time, error) {
			_, err := w.Write(data)
			return time.Time{}, err
		})
	}
	if err := c.blobs.Restore(ctx, d); err == nil {
		return nil
	}
	var errs []error
	if src.name != "" {
		err := c.put(ctx, d, func(w cas.BlobWriter) (time.Time, error) { return src.write(ctx, d, w) })
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	wants, err := c.wants(ctx, d)
	if err != nil {
		return err
	}
	for _, w := range append(wants, src.roots.documents[d]...) {
		if _, err := c.acquirer.Fetch(ctx, w); err == nil {
			return nil
		} else {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return errors.New("upstream never had it; name a backup or another snapd with --from")
	}
	return errors.Join(errs...)
}

// put stores the bytes that write writes, if they have the digest.
func (c *Collector) put(ctx context.Context, d cas.Digest, write func(cas.BlobWriter) (modified time.Time, err error)) error {
	batch := c.blobs.NewBatch()
	defer batch.Discard()
	w, err := batch.Create(ctx)
	if err != nil {
		return err
	}
	defer w.Abort()
	modified, err := write(w)
	if err != nil {
		return err
	}
	if _, err := w.Commit(d, -1, modified); err != nil {
		return err
	}
	return c.acquirer.Flush(ctx, batch)
}

// wants lists the files by which upstream may still have a blob.
func (c *Collector) wants(ctx context.Context, d cas.Digest) (out []acquire.File, err error) {
	owners, err := c.st.OwnersOf(ctx, []cas.Digest{d})
	if err != nil {
		return nil, err
	}
	for _, o := range owners[0] {
		for _, file := range o.Fact.Files {
			if file.SHA256 == d {
				out = append(out, acquire.File{Mirror: o.Mirror, Record: &o.Fact.Record, Listed: repo.Listed{Path: file.Path, Size: file.Size, SHA256: d}})
			}
		}
	}
	listed, err := c.st.ListedAs(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, l := range listed {
		w := acquire.File{Mirror: l.Mirror, Listed: repo.Listed{Path: l.Path, Size: l.Size, SHA256: d}}
		if m, err := c.catalog.Mirror(l.Mirror); err == nil {
			if f, err := c.cfg.Formats.Of(m.Type); err == nil {
				if n := f.HashName(l.Path, d); n != "" {
					w.Listed.Alternates = []string{n}
				}
			}
		}
		out = append(out, w)
	}
	return out, nil
}
