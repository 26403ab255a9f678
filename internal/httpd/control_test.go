package httpd_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// Only this process's user and root may use the socket.
func TestPeer(t *testing.T) {
	s := newSite(t, nil)
	dir := t.TempDir()
	for name, c := range map[string]struct {
		cred *httpd.Peer
		want string
	}{
		"own":     {&httpd.Peer{UID: uint32(os.Geteuid())}, ""},
		"root":    {&httpd.Peer{UID: 0}, ""},
		"other":   {&httpd.Peer{UID: 65534}, "control socket: forbidden: user 65534 may not control this snapd"},
		"unknown": {nil, "control socket: forbidden: the caller's user is unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() == 65534 {
				t.Skip("runs as the other user")
			}
			sock := filepath.Join(dir, name)
			l, err := net.Listen("unix", sock)
			if err != nil {
				t.Fatal(err)
			}
			h := &http.Server{Handler: s.srv.Control(), ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return httpd.WithPeer(ctx, c.cred) }}
			go h.Serve(l)
			defer h.Close()
			err = client.Local(sock).Call(t.Context(), "mirror/list", api.Empty{}, nil, nil)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("error %v, expected %q", err, c.want)
			}
		})
	}
}

func TestControlRefuses(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	for _, c := range []struct {
		name, verb string
		req        any
		code       string
		exit       int
		message    string
		reason     string
	}{
		{"unknown verb", "fly", api.Empty{}, api.CodeNotFound, 2, `this snapd does not support "fly"`, "verb"},
		{"unknown field", "sync", map[string]any{"speed": 1}, api.CodeUsage, 2, `usage: request: json: unknown field "speed"`, ""},
		{"other type", "sync", []int{1}, api.CodeUsage, 2, "usage: request: json: cannot unmarshal array into Go value of type api.SyncRequest", ""},
		{"no mirror", "mirror/show", api.MirrorRef{Mirror: "x"}, api.CodeNotFound, 1, "no such mirror: x (configured: debian)", "mirror"},
		{"no ref", "show", api.ShowRequest{Ref: "a/b"}, api.CodeUsage, 2, `not a reference: "a/b": expected NAME, MIRROR@TIMESTAMP or MIRROR@latest`, "reference"},
		{"a mirror is no ref", "show", api.ShowRequest{Ref: "debian"}, api.CodeUsage, 2, "not a reference: debian is a mirror: expected a freeze, or debian@latest", "reference"},
		{"no timestamp", "show", api.ShowRequest{Ref: "debian@soon"}, api.CodeUsage, 2, `not a reference: timestamp "soon": expected a form like 20261122T160000Z or 2026-11-22`, "reference"},
		{"too early", "show", api.ShowRequest{Ref: "debian@1999-12-31"}, api.CodeNotFound, 1, "mirror debian has no snapshot at or before 19991231T000000Z: not found", ""},
		{"no freeze", "packages", api.RefRequest{Ref: "4.2"}, api.CodeNotFound, 1, "freeze 4.2: not found", ""},
		{"pin a freeze", "pin", api.PinRequest{Ref: "4.1"}, api.CodeUsage, 2, "usage: 4.1 is a freeze, which stays until it is removed: expected MIRROR@TIMESTAMP", ""},
		{"record a frozen name", "record/start", api.RecordStart{Name: "4.1"}, api.CodeExists, 1, "recording 4.1: the name is taken: a freeze has it", ""},
		{"no recording", "record/show", api.RecordRef{Name: "x"}, api.CodeNotFound, 1, "recording x: not found", ""},
		{"find nothing", "find", api.FindRequest{}, api.CodeUsage, 2, "usage: find needs a query, or a package's name", ""},
		{"as without from", "sync", map[string]any{"as": "2026-01-01T00:00:00Z"}, api.CodeUsage, 2, "usage: --from-url and --as must be used together: the URL of the older state, and its timestamp", ""},
		{"kit without files", "kit/publish", api.KitPublish{Files: []api.KitFile{{Path: "x"}}}, api.CodeUsage, 2, "usage: request: request Content-Type isn't multipart/form-data", ""},
		{"image that is not recorded", "image/get", api.ImageGet{Name: "4.1", SHA256: strings.Repeat("a", 64)}, api.CodeNotFound, 1, "image " + strings.Repeat("a", 64) + " of 4.1: not found", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := s.fails(c.verb, c.req)
			if d := cmp.Diff(&api.Error{Code: c.code, Reason: c.reason, Message: c.message, Exit: c.exit}, e); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// status warns of keys that expire: the signing key, and those that signed what
// is kept.
func TestExpiringKeys(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	warnings := func() []string {
		var st api.Status
		s.call("status", api.Empty{}, &st)
		return st.Warnings
	}
	use := func(k *sign.PrivateKey) {
		s.signer = signtest.Signer(t, k)
		s.restart()
	}
	if w := warnings(); len(w) != 0 {
		t.Errorf("a key that does not expire: %q", w)
	}
	soon := signtest.NewExpiringKey(t, "soon", time.Date(2090, 1, 2, 3, 4, 5, 0, time.UTC))
	use(soon)
	s.call("freeze", api.FreezeRequest{Name: "4.0"}, nil)
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	if d := cmp.Diff([]string{"the signing key expires on 2090-01-02: apt refuses what it signed from then on (snapctl key renew)"}, warnings()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	use(signtest.NewExpiringKey(t, "past", time.Date(2021, 1, 2, 3, 4, 5, 0, time.UTC)))
	if d := cmp.Diff([]string{
		"the signing key expired on 2021-01-02: apt refuses what it signed (snapctl key renew)",
		"key " + string(soon.Fingerprint()) + ", which signed 4.0 and 1 more freeze, expires on 2090-01-02: apt refuses what it signed from then on",
	}, warnings()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestFindAndShow(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"), pkg("b", "1"))
	s.publish()
	one := "debian@" + s.sync()
	s.Archive.Default().Remove("a", "1")
	s.Archive.Add(pkg("a", "2"))
	s.publish()
	two := "debian@" + s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1", Mirrors: []string{one}}, nil)
	var found api.FindResult
	s.call("find", api.FindRequest{Name: "a"}, &found)
	type row struct{ Version, First, Last string }
	var rows []row
	for _, m := range found.Matches {
		rows = append(rows, row{m.Version, m.First, m.Last})
		if !m.Here || m.SHA256 == "" || m.Version == "1" != cmp.Equal(m.Frozen, []string{"4.1"}) {
			t.Errorf("match: %+v", m)
		}
	}
	if d := cmp.Diff([]row{{"2", two, two}, {"1", one, one}}, rows); d != "" {
		t.Errorf("find: -want +got\n%s", d)
	}
	var list api.PackageList
	s.call("packages", api.RefRequest{Ref: "debian@latest"}, &list)
	if len(list.Packages) != 2 || list.Ref != two || list.Packages[0].Name != "a" || list.Packages[0].Version != "2" || !cmp.Equal(list.Packages[0].Suites, []string{"stable"}) || !cmp.Equal(list.Packages[0].Components, []string{"main"}) {
		t.Errorf("packages: %+v", list)
	}
	// Of a freeze: the same as of its snapshot, and on its page those that are asked for.
	var of, frozen api.PackageList
	s.call("packages", api.RefRequest{Ref: one}, &of)
	s.call("packages", api.RefRequest{Ref: "4.1"}, &frozen)
	if d := cmp.Diff(of.Packages, frozen.Packages); d != "" || frozen.Ref != "4.1" {
		t.Errorf("packages of %s (-snapshot +freeze):\n%s", frozen.Ref, d)
	}
	if page := s.get("/freeze/4.1?q=b*").body; !strings.Contains(page, "b_1_amd64.deb") || strings.Contains(page, "a_1_amd64.deb") {
		t.Errorf("page of the freeze, packages that begin with b:\n%s", page)
	}
	var shown api.ShowResult
	s.call("show", api.ShowRequest{Ref: one}, &shown)
	if sn := shown.Snapshot; sn == nil || sn.ID != one || !cmp.Equal(sn.UsedBy, []string{"freeze 4.1"}) || len(sn.Suites) != 1 || len(sn.Suites[0].Signers) != 1 || sn.Suites[0].Packages != 2 {
		t.Errorf("show: %+v", shown.Snapshot)
	}
	var pinned api.Snapshot
	s.call("pin", api.PinRequest{Ref: one}, &pinned)
	if !pinned.Pinned || pinned.Until != nil {
		t.Errorf("pin: %+v", pinned)
	}
	if e := s.fails("rm", api.RefRequest{Ref: one}); e.Code != api.CodeInUse {
		t.Errorf("removing what is pinned: %+v", e)
	}
	s.call("unpin", api.PinRequest{Ref: one}, nil)
	if e := s.fails("rm", api.RefRequest{Ref: one}); e.Code != api.CodeInUse || !strings.Contains(e.Message, "freeze 4.1") {
		t.Errorf("removing what a freeze names: %+v", e)
	}
	s.call("rm", api.RefRequest{Ref: "4.1"}, nil)
	s.call("rm", api.RefRequest{Ref: one}, nil)
	if e := s.fails("show", api.ShowRequest{Ref: one}); e.Code != api.CodeGone {
		t.Errorf("after rm: %+v", e)
	}
	// A timestamp that falls where snapshots were removed names no other.
	if e := s.fails("show", api.ShowRequest{Ref: strings.Replace(one, "Z", "", 1)}); e.Code != api.CodeGone {
		t.Errorf("at a removed one: %+v", e)
	}
}

// send runs a verb that takes files.
func (s *site) send(verb string, req any, res any, files ...string) error {
	return s.control.Send(s.t.Context(), verb, req, files, res, nil)
}

func TestKits(t *testing.T) {
	s := newSite(t, nil)
	dir := t.TempDir()
	file := filepath.Join(dir, "kit.iuk")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("kit.iuk", "kit")
	write("upgrades.yml", "up")
	modified := time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	both := api.KitPublish{Files: []api.KitFile{{Path: "v1/kit.iuk", SHA256: cas.Sum([]byte("kit")).String(), Modified: &modified}, {Path: "/v1/upgrades.yml"}}}
	var res api.KitPublish
	if err := s.send("kit/publish", both, &res, file, filepath.Join(dir, "upgrades.yml")); err != nil {
		t.Fatal(err)
	}
	if want := cas.Sum([]byte("up")).String(); res.Files[1].SHA256 != want {
		t.Errorf("published %+v, expected %s", res, want)
	}
	for path, want := range map[string]string{"/iuk/v1/kit.iuk": "application/octet-stream", "/iuk/v1/upgrades.yml": "application/yaml", "/iuk/v1/": "text/html; charset=utf-8"} {
		if a := s.get(path); a.StatusCode != 200 || a.Header.Get("Content-Type") != want || a.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: status %d, %q", path, a.StatusCode, a.Header)
		}
	}
	if a := s.get("/iuk/v1/kit.iuk"); a.body != "kit" || a.Header.Get("Last-Modified") != "Thu, 04 Mar 2021 05:06:07 GMT" {
		t.Errorf("the kit: %q, %q", a.body, a.Header)
	}
	write("kit.iuk", "kit 2")
	one := api.KitPublish{Files: []api.KitFile{{Path: "v1/kit.iuk"}}}
	if err := s.send("kit/publish", one, nil, file); err != nil {
		t.Fatal(err)
	}
	if a := s.get("/iuk/v1/kit.iuk"); a.body != "kit 2" {
		t.Errorf("after publishing again: %q", a.body)
	}
	// What is refused publishes nothing.
	for name, c := range map[string]struct {
		req   api.KitPublish
		files []string
		want  string
	}{
		"outside":      {api.KitPublish{Files: []api.KitFile{{Path: "../x"}}}, []string{file}, `path "../x" below /iuk/: expected a relative path that stays below it`},
		"nothing":      {api.KitPublish{}, nil, "no file to publish"},
		"fewer files":  {api.KitPublish{Files: []api.KitFile{{Path: "a"}, {Path: "b"}}}, []string{file}, "unexpected EOF"},
		"other bytes":  {api.KitPublish{Files: []api.KitFile{{Path: "v1/kit.iuk", SHA256: cas.Sum([]byte("kit")).String()}}}, []string{file}, "content mismatch"},
		"no digest":    {api.KitPublish{Files: []api.KitFile{{Path: "v1/kit.iuk", SHA256: "x"}}}, []string{file}, `SHA-256 "x"`},
		"no such file": {one, []string{filepath.Join(dir, "absent")}, "no such file"},
		"no file":      {one, []string{"/dev/null"}, "not a regular file"},
	} {
		if err := s.send("kit/publish", c.req, nil, c.files...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
	if a := s.get("/iuk/v1/kit.iuk"); a.body != "kit 2" {
		t.Errorf("after what was refused: %q", a.body)
	}
}

// An image is sent to the server and got back over the socket, with its bytes
// verified; neither side names a path of the other.
func TestImageBytes(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	data := bytes.Repeat([]byte("image "), 1<<20)
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var im api.Image
	if err := s.send("image/add", api.ImageAdd{Name: "4.1"}, &im, file); err != nil {
		t.Fatal(err)
	}
	if im.SHA256 != cas.Sum(data).String() || im.Size != int64(len(data)) {
		t.Errorf("recorded %+v", im)
	}
	get := func(want string) ([]byte, error) {
		var got bytes.Buffer
		err := s.control.Receive(t.Context(), "image/get", api.ImageGet{Name: "4.1", SHA256: im.SHA256}, want, &got, nil)
		return got.Bytes(), err
	}
	if got, err := get(im.SHA256); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes back: %v", len(got), err)
	}
	if _, err := get(strings.Repeat("a", 64)); !errors.Is(err, client.ErrTruncated) {
		t.Errorf("bytes of another digest: %v", err)
	}
	// A large file that is refused is still told why.
	if err := s.send("image/add", api.ImageAdd{Name: "4.2"}, &im, file); err == nil || !strings.Contains(err.Error(), "4.2: not found") {
		t.Errorf("an image of no freeze: %v", err)
	}
	os.Remove(s.blobFile(data))
	if err := os.WriteFile(s.blobFile(data), data[:100], 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := get(im.SHA256); !errors.Is(err, client.ErrTruncated) {
		t.Errorf("a corrupt image: %v", err)
	}
}

// What a kit consists of may be a collection candidate already, because another
// took its place. A collection beside the publication takes none of it.
func TestKitBesideCollection(t *testing.T) {
	s := newSite(t, nil)
	s.stop()
	between := &castest.Between{Store: s.Blobs()}
	s.Config.Blobs = between
	s.Parts.Close()
	var err error
	if s.Parts, err = mirrortest.Compose(s.Config); err != nil {
		t.Fatal(err)
	}
	s.start()
	c := gc.New(gc.Config{Formats: repo.ByType[gc.Format](s.Parts.Formats()...), Catalog: s.Parts, Acquirer: s.Parts, Meta: s.Store(), Blobs: s.Blobs(), Quarantine: -100 * 365 * 24 * time.Hour, Now: s.Now})
	between.After = func() {
		if _, err := c.Run(t.Context(), false); err != nil {
			t.Error(err)
		}
	}
	file := filepath.Join(t.TempDir(), "kit.iuk")
	for _, text := range []string{"one", "two", "one", "two"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.send("kit/publish", api.KitPublish{Files: []api.KitFile{{Path: "v1/kit.iuk"}}}, nil, file); err != nil {
			t.Fatal(err)
		}
		if a := s.get("/iuk/v1/kit.iuk"); a.body != text {
			t.Fatalf("published %q, served %d %q", text, a.StatusCode, a.body)
		}
	}
}

// Bodies of packages are left to the server in front where that is configured,
// once they have been read whole and were right.
func TestAccel(t *testing.T) {
	for header, want := range map[string]string{"X-Accel-Redirect": "/internal/blobs/", "X-Sendfile": "/blobs/"} {
		t.Run(header, func(t *testing.T) {
			s := newSite(t, nil, func(c *config.Config) {
				c.Server.Accel, c.Server.AccelPrefix = header, "/internal/"
			})
			body := []byte(strings.Repeat("0123456789abcdef", 40_000))
			s.Archive.Add(debtest.Package{Name: "a", Body: body})
			s.publish()
			u := "/archive/debian/" + s.sync() + "/" + s.Archive.Default().PathOf("a")
			if a := s.get(u); a.body != string(body) || a.Header.Get(header) != "" {
				t.Errorf("first read: %d bytes, %s %q", len(a.body), header, a.Header.Get(header))
			}
			a := s.get(u)
			d := cas.Sum(body).String()
			if header == "X-Sendfile" {
				want = s.Dir + want
			}
			if got := a.Header.Get(header); got != want+d[:2]+"/"+d || a.body != "" || a.Header.Get("Cache-Control") == "" {
				t.Errorf("later: %s %q, %d bytes", header, got, len(a.body))
			}
			// The server in front would judge these by its own date of the file.
			const other = "Tue, 01 Jan 2019 00:00:00 GMT"
			for _, condition := range []string{"If-Modified-Since: " + other, "Range: bytes=5-\r\nIf-Range: " + other} {
				if a := s.get(u, condition); a.StatusCode != http.StatusOK || a.Header.Get(header) != "" || a.body != string(body) {
					t.Errorf("%q: %s, %s %q, %d bytes", condition, a.Status, header, a.Header.Get(header), len(a.body))
				}
			}
		})
	}
}

// What a snapshot was taken in spite of is said by the sync, also when nothing
// changed, by the status and by what is shown of the mirror.
func TestMirrorWarnings(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Default().EditRelease = func(text string) string {
		return strings.Replace(text, "\nDate: ", "\nX-Date: ", 1) + "Suite: stable\n"
	}
	s.Archive.Default().EditIndex = func(path string, plain []byte) []byte {
		if !strings.Contains(path, "Packages") {
			return plain
		}
		return []byte(strings.Replace(string(plain), "\nArchitecture:", "\nX:", 2))
	}
	s.Archive.Add(pkg("a", "1"), pkg("b", "1"), pkg("c", "1"))
	s.publish()
	var got api.SyncResult
	for range 2 {
		got = api.SyncResult{}
		s.call("sync", api.SyncRequest{Mirrors: []string{"debian"}}, &got)
		if len(got.Mirrors) != 1 || got.Mirrors[0].Error != nil {
			t.Fatalf("sync: %+v", got)
		}
	}
	want := []string{
		"suite stable: Release has no Date, its signature's time " + s.Now().Format(time.RFC1123) + " is used",
		"suite stable: Release: field suite is repeated; the last one counts",
		"suite stable: main/binary-amd64/Packages: 2 stanzas that no client can install are left out (the first: a 1: no Architecture)",
	}
	var list api.MirrorList
	s.call("mirror/list", api.Empty{}, &list)
	var status api.Status
	s.call("status", api.Empty{}, &status)
	var shown api.MirrorDetail
	s.call("mirror/show", api.MirrorRef{Mirror: "debian"}, &shown)
	for what, warnings := range map[string][]string{
		"sync": got.Mirrors[0].Warnings, "mirror list": list.Mirrors[0].Warnings, "status": status.Mirrors[0].Warnings, "mirror show": shown.Warnings,
	} {
		if d := cmp.Diff(want, warnings); d != "" {
			t.Errorf("%s: -want +got\n%s", what, d)
		}
	}
	if !shown.Suites[0].Undated || shown.Suites[0].Packages != 1 {
		t.Errorf("suite: %+v", shown.Suites[0])
	}
}

// What an older version stored, or somebody asks for, is shown without secrets.
func TestStoredSecrets(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	const secret = "s3cr3t"
	failed := meta.Check{Checked: s.Now(), Error: `get http://alice:` + secret + `@mirror.example.org/x?token=` + secret + `: 404`}
	if err := s.Store().SetCheck(t.Context(), "debian", failed); err != nil {
		t.Fatal(err)
	}
	var list api.MirrorList
	s.call("mirror/list", api.Empty{}, &list)
	if got, want := list.Mirrors[0].Error, "get http://mirror.example.org/x?token=xxxxx: 404"; got != want {
		t.Errorf("got %s, expected %s", got, want)
	}
	if page := s.get("/mirror/debian").body; strings.Contains(page, secret) || !strings.Contains(page, "mirror.example.org/x?token=xxxxx: 404") {
		t.Errorf("page: %s", page)
	}
	as := s.Now().Add(-time.Hour)
	for _, u := range []string{
		"http://alice:" + secret + "@mirror.example.org/", "http://mirror.example.org/#" + secret, "http://mirror.example.org/?token=" + secret + "#" + secret, "gopher:" + secret,
	} {
		if e := s.fails("sync", api.SyncRequest{Mirrors: []string{"debian"}, FromURL: u, As: &as}); e.Exit != api.ExitUsage || strings.Contains(e.Message, secret) || !strings.Contains(e.Message, "--from-url \"") {
			t.Errorf("from %s: %+v", u, e)
		}
	}
}

// A state can be imported from a URL with a token: its packages are downloaded from
// there later with the token, which is never shown.
func TestImportWithToken(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	const secret = "s3cr3t"
	s.Archive.Add(pkg("b", "1"))
	s.publish()
	as := s.Now()
	s.SetNow(s.Now().Add(time.Hour))
	s.Archive.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("token") == secret {
			return false
		}
		http.Error(w, "forbidden", http.StatusForbidden)
		return true
	}
	s.call("sync", api.SyncRequest{Mirrors: []string{"debian"}, FromURL: s.Server.URL + "/?token=" + secret, As: &as}, nil)
	ref := "debian@" + meta.FormatTimestamp(as)
	var shown api.ShowResult
	s.call("show", api.ShowRequest{Ref: ref}, &shown)
	if got, want := shown.Snapshot.FromURL, s.Server.URL+"/?token=xxxxx"; got != want {
		t.Errorf("imported from %s, expected %s", got, want)
	}
	if a := s.get("/archive/debian/" + meta.FormatTimestamp(as) + "/pool/main/b/b/b_1_amd64.deb"); a.StatusCode != 200 {
		t.Errorf("package: %d %s", a.StatusCode, a.body)
	}
	if page := s.get("/snapshot/" + ref).body; strings.Contains(page, secret) {
		t.Errorf("page: %s", page)
	}
}
