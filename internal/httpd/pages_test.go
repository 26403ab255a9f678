package httpd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
)

// page returns the body of a page that must be there.
func (s *site) page(path string) string {
	s.t.Helper()
	a := s.get(path)
	if a.StatusCode != 200 {
		s.t.Fatalf("%s: status %d: %.300s", path, a.StatusCode, a.body)
	}
	return a.body
}

// wants reports the texts that a page lacks.
func (s *site) wants(path string, texts ...string) {
	s.t.Helper()
	body := s.page(path)
	for _, w := range texts {
		if !strings.Contains(body, w) {
			s.t.Errorf("%s has no %q:\n%s", path, w, body)
		}
	}
}

// The overview says whether all is well, and why not; it draws the use of the disk.
func TestOverview(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.MaxAge = config.Duration(24 * time.Hour) })
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.clock = s.Now
	s.restart()
	s.call("status", api.Empty{}, nil) // counts the blobs
	s.wants("/", "Healthy", `<svg class="chart"`, `<svg class="bar"`, `aria-label="1 snapshots in the last 30 days"`)
	s.SetNow(s.Now().Add(48 * time.Hour))
	s.restart()
	s.call("status", api.Empty{}, nil)
	s.wants("/", "Needs attention", "mirror debian: suite stable is older than 1d")
	if a := s.get("/"); strings.Contains(a.body, s.Dir) || strings.Contains(a.body, "style=") {
		t.Error("the overview shows the data directory, or has a style that its policy forbids")
	}
}

// A mirror's calendar leads to each day and month with snapshots, and lists page by
// page what is then.
func TestCalendar(t *testing.T) {
	s := newSite(t, nil)
	var ids []string
	for i, at := range []string{"2026-10-31T23:00:00Z", "2026-11-01T00:00:00Z", "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"} {
		s.Archive.Add(pkg("a", string(rune('1'+i))))
		now, _ := time.Parse(time.RFC3339, at)
		s.SetNow(now)
		s.Archive.Publish(s.Now())
		ids = append(ids, s.sync())
	}
	for path, want := range map[string][]int{
		"/mirror/debian": {0, 1, 2, 3}, "/mirror/debian?month=2026-11": {1, 2, 3}, "/mirror/debian?month=2026-10": {0}, "/mirror/debian?day=2026-11-22": {2, 3},
		"/mirror/debian?day=2026-11-22&before=" + ids[3]: {2}, "/mirror/debian?day=2026-11-23": {}, "/mirror/debian?month=2027-01": {},
	} {
		body, listed := s.page(path), map[int]bool{}
		for _, i := range want {
			listed[i] = true
		}
		for i, id := range ids {
			// The overview of suites names none.
			if got := strings.Contains(body, `href="/snapshot/debian@`+id+`"`); got != listed[i] {
				t.Errorf("%s lists %s: %v, expected %v", path, id, got, listed[i])
			}
		}
	}
	s.wants("/mirror/debian", "November 2026", `<td class="h2"><a href="?day=2026-11-22"`, `<td class="h1"><a href="?day=2026-11-01"`, `<a href="?month=2026-10">1</a>`, `<a href="?month=2026-11">3</a>`)
	for _, q := range []string{"day=2026-11-32", "month=2026-13", "before=x"} {
		if a := s.get("/mirror/debian?" + q); a.StatusCode != 400 && a.StatusCode != 404 {
			t.Errorf("%s: status %d", q, a.StatusCode)
		}
	}
}

// All freezes are listed in pages, the newest first.
func TestFreezesPage(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.0", All: true}, nil)
	s.call("freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}, NoSources: true}, nil)
	s.wants("/freezes", `href="/freeze/4.0"`, `href="/freeze/4.1"`)
	if body := s.page("/freezes?from=1"); strings.Contains(body, `href="/freeze/4.1"`) == strings.Contains(body, `href="/freeze/4.0"`) {
		t.Errorf("from the second on there is not exactly one of two freezes:\n%s", body)
	}
	for _, from := range []string{"2", "9223372036854775807"} {
		for range 5 { // more than are made at once
			if a := s.get("/freezes?from=" + from); a.StatusCode != 200 || strings.Contains(a.body, `href="/freeze/4`) {
				t.Errorf("from=%s: status %d\n%s", from, a.StatusCode, a.body)
			}
		}
	}
	if a := s.get("/freezes?from=x"); a.StatusCode != 400 {
		t.Errorf("from=x: status %d", a.StatusCode)
	}
}

// Each page answers in JSON where a client prefers that, and in HTML to all others.
func TestPagesJSON(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"), pkg("b", "1"))
	s.publish()
	at := s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.0", Packages: []string{"a"}, NoSources: true}, nil)
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: "4.0"}, nil)
	read := func(path string, into any) {
		t.Helper()
		a := s.get(path, "Accept: application/json")
		dec := json.NewDecoder(strings.NewReader(a.body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil || a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Vary") != "Accept" {
			t.Fatalf("%s: status %d, %v: %v\n%s", path, a.StatusCode, a.Header, err, a.body)
		}
		if html := s.get(path); !strings.HasPrefix(html.Header.Get("Content-Type"), "text/html") || html.Header.Get("Vary") != "Accept" {
			t.Errorf("%s without Accept: %v", path, html.Header)
		}
		if strings.Contains(a.body, s.Dir) || strings.Contains(a.body, "keyring") && !strings.Contains(a.body, `"keyring":null`) || strings.Contains(a.body, `"by":`) {
			t.Errorf("%s shows what is not for everybody:\n%s", path, a.body)
		}
	}
	var o api.Overview
	read("/", &o)
	var list api.FreezesPage
	read("/freezes", &list)
	var m api.MirrorPage
	read("/mirror/debian", &m)
	var snap api.SnapshotPage
	read("/snapshot/debian@latest", &snap)
	var fr api.FreezePage
	read("/freeze/4.0", &fr)
	var ch api.ChannelPage
	read("/channel/stable", &ch)
	var d api.Diff
	read("/diff?a=debian@latest&b=4.0", &d)
	id := "debian@" + at
	if len(o.Mirrors) != 1 || o.Mirrors[0].Latest != id || len(list.Freezes) != 1 || len(m.Snapshots) != 1 || m.Snapshots[0].ID != id || len(snap.Packages) != 2 ||
		len(fr.Packages) != 1 || ch.Channel.Freeze != "4.0" || len(ch.Moves) != 1 || len(d.Removed) != 1 {
		t.Errorf("%+v\n%+v\n%+v\n%+v\n%+v\n%+v\n%+v", o, list, m, snap, fr, ch, d)
	}
	for accept, want := range map[string]string{
		"application/json;q=0.5, text/html": "text/html", "text/html;q=0.5, application/json": "application/json", "*/*": "text/html", "application/json;q=0": "text/html",
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html", "application/json;q=x": "text/html",
	} {
		if got := s.get("/", "Accept: "+accept).Header.Get("Content-Type"); !strings.HasPrefix(got, want) {
			t.Errorf("Accept: %s gets %s", accept, got)
		}
	}
	for path, status := range map[string]int{"/freeze/none": 404, "/mirror/none": 404, "/freezes?from=x": 400, "/diff": 400} {
		a := s.get(path, "Accept: application/json")
		var p api.ProblemDetails
		if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.StatusCode != status || p.Status != status || p.Detail == "" || a.Header.Get("Content-Type") != api.ProblemType {
			t.Errorf("%s: status %d, %v: %s", path, a.StatusCode, err, a.body)
		}
	}
}

// A package's page, and that of its source package, show each version over time, with
// the freezes and channels that hold it.
func TestPackagePages(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(debtest.Package{Name: "lib", Version: "1", Source: "src"}, debtest.Package{Name: "tool", Version: "1", Source: "src"})
	s.publish()
	first := s.MustSync().Snapshot
	s.call("freeze", api.FreezeRequest{Name: "old", Packages: []string{"lib"}, NoSources: true}, nil)
	s.call("freeze", api.FreezeRequest{Name: "whole", All: true}, nil)
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: "old"}, nil)
	s.Archive.Default().Remove("lib", "1")
	s.Archive.Add(debtest.Package{Name: "lib", Version: "1~rc10", Source: "src"}, debtest.Package{Name: "lib", Version: "2", Source: "src"})
	s.publish()
	second := s.MustSync().Snapshot
	show := func(h *api.PackageHistory) (out []string) {
		for _, v := range h.Versions {
			line := v.Version + " in " + strings.Join(v.Freezes, "+") + " by " + strings.Join(v.Channels, "+")
			if h.Source {
				line += " of " + strings.Join(v.Binaries, "+")
			}
			for _, seen := range v.Seen {
				line += fmt.Sprintf(" at %v-%v", seen.First.Equal(first.Timestamp), seen.Last.Equal(second.Timestamp))
			}
			out = append(out, line)
		}
		return out
	}
	var p api.PackagePage
	if err := json.Unmarshal([]byte(s.get("/package/lib", "Accept: application/json").body), &p); err != nil {
		t.Fatal(err)
	}
	if got, want := show(p.History), []string{"2 in  by  at false-true", "1 in old+whole by stable at true-false", "1~rc10 in  by  at false-true"}; !slices.Equal(got, want) {
		t.Errorf("versions of lib: %q, expected %q", got, want)
	}
	var h api.PackageHistory
	if err := json.Unmarshal([]byte(s.get("/source/src", "Accept: application/json").body), &h); err != nil {
		t.Fatal(err)
	}
	if got, want := show(&h), []string{"2 in  by  of lib at false-true", "1 in old+whole by stable of lib+tool at true-true", "1~rc10 in  by  of lib at false-true"}; !slices.Equal(got, want) {
		t.Errorf("versions of the source package: %q, expected %q", got, want)
	}
	s.wants("/package/lib", `href="/source/src"`, `<svg class="line"`, `href="/channel/stable"`, `href="/freeze/whole"`)
	s.wants("/source/src", `href="/package/lib"`, `<svg class="line"`, `href="/freeze/old"`)
	s.wants("/package/lib=2", "lib_2_")
	seen := s.crawl("/")
	for _, path := range []string{"/package/lib", "/source/src"} {
		if !seen[path] {
			t.Errorf("no page links %s", path)
		}
	}
	for path, status := range map[string]int{"/source/none": 404, "/package/none": 404, "/package/lib?files=x": 400, "/source/src?from=-1": 400} {
		if a := s.get(path); a.StatusCode != status {
			t.Errorf("%s: status %d, expected %d", path, a.StatusCode, status)
		}
	}
}

// The page of a freeze leads to what differs in an image that was built again.
func TestComparisonPage(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}, NoSources: true}, nil)
	file := filepath.Join(t.TempDir(), "4.1.squashfs")
	if err := os.WriteFile(file, []byte("hsqs"), 0o644); err != nil {
		t.Fatal(err)
	}
	var im api.Image
	if err := s.send("image/add", api.ImageAdd{Name: "4.1"}, &im, file); err != nil {
		t.Fatal(err)
	}
	r := &api.CompareResult{
		A: api.CompareSide{SHA256: im.SHA256}, B: api.CompareSide{SHA256: cas.Sum([]byte("another")).String()}, Verdict: "contents",
		Differences: []api.CompareDifference{{Path: "/etc/<hostname>", Causes: []api.CompareCause{{Code: "host-name", A: "one", B: "two"}}}},
		Codes:       []api.CompareCount{{Code: "host-name", Paths: 1}}, Packages: []api.ComparePackage{{Package: "base-files", A: "12", B: "12", Paths: 1, Codes: []string{"host-name"}}},
	}
	encode := func() []byte {
		data, err := freeze.EncodeComparison(r)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	data := encode()
	var kept api.AttestedComparison
	s.call("attest/comparison", api.AttestComparison{Name: "4.1", Comparison: data}, &kept)
	page := "/freeze/4.1/comparison/" + cas.Sum(data).String()
	s.wants(page, "Contents differ", im.SHA256, r.B.SHA256, "/etc/&lt;hostname&gt;", "host-name", "base-files", "it is not signed")
	if !s.crawl("/freeze/4.1")[page] {
		t.Errorf("no page links %s", page)
	}
	for _, path := range []string{page, "/frozen/4.1/" + kept.File} {
		var got api.CompareResult
		if err := json.Unmarshal([]byte(s.get(path, "Accept: application/json").body), &got); err != nil || got.Verdict != "contents" || len(got.Differences) != 1 {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	for _, path := range []string{"/freeze/4.1/comparison/" + im.SHA256, "/freeze/4.1/comparison/x", "/freeze/4.2/comparison/" + cas.Sum(data).String()} {
		if a := s.get(path); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, a.Status)
		}
	}
	r.A.SHA256 = r.B.SHA256
	if e := s.fails("attest/comparison", api.AttestComparison{Name: "4.1", Comparison: encode()}); e.Code != api.CodeNotFound {
		t.Errorf("of an image that is not published: %v", e)
	}
	s.call("attest/rm", api.AttestRemove{Name: "4.1", SHA256: cas.Sum(data).String()}, nil)
	if a := s.get(page); a.StatusCode != http.StatusNotFound {
		t.Errorf("removed: %s", a.Status)
	}
}

// The proof of a freeze names what signed it, and what upstream signed, and says so
// where it does not hold; the freeze leads to the one before it.
func TestProofPage(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.clock = s.Now
	s.restart()
	s.call("freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}, NoSources: true}, nil)
	s.Archive.Add(pkg("a", "2"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.0", Packages: []string{"a"}, NoSources: true}, nil)
	var p api.FreezeProof
	if err := json.Unmarshal([]byte(s.get("/freeze/4.0/proof", "Accept: application/json").body), &p); err != nil {
		t.Fatal(err)
	}
	if p.Before != "4.1" || p.Signature == nil || sign.Fingerprint(p.Signature.Fingerprint) != s.signer.Fingerprint() || len(p.Faults) != 0 || len(p.Suites) != 1 || len(p.Suites[0].Keys) == 0 || p.Suites[0].Keys[0].UserID == "" {
		t.Errorf("proof: %+v", p)
	}
	s.wants("/freeze/4.0/proof", string(s.signer.Fingerprint()), p.Suites[0].Keys[0].Fingerprint, p.Suites[0].Documents[0].SHA256, p.Manifest)
	seen := s.crawl("/freeze/4.0")
	for _, path := range []string{"/freeze/4.0/proof", "/diff?a=4.1&b=4.0", "/by-hash/SHA256/" + p.Suites[0].Documents[0].SHA256} {
		if !seen[path] {
			t.Errorf("no page links %s", path)
		}
	}
	if body := s.page("/freeze/4.1"); strings.Contains(body, "differences from") {
		t.Error("the first freeze has one before it")
	}
	fr, err := s.Store().Freeze(t.Context(), "4.0")
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Store().Freeze(t.Context(), "4.1")
	if err != nil {
		t.Fatal(err)
	}
	fr.Signature = other.Signature
	if bad, err := s.freezer.Summary(t.Context(), fr); err != nil || bad.Signature != nil || len(bad.Faults) == 0 {
		t.Errorf("with the signature of another freeze: %+v, %v", bad, err)
	}
}

// Differences are listed in pages, kind by kind.
func TestDiffPages(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	first := s.sync()
	for i := range 205 {
		s.Archive.Add(debtest.Package{Name: fmt.Sprintf("p%03d", i), Body: []byte{byte(i)}})
	}
	s.publish()
	second := s.sync()
	path := "/diff?a=debian%40" + first + "&b=debian%40" + second
	s.wants(path, "205 added", ">p199<", "&amp;kind=Added")
	if body := s.page(path); strings.Contains(body, "<td><a href=\"/package/p200\"") {
		t.Error("the first page has more than 200 packages")
	}
	s.wants(path+"&kind=Added&from=200", ">p200<", ">p204<")
}

// follow returns what all pages of a list have: list reads one, and returns the next.
func (s *site) follow(path string, list func(body []byte) (names []string, next string)) (names []string, pages int) {
	s.t.Helper()
	for from := ""; ; pages++ {
		to := path
		if from != "" {
			to += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "from=" + url.QueryEscape(from)
		}
		some, next := list(s.json(to))
		if len(some) > 204 {
			s.t.Errorf("%s: a page of %d", to, len(some))
		}
		if names = append(names, some...); next == "" {
			return names, pages + 1
		}
		from = next
	}
}

// json returns a page as JSON.
func (s *site) json(path string) []byte {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.conf.Server.PublicURL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: status %d, %v\n%s", path, resp.StatusCode, err, body)
	}
	return body
}

// The pages of a list have together what the list has: of snapshots, of whole and exact
// freezes, and of searches.
func TestPagesOfPackages(t *testing.T) {
	s := newSite(t, nil)
	var names []string
	for i := range 230 {
		for _, arch := range []string{"amd64", "all"} {
			s.Archive.Add(debtest.Package{Name: fmt.Sprintf("p%03d", i), Arch: arch, Version: fmt.Sprint(1 + i%2)})
		}
		names = append(names, fmt.Sprintf("p%03d:amd64", i), fmt.Sprintf("p%03d:all", i))
		s.Archive.AddSource(debtest.Source{Name: fmt.Sprintf("p%03d", i), Version: fmt.Sprint(1 + i%2)})
	}
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "whole", All: true}, nil)
	s.call("freeze", api.FreezeRequest{Name: "exact", Manifests: []api.ManifestFile{{Name: "list", Data: []byte(strings.Join(names, "\n") + "\n")}}}, nil)
	key := func(p *api.Package) string { return p.Name + " " + p.Version + " " + p.Arch }
	for _, ref := range []string{"debian@latest", "whole", "exact"} {
		for _, q := range []string{"", "p1*", "arch:all & $Version (2)", "$Description", "$Description & p22*", "$Nothing", "arch:none"} {
			var all api.PackageList
			s.call("packages", api.PackagesRequest{Ref: ref, Query: q}, &all)
			var want []string
			for i := range all.Packages {
				want = append(want, key(&all.Packages[i]))
			}
			path := "/freeze/" + ref + "?q=" + url.QueryEscape(q)
			if ref == "debian@latest" {
				path = "/snapshot/" + ref + "?q=" + url.QueryEscape(q)
			}
			got, pages := s.follow(path, func(body []byte) (names []string, next string) {
				var p api.FreezePage
				if err := json.Unmarshal(body, &p); err != nil {
					t.Fatal(err)
				}
				for i := range p.Packages {
					names = append(names, key(&p.Packages[i]))
				}
				return names, p.Next
			})
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || pages > 1+len(want)/200 {
				t.Errorf("%s %q: %d packages on %d pages, expected %d", ref, q, len(got), pages, len(want))
			}
			if ref != "debian@latest" || q == "" {
				continue
			}
			found, _ := s.follow("/search?q="+url.QueryEscape(q), func(body []byte) (names []string, next string) {
				var res api.FindResult
				if err := json.Unmarshal(body, &res); err != nil {
					t.Fatal(err)
				}
				for i := range res.Matches {
					names = append(names, key(&res.Matches[i].Package))
				}
				return names, res.Next
			})
			if slices.Sort(found); !slices.Equal(found, want) {
				t.Errorf("search for %q: %d packages, expected %d", q, len(found), len(want))
			}
		}
	}
	for _, path := range []string{"/freeze/exact?from=200", "/freeze/exact?from=debian%2F%23x", "/search?q=p*&from=5", "/diff?a=whole&b=exact&kind=x", "/diff?a=whole&b=exact&from=x"} {
		if a := s.get(path); a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d, expected 400", path, a.StatusCode)
		}
	}
}

// Pages tell browsers where to get suggestions, and the page of an unknown package suggests
// similar names.
func TestSuggestions(t *testing.T) {
	s := newSite(t, nil)
	for _, name := range []string{"bash", "bash-doc", "nginx"} {
		s.Archive.Add(pkg(name, "1"))
	}
	s.publish()
	s.sync()
	base := s.conf.Server.PublicURL
	s.wants("/", `<link rel="search" type="application/opensearchdescription+xml" title="snapd" href="/opensearch.xml">`)
	s.wants("/opensearch.xml", `<OpenSearchDescription xmlns="http://a9.com/-/spec/opensearch/1.1/">`, `<Url type="text/html" template="`+base+`/search?q={searchTerms}">`,
		`<Url type="application/x-suggestions+json" template="`+base+`/suggest?q={searchTerms}">`)
	for q, want := range map[string]string{"bas": `["bas",["bash","bash-doc"]]`, "bsah": `["bsah",["bash"]]`, "none": `["none",[]]`, "": `["",[]]`} {
		a := s.get("/suggest?q=" + q)
		if a.StatusCode != http.StatusOK || a.body != want+"\n" || a.Header.Get("Content-Type") != "application/x-suggestions+json; charset=utf-8" {
			t.Errorf("suggestions for %q: status %d, %q, %s", q, a.StatusCode, a.Header, a.body)
		}
	}
	for path, want := range map[string]string{
		"/package/ngnix": `Did you mean:</p><p class="links"><a href="/package/nginx">nginx</a></p>`, "/source/bahs": `Did you mean:</p><p class="links"><a href="/package/bash">bash</a></p>`, "/package/bash=2": `Did you mean:</p><p class="links"><a href="/package/bash">bash</a>`,
	} {
		if a := s.get(path); a.StatusCode != http.StatusNotFound || !strings.Contains(a.body, want) {
			t.Errorf("%s: status %d, expected 404 with %s:\n%s", path, a.StatusCode, want, a.body)
		}
	}
	if a := s.get("/package/zzzz"); a.StatusCode != http.StatusNotFound || strings.Contains(a.body, "Did you mean") {
		t.Errorf("a name like none: status %d\n%s", a.StatusCode, a.body)
	}
}

var (
	tableRE = regexp.MustCompile(`(?s)<table( class="[a-z]+")?>(.*?)</table>`)
	rowRE   = regexp.MustCompile(`(?s)<tr>(.*?)</tr>`)
	cellRE  = regexp.MustCompile(`(?s)<t[hd]([^>]*)>`)
)

// What the style for phones relies on: tables show at most three columns there, all
// rows the same ones, and no cell breaks lines by itself. Nothing has a style of its
// own, which the policy of the pages forbids.
func TestPagesFitPhones(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.Archive.AddSource(debtest.Source{Name: "a", Version: "1"})
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.0", Packages: []string{"a"}}, nil)
	s.Archive.Add(pkg("a", "2"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1", All: true}, nil)
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: "4.1"}, nil)
	s.call("record/start", api.RecordStart{Name: "rec"}, nil)
	tables := 0
	for _, path := range []string{"/", "/freezes", "/mirror/debian", "/snapshot/debian@latest", "/freeze/4.0", "/freeze/4.1", "/freeze/4.0/proof", "/channel/stable", "/package/a", "/source/a", "/diff?a=4.0&b=4.1"} {
		body := s.page(path)
		if strings.Contains(body, "style=") || strings.Contains(body, "<script") {
			t.Errorf("%s has a style or a script of its own", path)
		}
		for _, table := range tableRE.FindAllStringSubmatch(body, -1) {
			tables++
			var shown []int
			for _, row := range rowRE.FindAllStringSubmatch(table[2], -1) {
				n := 0
				for _, c := range cellRE.FindAllStringSubmatch(row[1], -1) {
					if !regexp.MustCompile(`class="([a-z]+ )?w"`).MatchString(c[1]) {
						n++
					}
				}
				if !strings.Contains(row[1], "colspan") {
					shown = append(shown, n)
				}
			}
			most := 3
			switch table[1] {
			case ` class="month"`:
				most = 7
			case ` class="years"`:
				most = 13
			}
			if len(shown) > 0 && (slices.Max(shown) > most || slices.Min(shown) != slices.Max(shown)) || strings.Contains(table[2], "<br") {
				t.Errorf("%s: a table shows %v columns on a phone, or breaks lines:\n%s", path, shown, table[0])
			}
		}
	}
	if tables < 20 {
		t.Errorf("%d tables were checked", tables)
	}
}
