package catalog_test

import (
	"slices"
	"testing"

	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
)

func TestUpstreams(t *testing.T) {
	mirror := func(name, url string) config.Mirror {
		return config.Mirror{Name: config.MirrorName(name), Type: "deb", URL: remote.NewURL(url)}
	}
	c, err := catalog.New(catalog.Config{Formats: repo.ByType[catalog.Format](deb.Format{}), Mirrors: []config.Mirror{
		mirror("debian", "http://mirror.example.org/debian"), mirror("security", "https://mirror.example.org/debian/security/"), mirror("other", "http://mirror.example.org:8080/debian"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host, path string
		want       []catalog.Upstream
	}{
		{"mirror.example.org", "/debian/dists/x", []catalog.Upstream{{Mirror: "debian", Path: "dists/x"}}},
		{"MIRROR.example.org:80", "/debian/dists/x", []catalog.Upstream{{Mirror: "debian", Path: "dists/x"}}},
		{"mirror.example.org", "/debian/security/dists/x", []catalog.Upstream{{Mirror: "security", Path: "dists/x"}, {Mirror: "debian", Path: "security/dists/x"}}},
		{"mirror.example.org:8080", "/debian/x", []catalog.Upstream{{Mirror: "other", Path: "x"}}},
		{"mirror.example.org:443", "/debian/security/x", nil},
		{"mirror.example.org", "/debianx/dists", nil},
		{"mirror.example.org", "/debian/", nil},
		{"example.org", "/debian/dists/x", nil},
	} {
		if got := c.Upstreams(tt.host, tt.path); !slices.Equal(got, tt.want) {
			t.Errorf("http://%s%s: %v, expected %v", tt.host, tt.path, got, tt.want)
		}
	}
}
