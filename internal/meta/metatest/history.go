package metatest

import (
	"errors"
	"testing"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// testHistoryEmpty checks that an empty store answers each question of a list
// with nothing.
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
	if versions, err := s.Versions(ctx, "debian", "a"); err != nil || len(versions) > 0 {
		t.Errorf("Versions: %v, %v, expected none", versions, err)
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
	if stanzas, err := s.Stanzas(ctx, nil); err != nil || len(stanzas) > 0 {
		t.Errorf("Stanzas of nothing: %v, %v", stanzas, err)
	}
	if files, err := s.TreeFiles(ctx, "4.1", "", "", 10); err != nil || len(files) > 0 {
		t.Errorf("TreeFiles: %v, %v, expected none", files, err)
	}
	missing := map[string]error{}
	_, missing["Stanzas"] = s.Stanzas(ctx, []meta.PID{1})
	_, missing["Differences"] = s.Differences(ctx, "debian", "stable", 1, 2)
	_, missing["RecordingEntries"] = s.RecordingEntries(ctx, "build")
	_, missing["TreeFaults"] = s.TreeFaults(ctx, "4.1", nil)
	for name, err := range missing {
		if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s: %v, expected ErrNotFound", name, err)
		}
	}
}
