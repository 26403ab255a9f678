package httpd_test

import (
	"encoding/base64"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
)

// noted lists what a recording holds, as "name count".
func (s *site) noted(name string) []string {
	s.t.Helper()
	var rec api.Recording
	s.call("record/show", api.RecordRef{Name: name}, &rec)
	out := []string{}
	for _, e := range rec.Entries {
		base := e.Path[strings.LastIndexByte(e.Path, '/')+1:]
		out = append(out, base+" "+strings.Repeat("|", e.Count))
	}
	return out
}

// Long because it is one story from beginning to end.
func TestRecording(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	s.Archive.Add(pkg("a", "1"), pkg("b", "1"), pkg("c", "1"), pkg("d", "1"))
	s.Archive.AddSource(debtest.Source{Name: "a", Version: "1"})
	s.publish()
	s.sync()
	for name, req := range map[string]api.RecordStart{
		"a mirror's name": {Name: "debian"}, "latest": {Name: "latest"}, "a slash": {Name: "a/b"}, "nothing": {},
		"twice": {Name: "x", Mirrors: []string{"debian", "debian@latest"}},
	} {
		if e := s.fails("record/start", req); e.Exit != api.ExitUsage {
			t.Errorf("%s: %+v", name, e)
		}
	}
	var rec api.Recording
	s.call("record/start", api.RecordStart{Name: "4.1"}, &rec)
	if want := s.conf.Server.PublicURL + "/record/4.1/debian/"; len(rec.Mirrors) != 1 || rec.Mirrors[0].URL != want || rec.Proxy != strings.Replace(s.conf.Server.PublicURL, "//", "//4.1@", 1) {
		t.Errorf("recording: %+v", rec)
	}
	if e := s.fails("record/start", api.RecordStart{Name: "4.1"}); e.Code != api.CodeExists {
		t.Errorf("started again: %+v", e)
	}
	// Upstream moves on; the recording's view stays.
	release := string(s.Archive.Get("dists/stable/InRelease"))
	paths := map[string]string{}
	for _, n := range []string{"a", "b", "c", "d"} {
		paths[n] = s.Archive.Default().PathOf(n)
	}
	debOf := func(n string) string { return string(s.Archive.Get(paths[n])) }
	s.Archive.Add(pkg("e", "1"))
	s.publish()
	s.sync()
	u := "/record/4.1/debian/"
	if a := s.get(u + "dists/stable/InRelease"); a.body != release || a.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("InRelease: status %d, %q", a.StatusCode, a.Header.Get("Cache-Control"))
	}
	if a := s.get(u + "dists/stable/main/binary-amd64/Packages.xz"); a.StatusCode != 200 {
		t.Errorf("index: status %d", a.StatusCode)
	}
	if got := s.noted("4.1"); len(got) > 0 {
		t.Errorf("indices were noted: %v", got)
	}
	if a := s.get(u + paths["a"]); a.StatusCode != 200 || a.body != debOf("a") {
		t.Errorf("package: status %d", a.StatusCode)
	}
	s.get(u + paths["a"])
	s.raw("HEAD " + u + paths["b"])
	if a := s.get(u+paths["c"], `If-None-Match: "`+cas.Sum([]byte(debOf("c"))).String()+`"`); a.StatusCode != 304 {
		t.Errorf("conditional: status %d, expected 304", a.StatusCode)
	}
	s.get(u + "pool/main/a/a/a_1.dsc")
	s.get(u + s.Archive.Default().PathOf("e")) // not in the pinned snapshot
	want := []string{"a_1.dsc |", "a_1_amd64.deb ||", "b_1_amd64.deb |", "c_1_amd64.deb |"}
	if d := cmp.Diff(want, s.noted("4.1")); d != "" {
		t.Errorf("noted: -want +got\n%s", d)
	}
	// What was only asked about is fetched too, so that it cannot vanish.
	for _, n := range []string{"b", "c"} {
		for i := 0; ; i++ {
			if _, err := os.Stat(s.blobFile([]byte(debOf(n)))); err == nil {
				break
			} else if i > 200 {
				t.Fatalf("%s was noted but never fetched", n)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	var before, after api.Recording
	s.call("record/show", api.RecordRef{Name: "4.1"}, &before)
	s.restart()
	s.call("record/show", api.RecordRef{Name: "4.1"}, &after)
	if before.Digest != after.Digest || before.Digest == "" {
		t.Errorf("digest before the restart %s, after %s", before.Digest, after.Digest)
	}
	s.get(u + paths["d"])
	if d := cmp.Diff(append(want, "d_1_amd64.deb |"), s.noted("4.1")); d != "" {
		t.Errorf("after a restart: -want +got\n%s", d)
	}
	var shown api.Recording
	s.call("record/show", api.RecordRef{Name: "4.1", Status: &api.ManifestFile{Name: "status", Data: []byte(
		"Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: zz\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3\n\n")}}, &shown)
	if d := cmp.Diff([]string{"zz:amd64=3"}, shown.Unfetched); d != "" {
		t.Errorf("never fetched: -want +got\n%s", d)
	}
	// Lists without versions, and with apt's architecture of packages that fit all.
	for list, want := range map[string][]string{
		"a\tinstall\nzz\tinstall\n": {"zz"},
		"a:amd64\nb=1\nzz=3\n":      {"zz=3"},
		"Start-Date: 2026-01-01  10:00:00\nInstall: a:amd64 (1), a:i386 (1)\nEnd-Date: 2026-01-01  10:00:01\n": {"a:i386=1"},
	} {
		s.call("record/show", api.RecordRef{Name: "4.1", Status: &api.ManifestFile{Name: "list", Data: []byte(list)}}, &shown)
		if d := cmp.Diff(want, shown.Unfetched); d != "" {
			t.Errorf("never fetched of %q: -want +got\n%s", list, d)
		}
	}
	if e := s.fails("rm", api.RefRequest{Ref: rec.Mirrors[0].Snapshot}); e.Code != api.CodeInUse {
		t.Errorf("removing the snapshot that a recording shows: %+v", e)
	}
	s.call("record/stop", api.RecordRef{Name: "4.1"}, nil)
	if a := s.get(u + paths["a"]); a.StatusCode != http.StatusForbidden {
		t.Errorf("after stop: status %d, expected 403", a.StatusCode)
	}
	var fz api.FreezeResult
	s.call("freeze", api.FreezeRequest{Name: "4.1", NoSources: true}, &fz)
	if fz.Frozen == nil || fz.Frozen.Packages != 4 {
		t.Errorf("frozen: %+v", fz.Frozen)
	}
	s.call("record/rm", api.RecordRef{Name: "4.1"}, nil)
	if a := s.get(u + paths["a"]); a.StatusCode != 404 {
		t.Errorf("after rm: status %d, expected 404", a.StatusCode)
	}
	var list api.RecordList
	s.call("record/list", api.Empty{}, &list)
	if len(list.Recordings) != 0 {
		t.Errorf("recordings: %+v", list)
	}
}

// A Release that has expired is said at the start; with Resigned this server signs.
func TestRecordingExpired(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Default().ValidFor = 24 * time.Hour
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	var plain, resigned api.Recording
	s.call("record/start", api.RecordStart{Name: "plain"}, &plain)
	s.call("record/start", api.RecordStart{Name: "resigned", Resigned: true}, &resigned)
	if len(plain.Warnings) != 1 || !strings.Contains(plain.Warnings[0], "expired on 2026-01-11T13:00:00Z") || !strings.Contains(plain.Warnings[0], "--resigned") {
		t.Errorf("warnings: %q", plain.Warnings)
	}
	a := s.get("/record/resigned/debian/dists/stable/InRelease")
	if _, err := sign.VerifyClearsigned([]byte(a.body), sign.VerifyOptions{Keyring: s.signer.Keyring()}); err != nil || strings.Contains(a.body, "Valid-Until") {
		t.Errorf("resigned: %v\n%s", err, a.body)
	}
	if a := s.get("/record/plain/debian/dists/stable/InRelease"); a.body != string(s.Archive.Get("dists/stable/InRelease")) {
		t.Error("a plain recording does not show upstream's InRelease")
	}
}

func auth(user string) string { return basic(user + ":") }

func basic(credentials string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

func TestProxy(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"), pkg("b", "1"))
	s.publish()
	s.sync()
	s.call("record/start", api.RecordStart{Name: "rec"}, nil)
	s.call("freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}, NoSources: true}, nil)
	s.call("freeze", api.FreezeRequest{Name: "all"}, nil)
	release := string(s.Archive.Get("dists/stable/InRelease"))
	a, b := s.Archive.Default().PathOf("a"), s.Archive.Default().PathOf("b")
	s.Archive.Add(pkg("a", "2"))
	s.publish()
	s.sync()
	up := s.Server.URL // http://127.0.0.1:port
	for _, c := range []struct {
		name, line string
		headers    []string
		status     int
		body       string
	}{
		{"recording, index", "GET " + up + "/dists/stable/InRelease", []string{auth("rec")}, 200, release},
		{"recording, package", "GET " + up + "/" + a, []string{auth("rec")}, 200, string(s.Archive.Get(a))},
		{"recording, unknown", "GET " + up + "/pool/nothing", []string{auth("rec")}, 404, "*"},
		{"frozen, upstream's own signature", "GET " + up + "/dists/stable/InRelease", []string{auth("4.1")}, 200, release},
		{"frozen, index", "HEAD " + up + "/dists/stable/main/binary-amd64/Packages.xz", []string{auth("4.1")}, 200, ""},
		{"frozen, its package", "GET " + up + "/" + a, []string{auth("4.1")}, 200, string(s.Archive.Get(a))},
		{"frozen, another's package", "GET " + up + "/" + b, []string{auth("4.1")}, 404, "*"},
		{"frozen whole", "GET " + up + "/" + b, []string{auth("all")}, 200, string(s.Archive.Get(b))},
		{"any password", "GET " + up + "/dists/stable/InRelease", []string{basic("rec:x")}, 200, release},
		{"no colon", "GET " + up + "/dists/stable/InRelease", []string{basic("rec")}, 200, release},
		{"no name", "GET " + up + "/dists/stable/InRelease", nil, 407, "*"},
		{"no name, HEAD", "HEAD " + up + "/dists/stable/InRelease", nil, 407, ""},
		{"empty name", "GET " + up + "/dists/stable/InRelease", []string{basic(":rec")}, 407, "*"},
		{"no name, other upstream", "GET http://mirror.example.org/debian/dists/stable/InRelease", nil, 403, "*"},
		{"no name, CONNECT", "CONNECT " + strings.TrimPrefix(up, "http://"), nil, 403, "*"},
		{"unknown name", "GET " + up + "/dists/stable/InRelease", []string{auth("nobody")}, 403, "*"},
		{"not Basic", "GET " + up + "/dists/stable/InRelease", []string{"Proxy-Authorization: Bearer rec"}, 407, "*"},
		{"not base64", "GET " + up + "/dists/stable/InRelease", []string{"Proxy-Authorization: Basic !"}, 407, "*"},
		{"other upstream", "GET http://mirror.example.org/debian/dists/stable/InRelease", []string{auth("rec")}, 403, "*"},
		{"other port", "GET http://127.0.0.1:1/dists/stable/InRelease", []string{auth("rec")}, 403, "*"},
		{"https", "GET " + strings.Replace(up, "http:", "https:", 1) + "/dists/stable/InRelease", []string{auth("rec")}, 403, "*"},
		{"CONNECT", "CONNECT " + strings.TrimPrefix(up, "http://"), []string{auth("rec")}, 403, "*"},
		{"POST", "POST " + up + "/dists/stable/InRelease", []string{auth("rec"), "Content-Length: 0"}, 403, "*"},
		{"this server's own path", "GET " + s.conf.Server.PublicURL + "/key.asc", []string{auth("rec")}, 403, "*"},
		{"decided before the path", "GET " + up + "/archive/debian/latest/dists/stable/InRelease", []string{auth("rec")}, 404, "*"},
		{"traversal", "GET " + up + "/../secret", []string{auth("rec")}, 404, "*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.raw(c.line, c.headers...)
			if got.StatusCode != c.status || c.body != "*" && got.body != c.body {
				t.Errorf("%s: status %d, %.100q, expected %d", c.line, got.StatusCode, got.body, c.status)
			}
			if challenge := got.Header.Get("Proxy-Authenticate"); strings.HasPrefix(challenge, `Basic realm="`) != (c.status == 407) {
				t.Errorf("%s: status %d with Proxy-Authenticate: %q", c.line, got.StatusCode, challenge)
			}
		})
	}
	if got := s.noted("rec"); !slices.Equal(got, []string{"a_1_amd64.deb |"}) {
		t.Errorf("noted: %v", got)
	}
}

func TestFrozen(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"), pkg("b", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "2.4~rc1", Packages: []string{"a"}, NoSources: true}, nil)
	s.call("freeze", api.FreezeRequest{Name: "whole"}, nil)
	a, b := s.Archive.Default().PathOf("a"), s.Archive.Default().PathOf("b")
	aBytes, bBytes := string(s.Archive.Get(a)), string(s.Archive.Get(b))
	immutable := "public, max-age=31536000, immutable"
	for _, c := range []struct {
		path   string
		status int
		body   string
		cache  string
	}{
		{"/frozen/2.4~rc1/debian/" + a, 200, aBytes, immutable},
		{"/frozen/2.4%7erc1/debian/" + a, 200, aBytes, immutable},
		{"/frozen/2.4~rc1/debian/" + b, 404, "*", "no-cache"},
		{"/frozen/whole/debian/" + b, 200, bBytes, immutable},
		{"/frozen/2.4~rc1/debian/dists/stable/InRelease", 200, "*", immutable},
		{"/frozen/whole/debian/dists/stable/InRelease", 200, "*", immutable},
		{"/frozen/2.4~rc1/manifest.json", 200, "*", immutable},
		{"/frozen/2.4~rc1/manifest.json.asc", 200, "*", immutable},
		{"/frozen/2.4~rc1/provenance.json", 200, "*", "no-cache"},
		{"/frozen/2.4~rc1/provenance.json.asc", 200, "*", "no-cache"},
		{"/frozen/2.4~rc1/sources", 200, "*", "no-cache"},
		{"/frozen/2.4~rc1/", 200, "*", immutable},
		{"/frozen/2.4~rc1/debian/", 200, "*", immutable},
		{"/frozen/2.4~rc1/debian/dists/stable/", 200, "*", immutable},
		{"/frozen/whole/debian/pool/main/b/b/", 200, "*", immutable},
		{"/frozen/2.4~rc1/debian/dists", 301, "*", ""},
		{"/frozen/2.4~rc1/debian/nothing/", 404, "*", "no-cache"},
		{"/frozen/2.4~rc1/ubuntu/dists/", 404, "*", "no-cache"},
		{"/frozen/nothing/debian/" + a, 404, "*", "no-cache"},
		{"/frozen/", 200, "*", "no-cache"},
		{"/freeze/2.4~rc1", 200, "*", "no-cache"},
		{"/freeze/nothing", 404, "*", "no-cache"},
		{"/package/a", 200, "*", "no-cache"},
		{"/package/%3Cscript%3E", 404, "*", "no-cache"},
		{"/diff?a=2.4~rc1&b=whole", 200, "*", "no-cache"},
		{"/diff?a=nothing&b=whole", 404, "*", "no-cache"},
		{"/", 200, "*", "no-cache"},
	} {
		for range 2 {
			got := s.get(c.path)
			if got.StatusCode != c.status || c.body != "*" && got.body != c.body || got.Header.Get("Cache-Control") != c.cache {
				t.Errorf("%s: status %d, %q, %.100q", c.path, got.StatusCode, got.Header.Get("Cache-Control"), got.body)
			}
			if strings.Contains(got.body, "<script") {
				t.Errorf("%s: a script:\n%s", c.path, got.body)
			}
		}
	}
	if r := s.get("/frozen/whole/debian/dists/stable/InRelease").body; r == string(s.Archive.Get("dists/stable/InRelease")) || !strings.Contains(r, "BEGIN PGP SIGNED MESSAGE") {
		t.Error("a whole freeze shows upstream's InRelease in place of its own")
	}
	// What was promised and is not here is this server's fault, never a 404.
	if err := os.Remove(s.blobFile([]byte(aBytes))); err != nil {
		t.Fatal(err)
	}
	s.Archive.Delete(a)
	s.restart()
	if got := s.get("/frozen/2.4~rc1/debian/" + a); got.StatusCode < 500 {
		t.Errorf("a frozen package that was lost: status %d, expected 5xx", got.StatusCode)
	}
	s.call("rm", api.RefRequest{Ref: "whole"}, nil)
	for _, p := range []string{"/frozen/whole/debian/" + b, "/frozen/whole/manifest.json", "/frozen/whole/"} {
		if got := s.get(p); got.StatusCode != 410 {
			t.Errorf("%s after rm: status %d", p, got.StatusCode)
		}
	}
	if left, err := s.Store().TreeFiles(t.Context(), "whole", "", "", 1); err != nil || len(left) > 0 {
		t.Errorf("rm left files of the tree: %v, %v", left, err)
	}
}
