package metatest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// testHistoryEmpty checks the results of an empty store for lists of arguments: one empty
// element for each.
func testHistoryEmpty(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	snap := &meta.Snapshot{Mirror: "debian", Type: "deb", Timestamp: freezeDate, Suites: []meta.SnapshotSuite{{Suite: "stable", Gen: 1}}}
	digests := []cas.Digest{cas.Sum(nil), {}}
	lists := func(what string, got [][]meta.Entry, err error) {
		t.Helper()
		if err != nil || len(got) != 2 || len(got[0])+len(got[1]) > 0 {
			t.Errorf("%s: %v, %v, expected two empty lists", what, got, err)
		}
	}
	got, err := s.PackagesByName(ctx, snap, []string{"a", ""})
	lists("PackagesByName", got, err)
	got, err = s.PackagesByDigest(ctx, snap, digests)
	lists("PackagesByDigest", got, err)
	if at, err := s.PackagesByPath(ctx, snap, []string{"pool/a.deb"}); err != nil || len(at) != 1 || at[0].Fact != nil {
		t.Errorf("PackagesByPath: %v, %v, expected an entry without a package", at, err)
	}
	if facts, err := s.FactsByStanza(ctx, "debian", []meta.StanzaKey{{Name: "a"}}); err != nil || len(facts) != 1 || facts[0] != nil {
		t.Errorf("FactsByStanza: %v, %v, expected one nil", facts, err)
	}
	if owners, err := s.OwnersOf(ctx, digests); err != nil || len(owners) != 2 || len(owners[0])+len(owners[1]) > 0 {
		t.Errorf("OwnersOf: %v, %v, expected two empty lists", owners, err)
	}
	if versions, err := s.Versions(ctx, "debian", []string{"a", ""}); err != nil || len(versions) != 2 || len(versions[0])+len(versions[1]) > 0 {
		t.Errorf("Versions: %v, %v, expected two empty lists", versions, err)
	}
	if facts, err := s.FactsByName(ctx, "debian", []string{"a", ""}); err != nil || len(facts) != 2 || len(facts[0])+len(facts[1]) > 0 {
		t.Errorf("FactsByName: %v, %v, expected two empty lists", facts, err)
	}
	if newest, err := s.NewestWith(ctx, "debian", [][]meta.PID{{1}, nil}); err != nil || len(newest) != 2 || newest[0] != nil || newest[1] != nil {
		t.Errorf("NewestWith: %v, %v, expected two nil", newest, err)
	}
	if page, next, err := s.UnusablePackages(ctx, snap, nil, 10); err != nil || len(page) > 0 || next != nil {
		t.Errorf("UnusablePackages: %v, %v, %v, expected none", page, next, err)
	}
	if names, err := s.PackageNames(ctx, "debian", "", "", 10); err != nil || len(names) > 0 {
		t.Errorf("PackageNames: %v, %v, expected none", names, err)
	}
	if names, err := s.SourceNames(ctx, "debian", "", 10); err != nil || len(names) > 0 {
		t.Errorf("SourceNames: %v, %v, expected none", names, err)
	}
	if facts, err := s.FactsBySource(ctx, "debian", []string{"a", ""}); err != nil || len(facts) != 2 || len(facts[0])+len(facts[1]) > 0 {
		t.Errorf("FactsBySource: %v, %v, expected two empty lists", facts, err)
	}
	if lists, err := s.Presences(ctx, []meta.PID{1}); err != nil || len(lists) != 1 || len(lists[0]) > 0 {
		t.Errorf("Presences: %v, %v, expected an empty list", lists, err)
	}
	if others, err := s.OtherDigests(ctx, meta.AliasSHA1, digests); err != nil || len(others) != 2 || others[0] != nil || others[1] != nil {
		t.Errorf("OtherDigests: %v, %v, expected two nil", others, err)
	}
	if stanzas, err := s.Stanzas(ctx, nil); err != nil || len(stanzas) > 0 {
		t.Errorf("Stanzas of nothing: %v, %v", stanzas, err)
	}
	if files, err := s.TreeFiles(ctx, "4.1", "", "", 10); err != nil || len(files) > 0 {
		t.Errorf("TreeFiles: %v, %v, expected none", files, err)
	}
	missing := map[string]error{}
	_, missing["Stanzas"] = s.Stanzas(ctx, []meta.PID{1})
	_, missing["Differences"] = s.Differences(ctx, "debian", "stable", 1, 2)
	_, missing["CountDifferences"] = s.CountDifferences(ctx, "debian", "stable", 1, 2, 10)
	_, missing["RecordingEntries"] = s.RecordingEntries(ctx, "build")
	_, missing["TreeFaults"] = s.TreeFaults(ctx, "4.1", nil)
	for name, err := range missing {
		if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s: %v, expected ErrNotFound", name, err)
		}
	}
}

// testHistory checks the methods that look up packages in snapshots and in the past.
// Long because each step depends on the one before.
func testHistory(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	fail := failing(t)
	unusable := binary("x", "1")
	unusable.Kind = repo.KindUnusable
	strong := binary("strong", "1")
	strong.Sources = []repo.Ref{{}, {Name: "other", Version: "3"}}
	strong.Files[0].SHA512 = strings.Repeat("ab", 64)
	one := seal(t, s, stage(t, s, binary("a", "1"), binary("b", "1"), source("a", "1"), unusable, strong), day)
	two := seal(t, s, stage(t, s, binary("a", "2"), binary("b", "1"), source("a", "1")), day.Add(time.Hour))
	describe := func(lists [][]meta.Entry) (out []string) {
		for _, list := range lists {
			var words []string
			for _, e := range list {
				words = append(words, fmt.Sprint(e.Name, " ", e.Version, " ", e.Kind, " ", len(e.Places)))
			}
			out = append(out, strings.Join(words, ", "))
		}
		return out
	}
	byName, err := s.PackagesByName(ctx, one, []string{"b", "absent", "a"})
	fail(err)
	if got, want := describe(byName), []string{fmt.Sprint("b 1 ", repo.KindBinary, " 1"), "", fmt.Sprint("a 1 ", repo.KindBinary, " 1, a 1 ", repo.KindSource, " 1")}; !slices.Equal(got, want) {
		t.Errorf("by name: %q, expected %q", got, want)
	}
	byDigest, err := s.PackagesByDigest(ctx, two, []cas.Digest{digest("pool/a_1.deb"), digest("pool/b_1.deb")})
	fail(err)
	if got, want := describe(byDigest), []string{"", fmt.Sprint("b 1 ", repo.KindBinary, " 1")}; !slices.Equal(got, want) {
		t.Errorf("by digest: %q, expected %q", got, want)
	}
	byPath, err := s.PackagesByPath(ctx, two, []string{"pool/a_2.deb", "pool/a_1.deb"})
	if err != nil || len(byPath) != 2 || byPath[0].Fact == nil || byPath[0].File.SHA256 != digest("pool/a_2.deb") || len(byPath[0].Places) != 1 || byPath[1].Fact != nil {
		t.Errorf("by path: %+v, %v", byPath, err)
	}
	if page, next, err := s.UnusablePackages(ctx, one, nil, 10); err != nil || next != nil || len(page) != 1 || page[0].Name != "x" {
		t.Errorf("unusable: %+v, %v, %v", page, next, err)
	}
	if page, _, err := s.UnusablePackages(ctx, two, nil, 10); err != nil || len(page) != 0 {
		t.Errorf("an unusable package that is no longer listed: %+v, %v", page, err)
	}
	facts, err := s.FactsByName(ctx, mirror, []string{"a", "x", "strong"})
	fail(err)
	if len(facts[0]) != 3 || len(facts[1]) != 0 || len(facts[2]) != 1 {
		t.Fatalf("facts by name: %v", facts)
	}
	if d := cmp.Diff(*strong, facts[2][0].Record, cmpopts.IgnoreFields(repo.Record{}, "Bytes")); d != "" {
		t.Errorf("fact (-want +got):\n%s", d)
	}
	known, err := s.FactsByStanza(ctx, mirror, []meta.StanzaKey{{Name: "a", Digest: facts[0][1].Digest}, {Name: "a"}, {Name: "b", Digest: facts[0][1].Digest}})
	if err != nil || known[0] == nil || known[0].PID != facts[0][1].PID || known[1] != nil || known[2] != nil {
		t.Errorf("facts by stanza: %v, %v", known, err)
	}
	owners, err := s.OwnersOf(ctx, []cas.Digest{digest("pool/a_1.deb"), digest("absent")})
	if err != nil || len(owners[0]) != 1 || owners[0][0].Mirror != mirror || owners[0][0].Version != "1" || len(owners[1]) != 0 {
		t.Errorf("owners: %+v, %v", owners, err)
	}
	a1, b1 := byName[2][0].PID, byName[0][0].PID
	newest, err := s.NewestWith(ctx, mirror, [][]meta.PID{{a1}, {a1, b1}, {1 << 50}})
	if err != nil || newest[0].ID() != one.ID() || newest[1].ID() != two.ID() || newest[2] != nil {
		t.Errorf("newest with: %v, %v", newest, err)
	}
	stanzas, err := s.Stanzas(ctx, []meta.PID{b1, a1, b1})
	if err != nil || string(stanzas[0]) != string(binary("b", "1").Bytes) || string(stanzas[1]) != string(binary("a", "1").Bytes) || string(stanzas[2]) != string(stanzas[0]) {
		t.Errorf("stanzas: %q, %v", stanzas, err)
	}
	for _, c := range []struct {
		from, to *meta.Snapshot
		want     []string
	}{
		{one, two, []string{"+a 2", "-a 1", "-strong 1", "-x 1"}}, {two, one, []string{"+a 1", "+strong 1", "+x 1", "-a 2"}}, {one, one, nil},
	} {
		diff, err := s.Differences(ctx, mirror, suite, c.from.Suites[0].Gen, c.to.Suites[0].Gen)
		fail(err)
		var words []string
		for _, d := range diff {
			sign := map[bool]string{true: "+", false: "-"}[d.Added]
			words = append(words, sign+d.Name+" "+d.Version)
		}
		slices.Sort(words)
		if !slices.Equal(words, c.want) {
			t.Errorf("differences from %s to %s: %q, expected %q", c.from.ID(), c.to.ID(), words, c.want)
		}
		for _, limit := range []int{100, 2} {
			n, err := s.CountDifferences(ctx, mirror, suite, c.from.Suites[0].Gen, c.to.Suites[0].Gen, limit)
			if err != nil || n < min(len(c.want), limit) || n > min(len(c.want)+1, limit) {
				t.Errorf("differences from %s to %s: counted %d up to %d, %v, expected %d", c.from.ID(), c.to.ID(), n, limit, err, len(c.want))
			}
		}
	}
	fail(s.PutTree(ctx, "4.1", []meta.Node{{Path: "debian/a", Digest: digest("pool/a_1.deb"), ModTime: freezeDate}}))
	lists, err := s.Versions(ctx, mirror, []string{"none", "a"})
	if err != nil || len(lists) != 2 || len(lists[0]) > 0 {
		t.Fatalf("versions: %+v, %v", lists, err)
	}
	versions := lists[1]
	if len(versions) != 3 || !versions[0].Has(one) || versions[0].Has(two) || !slices.Equal(versions[0].Frozen, []string{"4.1"}) || len(versions[2].Frozen) > 0 {
		t.Errorf("versions: %+v, %v", versions, err)
	}
	if d := cmp.Diff([]meta.Presence{{Place: meta.Place{Suite: suite, Index: index}, Intervals: []meta.Interval{{From: 1, To: 2}}}}, versions[0].Presences); d != "" {
		t.Errorf("presences (-want +got):\n%s", d)
	}
}

// testSources checks the lookup by source package while packages are staged and collected.
func testSources(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	fail := failing(t)
	built := func(name, version, from string) *repo.Record {
		r := binary(name, version)
		r.Sources = []repo.Ref{{Name: from, Version: "7"}, {Name: "used", Version: "1"}}
		return r
	}
	unknown := binary("orphan", "1")
	unknown.Sources = []repo.Ref{{}}
	unusable := binary("x", "1")
	unusable.Kind = repo.KindUnusable
	one := seal(t, s, stage(t, s, built("lib", "1", "tool"), built("tool-bin", "1", "tool"), source("tool", "7"), source("zlib", "1"), unknown, unusable), day)
	two := seal(t, s, stage(t, s, built("lib", "2", "tool"), source("zlib", "1")), day.Add(time.Hour))
	names, err := s.SourceNames(ctx, mirror, "", 10)
	if fail(err); !slices.Equal(names, []string{"tool", "zlib"}) {
		t.Errorf("sources: %q", names)
	}
	for after, want := range map[string][]string{"": {"tool"}, "to": {"tool"}, "tool": {"zlib"}, "zlib": nil} {
		if names, err := s.SourceNames(ctx, mirror, after, 1); err != nil || !slices.Equal(names, want) {
			t.Errorf("the source after %q: %q, %v, expected %q", after, names, err, want)
		}
	}
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"", "", 10, []string{"lib", "orphan", "tool", "tool-bin", "zlib"}},
		{"", "lib", 2, []string{"orphan", "tool"}},
		{"tool", "", 10, []string{"tool", "tool-bin"}},
		{"tool", "tool", 10, []string{"tool-bin"}},
		{"tool", "zlib", 10, nil},
		{"z", "a", 10, []string{"zlib"}},
		{"x", "", 10, nil},
	} {
		if names, err := s.PackageNames(ctx, mirror, c.prefix, c.after, c.limit); err != nil || !slices.Equal(names, c.want) {
			t.Errorf("names with %q after %q: %q, %v, expected %q", c.prefix, c.after, names, err, c.want)
		}
	}
	describe := func() (out []string) {
		facts, err := s.FactsBySource(ctx, mirror, []string{"tool", "tool\x00", "used", "", "zlib"})
		fail(err)
		for _, list := range facts {
			var words []string
			for _, f := range list {
				words = append(words, f.Name+" "+f.Version)
			}
			out = append(out, strings.Join(words, ", "))
		}
		return out
	}
	if got, want := describe(), []string{"lib 1, tool-bin 1, tool 7, lib 2", "", "", "", "zlib 1"}; !slices.Equal(got, want) {
		t.Errorf("by source: %q, expected %q", got, want)
	}
	facts, err := s.FactsBySource(ctx, mirror, []string{"tool"})
	fail(err)
	lists, err := s.Presences(ctx, []meta.PID{facts[0][3].PID, 1 << 50, facts[0][0].PID})
	fail(err)
	place := meta.Place{Suite: suite, Index: index}
	want := [][]meta.Presence{{{Place: place, Intervals: []meta.Interval{{From: 2, To: meta.Unended}}}}, nil, {{Place: place, Intervals: []meta.Interval{{From: 1, To: 2}}}}}
	if d := cmp.Diff(want, lists, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("presences (-want +got):\n%s", d)
	}
	// Packages that a collection deletes are no longer found.
	removed, err := s.RemoveExpired(ctx, []meta.Keep{{Mirror: mirror, Before: two.Timestamp}}, two.Timestamp.Add(time.Hour), 0)
	if fail(err); len(removed) != 1 || removed[0].ID() != one.ID() {
		t.Fatalf("removed: %v", removed)
	}
	_, err = s.CollectGenerations(ctx)
	fail(err)
	if got, want := describe(), []string{"lib 2", "", "", "", "zlib 1"}; !slices.Equal(got, want) {
		t.Errorf("by source after a collection: %q, expected %q", got, want)
	}
}
