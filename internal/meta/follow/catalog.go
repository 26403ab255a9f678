package follow

import (
	"context"
	"slices"
	"strconv"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// recallList is recall for results that are lists.
func recallList[T any](ctx context.Context, s *Store, k string, a about, f func(context.Context) ([]T, error)) ([]T, error) {
	l, err := recall(ctx, s, k, a, func(ctx context.Context) (list[T], error) {
		v, err := f(ctx)
		return v, err
	})
	return l, err
}

func number(n int) string { return strconv.Itoa(n) }

// Mirrors implements meta.Snapshots.
func (s *Store) Mirrors(ctx context.Context) ([]meta.MirrorName, error) {
	return recallList(ctx, s, "mirrors", about{kind: mirrors}, s.Source.Mirrors)
}

// MirrorStates implements meta.Snapshots.
func (s *Store) MirrorStates(ctx context.Context, names []meta.MirrorName) ([]meta.MirrorState, error) {
	return recallList(ctx, s, question(append([]string{"states"}, strs(names)...)...), about{kind: mirrors}, func(ctx context.Context) ([]meta.MirrorState, error) {
		return s.Source.MirrorStates(ctx, names)
	})
}

// strs converts names for question.
func strs(names []meta.MirrorName) (out []string) {
	for _, n := range names {
		out = append(out, string(n))
	}
	return out
}

func id(mirror meta.MirrorName, at time.Time) string {
	return string(mirror) + "@" + meta.FormatTimestamp(at)
}

// Snapshot implements meta.Snapshots.
func (s *Store) Snapshot(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	return recall(ctx, s, question("snapshot", id(mirror, at)), about{kind: exact, name: id(mirror, at)}, func(ctx context.Context) (*meta.Snapshot, error) {
		return s.Source.Snapshot(ctx, mirror, at)
	})
}

// SnapshotAt implements meta.Snapshots.
func (s *Store) SnapshotAt(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	return recall(ctx, s, question("at", id(mirror, at)), about{kind: upTo, name: string(mirror), at: at}, func(ctx context.Context) (*meta.Snapshot, error) {
		return s.Source.SnapshotAt(ctx, mirror, at)
	})
}

// Latest implements meta.Snapshots. If the database has lost the newest snapshot that this
// node has seen, it returns meta.ErrUnreachable until there is a newer one, except to the
// sync that makes it.
func (s *Store) Latest(ctx context.Context, mirror meta.MirrorName) (*meta.Snapshot, error) {
	if slices.ContainsFunc(meta.LeasesOf(ctx), func(l meta.Lease) bool { return l.Name == meta.LeaseSync+string(mirror) }) {
		return s.Source.Latest(ctx, mirror)
	}
	ahead := false
	ask := func() (*meta.Snapshot, error) {
		return recall(ctx, s, question("latest", string(mirror)), about{kind: ofMirror, name: string(mirror)}, func(ctx context.Context) (*meta.Snapshot, error) {
			snap, err := s.Source.Latest(ctx, mirror)
			if err != nil {
				return nil, err
			}
			ahead = s.ahead(snap)
			return s.notBack(snap)
		})
	}
	snap, err := ask()
	if err == nil && ahead {
		// Read the feed now. If the feed reported this snapshot later, this node would
		// drop its cached answers about it.
		s.poll(ctx)
		return ask()
	}
	return snap, err
}

// NextSnapshot implements meta.Snapshots.
func (s *Store) NextSnapshot(ctx context.Context, mirror meta.MirrorName, after time.Time) (*meta.Snapshot, error) {
	return recall(ctx, s, question("next", id(mirror, after)), about{kind: ofMirror, name: string(mirror)}, func(ctx context.Context) (*meta.Snapshot, error) {
		return s.Source.NextSnapshot(ctx, mirror, after)
	})
}

// SnapshotsBefore implements meta.Snapshots.
func (s *Store) SnapshotsBefore(ctx context.Context, mirror meta.MirrorName, before time.Time, limit int) ([]*meta.Snapshot, error) {
	return recallList(ctx, s, question("before", id(mirror, before), number(limit)), about{kind: ofMirror, name: string(mirror)}, func(ctx context.Context) ([]*meta.Snapshot, error) {
		return s.Source.SnapshotsBefore(ctx, mirror, before, limit)
	})
}

// Generation implements meta.Snapshots.
func (s *Store) Generation(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
	return recall(ctx, s, question("generation", string(mirror), string(suite), number(int(gen))), about{kind: indices, name: string(mirror)}, func(ctx context.Context) (*meta.Generation, error) {
		return s.Source.Generation(ctx, mirror, suite, gen)
	})
}

// Generations implements meta.Snapshots.
func (s *Store) Generations(ctx context.Context, snap *meta.Snapshot) ([]*meta.Generation, error) {
	return recallList(ctx, s, question("generations", snap.ID()), about{kind: indices, name: string(snap.Mirror), id: snap.ID()}, func(ctx context.Context) ([]*meta.Generation, error) {
		return s.Source.Generations(ctx, snap)
	})
}

// packageAt is the result of PackageAt.
type packageAt struct {
	hit    meta.PathHit
	places []meta.Place
}

// PackageAt implements meta.Files.
func (s *Store) PackageAt(ctx context.Context, snap *meta.Snapshot, path string) (meta.PathHit, []meta.Place, error) {
	a, err := recall(ctx, s, question("package", snap.ID(), path), about{kind: exact, name: snap.ID()}, func(ctx context.Context) (a packageAt, err error) {
		a.hit, a.places, err = s.Source.PackageAt(ctx, snap, path)
		return a, err
	})
	return a.hit, a.places, err
}

// packageNewest is the result of PackageNewest.
type packageNewest struct {
	hit meta.PathHit
	gen *meta.Generation
}

// PackageNewest implements meta.Files.
func (s *Store) PackageNewest(ctx context.Context, mirror meta.MirrorName, path string) (meta.PathHit, *meta.Generation, error) {
	a, err := recall(ctx, s, question("newest", string(mirror), path), about{kind: ofMirror, name: string(mirror)}, func(ctx context.Context) (a packageNewest, err error) {
		a.hit, a.gen, err = s.Source.PackageNewest(ctx, mirror, path)
		return a, err
	})
	return a.hit, a.gen, err
}

// directory is the result of PackageDir.
type directory struct {
	names []string
	more  bool
}

func (d directory) weight() int { return len(d.names) + 1 }

// PackageDir implements meta.Files.
func (s *Store) PackageDir(ctx context.Context, snap *meta.Snapshot, dir string, limit int) ([]string, bool, error) {
	a, err := recall(ctx, s, question("dir", snap.ID(), dir, number(limit)), about{kind: exact, name: snap.ID()}, func(ctx context.Context) (a directory, err error) {
		a.names, a.more, err = s.Source.PackageDir(ctx, snap, dir, limit)
		return a, err
	})
	return a.names, a.more, err
}

// Listed implements meta.Files.
func (s *Store) Listed(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, d cas.Digest) (meta.Listing, error) {
	return recall(ctx, s, question("listed", string(mirror), string(suite), string(d[:])), about{kind: ofMirror, name: string(mirror)}, func(ctx context.Context) (meta.Listing, error) {
		return s.Source.Listed(ctx, mirror, suite, d)
	})
}

// ListedSince implements meta.Files.
func (s *Store) ListedSince(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, path string, d cas.Digest) (time.Time, error) {
	return recall(ctx, s, question("since", string(mirror), string(suite), path, string(d[:])), about{kind: ofMirror, name: string(mirror)}, func(ctx context.Context) (time.Time, error) {
		return s.Source.ListedSince(ctx, mirror, suite, path, d)
	})
}

// Alias implements meta.Files.
func (s *Store) Alias(ctx context.Context, algo byte, other []byte) (cas.Digest, error) {
	return recall(ctx, s, question("alias", string(algo), string(other)), about{}, func(ctx context.Context) (cas.Digest, error) {
		return s.Source.Alias(ctx, algo, other)
	})
}

// Freeze implements meta.Freezes.
func (s *Store) Freeze(ctx context.Context, name meta.FreezeName) (*meta.Frozen, error) {
	return recall(ctx, s, question("freeze", string(name)), about{kind: ofFreeze, name: string(name)}, func(ctx context.Context) (*meta.Frozen, error) {
		return s.Source.Freeze(ctx, name)
	})
}

// Freezes implements meta.Freezes.
func (s *Store) Freezes(ctx context.Context) ([]*meta.Frozen, error) {
	return recallList(ctx, s, "freezes", about{kind: freezes}, s.Source.Freezes)
}

// TreeFile implements meta.Freezes.
func (s *Store) TreeFile(ctx context.Context, name meta.FreezeName, path string) (meta.Node, error) {
	return recall(ctx, s, question("file", string(name), path), about{kind: ofFreeze, name: string(name)}, func(ctx context.Context) (meta.Node, error) {
		return s.Source.TreeFile(ctx, name, path)
	})
}

// TreeDir implements meta.Freezes.
func (s *Store) TreeDir(ctx context.Context, name meta.FreezeName, dir, after string, limit int) ([]string, error) {
	return recallList(ctx, s, question("tree", string(name), dir, after, number(limit)), about{kind: ofFreeze, name: string(name)}, func(ctx context.Context) ([]string, error) {
		return s.Source.TreeDir(ctx, name, dir, after, limit)
	})
}

// Images implements meta.Freezes.
func (s *Store) Images(ctx context.Context, name meta.FreezeName) ([]meta.Image, error) {
	return recallList(ctx, s, question("images", string(name)), about{kind: freezes}, func(ctx context.Context) ([]meta.Image, error) {
		return s.Source.Images(ctx, name)
	})
}

// Kit implements meta.Freezes.
func (s *Store) Kit(ctx context.Context, path string) (meta.Kit, error) {
	return recall(ctx, s, question("kit", path), about{kind: ofKit, name: path}, func(ctx context.Context) (meta.Kit, error) {
		return s.Source.Kit(ctx, path)
	})
}

// Kits implements meta.Freezes.
func (s *Store) Kits(ctx context.Context) ([]meta.Kit, error) {
	return recallList(ctx, s, "kits", about{kind: kits}, s.Source.Kits)
}

// CorruptBlobs implements meta.Catalog.
func (s *Store) CorruptBlobs(ctx context.Context) ([]meta.CorruptBlob, error) {
	return recallList(ctx, s, "corrupt", about{}, s.Source.CorruptBlobs)
}

// LogHead implements meta.Log.
func (s *Store) LogHead(ctx context.Context) (*meta.LogHead, error) {
	return recall(ctx, s, "log", about{kind: ofTheLog}, s.Source.LogHead)
}

// LogTile implements meta.Log.
func (s *Store) LogTile(ctx context.Context, level int, n int64) ([]byte, error) {
	return recall(ctx, s, question("tile", number(level), strconv.FormatInt(n, 10)), about{kind: ofTheLog}, func(ctx context.Context) ([]byte, error) {
		return s.Source.LogTile(ctx, level, n)
	})
}

// LogNamed implements meta.Log.
func (s *Store) LogNamed(ctx context.Context, names []string) ([]int64, error) {
	k := question(append([]string{"named"}, names...)...)
	found, err := recallList(ctx, s, k, about{kind: ofTheLog}, func(ctx context.Context) ([]int64, error) {
		return s.Source.LogNamed(ctx, names)
	})
	if slices.ContainsFunc(found, func(i int64) bool { return i < 0 }) {
		s.mem.drop(k) // never cache that something does not exist
	}
	return found, err
}

// Objects returns the index of objects, with cached locations.
func (s *Store) Objects() objects.Index { return index{s.Source.Objects(), s} }

type index struct {
	objects.Index
	s *Store
}

// Present implements objects.Index.
func (x index) Present(ctx context.Context, d cas.Digest) (objects.Object, error) {
	o, err := recall(ctx, x.s, question("object", string(d[:])), about{}, func(ctx context.Context) (objects.Object, error) {
		return x.Index.Present(ctx, d)
	})
	return o, err
}
