package story

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// inBucket changes a configuration to store blobs in a bucket. more is added to its
// [store] section.
func inBucket(config, location, credentials, more string) string {
	return strings.Replace(config, "[store]\n", fmt.Sprintf("[store]\nblobs = %q\ncredentials_file = %q\n%s", location, credentials, more), 1)
}

// noise returns n bytes of text that compress badly.
func noise(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}

// ask makes a request without following redirects.
func ask(t *testing.T, method, url string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// With blobs in a bucket, sync, freeze, verify, gc and fsck behave as they do with a
// directory, and apt can install packages. Long because each step depends on the one
// before.
func TestBlobsInABucket(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	srv := s3test.Start(t)
	bucket := srv.Bucket(t)
	location, credentials := srv.Location(bucket, "snapd"), s3test.CredentialsFile(t)
	a, config := upstream(t)
	published := time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second)
	a.Add(
		debtest.Package{Name: "lib", Version: "1", Files: map[string]string{"/usr/share/lib": noise(3 << 20)}},
		debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}},
		debtest.Package{Name: "big", Version: "1", Body: []byte(noise(20 << 20))}, // uploaded in parts
	)
	a.Publish(published)
	config = strings.Replace(config, "sources = true", "sources = true\ndownload = \"all\"\nkeep = \"1s\"", 1)
	s := start(t, inBucket(config, location, credentials, "cache = \"64MiB\"\nquarantine_time = \"1s\"\n"))
	s.Ctl("sync")
	if objects, err := filepath.Glob(filepath.Join(srv.Dir, bucket, "snapd/blobs/*/*")); err != nil || len(objects) < 5 {
		t.Fatalf("%d objects in the bucket, %v", len(objects), err)
	}
	if dir, err := os.ReadDir(filepath.Join(s.Dir, "data/blobs")); err == nil {
		t.Errorf("there are blobs in the data directory: %v", dir)
	}
	srv.Counts()
	s.Ctl("sync") // nothing has changed
	if n := srv.Counts(); len(n) > 0 {
		t.Errorf("a sync without changes made requests: %v", n)
	}
	s.Ctl("freeze", "4.1", "--package", "app", "--package", "lib", "--no-sources")
	if n := srv.Counts(); n["head"] > 0 || n["list"] > 0 || n["put"] > 20 {
		t.Errorf("a freeze of stored packages made requests: %v", n)
	}
	s.installs("4.1", "app", "1")
	s.proveAll("4.1")

	// Remove the local copies and restart.
	s.Stop()
	if err := os.RemoveAll(filepath.Join(s.Dir, "data/cache")); err != nil {
		t.Fatal(err)
	}
	s.begin()
	// If the bucket cannot be reached, blobs are not reported as damaged.
	denied := func(string, string) *s3test.Fault {
		return &s3test.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
	}
	srv.Decide(denied)
	for _, verb := range [][]string{{"verify", "4.1", "--deep"}, {"fsck"}} {
		if out, err := s.Try(verb...); code(err) != api.ExitFailed || !strings.Contains(err.Error(), "blob store unavailable") {
			t.Errorf("%v without the bucket: %v, %s", verb, err, out)
		}
	}
	srv.Decide(nil)
	s.installs("4.1", "app", "1")
	srv.Counts()
	s.installs("4.1", "app", "1")
	if n := srv.Counts(); len(n) > 0 {
		t.Errorf("packages that were served before made requests: %v", n)
	}

	// While the bucket cannot be reached, files with local copies are served; others are
	// unavailable (503), not missing.
	at := "http://" + s.Addr
	lib := at + "/frozen/4.1/debian/" + a.Default().PathOf("lib")
	var st api.SnapshotList
	s.JSON(&st, "list", "--mirror", "debian")
	big := st.Snapshots[0].URL + a.Default().PathOf("big")
	srv.Decide(denied)
	if resp, body := ask(t, "GET", lib); resp.StatusCode != 200 || len(body) < 3<<20 {
		t.Errorf("a copy: %s, %d bytes", resp.Status, len(body))
	}
	if resp, _ := ask(t, "GET", big); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without the bucket: %s", resp.Status)
	}
	srv.Decide(nil)
	if resp, body := ask(t, "GET", big); resp.StatusCode != 200 || len(body) != 20<<20 {
		t.Errorf("with the bucket again: %s, %d bytes", resp.Status, len(body))
	}

	s.collectsAndRepairs(a, srv, bucket, published)

	// Another installation cannot use the bucket.
	other := elsewhere(t, inBucket(config, location, credentials, ""))
	if out, err := other.snapd(); err == nil || !strings.Contains(err.Error(), "another installation uses it") || strings.Contains(err.Error(), s3test.SecretKey) {
		t.Errorf("a second installation: %v, %s", err, out)
	}

	// A backup contains the blobs, and can be restored to a directory, and from there to a
	// bucket.
	dir := filepath.Join(s.Dir, "backup")
	if out, err := s.snapd("backup", dir); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	if _, err := other.snapd("restore", dir); err == nil || !strings.Contains(err.Error(), "restore the backup to a directory") {
		t.Errorf("restore to a bucket: %v", err)
	}
	database := elsewhere(t, strings.Replace(config, "[store]\n", "[store]\nmetadata = \"postgres://snapd@db.example.org/snapd\"\n", 1))
	if _, err := database.snapd("restore", dir); err == nil || !strings.Contains(err.Error(), "snapd migrate --to") {
		t.Errorf("restore to a database: %v", err)
	}
	third, fourth := elsewhere(t, config), elsewhere(t, inBucket(config, srv.Location(bucket, "restored"), credentials, ""))
	if out, err := third.snapd("restore", dir); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	if _, err := third.migrateTo(fourth); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	for _, s := range []*server{third, fourth} {
		s.begin()
		s.proveAll("4.1")
		s.installs("4.1", "app", "1")
		s.Stop()
	}
}

// collectsAndRepairs removes a snapshot and the blobs that only it needed, and repairs
// objects that were lost from the bucket.
func (s *server) collectsAndRepairs(a *debtest.Archive, srv *s3test.Server, bucket string, published time.Time) {
	t := s.t
	t.Helper()
	objects := func() int {
		list, err := filepath.Glob(filepath.Join(srv.Dir, bucket, "snapd/blobs/*/*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	a.Default().Remove("big", "1")
	a.Add(debtest.Package{Name: "app", Version: "2"})
	a.Publish(published.Add(time.Hour))
	s.Ctl("sync")
	s.proveAll("4.1")
	before := objects()
	var gc api.GCResult
	for range 3 { // the blobs expire, and are then purged
		s.JSON(&gc, "gc")
	}
	s.proveAll("4.1")
	if n := objects(); n > before {
		t.Errorf("%d objects after a collection, %d before", n, before)
	}
	lost, err := filepath.Glob(filepath.Join(srv.Dir, bucket, "snapd/blobs/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	// Delete the package lib, which upstream still has.
	n := 0
	for _, name := range lost {
		if st, err := os.Stat(name); err == nil && st.Size() > 3<<20 && st.Size() < 4<<20 {
			n++
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n != 1 {
		t.Fatalf("deleted %d objects of the package lib", n)
	}
	if _, err := s.Try("fsck"); code(err) != api.ExitVerify {
		t.Errorf("fsck of a lost object: %v", err)
	}
	if out, err := s.Try("fsck", "--repair"); err != nil {
		t.Errorf("fsck --repair: %v\n%s", err, out)
	}
	s.proveAll("4.1")
	s.installs("4.1", "app", "1")
}

// With redirect = true, snapd redirects clients that request large packages, and nothing
// else, to a signed URL of the bucket.
func TestRedirectToBucket(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	srv := s3test.Start(t)
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "lib", Version: "1", Files: map[string]string{"/usr/share/lib": noise(3 << 20)}},
		debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.Publish(time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second))
	s := start(t, inBucket(config, srv.Location(srv.Bucket(t), ""), s3test.CredentialsFile(t), "redirect = true\n"))
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "app", "--package", "lib", "--no-sources")
	tree := "http://" + s.Addr + "/frozen/4.1/debian/"
	lib := tree + a.Default().PathOf("lib")
	resp, _ := ask(t, "GET", lib)
	to := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusFound || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Etag") != "" || !strings.Contains(to, "X-Amz-Expires=300") {
		t.Fatalf("%s, %q", resp.Status, resp.Header)
	}
	if resp, body := ask(t, "GET", to); resp.StatusCode != 200 || len(body) < 3<<20 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the bucket: %s, %d bytes, %q", resp.Status, len(body), resp.Header)
	}
	if resp, _ := ask(t, "HEAD", lib); resp.StatusCode != 200 || resp.ContentLength < 3<<20 {
		t.Errorf("HEAD: %s", resp.Status)
	}
	for _, path := range []string{a.Default().PathOf("app"), "dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages.xz"} {
		if resp, _ := ask(t, "GET", tree+path); resp.StatusCode != 200 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	srv.Counts()
	s.installs("4.1", "app", "1")
	if n := srv.Counts(); n["get"] == 0 {
		t.Errorf("apt did not follow: %v", n)
	}
}

// An export to a bucket has the same files as one to a directory, and apt can install from
// them through any web server.
func TestExportToBucket(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	srv := s3test.Start(t)
	bucket := srv.Bucket(t)
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "lib", Version: "1", Files: map[string]string{"/usr/share/lib": noise(18 << 20)}}, // uploaded in parts
		debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.Publish(time.Now().UTC().Add(-10 * time.Hour).Truncate(time.Second))
	s := start(t, strings.Replace(config, "[store]\n", fmt.Sprintf("[store]\ncredentials_file = %q\n", s3test.CredentialsFile(t)), 1))
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "app", "--package", "lib", "--no-sources")
	to := srv.Location(bucket, "releases/4.1")
	// The first attempt fails in the middle, and is repeated.
	n := 0
	srv.Decide(func(op, _ string) *s3test.Fault {
		if n++; op == "put" && n > 6 {
			return &s3test.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
		}
		return nil
	})
	if _, err := s.Try("export", "4.1", to); code(err) != api.ExitFailed || !strings.Contains(err.Error(), "blob store unavailable") {
		t.Errorf("an export that is refused: %v", err)
	}
	srv.Decide(nil)
	s.Ctl("export", "4.1", to)
	dir := filepath.Join(s.Dir, "export")
	s.Ctl("export", "4.1", dir)
	inBucket := filepath.Join(srv.Dir, bucket, "releases/4.1")
	files := map[string]int{}
	for i, root := range []string{dir, inBucket} {
		if err := filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			files[rel] |= 1 << i
			want, err := os.ReadFile(filepath.Join(dir, rel))
			if err != nil {
				return err
			}
			if got, err := os.ReadFile(filepath.Join(inBucket, rel)); err != nil || string(got) != string(want) {
				t.Errorf("%s: %d bytes in the bucket, %d in the directory, %v", rel, len(got), len(want), err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 10 {
		t.Errorf("%d files", len(files))
	}
	if _, err := s.Try("export", "4.1", to); code(err) != api.ExitUsage || !strings.Contains(err.Error(), "already contains an export") {
		t.Errorf("a second export: %v", err)
	}
	if _, err := s.Try("export", "4.1", "s3://Bucket"); code(err) != api.ExitUsage {
		t.Errorf("a bad bucket: %v", err)
	}
	s.Ctl("verify", inBucket)
	web := httptest.NewServer(http.FileServer(http.Dir(inBucket)))
	defer web.Close()
	apt := debtest.NewApt(t, strings.ReplaceAll(s.Ctl("sources", "4.1"), "http://"+s.Addr+"/frozen/4.1", web.URL))
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "app")
}
