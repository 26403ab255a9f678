package httpd_test

import (
	"crypto/sha1"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Long because of its table of cases.
func TestArchive(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("g++", "1.0~rc1-1+b1"), pkg("a", "1"))
	s.publish()
	one := s.sync()
	release := string(s.Archive.Get("dists/stable/InRelease"))
	deb := s.Archive.Default().PathOf("g++")
	debBytes := string(s.Archive.Get(deb))
	s.Archive.Default().Remove("a", "1")
	s.Archive.Add(pkg("a", "2"))
	s.publish()
	s.SetNow(s.Now().Add(time.Hour))
	two := s.sync()
	s.Archive.Add(pkg("a", "3"))
	s.publish()
	s.SetNow(s.Now().Add(time.Hour))
	three := s.sync()
	sum := cas.Sum([]byte(release)).String()
	at := "/archive/debian/" + one
	modified := s.get(at + "/dists/stable/InRelease").Header.Get("Last-Modified")
	between := "/archive/debian/20260110T133000Z"

	type headers map[string]string
	immutable := "public, max-age=31536000, immutable"
	for _, c := range []struct {
		name, line string
		send       []string
		status     int
		body       string // "*": any; a prefix ending in "…"
		want       headers
	}{
		{"exact", "GET " + at + "/dists/stable/InRelease", nil, 200, release, headers{"Etag": `"` + sum + `"`, "Cache-Control": immutable, "Content-Type": "text/plain; charset=utf-8", "Accept-Ranges": "bytes", "Content-Length": fmt.Sprint(len(release))}},
		{"HEAD", "HEAD " + at + "/dists/stable/InRelease", nil, 200, "", headers{"Etag": `"` + sum + `"`, "Content-Length": fmt.Sprint(len(release))}},
		{"doubled slash", "GET " + at + "//dists//stable/InRelease", nil, 200, release, nil},
		{"latest", "GET /archive/debian/latest/dists/stable/InRelease", nil, 200, string(s.Archive.Get("dists/stable/InRelease")), headers{"Cache-Control": "no-cache"}},
		{"as apt encodes", "GET " + at + "/" + strings.NewReplacer("+", "%2b", "~", "%7e").Replace(deb), nil, 200, debBytes, headers{"Content-Type": "application/vnd.debian.binary-package"}},
		{"literal", "GET " + at + "/" + deb, nil, 200, debBytes, nil},
		{"decoded once only", "GET " + at + "/" + strings.ReplaceAll(deb, "+", "%252b"), nil, 404, "*", headers{"Cache-Control": "no-cache"}},
		{"plus is no space", "GET " + at + "/" + strings.ReplaceAll(deb, "+", "%20"), nil, 404, "*", nil},

		{"same tag", "GET " + at + "/dists/stable/InRelease", []string{`If-None-Match: "x", W/"` + sum + `"`}, 304, "", headers{"Etag": `"` + sum + `"`, "Content-Length": ""}},
		{"any tag", "HEAD " + at + "/dists/stable/InRelease", []string{`If-None-Match: *`}, 304, "", nil},
		{"other tag wins over date", "GET " + at + "/dists/stable/InRelease", []string{`If-None-Match: "x"`, "If-Modified-Since: " + modified}, 200, release, nil},
		{"not modified", "GET " + at + "/dists/stable/InRelease", []string{"If-Modified-Since: " + modified}, 304, "", headers{"Last-Modified": modified}},
		{"modified", "GET " + at + "/dists/stable/InRelease", []string{"If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT"}, 200, release, nil},
		{"bad date", "GET " + at + "/dists/stable/InRelease", []string{"If-Modified-Since: yesterday"}, 200, release, nil},
		{"If-Match", "GET " + at + "/dists/stable/InRelease", []string{`If-Match: "x"`}, 412, "*", nil},
		{"If-Match weak", "GET " + at + "/dists/stable/InRelease", []string{`If-Match: W/"` + sum + `"`}, 412, "*", nil},
		{"If-Match same", "GET " + at + "/dists/stable/InRelease", []string{`If-Match: "` + sum + `"`}, 200, release, nil},
		{"If-Unmodified-Since", "GET " + at + "/dists/stable/InRelease", []string{"If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"}, 412, "*", nil},

		{"range", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=5-9"}, 206, release[5:10], headers{"Content-Range": fmt.Sprintf("bytes 5-9/%d", len(release)), "Content-Length": "5"}},
		{"open range", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=10-"}, 206, release[10:], nil},
		{"suffix", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=-7"}, 206, release[len(release)-7:], nil},
		{"long suffix", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=-999999999"}, 206, release, nil},
		{"range past the end", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=0-999999999"}, 206, release, nil},
		{"beyond", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=999999999-"}, 416, "*", headers{"Content-Range": fmt.Sprintf("bytes */%d", len(release))}},
		{"no suffix", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=-0"}, 416, "*", nil},
		{"backwards", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=9-5"}, 200, release, nil},
		{"several ranges", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=0-1,4-5"}, 200, release, nil},
		{"other unit", "GET " + at + "/dists/stable/InRelease", []string{"Range: lines=0-1"}, 200, release, nil},
		{"signed number", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=+5-9"}, 200, release, nil},
		{"If-Range same", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=0-3", `If-Range: "` + sum + `"`}, 206, release[:4], nil},
		{"If-Range other", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=0-3", `If-Range: "x"`}, 200, release, nil},
		{"If-Range weak", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=0-3", `If-Range: W/"` + sum + `"`}, 200, release, nil},
		{"If-Range date", "GET " + at + "/dists/stable/InRelease", []string{"Range: bytes=0-3", "If-Range: " + modified}, 206, release[:4], nil},
		{"HEAD has no range", "HEAD " + at + "/dists/stable/InRelease", []string{"Range: bytes=0-3"}, 200, "", nil},

		{"in between", "GET " + between + "/" + strings.ReplaceAll(deb, "+", "%2B"), nil, 302, "*", headers{"Location": at + "/" + deb, "Cache-Control": "no-cache"}},
		{"in between, directory", "GET " + between + "/", nil, 302, "*", headers{"Location": at + "/"}},
		{"a day", "GET /archive/debian/2026-01-11/dists/", nil, 302, "*", headers{"Location": "/archive/debian/" + three + "/dists/"}},
		{"before the first", "GET /archive/debian/20200101T000000Z/dists/stable/InRelease", nil, 404, "*", headers{"Cache-Control": "no-cache"}},
		{"no timestamp", "GET /archive/debian/yesterday/dists/stable/InRelease", nil, 404, "*", nil},
		{"no mirror", "GET /archive/ubuntu/latest/dists/stable/InRelease", nil, 404, "*", nil},
		{"unknown", "GET " + at + "/dists/stable/Nothing", nil, 404, "*", nil},
		{"unknown top", "GET /nothing", nil, 404, "*", nil},

		{"by hash", "GET /by-hash/SHA256/" + sum, nil, 200, release, headers{"Cache-Control": "no-cache"}},
		{"by hash, unknown", "GET /by-hash/SHA256/" + strings.Repeat("0", 64), nil, 404, "*", nil},
		{"by hash, no digest", "GET /by-hash/SHA256/../../meta.db", nil, 404, "*", nil},
		{"file by SHA-256", "GET /file/" + sum, nil, 200, release, nil},
		{"file by SHA-1", "GET /file/" + fmt.Sprintf("%x", sha1.Sum([]byte(debBytes))), nil, 200, debBytes, nil},
		{"file, unknown", "GET /file/" + strings.Repeat("0", 40), nil, 404, "*", nil},
		{"file, no digest", "GET /file/meta.db", nil, 404, "*", nil},

		{"directory without slash", "GET " + at + "/dists/stable", nil, 301, "*", headers{"Location": at + "/dists/stable/"}},
		{"listing", "GET " + at + "/dists/stable/", nil, 200, "*", headers{"Content-Type": "text/html; charset=utf-8", "Cache-Control": immutable}},
		{"listing of the pool", "GET " + at + "/pool/main/g/", nil, 200, "*", nil},
		{"listing of nothing", "GET " + at + "/nothing/", nil, 404, "*", nil},
		{"key", "GET /key.asc", nil, 200, s.signer.PublicKeyArmored(), headers{"Content-Type": "application/pgp-keys"}},
		{"alive", "GET /healthz", nil, 200, "ok\n", nil},
		{"ready", "GET /readyz", nil, 200, "ok\n", nil},

		{"POST", "POST " + at + "/dists/stable/InRelease", []string{"Content-Length: 0"}, 405, "*", headers{"Allow": "GET, HEAD"}},
		{"PUT", "PUT /archive/debian/latest/x", []string{"Content-Length: 0"}, 405, "*", headers{"Allow": "GET, HEAD"}},
		{"DELETE", "DELETE /frozen/4.1", nil, 405, "*", headers{"Allow": "GET, HEAD"}},
		{"OPTIONS", "OPTIONS *", nil, 405, "*", headers{"Allow": "GET, HEAD"}},
		{"control", "POST /api/v1/status", []string{"Content-Length: 2", "", "{}"}, 405, "*", nil},
		{"control by GET", "GET /api/v1/status", nil, 404, "*", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // looked up, and remembered
				a := s.raw(c.line, c.send...)
				if a.StatusCode != c.status {
					t.Fatalf("%s: status %d, expected %d: %s", c.line, a.StatusCode, c.status, a.body)
				}
				if c.body != "*" && a.body != c.body {
					t.Errorf("%s: body %.80q, expected %.80q", c.line, a.body, c.body)
				}
				for k, v := range c.want {
					if got := a.Header.Get(k); got != v {
						t.Errorf("%s: %s: %q, expected %q", c.line, k, got, v)
					}
				}
			}
		})
	}
	if a := s.get(at + "/dists/stable/"); !strings.Contains(a.body, `href="./InRelease"`) || !strings.Contains(a.body, `href="./main/"`) {
		t.Errorf("listing:\n%s", a.body)
	}

	// What was removed answers 410 for its time and never another snapshot.
	if e := s.fails("rm", api.RefRequest{Ref: "debian@20260110T200000Z"}); e.Exit != api.ExitUsage {
		t.Errorf("removing by an inexact timestamp: %+v", e)
	}
	if e := s.fails("rm", api.RefRequest{Ref: "debian@latest"}); e.Code != api.CodeInUse {
		t.Errorf("removing the newest: %+v", e)
	}
	s.call("rm", api.RefRequest{Ref: "debian@" + two}, nil)
	for path, status := range map[string]int{
		"/archive/debian/" + two + "/dists/stable/InRelease": 410, "/archive/debian/" + two + "/": 410,
		at + "/dists/stable/InRelease": 200, "/archive/debian/" + three + "/dists/stable/InRelease": 200,
	} {
		if a := s.get(path); a.StatusCode != status {
			t.Errorf("%s after rm: status %d, expected %d", path, a.StatusCode, status)
		}
	}
}

// No request reads outside of what is published.
func TestTraversal(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	at := s.sync()
	if err := os.WriteFile(s.Dir+"/secret", []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	s.call("record/start", api.RecordStart{Name: "rec"}, nil)
	for _, base := range []string{"/archive/debian/" + at, "/archive/debian/latest", "/archive", "/frozen/4.1/debian", "/frozen/4.1", "/frozen", "/record/rec/debian", "/by-hash/SHA256", "/file", "/iuk", "", "/mirror", "/snapshot", "/freeze", "/package"} {
		for _, p := range []string{
			"/../secret", "/../../../../../../etc/passwd", "/..%2fsecret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/%252e%252e/secret", "/..%5csecret", "/..\\secret",
			"/./secret", "/dists/../../secret", "/dists/./secret", "/%00", "/dists%00/stable/InRelease", "/secret", "/meta.db", "/signing-key.asc", "/blobs/", "/%2fetc/passwd", "//etc/passwd",
			"/dists/stable/InRelease/", "/dists/stable/InRelease/..", "/pool/main/a/../../../dists/stable/InRelease", "/~", "/%", "/%zz", "/dists/stable/%c0%ae%c0%ae/InRelease",
		} {
			a := s.get(base + p)
			if a.StatusCode != 404 && a.StatusCode != 400 && a.StatusCode != 302 || strings.Contains(a.body, "secret\n") && a.StatusCode == 200 || strings.Contains(a.body, "root:") {
				t.Errorf("GET %s%s: status %d, %.100q", base, p, a.StatusCode, a.body)
			}
		}
	}
}

// Long because it is one story from beginning to end.
func TestOnDemand(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	big := strings.Repeat("0123456789abcdef", 40_000) // 640 kB, more than is held back
	s.Archive.Add(pkg("a", "1"), pkg("gone", "1"), pkg("withheld", "1"), pkg("down", "1"), debtest.Package{Name: "big", Body: []byte(big)}, debtest.Package{Name: "bad", Body: []byte("x" + big)},
		debtest.Package{Name: "shared", Body: []byte("y" + big)})
	s.publish()
	var mu sync.Mutex
	hold := make(chan struct{})
	s.Archive.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.Contains(r.URL.Path, "/down_"):
			http.Error(w, "down", http.StatusServiceUnavailable)
			return true
		case strings.Contains(r.URL.Path, "/withheld_"):
			http.Error(w, "withheld", http.StatusForbidden)
			return true
		case strings.Contains(r.URL.Path, "/shared_"):
			mu.Lock()
			defer mu.Unlock()
			<-hold
		}
		return false
	}
	at := "/archive/debian/" + s.sync() + "/"
	path := func(name string) string { return s.Archive.Default().PathOf(name) }
	want := string(s.Archive.Get(path("a")))
	s.Archive.Requests()

	if a := s.raw("HEAD " + at + path("a")); a.StatusCode != 200 || a.ContentLength != int64(len(want)) || a.Header.Get("Etag") == "" {
		t.Errorf("HEAD: %+v", a.Response)
	}
	if a := s.get(at+path("a"), `If-None-Match: "`+cas.Sum([]byte(want)).String()+`"`); a.StatusCode != 304 {
		t.Errorf("conditional: status %d, expected 304", a.StatusCode)
	}
	if r := s.Archive.Requests(); len(r) > 0 {
		t.Errorf("HEAD and 304 asked upstream: %v", r)
	}
	for range 2 {
		if a := s.get(at + path("a")); a.StatusCode != 200 || a.body != want {
			t.Errorf("GET: status %d, %d bytes", a.StatusCode, len(a.body))
		}
	}
	if r := s.Archive.Requests(); len(r) != 1 {
		t.Errorf("two GET made %d requests of upstream, expected 1", len(r))
	}
	if a := s.get(at+path("big"), "Range: bytes=100-199"); a.StatusCode != 206 || a.body != big[100:200] {
		t.Errorf("range of what is not here: status %d, %q", a.StatusCode, a.body)
	}

	s.Archive.Delete(path("gone"))
	if a := s.get(at + path("gone")); a.StatusCode != 404 {
		t.Errorf("gone upstream: status %d, expected 404", a.StatusCode)
	}
	if a := s.get(at + path("withheld")); a.StatusCode != 404 {
		t.Errorf("withheld by upstream, which gives other files: status %d, expected 404", a.StatusCode)
	}
	if a := s.get(at + path("down")); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("upstream down: status %d, Retry-After %q", a.StatusCode, a.Header.Get("Retry-After"))
	}
	// Other bytes of the right size: the end is never sent, and nothing is kept.
	s.Archive.Corrupt(path("bad"))
	if a := s.get(at + path("bad")); a.StatusCode == 200 && (a.err == nil || len(a.body) > len(big)-60_000) {
		t.Errorf("bad bytes: status %d, %d bytes, error %v", a.StatusCode, len(a.body), a.err)
	}
	if _, err := os.Stat(s.blobFile([]byte("x" + big))); err == nil {
		t.Error("bad bytes were kept")
	}
	if a := s.get(at + "dists/stable/main/binary-amd64/Packages"); a.StatusCode != 200 || !strings.Contains(a.body, "Package: big\n") {
		t.Errorf("plain index: status %d", a.StatusCode)
	}

	s.Archive.Requests()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := s.get(at + path("shared")); a.StatusCode != 200 || a.body != "y"+big {
				t.Errorf("shared: status %d, %d bytes, %v", a.StatusCode, len(a.body), a.err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	close(hold)
	wg.Wait()
	if r := s.Archive.Requests(); len(r) != 1 {
		t.Errorf("20 clients made %d requests of upstream, expected 1: %v", len(r), r)
	}
}

// A blob that rotted is never sent whole, and gives 5xx from then on.
func TestRot(t *testing.T) {
	big := []byte(strings.Repeat("0123456789abcdef", 80_000))
	for name, size := range map[string]int{"small": 1000, "large": len(big)} {
		for how, spoil := range map[string]func([]byte) []byte{
			"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"cut":     func(b []byte) []byte { return b[:len(b)-1] },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				s := newSite(t, nil)
				s.Archive.Add(debtest.Package{Name: "a", Body: big[:size]})
				s.publish()
				u := "/archive/debian/" + s.sync() + "/" + s.Archive.Default().PathOf("a")
				file := s.blobFile(big[:size])
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, spoil([]byte(string(big[:size]))), 0o444); err != nil {
					t.Fatal(err)
				}
				a := s.get(u)
				if a.StatusCode == 200 && (a.err == nil || len(a.body) >= size) {
					t.Errorf("first read: status 200 and %d of %d bytes, error %v", len(a.body), size, a.err)
				}
				for range 2 {
					if a := s.get(u); a.StatusCode != 500 {
						t.Errorf("later: status %d, expected 500", a.StatusCode)
					}
				}
				var st api.Status
				s.call("status", api.Empty{}, &st)
				if len(st.Damaged) != 1 || st.Damaged[0] != cas.Sum(big[:size]).String() {
					t.Errorf("damaged: %v", st.Damaged)
				}
			})
		}
	}
}

// Clients that know only Release and Release.gpg find both beside InRelease, as
// upstream signed them; a freeze rests on InRelease alone.
func TestReleaseBesideInRelease(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Default().Both = true
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	at := s.sync()
	for _, name := range []string{"InRelease", "Release", "Release.gpg"} {
		for _, base := range []string{"/archive/debian/" + at, "/archive/debian/latest"} {
			p := "dists/stable/" + name
			if a := s.get(base + "/" + p); a.StatusCode != 200 || a.body != string(s.Archive.Get(p)) {
				t.Errorf("%s/%s: status %d", base, p, a.StatusCode)
			}
		}
	}
	if a := s.get("/archive/debian/" + at + "/dists/stable/"); !strings.Contains(a.body, `"./Release.gpg"`) {
		t.Errorf("listing: %s", a.body)
	}
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	manifest := s.get("/frozen/4.1/manifest.json").body
	if !strings.Contains(manifest, `dists/stable/InRelease`) || strings.Contains(manifest, `dists/stable/Release`) {
		t.Errorf("manifest: %s", manifest)
	}
	if a := s.get("/frozen/4.1/debian/dists/stable/Release.gpg"); a.StatusCode != 200 || a.body == string(s.Archive.Get("dists/stable/Release.gpg")) {
		t.Errorf("the frozen Release.gpg is upstream's: status %d", a.StatusCode)
	}
}

// The plain variant of an index that upstream lists by SHA-512 alone, and that is
// stored compressed, is made when it is asked for, by HEAD as well.
func TestPlainIndexBySHA512(t *testing.T) {
	for _, method := range []string{"HEAD", "GET"} {
		s := newSite(t, nil)
		suite := s.Archive.Default()
		suite.Compressions, suite.Digests = []string{".xz"}, []string{"SHA512"}
		s.Archive.Add(pkg("a", "1"))
		s.publish()
		path := "/archive/debian/" + s.sync() + "/dists/stable/main/binary-amd64/Packages"
		s.Archive.Requests()
		first := s.raw(method + " " + path)
		if first.StatusCode != 200 || first.Header.Get("Etag") == "" || first.ContentLength <= 0 {
			t.Errorf("%s: %d, %v", method, first.StatusCode, first.Header)
		}
		for range 2 {
			a := s.get(path)
			if a.StatusCode != 200 || !strings.HasPrefix(a.body, "Package: a\n") || a.Header.Get("Etag") != first.Header.Get("Etag") || a.ContentLength != first.ContentLength {
				t.Errorf("after %s: %d, %v, %q", method, a.StatusCode, a.Header, a.body)
			}
			if want := `"` + cas.Sum([]byte(a.body)).String() + `"`; a.Header.Get("Etag") != want {
				t.Errorf("after %s: tag %s, expected %s", method, a.Header.Get("Etag"), want)
			}
		}
		if r := s.Archive.Requests(); len(r) != 0 {
			t.Errorf("%s: upstream was asked for %v", method, r)
		}
	}
}
