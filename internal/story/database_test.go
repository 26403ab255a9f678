package story

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// With metadata in PostgreSQL, syncs, freezes, recordings, collections and checks behave
// as they do with a file, and a database that does not respond is an error, not "not
// found". Long because each step depends on the one before.
func TestMetadataInPostgreSQL(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	db := pgtest.Start(t)
	url := db.User(t, "frozen", "s3cret")
	a, config := upstream(t)
	now := time.Now().UTC().Truncate(time.Second)
	last := ""
	publish := func(version string, age time.Duration) {
		if last != "" {
			a.Default().Remove("lib", last)
			a.Default().Remove("app", last)
		}
		last = version
		a.Add(debtest.Package{Name: "lib", Version: version}, debtest.Package{Name: "app", Version: version, Fields: map[string]string{"Depends": "lib (>= " + version + ")"}})
		a.Publish(now.Add(-age))
	}
	publish("1", 3*time.Hour)
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config = strings.Replace(config, "[store]\n", fmt.Sprintf("[store]\nmetadata = %q\npassword_file = %q\nquarantine_time = \"0s\"\n", url, password), 1)
	s := start(t, config)
	s.Ctl("sync")
	manifest := filepath.Join(s.Dir, "build.manifest")
	if err := os.WriteFile(manifest, []byte("app=1\nlib:amd64=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Ctl("freeze", "4.1", "--manifest", manifest)
	publish("2", 2*time.Hour)
	s.Ctl("sync")
	publish("3", time.Hour)
	s.Ctl("sync")
	s.Ctl("freeze", "5.0", "--all")

	// apt installs from both freezes and from a recording.
	install := func(ref, version string) {
		t.Helper()
		apt := debtest.NewApt(t, s.Ctl("sources", ref))
		apt.Run("apt-get", "update")
		apt.Run("apt-get", "install", "app="+version)
	}
	install("4.1", "1")
	install("5.0", "3")
	s.Ctl("record", "start", "build")
	install("build", "3")
	var rec api.Recording
	s.JSON(&rec, "record", "show", "build")
	if len(rec.Entries) != 2 {
		t.Errorf("recorded %+v, expected app and lib", rec.Entries)
	}

	s.Ctl("verify", "4.1", "--deep")
	s.Ctl("verify", "5.0", "--deep")
	var d api.Diff
	s.JSON(&d, "diff", "4.1", "5.0")
	if len(d.Upgraded) != 2 {
		t.Errorf("diff: %+v", d)
	}

	// Blobs that only the second snapshot refers to are collected.
	var list api.SnapshotList
	s.JSON(&list, "list")
	if len(list.Snapshots) != 3 {
		t.Fatalf("snapshots: %+v", list.Snapshots)
	}
	s.Ctl("rm", list.Snapshots[1].ID)
	var preview, collected api.GCResult
	s.JSON(&preview, "gc", "--dry-run")
	s.JSON(&collected, "gc")
	if collected.Blobs != preview.Blobs || collected.Blobs == 0 {
		t.Errorf("collected %+v, announced %+v", collected, preview)
	}
	s.Ctl("fsck")
	s.Ctl("verify", "5.0", "--deep")

	// A second snapd cannot use the data directory.
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(bin, "snapd"), "--config", s.Config).CombinedOutput(); err == nil || !strings.Contains(string(out), "another snapd is running") {
		t.Errorf("a second snapd: %v\n%s", err, out)
	}
	if out, err := s.Try("gc", "--explain", strings.Repeat("0", 64)); err != nil {
		t.Errorf("explain: %v\n%s", err, out)
	}
	away(t, s, db, bin)
	s.Stop()
	// A wrong password is refused and does not appear in the error.
	if err := os.WriteFile(password, []byte("wr0ng\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(bin, "snapd"), "--config", s.Config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "password authentication failed") || strings.Contains(string(out), "wr0ng") {
		t.Errorf("a wrong password: %v\n%s", err, out)
	}
}

// away kills the database, and then the database and snapd, and checks how snapd answers
// and recovers.
func away(t *testing.T, s *server, db *pgtest.Server, bin string) {
	t.Helper()
	frozen := "http://" + s.Addr + "/frozen/4.1/debian/dists/stable/Packages.absent"
	if code, _ := get(t, frozen); code != http.StatusNotFound {
		t.Errorf("an absent file: %d", code)
	}
	db.Stop(t, syscall.SIGKILL)
	if code, body := get(t, frozen); code != http.StatusServiceUnavailable {
		t.Errorf("without the database: %d %s, expected 503", code, body)
	}
	if _, err := s.Try("sync"); err == nil {
		t.Error("a sync without the database succeeded")
	}
	db.Run(t)
	s.Ctl("sync")
	s.Ctl("fsck")
	if code, _ := get(t, frozen); code != http.StatusNotFound {
		t.Errorf("an absent file after the database came back: %d", code)
	}

	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
	s.run(bin)
	s.Ctl("verify", "4.1", "--deep")
}
