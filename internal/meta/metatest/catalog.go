package metatest

import (
	"errors"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// testCatalogEmpty checks that an empty store answers each question about one
// thing with ErrNotFound, and each question about many with none and no error.
func testCatalogEmpty(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx, at := t.Context(), time.Unix(1_700_000_000, 0).UTC()
	snap := &meta.Snapshot{Mirror: "debian", Type: "deb", Timestamp: at, Suites: []meta.SnapshotSuite{{Suite: "stable", Gen: 1}}}
	missing := map[string]error{}
	_, missing["Snapshot"] = s.Snapshot(ctx, "debian", at)
	_, missing["SnapshotAt"] = s.SnapshotAt(ctx, "debian", at)
	_, missing["Latest"] = s.Latest(ctx, "debian")
	_, missing["NextSnapshot"] = s.NextSnapshot(ctx, "debian", at)
	_, missing["Generation"] = s.Generation(ctx, "debian", "stable", 1)
	_, missing["Generations"] = s.Generations(ctx, snap)
	_, _, missing["PackageAt"] = s.PackageAt(ctx, snap, "pool/a.deb")
	_, _, missing["PackageNewest"] = s.PackageNewest(ctx, "debian", "pool/a.deb")
	_, missing["Listed"] = s.Listed(ctx, "debian", "stable", cas.Sum(nil))
	_, missing["ListedSince"] = s.ListedSince(ctx, "debian", "stable", "dists/stable/Release", cas.Sum(nil))
	_, missing["Alias"] = s.Alias(ctx, meta.AliasSHA1, make([]byte, 20))
	_, missing["Freeze"] = s.Freeze(ctx, "4.1")
	_, missing["TreeFile"] = s.TreeFile(ctx, "4.1", "debian/pool/a.deb")
	_, missing["Kit"] = s.Kit(ctx, "a.iuk")
	_, missing["Recording"] = s.Recording(ctx, "build")
	for name, err := range missing {
		if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s: %v, expected ErrNotFound", name, err)
		}
	}

	none := func(name string, n int, err error) {
		t.Helper()
		if n != 0 || err != nil {
			t.Errorf("%s: %d answers, %v, expected none", name, n, err)
		}
	}
	mirrors, err := s.Mirrors(ctx)
	none("Mirrors", len(mirrors), err)
	snaps, err := s.SnapshotsBefore(ctx, "debian", time.Time{}, 10)
	none("SnapshotsBefore", len(snaps), err)
	removed, err := s.RemovedTimestamps(ctx, "debian")
	none("RemovedTimestamps", len(removed), err)
	names, more, err := s.PackageDir(ctx, snap, "", 10)
	none("PackageDir", len(names), err)
	found, next, err := s.PackagesNamed(ctx, snap, "", "", 10)
	none("PackagesNamed", len(found), err)
	freezes, err := s.Freezes(ctx)
	none("Freezes", len(freezes), err)
	tree, err := s.TreeDir(ctx, "4.1", "", "", 10)
	none("TreeDir", len(tree), err)
	images, err := s.Images(ctx, "")
	none("Images", len(images), err)
	kits, err := s.Kits(ctx)
	none("Kits", len(kits), err)
	recordings, err := s.Recordings(ctx)
	none("Recordings", len(recordings), err)
	corrupt, err := s.CorruptBlobs(ctx)
	none("CorruptBlobs", len(corrupt), err)
	held, after, err := s.HeldBlobs(ctx, meta.OwnerGen, cas.Digest{}, 10)
	none("HeldBlobs", len(held), err)
	if more || next != "" || !after.IsZero() {
		t.Errorf("more of nothing: %v, %q, %v", more, next, after)
	}

	if known, err := s.KnownNames(ctx, []string{"a", ""}); err != nil || known["a"] || known[""] {
		t.Errorf("KnownNames: %v, %v", known, err)
	}
	if c, err := s.LastCheck(ctx, "debian"); err != nil || c != (meta.Check{}) {
		t.Errorf("LastCheck: %+v, %v, expected the zero Check", c, err)
	}
	if states, err := s.MirrorStates(ctx, []string{"debian", "fedora"}); err != nil || len(states) != 2 || states[1].Mirror != "fedora" || states[1].Latest != nil {
		t.Errorf("MirrorStates: %+v, %v", states, err)
	}
}
