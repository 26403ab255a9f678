package metatest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// testCatalogEmpty checks that methods of an empty store that return one object return
// ErrNotFound, and that those that return a list return an empty one.
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
	if states, err := s.MirrorStates(ctx, []meta.MirrorName{"debian", "fedora"}); err != nil || len(states) != 2 || states[1].Mirror != "fedora" || states[1].Latest != nil {
		t.Errorf("MirrorStates: %+v, %v", states, err)
	}
}

func testCatalog(t *testing.T, open func(testing.TB) meta.Store) {
	for name, f := range map[string]func(*testing.T, meta.Store){
		"Snapshots": testSnapshots, "Files": testFiles, "PackagesNamed": testPackagesNamed, "TreeDir": testTreeDir,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer closeStore(t, s)
			f(t, s)
		})
	}
}

// history seals three snapshots, an hour apart. Package a is upgraded in the second,
// b-doc is only in the second, and b is not in the third.
func history(t *testing.T, s meta.Store) (one, two, three *meta.Snapshot) {
	t.Helper()
	one = seal(t, s, stage(t, s, binary("a", "1"), binary("b", "1")), day)
	two = seal(t, s, stage(t, s, binary("a", "2"), binary("b", "1"), binary("b-doc", "1")), day.Add(time.Hour))
	return one, two, seal(t, s, stage(t, s, binary("a", "2")), day.Add(2*time.Hour))
}

func testSnapshots(t *testing.T, s meta.Store) {
	ctx := t.Context()
	one, two, three := history(t, s)
	if err := s.SetCheck(ctx, mirror, meta.Check{OK: day}); err != nil {
		t.Fatal(err)
	}
	expect := func(what string, want *meta.Snapshot) func(*meta.Snapshot, error) {
		return func(got *meta.Snapshot, err error) {
			t.Helper()
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Errorf("%s: %v (-want +got):\n%s", what, err, d)
			}
		}
	}
	expect("latest", three)(s.Latest(ctx, mirror))
	expect("exact", two)(s.Snapshot(ctx, mirror, two.Timestamp))
	expect("a minute after the second", two)(s.SnapshotAt(ctx, mirror, two.Timestamp.Add(time.Minute)))
	expect("at the second", two)(s.SnapshotAt(ctx, mirror, two.Timestamp))
	expect("a second before it", one)(s.SnapshotAt(ctx, mirror, two.Timestamp.Add(-time.Second)))
	expect("after the first", two)(s.NextSnapshot(ctx, mirror, one.Timestamp))
	for what, f := range map[string]func() (*meta.Snapshot, error){
		"before the first":    func() (*meta.Snapshot, error) { return s.SnapshotAt(ctx, mirror, day.Add(-time.Second)) },
		"after the newest":    func() (*meta.Snapshot, error) { return s.NextSnapshot(ctx, mirror, three.Timestamp) },
		"between two":         func() (*meta.Snapshot, error) { return s.Snapshot(ctx, mirror, day.Add(time.Minute)) },
		"of a similar mirror": func() (*meta.Snapshot, error) { return s.Latest(ctx, mirror+"-security") },
	} {
		if got, err := f(); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s: %v, %v, expected ErrNotFound", what, got, err)
		}
	}
	all, err := s.SnapshotsBefore(ctx, mirror, time.Time{}, 2)
	if d := cmp.Diff([]*meta.Snapshot{three, two}, all); d != "" || err != nil {
		t.Errorf("the two newest: %v (-want +got):\n%s", err, d)
	}
	if all, err = s.SnapshotsBefore(ctx, mirror, two.Timestamp, 2); err != nil || len(all) != 1 || all[0].ID() != one.ID() {
		t.Errorf("before the second: %v, %v", all, err)
	}
	if mirrors, err := s.Mirrors(ctx); err != nil || !slices.Equal(mirrors, []meta.MirrorName{mirror}) {
		t.Errorf("mirrors: %v, %v", mirrors, err)
	}
	states, err := s.MirrorStates(ctx, []meta.MirrorName{"absent", mirror})
	if d := cmp.Diff([]meta.MirrorState{{Mirror: "absent"}, {Mirror: mirror, Latest: three, Check: meta.Check{OK: day}}}, states); d != "" || err != nil {
		t.Errorf("states: %v (-want +got):\n%s", err, d)
	}
	gens, err := s.Generations(ctx, two)
	if err != nil || len(gens) != 1 || gens[0].Gen != two.Suites[0].Gen || !gens[0].Timestamp.Equal(two.Timestamp) {
		t.Errorf("generations of the second: %+v, %v", gens, err)
	}
}

func testFiles(t *testing.T, s meta.Store) {
	ctx := t.Context()
	one, two, three := history(t, s)
	hit, places, err := s.PackageAt(ctx, one, "pool/b_1.deb")
	if err != nil || hit.Fact.Name != "b" || hit.File.SHA256 != digest("pool/b_1.deb") || !slices.Equal(places, []meta.Place{{Suite: suite, Index: index}}) {
		t.Errorf("package of the first: %+v, %v, %v", hit, places, err)
	}
	if _, _, err := s.PackageAt(ctx, three, "pool/b_1.deb"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("a package that is no longer listed: %v, expected ErrNotFound", err)
	}
	hit, since, err := s.PackageNewest(ctx, mirror, "pool/a_2.deb")
	if err != nil || hit.Fact.Version != "2" || since.Gen != two.Suites[0].Gen {
		t.Errorf("package since the second: %+v, %+v, %v", hit, since, err)
	}
	if _, since, err = s.PackageNewest(ctx, mirror, "pool/b_1.deb"); err != nil || since.Gen != one.Suites[0].Gen {
		t.Errorf("a package that is no longer listed, since the first: %+v, %v", since, err)
	}
	for _, c := range []struct {
		dir   string
		limit int
		want  []string
		more  bool
	}{
		{"", 10, []string{"pool/"}, false}, {"pool/", 10, []string{"a_2.deb", "b-doc_1.deb", "b_1.deb"}, false},
		{"pool/", 2, []string{"a_2.deb", "b-doc_1.deb"}, true}, {"poo", 10, []string{"l/"}, false}, {"absent/", 10, nil, false},
	} {
		names, more, err := s.PackageDir(ctx, two, c.dir, c.limit)
		if err != nil || more != c.more || !slices.Equal(names, c.want) {
			t.Errorf("directory %q: %v, %v, %v; expected %v, %v", c.dir, names, more, err, c.want, c.more)
		}
	}
	form := func(s *meta.Snapshot) cas.Digest { return digest(fmt.Sprint("Packages", s.Suites[0].Gen)) }
	if at, err := s.ListedSince(ctx, mirror, suite, "dists/stable/"+index, form(three)); err != nil || !at.Equal(three.Timestamp) {
		t.Errorf("listed since %v, %v, expected %v", at, err, three.Timestamp)
	}
	if at, err := s.ListedSince(ctx, mirror, suite, "dists/stable/"+index, form(one)); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("a variant that is no longer listed, since %v: %v, expected ErrNotFound", at, err)
	}
	if l, err := s.Listed(ctx, mirror, suite, form(one)); err != nil || l.Path != "dists/stable/"+index || l.Last != one.Suites[0].Gen {
		t.Errorf("listed by the first: %+v, %v", l, err)
	}
	known, err := s.KnownNames(ctx, []string{"a", "b-do", "b-doc", "absent", ""})
	if d := cmp.Diff(map[string]bool{"a": true, "b-do": false, "b-doc": true, "absent": false, "": false}, known); d != "" || err != nil {
		t.Errorf("known names: %v, %s", err, d)
	}
	var held []cas.Digest
	for after, more := (cas.Digest{}), true; more; more = !after.IsZero() {
		var page []cas.Digest
		if page, after, err = s.HeldBlobs(ctx, meta.OwnerGen, after, 1); err != nil {
			t.Fatal(err)
		}
		held = append(held, page...)
	}
	if len(held) != 6 || !slices.IsSortedFunc(held, func(a, b cas.Digest) int { return bytes.Compare(a[:], b[:]) }) || !slices.Contains(held, form(one)) {
		t.Errorf("held by three generations of two blobs: %v", held)
	}
}

func testPackagesNamed(t *testing.T, s meta.Store) {
	var records []*repo.Record
	for i := range 1200 {
		records = append(records, binary(fmt.Sprintf("lib%04d", i), "1"))
	}
	records = append(records, binary("lib9999", "1"), binary("lib9999", "2"), binary("other", "1"))
	snap := seal(t, s, stage(t, s, records...), day)
	for _, c := range []struct {
		prefix, from string
		limit        int
		want         int // number of packages in all answers
		most         int // number of packages in one answer
	}{
		{"", "", 5000, 1203, 1203}, {"lib", "", 5000, 1202, 1202}, {"lib000", "", 4, 10, 4}, {"lib", "lib1199", 1, 3, 2},
		{"oth", "", 1, 1, 1}, {"absent", "", 10, 0, 0},
	} {
		n, from := 0, c.from
		for {
			found, next, err := s.PackagesNamed(t.Context(), snap, c.prefix, from, c.limit)
			if err != nil {
				t.Fatal(err)
			}
			if n += len(found); len(found) > c.most {
				t.Errorf("%q, %d at a time: %d in one answer, expected at most %d", c.prefix, c.limit, len(found), c.most)
			}
			if next == "" {
				break
			}
			from = next
		}
		if n != c.want {
			t.Errorf("%q from %q, %d at a time: %d packages, expected %d", c.prefix, c.from, c.limit, n, c.want)
		}
	}
}

func testTreeDir(t *testing.T, s meta.Store) {
	var nodes []meta.Node
	for _, p := range []string{"debian/a", "debian/a-b/y", "debian/a-b/z/1", "debian/a.c", "debian/d/x", "debian/\xff/1", "debiano/b", "fedora/c"} {
		nodes = append(nodes, meta.Node{Path: p, Digest: digest(p)})
	}
	if err := s.PutTree(t.Context(), "4.1", nodes); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]string{
		"": {"debian/", "debiano/", "fedora/"}, "debian/": {"a", "a-b/", "a.c", "d/", "\xff/"}, "debian/a-b/": {"y", "z/"}, "absent/": nil,
	} {
		for _, limit := range []int{1, 2, 100} {
			var got []string
			for after := ""; ; after = got[len(got)-1] {
				page, err := s.TreeDir(t.Context(), "4.1", dir, after, limit)
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, page...); len(page) == 0 {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q, %d at a time: %q, expected %q", dir, limit, got, want)
			}
		}
	}
	if n, err := s.TreeFile(t.Context(), "4.1", "debian/d/x"); err != nil || n.Digest != digest("debian/d/x") {
		t.Errorf("file: %+v, %v", n, err)
	}
}
