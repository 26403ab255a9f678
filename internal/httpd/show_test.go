package httpd_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// `show REF PACKAGE` says what a package is, where it is and was, and what froze it.
func TestShowPackage(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All; m.Sources = true })
	s.Archive.Add(debtest.Package{Name: "hello", Version: "1", Fields: map[string]string{"Section": "devel"}})
	s.publish()
	first := s.sync()
	s.Archive.Default().Remove("hello", "")
	s.Archive.Add(debtest.Package{Name: "other", Version: "1"})
	s.publish()
	s.sync()
	s.Archive.Add(debtest.Package{Name: "hello", Version: "1", Fields: map[string]string{"Section": "devel"}}, debtest.Package{Name: "hello", Version: "2"})
	s.Archive.AddSource(debtest.Source{Name: "hello", Version: "2"})
	s.publish()
	third := s.sync()
	s.call("freeze", api.FreezeRequest{Name: "whole"}, nil)
	s.call("freeze", api.FreezeRequest{Name: "exact", Packages: []string{"hello=1"}, NoSources: true}, nil)
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: "exact"}, nil)

	for _, ref := range []string{"debian@latest", "debian@" + first, "whole", "exact", "stable"} {
		name := "hello"
		if ref == "debian@latest" || ref == "whole" {
			name = "hello:amd64=1"
		}
		var res api.ShowResult
		s.call("show", api.ShowRequest{Ref: ref, Package: name}, &res)
		if res.Frozen != nil || res.Snapshot != nil || res.Package == nil || len(res.Package.Stanzas) != 1 {
			t.Errorf("%s: %+v, expected one stanza", ref, res)
			continue
		}
		d := res.Package.Stanzas[0]
		fields := map[string]string{}
		for _, f := range d.Fields {
			fields[f.Name] = f.Value
		}
		if fields["Section"] != "devel" || fields["SHA256"] != d.SHA256 || !d.Here || len(d.Files) != 1 || d.Files[0].SHA256 != d.SHA256 || d.Files[0].Path != fields["Filename"] {
			t.Errorf("%s: %+v", ref, d)
		}
		if diff := cmp.Diff([]api.PackagePlace{{Suite: "stable", Component: "main"}}, d.Places); diff != "" {
			t.Errorf("%s: places: -want +got\n%s", ref, diff)
		}
		if diff := cmp.Diff([][]string{{"exact", "whole"}, {"stable"}}, [][]string{d.Frozen, d.Channels}); diff != "" {
			t.Errorf("%s: freezes and channels: -want +got\n%s", ref, diff)
		}
		if len(d.Seen) != 2 || d.Seen[0].First.Format("20060102T150405Z") != third || d.Seen[1].First != d.Seen[1].Last || d.Seen[1].First.Format("20060102T150405Z") != first {
			t.Errorf("%s: seen %+v, expected in %s and %s", ref, d.Seen, third, first)
		}
	}
	var source api.ShowResult
	s.call("show", api.ShowRequest{Ref: "whole", Package: "hello:source=2"}, &source)
	if d := source.Package.Stanzas[0]; d.Arch != "source" || len(d.Files) < 2 {
		t.Errorf("source package: %+v", d)
	}

	for name, c := range map[string]struct{ ref, pkg, code, reason, message string }{
		"several versions":  {"whole", "hello", api.CodeAmbiguous, "versions", "package hello in whole: several versions: 1 (amd64, mirror debian), 2 (amd64, mirror debian)"},
		"another version":   {"whole", "hello=3", api.CodeNotFound, "no_package", "package hello=3 in whole: no such package: it has 1 (amd64, mirror debian), 2 (amd64 source, mirror debian)"},
		"no package":        {"exact", "other", api.CodeNotFound, "no_package", "package other in exact: no such package"},
		"no such freeze":    {"none", "hello", api.CodeNotFound, "", "none"},
		"no name":           {"whole", "=1", api.CodeUsage, "", `package "=1": expected NAME[:ARCH][=VERSION]`},
		"no version":        {"whole", "hello=", api.CodeUsage, "", `package "hello=": expected`},
		"no architecture":   {"whole", "hello:=1", api.CodeUsage, "", `package "hello:=1": expected`},
		"much text":         {"whole", strings.Repeat("a", 2000), api.CodeUsage, "", "expected NAME"},
		"a NUL in the name": {"whole", "hello\x00", api.CodeNotFound, "no_package", "no such package"},
	} {
		if e := s.fails("show", api.ShowRequest{Ref: c.ref, Package: c.pkg}); e.Code != c.code || e.Reason != c.reason || !strings.Contains(e.Message, c.message) {
			t.Errorf("%s: %+v, expected %s %s %q", name, e, c.code, c.reason, c.message)
		}
	}
}
