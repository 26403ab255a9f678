package bolt_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// sealed puts one generation of packages into a store, and its snapshot.
func sealed(t *testing.T, s *bolt.Store, now time.Time, listed []repo.File, paras ...para) *meta.Snapshot {
	t.Helper()
	ctx, index := t.Context(), indices[0]
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	st, err := s.NewStage(ctx, mirrorName, suite)
	fail(err)
	fail(st.Begin(ctx, index))
	for _, p := range paras {
		fail(st.Add(ctx, p.record()))
	}
	_, _, err = st.End(ctx)
	fail(err)
	sealing := meta.Sealing{
		Snapshot:    meta.Snapshot{Mirror: mirrorName, Type: "deb", Suites: []meta.SnapshotSuite{{Suite: suite, Gen: st.Gen(), Date: now}}},
		Generations: []meta.Generation{{Mirror: mirrorName, Suite: suite, Gen: st.Gen(), Groups: []meta.Group{{Index: index, Packages: true, Form: repo.Listed{SHA256: cas.Sum([]byte(index))}}}}},
		Listings:    [][]repo.File{listed},
	}
	fail(s.Update(ctx, "seal", func(tx *bolt.Tx) error { return tx.Seal(&sealing, now) }))
	return &sealing.Snapshot
}

func TestCatalogOfSnapshots(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	ctx := t.Context()
	index := func(text string) repo.File {
		return repo.File{Path: "dists/stable/Packages", Size: 1, SHA256: cas.Sum([]byte(text))}
	}
	one := sealed(t, s, day, []repo.File{index("one")}, para{"a", "1", ""}, para{"b", "1", ""})
	two := sealed(t, s, day.Add(time.Hour), []repo.File{index("two")}, para{"a", "2", ""}, para{"b", "1", ""}, para{"b-doc", "1", ""})
	three := sealed(t, s, day.Add(2*time.Hour), []repo.File{index("two")}, para{"a", "2", ""})
	if err := s.Update(ctx, "rm", func(tx *bolt.Tx) error { return tx.RemoveSnapshot(mirrorName, two.Timestamp) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(ctx, "check", func(tx *bolt.Tx) error { return tx.SetCheck(mirrorName, meta.Check{OK: day}) }); err != nil {
		t.Fatal(err)
	}

	expect := func(what string, got *meta.Snapshot, err error, want *meta.Snapshot) {
		t.Helper()
		if err != nil || got.ID() != want.ID() {
			t.Errorf("%s: %v, %v, expected %s", what, got, err, want.ID())
		}
	}
	got, err := s.Latest(ctx, mirrorName)
	expect("latest", got, err, three)
	got, err = s.SnapshotAt(ctx, mirrorName, one.Timestamp.Add(time.Minute))
	expect("a minute after the first", got, err, one)
	got, err = s.NextSnapshot(ctx, mirrorName, one.Timestamp)
	expect("after the first", got, err, three)
	if _, err := s.SnapshotAt(ctx, mirrorName, two.Timestamp.Add(time.Minute)); !errors.Is(err, meta.ErrGone) {
		t.Errorf("where a snapshot was removed: %v, expected ErrGone", err)
	}
	if _, err := s.Snapshot(ctx, mirrorName, two.Timestamp); !errors.Is(err, meta.ErrGone) {
		t.Errorf("the removed snapshot: %v, expected ErrGone", err)
	}
	if _, err := s.NextSnapshot(ctx, mirrorName, three.Timestamp); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("after the newest: %v, expected ErrNotFound", err)
	}
	all, err := s.SnapshotsBefore(ctx, mirrorName, time.Time{}, 10)
	if err != nil || len(all) != 2 || all[0].ID() != three.ID() || all[1].ID() != one.ID() {
		t.Errorf("snapshots: %v, %v, expected the third and the first", all, err)
	}
	removed, err := s.RemovedTimestamps(ctx, mirrorName)
	if err != nil || len(removed) != 1 || !removed[0].Equal(two.Timestamp) {
		t.Errorf("removed: %v, %v", removed, err)
	}
	states, err := s.MirrorStates(ctx, []string{"absent", mirrorName})
	if err != nil || len(states) != 2 || states[0].Latest != nil || states[1].Latest.ID() != three.ID() || !states[1].Check.OK.Equal(day) {
		t.Errorf("states: %+v, %v", states, err)
	}
	gens, err := s.Generations(ctx, three)
	if err != nil || len(gens) != 1 || gens[0].Gen != three.Suites[0].Gen {
		t.Errorf("generations: %+v, %v", gens, err)
	}

	hit, places, err := s.PackageAt(ctx, one, "pool/b_1.deb")
	if err != nil || hit.Fact.Name != "b" || hit.File.Path != "pool/b_1.deb" || !slices.Equal(places, []meta.Place{{Suite: suite, Index: indices[0]}}) {
		t.Errorf("package at the first: %+v, %v, %v", hit, places, err)
	}
	if _, _, err := s.PackageAt(ctx, three, "pool/b_1.deb"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("package that left: %v, expected ErrNotFound", err)
	}
	_, since, err := s.PackageNewest(ctx, mirrorName, "pool/a_2.deb")
	if err != nil || since.Gen != two.Suites[0].Gen {
		t.Errorf("since when: %+v, %v, expected generation %d", since, err, two.Suites[0].Gen)
	}
	names, more, err := s.PackageDir(ctx, one, "pool/", 10)
	if err != nil || more || !slices.Equal(names, []string{"a_1.deb", "b_1.deb"}) {
		t.Errorf("directory: %v, %v, %v", names, more, err)
	}
	if names, more, err = s.PackageDir(ctx, one, "", 10); err != nil || more || !slices.Equal(names, []string{"pool/"}) {
		t.Errorf("top directory: %v, %v, %v", names, more, err)
	}
	if at, err := s.ListedSince(ctx, mirrorName, suite, "dists/stable/Packages", cas.Sum([]byte("two"))); err != nil || !at.Equal(two.Timestamp) {
		t.Errorf("listed since %v, %v, expected %v", at, err, two.Timestamp)
	}
	if l, err := s.Listed(ctx, mirrorName, suite, cas.Sum([]byte("one"))); err != nil || l.Path != "dists/stable/Packages" {
		t.Errorf("listed by the first: %+v, %v", l, err)
	}
	known, err := s.KnownNames(ctx, []string{"a", "b-do", "b-doc", "absent", ""})
	if diff := gocmp.Diff(map[string]bool{"a": true, "b-do": false, "b-doc": true, "absent": false, "": false}, known); diff != "" || err != nil {
		t.Errorf("known names: %v, %s", err, diff)
	}
	held, next, err := s.HeldBlobs(ctx, meta.OwnerGen, cas.Digest{}, 100)
	if err != nil || !next.IsZero() || !slices.Equal(held, []cas.Digest{cas.Sum([]byte(indices[0]))}) {
		t.Errorf("held by generations: %v, %v, %v", held, next, err)
	}
}

func TestPackagesNamed(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	var paras []para
	for i := range 1200 {
		paras = append(paras, para{fmt.Sprintf("lib%04d", i), "1", ""})
	}
	paras = append(paras, para{"lib9999", "1", ""}, para{"lib9999", "2", ""}, para{"other", "1", ""})
	snap := sealed(t, s, day, nil, paras...)
	for _, c := range []struct {
		prefix, from string
		limit        int
		want         int // packages in all
		calls        int
	}{
		{"", "", 5000, 1203, 3},
		{"lib", "", 5000, 1202, 3},
		{"lib000", "", 4, 10, 3},
		{"lib", "lib1199", 1, 3, 2},
		{"oth", "", 1, 1, 1},
		{"absent", "", 10, 0, 1},
	} {
		n, calls, from := 0, 0, c.from
		for {
			found, next, err := s.PackagesNamed(t.Context(), snap, c.prefix, from, c.limit)
			if err != nil {
				t.Fatal(err)
			}
			n, calls = n+len(found), calls+1
			if next == "" {
				break
			}
			from = next
		}
		if n != c.want || calls != c.calls {
			t.Errorf("%q from %q, %d at a time: %d packages in %d calls, expected %d in %d", c.prefix, c.from, c.limit, n, calls, c.want, c.calls)
		}
	}
}

func TestTreeDir(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	var nodes []meta.Node
	for _, p := range []string{"debian/a", "debian/a/x", "debian/a-b/y", "debian/a-b/z/1", "debian/a.c", "debian/\xff/1", "debiano/b", "fedora/c"} {
		nodes = append(nodes, meta.Node{Path: p, Digest: cas.Sum([]byte(p))})
	}
	if err := s.Update(t.Context(), "put", func(tx *bolt.Tx) error { return tx.PutNodes("4.1", nodes) }); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]string{
		"": {"debian/", "debiano/", "fedora/"}, "debian/": {"a", "a-b/", "a.c", "a/", "\xff/"}, "debian/a-b/": {"y", "z/"}, "absent/": nil,
	} {
		for _, limit := range []int{1, 2, 100} {
			var got []string
			after := ""
			for {
				page, err := s.TreeDir(t.Context(), "4.1", dir, after, limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				got, after = append(got, page...), page[len(page)-1]
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q, %d at a time: %q, expected %q", dir, limit, got, want)
			}
		}
	}
	if n, err := s.TreeFile(t.Context(), "4.1", "debian/a/x"); err != nil || n.Digest != cas.Sum([]byte("debian/a/x")) {
		t.Errorf("file: %+v, %v", n, err)
	}
}
