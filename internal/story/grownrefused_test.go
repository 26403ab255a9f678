package story

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// What cannot work with several nodes is refused by one error that names the store and
// what was done there. Long because each case needs the same servers.
func TestGrownRefusals(t *testing.T) {
	needs.Programs(t, "faketime")
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "app", Version: "1", Body: []byte(noise(1 << 20))})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	c := newCluster(t, config)
	one := c.add("")
	one.Ctl("sync")
	one.Ctl("freeze", "4.1", "--all")
	credentials := s3test.CredentialsFile(t)
	store := func(database, blobs string) string {
		return strings.Replace(config, "[store]\n", fmt.Sprintf("[store]\nmetadata = %q\nblobs = %q\ncredentials_file = %q\n", database, blobs, credentials), 1)
	}
	place := c.srv.Location(c.bucket, "snapd")

	// refused starts snapd, and expects one error with words, which it returns.
	refused := func(what string, s *server, words ...string) (text string) {
		t.Helper()
		cmd := s.command()
		timeout := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		out, err := cmd.CombinedOutput()
		timeout.Stop()
		text = string(out)
		if n := strings.Count(text, "error: "); err == nil || n != 1 || strings.Contains(text, s3test.SecretKey) {
			t.Errorf("%s: %v, %d errors:\n%s", what, err, n, text)
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s: expected %q:\n%s", what, w, text)
			}
		}
		return text
	}

	for offset, words := range map[string]string{"+10m": "behind", "-10m": "ahead of"} {
		c.db.Stop(t, syscall.SIGINT)
		c.db.Offset(t, offset)
		c.db.Run(t)
		s := elsewhere(t, c.config)
		c.copyKeys(s)
		text := refused("the database's clock at "+offset, s, words+" the clock of the database in store.metadata", "at most 1m0s")
		// A busy machine takes a few seconds to read the clock.
		if !regexp.MustCompile(`it is (9|10)m[0-9]+s ` + words).MatchString(text) {
			t.Errorf("the database's clock at %s: expected about ten minutes:\n%s", offset, text)
		}
	}
	c.db.Stop(t, syscall.SIGINT)
	c.db.Offset(t, "")
	c.db.Run(t)

	// Servers that ignore what the store depends on.
	for header, words := range map[string]string{"If-None-Match": "the server ignores If-None-Match", "X-Amz-Checksum-Sha256": "x-amz-checksum-sha256 does not match its bytes"} {
		refused("no "+header, elsewhere(t, store(c.db.Database(t), c.srv.Ignoring(t, place, header))), "object store refused: s3://"+c.bucket, words)
	}
	refused("a bucket in use", elsewhere(t, store(c.db.Database(t), place)), "s3://"+c.bucket, "another installation uses it: object snapd/installation")

	newer := c.db.Database(t)
	pgtest.Exec(t, newer, "create table schema_version (version integer not null)", "insert into schema_version values (1000)")
	refused("a newer schema", elsewhere(t, store(newer, place)), "metadata postgres://", "schema 1000, this program knows")

	// Two names of the same host are two endpoints for the same bucket.
	grown := elsewhere(t, store(c.db.Database(t), strings.Replace(place, "127.0.0.1", "localhost", 1)))
	one.Stop()
	pgtest.Exec(t, c.database, "update node set seen = seen - interval '1 hour'")
	if _, err := one.migrateTo(grown); err == nil || !strings.Contains(err.Error(), "s3://"+c.bucket) || !strings.Contains(err.Error(), "the same bucket") {
		t.Errorf("a migration to the same bucket by another name: %v", err)
	}
	one.begin()

	// Credentials that expire while snapd runs: what needs the bucket fails by name, what is
	// there goes on, and everything works with new ones.
	one.expires(a, c)
}

// expires has the credentials of the bucket expire, and replaces them.
func (s *server) expires(a *debtest.Archive, c *cluster) {
	t := s.t
	t.Helper()
	c.srv.Decide(func(string, string) *s3test.Fault {
		return &s3test.Fault{Status: http.StatusBadRequest, Code: "ExpiredToken"}
	})
	a.Add(debtest.Package{Name: "late", Version: "1"})
	a.Publish(time.Now().UTC().Truncate(time.Second))
	_, err := s.Try("sync")
	if code(err) != api.ExitFailed || !strings.Contains(err.Error(), "blob store unavailable: store snapd/blobs/") || !strings.Contains(err.Error(), "s3://"+c.bucket) {
		t.Errorf("a sync with expired credentials: %v", err)
	}
	if status, _ := get(t, "http://"+s.Addr+"/frozen/4.1/manifest.json"); status != http.StatusOK {
		t.Errorf("a manifest that was served before: %d", status)
	}
	c.srv.Decide(nil)
	s.Ctl("sync")
	s.Ctl("fsck")
}
