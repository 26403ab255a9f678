package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// ask answers a question in one read transaction.
func ask[T any](ctx context.Context, s *Store, f func(*txn) (T, error)) (out T, err error) {
	err = s.view(ctx, func(tx *txn) (err error) {
		out, err = f(tx)
		return err
	})
	return out, err
}

// Mirrors implements meta.Snapshots.
func (s *Store) Mirrors(ctx context.Context) ([]meta.MirrorName, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.MirrorName, error) { return tx.Mirrors(), nil })
}

// MirrorStates implements meta.Snapshots.
func (s *Store) MirrorStates(ctx context.Context, mirrors []meta.MirrorName) ([]meta.MirrorState, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.MirrorState, error) {
		out := make([]meta.MirrorState, 0, len(mirrors))
		for _, m := range mirrors {
			latest, err := tx.Latest(m)
			if err != nil && !errors.Is(err, meta.ErrNotFound) {
				return nil, err
			}
			check, err := tx.lastCheck(m)
			if err != nil {
				return nil, err
			}
			out = append(out, meta.MirrorState{Mirror: m, Latest: latest, Check: check})
		}
		return out, nil
	})
}

// Snapshot implements meta.Snapshots.
func (s *Store) Snapshot(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Snapshot, error) { return tx.Snapshot(mirror, at) })
}

// SnapshotAt implements meta.Snapshots.
func (s *Store) SnapshotAt(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Snapshot, error) { return tx.At(mirror, at) })
}

// Latest implements meta.Snapshots.
func (s *Store) Latest(ctx context.Context, mirror meta.MirrorName) (*meta.Snapshot, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Snapshot, error) { return tx.Latest(mirror) })
}

// NextSnapshot implements meta.Snapshots.
func (s *Store) NextSnapshot(ctx context.Context, mirror meta.MirrorName, after time.Time) (*meta.Snapshot, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Snapshot, error) {
		next, err := tx.Next(mirror, after)
		if err == nil && next == nil {
			err = fmt.Errorf("mirror %s has no snapshot after %s: %w", mirror, meta.FormatTimestamp(after), meta.ErrNotFound)
		}
		return next, err
	})
}

// SnapshotsBefore implements meta.Snapshots.
func (s *Store) SnapshotsBefore(ctx context.Context, mirror meta.MirrorName, before time.Time, limit int) ([]*meta.Snapshot, error) {
	return ask(ctx, s, func(tx *txn) ([]*meta.Snapshot, error) { return tx.Snapshots(mirror, before, limit) })
}

// RemovedTimestamps implements meta.Snapshots.
func (s *Store) RemovedTimestamps(ctx context.Context, mirror meta.MirrorName) ([]time.Time, error) {
	return ask(ctx, s, func(tx *txn) ([]time.Time, error) { return tx.Gone(mirror), nil })
}

// Generation implements meta.Snapshots.
func (s *Store) Generation(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Generation, error) { return tx.Generation(mirror, suite, gen) })
}

// Generations implements meta.Snapshots.
func (s *Store) Generations(ctx context.Context, snap *meta.Snapshot) ([]*meta.Generation, error) {
	return ask(ctx, s, func(tx *txn) ([]*meta.Generation, error) {
		out := make([]*meta.Generation, 0, len(snap.Suites))
		for _, su := range snap.Suites {
			g, err := tx.Generation(snap.Mirror, su.Suite, su.Gen)
			if err != nil {
				return nil, err
			}
			out = append(out, g)
		}
		return out, nil
	})
}

// LastCheck implements meta.Snapshots.
func (s *Store) LastCheck(ctx context.Context, mirror meta.MirrorName) (meta.Check, error) {
	return ask(ctx, s, func(tx *txn) (meta.Check, error) { return tx.lastCheck(mirror) })
}

func (t *txn) lastCheck(mirror meta.MirrorName) (c meta.Check, err error) {
	if err := getJSON(t.b("check"), []byte(mirror), &c); err != nil && !errors.Is(err, meta.ErrNotFound) {
		return c, fmt.Errorf("last check of mirror %s: %w", mirror, err)
	}
	return c, nil
}

// PackageAt implements meta.Files.
func (s *Store) PackageAt(ctx context.Context, snap *meta.Snapshot, path string) (hit meta.PathHit, places []meta.Place, err error) {
	err = s.view(ctx, func(tx *txn) (err error) {
		if hit, err = tx.PathAt(snap, path); err != nil {
			return err
		}
		places, err = tx.PlacesAt(snap, hit.Fact.PID)
		return err
	})
	return hit, places, err
}

// PackageNewest implements meta.Files.
func (s *Store) PackageNewest(ctx context.Context, mirror meta.MirrorName, path string) (hit meta.PathHit, since *meta.Generation, err error) {
	err = s.view(ctx, func(tx *txn) (err error) {
		hit, since, err = tx.PathNewest(mirror, path)
		return err
	})
	return hit, since, err
}

// PackageDir implements meta.Files.
func (s *Store) PackageDir(ctx context.Context, snap *meta.Snapshot, dir string, limit int) (names []string, more bool, err error) {
	err = s.view(ctx, func(tx *txn) (err error) {
		names, more, err = tx.PathDir(snap, dir, limit)
		return err
	})
	return names, more, err
}

// Listed implements meta.Files.
func (s *Store) Listed(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, d cas.Digest) (meta.Listing, error) {
	return ask(ctx, s, func(tx *txn) (meta.Listing, error) { return tx.Listed(mirror, suite, d) })
}

// ListedSince implements meta.Files.
func (s *Store) ListedSince(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, path string, d cas.Digest) (time.Time, error) {
	return ask(ctx, s, func(tx *txn) (time.Time, error) {
		since, ok := tx.ListedSince(mirror, suite, path, d)
		if !ok {
			return since, fmt.Errorf("%s of %s with SHA-256 %s: %w", path, mirror, d, meta.ErrNotFound)
		}
		return since, nil
	})
}

// OtherDigests implements meta.Files.
func (s *Store) OtherDigests(ctx context.Context, algo byte, digests []cas.Digest) ([][]byte, error) {
	return ask(ctx, s, func(tx *txn) ([][]byte, error) {
		return answers(digests, func(d cas.Digest) ([]byte, error) {
			return bytes.Clone(tx.b("other").Get(key(nil).one(algo).raw(d[:]))), nil
		})
	})
}

// Alias implements meta.Files.
func (s *Store) Alias(ctx context.Context, algo byte, other []byte) (cas.Digest, error) {
	return ask(ctx, s, func(tx *txn) (cas.Digest, error) { return tx.Alias(algo, other) })
}

// KnownNames implements meta.Files.
func (s *Store) KnownNames(ctx context.Context, names []string) (map[string]bool, error) {
	return ask(ctx, s, func(tx *txn) (map[string]bool, error) {
		out := map[string]bool{}
		mirrors := tx.Mirrors()
		for _, name := range names {
			out[name] = slices.ContainsFunc(mirrors, func(m meta.MirrorName) bool {
				first := ""
				tx.Names(m, name, func(found string) bool { first = found; return false })
				return first == name && name != ""
			})
		}
		return out, nil
	})
}

// namesLookedAt bounds the names that PackagesNamed looks at in one call.
const namesLookedAt = 500

// PackagesNamed implements meta.Files.
func (s *Store) PackagesNamed(ctx context.Context, snap *meta.Snapshot, prefix, from string, limit int) (found []meta.Entry, next string, err error) {
	err = s.view(ctx, func(tx *txn) error {
		var names []string
		found, next = nil, ""
		tx.Names(snap.Mirror, max(prefix, from), func(name string) bool {
			switch {
			case !strings.HasPrefix(name, prefix):
				return false
			case len(names) == namesLookedAt:
				next = name
				return false
			}
			names = append(names, name)
			return true
		})
		for _, name := range names {
			if len(found) >= limit {
				next = name
				return nil
			}
			some, err := tx.namedAt(snap, name)
			if err != nil {
				return err
			}
			found = append(found, some...)
		}
		return nil
	})
	return found, next, err
}

// Freeze implements meta.Freezes.
func (s *Store) Freeze(ctx context.Context, name meta.FreezeName) (*meta.Frozen, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Frozen, error) { return tx.Frozen(name) })
}

// Freezes implements meta.Freezes.
func (s *Store) Freezes(ctx context.Context) ([]*meta.Frozen, error) {
	return ask(ctx, s, func(tx *txn) ([]*meta.Frozen, error) { return tx.Frozens() })
}

// Tombstones implements meta.Freezes.
func (s *Store) Tombstones(ctx context.Context) ([]meta.Tombstone, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.Tombstone, error) { return tx.tombstones() })
}

// TreeFile implements meta.Freezes.
func (s *Store) TreeFile(ctx context.Context, name meta.FreezeName, path string) (meta.Node, error) {
	return ask(ctx, s, func(tx *txn) (meta.Node, error) { return tx.Node(name, path) })
}

// TreeDir implements meta.Freezes.
func (s *Store) TreeDir(ctx context.Context, name meta.FreezeName, dir, after string, limit int) ([]string, error) {
	return ask(ctx, s, func(tx *txn) ([]string, error) { return tx.treeDir(name, dir, after, limit), nil })
}

func (t *txn) treeDir(name meta.FreezeName, dir, after string, limit int) []string {
	base := key(nil).str(string(name)).raw([]byte(dir))
	// past is the first key after the name and everything below it.
	past := func(name string) []byte {
		k := append(clone(base), name...)
		if strings.HasSuffix(name, "/") {
			k[len(k)-1]++
			return k
		}
		return append(k, 0)
	}
	from := clone(base)
	if after != "" {
		from = past(after)
	}
	var out []string
	c := t.b("ftree").Cursor()
	for k, _ := c.Seek(from); k != nil && bytes.HasPrefix(k, base) && len(out) < limit; k, _ = c.Seek(from) {
		entry := string(k[len(base):])
		if i := strings.IndexByte(entry, '/'); i >= 0 {
			entry = entry[:i+1]
		}
		out = append(out, entry)
		from = past(entry)
	}
	return out
}

// Images implements meta.Freezes.
func (s *Store) Images(ctx context.Context, name meta.FreezeName) ([]meta.Image, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.Image, error) { return tx.Images(name) })
}

// Kit implements meta.Freezes.
func (s *Store) Kit(ctx context.Context, path string) (meta.Kit, error) {
	return ask(ctx, s, func(tx *txn) (meta.Kit, error) { return tx.Kit(path) })
}

// Kits implements meta.Freezes.
func (s *Store) Kits(ctx context.Context) ([]meta.Kit, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.Kit, error) { return tx.Kits() })
}

// Recording implements meta.Recordings.
func (s *Store) Recording(ctx context.Context, name string) (*meta.Recording, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Recording, error) { return tx.Recording(name) })
}

// Recordings implements meta.Recordings.
func (s *Store) Recordings(ctx context.Context) ([]*meta.Recording, error) {
	return ask(ctx, s, func(tx *txn) ([]*meta.Recording, error) { return tx.Recordings() })
}

// CorruptBlobs implements meta.Catalog.
func (s *Store) CorruptBlobs(ctx context.Context) ([]meta.CorruptBlob, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.CorruptBlob, error) { return tx.CorruptBlobs() })
}

// HeldBlobs implements meta.Catalog.
func (s *Store) HeldBlobs(ctx context.Context, kind byte, after cas.Digest, limit int) (held []cas.Digest, next cas.Digest, err error) {
	err = s.view(ctx, func(tx *txn) error {
		held, next = nil, cas.Digest{}
		last, more := tx.Blobs(after, limit, func(d cas.Digest, refs []meta.Ref) {
			if slices.ContainsFunc(refs, func(r meta.Ref) bool { return r.Kind == kind }) {
				held = append(held, d)
			}
		})
		if more {
			next = last
		}
		return nil
	})
	return held, next, err
}
