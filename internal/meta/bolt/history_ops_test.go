package bolt_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// named are the names and versions of packages.
func named(entries []meta.Entry) (out []string) {
	for _, e := range entries {
		out = append(out, e.Name+" "+e.Version)
	}
	return out
}

func TestHistoryOfPackages(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	ctx := t.Context()
	one := sealed(t, s, day, nil, para{"a", "1", ""}, para{"b", "1", ""})
	two := sealed(t, s, day.Add(time.Hour), nil, para{"a", "2", ""}, para{"a", "3", ""}, para{"b", "1", ""})
	expect := func(what string, got, want any, err error) {
		t.Helper()
		if d := gocmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", what, err, d)
		}
	}
	lists := func(got [][]meta.Entry) (out [][]string) {
		for _, l := range got {
			out = append(out, named(l))
		}
		return out
	}
	file := func(p para) string { return p.record().Files[0].Path }
	digest := func(p para) cas.Digest { return p.record().Files[0].SHA256 }

	got, err := s.PackagesByName(ctx, one, []string{"a", "c", "b"})
	expect("by name, before", lists(got), [][]string{{"a 1"}, nil, {"b 1"}}, err)
	if want := []meta.Place{{Suite: suite, Index: indices[0]}}; err == nil && !slices.Equal(got[0][0].Places, want) {
		t.Errorf("places: %v, expected %v", got[0][0].Places, want)
	}
	got, err = s.PackagesByName(ctx, two, []string{"b", "a"})
	expect("by name, after", lists(got), [][]string{{"b 1"}, {"a 2", "a 3"}}, err)
	got, err = s.PackagesByDigest(ctx, two, []cas.Digest{digest(para{"a", "1", ""}), digest(para{"a", "2", ""})})
	expect("by digest", lists(got), [][]string{nil, {"a 2"}}, err)
	paths, err := s.PackagesByPath(ctx, one, []string{file(para{"a", "2", ""}), file(para{"b", "1", ""})})
	if err != nil || len(paths) != 2 || paths[0].Fact != nil || paths[1].Fact == nil || paths[1].Name != "b" || paths[1].File.SHA256 != digest(para{"b", "1", ""}) || len(paths[1].Places) != 1 {
		t.Errorf("by path: %+v, %v", paths, err)
	}

	stanza := func(p para) meta.StanzaKey {
		sum := cas.Sum(p.record().Bytes)
		return meta.StanzaKey{Name: p.name, Digest: [16]byte(sum[:16])}
	}
	facts, err := s.FactsByStanza(ctx, mirrorName, []meta.StanzaKey{stanza(para{"a", "3", ""}), stanza(para{"a", "9", ""}), stanza(para{"a", "1", ""})})
	if err != nil || len(facts) != 3 || facts[0].Version != "3" || facts[1] != nil || facts[2].Version != "1" {
		t.Fatalf("by stanza: %+v, %v", facts, err)
	}
	texts, err := s.Stanzas(ctx, []meta.PID{facts[0].PID, facts[2].PID})
	expect("stanzas", texts, [][]byte{para{"a", "3", ""}.record().Bytes, para{"a", "1", ""}.record().Bytes}, err)
	owners, err := s.OwnersOf(ctx, []cas.Digest{digest(para{"a", "1", ""}), cas.Sum([]byte("nothing"))})
	if err != nil || len(owners) != 2 || len(owners[0]) != 1 || owners[0][0].Mirror != mirrorName || owners[0][0].Version != "1" || len(owners[1]) > 0 {
		t.Errorf("owners: %+v, %v", owners, err)
	}

	changes := func(from, to *meta.Snapshot) (out []string) {
		found, err := s.Differences(ctx, mirrorName, suite, from.Suites[0].Gen, to.Suites[0].Gen)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range found {
			sign := map[bool]string{true: "+", false: "-"}[d.Added]
			out = append(out, sign+d.Name+" "+d.Version+" "+d.Index)
		}
		slices.SortFunc(out, func(a, b string) int { return cmp.Compare(a[1:], b[1:]) })
		return out
	}
	expect("forwards", changes(one, two), []string{"-a 1 " + indices[0], "+a 2 " + indices[0], "+a 3 " + indices[0]}, nil)
	expect("backwards", changes(two, one), []string{"+a 1 " + indices[0], "-a 2 " + indices[0], "-a 3 " + indices[0]}, nil)
	expect("with itself", changes(one, one), []string(nil), nil)

	byName, err := s.FactsByName(ctx, mirrorName, []string{"a", "c"})
	if err != nil || len(byName) != 2 || len(byName[0]) != 3 || len(byName[1]) > 0 {
		t.Errorf("facts by name: %+v, %v", byName, err)
	}
	newest, err := s.NewestWith(ctx, mirrorName, [][]meta.PID{{facts[2].PID}, {facts[2].PID, facts[0].PID}, nil})
	if err != nil || len(newest) != 3 || newest[0].ID() != one.ID() || newest[1].ID() != two.ID() || newest[2] != nil {
		t.Errorf("newest snapshots: %+v, %v", newest, err)
	}

	// A freeze of the package itself is one of its holders.
	if err := s.PutTree(ctx, "4.1", []meta.Node{{Path: mirrorName + "/a.deb", Digest: digest(para{"a", "1", ""})}}); err != nil {
		t.Fatal(err)
	}
	versions, err := s.Versions(ctx, mirrorName, "a")
	if err != nil || len(versions) != 3 {
		t.Fatalf("versions: %+v, %v", versions, err)
	}
	for i, v := range versions {
		if first := v.Version == "1"; v.Has(one) != first || v.Has(two) == first || slices.Equal(v.Frozen, []string{"4.1"}) != first {
			t.Errorf("version %d: %s is in the first: %t, in the second: %t, frozen: %v", i, v.Version, v.Has(one), v.Has(two), v.Frozen)
		}
	}
}
