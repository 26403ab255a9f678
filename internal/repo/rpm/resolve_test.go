package rpm

import (
	"crypto/sha512"
	"fmt"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmtest"
)

func TestResolve(t *testing.T) {
	needs.Program(t, "dnf")
	r := rpmtest.New(rpmtest.Options{})
	built := r.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64", Requires: []string{"lib >= 1.0"}},
		rpmtest.Package{Name: "app", Version: "0.9", Arch: "x86_64"},
		rpmtest.Package{Name: "lib", Version: "1.2~rc1+x", Requires: []string{"base"}},
		rpmtest.Package{Name: "unused", Version: "1"})
	r.Publish(t0)
	other := rpmtest.New(rpmtest.Options{})
	more := other.Add(rpmtest.Package{Name: "base", Version: "1^x", Epoch: 3})
	other.Publish(t0)
	a, b := httptest.NewServer(r), httptest.NewServer(other)
	defer a.Close()
	defer b.Close()
	repos := []repo.SourceParams{{Name: "snapd-a", URL: a.URL}, {Name: "snapd-b", URL: b.URL}}
	got, err := Format{}.Resolve(t.Context(), repos, []string{"x86_64"}, []string{"app"})
	if err != nil {
		t.Fatal(err)
	}
	want := []repo.Resolved{
		{URL: a.URL + "/" + built[0].Href(), SHA256: cas.Sum(built[0].Bytes), Name: "app", Version: "1.0-1", Arch: "x86_64"},
		{URL: a.URL + "/" + built[2].Href(), SHA256: cas.Sum(built[2].Bytes), Name: "lib", Version: "1.2~rc1+x-1", Arch: "noarch"},
		{URL: b.URL + "/" + more[0].Href(), SHA256: cas.Sum(more[0].Bytes), Name: "base", Version: "3:1^x-1", Arch: "noarch"},
	}
	slices.SortFunc(got, func(a, b repo.Resolved) int { return strings.Compare(a.URL, b.URL) })
	slices.SortFunc(want, func(a, b repo.Resolved) int { return strings.Compare(a.URL, b.URL) })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := (Format{}).Resolve(t.Context(), repos[:1], []string{"x86_64"}, []string{"app"}); err == nil || !strings.Contains(err.Error(), "base") {
		t.Errorf("a package with an unmet requirement: %v", err)
	}
	if _, err := (Format{}).Resolve(t.Context(), repos, []string{"x86_64"}, []string{"nothing"}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("an unknown package: %v", err)
	}
}

// For packages listed by SHA-512, Resolve returns that digest.
func TestResolveSHA512(t *testing.T) {
	needs.Program(t, "dnf")
	r := rpmtest.New(rpmtest.Options{Checksum: "sha512"})
	built := r.Add(rpmtest.Package{Name: "app", Version: "1.0"})
	r.Publish(t0)
	srv := httptest.NewServer(r)
	defer srv.Close()
	got, err := Format{}.Resolve(t.Context(), []repo.SourceParams{{Name: "snapd-a", URL: srv.URL}}, []string{"x86_64"}, []string{"app"})
	want := []repo.Resolved{{URL: srv.URL + "/" + built[0].Href(), SHA512: fmt.Sprintf("%x", sha512.Sum512(built[0].Bytes)), Name: "app", Version: "1.0-1", Arch: "noarch"}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

// Resolve chooses packages by version and architecture, for each configured
// architecture, and from the module streams for the repository's platform.
func TestResolveChosen(t *testing.T) {
	needs.Program(t, "dnf")
	r := rpmtest.New(rpmtest.Options{})
	r.Add(
		rpmtest.Package{Name: "bar", Version: "1.0", Epoch: 2, Arch: "x86_64", Requires: []string{"lib"}},
		rpmtest.Package{Name: "bar", Version: "1.1", Epoch: 2, Arch: "x86_64", Requires: []string{"lib"}},
		rpmtest.Package{Name: "bar", Version: "1.1", Epoch: 2, Arch: "i686"},
		rpmtest.Package{Name: "bar", Version: "1.1", Epoch: 2, Arch: "aarch64", Requires: []string{"lib"}},
		rpmtest.Package{Name: "bar", Version: "1.1", Epoch: 2, Arch: "src"},
		rpmtest.Package{Name: "lib", Version: "1"},
		rpmtest.Package{Name: "intel", Version: "1", Arch: "x86_64", Provides: []string{"virtual = 1"}},
		rpmtest.Package{Name: "mod", Version: "1"}, rpmtest.Package{Name: "mod", Version: "2"},
		rpmtest.Package{Name: "c++lib", Version: "1"},
	)
	stream := func(stream, context, platform string) string {
		return "---\ndocument: modulemd\nversion: 2\ndata:\n  name: m\n  stream: \"" + stream + "\"\n  version: 1\n  context: " + context + "\n  arch: x86_64\n  summary: m\n  description: m\n" +
			"  license: {module: [MIT]}\n  dependencies:\n  - requires: {platform: [" + platform + "]}\n  artifacts:\n    rpms:\n    - mod-0:" + stream + "-1.noarch\n"
	}
	r.SetData("modules", "modules.yaml.gz", []byte(stream("1", "c0ffee01", "f42")+stream("2", "c0ffee02", "f42")+
		"---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: m\n  stream: \"1\"\n"))
	r.Publish(t0)
	srv := httptest.NewServer(r)
	defer srv.Close()
	repos := []repo.SourceParams{{Name: "snapd-a~b", URL: srv.URL}}
	x86 := []string{"x86_64"}
	for _, c := range []struct {
		archs, packages []string
		want            string // file names, or part of the error
	}{
		{x86, []string{"bar"}, "bar-1.1-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{x86, []string{"bar=2:1.0-1"}, "bar-1.0-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{x86, []string{"bar=1.0-1"}, "bar-1.0-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{x86, []string{"bar=1.0"}, "bar-1.0-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{x86, []string{"bar:x86_64"}, "bar-1.1-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{x86, []string{"bar:x86_64=2:1.0-1", "bar=1.1-1"}, "bar-1.0-1.x86_64.rpm bar-1.1-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{x86, []string{"bar:i686", "intel"}, "bar-1.1-1.i686.rpm intel-1-1.x86_64.rpm"},
		{x86, []string{"lib:noarch"}, "lib-1-1.noarch.rpm"},
		{x86, []string{"c++lib"}, "c++lib-1-1.noarch.rpm"},
		{x86, []string{"virtual"}, "intel-1-1.x86_64.rpm"},
		{x86, []string{"mod"}, "mod-1-1.noarch.rpm"}, // the default stream's
		{[]string{"noarch", "x86_64"}, []string{"bar"}, "bar-1.1-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{[]string{"i686", "x86_64"}, []string{"bar"}, "bar-1.1-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{[]string{"x86_64", "aarch64", "noarch", "src"}, []string{"bar", "intel"}, "bar-1.1-1.aarch64.rpm bar-1.1-1.x86_64.rpm intel-1-1.x86_64.rpm lib-1-1.noarch.rpm"},
		{[]string{"x86_64", "aarch64"}, []string{"bar:aarch64"}, "bar-1.1-1.aarch64.rpm lib-1-1.noarch.rpm"},
		{x86, []string{"bar=1:1.0-1"}, "no package bar=1:1.0-1 for x86_64; available: bar-2:1.0-1.x86_64, bar-2:1.1-1.aarch64"},
		{x86, []string{"bar:aarch64"}, "no package bar:aarch64 for x86_64; available: bar"},
		{x86, []string{"nothing=1"}, "no package nothing=1 for x86_64: missing upstream"},
		{x86, []string{"bar=1:2:3"}, "version"},
	} {
		got, err := Format{}.Resolve(t.Context(), repos, c.archs, c.packages)
		if !strings.HasSuffix(c.want, ".rpm") {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v for %v:\ngot  %v\nwant %s", c.packages, c.archs, err, c.want)
			}
			continue
		}
		var names []string
		for _, p := range got {
			names = append(names, path.Base(p.URL))
		}
		slices.Sort(names)
		if err != nil || strings.Join(names, " ") != c.want {
			t.Errorf("%v for %v: %v, %v, expected %s", c.packages, c.archs, names, err, c.want)
		}
	}
}
