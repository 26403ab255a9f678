package rpm_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// beside serves a repository at /x/os whose packages are at /x/Packages.
func beside(t *testing.T, up *rpmtest.Repo) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ok := strings.CutPrefix(r.URL.Path, "/x/")
		meta, inside := strings.CutPrefix(rest, "os/")
		if !ok || inside == strings.HasPrefix(rest, "Packages/") {
			http.NotFound(w, r)
			return
		}
		r.URL.Path = "/" + meta
		up.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// With allow_parent = true, packages in the parent of the repository's directory are
// accepted, but not in directories above that.
func TestAllowParent(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	up := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	place := "../Packages/"
	up.Edit = func(typ string, doc []byte) []byte {
		if typ == "primary" {
			return bytes.ReplaceAll(doc, []byte(`href="Packages/`), []byte(`href="`+place))
		}
		return doc
	}
	built := up.Add(rpmtest.Package{Name: "app", Version: "1.0", Requires: []string{"lib"}}, rpmtest.Package{Name: "lib", Version: "1.0"}, rpmtest.Package{Name: "spare", Version: "1.0"})
	up.Publish(start)
	url := beside(t, up)
	m := config.Mirror{Name: "parent", Type: "rpm", URL: remote.NewURL(url + "/x/os/"), Architectures: []string{"x86_64"},
		Keyring: config.Strings{signtest.KeyringFile(t, key)}, Download: config.OnDemand, AllowParent: true}
	strict := m
	strict.Name, strict.AllowParent = "strict", false
	w := newWorld(t, rpmtest.Options{}, nil, m, strict)

	if _, err := w.Sync(t.Context(), "strict", mirror.SyncOptions{}); !errors.Is(err, repo.ErrHostile) || !strings.Contains(err.Error(), "allow_parent = true allows packages in the parent") {
		t.Errorf("without allow_parent: %v", err)
	}
	res, err := w.Sync(t.Context(), "parent", mirror.SyncOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{built[0].Href(): true, "os/repodata/repomd.xml": true, "os/" + up.Find("primary.xml.gz"): true, "repodata/repomd.xml": false, "os/" + built[0].Href(): false} {
		found, err := w.Lookup(t.Context(), res.Snapshot, path, false)
		if (err == nil) != want || want && strings.HasSuffix(path, ".rpm") && found.Digest != cas.Sum(built[0].Bytes) {
			t.Errorf("%s: %+v, %v", path, found, err)
		}
	}
	keys := []string{string(w.ours.Keyring().ExportArmored()), string(key.Keyring().ExportArmored())}
	for name, req := range map[string]*api.FreezeRequest{"whole": {All: true}, "part": {Packages: []string{"app", "lib"}}} {
		req.Name, req.Mirrors = name, []string{"parent"}
		if _, err := w.z.Freeze(t.Context(), req, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, name)
		src, err := w.z.Sources(t.Context(), &api.SourcesRequest{Ref: name})
		if err != nil || !strings.Contains(src.Text, "\nbaseurl=http://snapd.example.org/frozen/"+name+"/parent/os\n") {
			t.Errorf("%s: %+v, %v", name, src, err)
		}
		dir := filepath.Join(t.TempDir(), "export")
		if _, err := w.z.Export(t.Context(), name, dir, nil); err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
		if got := strings.Join(rpmtest.Install(t, srv.URL+"/parent/os", keys, true, "app"), " "); got != "app-1.0-1.noarch lib-1.0-1.noarch" {
			t.Errorf("%s: dnf installed %s", name, got)
		}
		srv.Close()
	}

	got, err := rpm.Format{}.Resolve(t.Context(), []repo.SourceParams{{Name: "x", URL: url + "/x", Suites: []repo.SuiteName{"os"}}}, []string{"x86_64"}, []string{"app"})
	if err != nil || len(got) != 2 {
		t.Errorf("with dependencies: %+v, %v", got, err)
	}

	// An href must not lead two levels up, nor contain ".." after its first segment.
	for i, bad := range []string{"../../Packages/", "Packages/../../", "%2e%2e/Packages/", "../%2e%2e/Packages/"} {
		place = bad
		up.Publish(start.Add(time.Duration(i+1) * time.Hour))
		w.now = w.now.Add(2 * time.Hour)
		if _, err := w.Sync(t.Context(), "parent", mirror.SyncOptions{}); !errors.Is(err, repo.ErrHostile) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
