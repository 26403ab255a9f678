package story

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// An export that any web server has, as files or as a tar stream, is verified and
// imported by its URL, also over connections that are cut; a wrong one changes nothing.
// Long because all of it is about one export.
func TestExportAtURL(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg", "sha256sum")
	t.Setenv("TMPDIR", t.TempDir())
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "lib", Version: "1", Files: map[string]string{"/usr/share/lib": noise(3 << 20)}},
		debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	s := start(t, config)
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "app", "--package", "lib", "--no-sources")
	dir := t.TempDir()
	export := filepath.Join(dir, "releases", "4.1")
	s.Ctl("export", "4.1", export)
	if err := os.WriteFile(filepath.Join(dir, "4.1.tar"), []byte(s.Ctl("export", "4.1", "-")), 0o644); err != nil {
		t.Fatal(err)
	}
	check := exec.Command("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	check.Dir = export
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}

	var cut, cuts atomic.Int64 // the first responses for large files end after 1 MiB
	files := http.FileServer(http.Dir(dir))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/lib_1_amd64.deb") && cut.Add(-1) >= 0 {
			cuts.Add(1)
			w = &shortWriter{w, 1 << 20}
		}
		files.ServeHTTP(w, r)
	}))
	defer web.Close()
	url := web.URL + "/releases/4.1"

	empty := func() *server { return start(t, "data_dir = \"%DATA%\"\n[server]\nlisten = \"%ADDR%\"\n") }
	installed := func(from *server) {
		t.Helper()
		from.Ctl("verify", "4.1", "--deep")
		from.installs("4.1", "app", "1")
	}
	first := empty()
	var r api.VerifyResult
	secret := first.Ctl("verify", url+"?signature=hidden")
	if strings.Contains(secret, "hidden") {
		t.Errorf("verify shows what may be a secret:\n%s", secret)
	}
	cut.Store(1)
	first.JSON(&r, "verify", url, "--deep")
	if r.Ref != url || r.Exit != api.ExitOK || cuts.Load() != 1 {
		t.Errorf("verify: %+v, %d cuts", r, cuts.Load())
	}
	cut.Store(1)
	first.Ctl("import", url+"/")
	if cuts.Load() < 2 {
		t.Errorf("%d cuts", cuts.Load())
	}
	installed(first)
	second := empty()
	second.Ctl("verify", web.URL+"/4.1.tar")
	second.Ctl("import", web.URL+"/4.1.tar")
	installed(second)

	third := empty()
	for _, c := range []struct {
		what, url string
		damage    func()
		exit      int
		want      string
	}{
		{"nothing there", web.URL + "/releases/4.2", nil, api.ExitFailed, "no export at this URL"},
		{"a tar that is not there", web.URL + "/4.2.tar", nil, api.ExitFailed, "404"},
		{"a tar of something else", web.URL + "/other.tar", func() {
			os.WriteFile(filepath.Join(dir, "other.tar"), []byte(strings.Repeat("x", 4096)), 0o644)
		}, api.ExitFailed, "not a tar stream of an export"},
		{"a password", strings.Replace(url, "//", "//me:secret@", 1), nil, api.ExitUsage, "user name"},
		{"a file that is damaged", url, func() {
			flip(t, filepath.Join(export, "debian", a.Default().PathOf("app")))
		}, api.ExitVerify, a.Default().PathOf("app")},
		{"a list that is damaged", url, func() {
			os.WriteFile(filepath.Join(export, "SHA256SUMS"), []byte("a list\n"), 0o644)
		}, api.ExitVerify, "line 1"},
		{"a list that leads out", url, func() {
			os.WriteFile(filepath.Join(export, "SHA256SUMS"), []byte(strings.Repeat("0", 64)+"  ../x\n"), 0o644)
		}, api.ExitVerify, "stays below"},
	} {
		if c.damage != nil {
			c.damage()
		}
		for _, verb := range []string{"verify", "import"} {
			_, err := third.Try(verb, c.url)
			if code(err) != c.exit || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s of %s: %v, expected %q and exit %d", verb, c.what, err, c.want, c.exit)
			}
		}
	}
	if out := third.Ctl("list", "--frozen", "--json"); strings.Contains(out, "4.1") {
		t.Errorf("after refused imports: %s", out)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "snapctl-export-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// shortWriter cuts the connection after so many bytes.
type shortWriter struct {
	http.ResponseWriter
	left int
}

func (w *shortWriter) Write(b []byte) (int, error) {
	if len(b) > w.left {
		w.ResponseWriter.Write(b[:w.left])
		panic(http.ErrAbortHandler)
	}
	w.left -= len(b)
	return w.ResponseWriter.Write(b)
}

// flip changes a byte of a file.
func flip(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
