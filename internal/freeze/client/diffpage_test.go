package client_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo/deb/debtest"
)

// entries returns all differences of a comparison, with their kinds, in order.
func entries(d *api.Diff) (out []string) {
	for kind, list := range map[string][]api.DiffEntry{"added": d.Added, "removed": d.Removed, "upgraded": d.Upgraded, "downgraded": d.Downgraded, "rebuilt": d.Rebuilt} {
		for _, e := range list {
			out = append(out, fmt.Sprint(kind, e))
		}
	}
	slices.Sort(out)
	return out
}

// All pages of a comparison together contain its differences: between snapshots whose
// suites changed, appeared or disappeared, between freezes of two whole mirrors, and
// between exact ones. Long because all compare states of one history.
func TestDiffPages(t *testing.T) {
	b := freezertest.NewBoth(t, "stable", "sid")
	freeze := func(name string, req api.FreezeRequest) {
		t.Helper()
		req.Name = name
		if _, err := b.Freeze(t.Context(), &req, nil); err != nil {
			t.Fatal(err)
		}
	}
	stable, sid := b.Debian.Suite("stable"), b.Debian.Suite("sid")
	for i := range 30 {
		stable.Add(debtest.Package{Name: fmt.Sprintf("p%02d", i), Version: "1"}, debtest.Package{Name: fmt.Sprintf("p%02d", i), Version: "1", Arch: "all"})
		sid.Add(debtest.Package{Name: fmt.Sprintf("s%02d", i), Version: "1"})
	}
	b.Debian.Publish(b.Now.Add(time.Minute))
	b.Sync(t)
	freeze("whole-1", api.FreezeRequest{All: true, NoSources: true})
	freeze("exact-1", api.FreezeRequest{NoSources: true, Mirrors: []string{"debian"}, Manifests: freezertest.List("p03:amd64", "p04:amd64", "p05:amd64", "s01", "s02", "hello")})
	for i := range 20 {
		stable.Add(debtest.Package{Name: fmt.Sprintf("p%02d", i), Version: "2"})
		stable.Add(debtest.Package{Name: fmt.Sprintf("n%02d", i), Version: "1"})
	}
	b.Debian.Publish(b.Now.Add(time.Minute))
	b.Sync(t)
	freeze("whole-2", api.FreezeRequest{All: true, NoSources: true})
	freeze("exact-2", api.FreezeRequest{NoSources: true, Mirrors: []string{"debian"}, Manifests: freezertest.List("p03:amd64=2", "p05:amd64=2", "p29:amd64", "s01", "n07", "hello")})
	freeze("rpms", api.FreezeRequest{All: true, NoSources: true, Mirrors: []string{"fedora"}})
	snaps, err := b.Parts.Store().SnapshotsBefore(t.Context(), "debian", time.Time{}, 10)
	if err != nil || len(snaps) != 3 {
		t.Fatalf("%d snapshots: %v", len(snaps), err)
	}
	part, err := b.Parts.Store().Seal(t.Context(), &meta.Sealing{Snapshot: meta.Snapshot{Mirror: "debian", Type: "deb", Suites: snaps[0].Suites[:1]}}, b.Now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, refs := range [][2]string{
		{snaps[2].ID(), part.ID()}, {part.ID(), snaps[0].ID()}, {"exact-1", part.ID()},
		{snaps[2].ID(), snaps[0].ID()}, {snaps[0].ID(), snaps[1].ID()}, {"whole-1", "whole-2"}, {"exact-1", "exact-2"}, {"whole-2", "exact-1"}, {"exact-1", "whole-1"},
		{"rpms", "whole-2"}, {"exact-2", "rpms"}, {"whole-1", snaps[0].ID()}, {"whole-1", "whole-1"},
	} {
		want, err := b.Diff(t.Context(), refs[0], refs[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"", "upgraded", "removed"} {
			wanted := entries(want)
			switch kind {
			case "upgraded":
				wanted = entries(&api.Diff{Upgraded: want.Upgraded})
			case "removed":
				wanted = entries(&api.Diff{Removed: want.Removed})
			}
			var got []string
			pages := 0
			for from := ""; ; pages++ {
				d, all, err := b.DiffPage(t.Context(), refs[0], refs[1], client.DiffPart{Kind: kind, From: from, Few: -1, Rows: 7, Read: 1_000_000})
				if err != nil || all || len(d.Sources) > 0 {
					t.Fatalf("%v from %q: all %v, %d sources, %v", refs, from, all, len(d.Sources), err)
				}
				page := entries(d)
				if len(page) > 7+4 { // a name has up to four more
					t.Errorf("%v from %q: %d differences on a page", refs, from, len(page))
				}
				if got = append(got, page...); d.Next == "" {
					break
				}
				from = d.Next
			}
			if slices.Sort(got); !slices.Equal(got, wanted) {
				t.Errorf("%v %s: in %d pages\n%q\nexpected\n%q", refs, kind, pages, got, wanted)
			}
		}
		// Few differences are on the first page.
		d, all, err := b.DiffPage(t.Context(), refs[0], refs[1], client.DiffPart{Few: 1000, Rows: 7, Read: 7})
		if err != nil || !all || !slices.Equal(entries(d), entries(want)) || len(d.Sources) != len(want.Sources) {
			t.Errorf("%v: all %v, %d of %d differences, %v", refs, all, len(entries(d)), len(entries(want)), err)
		}
		// A page that may read only a little continues where the last one stopped.
		d, _, err = b.DiffPage(t.Context(), refs[0], refs[1], client.DiffPart{Few: -1, Rows: 1000, Read: 0})
		if err != nil || len(entries(d)) > 0 || d.Next == "" {
			t.Errorf("%v: %d differences of nothing, next %q, %v", refs, len(entries(d)), d.Next, err)
		}
	}
	if _, _, err := b.DiffPage(t.Context(), "whole-1", "whole-2", client.DiffPart{From: "60000"}); err == nil {
		t.Error("a position that is none is accepted")
	}
}
