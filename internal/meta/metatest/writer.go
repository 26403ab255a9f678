package metatest

import (
	"context"
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

const (
	mirror = "debian"
	suite  = repo.SuiteName("stable")
	index  = "main/binary-amd64/Packages"
)

var day = time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)

// binary returns the record of a binary package at pool/NAME_VERSION.deb.
func binary(name, version string) *repo.Record {
	p := fmt.Sprintf("pool/%s_%s.deb", name, version)
	return &repo.Record{
		Kind: repo.KindBinary, Name: name, Version: version, Arch: "amd64",
		Sources: []repo.Ref{{Name: name, Version: version}},
		Files:   []repo.File{{Path: p, Size: 5, SHA256: cas.Sum([]byte(p))}},
		Bytes:   fmt.Appendf(nil, "Package: %s\nVersion: %s\n", name, version),
	}
}

// source returns the record of a source package.
func source(name, version string) *repo.Record {
	p := fmt.Sprintf("pool/%s_%s.dsc", name, version)
	return &repo.Record{
		Kind: repo.KindSource, Name: name, Version: version, Arch: "source",
		Files: []repo.File{{Path: p, Size: 7, SHA256: cas.Sum([]byte(p))}},
		Bytes: fmt.Appendf(nil, "Package: %s\nVersion: %s\nFiles:\n", name, version),
	}
}

// stage stages one index with the given records and returns its generation.
func stage(t testing.TB, s meta.Store, records ...*repo.Record) *meta.Generation {
	t.Helper()
	g, err := stageWith(t.Context(), s, records...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func stageWith(ctx context.Context, s meta.Store, records ...*repo.Record) (*meta.Generation, error) {
	st, err := s.NewStage(ctx, mirror, suite)
	if err != nil {
		return nil, err
	}
	if err := st.Begin(ctx, index); err != nil {
		return nil, err
	}
	for _, r := range records {
		if err := st.Add(ctx, r); err != nil {
			return nil, err
		}
	}
	n, _, err := st.End(ctx)
	if err == nil && n != len(records) {
		err = fmt.Errorf("%d records at the end, expected %d", n, len(records))
	}
	return generation(st.Gen(), n), err
}

// generation returns the record of a staged generation with n packages.
func generation(gen uint32, n int) *meta.Generation {
	return &meta.Generation{
		Mirror: mirror, Suite: suite, Gen: gen, Date: day, Trust: repo.TrustNone,
		Docs:   []meta.Doc{{File: repo.File{Path: "dists/stable/InRelease", Size: 3, SHA256: digest(fmt.Sprint("InRelease", gen))}}},
		Groups: []meta.Group{{Index: index, Packages: true, Count: n, Variant: repo.Listed{Path: index, SHA256: digest(fmt.Sprint("Packages", gen))}}},
	}
}

// snapshotOf returns a snapshot of one generation, like that of a sync.
func snapshotOf(g *meta.Generation) meta.Snapshot {
	return meta.Snapshot{Mirror: g.Mirror, Type: "deb", Suites: []meta.SnapshotSuite{{Suite: g.Suite, Gen: g.Gen, Date: g.Date}}}
}

// seal seals a staged generation.
func seal(t testing.TB, s meta.Store, g *meta.Generation, now time.Time) *meta.Snapshot {
	t.Helper()
	snap, err := sealWith(t.Context(), s, g, now)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func sealWith(ctx context.Context, s meta.Store, g *meta.Generation, now time.Time) (*meta.Snapshot, error) {
	var listed []repo.File
	for _, gr := range g.Groups {
		listed = append(listed, repo.File{Path: "dists/stable/" + gr.Variant.Path, Size: 9, SHA256: gr.Variant.SHA256})
	}
	return s.Seal(ctx, &meta.Sealing{
		Snapshot: snapshotOf(g), Generations: []meta.Generation{*g}, Listings: [][]repo.File{listed},
	}, now)
}

func digest(s string) cas.Digest { return cas.Sum([]byte(s)) }

func testWriter(t *testing.T, open func(testing.TB) meta.Store) {
	for name, f := range map[string]func(*testing.T, meta.Store){
		"Checks": testChecks, "Head": testHead, "Begun": testBegun, "Packages": testPackages, "SourcesAt": testSourcesAt,
		"PathClashes": testPathClashes, "Seal": testSeal, "Stage": testStage,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer closeStore(t, s)
			f(t, s)
		})
	}
}

func testChecks(t *testing.T, s meta.Store) {
	c := meta.Check{Checked: day, OK: day.Add(-time.Hour), Error: "no route to host"}
	if err := s.SetCheck(t.Context(), mirror, c); err != nil {
		t.Fatal(err)
	}
	for m, want := range map[string]meta.Check{"fedora": {}, mirror: c} {
		got, err := s.LastCheck(t.Context(), meta.MirrorName(m))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("check of %s (-want +got):\n%s", m, d)
		}
	}
}

func testHead(t *testing.T, s meta.Store) {
	h, err := s.Head(t.Context(), mirror)
	if err != nil || h.Snapshot != nil || len(h.Generations) > 0 || h.Check != (meta.Check{}) {
		t.Fatalf("head of an empty mirror: %+v, %v", h, err)
	}
	if _, err := s.LastGeneration(t.Context(), mirror, suite); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("last generation of an empty mirror: %v, expected ErrNotFound", err)
	}
	snap := seal(t, s, stage(t, s, binary("a", "1")), day)
	if h, err = s.Head(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(snap, h.Snapshot); d != "" {
		t.Errorf("snapshot (-want +got):\n%s", d)
	}
	if g := h.Generations[suite]; g == nil || g.Gen != 1 || !g.Timestamp.Equal(day) {
		t.Errorf("generation: %+v", g)
	}
	stage(t, s, binary("a", "2")) // not sealed
	if g, err := s.LastGeneration(t.Context(), mirror, suite); err != nil || g.Gen != 1 {
		t.Errorf("last generation: %+v, %v; expected the sealed one", g, err)
	}
}

func testBegun(t *testing.T, s meta.Store) {
	g := stage(t, s, binary("a", "1"), binary("b", "1"))
	if base, begun, err := s.Begun(t.Context(), g); err != nil || base != nil || len(begun) > 0 {
		t.Fatalf("begun without a sealed generation: %+v, %v, %v", base, begun, err)
	}
	seal(t, s, g, day)
	g = stage(t, s, binary("b", "1"), binary("c", "1"), binary("d", "1"))
	base, begun, err := s.Begun(t.Context(), g)
	if err != nil || base == nil || base.Gen != 1 {
		t.Fatalf("base: %+v, %v", base, err)
	}
	facts, err := s.Facts(t.Context(), begun)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(facts); !slices.Equal(got, []string{"c", "d"}) {
		t.Errorf("begun: %v, expected c and d", got)
	}
	if _, err := s.Facts(t.Context(), []meta.PID{begun[0], 1 << 40}); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("facts of an unknown stanza: %v, expected ErrNotFound", err)
	}
}

func names(facts []*meta.Fact) (out []string) {
	for _, f := range facts {
		out = append(out, f.Name)
	}
	slices.Sort(out)
	return out
}

func testPackages(t *testing.T, s meta.Store) {
	var records []*repo.Record
	for i := range 10 {
		records = append(records, binary(fmt.Sprintf("p%d", i), "1"))
	}
	first := seal(t, s, stage(t, s, records...), day)
	staged := snapshotOf(stage(t, s, records[3:]...))
	for what, c := range map[string]struct {
		snap *meta.Snapshot
		want []*repo.Record
	}{
		"sealed": {first, records},
		"staged": {&staged, records[3:]},
	} {
		var got []string
		var after []byte
		for {
			page, next, err := s.Packages(t.Context(), c.snap, after, 4)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > 4 {
				t.Errorf("%s: a page of %d, expected at most 4", what, len(page))
			}
			for _, e := range page {
				got = append(got, e.Name)
				if d := cmp.Diff([]meta.Place{{Suite: suite, Index: index}}, e.Places); d != "" {
					t.Errorf("%s: places of %s (-want +got):\n%s", what, e.Name, d)
				}
			}
			if after = slices.Clone(next); after == nil {
				break
			}
		}
		var want []string
		for _, r := range c.want {
			want = append(want, r.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, expected %v", what, got, want)
		}
	}
}

func testSourcesAt(t *testing.T, s meta.Store) {
	old := seal(t, s, stage(t, s, source("a", "1"), source("b", "1"), binary("a", "1")), day)
	snap := seal(t, s, stage(t, s, source("a", "2"), source("b", "1"), binary("a", "1")), day.Add(time.Hour))
	refs := []repo.Ref{{Name: "a", Version: "1"}, {Name: "b", Version: "1"}, {Name: "b", Version: "1"}, {Name: "c", Version: "1"}}
	for _, c := range []struct {
		snap *meta.Snapshot
		want []string
	}{
		{old, []string{"a", "b"}},
		{snap, []string{"b"}},
	} {
		got, err := s.SourcesAt(t.Context(), c.snap, refs)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(names(got), c.want) {
			t.Errorf("sources in %s: %v, expected %v", c.snap.ID(), names(got), c.want)
		}
	}
}

func testPathClashes(t *testing.T, s meta.Store) {
	a := binary("a", "1")
	snap := seal(t, s, stage(t, s, a, binary("b", "1")), day)
	files := []meta.PathDigest{
		{Path: "pool/a_1.deb", SHA256: a.Files[0].SHA256}, // the same file
		{Path: "pool/a_1.deb", SHA256: digest("other")},
		{Path: "pool"},               // a directory
		{Path: "pool/a_1.deb/below"}, // below a file
		{Path: "pool/a_1.debug"},
		{Path: "pool/b_1.deb"}, // unknown digest
	}
	want := []string{"", "pool/a_1.deb", "pool/a_1.deb", "pool/a_1.deb", "", "pool/b_1.deb"}
	hits, err := s.PathClashes(t.Context(), snap, files)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range hits {
		got := ""
		if h != nil {
			got = h.File.Path
		}
		if got != want[i] {
			t.Errorf("clash with %s %s: %q, expected %q", files[i].Path, files[i].SHA256.Short(), got, want[i])
		}
	}
	of := hits[1].Fact.PID
	hits, err = s.PathClashes(t.Context(), snap, []meta.PathDigest{
		{Path: "pool/a_1.deb", SHA256: a.Files[0].SHA256, Of: of}, {Path: "pool/b_1.deb", SHA256: digest("other"), Of: of}, {Path: "pool", Of: of},
	})
	if err != nil || hits[0] != nil || hits[1] == nil || hits[2] == nil {
		t.Errorf("clashes of a package's own files: %+v, %v, expected none with itself", hits, err)
	}
	gone := seal(t, s, stage(t, s, binary("b", "1")), day.Add(time.Hour))
	if hits, err := s.PathClashes(t.Context(), gone, files[1:2]); err != nil || hits[0] != nil {
		t.Errorf("clash with a package that is no longer listed: %+v, %v", hits[0], err)
	}
}

func testSeal(t *testing.T, s meta.Store) {
	ctx := t.Context()
	first := seal(t, s, stage(t, s, binary("a", "1")), day.Add(500*time.Millisecond))
	if !first.Timestamp.Equal(day) {
		t.Errorf("timestamp: %v, expected the second %v", first.Timestamp, day)
	}
	// Two syncs within the same second.
	second := seal(t, s, stage(t, s, binary("a", "2")), day)
	if want := day.Add(time.Second); !second.Timestamp.Equal(want) {
		t.Errorf("timestamp: %v, expected %v", second.Timestamp, want)
	}
	g := stage(t, s, binary("a", "0"))
	history := snapshotOf(g)
	history.Timestamp = day
	sealing := &meta.Sealing{Snapshot: history, Generations: []meta.Generation{*g}, Listings: [][]repo.File{nil}, History: true}
	if _, err := s.Seal(ctx, sealing, day); !errors.Is(err, meta.ErrExists) {
		t.Errorf("history at the timestamp of a snapshot: %v, expected ErrExists", err)
	}
	other := meta.Alias{Algo: meta.AliasSHA512, Other: []byte("abc"), SHA256: digest("x")}
	sealing.Snapshot.Timestamp, sealing.Aliases = day.Add(-time.Hour), []meta.Alias{other}
	snap, err := s.Seal(ctx, sealing, day)
	if err != nil || !snap.Timestamp.Equal(day.Add(-time.Hour)) {
		t.Fatalf("history: %+v, %v", snap, err)
	}
	if got, err := s.Aliases(ctx, meta.AliasSHA512, [][]byte{other.Other}); err != nil || got[0] != other.SHA256 {
		t.Errorf("alias of the sealing: %v, %v", got, err)
	}
	// The newest snapshot is unchanged.
	if h, err := s.Head(ctx, mirror); err != nil || !h.Snapshot.Timestamp.Equal(second.Timestamp) {
		t.Errorf("head: %+v, %v", h, err)
	}
}

func testStage(t *testing.T, s meta.Store) {
	ctx := t.Context()
	stage(t, s, binary("a", "1")) // interrupted, and never sealed
	st, err := s.NewStage(ctx, mirror, suite)
	if err != nil || st.Gen() != 1 {
		t.Fatalf("generation %d, %v; expected 1, because none is sealed", st.Gen(), err)
	}
	if dirty, err := st.Dirty(ctx, index); err != nil || !dirty {
		t.Errorf("dirty: %t, %v; expected true after an interrupted stage", dirty, err)
	}
	if left, err := st.Indices(ctx); err != nil || !slices.Equal(left, []string{index}) {
		t.Errorf("indices: %v, %v", left, err)
	}
	snap := seal(t, s, stage(t, s, binary("a", "2")), day)
	page, _, err := s.Packages(ctx, snap, nil, 10)
	if err != nil || len(page) != 1 || page[0].Version != "2" {
		t.Errorf("packages: %+v, %v; expected only a 2", page, err)
	}
	if st, err = s.NewStage(ctx, mirror, suite); err != nil || st.Gen() != 2 {
		t.Fatalf("generation %d, %v; expected 2", st.Gen(), err)
	}
	if dirty, err := st.Dirty(ctx, index); err != nil || dirty {
		t.Errorf("dirty: %t, %v; expected false after a seal", dirty, err)
	}
}
