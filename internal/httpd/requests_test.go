package httpd_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/sign/signtest"
)

// secret stands in files beside the ones that are served.
const secret = "nobody may read this"

// served makes a server without a listener, with a snapshot, a freeze and a
// recording, and tells the timestamp of the snapshot.
func served(f *testing.F) (srv *httpd.Server, timestamp string) {
	f.Helper()
	w := mirrortest.New(f, func(m *config.Mirror) { m.Download = config.OnDemand })
	w.Archive.Add(pkg("a", "1"), pkg("b", "1"))
	w.Archive.Publish(mirrortest.Start)
	snap := w.MustSync().Snapshot
	signer := signtest.Signer(f, signtest.NewKey(f, "snapd"))
	conf := config.Default()
	conf.DataDir, conf.Mirrors = w.Dir, w.Config.Mirrors
	z := freezertest.For(w.Parts, signer, nil)
	if _, err := z.Freeze(f.Context(), &api.FreezeRequest{Name: "4.1", Packages: []string{"a"}}, nil); err != nil {
		f.Fatal(err)
	}
	srv = serverOf(f, w.Parts, z, nil, httpd.Config{Signer: signer, Conf: &conf})
	f.Cleanup(srv.Close)
	for _, p := range []string{"secret", "blobs/secret", "quarantine/secret", "../secret"} {
		if err := os.WriteFile(filepath.Join(w.Dir, p), []byte(secret), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	askControl(f, srv, "record/start", `{"name":"build"}`)
	return srv, snap.Timestamp.Format("20060102T150405Z")
}

// askControl asks the control API as the socket's owner does.
func askControl(t testing.TB, srv *httpd.Server, verb, body string) string {
	t.Helper()
	return controlAnswer(t, srv, verb, body).Body.String()
}

func controlAnswer(t testing.TB, srv *httpd.Server, verb, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(httpd.WithPeer(t.Context(), &httpd.Peer{UID: uint32(os.Geteuid())}), http.MethodPost, "http://snapd/api/v1/x", strings.NewReader(body))
	r.URL.Path = "/api/v1/" + verb
	w := httptest.NewRecorder()
	srv.Control().ServeHTTP(w, r)
	return w
}

// local tells whether a Location stays on this server.
func local(loc string) bool {
	u, err := url.Parse(loc)
	return err == nil && strings.HasPrefix(loc, "/") && !strings.HasPrefix(loc, "//") && !strings.HasPrefix(loc, "/\\") && u.Host == ""
}

// Whatever arrives at the public listener: no panic, no error of the server,
// nothing from outside of what is published, and no success but of a reader.
func FuzzRequest(f *testing.F) {
	srv, at := served(f)
	h := "\r\nHost: snapd.example.org\r\n"
	for _, line := range []string{
		"GET / HTTP/1.1" + h, "HEAD /archive/debian/" + at + "/dists/stable/InRelease HTTP/1.1" + h, "GET /archive/debian/latest/pool/ HTTP/1.1" + h,
		"GET /archive/debian/2026-01-10/dists/stable/main/binary-amd64/Packages.xz HTTP/1.1" + h + "Range: bytes=5-9,11-\r\nIf-Range: \"x\"\r\n",
		"GET /frozen/4.1/manifest.json HTTP/1.1" + h + "If-None-Match: W/\"a\", *\r\nIf-Modified-Since: Sat, 10 Jan 2026 12:00:00 GMT\r\n",
		"GET /frozen/4.1/debian/dists/stable/by-hash/SHA256/00 HTTP/1.1" + h, "GET /frozen/4.1/debian/pool/main/a/a/a_1_amd64.deb HTTP/1.1" + h + "Range: bytes=-1\r\n",
		"GET /record/build/debian/pool/main/b/b/b_1_amd64.deb HTTP/1.1" + h, "GET /%2e%2e/%252e%252e/secret HTTP/1.1" + h, "GET /archive/debian/latest/../../../secret HTTP/1.1" + h,
		"GET /by-hash/SHA256/" + strings.Repeat("0", 64) + " HTTP/1.1" + h, "GET /file/" + strings.Repeat("a", 40) + " HTTP/1.1" + h, "GET /metrics HTTP/1.1" + h,
		"GET http://mirror.example.org/debian/dists/stable/InRelease HTTP/1.1" + h + "Proxy-Authorization: Basic YnVpbGQ6\r\n", "CONNECT mirror.example.org:443 HTTP/1.1" + h,
		"PUT /frozen/4.1/manifest.json HTTP/1.1" + h + "Content-Length: 1\r\n", "POST /api/v1/rm HTTP/1.1" + h, "OPTIONS * HTTP/1.1" + h, "GET /packages?q=a&mirror=debian HTTP/1.1" + h,
		"GET //evil.example.org/..//archive/debian HTTP/1.1" + h, "GET /archive/debian/2026-01-11//evil.example.org/ HTTP/1.1" + h, "GET /diff/debian@" + at + "/4.1 HTTP/1.1" + h, "GET /snapshots/debian?page=99999999999999999999 HTTP/1.1" + h,
	} {
		f.Add([]byte(line + "\r\n"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		r = r.WithContext(t.Context())
		r.RemoteAddr = "192.0.2.1:1234"
		w := httptest.NewRecorder()
		func() {
			defer func() {
				if p := recover(); p != nil && p != http.ErrAbortHandler {
					panic(p)
				}
			}()
			srv.Public().ServeHTTP(w, r)
		}()
		switch {
		case w.Code == http.StatusInternalServerError:
			t.Errorf("status %d: %s", w.Code, w.Body)
		case w.Code >= 300 && w.Code < 400 && w.Code != 304 && !local(w.Header().Get("Location")):
			t.Errorf("%q sends its client to %q", data, w.Header().Get("Location"))
		case w.Code < 300 && r.Method != http.MethodGet && r.Method != http.MethodHead:
			t.Errorf("%s: status %d", r.Method, w.Code)
		case bytes.Contains(w.Body.Bytes(), []byte(secret)):
			t.Error("a file beside those that are served")
		}
	})
}

// Whatever a caller of the control API says: one result or one error, no panic.
func FuzzControl(f *testing.F) {
	srv, at := served(f)
	for _, s := range [][2]string{
		{"status", "{}"}, {"show", `{"ref":"4.1"}`}, {"show", `{"ref":"debian@` + at + `"}`}, {"packages", `{"ref":"debian@latest"}`}, {"find", `{"name":"a","version":"1"}`},
		{"pin", `{"ref":"debian@latest","until":"2030-01-01T00:00:00Z"}`}, {"record/show", `{"name":"build"}`}, {"record/start", `{"name":"../x","mirrors":["debian@2026-01-10"]}`},
		{"mirror/show", `{"mirror":"debian"}`}, {"list", `{"mirror":"debian","frozen":true}`}, {"rm", `{"ref":"debian@19990101T000000Z"}`}, {"kit/publish", `{"files":[{"file":"/dev/zero","path":"../x"}]}`},
		{"show", `{"ref":1}`}, {"show", "[" + strings.Repeat("[", 100)}, {"fly", ""},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, verb, body string) {
		if verb == "sync" {
			return // asks upstream
		}
		w := controlAnswer(t, srv, verb, body)
		var v any
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Fatalf("%s %q: %v in %s", verb, body, err, w.Body)
		}
		var p api.ProblemDetails
		switch err := json.Unmarshal(w.Body.Bytes(), &p); {
		case w.Code == http.StatusOK || w.Code == http.StatusAccepted:
		case err != nil || p.Status != w.Code || p.Code == "" || p.Detail == "" || w.Header().Get("Content-Type") != api.ProblemType:
			t.Errorf("%s %q: status %d, %s", verb, body, w.Code, w.Body)
		case w.Code == http.StatusInternalServerError:
			t.Errorf("%s %q: %s", verb, body, w.Body)
		}
	})
}
