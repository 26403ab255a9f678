package httpd_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Queries choose the same packages of a snapshot, of a freeze of the whole mirror and of an
// exact one, `freeze --query` takes them, and so do find and the pages. Long because all
// are asked about one history.
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
	find := func(q string) (found []string) {
		t.Helper()
		var res api.FindResult
		s.call("find", api.FindRequest{Query: q}, &res)
		for _, m := range res.Matches {
			found = append(found, m.Name+"="+m.Version)
		}
		return found
	}
	s.Archive.Default().Remove("bash", "")
	s.Archive.Add(of("zsh", "6", "shells", "libc"))
	s.publish()
	s.sync()
	for q, want := range map[string][]string{
		"bash": {"bash=5"}, "bash=5": {"bash=5"}, "bash=6": nil, "*sh": {"bash=5", "zsh=6"}, "$Section (shells) & !zsh": {"bash=5"},
		"source:nginx | zsh": {"nginx=1.2", "zsh=6"}, "component:main & *a*": {"apache=2:1.0~rc1", "bash=5"}, "suite:other": nil, "mirror:other | $Version (>= 2:0)": {"apache=2:1.0~rc1"},
	} {
		if d := cmp.Diff(want, find(q)); d != "" {
			t.Errorf("find %s: -want +got\n%s", q, d)
		}
	}
	for name, req := range map[string]api.FindRequest{"nothing": {}, "both": {Query: "a", Name: "a"}, "a version of a query": {Query: "a", Version: "1"}, "a query that cannot be read": {Query: "a |"}} {
		if e := s.fails("find", req); e.Code != api.CodeUsage {
			t.Errorf("find %s: %+v", name, e)
		}
	}
	for path, want := range map[string][]string{
		"/freeze/whole?q=*a*":                                 {"apache", "bash"},
		"/freeze/exact?q=%24Section+(web)":                    {"apache", "nginx"},
		"/freeze/exact?q=%24Section+(web)&from=debian%2F%231": {"nginx"},
		"/snapshot/debian@latest?q=%24Depends":                {"apache", "nginx", "zsh"},
		"/snapshot/debian@latest?q=*n*&from=b":                {"nginx"},
		"/search?q=source:nginx+%7C+bash":                     {"bash", "nginx"},
	} {
		var page struct {
			Packages []api.Package `json:"packages"`
			Matches  []api.Package `json:"matches"`
		}
		got := s.get(path, "Accept: application/json")
		if err := json.Unmarshal([]byte(got.body), &page); err != nil {
			t.Errorf("%s: %v in %s", path, err, got.body)
		}
		var names []string
		for _, p := range append(page.Packages, page.Matches...) {
			names = append(names, p.Name)
		}
		if d := cmp.Diff(want, names); d != "" {
			t.Errorf("%s: -want +got\n%s", path, d)
		}
		for _, name := range want {
			if page := s.get(path).body; !strings.Contains(page, ">"+name+"<") {
				t.Errorf("%s: no %s in the page", path, name)
			}
		}
	}
	for _, path := range []string{"/freeze/whole?q=a+b", "/snapshot/debian@latest?q=%7C", "/search?q=a+b"} {
		if got := s.get(path); got.StatusCode != 400 || !strings.Contains(got.body, "the query cannot be read") {
			t.Errorf("%s: %s %s", path, got.Status, got.body)
		}
	}
	if got := s.get("/search?q=bash%3D5"); got.StatusCode != 302 || got.Header.Get("Location") != "/package/bash=5" {
		t.Errorf("search for a version: %s %s", got.Status, got.Header.Get("Location"))
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
