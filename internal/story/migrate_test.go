package story

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// served is what a server answers for paths: status and body.
func served(t *testing.T, s *server, paths []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, p := range paths {
		code, body := get(t, "http://"+s.Addr+p)
		out[p] = fmt.Sprint(code, " ", body)
	}
	return out
}

var hrefs = regexp.MustCompile(`href="([^"?#]+)"`)

// walk lists the files below a directory that a server lists.
func walk(t *testing.T, s *server, dir string) (files []string) {
	t.Helper()
	_, body := get(t, "http://"+s.Addr+dir)
	for _, m := range hrefs.FindAllStringSubmatch(body, -1) {
		name := strings.TrimPrefix(m[1], "./")
		switch {
		case strings.HasPrefix(name, "/"), strings.HasPrefix(name, "."):
		case strings.HasSuffix(name, "/"):
			files = append(files, walk(t, s, dir+name)...)
		default:
			files = append(files, dir+name)
		}
	}
	return files
}

// migrateTo runs snapd migrate, and returns its result.
func (s *server) migrateTo(to *server) (api.MigrateResult, error) {
	s.t.Helper()
	out, err := s.snapd("migrate", "--to", to.Config, "--json")
	var res api.MigrateResult
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if line != "" && !strings.HasPrefix(line, `{"progress"`) && !strings.HasPrefix(line, `{"error"`) {
			if err := json.Unmarshal([]byte(line), &res); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return res, err
}

// An installation moves from a directory to PostgreSQL and S3 and back. It is killed in
// the middle; targets with something else are refused; and everything that is served
// stays the same, to the byte. Long because it is one story.
func TestMigrate(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	t.Setenv("XDG_STATE_HOME", t.TempDir()) // which logs are known: this one has a fixed name
	a, config := upstream(t)
	config = strings.Replace(config, "[server]\n", "[server]\npublic_url = \"http://packages.example.org\"\n", 1)
	published := time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second)
	a.Add(debtest.Package{Name: "lib", Version: "1", Files: map[string]string{"/usr/share/lib": noise(2 << 20)}},
		debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.Publish(published)
	s := start(t, config)
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "app", "--with-deps", "--no-sources")
	s.Ctl("freeze", "gone", "--package", "lib", "--no-sources")
	a.Default().Remove("app", "1")
	a.Add(debtest.Package{Name: "app", Version: "2"})
	a.Publish(published.Add(time.Hour))
	s.Ctl("sync")
	s.Ctl("freeze", "5.0", "--all")
	s.Ctl("channel", "set", "stable", "4.1")
	s.Ctl("record", "start", "build")
	s.Ctl("rm", "gone", "--yes")
	s.Ctl("gc")
	var list api.SnapshotList
	s.JSON(&list, "list")
	paths := []string{"/key.asc", "/log.vkey", "/log/checkpoint", "/frozen/gone/manifest.json", "/channel/stable/debian/dists/stable/InRelease", "/archive/debian/latest/dists/stable/InRelease"}
	for _, snap := range list.Snapshots {
		paths = append(paths, walk(t, s, "/archive/debian/"+strings.TrimPrefix(snap.ID, "debian@")+"/dists/")...)
	}
	for _, name := range []string{"4.1", "5.0"} {
		for _, f := range []string{"manifest.json", "manifest.json.asc", "provenance.json"} {
			paths = append(paths, "/frozen/"+name+"/"+f)
		}
		paths = append(paths, walk(t, s, "/frozen/"+name+"/debian/dists/")...)
		paths = append(paths, walk(t, s, "/frozen/"+name+"/debian/pool/")...)
	}
	if len(paths) < 30 {
		t.Fatalf("only %d paths: %v", len(paths), paths)
	}
	want := served(t, s, paths)
	if !strings.HasPrefix(want["/frozen/gone/manifest.json"], fmt.Sprint(http.StatusGone)) {
		t.Errorf("a removed freeze: %s", want["/frozen/gone/manifest.json"])
	}
	same := func(what string, s *server) {
		t.Helper()
		got := served(t, s, paths)
		for _, p := range paths {
			if got[p] != want[p] {
				t.Errorf("%s: %s: %.100q, expected %.100q", what, p, got[p], want[p])
			}
		}
	}
	quarantine, err := os.ReadDir(filepath.Join(s.Dir, "data/quarantine"))
	if err != nil || len(quarantine) == 0 {
		t.Fatalf("nothing in the quarantine: %v", err)
	}

	db, srv := pgtest.Start(t), s3test.Start(t)
	bucket := srv.Bucket(t)
	grownConfig := func(database, prefix string) string {
		return strings.Replace(config, "[store]\n", fmt.Sprintf("[store]\nmetadata = %q\nblobs = %q\ncredentials_file = %q\ncache = \"64MiB\"\n", database, srv.Location(bucket, prefix), s3test.CredentialsFile(t)), 1)
	}
	database := db.Database(t)
	grown := elsewhere(t, grownConfig(database, "snapd"))
	refused := func(what string, from, to *server, words ...string) {
		t.Helper()
		_, err := from.migrateTo(to)
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, expected %q", what, err, w)
			}
		}
	}
	refused("a running source", s, grown, "another snapd is running")
	s.Stop()
	refused("the source as target", s, s, "both configurations have the data directory")

	// Another installation, with a freeze of its own, is left alone.
	other := elsewhere(t, grownConfig(db.Database(t), "other"))
	other.begin()
	other.Ctl("sync")
	other.Ctl("freeze", "theirs", "--package", "app", "--no-sources")
	other.Stop()
	text, err := os.ReadFile(other.Config)
	if err != nil {
		t.Fatal(err)
	}
	refused("a data directory in use", s, other, "target refused: the signing key")
	theirs := elsewhere(t, strings.Replace(string(text), filepath.Join(other.Dir, "data"), "%DATA%", 1))
	refused("a database in use", s, theirs, "its metadata is of installation", "theirs")
	refused("a bucket in use", s, elsewhere(t, grownConfig(db.Database(t), "other")), "another installation uses it")

	// Killed while it uploads, it is continued; snapd does not start before that.
	cmd := s.command("migrate", "--to", grown.Config)
	uploads := make(chan bool, 1)
	n := 0
	srv.Decide(func(op, key string) *s3test.Fault {
		if strings.Contains(key, "blobs/") && op == "put" {
			if n++; n == 8 {
				uploads <- true
			}
		}
		return nil
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-uploads:
	case <-time.After(2 * time.Minute):
		t.Error("no uploads")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	srv.Decide(nil)
	if out, err := grown.snapd(); err == nil || !strings.Contains(err.Error(), "a migration to it was not completed") {
		t.Errorf("a start in the middle: %v\n%s", err, out)
	}
	second := elsewhere(t, grownConfig(database, "snapd"))
	if out, err := second.snapd(); err == nil || !strings.Contains(err.Error(), "a migration to it was not completed") {
		t.Errorf("a second node in the middle: %v\n%s", err, out)
	}
	moved := elsewhere(t, grownConfig(database, "moved"))
	eventually(t, "another place for the blobs is refused", func() bool {
		_, err := s.migrateTo(moved)
		return err != nil && strings.Contains(err.Error(), "was not completed, now they are to be in")
	})
	var res api.MigrateResult
	eventually(t, "the lease of the killed migration ends", func() bool {
		res, err = s.migrateTo(grown)
		return err == nil || !strings.Contains(err.Error(), "led by another node")
	})
	if err != nil || res.Freezes != 2 || res.Blobs == 0 || res.Quarantined != int64(len(quarantine)) || res.Entries == 0 || len(res.Faults) > 0 {
		t.Fatalf("migrate: %+v, %v", res, err)
	}
	refused("a target that is complete", s, grown, "is not empty")
	grown.begin()
	same("grown", grown)
	grown.installs("4.1", "app", "1")
	grown.proveAll("4.1", "5.0")
	grown.Ctl("log", "verify")
	refused("a running source in a database", grown, elsewhere(t, config), "another snapd is running")

	// It goes on, and goes back.
	a.Default().Remove("app", "2")
	a.Add(debtest.Package{Name: "app", Version: "3"})
	a.Publish(published.Add(2 * time.Hour))
	grown.Ctl("sync")
	grown.Ctl("freeze", "6.0", "--all")
	paths = append(paths, walk(t, grown, "/frozen/6.0/debian/dists/")...)
	want = served(t, grown, paths)
	grown.Stop()
	pgtest.Exec(t, database, "update node set seen = seen - interval '1 hour'")
	back := elsewhere(t, config)
	if res, err = grown.migrateTo(back); err != nil || res.Freezes != 3 || res.Quarantined != int64(len(quarantine)) {
		t.Fatalf("migrate back: %+v, %v", res, err)
	}
	back.begin()
	same("back", back)
	back.installs("6.0", "app", "3")
	back.proveAll("4.1", "5.0", "6.0")
	back.Ctl("log", "verify")
	a.Add(debtest.Package{Name: "late", Version: "1"})
	a.Publish(published.Add(3 * time.Hour))
	back.Ctl("sync")
	back.Ctl("fsck")
	back.Stop()

	// A source with a damaged blob is refused, and the target goes on after a repair.
	blob := filepath.Join(back.Dir, "data/blobs")
	damaged := ""
	if err := filepath.WalkDir(blob, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, ierr := d.Info(); ierr == nil && info.Size() > 1<<20 {
				damaged = path
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(damaged); err != nil {
		t.Fatal(err)
	}
	res, err = back.migrateTo(elsewhere(t, config))
	if code(err) != api.ExitVerify || !strings.Contains(err.Error(), filepath.Base(damaged)) || !strings.Contains(err.Error(), "snapctl fsck --repair") {
		t.Errorf("a lost blob: %v", err)
	}
}
