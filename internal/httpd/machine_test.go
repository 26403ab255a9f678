package httpd_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo/deb/debtest"
)

// machineSite is an archive with a source package of two versions, and timestamps of
// its three snapshots.
func machineSite(t *testing.T, download string) (s *site, at [3]string) {
	t.Helper()
	s = newSite(t, func(m *config.Mirror) { m.Sources, m.Archive, m.Download = true, "debian-main", download }, func(c *config.Config) {
		c.Server.ActAs = []string{"snapshot.debian.org", "metasnap.debian.net"}
	})
	tool := func(version string) {
		s.Archive.AddSource(debtest.Source{Name: "tool", Version: version})
		s.Archive.Add(
			debtest.Package{Name: "libtool+1", Version: version, Source: "tool"},
			debtest.Package{Name: "tool-doc", Version: strings.Replace(version, "1:", "7:", 1), Arch: "all", Source: "tool (" + version + ")"},
		)
	}
	tool("1:1.0~rc1+b1-1")
	s.Archive.Add(pkg("a", "1"))
	step := func() string {
		s.publish()
		defer func() { s.SetNow(s.Now().Add(time.Hour)) }()
		return s.sync()
	}
	at[0] = step()
	tool("1:1.0-1")
	s.Archive.Default().Remove("a", "1")
	at[1] = step()
	s.Archive.Default().Remove("libtool+1", "1:1.0~rc1+b1-1")
	s.Archive.Add(pkg("a", "1"))
	at[2] = step()
	return s, at
}

// ids names the files of a site.
func (s *site) sha1(path string) string   { return fmt.Sprintf("%x", sha1.Sum(s.Archive.Get(path))) }
func (s *site) sha256(path string) string { return cas.Sum(s.Archive.Get(path)).String() }

// The machine interface of snapshot.debian.org. Long because of its table of cases.
func TestMachine(t *testing.T) {
	s, at := machineSite(t, config.OnDemand)
	dsc, tar := "pool/main/t/tool/tool_1.0-1.dsc", "pool/main/t/tool/tool_1.0-1.tar.gz"
	lib := "pool/main/t/tool/libtool+1_1.0-1_amd64.deb"
	old := "pool/main/t/tool/libtool+1_1.0~rc1+b1-1_amd64.deb"
	doc := "pool/main/t/tool/tool-doc_1.0-1_all.deb"
	for _, p := range []string{dsc, tar, lib, doc, old} {
		if !s.Archive.Has(p) && p != old {
			t.Fatalf("%s is not in %q", p, s.Archive.Paths())
		}
	}
	// One file is stored: its SHA-1 is known.
	if a := s.get("/archive/debian/" + at[1] + "/" + lib); a.StatusCode != http.StatusOK {
		t.Fatal(a.Status)
	}
	s.Archive.Requests()
	size := func(p string) string { return fmt.Sprint(len(s.Archive.Get(p))) }
	info := func(p, ranges string) string {
		first := strings.SplitN(ranges, `"`, 3)[1]
		name := p[strings.LastIndex(p, "/")+1:]
		return `{"name":"` + name + `","archive_name":"debian-main","path":"/pool/main/t/tool","size":` + size(p) + `,"first_seen":"` + first +
			`","suite_name":"stable","component_name":"main","timestamp_ranges":[` + ranges + `]}`
	}
	later := `["` + at[1] + `","` + at[2] + `"]`
	both := func(a, b string) string { // in the order of hashes
		if a > b {
			a, b = b, a
		}
		return `[{"hash":"` + a + `"},{"hash":"` + b + `"}]`
	}
	for _, c := range []struct{ path, want string }{
		{"/mr/package/", `{"result":[{"package":"a"},{"package":"tool"}]}`},
		{"/mr/package/tool/", `{"package":"tool","result":[{"version":"1:1.0-1"},{"version":"1:1.0~rc1+b1-1"}]}`},
		{"/mr/package/tool", `{"package":"tool","result":[{"version":"1:1.0-1"},{"version":"1:1.0~rc1+b1-1"}]}`},
		{"/mr/package/tool/1:1.0-1/srcfiles", `{"package":"tool","version":"1:1.0-1","result":` + both(s.sha256(dsc), s.sha256(tar)) + `}`},
		{"/mr/package/tool/1%3A1.0-1/srcfiles?fileinfo=1", `{"package":"tool","version":"1:1.0-1","result":` + both(s.sha256(dsc), s.sha256(tar)) +
			`,"fileinfo":{"` + s.sha256(dsc) + `":[` + info(dsc, later) + `],"` + s.sha256(tar) + `":[` + info(tar, later) + `]}}`},
		{"/mr/package/tool/1:1.0-1/binpackages", `{"package":"tool","version":"1:1.0-1","result":[{"name":"libtool+1","version":"1:1.0-1"},{"name":"tool-doc","version":"7:1.0-1"}]}`},
		{"/mr/package/tool/1:1.0-1/binfiles/libtool+1/1:1.0-1?fileinfo=1", `{"binary":"libtool+1","binary_version":"1:1.0-1","package":"tool","version":"1:1.0-1",
			"result":[{"architecture":"amd64","hash":"` + s.sha1(lib) + `"}],"fileinfo":{"` + s.sha1(lib) + `":[` + info(lib, later) + `]}}`},
		{"/mr/package/tool/1:1.0-1/allfiles", `{"package":"tool","version":"1:1.0-1","result":{"source":` + both(s.sha256(dsc), s.sha256(tar)) + `,"binaries":[
			{"name":"libtool+1","version":"1:1.0-1","files":[{"architecture":"amd64","hash":"` + s.sha1(lib) + `"}]},
			{"name":"tool-doc","version":"7:1.0-1","files":[{"architecture":"all","hash":"` + s.sha256(doc) + `"}]}]}}`},
		{"/mr/binary/libtool+1/", `{"binary":"libtool+1","result":[{"name":"libtool+1","binary_version":"1:1.0-1","source":"tool","version":"1:1.0-1"},
			{"name":"libtool+1","binary_version":"1:1.0~rc1+b1-1","source":"tool","version":"1:1.0~rc1+b1-1"}]}`},
		{"/mr/binary/libtool%2B1/1:1.0-1/binfiles", `{"binary":"libtool+1","binary_version":"1:1.0-1","result":[{"architecture":"amd64","hash":"` + s.sha1(lib) + `"}]}`},
		{"/mr/file/" + s.sha1(lib) + "/info", `{"hash":"` + s.sha1(lib) + `","result":[` + info(lib, later) + `]}`},
		{"/mr/file/" + s.sha256(lib) + "/info", `{"hash":"` + s.sha256(lib) + `","result":[` + info(lib, later) + `]}`},
		{"/mr/timestamp/", `{"result":{"debian-main":["` + strings.Join(at[:], `","`) + `"]}}`},
		{"/mr/timestamp/?archive=debian-main&after=" + at[1], `{"result":{"debian-main":["` + at[1] + `","` + at[2] + `"]}}`},
		{"/mr/timestamp/?archive=debian&before=" + at[0], `{"result":{"debian-main":["` + at[0] + `"]}}`},
		{"/mr/timestamp", `{"result":{"debian-main":["` + strings.Join(at[:], `","`) + `"]}}`}, // mkosi takes the last one
		{"/mr/timestamp/debian-main", `{"result":["` + strings.Join(at[:], `","`) + `"]}`},
		{"/mr/timestamp/debian-main/latest", `{"result":"` + at[2] + `"}`},
		{"/mr/timestamp/debian-main/20990101T000000Z", `{"result":"` + at[2] + `"}`},
	} {
		a := s.raw("GET " + c.path)
		var got, want map[string]any
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatalf("%s: %v: %s", c.path, err, c.want)
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v: %s", c.path, a.Status, err, a.body)
			continue
		}
		if comment, _ := got["_comment"].(string); comment == "" || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Etag") == "" {
			t.Errorf("%s: comment %q, %v", c.path, comment, a.Header)
		}
		delete(got, "_comment")
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		if !bytes.Equal(g, w) {
			t.Errorf("%s:\n%s\nexpected:\n%s", c.path, g, w)
		}
	}
	if a := s.get("/by-timestamp/debian-main.txt"); a.body != strings.Join(at[:], "\n")+"\n" {
		t.Errorf("by-timestamp: %q", a.body)
	}
	for _, path := range []string{
		"/mr", "/mr/", "/mr/nothing", "/mr/package/nothing/", "/mr/package/tool/9/srcfiles", "/mr/package/tool/1:1.0-1", "/mr/package/tool/1:1.0-1/nothing",
		"/mr/package/a/1/srcfiles", "/mr/package/other/1:1.0-1/binfiles/libtool+1/1:1.0-1", "/mr/package/tool/1:1.0%20rc1/srcfiles", "/mr/binary/tool/",
		"/mr/binary/libtool%201/", "/mr/file/" + strings.Repeat("0", 40) + "/info", "/mr/file/nothing/info", "/mr/file/" + strings.Repeat("0", 64) + "/info", "/mr/timestamp/nothing",
		"/mr/package/libtool+1/", "/by-timestamp/nothing.txt", "/by-timestamp/debian-main",
	} {
		if a := s.raw("GET " + path); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, expected 404: %s", path, a.Status, a.body)
		}
	}
	if a := s.raw("GET /mr/timestamp/?after=yesterday"); a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusBadRequest {
		t.Errorf("a bad timestamp: %s", a.Status)
	}
	if asked := s.Archive.Requests(); len(asked) > 0 {
		t.Errorf("answers made requests upstream: %v", asked)
	}
	// A package's own bytes are fetched by any of its digests, with or without a name.
	for _, path := range []string{"/file/" + s.sha256(doc), "/file/" + s.sha1(doc) + "/tool-doc.deb", "/mr/file/" + s.sha256(doc) + "/download"} {
		if a := s.get(path); a.StatusCode != http.StatusOK || a.body != string(s.Archive.Get(doc)) {
			t.Errorf("%s: %s, %d bytes", path, a.Status, len(a.body))
		}
	}
	if a := s.get("/mr/file/" + s.sha1(doc) + "/info"); !strings.Contains(a.body, `"first_seen":"`+at[1]) {
		t.Errorf("by a SHA-1 known since: %s", a.body)
	}
	if a := s.get("/file/" + s.sha256(doc) + "/a/b"); a.StatusCode != http.StatusNotFound {
		t.Errorf("a file below a file: %s", a.Status)
	}
}

// multipartForm is a form as the client of Python sends it: each field as a file.
func multipartForm(t *testing.T, fields map[string]string) (body, ctype string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, v := range fields {
		part, err := w.CreateFormFile(name, name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(part, v)
	}
	w.Close()
	return b.String(), w.FormDataContentType()
}

// The interface of metasnap.debian.net.
func TestMetasnap(t *testing.T) {
	s, at := machineSite(t, config.OnDemand)
	for _, c := range []struct {
		query  string
		status int
		want   string
	}{
		{"timestamps=debian-main", 200, strings.Join(at[:], "\n") + "\n"},
		{"archive=debian-main&pkg=a&arch=amd64", 200, "1 stable main " + at[0] + " " + at[0] + "\n1 stable main " + at[2] + " " + at[2] + "\n"},
		{"archive=debian&pkg=tool-doc&arch=amd64", 200, "7:1.0~rc1+b1-1 stable main " + at[0] + " " + at[2] + "\n7:1.0-1 stable main " + at[1] + " " + at[2] + "\n"},
		{"archive=debian-main&pkg=tool&arch=amd64", 404, "*"},
		{"archive=debian-main&pkg=a&arch=arm64", 404, "*"},
		{"archive=debian-ports&pkg=a&arch=amd64", 404, "*"},
		{"archive=debian-main&pkg=a", 400, "*"},
		{"timestamps=nothing", 404, "*"},
		{"", 400, "*"},
	} {
		if a := s.raw("GET /cgi-bin/api?" + c.query); a.StatusCode != c.status || c.want != "*" && a.body != c.want {
			t.Errorf("%s: %s: %q, expected %d: %q", c.query, a.Status, a.body, c.status, c.want)
		}
	}
	for _, c := range []struct {
		archive, pkgs string
		status        int
		want          string
	}{
		{"debian-main", "a:amd64=1,tool-doc:amd64=7:1.0-1", 200, "a amd64 1 stable main " + at[0] + " " + at[0] + "\na amd64 1 stable main " + at[2] + " " + at[2] +
			"\ntool-doc amd64 7:1.0-1 stable main " + at[1] + " " + at[2] + "\n"},
		{"debian-main", "a=1", 200, "a amd64 1 stable main " + at[0] + " " + at[0] + "\na amd64 1 stable main " + at[2] + " " + at[2] + "\n"},
		{"debian-main", "a:amd64=1,b:amd64=2,a:amd64=3", 404, "b amd64 2\na amd64 3\n"},
		{"debian-ports", "a:amd64=1", 404, "a amd64 1\n"},
		{"debian-main", "", 200, ""},
		{"debian-main", "a:amd64", 400, "*"},
	} {
		fields := map[string]string{"archive": c.archive, "arch": "amd64", "pkgs": c.pkgs}
		body, ctype := multipartForm(t, fields)
		plain := url.Values{}
		for k, v := range fields {
			plain.Set(k, v)
		}
		for _, form := range [][2]string{{body, ctype}, {plain.Encode(), "application/x-www-form-urlencoded"}} {
			resp, err := http.Post(s.public.URL+"/cgi-bin/api", form[1], strings.NewReader(form[0]))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != c.status || c.want != "*" && string(b) != c.want {
				t.Errorf("%s %q: %s: %q, expected %d: %q", c.archive, c.pkgs, resp.Status, b, c.status, c.want)
			}
		}
	}
	resp, err := http.Post(s.public.URL+"/cgi-bin/api", "application/x-www-form-urlencoded", strings.NewReader("pkgs="+strings.Repeat("x", 9<<20)))
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("a form that is too large: %s", resp.Status)
		}
	}
	if a := s.raw("PUT /cgi-bin/api", "Content-Length: 0"); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %s", a.Status)
	}
}

// Requests for the hosts that the server acts as: in the proxy form, and by Host.
func TestActAs(t *testing.T) {
	s, at := machineSite(t, config.OnDemand)
	newest, err := time.Parse(meta.TimestampFormat, at[2])
	if err != nil {
		t.Fatal(err)
	}
	between := meta.FormatTimestamp(newest.Add(time.Minute))
	for _, c := range []struct {
		line, host string
		status     int
		location   string
	}{
		{"GET http://snapshot.debian.org//archive/debian-main/" + at[0] + "/dists/stable/InRelease", "snapshot.debian.org", 200, ""},
		{"GET http://snapshot.debian.org/archive/debian-main/" + between + "/", "snapshot.debian.org", 302, "http://snapshot.debian.org/archive/debian-main/" + at[2] + "/"},
		{"HEAD /archive/debian-main/" + between + "/", "Snapshot.debian.org:80", 302, "http://snapshot.debian.org/archive/debian-main/" + at[2] + "/"},
		{"GET /archive/debian-main/now/", "snapshot.debian.org", 302, "http://snapshot.debian.org/archive/debian-main/" + at[2] + "/"},
		{"GET /archive/debian-main/" + at[2], "snapshot.debian.org", 301, "http://snapshot.debian.org/archive/debian-main/" + at[2] + "/"},
		{"GET /archive/debian-main/" + between + "/", "mirror.example.org", 302, "/archive/debian-main/" + at[2] + "/"},
		{"GET http://metasnap.debian.net/cgi-bin/api?timestamps=debian-main", "metasnap.debian.net", 200, ""},
		{"GET http://snapshot.debian.org/mr/package/tool/", "snapshot.debian.org", 200, ""},
		{"GET http://snapshot.example.org/mr/package/tool/", "snapshot.example.org", 403, ""},
		{"GET https://snapshot.debian.org/mr/package/tool/", "snapshot.debian.org", 403, ""},
		{"CONNECT snapshot.debian.org:443", "snapshot.debian.org:443", 403, ""},
	} {
		a := s.raw(c.line, "Host: "+c.host)
		if a.StatusCode != c.status || a.Header.Get("Location") != c.location {
			t.Errorf("%s for %s: %s to %q, expected %d to %q", c.line, c.host, a.Status, a.Header.Get("Location"), c.status, c.location)
		}
	}
}

// apt 2.7 and later puts the ID of --snapshot into a template, from the field Snapshots of
// a Release file or from its configuration, and fetches the suite from there.
func TestAptSnapshots(t *testing.T) {
	s, at := machineSite(t, config.OnDemand)
	oldest, err := time.Parse(meta.TimestampFormat, at[0])
	if err != nil {
		t.Fatal(err)
	}
	apt := func(template, id string) string {
		u := strings.NewReplacer("@PATH@", "debian-main", "@SNAPSHOTID@", id).Replace(template)
		return strings.TrimSuffix(strings.TrimPrefix(u, "http://snapshot.debian.org"), "/")
	}
	const old = "/pool/main/t/tool/libtool+1_1.0~rc1+b1-1_amd64.deb"
	for _, c := range []struct {
		what, id, served string
		status           int
	}{
		{"exact", at[0], at[0], http.StatusOK},
		{"a minute later", meta.FormatTimestamp(oldest.Add(time.Minute)), at[0], http.StatusFound},
		{"before the first", meta.FormatTimestamp(oldest.Add(-time.Second)), "", http.StatusNotFound},
		{"no timestamp", "bookworm-4.1", "", http.StatusNotFound},
	} {
		for _, template := range []string{"http://snapshot.debian.org/archive/debian-main/@SNAPSHOTID@/", "http://snapshot.debian.org/archive/@PATH@/@SNAPSHOTID@/"} {
			// apt asks for the pool as dpkg writes its names: + as %2b.
			for _, p := range []string{"/dists/stable/InRelease", strings.ReplaceAll(old, "+", "%2b")} {
				a := s.raw("GET "+apt(template, c.id)+p, "Host: snapshot.debian.org")
				want := ""
				if c.status == http.StatusFound {
					want = "http://snapshot.debian.org" + apt(template, c.served) + strings.ReplaceAll(p, "%2b", "+")
				}
				if got := a.Header.Get("Location"); a.StatusCode != c.status || got != want {
					t.Errorf("%s, %s, %s: %s to %q, expected %d to %q", c.what, template, p, a.Status, got, c.status, want)
				}
			}
		}
	}
}

// The sources of the fewest snapshots that have a list of packages.
func TestSourcesFor(t *testing.T) {
	s, at := machineSite(t, config.OnDemand)
	ask := func(list, format string) (res api.SourcesResult) {
		t.Helper()
		s.call("sources", api.SourcesRequest{Format: format, For: &api.ManifestFile{Name: "list", Data: []byte(list)}}, &res)
		return res
	}
	res := ask("a=1\nlibtool+1=1:1.0-1\nnothing=1\n", "")
	want := &api.Cover{Snapshots: []api.CoverSnapshot{{Ref: "debian@" + at[2], Suites: []string{"stable"}, Packages: 2}}, Missing: []string{"nothing=1"}, Minimal: true}
	if d := cmp.Diff(want, res.Cover); d != "" {
		t.Errorf("cover (-want +got):\n%s", d)
	}
	if !strings.Contains(res.Text, "/archive/debian/"+at[2]+"\n") {
		t.Errorf("sources:\n%s", res.Text)
	}
	res = ask("libtool+1=1:1.0~rc1+b1-1\nlibtool+1=1:1.0-1\na=1\n", "deb822")
	if res.Cover == nil || len(res.Cover.Snapshots) != 1 && len(res.Cover.Snapshots) != 2 {
		t.Fatalf("cover: %+v", res.Cover)
	}
	for _, snap := range res.Cover.Snapshots {
		if !strings.Contains(res.Text, strings.TrimPrefix(snap.Ref, "debian@")) {
			t.Errorf("%s is not in\n%s", snap.Ref, res.Text)
		}
	}
	if e := s.fails("sources", api.SourcesRequest{For: &api.ManifestFile{Name: "list", Data: []byte("nothing=1\n")}}); e.Code != "not_found" {
		t.Errorf("nothing of the list: %+v", e)
	}
	for _, req := range []api.SourcesRequest{
		{Ref: "debian@latest", For: &api.ManifestFile{Name: "list", Data: []byte("a=1\n")}},
		{Format: "yaml", For: &api.ManifestFile{Name: "list", Data: []byte("a=1\n")}},
		{Format: "repo", For: &api.ManifestFile{Name: "list", Data: []byte("a=1\n")}},
		{For: &api.ManifestFile{Name: "list", Data: []byte("%%%%\n")}},
	} {
		if e := s.fails("sources", req); e.Code != "usage" {
			t.Errorf("%+v: %+v", req, e)
		}
	}
	if e := s.fails("sources", api.SourcesRequest{Mirror: "other", For: &api.ManifestFile{Name: "list", Data: []byte("a=1\n")}}); e.Code != "not_found" {
		t.Errorf("an unknown mirror: %+v", e)
	}
}
