package daemon

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/repo/deb/debtest"
)

// call runs a verb that must succeed.
func call[T any](r *run, verb string, req any) (out T) {
	r.t.Helper()
	if err := r.ctl.Call(r.t.Context(), verb, req, &out, nil); err != nil {
		r.t.Fatalf("%s: %v\n%s", verb, err, r.log)
	}
	return out
}

// try gets a URL; the status is 0 when the connection is cut.
func try(url string) (int, string) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(b)
}

// spoil damages the blob with these bytes on a snapd's disk.
func (r *run) spoil(data []byte) (digest string) {
	r.t.Helper()
	d := cas.Sum(data)
	file := filepath.Join(r.cfg.DataDir, casdir.Name(d))
	if _, err := os.Stat(file); err != nil {
		r.t.Fatal(err)
	}
	bad := slices.Clone(data)
	bad[len(bad)/2] ^= 1
	if err := os.Remove(file); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(file, bad, 0o444); err != nil {
		r.t.Fatal(err)
	}
	return d.String()
}

// Damaged and missing blobs come back from another snapd when upstream is gone,
// and are served again at once; what nobody has is said to be lost. Long because
// it is one story from beginning to end.
func TestRepairFrom(t *testing.T) {
	a := debtest.New(t)
	var gone atomic.Bool // upstream forgets everything
	a.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if gone.Load() {
			http.NotFound(w, r)
		}
		return gone.Load()
	}
	a.Add(debtest.Package{Name: "a"}, debtest.Package{Name: "b"})
	a.Publish(time.Now().Add(-time.Hour))
	up := httptest.NewServer(a.Handler())
	t.Cleanup(up.Close)
	text := mirrorText(a, "debian", up.URL, "download = \"all\"")
	one, other := start(t, testConfig(t, text)), start(t, testConfig(t, text))
	for _, r := range []*run{one, other} {
		call[api.SyncResult](r, "sync", api.SyncRequest{})
	}
	call[api.FreezeResult](one, "freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"a"}})
	manifestURL := one.public + "/frozen/4.1/manifest.json"
	_, manifest := get(t, manifestURL)

	deb, index := a.Get(a.Default().PathOf("a")), a.Get("dists/stable/main/binary-amd64/Packages.xz")
	debURL, frozenURL := one.public+"/archive/debian/latest/"+a.Default().PathOf("a"), one.public+"/frozen/4.1/debian/"+a.Default().PathOf("a")
	indexURL := one.public + "/archive/debian/latest/dists/stable/main/binary-amd64/Packages.xz"
	rotten, lost := one.spoil(deb), one.spoil([]byte(manifest))
	missing := cas.Sum(index).String()
	if err := os.Remove(filepath.Join(one.cfg.DataDir, casdir.Name(cas.Sum(index)))); err != nil {
		t.Fatal(err)
	}
	gone.Store(true)
	// Its first read is cut before the end; from then on it is known.
	for i, u := range []string{debURL, debURL, frozenURL} {
		if code, body := try(u); code == 200 || i > 0 && code != 500 {
			t.Errorf("request %d of a damaged blob: status %d, %d bytes", i, code, len(body))
		}
	}
	fsck := func(req api.FsckRequest, exit int, repaired, gone []string) (faults string) {
		t.Helper()
		res := call[api.FsckResult](one, "fsck", req)
		for _, s := range [][]string{repaired, gone, res.Repaired, res.Lost} {
			slices.Sort(s)
		}
		if res.Exit != exit || !slices.Equal(res.Repaired, repaired) || !slices.Equal(res.Lost, gone) {
			t.Errorf("fsck %+v: exit %d, repaired %v, lost %v; expected %d, %v, %v", req, res.Exit, res.Repaired, res.Lost, exit, repaired, gone)
		}
		for _, f := range res.Faults {
			faults += f.Object + ": " + f.Message + "\n"
		}
		return faults
	}
	faults := fsck(api.FsckRequest{}, api.ExitVerify, nil, nil)
	for _, want := range []string{
		"blob " + rotten + ": its bytes now have SHA-256 ", "needed by freeze 4.1, package a 1.0-1 amd64 of mirror debian\n",
		"blob " + missing + ": missing; needed by freeze 4.1, index of suite stable of mirror debian, generation 1 (", "blob " + lost + ": its bytes now have",
	} {
		if !strings.Contains(faults, want) {
			t.Errorf("fsck does not say %q:\n%s", want, faults)
		}
	}
	all := []string{rotten, missing, lost}
	// With upstream away nothing can be repaired, and nothing is made worse.
	if faults := fsck(api.FsckRequest{Repair: true}, api.ExitVerify, nil, all); strings.Count(faults, "cannot be repaired") != 3 || !strings.Contains(faults, "name a backup or another snapd with --from") {
		t.Errorf("faults:\n%s", faults)
	}
	// Nor from one who has other bytes.
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "anything") }))
	t.Cleanup(liar.Close)
	fsck(api.FsckRequest{Repair: true, From: liar.URL}, api.ExitVerify, nil, all)
	for _, u := range []string{debURL, frozenURL, manifestURL} {
		if code, _ := try(u); code < 500 {
			t.Errorf("%s: status %d before the repair", u, code)
		}
	}
	fsck(api.FsckRequest{Repair: true, From: other.public + "/"}, api.ExitVerify, []string{rotten, missing}, []string{lost})
	for u, want := range map[string]string{debURL: string(deb), frozenURL: string(deb), indexURL: string(index)} {
		if code, body := get(t, u); code != 200 || body != want {
			t.Errorf("%s: status %d, %d bytes after the repair", u, code, len(body))
		}
	}
	if code, _ := try(manifestURL); code != 500 {
		t.Errorf("a manifest that is lost: status %d", code)
	}
	if st := one.status(); !slices.Equal(st.Damaged, []string{lost}) {
		t.Errorf("status: damaged %v", st.Damaged)
	}
	// The quarantine has what rotted, for whoever wants to look.
	for _, d := range []string{rotten, lost} {
		if m, err := filepath.Glob(filepath.Join(one.cfg.DataDir, "quarantine", d+".*.rotten")); err != nil || len(m) != 1 {
			t.Errorf("in quarantine: %v, %v", m, err)
		}
	}
	// All of it is so after a restart, too.
	one.end()
	one = start(t, one.cfg)
	if st := one.status(); !slices.Equal(st.Damaged, []string{lost}) {
		t.Errorf("status after a restart: damaged %v", st.Damaged)
	}
	fsck(api.FsckRequest{Repair: true}, api.ExitVerify, nil, []string{lost})
}
