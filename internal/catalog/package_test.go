package catalog_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

func TestPackage(t *testing.T) {
	file := func(p string) repo.File { return repo.File{Path: p, Size: 10, SHA256: cas.Sum([]byte(p))} }
	sum := func(p string) string { return cas.Sum([]byte(p)).String() }
	apiFile := func(p string) api.File { return api.File{Path: p, Size: 10, SHA256: sum(p)} }
	// Components are not always the first directory of an index.
	components := catalog.Components{
		{Suite: "stable", Index: "main/binary-amd64/Packages"}:         "main",
		{Suite: "stable", Index: "updates/main/binary-amd64/Packages"}: "updates/main",
		{Suite: "old", Index: "main/binary-amd64/Packages"}:            "main",
		{Suite: "fedora", Index: "repodata/primary.xml"}:               "",
	}
	for name, c := range map[string]struct {
		record repo.Record
		places []meta.Place
		want   api.Package
	}{
		"binary": {
			repo.Record{Name: "a", Version: "1", Arch: "amd64", Files: []repo.File{file("a.deb")}, Sources: []repo.Ref{{Name: "src", Version: "2"}, {Name: "built-using", Version: "3"}}},
			[]meta.Place{{Suite: "stable", Index: "updates/main/binary-amd64/Packages"}, {Suite: "old", Index: "main/binary-amd64/Packages"}, {Suite: "stable", Index: "main/binary-amd64/Packages"}},
			api.Package{
				Mirror: "m", Name: "a", Version: "1", Arch: "amd64", Path: "a.deb", SHA256: sum("a.deb"), Size: 10, Source: "src", SourceVersion: "2",
				Suites: []string{"old", "stable"}, Components: []string{"main", "updates/main"},
			},
		},
		"source": {
			repo.Record{Kind: repo.KindSource, Name: "a", Version: "1", Arch: "source", Files: []repo.File{file("a.tar.xz"), file("a.dsc"), file("a.diff")}, Sources: []repo.Ref{{Name: "other"}}},
			[]meta.Place{{Suite: "fedora", Index: "repodata/primary.xml"}},
			api.Package{
				Mirror: "m", Name: "a", Version: "1", Arch: "source", Path: "a.dsc", SHA256: sum("a.dsc"), Size: 30, Suites: []string{"fedora"},
				Files: []api.File{apiFile("a.tar.xz"), apiFile("a.dsc"), apiFile("a.diff")},
			},
		},
		"without files": {repo.Record{Name: "a", Version: "1", Arch: "amd64"}, nil, api.Package{Mirror: "m", Name: "a", Version: "1", Arch: "amd64"}},
	} {
		got := components.Package("m", meta.Entry{Fact: &meta.Fact{Record: c.record}, Places: c.places})
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
