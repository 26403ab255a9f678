package httpd_test

import (
	"html"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

var hrefRE = regexp.MustCompile(`(?:href|action|src)="([^"]*)"`)

// crawl follows every link on this server from a path on, and reports those
// that lead nowhere. It returns the paths that it has seen.
func (s *site) crawl(from string) map[string]bool {
	s.t.Helper()
	type visit struct{ path, on string }
	seen := map[string]bool{from: true}
	for todo := []visit{{from, ""}}; len(todo) > 0 && len(seen) < 2000; todo = todo[1:] {
		v := todo[0]
		got := s.get(v.path)
		if got.StatusCode >= 400 && v.path != "/diff" && v.path != "/search" { // forms
			s.t.Errorf("%s links %s: status %d: %.200s", v.on, v.path, got.StatusCode, got.body)
		}
		base, err := url.Parse(v.path)
		if err != nil {
			s.t.Fatal(err)
		}
		links := hrefRE.FindAllStringSubmatch(got.body, -1)
		if to := got.Header.Get("Location"); to != "" {
			links = append(links, []string{"", to})
		}
		if !strings.HasPrefix(got.Header.Get("Content-Type"), "text/html") && got.StatusCode < 300 {
			continue
		}
		for _, m := range links {
			u, err := base.Parse(html.UnescapeString(m[1]))
			if err != nil {
				s.t.Errorf("%s: link %q: %v", v.path, m[1], err)
				continue
			}
			if u.Fragment = ""; u.Host == "" && !seen[u.String()] {
				seen[u.String()] = true
				todo = append(todo, visit{u.String(), v.path})
			}
		}
	}
	return seen
}

// Pages link only what exists: of a mirror without snapshots, of a snapshot that
// was removed, of freezes for one kind of client, of a freeze from elsewhere.
func TestPagesLinkWhatExists(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	s.crawl("/mirror/debian")
	s.Archive.Add(pkg("g++", "1:1.0~rc1-1+b1"), pkg("a", "1"))
	s.Archive.AddSource(debtest.Source{Name: "a", Version: "1"})
	s.publish()
	first := s.sync()
	s.Archive.Default().Remove("a", "1")
	s.Archive.Add(pkg("a", "2"))
	s.publish()
	s.SetNow(s.Now().Add(time.Hour))
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1~rc1+x", Packages: []string{"a"}, NoSources: true}, nil)
	s.call("freeze", api.FreezeRequest{Name: "whole", All: true}, nil)
	s.call("record/start", api.RecordStart{Name: "rec"}, nil)
	s.call("rm", api.RefRequest{Ref: "debian@" + first}, nil)
	seen := s.crawl("/")
	for path, want := range map[string]bool{
		"/frozen/4.1~rc1+x/sources": true, "/frozen/4.1~rc1+x/repo": false, "/frozen/4.1~rc1+x/key.asc": true, "/frozen/whole/debian/dists/stable/InRelease": true,
	} {
		if seen[path] != want {
			t.Errorf("%s is linked: %v, expected %v", path, seen[path], want)
		}
	}
	for path, status := range map[string]int{
		"/frozen/4.1~rc1+x/repo": 404, "/frozen/4.1~rc1+x/key.asc": 200, "/frozen/4.1~rc1+x/_proof/debian/keys.asc": 200, "/frozen/4.1~rc1+x/_proof/fedora/keys.asc": 404,
	} {
		got := s.get(path)
		if got.StatusCode != status {
			t.Errorf("%s: status %d, expected %d", path, got.StatusCode, status)
		}
		if ctype := got.Header.Get("Content-Type"); status == 200 && (ctype != "application/pgp-keys" || !strings.Contains(got.body, "BEGIN PGP PUBLIC KEY BLOCK")) {
			t.Errorf("%s: %s, %.80q", path, ctype, got.body)
		}
	}

	dir := filepath.Join(t.TempDir(), "export")
	if _, err := s.freezer.Export(t.Context(), "4.1~rc1+x", dir, nil); err != nil {
		t.Fatal(err)
	}
	other := newSite(t, func(m *config.Mirror) { m.Name = "elsewhere" })
	if _, err := other.freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
		t.Fatal(err)
	}
	if !other.crawl("/")["/frozen/4.1~rc1+x/key.asc"] {
		t.Error("the page of an imported freeze does not link its key")
	}
	if got, want := other.get("/frozen/4.1~rc1+x/key.asc").body, s.signer.PublicKeyArmored(); got != want {
		t.Errorf("the key of an imported freeze: %.100q", got)
	}
}
