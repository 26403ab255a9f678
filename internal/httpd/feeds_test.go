package httpd_test

import (
	"encoding/xml"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
)

// Feeds list what is new, the newest first, and link its pages; a reader that has the
// newest state gets no body.
func TestFeeds(t *testing.T) {
	s := newSite(t, nil)
	type atom struct {
		XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
		ID      string   `xml:"id"`
		Updated string   `xml:"updated"`
		Author  string   `xml:"author>name"`
		Entry   []struct {
			ID      string `xml:"id"`
			Title   string `xml:"title"`
			Updated string `xml:"updated"`
			Link    struct {
				Href string `xml:"href,attr"`
			} `xml:"link"`
		} `xml:"entry"`
	}
	read := func(path string) (titles []string) {
		t.Helper()
		a := s.get(path)
		var f atom
		if err := xml.Unmarshal([]byte(a.body), &f); err != nil || a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/atom+xml; charset=utf-8" {
			t.Fatalf("%s: status %d, %s: %v\n%s", path, a.StatusCode, a.Header.Get("Content-Type"), err, a.body)
		}
		ids := map[string]bool{f.ID: true}
		last := f.Updated
		for _, e := range f.Entry {
			if ids[e.ID] || e.ID == "" {
				t.Errorf("%s: the id %q is there twice, or empty", path, e.ID)
			}
			ids[e.ID] = true
			if _, err := time.Parse(time.RFC3339, e.Updated); err != nil || e.Updated > last {
				t.Errorf("%s: %s is updated at %s, after the entry before it (%s): %v", path, e.Title, e.Updated, last, err)
			}
			last = e.Updated
			if page, _ := strings.CutPrefix(e.Link.Href, s.conf.Server.PublicURL); s.get(page).StatusCode != 200 {
				t.Errorf("%s: %s is not there", path, e.Link.Href)
			}
			titles = append(titles, e.Title)
		}
		if again := s.get(path, "If-None-Match: "+a.Header.Get("Etag")); again.StatusCode != 304 {
			t.Errorf("%s with the ETag that it has: status %d", path, again.StatusCode)
		}
		if f.Author == "" || f.Updated == "" {
			t.Errorf("%s has no author or time:\n%s", path, a.body)
		}
		return titles
	}
	all := []string{"/feed/snapshots.atom", "/feed/freezes.atom", "/feed/channels.atom"}
	for _, path := range all {
		if got := read(path); len(got) > 0 {
			t.Errorf("%s has %q before anything happened", path, got)
		}
	}
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	first := s.sync()
	s.Archive.Add(pkg("a", "2"))
	s.publish()
	second := s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.0", Packages: []string{"a"}, NoSources: true}, nil)
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: "4.0"}, nil)
	for path, want := range map[string][]string{
		all[0]: {"debian@" + second, "debian@" + first}, all[0] + "?mirror=debian": {"debian@" + second, "debian@" + first}, all[1]: {"4.0"}, all[2]: {"stable shows 4.0"},
	} {
		if got := read(path); !slices.Equal(got, want) {
			t.Errorf("%s has %q, expected %q", path, got, want)
		}
	}
	if a := s.get(all[0] + "?mirror=fedora"); a.StatusCode != 404 {
		t.Errorf("the feed of a mirror that is not known: status %d", a.StatusCode)
	}
	seen := s.crawl("/")
	for _, path := range append(all, all[0]+"?mirror=debian") {
		if !seen[path] {
			t.Errorf("no page links %s", path)
		}
	}
}
