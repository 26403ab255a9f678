package client_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze/freezertest"
)

// The stanza of a package is found in snapshots, in freezes of whole mirrors and of
// packages, and in freezes that were imported from a server with other mirrors.
func TestNamed(t *testing.T) {
	b := freezertest.NewBoth(t, "stable")
	freeze := func(req api.FreezeRequest) {
		t.Helper()
		if _, err := b.Freeze(t.Context(), &req, nil); err != nil {
			t.Fatal(err)
		}
	}
	freeze(api.FreezeRequest{Name: "whole", All: true})
	freeze(api.FreezeRequest{Name: "exact", NoSources: true, Manifests: freezertest.List("login", "bind-libs", "tzdata=2024a-0+deb12u1")})
	into := freezertest.NewBoth(t, "stable") // another one, whose stanzas are equal but for the rpms'
	for _, name := range []string{"whole", "exact"} {
		dir := filepath.Join(t.TempDir(), name)
		if _, err := b.Export(t.Context(), name, dir, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := into.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
			t.Fatal(err)
		}
	}
	field := func(fields []api.PackageField, name string) string {
		for _, f := range fields {
			if f.Name == name {
				return f.Value
			}
		}
		return "none"
	}
	for _, c := range []struct {
		of   *freezertest.Both
		ref  string
		name string
		want []string
	}{
		{b, "debian@latest", "login", []string{"debian 1:4.13+dfsg1-1+b1 amd64 stable/main Version=1:4.13+dfsg1-1+b1"}},
		{b, "whole", "login", []string{"debian 1:4.13+dfsg1-1+b1 amd64 stable/main Version=1:4.13+dfsg1-1+b1"}},
		{b, "exact", "login", []string{"debian 1:4.13+dfsg1-1+b1 amd64 stable/main Version=1:4.13+dfsg1-1+b1"}},
		{into, "whole", "login", []string{"debian 1:4.13+dfsg1-1+b1 amd64 stable/main Version=1:4.13+dfsg1-1+b1"}},
		{into, "exact", "login", []string{"debian 1:4.13+dfsg1-1+b1 amd64 stable/main Version=1:4.13+dfsg1-1+b1"}},
		{b, "whole", "tzdata", []string{"debian 2024a-0+deb12u1 all stable/main Version=2024a-0+deb12u1", "fedora 2024a-1.fc40 noarch ./ version=epoch=0 ver=2024a rel=1.fc40"}},
		{b, "exact", "tzdata", []string{"debian 2024a-0+deb12u1 all stable/main Version=2024a-0+deb12u1"}},
		{b, "exact", "bind-libs", []string{"fedora 32:9.18.26-1.fc40 x86_64 ./ version=epoch=32 ver=9.18.26 rel=1.fc40"}},
		{into, "exact", "bind-libs", []string{"fedora 32:9.18.26-1.fc40 x86_64 ./ version=epoch=32 ver=9.18.26 rel=1.fc40"}},
		{into, "exact", "bash", nil},
		{b, "fedora@latest", "logi", nil},
	} {
		ref, err := c.of.Parts.Catalog.ResolveRef(t.Context(), c.ref)
		if err != nil {
			t.Fatal(err)
		}
		found, err := c.of.Named(t.Context(), ref, c.name)
		if err != nil {
			t.Errorf("%s of %s: %v", c.name, c.ref, err)
		}
		var got []string
		for _, n := range found {
			version := "Version"
			if n.Type == "rpm" {
				version = "version"
			}
			text := n.Mirror + " " + n.Version + " " + n.Arch
			for _, p := range n.Places {
				text += " " + p.Suite + "/" + p.Component
			}
			got = append(got, text+" "+version+"="+field(n.Fields, version))
			if len(n.Files) != 1 || n.Files[0].SHA256 != n.SHA256 || n.Files[0].Path != n.Path {
				t.Errorf("%s of %s: files %+v, expected %s with %s", c.name, c.ref, n.Files, n.Path, n.SHA256)
			}
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s of %s: -want +got\n%s", c.name, c.ref, d)
		}
	}
}
