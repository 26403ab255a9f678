package metatest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// testChecker checks which blobs must be stored, and the reasons for that.
func testChecker(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	fail := failing(t)
	one := seal(t, s, stage(t, s, binary("a", "1"), binary("b", "1")), day)
	g := stage(t, s, binary("a", "1"), binary("c", "1"))
	g.Complete = true
	seal(t, s, g, day.Add(time.Hour))
	promised := func(d cas.Digest, want bool) {
		t.Helper()
		if yes, err := s.Promised(ctx, d); err != nil || yes != want {
			t.Errorf("promised %v, %v, expected %v", yes, err, want)
		}
	}
	deb := func(p string) cas.Digest { return digest("pool/" + p + "_1.deb") }
	promised(digest("InRelease1"), true)
	promised(deb("a"), true)
	promised(deb("b"), false) // in a generation that was not complete
	promised(deb("c"), true)
	promised(digest("absent"), false)
	pages := func() (all []cas.Digest) {
		t.Helper()
		for after, more := (cas.Digest{}), true; more; {
			var page []cas.Digest
			var err error
			page, after, more, err = s.PromisedBlobs(ctx, after, 2)
			fail(err)
			all = append(all, page...)
		}
		return all
	}
	all := pages()
	if len(all) != 6 || !slices.IsSortedFunc(all, func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) }) || slices.Contains(all, deb("b")) {
		t.Errorf("promised blobs: %v", all)
	}
	f := freeze("4.1", "one")
	f.Mirrors = []meta.FrozenMirror{{Mirror: mirror, Type: "deb", Whole: true, Timestamp: one.Timestamp, Suites: []meta.FrozenSuite{{Suite: suite, Gen: one.Suites[0].Gen}}}}
	fail(s.Publish(ctx, f))
	promised(deb("b"), true) // in a freeze of the whole mirror
	if all = pages(); !slices.Contains(all, deb("b")) || !slices.Contains(all, f.Manifest.SHA256) {
		t.Errorf("promised blobs with a freeze: %v", all)
	}
	words, err := s.ReferencesInWords(ctx, deb("a"), 10)
	if err != nil || len(words) != 1 || words[0] != "package a 1 amd64 of mirror debian" {
		t.Errorf("references: %q, %v", words, err)
	}
	words, err = s.ReferencesInWords(ctx, digest("InRelease1"), 10)
	if err != nil || len(words) != 1 || !strings.Contains(words[0], "generation 1 (20260110T000000Z)") {
		t.Errorf("references: %q, %v", words, err)
	}
	listed, err := s.ListedAs(ctx, digest("Packages1"))
	if err != nil || len(listed) != 1 || listed[0].Mirror != mirror || listed[0].Suite != suite || listed[0].Last != 1 {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	if listed, err = s.ListedAs(ctx, digest("Packages2")); err != nil || len(listed) != 1 || listed[0].Last != meta.Unended {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	if needed, err := s.Needed(ctx, digest("absent")); err != nil || needed {
		t.Errorf("needed: %v, %v", needed, err)
	}
	fail(s.AliasesComplete(ctx))
	if found, err := s.Contradictions(ctx); err != nil || len(found) > 0 {
		t.Errorf("contradictions: %q, %v", found, err)
	}
	if changed, _, err := s.Rebuild(ctx, meta.Repairs{}); err != nil || len(changed) > 0 {
		t.Errorf("rebuilt of sound metadata: %q, %v", changed, err)
	}
}

// testReasons checks the reasons why a blob is kept, and the preview of a collection.
func testReasons(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	fail := failing(t)
	one := seal(t, s, stage(t, s, binary("a", "1"), binary("b", "1")), day)
	seal(t, s, stage(t, s, binary("a", "1")), day.Add(time.Hour))
	keep := []meta.Keep{{Mirror: mirror, Before: day.Add(time.Minute)}}
	now := day.Add(2 * time.Hour)
	reasons := func(d cas.Digest, needed bool, holders, newest string) {
		t.Helper()
		r, err := s.Reasons(ctx, d, keep, now, never)
		fail(err)
		var names []string
		isNewest := ""
		for _, ref := range r.Refs {
			for _, h := range ref.Holders {
				names = append(names, h.Name)
			}
			if ref.Newest {
				isNewest = "newest"
			}
		}
		if got := strings.Join(names, " "); r.Needed != needed || got != holders || isNewest != newest || len(r.Going) != 1 || !r.Going[one.ID()] {
			t.Errorf("needed %v, held by %q, %q, going %v", r.Needed, got, isNewest, r.Going)
		}
	}
	deb := func(p string) cas.Digest { return digest("pool/" + p + "_1.deb") }
	reasons(deb("a"), true, "debian@20260110T000000Z debian@20260110T010000Z", "newest")
	reasons(deb("b"), false, "debian@20260110T000000Z", "")
	reasons(digest("InRelease1"), false, "debian@20260110T000000Z", "")
	fail(s.PutTree(ctx, "4.2", []meta.Node{{Path: "debian/x", Digest: digest("x"), ModTime: day}}))
	making := func(want bool) func(string) bool { return func(name string) bool { return want && name == "4.2" } }
	for _, busy := range []bool{true, false} {
		p, err := s.PreviewCollection(ctx, keep, now, now, making(busy))
		fail(err)
		want := []cas.Digest{deb("b"), digest("InRelease1"), digest("Packages1")}
		if !busy {
			want = append(want, digest("x"))
		}
		order := func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) }
		slices.SortFunc(want, order)
		slices.SortFunc(p.Blobs, order)
		if len(p.Snapshots) != 1 || p.Generations != 1 || !slices.Equal(p.Blobs, want) {
			t.Errorf("preview: %+v, expected the blobs %v", p, want)
		}
	}
}
