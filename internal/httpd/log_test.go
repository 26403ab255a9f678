package httpd_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
)

// The log is served as tlog-tiles says, and a proof beside what it proves. Long
// because of its table of cases.
func TestLog(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(debtest.Package{Name: "a"})
	s.publish()
	at := s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	if err := s.Bolt().PutKits(t.Context(), []meta.Kit{{Path: "v1/kit.iuk", Digest: cas.Sum([]byte("kit")), Size: 3}}); err != nil {
		t.Fatal(err)
	}
	key, _, err := tlog.LoadOrMakeKey(filepath.Join(t.TempDir(), "key"), "mirror.example.org/log")
	if err != nil {
		t.Fatal(err)
	}
	l, err := sequencer.Open(t.Context(), sequencer.Config{Store: s.Bolt(), Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Logged(s.Bolt()).Recover(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	srv := serverOf(t, s.Parts, s.freezer, nil, httpd.Config{Signer: s.signer, TLog: l, Conf: s.conf})
	defer srv.Close()
	get := func(path string) *http.Response {
		t.Helper()
		w := httptest.NewRecorder()
		srv.Public().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Result()
	}
	body := func(r *http.Response) string {
		t.Helper()
		var b strings.Builder
		if err := r.Write(&b); err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(b.String(), "\r\n\r\n")
		return text
	}
	const forever, ask = "public, max-age=31536000, immutable", "no-cache"
	for path, want := range map[string]struct {
		status int
		cache  string
		words  string
	}{
		"/log/checkpoint":                      {200, ask, "mirror.example.org/log\n4\n"},
		"/log/tile/0/000.p/4":                  {200, forever, ""},
		"/log/tile/0/000.p/1":                  {200, forever, ""},
		"/log/tile/entries/000.p/4":            {200, forever, "snapd/frozen/v1"},
		"/log/tile/0/000.p/5":                  {404, ask, ""},
		"/log/tile/0/000":                      {404, ask, ""},
		"/log/tile/entries/001.p/1":            {404, ask, ""},
		"/log/tile/1/000.p/1":                  {404, ask, ""},
		"/log/tile/0/x":                        {404, ask, ""},
		"/log/":                                {404, ask, ""},
		"/frozen/4.1/manifest.json.tlog-proof": {200, ask, "c2sp.org/tlog-proof@v1\nindex 2\n"},
		"/frozen/4.2/manifest.json.tlog-proof": {404, ask, ""},
		"/archive/debian/" + at + "/dists/stable/InRelease.tlog-proof":       {200, ask, "c2sp.org/tlog-proof@v1\nextra "},
		"/archive/debian/" + at + "/dists/stable/Other.tlog-proof":           {404, ask, ""},
		"/archive/debian/20200101T000000Z/dists/stable/InRelease.tlog-proof": {404, ask, ""},
		"/iuk/v1/kit.iuk.tlog-proof":                                         {200, ask, "c2sp.org/tlog-proof@v1\nindex 3\n"},
		"/iuk/v1/other.iuk.tlog-proof":                                       {404, ask, ""},
		"/log.vkey":                                                          {200, ask, key.Verifier().Text + "\n"},
	} {
		r := get(path)
		if text := body(r); r.StatusCode != want.status || r.Header.Get("Cache-Control") != want.cache || !strings.Contains(text, want.words) {
			t.Errorf("%s: %d, %q\n%s", path, r.StatusCode, r.Header.Get("Cache-Control"), text)
		}
	}
	sig := body(get("/log.vkey.asc"))
	if _, err := sign.VerifyDetached([]byte(key.Verifier().Text+"\n"), []byte(sig), sign.VerifyOptions{Keyring: s.signer.Keyring()}); err != nil {
		t.Errorf("signature of the key: %v", err)
	}
}
