package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/retention"
)

// Freeze implements meta.Freezes.
func (s *Store) Freeze(ctx context.Context, name meta.FreezeName) (*meta.Frozen, error) {
	return ask(ctx, s, func(t *tx) (*meta.Frozen, error) { return t.frozen(ctx, name) })
}

func (t *tx) frozen(ctx context.Context, name meta.FreezeName) (*meta.Frozen, error) {
	var f meta.Frozen
	err := t.doc(ctx, &f, "select doc from frozen where name = $1", name)
	if errors.Is(err, meta.ErrNotFound) {
		if removed, terr := t.tombstone(ctx, string(name)); terr != nil {
			return nil, terr
		} else if removed != nil {
			return nil, removed
		}
	}
	if err != nil {
		return nil, fmt.Errorf("freeze %s: %w", name, err)
	}
	return &f, nil
}

// tombstone returns the tombstone of a removed freeze, or nil.
func (t *tx) tombstone(ctx context.Context, name string) (*meta.RemovedError, error) {
	stones, err := values(docs[meta.Tombstone](ctx, t, "select doc from tombstone where name = $1", name))
	if err != nil {
		return nil, fmt.Errorf("tombstone of freeze %s: %w", name, err)
	}
	if len(stones) == 0 {
		return nil, nil
	}
	return &meta.RemovedError{Tombstone: stones[0]}, nil
}

// Tombstones implements meta.Freezes.
func (s *Store) Tombstones(ctx context.Context) ([]meta.Tombstone, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Tombstone, error) {
		return values(docs[meta.Tombstone](ctx, t, "select doc from tombstone order by name"))
	})
}

// Freezes implements meta.Freezes.
func (s *Store) Freezes(ctx context.Context) ([]*meta.Frozen, error) {
	return ask(ctx, s, func(t *tx) ([]*meta.Frozen, error) { return t.allFrozen(ctx) })
}

func (t *tx) allFrozen(ctx context.Context) ([]*meta.Frozen, error) {
	return docs[meta.Frozen](ctx, t, "select doc from frozen order by name")
}

// nodeRows reads files of frozen trees.
func (t *tx) nodeRows(ctx context.Context, sql string, args ...any) (out []meta.Node, err error) {
	var path, sum []byte
	var size, mtime int64
	err = t.each(ctx, []any{&path, &sum, &size, &mtime}, func() error {
		out = append(out, meta.Node{Path: string(path), Digest: cas.Digest(sum), Size: size, ModTime: atUnix(mtime)})
		return nil
	}, sql, args...)
	return out, err
}

// TreeFile implements meta.Freezes.
func (s *Store) TreeFile(ctx context.Context, name meta.FreezeName, path string) (meta.Node, error) {
	return ask(ctx, s, func(t *tx) (meta.Node, error) {
		all, err := t.nodeRows(ctx, "select path, sha256, size, mtime from ftree where name = $1 and path = $2", name, []byte(path))
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("%s in freeze %s: %w", path, name, meta.ErrNotFound)
		}
		if err != nil {
			return meta.Node{}, err
		}
		return all[0], nil
	})
}

// TreeFiles implements meta.History.
func (s *Store) TreeFiles(ctx context.Context, name meta.FreezeName, prefix, after string, limit int) ([]meta.Node, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Node, error) { return t.treeFiles(ctx, string(name), prefix, after, limit) })
}

func (t *tx) treeFiles(ctx context.Context, name, prefix, after string, limit int) ([]meta.Node, error) {
	if limit <= 0 {
		limit = noLimit
	}
	return t.nodeRows(ctx, `select path, sha256, size, mtime from ftree where name = $1 and path >= $2 and ($3::bytea is null or path < $3) and path > $4
		order by path limit $5`, name, []byte(prefix), prefixEnd([]byte(prefix)), []byte(after), limit)
}

// TreeDir implements meta.Freezes.
func (s *Store) TreeDir(ctx context.Context, name meta.FreezeName, dir, after string, limit int) ([]string, error) {
	return ask(ctx, s, func(t *tx) (out []string, err error) {
		from := []byte(dir)
		if after != "" {
			from = past(dir, after)
		}
		end := prefixEnd([]byte(dir))
		for len(out) < limit {
			// One probe skips a directory, however many files are below it.
			var path []byte
			ok, err := t.one(ctx, []any{&path}, "select path from ftree where name = $1 and path >= $2 and ($3::bytea is null or path < $3) order by path limit 1", name, from, end)
			if err != nil || !ok {
				return out, err
			}
			entry := string(path[len(dir):])
			if i := strings.IndexByte(entry, '/'); i >= 0 {
				entry = entry[:i+1]
			}
			out = append(out, entry)
			from = past(dir, entry)
		}
		return out, nil
	})
}

// past returns the first path that is neither a name in a directory nor below it.
func past(dir, name string) []byte {
	p := []byte(dir + name)
	if strings.HasSuffix(name, "/") {
		return prefixEnd(p)
	}
	return append(p, 0)
}

// Images implements meta.Freezes.
func (s *Store) Images(ctx context.Context, name meta.FreezeName) ([]meta.Image, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Image, error) { return t.images(ctx, name) })
}

func (t *tx) images(ctx context.Context, name meta.FreezeName) ([]meta.Image, error) {
	return values(docs[meta.Image](ctx, t, "select doc from image where $1 = '' or name = $1 order by name, variant", name))
}

// Kit implements meta.Freezes.
func (s *Store) Kit(ctx context.Context, path string) (meta.Kit, error) {
	return ask(ctx, s, func(t *tx) (k meta.Kit, err error) {
		if err := t.doc(ctx, &k, "select doc from kit where path = $1", path); err != nil {
			return k, fmt.Errorf("kit %s: %w", path, err)
		}
		return k, nil
	})
}

// Kits implements meta.Freezes.
func (s *Store) Kits(ctx context.Context) ([]meta.Kit, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Kit, error) {
		return values(docs[meta.Kit](ctx, t, "select doc from kit order by path"))
	})
}

// PutKits implements meta.Publisher.
func (s *Store) PutKits(ctx context.Context, kits []meta.Kit) error {
	return s.write(ctx, "kit", func(t *tx) error {
		for _, k := range kits {
			var old []meta.Kit
			old, err := values(docs[meta.Kit](ctx, t, "select doc from kit where path = $1 for update", k.Path))
			if err != nil {
				return err
			}
			if len(old) > 0 && old[0].Digest != k.Digest {
				if err := t.dropRefs(ctx, []cas.Digest{old[0].Digest}, meta.OwnerKit, []byte(k.Path)); err != nil {
					return err
				}
			}
			if err := t.addRefs(ctx, []cas.Digest{k.Digest}, meta.OwnerKit, []byte(k.Path)); err != nil {
				return err
			}
			if err := t.putDoc(ctx, k, "insert into kit (path, doc) values ($1, $2) on conflict (path) do update set doc = excluded.doc", k.Path); err != nil {
				return err
			}
			if err := t.changed(ctx, meta.ChangeKit, k.Path); err != nil {
				return err
			}
		}
		return nil
	})
}

// treePage limits the files of a tree that one transaction reads or writes.
const treePage = 5000

// notFrozen locks the name of a freeze that is being made. ErrExists if it is published.
func (t *tx) notFrozen(ctx context.Context, name meta.FreezeName) error {
	if err := t.lockName(ctx, string(name)); err != nil {
		return err
	}
	var there bool
	if _, err := t.one(ctx, []any{&there}, "select exists (select from frozen where name = $1)", name); err != nil {
		return err
	}
	if there {
		return fmt.Errorf("freeze %s: %w", name, meta.ErrExists)
	}
	return nil
}

// ClearTree implements meta.Publisher.
func (s *Store) ClearTree(ctx context.Context, name meta.FreezeName) error {
	for {
		var more bool
		err := s.write(ctx, "freeze clear", func(t *tx) (err error) {
			more, err = t.clearTree(ctx, name, treePage)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}

// clearTree removes at most limit files from the tree of a freeze that does not exist,
// and reports whether any are left. ErrExists.
func (t *tx) clearTree(ctx context.Context, name meta.FreezeName, limit int) (more bool, err error) {
	if err := t.notFrozen(ctx, name); err != nil {
		return false, err
	}
	nodes, err := t.treeFiles(ctx, string(name), "", "", limit)
	if err != nil || len(nodes) == 0 {
		return false, err
	}
	paths, digests := make([][]byte, len(nodes)), make([]cas.Digest, len(nodes))
	for i, n := range nodes {
		paths[i], digests[i] = []byte(n.Path), n.Digest
	}
	if _, err := t.exec(ctx, "delete from ftree where name = $1 and path = any($2)", name, paths); err != nil {
		return false, err
	}
	return len(nodes) == limit, t.dropRefs(ctx, digests, meta.OwnerFrozen, []byte(name))
}

// PutTree implements meta.Publisher.
func (s *Store) PutTree(ctx context.Context, name meta.FreezeName, nodes []meta.Node) error {
	for page := range slices.Chunk(nodes, treePage) {
		err := s.write(ctx, "freeze nodes", func(t *tx) error {
			if err := t.notFrozen(ctx, name); err != nil {
				return err
			}
			return t.putNodes(ctx, name, page)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) putNodes(ctx context.Context, name meta.FreezeName, nodes []meta.Node) error {
	var paths, sums [][]byte
	var sizes, times []int64
	var digests []cas.Digest
	at := map[string]int{}
	for i := range nodes {
		n := &nodes[i]
		digests = append(digests, n.Digest)
		if j, twice := at[n.Path]; twice { // the last one counts
			sums[j], sizes[j], times[j] = n.Digest[:], n.Size, n.ModTime.Unix()
			continue
		}
		at[n.Path] = len(paths)
		paths, sums, sizes, times = append(paths, []byte(n.Path)), append(sums, n.Digest[:]), append(sizes, n.Size), append(times, n.ModTime.Unix())
	}
	if err := t.addRefs(ctx, digests, meta.OwnerFrozen, []byte(name)); err != nil {
		return err
	}
	_, err := t.exec(ctx, `insert into ftree (name, path, sha256, size, mtime) select $1, * from unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[])
		on conflict (name, path) do update set sha256 = excluded.sha256, size = excluded.size, mtime = excluded.mtime`, name, paths, sums, sizes, times)
	return err
}

// Publish implements meta.Publisher.
func (s *Store) Publish(ctx context.Context, f *meta.Frozen) error {
	return s.write(ctx, "freeze", func(t *tx) error {
		if err := t.lockName(ctx, string(f.Name)); err != nil {
			return err
		}
		old, err := t.frozen(ctx, f.Name)
		removed, gone := errors.AsType[*meta.RemovedError](err)
		switch {
		case err == nil && old.Manifest.SHA256 == f.Manifest.SHA256:
			return nil
		case err == nil:
			return fmt.Errorf("freeze %s: %w", f.Name, meta.ErrExists)
		case gone && removed.Manifest != f.Manifest.SHA256:
			return removed.Taken()
		case !errors.Is(err, meta.ErrNotFound):
			return err
		}
		if err := t.noChannel(ctx, string(f.Name), "freeze"); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "delete from tombstone where name = $1", f.Name); err != nil {
			return err
		}
		if err := t.putFrozen(ctx, f); err != nil {
			return err
		}
		return t.putEvent(ctx, meta.FreezeEvent(f))
	})
}

// putFrozen writes the record of a freeze. ErrGone if a generation that it depends on was
// collected.
func (t *tx) putFrozen(ctx context.Context, f *meta.Frozen) error {
	for i := range f.Mirrors {
		m := &f.Mirrors[i]
		var times []int64
		for _, at := range m.Snapshots() {
			times = append(times, at.Unix())
		}
		// A concurrent removal of the snapshots waits, and then finds the freeze.
		if _, err := t.exec(ctx, "select 1 from snapshot s join mirror m on m.id = s.mirror where m.name = $1 and s.at = any($2) order by s.at for share of s", m.Mirror, times); err != nil {
			return err
		}
		for _, su := range m.Suites {
			if su.Gen == 0 {
				continue
			}
			sid, err := t.suiteID(ctx, m.Mirror, su.Suite)
			if err == nil {
				err = t.addGenRef(ctx, sid, su.Gen, meta.OwnerFrozen, string(f.Name))
			}
			if err != nil {
				return fmt.Errorf("generation %d of suite %s of %s: %w", su.Gen, su.Suite, m.Mirror, err)
			}
		}
	}
	if err := t.addRefs(ctx, f.Blobs(), meta.OwnerFrozen, []byte(f.Name)); err != nil {
		return err
	}
	if err := t.putDoc(ctx, f, "insert into frozen (name, doc) values ($1, $2) on conflict (name) do update set doc = excluded.doc", f.Name); err != nil {
		return err
	}
	return t.changed(ctx, meta.ChangeFreeze, string(f.Name))
}

// RemoveFreeze implements meta.Publisher.
func (s *Store) RemoveFreeze(ctx context.Context, name meta.FreezeName, at time.Time) error {
	return s.write(ctx, "rm", func(t *tx) error {
		if err := t.lockName(ctx, string(name)); err != nil {
			return err
		}
		f, err := t.frozen(ctx, name)
		if err != nil {
			return err
		}
		// A channel that is being moved to it holds the lock of its name.
		channels, err := t.channels(ctx)
		if err != nil {
			return err
		}
		if err := retention.Freeze(name, channels, at); err != nil {
			return err
		}
		for _, m := range f.Mirrors {
			for _, su := range m.Suites {
				sid, err := t.suiteID(ctx, m.Mirror, su.Suite)
				if err != nil {
					return err
				}
				if sid == 0 || su.Gen == 0 {
					continue
				}
				if err := t.dropGenRef(ctx, sid, su.Gen, meta.OwnerFrozen, string(name)); err != nil {
					return err
				}
			}
		}
		if err := t.dropRefs(ctx, f.Blobs(), meta.OwnerFrozen, []byte(name)); err != nil {
			return err
		}
		images, err := t.images(ctx, name)
		if err != nil {
			return err
		}
		for _, im := range images {
			if err := t.dropRefs(ctx, []cas.Digest{im.SHA256}, meta.OwnerImage, []byte(name)); err != nil {
				return err
			}
		}
		if _, err := t.exec(ctx, "delete from image where name = $1", name); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "delete from frozen where name = $1", name); err != nil {
			return err
		}
		stone := &meta.Tombstone{Name: string(name), Manifest: f.Manifest.SHA256, Removed: at.UTC().Truncate(time.Second)}
		if err := t.putDoc(ctx, stone, "insert into tombstone (name, doc) values ($1, $2)", name); err != nil {
			return err
		}
		return t.changed(ctx, meta.ChangeFreeze, string(name))
	})
}

// change changes the record of a freeze. f returns false if nothing changes. ErrNotFound.
func (s *Store) change(ctx context.Context, op, name string, f func(*tx, *meta.Frozen) (bool, error)) error {
	return s.write(ctx, op, func(t *tx) error {
		if err := t.lockName(ctx, name); err != nil {
			return err
		}
		rec, err := t.frozen(ctx, meta.FreezeName(name))
		if err != nil {
			return err
		}
		if changed, err := f(t, rec); err != nil || !changed {
			return err
		}
		return t.putFrozen(ctx, rec)
	})
}

// checkManifest returns ErrGone if a freeze has another manifest.
func checkManifest(f *meta.Frozen, manifest cas.Digest) error {
	if f.Manifest.SHA256 != manifest {
		return fmt.Errorf("freeze %s with manifest %s: %w", f.Name, manifest, meta.ErrGone)
	}
	return nil
}

// AddStatement implements meta.Publisher.
func (s *Store) AddStatement(ctx context.Context, st meta.StatementFiles) error {
	return s.change(ctx, "statement", string(st.Freeze), func(t *tx, f *meta.Frozen) (bool, error) {
		if err := checkManifest(f, st.Manifest); err != nil {
			return false, err
		}
		var nodes []meta.Node
		for _, file := range st.Files {
			nodes = append(nodes, f.StatementNode(file))
			if !slices.Contains(f.Statements, file) {
				f.Statements = append(f.Statements, file)
			}
		}
		if err := t.putNodes(ctx, f.Name, nodes); err != nil {
			return false, err
		}
		if st.Image != nil {
			return true, t.putImage(ctx, st.Image)
		}
		return true, nil
	})
}

// RemoveStatement implements meta.Publisher.
func (s *Store) RemoveStatement(ctx context.Context, name meta.FreezeName, manifest cas.Digest, file repo.File) error {
	return s.change(ctx, "remove statement", string(name), func(t *tx, f *meta.Frozen) (bool, error) {
		if err := checkManifest(f, manifest); err != nil {
			return false, err
		}
		if err := f.WithoutStatement(file); err != nil {
			return false, err
		}
		if _, err := t.exec(ctx, "delete from ftree where name = $1 and path = $2", name, []byte(file.Path)); err != nil {
			return false, err
		}
		// Another file of the freeze may have the same bytes.
		held := slices.Contains(f.Blobs(), file.SHA256)
		if !held {
			if _, err := t.one(ctx, []any{&held}, "select exists (select from ftree where name = $1 and sha256 = $2)", name, file.SHA256[:]); err != nil {
				return false, err
			}
		}
		if held {
			return true, nil
		}
		return true, t.dropRefs(ctx, []cas.Digest{file.SHA256}, meta.OwnerFrozen, []byte(name))
	})
}

func (t *tx) putImage(ctx context.Context, im *meta.Image) error {
	old, err := values(docs[meta.Image](ctx, t, "select doc from image where name = $1 and variant = $2", im.Name, im.Variant))
	if err != nil {
		return err
	}
	if len(old) > 0 && old[0].SHA256 != im.SHA256 {
		return fmt.Errorf("image %q of %s: %w (SHA-256 %s)", im.Variant, im.Name, meta.ErrExists, old[0].SHA256)
	}
	if err := t.addRefs(ctx, []cas.Digest{im.SHA256}, meta.OwnerImage, []byte(im.Name)); err != nil {
		return err
	}
	return t.putDoc(ctx, im, "insert into image (name, variant, doc) values ($1, $2, $3) on conflict (name, variant) do update set doc = excluded.doc", im.Name, im.Variant)
}

// SetProvenanceSignature implements meta.Publisher.
func (s *Store) SetProvenanceSignature(ctx context.Context, name meta.FreezeName, signed cas.Digest, signature repo.File) error {
	return s.change(ctx, "sign provenance", string(name), func(_ *tx, f *meta.Frozen) (bool, error) {
		if f.Prov.SHA256 != signed {
			return false, nil
		}
		f.ProvSignature = signature
		return true, nil
	})
}

// SetTreeListing implements meta.Publisher.
func (s *Store) SetTreeListing(ctx context.Context, name meta.FreezeName, manifest cas.Digest, listing repo.File) error {
	return s.change(ctx, "list tree", string(name), func(_ *tx, f *meta.Frozen) (bool, error) {
		if err := checkManifest(f, manifest); err != nil || !f.Tree.SHA256.IsZero() {
			return false, err
		}
		f.Tree = listing
		return true, nil
	})
}

// ReplaceKey implements meta.Publisher.
func (s *Store) ReplaceKey(ctx context.Context, name meta.FreezeName, old, renewed cas.Digest) error {
	return s.change(ctx, "renew", string(name), func(t *tx, f *meta.Frozen) (bool, error) {
		if f.KeyBlob != old {
			return false, nil
		}
		f.KeyBlob = renewed
		return true, t.dropRefs(ctx, []cas.Digest{old}, meta.OwnerFrozen, []byte(name))
	})
}
