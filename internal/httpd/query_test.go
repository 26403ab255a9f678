package httpd_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Queries choose the same packages of a snapshot, of a freeze of the whole mirror and of an
// exact one, and `freeze --query` takes them.
func TestQueries(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All })
	of := func(name, version, section, deps string) debtest.Package {
		fields := map[string]string{"Section": section}
		if deps != "" {
			fields["Depends"] = deps
		}
		return debtest.Package{Name: name, Version: version, Fields: fields}
	}
	s.Archive.Add(of("apache", "2:1.0~rc1", "web", "libc"), of("nginx", "1.2", "web", "libc"), of("bash", "5", "shells", ""), of("libc", "2", "libs", ""))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "whole", NoSources: true}, nil)
	s.call("freeze", api.FreezeRequest{Name: "exact", Packages: []string{"apache", "nginx", "bash", "libc"}, NoSources: true}, nil)
	names := func(ref, q string) (names []string) {
		t.Helper()
		var list api.PackageList
		s.call("packages", api.PackagesRequest{Ref: ref, Query: q}, &list)
		for _, p := range list.Packages {
			names = append(names, p.Name)
		}
		return names
	}
	for q, want := range map[string][]string{
		"":                                   {"apache", "bash", "libc", "nginx"},
		"$Section (web)":                     {"apache", "nginx"},
		"!$Section (web)":                    {"bash", "libc"},
		"$Version (>= 2:1.0)":                nil,
		"$Version (>= 2:1~)":                 {"apache"},
		"*a* & arch:amd64":                   {"apache", "bash"},
		"source:bash | suite:stable & lib?":  {"bash", "libc"},
		"$Depends (libc) & component:main":   {"apache", "nginx"},
		"mirror:other":                       nil,
		"$Section (web) & $Version (<< 1:0)": {"nginx"},
	} {
		for _, ref := range []string{"debian@latest", "whole", "exact"} {
			if d := cmp.Diff(want, names(ref, q)); d != "" {
				t.Errorf("%s of %s: -want +got\n%s", q, ref, d)
			}
		}
	}
	s.call("freeze", api.FreezeRequest{Name: "web", Query: "$Section (web) & !apache", NoSources: true}, nil)
	if d := cmp.Diff([]string{"nginx"}, names("web", "")); d != "" {
		t.Errorf("frozen by a query: -want +got\n%s", d)
	}
	if e := s.fails("packages", api.PackagesRequest{Ref: "whole", Query: "a b"}); e.Reason != "query" || !strings.Contains(e.Message, `at character 3: expected &, | or the end, found "b"`) {
		t.Errorf("a query that cannot be read: %+v", e)
	}
	if e := s.fails("freeze", api.FreezeRequest{Name: "none", Query: "$Section (games)"}); e.Code != api.CodeEmpty || !strings.Contains(e.Message, `the query "$Section (games)" asks for no package`) {
		t.Errorf("a query for nothing: %+v", e)
	}
	if e := s.fails("freeze", api.FreezeRequest{Name: "none", Query: "bash", Base: "exact"}); e.Code != api.CodeUsage {
		t.Errorf("a query and a base: %+v", e)
	}
}
