package httpd_test

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// aptFor is a real apt whose one source is base.
func (s *site) aptFor(base string) *debtest.Apt {
	s.t.Helper()
	return debtest.NewApt(s.t, s.aptLine(base))
}

func (s *site) aptLine(base string) string {
	return fmt.Sprintf("deb [signed-by=%s] %s stable main\n", s.Archive.KeyringFile(), base)
}

func TestApt(t *testing.T) {
	for _, download := range []string{config.OnDemand, config.All} {
		t.Run(download, func(t *testing.T) {
			s := newSite(t, func(m *config.Mirror) { m.Download = download })
			s.Archive.Add(debtest.Package{Name: "app", Version: "1:1.0~rc1-1", Fields: map[string]string{"Depends": "libapp++ (= 1.0+b1)"}}, pkg("libapp++", "1.0+b1"))
			s.publish()
			base := s.conf.Server.PublicURL + "/archive/debian/"
			exact := base + s.sync()

			old := s.aptFor(exact)
			old.Run("apt-get", "update")
			old.Run("apt-get", "install", "app")
			want := []string{"app 1:1.0~rc1-1", "libapp++ 1.0+b1"}
			if d := cmp.Diff(want, old.Installed()); d != "" {
				t.Errorf("from %s: -want +got\n%s", exact, d)
			}

			// A client of latest runs across a sync: it took the indices before, and asks
			// for packages after.
			across := s.aptFor(base + "latest")
			across.Run("apt-get", "update")
			s.Archive.Default().Remove("app", "")
			s.Archive.Default().Remove("libapp++", "")
			s.Archive.Add(debtest.Package{Name: "app", Version: "2.0-1", Fields: map[string]string{"Depends": "libapp++"}}, pkg("libapp++", "2.0-1"))
			s.publish()
			s.sync()
			if download == config.All {
				across.Run("apt-get", "install", "app")
				if d := cmp.Diff(want, across.Installed()); d != "" {
					t.Errorf("across a sync: -want +got\n%s", d)
				}
			}
			across.Run("apt-get", "update")
			across.Run("apt-get", "dist-upgrade")
			across.Run("apt-get", "install", "app")
			// 1:1.0 is newer than 2.0-1 by its epoch: what is installed stays.
			if got := across.Installed(); download == config.OnDemand && !cmp.Equal(got, []string{"app 2.0-1", "libapp++ 2.0-1"}) {
				t.Errorf("after update: %v", got)
			}
			// The exact one stays what it was, without a word.
			old.Run("apt-get", "update")
			if out := old.Run("apt-cache", "policy", "app"); !strings.Contains(out, "1:1.0~rc1-1") || strings.Contains(out, "2.0-1") {
				t.Errorf("policy:\n%s", out)
			}
		})
	}
}

// Indices by hash of every generation go on being answered below latest, and an
// apt whose update falls into a sync sees no mismatch.
func TestAptUpdateAcrossSync(t *testing.T) {
	s := newSite(t, nil)
	base := s.conf.Server.PublicURL + "/archive/debian/latest"
	apt := s.aptFor(base)
	for i := range 6 {
		s.Archive.Add(pkg(fmt.Sprint("a", i), "1"))
		s.publish()
		s.sync()
		if i == 0 {
			apt.Run("apt-get", "update")
			continue
		}
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				s.Archive.Add(pkg(fmt.Sprintf("x%d-%d", i, j), "1"))
				s.publish()
				s.sync()
			}
		}()
		out, err := apt.Try("apt-get", "update")
		close(stop)
		<-done
		if err != nil || strings.Contains(out, "W:") || strings.Contains(out, "E:") || strings.Contains(out, "Err:") {
			t.Fatalf("update while syncs run: %v\n%s", err, out)
		}
	}
	apt.Run("apt-get", "update")
	if out := apt.Run("apt-cache", "policy", "a5"); !strings.Contains(out, "Candidate: 1") {
		t.Errorf("policy after all syncs:\n%s", out)
	}
}

// An apt below "now" sees the newest snapshot, also if the mirror that it was synced from
// has the same date for its files as the one before, or an earlier one. Otherwise the date
// of a signed document is upstream's.
func TestAptUpdateBelowNow(t *testing.T) {
	s := newSite(t, nil)
	var date time.Time
	s.Archive.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		p := strings.TrimPrefix(r.URL.Path, "/")
		if !strings.HasPrefix(p, "dists/") || !s.Archive.Has(p) {
			return false
		}
		w.Header().Set("Last-Modified", date.Format(http.TimeFormat))
		_, _ = w.Write(s.Archive.Get(p))
		return true
	}
	apt := s.aptFor(s.conf.Server.PublicURL + "/archive/debian/now")
	copied := s.Now().Add(2 * time.Hour)
	for i, offset := range []time.Duration{0, 0, -time.Second, -time.Second, time.Minute} {
		name := fmt.Sprint("a", i)
		s.Archive.Add(pkg(name, "1"))
		s.publish()
		date = copied.Add(offset)
		at := s.sync()
		apt.Run("apt-get", "update", "-o", fmt.Sprintf("Acquire::By-Hash=%t", i%2 == 0))
		if out := apt.Run("apt-cache", "policy", name); !strings.Contains(out, "Candidate: 1") {
			t.Errorf("after sync %d: %s", i, out)
		}
		if got := s.get("/archive/debian/" + at + "/dists/stable/InRelease").Header.Get("Last-Modified"); (got == date.UTC().Format(http.TimeFormat)) != (i == 0 || i == 4) {
			t.Errorf("after sync %d: Last-Modified %s, upstream's is %s", i, got, date.UTC().Format(http.TimeFormat))
		}
	}
}

// An apt whose download of an index broke goes on from what it has if the server still
// has a file of that date. That is never another file, although both have one path:
// neither after a sync nor after a move of a channel. Below "now", each request is
// redirected to the newest snapshot.
func TestAptResumes(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All })
	s.clock = s.Now
	s.restart()
	s.Archive.Add(pkg("app", "1"))
	s.publish()
	first := "/archive/debian/" + s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.0"}, nil)
	s.move("4.0")
	const index = "/dists/stable/main/binary-amd64/"
	byHash := func(tree string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)^ ([0-9a-f]{64}) +\d+ main/binary-amd64/Packages\.xz$`).FindStringSubmatch(s.get(tree + "/dists/stable/InRelease").body)
		if m == nil {
			t.Fatalf("%s: no Packages.xz in its InRelease", tree)
		}
		return index + "by-hash/SHA256/" + m[1]
	}
	old := map[string]string{"/archive/debian/latest": byHash(first), "/archive/debian/now": byHash(first), "/channel/stable/debian": byHash("/frozen/4.0/debian")}
	get := func(p string) answer {
		t.Helper()
		a := s.get(p)
		if a.StatusCode == http.StatusFound {
			a = s.get(a.Header.Get("Location"))
		}
		return a
	}
	broken := map[string][]answer{}
	for tree, p := range old {
		broken[tree] = append(broken[tree], get(tree+p)) // while it is the present one
	}
	s.Archive.Default().Remove("app", "")
	s.Archive.Add(pkg("app", "2"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	s.move("4.1")
	for tree, p := range old {
		broken[tree] = append(broken[tree], get(tree+p)) // by an apt that has read the old Release file
		apt := s.aptFor(s.conf.Server.PublicURL + tree)
		if strings.HasPrefix(tree, "/channel/") {
			apt.SetSources(s.get("/channel/stable/sources").body)
		}
		partial := filepath.Join(apt.Root, "var/lib/apt/lists/partial", strings.ReplaceAll(strings.TrimPrefix(s.conf.Server.PublicURL, "http://")+tree+index+"Packages.xz", "/", "_"))
		for i, a := range broken[tree] {
			if a.StatusCode != http.StatusOK {
				t.Fatalf("%s%s: %s", tree, p, a.Status)
			}
			// apt sets this time, and without it the present, which the later file may
			// have.
			at, err := http.ParseTime(a.Header.Get("Last-Modified"))
			if err != nil {
				t.Fatalf("%s%s, download %d: Last-Modified: %v", tree, p, i, err)
			}
			if err := os.WriteFile(partial, []byte(a.body[:len(a.body)/2]), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(partial, at, at); err != nil {
				t.Fatal(err)
			}
			if out, err := apt.Try("apt-get", "update", "-o", "APT::Update::Error-Mode=any"); err != nil {
				t.Errorf("%s, download %d, of %s: %v\n%s", tree, i, at.UTC(), err, out)
			}
			if err := os.RemoveAll(filepath.Join(apt.Root, "var/lib/apt/lists")); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(partial), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A package of a channel whose bytes change under one path, in a freeze of the same date,
// is not continued with the bytes of the other.
func TestAptResumesPackage(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All })
	const deb = "/pool/main/a/app/app_1_amd64.deb"
	date := s.Now().Add(-time.Hour)
	var apt *debtest.Apt
	var first answer
	for i, freeze := range []string{"4.0", "4.1"} {
		s.Archive.Default().Remove("app", "")
		s.Archive.Add(debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Homepage": "http://example.org/" + freeze}})
		s.publish()
		s.sync()
		s.call("freeze", api.FreezeRequest{Name: freeze, NoSources: true, Date: &date}, nil)
		s.move(freeze)
		a := s.get("/channel/stable/debian" + deb)
		if a.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", deb, a.Status)
		}
		if i == 0 {
			first = a
			continue
		}
		if a.body == first.body {
			t.Fatal("its bytes have not changed")
		}
		apt = s.aptFor(s.conf.Server.PublicURL)
		apt.SetSources(s.get("/channel/stable/sources").body)
	}
	apt.Run("apt-get", "update")
	at, err := http.ParseTime(first.Header.Get("Last-Modified"))
	if err != nil {
		t.Fatal(err)
	}
	partial := filepath.Join(apt.Root, "var/cache/apt/archives/partial/app_1_amd64.deb")
	if err := os.WriteFile(partial, []byte(first.body[:len(first.body)/2]), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(partial, at, at); err != nil {
		t.Fatal(err)
	}
	apt.Run("apt-get", "install", "app")
}

// The plain variant of an index by hash is made from the compressed one of its own
// snapshot. A freeze has none of another, and a channel dates none of an earlier freeze.
func TestPlainByHash(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All })
	s.clock = s.Now
	s.restart()
	plain := map[string]string{} // by tree, a path below it
	tree := map[string]string{}  // of each snapshot
	var moved string
	for _, freeze := range []string{"4.0", "4.1"} {
		s.Archive.Add(pkg("app"+freeze, "1"))
		s.publish()
		tree[freeze] = "/archive/debian/" + s.sync()
		s.call("freeze", api.FreezeRequest{Name: freeze, NoSources: true}, nil)
		moved = s.move(freeze).Channel.Moved.Format(http.TimeFormat)
		for of, tree := range map[string]string{"snapshot " + freeze: tree[freeze], "freeze " + freeze: "/frozen/" + freeze + "/debian"} {
			m := regexp.MustCompile(`(?m)^ ([0-9a-f]{64}) +\d+ main/binary-amd64/Packages$`).FindStringSubmatch(s.get(tree + "/dists/stable/InRelease").body)
			if m == nil {
				t.Fatalf("%s: no Packages in its InRelease", tree)
			}
			plain[of] = "/dists/stable/main/binary-amd64/by-hash/SHA256/" + m[1]
		}
	}
	const undated = "Thu, 01 Jan 1970 00:00:00 GMT"
	for _, tc := range []struct {
		tree, of, modified string
		status             int
	}{
		{tree["4.0"], "snapshot 4.1", undated, http.StatusOK},
		{tree["4.1"], "snapshot 4.0", undated, http.StatusOK},
		{"/archive/debian/latest", "snapshot 4.0", undated, http.StatusOK},
		{"/archive/debian/latest", "snapshot 4.1", moved, http.StatusOK},
		{"/frozen/4.0/debian", "freeze 4.1", "", http.StatusNotFound},
		{"/frozen/4.1/debian", "freeze 4.0", "", http.StatusNotFound},
		{"/channel/stable/debian", "freeze 4.0", undated, http.StatusOK},
		{"/channel/stable/debian", "freeze 4.1", moved, http.StatusOK},
	} {
		a := s.get(tc.tree + plain[tc.of])
		if a.StatusCode != tc.status || a.Header.Get("Last-Modified") != tc.modified {
			t.Errorf("Packages of %s below %s: %s, Last-Modified %q, expected %d, %q", tc.of, tc.tree, a.Status, a.Header.Get("Last-Modified"), tc.status, tc.modified)
		} else if want := path.Base(plain[tc.of]); a.StatusCode == http.StatusOK && cas.Sum([]byte(a.body)).String() != want {
			t.Errorf("Packages of %s below %s: SHA-256 %s, expected %s", tc.of, tc.tree, cas.Sum([]byte(a.body)), want)
		}
	}
}

// An index that was made for a client of an earlier snapshot keeps its own date in that
// snapshot, and a freeze of the snapshot still serves it.
func TestPlainKeepsItsDate(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All })
	s.clock = s.Now
	s.restart()
	s.Archive.Add(pkg("app", "1"))
	s.publish()
	const plain = "/dists/stable/main/binary-amd64/Packages"
	exact := "/archive/debian/" + s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.0", All: true, NoSources: true}, nil)
	before := s.raw("HEAD " + exact + plain)
	m := regexp.MustCompile(`(?m)^ ([0-9a-f]{64}) +\d+ main/binary-amd64/Packages$`).FindStringSubmatch(s.get(exact + "/dists/stable/InRelease").body)
	if m == nil || before.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, in InRelease: %q", plain, before.Status, m)
	}
	s.Archive.Add(pkg("app2", "1"))
	s.publish()
	s.sync()
	if a := s.get("/archive/debian/latest" + path.Dir(plain) + "/by-hash/SHA256/" + m[1]); a.Header.Get("Last-Modified") != "Thu, 01 Jan 1970 00:00:00 GMT" {
		t.Fatalf("by hash: %s, Last-Modified %q", a.Status, a.Header.Get("Last-Modified"))
	}
	after := s.get(exact + plain)
	if was, is := before.Header.Get("Last-Modified"), after.Header.Get("Last-Modified"); after.StatusCode != http.StatusOK || was != is {
		t.Errorf("in its snapshot: %s, Last-Modified %q, expected %q", after.Status, is, was)
	}
	if a := s.get("/frozen/4.0/debian" + plain); a.StatusCode != http.StatusOK || a.body != after.body {
		t.Errorf("in a freeze: %s", a.Status)
	}
}

// Builds whose sources cannot be edited go through the proxy form, and are
// repeated from the frozen name with the distribution's own key.
func TestAptProxy(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	s.Archive.Add(debtest.Package{Name: "app", Fields: map[string]string{"Depends": "lib"}}, pkg("lib", "1"), pkg("other", "1"))
	s.publish()
	s.sync()
	s.call("record/start", api.RecordStart{Name: "2.4~rc1"}, nil)
	proxy := "Acquire::http::Proxy=" + strings.Replace(s.conf.Server.PublicURL, "//", "//2.4~rc1@", 1)
	build := func() []string {
		apt := s.aptFor(s.Server.URL)
		apt.Options = []string{proxy}
		apt.Run("apt-get", "update")
		apt.Run("apt-get", "install", "app")
		return apt.Installed()
	}
	first := build()
	if d := cmp.Diff([]string{"app_1.0-1_amd64.deb |", "lib_1_amd64.deb |"}, s.noted("2.4~rc1")); d != "" {
		t.Errorf("noted: -want +got\n%s", d)
	}
	s.call("record/stop", api.RecordRef{Name: "2.4~rc1"}, nil)
	s.call("freeze", api.FreezeRequest{Name: "2.4~rc1", NoSources: true}, nil)
	s.Archive.Default().Remove("app", "")
	s.Archive.Add(pkg("app", "2"), pkg("lib", "2"))
	s.publish()
	s.sync()
	if d := cmp.Diff(first, build()); d != "" {
		t.Errorf("the build again, from the frozen name: -first +again\n%s", d)
	}
	apt := s.aptFor(s.Server.URL)
	apt.Options = []string{proxy}
	apt.Run("apt-get", "update")
	if out, err := apt.Try("apt-get", "install", "other"); err == nil {
		t.Errorf("a package that is not frozen was handed out:\n%s", out)
	}
	// And from the derived repository, with this server's key alone.
	sources := s.get("/frozen/2.4~rc1/sources")
	frozen := debtest.NewApt(t, sources.body)
	frozen.Run("apt-get", "update")
	frozen.Run("apt-get", "install", "app")
	if d := cmp.Diff(first, frozen.Installed()); d != "" {
		t.Errorf("from the frozen repository: -first +again\n%s", d)
	}
}
